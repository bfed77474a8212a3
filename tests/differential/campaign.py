"""Random policies, compiled and loaded, against what LANGUAGE.md says of each probe.

A policy is compiled in this process, loaded in three firewalls, and shot at together with a
fourth one that has no rules and tells what each probe is. Whatever differs from the reference
interpreter is tried again by itself before it counts.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from random import Random

from policylang.backends.base import Artifact
from policylang.model.policy import Policy, Protection
from policylang.model.types import Answer, Conditions, Direction, Verb
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP, AddressType, State
from policylang.proving.octets import HAS_PORTS
from tests.differential import conntrack
from tests.differential.arena import ANCHORS, Facts, Firewall, connect, firewall, sender_mac
from tests.differential.compiling import RefusedError, compiled
from tests.differential.conntrack import Connection, Flow
from tests.differential.frames import MARKS, OWNERS, Probe, packet_bytes
from tests.differential.loading import Way, fill, held, load, wipe
from tests.differential.policies import random_policy
from tests.differential.probes import (
    BROADCASTS,
    OWN_ADDRESSES,
    Volley,
    aimed_at,
    asking_for_helpers,
)
from tests.kernel.ground import CommandError
from tests.reference.interpreter import LOOPBACK, Moment, Packet, Verdict, decide, helpers_due

STORY_CHARACTERS = 300  # of a loader's complaint, which goes on with the whole input
# RFC 4291 section 2.6.1: the first address of a network, which here end in so many zeros, is
# every router's; Linux takes that of each route for one.
ROUTERS_ANYCAST = bytes(2)
HELPER_PROBES = 60
ATTEMPTS = 3  # a lost frame is no verdict
VOLLEY_TIME = timedelta(minutes=2)  # what a policy's probes take at the most


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a probe in the kernel; `answer` where one was sent."""

    accepted: bool
    answer: Answer | None

    def __str__(self) -> str:
        if self.accepted:
            return "accepted" if self.answer is None else f"accepted and answered {self.answer}"
        return "dropped" if self.answer is None else f"rejected with {self.answer}"

    def fits(self, verdict: Verdict, packet: Packet, probe: Probe) -> bool:
        """Whether it is what the interpreter says; not every reject is answered by the kernel."""
        if self.accepted != verdict.accepted:
            return False
        if self.answer is None and not _must_be_answered(packet, probe):
            return True
        return self.answer == verdict.answer


def _must_be_answered(packet: Packet, probe: Probe) -> bool:
    """Whether a packet is one that the kernel answers when it is rejected.

    It sends no errors about broken packets, groups, errors and strange sources (RFC 1122 section
    3.2.2, RFC 4443 section 2.4), and what this host sends itself is answered over loopback.
    """
    return (
        packet.direction is not Direction.OUTBOUND
        and packet.state in (State.NEW, State.RELATED)
        and packet.protocol in (TCP, UDP)
        and packet.destination_type in (AddressType.UNICAST, AddressType.LOCAL)
        and any(packet.source in ip_network(anchor) for anchor in ANCHORS)
        and packet.source not in OWN_ADDRESSES[packet.family]
        and packet.source not in BROADCASTS
        and not (packet.family == 6 and packet.source.packed.endswith(ROUTERS_ANYCAST))
        and not probe.broken
    )


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A probe that the kernel treats otherwise than the interpreter says."""

    seed: int
    way: Way
    policy: str
    probe: Probe
    packet: Packet
    verdict: Verdict
    fate: Fate
    volley: Volley  # what was there: connections, and members of sets

    def __str__(self) -> str:
        said = Fate(self.verdict.accepted, self.verdict.answer)
        return (
            f"seed {self.seed}, {self.way.name}: the kernel has {self.fate} what should be {said} "
            f"({self.verdict.because})\n{self.packet}\n{self.probe}\n{self.policy}"
        )


@dataclass(frozen=True, slots=True)
class Failure:
    """A policy on which the compiler failed, or whose files were refused by the loader."""

    seed: int
    policy: str
    story: str
    way: Way | None = None

    @property
    def kind(self) -> str:
        """What failures of one cause have in common: the first line without the values in it, of
        a traceback the last two.
        """
        lines = self.story.strip().splitlines()
        if lines[0].startswith("Traceback"):
            return lines[-2] + lines[-1].partition(":")[0]
        return re.sub(r"[0-9]+|'[^']*'", "", lines[0])

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.story}\n{self.policy}"


@dataclass(slots=True)
class Tally:
    """What was tried; `reached` counts the probes that came to a hook, by path and state."""

    policies: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    thrown: int = 0
    reached: Counter[tuple[str, str]] = field(default_factory=Counter)
    accepted: int = 0
    rejected: int = 0
    helped: int = 0
    added: int = 0
    discrepancies: list[Discrepancy] = field(default_factory=list)

    @property
    def judged(self) -> int:
        return self.reached.total()

    def __str__(self) -> str:
        kinds = ", ".join(f"{p} {s} {n}" for (p, s), n in sorted(self.reached.items()))
        return (
            f"{self.policies} policies ({len(self.refused)} more refused), {self.thrown} probes, "
            f"{self.judged} judged, {self.accepted} of them to be accepted, "
            f"{self.rejected} rejected, {self.helped} tried for helpers, {self.added} put into "
            "sets\n"
            f"{kinds}\n"
            f"{len(self.failures)} failures, {len(self.discrepancies)} discrepancies"
        )


@dataclass(slots=True)
class Range:
    """The firewalls that are shot at."""

    control: Firewall
    targets: Mapping[Way, Firewall]

    def judge(
        self,
        policy: Policy,
        volley: Volley,
        artifacts: Mapping[Way, Artifact],
        tally: Tally,
        text: str,
        seed: int,
    ) -> None:
        """Load, shoot and compare; what differs goes into the tally."""
        numbered = dict(enumerate(volley.probes, 1))
        packets = self.packets(volley)
        verdicts = verdicts_of(policy, packets, volley)
        tally.policies += 1
        tally.thrown += len(numbered)
        tally.accepted += sum(v.accepted for v in verdicts.values())
        tally.rejected += sum(v.answer is not None for v in verdicts.values())
        for serial in verdicts:
            packet = packets[serial]
            tally.reached[packet.direction.value, packet.state.name.lower()] += 1
        for way, artifact in artifacts.items():
            try:
                wrong = self.wrong_ones(way, artifact, volley, packets, verdicts)
            except CommandError as refusal:
                story = f"{way.name}: {refusal}".replace("\n", " ")[:STORY_CHARACTERS]
                tally.failures.append(Failure(seed, text, story, way))
                continue
            self.judge_sets(way, verdicts, tally, text, seed)
            self.judge_helpers(way, policy, tally, text, seed)
            for serial, fate in sorted(wrong.items()):
                tally.discrepancies.append(
                    Discrepancy(
                        seed,
                        way,
                        text,
                        numbered[serial],
                        packets[serial],
                        verdicts[serial],
                        fate,
                        Volley([], volley.connections, volley.members),
                    )
                )

    def judge_sets(
        self,
        way: Way,
        verdicts: Mapping[int, Verdict],
        tally: Tally,
        text: str,
        seed: int,
    ) -> None:
        """Whether sets hold what rules put there, in what is loaded now.

        They may hold more, of the packets that the firewall sends of its own. No ipset of hosts
        takes the address 0.
        """
        added = {
            pair
            for verdict in verdicts.values()
            for pair in verdict.adds
            if not pair[1].is_unspecified
        }
        tally.added += len(added)
        for name in {name for name, _ in added}:
            wanted = {address for to, address in added if to == name}
            missing = wanted - held(way, name, self.targets[way])
            if missing:
                story = f"{way.name}: a set lacks members\n{name}: {sorted(map(str, missing))}"
                tally.failures.append(Failure(seed, text, story, way))

    def judge_helpers(self, way: Way, policy: Policy, tally: Tally, text: str, seed: int) -> None:
        """Whether connections get the helpers that are due to them, in what is loaded now."""
        volley = asking_for_helpers(policy, HELPER_PROBES, Random(seed))
        tally.helped += len(volley.probes)
        if volley.probes:
            for packet, found in self.wrongly_helped(way, policy, volley).values():
                due = helpers_due(policy, packet, moment_of(volley))
                what = "has no helper" if found is None else "has a helper that is not due"
                story = f"{way.name}: a connection {what}\nhas {found}, due {set(due)}: {packet}"
                tally.failures.append(Failure(seed, text, story, way))

    def packets(self, volley: Volley) -> dict[int, Packet]:
        """What the probes are, by serial; those that reach no hook are left out."""
        connect(self.control, volley.connections)
        self.control.throw(list(enumerate(volley.probes, 1)))
        facts = self.control.facts()
        self.control.forget()
        return {
            serial: packet_of(volley.probes[serial - 1], found, volley.connections)
            for serial, found in facts.items()
        }

    def wrong_ones(
        self,
        way: Way,
        artifact: Artifact,
        volley: Volley,
        packets: Mapping[int, Packet],
        verdicts: Mapping[int, Verdict],
    ) -> dict[int, Fate]:
        """The serials whose fate in the kernel is never what it should be, and that fate."""
        target = self.targets[way]
        wipe(way, target)
        load(way, artifact, target)
        fill(way, volley.members, target)
        connect(target, volley.connections)
        numbered = dict(enumerate(volley.probes, 1))
        wrong: dict[int, Fate] = {}
        left = sorted(verdicts)
        for _ in range(ATTEMPTS):
            target.throw([(serial, numbered[serial]) for serial in left])
            outcome = target.outcome()
            target.forget()
            fates = {s: Fate(s in outcome.passed, outcome.answers.get(s)) for s in left}
            wrong = {
                s: fate
                for s, fate in fates.items()
                if not fate.fits(verdicts[s], packets[s], numbered[s])
            }
            left = sorted(wrong)
            if not left:
                break
        return wrong

    def wrongly_helped(
        self, way: Way, policy: Policy, volley: Volley
    ) -> dict[int, tuple[Packet, str | None]]:
        """The serials of first packets whose connection gets a helper that is not due, or none.

        The policy is the one that `wrong_ones` loaded. A helper that is not due is tolerated on
        the way through, for it is assigned before the way out is known, and with it where a group
        is addressed; so it is where a rule that asks for it has a condition that is no field.
        """
        target = self.targets[way]
        numbered = dict(enumerate(volley.probes, 1))
        packets = self.packets(volley)
        connect(target, ())
        with target.letting_pass():
            target.throw(list(numbered.items()))
            helpers = conntrack.helpers(target.namespace)
        target.forget()
        wrong: dict[int, tuple[Packet, str | None]] = {}
        for serial, packet in packets.items():
            probe = numbered[serial]
            flow = Flow(probe.source, probe.destination, probe.protocol, probe.ports)
            if not _can_open(packet) or flow not in helpers:
                continue
            moment = moment_of(volley)
            if decide(policy, packet, moment).accepted:
                due, found = helpers_due(policy, packet, moment), helpers[flow]
                is_known = (
                    packet.oif != LOOPBACK
                    and (
                        packet.direction is Direction.OUTBOUND
                        or packet.destination_type is AddressType.LOCAL
                    )
                    and not _depends_on_more_than_packets(policy)
                )
                excess = found is not None and is_known
                if found not in due if due else excess:
                    wrong[serial] = (packet, found)
        return wrong


def _can_open(packet: Packet) -> bool:
    """Whether a connection comes of the packet: TCP knows no groups."""
    to_one = packet.destination_type in (AddressType.UNICAST, AddressType.LOCAL)
    return packet.state is State.NEW and (to_one or packet.protocol == UDP)


def moment_of(volley: Volley) -> Moment:
    """What is the case now, where a volley's members are in their sets."""
    return Moment(volley.members, datetime.now(UTC))


def verdicts_of(
    policy: Policy, packets: Mapping[int, Packet], volley: Volley
) -> dict[int, Verdict]:
    """What the interpreter says of each packet, as far as it holds while the volley is shot."""
    packets = {s: packet for s, packet in packets.items() if not _is_moot(packet, policy)}
    now = moment_of(volley)
    soon = replace(now, now=now.now + VOLLEY_TIME)
    found = {serial: decide(policy, packet, now) for serial, packet in packets.items()}
    return {s: v for s, v in found.items() if decide(policy, packets[s], soon) == v}


def _is_moot(packet: Packet, policy: Policy) -> bool:
    """Whether targets differ in what they know of a packet that a policy asks them about."""
    is_counted = any(rule.conditions.connections is not None for rule in policy.rules)
    is_message = packet.protocol in (ICMP, ICMPV6)
    is_tracked = packet.state not in (State.INVALID, State.UNTRACKED)
    is_open = is_message and packet.state in (State.ESTABLISHED, State.RELATED)
    if is_counted and (is_open or not is_tracked):
        # xt_connlimit drops packets for which it counts nothing: those of connections that were
        # open before, and now and then such as belong to none.
        return True
    if not any(p.protection is Protection.SPOOFING for p in policy.protections):
        return False
    # Where several IPv6 routes of one length lead to the sender any of them will do for
    # xt_rpfilter (it prefers the interface), and the best one alone for nft.
    is_anchored = any(packet.source in ip_network(anchor) for anchor in ANCHORS)
    return packet.family == 6 and not is_anchored


def _depends_on_more_than_packets(policy: Policy) -> bool:
    """Whether a rule may not match a packet that has all its fields.

    That may be one that asks for a helper, or one before it that keeps the helper away.
    """
    return any(
        replace(
            rule.conditions,
            families=None,
            ipsec=None,
            macs=None,
            source_ports=None,
            dscp=None,
            sizes=None,
        )
        != Conditions()
        for rule in policy.rules
        if rule.verb is Verb.ALLOW
    )


def packet_of(probe: Probe, facts: Facts, connections: Sequence[Connection]) -> Packet:
    """A probe as the interpreter wants it, with what the kernel says of it."""
    helper = None
    if facts.state is State.RELATED and probe.quoted is None:
        helper = next((c.helper for c in connections if is_predicted(probe, c)), None)
        assert helper is not None, f"{probe} is RELATED, and nothing predicted it: {facts}"
    icmp = probe.protocol == (ICMP if probe.family == 4 else ICMPV6)
    return Packet(
        facts.iif,
        facts.oif,
        probe.source,
        probe.destination,
        probe.protocol,
        probe.ports if probe.protocol in HAS_PORTS else None,
        probe.icmp_type if icmp else None,
        probe.hop_limit,
        facts.state,
        helper,
        facts.destination_type,
        AddressType.BROADCAST if probe.source in BROADCASTS else facts.source_type,
        facts.is_reply,
        facts.is_routed_back,
        tcp_flags=probe.tcp_flags,
        dscp=probe.dscp,
        size=len(packet_bytes(probe, 0)),
        mark=MARKS[probe.mark_number],
        mac=sender_mac(probe),
        user=None if facts.iif else OWNERS[probe.owner_number][0],
        group=None if facts.iif else OWNERS[probe.owner_number][1],
    )


def is_predicted(probe: Probe, connection: Connection) -> bool:
    """Whether it is the connection that a helper was made to predict, from whatever port."""
    flow = connection.expects
    return (
        flow is not None
        and (flow.source, flow.destination) == (probe.source, probe.destination)
        and flow.protocol == probe.protocol
        and (probe.protocol not in HAS_PORTS or flow.ports[1] == probe.ports[1])
    )


@contextmanager
def shooting_range(ways: Sequence[Way] = tuple(Way)) -> Iterator[Range]:
    """The control and a firewall for each way."""
    with ExitStack() as stack:
        control = stack.enter_context(firewall("control", with_facts=True))
        targets = {way: stack.enter_context(firewall(way.value)) for way in ways}
        yield Range(control, targets)


def run_seed(ground: Range, seed: int, probes: int, tally: Tally) -> None:
    """One random policy and its probes."""
    run_policy(ground, random_policy(Random(seed)), seed, probes, tally)


def run_policy(ground: Range, text: str, seed: int, probes: int, tally: Tally) -> None:
    """A policy, and random probes aimed at it."""
    try:
        result = compiled(text, sorted({way.target for way in ground.targets}))
    except RefusedError as refusal:
        tally.refused.append((seed, str(refusal)))
        return
    except Exception:  # a mistake of the compiler's, of whatever kind: the next seeds go on
        tally.failures.append(Failure(seed, text, traceback.format_exc()))
        return
    artifacts = {way: result.artifacts[way.target] for way in ground.targets}
    volley = aimed_at(result.policy, probes, Random(seed))
    ground.judge(result.policy, volley, artifacts, tally, text, seed)
