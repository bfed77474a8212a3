"""The world beyond a machine, on the loopback of a namespace: a name server and a web server.

Programs that are run in it ask these two, by a resolver's configuration of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from subprocess import CompletedProcess

from tests.apply.web import Server, certificate, server_context
from tests.warm import warm

from .ground import Family, Namespace

HOST = "lists.example"
DNS_PORT, HTTPS_PORT = 53, 443
A, AAAA = 1, 28  # RFC 1035 section 3.2.2, RFC 3596
SERVFAIL, NXDOMAIN = 2, 3  # RFC 1035 section 4.1.1
TTL_S = 0


class Names:
    """A name server for UDP; `addresses` are by name, and a name that is not there is none."""

    def __init__(self, inside: Namespace) -> None:
        self.addresses: dict[str, list[str]] = {HOST: ["127.0.0.1"]}
        self.is_failing = False
        self._socket = inside.opened(Family.IPV4, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", DNS_PORT))
        self._socket.settimeout(0.05)
        self._is_over = False

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield
        finally:
            self._is_over = True
            thread.join()
            self._socket.close()

    def _serve(self) -> None:
        while not self._is_over:
            try:
                question, client = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(question), client)

    def _answer(self, question: bytes) -> bytes:
        """RFC 1035 section 4: the question again, and its addresses of the family asked for."""
        end = question.index(b"\0", 12)
        labels, rest = [], question[12:end]
        while rest:
            labels.append(rest[1 : 1 + rest[0]].decode())
            rest = rest[1 + rest[0] :]
        (kind,) = struct.unpack_from("!H", question, end + 1)
        held = self.addresses.get(".".join(labels).lower())
        version = {A: 4, AAAA: 6}.get(kind)
        found = [ip_address(text) for text in held or () if ip_address(text).version == version]
        code = SERVFAIL if self.is_failing else NXDOMAIN if held is None else 0
        answers = b"".join(
            struct.pack("!HHHIH", 0xC00C, kind, 1, TTL_S, len(a.packed)) + a.packed
            for a in (() if code else found)
        )
        head = struct.pack("!HHHHH", 0x8180 | code, 1, 0 if code else len(found), 0, 0)
        return question[:2] + head + question[12 : end + 5] + answers


class World:
    """A namespace with both servers, and a `policylang` that is run there."""

    def __init__(
        self, inside: Namespace, names: Names, web: Server, trusted: Path, program: Path
    ) -> None:
        self.inside, self.names, self.web, self.trusted = inside, names, web, trusted
        self._program = program

    def policylang(self, *arguments: str) -> CompletedProcess[str]:
        """What came of a command."""
        environment = {**os.environ, "SSL_CERT_FILE": str(self.trusted)}
        own_etc = ("ip", "netns", "exec", self.inside.name)  # as `world` laid it out
        argv = [*own_etc, str(self._program), *arguments]
        return self.inside.run(argv, check=False, env=environment)


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world; `folder` is for its certificate. Programs run in it see its name server alone."""
    inside = Namespace.create("world")
    etc = Path("/etc/netns", inside.name)  # ip-netns(8) lays it over /etc
    try:
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        (etc / "nsswitch.conf").write_text("hosts: dns\n")
        both = certificate(folder, HOST)
        with inside.entered():
            names, web = Names(inside), Server(server_context(both), HTTPS_PORT)
        with names.running(), web.running(), warm(folder) as program:
            yield World(inside, names, web, both, program)
    finally:
        shutil.rmtree(etc, ignore_errors=True)
        inside.delete()
