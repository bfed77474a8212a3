"""`python -m tests.analysis.campaign --seconds 600`: what sets of packets say, and what is so.

Random policies are read as sets of packets, and random packets are looked up in these: what they
say is compared with the reference interpreter, with the rules read one by one, and (as root) with
three firewalls in the real kernel. `--without-kernel` leaves those out.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random

from policylang.analysis.diagram import Packets
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.stages import Path
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.model.types import Answer, Direction
from policylang.optimise import optimise
from policylang.packets.fields import State
from policylang.pipeline import artifact_of
from tests.analysis.brute import policy_by_grid, ruleset_by_packets, said_of
from tests.analysis.diagrams import Diagrams, Said
from tests.analysis.test_engines import compare, walked
from tests.differential import lowering, translating
from tests.differential.campaign import Range, moment_of, shooting_range, verdicts_of
from tests.differential.compiling import RefusedError, resolved
from tests.differential.loading import Way
from tests.differential.lowering import REFUSED, fields_of
from tests.differential.policies import random_policy
from tests.differential.probes import aimed_at
from tests.differential.translating import aims
from tests.kernel.ground import CommandError, obstacle
from tests.properties.evaluate import Tags, World
from tests.reference.interpreter import (
    PROXY_BIT,
    Dialled,
    Moment,
    Packet,
    Verdict,
    decide,
)
from tests.reference.translating import proxied, sent

STORY_LINES = 12


@dataclass(slots=True)
class Tally:
    """What was compared, by what it was compared with, and what differed."""

    compared: Counter[str] = field(default_factory=Counter)
    policies: int = 0
    refused: int = 0
    reached: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{what} {count}" for what, count in sorted(self.compared.items()))
        reached = ", ".join(f"{what} {count}" for what, count in sorted(self.reached.items()))
        return (
            f"{self.policies} policies ({self.refused} refused); compared: {told}\n{reached}\n"
            f"{len(self.differences)} differences"
        )


# --- the kernel ---------------------------------------------------------------------------------


def shoot(ground: Range, seed: int, probes: int, tally: Tally) -> None:
    """A random policy in the kernel, three times: the packets that pass are those of the sets."""
    text = random_policy(Random(seed))
    try:
        policy = resolved(text)
    except RefusedError:
        tally.refused += 1
        return
    report = Report()
    ruleset = optimise(lower(policy, report), report)
    artifacts: dict[Way, Artifact] = {}
    for way in ground.targets:
        artifact = None if report.has_errors else artifact_of(ruleset, way.target, Report())
        if artifact is None:
            tally.refused += 1
            return
        artifacts[way] = artifact
    tally.policies += 1
    diagrams = Diagrams(ruleset)
    volley = aimed_at(policy, probes, Random(seed))
    packets = ground.packets(volley)
    judged = verdicts_of(policy, packets, volley)
    moment = moment_of(volley)
    expected: dict[int, Verdict] = {}
    for serial, verdict in judged.items():
        said = said_of(diagrams, packets[serial], moment)
        expected[serial] = as_verdict(said)
        tally.compared["packets with the interpreter"] += 1
        packet = packets[serial]
        tally.reached[f"{packet.direction.value} {packet.state.name.lower()}"] += 1
        if (said.accepts, _answer(said)) != (verdict.accepted, verdict.answer):
            tally.differences.append(f"seed {seed}: {said}, {verdict}\n{packet}\n{text}")
    for way, artifact in artifacts.items():
        try:
            wrong = ground.wrong_ones(way, artifact, volley, packets, expected)
        except CommandError as refusal:
            tally.differences.append(f"seed {seed}, {way.name}: {str(refusal)[:300]}\n{text}")
            continue
        tally.compared["packets with the kernel"] += len(expected)
        tally.differences += (
            f"seed {seed}, {way.name}: the kernel has {fate}, the sets {expected[serial]}\n"
            f"{packets[serial]}\n{text}"
            for serial, fate in wrong.items()
        )


def as_verdict(said: Said) -> Verdict:
    """What sets say of a packet, as the interpreter would put it."""
    return Verdict(said.accepts, "the sets say so", _answer(said), frozenset())


def _answer(said: Said) -> Answer | None:
    return Answer(said.action.answer.value) if isinstance(said.action, ir.Reject) else None


# --- whole ways -----------------------------------------------------------------------------


def journeys(seed: int, probes: int) -> int:
    """A policy that may translate: first packets on their whole way, as they enter it."""
    random = Random(seed)
    try:
        policy = resolved(random_policy(Random(seed), translates=True))
    except RefusedError:
        return 0
    report = Report()
    lowered = lower(policy, report)
    if any(d.code in REFUSED for d in report.diagnostics):
        return 0
    diagrams = Diagrams(optimise(lowered, Report()))
    ways = _Ways(diagrams)
    volley = aimed_at(aims(policy), probes, random)
    opened = {c.opened for c in volley.connections}
    moment = lowering._moment(volley, random)
    compared = 0
    for probe in volley.probes:
        packet = lowering._made_up(probe, volley.connections, opened, random)
        if packet.state is not State.NEW or packet.is_reply or packet.oif == "lo":
            continue
        if translating._is_for_several(packet):
            continue  # what no TCP sends
        if packet.direction is not Direction.OUTBOUND:
            packet = replace(packet, mark=0)
        ways.compare(policy, packet, moment, random)
        compared += 1
    return compared


@dataclass(slots=True)
class _Ways:
    """The journeys of all first packets, path by path."""

    diagrams: Diagrams
    found: dict[Path, tuple[Packets, Packets]] = field(default_factory=dict)

    def of(self, path: Path) -> tuple[Packets, Packets]:
        """What is accepted and what is denied of all that takes that path, as it enters."""
        if path not in self.found:
            follower, space = self.diagrams.follower, self.diagrams.space
            if path is Path.OUTPUT:
                journey = follower.leaving(space.everything)
            else:
                journey = follower.arriving(space.everything, path)
            self.found[path] = journey.accepted(space), journey.denied(space)
        return self.found[path]

    def compare(self, policy: Policy, packet: Packet, moment: Moment, random: Random) -> None:
        """What becomes of a packet is among what the sets think possible, and nothing else is.

        What is sent elsewhere may go by several ways; its fate must be one of those.
        """
        path = lowering.PATHS[packet.direction]
        accepted, denied = self.of(path)
        tags = Tags(packet.mark, packet.user, packet.group, moment.now, moment.within_rates)
        members = lowering._members(moment)
        one = self.diagrams.only(fields_of(packet), tags, World(members))
        may_pass, may_fail = accepted.meets(one), denied.meets(one)
        arrived = _sent(policy, packet, moment, random)
        verdict = decide(policy, arrived, moment)
        assert may_pass if verdict.accepted else may_fail, (verdict, packet, arrived)
        assert arrived != packet or may_pass != may_fail, (verdict, packet)


def _sent(policy: Policy, packet: Packet, moment: Moment, random: Random) -> Packet:
    """The packet as FILTER sees it; where it may be sent to several, or by several ways, one."""
    if packet.iif is not None and proxied(policy, packet, moment) is not None:
        return replace(packet, oif=None, mark=packet.mark | PROXY_BIT, is_proxied=True)
    goes = sent(policy, packet, moment)
    if goes is None:
        return packet
    arrived = translating._arrived(packet, goes, random)
    if arrived.destination == packet.destination and arrived.ports == packet.ports:
        return packet  # what changes nothing is no translation
    port = None if packet.ports is None else packet.ports[1]
    return replace(arrived, dialled=Dialled(packet.destination, port))


# --- all of it ------------------------------------------------------------------------------


def run(seed: int, ground: Range | None, probes: int, tally: Tally) -> None:
    """One seed of everything."""
    with _told(seed, "rulesets", tally):
        tally.compared["packets with rules read one by one"] += ruleset_by_packets(seed, 25)
    with _told(seed, "grid", tally):
        tally.compared["packets of grids with the interpreter"] += policy_by_grid(seed, 150)
    with _told(seed, "journeys", tally):
        tally.compared["whole ways with the interpreter"] += journeys(seed, 60)
    with _told(seed, "boxes", tally):
        tally.compared["questions to boxes and diagrams"] += compare(Random(seed))
    with _told(seed, "walker", tally):
        tally.compared["questions to walker and follower"] += walked(Random(seed))
    if ground is not None:
        with _told(seed, "kernel", tally):
            shoot(ground, seed, probes, tally)


@contextmanager
def _told(seed: int, kind: str, tally: Tally) -> Iterator[None]:
    try:
        yield
    except Exception:  # whatever is wrong, the next seeds go on
        lines = traceback.format_exc().splitlines()[-STORY_LINES:]
        tally.differences.append(f"seed {seed}, {kind}: " + "\n".join(lines)[-3000:])


@contextmanager
def _range(wanted: bool) -> Iterator[Range | None]:
    if not wanted:
        yield None
        return
    with shooting_range() as made:
        yield made


def main() -> int:
    """Run seeds until the time is up; print the first differences of each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.analysis.campaign")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--seeds", type=int, default=10**9, help="at most so many")
    parser.add_argument("--probes", type=int, default=500, help="for each policy in the kernel")
    parser.add_argument("--without-kernel", action="store_true")
    parser.add_argument("--kernel-alone", action="store_true")
    chosen = parser.parse_args()
    reason = None if chosen.without_kernel else obstacle()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    # Ended from outside, it still takes its namespaces away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    tally = Tally()
    started, seed = time.monotonic(), chosen.seed
    with _range(not chosen.without_kernel) as ground:
        while time.monotonic() - started < chosen.seconds and seed < chosen.seed + chosen.seeds:
            before = len(tally.differences)
            if chosen.kernel_alone and ground is not None:
                with _told(seed, "kernel", tally):
                    shoot(ground, seed, chosen.probes, tally)
            else:
                run(seed, ground, chosen.probes, tally)
            for story in tally.differences[before : before + 1]:
                print(f"{story}\n", flush=True)
            seed += 1
    print(f"seeds {chosen.seed} to {seed - 1} in {time.monotonic() - started:.0f} s: {tally}")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
