"""What is emitted for iptables treats packets as it says: marks, code points, queues and more.

On both flavours and both families, each with packets that are not meant beside those that are.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest

from policylang.ir.actions import (
    Action,
    AssignHelper,
    ClampMss,
    ConnectionMarkGuard,
    Guard,
    Leave,
    MarkGuard,
    Queue,
    SetConnectionMark,
    SetDscp,
    SetMark,
    TransparentProxy,
    Untrack,
)
from policylang.ir.ruleset import Rule, Ruleset
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
from policylang.packets.values import Ranges
from tests.backends.iptables_routing import Routing, by, laid, only, routing, to_world
from tests.backends.iptables_station import (
    FAMILIES,
    FORWARD,
    INPUT,
    MARK,
    OUTPUT,
    PASS,
    TPROXY,
    UNTRACK,
    counted,
)
from tests.backends.nft_router import WORLD, Seen, host, opened
from tests.backends.nft_station import OWN, Packet, ruleset
from tests.backends.queue_reader import reading

__all__ = ["laid", "routing"]

MARKED, OWN_MARKED = MARK[Path.INPUT], MARK[Path.OUTPUT]
TREAT = {path: (Stage.TREAT, path) for path in (Path.FORWARD, Path.OUTPUT)}
INSPECT = {path: (Stage.INSPECT, path) for path in Path}

TO_53 = Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP), Field.DPORT: Ranges.of(53)})
UDP_53 = TO_53 & Cube.of({Field.L4PROTO: Ranges.of(UDP)})
TO_WORLD = Cube.of({Field.DADDR: only(*WORLD.values())})
ONE = Ranges.of(1)


def rule(cube: Cube, action: Action, *guards: Guard) -> Rule:
    return Rule(cube, action, guards)


def from_outside(family: int, number: int = 5, **other: object) -> Packet:
    """A packet of a host behind eth1 for one that is far away, and by that wire again."""
    made = to_world(family, number, source=host("eth1", family, number), wire="eth1")
    return Packet(**{**{f: getattr(made, f) for f in made.__slots__}, **other})


def own_datagrams(routing: Routing, family: int, *ports: int) -> dict[int, Seen]:
    """What left of datagrams that the firewall itself sends far away, by their ports."""
    with opened(routing.router, family, socket.SOCK_DGRAM) as sender:
        routing.router.heard()
        for port in ports:
            sender.sendto(b"own", (WORLD[family], port))
    return {s.ports[1]: s for s in routing.router.heard() if s.ports[1] in ports}


# --- marks -----------------------------------------------------------------------------------

TABLE = 77  # of routes
OTHER_WAY = {family: f"default via {host('eth0', family, 2)} dev eth0" for family in FAMILIES}


@contextmanager
def routed_by_mark(routing: Routing, value: int, routes: Mapping[int, str]) -> Iterator[None]:
    """Lead what has these bits of a mark by routes of its own, by family."""
    inside = routing.router.station.inside
    with ExitStack() as stack:
        for family, route in routes.items():
            for words in (
                f"rule {{}} fwmark {value:#x}/{value:#x} lookup {TABLE}",
                f"route {{}} {route} table {TABLE}",
            ):
                add, remove = (f"-{family} {words.format(verb)}".split() for verb in ("add", "del"))
                inside.run(["ip", *add])
                stack.callback(inside.run, ["ip", *remove])
        yield


def test_a_mark_leads_another_way(routing: Routing) -> None:
    """What is forwarded and what the firewall itself sends: both are routed by it."""
    marks = [rule(TO_53, SetMark(0x10, 0xFF))]
    routing.load(ruleset({MARKED: marks, OWN_MARKED: marks}))
    for family in FAMILIES:
        packets = (to_world(family), to_world(family, ports=(40000, 54)))
        assert [seen.wire for seen in routing.carry(*packets)] == ["eth1", "eth1"]
    with routed_by_mark(routing, 0x10, OTHER_WAY):
        for family in FAMILIES:
            packets = (from_outside(family), from_outside(family, ports=(40000, 54)))
            assert [seen.wire for seen in routing.carry(*packets)] == ["eth0", "eth1"]
            own = own_datagrams(routing, family, 53, 54)
            assert {port: seen.wire for port, seen in own.items()} == {53: "eth0", 54: "eth1"}


def test_bits_beside_the_mask_stay(routing: Routing) -> None:
    marks = [
        rule(EVERYTHING, SetMark(0xFFFF_FFFF, 0xFFFF_FFFF)),
        rule(TO_53, SetMark(0x10, 0xFF)),
        rule(TO_53, SetMark(0, 0xF00)),
    ]
    guards = {
        "meant": MarkGuard(0xFFFF_F010, 0xFFFF_FFFF),
        "other": MarkGuard(0xFFFF_FFFF, 0xFFFF_FFFF),
        "part": MarkGuard(0xF0000, 0xF0000),
    }
    rules = [counted(name, EVERYTHING, guard) for name, guard in guards.items()]
    routing.load(ruleset({MARKED: marks, FORWARD: [*rules, PASS]}))
    for family in FAMILIES:
        routing.carry(to_world(family), *(to_world(family, ports=(n, 54)) for n in (1, 2)))
        counts = routing.bench.counts(routing.flavour)
        assert {name: counts[family, name] for name in guards} == {
            "meant": 1,
            "other": 2,
            "part": 3,
        }


def test_answers_have_the_mark_of_their_connection(routing: Routing) -> None:
    """The first packet marks the connection, beside other bits of it; answers are marked by it."""
    new = Cube.of({Field.CT_STATE: Ranges.of(State.NEW)})
    reply = Cube.of({Field.CT_DIRECTION: Ranges.of(FlowDirection.REPLY)})
    marks = [
        rule(new, SetConnectionMark(0xA000, 0xF000)),
        rule(new & TO_53, SetConnectionMark(0x5, 0xF)),
        rule(reply, SetMark(0x5, 0xF), ConnectionMarkGuard(0x5, 0xF)),
        rule(reply, SetMark(0xF0, 0xF0), ConnectionMarkGuard(0xA005, 0xFFFF_FFFF)),
    ]
    names = {"marked": MarkGuard(0xF5, 0xFF), "plain": MarkGuard(0, 0xFF)}
    rules = [counted(name, reply, guard) for name, guard in names.items()]
    originals = counted("original", EVERYTHING, MarkGuard(0x5, 0xF))
    routing.load(ruleset({MARKED: marks, FORWARD: [originals, *rules, PASS]}))
    for family in FAMILIES:
        for port, answers in ((53, 3), (54, 5)):
            routing.carry(to_world(family, ports=(40000, port)))
            back = Packet(WORLD[family], host("eth0", family, 5), ports=(port, 40000), wire="eth1")
            routing.carry(*[back] * answers)
        counts = routing.bench.counts(routing.flavour)
        found = {name: counts[family, name] for name in ("marked", "plain", "original")}
        assert found == {"marked": 3, "plain": 5, "original": 3}


def test_code_points_are_set_on_the_wire(routing: Routing) -> None:
    codes = [
        rule(TO_53, SetDscp(46)),
        rule(TO_WORLD & Cube.of({Field.DSCP: Ranges.of(8)}), SetDscp(0)),
    ]
    routing.load(ruleset({MARKED: codes, OWN_MARKED: codes}))
    for family in FAMILIES:
        packets = [
            to_world(family, dscp=3),
            to_world(family, protocol=TCP, dscp=8, ports=(1, 80)),
            to_world(family, ports=(1, 54), dscp=8),
            to_world(family, ports=(1, 55), dscp=3),
        ]
        assert [seen.dscp for seen in routing.carry(*packets)] == [46, 0, 0, 3]
        own = own_datagrams(routing, family, 53, 54)
        assert {port: seen.dscp for port, seen in own.items()} == {53: 46, 54: 0}


def test_leaving_the_stage_spares_the_rest_of_it(routing: Routing) -> None:
    spared = Cube.of({Field.SADDR: only(*(host("eth0", family, 7) for family in FAMILIES))})
    routing.load(ruleset({MARKED: [rule(spared, Leave()), rule(TO_53, SetDscp(46))]}))
    for family in FAMILIES:
        found = routing.carry(to_world(family, 7), to_world(family, 8))
        assert [seen.dscp for seen in found] == [0, 46]


# --- segment sizes ---------------------------------------------------------------------------

SYN = Cube.of({Field.TCP_FLAGS: with_flags(TCP_SYN | TCP_RST, TCP_SYN)})
CLAMPED = Cube.of({Field.OIF: by("eth1")})


@pytest.mark.parametrize("cube", [SYN, EVERYTHING], ids=["syn", "everything"])
def test_a_segment_size_is_at_most_what_is_said(routing: Routing, cube: Cube) -> None:
    routing.load(ruleset({TREAT[Path.FORWARD]: [rule(cube & CLAMPED, ClampMss(1000))]}))
    for family in FAMILIES:
        packets = [
            to_world(family, protocol=TCP, mss=1460),
            to_world(family, protocol=TCP, mss=1460, tcp_flags=0x12, ports=(40000, 80)),
            to_world(family, protocol=TCP, mss=900, ports=(1, 2)),
            Packet(WORLD[family], host("eth0", family, 5), TCP, (2, 3), "eth1", mss=1460),
        ]
        assert [seen.mss for seen in routing.carry(*packets)] == [1000, 1000, 900, 1460]


def test_a_segment_size_fits_the_way(routing: Routing) -> None:
    """The narrower of both ways: that to the other end, and that back."""
    inside = routing.router.station.inside
    treat = [rule(SYN, ClampMss(None))]
    routing.load(ruleset({TREAT[Path.FORWARD]: treat}))
    headers = {4: 40, 6: 60}
    for wire, mtu in (("eth1", 1400), ("eth0", 1300)):
        inside.ip(f"link set {wire} mtu {mtu}")
        for family in FAMILIES:
            back = Packet(WORLD[family], host("eth0", family, 5), TCP, (mtu, 3), "eth1", mss=1460)
            packets = (to_world(family, protocol=TCP, ports=(mtu, 5), mss=1460), back)
            sizes = [seen.mss for seen in routing.carry(*packets)]
            assert sizes == [mtu - headers[family]] * 2
    for wire in ("eth0", "eth1"):
        inside.ip(f"link set {wire} mtu 1500")


def test_own_connections_offer_it_too(routing: Routing) -> None:
    treat = {path: [rule(SYN & CLAMPED, ClampMss(700))] for path in (Path.OUTPUT, Path.FORWARD)}
    for path, size in ((Path.OUTPUT, {700}), (Path.FORWARD, {1460, 1440})):
        routing.load(ruleset({TREAT[path]: treat[path]}))
        for family in FAMILIES:
            routing.router.heard()
            with opened(routing.router, family, socket.SOCK_STREAM) as client:
                client.setblocking(False)
                assert client.connect_ex((WORLD[family], 80)) != 0
                found = {s.mss for s in routing.router.heard() if s.ports[1] == 80}
            assert len(found) == 1 and found <= size


# --- conntrack -------------------------------------------------------------------------------


def test_what_is_untracked_is_no_connection(routing: Routing) -> None:
    states = [counted(s.name, Cube.of({Field.CT_STATE: Ranges.of(s)})) for s in State]
    beside = [
        counted("expected", Cube.of({Field.EXPECTED: ONE})),
        counted("unexpected", Cube.of({Field.EXPECTED: Ranges.of(0)})),
        counted("dnated", Cube.of({Field.DNATED: ONE})),
        counted("straight", Cube.of({Field.DNATED: Ranges.of(0)})),
        counted(
            "dialled", Cube.of({Field.ORIG_DADDR: only("0.0.0.0/0", "::/1") - only("192.0.2.9")})
        ),
        counted("marked", EVERYTHING, ConnectionMarkGuard(0, 0xFFFF_FFFF)),
    ]
    spared = Cube.of({Field.SADDR: only(*(host("eth0", family, 7) for family in FAMILIES))})
    rules = [rule(spared, Leave()), rule(TO_53, Untrack())]
    counting = [*states, *beside, PASS]
    untracked = {UNTRACK[Path.INPUT]: rules, UNTRACK[Path.OUTPUT]: [rule(TO_53, Untrack())]}
    routing.load(ruleset({**untracked, FORWARD: counting, OUTPUT: counting}))
    tracked = {"NEW", "unexpected", "straight", "dialled", "marked"}
    for family in FAMILIES:
        for packet, met in (
            (to_world(family), {"UNTRACKED", "unexpected", "straight"}),
            (to_world(family, 7), tracked),
            (to_world(family, ports=(1, 54)), tracked),
        ):
            before = routing.bench.counts(routing.flavour)
            routing.carry(packet)
            after = routing.bench.counts(routing.flavour)
            assert {name for _, name in after - before} == met
        before = routing.bench.counts(routing.flavour)
        own_datagrams(routing, family, 53)
        after = routing.bench.counts(routing.flavour)
        assert (after - before)[family, "UNTRACKED"] == 1
    listed = routing.router.station.inside.run(["conntrack", "-L"]).stdout
    assert "dport=54" in listed
    assert not [line for line in listed.splitlines() if "dport=53" in line and "7 dst" not in line]


def test_expected_are_all_packets_of_a_predicted_connection(routing: Routing) -> None:
    """By the helper of TFTP, which reads a request (RFC 1350) and predicts the answer's port."""
    expected = Cube.of({Field.EXPECTED: ONE})
    rules = [
        counted("new", expected & Cube.of({Field.CT_STATE: Ranges.of(State.RELATED)})),
        counted("old", expected & Cube.of({Field.CT_STATE: Ranges.of(State.ESTABLISHED)})),
        counted("other", Cube.of({Field.EXPECTED: Ranges.of(0)})),
    ]
    to_69 = Cube.of({Field.L4PROTO: Ranges.of(UDP), Field.DPORT: Ranges.of(69)})
    assigned = {(Stage.ASSIGN_HELPER, Path.INPUT): [rule(to_69, AssignHelper("tftp", UDP))]}
    routing.load(ruleset({**assigned, FORWARD: [*rules, PASS]}))
    for family in FAMILIES:
        request = to_world(family, ports=(40000, 69), content=b"\0\1file\0octet\0")
        client = host("eth0", family, 5)
        data = Packet(WORLD[family], client, ports=(3000, 40000), wire="eth1", content=b"\0\3\0\1")
        routing.carry(request, data, data)
        routing.carry(to_world(family, ports=(40000, 3000), content=b"\0\4\0\1"))
        routing.carry(Packet(WORLD[family], client, ports=(3000, 40001), wire="eth1"))
        counts = routing.bench.counts(routing.flavour)
        found = {name: counts[family, name] for name in ("new", "old", "other")}
        # After the first packet, whose like is RELATED until it is answered.
        assert found == {"new": 2, "old": 1, "other": 2}


# --- proxies ---------------------------------------------------------------------------------

IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75  # linux/in.h, linux/in6.h
IP_ORIGDSTADDR, IPV6_ORIGDSTADDR = 20, 74
PROXY_PORT = 3129
PROXY_BIT = 0x100


@contextmanager
def proxy(routing: Routing, family: int, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """A socket that takes what is for others, and the routes that bring it here."""
    with (
        routed_by_mark(routing, PROXY_BIT, {family: "local default dev lo"}),
        opened(routing.router, family, kind) as made,
    ):
        if family == 4:
            made.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            made.setsockopt(socket.SOL_IP, IP_ORIGDSTADDR, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_ORIGDSTADDR, 1)
        made.bind(("", PROXY_PORT))
        made.settimeout(1)
        yield made


def proxied(protocol: int) -> Ruleset:
    """What comes by eth0 for port 80 goes to the proxy, which alone may be reached."""
    cube = Cube.of(
        {
            Field.IIF: by("eth0"),
            Field.L4PROTO: Ranges.of(protocol),
            Field.DPORT: Ranges.of(80),
        }
    )
    to_proxy = TransparentProxy(PROXY_PORT, protocol, PROXY_BIT, PROXY_BIT)
    marked = rule(cube, PASS.action, MarkGuard(PROXY_BIT, PROXY_BIT))
    return ruleset({TPROXY: [rule(cube, to_proxy)], INPUT: [marked], FORWARD: [PASS]})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_proxy_takes_datagrams_for_others(routing: Routing, family: int) -> None:
    routing.load(proxied(UDP))
    with proxy(routing, family, socket.SOCK_DGRAM) as listener:
        routing.router.station.throw([to_world(family, ports=(40000, 80), content=b"hello")])
        data, ancillary, _, sender = listener.recvmsg(100, 200)
        assert (data, sender[:2]) == (b"hello", (host("eth0", family, 5), 40000))
        ((_, _, address),) = ancillary
        assert struct.unpack_from("!H", address, 2) == (80,)
        packed = address[4:8] if family == 4 else address[8:24]
        assert socket.inet_ntop(listener.family, packed) == WORLD[family]
        (other,) = routing.carry(to_world(family, ports=(40000, 81)))
        assert other.wire == "eth1"
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.recv(100)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_proxy_takes_connections_for_others(routing: Routing, family: int) -> None:
    """Its answer comes from the address that the client dialled."""
    routing.load(proxied(TCP))
    with proxy(routing, family, socket.SOCK_STREAM) as listener:
        listener.listen()
        routing.router.heard()
        routing.router.station.throw([to_world(family, protocol=TCP, ports=(40000, 80))])
        answers = {(seen.wire, seen.source, seen.ports) for seen in routing.router.heard()}
        assert answers == {("eth0", WORLD[family], (80, 40000))}
    routing.router.station.throw([to_world(family, protocol=TCP, ports=(40001, 80))])
    assert not routing.router.heard(), "without its proxy it goes nowhere"
    routing.load(ruleset({FORWARD: [PASS]}))
    (seen,) = routing.carry(to_world(family, protocol=TCP, ports=(40002, 80)))
    assert seen.wire == "eth1"


# --- queues ----------------------------------------------------------------------------------


def inspected(low: int, high: int, *, may_bypass: bool) -> Ruleset:
    """Datagrams are inspected, but for those to port 54, which the filter keeps back."""
    barred = Cube.of({Field.L4PROTO: Ranges.of(UDP), Field.DPORT: Ranges.of(54)})
    of_udp = Cube.of({Field.L4PROTO: Ranges.of(UDP)})
    rest = [Rule(cube, PASS.action) for cube in EVERYTHING - barred]
    return ruleset(
        {INSPECT[Path.FORWARD]: [rule(of_udp, Queue(low, high, may_bypass))], FORWARD: rest}
    )


@pytest.mark.parametrize("may_bypass", [False, True])
def test_a_program_decides_what_is_queued(routing: Routing, may_bypass: bool) -> None:
    routing.load(inspected(3, 3, may_bypass=may_bypass))
    inside = routing.router.station.inside
    for family in FAMILIES:
        packets = [
            to_world(family, content=b"good"),
            to_world(family, content=b"bad", ports=(1, 2)),
            to_world(family, content=b"good", ports=(1, 54)),
            to_world(family, protocol=TCP),
        ]
        found = routing.router.carried(*packets)
        assert [bool(seen) for seen in found] == [may_bypass, may_bypass, False, True]
        routing.router.forget()
        with reading(inside, [3]) as reader:
            routing.router.station.throw(packets[:3])
            decided = reader.decide(lambda packet: packet.endswith(b"good"))
            assert sorted(packet[-3:] for _, packet in decided) == [b"bad", b"ood"]
            assert [seen.ports for seen in routing.router.heard()] == [(40000, 53)]


def test_queues_share_connections_and_keep_them(routing: Routing) -> None:
    routing.load(inspected(3, 5, may_bypass=False))
    for family in FAMILIES:
        with reading(routing.router.station.inside, [3, 4, 5]) as reader:
            by_client: dict[int, set[int]] = {}
            for client in range(2, 18):
                there = to_world(family, client)
                back = Packet(WORLD[family], there.source, ports=(53, 40000), wire="eth1")
                routing.router.station.throw([there, there])
                decided = reader.decide(lambda _: True, 2)
                routing.router.station.throw([back])
                decided += reader.decide(lambda _: True, 1)
                assert len(decided) == 3
                by_client[client] = {queue for queue, _ in decided}
        assert all(len(queues) == 1 for queues in by_client.values())
        assert set().union(*by_client.values()) == {3, 4, 5}


@pytest.mark.parametrize("path", [Path.INPUT, Path.OUTPUT])
def test_a_program_decides_on_what_is_this_hosts_own(routing: Routing, path: Path) -> None:
    to_port = Cube.of({Field.L4PROTO: Ranges.of(UDP), Field.DPORT: Ranges.of(5300)})
    routing.load(ruleset({INSPECT[path]: [rule(to_port, Queue(7, 7, False))]}))
    for family in FAMILIES:
        with (
            opened(routing.router, family, socket.SOCK_DGRAM) as own,
            reading(routing.router.station.inside, [7]) as reader,
        ):
            own.settimeout(0.5)
            for verdict in (True, False):
                if path is Path.INPUT:
                    own.bind(("", 5300)) if verdict else None
                    target = OWN["eth0"][family]
                    routing.router.station.throw(
                        [to_world(family, destination=target, ports=(1, 5300))]
                    )
                else:
                    routing.router.heard()
                    own.sendto(b"x", (WORLD[family], 5300))
                (queued,) = reader.decide(lambda _: verdict)  # noqa: B023
                assert queued[0] == 7
                if path is Path.OUTPUT:
                    left = [seen for seen in routing.router.heard() if seen.ports[1] == 5300]
                    assert len(left) == verdict
                elif verdict:
                    own.recv(100)
                else:
                    with pytest.raises(TimeoutError):
                        own.recv(100)
