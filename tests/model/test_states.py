"""What a policy means beside its rules (LANGUAGE 1 and 5): states, helpers, essentials, defaults.

The rules are shown in the order in which they are read.
"""

from __future__ import annotations

import pytest

from policylang.ir.origin import Why
from policylang.ir.stages import Stage
from tests.model.meaning import rules, warned

DECLARED = """
zone wan { interface eth0 }
zone lan { interface eth1 }
service files { tcp 2121 helper ftp data 40000-40100 }
service names { udp 137 helper netbios-ns }
service tunnel { tcp 1723 helper pptp }
"""

# --- states -----------------------------------------------------------------------------------

ESTABLISHED = [
    "accept ct_state established family 4 l4proto not 1",
    "accept ct_state established family 6 l4proto not 58",
    "accept ct_state established l4proto 1 icmp_type not 8",
    "accept ct_state established l4proto 58 icmpv6_type not 128",
]
ERRORS = [
    "accept ct_state related l4proto 1 icmp_type {3, 11-12}",
    "accept ct_state related l4proto 58 icmpv6_type 1-4",
]
IGMP_AND_MLD = ["accept l4proto 58 icmpv6_type {130-132, 143}", "accept family 4 l4proto 2"]


def on(path: str, *groups: list[str]) -> list[str]:
    return [f"{path} {line}" for group in groups for line in group]


def test_a_policy_that_says_nothing() -> None:
    """1.3 to 1.7 and 5: replies, loopback, errors, INVALID, essentials, defaults; in this order.

    Every echo request counts as the first packet of a connection. Redirects are no errors. Packets
    that are INVALID are dropped where they arrive and where they are forwarded.
    """
    assert rules("", *Why) == [
        *on("input", ESTABLISHED, ["accept iif lo"], ERRORS, ["drop ct_state invalid"]),
        *on("input", ["accept hop_limit 255 l4proto 58 icmpv6_type 133-136"], IGMP_AND_MLD),
        "input drop",
        *on("forward", ESTABLISHED, ERRORS, ["drop ct_state invalid"], ["drop"]),
        *on("output", ESTABLISHED, ["accept oif lo"], ERRORS),
        *on("output", ["accept hop_limit 255 l4proto 58 icmpv6_type {133, 135-136}"]),
        *on("output", IGMP_AND_MLD, ["accept"]),
    ]


# --- helpers ----------------------------------------------------------------------------------

RELATED = "ct_state related ct_helper"

HELPERS: dict[str, tuple[list[str], list[str]]] = {
    # 1.5: inbound, outbound and forwarded, on the port that the client dials. 1.4: the data
    # ports, the local ephemeral range towards self as a client, 1024-65535 otherwise.
    "allow ftp inbound from wan": (
        ["input assign-helper ftp iif eth0 daddr_type local l4proto 6 dport 21"],
        [
            f"input accept iif eth0 {RELATED} ftp l4proto 6 dport 1024-65535",
            f"output accept oif eth0 {RELATED} ftp l4proto 6 dport 1024-65535",
        ],
    ),
    "allow ftp outbound": (
        ["output assign-helper ftp l4proto 6 dport 21"],
        [
            f"input accept {RELATED} ftp l4proto 6 dport 32768-60999",
            f"output accept {RELATED} ftp l4proto 6 dport 1024-65535",
        ],
    ),
    "allow ftp from lan to wan": (
        ["forward assign-helper ftp iif eth1 daddr_type not local l4proto 6 dport 21"],
        [
            f"forward accept iif eth1 oif eth0 {RELATED} ftp l4proto 6 dport 1024-65535",
            f"forward accept iif eth0 oif eth1 {RELATED} ftp l4proto 6 dport 1024-65535",
        ],
    ),
    "allow ftp inbound to 192.0.2.1": (
        ["input assign-helper ftp daddr 192.0.2.1 daddr_type local l4proto 6 dport 21"],
        [
            f"input accept {RELATED} ftp daddr 192.0.2.1 l4proto 6 dport 1024-65535",
            f"output accept {RELATED} ftp saddr 192.0.2.1 l4proto 6 dport 1024-65535",
        ],
    ),
    # 3: `data` sets the ports of the connections that it predicts, in every direction.
    "allow files outbound to wan": (
        ["output assign-helper ftp oif eth0 l4proto 6 dport 2121"],
        [
            f"input accept iif eth0 {RELATED} ftp l4proto 6 dport 40000-40100",
            f"output accept oif eth0 {RELATED} ftp l4proto 6 dport 40000-40100",
        ],
    ),
    # 1.5: what is published is meant by what was dialled; the machine behind it is told by the
    # mark that its connection left for those that it opens itself.
    "allow files from wan to published in lan": (
        ["input assign-helper ftp iif eth0 daddr_type local l4proto 6 dport 2121"],
        [
            f"forward accept iif eth0 oif eth1 {RELATED} ftp l4proto 6 dport 40000-40100 dnated 1",
            "forward accept [connection mark 0x80000000/0x80000000] iif eth1 oif eth0"
            f" {RELATED} ftp l4proto 6 dport 40000-40100",
        ],
    ),
    "allow ftp from wan to published 21 at 192.0.2.1": (
        ["input assign-helper ftp iif eth0 daddr 192.0.2.1 l4proto 6 dport 21"],
        [
            f"forward accept iif eth0 {RELATED} ftp l4proto 6 dport 1024-65535 dnated 1"
            " orig_daddr 192.0.2.1",
            "forward accept [connection mark 0x80000000/0x80000000] oif eth0"
            f" {RELATED} ftp l4proto 6 dport 1024-65535",
        ],
    ),
    # The side that a helper's description names opens the predicted connection, and no other.
    "allow tftp outbound": (
        ["output assign-helper tftp l4proto 17 dport 69"],
        [f"input accept {RELATED} tftp l4proto 17 dport 32768-60999"],
    ),
    "allow tftp inbound": (
        ["input assign-helper tftp daddr_type {2-3, multicast} l4proto 17 dport 69"],
        [f"output accept {RELATED} tftp l4proto 17 dport 1024-65535"],
    ),
    # 3: where a helper knows one family alone, the rule still covers both.
    "allow names outbound to lan": (
        ["output assign-helper netbios-ns oif eth1 family 4 l4proto 17 dport 137"],
        [f"input accept iif eth1 {RELATED} netbios-ns family 4 l4proto 17 dport 32768-60999"],
    ),
    # GRE has no ports to be bounded by.
    "allow tunnel from lan to wan": (
        ["forward assign-helper pptp iif eth1 family 4 daddr_type not local l4proto 6 dport 1723"],
        [
            f"forward accept iif eth1 oif eth0 {RELATED} pptp family 4 l4proto 47",
            f"forward accept iif eth0 oif eth1 {RELATED} pptp family 4 l4proto 47",
        ],
    ),
    # `any` is this host and others.
    "allow files from lan to any": (
        [
            "input assign-helper ftp iif eth1 daddr_type local l4proto 6 dport 2121",
            "forward assign-helper ftp iif eth1 daddr_type not local l4proto 6 dport 2121",
        ],
        [
            f"input accept iif eth1 {RELATED} ftp l4proto 6 dport 40000-40100",
            f"forward accept iif eth1 {RELATED} ftp l4proto 6 dport 40000-40100",
            f"forward accept oif eth1 {RELATED} ftp l4proto 6 dport 40000-40100",
            f"output accept oif eth1 {RELATED} ftp l4proto 6 dport 40000-40100",
        ],
    ),
    # Who answers has no broadcast address, so an exception of broadcasts takes no answer away.
    "allow names from lan to any except self, broadcast": (
        [
            "forward assign-helper netbios-ns iif eth1 family 4 "
            "daddr_type not 2-3 l4proto 17 dport 137"
        ],
        [f"forward accept oif eth1 {RELATED} netbios-ns family 4 l4proto 17 dport 1024-65535"],
    ),
    # Broadcasts are of IPv4 alone, and so are the answers to them.
    "allow tftp outbound to broadcast": (
        ["output assign-helper tftp family 4 daddr_type broadcast l4proto 17 dport 69"],
        [f"input accept {RELATED} tftp family 4 l4proto 17 dport 32768-60999"],
    ),
    # Only an `allow` asks for a helper.
    "deny ftp inbound": ([], []),
    "allow tcp 21 inbound": ([], []),
}


@pytest.mark.parametrize("policy", HELPERS)
def test_helper_is_assigned_and_its_connections_admitted(policy: str) -> None:
    assigned, admitted = HELPERS[policy]
    text = DECLARED + policy
    assert rules(text, Why.HELPER_ASSIGNMENT, stage=Stage.ASSIGN_HELPER) == assigned
    assert rules(text, Why.HELPER_EXPECTATION) == admitted


ASSIGN = "input assign-helper ftp daddr_type local l4proto 6 dport 21"

ORDERS: dict[str, list[str]] = {
    # 1.5: a helper is assigned only to the connections that an `allow` rule with it admits: what
    # a rule above admits without it stays without it.
    "allow tcp 21 inbound from lan\nallow ftp inbound": [
        "input leave iif eth1 daddr_type local l4proto 6 dport 21",
        ASSIGN,
    ],
    "allow ftp inbound\nallow tcp 21 inbound from lan": [ASSIGN],
    "allow all inbound from lan\nallow ftp inbound": [
        "input leave iif eth1 daddr_type {2-3, multicast}",
        ASSIGN,
    ],
    "allow ssh inbound\nallow ftp inbound": [ASSIGN],
    "deny ftp inbound from lan\nallow ftp inbound": [ASSIGN],
    # In one rule the helper goes first, whatever stands beside it.
    "allow tcp 21, ftp inbound": [ASSIGN],
    # The way out is not known yet where a helper is assigned to what is forwarded.
    "allow tcp 21 from lan to wan\nallow ftp from lan to wan": [
        "forward assign-helper ftp iif eth1 daddr_type not local l4proto 6 dport 21"
    ],
}


@pytest.mark.parametrize("policy", ORDERS)
def test_the_first_rule_that_allows_decides_of_the_helper(policy: str) -> None:
    found = rules(DECLARED + policy, Why.HELPER_ASSIGNMENT, stage=Stage.ASSIGN_HELPER)
    assert found == ORDERS[policy]


# --- INVALID, essentials, defaults, settings --------------------------------------------------

ND = "input accept hop_limit 255 l4proto 58 icmpv6_type 133-136"
MLD, IGMP = on("input", IGMP_AND_MLD)
INVALID = "input drop ct_state invalid"

INBOUND: dict[str, list[str]] = {
    # 1.6: a rule that names an ICMP or ICMPv6 type is read for INVALID packets of that type too,
    # before they are dropped.
    "allow icmp redirect inbound from lan": [
        "input accept iif eth1 ct_state invalid l4proto 1 icmp_type 5",
        INVALID,
        *(ND, MLD, IGMP),
        "input accept iif eth1 l4proto 1 icmp_type 5",
        "input drop",
    ],
    "allow protocol icmp inbound": [
        *(INVALID, ND, MLD, IGMP),
        "input accept l4proto 1",
        "input drop",
    ],
    "allow all inbound": [INVALID, ND, MLD, IGMP, "input accept", "input drop"],
    # 1.7: `deny all inbound` does not touch it; a rule that names the ICMP type does.
    "deny all inbound": [INVALID, ND, MLD, IGMP, "input drop", "input drop"],
    "deny icmpv6 router-advertisement inbound": [
        "input drop ct_state invalid l4proto 58 icmpv6_type 134",
        INVALID,
        "input drop hop_limit 255 l4proto 58 icmpv6_type 134",
        *(ND, MLD, IGMP),
        "input drop l4proto 58 icmpv6_type 134",
        "input drop",
    ],
    "deny icmpv6 mld-listener-query inbound": [
        "input drop ct_state invalid l4proto 58 icmpv6_type 130",
        *(INVALID, ND),
        "input drop l4proto 58 icmpv6_type 130",
        *(MLD, IGMP),
        "input drop l4proto 58 icmpv6_type 130",
        "input drop",
    ],
    # 5: essentials, and what becomes of INVALID, can be switched.
    "settings { essentials off }": [INVALID, "input drop"],
    "settings { invalid accept }": [
        "input accept ct_state invalid",
        *(ND, MLD, IGMP),
        "input drop",
    ],
    'settings { essentials off  invalid drop log "bad " limit none }': [
        'input log "bad " ct_state invalid',
        *(INVALID, "input drop"),
    ],
    # 5: a default takes the options of a rule.
    'settings { essentials off }\ndefault deny inbound log "FW-DROP " limit 5/minute': [
        INVALID,
        'input log "FW-DROP " [5/minute burst 5]',
        "input drop",
    ],
    "settings { essentials off }\ndefault reject inbound with tcp-reset, admin-prohibited": [
        INVALID,
        "input reject tcp-reset l4proto 6",
        "input reject admin-prohibited",
    ],
    "settings { essentials off }\ndefault allow inbound": [INVALID, "input accept"],
}


@pytest.mark.parametrize("policy", INBOUND)
def test_what_arrives_unasked(policy: str) -> None:
    whys = (Why.INVALID, Why.ESSENTIAL, Why.WRITTEN, Why.DEFAULT)
    found = rules(DECLARED + policy, *whys)
    assert [line for line in found if line.startswith("input")] == INBOUND[policy]


def test_invalid_is_read_like_a_first_packet_on_the_way_out() -> None:
    """1.6: no rule on the way out names the state INVALID."""
    found = rules("deny ping outbound", *Why)
    assert not [line for line in found if line.startswith("output") and "invalid" in line]
    assert rules("deny ping outbound", Why.WRITTEN) == [
        "output drop l4proto 1 icmp_type 8",
        "output drop l4proto 58 icmpv6_type 128",
    ]


def test_defaults_unless_said() -> None:
    """5: Unless said: inbound deny, forward deny, outbound allow."""
    assert rules("", Why.DEFAULT) == ["input drop", "forward drop", "output accept"]
    assert rules("default allow forward\ndefault reject outbound", Why.DEFAULT) == [
        "input drop",
        "forward accept",
        "output reject tcp-reset l4proto 6",
        "output reject port-unreachable",
    ]


WARNINGS: dict[str, list[str]] = {
    "allow ssh inbound": [],
    # 3: helpers with a record of kernel faults (h323, irc, pptp) warn when they face `any`.
    "allow h323 inbound": ["helper-faces-any"],
    "allow h323 from lan to any": ["helper-faces-any"],
    "allow h323 from lan to wan": [],
    "deny h323 inbound": [],
    # 3: a helper that knows one family alone warns, unless the addresses keep to it.
    "allow names from lan to wan": ["helper-one-family"],
    "allow names outbound to 192.0.2.0/24": [],
    "allow names outbound to 192.0.2.0/24, 2001:db8::/32": ["helper-one-family"],
    "allow irc inbound": ["helper-faces-any", "helper-one-family"],
    "service early { tcp 2121 helper ftp data 20-1100 }": ["data-privileged"],
    # 3: the catalogue's service says that FTP over TLS hides its data ports.
    "allow ftps inbound": ["service-note"],
    "service ftps { tcp 990, 40000-40100 }\nallow ftps inbound": ["shadows-catalogue"],
}


@pytest.mark.parametrize("policy", WARNINGS)
def test_what_should_be_known_is_told(policy: str) -> None:
    assert warned(DECLARED + policy) == WARNINGS[policy]
