"""Real servers and clients where the emulated ones stand elsewhere: started, asked, judged.

What a session shows has the form of an emulated conversation's outcome.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.kernel import ftp
from tests.kernel.ground import (
    CommandError,
    Family,
    Ground,
    Namespace,
    end,
    wait_until_open,
)

from . import irc, sip
from .places import Place
from .proof import MUST_PASS_S, Outcome
from .subjects import OTHERS, TELEPHONY, TRANSFER, Gap, Subject
from .talk import Flow, Line, Ports, SilenceError, Talk

PROGRAMS = (
    *ftp.PROGRAMS,
    "in.tftpd",
    "saned",
    "scanimage",
    "sipp",
    "ngircd",
    "nmbd",
    "nmblookup",
)

IMPATIENT_S = 1.7  # a program that asks again after a second
STARTS_S = 20.0

# A client's try, and whether it is expected to pass: what must fail gets little time.
Session: TypeAlias = Callable[[Line, Ports, bool], Outcome]


@dataclass(frozen=True, slots=True)
class Real:
    """A server program, and what is done with it.

    `serve` starts it in a namespace of a ground, with a folder of its own, and yields the session
    that a client has with it.
    """

    subject: Subject
    title: str
    peers: str
    serve: Callable[[Ground, Namespace, Path], AbstractContextManager[Session]]
    gaps: tuple[Gap, ...] = ()

    def gap(self, place: Place, family: Family) -> Gap | None:
        """What cannot be had at that place over that family, if so."""
        found = (g for g in self.gaps if place in g.places and family in g.families)
        return next(found, self.subject.gap(place, family))

    def tried(self, place: Place) -> tuple[Family, ...]:
        """The families over which it is tried at that place."""
        return tuple(f for f in self.subject.families if self.gap(place, f) is None)


def server_of(laid: Ground, place: Place) -> Namespace:
    """The namespace where the server runs at that place."""
    if place.is_published:
        return laid["lan"].neighbour
    return laid.firewall if place is Place.INBOUND else laid["wan"].neighbour


# --- files -----------------------------------------------------------------------------------


@contextmanager
def vsftpd(laid: Ground, namespace: Namespace, folder: Path) -> Iterator[Session]:
    """Transfers by curl, in each mode that suits the family."""

    def session(line: Line, port: Ports, must_pass: bool) -> Outcome:
        def transferred(mode: ftp.Mode) -> ftp.Outcome:
            client, address = line.client.namespace, line.dialled
            if must_pass:
                return ftp.passes(
                    client, address, server, mode, ftp.Client.CURL, dialled_port=port.dialled
                )
            return ftp.session(
                client,
                address,
                server,
                mode,
                ftp.Client.CURL,
                timeout_s=ftp.MUST_FAIL_S,
                dialled_port=port.dialled,
            )

        modes = [mode for mode in ftp.Mode if mode.suits(line.family)]
        with ThreadPoolExecutor() as pool:
            outcomes = list(pool.map(transferred, modes))
        return Outcome(
            tuple(Flow(m.value, o.is_ok) for m, o in zip(modes, outcomes, strict=True)),
            (),
            "\n".join(str(o) for o in outcomes if o.stage < ftp.Stage.NEGOTIATED),
        )

    with ftp.serving(namespace, ftp.Daemon.VSFTPD) as server:
        yield session


@contextmanager
def tftpd(laid: Ground, namespace: Namespace, folder: Path) -> Iterator[Session]:
    """A file fetched by curl."""
    content = "policylang\n" * 500  # eleven blocks
    (folder / "file").write_text(content)
    child = namespace.spawn(["in.tftpd", "-L", "-a", ":69", "-u", "root", "-s", str(folder)])

    def session(line: Line, port: Ports, must_pass: bool) -> Outcome:
        host = f"[{line.dialled}]" if line.family is Family.IPV6 else line.dialled
        patience_s = ftp.MUST_PASS_S if must_pass else IMPATIENT_S
        argv = ["curl", "--disable", "--silent", "--max-time", str(patience_s)]
        fetched = line.client.namespace.run(
            [*argv, "--output", "-", f"tftp://{host}:{port.dialled}/file"], check=False
        )
        passed = fetched.stdout == content
        return Outcome((Flow("the file", passed),), (), _unasked(laid, line, port))

    try:
        yield session
    finally:
        end(child)


@contextmanager
def saned(laid: Ground, namespace: Namespace, folder: Path) -> Iterator[Session]:
    """A test picture scanned by scanimage."""
    for name, texts in (
        ("server", {"saned.conf": "0.0.0.0/0\n[::]/0\n", "dll.conf": "test\n", "test.conf": ""}),
        ("client", {"dll.conf": "net\n", "net.conf": "connect_timeout = 2\n"}),
    ):
        (folder / name).mkdir()
        for file, text in texts.items():
            (folder / name / file).write_text(text)
    settings = {"SANE_CONFIG_DIR": str(folder / "server")}
    child = namespace.spawn(["saned", "-l", "-e"], env=settings)

    def session(line: Line, port: Ports, must_pass: bool) -> Outcome:
        host = f"[{line.dialled}]" if line.family is Family.IPV6 else line.dialled
        argv = ["scanimage", "--device-name", f"net:{host}:test:0", "--format", "pnm"]
        # Asked politely it waits for the scanner that it cannot reach.
        patience = str(MUST_PASS_S if must_pass else IMPATIENT_S)
        argv = ["timeout", "--signal", "KILL", patience, *argv]
        environment = {"SANE_CONFIG_DIR": str(folder / "client")}
        scanned = line.client.namespace.run(argv, check=False, env=environment)
        passed = scanned.stdout.startswith("P5")  # pnm(5): a grey picture
        return Outcome((Flow("the picture", passed),), (), _unasked(laid, line, port))

    try:
        wait_until_open(namespace, Family.IPV4, 6566, child)
        yield session
    finally:
        end(child)


# --- talk ------------------------------------------------------------------------------------


@contextmanager
def sipp(laid: Ground, namespace: Namespace, folder: Path) -> Iterator[Session]:
    """A call to SIPp, which sends back the media that it takes; the caller is emulated."""
    scenario = folder / "scenario.xml"
    scenario.write_text(SIPP_SCENARIO)
    children = []
    for family, media in SIPP_MEDIA.items():
        address = _own_address(laid, namespace, family)
        argv = ["sipp", "-sf", str(scenario), "-nostdin", "-i", address, "-p", "5060", "-rtp_echo"]
        children.append(namespace.spawn([*argv, "-mi", address, "-mp", str(media)]))

    def session(line: Line, port: Ports, must_pass: bool) -> Outcome:
        return _talked(sip.call_echoed, line, port)

    try:
        for family in Family:
            _wait_for_udp(namespace, family, 5060)
        yield session
    finally:
        for child in children:
            end(child)


# Every call is answered. SIPp's own scenario writes IPv6 addresses into `o=` with brackets, which
# RFC 4566 does not know, and the kernel drops what it cannot translate.
SIPP_SCENARIO = """\
<?xml version="1.0" encoding="ISO-8859-1" ?>
<scenario name="answer">
  <recv request="INVITE" crlf="true"/>
  <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]SIPpTag01[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Contact: <sip:[local_ip]:[local_port];transport=[transport]>
    Content-Type: application/sdp
    Content-Length: [len]

    v=0
    o=user1 53655765 2353687637 IN IP[media_ip_type] [media_ip]
    s=-
    c=IN IP[media_ip_type] [media_ip]
    t=0 0
    m=audio [media_port] RTP/AVP 0
    a=rtpmap:0 PCMU/8000
  ]]></send>
</scenario>
"""
SIPP_MEDIA = {Family.IPV4: 6000, Family.IPV6: 6100}


@contextmanager
def ngircd(laid: Ground, namespace: Namespace, folder: Path) -> Iterator[Session]:
    """Two users on ngIRCd: one offers a chat, the other, on the server's machine, takes it."""
    settings = folder / "ngircd.conf"
    settings.write_text(
        "[Global]\nName = irc.example\nInfo = test\nAdminEMail = root@irc.example\n"
        "Ports = 6667\nServerUID = nobody\nServerGID = nogroup\n"
        "[Limits]\nMaxConnectionsIP = 0\n"
        "[Options]\nDNS = no\nIdent = no\nPAM = no\nChrootDir =\n"
    )
    settings.chmod(0o644)
    child = namespace.spawn(["ngircd", "--nodaemon", "--config", str(settings)])

    def session(line: Line, port: Ports, must_pass: bool) -> Outcome:
        return _talked(irc.relayed, line, port)

    try:
        wait_until_open(namespace, Family.IPV4, 6667, child)
        yield session
    finally:
        end(child)


# --- names -----------------------------------------------------------------------------------


@contextmanager
def nmbd(laid: Ground, namespace: Namespace, folder: Path) -> Iterator[Session]:
    """A name of Samba's nmbd, asked for by nmblookup."""
    lines = ["netbios name = PRINTER", "local master = no", "disable spoolss = yes"]
    for setting in ("lock", "state", "cache", "pid", "ncalrpc", "private"):
        (folder / setting).mkdir()
        word = "dir" if setting in ("ncalrpc", "private") else "directory"
        lines.append(f"{setting} {word} = {folder / setting}")
    settings = folder / "smb.conf"
    settings.write_text("[global]\n" + "\n".join([*lines, f"log file = {folder / 'log'}", ""]))
    settings_option = ["--configfile", str(settings)]
    child = namespace.spawn(["nmbd", "--foreground", "--no-process-group", *settings_option])

    def finds(asker: Namespace, *where: str) -> bool:
        argv = ["nmblookup", *settings_option, *where, "PRINTER"]
        return asker.run(argv, check=False).returncode == 0

    def session(line: Line, port: Ports, must_pass: bool) -> Outcome:
        everybody = line.server.address.rpartition(".")[0] + ".255"
        passed = finds(line.client.namespace, "--broadcast", everybody)
        return Outcome((Flow("the address", passed),), (), _unasked(laid, line, port))

    try:
        own = _own_address(laid, namespace, Family.IPV4)
        _wait(lambda: finds(namespace, "--unicast", own), "nmbd to take its name")
        yield session
    finally:
        end(child)


# --- what the sessions share -----------------------------------------------------------------


def _talked(conversation: Callable[[Talk], Iterator[Flow]], line: Line, port: Ports) -> Outcome:
    talk = Talk(line, port)
    flows: list[Flow] = []
    try:
        flows += conversation(talk)
    except SilenceError as silence:
        return Outcome(tuple(flows), (), str(silence))
    finally:
        talk.close()
    return Outcome(tuple(flows), tuple(talk.surprises))


def _unasked(laid: Ground, line: Line, port: Ports) -> str:
    """What speaks against the question having passed the firewall: nothing, as it should be.

    Conntrack lists a connection once its first packet has passed every rule.
    """
    listed = ["conntrack", "-L", "-f", line.family.name.lower()]
    table = laid.firewall.run(listed, check=False).stdout
    return "" if f" dport={port.dialled} " in table else f"no connection to {port.dialled}: {table}"


def _own_address(laid: Ground, namespace: Namespace, family: Family) -> str:
    for segment in laid.segments.values():
        if namespace is segment.neighbour:
            return segment.far.of(family)
    return laid["wan"].near.of(family)


def _wait_for_udp(namespace: Namespace, family: Family, port: int) -> None:
    """Wait until something is bound to the port."""
    table = "udp" if family is Family.IPV4 else "udp6"

    def is_bound() -> bool:
        with namespace.entered():
            return f":{port:04X} " in Path(f"/proc/thread-self/net/{table}").read_text()

    _wait(is_bound, f"a server on UDP port {port}")


def _wait(is_so: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + STARTS_S
    while not is_so():
        if time.monotonic() > give_up:
            raise CommandError(f"waited in vain for {what}")
        time.sleep(0.02)


# --- what is tried ---------------------------------------------------------------------------

FTP, TFTP, _AMANDA, SANE = TRANSFER
SIP = TELEPHONY[0]
IRC, _PPTP, NAMES, _SNMP = OTHERS

REAL = (
    Real(FTP, "a transfer in each mode", "vsftpd; curl", vsftpd),
    Real(TFTP, "a file fetched", "tftpd-hpa; curl", tftpd),
    Real(
        SANE,
        "a picture scanned",
        "saned; scanimage",
        saned,
        (
            Gap(
                (Place.DNAT_PORT,),
                tuple(Family),
                "scanimage knows no other port than 6566",
                is_tried=False,
            ),
        ),
    ),
    Real(SIP, "a call, and the media sent back", "SIPp; an emulated phone", sipp),
    Real(IRC, "a chat (DCC) offered to another user", "ngIRCd; emulated users", ngircd),
    Real(NAMES, "a name asked for by broadcast", "Samba's nmbd; nmblookup", nmbd),
)
