"""Rules with their blocks and groups unfolded and every name in them resolved."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from policylang.diagnostics import Label, Report
from policylang.model.conditions import ConditionsReader
from policylang.model.elements import ADDRESS, HOST, KIND_WORDS, PORT, Elements
from policylang.model.host_ends import elsewhere_end, hosts_end
from policylang.model.open_list import OpenList
from policylang.model.options import Options
from policylang.model.scope import Scope, cycle, kind_of
from policylang.model.services import Services, icmp_types
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    DynamicEnd,
    End,
    EndElement,
    EndList,
    Group,
    GroupEnd,
    IpsecEnd,
    PolicyRule,
    PublishedEnd,
    SelfEnd,
    SuffixEnd,
    Traffic,
    Verb,
    Zone,
    ZoneEnd,
)
from policylang.packets.values import Ranges
from policylang.syntax import tree

RuleStatement = tree.RuleNode | tree.UseNode | tree.TrafficBlock

END_CHOICES = "`inbound`, `outbound`, or both ends: `from X to Y`, with `self` for this host"

ANY = EndList((AnyEnd(),))
SELF = EndList((SelfEnd(),))


@dataclass(frozen=True, slots=True)
class Ends:
    """The lists that say the two ends so far, from the outermost block inwards."""

    source: tuple[EndList, ...] = ()
    destination: tuple[EndList, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """Where a rule stands: what the blocks around it say, and by which `use` it came."""

    ends: Ends = Ends()
    used_at: tuple[tree.Name, ...] = ()
    is_draft: bool = False  # reading a group for its own errors: ends may be unsaid
    is_asked: bool = False  # a question: there is nothing to tell of the services that it names


@dataclass(slots=True)
class Rules:
    """Resolves rules."""

    scope: Scope
    elements: Elements
    services: Services
    options: Options
    conditions: ConditionsReader
    report: Report
    _cycles: set[frozenset[str]] = field(default_factory=set)  # that were reported

    def unfold(self, statements: Iterable[RuleStatement], context: Context) -> Iterable[PolicyRule]:
        """The rules of these statements, in order."""
        for statement in statements:
            match statement:
                case tree.RuleNode():
                    rule = self._rule(statement, context)
                    if rule is not None:
                        yield rule
                case tree.TrafficBlock():
                    ends = self.narrowed(context.ends, statement.place)
                    yield from self.unfold(statement.statements, replace(context, ends=ends))
                case tree.UseNode():
                    for name in statement.groups:
                        yield from self._use(name, context)

    def _use(self, name: tree.Name, context: Context) -> Iterable[PolicyRule]:
        declaration = self.scope.find(name.text)
        if not isinstance(declaration, tree.RulesDecl):
            self.scope.unknown("unknown-rules", "group of rules", name, tree.RulesDecl)
            return
        opened = [n.text for n in context.used_at]
        if name.text in opened:
            path = (declaration.name, *context.used_at[opened.index(name.text) + 1 :])
            members = frozenset(member.text for member in path)
            if members not in self._cycles:
                self._cycles.add(members)
                cycle(self.report, "rules-cycle", "group of rules", name.span, path)
            return
        inner = replace(context, used_at=(*context.used_at, name))
        yield from self.unfold(declaration.statements, inner)

    def _rule(self, written: tree.RuleNode, context: Context) -> PolicyRule | None:
        node = self._with_condition(written)
        what = self.what(node.what, has_notes=not context.is_asked)
        ends = context.ends if node.place is None else self.narrowed(context.ends, node.place)
        answer = self.options.answer(node.verb, node.answers)
        conditions = self.conditions.read(node.conditions)
        said = self.options.of(node.options, bans=node.verb != "allow")
        if not self._both_ends_said(node, ends, context):
            return None
        self.check_places(node.conditions, ends)
        self._check_ban(node)
        return PolicyRule(
            Verb(node.verb),
            what,
            End(ends.source),
            End(ends.destination),
            answer,
            said.log,
            said.name,
            node.span,
            tuple(n.span for n in context.used_at),
            conditions,
            said.adds,
            said.also_established,
        )

    def _with_condition(self, node: tree.RuleNode) -> tree.RuleNode:
        """`to X except ipsec` says nothing of X: what stands behind it is the condition."""
        place = node.place
        if place is None or place.destination is None:
            return node
        match place.destination.exceptions:
            case (tree.EndItem(element=tree.Name(text="ipsec", quoted=False) as name, zones=()),):
                if self._is_end(name):
                    return node
                end = replace(place.destination, exceptions=())
                condition = tree.IpsecCondition(name.span, "except")
                return replace(
                    node,
                    place=replace(place, destination=end),
                    conditions=(condition, *node.conditions),
                )
        return node

    def _check_ban(self, node: tree.RuleNode) -> None:
        """Report `also established` beside what counts new connections: `misplaced-option`."""
        for option in node.options:
            for condition in node.conditions:
                if isinstance(option, tree.AlsoOption) and isinstance(
                    condition, (tree.LimitCondition, tree.ConnectionsCondition)
                ):
                    self.report.add(
                        "misplaced-option",
                        "`also established` is about open connections, and a rate or a number of "
                        "connections about new ones",
                        option.span,
                        help="count in a rule that adds the source to a dynamic set, and ban that "
                        "set by another",
                        labels=[Label(condition.span, "this counts new connections")],
                    )

    def check_places(self, conditions: tuple[tree.Condition, ...], ends: Ends) -> None:
        """Report conditions that packets on the rule's way do not have: `misplaced-condition`."""
        is_own = any(one.is_self for one in ends.source)
        for condition in conditions:
            match condition:
                case tree.OwnerCondition(kind=word) if not is_own:
                    what = f"the {word} of a process is known"
                case tree.CgroupCondition() if not is_own:
                    what = "the control group of a process is known"
                case tree.MacCondition() if is_own:
                    what = "a sender's MAC address is seen"
                case tree.IpsecCondition() if is_own:
                    what = "what came out of IPsec is told"
                case _:
                    continue
            where = "on what arrives" if is_own else "where this host itself sends"
            hint = "from another end than `self`" if is_own else "`outbound`, or `from self`"
            self.report.add(
                "misplaced-condition",
                f"{what} {where} alone",
                condition.span,
                help=f"write the rule {hint}",
            )

    def _both_ends_said(self, node: tree.RuleNode, ends: Ends, context: Context) -> bool:
        """Whether both ends are said; reports `missing-end`, but for drafts."""
        if ends.source and ends.destination:
            return True
        if context.is_draft:
            return False
        if not ends.source and not ends.destination:
            unsaid, hint = "both ends", f"say {END_CHOICES}"
        elif ends.source:
            unsaid = "where it goes"
            hint = "add `to self` (or write `inbound from`), `to ZONE`, or `to any`"
        else:
            unsaid = "where it comes from"
            hint = "add `from self` (or write `outbound to`), `from ZONE`, or `from any`"
        self.report.add(
            "missing-end",
            f"the rule leaves {unsaid} unsaid",
            node.span,
            help=hint,
            labels=[Label(n.span, "used here") for n in context.used_at],
        )
        return False

    # --- what a rule speaks of --------------------------------------------------------------

    def what(
        self, elements: tuple[tree.WhatElement, ...], *, has_notes: bool = True
    ) -> tuple[Traffic, ...]:
        """The traffic of a flat list: numbers and sets of ports go on with the list before.

        With `has_notes`, what there is to know of a service is told: `service-note`.
        """
        traffic: list[Traffic] = []
        current: OpenList | None = None

        def close() -> None:
            if current is not None:
                traffic.append(current.traffic(self.services))

        for element in elements:
            if current is not None and self._continues(current, element):
                continue
            close()
            current = None
            match element:
                case tree.PortsWhat():
                    current = OpenList(element.protocol, element)
                    self._add_ports(current, element.element)
                case tree.IcmpWhat():
                    current = OpenList(element.protocol, element)
                    self._add_icmp(current, element.type)
                case tree.ProtocolWhat():
                    current = OpenList("protocol", element)
                    self._add_protocol(current, element.protocol)
                case tree.Keyword():
                    traffic.append(Traffic())
                case tree.Name():
                    traffic += self.services.service(element)
                    notes = self.services.notes.get(element.text, ()) if has_notes else ()
                    for note in notes:
                        self.report.add("service-note", f"`{element.text}`: {note}", element.span)
                case tree.ExceptMark():
                    self.report.add(
                        "misplaced-except",
                        "`except` can take away from a list of ports alone",
                        element.span,
                        help="put a rule that denies what is excepted before this one",
                    )
                case tree.Number() | tree.NumberRange():
                    self.report.add(
                        "stray-number",
                        "a number needs a protocol before it",
                        element.span,
                        help=f"for example `tcp {element.span.text}`",
                    )
        close()
        return tuple(traffic)

    def _continues(self, current: OpenList, element: tree.WhatElement) -> bool:
        """Whether an element goes on with the list that is open; if so it is taken in."""
        if current.wants_exception:
            current.wants_exception = False
            self._add_exception(current, element)
            return True
        match element:
            case tree.ExceptMark():
                if not current.takes_ports or current.in_except:
                    return False
                current.in_except = current.wants_exception = True
            case tree.Number() | tree.NumberRange():
                if current.takes_ports:
                    self._add_ports(current, element)
                elif isinstance(element, tree.NumberRange):
                    return False
                elif current.protocol == "protocol":
                    self._add_protocol(current, element)
                else:
                    self._add_icmp(current, element)
            case tree.Name():
                declaration = self.scope.find(element.text)
                if isinstance(declaration, tree.SetDecl) and current.takes_ports:
                    self._add_ports(current, element)
                elif declaration is None and element.text not in self.scope.loaded.known_services:
                    return self._continues_by_name(current, element)
                else:
                    return False
            case _:
                return False
        return True

    def _continues_by_name(self, current: OpenList, name: tree.Name) -> bool:
        """An undeclared word behind a list of types or protocols may be one of those."""
        if current.protocol in ("icmp", "icmpv6"):
            if name.text in icmp_types(current.protocol):
                self._add_icmp(current, name)
                return True
        elif current.protocol == "protocol" and self.services.is_protocol(name.text):
            self._add_protocol(current, name)
            return True
        return False

    def _add_exception(self, current: OpenList, element: tree.WhatElement) -> None:
        """Take the first element behind `except`, which cannot start anything new."""
        if isinstance(element, (tree.Number, tree.NumberRange, tree.Name)):
            self._add_ports(current, element)
        else:
            self.report.add(
                "misplaced-except",
                "`except` can take away ports alone",
                element.span,
                help="put a rule that denies what is excepted before this one",
            )

    def _add_ports(
        self, current: OpenList, node: tree.Number | tree.NumberRange | tree.Name
    ) -> None:
        """Take in a port, a range, or a set of ports; reports names of anything else."""
        if isinstance(node, tree.Name):
            for pair in self.elements.set_of(node, PORT, "set of ports"):
                current.add(pair)
        elif (port := self.elements.port(node)) is not None:
            current.add(port)

    def _add_icmp(self, current: OpenList, node: tree.Number | tree.Name) -> None:
        number = self.services.icmp_type(current.protocol, node)
        if number is not None:
            current.add((number, number))

    def _add_protocol(self, current: OpenList, node: tree.Number | tree.Name) -> None:
        number = self.services.protocol(node)
        if number is not None:
            current.add((number, number))

    # --- places -----------------------------------------------------------------------------

    def narrowed(self, ends: Ends, place: tree.Place) -> Ends:
        """The ends that a place says within a block that says `ends`."""
        source, destination = list(ends.source), list(ends.destination)
        match place.direction:
            case "inbound":
                destination.append(replace(SELF, span=place.span))
                if place.source is None and not ends.source:
                    source.append(replace(ANY, span=place.span))
            case "outbound":
                source.append(replace(SELF, span=place.span))
                if place.destination is None and not ends.destination:
                    destination.append(replace(ANY, span=place.span))
        if place.source is not None:
            source.append(self._end(place.source, is_source=True))
        if place.destination is not None:
            destination.append(self._end(place.destination, is_source=False))
        return Ends(tuple(source), tuple(destination))

    def source(self, node: tree.EndListNode) -> EndList:
        """The end of a statement that says only where packets come from."""
        return self._end(node, is_source=True)

    def destination(self, node: tree.EndListNode) -> EndList:
        """The end of a statement that says where packets go to."""
        return self._end(node, is_source=False)

    def _end(self, node: tree.EndListNode, *, is_source: bool) -> EndList:
        return EndList(
            tuple(e for item in node.elements for e in self._end_elements(item, is_source)),
            tuple(e for item in node.exceptions for e in self._end_elements(item, is_source)),
            node.span,
        )

    def _end_elements(self, item: tree.EndItem, is_source: bool) -> tuple[EndElement, ...]:
        within = tuple(z for name in item.zones if (z := self.elements.zone(name)) is not None)
        match item.element:
            case tree.Keyword(text="any"):
                return (ZoneEnd(within[0], within[1:]),) if within else (AnyEnd(),)
            case tree.Keyword(text="self"):
                if item.zones:
                    self.report.add(
                        "self-in-zone",
                        "this host is in no zone: a zone is made of other machines",
                        item.span,
                        help="leave out `in`, or name an own address: `inbound to ADDRESS`",
                    )
                return (SelfEnd(),)
            case tree.Keyword() as word:
                if is_source:
                    self.report.add(
                        "group-as-source",
                        f"`{word.text}` can be a destination alone",
                        item.span,
                        help="name the machines that send, or `any`",
                    )
                return (GroupEnd(Group(word.text), within),)
            case tree.Address() as address if "/-" in address.text:
                suffix = self.elements.suffix(address)
                return () if suffix is None else (SuffixEnd(*suffix, within),)
            case tree.Address() as address:
                found = self.elements.address(address)
                return () if found is None else (AddressEnd(Ranges((found,)), within),)
            case tree.PublishedNode() as node:
                return self._published(node, within, is_source=is_source)
            case tree.Name(text="ipsec", quoted=False) as name if not self._is_end(name):
                if not is_source:
                    self.report.add(
                        "group-as-source",
                        "`ipsec` is where packets come from, so it can be a source alone",
                        item.span,
                        help="name the machines behind the tunnel, or write `from ipsec` or "
                        "`from any except ipsec`",
                    )
                return (IpsecEnd(within),)
            case tree.Name() as name:
                return self._named_end(name, within)

    def _published(
        self, node: tree.PublishedNode, within: tuple[Zone, ...], *, is_source: bool
    ) -> tuple[EndElement, ...]:
        if is_source:
            self.report.add(
                "group-as-source",
                "`published` is where packets go to, so it can be a destination alone",
                node.span,
                help="name the machines that send, or `any`",
            )
        ports = None if node.ports is None else self.elements.port(node.ports)
        if node.ports is not None and ports is None:
            return ()
        addresses = self.elements.addresses(node.addresses) if node.addresses else None
        return (PublishedEnd(None if ports is None else Ranges((ports,)), addresses, within),)

    def _is_end(self, name: tree.Name) -> bool:
        """Whether the policy declares a zone or a set of that name."""
        kinds = (tree.ZoneDecl, tree.SetDecl, tree.HostDecl)
        return isinstance(self.scope.find(name.text), kinds)

    def _named_end(self, name: tree.Name, within: tuple[Zone, ...]) -> tuple[EndElement, ...]:
        match self.scope.find(name.text):
            case tree.ZoneDecl() as declaration:
                return (ZoneEnd(self.elements.zone_value(declaration), within),)
            case tree.SetDecl() as declaration:
                value = self.elements.set_value(declaration, name)
                if value.at_run_time is not None:
                    return (DynamicEnd(value.at_run_time, within),)
                if value.kind == HOST:
                    return (hosts_end(self.elements, value.values, within),)
                if value.kind not in (ADDRESS, None):
                    self.report.add(
                        "wrong-kind",
                        f"`{name.text}` is a set of {KIND_WORDS[value.kind]}; expected a zone, "
                        "a set of addresses or an address",
                        name.span,
                        labels=(Label(declaration.name.span, "declared here"),),
                    )
                return (AddressEnd(value.values, within),)
            case tree.HostDecl() as declaration:
                addresses = self.elements.host_addresses(declaration, name)
                return (hosts_end(self.elements, addresses, within),)
            case None if name.text in self.scope.loaded.elsewhere:
                return (elsewhere_end(self.elements, name, within),)
            case None:
                self.scope.unknown(
                    "unknown-name", "zone or set", name, tree.ZoneDecl, tree.SetDecl, tree.HostDecl
                )
            case declaration:
                self.report.add(
                    "wrong-kind",
                    f"`{name.text}` is a {kind_of(declaration)}; expected a zone, a set or an "
                    "address",
                    name.span,
                    labels=(Label(declaration.name.span, "declared here"),),
                )
        return ()
