"""Applies an artifact: rehearsed in a scratch namespace, loaded, and what it replaces removed.

It knows the order, and which generation of ours holds; what a target's rules look like it does
not know. The modules that rules rely on come before them, and what the rules make safe after
them: forwarding is switched on once the rules say what is forwarded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from policylang.apply import (
    forwarding,
    ipsets,
    kernel,
    live_ipsets,
    modules,
    nft,
    nft_text,
    probing,
    proxy_routes,
    published,
    restore,
    xtables,
)
from policylang.apply.livesets import LiveSets, by_identity, what_became
from policylang.apply.restore import Flavour, Tool
from policylang.backends.base import Artifact
from policylang.backends.iptables import SETS
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report
from policylang.ir.ruleset import Needs

Tools = tuple[Tool, ...]  # for iptables; empty for nft


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done, in words: the way it was loaded, and what of earlier applies was removed.

    `sets` says what became of the elements of dynamic sets that did not simply stay, `beside`
    what was changed beside the rules.
    """

    way: str
    removed: tuple[str, ...]
    sets: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


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
    alone; None takes what the machine calls iptables. What is done after the rules are in force
    may fail by itself: then there are errors in `report`, and the rules stay.
    """
    tools: Tools = ()
    if artifact.target == "iptables":
        found = restore.tools(flavour) if flavour else restore.usual_tools(report)
        if found is None:
            return None
        tools = found
    loaded = modules.load(artifact.needs.modules, report)
    if loaded is None or not _is_taken(artifact, tools, report):
        return None
    with _undisturbed():
        applied = kernel.in_netns(netns, lambda: _load_alone(artifact, tools, report), report)
    if applied is None:
        return None
    return replace(applied, beside=(*_in_words("loaded the module", loaded), *applied.beside))


def _is_taken(artifact: Artifact, tools: Tools, report: Report) -> bool:
    """Whether the kernel takes all of an artifact; else it is told what it is that it lacks."""
    found = Report()
    if kernel.in_scratch(lambda: _rehearse(artifact, tools, found), found):
        return True
    if kernel.in_scratch(lambda: probing.report_missing(artifact.needs, tools, report), found):
        return False
    for one in found.diagnostics:
        report.add(one.code, one.message, one.span, help=one.help, labels=one.labels)
    return False


def _rehearse(artifact: Artifact, tools: Tools, report: Report) -> bool:
    if tools:
        return xtables.rehearse(artifact, tools, report)
    return nft.rehearse(artifact, report)


def _load_alone(artifact: Artifact, tools: Tools, report: Report) -> Applied | None:
    """Load while no other policylang changes what is ours in this namespace."""
    with kernel.alone(report) as is_alone:
        applied = _load(artifact, tools, report) if is_alone else None
        return None if applied is None else _see_to_the_rest(artifact.needs, applied, report)


def _see_to_the_rest(needs: Needs, applied: Applied, report: Report) -> Applied:
    """What comes after the rules; none of it can take them back."""
    switched = _in_words("switched on", forwarding.switch_on(needs.forwards, report))
    laid = proxy_routes.lay(needs.proxy_route, report)
    published.warn(needs, report)
    return replace(applied, beside=(*switched, *laid))


def _in_words(done: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{done} `{name}`" for name in names)


def _load(artifact: Artifact, tools: Tools, report: Report) -> Applied | None:
    """Load, and then remove what an earlier apply loaded another way.

    In between both hold, and a packet passes only where both let it pass.
    """
    flavour = tools[0].flavour if tools else None
    listing = nft.listing(report)
    if listing is None:
        return None
    of_nft: LiveSets = by_identity(nft_text.dynamic_sets(listing))
    of_ipset = _of_ipset()
    if tools:
        before, carried = of_ipset, of_nft
        is_loaded = xtables.load(artifact, tools, report, carried)
    else:
        before, carried = of_nft, of_ipset
        is_loaded = nft.load(artifact, report, listing, carried)
    if not is_loaded:
        return None
    made = ipsets.made_by(artifact.file(SETS))
    after = _follow(made if tools else None)
    removed: list[str] = []
    if tools and listing and nft.remove(report):
        removed.append(f"the nft table `{TABLE}`")
    for other in Flavour:
        if other is not flavour and xtables.remove(restore.tools(other), report):
            removed.append(f"the iptables-{other} chains")
    ipsets.destroy_others(made, report)
    way = f"iptables-{flavour}" if tools else "nft"
    return Applied(way, tuple(removed), tuple(what_became(before, carried, after)))


def _of_ipset() -> LiveSets:
    """The dynamic sets of iptables; there are none where ipset does not work."""
    return by_identity(ipsets.live_sets(ipsets.saved(Report()) or {}))


def _follow(made: frozenset[str] | None) -> LiveSets:
    """Let elements follow that packets put into the sets of the other target meanwhile.

    `made` are the ipsets that were loaded, None where it was nft. Returns the dynamic sets of
    what was loaded.
    """
    of_nft, of_ipset = by_identity(nft.live_sets(Report()) or ()), _of_ipset()
    if made is None:
        commands = nft_text.following(of_nft.values(), of_ipset)
        if commands:
            nft.carry_out(commands, "", Report())
        return of_nft
    of_ipset = {name: live for name, live in of_ipset.items() if name in made}
    live_ipsets.filled(of_ipset.values(), of_nft, Report())
    return of_ipset


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
