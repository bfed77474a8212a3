"""Replacing the ruleset under load lets no denied packet through and drops no allowed one.

Packets are counted where they arrive, before any ruleset, and again behind the ruleset; what
differs was dropped, and what was denied and is counted behind has leaked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .ground import (
    REPOSITORY,
    CommandError,
    Family,
    Ground,
    Loader,
    Namespace,
    end,
    load_nft,
    policylang,
)

ALLOWED, DENIED = 5000, 5001

POLICY = f"""
zone wan {{ interface wan0 }}
zone lan {{ interface lan0 }}
allow tcp {ALLOWED}, udp {ALLOWED} inbound from wan
allow tcp {ALLOWED}, udp {ALLOWED} from wan to lan
"""

SOURCES = 2000  # a flow: what the firewall may have to remember at once
PATIENCE_S = 10  # until a leak is seen where one must be


# --- counting --------------------------------------------------------------------------------

KINDS = {"allowed": ALLOWED, "denied": DENIED}

# In a table of its own: what is compiled touches no other. Conntrack runs at -200, and what it
# refuses is no ruleset's fault, so the first count is taken after it.
PLACES = {
    "arrived": "prerouting priority -190",
    "input": "input priority filter + 10",
    "forward": "forward priority filter + 10",
}
CHAIN = f"""
  chain {{place}} {{{{
    type filter hook {{at}}
    iifname "wan0" ct state new th dport {ALLOWED} counter name "allowed-{{place}}"
    iifname "wan0" ct state new th dport {DENIED} counter name "denied-{{place}}"
  }}}}
"""
COUNTERS = f"""
table inet count {{
  {"".join(f"counter {kind}-{place} {{}}; " for kind in KINDS for place in PLACES)}
  {"".join(CHAIN.format(place=place, at=at) for place, at in PLACES.items())}
}}
"""


@dataclass(frozen=True, slots=True)
class Count:
    """Packets so far: those that arrived, and those that the ruleset let through."""

    allowed_arrived: int
    allowed_passed: int
    denied_arrived: int
    denied_passed: int

    @property
    def dropped(self) -> int:
        """Allowed packets that did not pass."""
        return self.allowed_arrived - self.allowed_passed

    def __str__(self) -> str:
        return (
            f"{self.denied_passed} of {self.denied_arrived} denied packets passed,"
            f" {self.dropped} of {self.allowed_arrived} allowed ones did not"
        )


def count(firewall: Namespace) -> Count:
    """Read the counters, one after another: under load they are a few packets apart."""
    listed = json.loads(firewall.run(["nft", "-j", "list", "counters"]).stdout)["nftables"]
    packets = {
        entry["counter"]["name"]: int(entry["counter"]["packets"])
        for entry in listed
        if "counter" in entry and entry["counter"]["table"] == "count"
    }

    def passed(kind: str) -> int:
        return packets[f"{kind}-input"] + packets[f"{kind}-forward"]

    return Count(
        packets["allowed-arrived"], passed("allowed"), packets["denied-arrived"], passed("denied")
    )


# --- load ------------------------------------------------------------------------------------


@contextmanager
def load_on(ground: Ground) -> Iterator[None]:
    """Send allowed and denied packets of both families, to the firewall and through it."""
    wan, lan = ground["wan"], ground["lan"]
    flows = [
        ",".join((wan.far.of(family), target.of(family), protocol, str(port)))
        for port in KINDS.values()
        for protocol in ("tcp", "udp")
        for family in Family
        for target in (wan.near, lan.far)
    ]
    sender = wan.neighbour.spawn(
        [sys.executable, "-m", f"{__package__}.flood", "eth0", wan.near_mac, str(SOURCES), *flows],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    give_up = time.monotonic() + 20
    while count(ground.firewall).allowed_arrived == 0:
        if time.monotonic() > give_up or sender.poll() is not None:
            raise CommandError("the sender does not send")
        time.sleep(0.05)
    try:
        yield
    finally:
        assert sender.stdin is not None
        assert sender.stdout is not None
        sender.stdin.close()
        sender.stdout.read()
        end(sender)
        time.sleep(0.1)  # for what is under way


# --- replacing -------------------------------------------------------------------------------


def compiled(target: str, directory: Path) -> Path:
    """Compile the policy once; return the script, or the folder of scripts."""
    policy = directory / "load.policy"
    policy.write_text(POLICY)
    made = directory / ("load.nft" if target == "nft" else "load.rules")
    policylang("compile", str(policy), "--target", target, "-o", str(made), directory=directory)
    return made


def restore(firewall: Namespace, flavour: str, folder: Path) -> None:
    """Load what was compiled for iptables, IPv4 before IPv6, as an administrator would."""
    lock = {"XTABLES_LOCKFILE": str(folder / "lock")}
    for stem, name in (("iptables", "rules.v4"), ("ip6tables", "rules.v6")):
        command = f"{stem}-{flavour}-restore"
        firewall.run([command, "--noflush", "--wait", "20", str(folder / name)], env=lock)


def replaced_under_load(ground: Ground, replace: Callable[[], None], times: int) -> Count:
    """Load once in peace, then again and again under load; return what passed."""
    replace()
    load_nft(COUNTERS, ground.firewall)
    with load_on(ground):
        for _ in range(times):
            replace()
    return count(ground.firewall)


def assert_neither_leaked_nor_dropped(counted: Count) -> None:
    """Assert that there was a load, and that every packet met its verdict."""
    assert min(counted.allowed_arrived, counted.denied_arrived) > 10_000, counted
    assert (counted.denied_passed, counted.dropped) == (0, 0), counted


def test_nft_replaces_without_a_gap(routed: Ground, tmp_path: Path) -> None:
    """The compiled script, loaded 200 times over by `nft -f`."""
    script = str(compiled("nft", tmp_path))

    def replace() -> None:
        routed.firewall.run(["nft", "-f", script])

    counted = replaced_under_load(routed, replace, 200)
    assert_neither_leaked_nor_dropped(counted)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_iptables_replaces_without_a_gap(routed: Ground, tmp_path: Path, flavour: str) -> None:
    """The compiled rules, loaded 100 times over by `iptables-restore --noflush`."""
    folder = compiled("iptables", tmp_path)
    counted = replaced_under_load(routed, lambda: restore(routed.firewall, flavour, folder), 100)
    assert_neither_leaked_nor_dropped(counted)


@pytest.mark.parametrize("loader", [Loader.IPTABLES_NFT, Loader.IPTABLES_LEGACY])
def test_apply_replaces_without_a_gap(routed: Ground, tmp_path: Path, loader: Loader) -> None:
    """`policylang apply`, which removes old jumps and sets new ones, time and again."""
    counted = replaced_under_load(routed, lambda: loader.load(POLICY, routed.firewall, tmp_path), 6)
    assert_neither_leaked_nor_dropped(counted)


# --- that the tests can fail -----------------------------------------------------------------


def until(ground: Ground, replace: Callable[[], None], seen: Callable[[Count], bool]) -> Count:
    """Replace under load until the counters show what must be seen, or patience ends."""
    replace()
    load_nft(COUNTERS, ground.firewall)
    give_up = time.monotonic() + PATIENCE_S
    with load_on(ground):
        while not seen(count(ground.firewall)) and time.monotonic() < give_up:
            for _ in range(10):
                replace()
    return count(ground.firewall)


def test_a_drop_policy_alone_leaks(routed: Ground, tmp_path: Path) -> None:
    """Without the final `drop` that the compiler writes, the same load gets packets through."""
    lines = compiled("nft", tmp_path).read_text().splitlines()
    altered = [line for line in lines if not line.strip().startswith("drop")]
    assert len(altered) <= len(lines) - 2, "the compiled chains end in no drop"
    script = tmp_path / "altered.nft"
    script.write_text("\n".join(altered) + "\n")

    def replace() -> None:
        routed.firewall.run(["nft", "-f", str(script)])

    counted = until(routed, replace, lambda counted: counted.denied_passed > 0)
    assert counted.denied_passed > 0, counted


def test_a_flush_before_the_load_drops(routed: Ground, tmp_path: Path) -> None:
    """In two transactions instead of one, allowed packets meet an empty chain and its policy."""
    script = str(compiled("nft", tmp_path))

    def replace() -> None:
        routed.firewall.run(["nft", "add table inet policylang; flush table inet policylang"])
        routed.firewall.run(["nft", "-f", script])

    counted = until(routed, replace, lambda counted: counted.dropped > 1000)
    assert counted.dropped > 1000, counted
