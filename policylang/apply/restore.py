"""Runs iptables-save and iptables-restore; knows what their answers mean, not what rules mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from policylang.apply import present, programs
from policylang.apply.generation import Generation, InputLine, read
from policylang.apply.programs import Finished
from policylang.apply.refusal import report_refusal
from policylang.backends.base import OutputFile
from policylang.diagnostics import Report

LOCK_PATIENCE_S = 20  # others hold the lock for as long as one load takes them


class Flavour(StrEnum):
    """Which part of the kernel iptables speaks to."""

    NFT = "nft"
    LEGACY = "legacy"


FAMILY_OF = {"iptables": "ip", "ip6tables": "ip6"}
TABLES = ("raw", "mangle", "nat", "filter", "security")  # iptables(8), and of what family in nft


@dataclass(frozen=True, slots=True)
class Tool:
    """The programs of one family and flavour; `stem` is what both their names begin with."""

    stem: str
    flavour: Flavour

    @property
    def save(self) -> str:
        return f"{self.stem}-save"

    @property
    def restore(self) -> str:
        return f"{self.stem}-restore"

    @property
    def holds_nothing(self) -> bool:
        """Whether there is no table that it could list, as far as the kernel says."""
        program, _, _ = self.stem.partition("-")
        if self.flavour is Flavour.LEGACY:
            return present.legacy_tables(program) == frozenset()
        there = present.nft_tables()
        family = FAMILY_OF[program]
        return there is not None and there.isdisjoint(f"{family} {table}" for table in TABLES)


FAMILIES = tuple(FAMILY_OF)  # in the order in which they are loaded


def tools(flavour: Flavour) -> tuple[Tool, ...]:
    """The programs of a flavour, by names that mean it on every machine."""
    return tuple(Tool(f"{family}-{flavour}", flavour) for family in FAMILIES)


def usual_tools(report: Report) -> tuple[Tool, ...] | None:
    """What `iptables` is on this machine; None, and `program-missing`, where it is nothing."""
    finished = programs.run(["iptables-restore", "--version"], report)
    if finished is None:
        return None
    # "iptables-restore v1.8.9 (nf_tables)"; before 1.8 there was legacy alone, and it says neither.
    flavour = Flavour.NFT if "nf_tables" in finished.stdout else Flavour.LEGACY
    return tuple(Tool(family, flavour) for family in FAMILIES)


def saved(tool: Tool, report: Report) -> Generation | None:
    """What is ours now, and what it counted; None, and `loading-failed`, where it is not told."""
    if programs.find(tool.save) is not None and tool.holds_nothing:
        return ()
    finished = programs.run([tool.save, "-c"], report)
    if finished is None:
        return None
    words = finished.words
    if finished.ok:
        try:
            return read(finished.stdout)
        except ValueError as error:
            words = str(error)
    report.add("loading-failed", f"`{tool.save}` does not tell what is loaded", None, help=words)
    return None


def restore(
    tool: Tool, lines: Sequence[InputLine], report: Report, *options: str
) -> Finished | None:
    """Hand lines to iptables-restore, beside the rules that are there; its failure is told.

    None, and `program-missing` or `lock-held`, where it did not come to read the lines.
    """
    argv = [tool.restore, "--noflush", f"--wait={LOCK_PATIENCE_S}", *options]
    if any(line.count is not None for line in lines):
        argv.append("--counters")
    finished = programs.run(argv, report, stdin="".join(f"{_text(line)}\n" for line in lines))
    if finished is not None and not finished.ok and "xtables lock" in finished.stderr:
        message = f"another program held the lock of iptables for {LOCK_PATIENCE_S} seconds"
        report.add("lock-held", message, None, help=finished.words)
        return None
    return finished


def _text(line: InputLine) -> str:
    if line.count is None:
        return line.text
    return f"[{line.count.packets}:{line.count.bytes}] {line.text}"


def refused_line(finished: Finished, lines: Sequence[InputLine]) -> int | None:
    """The index of the line that a failed restore names, or None."""
    found = re.search(r"\bline:? (\d+)", finished.stderr)
    index = int(found[1]) - 1 if found else len(lines)
    return index if index < len(lines) else None


def sought_line(tool: Tool, lines: Sequence[InputLine], index: int) -> int:
    """The index of the line to blame where a failed restore named `index`.

    iptables-legacy names a COMMIT when the kernel refuses a table. Then more and fewer of the
    table's first rules are loaded into this thread's namespace, which must be a scratch one,
    until a single rule makes the difference.
    """
    if lines[index].text != "COMMIT":
        return index
    start = max(i for i in range(index) if lines[i].text.startswith("*"))
    rules = [i for i in range(start, index) if lines[i].text.startswith("-A ")]

    def takes(count: int) -> bool:
        wanted = sorted(set(range(start, index + 1)) - set(rules[count:]))
        finished = restore(tool, [lines[i] for i in wanted], Report())
        return finished is not None and finished.ok

    if not rules or not takes(0):
        return index
    taken, refused = 0, len(rules)
    while refused - taken > 1:
        middle = (taken + refused) // 2
        if takes(middle):
            taken = middle
        else:
            refused = middle
    return rules[taken]


def report_failure(
    tool: Tool,
    finished: Finished,
    lines: Sequence[InputLine],
    index: int | None,
    file: OutputFile,
    report: Report,
) -> None:
    """Report a failed restore at the statement behind line `index`, if it is a line of `file`."""
    number = None if index is None else lines[index].number
    if number is not None:
        report_refusal(file, number, tool.restore, finished.words, report)
    else:
        message = f"`{tool.restore}` did not load the rules"
        report.add("loading-failed", message, None, help=finished.words)
