"""The catalogue's groups of addresses are what the IANA special-purpose registries say.

The registries stand here as rows, written down from
https://www.iana.org/assignments/iana-ipv4-special-registry and
https://www.iana.org/assignments/iana-ipv6-special-registry, and Python's `ipaddress` has a view of
its own of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from policylang.packets.values import (
    ADDRESSES,
    Ranges,
    format_address,
    parse_address,
)
from policylang.syntax import tree
from tests.catalogue.whole import addresses_of, loaded

# Prefix: whether it is globally reachable. None: not applicable, or deprecated; what holds for
# the block around it does not hold for it, save where the row itself is gone.
IPV4_REGISTRY: dict[str, bool | None] = {
    "0.0.0.0/8": False,  # RFC 791
    "10.0.0.0/8": False,  # RFC 1918
    "100.64.0.0/10": False,  # RFC 6598
    "127.0.0.0/8": False,  # RFC 1122
    "169.254.0.0/16": False,  # RFC 3927
    "172.16.0.0/12": False,  # RFC 1918
    "192.0.0.0/24": False,  # RFC 6890
    "192.0.0.0/29": False,  # RFC 7335
    "192.0.0.8/32": False,  # RFC 7600
    "192.0.0.9/32": True,  # RFC 7723
    "192.0.0.10/32": True,  # RFC 8155
    "192.0.0.170/31": False,  # RFC 8880
    "192.0.2.0/24": False,  # RFC 5737
    "192.31.196.0/24": True,  # RFC 7535
    "192.52.193.0/24": True,  # RFC 7450
    "192.88.99.0/24": None,  # RFC 7526
    "192.168.0.0/16": False,  # RFC 1918
    "192.175.48.0/24": True,  # RFC 7534
    "198.18.0.0/15": False,  # RFC 2544
    "198.51.100.0/24": False,  # RFC 5737
    "203.0.113.0/24": False,  # RFC 5737
    "240.0.0.0/4": False,  # RFC 1112
    "255.255.255.255/32": False,  # RFC 8190
}
IPV6_REGISTRY: dict[str, bool | None] = {
    "::1/128": False,  # RFC 4291
    "::/128": False,  # RFC 4291
    "::ffff:0:0/96": False,  # RFC 4291
    "64:ff9b::/96": True,  # RFC 6052
    "64:ff9b:1::/48": False,  # RFC 8215
    "100::/64": False,  # RFC 6666
    "100:0:0:1::/64": False,  # RFC 9780
    "2001::/23": False,  # RFC 2928; "unless allowed by a more specific allocation"
    "2001::/32": None,  # RFC 4380
    "2001:1::1/128": True,  # RFC 7723
    "2001:1::2/128": True,  # RFC 8155
    "2001:1::3/128": True,  # RFC 9665
    "2001:2::/48": False,  # RFC 5180
    "2001:3::/32": True,  # RFC 7450
    "2001:4:112::/48": True,  # RFC 7535
    "2001:20::/28": True,  # RFC 7343
    "2001:30::/28": True,  # RFC 9374
    "2001:db8::/32": False,  # RFC 3849
    "2002::/16": None,  # RFC 3056
    "2620:4f:8000::/48": True,  # RFC 7534
    "3fff::/20": False,  # RFC 9637
    "5f00::/16": False,  # RFC 9602
    "fc00::/7": False,  # RFC 4193
    "fe80::/10": False,  # RFC 4291
}
REGISTRY = IPV4_REGISTRY | IPV6_REGISTRY
# 2001:10::/28 (ORCHID, RFC 4843) was returned in 2014: the block around it speaks for it again.

DOCUMENTATION = ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")
MULTICAST = ("224.0.0.0/4", "ff00::/8")  # RFC 5771, RFC 4291; in registries of their own


def ranges(*prefixes: str) -> Ranges:
    parsed = [parse_address(prefix) for prefix in prefixes]
    assert None not in parsed
    return Ranges.merged(pair for pair in parsed if pair is not None)


def called_unreachable() -> Ranges:
    """What the registries call not globally reachable: the longest prefix decides."""
    found = Ranges()
    for prefix in sorted(REGISTRY, key=lambda prefix: int(prefix.partition("/")[2])):
        found = found | ranges(prefix) if REGISTRY[prefix] is False else found - ranges(prefix)
    return found


def test_the_registries_are_what_bogons_are_made_of() -> None:
    """LANGUAGE.md, section 7: not globally reachable, documentation networks left out."""
    unreachable = called_unreachable()
    assert addresses_of("not-globally-reachable") == unreachable
    assert addresses_of("bogons") == unreachable - ranges(*DOCUMENTATION) | ranges(*MULTICAST)
    assert addresses_of("globally-reachable") == ADDRESSES - unreachable - ranges(*MULTICAST)


def test_every_row_belongs_to_a_group() -> None:
    """Each entry of the registries can be named by a group that is about its sort."""
    general = {"bogons", "not-globally-reachable", "globally-reachable"}
    special = [addresses_of(name) for name in loaded().sets if name not in general]
    for prefix in REGISTRY:
        assert any(group.covers(ranges(prefix)) for group in special), prefix


GROUPS: dict[str, tuple[str, ...]] = {
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    "rfc1918": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "unique-local": ("fc00::/7",),
    "shared": ("100.64.0.0/10",),
    "cgnat": ("100.64.0.0/10",),
    "loopback": ("127.0.0.0/8", "::1"),
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "this-network": ("0.0.0.0/8", "::"),
    "documentation": DOCUMENTATION,
    "benchmarking": ("198.18.0.0/15", "2001:2::/48"),
    "reserved": ("240.0.0.0/4",),
    "multicast-addresses": MULTICAST,
    "teredo-addresses": ("2001::/32",),
    "sixtofour-addresses": ("192.88.99.0/24", "2002::/16"),
    "nat64": ("64:ff9b::/96", "64:ff9b:1::/48"),
    "ipv4-mapped": ("::ffff:0:0/96",),
    "discard-only": ("100::/64", "100:0:0:1::/64"),
    "protocol-assignments": ("192.0.0.0/24", "2001::/23"),
    "as112": ("192.31.196.0/24", "192.175.48.0/24", "2001:4:112::/48", "2620:4f:8000::/48"),
    "amt": ("192.52.193.0/24", "2001:3::/32"),
    "segment-routing": ("5f00::/16",),
}


def test_groups_hold_their_networks() -> None:
    for name, networks in GROUPS.items():
        assert addresses_of(name) == ranges(*networks), name
    assert loaded().sets.keys() == GROUPS.keys() | {
        "bogons",
        "globally-reachable",
        "not-globally-reachable",
    }


# --- Python's view ---------------------------------------------------------------------------

# Where `ipaddress` and the registries differ, in some versions of Python or in all of them.
DIFFERENT_IN_PYTHON: dict[str, str] = {
    "192.0.0.0/24": "before 3.11.10 and 3.12.4, parts of it alone were private",
    "64:ff9b:1::/48": "not in Python before 3.11.10 and 3.12.4",
    "100:0:0:1::/64": "registered in 2025",
    "2001::/23": "before 3.11.10 and 3.12.4 without the parts that are reachable; and Teredo"
    " (2001::/32), of which the registry says neither, is called private",
    "2002::/16": "the registry says neither; Python calls it private since 3.11.10 and 3.12.4",
    "3fff::/20": "registered in 2024",
    "5f00::/16": "registered in 2024",
    "::/96": "addresses within ::/128 and IPv4-mapped ones, which some versions look through",
    "fec0::/10": "deprecated site-local addresses, which Python calls private and the registry"
    " does not list",
    "224.0.0.0/4": "multicast has registries of its own",
    "ff00::/8": "multicast has registries of its own",
}


def edges() -> Iterator[int]:
    """The first and the last address of every range in question, and their neighbours."""
    everything = [*REGISTRY, *MULTICAST, *DIFFERENT_IN_PYTHON, "100::/8", "2000::/3"]
    for prefix in everything:
        for low, high in ranges(prefix):
            for number in (low - 1, low, low + 1, (low + high) // 2, high - 1, high, high + 1):
                if number in ADDRESSES:
                    yield number


def test_python_knows_the_same_registries() -> None:
    """`ipaddress` agrees at every edge that is in none of the blocks where it may differ."""
    unreachable = addresses_of("not-globally-reachable")
    doubtful = ranges(*DIFFERENT_IN_PYTHON)
    compared = 0
    for number in set(edges()) - {n for n in edges() if n in doubtful}:
        address = ipaddress.ip_address(format_address(number))
        assert address.is_global is (number not in unreachable), address
        compared += 1
    assert compared > 100


# --- how they are written --------------------------------------------------------------------


def test_groups_stand_on_their_own() -> None:
    """A group names no other set: what a policy calls by one of their names changes no other."""
    for group in loaded().sets.values():
        assert not any(
            isinstance(element, (tree.Name, tree.FileList))
            for element in (*group.elements, *group.exceptions)
        ), group.name.text


def test_no_element_lies_in_another() -> None:
    for group in loaded().sets.values():
        held = [ranges(e.text) for e in group.elements if isinstance(e, tree.Address)]
        assert len(held) == len(group.elements)
        for number, one in enumerate(held):
            assert not any(one.meets(other) for other in held[number + 1 :]), group.name.text
