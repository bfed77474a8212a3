"""The command `verify`: whether rules, and those in force too, do what a policy says."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from policylang import pipeline
from policylang.analysis.agreement import Disagreement
from policylang.analysis.diagram import TooLargeError
from policylang.analysis.differing import in_words, packet_in_words
from policylang.apply import engines, guard, modules, programs, proved, transaction, verified
from policylang.apply.engine import Engine
from policylang.apply.restore import Flavour
from policylang.apply.state import State
from policylang.apply.transaction import Rehearsal
from policylang.apply.verified import Beside, Found
from policylang.backends import TARGETS
from policylang.cli.changing import site_of
from policylang.cli.fleet import merge
from policylang.cli.formats import ELSEWHERE
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import as_json
from policylang.cli.teller import Teller, show
from policylang.cli.visible import visible
from policylang.diagnostics import Report, Severity
from policylang.ir.ruleset import Ruleset
from policylang.pipeline import Source
from policylang.syntax.tree import Loaded

MOST_TOLD = 5  # differences of what is in force


@dataclass(frozen=True, slots=True)
class Verified:
    """One way to load, in which the rules were looked at, and how long that took.

    `is_proved` is false where there was too much to prove.
    """

    way: str
    engine: Engine
    rehearsal: Rehearsal
    seconds: float
    is_proved: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a policy, or of a host of one; `name` is what lines call it.

    `left_out` are targets, each with why the policy cannot be loaded by it.
    """

    name: str
    ways: tuple[Verified, ...]
    left_out: tuple[tuple[str, str], ...]
    found: Found | None
    report: Report

    @property
    def agrees(self) -> bool:
        """Whether all that was asked for is proved."""
        if self.report.has_errors or _is_unproved(self.report):
            return False
        return self.found is None or not self.found.differences


def verify(chosen: argparse.Namespace, source: Source | None, teller: Teller) -> int:
    """Prove the rules by each way that was asked for; with `--live` compare what is in force.

    Of a policy of several hosts, of which none is chosen, those of each. What is in force is that
    of one host: `which-host`.

    With `--format json` one object on standard output: `version` 1, `agrees`, `ways` with `way`,
    `seconds` and `proved` (false where there was too much to prove) of each, `left_out` with
    `target` and `why` of each that the policy cannot be loaded by, `live` (null without `--live`)
    with `way`, `agrees`, `differences` and `beside`, and `diagnostics` as `check` tells them. A
    difference has `hook`, `packet`, `should`, `does`, `statement` and `rule`; what others' rules
    change has `hook`, `packet`, `denied`, `sure` and `rule`. Of several hosts: `version`, `agrees`,
    `hosts` with such an object for each by its name, and `diagnostics` of all.
    """
    report = teller.report
    loaded = None if source is None else pipeline.loaded_from(source, report, chosen.parameters)
    if loaded is not None and loaded.here is None and loaded.hosts and not chosen.live:
        return _verify_hosts(chosen, loaded, teller)
    one = _outcome(chosen, loaded, teller.name, report)
    if chosen.format == "json":
        print(json.dumps(_as_json(one), indent=2))
    else:
        # One log, or commands that would else be lost among others' words, by themselves.
        if chosen.format in ELSEWHERE:
            show(report, chosen, sys.stdout)
        else:
            teller.show()
        _tell(chosen, one)
    if report.has_errors:
        return REFUSED
    return DONE if one.agrees else CHANGES


def _verify_hosts(chosen: argparse.Namespace, loaded: Loaded, teller: Teller) -> int:
    """The same for each host; lines are told as they are found, messages once for all."""
    report = teller.report
    outcomes: dict[str, Outcome] = {}
    for host in loaded.hosts:
        own = Report()
        here = pipeline.of_host(loaded, host, own)
        name = f"{teller.name} on {visible(host)}"
        if report.has_errors and here is not None:  # told of what was read: nothing is proved of it
            pipeline.meant_by(here, own)
            outcomes[host] = Outcome(name, (), (), None, own)
            continue
        outcomes[host] = _outcome(chosen, here, name, own)
        if chosen.format != "json":
            _tell(chosen, outcomes[host])
    merge({host: one.report for host, one in outcomes.items()}, report)
    agrees = not report.has_errors and all(one.agrees for one in outcomes.values())
    if chosen.format == "json":
        told = {
            "version": 1,
            "agrees": agrees,
            "hosts": {host: _as_json(one) for host, one in outcomes.items()},
            "diagnostics": json.loads(as_json(report.in_order())),
        }
        print(json.dumps(told, indent=2))
    elif chosen.format in ELSEWHERE:
        show(report, chosen, sys.stdout)
    else:
        teller.show()
    if report.has_errors:
        return REFUSED
    return DONE if agrees else CHANGES


def _outcome(
    chosen: argparse.Namespace, loaded: Loaded | None, name: str, report: Report
) -> Outcome:
    ruleset = None
    if loaded is not None:
        ruleset = pipeline.lowered(loaded, report)
    looked_at: list[Verified] = []
    left_out: list[tuple[str, str]] = []
    found: Found | None = None
    if ruleset is not None and not report.has_errors:
        ways = _ways(chosen, report)
        for target, engine in ways:
            own = Report()
            done = _verified(ruleset, target, engine, own)
            if done is None and chosen.target is None and _is_unsupported(own):
                left_out.append((target, next(d.message for d in own.in_order())))
                continue
            report.take(own)
            if done is not None:
                looked_at.append(done)
        if chosen.live and not report.has_errors:
            found = _live(chosen, ruleset, looked_at, report)
    if not (looked_at or report.has_errors):
        for _, why in left_out:
            help_ = "no target that is here can express the whole policy"
            report.add("unsupported", why, None, help=help_)
    if not (looked_at or report.has_errors):
        report.add(
            "program-missing",
            "no program is here that could load the rules",
            None,
            help="install the package `nftables` or `iptables`",
        )
    return Outcome(name, tuple(looked_at), tuple(left_out), found, report)


def _ways(chosen: argparse.Namespace, report: Report) -> list[tuple[str, Engine]]:
    """The ways to prove the rules by; where none was asked for, those whose programs are here."""
    flavour = None if chosen.flavour is None else Flavour(chosen.flavour)
    wanted = TARGETS if chosen.target in (None, "both") else (chosen.target,)
    ways: list[tuple[str, Engine]] = []
    for target in wanted:
        if chosen.target is None and not _is_here(target):
            continue
        engine = engines.chosen(target, flavour, report)
        if engine is not None:
            ways.append((target, engine))
    return ways


def _is_here(target: str) -> bool:
    return programs.find("nft" if target == "nft" else "iptables-restore") is not None


def _is_unsupported(found: Report) -> bool:
    errors = [d for d in found.diagnostics if d.severity is Severity.ERROR]
    return bool(errors) and all(d.code == "unsupported" for d in errors)


def _is_unproved(found: Report) -> bool:
    return any(d.code == "unproved" for d in found.diagnostics)


def _verified(ruleset: Ruleset, target: str, engine: Engine, report: Report) -> Verified | None:
    began = time.monotonic()
    rules = pipeline.optimised(ruleset, report)
    artifact = None if rules is None else pipeline.artifact_of(rules, target, report)
    if artifact is None or modules.load(artifact.needs.modules, report) is None:
        return None
    rehearsal = transaction.rehearsal(artifact, engine, report)
    if rehearsal is None or not proved.is_proved(ruleset, rehearsal, engine, report):
        return None
    seconds = time.monotonic() - began
    return Verified(engine.way, engine, rehearsal, seconds, not _is_unproved(report))


def _live(
    chosen: argparse.Namespace, ruleset: Ruleset, ways: list[Verified], report: Report
) -> Found | None:
    """What is in force, compared; None, with an error or `unproved`, where it cannot be."""

    def look(state: State) -> Found | None:
        in_force = [engine.way for engine in engines.in_force(report)]
        if state.pending is not None:
            message = f"generation {state.pending} is in force, and waits to be confirmed"
            help_ = "`policylang confirm` keeps it, `policylang rollback` ends it: then ask again"
            report.add("not-yet-confirmed", message, None, help=help_)
            return None
        if not in_force:
            message = "nothing of ours is in force that could be compared with"
            report.add("no-such-generation", message, None, help="`policylang apply` loads it")
            return None
        one = next((way for way in ways if way.way == in_force[0]), None)
        if one is None:
            engine = engines.by_way(in_force[0])
            one = _verified(ruleset, "nft" if engine.way == "nft" else "iptables", engine, report)
        if one is None:
            return None
        try:
            return verified.compared(ruleset, one.rehearsal, one.engine, report, MOST_TOLD)
        except TooLargeError:
            message = "there are too many different packets to compare what is in force"
            report.add("unproved", message, None, help="`policylang drift` compares the words")
            return None

    return guard.at(site_of(chosen.netns), look, report)


# --- telling ----------------------------------------------------------------------------------


def _tell(chosen: argparse.Namespace, one: Outcome) -> None:
    stream = sys.stderr if chosen.format in ELSEWHERE else sys.stdout
    for line in _lines(one):
        print(line, file=stream)


def _lines(one: Outcome) -> Iterator[str]:
    name, found = one.name, one.found
    for target, why in one.left_out:
        yield f"{name}: {target} is left out: {visible(why)}"
    if one.report.has_errors:
        return
    for way in one.ways:
        does = "does with every packet what the policy says" if way.is_proved else "is not proved"
        yield f"{name}: {way.way} {does}"
    if found is None:
        return
    if found.differences:
        yield f"{name}: what is in force by {found.way} differs:"
        for difference in found.differences:
            yield from _difference_lines(difference)
    else:
        yield f"{name}: what is in force by {found.way} does with every packet what was loaded"
    for beside in found.beside:
        yield _beside_line(beside)


def _difference_lines(one: Disagreement) -> Iterator[str]:
    told = in_words(one)
    yield f"  {visible(told.packet)} ({told.hook})"
    yield f"    {visible(told.loaded)}, where the policy {visible(told.meant)}"
    if told.statement is not None:
        yield f"    at {visible(told.statement.text)}"
    if told.line:
        yield f"    by {visible(told.line)}"
    if told.beside:
        yield f"    depending on {visible(told.beside)}"


def _beside_line(beside: Beside) -> str:
    surely, perhaps = ("denies", "may deny") if beside.is_denied else ("lets pass", "may let pass")
    does = surely if beside.is_sure else perhaps
    by = f" ({visible(beside.place)})" if beside.place else ""
    what = "what the policy lets pass" if beside.is_denied else "what the policy denies"
    packet = visible(packet_in_words(beside.packet))
    return f"  another program's rule{by} {does} {what}: {packet} ({beside.where[0].value})"


def _as_json(one: Outcome) -> dict[str, object]:
    return {
        "version": 1,
        "agrees": one.agrees,
        "ways": [
            {"way": way.way, "seconds": round(way.seconds, 3), "proved": way.is_proved}
            for way in one.ways
        ],
        "left_out": [{"target": target, "why": why} for target, why in one.left_out],
        "live": None if one.found is None else _found_as_json(one.found),
        "diagnostics": json.loads(as_json(one.report.in_order())),
    }


def _found_as_json(found: Found) -> dict[str, object]:
    return {
        "way": found.way,
        "agrees": not found.differences,
        "differences": [
            {
                "hook": told.hook,
                "packet": told.packet,
                "should": told.meant,
                "does": told.loaded,
                "statement": told.statement.text if told.statement is not None else None,
                "rule": told.line or None,
            }
            for told in map(in_words, found.differences)
        ],
        "beside": [
            {
                "hook": one.where[0].value,
                "packet": packet_in_words(one.packet),
                "denied": one.is_denied,
                "sure": one.is_sure,
                "rule": one.place or None,
            }
            for one in found.beside
        ],
    }
