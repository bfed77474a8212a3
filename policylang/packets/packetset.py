"""A set of packets as a union of cubes; hides how the set is held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policylang.packets.cube import Cube, Packet
from policylang.packets.fields import Field
from policylang.packets.values import Ranges


def compact(cubes: Iterable[Cube]) -> tuple[Cube, ...]:
    """Fewer cubes with the same union: those that differ in one field alone become one.

    Keeps the order of what comes first; linear in the number of cubes for each field.
    """
    kept = [cube for cube in cubes if not cube.is_empty]
    if len(kept) > 1:
        kept = list(dict.fromkeys(kept))
    merged = True
    while merged and len(kept) > 1:
        merged = False
        for field in sorted({field for cube in kept for field, _ in cube}):
            groups: dict[tuple[tuple[Field, Ranges], ...], list[Cube]] = {}
            for cube in kept:
                groups.setdefault(cube.beside(field), []).append(cube)
            if len(groups) == len(kept):
                continue
            merged = True
            kept = [
                members[0] if len(members) == 1 else _union(members, field)
                for members in groups.values()
            ]
    return tuple(kept)


def _union(cubes: list[Cube], field: Field) -> Cube:
    """The cube of several that say the same of all fields but one."""
    values = Ranges.merged(pair for cube in cubes for pair in cube[field])
    return Cube.of({**dict(cubes[0].beside(field)), field: values})


@dataclass(frozen=True, slots=True)
class PacketSet:
    """A union of cubes, none of them empty; two equal sets may be held differently."""

    cubes: tuple[Cube, ...] = ()

    @classmethod
    def of(cls, cubes: Iterable[Cube]) -> PacketSet:
        """The union, without those cubes that another one covers."""
        kept: list[Cube] = []
        for cube in cubes:
            if cube.is_empty or any(other.covers(cube) for other in kept):
                continue
            kept = [other for other in kept if not cube.covers(other)]
            kept.append(cube)
        return cls(tuple(kept))

    def __bool__(self) -> bool:
        return bool(self.cubes)

    def __iter__(self) -> Iterator[Cube]:
        return iter(self.cubes)

    def __or__(self, other: PacketSet) -> PacketSet:
        return PacketSet.of((*self.cubes, *other.cubes))

    def __and__(self, other: PacketSet) -> PacketSet:
        return PacketSet.of(a & b for a in self.cubes for b in other.cubes)

    def __sub__(self, other: PacketSet) -> PacketSet:
        rest: list[Cube] = list(self.cubes)
        for cube in other.cubes:
            rest = [piece for mine in rest for piece in mine - cube]
        return PacketSet.of(rest)

    def covers(self, other: PacketSet) -> bool:
        return not (other - self)

    def meets(self, other: PacketSet) -> bool:
        return any(a.meets(b) for a in self.cubes for b in other.cubes)

    def holds(self, packet: Packet) -> bool:
        return any(cube.holds(packet) for cube in self.cubes)
