"""Answers in words: who passes, who does not, by which statement, and where packets are sent on.

It knows parts of answers and names, and neither terminals nor JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from policylang.analysis.first_packets import GRANTED
from policylang.analysis.following import NOT_TRANSLATED
from policylang.analysis.machine import Obscure, Unknown
from policylang.analysis.parts import Part
from policylang.analysis.questions import Answer
from policylang.analysis.reasons import (
    act_words,
    conditions_words,
    fate_words,
    reason_words,
    statement_of,
)
from policylang.analysis.regions import Region, region_of
from policylang.analysis.wording import Names, way_words
from policylang.ir.origin import Origin
from policylang.ir.stages import Path
from policylang.packets.cube import Cube
from policylang.packets.fields import FAMILY_ADDRESSES, Field

SHOWN_CUBES = 4  # of what no rule decides, before it is `everything else`

_REST = {
    Path.INPUT: "everything else that is for this host",
    Path.FORWARD: "everything else that is passed on",
    Path.OUTPUT: "everything else that this host sends",
}
_OF_FAMILY = re.compile(r"^(all )?IPv[46] ")
_ORDER = (Answer.YES, Answer.PARTLY, Answer.NO)


@dataclass(frozen=True, slots=True)
class Told:
    """A part of an answer in words.

    `phrases` are the packets, less those of `excepted`; `is_rest` says that these are all that no
    other part of the same path has. `fate` is what becomes of them and `why` says what decided,
    `origin` the statement where one did. Of what passes on a condition alone, `condition` and
    `otherwise` say which and what decides if not.
    """

    part: Part
    region: Region
    phrases: tuple[str, ...]
    excepted: tuple[str, ...]
    fate: str
    why: str
    origin: Origin | None
    sent_on: str | None
    sent_by: str | None
    source: str | None
    condition: str | None
    otherwise: tuple[str, ...]
    is_rest: bool = False

    @property
    def rest(self) -> str:
        """What a part is called that is the rest of its path."""
        return _REST[self.part.path]


def told(parts: Iterable[Part], names: Names, most: int | None = None) -> tuple[Told, ...]:
    """The parts of an answer in words: what passes first, and of each the broadest.

    No more than `most`, and what is the rest of each path in any case.
    """
    found = sorted(parts, key=lambda part: (_ORDER.index(part.answer), -part.packets.share))
    last = {part.path: n for n, part in enumerate(found)}
    shown = [
        (n, _told(part, names))
        for n, part in enumerate(found)
        if most is None or n < most or n in last.values()
    ]
    return tuple(
        replace(one, is_rest=len(found) > 1 and n in last.values() and _is_long(one))
        for n, one in shown
    )


def is_understood(parts: Iterable[Part]) -> bool:
    """Whether no part depends on something in the rules that was not understood."""
    return not any(
        isinstance(part.line.act if part.line else None, Obscure)
        or any(isinstance(c.question, Unknown) for c in part.conditions)
        for part in parts
        if part.answer is Answer.PARTLY
    )


def _is_long(one: Told) -> bool:
    return one.origin is None and (
        len(one.phrases) + len(one.excepted) > SHOWN_CUBES or not one.region.is_whole
    )


def _told(part: Part, names: Names) -> Told:
    region = _region(part)
    line = part.line
    sent = part.translated
    return Told(
        part,
        region,
        _phrases(region.cubes, part.path, names),
        _phrases(region.excepted, part.path, names),
        fate_words(line, is_accepted=part.answer is not Answer.NO),
        reason_words(line, part.decided_on),
        statement_of(line),
        None if sent is None else act_words(sent, names),
        None if sent is None else reason_words(sent),
        _sources(part, names) or None,
        conditions_words(part.conditions, names) or None,
        tuple(dict.fromkeys(reason_words(line, part.decided_on) for line in part.otherwise)),
    )


def _phrases(cubes: Iterable[Cube], path: Path, names: Names) -> tuple[str, ...]:
    """Cubes in words, each once; what is said alike of both families does not name them."""
    said = dict.fromkeys(way_words(_in_zone(cube, path, names), path, names) for cube in cubes)
    found: dict[str, None] = {}
    for words in said:
        plain = _OF_FAMILY.sub(r"\1", words)
        is_of_both = all(_OF_FAMILY.sub(rf"\g<1>{f} ", words) in said for f in ("IPv4", "IPv6"))
        found[plain if is_of_both else words] = None
    return tuple(found)


def _sources(part: Part, names: Names) -> str:
    """The sources that packets get when they leave, each once."""
    of_all: dict[str, bool] = {}
    for source in part.sources:
        words = act_words(source.line, names)
        of_all[words] = of_all.get(words, False) or source.is_of_all
    return ", or ".join(f"{'' if every else 'some of it '}{w}" for w, every in of_all.items())


def _region(part: Part) -> Region:
    """A part as few cubes, without what is true of all packets of its path."""
    space = part.packets.space
    granted = GRANTED
    if not part.domain.meets(space.of(NOT_TRANSLATED)):
        granted -= {Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT}
    packets = space.free(part.packets & part.domain, *granted)
    domain = space.free(part.domain, *granted)
    # Where addresses and ways out hang together, one of the two is enough.
    wider = space.free(packets, Field.DADDR)
    if wider & domain == packets:
        packets = wider
    region = region_of(packets, domain, _hints(part))
    if len(region.cubes) == 1:  # what is not in it need not be excepted
        region = replace(region, excepted=tuple(c & region.cubes[0] for c in region.excepted))
    return replace(
        region,
        cubes=_of_both_families(_plain(cube, part.path) for cube in region.cubes),
        excepted=_of_both_families(_plain(cube, part.path) for cube in region.excepted),
    )


def _in_zone(cube: Cube, path: Path, names: Names) -> Cube:
    """A cube that goes to a zone's networks, and so by its interfaces, says so."""
    if path is not Path.INPUT and Field.OIF not in cube and Field.DADDR in cube:
        for zone in names.zones:
            if zone.interfaces is None or zone.networks is None:
                continue
            if zone.networks.covers(cube[Field.DADDR]):
                return cube & Cube.of({Field.OIF: zone.interfaces})
    return cube


def _of_both_families(cubes: Iterable[Cube]) -> tuple[Cube, ...]:
    """The same cubes, with what is all of one family put to some addresses of the other."""
    found: list[Cube] = []
    for cube in cubes:
        for n, other in enumerate(found):
            joined = _joined(other, cube) or _joined(cube, other)
            if joined is not None:
                found[n] = joined
                break
        else:
            found.append(cube)
    return tuple(found)


def _joined(some: Cube, whole: Cube) -> Cube | None:
    """A cube of some addresses, and one of all those of the other family, where they are alike."""
    family = whole[Field.FAMILY].single
    if family is None or family in some[Field.FAMILY]:
        return None
    for f in (Field.SADDR, Field.DADDR):
        if f in some and whole.without(Field.FAMILY) == some.without(f, Field.FAMILY):
            values = some[f] | FAMILY_ADDRESSES[family]
            return some.without(Field.FAMILY, f) & Cube.of({f: values})
    return None


def _hints(part: Part) -> Iterator[Cube]:
    for line in (part.line, part.translated):
        if line is not None:
            yield from (cube.without(*GRANTED) for cube in line.cubes)


def _plain(cube: Cube, path: Path) -> Cube:
    """A cube without the interface that nothing comes by, or leaves by, on a path."""
    nowhere = {Path.INPUT: Field.OIF, Path.OUTPUT: Field.IIF}.get(path)
    return cube if nowhere is None else cube.without(nowhere)
