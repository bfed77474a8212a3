"""A firewall whose policylang is killed, and what must hold then; with a campaign of its own.

Two policies change places. Packets are thrown all the while: some that both let pass, some that one
of them does, some that neither does. What is in force is told by them, once before anything can
have been mended and once afterwards. It knows nothing of how rules are loaded.

`python -m tests.kernel.faults --seconds 600` goes on where `make test` stops.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.backends.nft_station import (
    ETHERTYPES,
    FAR_MAC,
    NEAR_MAC,
    Hook,
    Packet,
    Station,
    arriving,
    station,
)

from .applied import FAMILIES, through
from .ground import Loader, obstacle
from .killing import CHANGE, Death, Killer, Ran, Step

BOTH, ONE, OTHER, NEITHER = PORTS = (5000, 5001, 5002, 5003)

# Something for each table of both targets. Where the marks of the one met the filter of the other,
# packets would pass that neither lets pass.
COMMON = f"""
zone wan {{ interface eth0 }}
zone lan {{ interface eth1 }}
set banned = dynamic timeout 1h
deny all from banned to any
allow udp {BOTH} inbound from wan
allow udp {BOTH} from wan to lan
allow tftp inbound from wan
masquerade from lan to wan
"""
POLICIES = {
    "one": f"""{COMMON}
set hosts = 192.0.2.0/24, 2001:db8:1::/64
allow udp {ONE} inbound from hosts
allow udp {ONE} from wan to lan
dnat udp 7000 from wan to 198.51.100.2 port 7001
mark udp {NEITHER} from wan to lan as 1
allow udp {NEITHER} from wan to lan mark 2
""",
    "other": f"""{COMMON}
set hosts = 192.0.2.2, 2001:db8:1::2, 203.0.113.0/24
protect from wan against bad-flags
allow udp {OTHER} inbound from hosts
allow udp {OTHER} from wan to lan
allow sip inbound from wan
mark udp {NEITHER} from wan to lan as 2
allow udp {NEITHER} from wan to lan mark 1
""",
}
OPEN: Mapping[str | None, frozenset[int]] = {
    "one": frozenset({BOTH, ONE}),
    "other": frozenset({BOTH, OTHER}),
    None: frozenset(PORTS),  # nothing of ours
}
SWAPPED = {"one": "other", "other": "one", None: "one"}

CONFIRM_S = 60  # longer than any case takes
# Whatever is there of ours, and what is in the names of all that does not stay.
LISTINGS: Mapping[Loader, Sequence[Sequence[str]]] = {
    Loader.NFT: (("nft", "list", "tables"), ("ipset", "list", "-n")),
    **{
        loader: (
            *((f"{stem}-{flavour}-save",) for stem in ("iptables", "ip6tables")),
            *(("nft", "list", "table", "inet", "policylang"), ("ipset", "list", "-n")),
        )
        for loader, flavour in ((Loader.IPTABLES_NFT, "nft"), (Loader.IPTABLES_LEGACY, "legacy"))
    },
}
PASSING = ("policylang+", "policylang-armed.", "policylang-pending", "-new")

LONG_S = 0.01  # a program that is killed halfway

# Behind all that is ours, in a table that is not: what came, and what of it was let pass.
PROBED = f"""
table inet probed {{
  counter came {{ }}
  counter passed {{ }}
  counter leaked {{ }}
  chain before {{ type filter hook prerouting priority -190; udp dport {BOTH} counter name came; }}
  chain input {{ type filter hook input priority 20; jump behind; }}
  chain forward {{ type filter hook forward priority 20; jump behind; }}
  chain behind {{
    udp dport {BOTH} counter name passed
    iifname eth0 udp dport {NEITHER} counter name leaked
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Probed:
    """Packets so far: those that all policies allow, those of them that passed, and those that
    passed though no policy allows them."""

    came: int
    passed: int
    leaked: int


@dataclass(slots=True)
class Machine:
    """A firewall with a record of its own; `known` are the steps that commands take."""

    station: Station
    loader: Loader
    killer: Killer
    directory: Path
    environment: dict[str, str]
    known: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    _source_port: int = 10000

    @property
    def name(self) -> str:
        return self.station.inside.name

    @property
    def folder(self) -> Path:
        """Where what was applied is recorded."""
        return Path(self.environment["POLICYLANG_STATE"], "netns", self.name)

    def run(
        self,
        *arguments: str,
        death: Death | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
        **how: Any,
    ) -> Ran:
        """Carry out a command of policylang on it; `how` is as `Killer.run` takes it."""
        whole = (*arguments, "--netns", self.name)
        return self.killer.run(whole, {**self.environment, **environment}, death, **how)

    def done(self, *arguments: str) -> Ran:
        """The same, which must succeed."""
        ran = self.run(*arguments)
        assert ran.status == 0, f"{arguments} on {self.loader.value}: {ran}"
        return ran

    def applying(self, policy: str, *options: str) -> tuple[str, ...]:
        """The command that applies one of the policies."""
        file = self.directory / f"{policy}.policy"
        return ("apply", str(file), *self.loader.options, "--yes", *options)

    def status(self, **how: Any) -> tuple[Ran, dict[str, Any]]:
        """What policylang tells of it, at once and as JSON."""
        ran = self.run("status", "--json", **how)
        return ran, json.loads(ran.out) if ran.status == 0 else {}

    def state(self) -> dict[str, Any]:
        """What is recorded, without asking policylang."""
        path = self.folder / "state.json"
        recorded: dict[str, Any] = json.loads(path.read_text())["state"] if path.exists() else {}
        return recorded

    def policy_of(self, number: int | None) -> str | None:
        """Which of the policies a generation is."""
        if number is None:
            return None
        about = self.folder / "generations" / f"{number:06}" / "generation.json"
        return Path(json.loads(about.read_text())["kept"]["policy_name"]).stem

    # --- packets ------------------------------------------------------------------------------

    def open_ports(self) -> dict[str, frozenset[int]]:
        """The ports that are open, by hook and family, each seen by a connection of its own."""
        if self.station.thrown > 60000:  # of 65535 serials
            self.station.load("")
        self._source_port = 10000 + (self._source_port + 1) % 50000
        packets: list[tuple[Hook, Packet]] = []
        for family in FAMILIES:
            inbound = [arriving(family=family, ports=(self._source_port, port)) for port in PORTS]
            packets += [(Hook.INPUT, one) for one in inbound]
            packets += [(Hook.FORWARD, one) for one in through(inbound)]
        first = self.station.thrown + 1
        self.station.throw(packet for _, packet in packets)
        seen = self._seen()
        found: dict[str, set[int]] = {}
        for serial, (hook, packet) in enumerate(packets, first):
            ports = found.setdefault(f"{hook} IPv{packet.family}", set())
            if serial in seen[f"{hook}-{packet.family}"]:
                ports.add(packet.ports[1])
        return {place: frozenset(ports) for place, ports in found.items()}

    def _seen(self) -> dict[str, frozenset[int]]:
        """The serials that came by each hook, by the sets that remember them."""
        listed = self.station.inside.run(["nft", "-j", "list", "table", "inet", "seen"]).stdout
        sets = (one["set"] for one in json.loads(listed)["nftables"] if "set" in one)
        return {one["name"]: frozenset(one.get("elem", ())) for one in sets}

    def probed(self) -> Probed:
        """What came of the packets that are thrown all the while."""
        listed = self.station.inside.run(["nft", "-j", "list", "counters"]).stdout
        counted = {
            one["counter"]["name"]: one["counter"]["packets"]
            for one in json.loads(listed)["nftables"]
            if "counter" in one
        }
        return Probed(counted["came"], counted["passed"], counted["leaked"])

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Throw packets without end, to this host and through it, of both families."""
        frames = list(_frames())
        is_over = threading.Event()
        wire = self.station.wires["eth0"]

        def throw() -> None:
            while not is_over.wait(0.001):
                for frame in frames:
                    wire.send(frame)

        thread = threading.Thread(target=throw, daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()
            time.sleep(0.05)  # for what is under way

    # --- what is left -------------------------------------------------------------------------

    def left_over(self, policy: str | None) -> list[str]:
        """What is in the kernel and should not be, where that policy alone is in force."""
        script = "; ".join(" ".join(argv) for argv in LISTINGS[self.loader])
        lines = self.station.inside.run(["sh", "-c", script]).stdout.splitlines()
        ours = [line for line in lines if "policylang" in line]
        if policy is None:
            return ours
        return [line for line in ours if any(word in line for word in PASSING)]


def _frames() -> Iterator[bytes]:
    for port in (BOTH, NEITHER):
        for family in FAMILIES:
            near = arriving(family=family, ports=(9000, port))
            for packet in (near, *through([near])):
                macs = NEAR_MAC.format(0) + FAR_MAC.format(0)
                head = bytes.fromhex(macs.replace(":", ""))
                yield head + struct.pack("!H", ETHERTYPES[family]) + packet.data(0)


@contextmanager
def machine(
    loader: Loader,
    killer: Killer,
    directory: Path,
    known: dict[str, tuple[Step, ...]] | None = None,
) -> Iterator[Machine]:
    """A firewall with nothing in force; it is gone afterwards.

    `known` are the steps that commands took on another one of that loader, and take on this one.
    """
    for name, text in POLICIES.items():
        (directory / f"{name}.policy").write_text(text)
    with station() as laid:
        laid.inside.sysctl("net.ipv4.ip_forward", "1")
        laid.inside.sysctl("net.ipv6.conf.all.forwarding", "1")
        laid.nft(PROBED)
        environment = {
            "POLICYLANG_STATE": str(directory / "state"),
            "XTABLES_LOCKFILE": str(directory / f"{laid.inside.name}.lock"),
        }
        known = {} if known is None else known
        yield Machine(laid, loader, killer, directory, environment, known)


# --- what is killed ------------------------------------------------------------------------------

COMMANDS = ("apply", "arm", "confirm", "disarm", "rollback", "stop", "first")


@dataclass(frozen=True, slots=True)
class Case:
    """A command, and which policy is in force before it and after it."""

    command: str
    arguments: tuple[str, ...]
    before: str | None
    after: str | None

    @property
    def may_be_open(self) -> frozenset[int]:
        return OPEN[self.before] | OPEN[self.after]

    @property
    def must_be_open(self) -> frozenset[int]:
        return OPEN[self.before] & OPEN[self.after]


def prepared(machine: Machine, command: str) -> Case:
    """A command that can be given now, once what must precede it was done."""
    settle(machine)
    current = machine.policy_of(machine.state().get("current"))
    if command == "first" and current is not None:
        machine.done("stop", "--yes")
        current = None
    if command != "first" and current is None:
        machine.done(*machine.applying("one", "--no-confirm"))
        current = "one"
    other = SWAPPED[current]
    armed = machine.applying(other, "--confirm", f"{CONFIRM_S}s")
    match command:
        case "apply" | "first":
            return Case(command, machine.applying(other, "--no-confirm"), current, other)
        case "arm":
            return Case(command, armed, current, other)
        case "confirm":
            machine.done(*armed)
            return Case(command, ("confirm",), current, other)
        case "disarm":
            machine.done(*armed)
            return Case(command, ("rollback", "--yes"), other, current)
        case "rollback":
            back = next(iter(machine.state()["history"]), None)
            if machine.policy_of(back) != other:
                machine.done(*machine.applying(other, "--no-confirm"))
                current, other = other, current
            return Case(command, ("rollback", "--yes", "--no-confirm"), current, other)
        case "stop":
            return Case(command, ("stop", "--yes"), current, None)
        case _:
            raise AssertionError(command)


def steps_of(machine: Machine, command: str) -> tuple[Step, ...]:
    """The steps that a command takes, which is carried out once to know them."""
    if command not in machine.known:
        machine.known[command] = machine.done(*prepared(machine, command).arguments).steps
    return machine.known[command]


def settle(machine: Machine) -> None:
    """Keep what waits to be confirmed."""
    if machine.state().get("pending") is not None:
        machine.done("confirm")


# --- what must hold ------------------------------------------------------------------------------


def killed(
    machine: Machine, case: Case, death: Death, *, heeds_journal: bool = True
) -> tuple[Ran, list[str]]:
    """Give a command, kill it, and let policylang look; what of all that must hold does not."""
    ran = machine.run(*case.arguments, death=death)
    found = [f"at once: {one}" for one in _wrong_at_once(machine, case)]
    was_doing = machine.state().get("doing")
    looked, told = machine.status(heeds_journal=heeds_journal)
    if looked.status != 0:
        return ran, [*found, f"status cannot tell: {looked}"]
    found += _wrong_after(machine, case, told)
    if (was_doing is not None) != ("[recovered]" in looked.err):
        found.append(f"half done was {was_doing}, and status said: {looked.err or 'nothing'}")
    if machine.state().get("doing") is not None:
        found.append(f"still half done: {machine.state()['doing']}")
    return ran, found


def _wrong_at_once(machine: Machine, case: Case) -> Iterator[str]:
    """Before anything is mended: nothing is open that neither policy opens, and so on."""
    for place, ports in machine.open_ports().items():
        if not ports <= case.may_be_open:
            yield f"{place}: open is {sorted(ports)}"
        if not ports >= case.must_be_open:
            yield f"{place}: closed to what both allow, open is {sorted(ports)}"


def _wrong_after(machine: Machine, case: Case, told: Mapping[str, Any]) -> Iterator[str]:
    """Afterwards: exactly the old or exactly the new, as far as packets and listings tell."""
    numbers = {
        role: told[role]["generation"] if told[role] else None for role in ("current", "pending")
    }
    holds = machine.policy_of(numbers["pending"] or numbers["current"])
    if holds not in (case.before, case.after):
        yield f"{holds} is said to be in force"
    for place, ports in machine.open_ports().items():
        if ports != OPEN[holds]:
            yield f"{place}: {holds} is said to be in force, open is {sorted(ports)}"
    if told["drifted"]:
        yield "what is in force is said to have drifted"
    if numbers["pending"] is not None:
        return
    yield from (f"left over: {one}" for one in machine.left_over(holds))
    link = machine.folder / "boot"
    booted = int(link.readlink().name) if link.is_symlink() else None
    if numbers["current"] is not None and booted != numbers["current"]:
        yield f"generation {numbers['current']} is in force, a boot loads {booted}"
    if told["confirmed"] != booted:
        yield f"generation {told['confirmed']} is said to be confirmed, a boot loads {booted}"


def points(steps: Sequence[Step]) -> Iterator[Death]:
    """Before each step that changes anything, and halfway in the longer ones.

    Of programs in a row that do the same with one set after another, the first and the last.
    """
    changes = [number for number, step in enumerate(steps) if step.kind == CHANGE]
    names = ["", *(" ".join(steps[one].name.split()[:2]) for one in changes), ""]
    for place, number in enumerate(changes):
        if set(names[place : place + 3]) == {"ipset destroy"}:
            continue
        yield Death(number)
        if (steps[number].took_s or 0) > LONG_S:
            yield Death(number, (steps[number].took_s or 0) / 2)


# --- the campaign --------------------------------------------------------------------------------


def at_random(machine: Machine, chance: random.Random) -> tuple[Case, Death, list[str]]:
    """Kill a command that was drawn, at a time that was drawn."""
    command = chance.choice(COMMANDS)
    steps = steps_of(machine, command)
    case = prepared(machine, command)
    step = chance.randrange(len(steps))
    after_s = chance.choice((0.0, chance.uniform(0, steps[step].took_s or 0.02)))
    death = Death(step, after_s)
    _, found = killed(machine, case, death)
    return case, death, found


def main() -> int:
    """Kill until the time is up; print what did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.faults")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--way", choices=[one.value for one in Loader], action="append")
    chosen = parser.parse_args()
    reason = obstacle()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chance = random.Random(chosen.seed)
    tally: Counter[str] = Counter()
    wrong = 0
    loaders = [Loader(one) for one in chosen.way or [one.value for one in Loader]]
    give_up = time.monotonic() + chosen.seconds
    with tempfile.TemporaryDirectory() as directory, Killer(Path(directory)) as killer:
        while time.monotonic() < give_up:
            loader = chance.choice(loaders)
            with machine(loader, killer, _folder(directory, loader)) as made:
                for _ in range(15):
                    case, death, found = at_random(made, chance)
                    tally[f"{loader.value} {case.command}"] += 1
                    if found:
                        wrong += 1
                        told = "\n  ".join(found)
                        print(f"{loader.value}: {case} {death}\n  {told}", flush=True)
                        break
                    if time.monotonic() > give_up:
                        break
    for what, count in sorted(tally.items()):
        print(f"{count:6} {what}")
    print(f"{sum(tally.values())} kills, {wrong} of them left what must not be")
    return 1 if wrong else 0


def _folder(directory: str, loader: Loader) -> Path:
    folder = Path(tempfile.mkdtemp(dir=directory, prefix=loader.value))
    return folder


if __name__ == "__main__":
    sys.exit(main())
