"""`policylang set`: the dynamic sets that are loaded, listed and changed."""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator, Sequence

from policylang.apply import members
from policylang.apply.livesets import Element, LiveSet, family_of
from policylang.cli.options import DONE, REFUSED
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.model.durations import UNIT_S
from policylang.model.elements import MOST_SECONDS
from policylang.packets.values import format_address, parse_address, parse_one_address
from policylang.syntax.tokens import DURATION, kind_of

ALL_UNITS = (("d", UNIT_S["d"]), ("h", UNIT_S["h"]), ("m", UNIT_S["m"]), ("s", 1))


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Carry out `set list`, `add`, `delete` or `flush`; the exit status."""
    match chosen.action:
        case "list":
            return _list(chosen, report)
        case "flush":
            count = members.flush(chosen.name, report, netns=chosen.netns)
            done = f"emptied; {_counted(count or 0)} {_were(count or 0)} in it"
        case "add":
            addresses = _addresses(chosen.addresses, report)
            timeout_s = None if chosen.timeout is None else _seconds(chosen.timeout, report)
            if report.has_errors:
                return REFUSED
            count = members.add(chosen.name, addresses, timeout_s, report, netns=chosen.netns)
            added = {"added": count or 0, "renewed": len(addresses) - (count or 0)}
            done = ", ".join(f"{verb} {_counted(n)}" for verb, n in added.items() if n)
        case "delete":
            addresses = _addresses(chosen.addresses, report)
            if report.has_errors:
                return REFUSED
            count = members.delete(chosen.name, addresses, report, netns=chosen.netns)
            done = f"deleted {_counted(count or 0)}"
        case other:
            raise AssertionError(other)
    if count is None:
        return REFUSED
    print(f"{visible(chosen.name)}: {done}")
    return DONE


def _addresses(texts: Sequence[str], report: Report) -> tuple[int, ...]:
    """The addresses, each once; reports `bad-element`."""
    found: dict[int, None] = {}
    for text in texts:
        address = parse_one_address(text)
        if address is not None:
            found[address] = None
            continue
        help_ = "write one as in 192.0.2.1 or 2001:db8::1"
        if parse_address(text) is not None:
            help_ = "a dynamic set holds single addresses: a `set` of the policy holds prefixes"
        report.add("bad-element", f"`{visible(text)}` is not a single address", None, help=help_)
    return tuple(found)


def _seconds(text: str, report: Report) -> int:
    """A duration as a policy has it; reports `bad-duration`."""
    parts = re.findall(r"([0-9]+)([a-z])", text) if kind_of(text) == DURATION else []
    total = sum(int(count) * UNIT_S[unit] for count, unit in parts)
    if not 1 <= total <= MOST_SECONDS:
        report.add(
            "bad-duration",
            f"`{visible(text)}` is not a time that a set can keep an element for",
            None,
            help=f"as in 90s or 1h30m, and at most {MOST_SECONDS}s, which is 24 days",
        )
    return total


# --- the list ---------------------------------------------------------------------------------


def _list(chosen: argparse.Namespace, report: Report) -> int:
    found = members.listed(chosen.name, report, netns=chosen.netns)
    sets = _joined(found or ())
    if chosen.format == "json":
        print(json.dumps([_as_json(live, elements) for live, elements in sets], indent=2))
    else:
        for live, elements in sets:
            print("\n".join(_lines(live, elements)))
    return REFUSED if found is None else DONE


def _joined(found: Sequence[LiveSet]) -> list[tuple[LiveSet, list[Element]]]:
    """Each set once, by name, with the elements of both families in the order of addresses."""
    first: dict[str, LiveSet] = {}
    held: dict[str, dict[int, Element]] = {}
    for live in found:
        first.setdefault(live.name, live)
        own = held.setdefault(live.name, {})
        for element in live.elements:
            own.setdefault(element.address, element)
    return [(first[name], [own[a] for a in sorted(own)]) for name, own in sorted(held.items())]


def _lines(live: LiveSet, elements: Sequence[Element]) -> Iterator[str]:
    time = "no time-out" if live.timeout_s is None else f"time-out {_duration(live.timeout_s)}"
    yield f"{live.name}: {_counted(len(elements))}; {time}, room for {live.size} of each family"
    texts = [format_address(element.address) for element in elements]
    width = max(map(len, texts), default=0)
    for text, element in zip(texts, elements, strict=True):
        left = "for ever" if element.left_ms is None else f"{_duration(_left_s(element))} left"
        yield f"  {text:<{width}}  IPv{family_of(element.address)}  {left}"


def _as_json(live: LiveSet, elements: Sequence[Element]) -> dict[str, object]:
    return {
        "name": live.name,
        "timeout_s": live.timeout_s,
        "size": live.size,
        "elements": [
            {
                "address": format_address(element.address),
                "family": family_of(element.address),
                "left_s": None if element.left_ms is None else _left_s(element),
            }
            for element in elements
        ],
    }


def _left_s(element: Element) -> int:
    """Whole seconds, so that what is still in the set has at least one left."""
    return max(1, math.ceil((element.left_ms or 0) / 1000))


def _duration(seconds: int) -> str:
    """A duration as a policy has it."""
    text = ""
    for unit, size in ALL_UNITS:
        count, seconds = divmod(seconds, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _counted(number: int) -> str:
    return "1 address" if number == 1 else f"{number} addresses"


def _were(number: int) -> str:
    return "was" if number == 1 else "were"
