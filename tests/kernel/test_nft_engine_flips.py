"""Between two generations no packet slips through, and none is lost; with all that rules can do.

What both deny never passes, and what both allow always does, while a pending generation is armed,
kept and ended time and again. Connections that begin are translated and marked, and get helpers,
by the one that is in force.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import time
from collections.abc import Callable

import pytest

from policylang.apply import nft, nft_pending
from policylang.apply.nft_listing import YIELDS
from policylang.apply.nft_text import Replacement
from policylang.backends.base import OutputFile
from policylang.diagnostics import Report

from .ground import Family, Ground, Namespace, Reach, load_nft, probe_tcp
from .test_nft_engine import ENGINE, LONG_S, Engine, artifact, rehearsed, served
from .test_replace_translations import INNER, NEVER, counted, counters, policy
from .test_replace_translations import load_on as translated_load_on
from .test_replace_under_load import (
    COUNTERS,
    ENOUGH,
    PATIENCE_S,
    POLICY,
    Count,
    assert_neither_leaked_nor_dropped,
    count,
    load_on,
)

# --- under load ------------------------------------------------------------------------------

FLIPS = 60
POLICIES = tuple(f"{extra}{POLICY}" for extra in ("", "allow udp 53 inbound\n"))


def raw(engine: Engine, step: Callable[[Report], bool]) -> None:
    """A step without a look at what came of it, which takes longer than the step."""
    assert engine.done(step)


def arm(engine: Engine, text: str, seconds: int = LONG_S) -> None:
    made, known = artifact(text), rehearsed(text)
    raw(engine, lambda report: ENGINE.arm(made, seconds, report, rehearsed=known))


def keep(engine: Engine, text: str) -> None:
    made, known = artifact(text), rehearsed(text)
    raw(engine, lambda report: ENGINE.keep(made, report, rehearsed=known))


def test_sixty_flips_have_no_gap(routed: Ground) -> None:
    """Armed and kept, armed and ended, and armed until the time is over."""
    engine = Engine(routed.firewall)
    engine.load(POLICIES[0])
    load_nft(COUNTERS, routed.firewall)
    in_force, other = POLICIES
    with load_on(routed):
        for number in range(FLIPS):
            arm(engine, other, 1 if number % 30 == 29 else LONG_S)
            if number % 30 == 29:
                time.sleep(1.05)
                assert engine.armed_ms() == 0
                if number == FLIPS - 1:
                    time.sleep(nft_pending.BOTH_S)
                raw(engine, ENGINE.disarm)
            elif number % 2:
                raw(engine, ENGINE.disarm)
            else:
                keep(engine, other)
                in_force, other = other, in_force
    assert_neither_leaked_nor_dropped(count(routed.firewall))


def seen_under_load(ground: Ground, is_seen: Callable[[Count], bool]) -> Count:
    """Flip under load until the counters show what must be seen, or patience ends."""
    engine = Engine(ground.firewall)
    engine.load(POLICIES[0])
    load_nft(COUNTERS, ground.firewall)
    give_up = time.monotonic() + PATIENCE_S
    with load_on(ground):
        while not is_seen(count(ground.firewall)) and time.monotonic() < give_up:
            arm(engine, POLICIES[1])
            raw(engine, ENGINE.disarm)
    return count(ground.firewall)


def test_two_transactions_in_the_place_of_one_leak(
    routed: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the old policy yields before the new one is there, what both deny passes."""
    real = nft.load_as

    def in_two(script: OutputFile, loaded: Replacement, report: Report) -> bool:
        lines = loaded.text.split("\n")
        start = next((n for n, line in enumerate(lines) if YIELDS in line), len(lines))
        texts = ("\n".join((*part, "")) for part in (lines[start:], lines[:start]))
        return all(real(script, dataclasses.replace(loaded, text=t), report) for t in texts)

    monkeypatch.setattr(nft, "load_as", in_two)
    counted = seen_under_load(routed, lambda counted: counted.denied_passed > 0)
    assert counted.denied_passed > 0, counted


def test_to_end_it_the_other_way_round_leaks(
    routed: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the new policy is gone while the old one yields still, what both deny passes."""
    real = nft_pending.unyielding

    def late(ours: object) -> tuple[str, ...]:
        for what in (nft_pending.DELETE_PENDING, f"add table {nft_pending.PENDING_TABLE}"):
            assert nft.carry_out((what,), "", Report())
        return real(ours)  # type: ignore[arg-type]

    monkeypatch.setattr(nft_pending, "unyielding", late)
    counted = seen_under_load(routed, lambda counted: counted.denied_passed > 0)
    assert counted.denied_passed > 0, counted


def test_translations_flip_without_a_gap(routed: Ground) -> None:
    """What leaves is masqueraded, what is dialled led on, and all else kept out throughout."""
    firewall = routed.firewall
    engine = Engine(firewall)
    texts = [policy(routed, inner) for inner in INNER]
    engine.load(texts[0])
    load_nft(counters(routed), firewall)
    with translated_load_on(routed):
        for _ in range(7):
            for step in ("keep", "disarm"):
                arm(engine, texts[1])
                firewall.run(["conntrack", "--flush"])
                if step == "disarm":
                    raw(engine, ENGINE.disarm)
                else:
                    keep(engine, texts[1])
                    texts.reverse()
                firewall.run(["conntrack", "--flush"])
    found = counted(firewall)
    assert min(found["left"], found["led-on"], found["denied"]) > ENOUGH, found
    assert not any(found[name] for name in NEVER), found


# --- all that rules can do -------------------------------------------------------------------

SERVERS = (9001, 9002)  # where the one policy and the other lead what is dialled at PUBLIC
PUBLIC, MARKED, SPOOFED = 8080, 8090, 8007
KNOCK, KNOCKED = 8008, 8009
STRANGER = "198.51.100.77"  # an address of the one side, seen on the other

STAGES = """
zone wan {{ interface wan0 }}
zone lan {{ interface lan0  network 198.51.100.0/24 }}
set knockers = dynamic timeout 1h
protect from wan against spoofing
{helper}
{leaving}
dnat tcp {public} from wan to {server} port {inner}
mark tcp {marked} from wan to lan as {mark}
allow tcp {marked} from wan to lan
allow tcp {spoofed} inbound
allow tcp {knocked} inbound from knockers
reject tcp {knock} inbound add source to knockers
reject tcp {knocked} inbound
"""

# Behind all of both generations, and before them.
SEEN = f"""
table inet seen {{
  counter spoofed {{}}; counter spoofed-passed {{}};
  counter mark-1 {{}}; counter mark-2 {{}}; counter unmarked {{}};
  chain arriving {{
    type filter hook prerouting priority -350
    iifname "wan0" ip saddr {STRANGER} counter name "spoofed"
  }}
  chain input {{
    type filter hook input priority filter + 20
    ip saddr {STRANGER} counter name "spoofed-passed"
  }}
  chain forward {{
    type filter hook forward priority filter + 20
    tcp dport {MARKED} meta mark 1 counter name "mark-1"
    tcp dport {MARKED} meta mark 2 counter name "mark-2"
    tcp dport {MARKED} meta mark 0 counter name "unmarked"
  }}
}}
"""


def stages(ground: Ground, number: int) -> str:
    """The first or the second of two policies that differ on every stage but the screens."""
    return STAGES.format(
        helper=("allow ftp inbound from wan", "allow tcp 21 inbound from wan")[number],
        leaving=("masquerade from lan to wan", "allow tcp 9000 from lan to wan")[number]
        + "\nallow tcp 9000 from lan to wan" * (1 - number),
        public=PUBLIC,
        server=ground["lan"].far.ipv4,
        inner=SERVERS[number],
        marked=MARKED,
        mark=f"0x{number + 1}",
        spoofed=SPOOFED,
        knock=KNOCK,
        knocked=KNOCKED,
    )


def spoofed(ground: Ground) -> None:
    """Knock with an address that cannot come from there; nothing answers."""
    wan = ground["wan"]
    assert probe_tcp(wan.neighbour, wan.near.ipv4, SPOOFED, 0.05, source=STRANGER) is Reach.TIMEOUT


def masqueraded(ground: Ground, listener: socket.socket) -> bool:
    """Whether a server outside sees the firewall's address in the place of who asks."""
    wan, lan = ground["wan"], ground["lan"]
    assert probe_tcp(lan.neighbour, wan.far.ipv4, 9000) is Reach.OPEN
    accepted, (peer, _) = listener.accept()
    accepted.close()
    assert peer in (wan.near.ipv4, lan.far.ipv4)
    return bool(peer == wan.near.ipv4)


def has_helper(ground: Ground) -> bool:
    """Whether a connection that begins has a helper."""
    wan = ground["wan"]
    ground.firewall.run(["conntrack", "--flush"])
    assert probe_tcp(wan.neighbour, wan.near.ipv4, 21) is Reach.OPEN
    return (
        "helper=ftp"
        in ground.firewall.run(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", "21"]).stdout
    )


def judged_by(ground: Ground, listener: socket.socket) -> int:
    """Which of both policies is in force, the first (0) or the second, by each stage alike."""
    wan, lan, firewall = ground["wan"], ground["lan"], ground.firewall
    before = counted_by("seen", firewall)
    spoofed(ground)
    # The server that is not there refuses.
    number = 0 if probe_tcp(wan.neighbour, wan.near.ipv4, PUBLIC) is Reach.OPEN else 1
    assert probe_tcp(wan.neighbour, lan.far.ipv4, MARKED) is Reach.REFUSED
    found = counted_by("seen", firewall)
    more = {name: packets - before[name] for name, packets in found.items()}
    assert more.pop("spoofed") > 0
    assert {name for name, packets in more.items() if packets} == {f"mark-{number + 1}"}
    assert masqueraded(ground, listener) is (number == 0)
    assert has_helper(ground) is (number == 0)
    return number


def test_all_that_rules_can_do_follows_the_generation(routed: Ground) -> None:
    """Translations, marks, helpers, screens and dynamic sets are those of the one in force."""
    firewall, wan = routed.firewall, routed["wan"]
    engine = Engine(firewall)
    old, new = stages(routed, 0), stages(routed, 1)
    wan.neighbour.ip(f"address add {STRANGER}/32 dev eth0")
    # What is spoofed would be answered by its way, were it let in.
    load_nft(SEEN, firewall)

    def is_known() -> bool:
        return probe_tcp(wan.neighbour, wan.near.ipv4, KNOCKED) is Reach.OPEN

    with (
        served(firewall, 21, SPOOFED, KNOCKED),
        served(routed["lan"].neighbour, SERVERS[0]),
        wan.neighbour.listen(Family.IPV4, 9000) as listener,
    ):
        engine.load(old)
        assert judged_by(routed, listener) == 0
        assert not is_known()
        for _ in range(2):
            engine.arm(new)
            assert judged_by(routed, listener) == 1
            engine.disarm()
            assert judged_by(routed, listener) == 0
        engine.arm(new)
        assert not is_known()
        assert probe_tcp(wan.neighbour, wan.near.ipv4, KNOCK) is Reach.REFUSED
        assert is_known()
        engine.keep(new)
        assert judged_by(routed, listener) == 1
        assert is_known()
        engine.arm(old, 1)
        assert judged_by(routed, listener) == 0
        assert is_known()
        time.sleep(1 + nft_pending.BOTH_S)
        assert judged_by(routed, listener) == 1
        assert is_known()


def counted_by(table: str, firewall: Namespace) -> dict[str, int]:
    """Packets so far, by the names of a table's counters."""
    listed = json.loads(firewall.run(["nft", "-j", "list", "counters"]).stdout)["nftables"]
    return {
        entry["counter"]["name"]: int(entry["counter"]["packets"])
        for entry in listed
        if "counter" in entry and entry["counter"]["table"] == table
    }
