"""The statements that translate addresses and ports, resolved; knows not what they become."""

from __future__ import annotations

from dataclasses import replace

from policylang.model.replacements import addresses, new_ports, proxy_port, source_ports
from policylang.model.rules import Ends
from policylang.model.statement_reader import StatementReader
from policylang.model.translations import (
    Netmap,
    PortForward,
    Redirect,
    SourceTranslation,
    TransparentProxying,
)
from policylang.model.types import (
    AnyEnd,
    Conditions,
    End,
    EndList,
    GroupEnd,
    PublishedEnd,
    SelfEnd,
    ZoneEnd,
)
from policylang.packets.fields import FAMILY_ADDRESSES, TCP, UDP
from policylang.packets.values import Range, Ranges, parse_address
from policylang.syntax import tree

MOST_TARGETS = 256  # of one family, among which connections are shared out
LOOPBACK = Ranges.merged(r for t in ("127.0.0.0/8", "::1") if (r := parse_address(t)))

# Each function returns what its statement means, or None where a part that it cannot do without
# is missing or wrong, as reported.


# --- sources --------------------------------------------------------------------------------


def source_translation(
    node: tree.MasqueradeNode | tree.SnatNode, reader: StatementReader
) -> SourceTranslation | None:
    """Reports `missing-end`, `wrong-end`, `bad-target`, `bad-new-port`."""
    if _lacks_from(node, reader):
        return None
    what = reader.what(node.what)
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    ports = source_ports(reader, node.ports)
    become = None
    if isinstance(node, tree.SnatNode):
        become = addresses(
            reader, node.addresses, "`masquerade from X to Y` takes the address of the interface"
        )
        _check_new_source(node, become, reader)
    if ends is None:
        return None
    conditions = reader.conditions_on(node, ends)
    if any(one.is_self for one in ends.destination):
        reader.report.add(
            "wrong-end",
            "what comes to this host does not leave it, so no source of it is translated",
            node.place.span,
            help="say by which way it leaves: `from lan to wan`",
        )
    return SourceTranslation(
        what=what,
        source=End(ends.source),
        destination=End(ends.destination),
        addresses=become,
        families=_translated_families(node.place, become, conditions),
        ports=ports,
        is_random=node.is_random is not None,
        is_persistent=isinstance(node, tree.SnatNode) and node.is_persistent is not None,
        conditions=conditions,
        log=said.log,
        name=said.name,
        span=node.span,
    )


def _lacks_from(node: tree.MasqueradeNode | tree.SnatNode, reader: StatementReader) -> bool:
    """Whether a zone stands where what is spoken of does; reports `missing-end`."""
    place = node.place
    if place.source is not None or place.direction is not None or len(node.what) != 1:
        return False
    match node.what[0]:
        case tree.Name(text=text) as name if isinstance(
            reader.rules.scope.find(text), (tree.ZoneDecl, tree.SetDecl)
        ):
            word = "snat" if isinstance(node, tree.SnatNode) else "masquerade"
            reader.report.add(
                "missing-end",
                "the statement leaves where it comes from unsaid",
                name.span,
                help=f"did you mean `{word} from {name.span.text} …`?",
            )
            return True
    return False


def _check_new_source(node: tree.SnatNode, become: Ranges, reader: StatementReader) -> None:
    for family, all_of_it in FAMILY_ADDRESSES.items():
        if len(become & all_of_it) > 1:
            reader.report.add(
                "bad-target",
                f"a source becomes one IPv{family} address, or one of a range without gaps",
                node.addresses[-1].span,
                help="write a statement for each part of the network",
            )
    if become.meets(LOOPBACK):
        reader.report.add(
            "bad-target",
            "no answer comes back to a loopback address",
            node.addresses[0].span,
            help="name an address by which others reach this host",
        )


def _translated_families(
    place: tree.Place, become: Ranges | None, conditions: Conditions
) -> Ranges:
    """Those of the new addresses, or IPv4 and what else the statement says."""
    if become is not None:
        families = _families(become)
        return families if conditions.families is None else families & conditions.families
    if conditions.families is not None:
        return conditions.families
    return Ranges.of(4, 6) if _writes_ipv6(place) else Ranges.of(4)


def _writes_ipv6(place: tree.Place) -> bool:
    """Whether an IPv6 address is written in one of the ends; exceptions do not count."""
    return any(
        isinstance(item.element, tree.Address) and ":" in item.element.text
        for end in (place.source, place.destination)
        if end is not None
        for item in end.elements
    )


# --- destinations ---------------------------------------------------------------------------


def port_forward(node: tree.DnatNode, reader: StatementReader) -> PortForward:
    """Reports `wrong-end`, `bad-target`, `bad-new-port`."""
    what = reader.rules.what(node.what)
    source = reader.rules.source(node.source)
    at = None if node.at is None else reader.rules.destination(node.at)
    targets = addresses(reader, node.targets, "name the machines that answer, by their addresses")
    _check_targets(node, targets, reader)
    reader.check_elements(
        node.at,
        at,
        lambda e: not isinstance(e, (GroupEnd, PublishedEnd)),
        "the addresses, sets or zones that the client means to reach",
    )
    said = reader.said(node)
    return PortForward(
        what=what,
        source=End((source,)),
        at=None if at is None else End((at,)),
        targets=targets,
        ports=new_ports(reader, node.ports, what),
        by_source=node.by_source is not None,
        is_hairpin=node.is_hairpin is not None,
        conditions=reader.conditions_on(node, Ends((source,), ())),
        log=said.log,
        name=said.name,
        span=node.span,
    )


def _check_targets(node: tree.DnatNode, targets: Ranges, reader: StatementReader) -> None:
    for family, all_of_it in FAMILY_ADDRESSES.items():
        if (targets & all_of_it).count > MOST_TARGETS:
            reader.report.add(
                "bad-target",
                f"connections are shared out among {MOST_TARGETS} IPv{family} addresses at most",
                node.targets[0].span,
                help="`netmap` translates whole networks, address by address",
            )
    if targets.meets(LOOPBACK):
        reader.report.add(
            "bad-target",
            "what comes from outside is not delivered to a loopback address",
            node.targets[0].span,
            help="`redirect … port N` sends it to this host",
        )


def redirect(node: tree.RedirectNode, reader: StatementReader) -> Redirect | None:
    """Reports `missing-end`, `wrong-end`, `bad-new-port`."""
    what = reader.rules.what(node.what)
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    ports = new_ports(reader, node.ports, what)
    if ends is None or ports is None:
        return None
    return Redirect(
        what=what,
        source=End(ends.source),
        destination=End(ends.destination),
        ports=ports,
        conditions=reader.conditions_on(node, ends),
        log=said.log,
        name=said.name,
        span=node.span,
    )


def transparent_proxying(node: tree.TproxyNode, reader: StatementReader) -> TransparentProxying:
    """Reports `wrong-end`, `bad-target`, `bad-new-port`."""
    what = reader.rules.what(node.what)
    source = reader.rules.source(node.source)
    destination = EndList((AnyEnd(),), (SelfEnd(),))
    if node.destination is not None:
        destination = reader.rules.destination(node.destination)
        reader.refuse_published(node.destination)
        reader.check_elements(
            node.destination,
            replace(destination, exceptions=()),
            lambda e: not isinstance(e, SelfEnd),
            "other machines: `redirect` takes what comes to this host",
        )
    for traffic in what:
        if traffic.protocols is not None and not traffic.protocols.meets(Ranges.of(TCP, UDP)):
            reader.report.add(
                "bad-target",
                "a transparent proxy takes TCP and UDP alone",
                node.what[0].span,
                help="name services or ports of these",
            )
    reader.check_elements(
        node.source,
        source,
        lambda e: not isinstance(e, SelfEnd),
        "other machines: what this host itself sends is not proxied",
    )
    said = reader.said(node)
    return TransparentProxying(
        what=what,
        source=End((source,)),
        destination=End((destination,)),
        port=proxy_port(reader, node.port),
        conditions=reader.conditions_on(node, Ends((source,), (destination,))),
        log=said.log,
        name=said.name,
        span=node.span,
    )


# --- networks -------------------------------------------------------------------------------


def netmap(node: tree.NetmapNode, reader: StatementReader) -> Netmap | None:
    """Reports `bad-netmap`, `unknown-zone`."""
    outer, inner = _prefix(node.outer, reader), _prefix(node.inner, reader)
    zones = tuple(z for name in node.zones if (z := reader.elements.zone(name)) is not None)
    conditions = reader.conditions_of_both_ways(node)
    said = reader.said(node)
    if outer is None or inner is None:
        return None
    if outer[1] - outer[0] != inner[1] - inner[0] or _families(Ranges((outer,))) != _families(
        Ranges((inner,))
    ):
        reader.report.add(
            "bad-netmap",
            f"`{node.outer.text}` and `{node.inner.text}` are not of one size and family",
            node.inner.span,
            help="each address of the one stands for one of the other",
        )
        return None
    on = EndList(tuple(ZoneEnd(zone) for zone in zones))
    return Netmap(outer, inner, End((on,)), conditions, said.name, node.span)


def _prefix(node: tree.Address, reader: StatementReader) -> Range | None:
    """A whole prefix; reports `bad-netmap`."""
    pair = reader.elements.address(node)
    if pair is None:
        return None
    low, high = pair
    size = high - low + 1
    if size & (size - 1) or low % size:
        reader.report.add(
            "bad-netmap",
            f"`{node.text}` is not a whole network",
            node.span,
            help="write it with its prefix length: `198.51.100.16/28`",
        )
        return None
    return pair


def _families(addresses: Ranges) -> Ranges:
    """The families (4, 6) that addresses are of."""
    return Ranges.of(
        *(family for family, of_it in FAMILY_ADDRESSES.items() if addresses.meets(of_it))
    )
