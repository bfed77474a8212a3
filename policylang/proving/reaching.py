"""What has to be dialled for a packet to come where a question asks about: through a translation.

It reads translations alone. Whether a packet was in fact translated shows where it comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from policylang.ir import actions as ir
from policylang.ir.actions import Action
from policylang.ir.ruleset import Lookup, Ruleset, entry_cube
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Cube
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.values import Ranges
from policylang.proving.throwing import Fate

# What is another thing before a translation than behind it.
CHANGES = (
    *(Field.DADDR, Field.DPORT, Field.DADDR_TYPE, Field.DNATED, Field.OIF),
    *(Field.ORIG_DADDR, Field.ORIG_DPORT),
)


def dialled_for(
    ruleset: Ruleset, reached: Mapping[Path, Sequence[Cube]]
) -> dict[Path, tuple[Cube, ...]]:
    """Packets that may come to what is asked about by being sent there, by the path they dial."""
    found: dict[Path, list[Cube]] = {}
    for start, cube, action in _translating(ruleset):
        for path, some in reached.items():
            if (path is Path.OUTPUT) != (start is Path.OUTPUT):
                continue
            for there in some:
                dialled = _back(cube, action, there)
                if dialled is not None and not dialled.is_empty:
                    # At an address of this host's own, or (`at any`) of another machine.
                    for entered in (Path.INPUT, Path.FORWARD) if start is Path.INPUT else (start,):
                        found.setdefault(entered, []).append(dialled)
    return {path: tuple(dict.fromkeys(cubes)) for path, cubes in found.items()}


def _translating(ruleset: Ruleset) -> Iterator[tuple[Path, Cube, Action]]:
    for base in ruleset.bases:
        if base.stage is not Stage.DSTNAT:
            continue
        for item in ruleset.chain(base.chain).items:
            if isinstance(item, Lookup):
                for entry in item.entries:
                    yield base.path, entry_cube(item, entry), entry.action
            else:
                yield base.path, item.cube, item.action


def _back(cube: Cube, action: Action, there: Cube) -> Cube | None:
    """The packets of a translation that it sends among these; None where it sends none there."""
    if 1 not in there[Field.DNATED]:
        return None
    match action:
        case ir.DestinationNat(targets, port):
            new_port = port
        case ir.MapPrefix(ir.End.DESTINATION, prefix):
            targets, new_port = Ranges((prefix,)), None
        case _:
            return None
    if not targets.meets(there[Field.DADDR]):
        return None
    terms = {
        Field.DADDR: there[Field.ORIG_DADDR],
        Field.DPORT: there[Field.ORIG_DPORT],
    }
    if new_port is None:
        terms[Field.DPORT] &= there[Field.DPORT]
    elif new_port not in there[Field.DPORT]:
        return None
    said = {f: v for f, v in terms.items() if v != UNIVERSE[f]}
    return cube & there.without(*CHANGES) & Cube.of(said)


def is_there(packet: Mapping[Field, int], fate: Fate, reached: Sequence[Cube]) -> bool:
    """Whether a packet came out elsewhere than it was dialled, where the question asks about."""
    seen = fate.seen
    if seen is None:
        return False
    was = packet[Field.DADDR], packet.get(Field.DPORT)
    now = seen.destination, seen.ports[1] if Field.DPORT in packet else None
    if was == now:
        return False
    arrived = {f: v for f, v in packet.items() if f not in CHANGES} | {Field.DADDR: now[0]}
    if now[1] is not None:
        arrived[Field.DPORT] = now[1]
    return any(all(arrived[f] in values for f, values in cube if f in arrived) for cube in reached)
