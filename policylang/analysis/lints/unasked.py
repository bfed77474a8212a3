"""Dynamic sets into which rules put addresses, and which none of them reads."""

from __future__ import annotations

from collections.abc import Iterator

from policylang.analysis.lints.subject import Subject
from policylang.diagnostics import Label, Report
from policylang.ir.ruleset import DynamicSet
from policylang.model.policy import Default, Protect
from policylang.model.types import AddTo, PolicyRule
from policylang.source import Span

MOST_LABELS = 4


def find_unasked(subject: Subject, report: Report) -> None:
    """Report each dynamic set that is filled and never asked: `set-never-asked`.

    A set that nothing fills either is told as one that nothing uses.
    """
    asked = {t.name for t in subject.ruleset.address_tests if isinstance(t, DynamicSet)}
    filled: dict[str, tuple[AddTo, list[Span]]] = {}
    for add, span in _additions(subject):
        if add.set.name not in asked:
            filled.setdefault(add.set.name, (add, []))[1].append(span)
    for name, (add, spans) in filled.items():
        places = list(dict.fromkeys(spans))
        report.add(
            "set-never-asked",
            f"addresses are put into the set `{name}`, and no rule asks what is in it",
            add.set.span,
            help=f"a ban needs a rule such as `deny all from {name} to any`, above what allows",
            labels=[Label(span, "this fills it") for span in places[:MOST_LABELS]],
        )


def _additions(subject: Subject) -> Iterator[tuple[AddTo, Span]]:
    """What puts addresses into sets, and where that is said."""
    policy = subject.policy
    deciding: tuple[PolicyRule | Default | Protect, ...] = (
        *policy.rules,
        *policy.defaults.values(),
        *policy.protections,
    )
    for one in deciding:
        if one.span is not None:
            yield from ((add, one.span) for add in one.adds)
