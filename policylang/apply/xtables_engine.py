"""Loads rules by iptables, of one flavour: the order of steps, and what each of them leaves.

A change that is not confirmed stands beside what it would replace, in chains and sets named
`policylang+…`, and the switch (`xtables_switch`) chooses. Every step reads what is there first and
can be done again: a process that was killed between any two of its programs leaves nothing that
the next one cannot finish, or take back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from policylang.apply import ipsets, kernel, live_ipsets, programs, xtables, xtables_switch
from policylang.apply.generation import (
    PENDING,
    Generation,
    InputLine,
)
from policylang.apply.grace import let_packets_through
from policylang.apply.livesets import LiveSets, by_identity
from policylang.apply.loaded import Loaded
from policylang.apply.restore import Flavour, Tool, restore, saved, tools
from policylang.apply.xtables_listing import (
    Snapshot,
    counts_kept,
    elements_of,
    head_of,
    is_filled_by_packets,
    names_in,
    told,
    with_sets_called,
)
from policylang.apply.xtables_pending import all_beside, arming, disarming, with_names
from policylang.apply.xtables_steps import (
    RELATED,
)
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.iptables import RULES, SETS
from policylang.backends.iptables.names import PREFIX, lasting_name, renewed_names
from policylang.diagnostics import Report


@dataclass(slots=True)
class XtablesEngine:
    """The `Engine` of iptables; `tools` are those of one flavour, a family each."""

    tools: Sequence[Tool]
    _rehearsed: list[tuple[Artifact, Snapshot]] = field(default_factory=list)

    @property
    def way(self) -> str:
        """`iptables-nft` or `iptables-legacy`."""
        return f"iptables-{self._flavour}"

    @property
    def _flavour(self) -> Flavour:
        return self.tools[0].flavour

    # --- looking ----------------------------------------------------------------------------------

    def rehearse(self, artifact: Artifact, report: Report) -> Loaded | None:
        """What an artifact is once it is loaded; the calling thread is in a scratch namespace."""
        snapshot = self._rehearse(artifact, report)
        return None if snapshot is None else told(snapshot)

    def _rehearse(self, artifact: Artifact, report: Report) -> Snapshot | None:
        if not xtables.rehearse(artifact, self.tools, report):
            return None
        taken = self._taken(report)
        if taken is None:
            return None
        self._rehearsed.append((artifact, taken))
        return taken.in_force

    def _as_listed(self, artifact: Artifact, report: Report) -> Snapshot | None:
        """What the kernel makes of an artifact, as it lists it."""
        for known, snapshot in self._rehearsed:
            if known is artifact:
                return snapshot
        return kernel.in_scratch(lambda: self._rehearse(artifact, report), report)

    def listed(self, report: Report) -> Loaded | None:
        """What is in force of ours, less all that belongs to a pending generation."""
        now = self._taken(report)
        return None if now is None else told(now.in_force)

    def pending(self, report: Report) -> Loaded | None:
        """The pending generation, as `rehearse` would show it; empty where there is none."""
        now = self._taken(report)
        return None if now is None else told(now.pending)

    def armed_ms(self, report: Report) -> int | None:
        """The milliseconds that a pending generation has left; 0: over, None: there is none."""
        now = self._taken(report)
        if now is None or not now.pending.rules_there:
            return None
        return xtables_switch.left_ms(now.sets.get(xtables_switch.CALM, ""))

    def _taken(self, report: Report) -> Snapshot | None:
        families: list[Generation] = []
        for tool in self.tools:
            generation = saved(tool, report)
            if generation is None:
                return None
            families.append(generation)
        sets = ipsets.saved(report) if programs.find("ipset") else {}
        return None if sets is None else Snapshot(tuple(families), sets)

    # --- loading ----------------------------------------------------------------------------------

    def load(self, artifact: Artifact, report: Report, carried: LiveSets) -> bool:
        """Put an artifact in the place of what is in force, and of what is pending.

        Dynamic sets keep their elements, and those of `carried` come to them; rules that stay
        keep what they counted. Where the elements of sets alone differ, and packets cannot meet
        some of them before the change and some after it, they alone are changed.
        """
        now, new = self._taken(report), self._as_listed(artifact, report)
        if now is None or new is None:
            return False
        changed = _elements_that_differ(now, new)
        if changed is None:
            return self._replace(artifact, now, new, report, carried)
        lines = [
            line
            for name, listing in changed.items()
            for line in ipsets.swapped_in(name, listing, now.sets)
        ]
        if lines and not live_ipsets.restored(lines, "cannot change the ipsets", report):
            return False
        return live_ipsets.filled(ipsets.live_sets(now.sets), carried, report)

    def _replace(
        self,
        artifact: Artifact,
        now: Snapshot,
        new: Snapshot,
        report: Report,
        carried: LiveSets,
        *,
        is_in_force: bool = False,
    ) -> bool:
        """Load all of an artifact, and destroy the sets that are not its own."""
        names = _free_names(now, new)
        named = _with_sets(artifact, names)
        before = ((now.in_force, now.in_force.called), (now.pending, now.pending.called))
        listed = [
            counts_kept(of_family, new.called, [(s.rules[index], called) for s, called in before])
            for index, of_family in enumerate(new.rules)
        ]
        if not xtables.load(
            named, self.tools, report, carried, listed=listed, is_in_force=is_in_force
        ):
            return False
        made = ipsets.made_by(named.file(SETS))
        self._destroy([name for name in now.sets if name not in made], now, report)
        return True

    def _destroy(self, sets: Iterable[str], before: Snapshot, report: Report) -> None:
        """Destroy sets that no rule of this flavour uses any more."""
        names = list(sets)
        switch = xtables_switch.destroying(names)
        others = [name for name in names if name not in switch]
        awaited = names_in(before.rules, switch)
        ipsets.destroy((*others, *switch), awaited, report)

    def remove(self, report: Report) -> bool:
        """Take all away that is ours, a pending generation too; whether there was any.

        What the other flavour's rules use stays, and while it has any, so do dynamic sets.
        """
        quiet = Report()  # without the programs, or the kernel's part, nothing of ours is there
        before = self._taken(quiet) if all(programs.find(t.save) for t in self.tools) else None
        if before is None:
            return False
        is_removed = xtables.remove(self.tools, report)
        (other,) = (flavour for flavour in Flavour if flavour is not self._flavour)
        beside = XtablesEngine(tools(other))._taken(quiet)
        kept: frozenset[str] = frozenset()
        if beside is not None and any(beside.rules):
            filled = (n for n, text in before.sets.items() if is_filled_by_packets(text))
            kept = names_in(beside.rules, tuple(filled))
        going = [name for name in before.sets if name not in kept]
        self._destroy(going, before, report)
        return is_removed or bool(going)

    # --- a change that is not confirmed -----------------------------------------------------------

    def arm(self, artifact: Artifact, seconds: int, report: Report) -> bool:
        """Put an artifact in force for some seconds, beside what it replaces for that time.

        When the time is over, both filters judge for as long as the other tables take to change
        back, three seconds in all, and then what was in force is in force again. Reports
        `cannot-arm` where there is no ipset, or iptables has no match for it.
        """
        if programs.find("ipset") is None:
            _cannot_arm("the program `ipset` is not installed", report)
            return False
        if not self.disarm(report):
            return False
        now, new = self._taken(report), self._as_listed(artifact, report)
        if now is None or new is None:
            return False
        if not self._make_switch(report):
            return False
        if self._put_beside(artifact, now, new, report) and self._turn(
            xtables_switch.arming(seconds), report
        ):
            return True
        self.disarm(report)
        return False

    def _make_switch(self, report: Report) -> bool:
        found = Report()
        if live_ipsets.restored(xtables_switch.making(), "", found):
            return True
        _cannot_arm(found.diagnostics[0].help or "", report)
        return False

    def _put_beside(self, artifact: Artifact, now: Snapshot, new: Snapshot, report: Report) -> bool:
        """Sets and chains of a pending generation, to which no packet comes yet.

        It shares the dynamic sets that it declares alike, and keeps an empty one to say so.
        """
        beside = {name: PENDING + name.removeprefix(PREFIX) for name in new.sets}
        shared = {
            name
            for name, listing in new.sets.items()
            if is_filled_by_packets(listing)
            and name in now.sets
            and head_of(now.sets[name]) == head_of(listing)
        }
        sets = artifact.file(SETS)
        if sets is not None:
            named = replace(sets, text=all_beside(sets.text))
            own = (live for live in ipsets.live_sets(now.sets) if live.identity not in shared)
            lines = [
                line.replace(live.identity, beside[live.identity], 1)
                for live in own
                if live.identity in beside
                for line in live_ipsets.adding(live, live.elements)
            ]
            if not ipsets.load(named, report) or not (
                not lines or live_ipsets.restored(lines, "cannot fill the ipsets", report)
            ):
                return False
        used = {name: called for name, called in beside.items() if name not in shared}
        for tool, file, before in zip(self.tools, _rules(artifact), now.rules, strict=True):
            rules = _with_names(file.text, used)
            finished = restore(tool, arming(rules, before), report)
            if finished is None:
                return False
            if not finished.ok:
                _cannot_arm(finished.words, report)
                return False
        return True

    def _turn(self, steps: Iterable[Sequence[str]], report: Report) -> bool:
        """Turn the switch step by step; no packet meets more than one step on its way."""
        for step in steps:
            if not live_ipsets.restored(step, "cannot change what is in force", report):
                return False
            let_packets_through()
        return True

    def keep(self, artifact: Artifact, report: Report, *, is_late: bool = False) -> bool:
        """Put a pending generation's artifact in force for good; nothing of it is pending then.

        Reports `too-late`, and changes nothing, where the time is over, unless `is_late`: then it
        was decided while there was time, and is completed.
        """
        now = self._taken(report)
        if now is None:
            return False
        if not is_late and not (now.pending.rules_there and self._confirm()):
            report.add("too-late", "the time to confirm is over", None)
            return False
        new = self._as_listed(artifact, report)
        if new is None:
            return False
        is_whole = _is_everywhere(now, new)
        if is_late and is_whole and now.pending.rules_there:
            if not (self._make_switch(report) and self._turn(xtables_switch.keeping(), report)):
                return False
            now = self._taken(report)
            if now is None:
                return False
        carried = by_identity(ipsets.live_sets(now.pending.sets))
        return self._replace(artifact, now, new, report, carried, is_in_force=is_whole)

    def _confirm(self) -> bool:
        return live_ipsets.restored(xtables_switch.confirming(), "", Report())

    def disarm(self, report: Report) -> bool:
        """End a pending generation: what it replaced is in force, and nothing is left of it.

        One that was kept is not ended, for some of what it replaced may be gone: it is for `load`
        to go back then.
        """
        now = self._taken(report)
        if now is None:
            return False
        if not now.has_pending and not any(map(disarming, now.rules)):
            return True
        there = [name for name in (*xtables_switch.STAGES, xtables_switch.CALM) if name in now.sets]
        if any(xtables_switch.is_for_good(now.sets[name]) for name in there):
            message = "what was to be confirmed is in force for good, and cannot be ended"
            report.add("loading-failed", message, None)
            return False
        if any("\nadd " in now.sets[name] for name in there):
            steps = ([n for n in s if n.split()[1] in there] for s in xtables_switch.disarming())
            if not self._turn(filter(None, steps), report):
                return False
        for tool, before in zip(self.tools, now.rules, strict=True):
            if not _restored(tool, disarming(before), report):
                return False
        going = [n for n in now.sets if n.startswith(PENDING) or xtables_switch.is_switch(n)]
        self._destroy(going, now, report)
        return True


def _restored(tool: Tool, lines: Sequence[InputLine], report: Report) -> bool:
    if not lines:
        return True
    finished = restore(tool, lines, report)
    if finished is not None and not finished.ok:
        message = f"`{tool.restore}` did not take back what was not confirmed"
        report.add("loading-failed", message, None, help=finished.words)
    return finished is not None and finished.ok


def _cannot_arm(words: str, report: Report) -> None:
    report.add(
        "cannot-arm",
        "this machine cannot take back by itself what nobody confirms",
        None,
        help=f"iptables needs ipsets of type `list:set` and its match `set` for that: {words}",
    )


def _rules(artifact: Artifact) -> Iterator[OutputFile]:
    for name, _ in RULES.values():
        file = artifact.file(name)
        assert file is not None, f"an iptables artifact has {name}"
        yield file


def _with_sets(artifact: Artifact, names: Mapping[str, str]) -> Artifact:
    """An artifact with other names for its sets, every line in its place."""
    if not names:
        return artifact
    return replace(
        artifact,
        files=tuple(
            replace(
                file,
                text=with_names(file.text, names)
                if file.name == SETS
                else _with_names(file.text, names),
            )
            for file in artifact.files
        ),
    )


def _with_names(rules: str, names: Mapping[str, str]) -> str:
    return "\n".join(with_sets_called(line, names) for line in rules.split("\n"))


def _free_names(now: Snapshot, new: Snapshot) -> dict[str, str]:
    """Names for sets that would go by the name of one that is there with other elements."""
    names: dict[str, str] = {}
    for name, listing in new.sets.items():
        there = now.sets.get(name)
        if there is None or lasting_name(name) == name or _is_alike(there, listing):
            continue
        names[name] = next(
            free
            for free in renewed_names(name)
            if free not in now.sets or _is_alike(now.sets[free], listing)
        )
    return names


def _is_alike(one: str, other: str) -> bool:
    return head_of(one) == head_of(other) and elements_of(one) == elements_of(other)


def _is_everywhere(now: Snapshot, new: Snapshot) -> bool:
    """Whether each table of `new` is there, either pending or in force already."""
    wanted = told(new).chains
    there = {*told(now.pending).chains, *told(now.in_force).chains}
    return bool(wanted) and there.issuperset(wanted)


# --- sets alone -----------------------------------------------------------------------------------


def _elements_that_differ(now: Snapshot, new: Snapshot) -> dict[str, str] | None:
    """The sets whose elements alone have to change, each with a listing of what it is to hold.

    None where more than that differs, and where the change of one set would be seen before that
    of another: by a packet that both have to do with, or that meets the set in two tables.
    """
    before, after = told(now.in_force), told(new)
    if now.has_pending or before.chains != after.chains:
        return None
    if [(s.place, s.head) for s in before.sets] != [(s.place, s.head) for s in after.sets]:
        return None
    live = {stays: name for name, stays in now.in_force.called.items()}
    changed: dict[str, str] = {}
    for name, listing in new.sets.items():
        stays = new.called.get(name, name)
        there = live.get(stays, stays)
        if not is_filled_by_packets(listing) and elements_of(now.sets[there]) != elements_of(
            listing
        ):
            changed[there] = listing
    for generation in now.in_force.rules:
        met = [
            name
            for table in generation
            if table.name != "raw" or not RELATED.isdisjoint((table.name, c) for c in table.chains)
            for name in names_in([(table,)]) & changed.keys()
        ]
        if len(met) > 1:
            return None
    return changed
