"""The bastion of the examples: SSH opens for who knocks in the right order and in time."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from .examples import Session, Try, all_as_expected, load_example, move_in, on_every_loader
from .ground import Family, Ground, Loader, Reach, family_of, ground

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "bastion"
RIGHT = (7003, 7001, 7002)
WRONG = {
    "nothing": (),
    "two": RIGHT[:2],
    "a scan": (7001, 7002, 7003),
    "backwards": RIGHT[::-1],
    "one left out": (7003, 7002),
    "the last twice": (7003, 7002, 7002),
}
# As written, but impatient.
IMPATIENT_S = 1
IMPATIENT = {
    "set knocked-once  = dynamic timeout 10s": f"set knocked-once = dynamic timeout {IMPATIENT_S}s",
    "set admitted      = dynamic timeout 30s": f"set admitted = dynamic timeout {IMPATIENT_S}s",
}


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine that has not been there before."""

    laid: Ground
    address: str

    @classmethod
    def arriving(cls, laid: Ground, family: Family, first: int, count: int) -> list[Guest]:
        """Several at once; their addresses end in numbers from `first` on."""
        prefix = {Family.IPV4: "203.0.113.", Family.IPV6: "2001:db8:113::"}[family]
        found = [f"{prefix}{number}" for number in range(first, first + count)]
        move_in(laid.firewall, laid["wan"], *found)
        return [cls(laid, address) for address in found]

    def knock(self, *ports: int) -> None:
        """Send a SYN to each port, and do not wait for the answer that will not come."""
        wan = self.laid["wan"]
        family = family_of(self.address)
        for port in ports:
            with wan.neighbour.opened(family, socket.SOCK_STREAM) as opened:
                opened.setblocking(False)
                opened.bind((self.address, 0))
                opened.connect_ex((wan.near.of(family), port))

    def finds(self, expected: Reach, port: int = 22) -> Try:
        """What it is to find at a port of the bastion: SSH unless said otherwise."""
        wan = self.laid["wan"]
        target = wan.near.of(family_of(self.address))
        return Try(wan.neighbour, target, port, expected, source=self.address)


@on_every_loader
def test_a_bastion(tmp_path: Path, loader: Loader) -> None:
    """The right order opens SSH for that source, every other order leaves it closed."""
    with ground("wan") as laid, ExitStack() as stack:
        listening = {f: stack.enter_context(laid.firewall.listen(f, 22)) for f in Family}
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        tries: list[Try] = []
        for family in Family:
            admitted, *refused = Guest.arriving(laid, family, 10, 1 + len(WRONG))
            admitted.knock(*RIGHT)
            for guest, ports in zip(refused, WRONG.values(), strict=True):
                guest.knock(*ports)
            tries.append(admitted.finds(Reach.OPEN))
            tries += (guest.finds(Reach.TIMEOUT) for guest in refused)
        all_as_expected(tries)

        load_example(EXAMPLE, laid.firewall, loader, tmp_path, IMPATIENT)
        tries.clear()
        late: list[Guest] = []
        sessions: list[Session] = []
        for family in Family:
            slow, admitted = Guest.arriving(laid, family, 30, 2)
            slow.knock(RIGHT[0])
            admitted.knock(*RIGHT)
            opening = Session.opened(laid["wan"], listening[family], family, admitted.address)
            sessions.append(stack.enter_context(opening))
            late.append(slow)
            tries += (guest.finds(Reach.TIMEOUT) for guest in (slow, admitted))
        time.sleep(IMPATIENT_S + 0.2)
        for guest in late:
            guest.knock(*RIGHT[1:])
        all_as_expected(tries)
        assert all(session.is_alive() for session in sessions)


def test_where_nobody_must_knock(tmp_path: Path) -> None:
    """The control: without the set everybody is let in."""
    changes = {"allow ssh inbound from admitted": "allow ssh inbound"}
    with ground("wan") as laid, laid.firewall.listen(Family.IPV4, 22):
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        (guest,) = Guest.arriving(laid, Family.IPV4, 10, 1)
        all_as_expected([guest.finds(Reach.OPEN)])
