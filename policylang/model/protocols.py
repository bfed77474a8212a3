"""Names of protocols, ICMP types and log levels that a policy may use; the same everywhere."""

from __future__ import annotations

from policylang.packets import protocols
from policylang.packets.protocols import ICMP_TYPES

# Those of /etc/protocols that are in use, and what else people call them. IP in IP is 4, as all
# tunnels have it (RFC 2003), and not the 94 that /etc/protocols calls `ipip`.
PROTOCOLS: dict[str, int] = {
    name: protocols.PROTOCOLS[name]
    for name in (
        "icmp",
        "igmp",
        "ipencap",
        "tcp",
        "egp",
        "igp",
        "udp",
        "rdp",
        "dccp",
        "rsvp",
        "gre",
        "esp",
        "ah",
        "skip",
        "icmpv6",
        "ipv6-icmp",
        "eigrp",
        "ospf",
        "etherip",
        "pim",
        "ipcomp",
        "vrrp",
        "l2tp",
        "sctp",
        "udplite",
        "mpls-in-ip",
    )
} | {"ipip": 4, "ipv6-encap": 41, "carp": 112}

# The names of iptables beside those of nft.
ICMPV6_TYPES: dict[str, int] = {
    "router-solicitation": 133,
    "router-advertisement": 134,
    "neighbour-solicitation": 135,
    "neighbor-solicitation": 135,
    "neighbour-advertisement": 136,
    "neighbor-advertisement": 136,
    "redirect": 137,
} | protocols.ICMPV6_TYPES

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")

__all__ = ["ICMPV6_TYPES", "ICMP_TYPES", "LOG_LEVELS", "PROTOCOLS"]
