"""What nft lists is read as what the kernel does, whoever wrote it."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date
from itertools import product

import pytest

from policylang.analysis.machine import (
    AddTo,
    CgroupIs,
    Goto,
    Hook,
    InSet,
    Line,
    Machine,
    MarkIs,
    NotAfter,
    Obscure,
    Return,
    Unknown,
)
from policylang.analysis.reading_nft import left_out, read_nft
from policylang.analysis.unreadable import UnreadableError
from policylang.ir import actions as ir
from policylang.ir.actions import Accept, Answer, Drop, Jump
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ICMP,
    ICMPV6,
    TCP,
    Field,
    State,
)
from policylang.packets.values import Ranges, name_range
from tests.analysis.foreign_nft import (
    FAMILIES,
    MATCHES,
    OF_ARRIVAL,
    SENT_ELSEWHERE,
    Ground,
    Probe,
    arriving,
    broadcast,
    fit_for,
    forwarded,
    ground,
    jumped_to,
    leaving,
    opened,
    passes,
    passing,
    random_script,
    script_of,
)
from tests.analysis.nft_rules import (
    ANY,
    FULL,
    OF_TCP,
    PORTED,
    RULES,
    SSH,
    TABLE,
    TRACKED,
    V4,
    V6,
    address,
    among,
    holds,
    line,
    rate,
    week,
)
from tests.backends.nft_station import Hook as SeenAt
from tests.differential.conntrack import enter
from tests.golden.outputs import CASES, EXAMPLES
from tests.kernel.conftest import kernel
from tests.kernel.ground import Namespace

__all__ = ["kernel"]


# --- what a rule of the kernel is read as -------------------------------------------------------


@pytest.fixture(scope="module")
def bare(kernel: None) -> Iterator[Namespace]:
    made = Namespace.create("listed")
    yield made
    made.delete()


def listed(namespace: Namespace, script: str) -> str:
    """What nft lists once a script is loaded in place of all else."""
    namespace.run(["nft", "-f", "-"], stdin=f"flush ruleset\n{script}", env={"TZ": "UTC"})
    return namespace.run(["nft", "-j", "list", "ruleset"], env={"TZ": "UTC"}).stdout


def test_a_rule_is_read_as_its_lines(bare: Namespace) -> None:
    added = "".join(
        f'add rule inet t {chain} {rule} comment "{number}"\n'
        for number, (chain, rule, _) in enumerate(RULES)
    )
    machine = read_nft(listed(bare, f"{TABLE}\n{added}"))
    found: dict[int, list[Line]] = {}
    for lines in machine.chains.values():
        for read in lines:
            if read.place.endswith(")"):
                found.setdefault(int(read.place.rpartition("(")[2][:-1]), []).append(read)
    for number, (_, rule, wanted) in enumerate(RULES):
        assert tuple(map(anywhere, found.get(number, ()))) == wanted, rule


def anywhere(read: Line) -> Line:
    """A line whose questions do not say in which rule they are asked."""
    conditions = []
    for condition in read.conditions:
        if isinstance(condition.question, Unknown):
            condition = replace(condition, question=Unknown(_nowhere(condition.question.text)))
        conditions.append(condition)
    act = read.act
    if isinstance(act, Obscure):
        act = replace(act, text=_nowhere(act.text))
    return replace(read, act=act, conditions=tuple(conditions))


def _nowhere(text: str) -> str:
    return re.sub(r" \([^()]*, rule \d+, \d+\)", "", text)


# --- what the kernel does -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def laid(kernel: None) -> Iterator[Ground]:
    with ground() as made:
        yield made


def _thrown(hook: Hook) -> list[Probe]:
    match hook:
        case Hook.PREROUTING:
            return [*arriving(), *arriving("eth1", 9), *passing(), *broadcast()]
        case Hook.INPUT:
            return [*arriving(), *arriving("eth1", 9)]
        case Hook.FORWARD:
            return [forwarded(probe) for probe in passing()]
    return leaving()


@pytest.mark.parametrize(
    ("hook", "priority", "family"),
    [
        (Hook.PREROUTING, -300, "inet"),
        (Hook.PREROUTING, -150, "inet"),
        (Hook.INPUT, 0, "inet"),
        (Hook.FORWARD, 0, "inet"),
        (Hook.OUTPUT, 0, "inet"),
        (Hook.INPUT, 0, "ip"),
        (Hook.INPUT, 0, "ip6"),
    ],
)
def test_a_match_is_true_of_the_packets_that_the_kernel_says(
    laid: Ground, hook: Hook, priority: int, family: str
) -> None:
    matches = fit_for(family, MATCHES if hook is Hook.OUTPUT else (*MATCHES, *OF_ARRIVAL))
    more = SENT_ELSEWHERE if hook is Hook.INPUT else ""
    machine = laid.load(script_of(matches, hook, priority, more, family))
    connections = () if hook is Hook.FORWARD or priority == -300 else opened()
    entered = enter(laid.router.station.inside, [one.connection for one in connections])
    assert entered == len(connections)
    of_connections = (
        probe
        for one in connections
        for probe in (one.leaving if hook is Hook.OUTPUT else one.arriving)
    )
    probes = [
        probe
        for probe in (*_thrown(hook), *of_connections)
        if probe.packet.family in FAMILIES[family]
        # What conntrack itself makes untracked is not so before it.
        and not (priority == -300 and probe.fields[Field.CT_STATE] == State.UNTRACKED)
    ]
    serials = laid.send(probes)
    kept = laid.kept(family)
    told: set[int] = set()
    for probe, serial in zip(probes, serials, strict=True):
        way = probe.walked(machine)
        assert not way.doubts, way.doubts
        read = jumped_to(way, hook)
        true = {n for n in range(len(matches)) if serial in kept[f"seen{n}-{probe.packet.family}"]}
        assert {matches[n] for n in read} == {matches[n] for n in true}, probe
        told |= true
    assert len(told) > len(matches) * 2 // 3  # most are true of some packet here


SEEDS = range(24)


@pytest.mark.parametrize("seed", SEEDS)
def test_chains_decide_as_in_the_kernel(laid: Ground, seed: int) -> None:
    hook = (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT)[seed % 3]
    script = random_script(seed, hook)
    machine = laid.load(script)
    probes = _thrown(hook)[:: 1 if hook is Hook.INPUT else 2]
    serials = laid.send(probes)
    seen = laid.seen(SeenAt(hook.value))
    for probe, serial in zip(probes, serials, strict=True):
        way = probe.walked(machine)
        assert not way.doubts, way.doubts
        assert passes(way) is (serial in seen), f"{probe}\n{script}"


# Chains whose order decides: of one priority the last one is read first, in any table; and chains
# of translation are read where translation is done.
ORDERS = """
table inet f {
	set seen0-4 { typeof ip id; flags dynamic; size 99; }
	set seen1-4 { typeof ip id; flags dynamic; size 99; }
	set seen2-4 { typeof ip id; flags dynamic; size 99; }
	chain c0 {
		add @seen0-4 { ip id }
	}
	chain c1 {
		add @seen1-4 { ip id }
	}
	chain c2 {
		add @seen2-4 { ip id }
	}
	chain first { type filter hook prerouting priority -150;
		meta mark 0x3 jump c0
		meta mark set 0x1
	}
	chain second { type filter hook prerouting priority -150;
		meta mark 0x4 meta mark set 0x3
	}
	chain translating { type nat hook prerouting priority 0;
		udp dport 53 redirect to :77
	}
	chain behind { type filter hook prerouting priority -90;
		udp dport 77 jump c1
		udp dport 53 jump c2
	}
}
table ip other {
	chain third { type filter hook prerouting priority -150;
		meta mark set 0x4
	}
}
"""


def test_chains_are_read_in_the_order_of_the_kernel(laid: Ground) -> None:
    machine = laid.load(ORDERS)
    names = [b.chain for b in machine.on(Hook.PREROUTING) if "seen prerouting" not in b.chain]
    assert names == [
        "ip other third", "inet f second", "inet f first", "inet f translating", "inet f behind"
    ]  # fmt: skip
    probes = [probe for probe in arriving() if probe.packet.family == 4]
    serials = laid.send(probes)
    kept = laid.kept()
    for probe, serial in zip(probes, serials, strict=True):
        true = {n for n in range(3) if serial in kept[f"seen{n}-4"]}
        assert jumped_to(probe.walked(machine), Hook.PREROUTING) == true, probe
    assert kept["seen0-4"] and kept["seen1-4"]


# --- what the compiler makes --------------------------------------------------------------------

SCRIPTS = sorted(
    {*(case / "nft.nft" for case in CASES), *(example.parent / "nft.nft" for example in EXAMPLES)}
)
# The kernel here has no queues.
NOT_HERE = ("queue",)
# Lines of the target's own language, of what no packet has as a field.
NATIVE = {"native-lines": {"tcp option maxseg size < 500"}}


def test_what_the_compiler_makes_is_read_whole(bare: Namespace) -> None:
    assert len(SCRIPTS) > 50
    for script in SCRIPTS:
        name = script.parent.name
        if name in NOT_HERE:
            continue
        machine = read_nft(listed(bare, script.read_text()))
        assert machine.bases
        assert not_understood(machine) == NATIVE.get(name, set()), name


def not_understood(machine: Machine) -> set[str]:
    found: set[str] = set()
    for lines in machine.chains.values():
        for read in lines:
            asked = (condition.question for condition in read.conditions)
            found |= {question.text for question in asked if isinstance(question, Unknown)}
            if isinstance(read.act, Obscure):
                found.add(read.act.text)
    return found


# --- forms that only some versions of nft print, or that cannot be loaded here --------------------

Json = object


def listing(
    *rules: Sequence[Json], hook: str = "input", priority: int = 0, others: Sequence[Json] = (),
    family: str = "inet",
) -> dict[str, Json]:  # fmt: skip
    """A listing of one base chain with these rules."""
    head = {
        "family": family, "table": "t", "name": "c", "handle": 1, "type": "filter",
        "hook": hook, "prio": priority, "policy": "accept",
    }  # fmt: skip
    return {
        "nftables": [
            {"metainfo": {"version": "1.1.3", "json_schema_version": 1}},
            {"table": {"family": family, "name": "t", "handle": 1}},
            *others,
            {"chain": head},
            *(
                {
                    "rule": {
                        "family": family,
                        "table": "t",
                        "chain": "c",
                        "handle": n,
                        "expr": list(rule),
                    }
                }
                for n, rule in enumerate(rules, 2)
            ),
        ]
    }


def read_rule(*expressions: Json, others: Sequence[Json] = (), **where: object) -> tuple[Line, ...]:
    given = listing(expressions, others=others, **where)  # type: ignore[arg-type]
    (lines,) = read_nft(given).chains.values()
    return lines


def match(left: Json, right: Json, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


FLAGS: Json = {"payload": {"protocol": "tcp", "field": "flags"}}
HOUR: Json = {"meta": {"key": "hour"}}
MARK: Json = {"meta": {"key": "mark"}}
ACCEPT: Json = {"accept": None}
PROTO_DST: Json = {"ct": {"key": "proto-dst", "dir": "original"}}


def flags(mask: int, value: int) -> Cube:
    return among(TCP_FLAGS=Ranges.of(*(n for n in range(256) if n & mask == value)))


FORMS: tuple[tuple[tuple[Json, ...], tuple[Line, ...]], ...] = (
    # 1.0.6 and 1.1.3
    ((match({"&": [FLAGS, ["fin", "syn"]]}, "syn"), ACCEPT), (line(flags(3, 2), Accept()),)),
    ((match({"&": [FLAGS, {"|": ["fin", "syn"]}]}, "syn"), ACCEPT), (line(flags(3, 2), Accept()),)),
    (
        (match({"&": [FLAGS, {"|": ["syn", "ack"]}]}, {"|": ["syn", "ack"]}), ACCEPT),
        (line(flags(0x12, 0x12), Accept()),),
    ),
    # past midnight: the kernel asks whether it is not from 6:00 to 22:00, both included
    (
        (match(HOUR, {"range": ["06:00", "22:00"]}, "!="), ACCEPT),
        (line(ANY, Accept(), holds(week((0, 21_599), (79_201, 86_399)))),),
    ),
    (
        (match(HOUR, {"range": ["22:00", "06:00"]}, "in"), ACCEPT),
        (line(ANY, Accept(), holds(week((0, 21_599), (79_201, 86_399)))),),
    ),
    (
        (match(MARK, {"prefix": {"addr": 0x10000000, "len": 8}}), ACCEPT),
        (line(ANY, Accept(), holds(MarkIs(0x10000000, 0xFF000000))),),
    ),
    # 1.0.6, of a kind that it does not find out
    (
        (match(PROTO_DST, "0x15 [invalid type]"), ACCEPT),
        (
            line(TRACKED & among(ORIG_DPORT=21), Accept()),
            line(
                TRACKED & among(L4PROTO=Ranges.between(0, 255) - PORTED),
                Accept(),
                holds(Unknown("ct original proto-dst 0x15 [invalid type] (no ports)")),
            ),
        ),
    ),
    # protocols by the machine's /etc/protocols, and by nft's own names
    (
        (match({"meta": {"key": "l4proto"}}, "ipv6-icmp"), ACCEPT),
        (line(among(L4PROTO=ICMPV6), Accept()),),
    ),
    (
        (match({"meta": {"key": "l4proto"}}, "icmpv6"), ACCEPT),
        (line(among(L4PROTO=ICMPV6), Accept()),),
    ),
    ((match({"meta": {"key": "l4proto"}}, 58), ACCEPT), (line(among(L4PROTO=ICMPV6), Accept()),)),
    (
        (match({"meta": {"key": "l4proto"}}, "a-new-one"), ACCEPT),
        (line(ANY, Accept(), holds(Unknown("meta l4proto a-new-one"))),),
    ),
    # by `nft -nn`
    (({"reject": {"type": "icmpx", "expr": 0}},), (line(ANY, ir.Reject(Answer.NET_UNREACHABLE)),)),
    (({"reject": {"type": "icmpv6", "expr": 1}},), (line(V6, ir.Reject(Answer.ADMIN_PROHIBITED)),)),
    (({"reject": {"type": "tcp reset"}},), (line(OF_TCP, ir.Reject(Answer.TCP_RESET)),)),
    (({"reject": None},), (line(ANY, ir.Reject(Answer.PORT_UNREACHABLE)),)),
    ((match({"meta": {"key": "protocol"}}, 0xDD86), ACCEPT), (line(V6, Accept()),)),
    ((match({"meta": {"key": "protocol"}}, 0x0800), ACCEPT), (line(V4, Accept()),)),
    (
        (match({"meta": {"key": "protocol"}}, 5), ACCEPT),
        (line(ANY, Accept(), holds(Unknown("meta protocol 5"))),),
    ),
    ((match({"ct": {"key": "state"}}, 8, "in"), ACCEPT), (line(among(CT_STATE=0), Accept()),)),
    # what needs devices, cgroups or queues
    (
        ({"queue": {"num": {"range": [1, 3]}, "flags": "bypass"}},),
        (line(ANY, ir.Queue(1, 3, True)),),
    ),
    (({"queue": {"num": 5}},), (line(ANY, ir.Queue(5, 5, False)),)),
    (({"flow": {"op": "add", "flowtable": "@ft"}},), (line(ANY, ir.Offload(("eth0", "eth1"))),)),
    (
        ({"flow": {"op": "add", "flowtable": "@ft"}}, ACCEPT),
        (
            line(ANY, ir.Offload(("eth0", "eth1"))),
            line(ANY, Accept(), holds(Unknown("the connection can be offloaded"))),
        ),
    ),
    (
        (match({"socket": {"key": "cgroupv2"}}, "system.slice/a.service"), ACCEPT),
        (line(ANY, Accept(), holds(CgroupIs("system.slice/a.service"))),),
    ),
    (
        (match({"socket": {"key": "cgroupv2"}}, "a", "!="), ACCEPT),
        (line(ANY, Accept(), holds(Unknown("socket cgroupv2 a"), False)),),
    ),
    # what nobody knows may do anything, and the rule may end there
    (
        ({"teleport": {"to": "mars"}}, ACCEPT),
        (
            line(
                ANY,
                Obscure("teleport to mars", may_decide=True),
                holds(Unknown("teleport to mars")),
            ),
            line(ANY, Accept(), holds(Unknown("teleport to mars"))),
        ),
    ),
    (
        ({"xt": {"type": "match", "name": "recent"}}, ACCEPT),
        (line(ANY, Accept(), holds(Unknown("xt type match recent"))),),
    ),
    (
        (match({"spin": {"key": "up"}}, 1), ACCEPT),
        (line(ANY, Accept(), holds(Unknown("spin up 1"))),),
    ),
    (({"jump": {"target": "nowhere"}},), (line(ANY, Obscure("jump nowhere", may_decide=True)),)),
    (
        (match({"payload": {"protocol": "ip", "field": "saddr"}}, "@nowhere"), ACCEPT),
        (line(ANY, Accept(), holds(Unknown("ip saddr @nowhere"))),),
    ),
    (({"log": {"prefix": 5}},), (line(ANY, ir.Log("")),)),
    ((5,), (line(ANY, Obscure("5", may_decide=True), holds(Unknown("5"))),)),
)

FLOWTABLE: Json = {
    "flowtable": {
        "family": "inet", "table": "t", "name": "ft", "hook": "ingress", "prio": 0,
        "dev": ["eth1", "eth0"],
    }
}  # fmt: skip


@pytest.mark.parametrize(("expressions", "wanted"), FORMS)
def test_every_form_of_a_listing_is_read(
    expressions: tuple[Json, ...], wanted: tuple[Line, ...]
) -> None:
    assert tuple(map(anywhere, read_rule(*expressions, others=[FLOWTABLE]))) == wanted


IP_ID: Json = {"payload": {"protocol": "ip", "field": "saddr"}}
WRAPPED: Json = {"payload": {"tunnel": "vxlan", "protocol": "ip", "field": "saddr"}}
DIE: Json = {"numgen": {"mode": "random", "mod": 2, "offset": 0}}
XT: Json = {"xt": {"type": "match", "name": "string"}}
# Each pair is of matches that a packet may meet one by one.
DIFFERENT: tuple[tuple[Json, Json], ...] = (
    (match(WRAPPED, "192.0.2.1"), match(IP_ID, "192.0.2.1")),
    (match(DIE, 0), match(DIE, 0)),
    (XT, XT),
    ({"quota": {"val": 5, "val_unit": "mbytes"}}, {"quota": {"val": 5, "val_unit": "mbytes"}}),
    (match({"meta": {"key": "cgroup"}}, 5, "in"), match({"meta": {"key": "cgroup"}}, 5)),
    (
        match({"meta": {"key": "cgroup"}}, {"set": [1, 2, 3, 4, 5, 6]}),
        match({"meta": {"key": "cgroup"}}, {"set": [1, 2, 3, 4, 5, 7]}),
    ),
    (
        match({"jhash": {"mod": 2, "seed": 1, "expr": IP_ID}}, 0),
        match({"jhash": {"mod": 2, "seed": 2, "expr": IP_ID}}, 0),
    ),
)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_may_differ_is_not_one_question(one: Json, other: Json) -> None:
    """Else the second of two rules would seem to meet nothing, or the same."""
    given = listing((one, ACCEPT), (other, {"drop": None}))
    first, second = read_nft(given).chains["inet t c"]
    assert (first.cubes, first.conditions) != (second.cubes, second.conditions)


def test_a_match_of_what_is_wrapped_asks_nothing_of_the_packet_around_it() -> None:
    (read,) = read_rule(match(WRAPPED, "192.0.2.1"), ACCEPT)
    assert read == line(ANY, Accept(), holds(Unknown("vxlan ip saddr 192.0.2.1")))


def test_sets_of_two_tables_are_two_questions() -> None:
    held = {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr", "flags": ["timeout"]}
    add: Json = {"set": {"op": "add", "elem": IP_ID, "set": "@s"}}
    given = listing((add,), (match(IP_ID, "@s"), ACCEPT), others=[{"set": held}])
    again = json.loads(json.dumps(given).replace('"t"', '"u"'))
    machine = read_nft({"nftables": [*given["nftables"], *again["nftables"]]})  # type: ignore[misc]
    for chain, name in (("inet t c", "s"), ("inet u c", "inet u s")):
        put, read = machine.chains[chain]
        assert put.act == AddTo(name, (Field.SADDR,), None)
        assert [condition.question for condition in read.conditions] == [
            InSet(name, (Field.SADDR,))
        ]


def test_icmp_of_the_other_family_is_no_field() -> None:
    """nft lists no family before it; the kernel asks such a table for the protocol alone."""
    kind: Json = {"payload": {"protocol": "icmpv6", "field": "type"}}
    (read,) = read_rule(match(kind, "echo-request"), ACCEPT, family="ip")
    asked = holds(Unknown("icmpv6 type echo-request"))
    assert read == line(among(L4PROTO=ICMPV6), Accept(), asked)


def test_rules_without_handles_keep_their_chains_apart() -> None:
    turn: Json = {"mangle": {"key": MARK, "value": {"^": [MARK, 1]}}}
    given = listing((turn, ACCEPT), (turn, {"drop": None}))
    for item in given["nftables"]:  # type: ignore[attr-defined]
        item.get("rule", {}).pop("handle", None)
    last = [lines[-1].act for name, lines in read_nft(given).chains.items() if ", rule " in name]
    assert Accept() in last and Drop() in last


@pytest.mark.parametrize(
    "expression",
    [
        match({"meta": {"key": "time"}}, "0001-01-01 00:00:00", "<"),
        match({">>": [{"payload": {"protocol": "tcp", "field": "flags"}}, -1]}, 1),
        match({"<<": [{"payload": {"protocol": "tcp", "field": "flags"}}, 1 << 40]}, 1),
        match({"meta": {"key": "iifname"}}, "\ud800"),
        match({"meta": {"key": "cgroup"}}, {"set": ["\ud800"] * 9}),
    ],
)
def test_what_nothing_can_be_is_a_question(expression: Json) -> None:
    (read,) = read_rule(expression, ACCEPT)
    assert [type(c.question) for c in read.conditions] == [Unknown]


def test_hours_are_read_by_the_offset_of_who_listed_them() -> None:
    given = listing((match(HOUR, {"range": ["23:00", "02:00"]}), ACCEPT))
    machine = read_nft(given, utc_offset_s=3 * 3600)
    (read,) = machine.chains["inet t c"]
    assert read.conditions == (holds(week((20 * 3600, 23 * 3600))),)
    until = (match({"meta": {"key": "time"}}, "2030-01-01 03:00:00", "<"), ACCEPT)
    (read,) = read_nft(listing(until), utc_offset_s=3 * 3600).chains["inet t c"]
    assert read.conditions == (holds(NotAfter(date(2029, 12, 31), False)),)


def test_a_set_that_may_change_is_a_question() -> None:
    """Packets fill it, time empties it, a rule puts something in, or the caller says so."""

    def asked(rules: Sequence[Sequence[Json]] = (), **body: Json) -> tuple[Line, ...]:
        held = {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr", **body}
        given = listing((match(IP_ID, "@s"), ACCEPT), *rules, others=[{"set": held}])
        return read_nft(given, is_open=lambda name: name == body.get("name")).chains["inet t c"]

    question = (line(V4, Accept(), holds(InSet("s", (Field.SADDR,)))),)
    elements: Json = ["192.0.2.7"]
    assert asked(elem=elements) == (line(among(SADDR="192.0.2.7"), Accept()),)
    assert asked(elem=elements, flags=["dynamic"]) == question
    assert asked(elem=elements, flags="timeout") == question
    put = [{"set": {"op": "add", "elem": IP_ID, "set": "@s"}}]
    assert asked([put], elem=elements)[:1] == question
    assert asked(elem=elements, name="s") == question
    assert asked() == ()


def test_a_question_that_an_act_changes_is_asked_once() -> None:
    """`mark 1 or 2, then mark 2, then accept`: the second line must not ask the mark anew."""
    rule = (
        match(MARK, {"set": [1, 2]}),
        {"mangle": {"key": MARK, "value": 2}},
        match({"payload": {"protocol": "tcp", "field": "dport"}}, 22),
        ACCEPT,
    )
    machine = read_nft(listing(rule))
    own = "inet t c, handle 2"
    assert machine.chains == {
        own: (line(ANY, ir.SetMark(2, FULL)), line(SSH, Accept())),
        f"{own}-2": (
            line(ANY, Goto(own), holds(MarkIs(1, FULL))),
            line(ANY, Goto(own), holds(MarkIs(2, FULL))),
        ),
        "inet t c": (line(ANY, Jump(f"{own}-2")),),
    }


def test_who_leaves_the_chain_leaves_it_from_a_chain_of_the_rule() -> None:
    rule = (match(MARK, 1), {"mangle": {"key": MARK, "value": 2}}, {"return": None})
    machine = read_nft(listing(rule))
    own = "inet t c, handle 2"
    assert machine.chains == {
        own: (line(ANY, ir.SetMark(2, FULL)), line(ANY, Return())),
        "inet t c": (line(ANY, Goto(own), holds(MarkIs(1, FULL))),),
    }


def test_what_no_chain_of_its_own_can_say_is_told_so() -> None:
    rule = (
        match(MARK, 1),
        {"mangle": {"key": MARK, "value": 2}},
        match({"payload": {"protocol": "tcp", "field": "dport"}}, 22),
        {"return": None},
    )
    (read,) = read_rule(*rule)
    assert read.conditions == (holds(MarkIs(1, FULL)),)
    assert read.act == Obscure("meta mark 1 meta mark set 2 tcp dport 22 return", may_decide=True)


def test_a_jump_back_from_a_verdict_map_asks_nothing_anew() -> None:
    """The chain behind the first element changes the mark to that of the second."""
    sub: Json = {"chain": {"family": "inet", "table": "t", "name": "sub", "handle": 9}}
    changing: Json = {
        "rule": {
            "family": "inet", "table": "t", "chain": "sub", "handle": 9,
            "expr": [{"mangle": {"key": MARK, "value": 2}}],
        }
    }  # fmt: skip
    held = [[1, {"jump": {"target": "sub"}}], [2, {"drop": None}]]
    given = listing(({"vmap": {"key": MARK, "data": {"set": held}}},), others=[sub, changing])
    chains = read_nft(given).chains
    own = "inet t c, handle 2"
    assert chains["inet t c"] == (line(ANY, Jump(f"{own}-3")),)
    assert chains[f"{own}-3"] == (
        line(ANY, Goto(own), holds(MarkIs(1, FULL))),
        line(ANY, Goto(f"{own}-2"), holds(MarkIs(2, FULL))),
    )
    assert chains[own] == (line(ANY, Jump("inet t sub")),)
    assert chains[f"{own}-2"] == (line(ANY, Drop()),)


def test_a_chain_that_changes_a_mark_is_entered_once() -> None:
    sub: Json = {"chain": {"family": "inet", "table": "t", "name": "sub", "handle": 9}}
    changing: Json = {
        "rule": {
            "family": "inet", "table": "t", "chain": "sub", "handle": 9,
            "expr": [{"mangle": {"key": MARK, "value": 2}}],
        }
    }  # fmt: skip
    rule = (match(MARK, {"set": [1, 2]}), {"jump": {"target": "sub"}})
    chains = read_nft(listing(rule, others=[sub, changing])).chains
    assert chains["inet t c"] == (line(ANY, Jump("inet t c, handle 2-2")),)
    harmless = listing(rule, others=[sub])
    assert read_nft(harmless).chains["inet t c"] == (
        line(ANY, Jump("inet t sub"), holds(MarkIs(1, FULL))),
        line(ANY, Jump("inet t sub"), holds(MarkIs(2, FULL))),
    )


def test_a_chain_is_read_as_the_hooks_say_that_lead_to_it() -> None:
    """By jumps of jumps: at prerouting there is no way out, and before conntrack no helper."""
    chains: list[Json] = [
        {"chain": {"family": "inet", "table": "t", "name": name, "handle": 9}}
        for name in ("middle", "last")
    ]
    helper: Json = {
        "ct helper": {
            "family": "inet", "table": "t", "name": "h", "type": "ftp", "protocol": "tcp",
        }
    }  # fmt: skip
    named: Json = {
        "map": {
            "family": "inet", "table": "t", "name": "m", "map": "verdict", "type": "mark",
            "elem": [[5, {"goto": {"target": "last"}}]],
        }
    }  # fmt: skip

    def rule(chain: str, *expressions: Json) -> Json:
        body = {"family": "inet", "table": "t", "chain": chain, "handle": 1}
        return {"rule": {**body, "expr": list(expressions)}}

    inner = [
        rule("middle", {"vmap": {"key": MARK, "data": "@m"}}),
        rule("last", match({"meta": {"key": "oifname"}}, "eth0", "!="), ACCEPT),
        rule("last", {"ct helper": "h"}),
    ]
    others = [helper, named, *chains, *inner]
    to_middle = ({"jump": {"target": "middle"}},)
    at_raw = read_nft(listing(to_middle, others=others, hook="prerouting", priority=-300))
    assert at_raw.chains["inet t last"] == (
        line(ANY, Accept()),
        line(ANY, Obscure("ct helper set h", may_decide=False)),
    )
    at_forward = read_nft(listing(to_middle, others=others, hook="forward"))
    assert at_forward.chains["inet t last"] == (
        line(
            among(OIF=Ranges.between(0, (1 << 128) - 1) - Ranges((name_range("eth0"),))), Accept()
        ),
        line(OF_TCP, ir.AssignHelper("ftp", TCP)),
    )


def test_who_jumps_comes_back_to_the_next_rule_and_not_to_the_rest_of_this_one() -> None:
    sub: Json = {"chain": {"family": "inet", "table": "t", "name": "sub", "handle": 9}}
    held = [[22, {"jump": {"target": "sub"}}], [23, {"continue": None}]]
    port: Json = {"payload": {"protocol": "tcp", "field": "dport"}}
    rule = ({"vmap": {"key": port, "data": {"set": held}}}, {"log": None}, ACCEPT)
    telnet = among(L4PROTO=TCP, DPORT=23)
    assert read_nft(listing(rule, others=[sub])).chains["inet t c"] == (
        line(SSH, Jump("inet t sub")),
        line(telnet, ir.Log("")),
        line(telnet, Accept()),
    )


def test_what_leaves_the_chain_by_a_verdict_map_leaves_it_and_the_rest_stays() -> None:
    sub: Json = {"chain": {"family": "inet", "table": "t", "name": "sub", "handle": 9}}
    changing: Json = {
        "rule": {
            "family": "inet", "table": "t", "chain": "sub", "handle": 9,
            "expr": [{"mangle": {"key": MARK, "value": 2}}],
        }
    }  # fmt: skip
    held = [[1, {"return": None}], [2, {"jump": {"target": "sub"}}], [3, {"drop": None}]]
    given = listing(({"vmap": {"key": MARK, "data": {"set": held}}},), others=[sub, changing])
    chains = read_nft(given).chains
    own = "inet t c, handle 2"
    assert chains["inet t c"] == (
        line(ANY, Return(), holds(MarkIs(1, FULL))),
        line(ANY, Jump(f"{own}-3")),
    )
    assert chains[f"{own}-3"] == (
        line(ANY, Goto(own), holds(MarkIs(2, FULL))),
        line(ANY, Goto(f"{own}-2"), holds(MarkIs(3, FULL))),
    )


def test_a_bit_that_is_turned_round_is_asked_first() -> None:
    """As kube-proxy does: `meta mark set meta mark xor 0x4000`, and then it masquerades."""
    turn = {"mangle": {"key": MARK, "value": {"^": [MARK, 0x4000]}}}
    chains = read_nft(listing((turn, ACCEPT))).chains
    own = "inet t c, handle 2"
    assert chains["inet t c"] == (line(ANY, Jump(f"{own}-3")),)
    assert chains[f"{own}-3"] == (
        line(ANY, Goto(own), holds(MarkIs(0x4000, 0x4000))),
        line(ANY, Goto(f"{own}-2"), holds(MarkIs(0x4000, 0x4000), False)),
    )
    assert chains[own] == (line(ANY, ir.SetMark(0, 0x4000)), line(ANY, Accept()))
    assert chains[f"{own}-2"] == (line(ANY, ir.SetMark(0x4000, 0x4000)), line(ANY, Accept()))


def test_a_mark_that_nobody_knows_may_be_any() -> None:
    lines = read_rule({"mangle": {"key": MARK, "value": {"meta": {"key": "cpu"}}}})
    assert lines[0].act == Obscure("meta mark set meta cpu", may_decide=False)
    assert lines[1].act == ir.SetMark(0, FULL)
    bits = [read.act for read in lines[2:]]
    assert bits == [ir.SetMark(1 << n, 1 << n) for n in range(32)]
    assert len({read.conditions for read in lines[2:]}) == 32


# --- IPv4 source routes: three questions that are one field -------------------------------------

HEADER_WORDS: Json = {"payload": {"protocol": "ip", "field": "hdrlength"}}
FIRST_WORD: Json = {"payload": {"base": "nh", "offset": 160, "len": 32}}
STARTS: Json = {
    "set": [
        *({"range": [0x83000000, 0x83FFFFFF]}, {"range": [0x89000000, 0x89FFFFFF]}),
        *({"range": [0x01830000, 0x0183FFFF]}, {"range": [0x01890000, 0x0189FFFF]}),
        *({"range": [0x01018300, 0x010183FF]}, {"range": [0x01018900, 0x010189FF]}),
        *(0x01010183, 0x01010189),
    ]
}  # fmt: skip


def option(name: str, *, there: bool) -> Json:
    return match({"ip option": {"name": name}}, there)


LONG = match(HEADER_WORDS, 5, ">")
ROUTED = (
    (LONG, match(FIRST_WORD, STARTS)),
    (LONG, match(FIRST_WORD, STARTS, "!="), option("lsrr", there=True)),
    (
        LONG,
        match(FIRST_WORD, STARTS, "!="),
        option("lsrr", there=False),
        option("ssrr", there=True),
    ),
)
NOT_ROUTED = (
    (match(HEADER_WORDS, 5),),
    (
        LONG,
        match(FIRST_WORD, STARTS, "!="),
        option("lsrr", there=False),
        option("ssrr", there=False),
    ),
)


@pytest.mark.parametrize(("rules", "is_routed"), [(ROUTED, True), (NOT_ROUTED, False)])
def test_all_tests_of_source_routes_together_are_the_field(
    rules: Sequence[Sequence[Json]], is_routed: bool
) -> None:
    machine = read_nft(listing(*((*rule, ACCEPT) for rule in rules)))
    lines = machine.chains["inet t c"]
    questions = sorted({c.question.text for read in lines for c in read.conditions})  # type: ignore[union-attr]
    for routed in (0, 1):
        packet = {Field.FAMILY: 4, Field.SOURCE_ROUTED: routed}
        for answers in product((False, True), repeat=len(questions)):
            said: Mapping[str, bool] = dict(zip(questions, answers, strict=True))
            met = [
                read
                for read in lines
                if any(cube.holds(packet) for cube in read.cubes)
                and all(said[c.question.text] is c.holds for c in read.conditions)  # type: ignore[union-attr]
            ]
            assert bool(met) is (bool(routed) is is_routed)
            assert len(met) <= 1


def test_a_single_test_of_source_routes_is_a_question_of_its_own() -> None:
    routed = V4 & among(SOURCE_ROUTED=1)
    loose = holds(Unknown("ip option lsrr exists"))
    assert read_rule(option("lsrr", there=True), ACCEPT) == (line(routed, Accept(), loose),)
    missing = (line(V4, Accept(), holds(Unknown("ip option lsrr exists"), False)),)
    assert read_rule(option("lsrr", there=False), ACCEPT) == missing


# --- the listing as a whole ---------------------------------------------------------------------


def test_a_rate_knows_the_family_of_what_comes_to_its_chain() -> None:
    """Its own packets may be of both, and those that lead there of one."""
    sub: Json = {"chain": {"family": "inet", "table": "t", "name": "sub", "handle": 9}}
    limited: Json = {
        "rule": {
            "family": "inet", "table": "t", "chain": "sub", "handle": 10,
            "expr": [{"limit": {"rate": 1, "burst": 5, "per": "second"}}, ACCEPT],
        }
    }  # fmt: skip
    to_sub = (match({"meta": {"key": "nfproto"}}, "ipv6"), {"jump": {"target": "sub"}})
    others = [sub, limited]
    assert read_nft(listing(to_sub, others=others)).chains["inet t sub"] == (
        line(ANY, Accept(), holds(rate(1, family=6))),
    )
    both = read_nft(listing(to_sub, ({"jump": {"target": "sub"}},), others=others))
    assert both.chains["inet t sub"] == (line(ANY, Accept(), holds(rate(1))),)
    alone = read_nft(
        listing(({"limit": {"rate": 1, "burst": 5, "per": "second"}}, ACCEPT), family="ip")
    )
    assert alone.chains["ip t c"] == (line(ANY, Accept(), holds(rate(1, family=4))),)


def test_a_proxy_in_front_of_a_drop_is_sure() -> None:
    tproxy: Json = {"tproxy": {"port": 8080}}
    of_tcp = match({"meta": {"key": "l4proto"}}, "tcp")
    given = listing(
        (of_tcp, tproxy, ACCEPT), ({"counter": {"packets": 1, "bytes": 2}}, {"drop": None})
    )
    assert read_nft(given).chains["inet t c"] == (
        line(OF_TCP, ir.TransparentProxy(8080, TCP, 0, 0)),
        line(ANY, Drop()),
    )


def test_a_table_of_one_family_reads_that_family() -> None:
    (base,) = read_nft(listing((ACCEPT,), family="ip6")).bases
    assert base.families == (6,)
    assert base.place == base.chain == "ip6 t c"
    icmp = match({"payload": {"protocol": "icmp", "field": "type"}}, "echo-request")
    inside_v6 = (line(among(L4PROTO=ICMP), Accept(), holds(Unknown("icmp type echo-request"))),)
    assert read_nft(listing((icmp, ACCEPT), family="ip6")).chains["ip6 t c"] == inside_v6


def test_what_no_ip_packet_of_the_host_meets_is_left_out_and_told() -> None:
    given = listing((ACCEPT,), family="netdev", hook="ingress")
    assert read_nft(given).bases == ()
    assert left_out(given) == ("netdev t c",)
    assert left_out(listing((ACCEPT,))) == ()
    ingress = listing((ACCEPT,), hook="ingress")
    assert read_nft(ingress).bases == ()
    assert left_out(ingress) == ("inet t c",)


def test_a_dormant_table_is_on_no_hook() -> None:
    given = listing((ACCEPT,))
    given["nftables"][1]["table"]["flags"] = ["dormant"]  # type: ignore[index]
    assert read_nft(given).bases == ()
    elsewhere = listing((ACCEPT,), family="netdev", hook="ingress")
    elsewhere["nftables"][1]["table"]["flags"] = "dormant"  # type: ignore[index]
    assert left_out(elsewhere) == ()


@pytest.mark.parametrize(
    ("text", "message", "at"),
    [
        ("", "the listing is empty", 1),
        ('{"nftables": [\n{"table"', "the listing is no JSON, or cut off", 2),
        ("[]", "this is JSON, but nothing that `nft -j list ruleset` prints", 1),
        ('{"a": 1}', "this is JSON, but nothing that `nft -j list ruleset` prints", 1),
        ("[" * 100_000, "the listing is nested too deeply", 1),
        ("[" + "1" * 5000 + "]", "the listing has a number that is too long", 1),
        (
            '{"nftables": [{"rule": {"family": "inet", "table": "t", "chain": "c", "expr": []}}]}',
            "a rule is in a chain that is not listed: `c`",
            1,
        ),
    ],
)
def test_what_is_no_listing_is_refused(text: str, message: str, at: int) -> None:
    with pytest.raises(UnreadableError) as refused:
        read_nft(text)
    assert (refused.value.message, refused.value.line) == (message, at)


def test_what_is_nested_too_deeply_to_be_told_is_refused() -> None:
    value: Json = 1
    for _ in range(5000):
        value = {"&": [value, 1]}
    with pytest.raises(UnreadableError, match="the listing is nested too deeply"):
        read_nft(listing((match(value, 1), ACCEPT)))


DAMAGES: tuple[Json, ...] = (
    *(None, True, 0, -1, 1 << 70, 1.5, "", "x", "@x", "*", [], {}, [[]], ["a"]),
    *({"set": []}, {"set": 5}, {"range": [1]}, {"range": [5, 1]}, {"concat": [1]}, {"&": [1]}),
    *({"prefix": {"addr": "x", "len": 99}}, {"elem": {"val": 1}}, {"map": {"key": 1, "data": []}}),
)


def _places(value: Json, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _places(inner, (*at, number))


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_listing_is_read_or_refused(seed: int) -> None:
    """Whatever stands where: something is not understood, or the text is no listing."""
    rng = random.Random(seed)
    text = json.dumps(listing(*(expressions for expressions, _ in FORMS), others=[FLOWTABLE]))
    for _ in range(40):
        given = json.loads(text)
        for _ in range(rng.randint(1, 6)):
            place = rng.choice([at for at in _places(given) if len(at) > 2])
            inner = given
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = rng.choice(DAMAGES)
        with suppress(UnreadableError):
            read_nft(given)


def test_text_and_value_are_read_alike() -> None:
    given = listing((match(MARK, 1), ACCEPT))
    assert read_nft(json.dumps(given)) == read_nft(given)


def test_many_elements_become_one_set_of_values() -> None:
    """100,000 elements are a few ranges, not as many cubes."""
    elements = [f"198.{18 + n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(100_000)]
    held = {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr", "elem": elements}
    given = listing((match(IP_ID, "@s"), ACCEPT), others=[{"set": held}])
    (read,) = read_nft(given).chains["inet t c"]
    assert read.cubes == (
        among(SADDR=Ranges.between(address("198.18.0.0"), address("198.19.134.159"))),
    )


def test_elements_that_differ_in_one_place_become_one_cube() -> None:
    pairs: Json = {"concat": [IP_ID, {"payload": {"protocol": "tcp", "field": "dport"}}]}
    elements = [{"concat": [f"192.0.2.{n}", port]} for n in range(200) for port in (22, 80)]
    (read,) = read_rule(match(pairs, {"set": elements}), ACCEPT)
    assert len(read.cubes) == 1
