"""`protect` statements, resolved; knows nothing of how a packet is told to be forged."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.model.options import Options
from policylang.model.policy import Protect, Protection
from policylang.model.rules import Rules
from policylang.model.types import AnyEnd, End, EndElement, Per, Rate, Side, ZoneEnd
from policylang.source import Span
from policylang.syntax import tree

# A busy client opens tens of connections a second; a flood is thousands.
FLOOD_RATE = Rate(50, "second", 100, Per(Side.SOURCE))


@dataclass(frozen=True, slots=True)
class Protections:
    """Resolves `protect` statements."""

    rules: Rules
    options: Options
    report: Report

    def of(self, node: tree.ProtectNode) -> tuple[Protect, ...]:
        """One `Protect` for each thing that is kept out.

        Reports `unknown-protection`, `duplicate-protection`, `protect-from` and bad rates.
        """
        source = self.rules.source(node.source)
        said = self.options.of(node.options)
        self._check_zones(node.source.elements, source.elements)
        self._check_zones(node.source.exceptions, source.exceptions)
        found: list[Protect] = []
        first: dict[str, Span] = {}
        for protection in node.protections:
            name = protection.name
            try:
                kind = Protection(name.text)
            except ValueError:
                known = [p.value for p in Protection]
                self.report.add(
                    "unknown-protection",
                    f"no protection named `{name.text}`",
                    name.span,
                    help=did_you_mean(name.text, known) or "there are " + ", ".join(known),
                )
                continue
            if name.text in first:
                self.report.add(
                    "duplicate-protection",
                    f"`{name.text}` is given twice",
                    name.span,
                    labels=(Label(first[name.text], "the first is here"),),
                )
                continue
            first[name.text] = name.span
            rate = self._rate(kind, protection)
            found.append(
                Protect(End((source,)), kind, rate, said.log, said.name, said.adds, node.span)
            )
        return tuple(found)

    def _check_zones(
        self, items: tuple[tree.EndItem, ...], elements: tuple[EndElement, ...]
    ) -> None:
        """Report what is neither a zone nor `any`: `protect-from`."""
        if len(items) != len(elements):
            return  # a name among them stands for nothing, as reported
        for item, element in zip(items, elements, strict=True):
            if not isinstance(element, (AnyEnd, ZoneEnd)) or item.zones:
                self.report.add(
                    "protect-from",
                    "`protect` is about zones: what can be told is by which interface it came",
                    item.span,
                    help="name zones, or `any`",
                )

    def _rate(self, kind: Protection, node: tree.Protection) -> Rate | None:
        if kind is Protection.SYN_FLOOD:
            if node.rate is None:
                return FLOOD_RATE
            rate = self.options.rate(node.rate)
            # A rate for all sources together would let one of them shut out all others.
            per = Per(Side.SOURCE) if rate.per is None else rate.per
            return Rate(rate.count, rate.unit, rate.burst, per)
        if node.rate is not None:
            self.report.add(
                "bad-rate",
                f"`{kind.value}` has no rate: all of it is kept out",
                node.rate.span,
                help="`syn-flood` has one",
            )
        return None
