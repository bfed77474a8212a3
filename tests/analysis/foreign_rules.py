"""Foreign rules of iptables on the firewalls of the differential tests, and what they do there.

A ruleset is a file of `foreign_iptables`: a sentence, and the texts for each program under
headings. It is loaded as it stands; what the kernel does with each probe is compared with what the
machine says that was read from the text, and from the kernel's listing of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from policylang.analysis.machine import (
    AddTo,
    Condition,
    ConnectionMarkIs,
    CopyMark,
    Goto,
    Hook,
    InSet,
    Machine,
    MarkIs,
    MaskIs,
    OwnerIs,
    Return,
)
from policylang.analysis.reading_iptables import read_iptables
from policylang.ir import actions as ir
from policylang.model.types import Answer
from policylang.packets.fields import Field, State
from policylang.packets.values import V6_BASE, name_range, parse_one_address
from tests.differential.arena import Firewall, connect, subprocess_output
from tests.differential.campaign import packet_of
from tests.differential.compiling import resolved
from tests.differential.loading import Way, wipe
from tests.differential.lowering import fields_of
from tests.differential.probes import Volley, aimed_at
from tests.reference.interpreter import Packet

RULESETS = sorted((Path(__file__).parent / "foreign_iptables").glob("*.txt"))

# What the probes are about: the rulesets speak of the same addresses, ports and types.
AIM = """
zone wan { interface "wan0" }
zone lan { interface "lan*" }
zone dmz { interface "dmz0" }
set some = 192.0.2.0/25, 198.51.100.64-198.51.100.70, 10.1.2.0/24, 2001:db8:2::/65, fd00:1::/64
set one = 192.0.2.7, 203.0.113.9, 2001:db8:2::7, 2001:db8:113::9
allow tcp 22, 80-90, 443, 1000-2000 from some to any
allow tcp 22, 443 from one to any
allow udp 53, 69, 5060, 1000-2000 from any to some
allow udp 53, 1000-2000 from one to one
allow tcp 22, udp 53, sctp 22, dccp 22, protocol gre, protocol 89 from some to one
allow ftp, tftp, sip from any to some
allow ftp inbound from one
allow tftp outbound to one
allow icmp 8, 3, 11, 0, icmpv6 128, 129, 1, 2, 135 from any to any
allow tcp 22, 80 inbound mac 02:00:00:00:02:01
allow tcp 22, 80 from some to any size 60-100 source port 1000-2000, 5000
allow udp 53 from ::7/-64 to any
protect from wan against bad-flags
default deny inbound
"""
PROBES = 700
SEED = 7

NO_NAME = name_range("")[0]
OF_CONNECTIONS = (Field.ORIG_DADDR, Field.ORIG_DPORT, Field.CT_DIRECTION)

Fate = tuple[bool, Answer | None]  # whether a probe passes, and how it is answered


@dataclass(frozen=True, slots=True)
class Foreign:
    """The texts of a file: rules for each family, and ipsets."""

    v4: str
    v6: str
    ipsets: str

    @classmethod
    def of(cls, path: Path) -> Foreign:
        parts = {"v4": "", "v6": "", "ipsets": ""}
        under: tuple[str, ...] = ()
        for line in path.read_text().splitlines(keepends=True):
            if line.startswith("== "):
                heading = line[3:].strip()
                under = ("v4", "v6") if heading == "both" else (heading,)
                continue
            for part in under:
                parts[part] += line
        return cls(**parts)

    @property
    def machine(self) -> Machine:
        return read_iptables(self.v4, self.v6, self.ipsets)


@dataclass(frozen=True, slots=True)
class Shot:
    """The probes, and what the kernel says of those that reach a hook, by their serials."""

    volley: Volley
    packets: Mapping[int, Packet]


def shot_at(control: Firewall) -> Shot:
    """What each probe is where there are no rules."""
    volley = aimed_at(resolved(AIM), PROBES, Random(SEED))
    connect(control, volley.connections)
    control.throw(list(enumerate(volley.probes, 1)))
    facts = control.facts()
    control.forget()
    found = {
        serial: packet_of(volley.probes[serial - 1], found, volley.connections)
        for serial, found in facts.items()
    }
    return Shot(volley, found)


def listed(way: Way, target: Firewall) -> Foreign:
    """What the kernel has, as the programs list it."""
    v4, v6 = (
        subprocess_output(target.namespace, [tool.replace("-restore", "-save")])
        for tool in way.tools
    )
    return Foreign(v4, v6, subprocess_output(target.namespace, ["ipset", "save"]))


def load(way: Way, foreign: Foreign, target: Firewall) -> None:
    """Load the texts in place of what is there; raises `CommandError`."""
    wipe(way, target)
    if foreign.ipsets:
        subprocess_output(target.namespace, ["ipset", "restore"], foreign.ipsets)
    for tool, text in zip(way.tools, (foreign.v4, foreign.v6), strict=True):
        if text:
            subprocess_output(target.namespace, [tool, "--wait=20"], text)


def fates(target: Firewall, shot: Shot, serials: Sequence[int]) -> dict[int, Fate]:
    """What becomes of probes at the rules that are loaded."""
    connect(target, shot.volley.connections)
    target.throw([(serial, shot.volley.probes[serial - 1]) for serial in serials])
    outcome = target.outcome()
    target.forget()
    return {s: (s in outcome.passed, outcome.answers.get(s)) for s in serials}


def members_of(foreign: Foreign) -> dict[str, set[tuple[int, ...]]]:
    """The addresses in sets of hosts, and the ports in bitmaps, for questions about them."""
    found: dict[str, set[tuple[int, ...]]] = {}
    for line in foreign.ipsets.splitlines():
        words = line.split()
        if words[:1] == ["add"] and (words[2].isdigit() or parse_one_address(words[2])):
            number = parse_one_address(words[2])
            held = int(words[2]) if number is None else number
            found.setdefault(words[1], set()).add((held,))
    return found


# --- what a machine says --------------------------------------------------------------------------


@dataclass(slots=True)
class Judge:
    """Leads packets one by one through the filters of a machine; it knows no more than is tested.

    `members` are what is in sets.
    """

    machine: Machine
    members: Mapping[str, set[tuple[int, ...]]]
    packet: dict[Field, int] = field(default_factory=dict)
    mark: int = 0
    connection_mark: int = 0
    owner: tuple[int | None, int | None] = (None, None)

    def verdict(self, packet: Packet) -> ir.Action:
        """`Accept`, `Drop` or `Reject`."""
        self.packet = dict(fields_of(packet))
        self.packet[Field.EXPECTED] = int(packet.helper is not None)
        for name in (Field.CT_HELPER, Field.IIF, Field.OIF):
            self.packet.setdefault(name, NO_NAME)
        if packet.is_reply:  # the client dialled the address that this comes from
            self.packet[Field.ORIG_DADDR] = self.packet[Field.SADDR]
            if packet.ports:
                self.packet[Field.ORIG_DPORT] = self.packet[Field.SPORT]
        if packet.state in (State.INVALID, State.UNTRACKED):
            self._without_connection()
        self.mark, self.connection_mark = packet.mark, 0
        self.owner = packet.user, packet.group
        if packet.iif is None:
            hooks: tuple[Hook, ...] = (Hook.OUTPUT,)
        else:
            hooks = (Hook.PREROUTING, Hook.FORWARD if packet.oif else Hook.INPUT)
        for hook in hooks:
            for base in self.machine.on(hook):
                if packet.family not in base.families:
                    continue
                found = self._chain(base.chain)
                if isinstance(found, ir.Drop | ir.Reject):
                    return found
                if base.drops and not isinstance(found, ir.Accept):
                    return ir.Drop()
        return ir.Accept()

    def _without_connection(self) -> None:
        for f in OF_CONNECTIONS:
            self.packet.pop(f, None)
        self.packet |= {Field.EXPECTED: 0, Field.CT_HELPER: NO_NAME}

    def _chain(self, name: str) -> ir.Action | None:
        for line in self.machine.chains[name]:
            if not any(cube.holds(self.packet) for cube in line.cubes):
                continue
            if not all(self._holds(condition) for condition in line.conditions):
                continue
            match line.act:
                case ir.Accept() | ir.Drop() | ir.Reject() as act:
                    return act
                case ir.Jump(chain):
                    found = self._chain(chain)
                    if found is not None:
                        return found
                case Goto(chain):
                    return self._chain(chain)
                case Return():
                    return None
                case ir.SetMark(value, mask):
                    self.mark = self.mark & ~mask | value
                case ir.SetConnectionMark(value, mask):
                    if Field.CT_DIRECTION in self.packet:
                        self.connection_mark = self.connection_mark & ~mask | value
                case CopyMark(to_connection, mask):
                    self._copy(mask, to_connection=to_connection)
                case ir.Untrack():
                    self.packet[Field.CT_STATE] = State.UNTRACKED
                    self._without_connection()
                case ir.Log() | ir.AssignHelper() | AddTo():
                    pass
                case _:
                    raise AssertionError(line)
        return None

    def _copy(self, mask: int, *, to_connection: bool) -> None:
        if Field.CT_DIRECTION not in self.packet:
            return
        if to_connection:
            self.connection_mark = self.connection_mark & ~mask | self.mark & mask
        else:
            self.mark = self.mark & ~mask | self.connection_mark & mask

    def _holds(self, condition: Condition) -> bool:
        match condition.question:
            case MarkIs(value, mask):
                found = self.mark & mask == value
            case ConnectionMarkIs(value, mask):
                found = self.connection_mark & mask == value
            case OwnerIs(kind, ids):
                number = self.owner[0 if kind == "user" else 1]
                found = number is not None and number in ids
            case InSet(name, fields):
                values = tuple(self.packet.get(f, -1) for f in fields)
                found = values in self.members.get(name, set())
            case MaskIs(place, value, mask):
                number = self.packet[place]
                found = number >= V6_BASE and (number - V6_BASE) & mask == value
            case _:
                raise AssertionError(condition)
        return found is condition.holds
