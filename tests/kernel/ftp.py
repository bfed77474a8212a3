"""Real FTP: two servers, three clients, and a client that abuses PORT.

It says what became of a transfer, never what a firewall should have done with it.
"""

from __future__ import annotations

import ftplib
import io
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, IntEnum
from pathlib import Path

from .ground import REPOSITORY, Family, Namespace, end, family_of, wait_until_open

PROGRAMS = ("vsftpd", "curl", "lftp")

FILE = "file.bin"
FILE_BYTES = 150_000  # more than one segment and more than one window
INCOMING = "incoming"  # the folder that takes uploads

MUST_PASS_S = 6.0  # what a transfer may need on a busy machine
MUST_FAIL_S = 1.7  # a log-in, a SYN and the first repetition of it one second later
LURED_S = 0.7  # within a hundredth of it a lured server has connected

EPHEMERAL = (32768, 60999)  # net.ipv4.ip_local_port_range


class Mode(Enum):
    """How client and server agree on the data connection: RFC 959 and RFC 2428."""

    PASV = "PASV"
    EPSV = "EPSV"
    PORT = "PORT"
    EPRT = "EPRT"

    @property
    def is_passive(self) -> bool:
        """Whether the client opens the data connection."""
        return self in (Mode.PASV, Mode.EPSV)

    def suits(self, family: Family) -> bool:
        """PASV and PORT have no room for an IPv6 address."""
        return family is Family.IPV4 or self in (Mode.EPSV, Mode.EPRT)


class Client(Enum):
    """The program that transfers."""

    CURL = "curl"
    LFTP = "lftp"
    FTPLIB = "ftplib"

    def speaks(self, mode: Mode, family: Family) -> bool:
        """Whether it can be told to use this mode; lftp keeps EPSV and EPRT for IPv6."""
        if self is Client.LFTP and family is Family.IPV4:
            return mode in (Mode.PASV, Mode.PORT)
        return mode.suits(family)


class Direction(Enum):
    """Where the bytes go."""

    DOWNLOAD = "download"
    UPLOAD = "upload"


# --- servers ---------------------------------------------------------------------------------


class Daemon(Enum):
    """The server program."""

    VSFTPD = "vsftpd"
    PYFTPDLIB = "pyftpdlib"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs: where it keeps its files, and what is in the one it offers."""

    daemon: Daemon
    port: int
    root: Path
    content: bytes

    def uploaded(self, name: str) -> bytes | None:
        """Return what arrived under that name, if anything did."""
        file = self.root / INCOMING / name
        return file.read_bytes() if file.exists() else None


@contextmanager
def serving(
    namespace: Namespace,
    daemon: Daemon,
    port: int = 21,
    passive: tuple[int, int] = EPHEMERAL,
) -> Iterator[Server]:
    """Serve a random file to anonymous clients of both families, and take uploads from them.

    `passive` is the range, ends included, of the ports that PASV and EPSV hand out.
    """
    # Not below pytest's folder, which is closed to the user that vsftpd runs as.
    with tempfile.TemporaryDirectory(prefix="pl-ftp-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        content = secrets.token_bytes(FILE_BYTES)
        (root / FILE).write_bytes(content)
        (root / FILE).chmod(0o644)
        (root / INCOMING).mkdir()
        (root / INCOMING).chmod(0o777)
        match daemon:
            case Daemon.VSFTPD:
                settings = _vsftpd_settings(root, port, passive)
                with tempfile.NamedTemporaryFile("w", prefix="pl-vsftpd-") as file:
                    file.write(settings)
                    file.flush()
                    child = namespace.spawn(["vsftpd", file.name])
                    wait_until_open(namespace, Family.IPV4, port, child)
            case Daemon.PYFTPDLIB:
                low, high = passive
                module = f"{__package__}.pyftpd"
                words = [str(root), str(port), str(low), str(high)]
                child = namespace.spawn(
                    [sys.executable, "-m", module, *words], env={"PYTHONPATH": str(REPOSITORY)}
                )
                wait_until_open(namespace, Family.IPV4, port, child)
                wait_until_open(namespace, Family.IPV6, port, child)
        try:
            yield Server(daemon, port, root, content)
        finally:
            end(child)


def _vsftpd_settings(root: Path, port: int, passive: tuple[int, int]) -> str:
    low, high = passive
    return "\n".join(
        (
            "background=NO",
            "listen=NO",
            "listen_ipv6=YES",
            f"listen_port={port}",
            "connect_from_port_20=YES",
            f"pasv_min_port={low}",
            f"pasv_max_port={high}",
            "anonymous_enable=YES",
            "local_enable=NO",
            "no_anon_password=YES",
            f"anon_root={root}",
            "write_enable=YES",
            "anon_upload_enable=YES",
            "anon_umask=022",
            "xferlog_enable=NO",
            # Namespaces and a seccomp filter of its own per session: slow, and refused in some
            # containers.
            "isolate=NO",
            "isolate_network=NO",
            "seccomp_sandbox=NO",
            f"secure_chroot_dir={_empty_folder(root)}",
            "",
        )
    )


def _empty_folder(root: Path) -> Path:
    folder = root / "empty"
    folder.mkdir(mode=0o755)
    return folder


# --- sessions --------------------------------------------------------------------------------


class Stage(IntEnum):
    """How far a session came."""

    NOWHERE = 0
    LOGGED_IN = 1
    NEGOTIATED = 2  # the data connection was agreed on, and that is all that came of it
    TRANSFERRED = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a session, and the conversation that led there."""

    stage: Stage
    reason: str
    transcript: str

    @property
    def is_ok(self) -> bool:
        """Whether every byte arrived, in the mode that was asked for."""
        return self.stage is Stage.TRANSFERRED

    def __str__(self) -> str:
        return f"{self.stage.name.lower()}: {self.reason}\n{self.transcript}"


@dataclass(frozen=True, slots=True)
class _Taken:
    """What a client program brought home: the conversation, and the bytes of a download."""

    transcript: str
    content: bytes
    complaint: str  # empty where the program was content


def session(
    client: Namespace,
    address: str,
    server: Server,
    mode: Mode,
    via: Client,
    *,
    direction: Direction = Direction.DOWNLOAD,
    timeout_s: float = MUST_PASS_S,
    dialled_port: int | None = None,
) -> Outcome:
    """Log in, transfer a random file and compare the bytes.

    `dialled_port` is the port that the client asks for where it is not the server's own.
    """
    family = family_of(address)
    if not via.speaks(mode, family):
        raise ValueError(f"{via.value} cannot do {mode.value} over {family.name}")
    name = FILE if direction is Direction.DOWNLOAD else f"{secrets.token_hex(8)}.bin"
    sent = b"" if direction is Direction.DOWNLOAD else secrets.token_bytes(FILE_BYTES)
    order = _Order(
        client, address, dialled_port or server.port, mode, direction, name, sent, timeout_s
    )
    match via:
        case Client.CURL:
            taken = _curl(order)
        case Client.LFTP:
            taken = _lftp(order)
        case Client.FTPLIB:
            taken = _ftplib(order)
    return _judge(order, server, taken)


def passes(
    client: Namespace,
    address: str,
    server: Server,
    mode: Mode,
    via: Client,
    *,
    direction: Direction = Direction.DOWNLOAD,
    dialled_port: int | None = None,
) -> Outcome:
    """Return the outcome of a session that is expected to pass: patiently, with one retry."""
    outcome: Outcome | None = None
    for _ in range(2):
        outcome = session(
            client, address, server, mode, via, direction=direction, dialled_port=dialled_port
        )
        if outcome.is_ok:
            break
    assert outcome is not None
    return outcome


@dataclass(frozen=True, slots=True)
class _Order:
    client: Namespace
    address: str
    port: int
    mode: Mode
    direction: Direction
    name: str
    sent: bytes
    timeout_s: float

    @property
    def path(self) -> str:
        return self.name if self.direction is Direction.DOWNLOAD else f"{INCOMING}/{self.name}"

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"ftp://{host}:{self.port}"


# What a client sends before a transfer, in each client's way of telling it.
_NEGOTIATION = re.compile(r"^(?:>|--->) (PASV|EPSV|PORT|EPRT)\b", re.MULTILINE)
_LOGGED_IN = re.compile(r"^(?:<|<---) 230\b", re.MULTILINE)


def _judge(order: _Order, server: Server, taken: _Taken) -> Outcome:
    def outcome(stage: Stage, reason: str) -> Outcome:
        return Outcome(stage, reason, taken.transcript)

    if not _LOGGED_IN.search(taken.transcript):
        return outcome(Stage.NOWHERE, taken.complaint or "no login")
    used = _NEGOTIATION.findall(taken.transcript)
    if used[:1] != [order.mode.value]:
        return outcome(Stage.LOGGED_IN, f"asked for {order.mode.value}, used {used}")
    if taken.complaint:
        return outcome(Stage.NEGOTIATED, taken.complaint)
    if len(used) > 1:
        return outcome(Stage.NEGOTIATED, f"asked for {order.mode.value}, and then used {used}")
    if order.direction is Direction.DOWNLOAD:
        arrived, wanted = taken.content, server.content
    else:
        arrived, wanted = server.uploaded(order.name) or b"", order.sent
    if arrived != wanted:
        return outcome(Stage.NEGOTIATED, f"{len(arrived)} bytes of {len(wanted)}, or other ones")
    return outcome(Stage.TRANSFERRED, "ok")


def _curl(order: _Order) -> _Taken:
    patience = str(order.timeout_s)
    flags = {
        Mode.PASV: ("--disable-epsv",),
        Mode.EPSV: (),
        Mode.PORT: ("--ftp-port", "-", "--disable-eprt"),
        Mode.EPRT: ("--ftp-port", "-"),
    }[order.mode]
    # `--disable` keeps a ~/.curlrc out, and only as the first of all.
    argv = ["curl", "--disable", "--silent", "--show-error", "--verbose", "--noproxy", "*"]
    argv += [
        "--user",
        "anonymous:pl@example",
        "--connect-timeout",
        patience,
        "--max-time",
        patience,
        *flags,
    ]
    if order.direction is Direction.UPLOAD:
        argv += ["--upload-file", "-"]
    return _program(order, [*argv, f"{order.url}/{order.path}"])


def _lftp(order: _Order) -> _Taken:
    settings = {
        "ftp:passive-mode": "yes" if order.mode.is_passive else "no",
        "ftp:ssl-allow": "no",
        "ftp:use-feat": "no",
        "ftp:use-size": "no",
        "ftp:use-mdtm": "no",
        "ftp:sync-mode": "yes",
        "net:timeout": str(order.timeout_s),
        "net:max-retries": "1",
        "net:persist-retries": "0",
        "cmd:fail-exit": "yes",
    }
    with tempfile.TemporaryDirectory(prefix="pl-lftp-") as folder:
        file = Path(folder, "content")
        if order.direction is Direction.UPLOAD:
            file.write_bytes(order.sent)
            transfer = f"put {file} -o {order.path}"
        else:
            transfer = f"get {order.path} -o {file}"
        script = [f"set {name} {value}" for name, value in settings.items()]
        script += ["debug 5", f"open -u anonymous,pl@example {order.url}", transfer, "bye"]
        taken = _program(order, ["lftp", "--norc", "-c", "; ".join(script)], home=folder)
        content = file.read_bytes() if file.exists() else b""
    return _Taken(taken.transcript, content, taken.complaint)


def _program(order: _Order, argv: list[str], home: str | None = None) -> _Taken:
    environment = {**os.environ, "LC_ALL": "C"}
    if home is not None:
        environment |= {"HOME": home, "LFTP_HOME": home}
    running = subprocess.Popen(
        ["ip", "netns", "exec", order.client.name, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    with running:
        try:
            out, err = running.communicate(order.sent, timeout=order.timeout_s + 1)
            complaint = f"{argv[0]} ended with {running.returncode}" * (running.returncode != 0)
        except subprocess.TimeoutExpired:
            running.kill()
            out, err = running.communicate()
            complaint = f"{argv[0]} was still waiting after {order.timeout_s + 1:g} s"
    transcript = err.decode(errors="replace").replace("\r", "")
    return _Taken(transcript, out, complaint)


class _Talker(ftplib.FTP):
    """ftplib with a mode of our choice for either family, and a record of what was said."""

    mode: Mode
    said: list[str]

    def __init__(self, mode: Mode) -> None:
        super().__init__()
        self.mode = mode
        self.said = []
        self.set_pasv(mode.is_passive)

    def putline(self, line: str) -> None:
        self.said.append(f"> {line}")
        super().putline(line)

    def getline(self) -> str:
        line = super().getline()
        self.said.append(f"< {line}")
        return line

    def makepasv(self) -> tuple[str, int]:
        if self.mode is Mode.EPSV:
            assert self.sock is not None
            return ftplib.parse229(self.sendcmd("EPSV"), self.sock.getpeername())
        return super().makepasv()

    def sendport(self, host: str, port: int) -> str:
        return self.sendeprt(host, port) if self.mode is Mode.EPRT else super().sendport(host, port)


def _ftplib(order: _Order) -> _Taken:
    talker = _Talker(order.mode)
    received = io.BytesIO()
    complaint = ""
    with order.client.entered():
        try:
            talker.connect(order.address, order.port, timeout=order.timeout_s)
            talker.login()
            if order.direction is Direction.UPLOAD:
                talker.storbinary(f"STOR {order.path}", io.BytesIO(order.sent))
            else:
                talker.retrbinary(f"RETR {order.path}", received.write)
        except (OSError, EOFError, ftplib.Error) as error:
            complaint = f"{type(error).__name__}: {error}"
        finally:
            talker.close()
    return _Taken("\n".join(talker.said), received.getvalue(), complaint)


# --- attacks ---------------------------------------------------------------------------------


@contextmanager
def logged_in(client: Namespace, address: str, port: int = 21) -> Iterator[ftplib.FTP]:
    """Yield a control connection after its login: the conntrack helper reads no first line."""
    with client.entered():
        control = ftplib.FTP()
        control.connect(address, port, timeout=MUST_PASS_S)
    try:
        control.login()
        yield control
    finally:
        control.close()


def lured(
    control: ftplib.FTP, victim: Namespace, address: str, port: int, timeout_s: float = LURED_S
) -> bool:
    """Send a PORT or EPRT that names `address` and `port` of the victim.

    Return whether a connection then arrives there. The server must be pyftpdlib, which connects
    on the PORT itself, and answers it only when it is connected.
    """
    family = family_of(address)
    with victim.listen(family, port) as listener:
        listener.settimeout(timeout_s)
        if family is Family.IPV4:
            numbers = [*address.split("."), str(port // 256), str(port % 256)]
            control.putcmd("PORT " + ",".join(numbers))
        else:
            control.putcmd(f"EPRT |2|{address}|{port}|")
        try:
            arrived, _ = listener.accept()
        except TimeoutError:
            return False
        arrived.close()
        return True
