"""A pending generation on nft: the commands that put it beside our table, and that end it.

It stands in a table of its own whose base chains come right after ours. Two sets choose between
both, each with an element for each family that times out. While it is in the one, a packet passes
our chains unjudged (`yields`); while it is not in the other, it passes the pending ones unjudged
(`armed`). `yields` ends first: for `BOTH_S` both judge, and at no time none does. Where we have no
table, the pending generation is all there is.

It runs no program; what it reads are tables as they were listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from policylang.apply import nft_script
from policylang.apply.livesets import fitting
from policylang.apply.nft_listing import (
    ARMED,
    ARMED_RULE,
    YIELDS,
    YIELDS_RULE,
    ListedSet,
    Table,
    is_switch,
    priority,
)
from policylang.apply.nft_text import (
    Replacement,
    adding,
    amended,
    dynamic_sets,
    milliseconds,
)
from policylang.backends.nft import TABLE

PENDING_TABLE = f"{TABLE}-pending"
DELETE_PENDING = f"delete table {PENDING_TABLE}"

LATER = 1  # by how much the base chains of a pending generation come after ours
BOTH_S = 2  # seconds; a timer of the kernel is late by some milliseconds

FAMILIES = ("ipv4", "ipv6")


@dataclass(frozen=True, slots=True)
class Tables:
    """Our table and that of a pending generation, as far as they are there."""

    ours: Table | None
    pending: Table | None

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing of a pending generation."""
        return self.pending is None and not (self.ours and self.ours.has_switch)

    @property
    def left_ms(self) -> int | None:
        """The milliseconds that are left to confirm; 0: none, None: nothing is pending.

        What an interruption left of a pending generation cannot be confirmed any more.
        """
        if self.is_plain:
            return None
        if self.pending is None:
            return 0
        holds = self.ours.set_named(YIELDS) if self.ours else self.pending.set_named(ARMED)
        return _left_ms(holds) if holds else 0


def _left_ms(switch: ListedSet) -> int:
    left = []
    for element in switch.elements:
        words = element.split()
        if "expires" in words:
            left.append(milliseconds(words[words.index("expires") + 1]))
    return min(left) if len(left) == len(FAMILIES) else 0


# --- beginning -------------------------------------------------------------------------------


def arming(script: str, seconds: int, ours: Table | None, more: Sequence[str]) -> Replacement:
    """The script that puts what `script` makes beside our table for some seconds.

    Its lines are those of `script`, which it does all at once with what our table has to do with
    it. Its dynamic sets have the elements of ours. `more` are commands that follow it.
    """
    found = nft_script.read(script)
    lines = list(found.lines)
    lines[found.declared] = f"table {PENDING_TABLE}"
    lines[found.opened] = f"table {PENDING_TABLE} {{"
    for chain in found.chains:
        if chain.hook is not None:
            lines[chain.hook] = f"{_later(lines[chain.hook])} {ARMED_RULE}"
    armed_s = seconds + BOTH_S if ours else seconds
    start = f"{DELETE_PENDING}; {_switch(f'table {PENDING_TABLE}', ARMED, armed_s)}"
    filled = tuple(_filling(script, ours)) if ours else ()
    yielded = tuple(_yielding(ours, seconds)) if ours else ()
    return amended("\n".join(lines), start, (*filled, *more, *yielded))


def _later(hook: str) -> str:
    """The line of a base chain that comes later, as a number: not each hook knows each name."""
    before, word, rest = hook.partition(" priority ")
    number, end, after = rest.partition(";")
    assert word, f"a base chain has a priority: {hook!r}"
    assert end, f"a base chain has a policy: {hook!r}"
    return f"{before}{word}{priority(number) + LATER}{end}{after}"


def _switch(table: str, name: str, seconds: int) -> str:
    elements = ", ".join(f"{family} timeout {seconds}s" for family in FAMILIES)
    body = f"type nf_proto; flags timeout; elements = {{ {elements} }};"
    return f"{table} {{ set {name} {{ {body} }}; }}"


def _filling(script: str, ours: Table) -> Iterator[str]:
    there = {(live.name, live.family): live for live in dynamic_sets(ours.text)}
    for new in dynamic_sets(script):
        live = there.get((new.name, new.family))
        elements = fitting(live.elements, new.size) if live else ()
        if elements:
            yield adding(new, elements, PENDING_TABLE)


def _yielding(ours: Table, seconds: int) -> Iterator[str]:
    yield _switch(f"table {TABLE}", YIELDS, seconds)
    for chain in ours.chains:
        if chain.hook:
            yield f"insert rule {TABLE} {chain.name} {YIELDS_RULE}"


# --- ending ----------------------------------------------------------------------------------


def still_armed(ours: Table | None) -> str:
    """The command that fails where the time is over."""
    table, name = (TABLE, YIELDS) if ours else (PENDING_TABLE, ARMED)
    return f"delete element {table} {name} {{ {', '.join(FAMILIES)} }}"


def unyielding(ours: Table) -> tuple[str, ...]:
    """The commands, in one transaction, by which our table judges again, whatever is pending.

    `ours` was listed with handles.
    """
    rules = (
        f"delete rule {TABLE} {chain.name} handle {rule.handle}"
        for chain in ours.chains
        for rule in chain.rules
        if is_switch(rule)
    )
    sets = (f"delete set {TABLE} {YIELDS}",) if ours.set_named(YIELDS) else ()
    return (*rules, *sets)
