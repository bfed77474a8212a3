"""Lines of a target's own language; knows no more of them than where they may stand."""

from __future__ import annotations

from collections.abc import Mapping

from policylang.diagnostics import Report, did_you_mean
from policylang.model.options import plain_text
from policylang.model.types import Direction, NativeRule
from policylang.syntax import tree

# By the name of a target, what it calls the chains in which rules are read.
Chains = Mapping[str, Mapping[str, Direction]]

BRACKETS = {")": "(", "]": "[", "}": "{"}


def native_rule(node: tree.NativeNode, known: Chains, report: Report) -> NativeRule | None:
    """The line and its place; reports `bad-native` where it would not be one line of a chain.

    What the line says is for the target to check.
    """
    chains = known.get(node.target.text)
    if chains is None:
        report.add(
            "bad-native",
            f"no target named `{node.target.text}`",
            node.target.span,
            help=did_you_mean(node.target.text, known) or "the targets are " + " and ".join(known),
        )
        return None
    direction = chains.get(node.chain.text)
    if direction is None:
        report.add(
            "bad-native",
            f"{node.target.text} has no chain `{node.chain.text}` that rules are read in",
            node.chain.span,
            help="the chains are " + ", ".join(chains),
        )
        return None
    text = plain_text(report, node.text, but=";#`").strip()
    if not text:
        report.add("bad-native", "an empty line says nothing", node.text.span)
    unpaired = _unpaired(text)
    if unpaired is not None:
        report.add(
            "bad-native",
            f"the bracket `{unpaired}` has no partner in this line",
            node.text.span,
            help="a line is one rule of a chain and cannot end it",
        )
    family = None if node.family is None else {"ipv4": 4, "ipv6": 6}[node.family]
    return NativeRule(node.target.text, direction, text, family, node.span)


def _unpaired(text: str) -> str | None:
    """The first bracket that has no partner."""
    opened: list[str] = []
    for character in text:
        if character in BRACKETS.values():
            opened.append(character)
        elif character in BRACKETS and (not opened or opened.pop() != BRACKETS[character]):
            return character
    return opened[-1] if opened else None
