"""Reads the rules of a policy, or of a generation, together with the statements behind them.

What is asked of them it does not know.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from policylang import pipeline
from policylang.analysis.machine import Machine
from policylang.analysis.modelled import machine_of
from policylang.apply import engines, guard, members, nft, recovery
from policylang.apply.livesets import LiveSet
from policylang.apply.nft_listing import SWITCH, ListedRule
from policylang.apply.written import WrittenLine, written
from policylang.backends.base import Artifact
from policylang.cli.changing import site_of
from policylang.cli.given import given
from policylang.cli.kept_texts import laid_out
from policylang.cli.subjects import NFT, artifact_in_record, in_force, machine_of_artifact
from policylang.diagnostics import Report
from policylang.ir.ruleset import AddressTest
from policylang.lower.stateful import lower
from policylang.source import SourceFile

if TYPE_CHECKING:
    from policylang.syntax.tree import Loaded

_COUNTED = re.compile(r"(?:^\[\d+:\d+\] )|(?: counter packets \d+ bytes \d+)")
_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.)*)"'
_COMMENT = re.compile(
    rf'(?: comment "(?P<nft>[^"]*)")|(?:-m comment --comment (?:{_QUOTED}|(?P<bare>\S+)) ?)'
)


@dataclass(frozen=True, slots=True)
class Known:
    """Rules whose statements are known: those of a policy, or of a generation.

    `machine` is what packets meet, with `address_tests` where it is a policy's. `handles` are the
    rules by the kernel's number, `listed` by their text as the kernel has it. `folder` is where
    lists are, None where they were not kept; `live` what is in dynamic sets.
    """

    name: str
    artifact: Artifact
    machine: Machine
    address_tests: tuple[AddressTest, ...] = ()
    lines: tuple[WrittenLine, ...] = ()
    handles: dict[int, WrittenLine] = field(default_factory=dict)
    listed: dict[str, list[WrittenLine]] = field(default_factory=dict)
    loaded: Loaded | None = None
    folder: Path | None = None
    live: tuple[LiveSet, ...] = ()

    def may_be(self, rule: ListedRule, line: WrittenLine) -> bool:
        """Whether a rule that is in force may be a line of ours, as far as their texts tell."""
        return not self.listed or line in self.listed.get(bare(rule.text), ())


def known_of(chosen: argparse.Namespace, report: Report) -> Known | None:
    """The rules that a command line names: of `--policy`, else of a generation.

    None, with errors in the report, where they cannot be had.
    """
    if chosen.policy is not None:
        return _of_policy(chosen, report)
    return _of_record(chosen, report)


def _of_policy(chosen: argparse.Namespace, report: Report) -> Known | None:
    own = Report()
    path = Path(chosen.policy)
    besides = given(chosen, report)
    if besides is None:
        return None
    loaded = pipeline.loaded_from(besides.to(path), own, chosen.parameters)
    policy = pipeline.meant_by(loaded, own)
    ruleset = None if policy is None else pipeline.optimised(lower(policy, own), own)
    target = chosen.target or NFT
    artifact = None if ruleset is None else pipeline.artifact_of(ruleset, target, own)
    if ruleset is None or artifact is None:
        report.take(own)
        return None
    machine = machine_of(ruleset, target=target)
    lines = tuple(written(artifact))
    tests = ruleset.address_tests
    known = Known(str(path), artifact, machine, tests, lines, loaded=loaded, folder=path.parent)
    return _as_listed(known, Report())


def _of_record(chosen: argparse.Namespace, report: Report) -> Known | None:
    """A generation: that of a number, or the one in force."""
    record = site_of(chosen.netns).record
    found = artifact_in_record(record, chosen.generation, report)
    if found is None:
        return None
    number, artifact = found
    machine = machine_of_artifact(f"generation {number}", artifact, report)
    sources = record.sources(number, report)
    kept = record.one(number, report)
    if machine is None or sources is None or kept is None:
        return None
    lines = tuple(written(artifact))
    loaded = _read_again(sources, dict(kept.parameters), kept.host or None)
    known = Known(f"generation {number}", artifact, machine, (), lines, loaded=loaded)
    live = members.listed(None, Report(), netns=chosen.netns) or ()
    known = replace(_as_listed(known, Report()), live=tuple(live))
    # The kernel numbers the rules that are in force, and those of no other generation.
    is_in_force = number == in_force(record, report)
    return _with_handles(known, chosen.netns) if is_in_force else known


def _read_again(
    files: Sequence[SourceFile], parameters: dict[str, str], host: str | None
) -> Loaded | None:
    """The policy of a generation, as far as its texts were kept: for the names of its sets."""
    with laid_out(files) as path:
        if path is None:
            return None
        return pipeline.loaded_from(pipeline.OfHost(path, host), Report(), parameters)


def _as_listed(known: Known, report: Report) -> Known:
    """With the texts of rules as the kernel would list them, where this process may ask it."""
    engine = engines.chosen(known.artifact.target, None, report)
    loaded = None if engine is None else recovery.as_loaded(engine, known.artifact, report)
    if loaded is None:
        return known
    own = _by_place(known.lines)
    listed: dict[str, list[WrittenLine]] = {}
    for chain in loaded.chains:
        lines = own.get(chain.place, [])
        if len(lines) == len(chain.rules):
            for rule, line in zip(chain.rules, lines, strict=True):
                listed.setdefault(bare(rule.text), []).append(line)
    return replace(known, listed=listed)


def _with_handles(known: Known, netns: str | None) -> Known:
    """With the numbers that the kernel gave to the rules that are in force."""
    quiet = Report()
    if known.artifact.target != NFT:
        return known
    tables = guard.inside(site_of(netns), lambda: nft.tables_of_ours(quiet), quiet)
    if tables is None:
        return known
    own = _by_place(known.lines)
    handles: dict[int, WrittenLine] = {}
    for table in (tables.pending, tables.ours):
        for chain in () if table is None else table.chains:
            lines = own.get(f"chain {chain.name}", [])
            rules = [rule for rule in chain.rules if SWITCH not in rule.text]
            is_whole = len(lines) == len(rules) and all(map(known.may_be, rules, lines))
            same = lines if is_whole else [_same(rule, lines, known) for rule in rules]
            pairs = zip(rules, same, strict=True)
            handles |= {r.handle: line for r, line in pairs if line is not None and r.handle}
    return replace(known, handles=handles)


def _by_place(lines: Iterable[WrittenLine]) -> dict[str, list[WrittenLine]]:
    found: dict[str, list[WrittenLine]] = {}
    for line in lines:
        found.setdefault(line.place, []).append(line)
    return found


def _same(rule: ListedRule, lines: list[WrittenLine], known: Known) -> WrittenLine | None:
    """The line of a chain that a rule is, where others stand beside it that nobody wrote."""
    wanted = known.listed.get(bare(rule.text), [])
    said = comment(rule.text)
    fitting = [line for line in lines if line in wanted]
    fitting = fitting or [line for line in lines if said and comment(line.text) == said]
    return fitting[0] if fitting else None


def bare(rule: str) -> str:
    """A rule without its comment and its counts, the space between its words folded."""
    return " ".join(_COMMENT.sub(" ", without_counts(rule)).split())


def without_counts(rule: str) -> str:
    """A rule without what it counted."""
    return _COUNTED.sub("", rule)


def comment(rule: str) -> str:
    """The comment of a rule as nft or iptables shows it, empty where it has none."""
    found = _COMMENT.search(rule)
    if found is None:
        return ""
    quoted = found["quoted"]
    text = re.sub(r"\\(.)", r"\1", quoted) if quoted else found["nft"] or found["bare"] or ""
    return str(text)
