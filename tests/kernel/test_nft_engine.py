"""What the engine of nft loads, arms, keeps and reverts, by packets and by what nft lists."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

from policylang.apply import kernel, nft, nft_pending
from policylang.apply.livesets import LiveSets
from policylang.apply.loaded import NOTHING, Count, Loaded
from policylang.apply.nft_engine import NftEngine
from policylang.apply.programs import Finished
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy

from .ground import REPOSITORY, Family, Ground, Namespace, Reach, probe_tcp

T = TypeVar("T")

ENGINE = NftEngine()
LONG_S, SHORT_S = 60, 1
DYING_S = 2  # for a program that is started for it

# What is closed answers at once.
CLOSED = "reject tcp 8000-8099 inbound\n"
OLD = f"allow tcp 8001, tcp 8003 inbound\n{CLOSED}"
NEW = f"allow tcp 8002, tcp 8003 inbound\n{CLOSED}"
PORTS = (8001, 8002, 8003)
OF_OLD, OF_NEW, OF_BOTH = {8001, 8003}, {8002, 8003}, {8003}


@cache
def artifact(policy: str) -> Artifact:
    report = Report()
    made = compile_policy(Text(policy, "test.policy", Path()), "nft", report)
    assert made is not None, report.diagnostics
    return made


@cache
def rehearsed(policy: str) -> Loaded:
    """What a policy is once it is loaded."""
    report = Report()
    made = kernel.in_scratch(lambda: ENGINE.rehearse(artifact(policy), report), report)
    assert made is not None, report.diagnostics
    return made


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine at work in a namespace, with policies in the place of artifacts."""

    namespace: Namespace

    def done(self, work: Callable[[Report], T | None]) -> T:
        """What came of a step that reports nothing."""
        report = Report()
        found = kernel.in_netns(self.namespace.name, lambda: work(report), report)
        assert not report.diagnostics
        assert found is not None
        return found

    def load(self, policy: str, carried: LiveSets | None = None) -> None:
        made = rehearsed(policy)
        assert self.done(
            lambda report: ENGINE.load(artifact(policy), report, carried or {}, rehearsed=made)
        )
        assert self.listed() == made

    def arm(self, policy: str, seconds: int = LONG_S) -> None:
        made = rehearsed(policy)
        before = self.listed()
        assert self.done(
            lambda report: ENGINE.arm(artifact(policy), seconds, report, rehearsed=made)
        )
        assert self.pending() == made
        assert self.listed() == before

    def keep(self, policy: str, *, is_late: bool = False) -> None:
        made = rehearsed(policy)
        assert self.done(
            lambda report: ENGINE.keep(artifact(policy), report, is_late=is_late, rehearsed=made)
        )
        assert (self.listed(), self.pending()) == (made, NOTHING)

    def disarm(self) -> None:
        before = self.listed()
        assert self.done(ENGINE.disarm)
        assert (self.listed(), self.pending()) == (before, NOTHING)

    def refused(self, policy: str) -> str:
        """The code of what keeps a generation from being kept."""
        report = Report()
        work = kernel.in_netns(
            self.namespace.name,
            lambda: ENGINE.keep(artifact(policy), report, rehearsed=rehearsed(policy)),
            report,
        )
        assert work is False
        (found,) = report.diagnostics
        return found.code

    def listed(self) -> Loaded:
        return self.done(ENGINE.listed)

    def pending(self) -> Loaded:
        return self.done(ENGINE.pending)

    def armed_ms(self) -> int | None:
        report = Report()
        found = kernel.in_netns(self.namespace.name, lambda: ENGINE.armed_ms(report), report)
        assert not report.diagnostics
        return found

    def ruleset(self) -> str:
        return self.namespace.run(["nft", "-a", "-s", "list", "ruleset"]).stdout


@pytest.fixture
def engine(pair: Ground) -> Engine:
    return Engine(pair.firewall)


@contextmanager
def served(namespace: Namespace, *ports: int) -> Iterator[None]:
    with ExitStack() as stack:
        for port in ports:
            for family in Family:
                stack.enter_context(namespace.listen(family, port))
        yield


@pytest.fixture
def open_ports(pair: Ground) -> Iterator[Callable[[], set[int]]]:
    """Which of the ports the neighbour reaches; the same by both families."""

    def found() -> set[int]:
        wan = pair["wan"]
        reached = [
            {
                port
                for port in PORTS
                if probe_tcp(wan.neighbour, wan.near.of(family), port) is Reach.OPEN
            }
            for family in Family
        ]
        assert reached[0] == reached[1]
        return reached[0]

    with served(pair.firewall, *PORTS):
        yield found


# --- arming, and what becomes of it ----------------------------------------------------------


def test_what_is_armed_is_in_force_until_it_is_disarmed(
    engine: Engine, open_ports: Callable[[], set[int]]
) -> None:
    """The new policy alone judges, then the old one alone; and nothing is left of the new one."""
    engine.load(OLD)
    before = engine.ruleset()
    assert open_ports() == OF_OLD
    assert engine.armed_ms() is None
    engine.arm(NEW)
    assert open_ports() == OF_NEW
    left = engine.armed_ms()
    assert left is not None
    assert LONG_S * 1000 - 20_000 < left <= LONG_S * 1000
    engine.disarm()
    assert open_ports() == OF_OLD
    assert engine.armed_ms() is None
    assert engine.ruleset() == before
    engine.disarm()
    assert engine.ruleset() == before


def test_what_is_kept_in_time_stays(engine: Engine, open_ports: Callable[[], set[int]]) -> None:
    """It takes the place of the old policy; to complete that again changes nothing."""
    engine.load(OLD)
    engine.arm(NEW)
    engine.keep(NEW)
    assert open_ports() == OF_NEW
    kept = engine.ruleset()
    assert engine.refused(NEW) == "too-late"
    engine.keep(NEW, is_late=True)
    assert engine.ruleset() == kept


ARM_AND_DIE = """
import os, signal, sys
from pathlib import Path
from policylang.apply import kernel
from policylang.apply.nft_engine import NftEngine
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy

report = Report()
made = compile_policy(Text(sys.argv[2], "test.policy", Path()), "nft", report)
arm = lambda: NftEngine().arm(made, int(sys.argv[3]), report)
if kernel.in_netns(sys.argv[1], arm, report):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_kernel_alone_reverts(engine: Engine, open_ports: Callable[[], set[int]]) -> None:
    """Whoever armed it is dead, and yet the old policy comes back, first beside the new one.

    Then it is too late to keep it, which changes nothing.
    """
    engine.load(OLD)
    rehearsed(NEW)
    died = subprocess.run(
        [sys.executable, "-c", ARM_AND_DIE, engine.namespace.name, NEW, str(DYING_S)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    armed = time.monotonic()
    assert died.returncode == -signal.SIGKILL
    assert open_ports() == OF_NEW
    time.sleep(armed + DYING_S + 0.1 - time.monotonic())
    assert engine.armed_ms() == 0
    assert open_ports() == OF_BOTH
    time.sleep(armed + DYING_S + nft_pending.BOTH_S + 0.1 - time.monotonic())
    assert open_ports() == OF_OLD
    before = engine.ruleset()
    assert engine.refused(NEW) == "too-late"
    assert engine.ruleset() == before
    assert open_ports() == OF_OLD
    engine.disarm()
    assert open_ports() == OF_OLD
    assert "switch." not in engine.ruleset()


def test_what_was_decided_in_time_is_completed_late(
    engine: Engine, open_ports: Callable[[], set[int]]
) -> None:
    """Although the old policy judges again by then."""
    engine.load(OLD)
    engine.arm(NEW, SHORT_S)
    time.sleep(SHORT_S + 0.1)
    assert open_ports() == OF_BOTH
    engine.keep(NEW, is_late=True)
    assert open_ports() == OF_NEW


def test_the_time_may_end_while_it_is_kept(
    engine: Engine, open_ports: Callable[[], set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was time when it was asked for, and none in the transaction: nothing changes."""
    engine.load(OLD)
    engine.arm(NEW, SHORT_S)
    real = nft.load_as

    def slow(*arguments: object) -> bool:
        time.sleep(SHORT_S)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(nft, "load_as", slow)
    assert engine.refused(NEW) == "too-late"
    assert engine.listed() == rehearsed(OLD)
    assert open_ports() == OF_BOTH


def test_the_first_policy_of_all_is_armed(
    engine: Engine, open_ports: Callable[[], set[int]]
) -> None:
    """What comes back is nothing; what is kept is there alone."""
    assert open_ports() == {*PORTS}
    engine.arm(NEW, SHORT_S)
    assert open_ports() == OF_NEW
    time.sleep(SHORT_S + 0.1)
    assert engine.armed_ms() == 0
    assert open_ports() == {*PORTS}
    assert engine.refused(NEW) == "too-late"
    engine.arm(NEW)
    engine.keep(NEW)
    assert open_ports() == OF_NEW
    assert engine.done(ENGINE.remove) is True
    assert engine.ruleset() == ""
    assert engine.done(ENGINE.remove) is False


def test_arming_again_ends_what_was_armed(
    engine: Engine, open_ports: Callable[[], set[int]]
) -> None:
    """And so does a load; what somebody else took away is not kept."""
    engine.load(OLD)
    engine.arm(OLD)
    engine.arm(NEW)
    assert open_ports() == OF_NEW
    engine.load(OLD)
    assert engine.pending() == NOTHING
    assert open_ports() == OF_OLD
    engine.arm(NEW)
    engine.namespace.run(["nft", "flush", "ruleset"])
    assert engine.armed_ms() is None
    assert engine.refused(NEW) == "too-late"
    assert engine.listed() == NOTHING


# --- interruptions ---------------------------------------------------------------------------


class _KilledError(Exception):
    """In the place of SIGKILL: nothing of ours is done after it."""


STEPS: Mapping[str, Callable[[Engine], None]] = {
    "load": lambda engine: engine.load(NEW),
    "arm": lambda engine: engine.arm(NEW),
    "keep": lambda engine: engine.keep(NEW, is_late=True),
    "disarm": lambda engine: engine.disarm(),
}
THERE = ("loaded", "armed", "nothing")


def begun(engine: Engine, there: str) -> None:
    """Nothing in a namespace, or a policy in force, or one that yields to another."""
    engine.namespace.run(["nft", "flush", "ruleset"])
    old, new = artifact(OLD), artifact(NEW)
    if there != "nothing":
        made = rehearsed(OLD)
        engine.done(lambda report: ENGINE.load(old, report, {}, rehearsed=made))
    if there == "armed":
        made = rehearsed(NEW)
        engine.done(lambda report: ENGINE.arm(new, LONG_S, report, rehearsed=made))


def interrupted(
    engine: Engine, step: Callable[[Engine], None], number: int, patch: pytest.MonkeyPatch
) -> bool:
    """Carry out a step up to its change of that number; False where it has no more than that."""
    real = nft._carry_out
    left = number

    def carry_out(script: str, report: Report) -> Finished | None:
        nonlocal left
        if not script.startswith("list "):
            if left == 0:
                raise _KilledError
            left -= 1
        return real(script, report)

    with patch.context() as within:
        within.setattr(nft, "_carry_out", carry_out)
        try:
            step(engine)
        except _KilledError:
            return True
    return False


@pytest.mark.parametrize("there", THERE)
@pytest.mark.parametrize("step", STEPS)
def test_each_step_follows_any_interruption(
    engine: Engine,
    open_ports: Callable[[], set[int]],
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    there: str,
) -> None:
    """A transaction is done or not: after each, every step can be the next, and does what it says.

    In between a packet passes where the old and the new policy let it pass, or one of both is in
    force alone.
    """
    number = 0
    is_more = True
    while is_more:
        for following in STEPS.values():
            begun(engine, there)
            is_more = interrupted(engine, STEPS[step], number, monkeypatch)
            if not is_more:
                break
            if there != "nothing":
                assert open_ports() in (OF_OLD, OF_NEW, OF_BOTH)
            following(engine)
        number += 1
    transactions = number - 1
    assert transactions == TRANSACTIONS[step][THERE.index(there)]


@pytest.mark.parametrize("step", STEPS)
def test_an_nft_that_dies_is_not_believed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Killed behind its commit it says nothing of it; what became of the step is looked at."""
    real = nft._carry_out

    def carry_out(script: str, report: Report) -> Finished | None:
        finished = real(script, report)
        if finished is None or script.startswith("list "):
            return finished
        return replace(finished, status=-signal.SIGKILL, stderr="")

    begun(engine, "armed" if step in ("keep", "disarm") else "loaded")
    with monkeypatch.context() as within:
        within.setattr(nft, "_carry_out", carry_out)
        made = artifact(NEW)
        known = rehearsed(NEW)
        report = Report()
        work: Mapping[str, Callable[[], bool]] = {
            "load": lambda: ENGINE.load(made, report, {}, rehearsed=known),
            "arm": lambda: ENGINE.arm(made, LONG_S, report, rehearsed=known),
            "keep": lambda: ENGINE.keep(made, report, rehearsed=known),
            "disarm": lambda: ENGINE.disarm(report),
        }
        assert kernel.in_netns(engine.namespace.name, work[step], report) is True
    in_force = NEW if step in ("load", "keep") else OLD
    assert engine.listed() == rehearsed(in_force)
    assert engine.pending() == (rehearsed(NEW) if step == "arm" else NOTHING)
    # That the copy of what is in force is still there would be no more than a warning.
    assert not report.has_errors


TRANSACTIONS = {"load": (1, 2, 1), "arm": (1, 3, 1), "keep": (1, 2, 1), "disarm": (0, 2, 0)}


# --- elements alone --------------------------------------------------------------------------

NETS = """
settings {{ counters on }}
set bad = {bad}
set listed = dynamic timeout 1h
deny all from bad to any
deny all from listed to any
{accepted}
"""


def with_elements(bad: str, turns: int = 9) -> str:
    """A policy whose sets and verdict map have these elements."""
    accepted = "".join(
        f"{'allow' if n % 2 else 'deny'} tcp {7000 + n} inbound from 198.51.100.{n}\n"
        for n in range(1, turns)
    )
    return NETS.format(bad=bad, accepted=accepted)


def without_elements(listing: str) -> str:
    """A listing of rules, sets and chains, with all their handles."""
    kept, is_within = [], False
    for line in listing.splitlines():
        is_within = is_within or line.strip().startswith("elements = {")
        if not is_within:
            kept.append(line)
        is_within = is_within and not line.rstrip().endswith("}")
    return "\n".join(kept)


def test_elements_alone_are_touched(engine: Engine) -> None:
    """Where a set has others, no rule, chain or set is made anew, whatever the elements are."""
    engine.load(with_elements("192.0.2.0/24, 203.0.113.1, 2001:db8::/48, 2001:db8:ffff::1"))
    engine.namespace.run(
        ["nft", "add element inet policylang listed-v4 { 203.0.113.9 timeout 100s }"]
    )
    before = without_elements(engine.ruleset())
    drawn = random.Random(1)
    for _ in range(8):
        starts = sorted(drawn.sample(range(1, 250), 12))
        ranges = [
            f"203.0.{drawn.randrange(3)}.{start}-203.0.{2 + drawn.randrange(3)}.{end}"
            if drawn.random() < 0.3
            else f"192.0.2.{start}-192.0.2.{end}"
            for start, end in zip(starts[::2], starts[1::2], strict=True)
        ]
        six = ", ".join(f"2001:db8:{drawn.randrange(9)}::/{drawn.choice((48, 64))}" for _ in "ab")
        engine.load(with_elements(", ".join((*ranges, six, "2001:db8:ffff::1"))))
        assert without_elements(engine.ruleset()) == before
    assert "203.0.113.9" in engine.ruleset()


def test_elements_that_stay_count_on(pair: Ground) -> None:
    """In a verdict map in which another changes its verdict, and in one that is made anew."""
    engine, wan = Engine(pair.firewall), pair["wan"]

    def policy(fifth: str, more: str = "") -> str:
        """One rule leads to all of a verdict map."""
        verdicts = ["allow", "deny", "allow", "deny", fifth, "allow", "deny", "allow"]
        sources = [wan.far.ipv4, *(f"198.51.100.{n}" for n in range(2, 9))]
        pairs = enumerate(zip(verdicts, sources, strict=True), 8001)
        lines = "".join(f"{v} tcp {port} inbound from {source}\n" for port, (v, source) in pairs)
        return f"settings {{ counters on }}\n{lines}{more}"

    engine.load(policy("allow"))
    with served(pair.firewall, 8001):
        assert probe_tcp(wan.neighbour, wan.near.ipv4, 8001) is Reach.OPEN
    (found,) = (one for one in engine.listed().sets if one.place.startswith("map"))
    key = f"{wan.far.ipv4} . 8001 : accept"
    assert found.counts[key].packets == 1
    handles = without_elements(engine.ruleset())
    for anew, changed in (
        (False, policy("deny")),
        (False, policy("allow")),
        (True, policy("allow", "allow udp 53 inbound\n")),
    ):
        engine.load(changed)
        (now,) = (one for one in engine.listed().sets if one.place == found.place)
        assert now.counts[key] == found.counts[key]
        assert (without_elements(engine.ruleset()) != handles) is anew


# --- counts and dynamic sets -----------------------------------------------------------------

COUNTING = "settings { counters on }\n"


def count_of(what: Loaded, text: str) -> list[Count | None]:
    return [rule.count for chain in what.chains for rule in chain.rules if text in rule.text]


def test_counts_live_through_everything(pair: Ground) -> None:
    """Through a replacement, a trial and its end; those of the trial with it where it is kept."""
    engine, wan = Engine(pair.firewall), pair["wan"]
    native = 'native nft input "tcp dport 8001 counter"\n' * 2
    policies = [COUNTING + native + extra + OLD for extra in ("", "allow udp 53 inbound\n")]

    def knock(times: int) -> None:
        for _ in range(times):
            assert probe_tcp(wan.neighbour, wan.near.ipv4, 8001) is Reach.OPEN

    def packets() -> list[int]:
        found = count_of(engine.listed(), "tcp dport 8001 counter")
        return [count.packets for count in found if count is not None]

    with served(pair.firewall, 8001):
        engine.load(policies[0])
        knock(3)
        assert packets() == [3, 3]
        engine.load(policies[1])
        assert packets() == [3, 3]
        knock(1)
        engine.arm(policies[0])
        knock(2)
        assert packets() == [4, 4]
        tried = count_of(engine.pending(), "tcp dport 8001 counter")
        assert [count.packets for count in tried if count] == [6, 6]
        engine.disarm()
        assert packets() == [4, 4]
        engine.arm(policies[0])
        knock(2)
        engine.keep(policies[0])
        assert packets() == [6, 6]


def elements(engine: Engine, table: str, name: str) -> dict[str, str]:
    """The elements of a dynamic set, with what is left to them."""
    listed = engine.namespace.run(["nft", "list", "set", "inet", table, name]).stdout
    words = listed.partition("elements = {")[2].partition("}")[0].replace("\n", " ").split(",")
    return {word.split()[0]: word.split()[-1] for word in words if word.strip()}


def test_dynamic_sets_live_through_everything(pair: Ground) -> None:
    """What packets put into either generation's is in that which is left, for its time."""
    engine, wan = Engine(pair.firewall), pair["wan"]
    declared = "set banned = dynamic timeout 1h\ndeny all from banned to any\n"
    policies = [
        f"{declared}deny tcp 8009 inbound add source to banned\n{extra}{OLD}"
        for extra in ("", "allow udp 53 inbound\n")
    ]

    def add(table: str, element: str) -> None:
        command = f"add element inet {table} banned-v4 {{ {element} }}"
        engine.namespace.run(["nft", command])

    engine.load(policies[0])
    add("policylang", "203.0.113.1 timeout 100s, 203.0.113.2")
    engine.arm(policies[1])
    assert elements(engine, "policylang-pending", "banned-v4").keys() == {
        "203.0.113.1",
        "203.0.113.2",
    }
    probe_tcp(wan.neighbour, wan.near.ipv4, 8009, 0.1)
    assert wan.far.ipv4 in elements(engine, "policylang-pending", "banned-v4")
    assert wan.far.ipv4 not in elements(engine, "policylang", "banned-v4")
    engine.disarm()
    ours = elements(engine, "policylang", "banned-v4")
    assert ours.keys() == {"203.0.113.1", "203.0.113.2", wan.far.ipv4}
    assert ours["203.0.113.1"].startswith("1m")
    engine.arm(policies[1])
    engine.namespace.run(
        [
            "nft",
            "delete element inet policylang-pending banned-v4 { 203.0.113.1 };"
            "add element inet policylang-pending banned-v4 { 203.0.113.1 timeout 500s }",
        ]
    )
    add("policylang", "203.0.113.4")
    engine.keep(policies[1])
    ours = elements(engine, "policylang", "banned-v4")
    assert ours.keys() == {"203.0.113.1", "203.0.113.2", "203.0.113.4", wan.far.ipv4}
    assert ours["203.0.113.1"].startswith("8m")
    assert probe_tcp(wan.neighbour, wan.near.ipv4, 8001, 0.2) is Reach.TIMEOUT
