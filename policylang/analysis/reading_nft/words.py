"""The words that nft prints for numbers; where it has none it prints the number."""

from __future__ import annotations

from policylang.packets import protocols

TCP_FLAGS = {
    "fin": 0x01,
    "syn": 0x02,
    "rst": 0x04,
    "psh": 0x08,
    "ack": 0x10,
    "urg": 0x20,
    "ecn": 0x40,
    "cwr": 0x80,
}

# NF_CT_STATE_BIT and the bits beside them (linux/netfilter/nf_conntrack_common.h)
STATE_BITS = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}

# enum ip_conntrack_status
STATUS_BITS = {
    "expected": 1 << 0,
    "seen-reply": 1 << 1,
    "assured": 1 << 2,
    "confirmed": 1 << 3,
    "snat": 1 << 4,
    "dnat": 1 << 5,
    "dying": 1 << 9,
}

DIRECTIONS = {"original": 0, "reply": 1}
NFPROTOS = {"ipv4": 2, "ipv6": 10}  # NFPROTO_IPV4, NFPROTO_IPV6
ETHERTYPES = {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "vlan": 0x8100, "8021q": 0x8100}
# As `nft -nn` prints them on machines that count bytes from the other end.
TURNED_ETHERTYPES = {0x0008: 0x0800, 0xDD86: 0x86DD, 0x0608: 0x0806, 0x0081: 0x8100}

# RTN_* of linux/rtnetlink.h
ADDRESS_TYPES = {
    "unspec": 0,
    "unicast": 1,
    "local": 2,
    "broadcast": 3,
    "anycast": 4,
    "multicast": 5,
    "blackhole": 6,
    "unreachable": 7,
    "prohibit": 8,
    "throw": 9,
    "nat": 10,
    "xresolve": 11,
}

ICMPV6_TYPES = protocols.ICMPV6_TYPES | {
    "mld-listener-reduction": 132,
    "ind-neighbor-solicit": 141,
    "ind-neighbor-advert": 142,
}

DSCPS = {
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{n}{drop}": 8 * n + 2 * drop for n in range(1, 5) for drop in range(1, 4)},
    "be": 0,
    "df": 0,
    "lephb": 1,
    "le": 1,
    "va": 44,
    "voice-admit": 44,
    "ef": 46,
}

DAYS = {
    "Sunday": 0,
    "Monday": 1,
    "Tuesday": 2,
    "Wednesday": 3,
    "Thursday": 4,
    "Friday": 5,
    "Saturday": 6,
}

# By /etc/protocols nft before 1.1 names protocols; the names of nft's own, and of newer files.
PROTOCOLS = protocols.PROTOCOLS | {
    "ipv4": 4,
    "ipv6-crypt": 50,
    "ipv6-auth": 51,
    "ospfigp": 89,
    "ospfv3": 89,
    "comp": 108,
}

# The numbers of the codes, which `nft -nn` prints (linux/netfilter/nf_tables.h, icmp.h, icmpv6.h).
REJECT_NUMBERS: dict[str, dict[int, str]] = {
    "icmpx": {0: "no-route", 1: "port-unreachable", 2: "host-unreachable", 3: "admin-prohibited"},
    "icmp": {
        0: "net-unreachable",
        1: "host-unreachable",
        2: "prot-unreachable",
        3: "port-unreachable",
        9: "net-prohibited",
        10: "host-prohibited",
        13: "admin-prohibited",
    },
    "icmpv6": {
        0: "no-route",
        1: "admin-prohibited",
        3: "addr-unreachable",
        4: "port-unreachable",
        5: "policy-fail",
        6: "reject-route",
    },
}

# The codes of ICMP that answer a rejected packet, less those that no answer of ours is.
REJECT_CODES = {
    "port-unreachable": "port-unreachable",
    "host-unreachable": "host-unreachable",
    "addr-unreachable": "host-unreachable",
    "net-unreachable": "net-unreachable",
    "no-route": "net-unreachable",
    "admin-prohibited": "admin-prohibited",
}

UNIT_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
