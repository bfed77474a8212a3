"""What a controller shows people of a target that it provisions: meaning first, then rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from policylang.cli.render import Renderer
from policylang.diagnostics import Diagnostic, Report, Severity

if TYPE_CHECKING:
    from policylang.apply.loaded import Loaded
    from policylang.cli.diffing import Compared
    from policylang.provision.controller import Compiled
    from policylang.provision.messages import Rehearsed


def meaning(one: Compiled, found: Rehearsed) -> str:
    """What a policy opens and closes on a target, as `policylang diff` tells it.

    It is compared with the generation that is in force there, or with the rules that are.
    """
    from policylang.analysis.diagram import TooLargeError
    from policylang.analysis.unreadable import UnreadableError
    from policylang.cli.diffing import Lines

    try:
        compared = _compared(one, found)
    except UnreadableError as error:
        return f"what is in force there cannot be read: {error.message}\n"
    except TooLargeError:
        return "what is in force there differs in too many ways to be told\n"
    return "".join(f"{line}\n" for line in Lines(color=False, most=None).of(compared))


def _compared(one: Compiled, found: Rehearsed) -> Compared:
    from policylang.analysis.diagram import Space
    from policylang.analysis.differences import differences
    from policylang.analysis.modelled import machine_of
    from policylang.analysis.naming import names_of
    from policylang.analysis.wording import NO_NAMES
    from policylang.cli.diffing import Compared
    from policylang.cli.subjects import Subject, in_same_words
    from policylang.provision.controller import machine_of as machine_of_listings

    names = names_of(one.policy, one.meant.address_tests)
    new = Subject(one.name, machine_of(one.meant), names, one.policy, one.meant)
    called = "what is in force"
    if found.current is not None:
        called = f"generation {found.current.number}"
    old = Subject(called, machine_of_listings(found.past), NO_NAMES, target=one.artifact.target)
    machines = in_same_words(old, new, found.here.owners)
    return Compared(old, new, differences(*machines, Space()))


def rules(loaded: Loaded) -> str:
    """All of a listing as text, in order, so that two can be compared line by line."""
    return "".join(f"{line}\n" for line in _lines(loaded))


def _lines(loaded: Loaded) -> Iterator[str]:
    for one in loaded.sets:
        yield f"{one.place}: {one.head}"
        yield from (f"    {element}" for element in sorted(one.elements or ()))
    for chain in loaded.chains:
        yield f"{chain.place}: {chain.head}" if chain.head else f"{chain.place}:"
        for rule in chain.rules:
            yield f"    {rule.text}" + (f"  # {rule.comment}" if rule.comment else "")
    yield from loaded.others


def told(diagnostics: Iterable[Diagnostic]) -> str:
    """Diagnostics as people read them, without an end of line."""
    return Renderer(color=False).render(diagnostics).rstrip("\n")


def errors(report: Report) -> list[Diagnostic]:
    """The errors of a report, in order."""
    return [one for one in report.in_order() if one.severity is Severity.ERROR]


def warnings(report: Report) -> list[Diagnostic]:
    """The warnings of a report, in order."""
    return [one for one in report.in_order() if one.severity is Severity.WARNING]
