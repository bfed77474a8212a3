"""Loads, saves, puts back and destroys ipsets of ours; knows nothing of the rules that use them."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from policylang.apply import live_ipsets, present, programs
from policylang.apply.generation import OURS
from policylang.apply.livesets import LiveSet, by_identity, lacking
from policylang.apply.programs import Finished
from policylang.apply.refusal import report_refusal
from policylang.backends.base import OutputFile
from policylang.backends.iptables.names import PREFIX
from policylang.diagnostics import Report

ASIDE = f"{PREFIX}put-back"

# A rule that the kernel has deleted may hold its set for a moment more (a worker frees it).
PATIENCE_S = 2.0

Saved = Mapping[str, str]  # by name, a set as `ipset save` prints it


def saved(report: Report) -> Saved | None:
    """The sets of ours that are there.

    None, and `program-missing` or `loading-failed`, where ipset does not work.
    """
    there = _names(report)
    if there is None:
        return None
    ours = tuple(name for name in there if name.startswith(OURS))
    if len(ours) == len(there) and len(ours) > 1:
        return _saved_at_once(report)
    sets: dict[str, str] = {}
    for name in ours:  # others' sets may be of millions
        listing = _ipset(report, "save", name)
        if listing is None:
            return None
        if not listing.ok:
            message = f"cannot read the ipset `{name}`"
            report.add("loading-failed", message, None, help=listing.words)
            return None
        sets[name] = listing.stdout
    return sets


def _saved_at_once(report: Report) -> Saved | None:
    listing = _ipset(report, "save")
    if listing is None:
        return None
    if not listing.ok:
        report.add("loading-failed", "cannot read the ipsets", None, help=listing.words)
        return None
    sets: dict[str, list[str]] = {}
    for line in listing.stdout.splitlines(keepends=True):
        sets.setdefault(line.split(" ", 2)[1], []).append(line)
    return {name: "".join(sets[name]) for name in sorted(sets)}


def load(file: OutputFile, report: Report) -> bool:
    """Carry out an artifact's file of sets; it stops at the first line that is refused."""
    finished = _ipset(report, "restore", stdin=file.text)
    if finished is None or finished.ok:
        return finished is not None
    line = re.search(r"Error in line (\d+)", finished.stderr)
    if line is not None:
        report_refusal(file, int(line[1]), "ipset", finished.words, report)
    else:
        report.add("loading-failed", "cannot load the ipsets", None, help=finished.words)
    return False


def put_back(before: Saved, report: Report) -> bool:
    """Make the sets what they were; those that were not there stay, for rules may use them."""
    now = saved(report)
    if now is None:
        return False
    were, changed = by_identity(live_sets(before)), _changed(before, now)
    is_anew = live_ipsets.made_as_declared(changed, were, report)
    lines = [f"destroy {ASIDE}\n"] if ASIDE in now else []  # of a load that was interrupted
    for name, listing in before.items():
        if name == ASIDE:
            continue
        if name not in now:
            lines.append(listing)
        elif _is_filled_by_packets(listing):
            continue  # what came into it meanwhile stays
        elif _elements(now[name]) != _elements(listing):
            lines.append(re.sub(rf"(?m)^(create|add) {re.escape(name)} ", rf"\1 {ASIDE} ", listing))
            lines.append(f"swap {name} {ASIDE}\ndestroy {ASIDE}\n")
    if not lines:
        return is_anew
    finished = _ipset(report, "restore", stdin="".join(lines))
    if finished is not None and not finished.ok:
        report.add("loading-failed", "cannot put the ipsets back", None, help=finished.words)
    return is_anew and finished is not None and finished.ok


def _changed(before: Saved, now: Saved) -> tuple[LiveSet, ...]:
    """The dynamic sets that were declared otherwise, with what found no room since then."""
    were = by_identity(live_sets(before))
    return tuple(
        replace(live, elements=(*live.elements, *lacking(replace(live, size=was.size), was)))
        for live in live_sets(now)
        if (was := were.get(live.identity)) is not None and not was.is_declared_like(live)
    )


def _is_filled_by_packets(listing: str) -> bool:
    """Whether elements pass by themselves, as those of a dynamic set or a remembered question."""
    return " timeout " in listing.partition("\n")[0]


def _elements(listing: str) -> list[str]:
    """The elements in an order of their own."""
    return sorted(line for line in listing.splitlines() if line.startswith("add "))


def live_sets(sets: Saved) -> tuple[LiveSet, ...]:
    """The dynamic sets among them."""
    return live_ipsets.dynamic_sets("".join(sets.values()))


def swapped_in(name: str, listing: str, there: Collection[str]) -> tuple[str, ...]:
    """The commands that give a set the elements of `listing`, all at once.

    `listing` is what `ipset save` shows of a set of any name, `there` the sets that there are.
    """
    other = listing.split(" ", 2)[1]
    return (
        *([f"destroy {ASIDE}"] if ASIDE in there else ()),  # of a load that was interrupted
        *re.sub(rf"(?m)^(create|add) {re.escape(other)} ", rf"\1 {ASIDE} ", listing).splitlines(),
        f"swap {name} {ASIDE}",
        f"destroy {ASIDE}",
    )


def destroy(names: Iterable[str], awaited: Collection[str], report: Report) -> None:
    """Destroy sets; those in `awaited` are used by nothing, at once or in a moment.

    Others may be in use by the rules of another flavour, and stay then. Reports `left-behind`.
    """
    give_up = time.monotonic() + PATIENCE_S
    for name in names:
        while (finished := _ipset(report, "destroy", name)) is not None and not finished.ok:
            if name not in awaited:
                break
            if time.monotonic() > give_up:
                message = f"cannot destroy the ipset `{name}` of an earlier apply"
                report.add("left-behind", message, None, help=finished.words)
                break
            time.sleep(0.02)


def destroy_others(kept: Collection[str], report: Report) -> None:
    """Destroy the sets of ours that are not in `kept` and that no rule uses any more.

    Reports `left-behind` for what cannot be destroyed. Without ipset there is nothing to do.
    """
    there = [name for name in _names(Report()) or () if name.startswith(OURS)]
    others = [name for name in there if name not in kept]
    destroy(others, others, report)


def made_by(file: OutputFile | None) -> frozenset[str]:
    """The names of the sets that are there once `file` was carried out."""
    made: set[str] = set()
    for line in file.text.splitlines() if file is not None else ():
        match line.split():
            case ["create", *words]:
                made.add(next(word for word in words if not word.startswith("-")))
            case ["destroy", name]:
                made.discard(name)
    return frozenset(made)


def _names(report: Report) -> tuple[str, ...] | None:
    there = present.ipsets() if programs.find("ipset") is not None else None
    if there is not None:
        return tuple(sorted(there))
    finished = _ipset(report, "list", "-name")
    if finished is None:
        return None
    if not finished.ok:
        report.add("loading-failed", "cannot list the ipsets", None, help=finished.words)
        return None
    return tuple(sorted(finished.stdout.split()))


def _ipset(report: Report, *arguments: str, stdin: str = "") -> Finished | None:
    return programs.run(["ipset", *arguments], report, stdin=stdin)
