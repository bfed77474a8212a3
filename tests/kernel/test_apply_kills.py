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
from .killing import CHANGE, Death, Killer, Step

pytestmark = pytest.mark.usefixtures("kernel")

FEW = 4  # steps of a command, at most, at which it dies
APPLY = Path(policylang.apply.__file__).parent
# What is between two hooks while nft commits may meet the marks of the one and the filter of the
# other: a packet a run at most, where thousands are thrown. What stays open lets all of them pass.
BETWEEN_HOOKS = {Loader.NFT: 1, Loader.IPTABLES_NFT: 0, Loader.IPTABLES_LEGACY: 0}
AT_RANDOM = 4  # kills a loader; `python -m tests.kernel.faults` goes on


@pytest.fixture(scope="module")
def killer(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    with Killer(tmp_path_factory.mktemp("killer")) as started:
        yield started


# Both flavours of iptables take the same steps, and die at different ones.
CASES = [
    *((Loader.NFT, command) for command in COMMANDS),
    *((Loader.IPTABLES_NFT, one) for one in ("apply", "arm", "confirm", "rollback", "stop")),
    *((Loader.IPTABLES_LEGACY, one) for one in ("apply", "confirm")),
]


@pytest.fixture(scope="module")
def known() -> dict[Loader, dict[str, tuple[Step, ...]]]:
    """The steps of each command, once they are known."""
    return {loader: {} for loader in Loader}


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def made(
    killer: Killer,
    known: dict[Loader, dict[str, tuple[Step, ...]]],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[Machine]:
    with machine(request.param, killer, tmp_path, known[request.param]) as laid:
        yield laid


@pytest.mark.parametrize(
    ("made", "command"), CASES, ids=lambda one: str(getattr(one, "value", one)), indirect=["made"]
)
def test_a_command_that_is_killed_at_any_step_leaves_the_old_or_the_new(
    made: Machine, command: str
) -> None:
    deaths = list(points(steps_of(made, command)))
    if os.environ.get("POLICYLANG_EVERY_KILL") != "1":
        apart = -(-len(deaths) // FEW)  # each of them takes a while
        deaths = deaths[(_turn() + len(command) + [*Loader].index(made.loader)) % apart :: apart]
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
        assert after.leaked - before.leaked <= BETWEEN_HOOKS[made.loader]
    assert after.passed - before.passed == after.came - before.came > 300


def _turn() -> int:
    """Which of the steps it is the turn of: other ones whenever the code has changed."""
    return sum(zlib.crc32(path.read_bytes()) for path in sorted(APPLY.glob("*.py")))


def test_a_command_that_is_killed_at_any_time_leaves_the_old_or_the_new(made: Machine) -> None:
    chance = random.Random(made.loader.value)
    for _ in range(AT_RANDOM):
        case, death, wrong = at_random(made, chance)
        assert not wrong, f"{case} {death}: {wrong}"


@pytest.mark.parametrize("loader", [Loader.NFT, Loader.IPTABLES_NFT], ids=lambda one: one.value)
def test_without_the_journal_this_would_not_hold(
    loader: Loader,
    killer: Killer,
    known: dict[Loader, dict[str, tuple[Step, ...]]],
    tmp_path: Path,
) -> None:
    """A control of these tests: a policylang that never looks what is half done is found out."""
    with machine(loader, killer, tmp_path, known[loader]) as laid:
        steps, case = steps_of(laid, "apply"), prepared(laid, "apply")
        loads = [number for number, step in enumerate(steps) if "restore" in step.name]
        numbers = loads or [number for number, step in enumerate(steps) if step.kind == CHANGE]
        found: list[str] = []

        def is_found(*words: str) -> bool:
            return any(word in one for one in found for word in words)

        while numbers and not (is_found("open is", "drifted") and is_found("status said: nothing")):
            death = Death(numbers.pop(0) + 1)
            found += killed(laid, case, death, heeds_journal=False)[1]
            laid.status()
            case = prepared(laid, "apply")
        assert is_found("open is", "drifted"), found
        assert is_found("status said: nothing"), found
