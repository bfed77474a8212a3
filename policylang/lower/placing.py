"""A rule with the packets that it is about, path by path; knows no order among rules."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.diagnostics import Label, Report
from policylang.ir.stages import Path
from policylang.lower.before_routing import NOT_LOCAL
from policylang.lower.by_address import by_address
from policylang.lower.conditions import on_path, terms
from policylang.lower.paths import Places, dialled_cube, names_hosts, traffic_cube
from policylang.model.types import PolicyRule, Traffic, Verb
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.packetset import compact
from policylang.packets.values import Ranges

TRANSLATED = Cube.of({Field.DNATED: Ranges.of(1), Field.DADDR_TYPE: NOT_LOCAL})


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule with the packets that it is about on each path; some of them name an ICMP type."""

    rule: PolicyRule
    cubes: dict[Path, tuple[Cube, ...]]
    naming_icmp: dict[Path, tuple[Cube, ...]]


def place(
    rule: PolicyRule, places: Places, report: Report, *, own_is_translated: bool = False
) -> Placed:
    """A rule and the packets it is about; reports `matches-nothing` where there are none.

    `own_is_translated` says that what this host sends may go elsewhere than it was dialled.
    """
    opens = rule.verb is Verb.ALLOW
    ends_by_path = places.between(rule.source, rule.destination, is_whole=not opens)
    if own_is_translated:
        ends_by_path[Path.OUTPUT] = _own(rule, places)
    published = places.published(rule.source, rule.destination)
    conditions = terms(rule.conditions)
    cubes: dict[Path, tuple[Cube, ...]] = {}
    naming: dict[Path, tuple[Cube, ...]] = {}
    for path, ends in ends_by_path.items():
        found: list[tuple[Cube, Traffic]] = [
            (end & traffic_cube(t), t) for t in rule.what for end in ends
        ]
        if path is Path.FORWARD:
            found += [(end & dialled_cube(t), t) for t in rule.what for end in published]
        met = [(on_path(cube & conditions, path), t.names_icmp) for cube, t in found]
        cubes[path] = compact(cube for cube, _ in met)
        naming[path] = compact(cube for cube, names_icmp in met if names_icmp)
    if not any(cubes.values()) and not names_hosts(rule):
        report.add(
            "matches-nothing",
            "no packet can meet this rule",
            rule.span,
            help=why_nothing(any(ends_by_path.values()) or bool(published)),
            labels=[Label(used, "used here") for used in rule.used_at],
        )
    return Placed(rule, cubes, naming)


def _own(rule: PolicyRule, places: Places) -> tuple[Cube, ...]:
    """What this host sends, as FILTER sees it where some of it is translated.

    The interface is that of the way to what was dialled (nf_hook_slow keeps the first one), so
    that of what is translated the address alone tells where it goes.
    """
    as_dialled = places.between(rule.source, rule.destination)[Path.OUTPUT]
    destination = by_address(rule.destination, places.zones)
    translated = places.between(rule.source, destination)[Path.OUTPUT]
    return compact(
        (
            *(c & Cube.of({Field.DNATED: Ranges.of(0)}) for c in as_dialled),
            *(c & TRANSLATED for c in translated),
        )
    )


def why_nothing(has_ends: bool) -> str:
    """Why no packet meets a statement, whose ends name somebody or nobody."""
    if has_ends:
        return "its ends, its conditions and what it speaks of exclude each other"
    return "its ends are empty, exclude each other, or are this host on both sides"
