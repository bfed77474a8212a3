"""Rulesets made at random, and packets at the edges of what they speak of; no policy is read.

Values come from small pools and rules from few shapes, so that rules overlap, cover one another,
are equal, and stand in runs that the passes join.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from random import Random

from policylang.ir.actions import (
    Accept,
    Action,
    AddToSet,
    Answer,
    AssignHelper,
    ClampMss,
    ConnectionMarkGuard,
    ConnectionsGuard,
    DestinationNat,
    Drop,
    End,
    Guard,
    Jump,
    Leave,
    Log,
    MapPrefix,
    MarkGuard,
    Masquerade,
    Native,
    Offload,
    OwnerGuard,
    Per,
    Queue,
    RateGuard,
    RedirectToSelf,
    Reject,
    RememberAsker,
    RememberQuestion,
    SetConnectionMark,
    SetDscp,
    SetMark,
    SourceNat,
    TimeGuard,
    TransparentProxy,
    Untrack,
)
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Base, Chain, DynamicSet, Item, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube, Packet
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    DADDR_TESTS,
    FAMILY_ADDRESSES,
    REQUIRES,
    SADDR_TESTS,
    UNIVERSE,
    Field,
    State,
    with_flags,
)
from policylang.packets.values import Ranges, name_range, parse_address

MOST_RULES = 60

# What the rules of one ruleset speak of: fields, and how many of them a rule may name.
PALETTES: tuple[tuple[tuple[Field, ...], int], ...] = (
    ((Field.SADDR,), 1),
    ((Field.IIF, Field.L4PROTO, Field.DPORT), 3),
    ((Field.IIF, Field.OIF), 2),
    ((Field.IIF, Field.OIF, Field.SADDR, Field.DPORT), 3),
    ((Field.SADDR, Field.DADDR), 2),
    ((Field.SADDR, Field.L4PROTO, Field.DPORT), 3),
    ((Field.SADDR, Field.DADDR, Field.SPORT, Field.DPORT), 4),
    ((Field.L4PROTO, Field.DPORT), 2),
    ((Field.FAMILY, Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.HOP_LIMIT), 2),
    ((Field.HOP_LIMIT,), 1),
    ((Field.TCP_FLAGS, Field.DPORT), 2),
    ((Field.ICMP_TYPE,), 1),
    ((Field.CT_STATE, Field.CT_HELPER, Field.IIF, Field.L4PROTO), 3),
    ((Field.CT_STATE, Field.OIF, Field.SADDR), 2),
    ((Field.OIF, Field.DADDR, Field.DADDR_TYPE), 2),
    ((Field.CT_STATE, Field.CT_DIRECTION, Field.SADDR), 3),
    ((Field.SADDR_TEST_0, Field.DADDR_TEST_0, Field.SADDR_TEST_1, Field.DPORT), 2),
    ((Field.DSCP,), 1),
    ((Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT, Field.DPORT), 3),
    ((Field.L4PROTO, Field.ORIG_DPORT), 2),
    ((Field.IIF, Field.SMAC, Field.DSCP, Field.SIZE), 2),
    (tuple(Field), 4),
)

PATTERNS = ("eth0", "eth1", "eth2", "eth*", "eth1*", "wlan*", "wlan0", "lo", "ppp0")
V4 = ("10.0.0.0/8", "10.0.0.0/24", "10.1.0.0/16", "192.0.2.0/24", "0.0.0.0/1", "128.0.0.0/1")
V6 = ("2001:db8::/32", "2001:db8:1::/48", "fe80::/10", "::/1", "8000::/1")
HOSTS = (*(f"192.0.2.{n}" for n in range(1, 25)), *(f"2001:db8::{n:x}" for n in range(1, 9)))
PORTS = (*((n, n) for n in range(20, 31)), (80, 80), (443, 443), (0, 1023), (1024, 65535))
PORTED = ((6, 6), (6, 6), (17, 17), (132, 132))
PROTOCOLS = (*PORTED, (1, 1), (2, 2), (47, 47), (58, 58), (0, 255))
TYPES = ((8, 8), (0, 7), (9, 255), (3, 3), (128, 128), (0, 127), (129, 255), (133, 136))
MACS = tuple((n, n) for n in (0x02_00_00_00_00_01, 0x02_00_00_00_00_02, 0x52_54_00_00_00_09))
CODE_POINTS = ((0, 0), (10, 10), (46, 46), (8, 15))
SIZES = ((0, 100), (101, 1500), (40, 40), (1281, 65535))
WHYS = (*(Why.WRITTEN,) * 6, Why.IMPLIED_REPLY, Why.ESSENTIAL, Why.LOOPBACK)

LOG_ACTIONS = (Log("a"), Log("b", level="info"), Log("c", group=3))
PASSING: tuple[Action, ...] = (
    *LOG_ACTIONS,
    AddToSet("seen", End.SOURCE, 3600),
    AddToSet("seen", End.DESTINATION, None),
    RememberQuestion(10),
    RememberAsker(10),
    Native("nft", "drop", None),
    Offload(("eth0", "eth1")),
)
GUARDS: tuple[tuple[Guard, ...], ...] = (
    (RateGuard(10, "second", 5),),
    (RateGuard(10, "second", 5, over=True, per=Per(End.SOURCE)),),
    (ConnectionsGuard(8),),
    (MarkGuard(1, 0xFF),),
    (TimeGuard(Ranges.between(0, 86_399), is_local=False),),
    (MarkGuard(2, 0xFF), RateGuard(4, "minute", 5)),
    (OwnerGuard("user", Ranges.of(1000), ("alice",)), ConnectionsGuard(2, over=True)),
    (MarkGuard(1, 0xFF), ConnectionsGuard(8), RateGuard(10, "second", 5)),
    (MarkGuard(2, 0x2),),
    (ConnectionMarkGuard(1, 0xF), MarkGuard(0, 0xF0)),
)
VERDICTS: tuple[Action, ...] = (
    Accept(),
    Drop(),
    Reject(Answer.PORT_UNREACHABLE),
    Reject(Answer.ADMIN_PROHIBITED),
)


def _addresses(text: str) -> Ranges:
    found = parse_address(text)
    assert found is not None
    return Ranges((found,))


def _alterations() -> dict[Stage, tuple[tuple[Action, Cube], ...]]:
    """What the stages around the filter do, with the packets that an action is for."""
    v4, v6 = (Cube.of({Field.FAMILY: Ranges.of(family)}) for family in (4, 6))
    ported = Cube.of({Field.L4PROTO: Ranges.of(6, 17)})
    tcp = Cube.of({Field.L4PROTO: Ranges.of(6)})
    one, several = _addresses("192.0.2.7"), _addresses("192.0.2.8/30") | _addresses("192.0.2.99")
    six = _addresses("2001:db8::7")
    (row,), (pool,) = _addresses("10.0.0.0/24"), _addresses("203.0.113.0/28")
    return {
        Stage.UNTRACK: ((Untrack(), EVERYTHING),),
        Stage.MARK: (
            (SetMark(0x1, 0xF), EVERYTHING),
            (SetMark(0x2, 0xF), EVERYTHING),
            (SetMark(0x10, 0xF0), EVERYTHING),
            (SetConnectionMark(0x1, 0xF), EVERYTHING),
            (SetDscp(46), EVERYTHING),
            (SetDscp(10), EVERYTHING),
        ),
        Stage.TPROXY: ((TransparentProxy(3128, 6, 0x100, 0x100), tcp),),
        Stage.DSTNAT: (
            (DestinationNat(one), v4),
            (DestinationNat(one, 8080), v4 & ported),
            (DestinationNat(several), v4),
            (DestinationNat(several, by_source=True), v4),
            (DestinationNat(six, 8080), v6 & ported),
            (RedirectToSelf(3128), ported),
            (MapPrefix(End.DESTINATION, row), v4),
        ),
        Stage.TREAT: ((ClampMss(None), tcp), (ClampMss(1400), tcp)),
        Stage.INSPECT: ((Queue(0, 3, may_bypass=True), EVERYTHING),),
        Stage.SRCNAT: (
            (Masquerade(), EVERYTHING),
            (Masquerade((1024, 2047)), EVERYTHING),
            (SourceNat(pool), v4),
            (MapPrefix(End.SOURCE, row), v4),
        ),
    }


ALTERATIONS = _alterations()


@cache
def made(seed: int) -> Ruleset:
    """The ruleset of that number: always the same one."""
    return _Maker(Random(seed)).ruleset()


class _Maker:
    """Makes one ruleset."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.palette, self.most_terms = random.choice(PALETTES)
        self.shapes = [self._shape() for _ in range(random.randint(1, 3))]
        self.verdicts = random.sample(VERDICTS, random.randint(1, 3))
        self.talkative = random.choice((0.0, 0.0, 0.05, 0.2))  # how often a rule does not decide
        self.guarded = random.choice((0.0, 0.0, 0.1))

    def ruleset(self) -> Ruleset:
        random = self.random
        chains = [Chain(f"log-{n}", self._log_chain()) for n in range(2)]
        jumps = [chain.name for chain in chains]
        bases: list[Base] = []
        for path in random.sample(tuple(Path), random.choice((1, 1, 2))):
            count = random.randint(1, MOST_RULES) if not bases else random.randint(1, 12)
            rules = [self._rule(jumps) for _ in range(count)]
            last = Rule(EVERYTHING, random.choice(VERDICTS[:3]), (), _origins(Why.DEFAULT))
            bases.append(Base(Stage.FILTER, path, path.value))
            chains.append(Chain(path.value, (*rules, last)))
        if random.random() < 0.2:
            bases.append(Base(Stage.ASSIGN_HELPER, Path.INPUT, "assign"))
            rules = [self._assignment() for _ in range(random.randint(1, 12))]
            chains.append(Chain("assign", tuple(rules)))
        if random.random() < 0.5:
            stage = random.choice((*ALTERATIONS, *(Stage.MARK,) * 4))
            on = Path.FORWARD if stage in (Stage.TREAT, Stage.SRCNAT) else Path.INPUT
            bases.append(Base(stage, on, "alter"))
            inner = tuple(self._alteration(stage, ()) for _ in range(random.randint(1, 12)))
            rules = [
                self._alteration(stage, ("log-0", "inner")) for _ in range(random.randint(2, 25))
            ]
            chains += (Chain("inner", inner), Chain("alter", tuple(rules)))
        tests = (DynamicSet("seen", None, 100), DynamicSet("other", None, 100))
        return pruned(Ruleset(tuple(bases), tuple(chains), address_tests=tests))

    def _log_chain(self) -> tuple[Item, ...]:
        """What a rule that logs jumps to; some come back."""
        log = Rule(EVERYTHING, self.random.choice(LOG_ACTIONS), (RateGuard(10, "second", 5),))
        cube = EVERYTHING if self.random.random() < 0.5 else self._cube()
        return (log, Rule(cube, self.random.choice(self.verdicts), (), _origins(Why.WRITTEN)))

    def _rule(self, jumps: list[str]) -> Rule:
        random = self.random
        guards = random.choice(GUARDS) if random.random() < self.guarded else ()
        action: Action = random.choice(self.verdicts)
        if random.random() < self.talkative:
            others: list[Action] = [*PASSING, *(Jump(name) for name in jumps)]
            action = random.choice(others)
        return Rule(self._cube(), action, guards, _origins(random.choice(WHYS)))

    def _assignment(self) -> Rule:
        protocol = self.random.choice((6, 17))
        action: Action = self.random.choice((AssignHelper("some", protocol), Leave()))
        only = Cube.of({Field.L4PROTO: Ranges.of(protocol)})
        cube = self._cube() & only
        return Rule(only if cube.is_empty else cube, action, (), _origins(Why.HELPER_ASSIGNMENT))

    def _alteration(self, stage: Stage, jumps: tuple[str, ...]) -> Rule:
        """A rule of a stage around the filter, for packets that its action is for."""
        random = self.random
        action, meant = random.choice(ALTERATIONS[stage])
        if random.random() < 0.35:
            others: list[Action] = [Leave(), Leave(), Log("d"), *(Jump(name) for name in jumps)]
            action, meant = random.choice(others), EVERYTHING
        cube = self._cube()
        if stage is Stage.MARK and random.random() < 0.9:  # what is changed here is read here
            cube = Cube.of({Field.DSCP: self._few(Field.DSCP, 1)})
            action = random.choice((action, SetDscp(46), SetDscp(10), Leave()))
        cube = cube & meant
        guards = random.choice(GUARDS) if random.random() < 0.1 else ()
        return Rule(meant if cube.is_empty else cube, action, guards, _origins(Why.WRITTEN))

    def _shape(self) -> tuple[Field, ...]:
        count = self.random.randint(1, min(self.most_terms, len(self.palette)))
        return tuple(sorted(self.random.sample(self.palette, count)))

    def _cube(self) -> Cube:
        """A cube that is not empty."""
        shape = self.random.choice(self.shapes) if self.random.random() < 0.9 else self._shape()
        cube = EVERYTHING
        for field in shape:
            narrowed = cube & Cube.of({field: self._values(field)})
            if not narrowed.is_empty:
                cube = narrowed
        return cube

    def _values(self, field: Field) -> Ranges:
        """Mostly one value, sometimes several, seldom all but some; never none."""
        random = self.random
        count = random.choice((1, 1, 1, 1, 2, 3))
        values = self._few(field, count)
        if random.random() < 0.07 and UNIVERSE[field] - values:
            return UNIVERSE[field] - values
        return values

    def _few(self, field: Field, count: int) -> Ranges:
        random = self.random
        match field:
            case Field.IIF | Field.OIF:
                return Ranges.merged(name_range(random.choice(PATTERNS)) for _ in range(count))
            case Field.CT_STATE:
                return Ranges.of(*random.sample(tuple(State), count))
            case Field.CT_HELPER:
                return Ranges.merged(name_range(n) for n in random.sample(("ftp", "sip"), 1))
            case Field.FAMILY:
                return Ranges.of(random.choice((4, 6)))
            case Field.SADDR | Field.DADDR | Field.ORIG_DADDR:
                near = random.choice((HOSTS, HOSTS, (*V4, *V6)))
                texts = (random.choice(near) for _ in range(count))
                return Ranges.merged(r for t in texts if (r := parse_address(t)) is not None)
            case Field.DADDR_TYPE:
                return Ranges.of(*(random.randint(1, 5) for _ in range(count)))
            case Field.HOP_LIMIT:
                return Ranges.merged((random.choice(((255, 255), (0, 254), (64, 64))),))
            case Field.L4PROTO:
                pool = PORTED if random.random() < 0.8 else PROTOCOLS
                return Ranges.merged(random.choice(pool) for _ in range(count))
            case Field.SPORT | Field.DPORT | Field.ORIG_DPORT:
                return Ranges.merged(random.choice(PORTS) for _ in range(count))
            case Field.ICMP_TYPE | Field.ICMPV6_TYPE:
                return Ranges.merged(random.choice(TYPES) for _ in range(count))
            case Field.TCP_FLAGS:
                mask = random.choice((0x02, 0x04, 0x12, 0x17))
                return with_flags(mask, random.randrange(256) & mask)
            case Field.SMAC:
                return Ranges.merged(random.choice(MACS) for _ in range(count))
            case Field.DSCP:
                return Ranges.merged(random.choice(CODE_POINTS) for _ in range(count))
            case Field.SIZE:
                return Ranges.merged(random.choice(SIZES) for _ in range(count))
            case Field.SADDR_TYPE:
                return Ranges.of(*(random.randint(1, 5) for _ in range(count)))
            case (
                Field.CT_DIRECTION
                | Field.IPSEC
                | Field.REVERSE_PATH
                | Field.SOURCE_ROUTED
                | Field.ANSWER
                | Field.TO_ASKER
                | Field.DNATED
                | Field.IPSEC_OUT
                | Field.EXPECTED
            ):
                return Ranges.of(random.randint(0, 1))
            case _:
                assert field in (*SADDR_TESTS, *DADDR_TESTS)
                return Ranges.of(random.randint(0, 1))


def _origins(why: Why) -> tuple[Origin, ...]:
    return (Origin(why),)


def pruned(ruleset: Ruleset) -> Ruleset:
    """The ruleset without chains that nothing reads."""
    bodies = {chain.name: chain for chain in ruleset.chains}
    reached: set[str] = set()
    waiting = [base.chain for base in ruleset.bases]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += (
            action.chain
            for item in bodies[name].items
            for action in _actions(item)
            if isinstance(action, Jump)
        )
    return replace(ruleset, chains=tuple(c for c in ruleset.chains if c.name in reached))


def _actions(item: Item) -> tuple[Action, ...]:
    if isinstance(item, Rule):
        return (item.action,)
    return tuple(entry.action for entry in item.entries)


# --- packets ----------------------------------------------------------------------------------


def packets(ruleset: Ruleset, random: Random, count: int) -> Iterator[Packet]:
    """Packets that meet rules of a ruleset, or would but for a field or two.

    They have the fields that the rules speak of.
    """
    cubes = [item.cube for chain in ruleset.chains for item in chain.items]
    edges = edges_of(cubes)
    for _ in range(count):
        wanted = dict(random.choice(cubes))
        if wanted and random.random() < 0.4:
            del wanted[random.choice(tuple(wanted))]
        if random.random() < 0.3:
            wanted = {**dict(random.choice(cubes)), **wanted}
        yield _packet(wanted, edges, random)


def edges_of(cubes: Iterable[Cube]) -> dict[Field, tuple[int, ...]]:
    """The values at both sides of every border, for each field that cubes speak of."""
    found: dict[Field, set[int]] = {Field.FAMILY: set()}
    for cube in cubes:
        for field, values in cube:
            near = found.setdefault(field, set())
            for low, high in values:
                near |= {low - 1, low, high, high + 1}
    for field, near in found.items():
        near |= {end for pair in UNIVERSE[field] for end in pair}
    return {f: tuple(sorted(n for n in found[f] if n in UNIVERSE[f])) for f in sorted(found)}


def _packet(
    wanted: dict[Field, Ranges], edges: dict[Field, tuple[int, ...]], random: Random
) -> Packet:
    """A packet as close to what is wanted as a packet can be."""
    packet: dict[Field, int] = {}
    for field in edges:
        if any(f is field and packet[needs] not in held for f, needs, held in REQUIRES):
            continue
        can = UNIVERSE[field]
        if field in ADDRESS_FIELDS:
            can = FAMILY_ADDRESSES[packet[Field.FAMILY]]
        liked = wanted.get(field, can) & can or can
        near = [number for number in edges[field] if number in liked]
        packet[field] = random.choice(near or [liked.pairs[0][0]])
    return packet
