"""The mail server of the examples: who may send what, by the user that sends it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from pwd import getpwnam

import pytest

from .examples import (
    MUST_FAIL_S,
    Try,
    all_as_expected,
    load_example,
    move_in,
    on_every_loader,
    outcomes_as_user,
    serving_ports,
)
from .ground import Family, Ground, Loader, Reach, ground, ping, probe_tcp

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "mail-server"
WIRES = {"wan": ("wan0", "203.0.113", "2001:db8:113:")}
ADMINS = ("192.0.2.7", "2001:db8:1::7")
RESOLVERS = ("192.0.2.53", "2001:db8:1::53")

NOBODY = 65534
# What each user tries in the world, by service, and who is to get through.
ALLOWED = {
    ("tcp", 25): {"mail"},
    ("tcp", 80): {"root", "_apt"},
    ("tcp", 443): {"root", "_apt"},
    ("tcp", 465): set[str](),
    ("udp", 53): set[str](),
    ("udp", 123): set[str](),
}
# The same at the resolvers.
ALLOWED_THERE = {("udp", 53): True, ("udp", 123): True, ("tcp", 53): True, ("tcp", 25): False}


@on_every_loader
def test_a_mail_server(tmp_path: Path, loader: Loader) -> None:
    """Mail comes in from everybody and goes out by its user; nothing else leaves unasked."""
    with ExitStack() as stack:
        laid = stack.enter_context(ground("wan", wires=WIRES))
        wan = laid["wan"]
        move_in(laid.firewall, wan, *ADMINS, *RESOLVERS)
        echoing = (wan.far.ipv4, wan.far.ipv6, *RESOLVERS)
        stack.enter_context(
            serving_ports(wan.neighbour, [25, 53, 80, 443, 465], [53, 123], echoing)
        )
        stack.enter_context(serving_ports(laid.firewall, [22, 25, 80, 465, 587, 993, 4190]))
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        all_as_expected(arriving(laid))
        assert ping(wan.neighbour, wan.near.ipv4)
        for admin, family in zip(ADMINS, Family, strict=True):
            # One of the five has been used up above.
            attempts = [
                probe_tcp(wan.neighbour, wan.near.of(family), 22, MUST_FAIL_S, source=admin)
                for _ in range(5)
            ]
            assert attempts == [Reach.OPEN] * 4 + [Reach.TIMEOUT]
        assert leaving(laid) == {}


def arriving(laid: Ground) -> Iterator[Try]:
    """Who reaches what on the server."""
    wan = laid["wan"]
    for family, admin in zip(Family, ADMINS, strict=True):
        near = wan.near.of(family)
        for port in (25, 465, 587, 993, 4190):
            yield Try(wan.neighbour, near, port)
        yield Try(wan.neighbour, near, 22, source=admin)
        yield Try(wan.neighbour, near, 22, Reach.TIMEOUT)
        yield Try(wan.neighbour, near, 80, Reach.TIMEOUT, source=admin)


def leaving(laid: Ground) -> dict[tuple[str, str, str, int], Reach]:
    """What is not as it should be of what the server's users reach."""
    wan = laid["wan"]
    found: dict[tuple[str, str, str, int], Reach] = {}
    users = {name: getpwnam(name).pw_uid for name in ("mail", "root", "_apt")}
    for user, uid in {**users, "nobody": NOBODY}.items():
        expected = {
            **{
                (protocol, wan.far.of(family), port): user in allowed
                for (protocol, port), allowed in ALLOWED.items()
                for family in Family
            },
            **{
                (protocol, resolver, port): is_allowed or user in ALLOWED.get((protocol, port), ())
                for (protocol, port), is_allowed in ALLOWED_THERE.items()
                for resolver in RESOLVERS
            },
        }
        came = outcomes_as_user(laid.firewall, uid, *expected)
        for one, outcome in zip(expected, came, strict=True):
            # Whoever may not is told so at once, and does not wait in vain.
            good = (Reach.OPEN,) if expected[one] else (Reach.REFUSED, Reach.UNREACHABLE)
            if outcome not in good:
                found[user, *one] = outcome
    return found


def test_without_its_user_everybody_sends_mail(tmp_path: Path) -> None:
    """The control: without the condition the server is one for spam."""
    with ground("wan", wires=WIRES) as laid, serving_ports(laid["wan"].neighbour, [25]):
        mail = ("tcp", laid["wan"].far.ipv4, 25)
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path)
        assert outcomes_as_user(laid.firewall, NOBODY, mail) == [Reach.REFUSED]
        changes = {"allow smtp outbound user mail": "allow smtp outbound"}
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        assert outcomes_as_user(laid.firewall, NOBODY, mail) == [Reach.OPEN]
