"""The comment on a change of policies: meaning first, then text, then rules; no more than fits.

It writes the Markdown that GitHub, GitLab and Forgejo share. What it is told it does not compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policylang.cli.markdown import as_code, plain, review
from policylang.cli.unified import unified
from policylang.cli.visible import visible

if TYPE_CHECKING:
    from policylang.cli.diffing import Compared

MARK = "<!-- policylang review -->"  # by which whoever posts comments finds the last one
# Changes of a kind, and groups of hosts that do the same (None: all): as many as leave room for the
# rest.
MEANING = ((20, None), (10, None), (5, None), (3, None), (1, None), (3, 10), (1, 3), (0, 1))
MOST_NAMED = 8  # hosts, or files, in a sentence
SHARE = 0.75  # of all room: what meaning may take

Triple = tuple[str, str, str]  # a name, and what was and is there


@dataclass(frozen=True, slots=True)
class Host:
    """What a host of the policy does otherwise; `name` None where it is for one firewall."""

    name: str | None
    state: str = ""  # is new, is removed
    compared: Compared | None = None
    is_too_large: bool = False

    @property
    def is_as_before(self) -> bool:
        """Whether all packets fare as they did."""
        return self.compared is not None and not (self.state or self.compared.differences.changes)


@dataclass(frozen=True, slots=True)
class Section:
    """A policy: what its hosts do otherwise, and what of its text and of its rules differs.

    With `errors` it could not be compared, and there is nothing else.
    """

    title: str
    state: str = ""  # is new, is removed
    hosts: tuple[Host, ...] = ()
    texts: tuple[Triple, ...] = ()
    rules: tuple[Triple, ...] = ()
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def is_as_before(self) -> bool:
        """Whether there is nothing to read about it: neither packets nor texts nor rules differ."""
        is_other = self.errors or self.state or self.texts or self.rules
        return not is_other and all(host.is_as_before for host in self.hosts)


def comment(sections: Sequence[Section], limit: int) -> str:
    """All sections in at most `limit` characters.

    What says most comes first: differences of rules are cut before those of policies, and of these
    whole ones are left out before meaning is.
    """
    told = [one for one in sections if not one.is_as_before] or list(sections[:1])
    alike = _alike([one.title for one in sections if one not in told])
    meanings = _meanings(told, limit - len(alike))
    end = alike + _more(len(told) - len(meanings), limit)
    blocks = [_Blocks(meaning) for meaning in meanings]
    left = limit - len(_joined(blocks)) - len(end)
    for fill in (_fill_texts, _fill_rules):
        for section, block in zip(told, blocks, strict=False):
            left -= fill(section, block, left, limit)
    return _joined(blocks) + end


def _alike(titles: Sequence[str]) -> str:
    return f"\nNo difference at all in {_named(titles)}.\n" if titles else ""


@dataclass(slots=True)
class _Blocks:
    """The parts of a section, as they are filled: each begins and ends a line."""

    meaning: str
    texts: str = ""
    rules: str = ""

    @property
    def whole(self) -> str:
        return f"{self.meaning}{self.texts}{self.rules}"


def _joined(blocks: Iterable[_Blocks]) -> str:
    return "\n".join((f"{MARK}\n", *(block.whole for block in blocks)))


# --- meaning ----------------------------------------------------------------------------------


def _meanings(sections: Sequence[Section], limit: int) -> list[str]:
    """What is told of meaning, of as many sections as fit, in as many words as fit."""
    found: list[str] = []
    for most, hosts in MEANING:
        found = ["".join(f"{line}\n" for line in _meaning(one, most, hosts)) for one in sections]
        if sum(map(len, found)) <= limit * SHARE:
            return found
    room = limit - len(MARK) - len(_more(len(sections), limit)) - 2
    kept: list[str] = []
    for one in found:
        room -= len(one) + 1
        if room < 0:
            break
        kept.append(one)
    return kept


def _meaning(section: Section, most: int, most_groups: int | None) -> Iterator[str]:
    if section.errors:
        yield f"### {plain(section.title)}: cannot be compared"
        yield ""
        shown = section.errors[: max(most, 1)]
        yield from (f"- {plain(error)}" for error in shown)
        if len(section.errors) > len(shown):
            yield f"- … and {len(section.errors) - len(shown)} more"
        return
    told = [host for host in section.hosts if not host.is_as_before]
    if len(section.hosts) == 1:
        told = list(section.hosts)
    groups: dict[tuple[str, ...], list[Host]] = {}
    for host in told:
        groups.setdefault(tuple(_of_hosts(section, [host], most, title="")), []).append(host)
    for number, hosts in enumerate([*groups.values()][:most_groups]):
        if number:
            yield ""
        yield from _of_hosts(section, hosts, most, title=section.title)
    more = [*groups.values()][most_groups:] if most_groups is not None else []
    if more:
        yield ""
        yield f"… and {sum(map(len, more))} more hosts differ."
    alike = [host.name or "" for host in section.hosts if host not in told]
    if alike and not told:
        yield f"### {plain(section.title)}: no difference in meaning, on {_named(alike)}"
    elif alike:
        yield ""
        yield f"No difference in meaning on {_named(alike)}."


def _of_hosts(section: Section, hosts: Sequence[Host], most: int, *, title: str) -> Iterator[str]:
    """What is told of hosts that do the same; without a title, what they are compared by."""
    one = hosts[0]
    if title and one.name is not None:
        named = ", ".join(host.name or "" for host in hosts[:MOST_NAMED])
        more = f" and {len(hosts) - MOST_NAMED} more" if len(hosts) > MOST_NAMED else ""
        title = f"{title}, host{'' if len(hosts) == 1 else 's'} {named}{more}"
    state = section.state or one.state
    if one.compared is not None:
        compared = one.compared
        whole = f"{title} {state}".rstrip()
        yield from review(whole, compared.differences, compared.told, most=most)
    elif one.is_too_large:
        yield f"### {plain(title)}: too many different packets to be compared"
    else:
        yield f"### {plain(title)} {state}"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(as_code(name) for name in names[:MOST_NAMED])}{more}"


# --- text and rules ---------------------------------------------------------------------------


def _fill_texts(section: Section, block: _Blocks, room: int, limit: int) -> int:
    """Take in what differs in the policy's text; how many characters that took."""
    lines = list(_diff(section.texts))
    if not lines:
        return 0
    block.texts = _fitted(lines, "\n**Text**\n\n", "", room, limit)
    return len(block.texts)


def _fill_rules(section: Section, block: _Blocks, room: int, limit: int) -> int:
    """The same of the rules, folded away."""
    lines = list(_diff(section.rules))
    notes = "".join(f"\n{plain(note)}\n" for note in section.notes)
    if not lines:
        block.rules = notes if len(notes) <= room else ""
        return len(block.rules)
    names = _named([name for name, _, _ in section.rules])
    changed = sum(line[:1] in "+-" and not line.startswith(("+++", "---")) for line in lines)
    summary = f"Rules: {changed} lines differ"
    # A blank line ends the HTML: what is behind it is Markdown again.
    head = f"\n<details><summary>{summary}</summary>\n\n{names}\n{notes}\n"
    block.rules = _fitted(lines, head, "\n</details>\n", room, limit)
    return len(block.rules)


def _diff(triples: Iterable[Triple]) -> Iterator[str]:
    """The lines of unified diffs; of each nothing acts on whoever looks at it."""
    for name, before, after in triples:
        for line in unified(before, after, name, name):
            yield "\t".join(visible(part) for part in line.split("\t"))


def _fitted(lines: Sequence[str], head: str, tail: str, room: int, limit: int) -> str:
    """As many lines as there is room for, between fences that none of them can end."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)

    def made(count: int) -> str:
        shown = "".join(f"{line}\n" for line in lines[:count])
        fenced = f"{fence}diff\n{shown}{fence}\n" if count else ""
        note = f"\n{_left_out(len(lines) - count, limit)}\n" if count < len(lines) else ""
        return f"{head}{fenced}{note}{tail}"

    count = _most(len(lines), lambda count: len(made(count)) <= room)
    return "" if count is None else made(count)


def _most(count: int, fits: Callable[[int], bool]) -> int | None:
    """The greatest number up to `count` that fits; None where not even 0 does."""
    if fits(count):
        return count
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return None if low < 0 else low


def _left_out(count: int, limit: int) -> str:
    many = "1 more line is" if count == 1 else f"{count:,} more lines are"
    return f"_{many} left out: a comment here has at most {limit:,} characters._"


def _more(count: int, limit: int) -> str:
    if not count:
        return ""
    many = "1 more policy is" if count == 1 else f"{count:,} more policies are"
    return f"\n_{many} left out: a comment here has at most {limit:,} characters._\n"
