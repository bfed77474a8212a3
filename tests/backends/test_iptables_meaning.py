"""What is emitted for iptables means what the ruleset means, packet by packet."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, groupby

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policylang.backends.iptables import IptablesBackend
from policylang.diagnostics import Report
from policylang.ir.actions import (
    Accept,
    Action,
    Answer,
    AssignHelper,
    Drop,
    Leave,
    Log,
    MapPrefix,
    Masquerade,
    Reject,
    SetConnectionMark,
    SetDscp,
    SetMark,
    SourceNat,
)
from policylang.ir.ruleset import Base, Chain, Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EMPTY, EVERYTHING, Cube
from policylang.packets.fields import TCP, UDP, UNIVERSE, AddressType, Field, with_flags
from policylang.packets.values import V6_BASE, Ranges, format_address, name_range
from tests.backends.iptables_reading import Table, jumps, outcome, read_rules, read_sets
from tests.backends.iptables_rulesets import (
    KEPT,
    NOT_IN_RAW,
    TESTS,
    assignments,
    cubes,
    filters,
    lookups,
    packets,
    rules,
    treatments,
)
from tests.properties.evaluate import evaluate

ANSWERS = {
    4: {
        Answer.TCP_RESET: "tcp-reset",
        Answer.PORT_UNREACHABLE: "icmp-port-unreachable",
        Answer.ADMIN_PROHIBITED: "icmp-admin-prohibited",
    },
    6: {
        Answer.TCP_RESET: "tcp-reset",
        Answer.PORT_UNREACHABLE: "icmp6-port-unreachable",
        Answer.ADMIN_PROHIBITED: "icmp6-adm-prohibited",
    },
}


def compiled(ruleset: Ruleset) -> dict[int, dict[str, Table]]:
    """The tables by family, read back."""
    report = Report()
    artifact = IptablesBackend().emit(ruleset, report)
    assert not report.diagnostics
    written = artifact.file("sets.ipset")
    sets = read_sets(written.text if written else "")
    tables: dict[int, dict[str, Table]] = {}
    for family, name in ((4, "rules.v4"), (6, "rules.v6")):
        file = artifact.file(name)
        assert file is not None
        tables[family] = read_rules(file.text, sets)
        for table in tables[family].values():
            assert set(table.chains) == set(jumps(table)), "chains that nothing leads to, or none"
    return tables


def verdict(action: Action | None, family: int) -> str | None:
    match action:
        case Accept():
            return "ACCEPT"
        case Drop():
            return "DROP"
        case Reject(answer):
            return ANSWERS[family][answer]
        case _:
            return None


def log_options(log: Log) -> list[str]:
    if log.group is not None:
        return ["NFLOG", "--nflog-group", str(log.group), "--nflog-prefix", log.prefix]
    level = ["--log-level", log.level] if log.level else []
    return ["LOG", "--log-prefix", log.prefix, *level]


thorough = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def assert_same(ruleset: Ruleset, packets: list[dict[Field, int]]) -> None:
    """Every packet that is forwarded meets the same verdict and writes the same logs."""
    tables = compiled(ruleset)
    for packet in packets:
        family = packet[Field.FAMILY]
        for guards_hold in (True, False):
            fate = evaluate(ruleset, Stage.FILTER, Path.FORWARD, packet, guards_hold=guards_hold)
            found = outcome(tables[family]["filter"], "FORWARD", packet, guards_hold=guards_hold)
            assert found.verdict == verdict(fate.action, family)
            assert found.logs == [log_options(log) for log in fate.logs]


def assert_same_helper(ruleset: Ruleset, packets: list[dict[Field, int]]) -> None:
    """Every packet that arrives gets the same helper, and no verdict."""
    tables = compiled(ruleset)
    for packet in packets:
        arriving: dict[Field, int] = {f: v for f, v in packet.items() if f is not Field.OIF}
        fate = evaluate(ruleset, Stage.ASSIGN_HELPER, Path.INPUT, arriving)
        found = outcome(tables[packet[Field.FAMILY]]["raw"], "PREROUTING", arriving)
        assert found.verdict is None, "a foreign rule of raw is read whatever we say"
        wanted = fate.action.helper if isinstance(fate.action, AssignHelper) else None
        assert found.helper == wanted


def some(ruleset: Ruleset) -> st.SearchStrategy[list[dict[Field, int]]]:
    return st.lists(packets(ruleset), min_size=20, max_size=60)


def forwarding(*items: Item) -> Ruleset:
    chain = Chain("base", (*items, Rule(EVERYTHING, Drop())))
    base = Base(Stage.FILTER, Path.FORWARD, "base")
    return Ruleset((base,), (chain,), address_tests=TESTS, dynamic_sets=(KEPT,))


@thorough
@given(st.data())
def test_a_rule(data: st.DataObject) -> None:
    ruleset = forwarding(data.draw(rules([])))
    assert_same(ruleset, data.draw(some(ruleset)))


@thorough
@given(st.data())
def test_a_lookup(data: st.DataObject) -> None:
    ruleset = forwarding(data.draw(lookups([], sizes=(20, 60))))
    assert_same(ruleset, data.draw(some(ruleset)))


@thorough
@given(st.data())
def test_a_ruleset(data: st.DataObject) -> None:
    ruleset = data.draw(filters())
    assert_same(ruleset, data.draw(some(ruleset)))


@thorough
@given(st.data())
def test_a_rule_that_keeps_a_helper_away(data: st.DataObject) -> None:
    leave = Rule(data.draw(cubes(NOT_IN_RAW)), Leave())
    assigned = (
        Rule(Cube.of({Field.L4PROTO: Ranges.of(protocol)}), AssignHelper(helper, protocol))
        for helper, protocol in (("ftp", TCP), ("sip", UDP))
    )
    base = Chain("base", (leave, *assigned))
    bases = (Base(Stage.ASSIGN_HELPER, Path.INPUT, "base"),)
    ruleset = Ruleset(bases, (base,), address_tests=TESTS, dynamic_sets=(KEPT,))
    assert_same_helper(ruleset, data.draw(some(ruleset)))


@thorough
@given(st.data())
def test_assignments(data: st.DataObject) -> None:
    ruleset = data.draw(assignments())
    assert_same_helper(ruleset, data.draw(some(ruleset)))


def ported(packet: dict[Field, int]) -> bool:
    return packet[Field.L4PROTO] in (6, 17, 33, 132)


def treatment(action: Action | None, packet: dict[Field, int]) -> str | None:
    """What becomes of a packet that leaves, as a target."""
    match action:
        case Masquerade(ports, is_random):
            words = ["MASQUERADE"]
            if ports is not None and ported(packet):
                words.append(f"--to-ports {ports[0]}-{ports[1]}")
            return " ".join([*words, *(["--random-fully"] if is_random else [])])
        case SourceNat(addresses, ports, _, is_persistent):
            place = "-".join(map(format_address, addresses))
            if ports is not None and ported(packet):
                span = f"{ports[0]}-{ports[1]}" if ports[0] < ports[1] else f"{ports[0]}"
                place = f"[{place}]:{span}" if packet[Field.FAMILY] == 6 else f"{place}:{span}"
            return f"SNAT --to-source {place}{' --persistent' if is_persistent else ''}"
        case MapPrefix(_, (low, _)):
            return f"NETMAP --to {format_address(low)}/{16 if packet[Field.FAMILY] == 4 else 64}"
        case Leave() | None:
            return None
    raise AssertionError(action)


def is_about(action: Action, family: int) -> bool:
    match action:
        case SourceNat((low, _)) | MapPrefix(_, (low, _)):
            return (low >= V6_BASE) == (family == 6)
    return True


def of_family(ruleset: Ruleset, family: int) -> Ruleset:
    """The ruleset without what translates into the other family, which no packet can meet."""

    def kept(item: Item) -> Item:
        if isinstance(item, Lookup):
            found = tuple(e for e in item.entries if is_about(e.action, family))
            return replace(item, entries=found)
        cube = item.cube if is_about(item.action, family) else EMPTY
        return replace(item, cube=cube)

    chains = (replace(c, items=tuple(map(kept, c.items))) for c in ruleset.chains)
    return replace(ruleset, chains=tuple(chains))


@thorough
@given(st.data())
def test_what_translates_sources(data: st.DataObject) -> None:
    """Own packets came by no interface, and a rule that names one is not for them."""
    ruleset = data.draw(treatments(Stage.SRCNAT, Path.FORWARD))
    tables = compiled(ruleset)
    for packet in data.draw(some(ruleset)):
        if packet[Field.SADDR_TYPE] == AddressType.LOCAL:
            del packet[Field.IIF]
        family = packet[Field.FAMILY]
        for guards_hold in (True, False):
            fate = evaluate(
                of_family(ruleset, family),
                Stage.SRCNAT,
                Path.FORWARD,
                packet,
                guards_hold=guards_hold,
            )
            found = outcome(tables[family]["nat"], "POSTROUTING", packet, guards_hold=guards_hold)
            assert found.verdict == treatment(fate.action, packet)
            assert found.logs == [log_options(log) for log in fate.logs]


@thorough
@given(st.data())
def test_marks(data: st.DataObject) -> None:
    ruleset = data.draw(treatments(Stage.MARK, Path.INPUT))
    tables = compiled(ruleset)
    for packet in data.draw(some(ruleset)):
        arriving: dict[Field, int] = {f: v for f, v in packet.items() if f is not Field.OIF}
        for guards_hold in (True, False):
            fate = evaluate(ruleset, Stage.MARK, Path.INPUT, arriving, guards_hold=guards_hold)
            table = tables[packet[Field.FAMILY]]["mangle"]
            found = outcome(table, "PREROUTING", arriving, guards_hold=guards_hold)
            assert found.verdict is None
            # What a line makes of a packet may bring it to the next one of the same rule.
            made = [words for words, _ in groupby(found.logs)]
            wanted = [effect_options(effect) for effect in fate.effects]
            assert made == [words for words, _ in groupby(wanted)]


def effect_options(effect: Action) -> list[str]:
    match effect:
        case SetMark(value, mask):
            return ["MARK", "--set-xmark", f"0x{value:x}/0x{mask:x}"]
        case SetConnectionMark(value, mask):
            return ["CONNMARK", "--set-xmark", f"0x{value:x}/0x{mask:x}"]
        case SetDscp(code):
            return ["DSCP", "--set-dscp", str(code)]
        case Log():
            return log_options(effect)
    raise AssertionError(effect)


def test_entries_that_overlap_log_once() -> None:
    """Entries of one action may hold the same packet, which is still looked up once."""
    pair = (Field.IIF, Field.OIF)
    lan, all_lans, any_name = (name_range(name) for name in ("lan0", "lan*", "*"))
    keys = ((lan, any_name), (all_lans, lan), (any_name, all_lans))
    ruleset = forwarding(Lookup(EVERYTHING, pair, tuple(Entry(key, Log("a")) for key in keys)))
    table = compiled(ruleset)[4]["filter"]
    names = {name: name_range(name)[0] for name in ("lan0", "lan1", "wan0")}
    for way_in, iif in names.items():
        for way_out, oif in names.items():
            found = outcome(table, "FORWARD", {Field.FAMILY: 4, Field.IIF: iif, Field.OIF: oif})
            is_logged = way_in == "lan0" or way_out.startswith("lan")
            assert len(found.logs) == is_logged, (way_in, way_out)


@pytest.mark.parametrize("protocols", [None, (UDP,), (TCP,), (TCP, UDP)])
@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("field", [Field.ANSWER, Field.TO_ASKER])
def test_questions_are_of_udp_alone(
    field: Field, value: int, protocols: tuple[int, ...] | None
) -> None:
    """A port may be kept of UDP, to which TCP goes as well."""
    terms = {field: Ranges.of(value)}
    if protocols is not None:
        terms[Field.L4PROTO] = Ranges.of(*protocols)
    ruleset = forwarding(Rule(Cube.of(terms), Log("a")), Rule(Cube.of(terms), Accept()))
    packets = [
        {**PACKETS[family], Field.L4PROTO: protocol, field: is_kept, Field.SPORT: 5, Field.DPORT: 7}
        for family in (4, 6)
        for protocol, is_kept in ((UDP, 0), (UDP, 1), (TCP, 0))
    ]
    assert_same(ruleset, packets)


# --- every value ---------------------------------------------------------------------------------

OCTET = Ranges.between(0, 255)
NUMBERS = (
    Ranges.of(0),
    Ranges.of(8),
    Ranges.of(255),
    Ranges.of(0, 255),
    Ranges.of(1, 2, 3, 8, 11, 12),
    Ranges.between(0, 63),
    Ranges.between(64, 255),
    Ranges(tuple((n, n + n % 3) for n in range(4, 250, 12))),
)
TYPES = [Ranges.of(*some) for n in range(1, 5) for some in combinations(range(1, 6), n)]


@pytest.mark.parametrize("values", (*NUMBERS, *(OCTET - n for n in NUMBERS)))
@pytest.mark.parametrize(
    ("field", "family", "protocol"),
    [
        (Field.ICMP_TYPE, 4, 1),
        (Field.ICMPV6_TYPE, 6, 58),
        (Field.HOP_LIMIT, 6, 17),
        (Field.L4PROTO, 4, None),
        (Field.L4PROTO, 6, None),
    ],
)
def test_every_number(field: Field, family: int, protocol: int | None, values: Ranges) -> None:
    ruleset = forwarding(Rule(Cube.of({field: values}), Accept()))
    least = 1 if (field, family) == (Field.L4PROTO, 6) else 0  # 0 is an option header there
    packets = [{**PACKETS[family], field: number} for number in range(least, 256)]
    if protocol is not None:
        packets = [{**packet, Field.L4PROTO: protocol} for packet in packets]
    assert_same(ruleset, packets)


FLAG_SETS = (
    with_flags(4, 4),
    with_flags(0x17, 2) | with_flags(0x17, 4),
    with_flags(0x3F, 0) | with_flags(3, 3),
    with_flags(1, 1) | with_flags(2, 2) | with_flags(4, 4),
)


@pytest.mark.parametrize("values", (*FLAG_SETS, *(OCTET - flags for flags in FLAG_SETS)))
@pytest.mark.parametrize("ports", ({}, {Field.DPORT: Ranges.of(22, 80)}))
def test_every_tcp_flag(values: Ranges, ports: dict[Field, Ranges]) -> None:
    ruleset = forwarding(Rule(Cube.of({Field.TCP_FLAGS: values, **ports}), Accept()))
    packet = {**PACKETS[4], Field.L4PROTO: TCP, Field.SPORT: 5, Field.DPORT: 80}
    assert_same(ruleset, [{**packet, Field.TCP_FLAGS: number} for number in range(256)])


@pytest.mark.parametrize("values", (*TYPES, *(UNIVERSE[Field.DADDR_TYPE] - t for t in TYPES)))
def test_every_address_type(values: Ranges) -> None:
    ruleset = forwarding(Rule(Cube.of({Field.DADDR_TYPE: values}), Accept()))
    assert_same(ruleset, [{**PACKETS[4], Field.DADDR_TYPE: kind} for kind in AddressType])
    kinds = [kind for kind in AddressType if kind is not AddressType.BROADCAST]
    assert_same(ruleset, [{**PACKETS[6], Field.DADDR_TYPE: kind} for kind in kinds])


@pytest.mark.parametrize("base", [0, V6_BASE])
def test_every_entry_of_a_lookup_that_has_no_type_of_set(base: int) -> None:
    """Its values are asked for in groups of groups."""
    entries = tuple(
        Entry(
            ((base + 8 * n, base + 8 * n + n % 5), (base + 99 * n, base + 99 * n + n % 7)),
            Accept() if n % 3 else Reject(Answer.PORT_UNREACHABLE),
        )
        for n in range(1, 200)
    )
    ruleset = forwarding(Lookup(EVERYTHING, (Field.SADDR, Field.DADDR), entries))
    packet = PACKETS[6 if base else 4]
    near = [
        {**packet, Field.SADDR: source, Field.DADDR: destination}
        for entry in entries
        for source in (entry.key[0][0] - 1, *entry.key[0], entry.key[0][1] + 1)
        for destination in (entry.key[1][0] - 1, *entry.key[1], entry.key[1][1] + 1)
    ]
    assert_same(ruleset, near)


PACKETS: dict[int, dict[Field, int]] = {
    4: {
        Field.FAMILY: 4,
        Field.SADDR: 0x0A010001,
        Field.DADDR: 0x0A010002,
        Field.DADDR_TYPE: AddressType.UNICAST,
        Field.L4PROTO: 47,
    },
    6: {
        Field.FAMILY: 6,
        Field.SADDR: V6_BASE + (0x20010DB80002 << 80),
        Field.DADDR: V6_BASE + (0x20010DB80002 << 80) + 1,
        Field.DADDR_TYPE: AddressType.UNICAST,
        Field.HOP_LIMIT: 64,
        Field.L4PROTO: 47,
    },
}
