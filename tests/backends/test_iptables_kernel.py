"""The kernel takes what is emitted for iptables, and treats packets as the ruleset says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from policylang.backends.base import Artifact
from policylang.backends.iptables import IptablesBackend
from policylang.diagnostics import Report
from policylang.ir.actions import Accept
from policylang.ir.ruleset import Item, Lookup, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Packet
from policylang.packets.fields import DCCP, ICMP, ICMPV6, SCTP, TCP, UDP, Field
from policylang.packets.values import Ranges, format_address, name_range, parse_one_address
from tests.backends.iptables_rulesets import ADDRESSES, BESIDE, NOT_IN_RAW, assignments, filters
from tests.differential.arena import INTERFACES, Facts, Firewall, firewall
from tests.differential.frames import ACK, PROBE_DSCPS, SYN, UNTRACKED_DSCPS, Probe
from tests.differential.loading import Way, load, wipe
from tests.properties.evaluate import evaluate

FLAVOURS = (Way.IPTABLES_LEGACY, Way.IPTABLES_NFT)
PROBES = 500
RST = 0x04

few = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Arena:
    control: Firewall
    flavours: dict[Way, Firewall]


@pytest.fixture(scope="module")
def arena(kernel: None) -> Iterator[Arena]:
    with ExitStack() as stack:
        control = stack.enter_context(firewall("control", with_facts=True))
        flavours = {way: stack.enter_context(firewall(way.value)) for way in FLAVOURS}
        yield Arena(control, flavours)


def emitted(ruleset: Ruleset) -> Artifact:
    report = Report()
    artifact = IptablesBackend().emit(ruleset, report)
    assert not report.diagnostics
    return artifact


@few
@given(st.data())
def test_assignments_load(arena: Arena, data: st.DataObject) -> None:
    # Not every kernel has sets of MAC addresses, which many of them are put into.
    artifact = emitted(data.draw(assignments(NOT_IN_RAW | {Field.SMAC})))
    for way, target in arena.flavours.items():
        wipe(way, target)
        load(way, artifact, target)


# What these tests do not make the kernel say: helpers, guards, and what has tests of its own.
UNTRIED = frozenset({Field.CT_HELPER, *BESIDE})


@few
@given(st.data())
def test_forwarded_packets_pass_as_the_ruleset_says(arena: Arena, data: st.DataObject) -> None:
    ruleset = without_guards(data.draw(filters(Path.FORWARD, UNTRIED)))
    compare(arena, ruleset, Path.FORWARD, Random(data.draw(st.integers(0, 999))))


@few
@given(st.data())
def test_arriving_packets_pass_as_the_ruleset_says(arena: Arena, data: st.DataObject) -> None:
    ruleset = without_guards(data.draw(filters(Path.INPUT, UNTRIED | {Field.OIF})))
    compare(arena, ruleset, Path.INPUT, Random(data.draw(st.integers(0, 999))))


def without_guards(ruleset: Ruleset) -> Ruleset:
    def item(one: Item) -> Item:
        return one if isinstance(one, Lookup) else replace(one, guards=())

    chains = (replace(c, items=tuple(map(item, c.items))) for c in ruleset.chains)
    return replace(ruleset, chains=tuple(chains))


def compare(arena: Arena, ruleset: Ruleset, path: Path, random: Random) -> None:
    probes = dict(enumerate(random_probes(ruleset, path, random), 1))
    arena.control.throw(list(probes.items()))
    facts = arena.control.facts()
    arena.control.forget()
    packets = {
        serial: packet_of(probes[serial], found)
        for serial, found in facts.items()
        if (found.iif is None, found.oif is None) == (False, path is Path.INPUT)
    }
    assert len(packets) > PROBES / 4, "most probes reach the hook"
    wanted = {
        serial
        for serial, packet in packets.items()
        if isinstance(evaluate(ruleset, Stage.FILTER, path, packet).action, Accept)
    }
    for way, target in arena.flavours.items():
        wipe(way, target)
        load(way, emitted(ruleset), target)
        target.throw([(serial, probes[serial]) for serial in packets])
        passed = target.outcome().passed & set(packets)
        target.forget()
        wrong = {s: packets[s] for s in passed ^ wanted}
        assert not wrong, (way, emitted(ruleset).files[0].text)


# --- probes --------------------------------------------------------------------------------------

PROTOCOLS = (TCP, TCP, UDP, UDP, SCTP, DCCP, ICMP, ICMPV6, 2, 47, 89)
FOR_US = {
    4: ("198.51.100.1", "10.1.0.1", "10.1.2.1", "10.2.0.1", "224.0.0.251", "10.1.0.255"),
    6: ("2001:db8:51::1", "fd00:1::1", "2001:db8:2::1", "ff02::fb"),
}


def random_probes(ruleset: Ruleset, path: Path, random: Random) -> Sequence[Probe]:
    """Probes with values at, and next to, the ends of the ruleset's ranges."""
    edges: dict[Field, list[int]] = {f: [] for f in Field}
    for chain in ruleset.chains:
        for item in chain.items:
            for field, values in terms(item):
                for low, high in values:
                    edges[field] += (low, low, high, low - 1, high + 1)
    edges[Field.SADDR] += (low for low, _ in ADDRESSES)
    edges[Field.DADDR] += (low for low, _ in ADDRESSES)

    def near(field: Field, *others: int, most: int = 65535) -> int:
        numbers = [n for n in edges[field] if 0 <= n <= most]
        return random.choice([*numbers, *others] if numbers else others)

    def address(field: Field, family: int) -> str:
        if field is Field.DADDR and path is Path.INPUT and random.random() < 0.9:
            return random.choice(FOR_US[family])
        texts = [format_address(n) for n in edges[field] if is_address(n)]
        return random.choice([text for text in texts if (":" in text) == (family == 6)])

    found: list[Probe] = []
    while len(found) < PROBES:
        family = random.choice((4, 6))
        protocol = random.choice(PROTOCOLS)
        if protocol == (ICMPV6 if family == 4 else ICMP) or (protocol == 2 and family == 6):
            continue
        is_echo = random.random() < 0.5
        types = Field.ICMP_TYPE if family == 4 else Field.ICMPV6_TYPE
        found.append(
            Probe(
                random.choice(INTERFACES),
                None,
                ip_address(address(Field.SADDR, family)),
                ip_address(address(Field.DADDR, family)),
                protocol,
                (near(Field.SPORT, 1024, 80), near(Field.DPORT, 22, 81, 1001)),
                icmp_type=(8 if family == 4 else 128) if is_echo else near(types, 3, 133, most=255),
                hop_limit=max(2, near(Field.HOP_LIMIT, 64, 255, most=255)),
                tcp_flags=random.choice((SYN, SYN, RST, ACK, ACK | RST)),
                dscp=random.choice((*PROBE_DSCPS, UNTRACKED_DSCPS[0])),
            )
        )
    return found


def terms(item: Item) -> Iterator[tuple[Field, Ranges]]:
    yield from item.cube
    if isinstance(item, Lookup):
        for entry in item.entries:
            for field, pair in zip(item.fields, entry.key, strict=True):
                yield field, Ranges((pair,))


def is_address(number: int) -> bool:
    return 0 <= number < 1 << 32 or 1 << 128 <= number < 1 << 129


def packet_of(probe: Probe, facts: Facts) -> Packet:
    def number(text: object) -> int:
        found = parse_one_address(str(text))
        assert found is not None
        return found

    packet = {
        Field.FAMILY: probe.family,
        Field.SADDR: number(probe.source),
        Field.DADDR: number(probe.destination),
        Field.DADDR_TYPE: int(facts.destination_type),
        Field.CT_STATE: int(facts.state),
        Field.L4PROTO: probe.protocol,
    }
    for field, name in ((Field.IIF, facts.iif), (Field.OIF, facts.oif)):
        if name is not None:
            packet[field] = name_range(name)[0]
    if probe.family == 6:
        # The kernel counts the hop before it asks what may be forwarded (ip6_forward).
        packet[Field.HOP_LIMIT] = probe.hop_limit - (facts.oif is not None)
    if probe.protocol in (TCP, UDP, SCTP, DCCP):
        packet[Field.SPORT], packet[Field.DPORT] = probe.ports
    if probe.protocol == TCP:
        packet[Field.TCP_FLAGS] = probe.tcp_flags
    if probe.protocol == ICMP:
        packet[Field.ICMP_TYPE] = probe.icmp_type
    if probe.protocol == ICMPV6:
        packet[Field.ICMPV6_TYPE] = probe.icmp_type
    return packet
