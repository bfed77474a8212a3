"""Spells what stands in a packet's headers besides its addresses and ports."""

from __future__ import annotations

from policylang.backends.iptables.sets import IpSets, mac_text
from policylang.backends.iptables.sieve import InexpressibleError, Sieve, Slot
from policylang.backends.iptables.transport import numbers
from policylang.ir.origin import Origin
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.values import Ranges

MACS_FEW = 16  # so many are matches: not every kernel has the type of set that holds them
MACS_MOST = 65_536  # a set has them one by one


def hop_limits(values: Ranges) -> Sieve:
    """`-m hl`, which compares with one number at a time."""
    missing = (UNIVERSE[Field.HOP_LIMIT] - values).single
    if missing is not None:
        return Sieve.any_of([f"-m hl ! --hl-eq {missing}"])
    return Sieve.any_of(_hop_limit(low, high) for low, high in values)


def _hop_limit(low: int, high: int) -> str:
    if low == high:
        return f"-m hl --hl-eq {low}"
    above = f"-m hl --hl-gt {low - 1}" if low > 0 else ""
    below = f"-m hl --hl-lt {high + 1}" if high < 255 else ""
    return f"{above} {below}".strip()


def dscps(values: Ranges) -> Sieve:
    """`-m dscp`, which compares with one number."""
    missing = UNIVERSE[Field.DSCP] - values
    if missing.count < values.count:
        return Sieve.any_of([" ".join(f"-m dscp ! --dscp {n}" for n in numbers(missing))])
    return Sieve.any_of(f"-m dscp --dscp {n}" for n in numbers(values))


def sizes(values: Ranges) -> Sieve:
    """`-m length`: of the packet with its IP header, in both families."""
    missing = UNIVERSE[Field.SIZE] - values
    if len(missing) < len(values):
        return Sieve.any_of([" ".join(f"-m length ! --length {a}:{b}" for a, b in missing)])
    return Sieve.any_of(f"-m length --length {a}:{b}" for a, b in values)


def ipsec(way: str, values: Ranges) -> Sieve:
    """`-m policy`: whether what arrived came (`in`), or what leaves goes (`out`), inside IPsec."""
    return Sieve.any_of([f"-m policy --dir {way} --pol {'ipsec' if 1 in values else 'none'}"])


def source_routed(values: Ranges, family: int) -> Sieve:
    """`-m rt` for IPv6; no match of iptables reads the options of IPv4 one by one."""
    if family == 4:
        raise InexpressibleError(
            "IPv4 source route options",
            help="leave it out for iptables: Linux itself drops such packets, unless the sysctl "
            "`accept_source_route` is set",
        )
    return Sieve((("-m rt", 1 in values),), otherwise=0 in values)


# --- MAC addresses -------------------------------------------------------------------------------


def macs(values: Ranges, sets: IpSets, origins: tuple[Origin, ...]) -> tuple[Slot, Sieve]:
    """`-m mac`, which takes one address and is never met by what came without any.

    A set of them cannot hold the one that is all zeros.
    """
    missing = UNIVERSE[Field.SMAC] - values
    if missing.count <= MACS_FEW:
        return Slot.SMAC, Sieve.any_of([" ".join(_mac(n, "! ") for n in numbers(missing))])
    if values.count <= MACS_FEW:
        return Slot.SMAC, Sieve.any_of(_mac(n) for n in numbers(values))
    zero = Ranges.of(0)
    if values.count <= MACS_MOST:
        name = sets.macs(values - zero, origins)
        found = [f"-m set --match-set {name} src"]
        return Slot.SMAC_SET, Sieve.any_of([*found, _mac(0)] if 0 in values else found)
    if missing.count <= MACS_MOST:
        name = sets.macs(missing - zero, origins)
        found = [f"{_mac(0, '! ')} -m set ! --match-set {name} src"]
        return Slot.SMAC_SET, Sieve.any_of([*found, _mac(0)] if 0 in values else found)
    raise InexpressibleError(f"more than {MACS_MOST} MAC addresses")


def _mac(number: int, sign: str = "") -> str:
    return f"-m mac {sign}--mac-source {mac_text(number)}"
