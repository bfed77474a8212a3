"""Compares what is in force with what a policy says: drift in meaning, and what others add to it.

That rules are written otherwise is no difference here; that a packet meets something else is. It
knows how to take our rules out of a listing of all; what rules mean it asks `analysis`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from policylang.analysis.agreement import Disagreement, Ground, side
from policylang.analysis.deeds import Deeds, Where
from policylang.analysis.diagram import Packets
from policylang.analysis.machine import Base, Machine, Question
from policylang.analysis.ours import as_listed
from policylang.analysis.together import together
from policylang.apply import engines, programs, proved, restore
from policylang.apply.engine import Engine
from policylang.apply.generation import OURS, target
from policylang.apply.listing import Listing, listing
from policylang.apply.restore import Flavour
from policylang.apply.transaction import Rehearsal
from policylang.backends.listed import is_listed
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import Ruleset
from policylang.packets.fields import Field

# What iptables makes for itself where it speaks to nf_tables.
OF_IPTABLES = frozenset(
    (family, table)
    for family in ("ip", "ip6")
    for table in ("raw", "mangle", "nat", "filter", "security")
)


@dataclass(frozen=True, slots=True)
class Beside:
    """Packets for which other programs' rules change the verdict of ours.

    With `is_denied` they are denied though ours let them pass, else they pass though ours deny
    them. `is_sure` says that it is so whatever is not known of those rules. `place` is where a
    line of theirs stands that does it.
    """

    where: Where
    is_denied: bool
    is_sure: bool
    packet: dict[Field, int]
    place: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is in force by one way, compared with what the policy would be there."""

    way: str
    differences: tuple[Disagreement, ...]
    beside: tuple[Beside, ...]


def compared(
    ruleset: Ruleset, rehearsal: Rehearsal, engine: Engine, report: Report, most: int
) -> Found | None:
    """What is in force in this thread's namespace, by an engine; None, with errors, where unread.

    `rehearsal` is of the artifact of `ruleset`, in which it was proved. Raises `TooLargeError`.
    """
    live = listing(engine, report)
    if live is None:
        return None
    wanted, there = ours(rehearsal.listing), _with_lists_of(ours(live), rehearsal.listing)
    meant = proved.read(wanted, engine.way, report, ruleset)
    loaded = proved.read(there, engine.way, report, ruleset)
    if meant is None or loaded is None:
        return None
    total = _everybodys(live, loaded, engine, ruleset)
    machines = [as_listed(m, ruleset, live.target) for m in (meant, loaded, total) if m is not None]
    policy = proved.policy_machine(ruleset, live.target)
    ground = Ground(policy, *machines)
    expected, own, *others = map(ground.followed, machines)
    found = tuple(islice(ground.differences(expected, own), most))
    differences = _with_statements(ground, policy, found)
    known = frozenset(_questions(machines[1]))
    beside = (one for everything in others for one in _beside(ground, own, everything, known))
    return Found(engine.way, differences, tuple(beside))


def _with_statements(
    ground: Ground, policy: Machine, found: tuple[Disagreement, ...]
) -> tuple[Disagreement, ...]:
    """Differences from what was listed, with the statements behind what was listed."""
    if not found:
        return ()
    said = ground.followed(policy)
    told = []
    for one in found:
        point = ground.point(one.packets, one.packet)
        meant = side(said, one.where, one.deed, point)
        # Lines of the target's own are in the listing alone.
        told.append(replace(one, meant=meant) if meant.deed == one.meant.deed else one)
    return tuple(told)


# --- what is ours -----------------------------------------------------------------------------


def ours(text: Listing) -> Listing:
    """A listing without what is of others."""
    if text.target == "nft":
        family, name = TABLE.split()
        kept = [item for item in _items(text.json) if _of_table(item) in (None, (family, name))]
        return replace(text, json=json.dumps({"nftables": kept}))
    return replace(
        text,
        rules_v4=_our_rules(text.rules_v4),
        rules_v6=_our_rules(text.rules_v6),
        sets="".join(
            f"{line}\n"
            for line in text.sets.splitlines()
            if line.split(" ")[1:2] and line.split(" ")[1].startswith(OURS)
        ),
    )


def _items(text: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(text)["nftables"]
    return items


def _of_table(item: dict[str, Any]) -> tuple[str, str] | None:
    """The table that an item of a listing is, or is in; None for what is in none."""
    for kind, body in item.items():
        if kind == "metainfo":
            return None
        return body["family"], body["name" if kind == "table" else "table"]
    return None


def _our_rules(text: str) -> str:
    """Our chains, and of the built-in ones the rules that lead to them."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(":"):
            chain = line[1:].split()[0]
            if chain.startswith(OURS):
                lines.append(line)
            elif line.split()[1] != "-":
                lines.append(f":{chain} ACCEPT [0:0]")
        elif line.startswith("-A "):
            if line.split(" ", 2)[1].startswith(OURS) or target(line):
                lines.append(line)
        else:
            lines.append(line)
    return "".join(f"{line}\n" for line in lines)


def _with_lists_of(live: Listing, wanted: Listing) -> Listing:
    """A listing with what the other has in lists from elsewhere, which change by themselves."""
    if live.target == "nft":
        lists = {
            item["set"]["name"]: item["set"]
            for item in _items(wanted.json)
            if "set" in item and is_listed(item["set"]["name"])
        }
        items = [
            {"set": lists.get(item["set"]["name"], item["set"])} if "set" in item else item
            for item in _items(live.json)
        ]
        return replace(live, json=json.dumps({"nftables": items}))
    own = [line for line in live.sets.splitlines() if not is_listed(line.split(" ")[1])]
    others = [line for line in wanted.sets.splitlines() if is_listed(line.split(" ")[1])]
    return replace(live, sets="".join(f"{line}\n" for line in (*others, *own)))


# --- and others' ------------------------------------------------------------------------------


def _everybodys(live: Listing, own: Machine, engine: Engine, ruleset: Ruleset) -> Machine | None:
    """The rules of all programs of this namespace; None where there are none but ours."""
    machines: list[Machine] = []
    quiet = Report()
    by_iptables: set[tuple[str, str]] = set()
    for flavour in Flavour:
        tools = restore.tools(flavour)
        if not all(programs.find(tool.save) for tool in tools):
            continue
        texts = live
        if engine.way != f"iptables-{flavour}":
            told = listing(engines.by_way(f"iptables-{flavour}"), quiet)
            if told is None:
                continue
            texts = told
        found = proved.read(texts, f"iptables-{flavour}", quiet, ruleset)
        if found is not None:
            machines.append(found)
            if flavour is Flavour.NFT:
                by_iptables = set(OF_IPTABLES)
    told = live if engine.way == "nft" else listing(engines.by_way("nft"), quiet)
    if told is not None:
        kept = [item for item in _items(told.json) if _of_table(item) not in by_iptables]
        text = json.dumps({"nftables": kept})
        found = proved.read(Listing("nft", json=text), "nft", quiet, ruleset)
        if found is not None:
            machines.append(found)
    total = together(machines)
    has_others = len(_filled(total)) > len(_filled(own))
    return total if has_others or _lines(total) > _lines(own) else None


def _filled(machine: Machine) -> list[Base]:
    return [base for base in machine.bases if base.drops or machine.chains[base.chain]]


def _lines(machine: Machine) -> int:
    return sum(map(len, machine.chains.values()))


def _beside(
    ground: Ground, own: Deeds, everything: Deeds, known: frozenset[Question]
) -> Iterator[Beside]:
    """The verdicts that others' rules change, one packet for each place and each way.

    Of `known` questions, those of our own rules, either answer is one that a packet can have.
    """
    wheres = dict.fromkeys((*own.done, *everything.done))
    for where in wheres:
        mine, all_of_it = _denied(own, where), _denied(everything, where)
        for is_denied, packets in ((True, all_of_it - mine), (False, mine - all_of_it)):
            if not packets:
                continue
            sure = _whatever_is_unknown(packets, known)
            packet = ground.packet(where, sure or packets)
            place = _who(everything, where, sure or packets, is_denied=is_denied)
            yield Beside(where, is_denied, bool(sure), packet, place)


def _whatever_is_unknown(packets: Packets, known: frozenset[Question]) -> Packets:
    """Those of some packets that are among them for each answer to what is not known."""
    space = packets.space
    for question, bit in space.asked():
        if question not in known:
            packets = ~space.without(~packets, bit)
    return packets


def _questions(machine: Machine) -> Iterator[Question]:
    for lines in machine.chains.values():
        for line in lines:
            for condition in line.conditions:
                yield condition.question


def _denied(found: Deeds, where: Where) -> Packets:
    kinds = found.done.get(where, {})
    return found.space.union(
        one.packets
        for deed, done in kinds.items()
        if isinstance(deed, ir.Drop | ir.Reject)
        for one in done
    )


def _who(found: Deeds, where: Where, packets: Packets, *, is_denied: bool) -> str:
    for deed, done in found.lines(where, packets):
        if isinstance(deed, ir.Drop | ir.Reject) == is_denied:
            return done.line.place if done.line is not None else done.base.place
    return ""
