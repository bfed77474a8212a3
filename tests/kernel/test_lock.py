"""One policylang at a time works in a namespace, and who waits is told for whom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from policylang.apply import kernel
from policylang.apply.holder import Holder, holder
from policylang.diagnostics import Report

from .ground import Namespace

# Takes the lock, says so, and runs a program that goes on until somebody writes into a pipe.
HOLDS = """
import sys
from policylang.apply import kernel, programs
from policylang.diagnostics import Report
with kernel.alone(Report()) as is_alone:
    print(is_alone, flush=True)
    programs.run(["cat", sys.argv[1]], Report())
"""


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    made = Namespace.create("lock")
    try:
        yield made
    finally:
        made.delete()


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def held(namespace: Namespace, pipe: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock, with a program of its own at work."""
    argv = [sys.executable, "-c", HOLDS, str(pipe)]
    child = namespace.spawn(argv, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"True\n"
    return child


def tried(
    namespace: Namespace, report: Report, waiting: Callable[[str], None] | None = None
) -> bool | None:
    """Whether the lock is to be had."""

    def work() -> bool:
        with kernel.alone(report, waiting) as is_alone:
            return is_alone

    return kernel.in_netns(namespace.name, work, report)


def test_who_waits_is_told_for_whom(
    namespace: Namespace, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process, command line and since when: soon and once, and in the error at last."""
    monkeypatch.setattr(kernel, "PATIENCE_S", 0.4)
    monkeypatch.setattr(kernel, "SAY_AFTER_S", 0.1)
    child = held(namespace, pipe)
    report = Report()
    told: list[str] = []
    assert tried(namespace, report, told.append) is False
    words = re.escape(f"process {child.pid} (`{sys.executable} -c ")
    who = rf": {words}.*`\), since \d\d:\d\d:\d\d"
    (line,) = told
    assert re.fullmatch(f"waiting for another policylang{who}", line, re.DOTALL)
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "lock-held"
    expected = f"another policylang has been at work here for 0 seconds{who}"
    assert re.fullmatch(expected, diagnostic.message, re.DOTALL)
    pipe.write_text("")
    assert child.wait() == 0
    assert tried(namespace, Report()) is True


def test_a_killed_one_holds_the_lock_until_its_programs_have_ended(
    namespace: Namespace, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program that was started still does to the kernel comes before the next command."""
    monkeypatch.setattr(kernel, "PATIENCE_S", 0.3)
    child = held(namespace, pipe)
    give_up = time.monotonic() + 5
    while len(namespace.run(["ip", "netns", "pids", namespace.name]).stdout.split()) < 2:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    child.kill()
    child.wait()
    report = Report()
    assert tried(namespace, report) is False
    assert "/cat /" in report.diagnostics[0].message
    pipe.write_text("")
    monkeypatch.setattr(kernel, "PATIENCE_S", 5)
    assert tried(namespace, Report()) is True


def test_a_lock_is_given_to_programs_while_it_is_held_and_by_its_thread_alone(
    namespace: Namespace,
) -> None:
    def work() -> tuple[int, int]:
        with kernel.alone(Report()):
            return len(kernel.locks()), len(kernel.in_scratch(kernel.locks, Report()) or ())

    assert kernel.in_netns(namespace.name, work, Report()) == (1, 0)
    assert kernel.locks() == ()


def test_the_holder_of_a_lock(tmp_path: Path) -> None:
    """Nobody, then this process; a command line that is long is cut."""
    import fcntl

    with (tmp_path / "lock").open("w") as file:
        assert holder(file.fileno()) is None
        fcntl.flock(file, fcntl.LOCK_EX)
        found = holder(file.fileno())
        assert found is not None and found.since is not None
        assert found.pid == os.getpid()
        assert len(found.command) <= 80
        age = (datetime.now(found.since.tzinfo) - found.since).total_seconds()
        assert 0 <= age < 3600


def test_a_holder_in_words() -> None:
    long_ago = datetime(2026, 1, 2, 3, 4, 5).astimezone()
    assert Holder(7, "policylang apply", long_ago).text == (
        "process 7 (`policylang apply`), since 2026-01-02 03:04"
    )
    assert Holder(7, "", None).text == "process 7"
