"""Tells which process holds a lock on a file, as /proc does; knows not what the lock is for."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

PROC = Path("/proc")
MOST_SHOWN = 80  # characters of a command line


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock; `since` is when it was started, None where that is hidden."""

    pid: int
    command: str
    since: datetime | None

    @property
    def text(self) -> str:
        """As in "process 4242 (`policylang apply web.policy`), since 14:02:11"."""
        what = f"process {self.pid}" + (f" (`{self.command}`)" if self.command else "")
        if self.since is None:
            return what
        is_today = self.since.date() == datetime.now(self.since.tzinfo).date()
        return f"{what}, since {self.since:{'%H:%M:%S' if is_today else '%Y-%m-%d %H:%M'}}"


def holder(descriptor: int) -> Holder | None:
    """Who holds flock(2) on an open file; None where nobody does, or nobody that is seen here.

    Where the process that took the lock has ended, it is one that it gave the file to.
    /proc/locks (proc(5)) hides processes of other pid namespaces.
    """
    about = os.fstat(descriptor)
    place = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    pid = _owner(PROC / "locks", place)
    if pid is None:
        return None
    if not (PROC / str(pid)).exists():
        pid = next(_heirs(place), pid)
    return Holder(pid, _command(pid), _started(pid))


def _owner(locks: Path, place: str) -> int | None:
    """Who took the lock on that file, as a file of locks has it."""
    try:
        lines = locks.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        # `7: FLOCK  ADVISORY  WRITE 4242 00:04:4026531840 0 EOF`; who waits has `->` in front,
        # and fdinfo the word `lock:`.
        words = line.removeprefix("lock:").split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == place:
            return int(words[4])
    return None


def _heirs(place: str) -> Iterator[int]:
    """The processes that have the file open by which the lock was taken."""
    for info in PROC.glob("[0-9]*/fdinfo/*"):
        if _owner(info, place) is not None:
            yield int(info.parts[-3])


def _command(pid: int) -> str:
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # it has just ended
        return ""
    shown = shlex.join(words[:-1])
    return shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 3] + "..."


def _started(pid: int) -> datetime | None:
    try:
        status = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # Field 22 of proc(5), in ticks since boot; the name in parentheses may hold anything.
    ticks = int(status.rpartition(")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(time.time() - age_s).astimezone()
