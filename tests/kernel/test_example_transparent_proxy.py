"""The transparent proxy of the examples: a real one, which fetches what was asked of others."""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from .examples import load_example, on_every_loader, outcomes_as_user
from .ground import Family, Ground, Loader, Namespace, Reach, ground, ping
from .mirror import (
    MUST_PASS_S,
    Seen,
    Visit,
    all_seen_as_expected,
    make_transparent,
    mirrors,
)

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "transparent-proxy"
WIRES = {
    "wan": ("eth0", "192.0.2", "2001:db8:a:"),
    "lan": ("eth1", "10.0.0", "2001:db8:1:"),
}
SSH, DNS, HTTP, HTTPS, OTHER = PORTS = (22, 53, 80, 443, 8080)
PROXY = 3129
SOMEBODY = 1000

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def proxy(namespace: Namespace) -> Iterator[list[tuple[str, str]]]:
    """Fetch, as the user `proxy`, what those ask of others whom the kernel delivers here.

    The list takes who asked whom.
    """
    asked: list[tuple[str, str]] = []
    over, switch = os.pipe()
    waiting = select.poll()
    waiting.register(over, select.POLLIN)
    listeners: dict[int, tuple[socket.socket, Family]] = {}
    user = pwd.getpwnam("proxy").pw_uid

    def serve() -> None:
        # Of this thread alone: the sockets that it makes belong to that user.
        _libc.setfsuid(user)
        while over not in (ready := dict(waiting.poll())):
            for number in ready:
                listener, family = listeners[number]
                with suppress(OSError), listener.accept()[0] as client:
                    asked.append((client.getpeername()[0], client.getsockname()[0]))
                    with namespace.opened(family, socket.SOCK_STREAM) as origin:
                        origin.settimeout(MUST_PASS_S)
                        origin.connect(client.getsockname()[:2])
                        client.sendall(origin.recv(2048))

    with ExitStack() as stack:
        for family in Family:
            listener = stack.enter_context(namespace.opened(family, socket.SOCK_STREAM))
            if family is Family.IPV6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            make_transparent(listener, family)
            listener.bind(("", PROXY))
            listener.listen()
            listeners[listener.fileno()] = listener, family
            waiting.register(listener, select.POLLIN)
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            os.close(switch)
            thread.join()
            os.close(over)


@contextmanager
def house() -> Iterator[Ground]:
    """The router, and a machine on each side."""
    with ground(*WIRES, wires=WIRES) as laid, ExitStack() as stack:
        for name, segment in laid.segments.items():
            stack.enter_context(mirrors(segment.neighbour, name, PORTS))
        stack.enter_context(mirrors(laid.firewall, "self", PORTS))
        yield laid


@on_every_loader
def test_a_transparent_proxy(tmp_path: Path, loader: Loader) -> None:
    """HTTP is fetched by the proxy, whatever was dialled; the rest goes its own way."""
    with house() as laid, proxy(laid.firewall) as asked:
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        lan, wan = laid["lan"], laid["wan"]
        all_seen_as_expected(tries(laid))
        assert sorted(asked) == sorted((lan.far.of(f), wan.far.of(f)) for f in Family)
        assert ping(lan.neighbour, wan.far.ipv4)
        # Nobody else on the router fetches anything.
        target = ("tcp", wan.far.ipv4, HTTP)
        user = pwd.getpwnam("proxy").pw_uid
        assert outcomes_as_user(laid.firewall, user, target) == [Reach.OPEN]
        assert outcomes_as_user(laid.firewall, SOMEBODY, target) == [Reach.REFUSED]


def tries(laid: Ground) -> Iterator[Visit]:
    """What those inside ask for, and whom the server sees."""
    lan, wan = laid["lan"], laid["wan"]
    for family in Family:
        target, own = wan.far.of(family), lan.near.of(family)
        router, client = wan.near.of(family), lan.far.of(family)
        masqueraded = router if family is Family.IPV4 else client
        for port, expected in (
            (HTTP, Seen("wan", router, target, HTTP)),
            (HTTPS, Seen("wan", masqueraded, target, HTTPS)),
            (DNS, Seen("wan", masqueraded, target, DNS)),
            (OTHER, Reach.TIMEOUT),
        ):
            yield Visit(lan.neighbour, target, port, expected)
        # Who dials the proxy itself does not meet it.
        yield Visit(lan.neighbour, own, PROXY, Reach.TIMEOUT)
        yield Visit(wan.neighbour, wan.near.of(family), PROXY, Reach.TIMEOUT)
        yield Visit(lan.neighbour, own, SSH, Seen("self", client, own, SSH))


def test_without_the_word_nothing_is_proxied(tmp_path: Path) -> None:
    """The control: what is only allowed meets the server itself."""
    changes = {"tproxy http from lan to wan port 3129": "allow http from lan to wan"}
    with house() as laid, proxy(laid.firewall) as asked:
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        lan, wan = laid["lan"], laid["wan"]
        target = wan.far.ipv6
        expected = Seen("wan", lan.far.ipv6, target, HTTP)
        all_seen_as_expected([Visit(lan.neighbour, target, HTTP, expected)])
        assert not asked
