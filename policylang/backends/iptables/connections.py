"""Spells what conntrack knows of a packet's connection."""

from __future__ import annotations

from policylang.backends.iptables.prefixes import of_family, prefix_words
from policylang.backends.iptables.sieve import Sieve
from policylang.packets.fields import FAMILY_ADDRESSES, UNIVERSE, Field, FlowDirection, State
from policylang.packets.values import Range, Ranges

STATES = {state: state.name for state in State}
BARRED_MOST = 3  # so many that are left out stand in one line


def states(values: Ranges) -> Sieve:
    """`--ctstate`; a packet is in exactly one state."""
    names = [name for state, name in STATES.items() if state in values]
    if len(names) == len(STATES) - 1:
        (missing,) = (name for state, name in STATES.items() if state not in values)
        return Sieve.any_of([f"-m conntrack ! --ctstate {missing}"])
    return Sieve.any_of([f"-m conntrack --ctstate {','.join(names)}"])


def direction(values: Ranges) -> Sieve:
    """`--ctdir`; a packet of no connection travels neither way."""
    return Sieve.any_of([f"-m conntrack --ctdir {FlowDirection(values.pairs[0][0]).name}"])


def dnated(values: Ranges) -> Sieve:
    """`--ctstate DNAT`: a state to this match, and turned it holds for what has no connection."""
    sign = "" if 1 in values else "! "
    return Sieve.any_of([f"-m conntrack {sign}--ctstate DNAT"])


def expected(values: Ranges) -> Sieve:
    """`--ctstatus EXPECTED`, which turned would not hold for what has no connection."""
    match = "-m conntrack --ctstatus EXPECTED"
    return Sieve.any_of([match]) if 1 in values else Sieve.none_of([match])


def dialled_addresses(values: Ranges, family: int) -> Sieve | None:
    """`--ctorigdst`, of one prefix a match; None where the family has none of them.

    What has no connection was never dialled: it meets no such match, turned or not.
    """
    part = of_family(values, family)
    if not part:
        return None
    found, others = prefix_words(part), prefix_words(FAMILY_ADDRESSES[family] - part)
    return _dialled("--ctorigdst", found, others)


def dialled_ports(values: Ranges) -> Sieve:
    """`--ctorigdstport`, of one range a match."""
    others = UNIVERSE[Field.ORIG_DPORT] - values
    return _dialled("--ctorigdstport", list(map(_ports, values)), list(map(_ports, others)))


def _dialled(option: str, found: list[str], others: list[str]) -> Sieve:
    if others and len(others) < len(found) and len(others) <= BARRED_MOST:
        return Sieve.any_of([" ".join(f"-m conntrack ! {option} {word}" for word in others)])
    return Sieve.any_of(f"-m conntrack {option} {word}" for word in found)


def _ports(pair: Range) -> str:
    low, high = pair
    return str(low) if low == high else f"{low}:{high}"
