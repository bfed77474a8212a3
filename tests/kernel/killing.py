"""Command lines of policylang in processes that are killed by SIGKILL, at a step or at any time.

Run as a program it has everything imported, and forks for each command line that it is asked for:
hundreds of processes cost little more than what they do. A process leads a group of its own, and
the programs that it runs die with it. What packets would meet is not proved before a load, which
runs no program: the policies that are applied here are few, and proved elsewhere. It knows nothing
of rules and packets.

A *step* is a program that runs, or a change to a file that others can see.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Any

import policylang
from policylang.apply import guard, kernel, programs, proved, record, recovery, state
from policylang.apply.plain import Plain
from policylang.apply.record import Kept, Record, State
from policylang.cli import main
from policylang.diagnostics import Report

from .ground import REPOSITORY

CHANGE, LOOK, SYNC = "change", "look", "sync"  # what a step does to what is in force or recorded
FILE_STEPS = {
    **{"replace": CHANGE, "rename": CHANGE, "symlink": CHANGE, "unlink": CHANGE},
    "fsync": SYNC,  # what is written outlives a SIGKILL without it
}


@dataclass(frozen=True, slots=True)
class Death:
    """When a process is killed: so long after it has come to its step of that number.

    Or to the first one that changes anything by a program of that name. With `is_alone` the program
    that runs then is not killed with it.
    """

    step: int | str
    after_s: float = 0.0
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A step that was begun, and how long it took; None where it was the last thing done."""

    name: str
    kind: str
    took_s: float | None


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command line. A negative status is the signal that ended it."""

    status: int
    out: str
    err: str
    steps: tuple[Step, ...]

    @property
    def is_killed(self) -> bool:
        return self.status == -signal.SIGKILL

    def __str__(self) -> str:
        last = self.steps[-1].name if self.steps else "no step"
        return f"status {self.status}, at {last}\n{self.out}{self.err}"


class Killer:
    """The program of this module, while it is used as a context."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._program: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Killer:
        self._program = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(self._directory)},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._program is not None
        assert self._program.stdin is not None
        self._program.stdin.close()
        self._program.wait(30)

    def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        death: Death | None = None,
        *,
        heeds_journal: bool = True,
        clock_s: float = 0,
    ) -> Ran:
        """Carry out a command line, on a machine whose clock is so many seconds ahead.

        Without `heeds_journal` it does not look what is half done.
        """
        assert self._program is not None
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        asked = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "death": None if death is None else asdict(death),
            "heeds_journal": heeds_journal,
            "clock_s": clock_s,
        }
        self._program.stdin.write(json.dumps(asked).encode() + b"\n")
        self._program.stdin.flush()
        answer = json.loads(self._program.stdout.readline())
        steps = tuple(Step(**one) for one in answer.pop("steps"))
        return Ran(**answer, steps=steps)


# --- the program ---------------------------------------------------------------------------------


class _Steps:
    """Counts the steps of this process, writes each down, and kills it at one of them."""

    def __init__(self, death: Death | None, log: int) -> None:
        self._death = death
        self._log = log
        self._count = 0
        self._home = kernel.namespace()

    def counted(self, function: Callable[..., Any], tell: Callable[..., tuple[str, str]]) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            name, kind = tell(*arguments, **named)
            self._reach(name, kind)
            began = time.monotonic()
            try:
                return function(*arguments, **named)
            finally:
                os.write(self._log, f"{json.dumps(time.monotonic() - began)}\n".encode())

        return step

    def _reach(self, name: str, kind: str) -> None:
        death = self._death
        os.write(self._log, f"{json.dumps([name, kind])}\n".encode())
        if death is not None and self._is_at(death.step, name, kind):
            if death.after_s:
                threading.Timer(death.after_s, _die, [death]).start()
            else:
                _die(death)
        self._count += 1

    def _is_at(self, step: int | str, name: str, kind: str) -> bool:
        if isinstance(step, int):
            return self._count == step
        return kind == CHANGE and name.split()[0] == step

    def program(self, argv: Sequence[str], *_: object, **named: Any) -> tuple[str, str]:
        """What a program does; what it does in a scratch namespace changes nothing of ours."""
        script = b"".join(os.pread(one, 1 << 20, 0) for one in named.get("descriptors", ()))
        words = script.split()[:3]
        name = " ".join(
            [
                Path(argv[0]).name,
                *(word for word in argv[1:] if not word.startswith("/")),
                *map(os.fsdecode, words),
            ]
        )
        is_look = (
            kernel.namespace() not in HOMES
            or words[:1] == [b"list"]
            or argv[0].endswith("-save")
            or "--test" in argv
            or not {"save", "list", "show"}.isdisjoint(argv[1:])
        )
        return name, LOOK if is_look else CHANGE


def _die(death: Death) -> None:
    if death.is_alone:
        os.kill(os.getpid(), signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)


HOMES: set[int] = set()  # the namespaces whose rules are not scratch: those that have a name


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for module in pkgutil.walk_packages(policylang.__path__, "policylang."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known: set[str] = set()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        policies = {word for word in asked["arguments"] if word.endswith(".policy")}
        for policy in sorted(policies - known):
            _warm(policy)
        known |= policies
        answers.write(json.dumps(_answer(asked)).encode() + b"\n")
        answers.flush()


def _warm(policy: str) -> None:
    """Compile once: the grammar, statements of such forms and the templates stay in memory."""
    with redirect_stderr(io.StringIO()):
        main(["check", policy])


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    HOMES.clear()
    # Not those of other tests: when one is over, its number may be that of a scratch namespace.
    meant = {after for word, after in pairwise(asked["arguments"]) if word == "--netns"}
    for path in (p for p in kernel.NAMESPACES.iterdir() if not meant or p.name in meant):
        with suppress(FileNotFoundError):  # another test's, which is over
            HOMES.add(path.stat().st_ino)
    files = {name: os.fdopen(os.memfd_create(name), "w+b") for name in ("out", "err", "steps")}
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.dup2(files["out"].fileno(), 1)
        os.dup2(files["err"].fileno(), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _carry_out(asked, files["steps"].fileno())
    _, how = os.waitpid(pid, 0)
    told: dict[str, Any] = {"status": os.waitstatus_to_exitcode(how)}
    for name, file in files.items():
        with file:
            file.seek(0)
            told[name] = file.read().decode(errors="replace")
    told["steps"] = _read_steps(told["steps"])
    return told


def _read_steps(log: str) -> list[dict[str, object]]:
    steps: list[dict[str, object]] = []
    for line in log.splitlines():
        match json.loads(line):
            case [name, kind]:
                steps.append({"name": name, "kind": kind, "took_s": None})
            case took_s:
                steps[-1]["took_s"] = took_s
    return steps


def _carry_out(asked: dict[str, Any], log: int) -> None:
    """Carry out a command line in this process, which ends then."""
    os.environ.update(asked["environment"])
    death = None if asked["death"] is None else Death(**asked["death"])
    steps = _Steps(death, log)
    programs.run = steps.counted(programs.run, steps.program)
    for name, kind in FILE_STEPS.items():
        told = lambda *_, _told=(name, kind), **__: _told  # noqa: E731
        setattr(os, name, steps.counted(getattr(os, name), told))
    proved.is_proved = lambda *_: True
    # nft is then run as a program, which takes a tenth of the time that Python and libnftables do.
    sys.executable = asked["environment"].get("EXECUTABLE", "")
    if not asked["heeds_journal"]:
        _ignore_journal()
    if asked["clock_s"]:
        _turn_clock(asked["clock_s"])
    status = 99
    try:
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        status = main(asked["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _turn_clock(ahead_s: float) -> None:
    """Let this process, and the programs that it runs, have another clock on the wall."""
    true_time = time.time

    class Turned(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Turned:
            return cls.fromtimestamp(time.time(), tz)

    # How these are read is found out once, by what their modules call `datetime` then.
    kept = Kept(1, "nft", "nft", "", datetime.now(UTC), "", "", ())
    for value in (State.here(), kept):
        Plain().value(type(value), Plain().data(value))
    time.time = lambda: true_time() + ahead_s
    for module in (guard, record, state):
        vars(module)["datetime"] = Turned
    # libfaketime is for the programs alone: Python would no longer be able to wait for them.
    (preloaded,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    os.environ.update(LD_PRELOAD=str(preloaded), FAKETIME=f"{ahead_s:+.0f}")


def _ignore_journal() -> None:
    def settle(record: Record, report: Report) -> State | None:
        state = record.state(report)
        return None if state is None else replace(state, doing=None)

    recovery.settle = settle


if __name__ == "__main__":
    _serve()
