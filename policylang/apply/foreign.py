"""Other programs' chains on the way of the packets that ours judge, and what they can do to them.

They are read in the words of nft and of iptables-save, whichever program made them. Nothing is
changed, and what is not understood is said to be unknown.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from policylang.apply import nft, programs, restore
from policylang.apply.nft_pending import PENDING_TABLE
from policylang.apply.restore import Flavour
from policylang.backends.nft import TABLE
from policylang.diagnostics import Report

OUR_TABLES = {TABLE, PENDING_TABLE}
OUR_CHAINS = ("policylang-", "policylang+")
NOT_ON_OUR_WAY = {"arp"}  # families

BEFORE, AFTER, BESIDE = "before ours", "after ours", "at the place of ours"

# Where a packet is, before what judges it and behind: the rest goes by its priority.
ALWAYS_BEFORE = {"prerouting", "ingress"}
ALWAYS_AFTER = {"postrouting", "egress"}
OUR_PRIORITY = 0  # of what judges on input, forward and output, for both targets

# linux/netfilter_ipv4.h; source translation has another one (SRCNAT).
PRIORITIES = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
SRCNAT = 100
SRCNAT_HOOKS = {"INPUT", "POSTROUTING"}

DROPS, REDIRECTS, HIDES = "drops", "redirects", "hides"
LEAVES_OTHERWISE, MARKS, ASKS, UNKNOWN = "leaves otherwise", "marks", "asks", "unknown"

WORDS = {
    DROPS: "can drop what ours accepts",
    REDIRECTS: "can translate before ours sees it",
    HIDES: "can keep it from conntrack",
    ASKS: "can hand it to a program, which may drop it",
    MARKS: "can set marks",
    LEAVES_OTHERWISE: "can translate the source of what ours lets out",
    UNKNOWN: "what it can do is not known",
}
HARMLESS = "cannot change our verdicts"

# What the statements of nft do; those that are not here and not below are not known.
STATEMENTS = {
    **dict.fromkeys(("drop", "reject", "synproxy"), DROPS),
    **dict.fromkeys(("dnat", "redirect", "tproxy", "fwd"), REDIRECTS),
    **dict.fromkeys(("snat", "masquerade"), LEAVES_OTHERWISE),
    "notrack": HIDES,
    "mangle": MARKS,
    "queue": ASKS,
}
PLAIN = frozenset(
    (
        *("match", "counter", "limit", "log", "accept", "return", "continue", "comment", "quota"),
        *("set", "map", "ct count", "connlimit", "last", "meter", "ct helper", "ct timeout"),
        *("ct expectation", "dup", "flow", "secmark", "jump", "goto", "vmap"),
    )
)
# The same of the targets of iptables-extensions(8).
TARGETS = {
    **dict.fromkeys(("DROP", "REJECT", "SYNPROXY", "TARPIT"), DROPS),
    **dict.fromkeys(("DNAT", "REDIRECT", "TPROXY"), REDIRECTS),
    **dict.fromkeys(("SNAT", "MASQUERADE"), LEAVES_OTHERWISE),
    **dict.fromkeys(("MARK", "CONNMARK", "CLASSIFY", "TOS", "DSCP"), MARKS),
    "NOTRACK": HIDES,
    "CT": HIDES,
    "NETMAP": REDIRECTS,
    "NFQUEUE": ASKS,
}
PLAIN_TARGETS = frozenset(
    (
        *("ACCEPT", "RETURN", "LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "TCPMSS", "SET", "TEE"),
        *("CHECKSUM", "ECN", "TTL", "HL", "SECMARK", "CONNSECMARK", "RATEEST", "IDLETIMER", "LED"),
        "TCPOPTSTRIP",
    )
)


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """A base chain of another program: where it is, when it is read, and what it can do.

    `rules` counts those of the chains that it leads to as well. What cannot be read is None.
    """

    place: str  # as in `inet firewalld filter_INPUT`, or `iptables-legacy filter INPUT`
    hook: str
    priority: int | None
    relation: str
    policy: str | None
    rules: int | None
    abilities: tuple[str, ...]

    @property
    def words(self) -> str:
        """One line for people."""
        count = "rules unknown" if self.rules is None else f"{self.rules} rules"
        if self.rules == 1:
            count = "1 rule"
        number = "" if self.priority is None else f"priority {self.priority}, "
        policy = "" if self.policy is None else f"policy {self.policy}, "
        head = f"{self.place} ({self.hook}, {number}{self.relation}, {policy}{count})"
        return f"{head}: {', '.join(self.abilities)}"

    def as_json(self) -> dict[str, object]:
        """For programs: the same, value by value."""
        return {
            "place": self.place,
            "hook": self.hook,
            "priority": self.priority,
            "relation": self.relation,
            "policy": self.policy,
            "rules": self.rules,
            "can": list(self.abilities),
        }


@dataclass(slots=True)
class _Chain:
    """A chain as it is listed: what its rules do, and which chains they lead to."""

    does: set[str] = field(default_factory=set)
    leads_to: set[str] = field(default_factory=set)
    rules: int = 0


def chains(report: Report) -> tuple[ForeignChain, ...]:
    """What is there of others in this thread's namespace; chains without effect are left out."""
    return (*_of_nft(report), *_of_flavour(Flavour.LEGACY, report))


def _foreign(
    place: str,
    hook: str,
    priority: int,
    policy: str,
    name: str,
    known: Mapping[str, _Chain],
) -> Iterator[ForeignChain]:
    """A base chain, unless no packet would notice if it was gone."""
    does, rules = _reached(name, known)
    if policy == "drop":
        does = does | {DROPS}
    if not rules and not does:
        return
    hook_name = hook.lower()
    relation = BEFORE if priority < OUR_PRIORITY else AFTER
    if hook_name in ALWAYS_BEFORE:
        relation = BEFORE
    elif hook_name in ALWAYS_AFTER:
        relation = AFTER
    elif priority == OUR_PRIORITY:
        relation = BESIDE
    told = tuple(words for what, words in WORDS.items() if what in does)
    yield ForeignChain(place, hook, priority, relation, policy, rules, told or (HARMLESS,))


def _reached(name: str, known: Mapping[str, _Chain]) -> tuple[set[str], int]:
    """What a chain does and how many rules it has, with all that it leads to."""
    does: set[str] = set()
    rules, seen, waiting = 0, {name}, [name]
    while waiting:
        chain = known.get(waiting.pop())
        if chain is None:
            does.add(UNKNOWN)
            continue
        does |= chain.does
        rules += chain.rules
        more = chain.leads_to - seen
        seen |= more
        waiting += sorted(more)
    return does, rules


# --- nft --------------------------------------------------------------------------------------

Listed = dict[str, Any]  # libnftables-json(5)


def _of_nft(report: Report) -> Iterator[ForeignChain]:
    """By nft, or where that is not installed or knows no JSON, as far as iptables tells."""
    there = nft.tables() if programs.find("nft") is not None else frozenset()
    finished = programs.run(["nft", "-j", "list", "ruleset"], report) if there else None
    if finished is not None and finished.ok:
        try:
            listed = json.loads(finished.stdout)["nftables"]
        except (ValueError, KeyError):
            listed = None
        if isinstance(listed, list):
            yield from of_nft(listed)
            return
    if not there and programs.find("nft") is not None:
        return
    yield from _of_flavour(Flavour.NFT, report)
    known = {f"{family} {table}" for family in ("ip", "ip6") for table in PRIORITIES}
    for table in sorted(there - OUR_TABLES - known):
        yield ForeignChain(table, "any hook", None, "order unknown", None, None, (WORDS[UNKNOWN],))


def of_nft(listed: list[Listed]) -> Iterator[ForeignChain]:
    """The base chains of others in a listing of libnftables-json(5)."""
    bases: list[Listed] = []
    known: dict[tuple[str, str], dict[str, _Chain]] = {}
    maps = _verdict_maps(listed)
    for one in listed:
        match one:
            case {"chain": {"family": family, "table": table, "name": name} as chain}:
                known.setdefault((family, table), {})[name] = _Chain()
                if "hook" in chain and not _is_ours(family, table, name):
                    bases.append(chain)
            case {"rule": {"family": family, "table": table, "chain": name, "expr": expressions}}:
                chain = known.setdefault((family, table), {}).setdefault(name, _Chain())
                _read(expressions, chain, maps.get((family, table), {}))
            case _:
                pass
    for base in bases:
        family, table, name = base["family"], base["table"], base["name"]
        device = base.get("dev")
        devices = ", ".join(device) if isinstance(device, list) else device
        hook = f"{base['hook']} of {devices}" if devices else base["hook"]
        priority, policy = base.get("prio"), base.get("policy", "accept")
        if family not in NOT_ON_OUR_WAY:
            chains_there = known[family, table]
            number = priority if isinstance(priority, int) else 0
            for found in _foreign(
                f"{family} {table} {name}", base["hook"], number, policy, name, chains_there
            ):
                yield replace(found, hook=hook)


def _is_ours(family: str, table: str, chain: str) -> bool:
    return f"{family} {table}" in OUR_TABLES or chain.startswith(OUR_CHAINS)


def _verdict_maps(listed: Iterable[Listed]) -> dict[tuple[str, str], dict[str, list[Any]]]:
    """The elements of verdict maps that have a name, by table and name."""
    found: dict[tuple[str, str], dict[str, list[Any]]] = {}
    for one in listed:
        match one:
            case {"map": {"family": family, "table": table, "name": name, "map": "verdict"} as m}:
                found.setdefault((family, table), {})[name] = m.get("elem", [])
            case _:
                pass
    return found


def _read(expressions: list[Any], chain: _Chain, maps: Mapping[str, list[Any]]) -> None:
    """Note what a rule does, unless it leads to a chain of ours."""
    if any(_jump(one).startswith(OUR_CHAINS) for one in expressions):
        return
    chain.rules += 1
    for one in expressions:
        _note(one, chain, maps)


def _jump(expression: object) -> str:
    """The chain that an expression leads to, or nothing."""
    match expression:
        case {"jump": {"target": str(name)}} | {"goto": {"target": str(name)}}:
            return name
        case _:
            return ""


def _note(expression: object, chain: _Chain, maps: Mapping[str, list[Any]]) -> None:
    if name := _jump(expression):
        chain.leads_to.add(name)
        return
    match expression:
        case {"xt": {"type": "match"}}:
            pass
        case {"xt": {"type": "target", "name": str(name)}} if name not in PLAIN_TARGETS:
            chain.does.add(TARGETS.get(name, UNKNOWN))
        case {"xt": {"type": "target"}}:
            pass
        case {"vmap": {"data": data}}:
            elements = data.get("set") if isinstance(data, dict) else maps.get(_name(data))
            for element in elements if isinstance(elements, list) else ():
                verdict = element[-1] if isinstance(element, list) else None
                _note(verdict, chain, maps)
            if not isinstance(elements, list):
                chain.does.add(UNKNOWN)
        case {"mangle": {"key": key}} if "mark" not in json.dumps(key):
            pass  # priorities, TTL: nothing that verdicts are built on
        case dict():
            for word in expression:
                if word not in PLAIN:
                    chain.does.add(STATEMENTS.get(word, UNKNOWN))
        case _:
            chain.does.add(UNKNOWN)


def _name(data: object) -> str:
    return data.removeprefix("@") if isinstance(data, str) else ""


# --- iptables ---------------------------------------------------------------------------------


def _of_flavour(flavour: Flavour, report: Report) -> Iterator[ForeignChain]:
    for tool in restore.tools(flavour):
        if programs.find(tool.save) is None or tool.holds_nothing:
            continue
        finished = programs.run([tool.save], report)
        if finished is not None and finished.ok:
            yield from of_iptables(finished.stdout, tool.stem)


def of_iptables(listing: str, program: str) -> Iterator[ForeignChain]:
    """The built-in chains with rules of others in the output of iptables-save."""
    for table, lines in _tables(listing):
        known: dict[str, _Chain] = {}
        policies: dict[str, str] = {}
        for line in lines:
            if line.startswith(":"):
                name, policy, *_ = line.removeprefix(":").split()
                known[name] = _Chain()
                if policy != "-":
                    policies[name] = policy.lower()
            elif line.startswith("-A "):
                _read_line(line, known)
        for name, policy in policies.items():
            priority = PRIORITIES.get(table, 0)
            if table == "nat" and name in SRCNAT_HOOKS:
                priority = SRCNAT
            place = f"{program} {table} {name}"
            yield from _foreign(place, name.lower(), priority, policy, name, known)


def _tables(listing: str) -> Iterator[tuple[str, list[str]]]:
    table, lines = "", list[str]()
    for line in listing.splitlines():
        if line.startswith("*"):
            table, lines = line.removeprefix("*"), []
        elif line == "COMMIT":
            yield table, lines
        else:
            lines.append(line)


def _read_line(line: str, known: dict[str, _Chain]) -> None:
    try:
        words = shlex.split(line)
    except ValueError:  # an extension that does not close its quotes
        words = line.split()
        known.setdefault(words[1], _Chain()).does.add(UNKNOWN)
    name = words[1]
    told = dict(pairwise(words))
    target = told.get("-j", told.get("-g", ""))
    if target.startswith(OUR_CHAINS) or name.startswith(OUR_CHAINS):
        return
    chain = known.setdefault(name, _Chain())
    chain.rules += 1
    if target in known:
        chain.leads_to.add(target)
    elif target and target not in PLAIN_TARGETS:
        chain.does.add(TARGETS.get(target, UNKNOWN))
