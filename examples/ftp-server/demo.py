"""Real FTP through the policy beside this file; `make demo` runs it.

A server and a client are laid in network namespaces of their own, with one wire between them.
The client transfers a file in each mode, over IPv4 and IPv6, and knocks at a port that listens
but is not in the policy: without a firewall, behind the policy on both targets, and behind the
same policy with `tcp 21` in place of `ftp`, which shows what the helper is good for.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from tests.kernel import ftp  # noqa: E402  the test ground is no installed package
from tests.kernel.ground import (  # noqa: E402
    Addresses,
    CommandError,
    Family,
    Loader,
    Namespace,
    Reach,
    obstacle,
    policylang,
    probe_tcp,
)

POLICY = HERE / "ftp-server.policy"
INTERFACE = "eth0"  # as the policy calls it

SERVER = Addresses("192.0.2.1", "2001:db8:2::1")
CLIENT = Addresses("192.0.2.2", "2001:db8:2::2")
CLOSED_PORT = 8080  # something listens there, and the policy does not speak of it

TRANSFERS = (
    ("passive, IPv4 (PASV)", Family.IPV4, ftp.Mode.PASV),
    ("active, IPv4 (PORT)", Family.IPV4, ftp.Mode.PORT),
    ("passive, IPv6 (EPSV)", Family.IPV6, ftp.Mode.EPSV),
    ("active, IPv6 (EPRT)", Family.IPV6, ftp.Mode.EPRT),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A firewall on the server (none where `loader` is None), and what must come of it."""

    title: str
    loader: Loader | None
    has_helper: bool
    transfers_pass: bool
    port_is_open: bool


SCENES = (
    Scene("no firewall", None, False, transfers_pass=True, port_is_open=True),
    Scene("nftables", Loader.NFT, True, transfers_pass=True, port_is_open=False),
    Scene("iptables", Loader.IPTABLES_NFT, True, transfers_pass=True, port_is_open=False),
    Scene("no helper", Loader.NFT, False, transfers_pass=False, port_is_open=False),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of one attempt: a word for the table, and the whole story if it is wrong."""

    what: str
    word: str
    is_right: bool
    story: str


def main() -> int:
    """Show the table; 1 where anything is not as it should be, 2 where nothing can be shown."""
    reason = obstacle("curl")
    if reason is not None:
        print(f"the demonstration cannot run: {reason}", file=sys.stderr)
        return 2
    started = time.monotonic()
    print(f"{POLICY.name}\n")
    for line in POLICY.read_text().splitlines():
        print(f"    {line}".rstrip())
    columns: list[list[Seen]] = []
    daemon = ""
    for scene in SCENES:
        progress(f"{scene.title} …")
        with wired() as (server, client), tempfile.TemporaryDirectory() as folder:
            # What is applied here is not recorded in the machine's own folder.
            os.environ["POLICYLANG_STATE"] = folder
            daemon, column = shown(scene, server, client, Path(folder))
        columns.append(column)
    progress("")
    print()
    print_table(columns)
    wrong = [
        (scene, seen)
        for scene, column in zip(SCENES, columns, strict=True)
        for seen in column
        if not seen.is_right
    ]
    print(
        f"\n{daemon}, curl, {ftp.FILE_BYTES:,} random bytes a transfer, every byte compared. "
        f"Something listens on tcp {CLOSED_PORT}.\n"
        f"`no helper` is the same policy with `tcp 21` in place of `ftp`: the login works, "
        "transfers do not."
    )
    for scene, seen in wrong:
        print(f"\nWRONG: {scene.title}, {seen.what}: {seen.word}\n{seen.story}")
    verdict = f"{len(wrong)} things are not as they should be" if wrong else "all as it should be"
    print(f"\n{verdict} ({time.monotonic() - started:.0f} s)")
    return 1 if wrong else 0


@contextmanager
def wired() -> Iterator[tuple[Namespace, Namespace]]:
    """A server and a client with a wire between them; all of it is gone afterwards."""
    server = Namespace.create("server")
    try:
        client = Namespace.create("client")
        try:
            server.ip(f"link add {INTERFACE} type veth peer name {INTERFACE} netns {client.name}")
            for namespace, addresses in ((server, SERVER), (client, CLIENT)):
                namespace.ip(
                    f"addr add {addresses.ipv4}/24 dev {INTERFACE}",
                    f"addr add {addresses.ipv6}/64 dev {INTERFACE} nodad",
                    f"link set {INTERFACE} up",
                )
            yield server, client
        finally:
            client.delete()
    finally:
        server.delete()


def shown(
    scene: Scene, server: Namespace, client: Namespace, folder: Path
) -> tuple[str, list[Seen]]:
    """What came of every attempt in a scene, and which daemon served."""
    if scene.loader is not None:
        policylang(
            "apply",
            "--yes",
            str(POLICY if scene.has_helper else without_helper(folder)),
            "--netns",
            server.name,
            *scene.loader.options,
            directory=folder,
        )
    with daemon_of(server) as (name, served):
        seen = [
            transferred(scene, client, served, what, family, mode)
            for what, family, mode in TRANSFERS
        ]
    return name, [*seen, *(knocked(scene, server, client, family) for family in Family)]


def without_helper(folder: Path) -> Path:
    """The policy with the port alone where the service was."""
    policy = folder / "no-helper.policy"
    text = POLICY.read_text()
    assert "allow ftp," in text
    policy.write_text(text.replace("allow ftp,", "allow tcp 21,"))
    return policy


@contextmanager
def daemon_of(server: Namespace) -> Iterator[tuple[str, ftp.Server]]:
    """vsftpd, or the test's own server where vsftpd is not installed."""
    daemon = ftp.Daemon.VSFTPD if shutil.which("vsftpd") else ftp.Daemon.PYFTPDLIB
    with ftp.serving(server, daemon) as served:
        yield daemon.value, served


def transferred(
    scene: Scene,
    client: Namespace,
    served: ftp.Server,
    what: str,
    family: Family,
    mode: ftp.Mode,
) -> Seen:
    """Fetch the file: patiently where it must pass, briefly where it must not."""
    address = SERVER.of(family)
    if scene.transfers_pass:
        outcome = ftp.passes(client, address, served, mode, ftp.Client.CURL)
        is_right = outcome.is_ok
    else:
        outcome = ftp.session(
            client, address, served, mode, ftp.Client.CURL, timeout_s=ftp.MUST_FAIL_S
        )
        is_right = ftp.Stage.LOGGED_IN <= outcome.stage < ftp.Stage.TRANSFERRED
    if outcome.is_ok:
        word = "transferred"
    else:
        word = "login only" if outcome.stage >= ftp.Stage.LOGGED_IN else "no login"
    return Seen(what, word, is_right, str(outcome))


def knocked(scene: Scene, server: Namespace, client: Namespace, family: Family) -> Seen:
    """Connect to a port where something listens."""
    with server.listen(family, CLOSED_PORT):
        reach = probe_tcp(client, SERVER.of(family), CLOSED_PORT)
    is_right = reach is (Reach.OPEN if scene.port_is_open else Reach.TIMEOUT)
    word = {Reach.OPEN: "open", Reach.TIMEOUT: "closed"}.get(reach, reach.value)
    return Seen(f"tcp {CLOSED_PORT}, IPv{family.value}", word, is_right, "")


def progress(text: str) -> None:
    """Show what is going on, where somebody watches."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


def print_table(columns: list[list[Seen]]) -> None:
    """Print a row for each attempt and a column for each scene; what is wrong has a `!`."""
    print(f"{'':<24}" + "".join(f"{scene.title:<14}" for scene in SCENES).rstrip())
    for row in zip(*columns, strict=True):
        cells = (seen.word + ("" if seen.is_right else " !") for seen in row)
        print(f"{row[0].what:<24}" + "".join(f"{cell:<14}" for cell in cells).rstrip())


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CommandError as error:
        print(f"\nthe demonstration failed: {error}", file=sys.stderr)
        sys.exit(1)
