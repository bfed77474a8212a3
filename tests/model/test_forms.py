"""What each form of a statement means: the sentence of LANGUAGE.md, a policy, and its rules.

`rules` are those of the FILTER stage that the statements themselves became, `PATH ACTION FIELD
VALUES …`, as `policylang compile --target ir` shows them before anything is optimised.
"""

from __future__ import annotations

import pytest

from tests.model.meaning import warned, written

DECLARED = """
zone wan { interface eth0 }
zone lan { interface eth1  network 192.168.1.0/24 }
zone vpn { network 10.8.0.0/24 }
zone wifi { interface "wlan*" }
set admins = 192.0.2.7, 2001:db8:1::/48
set highports = 1024-65535
"""

ADMINS = "{192.0.2.7, 2001:db8:1::/48}"
SSH = "l4proto 6 dport 22"
FROM_LAN = "iif eth1 saddr 192.168.1.0/24"

FORMS: dict[str, dict[str, list[str]]] = {
    # --- 1 ------------------------------------------------------------------------------------
    "1.8: Every rule holds for IPv4 and IPv6 alike, as far as the addresses in it allow.": {
        "allow ssh inbound": [f"input accept {SSH}"],
        "allow ssh inbound from 192.0.2.7": [f"input accept saddr 192.0.2.7 {SSH}"],
        "allow ssh inbound from admins": [f"input accept saddr {ADMINS} {SSH}"],
        "allow ssh from 192.0.2.7 to 2001:db8::1": [],
        "allow ssh from admins to 10.0.0.1": [
            f"forward accept saddr 192.0.2.7 daddr 10.0.0.1 {SSH}"
        ],
    },
    "1.9: Absent means any, and empty means none.": {
        "set nobody =\nallow ssh inbound from nobody": [],
        "set nobody =\nallow ssh inbound from nobody, admins": [
            f"input accept saddr {ADMINS} {SSH}"
        ],
        "set nobody =\nallow ssh inbound from any except nobody": [f"input accept {SSH}"],
        "set nobody = admins except admins\ndeny all from nobody to any": [],
        "set none = highports except highports\nallow tcp none inbound": [],
        "allow tcp highports except highports inbound": [],
        "set nobody =\nzone empty { interface eth5  network nobody }\n"
        "allow ssh inbound from empty": [],
        "service nothing { }\nallow nothing inbound": [],
        "service nothing { }\nallow nothing, ssh inbound": [f"input accept {SSH}"],
        "allow all from lan except lan to wan": [],
    },
    # --- 2 ------------------------------------------------------------------------------------
    "2: Packets on one of its interfaces, with an address in one of its networks; where both are "
    "given, both must hold.": {
        "allow ssh inbound from wan": [f"input accept iif eth0 {SSH}"],
        "allow ssh inbound from vpn": [f"input accept saddr 10.8.0.0/24 {SSH}"],
        "allow ssh inbound from lan": [f"input accept {FROM_LAN} {SSH}"],
        "allow ssh inbound from wifi": [f"input accept iif wlan* {SSH}"],
        "zone two { interface eth2, eth3 }\nallow ssh inbound from two": [
            f"input accept iif {{eth2, eth3}} {SSH}"
        ],
        "zone two { interface eth2 network 10.2.0.0/16 interface eth3 network 10.3.0.0/16 }\n"
        "allow ssh inbound from two": [f"input accept iif {{eth2, eth3}} saddr 10.2.0.0/15 {SSH}"],
    },
    "2: Sets may name other sets and take away from them with `except`.": {
        "set more = admins, 198.51.100.0/24 except 192.0.2.0/24, 198.51.100.128/25\n"
        "allow ssh inbound from more": [
            f"input accept saddr {{198.51.100.0/25, 2001:db8:1::/48}} {SSH}"
        ],
        "set some = highports except 2000-65535\nallow tcp some inbound": [
            "input accept l4proto 6 dport 1024-1999"
        ],
        "set hosts = 198.51.100.10-198.51.100.20\nallow ssh inbound from hosts": [
            f"input accept saddr 198.51.100.10-198.51.100.20 {SSH}"
        ],
    },
    # --- 3 ------------------------------------------------------------------------------------
    "3: A service is ports of protocols, and a group is the services that it names.": {
        "service backup { tcp 8730, 8731-8739  udp 8730 }\nallow backup inbound": [
            "input accept l4proto 6 dport 8730-8739",
            "input accept l4proto 17 dport 8730",
        ],
        "service high { tcp highports except 8080 }\nallow high inbound": [
            "input accept l4proto 6 dport {1024-8079, 8081-65535}"
        ],
        "service web = http, https\nallow web inbound": [
            "input accept l4proto 6 dport {80, 443}",
        ],
        "service tunnel { protocol gre, 50 }\nallow tunnel inbound": [
            "input accept l4proto {47, 50}"
        ],
    },
    "3: A policy may define a service of a catalogue name anew.": {
        "service ssh { tcp 2222 }\nallow ssh inbound": ["input accept l4proto 6 dport 2222"],
    },
    # --- 4: what ------------------------------------------------------------------------------
    "4: After `tcp`, numbers, ranges and sets of ports continue the port list, and any other word "
    "starts a new WHAT.": {
        "allow ssh, tcp 8443, udp 60000-61000 inbound": [
            "input accept l4proto 6 dport {22, 8443}",
            "input accept l4proto 17 dport 60000-61000",
        ],
        "allow tcp 80, 443, highports, ntp inbound": [
            "input accept l4proto 6 dport {80, 443, 1024-65535}",
            "input accept l4proto 17 dport 123",
        ],
        "allow tcp 1-100 except 22, 80 inbound": [
            "input accept l4proto 6 dport {1-21, 23-79, 81-100}"
        ],
        "allow tcp 1-2000 except highports, udp 53 inbound": [
            "input accept l4proto 6 dport 1-1023",
            "input accept l4proto 17 dport 53",
        ],
        "allow sctp 5060, dccp 5004 inbound": [
            "input accept l4proto 132 dport 5060",
            "input accept l4proto 33 dport 5004",
        ],
    },
    "4: `icmp TYPE`, `icmpv6 TYPE` (by name or number), `protocol NAME-or-NUMBER`, `all`.": {
        "allow icmp timestamp-request, 17, udp 53 outbound": [
            "output accept l4proto 1 icmp_type {13, 17}",
            "output accept l4proto 17 dport 53",
        ],
        "allow icmpv6 packet-too-big outbound": ["output accept l4proto 58 icmpv6_type 2"],
        "allow protocol gre, 50, tcp 22 inbound": [
            "input accept l4proto {47, 50}",
            f"input accept {SSH}",
        ],
        "allow protocol icmp inbound": ["input accept l4proto 1"],
        "allow all inbound": ["input accept"],
    },
    # --- 4: places ----------------------------------------------------------------------------
    "4: `inbound` is from any to self, `outbound` from self to any, `from X to Y` from X to Y.": {
        "allow ssh inbound from wan": [f"input accept iif eth0 {SSH}"],
        "allow ssh outbound": [f"output accept {SSH}"],
        "allow ssh outbound to lan": [f"output accept oif eth1 daddr 192.168.1.0/24 {SSH}"],
        "allow ssh outbound to admins": [f"output accept daddr {ADMINS} {SSH}"],
        "allow ssh from lan to wan": [
            f"forward accept iif eth1 oif eth0 saddr 192.168.1.0/24 {SSH}"
        ],
        "allow ssh from any to self": [f"input accept {SSH}"],
        "allow ssh from self to any": [f"output accept {SSH}"],
    },
    "4: `inbound to A` is addressed to A: an own address, a group, `broadcast`, `multicast`.": {
        "allow ssh inbound to 192.0.2.1": [f"input accept daddr 192.0.2.1 {SSH}"],
        "allow ssh inbound from wan to 192.0.2.1": [f"input accept iif eth0 daddr 192.0.2.1 {SSH}"],
        "allow ssh inbound to admins": [f"input accept daddr {ADMINS} {SSH}"],
        "allow udp 67 inbound to broadcast": [
            "input accept family 4 daddr_type broadcast l4proto 17 dport 67"
        ],
        "allow udp 5353 inbound to multicast": [
            "input accept daddr {224.0.0.0/4, ff00::/8} l4proto 17 dport 5353"
        ],
        "allow udp 5353 outbound to multicast": [
            "output accept daddr {224.0.0.0/4, ff00::/8} l4proto 17 dport 5353"
        ],
    },
    "4: `except` takes away from the whole list before it.": {
        "allow ssh from lan, vpn except 192.168.1.66, 10.8.0.9 to wan": [
            "forward accept iif eth1 oif eth0 saddr {192.168.1.0-192.168.1.65, "
            f"192.168.1.67-192.168.1.255}} {SSH}",
            f"forward accept oif eth0 saddr {{10.8.0.0-10.8.0.8, 10.8.0.10-10.8.0.255}} {SSH}",
        ],
        "allow ssh inbound from any except wan": [f"input accept iif not eth0 {SSH}"],
        "allow ssh inbound from any except lan": [
            f"input accept iif not eth1 {SSH}",
            f"input accept iif eth1 saddr not 192.168.1.0/24 {SSH}",
        ],
        "allow ssh inbound from wifi except vpn": [
            f"input accept iif wlan* saddr not 10.8.0.0/24 {SSH}"
        ],
        "allow ssh outbound to any except admins": [f"output accept daddr not {ADMINS} {SSH}"],
    },
    "4: A zone, a set or an address as an end is another machine.": {
        "allow ssh from lan to 10.0.0.0/8": [f"forward accept {FROM_LAN} daddr 10.0.0.0/8 {SSH}"],
        "allow ssh from 192.0.2.1 to 198.51.100.1": [
            f"forward accept saddr 192.0.2.1 daddr 198.51.100.1 {SSH}"
        ],
        "allow ssh from lan, self to wan": [
            f"forward accept iif eth1 oif eth0 saddr 192.168.1.0/24 {SSH}",
            f"output accept oif eth0 {SSH}",
        ],
        "allow ssh from wan to lan, self": [
            f"input accept iif eth0 {SSH}",
            f"forward accept iif eth0 oif eth1 daddr 192.168.1.0/24 {SSH}",
        ],
        "allow ssh from self to self": [],
    },
    "4: `admins in lan` is the part of `admins` that is in zone `lan` (`in` binds to the one "
    "element before it).": {
        "allow ssh inbound from 192.168.0.0/16 in lan": [f"input accept {FROM_LAN} {SSH}"],
        "allow ssh inbound from admins in lan": [],
        "allow ssh inbound from 198.51.100.1, admins in wan": [
            f"input accept saddr 198.51.100.1 {SSH}",
            f"input accept iif eth0 saddr {ADMINS} {SSH}",
        ],
        "allow ssh inbound from wan in vpn": [f"input accept iif eth0 saddr 10.8.0.0/24 {SSH}"],
        "allow ssh inbound from any in lan": [f"input accept {FROM_LAN} {SSH}"],
        "allow ssh inbound from admins in wan in vpn": [],
        "allow ssh from any except 192.168.1.9 in lan to wan": [
            f"forward accept iif not eth1 oif eth0 {SSH}",
            f"forward accept iif eth1 oif eth0 saddr not 192.168.1.9 {SSH}",
            f"output accept oif eth0 {SSH}",
        ],
        "allow udp 9 outbound to broadcast in wan": [
            "output accept oif eth0 family 4 daddr_type broadcast l4proto 17 dport 9"
        ],
    },
    "4: `any` is every address, this host's own included.": {
        "deny all from admins to any": [
            f"input drop saddr {ADMINS}",
            f"forward drop saddr {ADMINS}",
        ],
        "allow all from any to any": ["input accept", "forward accept", "output accept"],
        "allow all from any to wan": ["forward accept oif eth0", "output accept oif eth0"],
        "allow all from any except self to any": ["input accept", "forward accept"],
        "allow all from any to any except self": ["forward accept", "output accept"],
    },
    "4: Rules that share a place can be written in one block, and a place inside narrows it.": {
        "traffic from lan to wan { allow ntp from 192.168.1.25 }": [
            "forward accept iif eth1 oif eth0 saddr 192.168.1.25 l4proto 17 dport 123"
        ],
        "traffic from lan to wan { traffic to 198.51.100.0/24 { allow ntp allow ssh } }": [
            f"forward accept iif eth1 oif eth0 saddr 192.168.1.0/24 daddr 198.51.100.0/24 {rule}"
            for rule in ("l4proto 17 dport 123", SSH)
        ],
        "traffic from lan to any { allow ssh inbound }": [f"input accept {FROM_LAN} {SSH}"],
        "traffic from any to any { allow ssh inbound allow ntp outbound }": [
            f"input accept {SSH}",
            "output accept l4proto 17 dport 123",
        ],
        "traffic inbound { allow ssh to 192.0.2.1 allow ntp from lan }": [
            f"input accept daddr 192.0.2.1 {SSH}",
            f"input accept {FROM_LAN} l4proto 17 dport 123",
        ],
        "traffic outbound { allow ssh to lan }": [
            f"output accept oif eth1 daddr 192.168.1.0/24 {SSH}"
        ],
        "traffic to self { allow ssh from lan }": [f"input accept {FROM_LAN} {SSH}"],
        "traffic from lan to wan { allow ssh from vpn }": [],
        "traffic from any except 192.168.1.9 to self { allow ssh from lan }": [
            f"input accept iif eth1 saddr {{192.168.1.0-192.168.1.8, 192.168.1.10-192.168.1.255}} "
            f"{SSH}"
        ],
    },
    "4: Groups of rules can be named and used in several places.": {
        "rules common { allow ssh from admins }\n"
        "traffic to self { use common }\ntraffic to wan { use common }": [
            f"input accept saddr {ADMINS} {SSH}",
            f"forward accept oif eth0 saddr {ADMINS} {SSH}",
        ],
        "rules inner { allow ntp }\nrules outer { allow ssh use inner }\n"
        "traffic inbound { use outer }": [
            f"input accept {SSH}",
            "input accept l4proto 17 dport 123",
        ],
        "rules unused { allow ssh }": [],
    },
    # --- 4: verbs and options -----------------------------------------------------------------
    "4: `deny` drops silently.": {"deny ssh inbound": [f"input drop {SSH}"]},
    "4: `reject` answers: a TCP reset for TCP, an ICMP or ICMPv6 port-unreachable for the rest.": {
        "reject ssh inbound": [f"input reject tcp-reset {SSH}"],
        "reject ntp inbound": ["input reject port-unreachable l4proto 17 dport 123"],
        "reject all inbound": ["input reject tcp-reset l4proto 6", "input reject port-unreachable"],
    },
    "4: `with tcp-reset, admin-prohibited` resets TCP and answers the rest with the other.": {
        "reject all outbound with admin-prohibited": ["output reject admin-prohibited"],
        "reject all outbound with tcp-reset": [
            "output reject tcp-reset l4proto 6",
            "output reject port-unreachable",
        ],
        "reject all outbound with admin-prohibited, tcp-reset": [
            "output reject tcp-reset l4proto 6",
            "output reject admin-prohibited",
        ],
        "reject ssh outbound with host-unreachable": [f"output reject host-unreachable {SSH}"],
    },
    "4: `log` logs what the rule matched (10/second unless said otherwise, `limit none` for "
    "all).": {
        "deny ssh inbound log": [
            f'input log "deny inbound: " [10/second burst 5] {SSH}',
            f"input drop {SSH}",
        ],
        'allow ssh inbound log "ssh " level info limit none': [
            f'input log "ssh " level info {SSH}',
            f"input accept {SSH}",
        ],
        "allow ssh inbound log group 5 limit 1/minute burst 2": [
            f'input log "allow inbound: " group 5 [1/minute burst 2] {SSH}',
            f"input accept {SSH}",
        ],
        "reject ssh, udp 53 inbound log": [
            f"input jump input-log-1 {SSH}",
            "input jump input-log-1 l4proto 17 dport 53",
            'input-log-1 log "reject inbound: " [10/second burst 5]',
            "input-log-1 reject tcp-reset l4proto 6",
            "input-log-1 reject port-unreachable",
        ],
    },
}

ROWS = [
    pytest.param(policy, rules, id=f"{sentence.partition(':')[0]}-{policy.splitlines()[-1]}")
    for sentence, policies in FORMS.items()
    for policy, rules in policies.items()
]


@pytest.mark.parametrize(("policy", "rules"), ROWS)
def test_form_means(policy: str, rules: list[str]) -> None:
    assert written(DECLARED + policy) == rules


@pytest.mark.parametrize(
    ("policy", "rules"), [row for row in ROWS if not row.values[1] and "unused" not in str(row.id)]
)
def test_what_matches_nothing_is_told(policy: str, rules: list[str]) -> None:
    assert "matches-nothing" in warned(DECLARED + policy)
