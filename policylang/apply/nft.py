"""Loads nft scripts, and changes or removes what they made; knows not what they say."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from policylang.apply import libnftables, present, programs
from policylang.apply.livesets import LiveSet, LiveSets
from policylang.apply.nft_listing import Table, bare
from policylang.apply.nft_listing import read as read_listing
from policylang.apply.nft_pending import PENDING_TABLE, Tables
from policylang.apply.nft_text import Replacement, dynamic_sets, replacement
from policylang.apply.programs import Finished
from policylang.apply.refusal import report_refusal
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report

# libnftables names the file, the line and the columns of what it or the kernel refuses.
_REFUSED = re.compile(r"^/proc/self/fd/\d+:(\d+):\d+-\d+: Error: (.*)$", re.MULTILINE)


def rehearse(artifact: Artifact, report: Report) -> bool:
    """Load an artifact's script as it stands; reports as `load` does."""
    return load(artifact, report, "", {})


def load(artifact: Artifact, report: Report, listing: str, carried: LiveSets) -> bool:
    """Load an artifact's script into this thread's namespace, whole or not at all.

    Dynamic sets keep their elements: those of `listing`, which shows our table as it is or is
    empty, stay where they are, and those of `carried` come to them.

    Reports `refused-by-kernel` at the statements whose lines are refused, `program-missing`
    and `loading-failed`.
    """
    (script,) = artifact.files
    return load_as(script, replacement(script.text, listing, carried), report)


def load_as(script: OutputFile, loaded: Replacement, report: Report) -> bool:
    """Carry out what stands for a script; reports as `load` does, at the script's lines."""
    finished = _carry_out(loaded.text, report)
    if finished is None:
        return False
    if not finished.ok:
        _report_errors(script, loaded, finished, report)
    return finished.ok


def tables_of_ours(report: Report) -> Tables | None:
    """Our table and that of a pending generation, with handles.

    None, and `loading-failed`, where one is there and cannot be read.
    """
    there = tables()
    found: dict[str, Table] = {}
    for name in (TABLE, PENDING_TABLE):
        if name in there:
            # One by one: nft 1.0.6 reads but the last of several tables that are asked for.
            finished = _asked(f"list table {name}", report)
            if finished is None or not finished.ok:
                words = finished.words if finished is not None else None
                report.add(
                    "loading-failed", f"cannot read the nft table `{name}`", None, help=words
                )
                return None
            (found[name],) = read_listing(finished.stdout)
    return Tables(found.get(TABLE), found.get(PENDING_TABLE))


def listing(report: Report) -> str | None:
    """Our table as nft shows it, or an empty text where it is not there.

    None, and `loading-failed`, where it is there and cannot be read.
    """
    if not is_loaded():
        return ""
    finished = _asked(f"list table {TABLE}", Report())
    if finished is not None and finished.ok:
        return bare(finished.stdout)
    if not is_loaded():
        return ""
    words = finished.words if finished is not None else None
    report.add("loading-failed", f"cannot read the nft table `{TABLE}`", None, help=words)
    return None


def live_sets(report: Report) -> tuple[LiveSet, ...] | None:
    """The dynamic sets that are loaded, with their elements; reports as `listing` does."""
    text = listing(report)
    return None if text is None else dynamic_sets(text)


def carry_out(commands: Sequence[str], what: str, report: Report) -> bool:
    """Carry out commands on what is loaded, all of them or none.

    Reports `loading-failed` with `what`, which could not be done, and `program-missing`.
    """
    finished = _carry_out("".join(f"{command}\n" for command in commands), report)
    if finished is not None and not finished.ok:
        report.add("loading-failed", what, None, help=_without_place(finished))
    return finished is not None and finished.ok


def is_loaded() -> bool:
    """Whether our table is in this thread's namespace; it is not where nft does not work."""
    return TABLE in tables()


def tables() -> frozenset[str]:
    """The tables in this thread's namespace, as in `inet policylang`; none where nobody tells."""
    there = present.nft_tables()
    if there is not None:
        return there
    finished = _asked("list tables", Report())
    lines = bare(finished.stdout).splitlines() if finished is not None and finished.ok else ()
    return frozenset(line.removeprefix("table ") for line in lines)


def listing_of(table: str) -> str:
    """A table of others as nft shows it; empty where it cannot be read."""
    finished = _asked(f"list table {table}", Report())
    return bare(finished.stdout) if finished is not None and finished.ok else ""


def remove(report: Report, names: Sequence[str] = (TABLE,)) -> bool:
    """Delete tables of ours, all at once; False, with `left-behind`, where that fails."""
    finished = _carry_out("".join(f"delete table {name}\n" for name in names), report)
    if finished is None or finished.ok:
        return finished is not None
    message = f"cannot delete the nft table `{names[0]}` of an earlier apply"
    report.add("left-behind", message, None, help=finished.words)
    return False


def _report_errors(
    script: OutputFile, loaded: Replacement, finished: Finished, report: Report
) -> None:
    found = [(int(line), words) for line, words in _REFUSED.findall(finished.stderr)]
    for line, words in found:
        if line not in loaded.added:
            report_refusal(script, line, "nft", words, report)
    if not found:
        message = "nft did not load the rules, and named no line"
        report.add("loading-failed", message, None, help=finished.words)
    elif any(line in loaded.added for line, _ in found):
        message = "nft did not take over what is in the dynamic sets"
        report.add("loading-failed", message, None, help=_without_place(finished))


def _without_place(finished: Finished) -> str:
    """What nft said, without the lines of a script that nobody sees."""
    return "\n".join(words for _, words in _REFUSED.findall(finished.stderr)) or finished.words


def _asked(question: str, report: Report) -> Finished | None:
    """A listing with handles, by the nft program, which starts in a tenth of the time, or else by
    libnftables."""
    finished = None
    if programs.find("nft") is not None:
        finished = programs.run(["nft", "-a", *question.split()], report)
    return finished or _carry_out(f"{question}\n", report)


def _carry_out(script: str, report: Report) -> Finished | None:
    """What came of a script, by libnftables or else by the nft program."""
    memory = os.memfd_create("policylang.nft")
    try:
        with open(memory, "w", encoding="utf-8", closefd=False) as file:
            file.write(script)
        for argv in _ways(f"/proc/self/fd/{memory}"):
            finished = programs.run(argv, report, descriptors=[memory])
            if finished is None or finished.status != libnftables.UNAVAILABLE:
                return finished
    finally:
        os.close(memory)
    report.add(
        "program-missing",
        "neither libnftables nor the program `nft` is installed",
        None,
        help="install the package `nftables`: apt install nftables",
    )
    return None


def _ways(file: str) -> Iterator[Sequence[str]]:
    if sys.executable:
        yield (sys.executable, "-I", str(Path(libnftables.__file__)), file)
    if programs.find("nft") is not None:
        yield ("nft", "-a", "-f", file)
