"""The firewall with two wires, loaded with what the iptables target emits: it counts.

A rule under test writes to a log group that nobody reads, under a prefix of its own; the counters
of the lines with that prefix say how many packets met the rule.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

from policylang.backends.base import Artifact
from policylang.backends.iptables import IptablesBackend
from policylang.diagnostics import Report
from policylang.ir.actions import Accept, Guard, Log
from policylang.ir.ruleset import Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from tests.backends.nft_station import Packet, Station, station
from tests.kernel.ground import Family

SCREEN, SCREEN_STATE = (Stage.SCREEN, Path.INPUT), (Stage.SCREEN_STATE, Path.INPUT)
UNTRACK, MARK, DSTNAT = (
    {path: (stage, path) for path in (Path.INPUT, Path.OUTPUT)}
    for stage in (Stage.UNTRACK, Stage.MARK, Stage.DSTNAT)
)
TPROXY, SRCNAT = (Stage.TPROXY, Path.INPUT), (Stage.SRCNAT, Path.FORWARD)
INPUT, FORWARD, OUTPUT = ((Stage.FILTER, path) for path in (Path.INPUT, Path.FORWARD, Path.OUTPUT))

FLAVOURS = ("legacy", "nft")
FAMILIES = (4, 6)
PROGRAMS = {4: ("iptables", "rules.v4"), 6: ("ip6tables", "rules.v6")}
GROUP = 4711  # of nflog, with no listener
PORT = 53  # where packets go unless a test says otherwise

Counts = Counter[tuple[int, str]]  # by family and prefix

# What one flavour drops the other one never sees.
PASS = Rule(EVERYTHING, Accept())


def counted(name: str, cube: Cube = EVERYTHING, *guards: Guard) -> Rule:
    """A rule that only counts, under that name."""
    return Rule(cube, Log(name, None, GROUP), guards)


def emitted(rules: Ruleset) -> Artifact:
    """The files; a test asks for nothing that the target refuses."""
    report = Report()
    artifact = IptablesBackend().emit(rules, report)
    assert not report.diagnostics, report.diagnostics
    return artifact


# What is left of a table where nothing was ever loaded.
NOTHING = "".join(
    f"*{table}\n" + "".join(f":{chain} ACCEPT\n" for chain in chains) + "COMMIT\n"
    for table, chains in {
        "raw": ("PREROUTING", "OUTPUT"),
        "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
        "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
        "filter": ("INPUT", "FORWARD", "OUTPUT"),
        "security": ("INPUT", "FORWARD", "OUTPUT"),
    }.items()
)
COUNTED = re.compile(r"^\[(\d+):\d+\] .*--nflog-prefix +\"?([^\" ]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bench:
    """The station, and both flavours of iptables in it."""

    station: Station
    lock: FilePath

    def load(self, flavour: str, rules: Ruleset | Artifact, zone: str = "UTC") -> None:
        """Put this in the place of all that the flavour has, in that time zone."""
        self.wipe(flavour)
        self.load_over(flavour, rules, zone)

    def load_over(self, flavour: str, rules: Ruleset | Artifact, zone: str = "UTC") -> None:
        """Load the files; where there is a generation already, its jumps stay in front."""
        artifact = emitted(rules) if isinstance(rules, Ruleset) else rules
        sets = artifact.file("sets.ipset")
        if sets is not None:
            self.ipset("restore", stdin=sets.text)
        for program, name in PROGRAMS.values():
            file = artifact.file(name)
            assert file is not None
            self._run([f"{program}-{flavour}-restore", "--noflush", "--wait=5"], file.text, zone)

    def wipe(self, flavour: str) -> None:
        """Take off all that a flavour has in the tables that the target writes."""
        for program, _ in PROGRAMS.values():
            self._run([f"{program}-{flavour}-restore", "--wait=5"], NOTHING)

    def clear(self) -> None:
        """No rules, no sets, no connections."""
        for flavour in FLAVOURS:
            self.wipe(flavour)
        give_up = time.monotonic() + 2
        while self.station.inside.run(["ipset", "destroy"], check=False).returncode:
            assert time.monotonic() < give_up, "the kernel lets go of a deleted rule's set"
        self.forget_connections()

    def forget_connections(self) -> None:
        """Delete what conntrack knows."""
        self.station.inside.run(["conntrack", "-F"])

    def ipset(self, *words: str, stdin: str | None = None) -> str:
        """What ipset prints."""
        return self.station.inside.run(["ipset", *words], stdin=stdin).stdout

    def elements(self, name: str) -> dict[str, int]:
        """What a set holds, with the seconds that are left; 0 is for ever."""
        listing = re.findall(r"^add \S+ (\S+)(?: timeout (\d+))?", self.ipset("save", name), re.M)
        return {element: int(seconds or 0) for element, seconds in listing}

    def counts(self, flavour: str) -> Counts:
        """How many packets met each name since it was loaded, all lines of a name together."""
        found: Counts = Counter()
        for family, (program, _) in PROGRAMS.items():
            for number, name in COUNTED.findall(self.saved(flavour, program)):
                found[family, name] += int(number)
        return found

    def saved(self, flavour: str, program: str = "iptables") -> str:
        """The rules with their counters, as the program prints them."""
        return self._run([f"{program}-{flavour}-save", "--counters"])

    def _run(self, argv: Sequence[str], stdin: str | None = None, zone: str = "UTC") -> str:
        environment = {"XTABLES_LOCKFILE": str(self.lock), "TZ": zone}
        return self.station.inside.run(argv, stdin=stdin, env=environment).stdout


@contextmanager
def bench(lock: FilePath) -> Iterator[Bench]:
    """Lay the wires; somebody listens where packets go, so that no ICMP error is sent."""
    with station() as laid, ExitStack() as stack:
        for family in Family:
            listener = stack.enter_context(laid.inside.opened(family, socket.SOCK_DGRAM))
            if family is Family.IPV6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(("", PORT))
        yield Bench(laid, lock)


def weighed(laid: Station, packets: Sequence[Packet]) -> None:
    """Throw the first packet once, the second twice, the third four times, and so on.

    So the count of a rule tells which of them it met: `among`.
    """
    for turn, packet in enumerate(packets):
        laid.throw([packet] * (1 << turn))


def among(names: Sequence[str], count: int) -> set[str]:
    """The names of the packets that make up a count."""
    assert count < 1 << len(names), "a rule was met by more packets than there were"
    return {name for turn, name in enumerate(names) if count >> turn & 1}
