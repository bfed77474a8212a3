"""Chooses the ipset for a lookup of addresses with ports; knows the types and their limits.

Types of two networks (hash:net,net and hash:net,port,net) are left alone: kernels without them
are about, the one that the tests run on among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from policylang.backends.iptables.nodes import Leaf, Node, Pairs
from policylang.backends.iptables.prefixes import prefix_texts
from policylang.ir.actions import Action
from policylang.ir.origin import joined
from policylang.ir.ruleset import Entry
from policylang.packets.cube import Cube
from policylang.packets.fields import DCCP, SCTP, TCP, UDP, Field
from policylang.packets.values import V6_BASE, Range, Ranges, format_address

# The protocols whose ports ipset reads (ip_set_get_ip4_port of ip_set_getport.c), by the names
# that /etc/protocols has. To ipset, DCCP has no ports.
PROTOCOLS = {TCP: "tcp", UDP: "udp", SCTP: "sctp"}

# What stands in the packet, where ipset looks: what the client dialled does not.
ADDRESSES = (Field.SADDR, Field.DADDR)
PORTS = (Field.SPORT, Field.DPORT)

# A range of ports, and in some types one of addresses, is kept as its single values.
SMALL = 16  # so many elements an entry may always be
LARGE = 1024  # an entry of more is better a rule
ELEMENTS_MOST = 65536  # entries between go into sets as long as all are no more than this together
SPREAD_MOST = 16  # so many addresses may stand one by one where a type takes no network


@dataclass(frozen=True, slots=True)
class Shape:
    """Where in a key the addresses, the port and, where it is there, the protocol stand."""

    fields: tuple[Field, ...]
    addresses: tuple[int, ...]
    port: int
    protocol: int | None

    @classmethod
    def of(cls, base: Cube, fields: tuple[Field, ...]) -> Shape | None:
        """The shape of a lookup's fields; None where no type of ipset has it."""
        addresses = tuple(i for i, f in enumerate(fields) if f in ADDRESSES)
        ports = [i for i, f in enumerate(fields) if f in PORTS]
        protocol = fields.index(Field.L4PROTO) if Field.L4PROTO in fields else None
        if not addresses or len(ports) != 1:
            return None
        if len(fields) != len(addresses) + 1 + (protocol is not None):
            return None
        if protocol is None and not Ranges.of(*PROTOCOLS).covers(base[Field.L4PROTO]):
            return None
        return cls(fields, addresses, ports[0], protocol)

    def parts(self, entry: Entry, protocols: Iterable[int]) -> Iterator[Entry]:
        """An entry protocol by protocol, of these alone; as it is where its key has none."""
        i = self.protocol
        if i is None:
            yield entry
            return
        low, high = entry.key[i]
        for number in protocols:
            if low <= number <= high:
                yield replace(entry, key=(*entry.key[:i], (number, number), *entry.key[i + 1 :]))

    def protocols(self, base: Cube, entry: Entry) -> list[str]:
        """The protocols of a part of an entry, as ipset calls them."""
        if self.protocol is None:
            return [name for number, name in PROTOCOLS.items() if number in base[Field.L4PROTO]]
        return [PROTOCOLS[entry.key[self.protocol][0]]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A type of ipset, and the positions in a key of what its elements consist of."""

    kind: str
    order: tuple[int, ...]

    @property
    def parts(self) -> list[tuple[str, int]]:
        """`ip`, `net` or `port` with its position."""
        return list(zip(self.kind.removeprefix("hash:").split(","), self.order, strict=True))

    def flags(self, shape: Shape) -> str:
        """The directions, as `--match-set` takes them."""
        froms = (Field.SADDR, Field.SPORT)
        return ",".join("src" if shape.fields[i] in froms else "dst" for i in self.order)

    def size(self, entry: Entry, protocols: Sequence[str]) -> int:
        """How many elements of the kernel an entry is."""
        counts = (
            len(prefix_texts(Ranges((entry.key[i],)))) if part == "net" else _count(entry.key[i])
            for part, i in self.parts
        )
        return prod(counts) * len(protocols)

    def elements(self, entry: Entry, protocols: Sequence[str]) -> Iterator[str]:
        """The elements as ipset takes them, a range of ports in one."""
        texts: list[list[str]] = []
        for part, i in self.parts:
            low, high = entry.key[i]
            match part:
                case "net":
                    texts.append(prefix_texts(Ranges((entry.key[i],))))
                case "ip":
                    texts.append([format_address(n) for n in range(low, high + 1)])
                case _:
                    ports = str(low) if low == high else f"{low}-{high}"
                    texts.append([f"{protocol}:{ports}" for protocol in protocols])
        return (",".join(chosen) for chosen in product(*texts))


def split_pairs(
    base: Cube, fields: tuple[Field, ...], entries: Sequence[Entry]
) -> tuple[tuple[Node, ...], list[Entry]] | None:
    """Rules that look entries up in ipsets, and the entries that no set is to hold.

    None where no type of ipset fits the fields.
    """
    shape = Shape.of(base, fields)
    if shape is None:
        return None
    rest: list[Entry] = []
    same: dict[Action, list[Entry]] = {}
    for entry in entries:
        same.setdefault(entry.action, []).extend(shape.parts(entry, PROTOCOLS))
        if shape.protocol is not None:
            rest += shape.parts(entry, (DCCP,))
    laid: list[tuple[int, Layout, Entry]] = []
    for some in same.values():
        for layout, entry in _laid_out(shape, some):
            if layout is None:
                rest.append(entry)
            else:
                size = layout.size(entry, shape.protocols(base, entry))
                laid.append((size, layout, entry))
    sets: dict[tuple[Action, Layout], list[Entry]] = {}
    total = 0
    for size, layout, entry in sorted(laid, key=lambda item: (item[0], item[2].key)):
        if size > LARGE or (size > SMALL and total + size > ELEMENTS_MOST):
            rest.append(entry)
        else:
            total += size
            sets.setdefault((entry.action, layout), []).append(entry)
    nodes: list[Node] = []
    for (action, layout), held in sets.items():
        held.sort(key=lambda entry: entry.key)
        texts = (t for e in held for t in layout.elements(e, shape.protocols(base, e)))
        pairs = Pairs(layout.kind, layout.flags(shape), tuple(dict.fromkeys(texts)))
        nodes.append(Leaf(base, action, (), joined(*(e.origins for e in held)), pairs))
    return tuple(nodes), sorted(rest, key=lambda entry: entry.key)


def _is_host(pair: Range) -> bool:
    """Whether hash:ip types can hold it: one address, and not the one that is all zeros."""
    return _count(pair) == 1 and pair[0] not in (0, V6_BASE)


def _laid_out(shape: Shape, entries: Sequence[Entry]) -> Iterator[tuple[Layout | None, Entry]]:
    """The layout for each entry of one action, as few different ones as can be."""
    single = {i for i in shape.addresses if all(_is_host(e.key[i]) for e in entries)}
    if len(shape.addresses) == 1:
        (address,) = shape.addresses
        kind = "hash:ip,port" if single else "hash:net,port"
        yield from ((Layout(kind, (address, shape.port)), entry) for entry in entries)
        return
    first, second = shape.addresses
    if len(single) == 2:
        layout = Layout("hash:ip,port,ip", (first, shape.port, second))
        yield from ((layout, entry) for entry in entries)
        return
    # Of the two addresses one must stand by itself.
    by_first = Layout("hash:ip,port,net", (first, shape.port, second))
    by_second = Layout("hash:ip,port,net", (second, shape.port, first))
    for entry in entries:
        counts = [_count(entry.key[i]) for i in shape.addresses]
        if min(counts) > SPREAD_MOST:
            yield None, entry
        elif first in single or (second not in single and counts[0] <= counts[1]):
            yield by_first, entry
        else:
            yield by_second, entry


def _count(pair: Range) -> int:
    return pair[1] - pair[0] + 1
