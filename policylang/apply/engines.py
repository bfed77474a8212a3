"""The ways to load rules, and which of them hold something of ours; knows nothing of rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policylang.apply import programs, restore
from policylang.apply.engine import Engine
from policylang.apply.nft_engine import NftEngine
from policylang.apply.restore import Flavour, Tool
from policylang.apply.xtables_engine import XtablesEngine
from policylang.diagnostics import Report


def chosen(target: str, flavour: Flavour | None, report: Report) -> Engine | None:
    """The way to load an artifact of a target; `flavour` is for iptables alone.

    None as flavour takes what the machine calls iptables. Reports `program-missing`.
    """
    if target == "nft":
        return NftEngine()
    if flavour is not None:
        return XtablesEngine(restore.tools(flavour))
    tools = restore.usual_tools(report)
    return None if tools is None else XtablesEngine(tools)


def by_way(way: str) -> Engine:
    """The engine of that way; ValueError for a word that is none."""
    if way == "nft":
        return NftEngine()
    return XtablesEngine(restore.tools(Flavour(way.removeprefix("iptables-"))))


def tools_of(engine: Engine) -> Sequence[Tool]:
    """The programs of iptables that an engine runs; none for nft."""
    return engine.tools if isinstance(engine, XtablesEngine) else ()


def in_force(report: Report, *, but: Engine | None = None) -> Iterator[Engine]:
    """Those that hold something of ours in this thread's namespace; `but` is not asked."""
    for engine in present():
        if but is not None and engine.way == but.way:
            continue
        listed = engine.listed(report)
        # Sets alone may be another flavour's: ipset knows none.
        if listed is not None and listed.chains:
            yield engine


def present() -> Iterator[Engine]:
    """Those whose programs are installed."""
    yield NftEngine()
    for flavour in Flavour:
        tools = restore.tools(flavour)
        if all(programs.find(tool.save) for tool in tools):
            yield XtablesEngine(tools)
