"""Loads an artifact in the place of what is in force, and sees to what rules rely on.

It knows the order, and which of the ways to load holds; what a target's rules look like it does
not know. The modules that rules rely on come before them, and what the rules make safe after
them: forwarding is switched on once the rules say what is forwarded.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from policylang.apply import (
    engines,
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
)
from policylang.apply.engine import Engine
from policylang.apply.listing import Listing, listing
from policylang.apply.livesets import LiveSets, by_identity, what_became
from policylang.apply.loaded import Loaded
from policylang.apply.restore import Flavour
from policylang.backends.base import Artifact
from policylang.backends.iptables import SETS
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report
from policylang.ir.ruleset import Needs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done, in words: the way it was loaded, and what of earlier applies was removed.

    `sets` says what became of the elements of dynamic sets that did not simply stay, `beside`
    what was changed beside the rules.
    """

    way: str
    removed: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """All of it but the way, as parts of a sentence."""
        removed = (f"removed {what} of an earlier apply" for what in self.removed)
        return (*removed, *self.sets, *self.beside)


def apply(
    artifact: Artifact,
    report: Report,
    *,
    netns: str | None = None,
    flavour: Flavour | None = None,
) -> Applied | None:
    """Load an artifact into a namespace (None: this one), and record nothing of it.

    The whole of it is loaded into a scratch namespace first. None, with an error in `report`,
    where anything fails: what was in force is then still in force. `flavour` is for iptables
    alone; None takes what the machine calls iptables. What is done after the rules are in force
    may fail by itself: then there are errors in `report`, and the rules stay.
    """
    engine = engines.chosen(artifact.target, flavour, report)
    if engine is None:
        return None
    loaded = modules.load(artifact.needs.modules, report)
    if loaded is None or rehearsed(artifact, engine, report) is None:
        return None

    def inside() -> Applied | None:
        with kernel.alone(report) as is_alone:
            applied = load(artifact, engine, report) if is_alone else None
            if applied is None:
                return None
            return replace(applied, beside=see_to_the_rest(artifact.needs, report))

    with undisturbed():
        applied = kernel.in_netns(netns, inside, report)
    if applied is None:
        return None
    return replace(applied, beside=(*_in_words("loaded the module", loaded), *applied.beside))


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What an artifact is once it is loaded, and all that the target's own program says of it."""

    loaded: Loaded
    listing: Listing


def rehearsed(artifact: Artifact, engine: Engine, report: Report) -> Loaded | None:
    """What an artifact is once it is loaded, seen in a scratch namespace.

    None where the kernel does not take all of it; what it is that it lacks is told then.
    """
    return _in_scratch(lambda found: engine.rehearse(artifact, found), artifact, engine, report)


def rehearsal(artifact: Artifact, engine: Engine, report: Report) -> Rehearsal | None:
    """The same, with all that can be read of it there."""

    def inside(found: Report) -> Rehearsal | None:
        loaded = engine.rehearse(artifact, found)
        told = None if loaded is None else listing(engine, found)
        return None if loaded is None or told is None else Rehearsal(loaded, told)

    return _in_scratch(inside, artifact, engine, report)


def _in_scratch(
    inside: Callable[[Report], T | None], artifact: Artifact, engine: Engine, report: Report
) -> T | None:
    found = Report()
    loaded = kernel.in_scratch(lambda: inside(found), found)
    tools = engines.tools_of(engine)
    if loaded is None and kernel.in_scratch(
        lambda: probing.report_missing(artifact.needs, tools, report), Report()
    ):
        return None
    report.take(found)
    return loaded


def see_to_the_rest(needs: Needs, report: Report) -> tuple[str, ...]:
    """Do what comes after the rules, none of which can take them back; in words what was done."""
    switched = _in_words("switched on", forwarding.switch_on(needs.forwards, report))
    laid = proxy_routes.lay(needs.proxy_route, report)
    published.warn(needs, report)
    return (*switched, *laid)


def _in_words(done: str, names: Iterable[str]) -> Iterator[str]:
    return (f"{done} `{name}`" for name in names)


def load(artifact: Artifact, engine: Engine, report: Report) -> Applied | None:
    """Load, and then remove what an earlier apply loaded another way.

    In between both hold, and a packet passes only where both let it pass. The calling thread has
    its namespace alone.
    """
    others = list(engines.in_force(report, but=engine))
    live = nft.live_sets(report)
    if live is None:
        return None
    of_nft, of_ipset = by_identity(live), _of_ipset()
    is_nft = engine.way == "nft"
    before, carried = (of_nft, of_ipset) if is_nft else (of_ipset, of_nft)
    if not engine.load(artifact, report, carried):
        return None
    made = ipsets.made_by(artifact.file(SETS))
    after = _follow(None if is_nft else made) if before or carried else {}
    removed = tuple(_CALLED[other.way] for other in others if other.remove(report))
    ipsets.destroy_others(made, report)
    return Applied(engine.way, removed, tuple(what_became(before, carried, after)))


_CALLED = {
    "nft": f"the nft table `{TABLE}`",
    "iptables-nft": "the iptables-nft chains",
    "iptables-legacy": "the iptables-legacy chains",
}


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
def undisturbed() -> Iterator[None]:
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
