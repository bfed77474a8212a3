"""Questions to a policy of several hosts: each that packets come by is asked, and all together."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policylang import pipeline
from policylang.analysis.answers import Told, told
from policylang.analysis.modelled import machine_of
from policylang.analysis.naming import names_of
from policylang.analysis.parts import parts_of
from policylang.analysis.questions import Answer
from policylang.analysis.site import OnHost, Site, Way
from policylang.analysis.site_hosts import OneHost
from policylang.analysis.wording import Names
from policylang.cli.fleet import merge
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.ir.stages import Path
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.scope import told_hosts
from policylang.model.types import PolicyRule
from policylang.source import SourceFile
from policylang.syntax.tree import HostDecl, Loaded

MOST_SHOWN = 6  # parts of what one host answers, unless all are asked for

DOES = {Path.OUTPUT: "sends", Path.FORWARD: "passes on", Path.INPUT: "receives"}
PATHS = {Path.OUTPUT: "outbound", Path.FORWARD: "forward", Path.INPUT: "inbound"}


@dataclass(frozen=True, slots=True)
class ToldPart:
    """What one host answers, in words; `left_out` are the parts that are not shown."""

    on: OnHost
    parts: tuple[Told, ...]
    left_out: int


def answer(
    loaded: Loaded,
    chosen: argparse.Namespace,
    questions: tuple[SourceFile, ...],
    report: Report,
) -> tuple[int, list[str]]:
    """The exit status, and the lines or the JSON text that answer the questions to a site.

    The questions are the last of the policy's tests.
    """
    hosts = hosts_of(loaded, report)
    if report.has_errors:
        return REFUSED, []
    count = len(questions)
    asked = {host.name: questions_of(host.policy)[-count:] for host in hosts}
    site = Site(hosts, lambda host: asked[host.name], report)
    ways = [
        site.way({name: rules[number] for name, rules in asked.items()}) for number in range(count)
    ]
    if report.has_errors:
        return REFUSED, []
    most = None if chosen.all or chosen.format == "json" else MOST_SHOWN
    shown = [
        (file.text, way, [_told(part, asked[part.host.name], most) for part in way.parts])
        for file, way in zip(questions, ways, strict=True)
    ]
    status = DONE if all(way.answer is Answer.YES for way in ways) else CHANGES
    nowhere = tuple(host.name for host in hosts if not host.addresses)
    if chosen.format == "json":
        return status, [json.dumps(_as_json(shown, nowhere), indent=2)]
    lines: list[str] = []
    for text, way, parts in shown:
        lines += [""] * bool(lines)
        lines += _lines(text, way, parts)
    if nowhere:
        who = told_hosts(nowhere)
        lines += ["", f"Without an address it is not told what {who} sends or receives."]
    return status, lines


def hosts_of(loaded: Loaded, report: Report) -> tuple[OneHost, ...]:
    """The hosts of a policy, each with what it means there; errors of all are reported at once."""
    return tuple(host for host, _ in with_rules(loaded, report))


def with_rules(loaded: Loaded, report: Report) -> tuple[tuple[OneHost, Ruleset], ...]:
    """The same, each with its rules: not optimised, so that each rule is of one statement."""
    found: list[tuple[OneHost, Ruleset]] = []
    reports: dict[str, Report] = {}
    declared = {s.name.text: s for s in loaded.statements if isinstance(s, HostDecl)}
    for name, declaration in declared.items():
        own = reports[name] = Report()
        chosen = pipeline.of_host(loaded, name, own)
        policy = None if chosen is None else pipeline.meant_by(chosen, own)
        if policy is None:
            continue
        ruleset = lower(policy, own)
        if not own.has_errors:
            machine = machine_of(ruleset)
            is_gateway = declaration.is_gateway
            host = OneHost(name, policy.addresses, is_gateway, policy, machine)
            found.append((host, ruleset))
    errors = {name: _errors(own) for name, own in reports.items()}
    merge(errors, report)
    return tuple(found)


def _errors(report: Report) -> Report:
    """What stands in the way of an answer; warnings are for who compiles."""
    return Report([d for d in report.diagnostics if d.severity == "error"])


def questions_of(policy: Policy) -> tuple[PolicyRule, ...]:
    """What all tests of a policy ask, in order."""
    return tuple(e.asked for test in policy.tests for e in test.expectations)


def _told(part: OnHost, asked: tuple[PolicyRule, ...], most: int | None) -> ToldPart:
    names: Names = names_of(part.host.policy, part.asker.tests, asked)
    parts = parts_of(part.found, part.beginnings)
    shown = told(parts, names, most)
    return ToldPart(part, shown, len(parts) - len(shown))


def _lines(question: str, way: Way, parts: list[ToldPart]) -> Iterator[str]:
    from policylang.cli.querying import folded, part_lines

    stops = tuple(dict.fromkeys(p.on.host.name for p in parts if p.on.answer is Answer.NO))
    by = f": {told_hosts(stops)} stop{'' if len(stops) > 1 else 's'} it" if stops else ""
    yield f"{visible(question)}: {way.answer}{by if way.answer is Answer.NO else ''}"
    if not parts:
        yield "  no packet between hosts, or by a gateway, is asked about"
    for part in parts:
        on = part.on
        how = " (sent on)" if on.is_sent_on else ""
        yield ""
        yield f"  {on.host.name} {DOES[on.path]}{how}: {on.answer}"
        for one in part.parts:
            for line in part_lines(one):
                yield from folded(f"  {line}").split("\n")
        if part.left_out:
            yield f"    … and {part.left_out} parts more; `--all` shows them"


def _as_json(
    shown: list[tuple[str, Way, list[ToldPart]]], nowhere: tuple[str, ...]
) -> Mapping[str, object]:
    """As of one firewall, but that an answer has `hosts` for `parts`.

    `without_address` are hosts of which it is not told what they send or receive. Each of an
    answer's hosts has `host`, `path`, `answer`, `sent_on` (whether another host changed the
    addresses) and its own `parts`.
    """
    from policylang.cli.querying import part_as_json

    return {
        "version": 1,
        "families": [4, 6],
        "without_address": list(nowhere),
        "answers": [
            {
                "question": text,
                "answer": str(way.answer),
                "hosts": [
                    {
                        "host": part.on.host.name,
                        "path": PATHS[part.on.path],
                        "answer": str(part.on.answer),
                        "sent_on": part.on.is_sent_on,
                        "parts": [part_as_json(one) for one in part.parts],
                    }
                    for part in parts
                ],
            }
            for text, way, parts in shown
        ],
    }
