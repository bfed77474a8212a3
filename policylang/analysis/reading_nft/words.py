"""The words that nft prints for numbers; where it has none it prints the number."""

from __future__ import annotations

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

ICMP_TYPES = {
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

ICMPV6_TYPES = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "mld-listener-reduction": 132,
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "router-renumbering": 138,
    "ind-neighbor-solicit": 141,
    "ind-neighbor-advert": 142,
    "mld2-listener-report": 143,
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

# /etc/protocols, by which nft before 1.1 names protocols, and the names of nft's own.
PROTOCOLS = {
    "ip": 0,
    "hopopt": 0,
    "icmp": 1,
    "igmp": 2,
    "ggp": 3,
    "ipencap": 4,
    "ipv4": 4,
    "st": 5,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "pup": 12,
    "udp": 17,
    "hmp": 20,
    "xns-idp": 22,
    "rdp": 27,
    "iso-tp4": 29,
    "dccp": 33,
    "xtp": 36,
    "ddp": 37,
    "idpr-cmtp": 38,
    "ipv6": 41,
    "ipv6-route": 43,
    "ipv6-frag": 44,
    "idrp": 45,
    "rsvp": 46,
    "gre": 47,
    "esp": 50,
    "ipv6-crypt": 50,
    "ah": 51,
    "ipv6-auth": 51,
    "skip": 57,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "ipv6-nonxt": 59,
    "ipv6-opts": 60,
    "rspf": 73,
    "vmtp": 81,
    "eigrp": 88,
    "ospf": 89,
    "ospfigp": 89,
    "ospfv3": 89,
    "ax.25": 93,
    "ipip": 94,
    "etherip": 97,
    "encap": 98,
    "pim": 103,
    "ipcomp": 108,
    "comp": 108,
    "vrrp": 112,
    "l2tp": 115,
    "isis": 124,
    "sctp": 132,
    "fc": 133,
    "mobility-header": 135,
    "mh": 135,
    "udplite": 136,
    "mpls-in-ip": 137,
    "manet": 138,
    "hip": 139,
    "shim6": 140,
    "wesp": 141,
    "rohc": 142,
    "ethernet": 143,
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
