"""Helpers as a weapon: what a hostile peer can make them open through a policy, and how far.

Each attack is tried three times over: through what the policy compiles to, where it fails; through
rules written by hand that accept RELATED wholesale, where it succeeds; and beside a data connection
that the policy means to let through, so that nothing fails because the helper does not work.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from itertools import product

import pytest

from .ground import Family, Loader, Namespace, load_nft
from .mirror import MUST_FAIL_S, MUST_PASS_S, Seen, look
from .router import Router, router

FTP, HTTP, IRC = 21, 80, 6667
# What the victims offer to those who may have it.
LOW, FORM, SERVICE, DATA, FIRST, WEB, CHAT = PORTS = (22, 110, 2222, 40001, 40002, 40003, 40004)


# --- what is said ----------------------------------------------------------------------------

LOGIN = b"USER anonymous\r\n"
# What a page in a browser sends to a server of its author's choice; the rest is a segment more.
REQUEST = b"POST / HTTP/1.1\r\nHost: hostile.example\r\nContent-Length: 64\r\n\r\n"

_NUMBERS = re.compile(rb"(\d+),(\d+),(\d+),(\d+),(\d+),(\d+)")
_EXTENDED = re.compile(rb"\|\d?\|([^|]*)\|(\d+)\|")


class Said(Enum):
    """What the victim is made to send, before the line that names a port of its own."""

    LINE = "a line of the session"
    FORM = "a form that is posted to the FTP port"
    WEB = "a form that is posted to the web port"
    FIRST = "nothing"
    ECHO = "an echo of the client's words, by a server"

    @property
    def port(self) -> int:
        """Where the connection goes that carries it."""
        return HTTP if self is Said.WEB else FTP

    @property
    def before(self) -> bytes:
        """What goes before."""
        match self:
            case Said.LINE | Said.ECHO:
                return LOGIN
            case Said.FORM | Said.WEB:
                return REQUEST
            case Said.FIRST:
                return b""


@dataclass(frozen=True, slots=True)
class Lure:
    """A line that names a port of the victim, and whether what it announces may come to pass.

    `is_open_to_all` is what becomes of it where RELATED is accepted wholesale.
    """

    said: Said
    port: int
    is_let_through: bool = False
    is_open_to_all: bool = True

    def line(self, family: Family, address: str) -> bytes:
        """PORT or EPRT of a client; 227 or 229 of a server (RFC 959, RFC 2428)."""
        if family is Family.IPV4:
            numbers = f"{address.replace('.', ',')},{self.port // 256},{self.port % 256}"
            text = (
                f"227 Entering Passive Mode ({numbers})"
                if self.said is Said.ECHO
                else f"PORT {numbers}"
            )
        elif self.said is Said.ECHO:
            text = f"229 Entering Extended Passive Mode (|||{self.port}|)"
        else:
            text = f"EPRT |2|{address}|{self.port}|"
        return text.encode() + b"\r\n"


def heard_of(line: bytes, family: Family, dialled: str) -> tuple[str, int]:
    """The address and port that a line names, as it arrived at the other end."""
    if family is Family.IPV4:
        found = _NUMBERS.search(line)
        assert found is not None, line
        numbers = [int(number) for number in found.groups()]
        return ".".join(map(str, numbers[:4])), numbers[4] * 256 + numbers[5]
    found = _EXTENDED.search(line)
    assert found is not None, line
    return found[1].decode() or dialled, int(found[2])


# --- who says it -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """A machine, and the address that it knows itself by."""

    machine: Namespace
    name: str
    address: str


def succeeds(lure: Lure, family: Family, victim: End, hostile: End, dialled: str) -> bool:
    """Let the victim say the line, and the hostile peer connect to what it names.

    A client says it to the hostile server, a server to the hostile client; `dialled` is the
    address of the server as the client knows it.
    """
    server, client = (victim, hostile) if lure.said is Said.ECHO else (hostile, victim)
    with connected(family, server, client, dialled, lure.said.port) as (accepted, opened):
        speaker, hearer = (accepted, opened) if server is victim else (opened, accepted)
        if lure.said.before:
            carry(speaker, hearer, lure.said.before)
        line = carry(speaker, hearer, lure.line(family, victim.address), is_changed=True)
        target, port = heard_of(line, family, dialled)
        patience_s = MUST_PASS_S if lure.is_let_through else MUST_FAIL_S
        outcome = look(hostile.machine, target, port, patience_s=patience_s)
    if isinstance(outcome, Seen):
        assert outcome.server == victim.name
        return True
    return False


_one_listens = threading.Lock()  # on each port, so that everybody meets whom it means to


@contextmanager
def connected(
    family: Family, server: End, client: End, dialled: str, port: int
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The server's and the client's end of a connection."""
    with ExitStack() as stack:
        opened = stack.enter_context(client.machine.opened(family, socket.SOCK_STREAM))
        with _one_listens, server.machine.opened(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((server.address, port))
            listener.listen()
            for one in (listener, opened):
                one.settimeout(MUST_PASS_S)
            opened.connect((dialled, port))
            accepted = stack.enter_context(listener.accept()[0])
        for one in (accepted, opened):
            one.settimeout(MUST_PASS_S)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield accepted, opened


def carry(
    speaker: socket.socket, hearer: socket.socket, said: bytes, *, is_changed: bool = False
) -> bytes:
    """Say something in a segment of its own, and return it as it is heard."""
    speaker.sendall(said)
    heard = hearer.recv(4096)
    assert is_changed or heard == said
    return heard


# --- where the victim is ---------------------------------------------------------------------

CLIENT = (
    Lure(Said.LINE, LOW),
    Lure(Said.FORM, FORM),
    Lure(Said.WEB, WEB),
    # The helper reads no first line, whatever the rules are.
    Lure(Said.FIRST, FIRST, is_open_to_all=False),
    Lure(Said.LINE, DATA, is_let_through=True),
)
# Of this host itself as the client, the ephemeral range alone is reached.
OWN_CLIENT = (*CLIENT, Lure(Said.LINE, SERVICE))
SERVER = (Lure(Said.ECHO, LOW), Lure(Said.ECHO, DATA, is_let_through=True))
# A server that says which ports it hands out has no others reached.
NARROW_SERVER = (*SERVER, Lure(Said.ECHO, SERVICE))
NARROW = "service ftp-narrow { tcp 21 helper ftp data 40000-40100 }\n"
CLOSED = "default deny outbound\n"


@dataclass(frozen=True, slots=True)
class Place:
    """What the firewall is to the victim; `nat` are the statements of a nat table by hand."""

    policy: str
    lures: tuple[Lure, ...]
    is_self: bool = False
    is_behind_nat: bool = False  # the peer knows the victim by the router's address
    nat: str = ""


MASQUERADE = """chain leaving_nat {
    type nat hook postrouting priority srcnat
    oifname wan0 masquerade
  }"""
DNAT = """chain arriving_nat {
    type nat hook prerouting priority dstnat
    iifname wan0 tcp dport 21 dnat ip to 198.51.100.2
    iifname wan0 tcp dport 21 dnat ip6 to 2001:db8:51::2
  }"""
TARGETS = "198.51.100.2, 2001:db8:51::2"

PLACES = {
    "client": Place(f"{CLOSED}allow ftp, http outbound\n", OWN_CLIENT, is_self=True),
    "client in lan": Place("allow ftp, http from lan to wan\n", CLIENT),
    "masqueraded client": Place(
        "allow ftp, http from lan to wan\nmasquerade from lan to wan\n"
        "masquerade from lan to wan ipv6\n",
        CLIENT,
        is_behind_nat=True,
        nat=MASQUERADE,
    ),
    "server": Place(f"{CLOSED}allow ftp inbound\n", SERVER, is_self=True),
    "server with ports of its own": Place(
        f"{NARROW}{CLOSED}allow ftp-narrow inbound\n", NARROW_SERVER, is_self=True
    ),
    "server in lan": Place("allow ftp from wan to lan\n", SERVER),
    "server behind dnat": Place(
        f"dnat ftp from wan to {TARGETS}\n", SERVER, is_behind_nat=True, nat=DNAT
    ),
    "server with ports of its own behind dnat": Place(
        f"{NARROW}dnat ftp-narrow from wan to {TARGETS}\n",
        NARROW_SERVER,
        is_behind_nat=True,
        nat=DNAT,
    ),
}


def blanket(nat: str, forwarded: str = "") -> str:
    """Rules as they are often written: helpers wherever they might be of use, RELATED accepted."""
    return f"""
table inet hand {{
  ct helper ftp {{ type "ftp" protocol tcp; }}
  ct helper irc {{ type "irc" protocol tcp; }}
  chain arriving {{
    type filter hook prerouting priority mangle
    tcp dport {{ 21, 80 }} ct helper set "ftp"
    tcp dport 6667 ct helper set "irc"
  }}
  chain leaving {{
    type filter hook output priority mangle
    tcp dport {{ 21, 80 }} ct helper set "ftp"
  }}
  {nat}
  chain input {{
    type filter hook input priority filter; policy drop;
    {ACCEPTED}
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    {ACCEPTED}
    {forwarded}
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    {ACCEPTED}
  }}
}}
"""


ACCEPTED = """
    iifname lo accept
    oifname lo accept
    ct state established,related accept
    tcp dport { 21, 80, 6667 } ct state new accept
"""


def outcomes(place: Place, laid: Router) -> Iterator[tuple[Family, Lure, bool]]:
    """What comes of each lure, in both families; all are tried at once."""

    def outcome(case: tuple[Family, Lure]) -> tuple[Family, Lure, bool]:
        family, lure = case
        hostile = End(laid.client("wan"), "wan", laid.far("wan", family))
        victim = End(laid.client("lan"), "lan", laid.far("lan", family))
        if place.is_self:
            victim = End(laid.firewall, "self", laid.near("wan", family))
        dialled = hostile.address
        if lure.said is Said.ECHO:
            dialled = laid.near("wan", family) if place.is_behind_nat else victim.address
        return family, lure, succeeds(lure, family, victim, hostile, dialled)

    with ThreadPoolExecutor() as pool:
        yield from pool.map(outcome, product(Family, place.lures))


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def guarded(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Router]:
    """A router that policies are applied to, for each way to load them."""
    directory = tmp_path_factory.mktemp("attacks")
    with router(request.param, directory, PORTS) as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        yield laid


@pytest.fixture(scope="module")
def careless(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    """A router whose rules are written by hand."""
    with router(Loader.NFT, tmp_path_factory.mktemp("careless"), PORTS) as laid:
        yield laid


def load_by_hand(laid: Router, rules: str) -> None:
    """Replace the rules that were written by hand; no connection is open since."""
    load_nft(f"table inet hand\ndelete table inet hand\n{rules}", laid.firewall)
    laid.forget()


@pytest.mark.parametrize("place", PLACES)
def test_a_policy_opens_no_more_than_it_says(guarded: Router, place: str) -> None:
    """What a line names is reached within the ports that the rule admits, and not elsewhere."""
    guarded.apply(PLACES[place].policy)
    for family, lure, succeeded in outcomes(PLACES[place], guarded):
        assert succeeded is lure.is_let_through, (family, lure)


@pytest.mark.parametrize("place", PLACES)
def test_accepting_whatever_is_related_opens_everything(careless: Router, place: str) -> None:
    """The control: the same attacks succeed where RELATED is accepted wholesale."""
    load_by_hand(careless, blanket(PLACES[place].nat))
    for family, lure, succeeded in outcomes(PLACES[place], careless):
        assert succeeded is lure.is_open_to_all, (family, lure)


# --- others than the two ---------------------------------------------------------------------


def bounced(laid: Router, family: Family) -> bool:
    """Let a client in `wan` name a machine in `dmz`, to which an obliging server then connects."""
    third = laid.far("dmz", family)
    server = End(laid.client("lan"), "lan", laid.far("lan", family))
    client = End(laid.client("wan"), "wan", laid.far("wan", family))
    dialled = laid.near("wan", family)
    with connected(family, server, client, dialled, FTP) as (accepted, opened):
        carry(opened, accepted, LOGIN)
        carry(opened, accepted, Lure(Said.LINE, DATA).line(family, third))
        outcome = look(server.machine, third, DATA, patience_s=MUST_FAIL_S)
    return isinstance(outcome, Seen)


def test_a_third_machine_is_not_reached_through_a_server(guarded: Router) -> None:
    """PORT with the address of somebody else leads nowhere, by a server behind NAT too."""
    guarded.apply(f"dnat ftp from wan to {TARGETS}\n")
    for family in Family:
        assert not bounced(guarded, family)


def test_a_third_machine_is_reached_where_servers_may_connect(careless: Router) -> None:
    """The control: the server does what it is told."""
    load_by_hand(careless, blanket(DNAT, "iifname lan0 ct state new accept"))
    for family in Family:
        assert bounced(careless, family)


def chat_is_reached(laid: Router, zone: str) -> bool:
    """Let an IRC client in `lan` offer a direct chat to its peer in `wan`; who gets through?

    The helper's prediction is open to every source.
    """
    family = Family.IPV4
    server = End(laid.client("wan"), "wan", laid.far("wan", family))
    victim = End(laid.client("lan"), "lan", laid.far("lan", family))
    offer = b"PRIVMSG b :\x01DCC CHAT chat %d %d\x01\r\n" % (IPv4Address(victim.address), CHAT)
    with connected(family, server, victim, server.address, IRC) as (accepted, opened):
        carry(opened, accepted, b"NICK a\r\n")
        carry(opened, accepted, offer)
        outcome = look(laid.client(zone), victim.address, CHAT, patience_s=MUST_FAIL_S)
    return isinstance(outcome, Seen)


def test_a_prediction_serves_the_two_ends_of_the_rule(guarded: Router) -> None:
    """A chat that was offered to somebody in `wan` is nothing for `dmz`."""
    guarded.apply("allow irc from lan to wan\n")
    assert not chat_is_reached(guarded, "dmz")
    guarded.forget()
    assert chat_is_reached(guarded, "wan")


def test_a_prediction_serves_anybody_where_whatever_is_related_passes(careless: Router) -> None:
    """The control: the kernel does not ask who comes."""
    load_by_hand(careless, blanket(""))
    assert chat_is_reached(careless, "dmz")
