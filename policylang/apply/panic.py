"""The policy of `policylang panic`: everything is closed but the way by which the operator came.

It is written in the language and compiled as any other, so that it can be read, kept and rolled
back like any other.
"""

from __future__ import annotations

from policylang.apply import operator
from policylang.apply.operator import Connection
from policylang.diagnostics import Diagnostic

NAME = "panic.policy"

CLOSED = """\
# What `policylang panic` loads: nothing passes but what keeps the operator here.

settings { on-reload cut }

default deny inbound
default deny forward
default deny outbound
"""


def panic_policy(connection: Connection | None) -> str:
    """A policy that closes both families, in, out and through, and ends what is open.

    What stays is this host's talk to itself, neighbour discovery, and SSH from where the
    operator is to the port that is used now: open connections and new ones. With None that too
    is closed.
    """
    if connection is None:
        return CLOSED
    return f"{CLOSED}\nallow tcp {connection.here_port} inbound from {connection.text}\n"


def cut_off(connection: Connection) -> Diagnostic | None:
    """An error, where what carries the operator's connection would be closed.

    A tunnel's own packets are not SSH, so the way out of it would be shut.
    """
    try:
        name = operator.tunnel(connection)
    except OSError:
        return None
    if name is None:
        return None
    return Diagnostic(
        "panic-in-tunnel",
        f"you are here through the tunnel `{name}`, which would be closed",
        None,
        help="come by another way, or apply a policy that allows SSH and what carries the tunnel",
    )
