"""Whenever policylang is killed by SIGKILL, what is in force is the old or the new, and known.

What `faults` says must hold is asked after each kill: packets that neither policy allows never pass
and those that both allow always do, at once; then the next command says what was broken off, and
packets, listings, the record and what a boot loads agree on one of both policies.
"""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import policylang.apply

from .faults import COMMANDS, Machine, at_random, killed, machine, points, prepared, steps_of
from .ground import Loader
from .killing import CHANGE, Death, Killer

pytestmark = pytest.mark.usefixtures("kernel")

MANY = 8  # steps of a command, of which a quarter will do
APPLY = Path(policylang.apply.__file__).parent
AT_RANDOM = 5  # kills a loader; `python -m tests.kernel.faults` goes on


@pytest.fixture(scope="module")
def killer(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    with Killer(tmp_path_factory.mktemp("killer")) as started:
        yield started


# Both flavours of iptables take the same steps, and `rollback` those of `apply`: where both are
# asked and there are many points still, each dies at half of them.
SHARED = ("apply", "confirm")
CASES = [
    *((Loader.NFT, command) for command in COMMANDS),
    *((Loader.IPTABLES_NFT, one) for one in ("apply", "arm", "confirm", "rollback", "stop")),
    *((Loader.IPTABLES_LEGACY, one) for one in SHARED),
]


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def made(killer: Killer, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with machine(request.param, killer, tmp_path) as laid:
        yield laid


@pytest.mark.parametrize(
    ("made", "command"), CASES, ids=lambda one: str(getattr(one, "value", one)), indirect=["made"]
)
def test_a_command_that_is_killed_at_any_step_leaves_the_old_or_the_new(
    made: Machine, command: str
) -> None:
    deaths = list(points(steps_of(made, command)))
    if len(deaths) > MANY and os.environ.get("POLICYLANG_EVERY_KILL") != "1":
        deaths = deaths[(_turn() + len(command)) % 4 :: 4]  # each of them takes a while
        if made.loader is not Loader.NFT and command in SHARED and len(deaths) > MANY:
            deaths = deaths[made.loader is Loader.IPTABLES_LEGACY :: 2]
    case, kills = prepared(made, command), 0
    before = made.probed()
    with made.probing():
        for death in deaths:
            ran, wrong = killed(made, case, death)
            assert not wrong, f"{case} {death}: {wrong}\n{ran}"
            kills += ran.is_killed
            case = prepared(made, command)
    after = made.probed()
    assert 2 * kills >= len(deaths)  # a look, or the last step, may be over before the kill
    if None not in (case.before, case.after):
        assert after.leaked == before.leaked
    assert after.passed - before.passed == after.came - before.came > 300


def _turn() -> int:
    """Which quarter of the steps it is the turn of: another one whenever the code has changed."""
    return sum(zlib.crc32(path.read_bytes()) for path in sorted(APPLY.glob("*.py")))


def test_a_command_that_is_killed_at_any_time_leaves_the_old_or_the_new(made: Machine) -> None:
    chance = random.Random(made.loader.value)
    for _ in range(AT_RANDOM):
        case, death, wrong = at_random(made, chance)
        assert not wrong, f"{case} {death}: {wrong}"


@pytest.mark.parametrize("loader", [Loader.NFT, Loader.IPTABLES_NFT], ids=lambda one: one.value)
def test_without_the_journal_this_would_not_hold(
    loader: Loader, killer: Killer, tmp_path: Path
) -> None:
    """A control of these tests: a policylang that never looks what is half done is found out."""
    with machine(loader, killer, tmp_path) as laid:
        steps, case = steps_of(laid, "apply"), prepared(laid, "apply")
        loads = [number for number, step in enumerate(steps) if "restore" in step.name]
        numbers = loads or [number for number, step in enumerate(steps) if step.kind == CHANGE]
        found = []
        for number in numbers:
            _, wrong = killed(laid, case, Death(number + 1), heeds_journal=False)
            found += wrong
            laid.status()
            case = prepared(laid, "apply")
        assert any("open is" in one or "drifted" in one for one in found), found
        assert any("status said: nothing" in one for one in found), found
