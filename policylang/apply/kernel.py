"""Enters network namespaces, and keeps them to itself; knows nothing of what is done there.

A namespace belongs to a thread. Work that is meant for another namespace runs in a thread of
its own that enters it: the rest of this process stays where it is, programs that the work
starts inherit the namespace, and a scratch namespace is gone when the last of them has ended.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from policylang.apply.holder import holder
from policylang.diagnostics import Report, did_you_mean

CLONE_NEWNET = 0x40000000  # linux/sched.h
NAMESPACES = Path("/run/netns")  # ip-netns(8)

OWN_NAMESPACE = Path("/proc/thread-self/ns/net")
OWN_STATUS = Path("/proc/thread-self/status")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # random(4)
CAP_NET_ADMIN = 12  # linux/capability.h

PATIENCE_S = 60.0  # others change what is ours for as long as an apply takes them
LOOK_S = 0.02
SAY_AFTER_S = 0.5  # a `set add` is over by then

T = TypeVar("T")


def in_scratch(work: Callable[[], T], report: Report) -> T | None:
    """What `work` returns, done in a new, empty namespace that is gone afterwards.

    None, and `not-permitted`, where this process may not make one. What `work` raises is
    raised here.
    """
    return _in_thread(_unshare, work, report)


def in_netns(name: str | None, work: Callable[[], T], report: Report) -> T | None:
    """What `work` returns, done in a namespace: a name of `ip netns`, a path, or None for here.

    None, and `no-such-namespace` or `not-permitted`, where it cannot be entered. What `work`
    raises is raised here.
    """
    if name is None:
        return work()
    path = Path(name) if "/" in name else NAMESPACES / name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        _not_permitted(f"enter the network namespace `{name}`", report)
        return None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        _no_such_namespace(name, str(getattr(error, "strerror", error)), report)
        return None
    try:
        return _in_thread(lambda: _enter(descriptor, name), work, report)
    finally:
        os.close(descriptor)


def boot_id() -> str:
    """What tells this run of the machine from all others."""
    return BOOT_ID.read_text().strip()


def namespace() -> int:
    """The number of this thread's namespace, which no other has while it is there."""
    return OWN_NAMESPACE.stat().st_ino


def own_name() -> str | None:
    """What ip-netns(8) calls this thread's namespace; None where it has no name."""
    own = OWN_NAMESPACE.stat()
    try:
        paths = sorted(NAMESPACES.iterdir())
    except OSError:
        return None
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                return path.name
    return None


def is_same(boot: str, number: int) -> bool:
    """Whether that namespace, of that run of the machine, is this thread's."""
    return (boot, number) == (boot_id(), namespace())


@contextmanager
def alone(report: Report, waiting: Callable[[str], None] | None = None) -> Iterator[bool]:
    """Whether this thread has its namespace to itself, among all who ask for it so.

    The lock is on the namespace's own file: it leaves nothing behind and ends with the process
    and the last program that it started meanwhile (`locks`). Where another holds it, `waiting` is
    told soon, and once, who that is; where it does so for too long, `lock-held` is reported.
    """
    descriptor = os.open(OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
    before = locks()
    try:
        is_locked = _is_locked(descriptor, report, waiting)
        _OWN.locks = (*before, descriptor) if is_locked else before
        yield is_locked
    finally:
        _OWN.locks = before
        os.close(descriptor)


_OWN = threading.local()


def locks() -> tuple[int, ...]:
    """The descriptors of the locks that this thread holds.

    A program that has them goes on holding the locks if this process is killed: nobody else
    begins before it, too, has ended.
    """
    held: tuple[int, ...] = getattr(_OWN, "locks", ())
    return held


def _is_locked(
    descriptor: int, report: Report, waiting: Callable[[str], None] | None = None
) -> bool:
    began = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
            if waited > PATIENCE_S:
                message = f"another policylang has been at work here for {PATIENCE_S:.0f} seconds"
                who = _who_holds(descriptor)
                report.add("lock-held", message + who, None, help="nothing was changed")
                return False
            if waiting is not None and waited > SAY_AFTER_S:
                waiting(f"waiting for another policylang{_who_holds(descriptor)}")
                waiting = None
            time.sleep(LOOK_S)
        else:
            return True


def _who_holds(descriptor: int) -> str:
    """Who holds the lock, as the end of a sentence; empty where that is not seen here."""
    found = holder(descriptor)
    return "" if found is None else f": {found.text}"


def may_change(report: Report) -> bool:
    """Whether this process may change rules at all; reports `not-permitted`."""
    fields = dict(line.split(":", 1) for line in OWN_STATUS.read_text().splitlines())
    if int(fields["CapEff"], 16) >> CAP_NET_ADMIN & 1:
        return True
    _not_permitted("read or change what is loaded", report)
    return False


class _EntryRefusedError(Exception):
    """Why a thread could not change its namespace, as a call on the report."""

    def __init__(self, tell: Callable[[Report], None]) -> None:
        self.tell = tell


def _in_thread(enter: Callable[[], None], work: Callable[[], T], report: Report) -> T | None:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            results.append(work())
        except BaseException as failure:  # handed to the caller's thread, whole
            failures.append(failure)

    thread = threading.Thread(target=run, name="policylang-netns", daemon=True)
    thread.start()
    thread.join()
    match failures:
        case [_EntryRefusedError() as refusal]:
            refusal.tell(report)
            return None
        case [failure]:
            raise failure
        case _:
            return results[0]


def _unshare() -> None:
    if _libc().unshare(CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        if code == errno.EPERM:
            raise _EntryRefusedError(
                lambda report: _not_permitted("make a network namespace", report)
            )
        raise OSError(code, f"unshare: {os.strerror(code)}")


def _enter(descriptor: int, name: str) -> None:
    if _libc().setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        if code == errno.EPERM:
            what = f"enter the network namespace `{name}`"
            raise _EntryRefusedError(lambda report: _not_permitted(what, report))
        reason = "it is not a network namespace"  # EINVAL: a file of another kind
        raise _EntryRefusedError(lambda report: _no_such_namespace(name, reason, report))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _not_permitted(what: str, report: Report) -> None:
    report.add("not-permitted", f"may not {what}", None, help="run it as root")


def _no_such_namespace(name: str, reason: str, report: Report) -> None:
    try:
        names = [path.name for path in NAMESPACES.iterdir()]
    except OSError:
        names = []
    report.add(
        "no-such-namespace",
        f"cannot enter the network namespace `{name}`: {reason[:1].lower()}{reason[1:]}",
        None,
        help=did_you_mean(name, names) or "`ip netns list` shows the names",
    )
