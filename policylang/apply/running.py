"""All the rules that packets meet in a network namespace, whoever loaded them, nothing twice.

What they say is for others to read. Nothing is changed.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from policylang.apply import engines, programs
from policylang.apply.listing import Listing, listing
from policylang.apply.nft_engine import NftEngine
from policylang.backends.base import Artifact
from policylang.backends.iptables import RULES, SETS
from policylang.diagnostics import Report

_SAVED_TABLE = re.compile(r"^\*(\S+)", re.MULTILINE)


def running(report: Report) -> tuple[Listing, ...] | None:
    """What each way to load rules shows in this thread's namespace; None where one is not told.

    What iptables keeps in nf_tables is shown in its own words alone. Reports `loading-failed`.
    """
    found: list[Listing] = []
    taken: set[tuple[str, str]] = set()
    for engine in engines.present():
        # Without its program libnftables may be there; without both there are no rules to be told.
        is_extra = engine.way == "nft" and programs.find("nft") is None
        shown = listing(engine, Report() if is_extra else report)
        if shown is None and is_extra:
            continue
        if shown is None:
            return None
        found.append(shown)
        if engine.way == "iptables-nft":
            for family, text in (("ip", shown.rules_v4), ("ip6", shown.rules_v6)):
                taken |= {(family, name) for name in _SAVED_TABLE.findall(text)}
    return tuple(_without(one, taken) for one in found)


def _without(shown: Listing, tables: set[tuple[str, str]]) -> Listing:
    if shown.target != "nft" or not tables:
        return shown
    items: list[dict[str, Any]] = json.loads(shown.json)["nftables"]
    kept = [item for item in items if not any(_is_of(thing, tables) for thing in item.items())]
    return replace(shown, json=json.dumps({"nftables": kept}))


def _is_of(thing: tuple[str, Any], tables: set[tuple[str, str]]) -> bool:
    word, body = thing
    if word == "metainfo":
        return False
    return (body.get("family"), body.get("name" if word == "table" else "table")) in tables


def listing_of(artifact: Artifact, report: Report) -> Listing | None:
    """An artifact as it is listed once loaded; the calling thread is in a scratch namespace."""
    engine = engines.chosen(artifact.target, None, report)
    if engine is None or engine.rehearse(artifact, report) is None:
        return None
    return listing(engine, report)


def text_of(artifact: Artifact) -> Listing:
    """An artifact of iptables as its own listing, which is nearly what the kernel would show."""
    names = [name for name, _ in RULES.values()]
    v4, v6, sets = (
        file.text if (file := artifact.file(name)) is not None else "" for name in (*names, SETS)
    )
    return Listing("iptables", rules_v4=v4, rules_v6=v6, sets=sets)


def listing_of_script(script: str, report: Report) -> Listing | None:
    """The same of any script for `nft -f`; reports `loading-failed` where nft refuses it."""
    done = programs.run(["nft", "-f", "-"], report, stdin=script)
    if done is None:
        return None
    if not done.ok:
        report.add("loading-failed", "nft does not take the script", None, help=done.words)
        return None
    return listing(NftEngine(), report)
