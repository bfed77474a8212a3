"""Names of protocols, ICMP types and log levels; the same on every machine."""

from __future__ import annotations

# Protocol numbers of IANA, by the names of /etc/protocols in lower case.
PROTOCOLS: dict[str, int] = {
    "icmp": 1,
    "igmp": 2,
    "ipencap": 4,
    "ipip": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "rdp": 27,
    "dccp": 33,
    "ipv6-encap": 41,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "skip": 57,
    "icmpv6": 58,
    "ipv6-icmp": 58,
    "eigrp": 88,
    "ospf": 89,
    "etherip": 97,
    "pim": 103,
    "ipcomp": 108,
    "vrrp": 112,
    "carp": 112,
    "l2tp": 115,
    "sctp": 132,
    "udplite": 136,
    "mpls-in-ip": 137,
}

# RFC 792, RFC 950, RFC 1256; names as iptables and nft know them.
ICMP_TYPES: dict[str, int] = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
    "info-request": 15,
    "info-reply": 16,
    "address-mask-request": 17,
    "address-mask-reply": 18,
}

# RFC 4443, RFC 2710, RFC 3810, RFC 4861.
ICMPV6_TYPES: dict[str, int] = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "router-solicitation": 133,
    "nd-router-solicit": 133,
    "router-advertisement": 134,
    "nd-router-advert": 134,
    "neighbour-solicitation": 135,
    "neighbor-solicitation": 135,
    "nd-neighbor-solicit": 135,
    "neighbour-advertisement": 136,
    "neighbor-advertisement": 136,
    "nd-neighbor-advert": 136,
    "redirect": 137,
    "nd-redirect": 137,
    "router-renumbering": 138,
    "mld2-listener-report": 143,
}

LOG_LEVELS = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
UNITS = ("second", "minute", "hour", "day")
