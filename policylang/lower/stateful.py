"""The stateful pass: what a policy means for every packet, state by state (LANGUAGE 1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Base, Chain, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.lower.address_tests import address_tests, dynamic_set
from policylang.lower.answers import answers, reminders
from policylang.lower.bans import banned, shield
from policylang.lower.conditions import guards, is_counted
from policylang.lower.deciding import Decider, Decision, log_rule
from policylang.lower.expected import expectations
from policylang.lower.forwards import Forwarding, companion, forwardings, own_is_translated
from policylang.lower.helpers import assignments
from policylang.lower.inspection import queues
from policylang.lower.marks import marks
from policylang.lower.names import base_chain, log_prefix
from policylang.lower.needs import needs
from policylang.lower.paths import LOOPBACK, Places
from policylang.lower.placing import Placed, place
from policylang.lower.protect import screens, source_names
from policylang.lower.published import watched, watching
from policylang.lower.states import icmp_errors, state
from policylang.lower.translations import destinations, proxied, sources
from policylang.lower.treatment import clamps, offloading, warn_of_bypasses
from policylang.lower.untracked import Answering, answering, errors, untracking, warn_of_needs
from policylang.model.policy import Default, InvalidPolicy, Policy
from policylang.model.types import Answer, Direction, NativeRule, PolicyRule, Verb
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
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


def lower(policy: Policy, report: Report) -> Ruleset:
    """The ruleset of a policy: one base chain for each stage and path that has rules.

    Reports `matches-nothing` for a rule that no packet can meet.
    """
    bases: list[Base] = []
    chains: list[Chain] = []

    def add(stage: Stage, path: Path, rules: Iterable[Rule]) -> None:
        items = tuple(rules)
        if items:
            name = base_chain(stage, path)
            bases.append(Base(stage, path, name))
            chains.append(Chain(name, items))

    tests = address_tests(policy, report)
    if report.has_errors:
        return Ruleset((), ())
    places = Places(tests, policy.zones)
    sent_elsewhere = forwardings(policy, places, report)
    placed = tuple(_placed(policy, sent_elsewhere, places, report))
    before, after, screening = screens(policy)
    add(Stage.SCREEN, Path.INPUT, before)
    add(Stage.SCREEN_STATE, Path.INPUT, after)
    chains += screening
    for path, rules in untracking(policy, places, report).items():
        add(Stage.UNTRACK, path, rules)
    for path in Path:
        add(Stage.ASSIGN_HELPER, path, assignments(policy, sent_elsewhere, path, places))
    has_helpers = any(base.stage is Stage.ASSIGN_HELPER for base in bases)
    of_published = watched(policy, places, report)
    marking = marks(policy, places, report, has_helpers=has_helpers)
    if of_published is not None:
        telling = watching(policy, places, of_published)
        marking[Path.INPUT] = (*telling, *marking[Path.INPUT])
    for path, rules in marking.items():
        add(Stage.MARK, path, rules)
    proxying = Decider(base_chain(Stage.TPROXY, Path.INPUT))
    add(Stage.TPROXY, Path.INPUT, proxied(policy, sent_elsewhere, proxying))
    chains += proxying.chains
    for path in (Path.INPUT, Path.OUTPUT):
        translating = Decider(base_chain(Stage.DSTNAT, path))
        add(Stage.DSTNAT, path, destinations(sent_elsewhere, path, translating))
        chains += translating.chains
    for path in (Path.FORWARD, Path.OUTPUT):
        add(Stage.TREAT, path, clamps(policy, path, places, report))
    rules_placed = tuple(p for p in placed if isinstance(p, Placed))
    both_ways = answering(policy, rules_placed, places, report)
    offloaded = tuple(offloading(policy, places, report))
    for path in Path:
        lowering = _Filter(
            policy,
            placed,
            places,
            path,
            both_ways,
            of_published,
            own_is_translated=own_is_translated(sent_elsewhere),
        )
        first = offloaded if path is Path.FORWARD else ()
        add(Stage.FILTER, path, (*first, *lowering.rules()))
        chains += lowering.decider.chains
    for path, rules in queues(policy, places, report, has_helpers=has_helpers).items():
        add(Stage.INSPECT, path, rules)
    warn_of_bypasses(policy, rules_placed, places, report)
    warn_of_needs(policy, rules_placed, places, report)
    leaving = Decider(base_chain(Stage.SRCNAT, Path.FORWARD))
    add(Stage.SRCNAT, Path.FORWARD, sources(policy, sent_elsewhere, places, leaving, report))
    chains += leaving.chains
    if report.has_errors:
        return Ruleset((), ())
    ruleset = Ruleset(
        tuple(bases),
        tuple(chains),
        (*policy.set_names, *source_names(policy)),
        tests.asked,
        tuple(dynamic_set(held) for held in policy.dynamic_sets),
        policy.settings.has_counters,
    )
    return replace(ruleset, needs=needs(policy, ruleset))


def _placed(
    policy: Policy, sent_elsewhere: tuple[Forwarding, ...], places: Places, report: Report
) -> Iterator[Placed | NativeRule]:
    """What is read of FILTER, in order: what is sent elsewhere is allowed at its own place."""
    positions = {id(one.statement): n for n, one in enumerate(sent_elsewhere)}
    translated = own_is_translated(sent_elsewhere)
    for statement in policy.statements:
        match statement:
            case PolicyRule():
                yield place(statement, places, report, own_is_translated=translated)
            case NativeRule():
                yield statement
            case _ if (at := positions.get(id(statement))) is not None:
                before, behind = sent_elsewhere[:at], sent_elsewhere[at + 1 :]
                allowed = companion(sent_elsewhere[at], before, behind)
                if allowed is not None:
                    yield allowed
            case _:
                pass


def _icmp(family: int, types: Ranges) -> Cube:
    return Cube.of({Field.ICMP_TYPE if family == 4 else Field.ICMPV6_TYPE: types})


def _established(action: ir.Action) -> Iterator[Rule]:
    """What becomes of open connections, except that every echo request counts as a first packet."""
    origins = (Origin(Why.IMPLIED_REPLY),)
    octet = UNIVERSE[Field.L4PROTO]
    for family, protocol in ((4, ICMP), (6, ICMPV6)):
        no_icmp = Cube.of(
            {Field.FAMILY: Ranges.of(family), Field.L4PROTO: octet - Ranges.of(protocol)}
        )
        yield Rule(state(State.ESTABLISHED) & no_icmp, action, (), origins)
    for family, request in ((4, ECHO_REQUEST), (6, ECHO_REQUEST_V6)):
        answers = _icmp(family, UNIVERSE[Field.ICMP_TYPE] - request)
        yield Rule(state(State.ESTABLISHED) & answers, action, (), origins)


def _loopback(path: Path, *, own_is_translated: bool) -> Iterator[Rule]:
    """What this host sends to itself; on its way out, that which stays at what it dialled."""
    field = {Path.INPUT: Field.IIF, Path.OUTPUT: Field.OIF}.get(path)
    if field is not None:
        cube = Cube.of({field: Ranges((name_range(LOOPBACK),))})
        if own_is_translated and path is Path.OUTPUT:
            cube &= Cube.of({Field.DNATED: Ranges.of(0)})
        yield Rule(cube, ir.Accept(), (), (Origin(Why.LOOPBACK),))


def _icmp_errors() -> Iterator[Rule]:
    for error in icmp_errors():
        cube = state(State.RELATED) & error
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
    yield Rule(state(State.RELATED) & reset, ir.Accept(), (), (Origin(Why.REJECT_ANSWER),))


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
    """The rules of one path, in the order of LANGUAGE 1."""

    def __init__(
        self,
        policy: Policy,
        placed: tuple[Placed | NativeRule, ...],
        places: Places,
        path: Path,
        both_ways: Mapping[int, Answering],
        of_published: ir.ConnectionMarkGuard | None,
        *,
        own_is_translated: bool,
    ) -> None:
        self.policy = policy
        self.statements = placed
        self.placed = [p for p in placed if isinstance(p, Placed)]
        self.places = places
        self.path = path
        self.both_ways = both_ways
        self.of_published = of_published
        self.own_is_translated = own_is_translated
        self.closed_outbound = policy.defaults[Direction.OUTBOUND].verb is not Verb.ALLOW or any(
            p.rule.verb is not Verb.ALLOW and p.cubes[Path.OUTPUT] for p in self.placed
        )
        self.direction = DIRECTIONS[path]
        self.decider = Decider(path.value, self.direction.value)
        self.decisions = {id(p.rule): self._decision(p.rule) for p in self.placed}

    def rules(self) -> Iterator[Rule]:
        """The rules of the path in their order, the default last."""
        bans = tuple(self._bans())
        if bans:
            yield from _loopback(self.path, own_is_translated=self.own_is_translated)
            passing = Rule(EVERYTHING, ir.Accept(), (), (Origin(Why.IMPLIED_REPLY),))
            open_chain = Chain(f"{self.path.value}-open", (*bans, passing))
            self.decider.chains.append(open_chain)
            yield from _established(ir.Jump(open_chain.name))
        else:
            yield from _established(ir.Accept())
            yield from _loopback(self.path, own_is_translated=self.own_is_translated)
        yield from _icmp_errors()
        if self.path is Path.OUTPUT and _answers_with_reset(self.policy):
            yield from _resets()
        yield from expectations(self.policy.statements, self.path, self.places, self.of_published)
        yield from errors(self.both_ways.values(), self.path)
        if self.path is not Path.OUTPUT:
            yield from self._invalid()
        if self.policy.settings.essentials:
            yield from self._essentials()
        for statement in self.statements:
            if isinstance(statement, NativeRule):
                yield from self._native(statement)
            else:
                yield from self._written(statement, statement.cubes[self.path])
                yield from self._answered(statement.rule)
                yield from answers(
                    statement.rule, self.path, self.places, closed_outbound=self.closed_outbound
                )
        yield from self._default(self.policy.defaults[self.direction])

    def _bans(self) -> Iterator[Rule]:
        """What rules with `also established` say of open connections."""
        for one in banned([(p.rule, p.cubes) for p in self.placed], self.path):
            if one.is_shield:
                yield from shield(one)
            else:
                yield from self.decider.rules(self.decisions[id(one.rule)], one.cubes, again=True)

    def _invalid(self) -> Iterator[Rule]:
        """INVALID packets meet the rules that name their ICMP type, and nothing else."""
        invalid = state(State.INVALID)
        origins = (Origin(Why.INVALID),)
        settings = self.policy.settings
        yield from self._naming_icmp(invalid)
        if settings.invalid_log is not None:
            yield log_rule(
                settings.invalid_log, invalid, origins, log_prefix("invalid", self.direction.value)
            )
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
                yield from self._written(placed, compact(cube & within for cube in named))

    def _written(self, placed: Placed, cubes: tuple[Cube, ...]) -> Iterator[Rule]:
        again = bool(placed.naming_icmp[self.path]) or placed.rule.also_established
        return self.decider.rules(self.decisions[id(placed.rule)], cubes, again=again)

    def _answered(self, rule: PolicyRule) -> Iterator[Rule]:
        """What the rule says of the answers to traffic that conntrack leaves alone."""
        if (answering := self.both_ways.get(id(rule))) is not None:
            yield from self.decider.rules(answering.decision(), answering.answers[self.path])

    def _decision(self, rule: PolicyRule) -> Decision:
        return Decision(
            rule.verb,
            rule.verb.value,
            (Origin(Why.WRITTEN, rule.span, rule.name),),
            rule.answer,
            rule.log,
            rule.adds,
            guards(rule.conditions),
            is_counted(rule.conditions),
            reminders(rule, self.path, closed_outbound=self.closed_outbound),
        )

    def _native(self, native: NativeRule) -> Iterator[Rule]:
        if native.direction is self.direction:
            action = ir.Native(native.target, native.text, native.family)
            yield Rule(EVERYTHING, action, (), (Origin(Why.WRITTEN, native.span),))

    def _default(self, default: Default) -> Iterator[Rule]:
        decision = Decision(
            default.verb,
            f"default {default.verb.value}",
            (Origin(Why.DEFAULT, default.span, default.name),),
            default.answer,
            default.log,
            default.adds,
        )
        yield from self.decider.rules(decision, (EVERYTHING,))
