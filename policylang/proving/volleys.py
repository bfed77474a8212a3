"""Packets that can be thrown together, since no address of theirs is at two places at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from policylang.proving.frames import SERIALS
from policylang.proving.picking import Picked

K = TypeVar("K")
V = TypeVar("V")

MOST_LOOKED_AT = 16  # volleys that are not full yet
MOST_PROBES = 8000


@dataclass(slots=True)
class Volley:
    """Packets by their serials, where their addresses are, and which are in which set.

    `members` are by address and number of the test that asks.
    """

    probes: dict[int, Picked] = field(default_factory=dict)
    roles: dict[int, str | None] = field(default_factory=dict)
    members: dict[tuple[int, int], bool] = field(default_factory=dict)
    flows: set[tuple[int, ...]] = field(default_factory=set)

    def takes(self, picked: Picked) -> bool:
        """Whether a packet can be thrown with those that are there."""
        return (
            len(self.probes) < MOST_PROBES
            and _agree(self.roles, picked.roles)
            and _agree(self.members, picked.members)
            and _flow(picked) not in self.flows
        )

    def add(self, picked: Picked) -> int:
        """Take a packet in, and return its serial."""
        serial = SERIALS[len(self.probes)]
        self.probes[serial] = picked
        self.roles |= picked.roles
        self.members |= picked.members
        self.flows.add(_flow(picked))
        return serial


def volleys(picked: Iterable[Picked]) -> tuple[list[Volley], list[tuple[int, int]]]:
    """As few volleys as are easily found, and for each packet its volley and serial there."""
    made: list[Volley] = []
    places: list[tuple[int, int]] = []
    for one in picked:
        start = max(0, len(made) - MOST_LOOKED_AT)
        for number in range(start, len(made)):
            if made[number].takes(one):
                break
        else:
            number = len(made)
            made.append(Volley())
        places.append((number, made[number].add(one)))
    return made, places


def _agree(here: Mapping[K, V], there: Mapping[K, V]) -> bool:
    return all(key not in here or here[key] == value for key, value in there.items())


def _flow(picked: Picked) -> tuple[int, ...]:
    """What conntrack would take for the same connection, whichever end opened it.

    What has no ports and no identifier may be so once all sources are translated to one.
    """
    probe = picked.probe
    if probe.ports == (0, 0):
        return (probe.protocol, probe.destination)
    ends = sorted(((probe.source, probe.ports[0]), (probe.destination, probe.ports[1])))
    return (probe.protocol, *ends[0], *ends[1])
