"""`policylang diff` of policies of several hosts: each host with itself, and all told together."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping

from policylang.analysis.changed import Differences
from policylang.cli.diffing import (
    MOST_SHOWN,
    Compared,
    Lines,
    as_json,
    compare,
    placed,
    print_lines,
)
from policylang.cli.fleet import merge
from policylang.cli.markdown import review
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.subjects import SeveralHosts, Subject, on_host
from policylang.cli.teller import show, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Report


def run(chosen: argparse.Namespace, old: SeveralHosts, new: SeveralHosts, report: Report) -> int:
    """Compare the hosts that both sides have, and tell which one side alone has; the exit status.

    A host that is new counts as one that opens something.
    """
    found: dict[str, Compared] = {}
    of_sides: tuple[dict[str, Report], dict[str, Report]] = ({}, {})
    for host in dict.fromkeys((*new.loaded.hosts, *old.loaded.hosts)):
        subjects = [
            on_host(side, host, reports.setdefault(host, Report()))
            for side, reports in zip((old, new), of_sides, strict=True)
            if host in side.loaded.hosts
        ]
        if len(subjects) == 2 and subjects[0] is not None and subjects[1] is not None:
            compared = _compared(subjects[0], subjects[1], report)
            if compared is not None:
                found[host] = compared
    for side, reports in zip((old, new), of_sides, strict=True):
        told = Report()
        merge(reports, told)
        report.take(placed(told, side.name))
    show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    added = [name for name in new.loaded.hosts if name not in old.loaded.hosts]
    removed = [name for name in old.loaded.hosts if name not in new.loaded.hosts]
    match chosen.format:
        case "json":
            print(json.dumps(_as_json(found, added, removed), indent=2))
        case "markdown":
            print_lines(_markdown(found, added, removed, chosen))
        case _:
            print_lines(_text(found, added, removed, chosen))
    opens = bool(added) or any(one.differences.opens for one in found.values())
    differs = bool(added or removed) or any(one.differences.changes for one in found.values())
    return CHANGES if (opens if chosen.fail_on == "opened" else differs) else DONE


def _compared(old: Subject, new: Subject, report: Report) -> Compared | None:
    """What a host does otherwise: of the same rules, as most hosts of a fleet have, nothing."""
    if old.ruleset == new.ruleset:
        return Compared(old, new, Differences(()))
    return compare(old, new, report)


def _beside(added: list[str], removed: list[str]) -> Iterator[str]:
    for names, what in ((added, "is new"), (removed, "is gone")):
        for name in names:
            yield f"host {visible(name)} {what}"


def _text(
    found: Mapping[str, Compared], added: list[str], removed: list[str], chosen: argparse.Namespace
) -> Iterator[str]:
    lines = Lines(wants_color(chosen.color, sys.stdout), None if chosen.all else MOST_SHOWN)
    yield from _beside(added, removed)
    differ = {host: one for host, one in found.items() if one.differences.changes}
    for number, (host, compared) in enumerate(differ.items()):
        if number or added or removed:
            yield ""
        first, *others = lines.of(compared)
        yield f"host {visible(host)}: {first}"
        yield from others
    if not differ:
        yield f"no difference in meaning on {_hosts_in_words(len(found))}"
    elif len(differ) < len(found):
        yield ""
        yield f"no difference on {_hosts_in_words(len(found) - len(differ))} more"


def _hosts_in_words(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"


def _markdown(
    found: Mapping[str, Compared], added: list[str], removed: list[str], chosen: argparse.Namespace
) -> Iterator[str]:
    most = None if chosen.all else MOST_SHOWN
    for line in _beside(added, removed):
        yield from (f"**{line}**", "")
    for host, one in found.items():
        if one.differences.changes:
            title = f"{host}: {one.old.name} → {one.new.name}"
            yield from (*review(title, one.differences, one.told, most=most), "")
    same = sum(not one.differences.changes for one in found.values())
    yield f"No difference in meaning on {_hosts_in_words(same)}."


def _as_json(
    found: Mapping[str, Compared], added: list[str], removed: list[str]
) -> dict[str, object]:
    """`version` 1, `added` and `removed` (names), and `hosts`: each as of one firewall, by name."""
    return {
        "version": 1,
        "added": added,
        "removed": removed,
        "hosts": {host: as_json(one) for host, one in found.items()},
    }
