"""The kiosk of the examples: what its user reaches and when, and what the system reaches always.

The clock of the kernel cannot be set for a test; so the hours of the example are moved instead.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .examples import (
    Try,
    all_as_expected,
    load_example,
    move_in,
    on_every_loader,
    outcomes_as_user,
    serving_ports,
)
from .ground import Family, Ground, Loader, Reach, ground

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "kiosk"
WIRES = {"wan": ("wan0", "198.51.100", "2001:db8:5:")}  # the shop's own networks
ELSEWHERE = ("203.0.113.9", "2001:db8:9::9")
ADMINS = ("192.0.2.7", "2001:db8:1::7")
KIOSK, OTHER = 1001, 1002

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS = "during 08:00-20:00 mon-sat"

# Protocol and port: whether each user may, in the shop and elsewhere.
KIOSK_MAY = {
    ("tcp", 443): (True, False),
    ("tcp", 80): (False, False),
    ("udp", 53): (True, True),
    ("udp", 123): (False, False),
}
OTHER_MAY = {
    ("tcp", 443): (True, True),
    ("tcp", 80): (True, True),
    ("udp", 53): (True, True),
    ("udp", 123): (True, True),
    ("tcp", 25): (False, False),
}


def window(begin: datetime, days: str) -> dict[str, str]:
    """The hours of the example moved to two that begin then; they may span midnight."""
    end = begin + timedelta(hours=2)
    return {HOURS: f"during {begin:%H:%M}-{end:%H:%M} {days}"}


@on_every_loader
def test_a_kiosk(tmp_path: Path, loader: Loader) -> None:
    """Its user reaches the shop while it is open, and the system what it needs at any time."""
    with ExitStack() as stack:
        laid = stack.enter_context(ground("wan", wires=WIRES))
        wan = laid["wan"]
        move_in(laid.firewall, wan, *ELSEWHERE, *ADMINS)
        echoing = (wan.far.ipv4, wan.far.ipv6, *ELSEWHERE)
        stack.enter_context(serving_ports(wan.neighbour, [25, 80, 443], [53, 123], echoing))
        stack.enter_context(serving_ports(laid.firewall, [22, 443]))
        begun = datetime.now(UTC) - timedelta(hours=1)
        later = begun + timedelta(hours=3)
        today, another = (DAYS[(begun.weekday() + days) % 7] for days in (0, 3))
        closed = {**KIOSK_MAY, ("tcp", 443): (False, False)}

        for changes, may in (
            (window(later, "mon-sun"), closed),
            (window(begun, another), closed),
            (window(begun, today), KIOSK_MAY),
        ):
            load_example(EXAMPLE, laid.firewall, loader, tmp_path, changes)
            assert surprises(laid, KIOSK, may) == {}, changes
        assert surprises(laid, OTHER, OTHER_MAY) == {}
        tries: list[Try] = []
        for family, admin in zip(Family, ADMINS, strict=True):
            near = wan.near.of(family)
            tries.append(Try(wan.neighbour, near, 22, source=admin))
            tries.append(Try(wan.neighbour, near, 22, Reach.TIMEOUT))
            tries.append(Try(wan.neighbour, near, 443, Reach.TIMEOUT))
        all_as_expected(tries)


def surprises(
    laid: Ground, user: int, may: dict[tuple[str, int], tuple[bool, bool]]
) -> dict[tuple[str, str, int], Reach]:
    """What a user reaches and should not, or should and does not."""
    shop = [laid["wan"].far.of(family) for family in Family]
    expected = {
        (protocol, address, port): allowed
        for (protocol, port), both in may.items()
        for allowed, addresses in zip(both, (shop, ELSEWHERE), strict=True)
        for address in addresses
    }
    came = outcomes_as_user(laid.firewall, user, *expected)
    return {
        one: outcome
        for one, outcome in zip(expected, came, strict=True)
        # Whoever may not is told so at once, and does not wait in vain.
        if outcome not in ((Reach.OPEN,) if expected[one] else (Reach.REFUSED, Reach.UNREACHABLE))
    }


@pytest.mark.parametrize(
    ("changes", "protocol", "port"),
    [
        ({" user 1001 during 08:00-20:00 mon-sat": " user 1001"}, "tcp", 443),
        ({'reject all outbound user 1001 log "kiosk "': ""}, "udp", 123),
    ],
    ids=["hours", "user"],
)
def test_what_each_word_is_for(
    tmp_path: Path, changes: dict[str, str], protocol: str, port: int
) -> None:
    """The controls: without its hours the shop never closes, without its user he is the system."""
    with (
        ground("wan", wires=WIRES) as laid,
        serving_ports(laid["wan"].neighbour, [443], [123]),
    ):
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        one = (protocol, laid["wan"].far.ipv4, port)
        assert outcomes_as_user(laid.firewall, KIOSK, one) == [Reach.OPEN]
