"""What a policy relies on beside its rules: forwarding, kernel modules, the route to a proxy.

What can be read off the lowered rules is read off them, so that both agree.
"""

from __future__ import annotations

from collections.abc import Iterator

from policylang.ir.actions import Accept, AssignHelper, Jump, TransparentProxy
from policylang.ir.origin import Origin, Why, joined
from policylang.ir.ruleset import (
    Forwarding,
    ListedSet,
    Lookup,
    Module,
    NeededHelper,
    Needs,
    ProxyRoute,
    Rule,
    Ruleset,
)
from policylang.ir.stages import Path, Stage
from policylang.lower.states import state
from policylang.model.policy import Policy
from policylang.model.translations import (
    Netmap,
    PortForward,
    Redirect,
    SourceTranslation,
    TransparentProxying,
)
from policylang.model.types import (
    Direction,
    Helper,
    PolicyRule,
    PublishedEnd,
    SelfEnd,
    Verb,
)
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import NAMES, Field, State
from policylang.packets.values import Ranges

FAMILIES = (4, 6)
TRANSLATING = (SourceTranslation, PortForward, Redirect, Netmap)


def needs(policy: Policy, ruleset: Ruleset) -> Needs:
    """What `ruleset`, which `policy` was lowered to, needs of whoever loads it."""
    return Needs(
        tuple(_forwards(ruleset)),
        tuple(_modules(policy)),
        tuple(_helpers(ruleset)),
        _proxy_route(ruleset),
        _inbound(policy),
        _forwards_any(policy, ruleset),
        policy.settings.cuts_flows,
        tuple(test.source for test in ruleset.address_tests if isinstance(test, ListedSet)),
    )


def _forwards(ruleset: Ruleset) -> Iterator[Forwarding]:
    """The families of which a statement lets first packets through, with the first that does."""
    missing = list(FAMILIES)
    for rule, cube in _reached(ruleset, Stage.FILTER, Path.FORWARD):
        if not missing:
            return
        asked = [o for o in rule.origins if o.why in (Why.WRITTEN, Why.DEFAULT) and o.span]
        if isinstance(rule.action, Accept) and asked:
            for family in [f for f in missing if f in cube[Field.FAMILY]]:
                missing.remove(family)
                yield Forwarding(family, tuple(asked))


def _helpers(ruleset: Ruleset) -> Iterator[NeededHelper]:
    found: dict[tuple[str, int], NeededHelper] = {}
    for path in Path:
        for rule, cube in _reached(ruleset, Stage.ASSIGN_HELPER, path):
            if isinstance(rule.action, AssignHelper):
                name, protocol = rule.action.helper, rule.action.protocol
                before = found.get((name, protocol), NeededHelper(name, protocol, ()))
                families = {*before.families, *(f for f in FAMILIES if f in cube[Field.FAMILY])}
                found[name, protocol] = NeededHelper(
                    name, protocol, tuple(sorted(families)), joined(before.origins, rule.origins)
                )
    yield from found.values()


def _proxy_route(ruleset: Ruleset) -> ProxyRoute | None:
    route: ProxyRoute | None = None
    for path in Path:
        for rule, cube in _reached(ruleset, Stage.TPROXY, path):
            if isinstance(rule.action, TransparentProxy):
                value, mask = rule.action.value, rule.action.mask
                route = route or ProxyRoute(value, mask, ())
                assert (route.value, route.mask) == (value, mask), "one mark for all proxies"
                families = {*route.families, *(f for f in FAMILIES if f in cube[Field.FAMILY])}
                origins = joined(route.origins, rule.origins)
                route = ProxyRoute(value, mask, tuple(sorted(families)), origins)
    return route


def _reached(ruleset: Ruleset, stage: Stage, path: Path) -> Iterator[tuple[Rule, Cube]]:
    """The rules that a packet may meet there, each with the packets that come to it."""
    chains = {chain.name: chain for chain in ruleset.chains}

    def within(name: str, coming: Cube) -> Iterator[tuple[Rule, Cube]]:
        for item in chains[name].items:
            assert not isinstance(item, Lookup), "lookups are made by the optimiser"
            cube = item.cube if coming == EVERYTHING else coming & item.cube
            if not cube.is_empty:
                yield item, cube
                if isinstance(item.action, Jump):
                    yield from within(item.action.chain, cube)

    for base in ruleset.bases:
        if (base.stage, base.path) == (stage, path):
            yield from within(base.chain, EVERYTHING)


def _modules(policy: Policy) -> Iterator[Module]:
    """The modules of the helpers that the policy asks for, each before its NAT part.

    Where the policy translates nothing, the NAT part is for the translations of others.
    """
    translates = any(isinstance(statement, TRANSLATING) for statement in policy.statements)
    asking: dict[str, tuple[Helper, tuple[Origin, ...]]] = {}
    for statement in policy.statements:
        match statement:
            case PolicyRule(verb=Verb.ALLOW) | PortForward() | Redirect() | TransparentProxying():
                for traffic in statement.what:
                    if traffic.helper is not None:
                        _, origins = asking.get(traffic.helper.name, (traffic.helper, ()))
                        origin = Origin(Why.HELPER_ASSIGNMENT, statement.span, statement.name)
                        asking[traffic.helper.name] = traffic.helper, joined(origins, (origin,))
    for helper, origins in asking.values():
        yield from (Module(name, True, origins) for name in helper.modules)
        yield from (Module(name, translates, origins) for name in helper.nat_modules)


def _inbound(policy: Policy) -> Origin | None:
    """What somebody may take to hold for published ports, and first what would close them."""
    if any(_is_about_published(rule) for rule in policy.rules):
        return None
    rules = [rule for rule in policy.rules if _is_inbound(rule)]
    for rule in rules:
        if rule.verb is not Verb.ALLOW:
            return Origin(Why.WRITTEN, rule.span, rule.name)
    default = policy.defaults[Direction.INBOUND]
    if default.span is not None and default.verb is not Verb.ALLOW:
        return Origin(Why.DEFAULT, default.span, default.name)
    return Origin(Why.WRITTEN, rules[0].span, rules[0].name) if rules else None


def _forwards_any(policy: Policy, ruleset: Ruleset) -> bool:
    """Whether first packets pass to machines that other programs forward to.

    Such a machine is reached by an interface that no zone names: what a rule lets out by another
    one, or a translation by its own, was meant.
    """
    named = (zone.interfaces for zone in policy.zones if zone.interfaces is not None)
    unnamed = NAMES - Ranges.merged(pair for interfaces in named for pair in interfaces)
    first = state(State.NEW) & Cube.of({Field.DNATED: Ranges.of(1), Field.OIF: unnamed})
    own = {statement.span for statement in policy.treatments}
    return any(
        isinstance(rule.action, Accept)
        and cube.meets(first)
        and not all(origin.span in own for origin in rule.origins)
        for rule, cube in _reached(ruleset, Stage.FILTER, Path.FORWARD)
    )


def _is_about_published(rule: PolicyRule) -> bool:
    elements = (element for one in rule.destination.lists for element in one.elements)
    return any(isinstance(element, PublishedEnd) for element in elements)


def _is_inbound(rule: PolicyRule) -> bool:
    """Whether a rule names this host, and nobody else, as its destination."""
    return any(
        one.elements and all(isinstance(element, SelfEnd) for element in one.elements)
        for one in rule.destination.lists
    )
