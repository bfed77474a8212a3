"""The commands that change what is in force, and `plan`, which says what one would.

They compile, ask, and tell; how a change is made is `apply.guard`'s business.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from policylang import pipeline
from policylang.apply import flows, guard, operator, recovery
from policylang.apply import panic as panicking
from policylang.apply.flows import Flow
from policylang.apply.guard import Done, Plan, Site, Written
from policylang.apply.operator import Connection
from policylang.apply.record import Kept, Record, State, made_by, state_folder
from policylang.apply.restore import Flavour
from policylang.backends.base import Artifact
from policylang.cli import kept_texts, plans
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.outcome import SCHEMA, Outcome, as_json, status_of
from policylang.cli.teller import Teller
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.packets.values import parse_one_address
from policylang.pipeline import Source, Text
from policylang.source import SourceFile

CONFIRM_S = 60  # for who works over the network, unless they say otherwise


@dataclass(frozen=True, slots=True)
class Compiled:
    """A policy for one target: its name, its rules, and what they became.

    `meant` are the rules as the statements say them, `ruleset` what is made of them.
    """

    name: str
    meant: Ruleset
    ruleset: Ruleset
    artifact: Artifact


def site_of(netns: str | None) -> Site:
    """The namespace that is meant, and the record of what was applied there."""
    return Site(netns, Record(state_folder(netns)), _waits)


def _waits(words: str) -> None:
    print(f"policylang: {visible(words)}", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command, for programs, and in lines for people.

    `is_refused` says that what was asked for was not done, whether or not there is an error.
    """

    outcome: Outcome
    lines: tuple[str, ...] = ()
    is_refused: bool = False


def _answered(chosen: argparse.Namespace, teller: Teller, answer: Answer) -> int:
    """Tell what came of it, as it was asked for; the exit status."""
    teller.show()
    if chosen.json:
        print(as_json(answer.outcome, teller.report), end="")
    else:
        for line in answer.lines:
            print(line)
    return REFUSED if answer.is_refused else status_of(answer.outcome, teller.report)


# --- plan ------------------------------------------------------------------------------------


def plan(chosen: argparse.Namespace, source: Source | None, teller: Teller) -> int:
    """Say what an apply would change; with `--detailed-exitcode` 2 where it would anything."""
    report = teller.report
    compiled = _compiled(chosen, source, report)
    planned = None if compiled is None else _planned(chosen, compiled, report)
    if compiled is None or planned is None:
        teller.show()
        return REFUSED
    ending = _ending(chosen, compiled, planned, report)
    _warn_of_apply(chosen, compiled, report)
    teller.show()
    if chosen.json:
        print(json.dumps({"schema": SCHEMA, **_plan_as_json(planned, ending)}, indent=2))
    else:
        print("\n".join(_plan_lines(planned, ending)))
    if report.has_errors:
        return REFUSED
    is_changed = not planned.is_empty or bool(ending)
    return CHANGES if chosen.detailed_exitcode and is_changed else DONE


def _compiled(chosen: argparse.Namespace, source: Source | None, report: Report) -> Compiled | None:
    if source is None:
        return None
    meant = pipeline.lowered(source, report, parameters=chosen.parameters)
    ruleset = None if meant is None else pipeline.optimised(meant, report)
    artifact = None if ruleset is None else pipeline.artifact_of(ruleset, chosen.target, report)
    if meant is None or ruleset is None or artifact is None:
        return None
    assert not report.has_errors, "an artifact of a policy with errors"
    if getattr(chosen, "flows", None) is not None:
        needs = replace(artifact.needs, cuts_flows=chosen.flows == "cut")
        artifact = replace(artifact, needs=needs)
    name = pipeline.name_of(source)
    return Compiled(name, meant, ruleset, artifact)


def _planned(chosen: argparse.Namespace, compiled: Compiled, report: Report) -> Plan | None:
    flavour = None if chosen.flavour is None else Flavour(chosen.flavour)
    site = site_of(chosen.netns)
    return guard.plan(compiled.artifact, site, report, flavour=flavour, meant=compiled.meant)


def _ending(
    chosen: argparse.Namespace, compiled: Compiled, planned: Plan, report: Report
) -> tuple[Flow, ...]:
    """The open connections that an apply would end."""
    if not planned.artifact.needs.cuts_flows:
        return ()
    look = partial(flows.to_cut, compiled.ruleset, report, target=planned.artifact.target)
    return guard.inside(site_of(chosen.netns), look, report) or ()


def _warn_of_apply(chosen: argparse.Namespace, compiled: Compiled, report: Report) -> None:
    connection = _operator(chosen)
    if connection is not None:
        is_cut = compiled.ruleset.needs.cuts_flows or chosen.flows == "cut"
        _warn(compiled.ruleset, connection, chosen.target, report, is_cut=is_cut)


def _warn_of_generation(
    chosen: argparse.Namespace, record: Record, kept: Kept | None, report: Report
) -> None:
    """Warn where a generation shuts the operator out, if its texts are there to tell."""
    connection = _operator(chosen)
    if connection is None or kept is None:
        return
    ruleset = kept_texts.ruleset_of(record, kept, report)
    if ruleset is not None:
        # A rollback ends no open connections.
        _warn(ruleset, connection, kept.target, report, is_cut=False)


def _operator(chosen: argparse.Namespace) -> Connection | None:
    """The connection over which somebody works in the namespace that is changed."""
    return None if chosen.netns is not None else operator.found()


def _warn(
    ruleset: Ruleset, connection: Connection, target: str, report: Report, *, is_cut: bool
) -> None:
    """Warn where whoever works here over SSH could not come in again."""
    warning = operator.shut_out(ruleset, connection, target=target, is_cut=is_cut)
    if warning is not None:
        report.add(warning.code, warning.message, warning.span, help=warning.help)


def _plan_lines(planned: Plan, ending: tuple[Flow, ...]) -> Iterator[str]:
    if planned.is_empty and not ending:
        yield "nothing to change"
        return
    yield from plans.lines(planned.difference)
    for way in planned.others:
        yield f"what {way} holds of ours is removed"
    for flow in ending:
        yield f"ends the open connection {visible(flow.text)}"


def _plan_as_json(planned: Plan, ending: tuple[Flow, ...]) -> dict[str, object]:
    return {
        "way": planned.engine.way,
        **plans.as_json(planned.difference),
        "removes": list(planned.others),
        "ends": [flow.text for flow in ending],
    }


# --- apply -----------------------------------------------------------------------------------


def apply(
    chosen: argparse.Namespace, source: Source | None, teller: Teller, beside: tuple[str, ...] = ()
) -> int:
    """Plan, ask, and put in force: for good, or until it has to be confirmed.

    With `--check` it is only said what would change, and what would hinder it. `beside` is to be
    told in words once it is in force.
    """
    compiled = _compiled(chosen, source, teller.report)
    if compiled is None:
        return _answered(chosen, teller, Answer(Outcome(is_check=chosen.check), is_refused=True))
    planned = _planned(chosen, compiled, teller.report)
    if planned is None:
        return _refused(chosen, teller, Outcome(is_check=chosen.check))
    _warn_of_apply(chosen, compiled, teller.report)
    is_asked_for = chosen.check or chosen.json or not chosen.yes
    ending = _ending(chosen, compiled, planned, teller.report) if is_asked_for else ()
    outcome = Outcome(
        not planned.is_empty or bool(ending),
        is_check=chosen.check,
        way=planned.engine.way,
        confirm_s=_confirm_s(chosen),
        difference=_plan_as_json(planned, ending),
        beside=beside,
    )
    if chosen.check:
        return _foreseen(chosen, planned, outcome, ending, teller)
    if not _is_agreed(chosen, planned, teller, "Load this?", ending):
        return _refused(chosen, teller, outcome)
    file = None if source is None else pipeline.path_of(source)
    path = "" if file is None else str(file.resolve())
    texts, host = _texts(compiled), chosen.host or ""
    name_kept = f"{compiled.name} on {host}" if host else compiled.name
    written = Written(name_kept, chosen.parameters, made_by(), texts, path, host=host)
    return _carry_out(chosen, compiled.ruleset, planned, written, teller, outcome)


def _foreseen(
    chosen: argparse.Namespace,
    planned: Plan,
    outcome: Outcome,
    ending: tuple[Flow, ...],
    teller: Teller,
) -> int:
    """Say what an apply would do, and which generation is in force if that is nothing."""
    state = planned.state
    if state is not None and guard.is_hindered(planned, state, outcome.confirm_s, teller.report):
        return _answered(chosen, teller, Answer(replace(outcome, is_changed=False)))
    if not outcome.is_changed:
        current = None if state is None else state.current
        outcome = replace(outcome, confirm_s=None, generation=current)
    return _answered(chosen, teller, Answer(outcome, tuple(_plan_lines(planned, ending))))


def _texts(compiled: Compiled) -> tuple[SourceFile, ...]:
    """The texts behind the rules, that of the policy itself first."""
    lines = chain.from_iterable(file.origins for file in compiled.artifact.files)
    spans = (origin.span for origins in lines for origin in origins)
    files = {span.file.name: span.file for span in spans if span is not None}
    name = Path(compiled.name).name
    return tuple(sorted(files.values(), key=lambda file: (Path(file.name).name != name, file.name)))


def _carry_out(
    chosen: argparse.Namespace,
    ruleset: Ruleset | None,
    planned: Plan,
    written: Written,
    teller: Teller,
    outcome: Outcome,
    name: str = "",
) -> int:
    """Do what was planned, and tell of it; `outcome` is what is expected to come of it."""
    report = teller.report
    cuts: guard.Flows | None = None
    if ruleset is not None and planned.artifact.needs.cuts_flows:
        cuts = partial(flows.to_cut, ruleset, target=planned.artifact.target)
    done = guard.carry_out(
        planned,
        site_of(chosen.netns),
        written,
        report,
        confirm_s=outcome.confirm_s,
        flows=cuts,
    )
    if done is None:
        return _refused(chosen, teller, outcome)
    came = replace(
        outcome,
        generation=done.kept.number,
        confirm_s=done.confirm_s,
        beside=(*done.words, *outcome.beside),
    )
    lines = _done_lines(chosen, planned, done, name or teller.name)
    return _answered(chosen, teller, Answer(came, (*lines, *outcome.beside)))


def _confirm_s(chosen: argparse.Namespace) -> int | None:
    """In how many seconds the change is to be confirmed, None: it is in force for good."""
    if chosen.confirm is not None:
        return int(chosen.confirm) or None
    is_remote = chosen.netns is None and operator.found() is not None
    return CONFIRM_S if is_remote and _is_terminal() else None


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _is_agreed(
    chosen: argparse.Namespace,
    planned: Plan,
    teller: Teller,
    question: str,
    ending: tuple[Flow, ...] = (),
) -> bool:
    """Whether the change may be made; reports `nobody-to-ask`."""
    if chosen.yes or (planned.is_empty and not ending):
        return True
    if not _is_somebody_there(chosen, teller.report):
        return False
    teller.show_so_far()
    print("\n".join(_plan_lines(planned, ending)))
    return asked(question)


def _is_somebody_there(chosen: argparse.Namespace, report: Report) -> bool:
    """Whether a question can be asked; reports `nobody-to-ask`."""
    if not chosen.json and _is_terminal() and getattr(chosen, "file", None) != "-":
        return True
    why = "`--json` asks nothing" if chosen.json else "standard input is no terminal"
    help_ = "`--yes` does it unasked"
    report.add("nobody-to-ask", f"there is nobody to ask: {why}", None, help=help_)
    return False


def asked(question: str) -> bool:
    """What a person at the terminal says; no where the input ends."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _done_lines(chosen: argparse.Namespace, planned: Plan, done: Done, name: str) -> Iterator[str]:
    where = "" if chosen.netns is None else f" into namespace {visible(chosen.netns)}"
    words = plans.in_words(done.words)
    if done.is_as_it_was:
        yield f"{name}: nothing to change{words}"
    elif done.confirm_s is None:
        yield f"{name}: loaded by {planned.engine.way}{where}{words}"
    else:
        yield f"{name}: loaded by {planned.engine.way}{where} for {done.confirm_s} seconds{words}"
        place = "" if chosen.netns is None else f" --netns {visible(chosen.netns)}"
        yield f"`policylang confirm{place}`, from a new connection, keeps it"


def _refused(chosen: argparse.Namespace, teller: Teller, outcome: Outcome) -> int:
    """Tell that what was in force is in force, if it is; `outcome` is what was expected."""
    left_mixed = any(d.code == "not-restored" for d in teller.report.diagnostics)
    came = replace(outcome, is_changed=left_mixed, confirm_s=None, beside=())
    status = _answered(chosen, teller, Answer(came, is_refused=True))
    if not left_mixed and teller.is_text and not chosen.json:
        print(f"{teller.name}: not loaded; what was in force is in force", file=sys.stderr)
    return status


# --- confirm, rollback, stop, panic ----------------------------------------------------------


def confirm(chosen: argparse.Namespace, teller: Teller) -> int:
    """Keep the change that waits to be confirmed."""
    done = guard.confirm(site_of(chosen.netns), teller.report)
    if done is None:
        return _answered(chosen, teller, Answer(Outcome(), is_refused=True))
    kept, words = done.kept, plans.in_words(done.words)
    line = f"generation {kept.number} of {visible(kept.policy_name)} is in force for good{words}"
    came = Outcome(way=kept.way, generation=kept.number, beside=done.words)
    return _answered(chosen, teller, Answer(came, (line,)))


def rollback(chosen: argparse.Namespace, teller: Teller) -> int:
    """End a change that waits to be confirmed, or load a generation that was in force before."""
    site, report = site_of(chosen.netns), teller.report
    state = guard.at(site, lambda state: state, report)
    if state is None:
        return _answered(chosen, teller, Answer(Outcome(), is_refused=True))
    if state.pending is not None and chosen.number in (None, state.current):
        kept = None if state.current is None else site.record.one(state.current, report)
        _warn_of_generation(chosen, site.record, kept, report)
        if not guard.disarm(site, report):
            return _answered(chosen, teller, Answer(Outcome(), is_refused=True))
        force = "nothing of ours" if state.current is None else f"generation {state.current}"
        line = f"generation {state.pending} is taken back: {force} is in force"
        way = None if kept is None else kept.way
        came = Outcome(is_changed=True, way=way, generation=state.current)
        return _answered(chosen, teller, Answer(came, (line,)))
    number = chosen.number if chosen.number is not None else _before(site.record, state, report)
    kept, artifact = None, None
    if number is not None:
        kept, artifact = site.record.one(number, report), site.record.artifact(number, report)
    planned = None
    if kept is not None and artifact is not None:
        flavour = None if kept.target == "nft" else Flavour(kept.way.removeprefix("iptables-"))
        planned = guard.plan(artifact, site, report, flavour=flavour, number=kept.number)
    if kept is None or planned is None:
        return _refused(chosen, teller, Outcome())
    _warn_of_generation(chosen, site.record, kept, report)
    question = f"Load generation {kept.number} again?"
    outcome = Outcome(
        not planned.is_empty,
        way=planned.engine.way,
        confirm_s=_confirm_s(chosen),
        difference=_plan_as_json(planned, ()),
    )
    if not _is_agreed(chosen, planned, teller, question):
        return _refused(chosen, teller, outcome)
    written = Written(kept.policy_name, dict(kept.parameters), made_by(), host=kept.host)
    name = f"generation {kept.number} of {visible(kept.policy_name)}"
    return _carry_out(chosen, None, planned, written, teller, outcome, name)


def _before(record: Record, state: State, report: Report) -> int | None:
    """The generation that was in force last and can be used; warns of those that cannot."""
    for number in state.history:
        found = Report()
        if record.artifact(number, found) is not None:
            return number
        for one in found.diagnostics:
            report.add("generation-left-out", one.message, None, help=one.help)
    report.add("no-such-generation", "no generation was in force before this one", None)
    return None


def stop(chosen: argparse.Namespace, teller: Teller) -> int:
    """Take all that is ours away, and say what that opens."""
    refused = Answer(Outcome(), is_refused=True)
    if not chosen.yes:
        is_agreed = _is_somebody_there(chosen, teller.report) and asked("Take the firewall away?")
        if not is_agreed:
            return _answered(chosen, teller, refused)
    ways = guard.stop(site_of(chosen.netns), teller.report)
    if ways is None:
        return _answered(chosen, teller, refused)
    done = f"removed what {' and '.join(ways)} held of ours"
    came = Outcome(is_changed=True, beside=(done,)) if ways else Outcome()
    lines: tuple[str, ...] = ("nothing of ours was in force",)
    if ways:
        lines = (
            f"{done}: no rule of policylang is in force, and",
            "whatever it denied is open unless another program's rules deny it",
        )
    # Then neither of these is so, and what was asked for is not done.
    is_left = any(d.code == "left-behind" for d in teller.report.diagnostics)
    answer = Answer(came, came.beside if is_left else lines, is_refused=is_left)
    return _answered(chosen, teller, answer)


def panic(chosen: argparse.Namespace, teller: Teller) -> int:
    """Close everything but the SSH connection of whoever asks, and new ones from there."""
    connection = _let_in(chosen, teller.report)
    cut_off = None if connection is None or chosen.ssh else panicking.cut_off(connection)
    if cut_off is not None:
        teller.report.add(cut_off.code, cut_off.message, cut_off.span, help=cut_off.help)
    chosen.check, chosen.host = False, None
    if teller.report.has_errors:
        return _refused(chosen, teller, Outcome())
    chosen.parameters, chosen.flows, chosen.confirm = {}, "cut", 0
    chosen.target = chosen.target or _target_in_force(chosen, teller.report)
    source = Text(panicking.panic_policy(connection), panicking.NAME, Path("/"))
    beside = ("no SSH connection was found: nothing is let in",) if connection is None else ()
    return apply(chosen, source, teller, beside)


def _let_in(chosen: argparse.Namespace, report: Report) -> Connection | None:
    """From where SSH stays open: what was asked for, or where the operator's own came from."""
    if chosen.ssh is None:
        return None if chosen.netns is not None else operator.found()
    address = parse_one_address(chosen.ssh)
    if address is None:
        message = f"`{visible(chosen.ssh)}` is not a single address"
        report.add("bad-element", message, None, help="write one as in 192.0.2.1 or 2001:db8::1")
        return None
    return Connection(address, 0, address, operator.SSH_PORT)


def _target_in_force(chosen: argparse.Namespace, report: Report) -> str:
    """The target of what is in force, or else nft; its flavour, too, where none was asked for."""
    site = site_of(chosen.netns)
    state = guard.at(site, lambda state: state, report)
    kept = None if state is None else recovery.kept_of(site.record, state.current)
    if kept is None:
        return "nft"
    if kept.target == "iptables" and chosen.flavour is None:
        chosen.flavour = kept.way.removeprefix("iptables-")
    return kept.target
