"""Chooses the packets for what is expected, and makes sure that they are what is asked about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from policylang.ir import actions as ir
from policylang.ir.ruleset import Rule, Ruleset
from policylang.ir.stages import Path
from policylang.lower.asked import Asked
from policylang.model.expectations import Expectation, PacketExpectation
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    TCP_SYN,
    Field,
    State,
)
from policylang.packets.values import name_range
from policylang.proving.borders import MEANT, numbers
from policylang.proving.ground import Plan
from policylang.proving.moments import obstacle
from policylang.proving.namespaces import mac
from policylang.proving.octets import HAS_PORTS, HOP_LIMIT
from policylang.proving.picking import BROADCAST, MULTICAST, TESTS, Picked, Picker, tested
from policylang.proving.protocols import conversation_of
from policylang.proving.reaching import dialled_for, is_there
from policylang.proving.throwing import Facts, Fate, Thrower
from policylang.proving.volleys import Volley, volleys

SHARE_ELSEWHERE = 4  # of as many packets as are dialled directly one, to come there otherwise


@dataclass(frozen=True, slots=True)
class Tried:
    """A packet that was found to be what the question asks for: its fields, as rules see it.

    With `reached` it is that only if it comes out among these, sent elsewhere than it was dialled.
    """

    picked: Picked
    packet: Mapping[Field, int]
    reached: tuple[Cube, ...] | None = None

    def counts(self, fate: Fate) -> bool:
        """Whether it is what the question is about, as its fate shows."""
        return self.reached is None or is_there(self.packet, fate, self.reached)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is expected, and the packets that stand for all that it is about.

    `why` there are none, where that is known.
    """

    expectation: Expectation
    tried: tuple[Tried, ...]
    notes: tuple[str, ...] = ()
    why: str | None = None


def claims(
    wanted: Sequence[tuple[Expectation, Asked]],
    ruleset: Ruleset,
    picker: Picker,
    control: Thrower,
    most: int,
) -> list[Claim]:
    """At most so many packets for each expectation, each seen to be one that is asked about.

    What a packet is tells the firewall without rules that it is thrown at.
    """
    picked: list[tuple[int, Picked]] = []
    notes: list[tuple[str, ...]] = []
    whys: list[str | None] = []
    elsewhere: list[dict[Path, tuple[Cube, ...]]] = []
    for number, (expectation, asked) in enumerate(wanted):
        whys.append(_unspoken(expectation) or obstacle(asked.guards, datetime.now(UTC)))
        elsewhere.append(dialled_for(ruleset, asked.reached))
        notes.append(tuple(_untried(asked, picker.plan)))
        if whys[-1] is not None:
            continue
        chosen = _narrowed(picker, asked.guards)
        picked += ((number, one) for one in chosen.pick(asked.dialled, most))
        picked += ((number, one) for one in chosen.pick(elsewhere[-1], most // SHARE_ELSEWHERE))
    made, places = volleys(one for _, one in picked)
    facts = [_facts(control, volley) for volley in made]
    tried: list[list[Tried]] = [[] for _ in wanted]
    for (number, one), (at, serial) in zip(picked, places, strict=True):
        known = facts[at].get(serial)
        if known is None or not known.is_new:
            continue
        packet = packet_of(one, known, picker)
        asked, met = wanted[number][1], replace(one, path=known.path)
        if any(cube.holds(packet) for cube in asked.dialled.get(known.path, ())):
            tried[number].append(Tried(met, packet))
        elif any(cube.holds(packet) for cube in elsewhere[number].get(known.path, ())):
            reached = tuple(cube for some in asked.reached.values() for cube in some)
            tried[number].append(Tried(met, packet, reached))
    return [
        Claim(expectation, tuple(found), (*told, *_left_open(found, ruleset)), why)
        for (expectation, _), found, told, why in zip(wanted, tried, notes, whys, strict=True)
    ]


def _unspoken(expectation: Expectation) -> str | None:
    """Why a session cannot be played, as a sentence: nobody here speaks its protocol."""
    if isinstance(expectation, PacketExpectation):
        return None
    if conversation_of(expectation.kind, expectation.mode) is not None:
        return None
    return f"sessions of `{expectation.kind}` are not played, `test` alone proves them"


def _left_open(tried: Sequence[Tried], ruleset: Ruleset) -> Iterator[str]:
    """What rules that these packets come to ask beside them, and was tried in one way alone."""
    for kinds, words in (
        ((ir.TimeGuard, ir.UntilGuard), "what depends on the time was tried at the present one"),
        ((ir.CgroupGuard,), "nothing was sent from the cgroups that rules name"),
    ):
        cubes = [
            item.cube
            for chain in ruleset.chains
            for item in chain.items
            if isinstance(item, Rule) and any(isinstance(guard, kinds) for guard in item.guards)
        ]
        if any(cube.holds(one.packet) for cube in cubes for one in tried):
            yield words


def _facts(control: Thrower, volley: Volley) -> dict[int, Facts]:
    control.ground.place(volley.roles)
    control.forget()
    return control.facts({serial: one.probe for serial, one in volley.probes.items()})


def _narrowed(picker: Picker, guards: Iterable[ir.Guard]) -> Picker:
    """The same with packets of those marks and owners alone that a question asks for."""
    borders = picker.borders
    for guard in guards:
        match guard:
            case ir.MarkGuard(value, mask):
                held = tuple(m for m in borders.marks if m & mask == value)
                borders = replace(borders, marks=held or (value,))
            case ir.OwnerGuard(kind, ids, names):
                of_them = {n for pair in ids for n in pair} | set(numbers(kind, names))
                owners = tuple(sorted(of_them)) or (0,)
                if kind == "user":
                    borders = replace(borders, users=owners)
                else:
                    borders = replace(borders, groups=owners)
            case _:
                pass
    return replace(picker, borders=borders)


def _untried(asked: Asked, plan: Plan) -> Iterator[str]:
    """What of a question no packet is made for, in words."""
    if plan.left_out:
        yield f"no packet went by {len(plan.left_out)} of the interfaces: they are too many"
    if asked.published:
        yield "ports that another program forwards were not tried"
    for guard in asked.guards:
        match guard:
            case ir.OwnerGuard(kind, _, names):
                unknown = [name for name in names if not numbers(kind, [name])]
                if unknown:
                    yield f"no packet was sent by {', '.join(f'`{n}`' for n in unknown)}"
            case _:
                pass


def packet_of(picked: Picked, facts: Facts, picker: Picker) -> dict[Field, int]:
    """A packet by its fields, with what the kernel says of it."""
    probe = picked.probe
    found: dict[Field, int] = dict.fromkeys(MEANT, 0) | {
        Field.CT_STATE: State.NEW,
        Field.FAMILY: probe.family,
        Field.SADDR: probe.source,
        Field.DADDR: probe.destination,
        Field.ORIG_DADDR: probe.destination,
        Field.DADDR_TYPE: facts.destination_type,
        Field.SADDR_TYPE: facts.source_type,
        Field.REVERSE_PATH: int(facts.is_routed_back),
        Field.L4PROTO: probe.protocol,
        Field.DSCP: probe.dscp,
        Field.SIZE: probe.size,
    }
    if probe.family == 6:
        found[Field.HOP_LIMIT] = HOP_LIMIT
    if probe.protocol in HAS_PORTS:
        found[Field.SPORT], found[Field.DPORT] = probe.ports
        found[Field.ORIG_DPORT] = probe.ports[1]
    if probe.protocol == TCP:
        found[Field.TCP_FLAGS] = TCP_SYN
    if probe.protocol == ICMP and probe.family == 4:
        found[Field.ICMP_TYPE] = probe.icmp_type
    if probe.protocol == ICMPV6 and probe.family == 6:
        found[Field.ICMPV6_TYPE] = probe.icmp_type
    if probe.way_in is not None:
        found[Field.IIF] = name_range(probe.way_in)[0]
        wire = picker.plan.wire(probe.way_in)
        own = int.from_bytes(mac(wire.number, is_far=True))
        found[Field.SMAC] = own if probe.mac is None else probe.mac
    if facts.way_out is not None:
        found[Field.OIF] = name_range(facts.way_out)[0]
    for end, address in ((Field.SADDR, probe.source), (Field.DADDR, probe.destination)):
        for number, test in enumerate(picker.tests):
            told = tested(test, address)
            held = picked.members.get((address, number), False) if told is None else told
            found[TESTS[end][number]] = int(held)
    return found


def groups_in(cubes: Iterable[Cube]) -> tuple[int, ...]:
    """Groups that packets of these cubes are addressed to, for the firewall to be a member of."""
    found: dict[int, None] = {}
    for cube in cubes:
        addressed = cube[Field.DADDR] & (MULTICAST - BROADCAST)
        if Field.DADDR in cube and addressed:
            found |= dict.fromkeys(n for pair in addressed.pairs[:4] for n in pair)
    return tuple(found)[:MOST_GROUPS]


MOST_GROUPS = 16  # of which this host is made a member; igmp_max_memberships is 20
