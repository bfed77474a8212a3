"""A difference as a comment on a change: what opens and closes first, the rest folded away.

It writes the Markdown that GitHub, GitLab and Forgejo share: tables, and `<details>`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from policylang.cli.visible import visible

if TYPE_CHECKING:
    from policylang.analysis.changed import Change, Differences
    from policylang.analysis.reviewing import Statement, Told

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&])")
MOST_IN_CELL = 3  # phrases of packets in a cell of a table


def review(
    title: str,
    differences: Differences,
    tell: Callable[[Change], Told],
    *,
    most: int | None,
) -> Iterator[str]:
    """The lines of a comment under a title; `most` changes are in each table, None are all."""
    from policylang.analysis.changed import OPENING, Kind
    from policylang.analysis.reviewing import counted

    yield f"### {plain(title)}: {counted(differences)}"
    closing = frozenset({Kind.CLOSED, Kind.TIGHTENED})
    changes = differences.changes
    groups = {
        "Opens": [one for one in changes if one.kind in OPENING],
        "Closes": [one for one in changes if one.kind in closing],
        "Changes otherwise": [one for one in changes if one.kind not in OPENING | closing],
    }
    told: list[Told] = []
    for title, group in groups.items():
        if group:
            shown = [tell(one) for one in (group if most is None else group[:most])]
            told += shown
            yield ""
            yield f"**{title}**"
            yield ""
            yield from _table(shown, len(group) - len(shown))
    if told:
        yield ""
        yield "<details><summary>Packets and statements</summary>"
        yield ""
        for one in told:
            yield from _details(one)
        yield ""
        yield "</details>"


def _table(shown: Sequence[Told], more: int) -> Iterator[str]:
    yield "| | way | packets | now | was |"
    yield "|---|---|---|---|---|"
    for one in shown:
        cells = (
            f"`{one.sign}`",
            str(one.change.way),
            ("perhaps " if one.change.shown.is_unsure else "") + _packets(one),
            _side(one.becomes, one.statements_after),
            _side(one.was, one.statements_before),
        )
        yield f"| {' | '.join(cells)} |"
    if more:
        yield f"| | | … and {more} more | | |"


def _packets(one: Told) -> str:
    texts = [plain(text) for text in one.packets[:MOST_IN_CELL]]
    texts += [f"except {plain(text)}" for text in one.excepted[:MOST_IN_CELL]]
    parts = len(one.packets) + len(one.excepted)
    if one.left_out or parts > len(texts):
        texts.append("…")
    return "<br>".join(texts)


def _side(done: str, statements: Sequence[Statement]) -> str:
    texts = [plain(done)] if done else []
    for one in statements:
        texts.append(as_code(one.words if one.span is None else one.span.place))
    return "<br>".join(texts)


def _details(one: Told) -> Iterator[str]:
    packets = "; ".join(plain(text) for text in one.packets)
    less = "".join(f"; except {plain(text)}" for text in one.excepted)
    yield f"- `{one.sign}` {one.change.way} {packets}{less}{' …' if one.left_out else ''}"
    yield f"  - for example {as_code(one.example)}"
    yield from _statements("now", one.becomes, one.statements_after)
    yield from _statements("was", one.was, one.statements_before)


def _statements(when: str, done: str, statements: Iterable[Statement]) -> Iterator[str]:
    texts = [plain(done)] if done else []
    texts += [as_code(one.text) for one in statements]
    if texts:
        yield f"  - {when}: {', '.join(texts)}"


def plain(words: str) -> str:
    """Text in which no character has a meaning to Markdown or HTML, and that calls nobody."""
    return _SPECIAL.sub(r"\\\1", visible(words)).replace("@", "@<!-- -->")


def as_code(words: str) -> str:
    """Text as code; what would end the code, or a table's cell, becomes a look-alike."""
    return f"`{visible(words).replace('`', chr(0x2BC)).replace('|', chr(0xA6))}`"
