"""Loads nft scripts and removes our table again; knows nothing of what the scripts say."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from policylang.apply import libnftables, programs
from policylang.apply.programs import Finished
from policylang.apply.refusal import report_refusal
from policylang.backends.base import Artifact, OutputFile
from policylang.diagnostics import Report

TABLE = "inet policylang"

# libnftables names the file, the line and the columns of what it or the kernel refuses.
_REFUSED = re.compile(r"^/proc/self/fd/\d+:(\d+):\d+-\d+: Error: (.*)$", re.MULTILINE)


def load(artifact: Artifact, report: Report) -> bool:
    """Load an artifact's script into this thread's namespace, whole or not at all.

    Reports `refused-by-kernel` at the statements whose lines are refused, `program-missing`
    and `loading-failed`.
    """
    (script,) = artifact.files
    finished = _carry_out(script.text, report)
    if finished is None:
        return False
    if not finished.ok:
        _report_errors(script, finished, report)
    return finished.ok


def is_loaded() -> bool:
    """Whether our table is in this thread's namespace; it is not where nft does not work."""
    finished = _carry_out("list tables inet\n", Report())
    return finished is not None and finished.ok and f"table {TABLE}" in finished.stdout.splitlines()


def remove(report: Report) -> bool:
    """Delete our table; False, with `left-behind`, where that fails."""
    finished = _carry_out(f"delete table {TABLE}\n", report)
    if finished is None or finished.ok:
        return finished is not None
    message = f"cannot delete the nft table `{TABLE}` of an earlier apply"
    report.add("left-behind", message, None, help=finished.words)
    return False


def _report_errors(script: OutputFile, finished: Finished, report: Report) -> None:
    found = _REFUSED.findall(finished.stderr)
    for line, words in found:
        report_refusal(script, int(line), "nft", words, report)
    if not found:
        message = "nft did not load the rules, and named no line"
        report.add("loading-failed", message, None, help=finished.words)


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
        yield ("nft", "-f", file)
