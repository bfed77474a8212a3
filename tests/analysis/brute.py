"""Brute force against decision diagrams: packet by packet, over small worlds and random rules.

Each function looks at one world and returns how many packets it compared; an AssertionError says
what differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, product
from random import Random

from policylang.analysis.machine import Base
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.actions import Guard
from policylang.ir.ruleset import Ruleset
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.optimise import optimise
from policylang.packets.cube import Packet as Values
from policylang.packets.fields import TCP, AddressType, Field, State
from tests.analysis.diagrams import ABSENT, Diagrams, Said
from tests.differential.arena import INTERFACES, Facts
from tests.differential.campaign import packet_of
from tests.differential.compiling import RefusedError, resolved
from tests.differential.frames import ACK, Probe
from tests.differential.lowering import PATHS, REFUSED, fields_of
from tests.differential.policies import random_policy
from tests.differential.probes import BROADCASTS, OWN_ADDRESSES, Volley, aimed_at
from tests.passes.rulesets import made, packets
from tests.properties.evaluate import Tags, World, evaluate
from tests.reference.interpreter import MULTICAST, Moment, Packet, decide

NOW = datetime(2026, 11, 18, 10, 30, tzinfo=UTC)

# How many values of each kind a grid has: all combinations of them are looked at.
GRID_ADDRESSES, GRID_TRAFFIC, GRID_INTERFACES = 4, 5, 2
STATES = (State.NEW, State.NEW, State.INVALID, State.UNTRACKED)


# --- random rulesets --------------------------------------------------------------------------


def ruleset_by_packets(seed: int, count: int) -> int:
    """A random ruleset: what each packet meets in each base chain, in order."""
    random = Random(seed)
    ruleset = made(seed)
    if random.random() < 0.5:
        ruleset = optimise(ruleset, Report())
    diagrams = Diagrams(ruleset)
    tags = Tags(random.choice((0, 1, 2, 0x11)), now=NOW, within_rates=random.random() < 0.7)
    compared = 0
    for packet in packets(ruleset, random, count):
        whole = {**dict.fromkeys(ABSENT, 0), Field.CT_STATE: State.NEW, **packet}
        members = {"seen": frozenset({packet[f] for f in packet if f.name == "SADDR"})}
        world = World(members if random.random() < 0.3 else {})
        for base in diagrams.follower.machine.bases:
            if base.is_nat and whole.get(Field.CT_STATE) == State.UNTRACKED:
                continue  # what conntrack does not see is not translated
            _compare_base(diagrams, base, whole, tags, world)
            compared += 1
    return compared


def _compare_base(diagrams: Diagrams, base: Base, packet: Values, tags: Tags, world: World) -> None:
    ruleset = diagrams.ruleset
    source = next(b for b in ruleset.bases if b.chain == base.chain)
    told = {**packet, **_tests(ruleset, packet, world)}
    fate = evaluate(ruleset, source.stage, source.path, told, guards_hold=_holding(tags))
    reading = diagrams.follower.read(base, diagrams.only(told, tags, world, is_told=True))
    met = [m.line.act for m in reading.met if isinstance(m.line.act, ir.Action)]
    acts = [act for act in met if not isinstance(act, ir.Jump)]
    expected = [
        *(effect for effect in fate.effects if not isinstance(effect, ir.Native)),
        *(() if fate.action is None else (fate.action,)),
    ]
    # What comes first stays; whether the stage ends with it is a target's own business.
    last = next((n for n, act in enumerate(acts, 1) if isinstance(act, FIRST_STAYS)), None)
    assert acts[:last] == expected, (packet, tags, acts, expected)
    if last is not None:
        return
    is_denied = isinstance(fate.action, ir.Drop | ir.Reject)
    assert bool(reading.denied) == is_denied, (packet, fate)
    assert bool(reading.passed) != is_denied, (packet, fate)


FIRST_STAYS = (ir.AssignHelper, ir.Untrack)


def _tests(ruleset: Ruleset, packet: Values, world: World) -> Values:
    """The answers to address tests: as the packet says them, else as the world does."""
    addresses = {f: v for f, v in packet.items() if f.name in ("SADDR", "DADDR")}
    if len(addresses) < 2:
        return {}
    return {f: v for f, v in world.tested(ruleset, packet).items() if f not in packet}


def _holding(tags: Tags) -> Callable[[Guard], bool]:
    def holds(guard: Guard) -> bool:
        if isinstance(guard, ir.OwnerGuard) and guard.names:
            return False  # who is called so nobody says
        return tags.meet(guard)

    return holds


# --- random policies --------------------------------------------------------------------------


def policy_by_grid(seed: int, most: int) -> int:
    """A random policy: the fate of every packet of a grid, as the interpreter reads the policy."""
    random = Random(seed)
    read = readable(seed)
    if read is None:
        return 0
    policy, ruleset = read
    diagrams = Diagrams(ruleset)
    volley = aimed_at(policy, 40, random)
    within = random.random() < 0.8
    moment = Moment(volley.members, NOW, within)
    compared = 0
    for packet in islice(_grid(volley, random), most):
        compare_with_interpreter(diagrams, policy, packet, moment)
        compared += 1
    return compared


def readable(seed: int) -> tuple[Policy, Ruleset] | None:
    """A random policy and its optimised rules; None where the compiler refuses it."""
    try:
        policy = resolved(random_policy(Random(seed)))
    except RefusedError:
        return None
    report = Report()
    lowered = lower(policy, report)
    if any(d.code in REFUSED for d in report.diagnostics):
        return None
    return policy, optimise(lowered, Report())


def compare_with_interpreter(
    diagrams: Diagrams, policy: Policy, packet: Packet, moment: Moment
) -> Said:
    """What diagrams say of a packet, which is what the policy says."""
    said = said_of(diagrams, packet, moment)
    verdict = decide(policy, packet, moment)
    assert said.accepts == verdict.accepted, (said, verdict, packet)
    answer = said.action.answer.value if isinstance(said.action, ir.Reject) else None
    told = verdict.answer.value if verdict.answer is not None else None
    assert answer == told, (said, verdict, packet)
    return said


def said_of(diagrams: Diagrams, packet: Packet, moment: Moment) -> Said:
    """What diagrams say of a packet: all packets at once where nothing changes them on the way."""
    tags = Tags(packet.mark, packet.user, packet.group, moment.now, moment.within_rates)
    members = {
        name: frozenset(int(a) + (1 << 128 if a.version == 6 else 0) for a in held)
        for name, held in moment.members.items()
    }
    path, values = PATHS[packet.direction], fields_of(packet)
    world = World(members)
    if diagrams.changes_packets:
        return diagrams.fate(path, values, tags, world)
    return diagrams.fate_of_all(path, values, tags, world)


def _grid(volley: Volley, random: Random) -> Iterator[Packet]:
    """All packets of a few addresses, interfaces and kinds of traffic that a policy speaks of."""
    aimed = list(volley.probes)
    random.shuffle(aimed)
    for family in (4, 6):
        of_it = [p for p in aimed if p.family == family]
        sources = list(dict.fromkeys(p.source for p in of_it))[:GRID_ADDRESSES]
        targets = list(dict.fromkeys(p.destination for p in of_it))[: GRID_ADDRESSES - 1]
        targets += random.sample(OWN_ADDRESSES[family], 1)
        traffic = list({(p.protocol, p.ports[1], p.icmp_type): p for p in of_it}.values())
        ways = [None, *random.sample(INTERFACES, GRID_INTERFACES)]
        for probe, source, target, way_in, way_out, state in product(
            traffic[:GRID_TRAFFIC], sources, targets, ways, ways, dict.fromkeys(STATES)
        ):
            one = replace(probe, source=source, destination=target, way_in=way_in, quoted=None)
            found = _packet(one, way_out, state)
            if found is not None:
                yield found


def _packet(probe: Probe, way_out: str | None, state: State) -> Packet | None:
    """A probe in a state, as the kernel might meet it; None where it cannot."""
    kind = AddressType.UNICAST
    if probe.destination in OWN_ADDRESSES[probe.family]:
        kind = AddressType.LOCAL
    elif probe.destination in BROADCASTS:
        kind = AddressType.BROADCAST
    elif any(probe.destination in network for network in MULTICAST):
        kind = AddressType.MULTICAST
    is_delivered = probe.way_in is not None and kind is not AddressType.UNICAST
    if (way_out is None) != is_delivered:
        return None
    if probe.way_in is None and kind is AddressType.LOCAL:
        way_out = "lo"
    if probe.protocol == TCP and state is State.INVALID:
        probe = replace(probe, tcp_flags=ACK)
    is_own = probe.source in OWN_ADDRESSES[probe.family]
    facts = Facts(
        probe.way_in,
        way_out,
        state,
        kind,
        AddressType.LOCAL if is_own else AddressType.UNICAST,
        False,
        True,
    )
    probe = replace(probe, owner_number=probe.owner_number if probe.way_in is None else 0)
    return packet_of(probe, facts, ())
