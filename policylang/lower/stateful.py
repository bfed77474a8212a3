"""The stateful pass: what a policy means for every packet, state by state (LANGUAGE 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policylang.diagnostics import Label, Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Base, Chain, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.lower.helpers import assignments, expectations
from policylang.lower.names import base_chain, log_prefix
from policylang.lower.paths import LOOPBACK, between, traffic_cube
from policylang.model.types import (
    Answer,
    Default,
    Direction,
    InvalidPolicy,
    Log,
    Policy,
    PolicyRule,
    Verb,
)
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    TCP_RST,
    UNIVERSE,
    Field,
    State,
    with_flags,
)
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges, name_range

IGMP = 2
ND_HOP_LIMIT = 255  # RFC 4861 section 7.1: what comes from further away is forged

# RFC 792; never redirects (5).
ICMP_ERRORS = Ranges.of(3, 11, 12)
# RFC 4443: destination unreachable, packet too big, time exceeded, parameter problem.
ICMPV6_ERRORS = Ranges.of(1, 2, 3, 4)
ECHO_REQUEST = Ranges.of(8)
ECHO_REQUEST_V6 = Ranges.of(128)

# RFC 4861. Advertisements of routers are for this host alone to receive.
ND_RECEIVED = Ranges.of(133, 134, 135, 136)
ND_SENT = Ranges.of(133, 135, 136)
# RFC 2710, RFC 3810: queries are what reports answer.
MLD = Ranges.of(130, 131, 132, 143)

DIRECTIONS = {
    Path.INPUT: Direction.INBOUND,
    Path.FORWARD: Direction.FORWARD,
    Path.OUTPUT: Direction.OUTBOUND,
}


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule with the packets that it is about on each path; some of them name an ICMP type."""

    rule: PolicyRule
    cubes: dict[Path, tuple[Cube, ...]]
    naming_icmp: dict[Path, tuple[Cube, ...]]


def lower(policy: Policy, report: Report) -> Ruleset:
    """The ruleset of a policy: one base chain for each stage and path that has rules.

    Reports `matches-nothing` for a rule that no packet can meet.
    """
    placed = [_place(rule, report) for rule in policy.rules]
    bases: list[Base] = []
    chains: list[Chain] = []

    def add(stage: Stage, path: Path, rules: Iterable[Rule]) -> None:
        items = tuple(rules)
        if items:
            name = base_chain(stage, path)
            bases.append(Base(stage, path, name))
            chains.append(Chain(name, items))

    with_helper = any(t.helper is not None for rule in policy.rules for t in rule.what)
    if with_helper:
        for path in Path:
            add(Stage.ASSIGN_HELPER, path, assignments(policy.rules, path))
    for path in Path:
        lowering = _Filter(policy, placed, path)
        add(Stage.FILTER, path, lowering.rules())
        chains += lowering.logged
    return Ruleset(tuple(bases), tuple(chains), policy.set_names)


def _place(rule: PolicyRule, report: Report) -> Placed:
    """A rule and the packets it is about, path by path."""
    places = between(rule.source, rule.destination)
    cubes: dict[Path, tuple[Cube, ...]] = {}
    naming: dict[Path, tuple[Cube, ...]] = {}
    for path, ends in places.items():
        found = [(end & traffic_cube(t), t.names_icmp) for t in rule.what for end in ends]
        cubes[path] = compact(cube for cube, _ in found)
        naming[path] = compact(cube for cube, names_icmp in found if names_icmp)
    if not any(cubes.values()):
        report.add(
            "matches-nothing",
            "no packet can meet this rule",
            rule.span,
            help=_why_nothing(places),
            labels=[Label(used, "used here") for used in rule.used_at],
        )
    return Placed(rule, cubes, naming)


def _why_nothing(places: dict[Path, tuple[Cube, ...]]) -> str:
    if any(places.values()):
        return "its ends and what it speaks of exclude each other"
    return "its ends are empty, exclude each other, or are this host on both sides"


def _state(*states: State) -> Cube:
    return Cube.of({Field.CT_STATE: Ranges.of(*states)})


def _icmp(family: int, types: Ranges) -> Cube:
    return Cube.of({Field.ICMP_TYPE if family == 4 else Field.ICMPV6_TYPE: types})


def _established() -> Iterator[Rule]:
    """Open connections pass, except that every echo request counts as a first packet."""
    origins = (Origin(Why.IMPLIED_REPLY),)
    octet = UNIVERSE[Field.L4PROTO]
    for family, protocol in ((4, ICMP), (6, ICMPV6)):
        no_icmp = Cube.of(
            {Field.FAMILY: Ranges.of(family), Field.L4PROTO: octet - Ranges.of(protocol)}
        )
        yield Rule(_state(State.ESTABLISHED) & no_icmp, ir.Accept(), (), origins)
    for family, request in ((4, ECHO_REQUEST), (6, ECHO_REQUEST_V6)):
        answers = _icmp(family, UNIVERSE[Field.ICMP_TYPE] - request)
        yield Rule(_state(State.ESTABLISHED) & answers, ir.Accept(), (), origins)


def _loopback(path: Path) -> Iterator[Rule]:
    field = {Path.INPUT: Field.IIF, Path.OUTPUT: Field.OIF}.get(path)
    if field is not None:
        cube = Cube.of({field: Ranges((name_range(LOOPBACK),))})
        yield Rule(cube, ir.Accept(), (), (Origin(Why.LOOPBACK),))


def _icmp_errors() -> Iterator[Rule]:
    for family, types in ((4, ICMP_ERRORS), (6, ICMPV6_ERRORS)):
        cube = _state(State.RELATED) & _icmp(family, types)
        yield Rule(cube, ir.Accept(), (), (Origin(Why.ICMP_ERROR),))


def _answers_with_reset(policy: Policy) -> bool:
    """Whether the policy rejects TCP by a reset anywhere."""
    deciders: tuple[PolicyRule | Default, ...] = (*policy.rules, *policy.defaults.values())
    return any(d.answer is not None and d.answer.tcp is Answer.TCP_RESET for d in deciders)


def _resets() -> Iterator[Rule]:
    """The resets by which `reject` answers, whatever the rules say of what goes out.

    The kernel sends them through OUTPUT, RELATED to the connection that was rejected
    (nf_conntrack_attach in net/netfilter/nf_conntrack_core.c). A reset opens nothing.
    """
    reset = Cube.of({Field.TCP_FLAGS: with_flags(TCP_RST, TCP_RST)})
    yield Rule(_state(State.RELATED) & reset, ir.Accept(), (), (Origin(Why.REJECT_ANSWER),))


def _essential_cubes(path: Path) -> tuple[Cube, ...]:
    if path is Path.FORWARD:
        return ()
    discovery = _icmp(6, ND_RECEIVED if path is Path.INPUT else ND_SENT)
    return (
        discovery & Cube.of({Field.HOP_LIMIT: Ranges.of(ND_HOP_LIMIT)}),
        _icmp(6, MLD),
        Cube.of({Field.FAMILY: Ranges.of(4), Field.L4PROTO: Ranges.of(IGMP)}),
    )


class _Filter:
    """Lowers the FILTER stage of one path; `logged` gathers the chains of rules that log."""

    def __init__(self, policy: Policy, placed: list[Placed], path: Path) -> None:
        self.policy = policy
        self.placed = placed
        self.path = path
        self.logged: list[Chain] = []

    def rules(self) -> Iterator[Rule]:
        """The rules of the path in their order, the default last."""
        yield from _established()
        yield from _loopback(self.path)
        yield from _icmp_errors()
        if self.path is Path.OUTPUT and _answers_with_reset(self.policy):
            yield from _resets()
        yield from expectations(self.policy.rules, self.path)
        if self.path is not Path.OUTPUT:
            yield from self._invalid()
        if self.policy.settings.essentials:
            yield from self._essentials()
        for placed in self.placed:
            yield from self._written(placed.rule, placed.cubes[self.path])
        default = self.policy.defaults[DIRECTIONS[self.path]]
        origins = (Origin(Why.DEFAULT, default.span, default.name),)
        yield from self._decide(default, (EVERYTHING,), f"default {default.verb.value}", origins)

    def _invalid(self) -> Iterator[Rule]:
        """INVALID packets meet the rules that name their ICMP type, and nothing else."""
        invalid = _state(State.INVALID)
        origins = (Origin(Why.INVALID),)
        settings = self.policy.settings
        yield from self._naming_icmp(invalid)
        if settings.invalid_log is not None:
            yield _log(settings.invalid_log, invalid, origins, log_prefix("invalid", self.path))
        accept = settings.invalid is InvalidPolicy.ACCEPT
        yield Rule(invalid, ir.Accept() if accept else ir.Drop(), (), origins)

    def _essentials(self) -> Iterator[Rule]:
        """What IP needs in order to work; a rule that names the ICMP type comes before it."""
        for cube in _essential_cubes(self.path):
            yield from self._naming_icmp(cube)
            yield Rule(cube, ir.Accept(), (), (Origin(Why.ESSENTIAL),))

    def _naming_icmp(self, within: Cube) -> Iterator[Rule]:
        for placed in self.placed:
            if named := placed.naming_icmp[self.path]:
                yield from self._written(placed.rule, compact(cube & within for cube in named))

    def _written(self, rule: PolicyRule, cubes: tuple[Cube, ...]) -> Iterator[Rule]:
        origins = (Origin(Why.WRITTEN, rule.span, rule.name),)
        return self._decide(rule, cubes, rule.verb.value, origins)

    def _decide(
        self,
        decider: PolicyRule | Default,
        cubes: tuple[Cube, ...],
        what: str,
        origins: tuple[Origin, ...],
    ) -> Iterator[Rule]:
        """The rules that log and decide what is in any of `cubes`.

        Several cubes that are logged share a chain, so that a rate holds for the statement and
        a packet in two of them is logged once.
        """
        verdicts = [v for cube in cubes for v in _verdict(decider, cube, origins)]
        if decider.log is None:
            yield from verdicts
            return
        prefix = log_prefix(what, self.path)
        if len(cubes) == 1:
            yield _log(decider.log, cubes[0], origins, prefix)
            yield from verdicts
        elif cubes:
            name = f"{self.path.value}-log-{len(self.logged) + 1}"
            body = (
                _log(decider.log, EVERYTHING, origins, prefix),
                *_verdict(decider, EVERYTHING, origins),
            )
            self.logged.append(Chain(name, body))
            yield from (Rule(cube, ir.Jump(name), (), origins) for cube in cubes)


def _log(log: Log, cube: Cube, origins: tuple[Origin, ...], prefix: str) -> Rule:
    rate = log.rate
    return Rule(
        cube,
        ir.Log(prefix if log.prefix is None else log.prefix, log.level, log.group),
        () if rate is None else (ir.RateGuard(rate.count, rate.unit, rate.burst),),
        origins,
    )


def _verdict(
    decider: PolicyRule | Default, cube: Cube, origins: tuple[Origin, ...]
) -> Iterator[Rule]:
    match decider.verb:
        case Verb.ALLOW:
            yield Rule(cube, ir.Accept(), (), origins)
        case Verb.DENY:
            yield Rule(cube, ir.Drop(), (), origins)
        case Verb.REJECT:
            assert decider.answer is not None
            tcp, other = ir.Answer(decider.answer.tcp), ir.Answer(decider.answer.other)
            of_tcp = cube & Cube.of({Field.L4PROTO: Ranges.of(TCP)})
            if tcp is not other and not of_tcp.is_empty:
                yield Rule(of_tcp, ir.Reject(tcp), (), origins)
            if tcp is other or of_tcp != cube:
                yield Rule(cube, ir.Reject(other), (), origins)
