"""What there is in this thread's namespace by name: nft tables, legacy tables, ipsets.

The kernel is asked without a program, in less than a millisecond: nft 1.0.6 reads all rules to list
the names of tables. What is in a table or a set this module does not know. Where the kernel
does not say, the answer is None, and a program must be asked, which tells what is wrong.
"""

from __future__ import annotations

import struct
from pathlib import Path

from policylang.apply import netlink
from policylang.apply.netlink import attribute, attributes

# linux/netfilter/nfnetlink.h: a message's type is its subsystem and its command.
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_NETFILTER_VERSION = 0

# linux/netfilter/nf_tables.h
_GET_TABLE = 10 << 8 | 1
_TABLE_NAME = 1
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}  # linux/netfilter.h

# linux/netfilter/ipset/ip_set.h
_LIST_SETS = 6 << 8 | 7
_PROTOCOL, _SETNAME, _FLAGS = 1, 2, 6
_OLDEST_PROTOCOL = b"\x06"  # every kernel since 2.6.39 speaks it
_NET_BYTE_ORDER = 0x4000  # linux/netlink.h
_NAMES_ALONE = 1 << 1

# The tables of iptables-legacy that are there: listing one that is not would make it.
_LEGACY = {
    "iptables": Path("/proc/thread-self/net/ip_tables_names"),
    "ip6tables": Path("/proc/thread-self/net/ip6_tables_names"),
}


def nft_tables() -> frozenset[str] | None:
    """All tables of nf_tables, as in `inet policylang`; iptables-nft keeps its rules in some."""
    found = _listed(_GET_TABLE, _NFGENMSG.pack(0, _NETFILTER_VERSION, 0))
    if found is None:
        return None
    return frozenset(
        f"{_FAMILIES.get(body[0], body[0])} {_text(attributes(body, _NFGENMSG.size)[_TABLE_NAME])}"
        for body in found
    )


def ipsets() -> frozenset[str] | None:
    """The names of all ipsets."""
    body = (
        _NFGENMSG.pack(2, _NETFILTER_VERSION, 0)
        + attribute(_PROTOCOL, _OLDEST_PROTOCOL)
        + attribute(_FLAGS | _NET_BYTE_ORDER, struct.pack("!I", _NAMES_ALONE))
    )
    found = _listed(_LIST_SETS, body)
    if found is None:
        return None
    return frozenset(_text(attributes(one, _NFGENMSG.size)[_SETNAME]) for one in found)


def legacy_tables(program: str) -> frozenset[str] | None:
    """The tables of `iptables` or `ip6tables` that the legacy part of the kernel holds."""
    try:
        return frozenset(_LEGACY[program].read_text().split())
    except FileNotFoundError:  # this kernel has no legacy tables, or nobody ever asked for one
        return frozenset()
    except OSError:
        return None


def _listed(kind: int, body: bytes) -> list[bytes] | None:
    try:
        with netlink.opened(netlink.NETFILTER) as opened:
            return opened.whole(kind, body)
    except OSError:
        return None


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
