"""The way to load rules by nft: a transaction a step; what is pending the kernel alone reverts.

It knows the order of the steps; what their commands are it leaves to `nft_text` (what replaces our
table), `nft_pending` (what stands beside it) and `nft_counts`. Each step begins with a look at
what is there, so that it can follow an interruption of any other, or of itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from policylang.apply import kernel, nft, nft_counts, nft_listing, nft_pending, nft_text
from policylang.apply.livesets import LiveSets, by_identity
from policylang.apply.loaded import KernelSet, Loaded
from policylang.apply.nft_pending import DELETE_PENDING, LATER, PENDING_TABLE, Tables
from policylang.apply.nft_text import Replacement, dynamic_sets
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report

NO_TIME = "the time to confirm is over"
ANEW = "what was in force before is in force again: apply the policy anew"


@dataclass(slots=True)
class NftEngine:
    """The `Engine` of nft. A step that may take `rehearsed` (what `rehearse` returned for its
    artifact) finds that out by itself where it is not told.
    """

    _known: list[tuple[Artifact, Loaded]] = field(default_factory=list)

    @property
    def way(self) -> str:
        return "nft"

    def rehearse(self, artifact: Artifact, report: Report) -> Loaded | None:
        """What an artifact is once it is loaded; the calling thread is in a scratch namespace.

        Reports `refused-by-kernel`, `loading-failed`, `program-missing`.
        """
        made = self.listed(report) if nft.rehearse(artifact, report) else None
        if made is not None:
            self._known.append((artifact, made))
        return made

    def listed(self, report: Report) -> Loaded | None:
        """What our table holds, less all that belongs to a pending generation."""
        tables = nft.tables_of_ours(report)
        return None if tables is None else nft_listing.loaded(tables.ours)

    def load(
        self,
        artifact: Artifact,
        report: Report,
        carried: LiveSets,
        *,
        rehearsed: Loaded | None = None,
    ) -> bool:
        """Put an artifact in the place of what is in force, and of what is pending.

        Where elements of sets that the policy names alone differ, they alone come and go, in one
        transaction. Else all is replaced in one, but for dynamic sets that stay as they are;
        rules that are the same keep their counts.
        """
        made = self._rehearsed(artifact, rehearsed, report)
        tables = nft.tables_of_ours(report) if made is not None else None
        if made is None or tables is None:
            return False
        if tables.is_plain and _changes_elements_alone(tables, made, carried):
            return True
        _carry_back(tables)
        counts = nft_listing.loaded(tables.ours)
        if not _put(artifact, made, tables, carried, counts, report):
            return False
        _end(tables, report)
        return True

    def remove(self, report: Report) -> bool:
        """Take our tables away, at once; whether there were any. Reports `left-behind`."""
        there = nft.tables()
        ours = {name for name in (TABLE, PENDING_TABLE) if name in there}
        found = Report()
        if ours and not nft.remove(found, sorted(ours)) and ours & nft.tables():
            _tell(found, report)
            return False
        return bool(ours)

    def arm(
        self,
        artifact: Artifact,
        seconds: int,
        report: Report,
        *,
        rehearsed: Loaded | None = None,
    ) -> bool:
        """Put an artifact in force for some seconds beside our table, which then yields to it.

        All in one transaction. What was pending is ended first. Dynamic sets begin with the
        elements of ours, rules that are the same with their counts.
        """
        made = self._rehearsed(artifact, rehearsed, report)
        tables = nft.tables_of_ours(report) if made is not None else None
        if tables is not None and not tables.is_plain:
            tables = nft.tables_of_ours(report) if self.disarm(report) else None
        if made is None or tables is None:
            return False
        (script,) = artifact.files
        counted = nft_counts.counted(
            script.text, made, nft_listing.loaded(tables.ours), PENDING_TABLE
        )
        best = nft_pending.arming(counted.text, seconds, tables.ours, counted.commands)
        plain = nft_pending.arming(script.text, seconds, tables.ours, ())
        if not _is_loaded(script, (best, plain), lambda now: _is_armed(now, made), report):
            return False
        if tables.ours is not None and dynamic_sets(tables.ours.text):
            _carry_on()
        return True

    def armed_ms(self, report: Report) -> int | None:
        """The milliseconds that a pending generation has left; 0: over, None: there is none."""
        tables = nft.tables_of_ours(report)
        return None if tables is None else tables.left_ms

    def pending(self, report: Report) -> Loaded | None:
        """The pending generation, as `rehearse` would show it; empty where there is none."""
        tables = nft.tables_of_ours(report)
        return None if tables is None else nft_listing.loaded(tables.pending, later=LATER)

    def keep(
        self,
        artifact: Artifact,
        report: Report,
        *,
        is_late: bool = False,
        rehearsed: Loaded | None = None,
    ) -> bool:
        """Put a pending generation's artifact in the place of our table, and end what is pending.

        The first is one transaction with the question whether there is still time, the second
        another: in between both judge alike. Elements of dynamic sets come from the pending
        generation and from ours, counts from the pending one. Reports `too-late`.
        """
        made = self._rehearsed(artifact, rehearsed, report)
        tables = nft.tables_of_ours(report) if made is not None else None
        if made is None or tables is None:
            return False
        if not is_late and not tables.left_ms:
            report.add("too-late", NO_TIME, None, help=ANEW)
            return False
        if not _is_in_force(tables, made):  # as it is after an interruption between both
            carried = by_identity(dynamic_sets(tables.pending.text)) if tables.pending else {}
            counts = nft_listing.loaded(tables.pending or tables.ours)
            check = "" if is_late else nft_pending.still_armed(tables.ours)
            found = Report()
            if not _put(artifact, made, tables, carried, counts, found, check):
                _tell_why(found, report, is_late=is_late)
                return False
        _carry_back_the_rest(tables)
        _end(tables, report)
        return True

    def disarm(self, report: Report) -> bool:
        """End a pending generation: ours judges again, then the other one is deleted.

        What came into its dynamic sets comes into ours as far as there is room.
        """
        tables = nft.tables_of_ours(report)
        if tables is None:
            return False
        if tables.is_plain:
            return True
        _carry_back(tables)
        if tables.ours is not None:
            what = f"cannot put the nft table `{TABLE}` back in force"
            commands = nft_pending.unyielding(tables.ours)
            if not _is_carried_out(commands, what, lambda now: not _yields(now), report):
                return False
        _carry_back_the_rest(tables)
        what = f"cannot delete the nft table `{PENDING_TABLE}`"
        commands = () if tables.pending is None else (DELETE_PENDING,)
        return _is_carried_out(commands, what, lambda now: now.pending is None, report)

    def _rehearsed(
        self, artifact: Artifact, rehearsed: Loaded | None, report: Report
    ) -> Loaded | None:
        if rehearsed is not None:
            return rehearsed
        for known, made in self._known:
            if known is artifact:
                return made
        return kernel.in_scratch(lambda: self.rehearse(artifact, report), report)


def _put(
    artifact: Artifact,
    made: Loaded,
    tables: Tables,
    carried: LiveSets,
    counts: Loaded,
    report: Report,
    check: str = "",
) -> bool:
    """Put an artifact in the place of our table; `check` is a command that must not fail.

    What is only to be counted on, or to stay for longer, holds nothing up: without that it is
    tried again.
    """
    (script,) = artifact.files
    listing = tables.ours.text if tables.ours else ""
    counted = nft_counts.counted(script.text, made, counts, TABLE)
    longer = nft_text.longer(dynamic_sets(script.text), dynamic_sets(listing), carried)
    more = (*counted.commands, *longer)
    best = nft_text.replacement(counted.text, listing, carried, more, check)
    plain = nft_text.replacement(script.text, listing, carried, (), check)
    return _is_loaded(script, (best, plain), lambda now: _is_in_force(now, made), report)


def _end(tables: Tables, report: Report) -> None:
    """Delete a pending generation that judges as our table does, or not at all."""
    if tables.pending is not None:
        nft.remove(report, (PENDING_TABLE,))


def _tell_why(found: Report, report: Report, *, is_late: bool) -> None:
    """Report what was found; where the time ended meanwhile, that alone."""
    tables = None if is_late else nft.tables_of_ours(report)
    if tables is not None and not tables.left_ms:
        report.add("too-late", NO_TIME, None, help=ANEW)
        return
    _tell(found, report)


def _tell(found: Report, report: Report) -> None:
    report.take(found)


# --- whatever became of nft ------------------------------------------------------------------


def _is_loaded(
    script: OutputFile,
    ways: Iterable[Replacement],
    is_so: Callable[[Tables], bool],
    report: Report,
) -> bool:
    """Whether a script is loaded in one of several ways; what is wrong with the last is told.

    An nft that is killed behind its commit cannot say that it is done: `is_so` looks.
    """
    found = Report()
    for way in ways:
        found = Report()
        if nft.load_as(script, way, found) or _is_now(is_so):
            return True
    _tell(found, report)
    return False


def _is_carried_out(
    commands: Sequence[str], what: str, is_so: Callable[[Tables], bool], report: Report
) -> bool:
    found = Report()
    if not commands or nft.carry_out(commands, what, found) or _is_now(is_so):
        return True
    _tell(found, report)
    return False


def _is_now(is_so: Callable[[Tables], bool]) -> bool:
    now = nft.tables_of_ours(Report())
    return now is not None and is_so(now)


def _is_armed(tables: Tables, made: Loaded) -> bool:
    """Whether an artifact is pending, and there is time to confirm it."""
    return bool(tables.left_ms) and nft_listing.loaded(tables.pending, LATER) == made


def _yields(tables: Tables) -> bool:
    return tables.ours is not None and tables.ours.has_switch


def _is_in_force(tables: Tables, made: Loaded) -> bool:
    """Whether our table is what an artifact makes, and yields to nothing."""
    ours = tables.ours
    return ours is not None and not ours.has_switch and nft_listing.loaded(ours) == made


# --- sets alone ------------------------------------------------------------------------------


def _changes_elements_alone(tables: Tables, made: Loaded, carried: LiveSets) -> bool:
    """Whether elements of sets were all that differed, and do no more.

    Versions of nft and of the kernel differ in what they make of intervals that come and go in
    one transaction: what became of them is looked at.
    """
    if tables.ours is None:
        return False
    there = nft_listing.loaded(tables.ours)
    if not _differ_in_elements_alone(there, made):
        return False
    live = dynamic_sets(tables.ours.text)
    changes = (*_element_changes(there, made), *nft_text.following(live, carried))
    if not changes:
        return True
    if not nft.carry_out(changes, "", Report()):
        return False
    now = nft.tables_of_ours(Report())
    return now is not None and _is_in_force(now, made)


def _differ_in_elements_alone(there: Loaded, made: Loaded) -> bool:
    def less(one: KernelSet) -> tuple[str, str, bool]:
        return one.place, one.head, one.elements is None

    return (there.chains, there.others) == (made.chains, made.others) and (
        [less(one) for one in there.sets] == [less(one) for one in made.sets]
    )


def _element_changes(there: Loaded, made: Loaded) -> Iterator[str]:
    for old, new in zip(there.sets, made.sets, strict=True):
        if old.elements is None or new.elements is None:
            continue
        _, name = new.place.split(" ", 1)
        for word, elements in (
            ("delete", old.elements - new.elements),
            ("add", new.elements - old.elements),
        ):
            if elements:
                yield f"{word} element {TABLE} {name} {{ {', '.join(sorted(elements))} }}"


# --- dynamic sets ----------------------------------------------------------------------------


def _carry_back_the_rest(before: Tables) -> None:
    """Put into ours what came into a pending generation's dynamic sets since that look."""
    if before.pending is not None and dynamic_sets(before.pending.text):
        tables = nft.tables_of_ours(Report())
        if tables is not None:
            _carry_back(tables)


def _carry_back(tables: Tables) -> None:
    """Put what is in the dynamic sets of a pending generation into ours, as far as is room."""
    if tables.ours is None or tables.pending is None:
        return
    ours = dynamic_sets(tables.ours.text)
    others = by_identity(dynamic_sets(tables.pending.text))
    commands = (*nft_text.following(ours, others), *nft_text.longer(ours, ours, others))
    if commands:
        nft.carry_out(commands, "", Report())


def _carry_on() -> None:
    """Put what came into our dynamic sets while it was armed into those of a pending generation."""
    tables = nft.tables_of_ours(Report())
    if tables is None or tables.ours is None or tables.pending is None:
        return
    ours = by_identity(dynamic_sets(tables.ours.text))
    commands = nft_text.following(dynamic_sets(tables.pending.text), ours, PENDING_TABLE)
    if commands:
        nft.carry_out(commands, "", Report())
