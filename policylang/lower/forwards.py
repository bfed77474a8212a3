"""What sends connections elsewhere before they are routed: `dnat`, `redirect`, `netmap`, `tproxy`.

Each statement is a `Forwarding`: the packets that it is about as they arrive, what becomes of
them, and what the rules see afterwards. The translations, the accepts that stand beside them, the
helpers and what `hairpin` needs on the way out are all read off it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.stages import Path
from policylang.lower.before_routing import arriving, dialled
from policylang.lower.conditions import (
    guards,
    on_path,
    terms,
    terms_of_first,
    terms_of_predicted,
)
from policylang.lower.expected import predicted
from policylang.lower.hairpin import clients
from policylang.lower.paths import SOURCE, Places, names_hosts, traffic_cube
from policylang.lower.placing import Placed, why_nothing
from policylang.lower.published import free_bit
from policylang.model.policy import Policy
from policylang.model.translations import (
    Marking,
    Netmap,
    PortForward,
    Redirect,
    TransparentProxying,
)
from policylang.model.types import (
    AnyEnd,
    End,
    EndList,
    Mark,
    NativeRule,
    PolicyRule,
    Traffic,
    Verb,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    FAMILY_ADDRESSES,
    TCP,
    UDP,
    Field,
)
from policylang.packets.packetset import PacketSet, compact
from policylang.packets.values import Range, Ranges, parse_address

# Where the kernel redirects what this host itself sends (nf_nat_redirect.c).
LOOPBACK_ADDRESSES = Ranges.merged(r for text in ("127.0.0.1", "::1") if (r := parse_address(text)))
MOST_PAIRS = 64  # of addresses that are told apart one by one
# Targets are other machines; what goes to this host is the business of `redirect`.
FORWARDED = (Path.FORWARD, Path.OUTPUT)
YES = Ranges.of(1)

Elsewhere = PortForward | Redirect | Netmap | TransparentProxying


@dataclass(frozen=True, slots=True)
class Way:
    """Part of what a statement is about: its packets, and where they go.

    `cube` is about what was dialled, beside the ends; `after` has for each path that the
    connection may take then what a rule of FILTER sees of it, beside the client.
    """

    traffic: Traffic
    cube: Cube
    action: ir.Action
    after: Mapping[Path, Cube]
    is_predicted: bool = False  # connections that a helper predicts, which its rules admit


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A statement and its packets as they arrive (INPUT) or as this host sends them (OUTPUT)."""

    statement: Elsewhere
    ends: Mapping[Path, tuple[Cube, ...]]
    ways: tuple[Way, ...]

    def cubes(self, path: Path) -> tuple[Cube, ...]:
        """The packets as they arrive, or as this host sends them."""
        return compact(end & way.cube for end in self.ends[path] for way in self.ways)

    def after(self, path: Path) -> Iterator[tuple[Cube, Cube, Way]]:
        """Each part as it arrives, what FILTER sees of it on a path, and the way it goes."""
        for end in self.ends[Path.OUTPUT if path is Path.OUTPUT else Path.INPUT]:
            for way in self.ways:
                if path in way.after:
                    yield end & way.cube, _seen(end, self.statement) & way.after[path], way


def forwardings(policy: Policy, places: Places, report: Report) -> tuple[Forwarding, ...]:
    """What the statements of a policy send elsewhere, in their order.

    Reports `matches-nothing`, `dialled-set` and `no-free-mark`.
    """
    found: list[Forwarding] = []
    for statement in policy.treatments:
        match statement:
            case PortForward():
                one = _forward(statement, places)
            case Redirect():
                one = _redirect(statement, places)
            case Netmap():
                one = _netmap(statement, places)
            case TransparentProxying():
                one = _proxying(statement, places, _proxy_mark(policy, statement, report))
            case _:
                continue
        found.append(one)
        if not any(one.cubes(path) for path in one.ends) and not names_hosts(statement):
            report.add(
                "matches-nothing",
                "no packet can meet this statement",
                statement.span,
                help=why_nothing(any(one.ends.values())),
            )
        if isinstance(statement, (PortForward, Redirect)):
            _check_dialled(statement, one, report)
    return tuple(found)


def own_is_translated(forwardings: Iterable[Forwarding]) -> bool:
    """Whether anything that this host sends goes elsewhere than it was dialled."""
    return any(one.cubes(Path.OUTPUT) for one in forwardings)


def companion(
    one: Forwarding, before: Sequence[Forwarding], behind: Sequence[Forwarding]
) -> Placed | None:
    """The rule that allows what a statement sends elsewhere; None for `netmap`, which does not.

    `before` and `behind` are the other statements. What a `netmap` among them has sent to the
    same place is not allowed.
    """
    statement = one.statement
    if isinstance(statement, Netmap):
        return None
    conditions = statement.conditions
    if isinstance(statement, TransparentProxying):
        mark = conditions.mark or Mark(0, 0)
        for action in {w.action for w in one.ways}:
            if isinstance(action, ir.TransparentProxy):
                # The bits that were asked for are as they were, beside the proxy's own.
                mark = Mark(mark.value & ~action.mask | action.value, mark.mask | action.mask)
        conditions = replace(conditions, mark=mark)
    rule = PolicyRule(
        Verb.ALLOW,
        (),  # what is spoken of is in the cubes
        statement.source,
        End((EndList((AnyEnd(),)),)),
        None,
        None,
        statement.name,
        statement.span,
        conditions=conditions,
    )
    cubes: dict[Path, tuple[Cube, ...]] = {}
    for path in Path:
        own: list[Cube] = []
        for asked, cube, way in one.after(path):
            if way.is_predicted:
                continue
            mapped = [c for other in before for c in _mapped(other, path, cube, way, before=True)]
            # What is told by its address alone never comes to a statement behind.
            if Field.DADDR_TYPE in asked:
                mapped += (
                    c for other in behind for c in _mapped(other, path, cube, way, before=False)
                )
            own += (PacketSet((cube,)) - PacketSet.of(mapped)) if mapped else (cube,)
        cubes[path] = compact(own)
    return Placed(rule, cubes, dict.fromkeys(Path, ()))


def _mapped(one: Forwarding, path: Path, cube: Cube, way: Way, *, before: bool) -> Iterator[Cube]:
    """What a `netmap` may have sent where another statement's `cube` is, which goes `way`.

    What stands `before` that, and always decides, has had all that was dialled at its addresses.
    Otherwise both may have had some of it, and nothing tells which: each address that the `netmap`
    leads to is then its own, where it was dialled by the one that stands for it.
    """
    netmap = one.statement
    if not isinstance(netmap, Netmap) or isinstance(way.action, ir.TransparentProxy):
        return
    pairs = [(netmap.outer, netmap.inner)]
    is_kept = Cube.of({})
    if not before or guards(netmap.conditions):
        pairs = list(_pairs(netmap, cube[Field.DADDR]))
        if isinstance(way.action, (ir.DestinationNat, ir.RedirectToSelf)) and way.action.port:
            is_kept = Cube.of({Field.ORIG_DPORT: Ranges.of(way.action.port)})
    for _, seen, _ in one.after(path):
        for outer, inner in pairs:
            led = Cube.of({Field.ORIG_DADDR: Ranges((outer,)), Field.DADDR: Ranges((inner,))})
            if (taken := seen & led & is_kept).meets(cube):
                yield taken


def _pairs(netmap: Netmap, targets: Ranges) -> Iterator[tuple[Range, Range]]:
    """The outer and the inner addresses of a `netmap` that belong to each other, among `targets`.

    Each for itself, or where these are many all of them together, which is more.
    """
    shift = netmap.outer[0] - netmap.inner[0]
    inner = targets & Ranges((netmap.inner,))
    for low, high in inner:
        if high - low < MOST_PAIRS:
            yield from (((n + shift, n + shift), (n, n)) for n in range(low, high + 1))
        else:
            yield (low + shift, high + shift), (low, high)


# --- what each statement sends elsewhere -------------------------------------------------------


def _forward(forward: PortForward, places: Places) -> Forwarding:
    clients_of = places.reach(clients(forward, places.zones), SOURCE)
    met = terms_of_predicted(forward.conditions)
    asking = terms_of_first(forward.conditions)
    goal = dialled(places, forward.at)
    ends = {
        Path.INPUT: compact(c & met for c in clients_of.others & goal.others),
        Path.OUTPUT: compact(on_path(c & met, Path.OUTPUT) for c in clients_of.own & goal.own),
    }
    ways: list[Way] = []
    for family, of_it in FAMILY_ADDRESSES.items():
        targets = forward.targets & of_it
        there = Cube.of({Field.DADDR: targets})
        for traffic in forward.what if targets else ():
            for asked, port, seen in _ports(traffic, forward.ports):
                ways.append(
                    Way(
                        traffic,
                        asked & asking & Cube.of({Field.FAMILY: Ranges.of(family)}),
                        ir.DestinationNat(targets, port, forward.by_source),
                        dict.fromkeys(FORWARDED, seen & asking & there),
                    )
                )
            if forward.by_source or targets.single is not None:
                # In turn, they would not all meet the target that predicted them.
                follow = ir.DestinationNat(targets, None, forward.by_source)
                ways += _followers(traffic, there, follow)
    return Forwarding(forward, ends, _possible(ways))


def _followers(traffic: Traffic, targets: Cube, action: ir.Action) -> Iterator[Way]:
    """The predicted connections that no NAT part of their helper takes along."""
    if traffic.helper is not None and not traffic.helper.nat_modules:
        for cube in predicted(traffic.helper, traffic, by_client=True):
            only = cube & Cube.of({Field.FAMILY: targets[Field.FAMILY]})
            after = dict.fromkeys(FORWARDED, only & targets)
            yield Way(traffic, only, action, after, is_predicted=True)


def _redirect(redirect: Redirect, places: Places) -> Forwarding:
    met = terms(redirect.conditions)
    told = arriving(places, redirect.source, redirect.destination, is_tcp=_is_tcp(redirect.what))
    ends = {
        Path.INPUT: compact(c & met for c in (*told[Path.INPUT], *told[Path.FORWARD])),
        Path.OUTPUT: compact(on_path(c & met, Path.OUTPUT) for c in told[Path.OUTPUT]),
    }
    own = Cube.of({Field.DADDR: LOOPBACK_ADDRESSES})
    ways = [
        Way(traffic, asked, ir.RedirectToSelf(port), {Path.INPUT: seen, Path.OUTPUT: seen & own})
        for traffic in redirect.what
        for asked, port, seen in _renumbered(traffic, redirect.ports)
    ]
    return Forwarding(redirect, ends, _possible(ways))


def _netmap(netmap: Netmap, places: Places) -> Forwarding:
    met = terms(netmap.conditions)
    outer = Cube.of({Field.DADDR: Ranges((netmap.outer,))})
    inner = Cube.of({Field.DADDR: Ranges((netmap.inner,))})
    ends = compact(c & met for c in places.reach(netmap.on, SOURCE).others)
    seen = dict.fromkeys((Path.INPUT, Path.FORWARD), inner)
    way = Way(Traffic(), outer, ir.MapPrefix(ir.End.DESTINATION, netmap.inner), seen)
    return Forwarding(netmap, {Path.INPUT: ends, Path.OUTPUT: ()}, _possible([way]))


def _proxying(proxying: TransparentProxying, places: Places, mark: int) -> Forwarding:
    met = terms(proxying.conditions)
    told = arriving(places, proxying.source, proxying.destination, is_tcp=_is_tcp(proxying.what))[
        Path.FORWARD
    ]
    ways: list[Way] = []
    for traffic in proxying.what:
        for protocol in (TCP, UDP):
            cube = traffic_cube(traffic) & Cube.of({Field.L4PROTO: Ranges.of(protocol)})
            action = ir.TransparentProxy(proxying.port, protocol, mark, mark)
            ways.append(Way(traffic, cube, action, {Path.INPUT: cube}))
    ends = compact(c & met for c in told)
    return Forwarding(proxying, {Path.INPUT: ends, Path.OUTPUT: ()}, _possible(ways))


def _proxy_mark(policy: Policy, proxying: TransparentProxying, report: Report) -> int:
    """A bit that no mark of the policy has set; reports `no-free-mark` where there is none."""
    used = 0
    for statement in policy.statements:
        if isinstance(statement, Marking) and statement.mark is not None:
            used |= statement.mark.value
        if not isinstance(statement, NativeRule) and statement.conditions.mark is not None:
            used |= statement.conditions.mark.value
    if (bit := free_bit(used)) is not None:
        return bit
    report.add(
        "no-free-mark",
        "no bit of the mark is free to tell what goes to the proxy",
        proxying.span,
        help="leave one bit out of the marks of the policy",
    )
    return 0


def _ports(traffic: Traffic, new: Range | None) -> Iterator[tuple[Cube, int | None, Cube]]:
    """What is dialled, its new port (None: as it is), and what is seen of both afterwards."""
    ports = traffic.ports
    cube = traffic_cube(traffic)
    if ports is None:
        yield cube, None, cube
    elif new is None or ports == Ranges((new,)):
        yield cube, None, cube & Cube.of({Field.ORIG_DPORT: ports})
    else:
        yield from _renumbered(traffic, new)


def _renumbered(traffic: Traffic, new: Range) -> Iterator[tuple[Cube, int, Cube]]:
    """The same for ports that become others: all one, or each the one at its place."""
    assert traffic.ports is not None, "the model gives a new port to what has one"
    low, high = new
    pairs = [(traffic.ports, low)]
    if high > low:
        ((first, _),) = traffic.ports  # the model gives a range to one that is as long
        pairs = [(Ranges.of(first + n), low + n) for n in range(high - low + 1)]
    for asked, port in pairs:
        rest = traffic_cube(traffic).without(Field.DPORT)
        yield (
            rest & Cube.of({Field.DPORT: asked}),
            port,
            rest & Cube.of({Field.DPORT: Ranges.of(port), Field.ORIG_DPORT: asked}),
        )


def _is_tcp(what: tuple[Traffic, ...]) -> bool:
    return all(traffic.protocols == Ranges.of(TCP) for traffic in what)


def _possible(ways: Iterable[Way]) -> tuple[Way, ...]:
    return tuple(way for way in ways if not way.cube.is_empty)


def _seen(end: Cube, statement: Elsewhere) -> Cube:
    """What rules see of the ends of a connection once it goes elsewhere."""
    seen = end.without(Field.DADDR_TYPE)
    if isinstance(statement, TransparentProxying):
        return seen  # its addresses are as they were
    seen = seen.without(Field.DADDR, *DADDR_TESTS) & Cube.of({Field.DNATED: YES})
    if Field.DADDR not in end or (isinstance(statement, PortForward) and statement.at is None):
        return seen
    return seen & Cube.of({Field.ORIG_DADDR: end[Field.DADDR]})


def _check_dialled(statement: PortForward | Redirect, one: Forwarding, report: Report) -> None:
    """Report `dialled-set` where what was dialled cannot be told any more once it is translated."""
    end = statement.at if isinstance(statement, PortForward) else statement.destination
    if end is not None and any(
        test in cube for cubes in one.ends.values() for cube in cubes for test in DADDR_TESTS
    ):
        report.add(
            "dialled-set",
            "what was dialled cannot be looked up once it is translated",
            end.lists[0].span,
            help="name addresses, a zone, or a set that is written in the policy",
        )
