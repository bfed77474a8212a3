"""The commands that tell what is in force and what was, and change nothing of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from datetime import datetime

from policylang.apply import engines, guard, recovery
from policylang.apply.difference import Difference
from policylang.apply.record import Kept, State
from policylang.apply.status import Counted, Status, drifted, status
from policylang.cli import plans
from policylang.cli.changing import site_of
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.teller import Teller
from policylang.cli.visible import visible


def tell_status(chosen: argparse.Namespace, teller: Teller) -> int:
    """What is in force, since when, by whom, and what each statement counted."""
    site, report = site_of(chosen.netns), teller.report
    found = guard.at(site, lambda state: status(site.record, state, report), report)
    teller.show()
    if found is None:
        return REFUSED
    if chosen.json:
        print(json.dumps(_status_as_json(found), indent=2))
    else:
        print("\n".join(_status_lines(found)))
    return REFUSED if report.has_errors else DONE


def _status_lines(found: Status) -> Iterator[str]:
    if found.current is None:
        yield (
            f"{' and '.join(found.ways)} holds rules of ours that no generation here is known for"
            if found.ways
            else "nothing of ours is in force"
        )
    else:
        yield f"{_called(found.current)}, by {found.current.way}"
        if found.state.loaded_at is not None:
            yield f"  in force since {_time(found.state.loaded_at)}"
        yield f"  applied {_time(found.current.made_at)} by {visible(found.current.made_by)}"
        yield f"  {_drift_in_words(found)}"
    if found.pending is not None:
        left_s = -(-(found.left_ms or 0) // 1000)
        waits = f"in its place for {left_s} seconds more, unless it is confirmed"
        yield f"{_called(found.pending)} is in force {waits}"
    if found.statements:
        yield ""
        yield from _statement_lines(found.statements)
    if found.foreign:
        yield ""
        yield "other programs' chains on the same hooks:"
        for chain in found.foreign:
            yield f"  {visible(chain.words)}"


def _drift_in_words(found: Status) -> str:
    if found.drift is None:
        return "whether it is as it was loaded cannot be told"
    if found.drift.is_empty:
        return "as it was loaded"
    return f"no longer as it was loaded (`policylang drift` shows it): {plans.counted(found.drift)}"


def _statement_lines(statements: tuple[Counted, ...]) -> Iterator[str]:
    if all(one.count is None for one in statements):
        yield "statements are not counted: `settings { counters on }` counts them"
        return
    yield f"{'packets':>12} {'bytes':>14}  statement"
    for one in statements:
        packets, size = ("-", "-") if one.count is None else (one.count.packets, one.count.bytes)
        span = one.origin.span
        assert span is not None, "a statement stands somewhere"
        shared = "  (counted together with others)" if one.is_shared else ""
        yield f"{packets:>12} {size:>14}  {visible(span.place)} {visible(span.text)}{shared}"


def _status_as_json(found: Status) -> dict[str, object]:
    return {
        "current": None if found.current is None else _kept_as_json(found.current),
        "pending": None if found.pending is None else _kept_as_json(found.pending),
        "left_s": None if found.left_ms is None else found.left_ms / 1000,
        "confirmed": found.state.confirmed,
        "in_force_since": None
        if found.state.loaded_at is None
        else found.state.loaded_at.isoformat(),
        "ways": list(found.ways),
        "drifted": None if found.drift is None else not found.drift.is_empty,
        "statements": [
            {
                "place": one.origin.span.place,
                "statement": one.origin.span.text,
                "packets": one.count.packets if one.count else None,
                "bytes": one.count.bytes if one.count else None,
                "shared": one.is_shared,
            }
            for one in found.statements
            if one.origin.span is not None
        ],
        "foreign": [chain.as_json() for chain in found.foreign],
    }


def tell_drift(chosen: argparse.Namespace, teller: Teller) -> int:
    """What differs from what was loaded; exit status 2 where anything does."""
    site, report = site_of(chosen.netns), teller.report

    def look(state: State) -> Difference | None:
        kept = recovery.kept_of(site.record, state.current)
        artifact = recovery.artifact_of(site.record, state.current, report)
        if kept is None or artifact is None:
            if not report.has_errors:
                message = "no generation is in force that could be compared with"
                report.add(
                    "no-such-generation", message, None, help="`policylang status` tells more"
                )
            return None
        engine = engines.by_way(kept.way)
        return drifted(engine, artifact, engine.listed(report), report)

    found = guard.at(site, look, report)
    teller.show()
    if found is None:
        return REFUSED
    if chosen.json:
        print(json.dumps(plans.as_json(found), indent=2))
    elif found.is_empty:
        print("as it was loaded")
    else:
        print("\n".join(plans.lines(found)))
    return DONE if found.is_empty else CHANGES


def tell_generations(chosen: argparse.Namespace, teller: Teller) -> int:
    """The generations that are kept, the newest first."""
    site = site_of(chosen.netns)
    state = guard.at(site, lambda state: state, teller.report)
    kept = site.record.kept(teller.report)
    teller.show()
    if state is None:
        return REFUSED
    if chosen.json:
        print(
            json.dumps([{**_kept_as_json(one), "is": _role(one, state)} for one in kept], indent=2)
        )
        return DONE
    for one in kept:
        role = _role(one, state)
        print(
            f"{one.number:>6}  {_time(one.made_at)}  {one.way:<15}  {visible(one.policy_name)}  "
            f"by {visible(one.made_by)}{'  (' + role + ')' if role else ''}"
        )
    if not kept:
        print("no generation is kept")
    return DONE


def _role(kept: Kept, state: State) -> str | None:
    if kept.number == state.pending:
        return "in force, waits to be confirmed"
    if kept.number != state.current:
        return None
    return "in force" if state.pending is None else "in force again unless that is confirmed"


def _called(kept: Kept) -> str:
    return f"generation {kept.number} of {visible(kept.policy_name)}"


def _kept_as_json(kept: Kept) -> dict[str, object]:
    return {
        "generation": kept.number,
        "policy": kept.policy_name,
        "way": kept.way,
        "digest": kept.digest,
        "made_at": kept.made_at.isoformat(),
        "made_by": kept.made_by,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
