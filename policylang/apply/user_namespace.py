"""Makes this process root of a user namespace of its own, where nothing outside is changed.

What is read by loading it needs a network namespace, and a user who is not root may make one there
alone (user_namespaces(7)). It knows nothing of what is done with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from pathlib import Path

CLONE_NEWUSER = 0x10000000  # linux/sched.h
SELF = Path("/proc/self")
PATIENCE_S, LOOK_S = 1.0, 0.01


def enter_own() -> bool:
    """Whether this process is root of a namespace of its own from now on.

    That cannot be taken back. It is not tried where there are other threads: the kernel refuses it.
    """
    if threading.active_count() > 1:
        return False
    uid, gid = os.geteuid(), os.getegid()
    if not _unshared():
        return False
    try:
        # Without it the kernel lets nobody without rights map a group (user_namespaces(7)).
        (SELF / "setgroups").write_text("deny")
        (SELF / "uid_map").write_text(f"0 {uid} 1")
        (SELF / "gid_map").write_text(f"0 {gid} 1")
    except OSError:  # a security module may allow the one and not the other
        return False
    return True


def _unshared() -> bool:
    """Leave the user namespace; a thread that ended is still one for a moment."""
    libc = ctypes.CDLL(None, use_errno=True)
    give_up = time.monotonic() + PATIENCE_S
    while libc.unshare(CLONE_NEWUSER) != 0:
        if ctypes.get_errno() != errno.EINVAL or time.monotonic() > give_up:
            return False
        time.sleep(LOOK_S)
    return True
