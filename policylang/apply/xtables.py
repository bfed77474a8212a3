"""Loads an iptables artifact: sets, IPv4 rules, IPv6 rules; all of it or what was there before.

iptables commits each table of each family by itself, and ipset every line. So what is ours is
read first, and where a later part fails, what is in by then is replaced by what was there. It
knows the order of these steps, and nothing of what the rules say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policylang.apply import ipsets, live_ipsets, programs
from policylang.apply.generation import (
    Generation,
    replacement,
    rules_file,
    with_counts,
)
from policylang.apply.livesets import LiveSets, by_identity
from policylang.apply.restore import (
    Tool,
    refused_line,
    report_failure,
    restore,
    saved,
    sought_line,
)
from policylang.apply.xtables_steps import (
    replacement_in_steps,
)
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.iptables import RULES, SETS
from policylang.diagnostics import Report


@dataclass(frozen=True, slots=True)
class Part:
    """One family: its rules in the artifact, and what is there before.

    `listed` is what the kernel makes of the rules, with what they have counted so far.
    """

    tool: Tool
    file: OutputFile
    before: Generation
    listed: Generation = ()


def load(
    artifact: Artifact,
    tools: Sequence[Tool],
    report: Report,
    carried: LiveSets | None = None,
    *,
    listed: Sequence[Generation] = (),
    is_in_force: bool = False,
) -> bool:
    """Replace what is ours in this thread's namespace; False where it is as it was before.

    Sets that the new rules do not use stay: the rules of another flavour may still use them.
    Dynamic sets keep their elements, and those of `carried` come to them. `listed` is, for each
    family, what the kernel makes of the rules, with what they count on from. Where the same rules
    are in force in other chains of ours, as those of a pending generation, no step is needed that
    sees to the packets between two commits.

    Reports `refused-by-kernel` at the statement, `program-missing`, `loading-failed`,
    `lock-held` and `not-restored`.
    """
    sets = artifact.file(SETS)
    parts = _parts(artifact, tools, report, listed)
    old_sets = ipsets.saved(report) if sets is not None else {}
    if parts is None or old_sets is None:
        return False
    if (
        # A test, too, looks for the sets that the rules name: they come first.
        (sets is None or _load_sets(sets, old_sets, carried or {}, report))
        and all(_restore(part, report, is_test=True) for part in parts)
        and all(_restore(part, report, in_steps=not is_in_force) for part in parts)
    ):
        return True
    _put_back(parts, old_sets if sets is not None else None, report)
    return False


def _load_sets(file: OutputFile, before: ipsets.Saved, carried: LiveSets, report: Report) -> bool:
    declared = live_ipsets.dynamic_sets(file.text)
    if not (
        # `create -exist` takes no set that is declared otherwise.
        live_ipsets.made_as_declared(ipsets.live_sets(before), by_identity(declared), report)
        and ipsets.load(file, report)
    ):
        return False
    if not any(live.identity in carried for live in declared):
        return True
    now = ipsets.saved(report)
    return now is not None and live_ipsets.filled(ipsets.live_sets(now), carried, report)


def rehearse(artifact: Artifact, tools: Sequence[Tool], report: Report) -> bool:
    """Load into this thread's namespace, which must be a scratch one; reports as `load` does.

    Where the kernel refuses a whole table, the rule that it refuses is sought.
    """
    sets = artifact.file(SETS)
    parts = _parts(artifact, tools, report)
    return (
        parts is not None
        and (sets is None or ipsets.load(sets, report))
        and all(_restore(part, report, in_steps=True, seek=True) for part in parts)
    )


def remove(tools: Sequence[Tool], report: Report) -> bool:
    """Remove the rules that are ours; whether there were any. Reports `left-behind`."""
    removed = False
    for tool in tools:
        quiet = Report()  # without the programs, or the kernel's part, nothing of ours is there
        before = saved(tool, quiet) if programs.find(tool.save) else None
        if not before:
            continue
        finished = restore(tool, replacement("", before), quiet)
        if finished is not None and finished.ok:
            removed = True
        else:
            message = f"cannot remove the chains that `{tool.save}` shows of an earlier apply"
            report.add("left-behind", message, None, help=finished.words if finished else None)
    return removed


def _parts(
    artifact: Artifact, tools: Sequence[Tool], report: Report, listed: Sequence[Generation] = ()
) -> tuple[Part, ...] | None:
    parts: list[Part] = []
    names = (name for name, _ in RULES.values())
    for tool, name, of_family in zip(tools, names, listed or ((),) * len(tools), strict=True):
        file = artifact.file(name)
        assert file is not None, f"an iptables artifact has {name}"
        before = saved(tool, report)
        if before is None:
            return None
        parts.append(Part(tool, file, before, of_family))
    return tuple(parts)


def _restore(
    part: Part,
    report: Report,
    *,
    is_test: bool = False,
    in_steps: bool = False,
    seek: bool = False,
) -> bool:
    in_order = replacement_in_steps if in_steps else replacement
    lines = with_counts(in_order(part.file.text, part.before), part.file.text, part.listed)
    finished = restore(part.tool, lines, report, *(["--test"] if is_test else []))
    if finished is None or finished.ok:
        return finished is not None
    index = refused_line(finished, lines)
    if index is not None and seek:
        index = sought_line(part.tool, lines, index)
    report_failure(part.tool, finished, lines, index, part.file, report)
    return False


def _put_back(parts: Sequence[Part], old_sets: ipsets.Saved | None, report: Report) -> None:
    """Replace what is there of ours by what was, the last family first.

    `old_sets` are None where no set was touched.
    """
    failures = Report()
    if old_sets is not None:
        ipsets.put_back(old_sets, failures)
    for part in reversed(parts):
        now = saved(part.tool, failures)
        if now is None or now == part.before:
            continue
        rules = rules_file(part.before)
        lines = with_counts(replacement_in_steps(rules, now), rules, part.before)
        finished = restore(part.tool, lines, failures)
        if finished is not None and not finished.ok:
            failures.add(
                "loading-failed", f"`{part.tool.restore}` failed", None, help=finished.words
            )
    if failures.has_errors:
        words = "\n".join(d.help or d.message for d in failures.diagnostics)
        report.add("not-restored", "the rules of before could not be put back", None, help=words)
    elif old_sets is not None:
        ipsets.destroy_others(old_sets.keys(), report)
