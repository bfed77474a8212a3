"""Probes by another user: the sockets belong to that user, as a real program's would.

    python -m tests.kernel.as_user UID PROTOCOL,ADDRESS,PORT ...

It is started as root, in the namespace it is to probe from, and prints a line for each probe.
"""

from __future__ import annotations

import os
import socket
import sys

from .ground import Reach, family_of, reach_of

PATIENCE_S = 2.0


def reach(protocol: str, address: str, port: int) -> Reach:
    """Open a connection, or have a datagram echoed."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family_of(address).af, kind) as opened:
        opened.settimeout(PATIENCE_S)
        try:
            opened.connect((address, port))
            if protocol == "udp":
                opened.send(b"probe")
                opened.recv(2048)
        except OSError as error:
            return reach_of(error)
        return Reach.OPEN


def main() -> None:
    """Become the user, then probe."""
    user = int(sys.argv[1])
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    for word in sys.argv[2:]:
        protocol, address, port = word.split(",")
        print(reach(protocol, address, int(port)).value)


if __name__ == "__main__":
    main()
