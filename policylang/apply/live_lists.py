"""Brings the sets of lists from elsewhere that are in force up to date, whatever loaded them.

Elements that came or went are all that changes: rules and their counts stay as they are. A set
is told by its name, which stands for its sources; a pending generation's is one like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from policylang.apply import live_ipsets, nft, programs
from policylang.apply.generation import PENDING
from policylang.apply.nft_listing import ListedSet, Table
from policylang.backends.iptables import sets_file
from policylang.backends.iptables.names import PREFIX, listed_set_name
from policylang.backends.iptables.prefixes import of_family, prefix_texts
from policylang.backends.iptables.sets import IpSet
from policylang.backends.listed import FAMILIES, listed_name
from policylang.backends.nft.sets import listed_elements
from policylang.diagnostics import Report
from policylang.ir.ruleset import ListSource
from policylang.packets.values import Ranges, parse_address

Wanted = Mapping[ListSource, Ranges]


@dataclass(frozen=True, slots=True)
class Updated:
    """How many elements of a set came and went; `place` names the set for people."""

    place: str
    added: int
    removed: int


def update(wanted: Wanted, report: Report) -> tuple[Updated, ...] | None:
    """Make the elements of each list what they are to be; lists that are not there are nobody's.

    The calling thread is in the namespace, and has it to itself. On nft all happens at once, with
    ipset one set after the other. None, and `loading-failed`, where something could not be done.
    """
    of_nft = _of_nft(wanted, report)
    of_ipset = _of_ipset(wanted, report)
    return None if of_nft is None or of_ipset is None else (*of_nft, *of_ipset)


# --- nft --------------------------------------------------------------------------------------


def _of_nft(wanted: Wanted, report: Report) -> tuple[Updated, ...] | None:
    tables = nft.tables_of_ours(report)
    if tables is None:
        return None
    there = [table for table in (tables.ours, tables.pending) if table is not None]
    changes = [change for table in there for change in _changes(table, wanted)]
    commands = [command for change in changes for command in change.commands]
    what = "cannot change the elements of the sets"
    if commands and not nft.carry_out(commands, what, report):
        return None
    return tuple(
        Updated(change.place, len(change.added), len(change.removed)) for change in changes
    )


@dataclass(frozen=True, slots=True)
class _Change:
    place: str
    added: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def commands(self) -> Iterator[str]:
        """What goes stands first: what comes may reach over its place."""
        for word, elements in (("delete", self.removed), ("add", self.added)):
            if elements:
                yield f"{word} element {self.place} {{ {', '.join(elements)} }}"


def _changes(table: Table, wanted: Wanted) -> Iterator[_Change]:
    for source, addresses in wanted.items():
        for family in FAMILIES:
            held = table.set_named(listed_name(source, family))
            if held is None:
                continue
            now = _nft_elements(held)
            to_be = {parse_address(text): text for text in listed_elements(addresses, family)}
            added = tuple(text for pair, text in to_be.items() if pair not in now)
            removed = tuple(text for pair, text in now.items() if pair not in to_be)
            if added or removed:
                yield _Change(f"{table.name} {held.name}", added, removed)


def _nft_elements(held: ListedSet) -> dict[object, str]:
    """The elements by the range that each is, as nft wrote it."""
    return {parse_address(text): text for text in held.elements}


# --- ipset ------------------------------------------------------------------------------------


def _of_ipset(wanted: Wanted, report: Report) -> tuple[Updated, ...] | None:
    if programs.find("ipset") is None:
        return ()
    names = programs.run(["ipset", "list", "-name"], report)
    if names is None or not names.ok:
        # Without the kernel's part of ipset there is no set of ours either.
        return ()
    there = frozenset(names.stdout.split())
    done: list[Updated] = []
    for source, addresses in wanted.items():
        for family in FAMILIES:
            elements = prefix_texts(of_family(addresses, family))
            stem = listed_set_name(source, family).removeprefix(PREFIX)
            for name in there & {PREFIX + stem, PENDING + stem}:
                updated = _swapped(name, family, elements, report)
                if updated is None:
                    return None
                if updated.added or updated.removed:
                    done.append(updated)
    return tuple(done)


def _swapped(name: str, family: int, elements: Sequence[str], report: Report) -> Updated | None:
    """Give a set other elements, all at once."""
    listing = programs.run(["ipset", "save", name], report)
    if listing is None or not listing.ok:
        words = listing.words if listing is not None else None
        report.add("loading-failed", f"cannot read the ipset `{name}`", None, help=words)
        return None
    now = {
        line.split()[2] for line in listing.stdout.splitlines() if line.startswith(f"add {name} ")
    }
    updated = Updated(name, len({*elements} - now), len(now - {*elements}))
    if updated.added or updated.removed:
        file = sets_file([IpSet(name, "hash:net", family, elements)])
        what = f"cannot change the ipset `{name}`"
        if not live_ipsets.restored(file.text.splitlines(), what, report):
            return None
    return updated
