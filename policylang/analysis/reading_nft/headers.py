"""What matches read out of a packet's headers, and out of what routing says of its addresses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

from policylang.analysis.machine import Condition, MaskIs, Unknown
from policylang.analysis.reading_nft import kinds
from policylang.analysis.reading_nft.cases import Case, Cases, NotUnderstoodError
from policylang.analysis.reading_nft.kinds import Kind, numbers
from policylang.analysis.reading_nft.selectors import Selector, of_field
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, UNIVERSE, Field
from policylang.packets.values import Ranges

OF_FAMILY = {4: Cube.of({Field.FAMILY: Ranges.of(4)}), 6: Cube.of({Field.FAMILY: Ranges.of(6)})}
PORTED = Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP, DCCP, SCTP)})
NOT_PORTED = Cube.of({Field.L4PROTO: UNIVERSE[Field.L4PROTO] - Ranges.of(TCP, UDP, DCCP, SCTP)})

# The packets that have a header; nft puts the test for it before any match of the header's.
OF_HEADER = {
    "ip": OF_FAMILY[4],
    "ip6": OF_FAMILY[6],
    "icmp": Cube.of({Field.FAMILY: Ranges.of(4), Field.L4PROTO: Ranges.of(ICMP)}),
    "icmpv6": Cube.of({Field.FAMILY: Ranges.of(6), Field.L4PROTO: Ranges.of(ICMPV6)}),
    "igmp": Cube.of({Field.FAMILY: Ranges.of(4), Field.L4PROTO: Ranges.of(2)}),
    **{
        name: Cube.of({Field.L4PROTO: Ranges.of(number)})
        for name, number in (
            *(("tcp", TCP), ("udp", UDP), ("dccp", DCCP), ("sctp", SCTP)),
            *(("udplite", 136), ("ah", 51), ("esp", 50), ("comp", 108), ("gre", 47)),
        )
    },
}
PORT_FIELDS = {"sport": Field.SPORT, "dport": Field.DPORT}
ADDRESS_FIELDS = {"saddr": Field.SADDR, "daddr": Field.DADDR}
ADDRESS_KINDS = {"ip": kinds.V4, "ip6": kinds.V6}

IPV6_HEADER_BYTES = 40
# linux/netfilter: what ipv6_find_hdr passes over on its way to the transport header
EXTENSIONS = Ranges.of(0, 43, 44, 60)
NO_EXTENSION = Unknown("no extension header stands before the transport header")


@cache
def payload(protocol: str, name: str, family: str) -> Selector:
    """A field of a header, in a table of a family; raises NotUnderstoodError."""
    words = f"{protocol} {name}"
    needs = OF_HEADER.get(protocol, EVERYTHING)
    others = {"ip6": ("icmp", "igmp"), "ip": ("icmpv6",)}.get(family, ())
    if protocol in others:  # ICMP within IPv6 and the like, which no field has
        raise NotUnderstoodError(words, Cube.of({Field.L4PROTO: needs[Field.L4PROTO]}))
    match protocol, name:
        case (("ip" | "ip6"), ("saddr" | "daddr")):
            field = ADDRESS_FIELDS[name]
            question = partial(_address_question, field) if protocol == "ip6" else None
            return of_field(words, ADDRESS_KINDS[protocol], field, needs, question=question)
        case (("tcp" | "udp" | "dccp" | "sctp"), ("sport" | "dport")):
            return of_field(words, kinds.PORT, PORT_FIELDS[name], needs)
        case "th", ("sport" | "dport"):
            return of_field(words, kinds.PORT, PORT_FIELDS[name], elsewhere=NOT_PORTED)
        case "tcp", "flags":
            return of_field(words, kinds.TCP_FLAGS, Field.TCP_FLAGS, needs, are_bits=True)
        case "icmp", "type":
            return of_field(words, kinds.ICMP_TYPE, Field.ICMP_TYPE, needs)
        case "icmpv6", "type":
            return of_field(words, kinds.ICMPV6_TYPE, Field.ICMPV6_TYPE, needs)
        case (("ip" | "ip6"), "dscp"):
            return of_field(words, kinds.DSCP, Field.DSCP, needs)
        case "ip6", "hoplimit":
            return of_field(words, kinds.OCTET, Field.HOP_LIMIT, needs)
        case "ip", "protocol":
            return of_field(words, kinds.PROTOCOL, Field.L4PROTO, needs)
        case "ip6", "nexthdr":
            return replace(_next_header(), needs=needs)
        case "ip", "length":
            return of_field(words, kinds.PORT, Field.SIZE, needs)
        case "ip6", "length":
            return replace(_payload_length(), needs=needs)
        case "ether", "saddr":
            return of_field(words, kinds.MAC, Field.SMAC)
    raise NotUnderstoodError(words, needs)


def _address_question(field: Field, value: int, mask: int) -> MaskIs:
    return MaskIs(field, value, mask)


def _next_header() -> Selector:
    """What IPv6's own header says follows it: an extension header, or what L4PROTO is."""

    def meaning(values: Ranges) -> Cases:
        protocols = values - EXTENSIONS
        found = [
            Case(Cube.of({Field.L4PROTO: protocols}), (Condition(NO_EXTENSION),)),
            Case(EVERYTHING, (Condition(NO_EXTENSION, holds=False),)),
        ]
        if values.covers(EXTENSIONS):
            return tuple(found)
        if values.meets(EXTENSIONS):
            raise NotUnderstoodError("ip6 nexthdr", OF_FAMILY[6])
        return tuple(found[:1])

    return Selector("ip6 nexthdr", kinds.PROTOCOL, meaning)


def _payload_length() -> Selector:
    """The bytes of an IPv6 packet behind its header."""
    words = "ip6 length"

    def meaning(values: Ranges) -> Cases:
        sizes = Ranges(tuple((a + IPV6_HEADER_BYTES, b + IPV6_HEADER_BYTES) for a, b in values))
        return (Case(Cube.of({Field.SIZE: sizes & UNIVERSE[Field.SIZE]})),)

    longest = Ranges.between(0, 65535 - IPV6_HEADER_BYTES)
    return Selector(words, numbers(longest, 16), meaning)


def fib(result: str, flags: frozenset[str]) -> Selector:
    """What the routing table says of an address; raises NotUnderstoodError."""
    words = f"fib {' . '.join(sorted(flags))} {result}"
    match result, sorted(flags):
        case "type", ["daddr"]:
            return of_field(words, kinds.ADDRESS_TYPE, Field.DADDR_TYPE)
        case "type", ["saddr"]:
            return of_field(words, kinds.ADDRESS_TYPE, Field.SADDR_TYPE)
        case "oif", ["iif", "saddr"]:
            return of_field(words, THERE, Field.REVERSE_PATH)
    raise NotUnderstoodError(words)


def _there(said: object) -> tuple[int, int]:
    match said:
        case True:
            return 1, 1
        case False | "0":  # of an interface, number 0 is none
            return 0, 0
    raise NotUnderstoodError(str(said))


THERE = Kind(Ranges.of(0, 1), _there, 1)
