"""Changes what is in force in a way that can be trusted: planned, recorded, confirmed, undone.

It knows the order of the steps and what is written down before each of them; how a step is done
is the engine's business, and who is asked is the command line's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from policylang.apply import engines, kernel, modules, recovery, transaction
from policylang.apply.difference import Difference, difference
from policylang.apply.engine import Engine
from policylang.apply.flows import Flow
from policylang.apply.loaded import Loaded
from policylang.apply.record import Doing, Kept, Record, State
from policylang.apply.restore import Flavour
from policylang.apply.state import What
from policylang.apply.transaction import Rehearsal
from policylang.backends.base import Artifact, OutputFile
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.source import SourceFile

T = TypeVar("T")

MOST_SHOWN = 60  # characters of a rule in a message
Flows = Callable[[Report], tuple[Flow, ...]]


@dataclass(frozen=True, slots=True)
class Site:
    """A network namespace (None: this one), and the record of what was applied there.

    `waiting` is told who works there where somebody does.
    """

    netns: str | None
    record: Record
    waiting: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What was compiled: the policy's name and the parameters it was given, and by whom.

    `sources` are its texts, that of the policy itself first; `path` is its absolute path, empty
    where it was no file; `host` is the one that was meant, empty where it has none. `boot` are the
    files that a boot needs beside the artifact's, None where they are to be laid out here.
    """

    name: str
    parameters: Mapping[str, str]
    made_by: str
    sources: tuple[SourceFile, ...] = ()
    path: str = ""
    host: str = ""
    boot: tuple[OutputFile, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do.

    `number` is that of the generation that is loaded once more, None for a new one; `others` are
    the other ways by which something of ours is in force, which goes.
    """

    artifact: Artifact
    engine: Engine
    expected: Loaded
    before: Loaded
    others: tuple[str, ...]
    loaded_modules: tuple[str, ...]
    number: int | None = None
    state: State | None = field(default=None, compare=False)

    @property
    def difference(self) -> Difference:
        return difference(self.before, self.expected)

    @property
    def is_empty(self) -> bool:
        return self.before == self.expected and not self.others and self.difference.is_empty


@dataclass(frozen=True, slots=True)
class Done:
    """What was done: the generation in force, how, and in words what else was done.

    `confirm_s` are the seconds in which it is to be confirmed, None where it is in force for good.
    """

    kept: Kept
    confirm_s: int | None = None
    words: tuple[str, ...] = ()
    is_as_it_was: bool = False


def inside(site: Site, work: Callable[[], T], report: Report) -> T | None:
    """What `work` returns, done in the site's namespace; it changes nothing there."""
    if not kernel.may_change(report):
        return None
    return kernel.in_netns(site.netns, work, report)


def at(site: Site, work: Callable[[State], T | None], report: Report) -> T | None:
    """What `work` returns, done in the site's namespace, alone there and with all settled."""

    def alone() -> T | None:
        with kernel.alone(report, site.waiting) as is_alone:
            state = recovery.settle(site.record, report) if is_alone else None
            return None if state is None else work(state)

    if not kernel.may_change(report):
        return None
    with transaction.undisturbed():
        return kernel.in_netns(site.netns, alone, report)


def plan(
    artifact: Artifact,
    site: Site,
    report: Report,
    *,
    flavour: Flavour | None = None,
    number: int | None = None,
    meant: Ruleset | None = None,
    tell: Callable[[Rehearsal], None] | None = None,
) -> Plan | None:
    """What applying an artifact would do; it is loaded in a scratch namespace to see that.

    What it is there is proved to do what `meant` says, from which it was made; an artifact that
    was in force before needs no proof, and what `tell` is told of is proved elsewhere. None, with
    an error in `report`, where it could not be applied.
    """
    engine = engines.chosen(artifact.target, flavour, report)
    if engine is None:
        return None
    loaded = modules.load(artifact.needs.modules, report)
    if loaded is None:
        return None
    if meant is not None:
        expected = _proved(meant, artifact, engine, report)
    elif tell is not None:
        rehearsal = transaction.rehearsal(artifact, engine, report)
        expected = None if rehearsal is None else rehearsal.loaded
        if rehearsal is not None:
            tell(rehearsal)
    else:
        expected = transaction.rehearsed(artifact, engine, report)
    if expected is None:
        return None

    def look(state: State) -> Plan | None:
        before = engine.listed(report)
        if before is None:
            return None
        others = tuple(one.way for one in engines.in_force(report, but=engine))
        return Plan(artifact, engine, expected, before, others, tuple(loaded), number, state)

    return at(site, look, report)


def _proved(meant: Ruleset, artifact: Artifact, engine: Engine, report: Report) -> Loaded | None:
    """What an artifact is once it is loaded, if it does what `meant` says; else that is told."""
    from policylang.apply import proved  # what it rests on takes long to load

    rehearsal = transaction.rehearsal(artifact, engine, report)
    if rehearsal is None or not proved.is_proved(meant, rehearsal, engine, report):
        return None
    return rehearsal.loaded


def carry_out(
    planned: Plan,
    site: Site,
    written: Written,
    report: Report,
    *,
    confirm_s: int | None = None,
    flows: Flows | None = None,
) -> Done | None:
    """Put a plan's artifact in force, for good or for `confirm_s` seconds.

    It is recorded first, and its listing is compared with the rehearsal's afterwards. `flows`
    tells the open connections that are to be cut: at once, or when the change is confirmed.
    None, with an error in `report`, where it is not in force; what was in force then is.
    """
    return at(
        site,
        lambda state: _carry_out(
            _Work(planned, site.record, written, report, confirm_s, flows), state
        ),
        report,
    )


@dataclass(frozen=True, slots=True)
class _Work:
    plan: Plan
    record: Record
    written: Written
    report: Report
    confirm_s: int | None
    flows: Flows | None


def _carry_out(work: _Work, state: State) -> Done | None:
    planned, report = work.plan, work.report
    if is_hindered(planned, state, work.confirm_s, report):
        return None
    if planned.engine.listed(report) != planned.before:
        message = "what is in force changed after the plan was made"
        report.add("changed-meanwhile", message, None, help="run it again")
        return None
    current = recovery.kept_of(work.record, state.current)
    if planned.is_empty and current is not None:
        return _left_alone(work, current)
    kept = _kept(work, report)
    if kept is None:
        return None
    what: What = "load" if work.confirm_s is None else "arm"
    doing = Doing(what, state.current, kept.number, planned.engine.way)
    if not work.record.set_state(replace(state, doing=doing), report):
        return None
    if work.flows is not None:
        work.record.set_flows(kept.number, work.flows(report), report)
    words = _put_in_force(work, state, report)
    if words is None:
        # Where both hold by halves, whoever comes next is to find that out.
        if planned.engine.listed(Report()) == planned.before:
            work.record.set_state(state, report)
        return None
    return _recorded(work, state, kept, words)


def _left_alone(work: _Work, current: Kept) -> Done:
    """Nothing is loaded, as nothing would change; what the rules rely on is seen to."""
    doomed = () if work.flows is None else work.flows(work.report)
    beside = transaction.see_to_the_rest(work.plan.artifact.needs, work.report)
    return Done(current, None, (*recovery.ended(doomed, work.report), *beside), is_as_it_was=True)


def is_hindered(planned: Plan, state: State, confirm_s: int | None, report: Report) -> bool:
    """Whether a plan cannot be carried out as things are; reports what hinders it."""
    if state.pending is not None:
        message = f"generation {state.pending} is in force, and waits to be confirmed"
        help_ = "`policylang confirm` keeps it, `policylang rollback` ends it"
        report.add("not-yet-confirmed", message, None, help=help_)
        return True
    if confirm_s is not None and planned.others:
        message = f"the change from {planned.others[0]} to {planned.engine.way} cannot be armed"
        help_ = "apply it with `--no-confirm`, from the machine's own console"
        report.add("cannot-arm", message, None, help=help_)
        return True
    return False


def _kept(work: _Work, report: Report) -> Kept | None:
    """The generation that is to be in force, new in the record or there already."""
    if work.plan.number is not None:
        return recovery.kept_of(work.record, work.plan.number)
    return work.record.keep(
        work.plan.artifact,
        way=work.plan.engine.way,
        policy_name=work.written.name,
        policy_path=work.written.path,
        host=work.written.host,
        boot=work.written.boot,
        parameters=work.written.parameters,
        made_by=work.written.made_by,
        report=report,
        sources=work.written.sources,
    )


def _put_in_force(work: _Work, state: State, report: Report) -> tuple[str, ...] | None:
    """What was done beside it, in words; None where what was in force is in force."""
    planned = work.plan
    loaded = tuple(f"loaded the module `{name}`" for name in planned.loaded_modules)
    if work.confirm_s is not None:
        if not planned.engine.arm(planned.artifact, work.confirm_s, report):
            return None
        listed = planned.engine.pending(report)
        if listed == planned.expected:
            return loaded
        _not_as_rehearsed(planned, listed, report)
        planned.engine.disarm(report)
        return None
    found = Report()
    applied = transaction.load(planned.artifact, planned.engine, found)
    if applied is None and planned.engine.listed(Report()) == planned.expected:
        return loaded  # the program died behind its work
    report.take(found)
    if applied is None:
        return None
    listed = planned.engine.listed(report)
    if listed == planned.expected:
        return (*applied.words, *loaded)
    _not_as_rehearsed(planned, listed, report)
    _take_back(work, state)
    return None


def _take_back(work: _Work, state: State) -> None:
    """Load again what was in force, by whichever target; reports `not-restored` where it cannot."""
    planned, report = work.plan, work.report
    kept = recovery.kept_of(work.record, state.current)
    before = recovery.artifact_of(work.record, state.current, report)
    if kept is not None and before is not None:
        is_back = transaction.load(before, engines.by_way(kept.way), report) is not None
    else:
        had_nothing = planned.before.is_empty and not planned.others
        is_back = had_nothing and planned.engine.remove(report)
    if not is_back:
        message = "what was in force could not be put back"
        help_ = "`policylang status` tells what is in force; `policylang apply` loads again"
        report.add("not-restored", message, None, help=help_)


def _not_as_rehearsed(planned: Plan, listed: Loaded | None, report: Report) -> None:
    message = f"what {planned.engine.way} lists is not what it listed in the rehearsal"
    help_ = "does another program change these rules?"
    found = Difference() if listed is None else difference(planned.expected, listed)
    for change in found.changes[:1]:
        before, now = (_start(text) for text in (change.before, change.after))
        help_ = f"in {change.place}: {before} is {now} now; {help_}"
    report.add("not-as-rehearsed", message, None, help=help_)


def _start(text: str | None) -> str:
    """What fits into a line of a message."""
    if text is None:
        return "nothing"
    first = text.split("\n", 1)[0]
    return f"`{first}`" if len(first) <= MOST_SHOWN else f"`{first[:MOST_SHOWN]}…`"


def _recorded(work: _Work, state: State, kept: Kept, words: tuple[str, ...]) -> Done | None:
    """What comes after the rules are in force; what fails now is told, and takes nothing back."""
    record, report = work.record, work.report
    if work.flows is not None:
        record.set_flows(kept.number, work.flows(report), report)
    if work.confirm_s is not None:
        if record.set_state(_armed(state, kept.number, work.confirm_s), report):
            return Done(kept, work.confirm_s, words)
        work.plan.engine.disarm(report)
        return None
    return _for_good(record, state, kept, words, report)


def _for_good(
    record: Record, state: State, kept: Kept, words: tuple[str, ...], report: Report
) -> Done:
    """A generation is in force for good: that is recorded once all is done that goes with it."""
    beside = recovery.finish(record, kept.number, report)
    record.set_state(recovery.in_force_for_good(state, kept.number), report)
    return Done(kept, None, (*words, *beside))


def _armed(state: State, number: int, confirm_s: int) -> State:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=confirm_s)
    return replace(state, doing=None, pending=number, armed_until=until)


def confirm(site: Site, report: Report, *, number: int | None = None) -> Done | None:
    """Keep the change that waits for it; with a `number`, that generation and no other.

    Reports `nothing-to-confirm` and `too-late`.
    """

    def keep(state: State) -> Done | None:
        if state.pending is None or number not in (None, state.pending):
            which = "no change waits" if number is None else f"generation {number} does not wait"
            report.add("nothing-to-confirm", f"{which} to be confirmed", None)
            return None
        kept = recovery.kept_of(site.record, state.pending)
        artifact = recovery.artifact_of(site.record, state.pending, report)
        if kept is None or artifact is None:
            return None
        engine = engines.by_way(kept.way)
        doing = Doing("keep", state.current, kept.number, kept.way)
        if not site.record.set_state(replace(state, doing=doing), report):
            return None
        if not engine.keep(artifact, report):
            if site.record.set_state(state, report):
                recovery.settle(site.record, report)  # it may have been too late
            return None
        return _for_good(site.record, state, kept, (), report)

    return at(site, keep, report)


def disarm(site: Site, report: Report) -> bool:
    """End a change that waits to be confirmed; False where there is none."""

    def end(state: State) -> bool:
        kept = recovery.kept_of(site.record, state.pending)
        if kept is None:
            return False
        doing = Doing("disarm", state.current, state.pending, kept.way)
        return (
            site.record.set_state(replace(state, doing=doing), report)
            and engines.by_way(kept.way).disarm(report)
            and site.record.set_state(replace(state, pending=None, armed_until=None), report)
        )

    return at(site, end, report) or False


def stop(site: Site, report: Report) -> tuple[str, ...] | None:
    """Take all that is ours away; the ways by which anything was in force."""

    def remove(state: State) -> tuple[str, ...] | None:
        held = next((one.way for one in engines.in_force(report)), "nft")
        doing = Doing("remove", state.current, None, held)
        if not site.record.set_state(replace(state, doing=doing), report):
            return None
        ways = recovery.remove_all(report)
        return (
            ways if site.record.set_state(recovery.in_force_for_good(state, None), report) else None
        )

    return at(site, remove, report)
