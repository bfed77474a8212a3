"""A real sshd in a namespace, and real clients of it; it knows nothing of rules.

Keys, configuration and what the server trusts are made for a test and are gone with it.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import subprocess
import sys
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .ground import REPOSITORY, CommandError, Family, Ground, Namespace, end, wait_until_open

PROGRAMS = ("sshd", "ssh", "ssh-keygen")
PORT = 22
PRIVILEGES = Path("/run/sshd")  # where sshd(8) of Debian lets its unprivileged half live

CONFIG = """
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PidFile none
StrictModes no
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
PrintMotd no
PrintLastLog no
"""


@dataclass(slots=True)
class Session:
    """A client that is connected; what it is sent goes to the remote program."""

    child: subprocess.Popen[bytes]
    terminal: int
    said: str = ""

    def send(self, line: str) -> None:
        os.write(self.terminal, f"{line}\n".encode())

    def wait_for(self, text: str, patience_s: float = 30) -> str:
        """What was said up to a text and with it; CommandError where it is not said in time."""
        give_up = time.monotonic() + patience_s
        while text not in self.said:
            left_s = give_up - time.monotonic()
            if left_s < 0 or not self._heard(left_s):
                raise CommandError(f"waited in vain for {text!r}, heard was:\n{self.said}")
        before, _, self.said = self.said.partition(text)
        return before + text

    def is_silent(self, for_s: float) -> bool:
        """Whether nothing is said for so long."""
        return not select.select([self.terminal], [], [], for_s)[0]

    def _heard(self, patience_s: float) -> bool:
        if not select.select([self.terminal], [], [], patience_s)[0]:
            return False
        with suppress(OSError):  # EIO: the client has ended
            if data := os.read(self.terminal, 65536):
                self.said += data.decode(errors="replace").replace("\r\n", "\n")
                return True
        return False


@dataclass(frozen=True, slots=True)
class SecureShell:
    """A server in one namespace, and where its clients come from."""

    server: Namespace
    clients: Namespace
    address: str
    folder: Path
    environment: Mapping[str, str]
    program: Sequence[str] = (sys.executable, "-m", "policylang")

    def argv(self, command: str, *options: str) -> list[str]:
        """The command line of a client; options of ssh(1) hold before those that are usual here."""
        return [
            *("ssh", "-F", "none", "-i", str(self.folder / "client"), *options),
            *("-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={self.folder}/known"),
            *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20", "-p", str(PORT)),
            f"root@{self.address}",
            command,
        ]

    def policylang(self, *arguments: str) -> str:
        """The words by which a remote shell carries out a command of policylang."""
        assigned = [f"{name}={value}" for name, value in self.environment.items()]
        return shlex.join(("env", *assigned, *self.program, *arguments))

    def run(self, command: str, patience_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Carry out a command over a connection of its own."""
        return self.clients.run(self.argv(command, "-T"), patience_s, check=False)

    @contextmanager
    def session(self, command: str, *options: str) -> Iterator[Session]:
        """A client at a terminal; with `-tt` the remote program is at one too."""
        ours, theirs = pty.openpty()
        tty.setraw(theirs)  # it says nothing by itself
        inside = ["ip", "netns", "exec", self.clients.name, *self.argv(command, *options)]
        child = subprocess.Popen(
            inside, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        try:
            yield Session(child, ours)
        finally:
            end(child)
            os.close(ours)


@contextmanager
def secure_shell(
    laid: Ground, folder: Path, started_by: Sequence[str] = ()
) -> Iterator[SecureShell]:
    """A server on the firewall whose clients come from zone `wan`; it ends with the namespace.

    `started_by` is a command that the server's own is handed to.
    """
    for name in ("host", "client"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(key, check=True)
    config = folder / "sshd_config"
    config.write_text(CONFIG.format(port=PORT, folder=folder))
    PRIVILEGES.mkdir(mode=0o755, exist_ok=True)
    command = [*started_by, "/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
    server = laid.firewall.spawn(command)
    wait_until_open(laid.firewall, Family.IPV4, PORT, server)
    environment = {
        "PYTHONPATH": str(REPOSITORY),
        "POLICYLANG_STATE": str(folder / "state"),
        "XTABLES_LOCKFILE": str(folder / "lock"),
        **({"PYTHONPYCACHEPREFIX": sys.pycache_prefix} if sys.pycache_prefix else {}),
    }
    wan = laid["wan"]
    yield SecureShell(laid.firewall, wan.neighbour, wan.near.ipv4, folder, environment)
