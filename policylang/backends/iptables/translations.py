"""Spells what translates addresses and ports: targets, alone or as lines to choose among."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from policylang.backends.iptables.prefixes import dashed, one_prefix
from policylang.backends.iptables.sieve import InexpressibleError
from policylang.backends.iptables.targets import Target
from policylang.backends.iptables.transport import U32_RANGES, numbers, protocol_match
from policylang.ir.actions import (
    DestinationNat,
    MapPrefix,
    Masquerade,
    RedirectToSelf,
    SourceNat,
    Translation,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import REQUIRES, Field
from policylang.packets.values import V6_BASE, Range, format_address

TARGETS_MOST = 256  # addresses that connections are spread over: each is a line to be read

# Where the last four bytes of a source stand, in IPv4 and IPv6 (RFC 791, RFC 8200 section 3).
SADDR_END = (12, 20)

# What has ports, of which the targets want to see `-p` in their own line.
PORTED = next(values for field, _, values in REQUIRES if field is Field.DPORT)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several lines, of which the first that a packet meets decides.

    The last of them meets all packets that are left. `match` is empty where it asks nothing.
    """

    match: str
    goal: Goal


Goal = Target | tuple[Choice, ...]


def is_of_family(action: Translation, family: int) -> bool:
    """Whether packets of a family can be translated so."""
    match action:
        case Masquerade() | RedirectToSelf():
            return True
        case SourceNat(addresses):
            found = addresses[0]
        case DestinationNat(targets):
            found = targets.pairs[0][0]
        case MapPrefix(_, prefix):
            found = prefix[0]
        case _:
            assert_never(action)
    return (found >= V6_BASE) == (family == 6)


def is_one_target(action: Translation) -> bool:
    """Whether it makes no difference how often the action stands in the output."""
    return not isinstance(action, DestinationNat) or action.targets.single is not None


def protocols_to_name(action: Translation, cube: Cube) -> tuple[int, ...]:
    """The protocols with ports of a rule, where the action sets ports; else none."""
    match action:
        case MapPrefix():
            ports = False
        case Masquerade(ports=span) | SourceNat(ports=span):
            ports = span is not None
        case DestinationNat(port=port):
            ports = port is not None
        case RedirectToSelf():
            ports = True
        case _:
            assert_never(action)
    return tuple(numbers(cube[Field.L4PROTO] & PORTED)) if ports else ()


def translated(action: Translation, cube: Cube) -> Goal:
    """What becomes of packets that are in `cube`; raises InexpressibleError."""
    protocols = protocols_to_name(action, cube)
    match action:
        case Masquerade(ports, is_random):
            ending = " --random-fully" if is_random else ""
            with_ports = f"-j MASQUERADE --to-ports {_span(ports)}{ending}" if ports else None
            return _by_protocol(with_ports, f"-j MASQUERADE{ending}", protocols, cube)
        case SourceNat(addresses, ports, is_random, is_persistent):
            ending = " --random-fully" if is_random else ""
            ending += " --persistent" if is_persistent else ""
            option = "-j SNAT --to-source"
            with_ports = f"{option} {_place(addresses, _span(ports))}{ending}" if ports else None
            without = f"{option} {_place(addresses, None)}{ending}"
            return _by_protocol(with_ports, without, protocols, cube)
        case DestinationNat():
            return _destination(action, protocols, cube)
        case RedirectToSelf(port):
            return _by_protocol(f"-j REDIRECT --to-ports {port}", None, protocols, cube)
        case MapPrefix(_, prefix):
            return Target(f"-j NETMAP --to {one_prefix(prefix)}")
        case _:
            assert_never(action)


def _by_protocol(
    with_ports: str | None, without: str | None, protocols: Sequence[int], cube: Cube
) -> Goal:
    """A line for each protocol that has ports, and one for all others, if there may be any."""
    if with_ports is None:
        assert without is not None
        return Target(without)
    choices = [Choice("", Target(with_ports, protocol_match(number))) for number in protocols]
    if without is not None and not PORTED.covers(cube[Field.L4PROTO]):
        choices.append(Choice("", Target(without)))
    (*_, last) = choices
    return last.goal if len(choices) == 1 else tuple(choices)


def _span(ports: Range) -> str:
    low, high = ports
    return str(low) if low == high else f"{low}-{high}"


def _place(addresses: Range, ports: str | None) -> str:
    low, high = addresses
    text = format_address(low) if low == high else dashed(addresses)
    if ports is None:
        return text
    return f"[{text}]:{ports}" if low >= V6_BASE else f"{text}:{ports}"


# --- several targets ------------------------------------------------------------------------------


def _destination(action: DestinationNat, protocols: Sequence[int], cube: Cube) -> Goal:
    def to(addresses: Range, ending: str = "") -> Goal:
        port = None if action.port is None else str(action.port)
        text = f"-j DNAT --to-destination {_place(addresses, port)}{ending}"
        return Target(text) if port is None else _by_protocol(text, None, protocols, cube)

    targets = action.targets
    if len(targets) == 1 and action.by_source and targets.single is None:
        # The kernel takes one of a range by a hash of both addresses, or with this of the source's
        # alone (find_best_ips_proto of nf_nat_core.c).
        return to(targets.pairs[0], " --persistent")
    if targets.count > TARGETS_MOST:
        raise InexpressibleError(
            f"{targets.count} targets",
            help=f"name {TARGETS_MOST} at most, or a single range with `by source`",
        )
    goals = [to((number, number)) for number in numbers(targets)]
    *others, last = goals
    if not others:
        return last
    if action.by_source:
        words = _residues(len(goals), SADDR_END[targets.pairs[0][0] >= V6_BASE])
    else:
        # What the lines before have taken does not come to the next one.
        left = range(len(goals), 1, -1)
        words = [f"-m statistic --mode nth --every {count} --packet 0" for count in left]
    turns = (Choice(word, goal) for word, goal in zip(words, others, strict=True))
    return (*turns, Choice("", last))


def _residues(count: int, at: int) -> list[str]:
    """Matches for all but the last of `count` parts of as many sources, by the last bits of these.

    xt_cluster, which was made for it, looks at the first 32 bits of an IPv6 address alone.
    """
    bits = (U32_RANGES * count).bit_length() - 1
    return [
        f'-m u32 --u32 "{at}&0x{(1 << bits) - 1:X}='
        f'{",".join(str(n) for n in range(part, 1 << bits, count))}"'
        for part in range(count - 1)
    ]
