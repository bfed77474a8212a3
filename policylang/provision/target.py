"""What runs on a target: one job from standard input, one answer on standard output.

It needs Python's standard library and the programs that load rules, and nothing of what compiles.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, assert_never

from policylang.apply import (
    boot_place,
    boot_units,
    engines,
    flows,
    guard,
    kernel,
    operator,
    recovery,
    running,
    status,
    transaction,
    who,
)
from policylang.apply.flows import Flow
from policylang.apply.guard import Plan, Site, Written
from policylang.apply.here import here_of
from policylang.apply.listing import Listing
from policylang.apply.record import Kept, Record, State, state_folder
from policylang.apply.restore import Flavour
from policylang.apply.transaction import Rehearsal
from policylang.diagnostics import Diagnostic, Report
from policylang.provision import wire
from policylang.provision.messages import (
    Answer,
    Brought,
    Cargo,
    Confirm,
    Confirmed,
    Finding,
    Job,
    Load,
    Rehearse,
    Rehearsed,
    Serve,
    Served,
    Tell,
    Told,
    seal,
)

ROOT = Path("/")


def main() -> int:
    """Do the job of standard input; the exit status, 0 whatever the answer is."""
    kind: Any = Job
    job: Job = wire.read(kind, sys.stdin.read())
    sys.stdout.write(wire.written(answered(job)))
    return 0


def answered(job: Job) -> Answer:
    """What comes of a job in this thread's network namespace."""
    report = Report()
    site = Site(None, Record(state_folder(None)))
    found: Finding | None
    match job:
        case Rehearse():
            found = _rehearsed(job, site, report)
        case Load():
            found = _brought(job, site, report)
        case Confirm():
            found = _confirmed(job, site, report)
        case Tell():
            found = _told(site, report)
        case Serve():
            found = _served(job, report)
        case other:
            assert_never(other)
    return Answer(found, tuple(map(_in_words_of_a_controller, report.diagnostics)))


# Help that names commands is for who has policylang on the target.
_HELP = {
    "not-yet-confirmed": "it is taken back when its time is over: apply again then",
    "not-confirmed": "apply again",
    "nothing-confirmed": "what is applied and confirmed is loaded at boot from then on",
    "not-restored": "ask what is in force, and apply again",
    "swept": "nothing of ours may be in force: apply again",
}


def _in_words_of_a_controller(told: Diagnostic) -> Diagnostic:
    help_ = _HELP.get(told.code)
    is_of_commands = told.help is not None and "`policylang " in told.help
    return replace(told, help=help_) if help_ is not None and is_of_commands else told


# --- rehearsing -------------------------------------------------------------------------------


def _rehearsed(job: Rehearse, site: Site, report: Report) -> Rehearsed | None:
    cargo = job.cargo
    rehearsals: list[Rehearsal] = []
    planned = _planned(cargo, site, report, rehearsals)
    if planned is None or planned.state is None:
        return None
    if guard.is_hindered(planned, planned.state, None, report):
        return None
    again = None
    if job.with_logs is not None:
        again = transaction.rehearsal(job.with_logs, planned.engine, report)
        if again is None:
            return None
    _warn_operator(cargo, report)
    ending: tuple[Flow, ...] = ()
    if cargo.artifact.needs.cuts_flows:
        ending = flows.to_cut(cargo.ruleset, report, target=cargo.artifact.target)
    current = recovery.kept_of(site.record, planned.state.current)
    past = _past(current, site, report) if job.wants_past else None
    return Rehearsed(
        way=planned.engine.way,
        rehearsal=rehearsals[0],
        again=again,
        here=here_of(cargo.ruleset),
        before=planned.before,
        others=planned.others,
        changes=not planned.is_empty,
        current=None if past is None else current,
        past=past or (running.running(report) or () if job.wants_past else ()),
        ending=tuple(flow.text for flow in ending),
    )


def _planned(cargo: Cargo, site: Site, report: Report, rehearsals: list[Rehearsal]) -> Plan | None:
    flavour = None if cargo.flavour is None else Flavour(cargo.flavour)
    if not kernel.may_change(report):
        return None
    return guard.plan(cargo.artifact, site, report, flavour=flavour, tell=rehearsals.append)


def _past(current: Kept | None, site: Site, report: Report) -> tuple[Listing, ...] | None:
    """What the generation in force is when listed alone; None where something else is in force."""
    if current is None:
        return None
    engine, artifact = engines.by_way(current.way), site.record.artifact(current.number, report)
    rehearsal = None if artifact is None else transaction.rehearsal(artifact, engine, Report())
    listed = engine.listed(Report())
    if rehearsal is None or listed is None:
        return None
    is_as_loaded = rehearsal.loaded.without_lists == listed.without_lists
    others = engines.in_force(Report(), but=engine)
    return (rehearsal.listing,) if is_as_loaded and not any(others) else None


def _warn_operator(cargo: Cargo, report: Report) -> None:
    """Warn where whoever asks over SSH could not come in again."""
    connection = operator.found()
    if connection is None:
        return
    target, is_cut = cargo.artifact.target, cargo.artifact.needs.cuts_flows
    warning = operator.shut_out(cargo.ruleset, connection, target=target, is_cut=is_cut)
    if warning is not None:
        report.add(warning.code, warning.message, warning.span, help=warning.help)


# --- changing ---------------------------------------------------------------------------------


def _brought(job: Load, site: Site, report: Report) -> Brought | None:
    cargo = job.cargo
    planned = _planned(cargo, site, report, [])
    if planned is None:
        return None
    if seal(planned.expected) != job.proved:
        message = f"{planned.engine.way} lists other rules than those that were proved"
        help_ = "does another program change how rules are loaded? Run it again"
        report.add("not-as-rehearsed", message, None, help=help_)
        return None
    cuts: guard.Flows | None = None
    if cargo.artifact.needs.cuts_flows:
        cuts = partial(flows.to_cut, cargo.ruleset, target=cargo.artifact.target)
    chosen = dict(cargo.parameters)
    written = Written(
        cargo.name, chosen, cargo.made_by, cargo.sources, host=cargo.host, boot=cargo.boot
    )
    done = guard.carry_out(planned, site, written, report, confirm_s=job.confirm_s, flows=cuts)
    if done is None:
        return None
    way, changes = planned.engine.way, not planned.is_empty
    number, confirm_s = done.kept.number, done.confirm_s
    return Brought(number, way, changes, confirm_s, done.words, who.ssh_connection())


def _confirmed(job: Confirm, site: Site, report: Report) -> Confirmed | None:
    # Where it is not told any more over what this comes, that is not taken for a new connection.
    if job.loaded_over is not None and who.ssh_connection() in (job.loaded_over, None):
        return Confirmed(job.number, is_new=False)
    state = guard.at(site, lambda state: state, report)
    if state is None or report.has_errors:
        return None
    if state.pending is None and state.current == job.number:
        return Confirmed(job.number, is_new=True)  # the answer was lost
    done = guard.confirm(site, report, number=job.number)
    return None if done is None else Confirmed(done.kept.number, is_new=True, words=done.words)


# --- telling ----------------------------------------------------------------------------------


def _told(site: Site, report: Report) -> Told | None:
    def look(state: State) -> Told:
        found = status.status(site.record, state, report)
        return Told(
            found.current,
            found.pending,
            found.left_ms,
            found.ways,
            found.drift,
            site.record.kept(report),
            boot_place.linked_number(site.record.folder),
            boot_place.is_served(site.record.folder, ROOT),
            str(boot_units.state_folder()),
        )

    return guard.at(site, look, report)


def _served(job: Serve, report: Report) -> Served | None:
    files = {Path(place): text for place, text in job.files.items()}
    try:
        changed = tuple(str(path) for path in boot_units.unlike(ROOT, files))
    except OSError as error:
        message = f"cannot read `{error.filename}`: {error.strerror}"
        report.add("cannot-write", message, None)
        return None
    if job.is_check or not changed:
        return Served(changed, ())
    words = boot_units.put(ROOT, files, report)
    return None if words is None else Served(changed, words)
