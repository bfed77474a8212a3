"""The proof of a helper at a place: its conversations pass with it, and stop without it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from unittest import mock

from tests.kernel.applied import apply_text
from tests.kernel.examples import forget_connections
from tests.kernel.ground import Family, Ground, Loader, ground

from .places import CLOSED, Place
from .subjects import Row, Subject
from .talk import Flow, SilenceError, Talk

MUST_PASS_S = 5.0
MUST_FAIL_S = 0.25  # on veth what passes takes a hundredth of it

NETWORK_BITS = 24


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a conversation; `obstacle` is what stopped the control connection itself."""

    flows: tuple[Flow, ...]
    surprises: tuple[str, ...]
    obstacle: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether all that was announced came about, from and to the addresses it should."""
        passed = all(flow.passed for flow in self.flows)
        return bool(self.flows) and passed and not self.surprises and not self.obstacle

    @property
    def is_control_alone(self) -> bool:
        """Whether the control connection worked, and nothing that it announced."""
        stopped = not any(flow.passed for flow in self.flows)
        return bool(self.flows) and stopped and not self.obstacle


# Helper and title of a row, and where it was tried.
Cell: TypeAlias = tuple[str, str, Place, Family, Loader]


@dataclass(slots=True)
class Proved:
    """What was proved so far: with the helper, without it, and of what cannot be had."""

    with_helper: set[Cell] = field(default_factory=set)
    without: set[Cell] = field(default_factory=set)
    impossible: set[Cell] = field(default_factory=set)


@contextmanager
def battleground() -> Iterator[Ground]:
    """A router between `lan` and `wan` whose interfaces have a broadcast address."""
    with ground("lan", "wan") as laid:
        for segment in laid.segments.values():
            own, interface = f"{segment.near.ipv4}/{NETWORK_BITS}", segment.interface
            laid.firewall.ip(
                f"addr del {own} dev {interface}", f"addr add {own} brd + dev {interface}"
            )
        yield laid


def act(
    row: Row, subject: Subject, place: Place, family: Family, laid: Ground, s: float
) -> Outcome:
    """Act a conversation out; `s` is the patience with what it announces, in seconds."""
    talk = Talk(place.line(laid, family, s), subject.dialled(place))
    flows: list[Flow] = []
    obstacle = ""
    try:
        flows += row.conversation(talk)
    except SilenceError as silence:
        obstacle = str(silence)
    finally:
        talk.close()
    return Outcome(tuple(flows), tuple(talk.surprises), obstacle)


def load(policy: str, loader: Loader, laid: Ground, directory: Path) -> None:
    """Apply a policy, all defaults of which are closed; no connection is open since."""
    # Legacy iptables takes one lock for the whole machine unless told another.
    lock = {"XTABLES_LOCKFILE": str(directory / f"{laid.firewall.name}.lock")}
    with mock.patch.dict(os.environ, lock):
        apply_text(CLOSED + policy, loader, laid.firewall, directory)
    forget_connections(laid.firewall)


def prove(
    subject: Subject, place: Place, loader: Loader, laid: Ground, directory: Path, proved: Proved
) -> None:
    """Apply the policy that a user writes, and see all that the service's helper predicts pass."""
    policy = subject.definitions(place, has_helper=True) + subject.statements(place)
    load(policy, loader, laid, directory)
    problems: list[str] = []
    for row in subject.rows:
        for family in subject.tried(place):
            cell = (subject.helper, row.title, place, family, loader)
            is_impossible = subject.gap(place, family) is not None
            patience_s = MUST_FAIL_S if is_impossible else MUST_PASS_S
            outcome = act(row, subject, place, family, laid, patience_s)
            if outcome.is_whole is is_impossible:
                problems.append(f"{row.title}, {family.name}: {outcome}")
            elif is_impossible:
                proved.impossible.add(cell)
            else:
                proved.with_helper.add(cell)
    assert not problems, "\n".join([policy, *problems])


def without_helpers(subjects: Iterable[Subject], place: Place) -> str:
    """The statements of all these services, defined anew with their ports and no helper."""
    lines = [subject.definitions(place, has_helper=False) for subject in subjects]
    for subject in subjects:
        lines += subject.statements(place).splitlines(keepends=True)
    return "".join(dict.fromkeys(lines))


def disprove(subjects: Iterable[Subject], loader: Loader, directory: Path, proved: Proved) -> None:
    """Apply the same statements with services that name no helper, and see that nothing passes.

    Nothing but the control connections, that is. All services stand in one policy a place, and
    all places are tried at once: what must fail takes its time.
    """
    with ExitStack() as stack, ThreadPoolExecutor(len(Place) * 16) as pool:
        tries: list[tuple[Subject, Place, Family, Ground]] = []
        for place in Place:
            here = [s for s in subjects if s.tried(place)]
            if not here:
                continue
            laid = stack.enter_context(battleground())
            load(without_helpers(here, place), loader, laid, directory)
            tries += [(s, place, family, laid) for s in here for family in s.tried(place)]
        # Only now: a program that is being started holds a copy of every socket for a moment,
        # and ports that were closed stay taken.
        outcomes = list(pool.map(_acted, *zip(*tries, strict=True)))
        problems: list[str] = []
        for (subject, place, family, _), found in zip(tries, outcomes, strict=True):
            for row, outcome in zip(subject.rows, found, strict=True):
                if outcome.is_control_alone:
                    proved.without.add((subject.helper, row.title, place, family, loader))
                else:
                    problems.append(f"{place.value}, {row.title}, {family.name}: {outcome}")
    assert not problems, "\n".join(problems)


def _acted(subject: Subject, place: Place, family: Family, laid: Ground) -> list[Outcome]:
    """One after the other, since they share the server's port."""
    return [act(row, subject, place, family, laid, MUST_FAIL_S) for row in subject.rows]
