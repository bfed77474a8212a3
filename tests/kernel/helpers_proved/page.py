"""HELPERS.md: what was proved of the helpers, written down or compared with what is there.

Each test file owns one section, and each section holds what that file just proved. It knows no
test and no protocol.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import pytest

from tests.kernel.ground import REPOSITORY, Family, Loader

from .places import Place
from .proof import Proved
from .subjects import Besides, Gap, Subject

PAGE = REPOSITORY / "HELPERS.md"

# In the order of the page.
SECTIONS = (
    "File transfer, backup and scanning",
    "Telephony",
    "Chat, tunnels and broadcasts",
    "Real servers and clients",
)

INTRODUCTION = """\
# Conntrack helpers, and where they were proved

This page is written by `pytest --update-golden tests/kernel -k helpers` and compared with what the
tests prove whenever they run; see [LANGUAGE.md](LANGUAGE.md) for what a helper is.

Every cell is a policy of a few words that was applied in network namespaces, by nft, iptables-nft
and iptables-legacy alike, with all defaults closed: what the control connection announced then
passed, from and to the addresses that it should. The same policy with a service of the same ports
and no `helper` is its control: the control connection works there, and nothing that it announces
passes (for real servers and clients this was seen on nft alone). `4` is IPv4 and `6` IPv6; a small
number is a note.

| place | who talks | the policy, for `ftp` |
|---|---|---|
| inbound | a client in `wan`, a server on this host | `allow ftp inbound from wan` |
| outbound | a client on this host, a server in `wan` | `allow ftp outbound to wan` |
| forwarded | a client in `lan`, a server in `wan` | `allow ftp from lan to wan` |
| masqueraded | a client in `lan`, a server in `wan` | the same, and `masquerade from lan to wan` |
| behind dnat | a client in `wan`, a server in `lan` | `dnat ftp from wan to 198.51.100.2` |
| on another port | the same, dialled on port 2121 | `service ftp-alt { tcp 2121 helper ftp }`, \
`dnat ftp-alt from wan to 198.51.100.2 port 21` |
"""


@dataclass(frozen=True, slots=True)
class Page:
    """The page of this checkout, compared with or rewritten."""

    is_update: bool

    def says(self, section: str, lines: Iterable[str]) -> None:
        """Fail with a diff unless the section is these lines."""
        text = f"## {section}\n\n" + "".join(f"{line}\n" for line in lines)
        if self.is_update:
            _rewrite(section, text)
            return
        introduction, kept = _parts(PAGE)
        before = [*introduction.splitlines(), *kept.get(section, "").splitlines()]
        after = [*INTRODUCTION.rstrip().splitlines(), *text.rstrip().splitlines()]
        diff = list(unified_diff(before, after, "HELPERS.md (kept)", "(proved now)", lineterm=""))
        if diff:
            shown = "\n".join(diff)
            pytest.fail(
                "HELPERS.md says something else than was proved now; where that is right, "
                f"`pytest --update-golden` writes it\n{shown}",
                pytrace=False,
            )


def _parts(page: Path) -> tuple[str, dict[str, str]]:
    """The introduction of the page, and its sections by their titles, without final newlines."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    introduction, *sections = text.split("\n## ")
    parts = {part.split("\n", 1)[0]: f"## {part}".rstrip() for part in sections}
    return introduction.rstrip(), parts


def _rewrite(section: str, text: str) -> None:
    """Put a section in its place; tests of other files may do so at the same time."""
    with PAGE.open("a", encoding="utf-8") as page:
        fcntl.flock(page, fcntl.LOCK_EX)
        _, kept = _parts(PAGE)
        kept[section] = text
        parts = (INTRODUCTION, *(kept[title] for title in SECTIONS if title in kept))
        PAGE.write_text("\n\n".join(part.rstrip() for part in parts) + "\n", encoding="utf-8")


# --- tables ----------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table's lines."""
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a matrix: what was tried with which helper, over which families, by whom."""

    helper: str
    title: str
    peers: str
    families: tuple[Family, ...]
    gap: Callable[[Place, Family], Gap | None]
    also: Mapping[Place, Besides]


def entries(subjects: Iterable[Subject]) -> list[Entry]:
    """The rows of some subjects."""
    return [
        Entry(subject.helper, row.title, subject.peers, subject.families, subject.gap, subject.also)
        for subject in subjects
        for row in subject.rows
    ]


def matrix(
    rows: Iterable[Entry], proved: Proved, controls: Iterable[Loader] = tuple(Loader)
) -> list[str]:
    """What was proved of these rows on every loader, place by place, and why not the rest.

    `controls` are the loaders on which it was seen to fail without the helper.
    """
    notes: dict[str, int] = {}
    lines = [
        (
            f"`{row.helper}`{'' if len(row.families) > 1 else ' (IPv4 alone)'}",
            row.title,
            *(_cell(row, place, proved, tuple(controls), notes) for place in Place),
            row.peers,
        )
        for row in rows
    ]
    head = ("helper", "what passes", *(place.value for place in Place), "peers")
    told = [f"{number}. {reason}" for reason, number in notes.items()]
    return [*table(head, lines), *(["", *told] if told else [])]


def _cell(
    row: Entry, place: Place, proved: Proved, controls: tuple[Loader, ...], notes: dict[str, int]
) -> str:
    shown: list[str] = []
    reasons = [row.also[place].reason] if place in row.also else []
    for family in row.families:
        gap = row.gap(place, family)
        cells = {(row.helper, row.title, place, family, loader) for loader in Loader}
        stopped = {(row.helper, row.title, place, family, loader) for loader in controls}
        if gap is None:
            if cells <= proved.with_helper and stopped <= proved.without:
                shown.append(FIGURES[family])
        elif not gap.is_tried or cells <= proved.impossible:
            reasons.append(gap.reason)
    for reason in dict.fromkeys(reasons):
        shown.append(f"<sup>{notes.setdefault(reason, len(notes) + 1)}</sup>")
    return " ".join(shown)


FIGURES = {Family.IPV4: "4", Family.IPV6: "6"}
