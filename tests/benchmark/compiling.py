"""What a compile costs: the whole process, from its start to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark.policies import FIVE_SERVICES, fleet, host_rules, prefix_list
from tests.benchmark.quiet import undisturbed
from tests.kernel.ground import REPOSITORY

FLEETS = {100: None, 500: 20.0, 2_000: None}  # hosts, and what a compile for all of them may take


@dataclass(frozen=True, slots=True)
class Task:
    """A command line, how often it is timed, and what it may take (None: nothing is asked).

    `statuses` are the exit statuses that it may end with.
    """

    name: str
    arguments: tuple[str, ...]
    times: int
    limit_s: float | None
    limit_mib: float | None = None
    statuses: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class Run:
    """One process: its time, how much of that it was computing, and the most memory it held."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def tasks(directory: Path) -> tuple[Task, ...]:
    """What is timed; the policies are written into `directory`."""
    texts = {
        "five": FIVE_SERVICES,
        "hosts-1000": host_rules(1_000),
        "hosts-10000": host_rules(10_000),
        **{f"fleet-{count}": fleet(count) for count in FLEETS},
        "prefixes": 'set blocked = file "prefixes.txt"\ndeny all from blocked to any\n',
    }
    for name, text in texts.items():
        (directory / f"{name}.policy").write_text(text)
    (directory / "prefixes.txt").write_text(prefix_list(100_000))

    def compiling(name: str, policy: str, times: int, limit_s: float | None) -> tuple[Task, ...]:
        file = str(directory / f"{policy}.policy")
        output = ("--output", str(directory / "output"))
        return (
            Task(f"{name}, nft", ("compile", file), times, limit_s),
            Task(
                f"{name}, iptables",
                ("compile", file, "--target", "iptables", *output),
                times,
                limit_s,
            ),
        )

    return (
        Task("--version", ("--version",), 20, 0.060),
        *compiling("five services", "five", 15, 0.200),
        *compiling("1,000 host rules", "hosts-1000", 7, 1.0),
        *compiling("10,000 host rules", "hosts-10000", 3, None),
        *compiling("a list of 100,000 prefixes", "prefixes", 5, 1.5),
        *(_fleet(directory, count, limit_s) for count, limit_s in FLEETS.items()),
    )


def _fleet(directory: Path, count: int, limit_s: float | None) -> Task:
    """All hosts of a policy, side by side."""
    place = ("--all-hosts", "--output", str(directory / f"fleet-{count}"))
    file = str(directory / f"fleet-{count}.policy")
    return Task(f"a fleet of {count:,} hosts, nft", ("compile", file, *place), 2, limit_s)


def run(task: Task, directory: Path) -> tuple[Run, ...]:
    """Time a task; raises `CalledProcessError` where it fails.

    Once before does not count: it leaves the bytecode, as an installation does, in `directory`.
    """
    argv = [sys.executable, "-m", "policylang", *task.arguments]
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with undisturbed():
        return tuple(_run(argv, environment, task) for _ in range(task.times + 1))[1:]


def _run(argv: Sequence[str], environment: Mapping[str, str], task: Task) -> Run:
    started = time.perf_counter()
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(
        argv, cwd=REPOSITORY, env=environment, stdout=nowhere, stderr=nowhere
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in task.statuses:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
