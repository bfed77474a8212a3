"""Replacing the ruleset under load lets no denied packet through and drops no allowed one.

Packets are counted where they arrive, before any ruleset, and again behind the ruleset; what
differs was dropped, and what was denied and is counted behind has leaked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path

import pytest

from policylang.apply import members, xtables
from policylang.apply.generation import replacement
from policylang.apply.restore import Flavour
from policylang.apply.transaction import apply
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.packets.values import parse_one_address
from policylang.pipeline import Text, compile_policy

from . import flood
from .ground import (
    CommandError,
    Family,
    Ground,
    Loader,
    Namespace,
    Segment,
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
RATE_PER_SECOND = 20_000  # packets, which a core sends in a fifth of its time
PATIENCE_S = 10  # until a leak is seen where one must be
LEAST_S = 0.5  # of load
ENOUGH = 1000  # packets of a kind, each of which met its verdict


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
    def passed(self) -> int:
        """All that the ruleset let through."""
        return self.allowed_passed + self.denied_passed

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
def sending(
    segment: Segment,
    flows: Iterable[str],
    has_arrived: Callable[[], bool],
    rate_per_second: int = RATE_PER_SECOND,
) -> Iterator[None]:
    """Send flows, each "SOURCE,TARGET,PROTOCOL,PORT", from a neighbour to the firewall."""
    sender = segment.neighbour.spawn(
        [
            *(sys.executable, "-I", "-S", flood.__file__),
            *("eth0", segment.near_mac, str(SOURCES), str(rate_per_second), *flows),
        ],
        stdout=subprocess.PIPE,
    )
    give_up = time.monotonic() + 20
    while not has_arrived():
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
    with sending(wan, flows, lambda: count(ground.firewall).allowed_arrived > 0):
        yield


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
    """Load once in peace, then so many times at least under load; return what passed."""
    replace()
    load_nft(COUNTERS, ground.firewall)
    with load_on(ground):
        over = time.monotonic() + LEAST_S
        while times > 0 or time.monotonic() < over:
            replace()
            times -= 1
    return count(ground.firewall)


def assert_neither_leaked_nor_dropped(counted: Count) -> None:
    """Assert that there was a load, and that every packet met its verdict."""
    assert min(counted.allowed_arrived, counted.denied_arrived) > ENOUGH, counted
    assert (counted.denied_passed, counted.dropped) == (0, 0), counted


def test_nft_replaces_without_a_gap(routed: Ground, tmp_path: Path) -> None:
    """The compiled script, loaded eighty times over by `nft -f`."""
    script = str(compiled("nft", tmp_path))

    def replace() -> None:
        routed.firewall.run(["nft", "-f", script])

    counted = replaced_under_load(routed, replace, 80)
    assert_neither_leaked_nor_dropped(counted)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_iptables_replaces_without_a_gap(routed: Ground, tmp_path: Path, flavour: str) -> None:
    """The compiled rules, loaded forty times over by `iptables-restore --noflush`."""
    folder = compiled("iptables", tmp_path)
    counted = replaced_under_load(routed, lambda: restore(routed.firewall, flavour, folder), 40)
    assert_neither_leaked_nor_dropped(counted)


# --- applying --------------------------------------------------------------------------------

DYNAMIC = "set banned = dynamic timeout {}\ndeny all from banned to any\n"
FLAVOURS = {
    Loader.NFT: None,
    Loader.IPTABLES_NFT: Flavour.NFT,
    Loader.IPTABLES_LEGACY: Flavour.LEGACY,
}


@cache
def artifact(policy: str, target: str) -> Artifact:
    report = Report()
    made = compile_policy(Text(policy, "load.policy", Path()), target, report)
    assert made is not None, report.diagnostics
    return made


def apply_policy(policy: str, loader: Loader, firewall: Namespace) -> None:
    """Apply a policy from within this process: it takes a fifth of the time of a new one."""
    report = Report()
    made = artifact(policy, "nft" if loader is Loader.NFT else "iptables")
    assert apply(made, report, netns=firewall.name, flavour=FLAVOURS[loader]), report.diagnostics


@pytest.fixture
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@pytest.mark.usefixtures("own_lock")
@pytest.mark.parametrize("loader", [Loader.IPTABLES_NFT, Loader.IPTABLES_LEGACY])
def test_apply_replaces_without_a_gap(routed: Ground, loader: Loader) -> None:
    """`policylang apply`, which removes old jumps and sets new ones, time and again."""
    counted = replaced_under_load(routed, lambda: apply_policy(POLICY, loader, routed.firewall), 6)
    assert_neither_leaked_nor_dropped(counted)


def test_apply_around_a_dynamic_set_has_no_gap(routed: Ground) -> None:
    """On nft the table stays, for the set in it, and chain by chain is replaced within it."""
    policies = cycle(
        DYNAMIC.format("1h") + extra + POLICY for extra in ("", "allow udp 53 inbound\n")
    )
    counted = replaced_under_load(
        routed, lambda: apply_policy(next(policies), Loader.NFT, routed.firewall), 12
    )
    assert_neither_leaked_nor_dropped(counted)


@pytest.mark.usefixtures("own_lock")
def test_a_ban_holds_while_all_else_changes(routed: Ground) -> None:
    """Not a packet of a banned source passes, whatever is applied: rules, time-out, target."""
    firewall, wan = routed.firewall, routed["wan"]
    numbers = [parse_one_address(wan.far.of(family)) for family in Family]
    banned = [number for number in numbers if number is not None]

    def replace(timeout: str, loader: Loader, extra: str = "") -> None:
        apply_policy(DYNAMIC.format(timeout) + extra + POLICY, loader, firewall)

    replace("1h", Loader.NFT)
    load_nft(COUNTERS, firewall)
    with load_on(routed):
        assert members.add("banned", banned, None, Report(), netns=firewall.name) == 2
        time.sleep(0.1)  # for packets that are past the ruleset
        before = count(firewall)
        for loader in Loader:
            replace("1h", loader)
            replace("1h", loader, "allow udp 53 inbound\n")
        for loader in reversed(Loader):
            replace("1h", loader)
            replace("2h", loader)
        after = count(firewall)
        assert after.allowed_arrived - before.allowed_arrived > ENOUGH
        assert after.passed == before.passed, after
        # That they were kept back by the ban alone:
        assert members.delete("banned", banned, Report(), netns=firewall.name) == 2
        give_up = time.monotonic() + PATIENCE_S
        while count(firewall).passed == before.passed:
            assert time.monotonic() < give_up
            time.sleep(0.05)


# --- screens ---------------------------------------------------------------------------------

# The load comes from addresses that are none of this zone's.
ZONES = """
zone wan { interface wan0  network 203.0.113.0/24, 2001:db8:113::/64 }
zone lan { interface lan0 }
"""
SCREENED = f"""{ZONES}
protect from wan against spoofing
allow tcp {DENIED}, udp {DENIED} inbound
allow tcp {DENIED}, udp {DENIED} from any to lan
"""
CLOSED = f"{ZONES}\nallow tcp {ALLOWED}, udp {ALLOWED} inbound\n"


@pytest.mark.usefixtures("own_lock")
@pytest.mark.parametrize("loader", [Loader.IPTABLES_NFT, Loader.IPTABLES_LEGACY])
def test_screens_are_there_before_what_relies_on_them(routed: Ground, loader: Loader) -> None:
    """What both rulesets keep back, one by a screen and one by its filter, never passes."""
    policies = cycle((CLOSED, SCREENED))
    counted = replaced_under_load(
        routed, lambda: apply_policy(next(policies), loader, routed.firewall), 6
    )
    assert counted.denied_arrived > ENOUGH
    assert counted.denied_passed == 0


# --- that the tests can fail -----------------------------------------------------------------


def until(ground: Ground, replace: Callable[[], None], seen: Callable[[Count], bool]) -> Count:
    """Replace under load until the counters show what must be seen, or patience ends."""
    replace()
    load_nft(COUNTERS, ground.firewall)
    give_up = time.monotonic() + PATIENCE_S
    with load_on(ground):
        while not seen(count(ground.firewall)) and time.monotonic() < give_up:
            for _ in range(2):
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


@pytest.mark.usefixtures("own_lock")
def test_a_filter_before_its_screens_leaks(routed: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new filter is in force before the new screens, what these keep back passes."""
    monkeypatch.setattr(xtables, "replacement_in_steps", replacement)
    policies = cycle((CLOSED, SCREENED))

    def replace() -> None:
        apply_policy(next(policies), Loader.IPTABLES_LEGACY, routed.firewall)

    counted = until(routed, replace, lambda counted: counted.denied_passed > 0)
    assert counted.denied_passed > 0, counted
