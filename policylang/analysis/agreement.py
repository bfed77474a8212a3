"""Whether two sets of rules do the same to every packet, and the packet to which they do not.

Both are followed from all packets that there can be on each hook; what they do is compared as
diagrams, which are equal or show the difference. It knows neither policies nor targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from policylang.analysis.classes import Classes
from policylang.analysis.deeds import (
    Became,
    Deed,
    Deeds,
    Done,
    LeftToPolicy,
    Part,
    Passed,
    Where,
    deeds,
)
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.machine import Base, Hook, Machine, Question
from policylang.analysis.ordinary import ORDINARY
from policylang.analysis.possible import ALL_LAWS, LAWS, Law, Possible
from policylang.ir import actions as ir
from policylang.packets.cube import Cube
from policylang.packets.fields import NAMES, Field
from policylang.packets.values import Ranges, name_range

LOOPBACK = Ranges((name_range("lo"),))
NOT_LOOPBACK = (Cube.of({Field.IIF: NAMES - LOOPBACK}), Cube.of({Field.OIF: NAMES - LOOPBACK}))
MOST_PIECES = 64  # of a difference, among which an ordinary packet is looked for


@dataclass(frozen=True, slots=True)
class Side:
    """What one set of rules does to a packet, and the line that decides it.

    `done` is None where it does nothing of the kind; `line` is then what else it meets.
    """

    deed: Deed
    done: Done | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A packet of a hook to which `deed` is done by one of two sets of rules and not by the other.

    `packet` is one of `packets`; whether it meets the lines may depend on `questions`.
    """

    where: Where
    deed: Deed
    is_meant: bool  # the first one does it
    packets: Packets
    packet: dict[Field, int]
    meant: Side
    loaded: Side

    @property
    def questions(self) -> tuple[Question, ...]:
        return self.packets.questions()


class Ground:
    """A space in which some machines can be compared: values that none tells apart are one.

    What is followed on it must be among `machines`.
    """

    def __init__(self, *machines: Machine) -> None:
        cubes = {
            cube
            for machine in machines
            for lines in machine.chains.values()
            for line in lines
            for cube in line.cubes
        }
        for law in ALL_LAWS:
            cubes |= {law.given, law.then}
        self.classes = Classes(cubes)
        self.space = Space()
        self.possible = Possible(self.space, self._put(LAWS))
        self.likely = Possible(self.space, self._put(ALL_LAWS))

    def _put(self, laws: tuple[Law, ...]) -> tuple[Law, ...]:
        put = self.classes.put
        return tuple(replace(law, given=put(law.given), then=put(law.then)) for law in laws)

    def followed(self, machine: Machine) -> Deeds:
        """What a machine does to all packets that there can be; raises `TooLargeError`."""
        put = self.classes.put
        chains = {
            name: tuple(replace(line, cubes=tuple(map(put, line.cubes))) for line in lines)
            for name, lines in machine.chains.items()
        }
        return deeds(replace(machine, chains=chains), self.space, self.possible)

    def packet(self, where: Where, packets: Packets) -> dict[Field, int]:
        """One packet of a set that is not empty, as ordinary as can be at a part of its way."""
        left = self.space.may(packets)
        near = left & self.likely(where)
        left = near if near else left
        for cube in (*NOT_LOOPBACK, *ORDINARY):
            near = left & self.space.of(self.classes.put(cube))
            if near:
                left = near
        cubes = [self.classes.back(cube) for cube in left.cubes(MOST_PIECES)]
        packet = Space().of_all(cubes).witness(NOT_LOOPBACK)
        assert packet is not None, "packets that differ are some"
        return packet

    def point(self, packets: Packets, packet: dict[Field, int]) -> Packets:
        """Those of a set of packets that are like one of them."""
        here: dict[Field, Ranges] = {}
        for f, number in packet.items():
            here[f] = self.classes.put(Cube.of({f: Ranges.of(number)}))[f]
        found = packets & self.space.of(Cube.of(here))
        return found if found else packets

    def differences(self, wanted: Deeds, there: Deeds) -> Iterator[Disagreement]:
        """Where two machines do not do the same, a packet of each kind; nothing if they do.

        Both were followed here. Raises `TooLargeError`.
        """
        for hook in Hook:
            for part in Part:
                where = hook, part
                kinds = dict.fromkeys((*wanted.done.get(where, ()), *there.done.get(where, ())))
                for deed in sorted(kinds, key=_rank):
                    if isinstance(deed, Passed | LeftToPolicy):
                        continue
                    mine, yours = wanted.of(where, deed), there.of(where, deed)
                    if mine == yours:
                        continue
                    for is_meant, packets in ((True, mine - yours), (False, yours - mine)):
                        if packets:
                            packet = self.packet(where, packets)
                            point = self.point(packets, packet)
                            yield Disagreement(
                                where,
                                deed,
                                is_meant,
                                packets,
                                packet,
                                side(wanted, where, deed, point),
                                side(there, where, deed, point),
                            )

    def left_to_policy(self, there: Deeds) -> Iterator[tuple[Base, dict[Field, int]]]:
        """The base chains of which the policy drops what no rule decides, with a packet of it.

        Such packets pass for the moment in which a chain is replaced, for the policy takes effect
        once the new chain is there: our own chains have a last rule that decides.
        """
        for where, found in there.done.items():
            for one in found.get(LeftToPolicy(), ()):
                yield one.base, self.packet(where, one.packets)


def _rank(deed: Deed) -> int:
    """What decides about packets is told before what is done beside it."""
    match deed:
        case ir.Drop() | ir.Reject() | ir.Queue():
            return 0
        case Became():
            return 2
        case _:
            return 1


def side(found: Deeds, where: Where, deed: Deed, point: Packets) -> Side:
    """What is done to a packet: the deed in question, or what decides about it instead."""
    met = list(found.lines(where, point))
    for other, done in met:
        if other == deed and (done.line is not None or isinstance(deed, Became)):
            return Side(other, done)
    if isinstance(deed, Became):
        for other, done in met:
            if isinstance(other, Became):
                return Side(other, done)
    for other, done in met:
        if _rank(other) == 0 or (isinstance(other, Passed) and done.line is not None):
            return Side(other, done)
    for other, done in met:
        if not isinstance(other, Became):
            return Side(other, done)
    return Side(met[0][0], met[0][1]) if met else Side(Passed(), None)
