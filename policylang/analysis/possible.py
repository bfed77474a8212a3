"""Which packets there can be where a hook is read, so that nothing is made of those that cannot be.

Each of these says of some field what the kernel knows of it there, and why. What is not said here
is possible: two sets of rules that differ in it differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from policylang.analysis.deeds import Part, Where
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import Hook
from policylang.packets.cube import Cube
from policylang.packets.fields import UDP, AddressType, Field, State
from policylang.packets.values import Ranges

ALL_HOOKS = frozenset(Hook)
NO_NAME = Ranges.of(0)  # what the kernel compares where there is no interface
NO = Ranges.of(0)
WITHOUT_CONNECTION = Ranges.of(State.INVALID, State.UNTRACKED)


@dataclass(frozen=True, slots=True)
class Law:
    """On these hooks packets in `given` are in `then`, for a reason; it has a name for tests."""

    name: str
    hooks: frozenset[Hook]
    given: Cube
    then: Cube
    parts: frozenset[Part] = frozenset(Part)


def _law(
    name: str,
    hooks: frozenset[Hook],
    given: dict[Field, Ranges],
    then: dict[Field, Ranges],
    parts: frozenset[Part] = frozenset(Part),
) -> Law:
    return Law(name, hooks, Cube.of(given), Cube.of(then), parts)


# Those without which rules that do the same would seem to differ.
LAWS: tuple[Law, ...] = (
    # What came by no interface is this host's own, from an address of its own (`ir.stages.Path`).
    _law(
        "what came from nowhere is this host's own",
        frozenset({Hook.POSTROUTING}),
        {Field.IIF: NO_NAME},
        {Field.SADDR_TYPE: Ranges.of(AddressType.LOCAL)},
    ),
    # fib6 and ipv6_addr_type know no broadcast (net/ipv6/netfilter/nft_fib_ipv6.c, xt_addrtype.c).
    _law(
        "no broadcast to IPv6",
        ALL_HOOKS,
        {Field.FAMILY: Ranges.of(6)},
        {Field.DADDR_TYPE: Ranges.of(*(n for n in range(12) if n != AddressType.BROADCAST))},
    ),
    _law(
        "no broadcast from IPv6",
        ALL_HOOKS,
        {Field.FAMILY: Ranges.of(6)},
        {Field.SADDR_TYPE: Ranges.of(*(n for n in range(12) if n != AddressType.BROADCAST))},
    ),
    # Number 0 is the hop-by-hop header, which is read over on the way to what it carries
    # (ipv6_find_hdr of exthdrs_core.c).
    _law(
        "no protocol 0 in IPv6",
        ALL_HOOKS,
        {Field.FAMILY: Ranges.of(6)},
        {Field.L4PROTO: Ranges.between(1, 255)},
    ),
    # A packet of no connection has nothing that conntrack keeps with one (nf_ct_get).
    _law(
        "no connection, no translation",
        ALL_HOOKS,
        {Field.CT_STATE: WITHOUT_CONNECTION},
        {Field.DNATED: NO},
    ),
)

# These hold as well. Rules are compared without them: none relies on what they say.
ALL_LAWS = (
    *LAWS,
    # The way out is found behind these hooks; `oifname` and `-o` compare an empty name.
    _law(
        "no way out yet",
        frozenset({Hook.PREROUTING, Hook.INPUT}),
        {},
        {Field.OIF: NO_NAME, Field.IPSEC_OUT: NO},
    ),
    # What this host sends came by no interface, and not inside IPsec.
    _law(
        "own packets came from nowhere",
        frozenset({Hook.OUTPUT}),
        {},
        {Field.IIF: NO_NAME, Field.IPSEC: NO},
    ),
    # Nor has it a helper, or anybody that expected it.
    _law(
        "no connection, no helper",
        ALL_HOOKS,
        {Field.CT_STATE: WITHOUT_CONNECTION},
        {Field.CT_HELPER: NO, Field.EXPECTED: NO},
    ),
    # Questions are remembered of UDP alone (`RememberQuestion`, `RememberAsker`).
    _law(
        "answers are UDP", ALL_HOOKS, {Field.ANSWER: Ranges.of(1)}, {Field.L4PROTO: Ranges.of(UDP)}
    ),
    _law(
        "askers are UDP",
        ALL_HOOKS,
        {Field.TO_ASKER: Ranges.of(1)},
        {Field.L4PROTO: Ranges.of(UDP)},
    ),
)


class Possible:
    """The packets that there can be, by the part of the way."""

    def __init__(self, space: Space, laws: tuple[Law, ...] = ALL_LAWS) -> None:
        self.space = space
        self.laws = laws
        self._found: dict[Where, Packets] = {}

    def __call__(self, where: Where) -> Packets:
        if where not in self._found:
            self._found[where] = self._packets(where)
        return self._found[where]

    def _packets(self, where: Where) -> Packets:
        hook, part = where
        found = self.space.everything
        for law in self.laws:
            if hook in law.hooks and part in law.parts:
                given, then = self.space.of(law.given), self.space.of(law.then)
                found = found - (given - then)
        return found
