"""`policylang query --matrix`: the table of zones by services, for people and for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from policylang.cli.teller import wants_color
from policylang.cli.visible import visible

if TYPE_CHECKING:
    from policylang.analysis.matrix import Row, Service
    from policylang.analysis.questions import Answer

WIDTH = 100  # columns of a line
_MARKS = {"yes": "yes", "partly": "partly", "no": "-", None: ""}
_COLORS = {"yes": "32", "partly": "33", "no": "2"}
_LEGEND = "yes: all of it passes; partly: some of it, or on a condition; -: none of it"


def left_out(families: tuple[int, ...]) -> str:
    """What is said where rules are of one family alone; nothing where they are of both."""
    if len(families) != 1:
        return ""
    (known,) = families
    return f"these rules are of IPv{known}: nothing is said of IPv{10 - known}"


def tell(
    rows: Sequence[Row],
    services: Sequence[Service],
    chosen: argparse.Namespace,
    families: tuple[int, ...],
) -> None:
    """Print the table; of other `families` nothing is known."""
    if chosen.format == "json":
        print(json.dumps(as_json(rows, services, families), indent=2))
    else:
        shown = tuple(row for row in rows if chosen.all or any(map(_passes, row.answers)))
        print("\n".join(_lines(shown, services, wants_color(chosen.color, sys.stdout))))
        if left := len(rows) - len(shown):
            are = "row is" if left == 1 else "rows are"
            print(f"{left} {are} left out, by which nothing passes; `--all` shows them")
        if note := left_out(families):
            print(note)


def _passes(answer: Answer | None) -> bool:
    return answer in ("yes", "partly")


def as_json(
    rows: Sequence[Row], services: Sequence[Service], families: tuple[int, ...]
) -> dict[str, object]:
    """The value that `--format json` prints; its keys are stable.

    `version` is 1, `families` are those that are spoken of (4, 6), `services` are the names of the
    columns. `rows` has an object for each pair of ends: `from`, `to` and `answers`, which are
    `yes`, `no` and `partly` by service, or null where no packet goes that way.
    """
    return {
        "version": 1,
        "families": list(families),
        "services": [service.name for service in services],
        "rows": [
            {
                "from": row.source,
                "to": row.destination,
                "answers": {
                    service.name: None if answer is None else str(answer)
                    for service, answer in zip(services, row.answers, strict=True)
                },
            }
            for row in rows
        ],
    }


def _lines(rows: Sequence[Row], services: Sequence[Service], is_colored: bool) -> Iterator[str]:
    """The table, in blocks of as many services as a line holds."""
    ends = ("from", "to")
    first = max((len(ends[0]), *(len(visible(row.source)) for row in rows)))
    second = max((len(ends[1]), *(len(visible(row.destination)) for row in rows)))
    head = f"{ends[0]:<{first}}  {ends[1]:<{second}}"
    names = [visible(service.name) for service in services]
    widths = [max(len(name), len("partly")) for name in names]
    for block in _blocks(widths, WIDTH - len(head)):
        titles = (f"  {names[n]:<{widths[n]}}" for n in block)
        yield f"{head}{''.join(titles)}".rstrip()
        for row in rows:
            cells = []
            for n in block:
                answer = row.answers[n]
                mark = _MARKS[answer]
                padding = " " * (widths[n] - len(mark))
                color = _COLORS.get(answer or "")
                shown = f"\x1b[{color}m{mark}\x1b[0m" if is_colored and color else mark
                cells.append(f"  {shown}{padding}")
            start = f"{visible(row.source):<{first}}  {visible(row.destination):<{second}}"
            yield f"{start}{''.join(cells)}".rstrip()
        yield ""
    yield _LEGEND


def _blocks(widths: Sequence[int], room: int) -> Iterator[list[int]]:
    """The numbers of columns that stand beside one another."""
    block: list[int] = []
    left = room
    for n, width in enumerate(widths):
        if block and width + 2 > left:
            yield block
            block, left = [], room
        block.append(n)
        left -= width + 2
    if block:
        yield block
