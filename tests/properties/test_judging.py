"""A connection is ended only where each first packet that it may have had is denied now.

Rulesets and connections are made at random; what is not known of a first packet (by which guards
it is met, members of sets, code points) is drawn for each packet that is put to the rules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from policylang.apply import conntrack, judging
from policylang.apply.conntrack import Connection, FlowTuple
from policylang.apply.judging import Judge
from policylang.apply.routing import Routing
from policylang.ir import actions as ir
from policylang.ir.ruleset import Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Packet
from policylang.packets.fields import (
    ICMP,
    TCP,
    TCP_SYN,
    UDP,
    UNIVERSE,
    AddressType,
    Field,
    State,
)
from policylang.packets.values import Ranges, name_range, parse_one_address
from tests.passes.rulesets import edges_of, made
from tests.properties.evaluate import evaluate

SEEDS = range(200)
CONNECTIONS = 15  # for each ruleset
PACKETS = 6  # for each connection that is to end

HOSTS = tuple(
    number
    for text in (*(f"192.0.2.{n}" for n in range(1, 12)), "10.0.0.5", "10.1.0.5", "203.0.113.9")
    if (number := parse_one_address(text)) is not None
)
OWN = HOSTS[:3]
NOT_THERE = ((Path.INPUT, Field.OIF), (Path.OUTPUT, Field.IIF))  # no statement leads to these
INTERFACES = (Field.IIF, Field.OIF)
NAMES = ("eth0", "eth1", "wlan0")


def _routing(random: Random) -> Routing:
    """A host with some addresses, which knows where most of the others are."""
    routing = Routing(dict.fromkeys(OWN, AddressType.LOCAL), {}, {4: (0,), 6: (0,)}, {})
    for address in HOSTS:
        where = frozenset({"lo"}) if address in OWN else frozenset({random.choice(NAMES)})
        routing._known[address] = where if random.random() < 0.8 or address in OWN else None
    return routing


def _connection(random: Random) -> Connection:
    protocol = random.choice((TCP, TCP, UDP, ICMP))
    source, dialled = random.sample(HOSTS, 2)
    target = random.choice(HOSTS) if random.random() < 0.2 else dialled
    if target == source:
        target = dialled
    ports: tuple[int | None, ...] = (None, None, None)
    if protocol != ICMP:
        ports = (random.randint(1024, 65535), random.randint(19, 31), random.randint(19, 31))
    asked = None if protocol != ICMP else random.choice((8, 13))
    is_translated = target != dialled or (ports[1] != ports[2] and random.random() < 0.2)
    port = ports[2] if is_translated else ports[1]
    answered = None if asked is None else 0
    return Connection(
        FlowTuple(4, protocol, source, dialled, ports[0], ports[1], asked),
        FlowTuple(4, protocol, target, source, port, ports[0], answered),
        conntrack.DESTINATION_TRANSLATED if is_translated else 0,
    )


def _first_packets(
    one: Connection, routing: Routing, known: dict[Field, tuple[int, ...]], random: Random
) -> list[tuple[Path, Packet]]:
    """A first packet of a connection on each path that it takes, in the words of the filter."""
    first, seen = one.original, one.reply
    packet = {f: random.choice(near) for f, near in known.items()}
    packet |= {
        Field.FAMILY: 4,
        Field.SADDR: first.source,
        Field.DADDR: seen.source,
        Field.ORIG_DADDR: first.destination,
        Field.L4PROTO: first.protocol,
        Field.CT_STATE: State.NEW,
        Field.CT_DIRECTION: 0,
        Field.EXPECTED: 0,
        Field.DNATED: int(one.is_sent_elsewhere),
        Field.SADDR_TYPE: _type(first.source),
        Field.DADDR_TYPE: _type(seen.source),
    }
    for f in (Field.ICMPV6_TYPE, Field.HOP_LIMIT, Field.ICMP_TYPE, Field.TCP_FLAGS):
        packet.pop(f, None)
    ports = {Field.SPORT: first.source_port, Field.DPORT: seen.source_port}
    for f, port in {**ports, Field.ORIG_DPORT: first.destination_port}.items():
        packet.pop(f, None)
        packet |= {} if port is None else {f: port}
    if first.icmp_type is not None:
        packet[Field.ICMP_TYPE] = first.icmp_type
    if first.protocol == TCP:
        packet[Field.TCP_FLAGS] = TCP_SYN
    coming, leaving = (_name(routing, a, random) for a in (first.source, seen.source))
    ways: dict[tuple[bool, bool], list[tuple[Path, str | None, str | None]]] = {
        (True, True): [(Path.OUTPUT, None, "lo"), (Path.INPUT, "lo", None)],
        (True, False): [(Path.OUTPUT, None, leaving)],
        (False, True): [(Path.INPUT, coming, None)],
        (False, False): [(Path.FORWARD, coming, leaving)],
    }
    found: list[tuple[Path, Packet]] = []
    for path, by, to in ways[first.source in OWN, seen.source in OWN]:
        here: dict[Field, int] = {f: v for f, v in packet.items() if f not in INTERFACES}
        names = {Field.IIF: by, Field.OIF: to}
        here |= {f: name_range(name)[0] for f, name in names.items() if name is not None}
        found.append((path, here))
    return found


def _type(address: int) -> int:
    return AddressType.LOCAL if address in OWN else AddressType.UNICAST


def _name(routing: Routing, address: int, random: Random) -> str:
    where = routing.interfaces(address)
    return random.choice(sorted(where) if where else NAMES)


def _passes(ruleset: Ruleset, packets: list[tuple[Path, Packet]], random: Random) -> bool:
    """Whether rules let a packet through everywhere, with guards that hold by chance."""
    guards: dict[ir.Guard, bool] = {}

    def holds(guard: ir.Guard) -> bool:
        return guards.setdefault(guard, random.random() < 0.5)

    return not any(
        isinstance(
            evaluate(ruleset, Stage.FILTER, path, packet, guards_hold=holds).action,
            ir.Drop | ir.Reject,
        )
        for path, packet in packets
    )


def _wrongly_ended(judged: Counter[bool]) -> Iterator[str]:
    for seed in SEEDS:
        random = Random(seed)
        ruleset, routing = made(seed), _routing(random)
        judge = Judge(ruleset, routing)
        if any(f in judge.borders[Stage.FILTER, path] for path, f in NOT_THERE):
            continue
        cubes = [item.cube for chain in ruleset.chains for item in chain.items]
        known = {f: near or (UNIVERSE[f].pairs[0][0],) for f, near in edges_of(cubes).items()}
        for _ in range(CONNECTIONS):
            one = _connection(random)
            may_begin = judge.may_begin(one, None)
            # What was worked out for others that are alike is what is worked out for this one.
            if may_begin is not Judge(ruleset, routing).may_begin(one, None):
                yield f"seed {seed}: another answer than before of {one}"
            judged[may_begin] += 1
            for _ in range(0 if may_begin else PACKETS):
                packets = _first_packets(one, routing, known, random)
                if _passes(ruleset, packets, random):
                    yield f"seed {seed}: {one} may begin by {packets}"


def test_what_is_ended_could_not_begin() -> None:
    judged: Counter[bool] = Counter()
    assert not list(_wrongly_ended(judged))
    assert min(judged[True], judged[False]) > 300, judged


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("ELSEWHERE", Ranges((name_range("lo"),))),
        ("bisect_right", lambda limits, value: 0),
        ("_fields", lambda ends: {Field.FAMILY: ends.family, Field.DADDR: ends.source}),
        ("OF_NO_MATTER", AddressType.MULTICAST),
    ],
)
def test_broken_judge_is_told(name: str, instead: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, name, instead)
    assert next(_wrongly_ended(Counter()), None) is not None
