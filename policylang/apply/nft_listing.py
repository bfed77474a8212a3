"""A table of ours as `nft list table` shows it, taken apart; it knows no policy.

It reads what nft prints since 1.0.6, with handles (`nft -a`) or without. Chains, sets and maps
become `Loaded`: without the counts, the comments and the times that are left, which change while
nothing is done, and without what a pending generation has put there (`nft_pending`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policylang.apply.loaded import Chain, Count, KernelSet, Loaded, Rule

# What chooses between two generations. No set of a policy has a dot in its name, and those that
# rules keep for themselves begin otherwise.
SWITCH = "switch."
YIELDS = f"{SWITCH}yields"
ARMED = f"{SWITCH}armed"

YIELDS_RULE = f"meta nfproto @{YIELDS} accept"
ARMED_RULE = f"meta nfproto != @{ARMED} accept"

# linux/netfilter_ipv4.h; nft prints a priority that is near one of them by its name.
PRIORITIES = {
    "raw": -300,
    "mangle": -150,
    "dstnat": -100,
    "filter": 0,
    "security": 50,
    "srcnat": 100,
}
NEAR = 10  # how far from a name; priority.c of nft

_QUOTED = r'"[^"]*"'
_HANDLE = re.compile(r" # handle (\d+)$")  # a quoted text at the end ends in a quote
_TABLE = re.compile(r"table (inet \S+) \{")
_OPENING = re.compile(r"\t(?P<word>[a-z]+(?: [a-z]+)?) (?P<name>\S+) \{")
_HOOK = re.compile(
    r"type (?P<type>[a-z]+) hook (?P<hook>[a-z]+) (?P<device>.*)"
    r"priority (?P<priority>[^;]+); policy (?P<policy>[a-z]+);"
)
_PRIORITY = re.compile(r"(?P<name>[a-z]*) ?(?P<number>(?:[+-] ?)?\d+)?")
_COMMENT = re.compile(rf" comment ({_QUOTED})$")
_STATE = re.compile(
    rf"{_QUOTED}"
    r"|(?P<counter>\bcounter) packets (?P<packets>\d+) bytes (?P<bytes>\d+)"
    r"|(?P<quota>\bquota (?:over )?\d+ \w+) used \d+ \w+"
    r"|(?P<last>\blast) used \S+"
)
# What stands in an element behind its key, and is no part of what it is.
_PASSING = re.compile(rf"({_QUOTED})|(?: counter packets \d+ bytes \d+)|(?: expires \S+)")
_ELEMENT_COMMENT = re.compile(rf" comment {_QUOTED}(?= : |$)")
_SIZE_COUNT = re.compile(r"[ \t]*# count \d+$")  # nft 1.1.4 and later
_TOKEN = re.compile(rf"{_QUOTED}|[,{{}}]|[^\",{{}}]+")


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule as it is listed, with its number in the table; None where none was asked for."""

    text: str
    handle: int | None


@dataclass(frozen=True, slots=True)
class ListedChain:
    """`hook` is the line that makes it a base chain, or empty."""

    name: str
    hook: str
    rules: tuple[ListedRule, ...]


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A set or map (`word`), with its elements as they are listed."""

    word: str
    name: str
    header: tuple[str, ...]
    elements: tuple[str, ...]

    @property
    def is_filled_by_packets(self) -> bool:
        flags = next((line for line in self.header if line.startswith("flags ")), "")
        return "dynamic" in flags.removeprefix("flags ").split(",")


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is listed; `others` are what is no chain, set or map, each in one line."""

    name: str
    text: str
    chains: tuple[ListedChain, ...]
    sets: tuple[ListedSet, ...]
    others: tuple[str, ...]

    def set_named(self, name: str) -> ListedSet | None:
        return next((one for one in self.sets if one.name == name), None)

    @property
    def has_switch(self) -> bool:
        """Whether a pending generation has left, or put, anything in it."""
        return any(one.name.startswith(SWITCH) for one in self.sets)


# --- reading ---------------------------------------------------------------------------------


def bare(listing: str) -> str:
    """A listing as it is without handles."""
    return "".join(f"{_HANDLE.sub('', line)}\n" for line in listing.splitlines())


def read(listing: str) -> tuple[Table, ...]:
    """The tables of a listing."""
    blocks: list[list[str]] = []
    for line in listing.splitlines():
        if _TABLE.fullmatch(_HANDLE.sub("", line)):
            blocks.append([])
        if blocks:
            blocks[-1].append(line)
    return tuple(map(_table, blocks))


def _table(lines: list[str]) -> Table:
    bare = [_HANDLE.sub("", line) for line in lines]
    chains: list[ListedChain] = []
    sets: list[ListedSet] = []
    others: list[str] = []
    for opening, body in _things(lines[1:]):
        found = _OPENING.fullmatch(opening)
        if found is None:  # flags or a comment of the table
            others.append(opening.strip())
        elif found["word"] == "chain":
            chains.append(_chain(found["name"], body))
        elif found["word"] in ("set", "map"):
            sets.append(_set(found["word"], found["name"], body))
        else:
            said = "; ".join(_without_state(line.strip())[0] for line in body)
            others.append(f"{found['word']} {found['name']} {{ {said} }}")
    text = "".join(f"{line}\n" for line in bare)
    name = _TABLE.fullmatch(bare[0])
    assert name is not None
    return Table(name[1], text, tuple(chains), tuple(sets), tuple(others))


def _things(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """What stands in a table: a line, without its handle, and the lines within."""
    opening: str | None = None
    body: list[str] = []
    for line in lines:
        if opening is not None and line != "\t}":
            body.append(line)
        elif opening is not None:
            yield opening, body
            opening, body = None, []
        elif line.endswith("{") or _HANDLE.search(line):
            opening = _HANDLE.sub("", line)
        elif line.startswith("\t"):
            yield line, []


def _chain(name: str, body: list[str]) -> ListedChain:
    hook = ""
    rules: list[ListedRule] = []
    for line in body:
        handle = _HANDLE.search(line)
        text = _HANDLE.sub("", line).strip()
        if not rules and _HOOK.fullmatch(text):
            hook = text
        elif text and not (text.startswith("comment ") and not rules):
            rules.append(ListedRule(text, int(handle[1]) if handle else None))
    return ListedChain(name, hook, tuple(rules))


def _set(word: str, name: str, body: list[str]) -> ListedSet:
    text = "\n".join(body)
    head, opening, rest = text.partition("\t\telements = {")
    header = [_SIZE_COUNT.sub("", line.strip()) for line in head.splitlines()]
    elements = _elements(rest) if opening else ()
    return ListedSet(word, name, tuple(line for line in header if line), tuple(elements))


def _elements(text: str) -> Iterator[str]:
    """What stands between the commas; `text` goes on behind the opening brace."""
    words: list[str] = []
    depth = 0
    for token in _TOKEN.findall(text):
        if depth == 0 and token in (",", "}"):
            yield "".join(words).strip()
            words = []
            if token == "}":
                return
        else:
            depth += {"{": 1, "}": -1}.get(token, 0)
            words.append(token if token.startswith('"') else re.sub(r"\s+", " ", token))


# --- what it comes to ------------------------------------------------------------------------


def loaded(table: Table | None, later: int = 0) -> Loaded:
    """What stands in a table, less what chooses between two generations.

    `later` is by how much its base chains come later than their script says.
    """
    if table is None:
        return Loaded()
    return Loaded(
        tuple(
            Chain(
                f"chain {chain.name}",
                _head(chain.hook, later),
                tuple(_rule(rule.text) for rule in chain.rules if not is_switch(rule)),
            )
            for chain in table.chains
        ),
        # Sets that stayed are listed before those that are new: their order says nothing.
        tuple(
            _kernel_set(one)
            for one in sorted(table.sets, key=lambda one: (one.word != "set", one.name))
            if not one.name.startswith(SWITCH)
        ),
        table.others,
    )


def is_switch(rule: ListedRule) -> bool:
    """Whether a rule chooses between two generations."""
    return rule.text in (YIELDS_RULE, ARMED_RULE)


def _rule(listed: str) -> Rule:
    comment = _COMMENT.search(listed)
    text = listed[: comment.start()] if comment else listed
    text, counts = _without_state(text)
    return Rule(text, comment[1][1:-1] if comment else "", counts[0] if counts else None)


def _without_state(text: str) -> tuple[str, list[Count]]:
    """A text without what packets change in it, and what they counted."""
    counts: list[Count] = []

    def bare(found: re.Match[str]) -> str:
        if found["counter"]:
            counts.append(Count(int(found["packets"]), int(found["bytes"])))
        return found["counter"] or found["quota"] or found["last"] or found[0]

    return _STATE.sub(bare, text), counts


def _kernel_set(one: ListedSet) -> KernelSet:
    head = "; ".join(line for line in one.header if not line.startswith("comment "))
    place = f"{one.word} {one.name}"
    if one.is_filled_by_packets:
        return KernelSet(place, head, None)
    counts = {
        element(listed): found[0] for listed in one.elements if (found := _without_state(listed)[1])
    }
    return KernelSet(place, head, frozenset(map(element, one.elements)), counts)


def element(listed: str) -> str:
    """An element without its count, its comment and the time that is left to it."""
    text = _PASSING.sub(lambda found: found[1] or "", listed)
    return _ELEMENT_COMMENT.sub("", text)


# --- priorities ------------------------------------------------------------------------------


def _head(hook: str, later: int) -> str:
    found = _HOOK.fullmatch(hook)
    if found is None:
        return hook
    said = priority_words(priority(found["priority"]) - later)
    return hook[: found.start("priority")] + said + hook[found.end("priority") :]


def priority(words: str) -> int:
    """The number that `filter + 1`, `dstnat` or `-100` stands for."""
    found = _PRIORITY.fullmatch(words)
    assert found is not None, words
    number = int((found["number"] or "0").replace(" ", ""))
    return PRIORITIES[found["name"]] + number if found["name"] else number


def priority_words(number: int) -> str:
    """A priority as nft prints it where its name is known; the same for each version of nft."""
    for name, base in PRIORITIES.items():
        if abs(number - base) <= NEAR:
            away = number - base
            return name + (f" {'+' if away > 0 else '-'} {abs(away)}" if away else "")
    return str(number)
