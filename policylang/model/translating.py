"""Translations, resolved and checked; knows not what they become."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class TranslationReader(StatementReader):
    """Resolves the statements that translate addresses and ports."""

    def _source_translation(
        self, node: tree.MasqueradeNode | tree.SnatNode
    ) -> SourceTranslation | None:
        if self._lacks_from(node.what, node.place, node):
            return None
        what = self._what(node.what)
        ends = self._ends(node, node.place)
        said = self._said(node)
        ports = self._source_ports(node.ports)
        addresses = None
        if isinstance(node, tree.SnatNode):
            addresses = self._addresses(node.addresses)
            self._check_snat(node, addresses)
        if ends is None:
            return None
        conditions = self._conditions(node, ends)
        if _is_self(ends.destination):
            self.report.add(
                "wrong-end",
                "what comes to this host does not leave it, so no source of it is translated",
                node.place.span,
                help="say by which way it leaves: `from lan to wan`",
            )
        if addresses is not None:
            families = _families(addresses)
            if conditions.families is not None:
                families = families & conditions.families
        elif conditions.families is not None:
            families = conditions.families
        else:
            families = Ranges.of(4)
            if _writes_ipv6(node.place):
                families = families | Ranges.of(6)
        return SourceTranslation(
            what,
            End(ends.source),
            End(ends.destination),
            addresses,
            families,
            ports,
            node.is_random is not None,
            isinstance(node, tree.SnatNode) and node.is_persistent is not None,
            conditions,
            said.log,
            said.name,
            node.span,
        )

    def _check_snat(self, node: tree.SnatNode, addresses: Ranges) -> None:
        for family, all_of_it in FAMILY_ADDRESSES.items():
            if len(addresses & all_of_it) > 1:
                self.report.add(
                    "bad-target",
                    f"a source becomes one IPv{family} address, or one of a range without gaps",
                    node.addresses[-1].span,
                    help="write a statement for each part of the network",
                )
        if addresses.meets(LOOPBACK):
            self.report.add(
                "bad-target",
                "no answer comes back to a loopback address",
                node.addresses[0].span,
            )

    def _forward(self, node: tree.DnatNode) -> PortForward:
        what = self.rules.what(node.what)
        source = self.rules.source(node.source)
        at = None if node.at is None else self.rules.destination(node.at)
        targets = self._addresses(node.targets)
        self._check_targets(node, targets)
        self._check_elements(
            node.at,
            at,
            lambda e: not isinstance(e, (GroupEnd, PublishedEnd)),
            "the addresses, sets or zones that the client means to reach",
        )
        ends = Ends((source,), ())
        said = self._said(node)
        return PortForward(
            what,
            End((source,)),
            None if at is None else End((at,)),
            targets,
            self._new_ports(node.ports, what, node),
            node.by_source is not None,
            node.is_hairpin is not None,
            self._conditions(node, ends),
            said.log,
            said.name,
            node.span,
        )

    def _check_targets(self, node: tree.DnatNode, targets: Ranges) -> None:
        for family, all_of_it in FAMILY_ADDRESSES.items():
            if (targets & all_of_it).count > MOST_TARGETS:
                self.report.add(
                    "bad-target",
                    f"connections are shared out among {MOST_TARGETS} IPv{family} addresses at "
                    "most",
                    node.targets[0].span,
                    help="`netmap` translates whole networks, address by address",
                )
        if targets.meets(LOOPBACK):
            self.report.add(
                "bad-target",
                "what comes from outside is not delivered to a loopback address",
                node.targets[0].span,
                help="`redirect … port N` sends it to this host",
            )

    def _redirect(self, node: tree.RedirectNode) -> Redirect | None:
        what = self.rules.what(node.what)
        ends = self._ends(node, node.place)
        said = self._said(node)
        ports = self._new_ports(node.ports, what, node)
        if ends is None or ports is None:
            return None
        return Redirect(
            what,
            End(ends.source),
            End(ends.destination),
            ports,
            self._conditions(node, ends),
            said.log,
            said.name,
            node.span,
        )

    def _proxying(self, node: tree.TproxyNode) -> TransparentProxying:
        what = self.rules.what(node.what)
        source = self.rules.source(node.source)
        destination = EndList((AnyEnd(),), (SelfEnd(),))
        if node.destination is not None:
            destination = self.rules.destination(node.destination)
            self._refuse_published(node.destination)
            self._check_elements(
                node.destination,
                replace(destination, exceptions=()),
                lambda e: not isinstance(e, SelfEnd),
                "other machines: `redirect` takes what comes to this host",
            )
        for traffic in what:
            if traffic.protocols is not None and not traffic.protocols.meets(Ranges.of(TCP, UDP)):
                self.report.add(
                    "bad-target",
                    "a transparent proxy takes TCP and UDP alone",
                    node.what[0].span,
                    help="name services or ports of these",
                )
        self._check_elements(
            node.source,
            source,
            lambda e: not isinstance(e, SelfEnd),
            "other machines: what this host itself sends is not proxied",
        )
        port = self.elements.port(node.port)
        if port is not None and port[0] == 0:
            self._bad_port("no proxy listens on port 0", node.port)
        said = self._said(node)
        ends = Ends((source,), (destination,))
        return TransparentProxying(
            what,
            End((source,)),
            End((destination,)),
            0 if port is None else port[0],
            self._conditions(node, ends),
            said.log,
            said.name,
            node.span,
        )

    def _netmap(self, node: tree.NetmapNode) -> Netmap | None:
        outer, inner = self._prefix(node.outer), self._prefix(node.inner)
        zones = tuple(z for name in node.zones if (z := self.elements.zone(name)) is not None)
        on = EndList(tuple(ZoneEnd(zone) for zone in zones))
        for condition in node.conditions:
            if not isinstance(condition, (tree.FamilyCondition, tree.MarkCondition)):
                self.report.add(
                    "misplaced-condition",
                    "`netmap` translates both ways, and this is known of one alone",
                    condition.span,
                    help="`ipv4`, `ipv6` and `mark` can stand here",
                )
        conditions = self.conditions.read(node.conditions)
        said = self._said(node)
        if outer is None or inner is None:
            return None
        if outer[1] - outer[0] != inner[1] - inner[0] or _families(Ranges((outer,))) != _families(
            Ranges((inner,))
        ):
            self.report.add(
                "bad-netmap",
                f"`{node.outer.text}` and `{node.inner.text}` are not of one size and family",
                node.inner.span,
                help="each address of the one stands for one of the other",
            )
            return None
        return Netmap(outer, inner, End((on,)), conditions, said.name, node.span)

    def _prefix(self, node: tree.Address) -> Range | None:
        """A whole prefix; reports `bad-netmap`."""
        pair = self.elements.address(node)
        if pair is None:
            return None
        low, high = pair
        size = high - low + 1
        if size & (size - 1) or low % size:
            self.report.add(
                "bad-netmap",
                f"`{node.text}` is not a whole network",
                node.span,
                help="write it with its prefix length: `198.51.100.16/28`",
            )
            return None
        return pair


def _is_self(end: tuple[EndList, ...]) -> bool:
    """Whether an end is this host and nothing else."""
    return any(one.elements and all(isinstance(e, SelfEnd) for e in one.elements) for one in end)


def _families(addresses: Ranges) -> Ranges:
    """The families (4, 6) that addresses are of."""
    return Ranges.of(
        *(family for family, of_it in FAMILY_ADDRESSES.items() if addresses.meets(of_it))
    )


def _writes_ipv6(place: tree.Place) -> bool:
    """Whether an IPv6 address is written in one of the ends; exceptions do not count."""
    return any(
        isinstance(item.element, tree.Address) and ":" in item.element.text
        for end in (place.source, place.destination)
        if end is not None
        for item in end.elements
    )
