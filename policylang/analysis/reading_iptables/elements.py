"""The elements of a plain ipset as values of fields; knows no match.

Elements are many, so they are held as rows of bare ranges, one table for those that say something
of the same fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from policylang.analysis.reading_iptables.asking import (
    NONE,
    Asked,
    NotUnderstoodError,
    Terms,
    any_of,
    of,
    turned,
)
from policylang.analysis.reading_iptables.headers import mac_number
from policylang.analysis.reading_iptables.ipsets import IpSet
from policylang.analysis.reading_iptables.numbers import address_span, name_span, number
from policylang.analysis.reading_iptables.protocols import PROTOCOLS
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    FAMILY_ADDRESSES,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    UNIVERSE,
    Field,
)
from policylang.packets.values import Range, Ranges

# The protocols whose ports ipset reads (ip_set_get_ip4_port of ip_set_getport.c), that have
# fields; of others the port is 0.
PORTED = (TCP, UDP, SCTP)
# Of these it reads a type together with a code, or a port, which are no fields.
UNTOLD = (ICMP, ICMPV6, 136)

Fields = tuple[Field, ...]
Row = tuple[Range, ...]  # a range for each field
Held = tuple[Ranges, ...]  # values for each field


def elements(ipset: IpSet, fields: Fields, *, negated: bool) -> Asked:
    """The packets whose fields are in a set, or all others; `fields` has one for each part."""
    if ipset.parts in (("ip",), ("net",)):
        values = _addresses(ipset)
        everything = FAMILY_ADDRESSES[ipset.family or 4]
        return of(fields[0], everything - values if negated else values)
    if ipset.parts == ("mac",):
        macs = (mac_number(element.partition(" ")[0]) for element in ipset.elements)
        return of(Field.SMAC, turned(Ranges.of(*macs), Field.SMAC, negated=negated))
    if any(" nomatch" in element or " wildcard" in element for element in ipset.elements):
        raise NotUnderstoodError(ipset.name)
    tables = _tables(ipset, fields)
    if not tables:
        return any_of([{}]) if negated else NONE
    if not negated:
        return any_of(terms for table in tables.items() for terms in _gathered(*table))
    order = tuple(sorted({f for said in tables for f in said}))
    held = [row for said, rows in tables.items() for row in _completed(said, rows, order)]
    return any_of(_outside(held, order, ipset.family))


# --- addresses alone ------------------------------------------------------------------------------


def _addresses(ipset: IpSet) -> Ranges:
    """The addresses of a set of these alone; of prefixes the longest that holds one decides."""
    family = ipset.family or 4
    netmask = ipset.options.get("netmask")
    pairs: list[Range] = []
    exceptions: list[Range] = []
    for element in ipset.elements:
        word, _, more = element.partition(" ")
        if netmask is not None:
            word = f"{word.partition('/')[0]}/{netmask}"
        is_out = "nomatch" in more and "nomatch" in more.partition('"')[0].split()
        (exceptions if is_out else pairs).append(address_span(word, family))
    if not exceptions:
        return Ranges.merged(pairs)
    sizes = {high - low for low, high in (*pairs, *exceptions)}
    result = Ranges()
    for size in sorted(sizes, reverse=True):
        result = result | Ranges.merged(p for p in pairs if p[1] - p[0] == size)
        result = result - Ranges.merged(p for p in exceptions if p[1] - p[0] == size)
    return result


# --- rows -----------------------------------------------------------------------------------------


def _tables(ipset: IpSet, fields: Fields) -> Mapping[Fields, list[Row]]:
    """The rows of all elements, by the fields that they say something of; sorted."""
    known: list[dict[str, tuple[Fields, Row]]] = [{} for _ in fields]
    tables: dict[Fields, list[Row]] = {}
    for element in ipset.elements:
        words = element.partition(" ")[0].split(",")
        if len(words) != len(fields):
            raise NotUnderstoodError(element)
        said: Fields = ()
        row: Row = ()
        for n, word in enumerate(words):
            found = known[n].get(word)
            if found is None:
                found = known[n][word] = _part(ipset, ipset.parts[n], word, fields[n])
            said += found[0]
            row += found[1]
        tables.setdefault(said, []).append(row)
    if ipset.kind == "hash:net,iface":
        tables = {said: _by_longest(rows) for said, rows in tables.items()}
    once: dict[Fields, list[Row]] = {}
    for said, rows in tables.items():
        order, merged = _of_each_field_once(said, rows)
        once.setdefault(order, []).extend(merged)
    return {said: sorted(rows) for said, rows in sorted(once.items()) if rows}


def _by_longest(rows: Iterable[Row]) -> list[Row]:
    """The rows of networks with interfaces, each network without the smaller ones in it.

    The kernel looks for the smallest network that holds the address, and at its interfaces alone
    (`multi` of hash_netiface4_data_equal, ip_set_hash_netiface.c).
    """
    of_network: dict[Range, list[Row]] = {}
    for network, *rest in rows:
        of_network.setdefault(network, []).append(tuple(rest))
    inside: dict[Range, list[Range]] = {network: [] for network in of_network}
    around: list[Range] = []
    for network in sorted(of_network, key=lambda pair: (pair[0], -pair[1])):
        while around and around[-1][1] < network[0]:
            around.pop()
        if around:
            inside[around[-1]].append(network)
        around.append(network)
    return [
        (pair, *rest)
        for network, held in of_network.items()
        for pair in Ranges((network,)) - Ranges.merged(inside[network])
        for rest in held
    ]


def _of_each_field_once(said: Fields, rows: list[Row]) -> tuple[Fields, list[Row]]:
    """The rows by sorted fields; of one that stands in two parts both must hold."""
    order = tuple(sorted(set(said)))
    if order == said:
        return said, rows
    places = [[n for n, f in enumerate(said) if f is wanted] for wanted in order]
    if all(len(some) == 1 for some in places):
        return order, [tuple([row[some[0]] for some in places]) for row in rows]
    found: list[Row] = []
    for row in rows:
        new = tuple((max(row[n][0] for n in s), min(row[n][1] for n in s)) for s in places)
        if all(low <= high for low, high in new):
            found.append(new)
    return order, found


def _part(ipset: IpSet, part: str, word: str, field: Field) -> tuple[Fields, Row]:
    """What one part of an element says."""
    match part:
        case "ip" | "net":
            netmask = ipset.options.get("netmask")
            text = word if netmask is None or part == "net" else f"{word}/{netmask}"
            return (field,), (address_span(text, ipset.family or 4),)
        case "iface":
            if word.startswith("physdev:"):
                raise NotUnderstoodError(word)
            return (field,), (name_span(word),)
        case "mac":
            n = mac_number(word)
            return (field,), ((n, n),)
        case _:
            return _port(ipset, word, field)


def _port(ipset: IpSet, word: str, field: Field) -> tuple[Fields, Row]:
    """`[PROTOCOL:]PORT[-PORT]`, which is TCP where it names none; of a bitmap, TCP and UDP."""
    name, colon, rest = word.rpartition(":")
    if ipset.kind == "bitmap:port":
        return (Field.L4PROTO, field), ((TCP, UDP), _port_span(rest))
    if not colon:
        return (Field.L4PROTO, field), ((TCP, TCP), _port_span(word))
    protocol = PROTOCOLS.get(name.lower())
    if protocol is None:
        protocol = number(name, 255)
    if protocol in PORTED:
        return (Field.L4PROTO, field), ((protocol, protocol), _port_span(rest))
    if protocol in UNTOLD or rest != "0":
        raise NotUnderstoodError(word)
    return (Field.L4PROTO,), ((protocol, protocol),)


def _port_span(text: str) -> Range:
    low, _, high = text.partition("-")
    pair = number(low, 65535), number(high or low, 65535)
    return pair if pair[0] <= pair[1] else (pair[1], pair[0])


def _values(field: Field, pair: Range) -> Ranges:
    """The values of a part; of protocols a range is its ends, which is how a bitmap's are held."""
    return Ranges.of(*pair) if field is Field.L4PROTO else Ranges((pair,))


# --- those that are in ----------------------------------------------------------------------------


def _gathered(fields: Fields, rows: Sequence[Row]) -> Iterator[Terms]:
    """The rows in few ways: those that differ in one field alone are one."""
    # The field with the most values first: together they are the fewest.
    first, *others = sorted(range(len(fields)), key=lambda n: -len({row[n] for row in rows}))
    groups: dict[Row, list[Range]] = {}
    for row in rows:
        groups.setdefault((*row[:first], *row[first + 1 :]), []).append(row[first])
    rest = (*fields[:first], *fields[first + 1 :])
    together = [_merged(fields[first], pairs) for pairs in groups.values()]
    completed = _completed(rest, groups, rest)
    held: Sequence[Held] = [
        (*row[:first], values, *row[first:])
        for row, values in zip(completed, together, strict=True)
    ]
    for n in others:
        held = _joined(held, n)
    for values_of_all in held:
        yield dict(zip(fields, values_of_all, strict=True))


def _merged(field: Field, pairs: Sequence[Range]) -> Ranges:
    if len(pairs) > 1 and field is not Field.L4PROTO:
        return Ranges.merged(pairs)
    return _union([_values(field, pair) for pair in pairs])


def _joined(rows: Sequence[Held], n: int) -> Sequence[Held]:
    """The rows, with those that differ in their `n`-th values alone as one."""
    groups: dict[Held, list[Ranges]] = {}
    for row in rows:
        groups.setdefault((*row[:n], *row[n + 1 :]), []).append(row[n])
    if len(groups) == len(rows):
        return rows
    return [(*rest[:n], _union(values), *rest[n:]) for rest, values in groups.items()]


def _union(values: Sequence[Ranges]) -> Ranges:
    if len(values) == 1:
        return values[0]
    return Ranges.merged(pair for some in values for pair in some)


def _completed(said: Fields, rows: Iterable[Row], order: Fields) -> Iterator[Held]:
    """The rows as values of all fields of `order`: what one says nothing of may be anything."""
    known: list[dict[Range, Ranges]] = [{} for _ in order]
    places = [said.index(f) if f in said else None for f in order]
    for row in rows:
        values: list[Ranges] = []
        for f, place, made in zip(order, places, known, strict=True):
            if place is None:
                values.append(UNIVERSE[f])
                continue
            pair = row[place]
            if pair not in made:
                made[pair] = _values(f, pair)
            values.append(made[pair])
        yield tuple(values)


# --- those that are not ---------------------------------------------------------------------------


def _outside(rows: Sequence[Held], order: Fields, family: int | None) -> Iterator[Terms]:
    """What is in none of the rows, as disjoint ways: value by value of the first field."""
    if not rows:
        yield {}
        return
    if not order:
        return
    first, *rest = order
    universe = UNIVERSE[first]
    if first in ADDRESS_FIELDS and family is not None:
        universe = FAMILY_ADDRESSES[family]
    by_what_follows: dict[frozenset[Held], list[Range]] = {}
    for pair, held in _pieces(rows, universe):
        by_what_follows.setdefault(held, []).append(pair)
    for held, pairs in by_what_follows.items():
        values = Ranges.merged(pairs)
        for terms in _outside(tuple(held), tuple(rest), family):
            yield {first: values, **terms}


def _pieces(rows: Sequence[Held], universe: Ranges) -> Iterator[tuple[Range, frozenset[Held]]]:
    """The universe in pieces, and what follows in the rows that hold a piece."""
    starts: dict[int, list[Held]] = {}
    ends: dict[int, list[Held]] = {}
    for row in rows:
        for low, high in row[0]:
            starts.setdefault(low, []).append(row[1:])
            ends.setdefault(high + 1, []).append(row[1:])
    live: dict[Held, int] = {}
    points = sorted({*starts, *ends, *(low for low, _ in universe), *(h + 1 for _, h in universe)})
    for point, following in pairwise(points):
        for row in ends.get(point, ()):
            live[row] -= 1
            if live[row] == 0:
                del live[row]
        for row in starts.get(point, ()):
            live[row] = live.get(row, 0) + 1
        if point in universe:
            yield (point, following - 1), frozenset(live)
