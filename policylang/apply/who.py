"""Tells who works here, as far as their environment does; nothing is decided by it."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

PARENTS = 20  # a shell in a shell in sudo in screen: no chain of them is as long


def made_by() -> str:
    """Who runs this: `alice (root) from 192.0.2.7`, or less where less is known."""
    name = _name(os.getuid())
    asked = os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER")
    who = f"{asked} ({name})" if asked and asked != name else name
    client = ssh_connection()
    return f"{who} from {client[0]}" if client else who


def ssh_connection() -> tuple[str, str, str, str] | None:
    """The SSH connection that this was started over, as sshd(8) tells it.

    The client's address and port, and the server's. sudo(8) takes the variable away: then a
    process that started this one has it.
    """
    pid = os.getpid()
    for _ in range(PARENTS):
        found = _environment(pid).get(b"SSH_CONNECTION", b"").split()
        if len(found) == 4:
            address, port, here, here_port = (os.fsdecode(word) for word in found)
            return address, port, here, here_port
        parent = _parent(pid)
        if parent is None:
            break
        pid = parent
    return None


def _environment(pid: int) -> dict[bytes, bytes]:
    if pid == os.getpid():
        return dict(os.environb)
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # gone, or another user's
        return {}
    return {name: value for name, _, value in (one.partition(b"=") for one in variables)}


def _parent(pid: int) -> int | None:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses too.
    parent = int(status.rpartition(")")[2].split()[1])
    return parent if parent > 1 else None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user that nobody named
        return os.environ.get("USER") or f"uid {uid}"
