"""The options of rules, matches and targets, and how many words follow each; reads no rule."""

from __future__ import annotations

from collections.abc import Mapping


def _table(text: str) -> dict[str, tuple[str, int]]:
    """By each spelling (`a|b:2`) the usual name, which stands first, and how many words follow."""
    table: dict[str, tuple[str, int]] = {}
    for item in text.split():
        names, _, count = item.partition(":")
        first, *others = names.split("|")
        for name in (first, *others):
            table[name] = first, int(count or 1)
    return table


SHORT = {
    "-p": "protocol",
    "-s": "source",
    "-d": "destination",
    "-i": "in-interface",
    "-o": "out-interface",
    "-j": "jump",
    "-g": "goto",
    "-m": "match",
    "-f": "fragment",
    "-4": "ipv4",
    "-6": "ipv6",
    "-c": "set-counters",
}
OF_RULES = _table(
    "protocol|proto source|src destination|dst in-interface out-interface jump goto match "
    "fragment|fragments:0 ipv4:0 ipv6:0 set-counters:2"
)

_PORTS = "sport|source-port dport|destination-port"
OF_MATCHES: Mapping[str, Mapping[str, tuple[str, int]]] = {
    name: _table(text)
    for name, text in {
        "tcp": f"{_PORTS} tcp-flags:2 syn:0 tcp-option",
        "udp": _PORTS,
        "udplite": _PORTS,
        "dccp": f"{_PORTS} dccp-types dccp-option",
        "sctp": f"{_PORTS} chunk-types:2",
        "multiport": "sports|source-ports dports|destination-ports ports",
        "icmp": "icmp-type",
        "icmp6": "icmpv6-type|icmp6-type",
        "conntrack": (
            "ctstate ctproto ctorigsrc ctorigdst ctreplsrc ctrepldst ctorigsrcport ctorigdstport "
            "ctreplsrcport ctrepldstport ctstatus ctexpire ctdir"
        ),
        "state": "state",
        "helper": "helper",
        "addrtype": "src-type dst-type limit-iface-in:0 limit-iface-out:0",
        "rpfilter": "loose:0 validmark:0 accept-local:0 invert:0",
        "mac": "mac-source",
        "length": "length",
        "dscp": "dscp dscp-class",
        "tos": "tos",
        "hl": "hl-eq hl-lt hl-gt",
        "ttl": "ttl-eq|ttl ttl-lt ttl-gt",
        "mark": "mark",
        "connmark": "mark",
        "owner": "uid-owner gid-owner socket-exists:0 suppl-groups:0",
        "cgroup": "path cgroup",
        "time": (
            "timestart timestop weekdays monthdays datestart datestop utc:0 localtz:0 kerneltz:0 "
            "contiguous:0"
        ),
        "limit": "limit limit-burst",
        "hashlimit": (
            "hashlimit-upto|hashlimit hashlimit-above hashlimit-burst hashlimit-mode "
            "hashlimit-name hashlimit-srcmask hashlimit-dstmask hashlimit-htable-size "
            "hashlimit-htable-max hashlimit-htable-expire hashlimit-htable-gcinterval "
            "hashlimit-rate-match:0 hashlimit-rate-interval"
        ),
        "connlimit": (
            "connlimit-upto connlimit-above connlimit-mask connlimit-saddr:0 connlimit-daddr:0"
        ),
        "set": (
            "match-set|set:2 return-nomatch:0 update-counters:0 update-subcounters:0 packets-eq "
            "packets-lt packets-gt bytes-eq bytes-lt bytes-gt"
        ),
        "statistic": "mode probability every packet",
        "policy": "dir pol strict:0 next:0 reqid spi proto mode tunnel-src tunnel-dst",
        "rt": "rt-type rt-segsleft rt-len rt-0-res:0 rt-0-addrs rt-0-not-strict:0",
        "ipv6header": "header soft:0",
        "ipv4options": "flags any:0",
        "iprange": "src-range dst-range",
        "u32": "u32",
        "comment": "comment",
        "recent": (
            "set:0 rcheck:0 update:0 remove:0 rsource:0 rdest:0 seconds reap:0 hitcount rttl:0 "
            "name mask"
        ),
        "string": "algo from to string hex-string icase:0",
        "socket": "transparent:0 nowildcard:0 restore-skmark:0",
        "bpf": "bytecode object-pinned",
        "pkttype": "pkt-type",
        "tcpmss": "mss",
        "quota": "quota",
    }.items()
}

_MARKS = "set-mark set-xmark and-mark or-mark xor-mark"
OF_TARGETS: Mapping[str, Mapping[str, tuple[str, int]]] = {
    name: _table(text)
    for name, text in {
        "REJECT": "reject-with",
        "LOG": (
            "log-prefix log-level log-tcp-sequence:0 log-tcp-options:0 log-ip-options:0 "
            "log-uid:0 log-macdecode:0"
        ),
        "NFLOG": "nflog-prefix nflog-group nflog-range nflog-size nflog-threshold",
        "CT": "helper notrack:0 timeout ctevents expevents zone zone-orig zone-reply",
        "MARK": _MARKS,
        "CONNMARK": f"{_MARKS} save-mark:0 restore-mark:0 nfmask ctmask mask",
        "DSCP": "set-dscp set-dscp-class",
        "TOS": "set-tos and-tos or-tos xor-tos",
        "TCPMSS": "set-mss clamp-mss-to-pmtu:0",
        "MASQUERADE": "to-ports random:0 random-fully:0",
        "SNAT": "to-source random:0 random-fully:0 persistent:0",
        "DNAT": "to-destination random:0 persistent:0",
        "REDIRECT": "to-ports random:0 random-fully:0",
        "NETMAP": "to",
        "TPROXY": "on-port on-ip tproxy-mark",
        "NFQUEUE": "queue-num queue-balance queue-bypass:0 queue-cpu-fanout:0",
        "SET": ("add-set:2 del-set:2 map-set:2 exist:0 timeout map-mark:0 map-prio:0 map-queue:0"),
        "ACCEPT": "",
        "DROP": "",
        "RETURN": "",
        "NOTRACK": "",
    }.items()
}

# The match that `-p` brings along when one of its options stands in the rule (load_proto of
# xshared.c), by the protocol as it is written.
OF_PROTOCOLS = {
    "tcp": "tcp",
    "6": "tcp",
    "udp": "udp",
    "17": "udp",
    "udplite": "udplite",
    "136": "udplite",
    "sctp": "sctp",
    "132": "sctp",
    "dccp": "dccp",
    "33": "dccp",
    "icmp": "icmp",
    "1": "icmp",
    "ipv6-icmp": "icmp6",
    "icmpv6": "icmp6",
    "58": "icmp6",
}
# Other names of matches.
ALIASES = {"icmpv6": "icmp6", "ipv6-icmp": "icmp6"}
