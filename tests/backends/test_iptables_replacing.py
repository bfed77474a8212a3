"""Replacing translations under load: nothing passes that neither ruleset lets pass.

What a ruleset translates and what its filter lets through are committed one after the other. Two
rulesets here have each a half of what would let connections through, and neither does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from itertools import cycle
from pathlib import Path as FilePath

import pytest

from policylang.apply import xtables
from policylang.apply.generation import (
    Generation,
    InputLine,
    replacement,
)
from policylang.apply.restore import Flavour
from policylang.apply.transaction import apply
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.ir.actions import (
    Accept,
    Answer,
    DestinationNat,
    MarkGuard,
    Masquerade,
    Reject,
    SetMark,
)
from policylang.ir.ruleset import Item, Rule
from policylang.ir.stages import Path
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, UDP, Field
from policylang.packets.values import Ranges
from tests.backends.iptables_routing import by, of_family, span
from tests.backends.iptables_station import DSTNAT, FORWARD, INPUT, MARK, OUTPUT, SRCNAT, emitted
from tests.backends.nft_station import ruleset
from tests.kernel.conftest import routed
from tests.kernel.ground import WIRES, Ground, Namespace, load_nft
from tests.kernel.test_replace_under_load import ALLOWED, COUNTERS, DENIED, ENOUGH, load_on

__all__ = ["routed"]

# Where connections to these ports of the firewall are sent on to, at the far end of the lan.
KEPT_PORT, OTHER_PORT = 6000, 6001
TARGETS = {4: f"{WIRES['lan'][1]}.2", 6: f"{WIRES['lan'][2]}:2"}
NEAR = {4: f"{WIRES['wan'][1]}.1", 6: f"{WIRES['wan'][2]}:1"}
PATIENCE_S = 15


def to_port(port: int) -> Cube:
    return Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP), Field.DPORT: Ranges.of(port)})


def sent_on(dialled: int, port: int) -> list[Item]:
    """What comes to the firewall's own addresses at a port goes on to another of the target."""
    return [
        Rule(
            to_port(dialled)
            & of_family(family)
            & Cube.of({Field.IIF: by("wan0"), Field.DADDR: Ranges((span(NEAR[family]),))}),
            DestinationNat(Ranges((span(target),)), port),
        )
        for family, target in TARGETS.items()
    ]


FROM_WAN = Cube.of({Field.IIF: by("wan0")})
KEPT = [Rule(FROM_WAN & to_port(KEPT_PORT) & Cube.of({Field.DNATED: Ranges.of(1)}), Accept())]
OUT = [Rule(EVERYTHING, Accept())]
REFUSE = Rule(EVERYTHING, Reject(Answer.PORT_UNREACHABLE))

# Both send on what comes to `ALLOWED`. One lets pass what goes to `OTHER_PORT`, where nobody goes;
# the other sends on to it, and does not let it pass.
OPEN = ruleset(
    {
        DSTNAT[Path.INPUT]: sent_on(ALLOWED, KEPT_PORT),
        SRCNAT: [Rule(Cube.of({Field.OIF: by("wan0")}), Masquerade())],
        FORWARD: [*KEPT, Rule(FROM_WAN & to_port(OTHER_PORT), Accept()), REFUSE],
        INPUT: [REFUSE],
        OUTPUT: OUT,
    }
)
SENDING = ruleset(
    {
        DSTNAT[Path.INPUT]: [*sent_on(DENIED, OTHER_PORT), *sent_on(ALLOWED, KEPT_PORT)],
        FORWARD: KEPT,
        INPUT: [],
        OUTPUT: OUT,
    }
)
# The same with marks: one lets pass what is marked, the other marks.
BIT = 0x40
TRUSTING = ruleset(
    {
        DSTNAT[Path.INPUT]: sent_on(ALLOWED, KEPT_PORT),
        FORWARD: [*KEPT, Rule(EVERYTHING, Accept(), (MarkGuard(BIT, BIT),))],
        INPUT: [],
        OUTPUT: OUT,
    }
)
MARKING = ruleset(
    {
        DSTNAT[Path.INPUT]: sent_on(ALLOWED, KEPT_PORT),
        MARK[Path.INPUT]: [Rule(to_port(DENIED), SetMark(BIT, BIT))],
        FORWARD: KEPT,
        INPUT: [],
        OUTPUT: OUT,
    }
)
PAIRS = {"translations": (OPEN, SENDING), "marks": (TRUSTING, MARKING)}

NAMES = ("dialled", "kept", "leaked")
SEEN = (
    "table inet translated {"
    + "".join(f"counter {name} {{}}; " for name in NAMES)
    + f"""
  chain early {{
    type filter hook prerouting priority -190
    iifname "wan0" fib daddr type local th dport {ALLOWED} counter name dialled
  }}
  chain late {{
    type filter hook forward priority filter + 10
    iifname "wan0" th dport {KEPT_PORT} counter name kept
    iifname "wan0" th dport {{ {DENIED}, {OTHER_PORT} }} counter name leaked
  }}
  chain input {{
    type filter hook input priority filter + 10
    iifname "wan0" th dport {{ {ALLOWED}, {DENIED} }} counter name leaked
  }}
}}
"""
)


def seen(firewall: Namespace) -> Mapping[str, int]:
    listed = json.loads(firewall.run(["nft", "-j", "list", "counters"]).stdout)["nftables"]
    return {
        entry["counter"]["name"]: int(entry["counter"]["packets"])
        for entry in listed
        if "counter" in entry and entry["counter"]["table"] == "translated"
    }


@cache
def artifact_of(number: int, pair: str) -> Artifact:
    return emitted(PAIRS[pair][number])


def replaced(ground: Ground, flavour: Flavour, pair: str, until: Callable[[int], bool]) -> None:
    """Replace one of a pair by the other under load, again and again."""
    firewall = ground.firewall
    firewall.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")
    turns = cycle((0, 1))

    def replace() -> None:
        report = Report()
        made = artifact_of(next(turns), pair)
        assert apply(made, report, netns=firewall.name, flavour=flavour), report.diagnostics

    replace()
    load_nft(COUNTERS, firewall)
    load_nft(SEEN, firewall)  # before the load: a packet on its way would be counted half
    with load_on(ground):
        count = 0
        while not until(count):
            replace()
            count += 1


@pytest.fixture(autouse=True)
def own_lock(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@pytest.mark.parametrize("flavour", Flavour)
@pytest.mark.parametrize("pair", PAIRS)
def test_nothing_passes_that_neither_lets_pass(routed: Ground, flavour: Flavour, pair: str) -> None:
    """And what both send on always comes through, with connections made anew all the time."""
    replaced(routed, flavour, pair, lambda count: count == 8)
    found = seen(routed.firewall)
    assert found["dialled"] > ENOUGH, found
    assert (found["leaked"], found["kept"]) == (0, found["dialled"]), found


def nat_first(rules: str, before: Generation) -> tuple[InputLine, ...]:
    """The tables in the opposite order."""
    lines = replacement(rules, before)
    starts = [n for n, line in enumerate(lines) if line.text.startswith("*")]
    ends = [*starts[1:], len(lines)]
    blocks = [lines[start:end] for start, end in zip(starts, ends, strict=True)]
    return tuple(line for block in reversed(blocks) for line in block)


@pytest.mark.parametrize("order", [replacement, nat_first])
@pytest.mark.parametrize("pair", PAIRS)
def test_without_both_filters_at_once_it_leaks(
    routed: Ground,
    pair: str,
    order: Callable[[str, Generation], tuple[InputLine, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever table comes first."""
    monkeypatch.setattr(xtables, "replacement_in_steps", order)
    give_up = time.monotonic() + PATIENCE_S

    def is_over(_: int) -> bool:
        return seen(routed.firewall)["leaked"] > 0 or time.monotonic() > give_up

    replaced(routed, Flavour.LEGACY, pair, is_over)
    assert seen(routed.firewall)["leaked"] > 0
