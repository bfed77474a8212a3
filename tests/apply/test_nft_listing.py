"""What nft lists of a table, taken apart; listings of nft 1.0.6 and 1.1.3, without a kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policylang.apply.loaded import Chain, Count, KernelSet, Loaded, Rule
from policylang.apply.nft_listing import (
    PRIORITIES,
    loaded,
    priority,
    priority_words,
    read,
)

LISTINGS = Path(__file__).parent / "listings"
VERSIONS = ("1.0.6", "1.1.3")

FILTER = "type filter hook input priority filter; policy drop;"
EXPECTED = Loaded(
    (
        Chain(
            "chain input",
            FILTER,
            (
                Rule(
                    "tcp dport 22 counter accept",
                    "web.policy:2 allow } { counter packets 1 bytes 1",
                ),
                Rule("tcp dport 22 counter accept"),
                Rule('log prefix "counter packets 7 bytes 7 # handle 4"'),
                Rule("ip saddr { 192.0.2.1, 192.0.2.2 } quota over 5 mbytes drop"),
                Rule("jump sub", "# handle 9"),
            ),
        ),
        Chain("chain output", "type nat hook output priority dstnat; policy accept;", ()),
        Chain("chain sub", "", ()),
    ),
    (
        KernelSet(
            "set banned-v4",
            "type ipv4_addr; size 65535; flags dynamic,timeout; timeout 1h",
            None,
        ),
        KernelSet("set names", "type ifname", frozenset({'"eth0"', '"wlan, } 0"'})),
        KernelSet(
            "set wide-v6",
            "type ipv6_addr; flags interval",
            frozenset({"::1", "2001:db8::/32", "fe80::1-fe80::7"}),
        ),
        KernelSet(
            "map pairs",
            "type ifname . inet_service : verdict; flags interval; counter",
            frozenset({'"eth0" . 22 : jump sub', '"eth1" . 23-25 : drop'}),
        ),
        KernelSet(
            "map ports",
            "type inet_service : verdict; counter",
            frozenset({"22 : accept", "80 : goto sub"}),
        ),
    ),
    (
        'ct helper ftp-tcp { type "ftp" protocol tcp; l3proto inet }',
        "flowtable offloaded { hook ingress priority filter; devices = { eth0, eth1 } }",
    ),
)


def listing(version: str, what: str = "all") -> str:
    return (LISTINGS / f"{what}-{version}.txt").read_text()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_listing_is_what_it_says(version: str) -> None:
    """Counts, comments, handles and times are taken off, and the switch is left out."""
    (table,) = read(listing(version))
    assert loaded(table) == EXPECTED
    assert table.has_switch


@pytest.mark.parametrize("version", VERSIONS)
def test_counts_are_beside_what_they_count(version: str) -> None:
    """Of rules in their order, and of elements."""
    (table,) = read(listing(version))
    found = loaded(table)
    assert [rule.count for rule in found.chains[0].rules] == [
        *(Count(5, 300), Count(0, 0)),
        *(None, None, None),
    ]
    maps = {one.place: one.counts for one in found.sets if one.place.startswith("map")}
    assert maps == {
        "map pairs": {
            '"eth0" . 22 : jump sub': Count(3, 180),
            '"eth1" . 23-25 : drop': Count(0, 0),
        },
        "map ports": {"22 : accept": Count(1, 60), "80 : goto sub": Count(0, 0)},
    }


def test_versions_list_alike() -> None:
    """A table that nft 1.0.6 loaded is the same to both, but for the words of some rules."""
    (old,), (new,) = (read(listing(version, "loaded")) for version in VERSIONS)
    one, other = loaded(old), loaded(new)
    assert one.sets == other.sets
    assert [one.counts for one in one.sets] == [one.counts for one in other.sets]
    assert one.others == other.others
    assert [(c.place, c.head, len(c.rules)) for c in one.chains] == [
        (c.place, c.head, len(c.rules)) for c in other.chains
    ]
    assert len([one for one in one.sets if one.counts]) == 1
    assert sum(len(one.elements or ()) for one in one.sets) == 44


def test_handles_are_those_of_rules() -> None:
    """They stand behind the rule, and nothing in quotes is one."""
    (table,) = read(listing("1.0.6"))
    handles = [rule.handle for rule in table.chains[0].rules]
    assert handles == [40, 20, 21, 22, 23, 24]
    (bare,) = read(re.sub(r" # handle \d+$", "", listing("1.0.6"), flags=re.MULTILINE))
    assert [rule.handle for rule in bare.chains[0].rules] == [None] * 6
    assert loaded(bare) == EXPECTED
    assert bare.text == table.text


def test_what_is_foreign_in_a_table_is_told() -> None:
    """Flags, counters and chains that nobody of ours made are there to be seen."""
    (table,) = read(
        "table inet policylang { # handle 1\n\tflags dormant\n\n"
        "\tcounter foo { # handle 2\n\t\tpackets 0 bytes 0\n\t}\n\n"
        '\tchain x { # handle 3\n\t\tcomment "y"\n\t\taccept # handle 4\n\t}\n}\n'
    )
    assert loaded(table) == Loaded(
        (Chain("chain x", "", (Rule("accept"),)),),
        (),
        ("flags dormant", "counter foo { packets 0 bytes 0 }"),
    )


def test_priorities_are_named_as_nft_names_them() -> None:
    """Up to ten from a name by the name; there and back again."""
    assert [priority_words(n) for n in (-300, -299, -100, -99, 0, 10, 11, 101, -11)] == [
        *("raw", "raw + 1", "dstnat", "dstnat + 1", "filter", "filter + 10", "11"),
        *("srcnat + 1", "-11"),
    ]
    for number in range(-320, 120):
        assert priority(priority_words(number)) == number
    assert [priority(f"{name} - 3") for name in PRIORITIES] == [n - 3 for n in PRIORITIES.values()]


def test_the_order_of_sets_says_nothing() -> None:
    """A set that stayed is listed before those that came, wherever its script has it."""
    head = "\t\ttype ipv4_addr\n\t\tflags dynamic,timeout\n\t}\n"
    sets = [f"\tset {name} {{\n{head}" for name in ("first", "second")]
    one, other = (f"table inet policylang {{\n{''.join(order)}}}\n" for order in (sets, sets[::-1]))
    assert loaded(read(one)[0]) == loaded(read(other)[0])
