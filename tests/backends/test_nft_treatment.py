"""The kernel marks, sizes, tracks and hands over packets as rules say that are emitted for nft.

Each case has packets that the rule is not for, which stay as they came.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest

from policylang.apply.nft_text import replacement
from policylang.ir.actions import (
    Action,
    AddToSet,
    AssignHelper,
    ClampMss,
    ConnectionMarkGuard,
    DestinationNat,
    Drop,
    End,
    Leave,
    MarkGuard,
    Masquerade,
    Offload,
    Queue,
    SetConnectionMark,
    SetDscp,
    SetMark,
    TransparentProxy,
    Untrack,
)
from policylang.ir.ruleset import DynamicSet, Rule
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import (
    TCP,
    TCP_RST,
    TCP_SYN,
    UDP,
    Field,
    FlowDirection,
    State,
    with_flags,
)
from policylang.packets.values import Range, Ranges, name_range, parse_one_address
from tests.backends.nft_router import WORLD, Router, host, opened, router
from tests.backends.nft_station import (
    ACCEPT,
    FAR,
    OWN,
    Hook,
    Packet,
    arriving,
    emitted,
    ruleset,
)
from tests.kernel.ground import CommandError

MARK = (Stage.MARK, Path.INPUT)
OWN_MARK = (Stage.MARK, Path.OUTPUT)
TPROXY = (Stage.TPROXY, Path.INPUT)
DSTNAT = (Stage.DSTNAT, Path.INPUT)
TREAT = (Stage.TREAT, Path.FORWARD)
OWN_TREAT = (Stage.TREAT, Path.OUTPUT)
UNTRACK = (Stage.UNTRACK, Path.INPUT)
OWN_UNTRACK = (Stage.UNTRACK, Path.OUTPUT)
INPUT = (Stage.FILTER, Path.INPUT)
FORWARD = (Stage.FILTER, Path.FORWARD)
OUTPUT = (Stage.FILTER, Path.OUTPUT)
SRCNAT = (Stage.SRCNAT, Path.FORWARD)

FAMILIES = (4, 6)
FULL = 0xFFFFFFFF
BIT = 0x1000
OF_UDP = Ranges.of(UDP)


@pytest.fixture(scope="module")
def laid(kernel: None) -> Iterator[Router]:
    with router() as made:
        yield made


@pytest.fixture(scope="module")
def routing(laid: Router) -> Router:
    """What is marked `BIT` goes by eth0, where all else that is not near goes by eth1."""
    for family in FAMILIES:
        gate = host("eth0", family, 2)
        laid.station.inside.run(["ip", f"-{family}", "rule", "add", "fwmark", f"{BIT}/{BIT}",
                                 "lookup", "200"])  # fmt: skip
        anywhere = {4: "0.0.0.0/0", 6: "::/0"}[family]
        laid.station.inside.ip(f"route add {anywhere} via {gate} dev eth0 table 200")
    return laid


def of(**terms: Ranges) -> Cube:
    return Cube.of({Field[name]: values for name, values in terms.items()})


def to_port(*ports: int, protocol: int = UDP) -> Cube:
    return of(L4PROTO=Ranges.of(protocol), DPORT=Ranges.of(*ports))


def hosts(wire: str, family: int, number: int) -> Range:
    found = parse_one_address(host(wire, family, number))
    assert found is not None
    return found, found


def to_the_world(family: int, **other: object) -> Packet:
    return replace(Packet(host("eth0", family, 2), WORLD[family]), **other)  # type: ignore[arg-type]


# --- marks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_chooses_the_way_of_what_is_forwarded(routing: Router, family: int) -> None:
    routing.load(emitted(ruleset({MARK: (Rule(to_port(53), SetMark(BIT, BIT)),)})))
    marked, other = (to_the_world(family, ports=(1000, port)) for port in (53, 54))
    assert routing.carry(marked).wire == "eth0"
    assert routing.carry(other).wire == "eth1"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mark_chooses_the_way_of_this_hosts_own_packets(routing: Router, family: int) -> None:
    """They have a route before they are marked, and get another one (control: `type filter`)."""
    script = emitted(ruleset({OWN_MARK: (Rule(to_port(53), SetMark(BIT, BIT)),)}))
    for text, expected in ((script, "eth0"), (script.replace("type route", "type filter"), "eth1")):
        routing.load(text)
        with opened(routing, family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", (WORLD[family], 53))
            sender.sendto(b"", (WORLD[family], 54))
        ways = {s.ports[1]: s.wire for s in routing.heard() if s.protocol == UDP}
        assert ways == {53: expected, 54: "eth1"}


MARKS = (
    (SetMark(0x12, FULL), 0xABCD, 0x12),
    (SetMark(0x10, 0xFF), 0xABCD, 0xAB10),
    (SetMark(0xFF, 0xFF), 0xAB00, 0xABFF),
    (SetMark(0, 0xFF), 0xABCD, 0xAB00),
    (SetMark(0, FULL), 0xABCD, 0),
    (SetMark(0x80000000, 0xC0000000), 0x40000001, 0x80000001),
)


@pytest.mark.parametrize(("action", "before", "after"), MARKS)
def test_bits_beside_the_mask_stay(
    routing: Router, action: SetMark, before: int, after: int
) -> None:
    """Of the packet's mark, and alike of the connection's."""
    station = routing.station
    for family in FAMILIES:
        rules = {
            OWN_MARK: (Rule(EVERYTHING, action),),
            OUTPUT: (Rule(EVERYTHING, ACCEPT, (MarkGuard(after, FULL),)),),
        }
        station.load(emitted(ruleset(rules)))
        packet = Packet(OWN["eth1"][family], FAR["eth1"][family], wire="eth1")
        with station.sender(family, "eth1", mark=before) as by:
            station.send((packet,), by=by)
        assert station.thrown in station.seen(Hook.OUTPUT)

        of_connection = SetConnectionMark(action.value, action.mask)
        routing.load(
            emitted(
                ruleset(
                    {
                        MARK: (
                            Rule(EVERYTHING, SetConnectionMark(before, FULL)),
                            Rule(to_port(53), of_connection),
                        ),
                        FORWARD: (Rule(EVERYTHING, ACCEPT, (ConnectionMarkGuard(after, FULL),)),),
                    }
                )
            )
        )
        marked, other = (to_the_world(family, ports=(1000, port)) for port in (53, 54))
        assert [bool(s) for s in routing.carried(marked, other)] == [True, False]


def test_the_first_that_matches_need_not_be_the_last(routing: Router) -> None:
    """What marks goes on, and what leaves the stage does not."""
    rules = (
        Rule(to_port(53, 54), SetMark(0x1, 0xF)),
        Rule(to_port(54), Leave()),
        Rule(to_port(53, 54), SetMark(0x20, 0xF0)),
    )
    for family in FAMILIES:
        for value, passes in ((0x21, [True, False]), (0x1, [False, True])):
            forward = (Rule(EVERYTHING, ACCEPT, (MarkGuard(value, FULL),)),)
            routing.load(emitted(ruleset({MARK: rules, FORWARD: forward})))
            packets = [to_the_world(family, ports=(1000, port)) for port in (53, 54)]
            assert [bool(s) for s in routing.carried(*packets)] == passes


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_go_back_by_the_way_that_the_connection_came(routing: Router, family: int) -> None:
    """The mark of the connection becomes that of its answers, those of local processes too."""
    came = of(IIF=Ranges((name_range("eth0"),)), CT_STATE=Ranges.of(State.NEW))
    reply = of(CT_DIRECTION=Ranges.of(FlowDirection.REPLY))
    restored = Rule(reply, SetMark(BIT, BIT), (ConnectionMarkGuard(0x700, 0xF00),))
    rules = {
        MARK: (Rule(came, SetConnectionMark(0x700, 0xF00)), restored),
        OWN_MARK: (restored,),
    }
    for script, expected in ((emitted(ruleset(rules)), "eth0"), ("flush ruleset inet", "eth1")):
        if expected == "eth1":  # the control: no marks
            script = emitted(ruleset({MARK: (), OWN_MARK: ()}))
        routing.load(script)
        asked = Packet(WORLD[family], OWN["eth0"][family], ports=(1000, 4000))
        with opened(routing, family, socket.SOCK_DGRAM) as server:
            server.bind((OWN["eth0"][family], 4000))
            routing.station.throw((asked,))
            data, peer = server.recvfrom(100)
            server.sendto(data, peer)
        (answer,) = (s for s in routing.heard() if s.ports == (4000, 1000))
        assert (answer.wire, answer.destination) == (expected, WORLD[family])
        # Through this host, to one behind the other wire, and back.
        asked = Packet(WORLD[family], host("eth1", family, 3), ports=(1000, 4001))
        assert routing.carry(asked).wire == "eth1"
        back = Packet(asked.destination, asked.source, ports=(4001, 1000), wire="eth1")
        assert routing.carry(back).wire == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_marked_is_told_by_what_was_dialled(routing: Router, family: int) -> None:
    """Marks come before translation, and translation before routing by them."""
    inner = hosts("eth1", family, 10)
    rules = {
        MARK: (Rule(to_port(2222), SetMark(0x5, 0xF)), Rule(to_port(22), SetMark(0x6, 0xF))),
        DSTNAT: (Rule(to_port(2222), DestinationNat(Ranges((inner,)), 22)),),
        FORWARD: (Rule(to_port(22), ACCEPT, (MarkGuard(0x5, 0xF),)),),
    }
    routing.load(emitted(ruleset(rules)))
    assert routing.carry(arriving(family=family, ports=(1000, 2222))).ports[1] == 22


# --- what packets carry --------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 5, 46, 63])
def test_a_code_point_is_on_the_wire(routing: Router, code: int) -> None:
    rules = (Rule(to_port(53), SetDscp(code)),)
    routing.load(emitted(ruleset({MARK: rules, OWN_MARK: rules})))
    for family in FAMILIES:
        for before in (0, 10, 63):
            seen = routing.carry(to_the_world(family, dscp=before, ports=(1000, 53)))
            assert (seen.dscp, seen.is_sound) == (code, True)
            assert routing.carry(to_the_world(family, dscp=before, ports=(1000, 54))).dscp == before
        with opened(routing, family, socket.SOCK_DGRAM) as sender:
            for port in (53, 54):
                sender.sendto(b"", (WORLD[family], port))
        found = {s.ports[1]: s.dscp for s in routing.heard() if s.protocol == UDP}
        assert found == {53: code, 54: 0}


SYN = of(TCP_FLAGS=with_flags(TCP_SYN | TCP_RST, TCP_SYN))


@contextmanager
def narrow(routing: Router, mtu: int) -> Iterator[None]:
    """Let eth1 take no larger packets for a while."""
    inside = routing.station.inside
    inside.ip(f"link set eth1 mtu {mtu}")
    try:
        yield
    finally:
        inside.ip("link set eth1 mtu 1500")


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_are_what_the_path_takes(routing: Router, family: int) -> None:
    """The way out has a smaller MTU, or the way back; what is smaller already stays."""
    rules = (Rule(SYN, ClampMss(None)),)
    routing.load(emitted(ruleset({TREAT: rules, OWN_TREAT: rules})))
    headers = {4: 40, 6: 60}[family]
    with narrow(routing, 1300):
        there = Packet(host("eth0", family, 2), host("eth1", family, 3), TCP, (1000, 80))
        back = replace(there, source=there.destination, destination=there.source, wire="eth1")
        for packet in (there, replace(back, ports=(2000, 80)), replace(back, tcp_flags=0x12)):
            seen = routing.carry(replace(packet, mss=1460))
            assert (seen.mss, seen.is_sound) == (1300 - headers, True)
        assert routing.carry(replace(there, ports=(1001, 80), mss=536)).mss == 536
        # Without the rule, the size stays.
        routing.load(emitted(ruleset({TREAT: ()})))
        assert routing.carry(replace(there, ports=(1002, 80), mss=1460)).mss == 1460


@pytest.mark.parametrize("family", FAMILIES)
def test_segments_are_clamped_to_a_number(routing: Router, family: int) -> None:
    cube = SYN & to_port(80, protocol=TCP)
    routing.load(
        emitted(ruleset({path: (Rule(cube, ClampMss(1200)),) for path in (TREAT, OWN_TREAT)}))
    )
    for port, offered, expected in (
        (80, 1460, 1200), (80, 1201, 1200), (80, 1200, 1200), (80, 536, 536), (81, 1460, 1460),
    ):  # fmt: skip
        packet = to_the_world(family, protocol=TCP, ports=(offered, port), mss=offered)
        seen = routing.carry(packet)
        assert (seen.mss, seen.is_sound) == (expected, True)
    for port in (80, 81):  # this host's own, by a way that is known
        with opened(routing, family, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect((WORLD[family], port))
            mss = {s.mss for s in routing.heard() if s.ports[1] == port}
            assert (mss == {1200}) is (port == 80) and len(mss) == 1


# --- tracking ------------------------------------------------------------------------------------


def connections(routing: Router, family: int) -> str:
    listed = routing.station.inside.run(["conntrack", "-L", "-f", f"ipv{family}"])
    return listed.stdout


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_untracked_leaves_no_trace(routing: Router, family: int) -> None:
    """Neither what arrives, for this host or another, nor what this host sends."""
    rules = {
        place: (
            Rule(of(L4PROTO=OF_UDP, DPORT=Ranges.of(54)), Leave()),
            Rule(of(L4PROTO=OF_UDP, DPORT=Ranges.of(53, 54)), Untrack()),
        )
        for place in (UNTRACK, OWN_UNTRACK)
    }
    untracked = Rule(of(CT_STATE=Ranges.of(State.UNTRACKED)), ACCEPT)
    routing.load(
        emitted(ruleset({**rules, INPUT: (untracked,), FORWARD: (untracked,), OUTPUT: ()}))
    )
    through = [to_the_world(family, ports=(1000, port)) for port in (53, 54)]
    here = [arriving(family=family, ports=(1001, port)) for port in (53, 54)]
    assert [bool(s) for s in routing.carried(*through)] == [True, False]
    assert routing.station.verdicts(Hook.INPUT, here) == [True, False]
    assert " dport=53 " not in connections(routing, family)
    any_state = (Rule(of(CT_STATE=Ranges.of(State.NEW, State.UNTRACKED)), ACCEPT),)
    routing.load(emitted(ruleset({**rules, INPUT: any_state, FORWARD: any_state})))
    routing.station.throw([*through, *here])
    with opened(routing, family, socket.SOCK_DGRAM) as sender:
        for port in (53, 54):
            sender.sendto(b"", (FAR["eth1"][family], port))
    listed = connections(routing, family)
    # Two that arrive and one of our own are known, of port 54.
    assert " dport=53 " not in listed
    assert listed.count(" dport=54 ") == 3


ACCEPT_ALL = Rule(EVERYTHING, ACCEPT)
READ_REQUEST = b"\0\1file\0octet\0"  # RFC 1350


def test_what_a_helper_predicted_is_told_for_as_long_as_it_lasts(routing: Router) -> None:
    for family in FAMILIES:
        for value in (0, 1):
            forward = (
                Rule(to_port(69), ACCEPT),
                Rule(of(EXPECTED=Ranges.of(value), L4PROTO=OF_UDP), ACCEPT),
            )
            helped = {
                (Stage.ASSIGN_HELPER, Path.INPUT): (Rule(to_port(69), AssignHelper("tftp", UDP)),)
            }
            routing.load(emitted(ruleset({**helped, FORWARD: forward})))
            client, server = host("eth0", family, 2), host("eth1", family, 3)
            ask = Packet(client, server, ports=(3000, 69), content=READ_REQUEST)
            assert routing.carry(ask)
            first = Packet(server, client, ports=(5000, 3000), wire="eth1")
            second = Packet(client, server, ports=(3000, 5000))
            other = Packet(server, client, ports=(5000, 3001), wire="eth1")
            told = [bool(s) for s in routing.carried(other, first)]
            assert told == [value == 0, value == 1]
            if value == 1:  # else the connection is another one, that the client opens
                assert None not in routing.carried(second, first)


# --- proxies, programs, fast paths ---------------------------------------------------------------

PROXY = 3129
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
ORIGINAL_END = {4: 20, 6: 74}  # IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR
PROXY_BIT = 0x2000


@pytest.fixture(scope="module")
def proxying(routing: Router) -> Router:
    """What is marked `PROXY_BIT` is for this host."""
    for family in FAMILIES:
        inside = routing.station.inside
        inside.run(
            ["ip", f"-{family}", "rule", "add", "pref", "10", "fwmark",
             f"{PROXY_BIT}/{PROXY_BIT}", "lookup", "201"]
        )  # fmt: skip
        anywhere = {4: "0.0.0.0/0", 6: "::/0"}[family]
        inside.ip(f"route add local {anywhere} dev lo table 201")
    return routing


@contextmanager
def proxy(routing: Router, family: int, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """A socket that takes what is for others."""
    with opened(routing, family, kind) as listener:
        level, option = {4: (socket.IPPROTO_IP, IP_TRANSPARENT),
                         6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)}[family]  # fmt: skip
        listener.setsockopt(level, option, 1)
        if kind == socket.SOCK_DGRAM:
            listener.setsockopt(level, ORIGINAL_END[family], 1)
        listener.bind(("", PROXY))
        if kind == socket.SOCK_STREAM:
            listener.listen(8)
        yield listener


def original_end(family: int, ancillary: list[Any]) -> tuple[str, int]:
    (data,) = (data for _, kind, data in ancillary if kind == ORIGINAL_END[family])
    (port,) = struct.unpack_from("!H", data, 2)
    if family == 4:
        return socket.inet_ntop(socket.AF_INET, data[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, data[8:24]), port


def proxied(protocol: int, *ports: int) -> Rule:
    return Rule(
        to_port(*ports, protocol=protocol),
        TransparentProxy(PROXY, protocol, PROXY_BIT, PROXY_BIT),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transparent_proxy_gets_datagrams_for_others(proxying: Router, family: int) -> None:
    before = Rule(EVERYTHING, SetMark(0x5, 0xF))
    of_marked = replace(proxied(UDP, 53, 54), guards=(MarkGuard(0x5, 0xF),))
    rules = {
        MARK: (before,),
        TPROXY: (Rule(to_port(54), Leave()), of_marked),
        INPUT: (Rule(to_port(53), ACCEPT, (MarkGuard(PROXY_BIT | 0x5, FULL),)),),
    }
    proxying.load(emitted(ruleset(rules)))
    with proxy(proxying, family, socket.SOCK_DGRAM) as listener:
        packet = to_the_world(family, ports=(1000, 53), content=b"hello")
        assert proxying.carried(packet) == [None]
        data, ancillary, _, peer = listener.recvmsg(100, 100)
        assert (data, peer[:2]) == (b"hello", (packet.source, 1000))
        assert original_end(family, ancillary) == (WORLD[family], 53)
    for other in (replace(packet, ports=(1000, 54)), replace(packet, protocol=TCP)):
        assert proxying.carry(other).destination == WORLD[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_transparent_proxy_answers_connections_to_others(proxying: Router, family: int) -> None:
    rules = {TPROXY: (proxied(TCP, 80),), INPUT: (Rule(EVERYTHING, ACCEPT),)}
    proxying.load(emitted(ruleset(rules)))
    with proxy(proxying, family, socket.SOCK_STREAM) as listener:
        syn = to_the_world(family, protocol=TCP, ports=(1000, 80), mss=1000)
        proxying.station.throw((syn,))
        (answer, *again) = (s for s in proxying.heard() if s.protocol == TCP)
        assert set(again) <= {answer}
        assert (answer.source, answer.ports) == (WORLD[family], (80, 1000))
        assert (answer.wire, answer.destination) == ("eth0", syn.source)
        # The rest of the handshake, and what the client says: the proxy knows for whom it is.
        acknowledged = answer.sequence + 1
        for flags, content in ((0x10, b""), (0x18, b"GET /")):
            proxying.station.throw(
                (replace(syn, mss=None, tcp_flags=flags, numbers=(2, acknowledged),
                         content=content),)
            )  # fmt: skip
        connection, peer = listener.accept()
        with connection:
            connection.settimeout(2)
            assert connection.recv(10) == b"GET /"
            assert (connection.getsockname()[:2], peer[:2]) == (
                (WORLD[family], 80), (syn.source, 1000)
            )  # fmt: skip
    other = replace(syn, ports=(1000, 81))
    assert proxying.carry(other).destination == WORLD[family]


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_nothing_goes_past_a_proxy_that_does_not_listen(proxying: Router, protocol: int) -> None:
    """Nor to a proxy that a later rule names, nor to whoever listens on the port itself."""
    rules = {
        TPROXY: (
            proxied(protocol, 80),
            Rule(to_port(80, protocol=protocol), TransparentProxy(3130, protocol, 0x4000, 0x4000)),
        )
    }
    proxying.load(emitted(ruleset(rules)))
    for family in FAMILIES:
        # Another port than before: the connections of an earlier proxy may not be over yet.
        packet = to_the_world(family, protocol=protocol, ports=(1700, 80))
        assert proxying.carried(packet, replace(packet, ports=(1700, 81)))[0] is None
        assert proxying.station.thrown - 1 not in proxying.station.seen(Hook.INPUT)
        assert proxying.carry(replace(packet, ports=(1700, 82)))


def counted(routing: Router, comment: str) -> int:
    """How many packets a counter rule of a chain counted."""
    listing = routing.station.inside.run(["nft", "list", "table", "inet", "policylang"]).stdout
    (line,) = (line for line in listing.splitlines() if comment in line and "counter" in line)
    return int(line.partition("counter packets ")[2].split()[0])


@pytest.mark.parametrize("path", [Path.INPUT, Path.FORWARD, Path.OUTPUT])
def test_what_is_inspected_has_passed_the_filter(routing: Router, path: Path) -> None:
    """Queues do not load here: what would be queued is counted where it would be."""
    inspected = Rule(of(L4PROTO=OF_UDP, DPORT=Ranges.between(50, 59)), Leave())
    rules = {
        (Stage.INSPECT, path): (inspected,),
        (Stage.FILTER, path): (Rule(to_port(53), Drop()), ACCEPT_ALL),
    }
    routing.load(emitted(ruleset(rules, counters=True)))
    sent = 0
    for family in FAMILIES:
        for port in (52, 53, 54, 60):
            if path is Path.OUTPUT:
                with opened(routing, family, socket.SOCK_DGRAM) as sender, suppress(OSError):
                    sender.sendto(b"", (FAR["eth1"][family], port))
            elif path is Path.INPUT:
                routing.station.throw((arriving(family=family, ports=(1000, port)),))
            else:
                routing.station.throw((to_the_world(family, ports=(1000, port)),))
            sent += port in (52, 54)
    assert counted(routing, "50-59") == sent


QUEUES = (Queue(0, 0, False), Queue(0, 3, False), Queue(7, 7, True), Queue(1, 2, True))


@pytest.mark.parametrize("path", [Path.INPUT, Path.FORWARD, Path.OUTPUT])
@pytest.mark.parametrize("action", QUEUES)
def test_packets_are_queued_for_a_program(routing: Router, action: Queue, path: Path) -> None:
    """Without a program that reads, they are dropped, or pass where that is asked for."""
    load_or_say(routing, (Stage.INSPECT, path), action)
    if path is Path.FORWARD:
        for family in FAMILIES:
            passed = routing.carried(to_the_world(family, ports=(1000, 53)))
            assert (passed != [None]) is action.may_bypass


def test_connections_are_offloaded(routing: Router) -> None:
    load_or_say(routing, FORWARD, Offload(("eth1", "eth0")))
    listing = routing.station.inside.run(["nft", "list", "flowtables"]).stdout
    assert "eth0, eth1" in listing


def load_or_say(routing: Router, place: tuple[Stage, Path], action: Action) -> None:
    """Load a rule; where this kernel has no such thing it must be that, and no mistake of ours."""
    state = Ranges.of(State.ESTABLISHED) if isinstance(action, Offload) else Ranges.of(State.NEW)
    rule = Rule(to_port(53) & of(CT_STATE=state), action)
    try:
        routing.load(emitted(ruleset({place: (rule,), INPUT: (ACCEPT_ALL,)})))
    except CommandError as refused:
        said = [line for line in str(refused).splitlines() if "Error:" in line]
        assert said and all("No such file or directory" in line for line in said), refused
        pytest.xfail(f"not in this kernel: {said[0]}")


# --- replacing -----------------------------------------------------------------------------------


def test_all_kinds_of_chains_are_replaced_around_a_set_that_stays(routing: Router) -> None:
    """Translations, routes and treatments go and come in the transaction that spares the set."""
    banned = DynamicSet("banned", 3600, 100)

    def script(port: int) -> str:
        items = {
            MARK: (Rule(to_port(port), SetMark(BIT, BIT)),),
            OWN_MARK: (Rule(to_port(port), SetMark(BIT, BIT)),),
            TPROXY: (proxied(UDP, port + 1),),
            DSTNAT: (
                Rule(
                    to_port(port + 2),
                    DestinationNat(Ranges((hosts("eth1", 4, 10), hosts("eth1", 4, 12))), 8080),
                ),
            ),
            FORWARD: (Rule(EVERYTHING, AddToSet("banned", End.SOURCE, None)), ACCEPT_ALL),
            SRCNAT: (Rule(of(OIF=Ranges((name_range("eth1"),))), Masquerade()),),
        }
        return emitted(ruleset(items, sets=(banned,)))

    inside = routing.station.inside
    first, second = script(53), script(63)
    routing.load(first)
    assert routing.carry(to_the_world(4, ports=(1000, 53))).wire == "eth0"
    for text, port, other in ((second, 63, 53), (first, 53, 63), (first, 53, 63)):
        listing = inside.run(["nft", "list", "table", "inet", "policylang"]).stdout
        loaded = replacement(text, listing, {})
        assert "delete table" not in loaded.text and "delete chain" in loaded.text
        inside.run(["nft", "-f", "-"], stdin=loaded.text)
        routing.forget()
        assert routing.station.elements("banned-v4") == {FAR["eth0"][4]}
        assert routing.carry(to_the_world(4, ports=(1000, port))).wire == "eth0"
        seen = routing.carry(to_the_world(4, ports=(1000, other)))
        assert (seen.wire, seen.source) == ("eth1", OWN["eth1"][4])
        assert routing.carry(to_the_world(4, ports=(1000, port + 2))).ports[1] == 8080
        chains = inside.run(["nft", "list", "table", "inet", "policylang"]).stdout
        assert chains.count("type route hook output") == 1
        assert chains.count("type nat hook") == 2
