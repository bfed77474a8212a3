"""What the statements that translate or treat packets have in common when they are resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policylang.diagnostics import Report
from policylang.model.conditions import ConditionsReader
from policylang.model.elements import Elements
from policylang.model.options import Options, Said
from policylang.model.rules import Ends, Rules
from policylang.model.types import Conditions, EndElement, EndList, Traffic
from policylang.syntax import tree

_LOGGED = (tree.MasqueradeNode, tree.SnatNode, tree.DnatNode, tree.RedirectNode, tree.TproxyNode)
_COUNTING = (tree.LimitCondition, tree.ConnectionsCondition)
# What is the same for the packets of both directions.
_OF_BOTH_WAYS = (tree.FamilyCondition, tree.MarkCondition)
# What has nothing to say of packets to this host, and what neither of those from it.
_LEAVING = (tree.MasqueradeNode, tree.SnatNode, tree.OffloadNode)
_PASSING = (tree.OffloadNode,)


@dataclass(frozen=True, slots=True)
class StatementReader:
    """Reads the parts of such statements, and tells what cannot stand in them."""

    rules: Rules
    elements: Elements
    options: Options
    conditions: ConditionsReader
    report: Report

    def said(self, node: tree.TreatmentNode) -> Said:
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

    def what(self, elements: tuple[tree.WhatElement, ...]) -> tuple[Traffic, ...]:
        """What a statement speaks of: everything where it names nothing."""
        return self.rules.what(elements) if elements else (Traffic(),)

    # --- ends -------------------------------------------------------------------------------

    def ends(self, node: tree.TreatmentNode, place: tree.Place) -> Ends | None:
        """The ends that a place says, None where one is unsaid; reports `missing-end`."""
        self.refuse_published(place.destination)
        ends = self.rules.narrowed(Ends(), place)
        if ends.source and ends.destination:
            return ends
        if ends.source:
            unsaid = "where it goes"
            hint = "add `to ZONE`, or `to any`"
            if not isinstance(node, _LEAVING):
                hint = "add `to self` (or write `inbound from`), `to ZONE`, or `to any`"
        else:
            unsaid = "where it comes from"
            hint = "add `from ZONE`, or `from any`"
            if not isinstance(node, _PASSING):
                hint = "add `from self` (or write `outbound to`), `from ZONE`, or `from any`"
        self.report.add(
            "missing-end", f"the statement leaves {unsaid} unsaid", place.span, help=hint
        )
        return None

    def refuse_published(self, end: tree.EndListNode | None) -> None:
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

    def check_elements(
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

    # --- conditions -------------------------------------------------------------------------

    def conditions_on(
        self,
        node: tree.TreatmentNode,
        ends: Ends,
        refused: tuple[type[tree.Condition], ...] = (),
    ) -> Conditions:
        """The conditions; reports `misplaced-condition` for those that count.

        Those of `refused` were reported already: nothing more is told of their place.
        """
        left = tuple(c for c in node.conditions if not isinstance(c, refused))
        self.refuse_conditions(
            [condition for condition in left if isinstance(condition, _COUNTING)],
            "a rate or a number of connections decides what passes, and this statement does not",
            "put a rule before it that denies what is over",
        )
        self.rules.check_places(left, ends)
        return self.conditions.read(node.conditions)

    def conditions_of_both_ways(self, node: tree.NetmapNode | tree.ClampNode) -> Conditions:
        """The conditions of what holds for both directions; reports `misplaced-condition`."""
        word = "netmap" if isinstance(node, tree.NetmapNode) else "clamp mss"
        self.refuse_conditions(
            [c for c in node.conditions if not isinstance(c, _OF_BOTH_WAYS)],
            f"`{word}` holds in both directions, and this is known of one alone",
            "`ipv4`, `ipv6` and `mark` can stand here",
        )
        return self.conditions.read(node.conditions)

    def refuse_conditions(self, conditions: list[tree.Condition], message: str, help: str) -> None:
        """Report conditions that cannot stand in a statement: `misplaced-condition`."""
        for condition in conditions:
            self.report.add("misplaced-condition", message, condition.span, help=help)
