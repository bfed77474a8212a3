"""What the statements that translate or treat packets have in common when they are resolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policylang.diagnostics import Report
from policylang.model.conditions import ConditionsReader
from policylang.model.elements import ADDRESS, Elements
from policylang.model.options import Options, Said
from policylang.model.rules import Context, Ends, Rules
from policylang.model.types import (
    Conditions,
    EndElement,
    EndList,
    Traffic,
)
from policylang.packets.values import Range, Ranges
from policylang.syntax import tree

MOST_NEW_PORTS = 256  # one rule each
_WITH_PORT = re.compile(r"(?P<address>[0-9.]+):(?P<ports>[0-9]{1,5}(-[0-9]{1,5})?)")

# What each statement takes beside its ends: all of them take a name.
_LOGGED = (tree.MasqueradeNode, tree.SnatNode, tree.DnatNode, tree.RedirectNode, tree.TproxyNode)


@dataclass(frozen=True, slots=True)
class StatementReader:
    """Reads the parts of such statements, and tells what cannot stand in them."""

    rules: Rules
    elements: Elements
    options: Options
    conditions: ConditionsReader
    report: Report

    def _said(self, node: tree.TreatmentNode) -> Said:
        """The options; reports `misplaced-option` for what has no meaning here."""
        for option in node.options:
            what = None
            if isinstance(option, tree.AddOption):
                what = f"`add {option.side}`"
            elif isinstance(option, tree.LogOption) and not isinstance(node, _LOGGED):
                what = "`log`"
            if what is not None:
                self.report.add(
                    "misplaced-option",
                    f"{what} has no meaning here",
                    option.span,
                    help="write it behind a rule that allows or denies",
                )
        return self.options.of(node.options)

    def _conditions(self, node: tree.TreatmentNode, ends: Ends) -> Conditions:
        """The conditions; reports `misplaced-condition` for those that count."""
        for condition in node.conditions:
            if isinstance(condition, (tree.LimitCondition, tree.ConnectionsCondition)):
                self.report.add(
                    "misplaced-condition",
                    "a rate or a number of connections decides what passes, and this statement "
                    "does not",
                    condition.span,
                    help="put a rule before it that denies what is over",
                )
        self.rules.check_places(node.conditions, ends)
        return self.conditions.read(node.conditions)

    def _ends(self, node: tree.TreatmentNode, place: tree.Place) -> Ends | None:
        self._refuse_published(place.destination)
        ends = self.rules.narrowed(Ends(), place)
        return ends if self.rules.both_ends_said(node, ends, Context()) else None

    def _refuse_published(self, end: tree.EndListNode | None) -> None:
        """Report `published`, which is for rules: `wrong-end`."""
        for item in () if end is None else (*end.elements, *end.exceptions):
            if isinstance(item.element, tree.PublishedNode):
                self.report.add(
                    "wrong-end",
                    "`published` is about ports that other programs translate, and this statement "
                    "is not",
                    item.span,
                    help="rules that allow, deny or reject have it; name the machines here",
                )

    def _lacks_from(
        self, what: tuple[tree.WhatElement, ...], place: tree.Place, statement: tree.Node
    ) -> bool:
        """Whether a zone stands where what is spoken of does; reports `missing-end`."""
        if place.source is not None or place.direction is not None or len(what) != 1:
            return False
        match what[0]:
            case tree.Name(text=text) as name if isinstance(
                self.rules.scope.find(text), (tree.ZoneDecl, tree.SetDecl)
            ):
                word = statement.span.text.split()[0]
                self.report.add(
                    "missing-end",
                    "the statement leaves where it comes from unsaid",
                    name.span,
                    help=f"did you mean `{word} from {name.span.text} …`?",
                )
                return True
        return False

    def _what(self, elements: tuple[tree.WhatElement, ...]) -> tuple[Traffic, ...]:
        """What a statement speaks of: everything where it names nothing."""
        return self.rules.what(elements) if elements else (Traffic(),)

    def _addresses(self, nodes: Iterable[tree.Address | tree.Name]) -> Ranges:
        """Addresses and sets of them, not those that are filled at run time."""
        found = Ranges()
        for node in nodes:
            if isinstance(node, tree.Name):
                found = found | self.elements.set_of(node, ADDRESS, "set of addresses")
            elif (match := _WITH_PORT.fullmatch(node.text)) is not None:
                self.report.add(
                    "bad-address",
                    f"`{node.text}` is an address and a port",
                    node.span,
                    help=f"the port stands apart, behind all addresses: "
                    f"`{match['address']} port {match['ports']}`",
                )
            elif (pair := self.elements.address(node)) is not None:
                found = found | Ranges((pair,))
        return found

    def _new_ports(
        self,
        node: tree.Number | tree.NumberRange | None,
        what: tuple[Traffic, ...],
        statement: tree.Node,
    ) -> Range | None:
        """The ports that take the place of those of `what`; reports `bad-new-port`."""
        if node is None:
            return None
        ports = self.elements.port(node)
        if ports is None:
            return None
        low, high = ports
        if low == 0:
            self._bad_port("no connection goes to port 0", node)
        elif any(traffic.ports is None for traffic in what):
            self._bad_port(
                "a new port is for what has one",
                node,
                help="name services or ports: `tcp 8080`, not `all`",
            )
        elif low != high:
            if high - low >= MOST_NEW_PORTS:
                self._bad_port(f"there can be {MOST_NEW_PORTS} new ports at most", node)
            for traffic in what:
                old = traffic.ports or Ranges()
                if len(old) != 1 or old.count != high - low + 1:
                    self._bad_port(
                        f"{high - low + 1} new ports need a range of as many old ones",
                        node,
                        help="one new port can take the place of any number",
                    )
                    break
        return ports

    def _bad_port(self, message: str, node: tree.Node, *, help: str | None = None) -> None:
        self.report.add("bad-new-port", message, node.span, help=help)

    def _source_ports(self, node: tree.Number | tree.NumberRange | None) -> Range | None:
        """The range that source ports are taken from; reports `bad-new-port`."""
        ports = None if node is None else self.elements.port(node)
        if node is not None and ports is not None and ports[0] == 0:
            self._bad_port("no connection comes from port 0", node)
        return ports

    def _check_elements(
        self,
        node: tree.EndListNode | None,
        one: EndList | None,
        may_be: Callable[[EndElement], bool],
        wanted: str,
    ) -> None:
        """Report the elements of an end that cannot stand there: `wrong-end`."""
        if node is None or one is None:
            return
        for items, elements in (
            (node.elements, one.elements),
            (node.exceptions, one.exceptions),
        ):
            if len(items) != len(elements):
                continue  # a name among them stands for nothing, as reported
            for item, element in zip(items, elements, strict=True):
                if not may_be(element):
                    self.report.add(
                        "wrong-end",
                        f"`{item.span.text}` cannot stand here",
                        item.span,
                        help=f"name {wanted}",
                    )
