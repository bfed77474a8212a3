"""`policylang diff` of policies of several hosts: each host with itself, and all told together."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from policylang import pipeline
from policylang.cli.diffing import (
    MOST_SHOWN,
    Compared,
    Lines,
    as_json,
    compare,
    print_lines,
    sides_of,
)
from policylang.cli.given import Given
from policylang.cli.markdown import review
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.revisions import Revision, laid_out, revision_of
from policylang.cli.teller import show, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Report


def is_between_sites(chosen: argparse.Namespace, besides: Given) -> bool:
    """Whether both sides are policies of several hosts."""
    return all(_hosts(side, chosen, besides, Report()) for side in sides_of(chosen))


def run(chosen: argparse.Namespace, besides: Given, report: Report) -> int:
    """Compare the hosts that both sides have, and tell which one side alone has; the exit status.

    A host that is new counts as one that opens something.
    """
    old, new = (_hosts(side, chosen, besides, report) for side in sides_of(chosen))
    found: dict[str, Compared] = {}
    for host in (name for name in new if name in old):
        compared = compare(chosen, replace(besides, host=host), report)
        if compared is not None:
            found[host] = compared
    show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    added = [name for name in new if name not in old]
    removed = [name for name in old if name not in new]
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


def _hosts(
    side: str | Revision, chosen: argparse.Namespace, besides: Given, report: Report
) -> tuple[str, ...]:
    revision = side if isinstance(side, Revision) else None
    if isinstance(side, str) and not Path(side).exists():
        revision = revision_of(side)
    if revision is None:
        return _declared(Path(str(side)), chosen, besides, report)
    with laid_out(revision, report) as path:
        return () if path is None else _declared(path, chosen, besides, report)


def _declared(
    path: Path, chosen: argparse.Namespace, besides: Given, report: Report
) -> tuple[str, ...]:
    source = replace(besides, host=None).to(path)
    return pipeline.loaded_from(source, report, chosen.parameters).hosts


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
