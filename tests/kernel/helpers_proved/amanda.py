"""Amanda backups (its security and service protocol over UDP, `amandad`).

The client of the connection is the backup server, and its server the machine to be saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .talk import Flow, SilenceError, Talk, port_of

_CONNECT = re.compile(rb"CONNECT DATA (\d+) MESG (\d+) INDEX (\d+)")
STREAMS = ("DATA", "MESG", "INDEX")
HEADER = b"Amanda 2.6 %b HANDLE 000-00000000 SEQ 1\n"


def backup(talk: Talk) -> Iterator[Flow]:
    """The machine to be saved names three ports, and the backup server connects to them."""
    line = talk.line
    saved = talk.datagrams(line.server, talk.port.own)
    backup_server = talk.datagrams(line.client)
    dialled = (line.dialled, talk.port.dialled)
    request = HEADER % b"REQ" + b"SERVICE sendbackup\nOPTIONS features=fff;\n"
    _, source = talk.deliver(backup_server, dialled, saved, request)
    talk.agree("the backup server's address", source[0], line.caller)
    waiting = [talk.listener(line.server) for _ in STREAMS]
    named = " ".join(f"{name} {port_of(w)}" for name, w in zip(STREAMS, waiting, strict=True))
    reply = HEADER % b"REP" + f"CONNECT {named}\nOPTIONS features=fff;\n".encode()
    heard, _ = talk.deliver(saved, source, backup_server, reply)
    found = _CONNECT.search(heard)
    if found is None:
        raise SilenceError(f"no ports in {heard!r}")
    for name, port, listener in zip(STREAMS, found.groups(), waiting, strict=True):
        yield talk.tcp_flow(name, line.client, (line.dialled, int(port)), listener)
