"""All rules of this thread's namespace, as the target's own program lists them; it reads none."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from policylang.apply import engines, libnftables, programs
from policylang.apply.engine import Engine
from policylang.diagnostics import Report

UTC = "UTC"  # nft lists what the kernel counts in UTC by the zone of whoever asks


@dataclass(frozen=True, slots=True)
class Listing:
    """The texts of a target: for nft JSON alone, for iptables those of each family and ipset's.

    Times are in UTC, where a target lists any otherwise than the kernel has them.
    """

    target: str
    json: str = ""
    rules_v4: str = ""
    rules_v6: str = ""
    sets: str = ""


def listing(engine: Engine, report: Report) -> Listing | None:
    """What is there, of us and of others; None, and `loading-failed`, where it is not told."""
    tools = engines.tools_of(engine)
    if not tools:
        has_nft = programs.find("nft") is not None
        text = _told(["nft", "-j", "list", "ruleset"], report) if has_nft else _by_library(report)
        return None if text is None else Listing("nft", json=text)
    texts: list[str] = []
    for tool in tools:
        text = _told([tool.save], report)
        if text is None:
            return None
        texts.append(text)
    # Without the program there are no sets that rules could ask.
    sets = _told(["ipset", "save"], report) if programs.find("ipset") is not None else ""
    if sets is None:
        return None
    rules_v4, rules_v6 = texts
    return Listing("iptables", rules_v4=rules_v4, rules_v6=rules_v6, sets=sets)


def _by_library(report: Report) -> str | None:
    memory = os.memfd_create("policylang.list")
    try:
        with open(memory, "w", encoding="utf-8", closefd=False) as file:
            file.write("list ruleset\n")
        script = [sys.executable, "-I", str(Path(libnftables.__file__))]
        argv = [*script, f"/proc/self/fd/{memory}", libnftables.JSON]
        finished = programs.run(argv, report, descriptors=[memory], time_zone=UTC)
    finally:
        os.close(memory)
    if finished is not None and not finished.ok:
        _not_told("libnftables", finished.words, report)
    return finished.stdout if finished is not None and finished.ok else None


def _told(argv: list[str], report: Report) -> str | None:
    finished = programs.run(argv, report, time_zone=UTC)
    if finished is not None and not finished.ok:
        _not_told(" ".join(argv), finished.words, report)
    return finished.stdout if finished is not None and finished.ok else None


def _not_told(program: str, words: str, report: Report) -> None:
    message = f"`{program}` does not tell what is loaded"
    report.add("loading-failed", message, None, help=words)
