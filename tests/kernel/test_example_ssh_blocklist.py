"""The blocklist example: who is on the list stays out, who tries too often is banned."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .examples import (
    MUST_FAIL_S,
    Session,
    load_example,
    move_in,
    on_every_loader,
)
from .ground import Addresses, Family, Ground, Loader, Reach, ground, probe_tcp

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "ssh-blocklist"
LISTED = Addresses("198.51.100.7", "2001:db8:bad::7")
EAGER = Addresses("198.51.100.50", "2001:db8:51::50")
OTHER = Addresses("198.51.100.51", "2001:db8:51::51")
BURST = 5


@contextmanager
def sshd(laid: Ground) -> Iterator[dict[Family, socket.socket]]:
    """Listen on port 22 in the place of an SSH server, once for each family."""
    with ExitStack() as stack:
        yield {f: stack.enter_context(laid.firewall.listen(f, 22)) for f in Family}


def knocked(laid: Ground, family: Family, source: str) -> Reach:
    """Come from an address once more."""
    wan = laid["wan"]
    return probe_tcp(wan.neighbour, wan.near.of(family), 22, MUST_FAIL_S, source=source)


@on_every_loader
def test_an_ssh_server(tmp_path: Path, loader: Loader) -> None:
    """The list ends what is open; the sixth attempt is a ban, of that source and of all it has."""
    with ground("wan") as laid, sshd(laid) as listening, ExitStack() as stack:
        wan = laid["wan"]
        move_in(laid.firewall, wan, *(a.of(f) for a in (LISTED, EAGER, OTHER) for f in Family))
        before = {
            f: stack.enter_context(Session.opened(wan, listening[f], f, LISTED.of(f)))
            for f in Family
        }
        assert all(session.is_alive() for session in before.values())
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)

        def holds(family: Family) -> None:
            assert not before[family].is_alive()
            assert knocked(laid, family, LISTED.of(family)) is Reach.TIMEOUT
            source, other = EAGER.of(family), OTHER.of(family)
            with (
                Session.opened(wan, listening[family], family, source) as session,
                Session.opened(wan, listening[family], family, other) as bystander,
            ):
                for _ in range(BURST - 1):
                    assert knocked(laid, family, source) is Reach.OPEN
                assert session.is_alive()
                assert knocked(laid, family, source) is Reach.TIMEOUT
                assert not session.is_alive()
                assert bystander.is_alive()
            assert knocked(laid, family, other) is Reach.OPEN

        with ThreadPoolExecutor() as pool:
            list(pool.map(holds, Family))


def without(laid: Ground, directory: Path, changes: dict[str, str]) -> tuple[list[Reach], bool]:
    """What one more than the burst comes to under a changed policy, and whether it cuts."""
    source = EAGER.ipv4
    load_example(EXAMPLE, laid.firewall, Loader.NFT, directory, changes)
    with (
        sshd(laid) as listening,
        Session.opened(laid["wan"], listening[Family.IPV4], Family.IPV4, source) as session,
    ):
        reached = [knocked(laid, Family.IPV4, source) for _ in range(BURST)]
        return reached, session.is_alive()


@pytest.mark.parametrize(
    ("changes", "last", "goes_on"),
    [
        ({" limit 4/minute per source": ""}, Reach.OPEN, True),
        ({" add source to banned": ""}, Reach.TIMEOUT, True),
        ({" also established": ""}, Reach.TIMEOUT, True),
        ({}, Reach.TIMEOUT, False),
    ],
    ids=["limit", "ban", "established", "nothing"],
)
def test_what_each_word_is_for(
    tmp_path: Path, changes: dict[str, str], last: Reach, goes_on: bool
) -> None:
    """The controls: without the limit, the ban or its hold on what is open."""
    with ground("wan") as laid:
        move_in(laid.firewall, laid["wan"], EAGER.ipv4)
        reached, still = without(laid, tmp_path, changes)
        assert reached == [Reach.OPEN] * (BURST - 1) + [last]
        assert still is goes_on
