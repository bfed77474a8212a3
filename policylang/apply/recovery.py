"""Brings what is loaded and what is recorded together again, after whatever came between them.

Every step of an apply is written down before it is taken. Whoever comes next finds it, and goes
on or back; and finds the change that nobody confirmed in time. It decides which generation is
to hold, and how that is loaded it does not know.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import assert_never

from policylang.apply import engines, flows, kernel, transaction
from policylang.apply.engine import Engine
from policylang.apply.flows import Flow
from policylang.apply.loaded import Loaded
from policylang.apply.record import Doing, Kept, Record, State
from policylang.backends.base import Artifact
from policylang.diagnostics import Report


def settle(record: Record, report: Report) -> State | None:
    """The state, once nothing of it is half done; the calling thread has its namespace alone.

    Warns `recovered` of a step that was broken off, `not-confirmed` of a change whose time is
    over. None, with an error in the report, where the state is not known or cannot be mended.
    """
    state = record.state(report)
    if state is None:
        return None
    if not kernel.is_same(state.boot_id, state.namespace):
        state = _after_boot(record, state, report)
    elif state.doing is not None:
        state = _recovered(record, state, state.doing, report)
    elif state.pending is not None:
        state = _expired(record, state, state.pending, report)
    else:
        return state
    return state if state is not None and record.set_state(state, report) else None


def in_force_for_good(state: State, number: int | None) -> State:
    """The state once a generation (None: nothing of ours) is in force and nothing is half done.

    What was confirmed stays what a boot loads where nothing of ours is in force any more.
    """
    confirmed = state.confirmed if number is None else number
    return replace(state.now_in_force(number), confirmed=confirmed)


def finish(record: Record, number: int, report: Report) -> tuple[str, ...]:
    """See to what comes after a generation is in force for good; in words what was done.

    A boot loads it from now on, what its rules rely on is switched on, and the connections end
    that were written down for it. All of it can be done twice.
    """
    record.confirm_for_boot(number, report)
    artifact = artifact_of(record, number, report)
    beside = () if artifact is None else transaction.see_to_the_rest(artifact.needs, report)
    kept = kept_of(record, number)
    if artifact is not None and kept is not None and artifact.needs.lists and kept.policy_path:
        # Those of a generation of long ago are as old as itself. What travels to a target reads no
        # lock files: there the policy's path is empty, or lists follow at the next refresh.
        with suppress(ImportError):
            from policylang.apply import refreshing

            refreshing.follow(artifact.needs.lists, kept.policy_path)
    words = ended(record.flows(number), report)
    record.forget_flows()  # a later rollback to the same generation is not to end others
    return (*words, *beside)


def ended(doomed: tuple[Flow, ...], report: Report) -> tuple[str, ...]:
    """End connections; in words how many there were."""
    if not doomed:
        return ()
    switched = flows.stop_pick_up(doomed, report)
    count = flows.cut(doomed, report)
    return (f"ended {count} open connection{'' if count == 1 else 's'}", *switched)


def artifact_of(record: Record, number: int | None, report: Report) -> Artifact | None:
    """A generation's artifact; None also for no number."""
    return None if number is None else record.artifact(number, report)


def kept_of(record: Record, number: int | None) -> Kept | None:
    """What is told of a generation, None also where it cannot be used."""
    return None if number is None else record.one(number, Report())


def as_loaded(engine: Engine, artifact: Artifact, report: Report) -> Loaded | None:
    """What an artifact is once it is loaded, seen in a scratch namespace."""
    return kernel.in_scratch(lambda: engine.rehearse(artifact, report), report)


def is_in_force(engine: Engine, artifact: Artifact) -> bool:
    """Whether exactly what an artifact makes is in force, as far as that can be told."""
    quiet = Report()
    expected, listed = as_loaded(engine, artifact, quiet), engine.listed(quiet)
    if expected is None or listed is None:
        return False
    return expected.without_lists == listed.without_lists


def _after_boot(record: Record, state: State, report: Report) -> State:
    """Nothing of before is loaded; the service may have loaded what was confirmed."""
    fresh = replace(State.here(), confirmed=state.confirmed, history=state.history)
    artifact = artifact_of(record, state.confirmed, report)
    if artifact is None or state.confirmed is None:
        return fresh
    kept = kept_of(record, state.confirmed)
    if kept is None or not is_in_force(engines.by_way(kept.way), artifact):
        return fresh
    return replace(fresh, current=state.confirmed)


def _recovered(record: Record, state: State, doing: Doing, report: Report) -> State | None:
    engine = engines.by_way(doing.way)
    number = doing.before
    match doing.what:
        case "load":
            if not _load_again(record, doing, report):
                return None
            number = doing.after if _holds(record, doing.after) else doing.before
        case "keep":
            if _keep_again(record, engine, doing, report):
                number = doing.after
            elif report.has_errors:
                return None
        case "arm" | "disarm":
            if not engine.disarm(report):
                return None
        case "remove":
            remove_all(report)
            number = None
        case other:
            assert_never(other)
    where = "nothing of ours" if number is None else f"generation {number}"
    report.add("recovered", f"{_BROKEN_OFF[doing.what]} was broken off: {where} is in force", None)
    if number == doing.after and number is not None:
        finish(record, number, report)
    return in_force_for_good(state, number)


_BROKEN_OFF = {
    "load": "an apply",
    "arm": "an apply that was to be confirmed",
    "keep": "a confirmation",
    "disarm": "a return to the generation before",
    "remove": "a stop",
}


def _load_again(record: Record, doing: Doing, report: Report) -> bool:
    """Whether exactly one of the two generations is in force after a load that was broken off.

    It goes on where that can be: what was to be loaded had passed its rehearsal.
    """
    was_in_force = (
        not any(engines.in_force(Report()))
        if doing.before is None
        else _holds(record, doing.before)
    )
    if was_in_force or _holds(record, doing.after):
        if doing.before is None and was_in_force:
            remove_all(report)  # sets may have come before the rules
        return True
    failures = Report()
    for number in (doing.after, doing.before):
        kept = kept_of(record, number)
        artifact = artifact_of(record, number, failures)
        if kept is None or artifact is None:
            continue
        engine = engines.by_way(kept.way)
        if engine.load(artifact, failures, {}):
            remove_all(report, but=engine)
            return True
    words = "\n".join(found.help or found.message for found in failures.diagnostics)
    message = "an apply was broken off, and neither completed nor taken back"
    report.add("not-restored", message, None, help=words or None)
    return False


def _keep_again(record: Record, engine: Engine, doing: Doing, report: Report) -> bool:
    """Whether a confirmation that was broken off is completed; else the change is taken back.

    It is completed where there is time left, or where the kernel has part of it already.
    """
    artifact = artifact_of(record, doing.after, report)
    if artifact is None:
        return False
    is_too_late = not is_in_force(engine, artifact) and not engine.keep(artifact, Report())
    if is_too_late and engine.disarm(Report()):
        return False
    return engine.keep(artifact, report, is_late=True)


def _holds(record: Record, number: int | None) -> bool:
    """Whether a generation is in force, and nothing of ours beside it."""
    kept, artifact = kept_of(record, number), artifact_of(record, number, Report())
    if kept is None or artifact is None:
        return False
    engine = engines.by_way(kept.way)
    others = engines.in_force(Report(), but=engine)
    return is_in_force(engine, artifact) and not any(others)


def remove_all(report: Report, *, but: Engine | None = None) -> tuple[str, ...]:
    """Take all away that is ours, but for what one engine loaded; the ways that held anything.

    Where nothing is to stay, sets without rules go too.
    """
    held = list(engines.in_force(report, but=but))
    removed = tuple(engine.way for engine in held if engine.remove(report))
    if but is None:
        for engine in engines.present():
            engine.remove(report)
    return removed


def _expired(record: Record, state: State, pending: int, report: Report) -> State | None:
    """The state once a change that is not confirmed in time is cleared away."""
    kept = kept_of(record, pending)
    if kept is None:
        return replace(state, pending=None)
    engine = engines.by_way(kept.way)
    if engine.armed_ms(report):
        return state
    is_swept = engine.armed_ms(report) is None
    if not engine.disarm(report):
        return None
    if is_swept and not _holds(record, state.current):
        message = f"another program removed generation {pending}, which waited to be confirmed"
        help_ = "nothing of ours may be in force: `policylang status` tells; `policylang rollback`"
        report.add("swept", message, None, help=f"{help_} and `policylang apply` load again")
        return replace(state, pending=None, armed_until=None)
    force = "nothing of ours" if state.current is None else f"generation {state.current}"
    message = f"generation {pending} was not confirmed in time: {force} is in force"
    report.add("not-confirmed", message, None, help="`policylang apply` loads it again")
    return replace(state, pending=None, armed_until=None)
