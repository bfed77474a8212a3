"""iptables as a way to load rules: what it touches, what it keeps, and what packets meet meanwhile.

Old and new differ in all that they can: screens, marks, translations, helpers, filters. Some
packets are kept back by both, each time by another of these, so a mixture of both would let them
pass; they are thrown throughout.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from policylang.apply import kernel, live_ipsets, members, programs, restore, xtables_switch
from policylang.apply.grace import let_packets_through
from policylang.apply.loaded import NOTHING, Loaded, Rule
from policylang.apply.programs import Finished
from policylang.apply.restore import Flavour, tools
from policylang.apply.xtables_engine import XtablesEngine
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.packets.values import parse_one_address
from policylang.pipeline import Text, compile_policy
from tests.backends.nft_station import FAR, arriving, frame, station

from .applied import Firewall, each
from .ground import Family, Ground, Loader, Namespace, load_nft
from .test_replace_under_load import ENOUGH, RATE_PER_SECOND, sending

pytestmark = pytest.mark.usefixtures("kernel")

T = TypeVar("T")

SHARED = """
zone wan { interface eth0, wan0  network 192.0.2.0/24, 2001:db8:1::/64, 2001:db8:2::/64 }
zone lan { interface eth1, lan0  network 198.51.100.0/24, 2001:db8:2::/64, 2001:db8:51::/64 }
set friends = 192.0.2.2, 192.0.2.9, 192.0.2.64, 2001:db8:1::2, 2001:db8:1::9, 2001:db8:1::64
set banned = dynamic timeout 1h
deny all from banned to any
allow udp 1000 inbound
allow udp 1000 from wan to lan
allow udp 1500 inbound from friends
masquerade from lan to wan
"""
OLD = f"""{SHARED}
protect from lan against spoofing
mark udp 4001 from wan to self as 0x7/0xff
dnat udp 8000 from wan to 198.51.100.2 port 1001
allow ftp inbound
allow udp 2000, udp 4002 inbound
"""
NEW = f"""{SHARED}
protect from wan against spoofing
mark udp 4003 from wan to self as 0x8/0xff
dnat udp 8000 from wan to 198.51.100.2 port 1002
allow tftp inbound
allow udp 3000, udp 4000 inbound
allow udp 4001 inbound mark 0x7/0xff
"""

BOTH_ALLOW, OLD_ALONE, NEW_ALONE, OF_FRIENDS, NEITHER = 1000, 2000, 3000, 1500, 5001
STRANGER = {4: "203.0.113.7", 6: "2001:db8:bad::7"}

# Kept back by both: by a filter and a screen, a filter and a lack of a mark, a screen and a filter.
SCREENED_BY_NEW, MARKED_BY_OLD, SCREENED_BY_OLD = 4000, 4001, 4002
TRAPS = tuple(
    packet
    for family in (4, 6)
    for packet in (
        arriving(family=family, source=STRANGER[family], ports=(40000, SCREENED_BY_NEW)),
        arriving(family=family, ports=(40000, MARKED_BY_OLD)),
        arriving("eth1", family, source=STRANGER[family], ports=(40000, SCREENED_BY_OLD)),
        arriving(family=family, ports=(40000, NEITHER)),
    )
)
TRAP_PORTS = (SCREENED_BY_NEW, MARKED_BY_OLD, SCREENED_BY_OLD, NEITHER)
SEEN = f"""
table inet traps {{
  counter passed {{}}; counter thrown {{}};
  chain arriving {{
    type filter hook prerouting priority -400
    udp dport {{ {", ".join(map(str, TRAP_PORTS))} }} counter name "thrown"
  }}
  chain input {{
    type filter hook input priority filter + 10
    udp dport {{ {", ".join(map(str, TRAP_PORTS))} }} counter name "passed"
  }}
}}
"""


@cache
def artifact(policy: str) -> Artifact:
    report = Report()
    made = compile_policy(Text(policy, "test.policy", Path()), "iptables", report)
    assert made is not None, report.diagnostics
    return made


@dataclass(slots=True)
class Bench:
    """An engine, and the firewall that it works on; steps report nothing unless asked to."""

    firewall: Firewall
    engine: XtablesEngine
    wanted: dict[str, Loaded] = field(default_factory=dict)

    @property
    def inside(self) -> Namespace:
        return self.firewall.station.inside

    def do(self, step: Callable[[Report], T | None], *codes: str) -> T:
        """A step of the engine in the firewall's namespace; what it reports are these codes."""
        report = Report()
        done = kernel.in_netns(self.inside.name, lambda: step(report), report)
        assert [d.code for d in report.diagnostics] == [*codes], report.diagnostics
        assert done is not None
        return done

    def load(self, policy: str) -> None:
        assert self.do(lambda report: self.engine.load(artifact(policy), report, {}))

    def arm(self, policy: str, seconds: int) -> None:
        assert self.do(lambda report: self.engine.arm(artifact(policy), seconds, report))

    def keep(self, policy: str, *codes: str, is_late: bool = False) -> bool:
        made = artifact(policy)
        return self.do(lambda r: self.engine.keep(made, r, is_late=is_late), *codes)

    def disarm(self) -> None:
        assert self.do(self.engine.disarm)

    @property
    def listed(self) -> Loaded:
        return self.do(self.engine.listed)

    @property
    def pending(self) -> Loaded:
        return self.do(self.engine.pending)

    def rehearsed(self, policy: str) -> Loaded:
        """What the policy is once it is loaded."""
        if policy not in self.wanted:
            report = Report()
            made = artifact(policy)
            found = kernel.in_scratch(lambda: self.engine.rehearse(made, report), report)
            assert found is not None, report.diagnostics
            self.wanted[policy] = found
        return self.wanted[policy]

    def assert_alone(self, policy: str) -> None:
        """Exactly this policy is there, and nothing of any other or of a change between two."""
        assert self.listed == self.rehearsed(policy)
        assert self.pending == NOTHING
        everything = (
            "".join(
                self.inside.run([f"{family}-{self.engine.tools[0].flavour}-save"]).stdout
                for family in ("iptables", "ip6tables")
            )
            + self.inside.run(["ipset", "list", "-name"]).stdout
        )
        for leftover in ("policylang+", "policylang-armed", "policylang-ahead", "policylang-new"):
            assert leftover not in everything

    def takes(self, port: int) -> list[bool]:
        """Which packets to that port are let in, one of each family."""
        self.firewall.forget()
        return self.firewall.takes(*each(arriving, ports=(41000, port)))

    def assert_in_force(self, policy: str) -> None:
        """By packets: the filter, the translation and the helper's table of that policy."""
        is_old = policy is OLD
        assert self.takes(BOTH_ALLOW) == [True, True]
        assert self.takes(OLD_ALONE) == [is_old] * 2
        assert self.takes(NEW_ALONE) == [not is_old] * 2
        assert not any(self.firewall.takes(*TRAPS))
        self.firewall.forget()
        led_on = self.firewall.forwards(arriving(ports=(41000, 8000)))
        assert led_on == [True]
        listing = self.inside.run(["conntrack", "-L", "-p", "udp", "--orig-port-dst", "8000"])
        assert f"sport={1001 if is_old else 1002} " in listing.stdout


@pytest.fixture(scope="module", params=list(Flavour), ids=str)
def bench(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    directory = tmp_path_factory.mktemp("engine")
    flavour = request.param
    loader = Loader.IPTABLES_NFT if flavour is Flavour.NFT else Loader.IPTABLES_LEGACY
    with station() as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        laid.inside.sysctl("net.ipv4.ip_forward", "1")
        laid.inside.sysctl("net.ipv6.conf.all.forwarding", "1")
        laid.nft(SEEN)
        made = Bench(Firewall(laid, loader, directory), XtablesEngine(tools(flavour)))
        for policy in (OLD, NEW):
            made.rehearsed(policy)
        yield made


# --- loading --------------------------------------------------------------------------------------


def rule(loaded: Loaded, place: str, text: str) -> Rule:
    (found,) = (
        rule
        for chain in loaded.chains
        if chain.place == place
        for rule in chain.rules
        if text in rule.text
    )
    return found


def counted(bench: Bench, text: str, place: str = "iptables filter policylang-input") -> int:
    """How many packets that rule has counted."""
    count = rule(bench.listed, place, text).count
    assert count is not None
    return count.packets


def test_elements_alone_touch_no_rule(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another friend is let in, one that was is not, and no program that loads rules was run."""
    bench.load(OLD)
    other = OLD.replace("192.0.2.2,", "192.0.2.77,").replace("2001:db8:1::2,", "2001:db8:1::77,")
    bench.rehearsed(other)
    assert bench.takes(OF_FRIENDS) == [True, True]
    started: list[str] = []
    run = programs.run

    def watched(argv: Sequence[str], report: Report, *, stdin: str = "") -> Finished | None:
        started.append(argv[0])
        return run(argv, report, stdin=stdin)

    monkeypatch.setattr(programs, "run", watched)
    bench.load(other)
    assert started
    assert not [name for name in started if name.endswith("tables-restore")]
    assert not [name for name in started if name.endswith("-restore")]
    monkeypatch.undo()
    bench.assert_alone(other)
    assert bench.takes(OF_FRIENDS) == [False, False]
    # The set is called after its old content now; what comes next must not take it for that.
    bench.load(OLD.replace("udp 1500", "udp 1501"))
    bench.assert_alone(OLD.replace("udp 1500", "udp 1501"))
    bench.load(OLD)
    bench.assert_alone(OLD)


def test_a_set_that_is_met_twice_is_not_changed_under_way(bench: Bench) -> None:
    """A packet that met the old set in one table would meet the new one in the next."""
    twice = OLD + "mark udp 1600 from friends to self as 0x9/0xff\n"
    bench.load(twice)
    other = twice.replace("192.0.2.2,", "192.0.2.77,")
    before = bench.inside.run(["ipset", "list", "-name"]).stdout.split()
    bench.load(other)
    bench.assert_alone(other)
    after = bench.inside.run(["ipset", "list", "-name"]).stdout.split()
    assert set(before) != set(after), "the new elements came in a new set, with new rules"


COUNTED = "allow udp 1000 inbound\nallow tcp 22 inbound\n"
JUMPS = "iptables filter INPUT"
UDP_RULE = "-p udp -m udp --dport 1000"


def test_counts_live_on(bench: Bench) -> None:
    """Of rules that stay, whatever changes around them, and through a change that is confirmed."""
    bench.do(bench.engine.remove)
    bench.load(COUNTED)
    for port in (BOTH_ALLOW, BOTH_ALLOW, NEITHER):
        bench.takes(port)
    assert (counted(bench, UDP_RULE), counted(bench, "-j policylang-input", JUMPS)) == (2, 3)
    comment = rule(bench.listed, "iptables filter policylang-input", UDP_RULE).comment
    bench.load(f"\n\nallow tcp 22, tcp 80 inbound from 192.0.2.0/24\n{COUNTED}")
    stayed = rule(bench.listed, "iptables filter policylang-input", UDP_RULE)
    assert stayed.count is not None
    assert stayed.count.packets == 2
    assert stayed.comment != comment
    assert counted(bench, "-j policylang-input", JUMPS) == 3
    bench.arm("allow udp 53 inbound from 192.0.2.0/24\n" + COUNTED, 60)
    bench.takes(BOTH_ALLOW)
    assert counted(bench, UDP_RULE) == 2
    assert counted_pending(bench, UDP_RULE) == 1
    assert bench.keep("allow udp 53 inbound from 192.0.2.0/24\n" + COUNTED)
    assert counted(bench, UDP_RULE) == 3, "what both counted is one number"


def test_a_lock_that_others_hold_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in force stays, and nothing is left of the attempt; iptables-nft takes no lock."""
    bench.load(OLD)
    monkeypatch.setattr(restore, "LOCK_PATIENCE_S", 1)
    made = artifact(NEW)
    codes = ["lock-held"] if bench.engine.tools[0].flavour is Flavour.LEGACY else []
    with Path(os.environ["XTABLES_LOCKFILE"]).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        is_armed = bench.do(lambda r: bench.engine.arm(made, 60, r), *codes)
    assert is_armed is not bool(codes)
    bench.disarm()
    bench.assert_alone(OLD)


def test_removal_leaves_nothing(bench: Bench) -> None:
    """Neither of what is in force nor of what is pending."""
    bench.load(OLD)
    bench.arm(NEW, 60)
    assert bench.do(bench.engine.remove)
    assert bench.listed == bench.pending == NOTHING
    assert not bench.do(bench.engine.remove)
    # As a removal leaves them that was interrupted:
    bench.inside.run(["ipset", "create", "policylang-friends.4abcdef", "hash:net"])
    assert bench.do(bench.engine.remove)
    assert bench.inside.run(["ipset", "list", "-name"]).stdout == ""


# --- a change that is not confirmed ---------------------------------------------------------------


def test_an_armed_change_is_in_force_and_then_reverts(bench: Bench) -> None:
    """New for its time, and old alone after it, though nobody has done anything."""
    bench.load(OLD)
    before = bench.listed
    bench.arm(NEW, 1)
    began = time.monotonic()
    assert bench.listed == before == bench.rehearsed(OLD)
    assert bench.pending == bench.rehearsed(NEW)
    assert bench.do(bench.engine.armed_ms) == 1000
    bench.assert_in_force(NEW)
    # Both filters hold for the three seconds that follow the time itself.
    time.sleep(max(0.0, began + 4.1 - time.monotonic()))
    bench.assert_in_force(OLD)
    assert bench.do(bench.engine.armed_ms) == 0
    assert not bench.keep(NEW, "too-late")
    bench.assert_in_force(OLD)
    bench.disarm()
    bench.assert_alone(OLD)


def test_a_change_that_is_kept_stays(bench: Bench) -> None:
    """Nothing of the switch is left that could take it back."""
    bench.load(OLD)
    bench.arm(NEW, 2)
    assert bench.keep(NEW)
    bench.assert_alone(NEW)
    bench.assert_in_force(NEW)


def test_a_change_that_was_decided_in_time_can_be_kept_late(bench: Bench) -> None:
    bench.load(OLD)
    bench.arm(NEW, 60)
    for step in xtables_switch.disarming():  # as the time does
        bench.do(partial(live_ipsets.restored, step, ""))
    bench.assert_in_force(OLD)
    assert bench.keep(NEW, is_late=True)
    bench.assert_alone(NEW)
    bench.assert_in_force(NEW)
    assert bench.keep(NEW, is_late=True), "nothing is left to do"
    bench.assert_alone(NEW)


def test_a_change_that_is_ended_is_gone(bench: Bench) -> None:
    """The old rules are exactly what they were, jumps in their places among foreign rules."""
    bench.load(OLD)
    tool = f"iptables-{bench.engine.tools[0].flavour}"
    for chain, target in (("INPUT", "ACCEPT"), ("PREROUTING", "ACCEPT")):
        table = "filter" if chain == "INPUT" else "raw"
        argv = [tool, "-t", table, "-I", chain, "2", "-p", "41", "-j", target]
        bench.inside.run(argv)
    before = bench.inside.run([f"{tool}-save"]).stdout.splitlines()
    bench.arm(NEW, 60)
    bench.assert_in_force(NEW)
    bench.disarm()
    bench.assert_in_force(OLD)
    after = bench.inside.run([f"{tool}-save"]).stdout.splitlines()
    assert [x for x in after if x.startswith("-A")] == [x for x in before if x.startswith("-A")]
    bench.assert_alone(OLD)
    bench.inside.run([tool, "-D", "INPUT", "-p", "41", "-j", "ACCEPT"])
    bench.inside.run([tool, "-t", "raw", "-D", "PREROUTING", "-p", "41", "-j", "ACCEPT"])


def test_the_first_change_of_all_leaves_nothing_behind(bench: Bench) -> None:
    """Where nothing was in force, nothing is again."""
    bench.do(bench.engine.remove)
    assert bench.do(lambda report: bench.engine.armed_ms(report) is None)
    bench.arm(NEW, 60)
    assert bench.listed == NOTHING
    bench.assert_in_force(NEW)
    bench.disarm()
    assert bench.takes(NEITHER) == [True, True]
    bench.arm(NEW, 60)
    assert bench.keep(NEW)
    bench.assert_alone(NEW)


def test_every_source_is_asked_for(bench: Bench) -> None:
    """Also one of zeros, as those have who ask for an address, and the last ones."""
    bench.load("allow tcp 22 inbound\n")
    bench.arm("allow udp 67 inbound\n", 60)
    packets = (
        arriving(source="0.0.0.0", destination="255.255.255.255", ports=(68, 67)),
        arriving(source="250.255.255.254", ports=(68, 67)),
        arriving(family=6, source="::", ports=(68, 67)),
        arriving(family=6, source="fe80::ffff:ffff:ffff:ffff", ports=(68, 67)),
    )
    bench.firewall.forget()
    assert bench.firewall.takes(*packets) == [True] * len(packets)
    bench.disarm()
    assert not any(bench.firewall.takes(*packets))


def counted_pending(bench: Bench, text: str) -> int:
    count = rule(bench.pending, "iptables filter policylang-input", text).count
    assert count is not None
    return count.packets


@pytest.mark.parametrize("timeout", ["1h", "2h"], ids=["declared alike", "declared otherwise"])
def test_a_ban_holds_through_a_change(bench: Bench, timeout: str) -> None:
    """In both generations, whatever becomes of the new one, and for as long as it was given."""
    new = NEW.replace("dynamic timeout 1h", f"dynamic timeout {timeout}")
    bench.do(bench.engine.remove)
    bench.load(OLD)
    bench.inside.run(["ipset", "add", "policylang-banned-v4", FAR["eth0"][4]])
    bench.arm(new, 60)
    assert bench.pending == bench.rehearsed(new)
    assert bench.takes(BOTH_ALLOW) == [False, True]
    bench.disarm()
    bench.assert_alone(OLD)
    assert bench.takes(BOTH_ALLOW) == [False, True]
    bench.arm(new, 60)
    # What is banned while both are there is banned in both.
    number = parse_one_address(FAR["eth0"][6])
    assert number is not None
    assert members.add("banned", [number], None, Report(), netns=bench.inside.name) == 1
    assert bench.takes(BOTH_ALLOW) == [False, False]
    assert members.delete("banned", [number], Report(), netns=bench.inside.name) == 1
    assert bench.takes(BOTH_ALLOW) == [False, True]
    assert bench.keep(new)
    bench.assert_alone(new)
    assert bench.takes(BOTH_ALLOW) == [False, True]
    bench.inside.run(["ipset", "flush", "policylang-banned-v4"])


@pytest.mark.parametrize("words", ["", "Kernel error received: set type not supported"])
def test_a_machine_without_ipsets_cannot_arm(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """Neither without the program nor where the kernel lacks what it asks for."""
    bench.load(OLD)
    find, run = programs.find, programs.run
    if words:

        def refusing(argv: Sequence[str], report: Report, *, stdin: str = "") -> Finished | None:
            if "list:set" in stdin:
                return Finished("ipset", 1, "", words)
            return run(argv, report, stdin=stdin)

        monkeypatch.setattr(programs, "run", refusing)
    else:
        monkeypatch.setattr(programs, "find", lambda name: (name != "ipset" and find(name)) or None)
    made = artifact(NEW)
    assert not bench.do(lambda report: bench.engine.arm(made, 60, report), "cannot-arm")
    monkeypatch.undo()
    bench.disarm()
    bench.assert_alone(OLD)


# --- packets while the one takes the other's place ------------------------------------------------

FLIPS = 16
THROUGH = """
table inet count {{
  counter allowed {{}}; counter passed {{}}; counter thrown {{}}; counter leaked {{}};
  chain arriving {{
    type filter hook prerouting priority -400
    udp dport {{ {traps} }} counter name "thrown"
  }}
  chain tracked {{
    type filter hook prerouting priority -190  # conntrack refuses some, which no ruleset does
    udp dport {allowed} counter name "allowed"
  }}
  chain input {{
    type filter hook input priority filter + 10
    udp dport {{ {traps} }} counter name "leaked"
    udp dport {allowed} counter name "passed"
  }}
  chain forward {{
    type filter hook forward priority filter + 10
    udp dport {allowed} counter name "passed"
  }}
}}
""".format(traps=", ".join(map(str, TRAP_PORTS)), allowed=BOTH_ALLOW)


def counters(firewall: Namespace) -> dict[str, int]:
    lines = firewall.run(["nft", "list", "counters"]).stdout.split()
    names = [i for i, word in enumerate(lines) if word == "counter"]
    return {lines[i + 1]: int(lines[i + 4]) for i in names}


@contextmanager
def loaded_wires(ground: Ground) -> Iterator[None]:
    """Send what both let pass and what neither does, from both sides, all the while."""
    wan, lan = ground["wan"], ground["lan"]

    def flow(source: str, target: str, port: int) -> str:
        return f"{source},{target},udp,{port}"

    inward, outward = [], []
    for family in Family:
        stranger, far, near = STRANGER[family.value], wan.far.of(family), wan.near.of(family)
        inward += [
            flow(far, near, BOTH_ALLOW),
            flow(far, lan.far.of(family), BOTH_ALLOW),
            flow(stranger, near, SCREENED_BY_NEW),
            flow(far, near, MARKED_BY_OLD),
            flow(far, near, NEITHER),
        ]
        outward.append(flow(stranger, lan.near.of(family), SCREENED_BY_OLD))
    inward.append(flow(wan.far.ipv4, wan.near.ipv4, 8000))

    def has_come() -> bool:
        return counters(ground.firewall)["passed"] > 0

    # Of the other side comes but a trap.
    few = RATE_PER_SECOND // 5
    with sending(wan, inward, has_come), sending(lan, outward, has_come, few):
        yield


@dataclass(frozen=True, slots=True)
class Wires:
    """An engine, and a firewall between two neighbours who can fill their wires."""

    ground: Ground
    engine: XtablesEngine

    def do(self, step: Callable[[Report], object]) -> None:
        report = Report()
        assert kernel.in_netns(self.ground.firewall.name, lambda: step(report), report)
        assert not report.diagnostics, report.diagnostics

    def turn(self, steps: Iterator[tuple[str, ...]]) -> None:
        for lines in steps:
            self.do(partial(live_ipsets.restored, lines, ""))
            let_packets_through()


@pytest.fixture(params=list(Flavour), ids=str)
def wires(
    routed: Ground,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Wires:
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    made = Wires(routed, XtablesEngine(tools(request.param)))
    made.do(lambda report: made.engine.load(artifact(OLD), report, {}))
    load_nft(THROUGH, routed.firewall)
    return made


def test_no_packet_slips_through_a_change(wires: Wires) -> None:
    """Armed and ended, kept, expired, loaded: what both deny never passes, what both allow does."""
    engine = wires.engine
    old, new = artifact(OLD), artifact(NEW)
    with loaded_wires(wires.ground):
        wires.do(lambda report: engine.arm(new, 60, report))
        for _ in range(FLIPS // 2):
            wires.turn(xtables_switch.disarming())
            wires.turn(xtables_switch.arming(60))
        wires.do(lambda report: engine.keep(new, report))
        wires.do(lambda report: engine.load(old, report, {}))
        wires.do(lambda report: engine.arm(new, 1, report))
        time.sleep(4.2)
        wires.do(engine.disarm)
    counted = counters(wires.ground.firewall)
    assert min(counted["thrown"], counted["allowed"]) > ENOUGH, counted
    assert (counted["leaked"], counted["allowed"] - counted["passed"]) == (0, 0), counted


def test_a_filter_before_its_screens_leaks(wires: Wires) -> None:
    """Turned in another order, the same switch lets packets through: the test above can fail."""
    wires.do(lambda report: wires.engine.arm(artifact(NEW), 60, report))
    wires.turn(xtables_switch.disarming())
    with loaded_wires(wires.ground):
        for _ in range(3):
            wires.turn(
                xtables_switch.turning_on(name, 60) for name in reversed(xtables_switch.STAGES)
            )
            wires.turn(xtables_switch.disarming())
    assert counters(wires.ground.firewall)["leaked"] > 0


# --- an end in the midst of it --------------------------------------------------------------------

# With all of them it takes minutes; the default takes other ones for each flavour and direction.
EVERY_KILL = "POLICYLANG_EVERY_KILL" in os.environ
KILLS_APART = 1 if EVERY_KILL else 17


@dataclass(slots=True)
class Guillotine:
    """Runs programs, and ends this process behind the n-th thing that one of them changes.

    Programs commit table by table, or line by line: they are cut short there.
    """

    left: int
    run: Callable[..., Finished | None] = programs.run

    def __call__(self, argv: Sequence[str], report: Report, *, stdin: str = "") -> Finished | None:
        pieces = changes(argv, stdin)
        for count in range(1, len(pieces) + 1):
            self.left -= 1
            if self.left == 0:
                self.run(argv, report, stdin="".join(pieces[:count]))
                os.kill(os.getpid(), signal.SIGKILL)
        return self.run(argv, report, stdin=stdin)


def changes(argv: Sequence[str], stdin: str) -> list[str]:
    """What a program is told, by what it changes; nothing, if it only looks."""
    if argv[0].endswith("-restore"):
        tables = stdin.split("COMMIT\n")[:-1]
        return [] if "--test" in argv else [f"{table}COMMIT\n" for table in tables]
    if argv[:2] == ["ipset", "restore"]:
        lines = stdin.splitlines(keepends=True)
        return ["".join(lines[: len(lines) // 2]), "".join(lines[len(lines) // 2 :])]
    return [stdin] if argv[:2] == ["ipset", "destroy"] else []


def is_killed(bench: Bench, step: Callable[[Report], bool], number: int) -> bool:
    """Do a step in a process that is killed behind the n-th change; whether it came to that."""
    child = os.fork()
    if child == 0:
        _in_child(bench, step, number)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the step failed by itself"
    return False


def _in_child(bench: Bench, step: Callable[[Report], bool], number: int) -> NoReturn:
    status = 1
    try:
        programs.run = Guillotine(number)  # type: ignore[assignment]
        report = Report()
        done = kernel.in_netns(bench.inside.name, lambda: step(report), report)
        status = 0 if done else 1
    finally:
        os._exit(status)


ENOUGH_TRAPS = 300  # of some 2000 a second


@contextmanager
def traps_thrown(bench: Bench) -> Iterator[None]:
    """Throw all that both keep back, over and over; none of it may pass."""
    bench.firewall.forget()
    bench.inside.run(["nft", "reset", "counters"])
    over = threading.Event()
    wires = bench.firewall.station.wires
    # Made once: these are counted, not told apart.
    frames = [(wires[packet.wire], frame(packet, 1)) for packet in TRAPS]

    def throw() -> None:
        while not over.wait(0.004):
            for wire, data in frames:
                wire.send(data)

    thread = threading.Thread(target=throw)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    counted = counters(bench.inside)
    assert counted["thrown"] > ENOUGH_TRAPS
    assert counted["passed"] == 0, counted


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A step, what comes before it, and the two ways on from wherever it was broken off."""

    before: Callable[[Bench], None]
    step: Callable[[Bench, Report], bool]
    forward: Callable[[Bench], None]
    backward: Callable[[Bench], None]


def armed(bench: Bench) -> None:
    bench.load(OLD)
    bench.arm(NEW, 60)


def armed_anew(bench: Bench) -> None:
    bench.arm(NEW, 60)
    assert bench.listed == bench.rehearsed(OLD)
    assert bench.pending == bench.rehearsed(NEW)
    assert bench.do(bench.engine.armed_ms)


def kept(bench: Bench) -> None:
    assert bench.keep(NEW, is_late=True)
    bench.assert_alone(NEW)


def new_loaded(bench: Bench) -> None:
    bench.load(NEW)
    bench.assert_alone(NEW)


def old_loaded(bench: Bench) -> None:
    bench.load(OLD)
    bench.assert_alone(OLD)


def disarmed(bench: Bench) -> None:
    bench.disarm()
    bench.assert_alone(OLD)


STEPS = {
    "load": Interrupted(
        lambda bench: bench.load(OLD),
        lambda bench, report: bench.engine.load(artifact(NEW), report, {}),
        new_loaded,
        old_loaded,
    ),
    "arm": Interrupted(
        lambda bench: bench.load(OLD),
        lambda bench, report: bench.engine.arm(artifact(NEW), 60, report),
        armed_anew,
        disarmed,
    ),
    "keep": Interrupted(
        armed,
        lambda bench, report: bench.engine.keep(artifact(NEW), report),
        kept,
        old_loaded,
    ),
    "disarm": Interrupted(
        armed,
        lambda bench, report: bench.engine.disarm(report),
        disarmed,
        old_loaded,
    ),
}


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_killed_can_be_finished_and_taken_back(
    bench: Bench, name: str, way: str
) -> None:
    """Wherever it is killed: exactly new or exactly old afterwards, and never more open."""
    step = STEPS[name]
    go_on = step.forward if way == "forward" else step.backward
    first = 1 + (3 * (way == "forward") + 5 * (bench.engine.way == "iptables-legacy")) % KILLS_APART
    step.before(bench)
    with traps_thrown(bench):
        number = first
        while is_killed(bench, lambda report: step.step(bench, report), number):
            go_on(bench)
            step.before(bench)
            number += KILLS_APART
    assert number > KILLS_APART
