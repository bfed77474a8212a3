"""Applies an artifact: rehearsed in a scratch namespace, loaded, and what it replaces removed.

It knows the order, and which generation of ours holds; what a target's rules look like it does
not know.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from policylang.apply import ipsets, kernel, nft, restore, xtables
from policylang.apply.restore import Flavour, Tool
from policylang.backends.base import Artifact
from policylang.backends.iptables import SETS
from policylang.diagnostics import Report

Tools = tuple[Tool, ...]  # for iptables; empty for nft


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done: the way it was loaded, and what of earlier applies was removed, in words."""

    way: str
    removed: tuple[str, ...]


def apply(
    artifact: Artifact,
    report: Report,
    *,
    netns: str | None = None,
    flavour: Flavour | None = None,
) -> Applied | None:
    """Load an artifact into a namespace (None: this one), in place of what was applied before.

    The whole of it is loaded into a scratch namespace first. None, with an error in `report`,
    where anything fails: what was in force is then still in force. `flavour` is for iptables
    alone; None takes what the machine calls iptables.
    """
    tools: Tools = ()
    if artifact.target == "iptables":
        found = restore.tools(flavour) if flavour else restore.usual_tools(report)
        if found is None:
            return None
        tools = found
    if not kernel.in_scratch(lambda: _rehearse(artifact, tools, report), report):
        return None
    with _undisturbed():
        return kernel.in_netns(netns, lambda: _load(artifact, tools, report), report)


def _rehearse(artifact: Artifact, tools: Tools, report: Report) -> bool:
    if tools:
        return xtables.rehearse(artifact, tools, report)
    return nft.load(artifact, report)


def _load(artifact: Artifact, tools: Tools, report: Report) -> Applied | None:
    """Load, and then remove what an earlier apply loaded another way.

    In between both hold, and a packet passes only where both let it pass.
    """
    flavour = tools[0].flavour if tools else None
    loaded = xtables.load(artifact, tools, report) if tools else nft.load(artifact, report)
    if not loaded:
        return None
    removed: list[str] = []
    if tools and nft.is_loaded() and nft.remove(report):
        removed.append(f"the nft table `{nft.TABLE}`")
    for other in Flavour:
        if other is not flavour and xtables.remove(restore.tools(other), report):
            removed.append(f"the iptables-{other} chains")
    ipsets.destroy_others(ipsets.made_by(artifact.file(SETS)), report)
    return Applied(f"iptables-{flavour}" if tools else "nft", tuple(removed))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no signal of a terminal end this process, or a program it starts, halfway."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's business
        return
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None is a handler that was not set by Python.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
