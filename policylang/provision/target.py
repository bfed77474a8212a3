"""What runs on a target: one job from standard input, one answer on standard output.

It needs Python's standard library and the programs that load rules, and nothing of what compiles.
"""

from __future__ import annotations

import sys
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
from policylang.diagnostics import Report
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
    TakeBack,
    TakenBack,
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
        case TakeBack():
            found = _taken_back(site, report)
        case Tell():
            found = _told(site, report)
        case Serve():
            found = _served(job, report)
        case other:
            assert_never(other)
    return Answer(found, tuple(report.diagnostics))


# --- rehearsing -------------------------------------------------------------------------------


def _rehearsed(job: Rehearse, site: Site, report: Report) -> Rehearsed | None:
    cargo = job.cargo
    rehearsals: list[Rehearsal] = []
    planned = _planned(cargo, site, report, rehearsals)
    if planned is None or planned.state is None:
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
    others = (one for one in engines.in_force(Report()) if one.way != engine.way)
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
    written = Written(
        cargo.name, dict(cargo.parameters), cargo.made_by, cargo.sources, boot=cargo.boot
    )
    done = guard.carry_out(planned, site, written, report, confirm_s=job.confirm_s, flows=cuts)
    if done is None:
        return None
    way, changes = planned.engine.way, not planned.is_empty
    number, confirm_s = done.kept.number, done.confirm_s
    return Brought(number, way, changes, confirm_s, done.words, who.ssh_connection())


def _confirmed(job: Confirm, site: Site, report: Report) -> Confirmed | None:
    if job.loaded_over is not None and who.ssh_connection() == job.loaded_over:
        return Confirmed(job.number, is_new=False)
    state = guard.at(site, lambda state: state, report)
    if state is None or report.has_errors:
        return None
    if state.pending != job.number:
        message = f"generation {job.number} does not wait to be confirmed"
        report.add("nothing-to-confirm", message, None)
        return None
    done = guard.confirm(site, report)
    return None if done is None else Confirmed(done.kept.number, is_new=True, words=done.words)


def _taken_back(site: Site, report: Report) -> TakenBack | None:
    state = guard.at(site, lambda state: state, report)
    if state is None:
        return None
    if state.pending is not None:
        return TakenBack(state.current) if guard.disarm(site, report) else None
    if not state.history:
        report.add("no-such-generation", "no generation was in force before this one", None)
        return None
    number = state.history[0]
    kept, artifact = site.record.one(number, report), site.record.artifact(number, report)
    if kept is None or artifact is None:
        return None
    flavour = None if kept.target == "nft" else Flavour(kept.way.removeprefix("iptables-"))
    planned = guard.plan(artifact, site, report, flavour=flavour, number=number)
    if planned is None:
        return None
    written = Written(kept.policy_name, dict(kept.parameters), who.made_by())
    done = guard.carry_out(planned, site, written, report)
    return None if done is None else TakenBack(done.kept.number, done.words)


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
