"""Puts addresses into the dynamic sets of rules that are loaded; knows no rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from policylang.backends.iptables.names import dynamic_set_name as ipset_name
from policylang.backends.nft import TABLE
from policylang.backends.nft.sets import dynamic_set_name as nft_name
from policylang.ir.ruleset import DynamicSet
from policylang.packets.values import V6_BASE, format_address
from policylang.proving.namespaces import Namespace

AT_ONCE = 500  # elements of one command
UNSPECIFIED = (0, V6_BASE)  # which no ipset of addresses takes


def fill(firewall: Namespace, target: str, held: Mapping[DynamicSet, Iterable[int]]) -> None:
    """Let these sets hold exactly these addresses; GroundError where they do not take them."""
    lines = list(_lines(target, held))
    if lines:
        program = ["nft", "-f", "-"] if target == "nft" else ["ipset", "restore"]
        firewall.run(program, "".join(f"{line}\n" for line in lines))


def _lines(target: str, held: Mapping[DynamicSet, Iterable[int]]) -> Iterator[str]:
    for one, addresses in held.items():
        for family in (4, 6):
            of_it = [
                format_address(address)
                for address in sorted(addresses)
                if (address >= V6_BASE) == (family == 6) and address not in UNSPECIFIED
            ]
            if target == "nft":
                name = nft_name(one.name, family)
                yield f"flush set {TABLE} {name}"
                for start in range(0, len(of_it), AT_ONCE):
                    elements = ", ".join(of_it[start : start + AT_ONCE])
                    yield f"add element {TABLE} {name} {{ {elements} }}"
            else:
                name = ipset_name(one.name, family)
                yield f"flush {name}"
                yield from (f"add {name} {address}" for address in of_it)
