"""A cube: one set of values a field, all of which must hold; knows no policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policylang.packets.fields import (
    ADDRESS_FIELDS,
    FAMILY_ADDRESSES,
    REQUIRES,
    UNIVERSE,
    Field,
)
from policylang.packets.values import Ranges

Packet = Mapping[Field, int]

FAMILY_BOUND = (
    Field.SADDR,
    Field.DADDR,
    Field.ORIG_DADDR,
    Field.HOP_LIMIT,
    Field.ICMP_TYPE,
    Field.ICMPV6_TYPE,
)


@dataclass(frozen=True, slots=True)
class Cube:
    """A conjunction: `field -> values`; a field that is absent may have any value.

    Always in normal form, so that equal sets of packets that are cubes compare equal: terms
    sorted by field, none that says nothing, what a term implies (a port has a protocol with
    ports, an address a family) said in full. Made by `Cube.of` alone.
    """

    terms: tuple[tuple[Field, Ranges], ...] = ()

    @classmethod
    def of(cls, terms: Mapping[Field, Ranges]) -> Cube:
        """The cube of these terms, in normal form; `EMPTY` where no packet meets them all."""
        wanted = dict(terms)
        for field, needs, values in REQUIRES:
            if field in wanted and wanted[field] != UNIVERSE[field]:
                wanted[needs] = wanted.get(needs, UNIVERSE[needs]) & values
        addresses = [wanted[f] for f in ADDRESS_FIELDS if f in wanted]
        if addresses:
            families = wanted.get(Field.FAMILY, UNIVERSE[Field.FAMILY])
            possible = [
                family
                for family, all_of_it in FAMILY_ADDRESSES.items()
                if family in families and all(a.meets(all_of_it) for a in addresses)
            ]
            wanted[Field.FAMILY] = Ranges.of(*possible)
            within = Ranges()
            for family in possible:
                within = within | FAMILY_ADDRESSES[family]
            for field in ADDRESS_FIELDS:
                if field in wanted:
                    narrowed = wanted[field] & within
                    if narrowed == within:
                        del wanted[field]
                    else:
                        wanted[field] = narrowed
        for values in wanted.values():
            if not values:
                return EMPTY
        return cls(
            tuple((f, wanted[f]) for f in sorted(wanted) if wanted[f] != UNIVERSE[f]),
        )

    @property
    def is_empty(self) -> bool:
        return len(self.terms) == 1 and not self.terms[0][1].pairs

    def __iter__(self) -> Iterator[tuple[Field, Ranges]]:
        return iter(self.terms)

    def __contains__(self, field: Field) -> bool:
        """Whether the cube says anything of a field."""
        return any(f is field for f, _ in self.terms)

    def __getitem__(self, field: Field) -> Ranges:
        for f, values in self.terms:
            if f is field:
                return values
        return UNIVERSE[field]

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(f for f, _ in self.terms)

    @property
    def stated(self) -> tuple[tuple[Field, Ranges], ...]:
        """The terms less a family that addresses, types or a hop limit imply."""
        if any(f in FAMILY_BOUND for f, _ in self.terms):
            return tuple(term for term in self.terms if term[0] is not Field.FAMILY)
        return self.terms

    def beside(self, field: Field) -> tuple[tuple[Field, Ranges], ...]:
        """What is said of all other fields: cubes that agree in it differ in `field` alone.

        Such cubes become one with the union of their values. A family that addresses imply is
        left out beside an address, since those of the other cube may be of another one.
        """
        terms = self.stated if field in ADDRESS_FIELDS else self.terms
        return tuple(term for term in terms if term[0] is not field)

    def with_terms(self, terms: Mapping[Field, Ranges]) -> Cube:
        """The cube with some terms replaced, whatever they were."""
        return Cube.of({**dict(self.terms), **terms})

    def without(self, *fields: Field) -> Cube:
        """The wider cube that says nothing of `fields`."""
        return Cube.of({f: v for f, v in self.terms if f not in fields})

    def __and__(self, other: Cube) -> Cube:
        if not other.terms:
            return self
        if not self.terms:
            return other
        terms = dict(self.terms)
        for field, values in other.terms:
            terms[field] = terms[field] & values if field in terms else values
        return Cube.of(terms)

    def meets(self, other: Cube) -> bool:
        """Whether some packet is in both."""
        if self.is_empty or other.is_empty:
            return False
        theirs = dict(other.terms)
        for field, values in self.terms:
            if field in theirs and not values.meets(theirs[field]):
                return False
        return not (self & other).is_empty

    def covers(self, other: Cube) -> bool:
        """Whether every packet of `other` is in this cube."""
        if other.is_empty:
            return True
        if self.is_empty:
            return False
        theirs = dict(other.terms)
        for field, values in self.terms:
            if field in theirs:
                if not values.covers(theirs[field]):
                    return False
            elif field not in ADDRESS_FIELDS or (other & self) != other:
                return False
        return True

    def __sub__(self, other: Cube) -> tuple[Cube, ...]:
        """Disjoint cubes that hold the packets of this one that are not in `other`."""
        if not self.meets(other):
            return () if self.is_empty else (self,)
        # Every packet has addresses, so a family that they imply needs no piece of its own.
        implied = any(f in ADDRESS_FIELDS for f, _ in other.terms)
        pieces: list[Cube] = []
        rest = self
        for field, values in other.terms:
            if field is Field.FAMILY and implied:
                continue
            mine = rest[field]
            outside = mine - values
            if outside:
                piece = rest.with_terms({field: outside})
                if not piece.is_empty:
                    pieces.append(piece)
            rest = rest.with_terms({field: mine & values})
        return tuple(pieces)

    def holds(self, packet: Packet) -> bool:
        """Whether a packet, given as its fields, is in the cube; a field it lacks matches none."""
        return all(field in packet and packet[field] in values for field, values in self.terms)


EMPTY = Cube(((Field.FAMILY, Ranges()),))
EVERYTHING = Cube()
