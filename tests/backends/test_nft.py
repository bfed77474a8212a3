"""What is emitted for nft reads as intended, knows its statements, and is refused where it must."""

from __future__ import annotations

from datetime import date

import pytest

from policylang.apply.nft_text import replacement
from policylang.backends.nft import NftBackend
from policylang.backends.nft.guards import duration
from policylang.backends.nft.sets import dynamic_set_name
from policylang.diagnostics import Diagnostic, Report
from policylang.ir.actions import (
    Accept,
    Action,
    AddToSet,
    Answer,
    ClampMss,
    DestinationNat,
    Drop,
    End,
    Guard,
    Jump,
    Log,
    MapPrefix,
    Masquerade,
    Native,
    Offload,
    Per,
    Queue,
    RateGuard,
    RedirectToSelf,
    Reject,
    RememberAsker,
    RememberQuestion,
    SetConnectionMark,
    SetDscp,
    SetMark,
    SourceNat,
    TimeGuard,
    TransparentProxy,
    UntilGuard,
    Untrack,
)
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Chain, DynamicSet, Item, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, UDP, Field, State
from policylang.packets.values import Range, Ranges, parse_address
from policylang.source import SourceFile, Span
from tests.backends.nft_station import emitted, ruleset

INPUT = (Stage.FILTER, Path.INPUT)
OUTPUT = (Stage.FILTER, Path.OUTPUT)
TEXT = "allow ssh inbound limit 4/minute per source"
WRITTEN = (Origin(Why.WRITTEN, Span(SourceFile("a.policy", TEXT), 0, len(TEXT))),)
HOUR_S, DAY_S = 3600, 86400


def lines(*items: Item, chains: tuple[Chain, ...] = ()) -> list[str]:
    """The lines of the input chain but the last, and those of chains that were made for it."""
    text = emitted(ruleset({INPUT: items}, *chains))
    found = [line.strip() for line in text.partition("policy drop;")[2].splitlines()]
    return [line for line in found if line not in ("", "}", "drop")]


def refusal(*guards: Guard) -> Diagnostic:
    report = Report()
    rule = Rule(EVERYTHING, Accept(), guards, WRITTEN)
    NftBackend().emit(ruleset({INPUT: (rule,)}), report)
    (diagnostic,) = report.diagnostics
    return diagnostic


def hours(first: int, last: int, *days: int) -> Ranges:
    return Ranges.merged(
        (day * DAY_S + first * HOUR_S, day * DAY_S + last * HOUR_S - 1) for day in days
    )


def test_days_with_the_same_hours_stand_together() -> None:
    office = hours(8, 18, 0, 1, 2, 3, 4) | hours(10, 14, 5) | hours(0, 24, 6)
    assert lines(Rule(EVERYTHING, Accept(), (TimeGuard(office, is_local=False),))) == [
        'meta day { "Monday", "Tuesday", "Wednesday", "Thursday", "Friday" } '
        "meta hour 28800-64799 accept",
        'meta day "Saturday" meta hour 36000-50399 accept',
        'meta day "Sunday" accept',
    ]
    daily = hours(22, 24, *range(7)) | hours(0, 6, *range(7))
    assert lines(Rule(EVERYTHING, Accept(), (TimeGuard(daily, is_local=False),))) == [
        "meta hour { 0-21599, 79200-86399 } accept"
    ]


def test_local_times_are_left_to_the_machine_that_loads() -> None:
    guards = (
        TimeGuard(hours(8, 18, *range(7)), is_local=True),
        UntilGuard(date(2027, 12, 31), is_local=True),
    )
    assert lines(Rule(EVERYTHING, Accept(), guards)) == [
        'meta hour "08:00:00"-"17:59:59" meta time < "2028-01-01 00:00:00" accept'
    ]


@pytest.mark.parametrize(
    "guard",
    [
        TimeGuard(hours(8, 18, 0, 1), is_local=True),
        UntilGuard(date(2262, 1, 1), is_local=False),
        UntilGuard(date(2262, 1, 1), is_local=True),
    ],
)
def test_times_that_the_kernel_does_not_know_are_refused_at_the_statement(guard: Guard) -> None:
    refused = refusal(guard)
    assert refused.code == "unsupported"
    assert refused.span == WRITTEN[0].span
    assert refused.help


def test_a_time_that_never_is_opens_nothing() -> None:
    assert lines(Rule(EVERYTHING, Accept(), (TimeGuard(Ranges(), is_local=False),))) == []


def test_every_line_knows_its_statement() -> None:
    over = RateGuard(4, "minute", 5, over=True, per=Per(End.SOURCE))
    banned = DynamicSet("banned", 60, 10, WRITTEN)
    rules = (
        Rule(EVERYTHING, AddToSet("banned", End.SOURCE, None), (), WRITTEN),
        Rule(EVERYTHING, Drop(), (over,), WRITTEN),
        Rule(EVERYTHING, Native("nft", "tcp dport 22 accept", None), (), WRITTEN),
    )
    (file,) = NftBackend().emit(ruleset({INPUT: rules}, sets=(banned,)), Report()).files
    known = [
        line.strip()
        for line, origins in zip(file.text.splitlines(), file.origins, strict=True)
        if origins
    ]
    comment = f'comment "a.policy:1 {TEXT}"'
    assert known == [
        "set banned-v4 {",
        "set banned-v6 {",
        "set rates.filter-input-2-v4 {",
        "set rates.filter-input-2-v6 {",
        f"meta nfproto ipv4 update @banned-v4 {{ ip saddr }} {comment}",
        f"meta nfproto ipv6 update @banned-v6 {{ ip6 saddr }} {comment}",
        f"meta nfproto ipv4 jump filter-input-2.v4 {comment}",
        f"meta nfproto ipv6 jump filter-input-2.v6 {comment}",
        "tcp dport 22 accept",
        "update @rates.filter-input-2-v4 { ip saddr limit rate 4/minute burst 5 packets } "
        f"return {comment}",
        f"drop {comment}",
        "update @rates.filter-input-2-v6 { ip6 saddr limit rate 4/minute burst 5 packets } "
        f"return {comment}",
        f"drop {comment}",
    ]


def test_every_dynamic_set_is_there_and_no_other_has_its_name() -> None:
    ports = Ranges.of(*range(1, 40, 2))
    cube = Cube.of({Field.L4PROTO: Ranges.of(TCP), Field.DPORT: ports})
    unused = tuple(DynamicSet(name, None, 5) for name in ("a", "questions", "rates"))
    made = ruleset(
        {
            INPUT: (
                Rule(cube, Accept()),
                Rule(EVERYTHING, Accept(), (RateGuard(1, "day", 2, per=Per(End.SOURCE)),)),
                Rule(EVERYTHING, RememberAsker(1)),
            ),
            OUTPUT: (Rule(EVERYTHING, RememberQuestion(1)),),
        },
        sets=unused,
    )
    named = Ruleset(
        made.bases, made.chains, ((ports, "a-v4"),), made.address_tests, made.dynamic_sets
    )
    text = emitted(named)
    names = [line.split()[1] for line in text.splitlines() if line.startswith("\tset ")]
    assert len(set(names)) == len(names)
    declared = {dynamic_set_name(s.name, family) for s in unused for family in (4, 6)}
    assert declared < set(names)
    # The set of ports, which a policy called like one of them, has another name.
    assert {n for n in set(names) - declared if "." not in n} == {"a-v4-2"}


def test_lines_of_other_targets_are_left_out() -> None:
    other = Native("iptables", "-j DROP", None)
    assert lines(Rule(EVERYTHING, other), Rule(EVERYTHING, Native("nft", "counter", None))) == [
        "counter"
    ]


def test_closing_through_a_chain_is_told_from_opening() -> None:
    """Where something closes, a full table must not let it through: see `Spelling._ending`."""
    over = RateGuard(4, "minute", 5, over=True, per=Per(End.SOURCE, 24, 64))
    closing = Chain(
        "closing",
        (Rule(EVERYTHING, Log("x", None, None)), Rule(EVERYTHING, Reject(Answer.TCP_RESET))),
    )
    mixed = Chain(
        "mixed",
        (
            Rule(Cube.of({Field.L4PROTO: Ranges.of(UDP)}), Accept()),
            Rule(EVERYTHING, Jump("closing")),
        ),
    )
    v4 = Cube.of({Field.FAMILY: Ranges.of(4)})
    limit = "ip saddr & 255.255.255.0 limit rate"
    found = lines(
        Rule(v4, Jump("closing"), (over,)),
        Rule(v4, Jump("mixed"), (over,)),
        chains=(closing, mixed),
    )
    assert "meta nfproto ipv4 jump filter-input-1.v4" in found
    assert f"update @rates.filter-input-1-v4 {{ {limit} 4/minute burst 5 packets }} return" in found
    assert (
        f"meta nfproto ipv4 update @rates.filter-input-2-v4 {{ {limit} over 4/minute burst 5 "
        "packets } jump mixed"
    ) in found


def test_a_set_without_a_time_keeps_what_is_added() -> None:
    """See `rules._times`: an update without a time takes away what has one."""

    def added(*timeouts_s: int | None, own_s: int | None) -> list[str]:
        declared = DynamicSet("s", own_s, 5)
        v4 = Cube.of({Field.FAMILY: Ranges.of(4)})
        rules = [Rule(v4, AddToSet("s", End.SOURCE, t)) for t in timeouts_s]
        text = emitted(ruleset({INPUT: rules}, sets=(declared,)))
        return [line.split("ipv4 ")[1] for line in text.splitlines() if "@s-v4" in line]

    assert added(None, own_s=None) == ["add @s-v4 { ip saddr }"]
    assert added(None, own_s=60) == ["update @s-v4 { ip saddr }"]
    assert added(30, None, own_s=60) == [
        "update @s-v4 { ip saddr timeout 30s }",
        "update @s-v4 { ip saddr }",
    ]
    assert added(30, None, own_s=None) == [
        "update @s-v4 { ip saddr timeout 30s }",
        "update @s-v4 { ip saddr timeout 36500d }",
    ]


# --- what changes packets ------------------------------------------------------------------------

FORWARD = (Stage.FILTER, Path.FORWARD)
PLACES: dict[type[Action], tuple[Stage, Path]] = {
    **dict.fromkeys((Masquerade, SourceNat), (Stage.SRCNAT, Path.FORWARD)),
    **dict.fromkeys((DestinationNat, RedirectToSelf, MapPrefix), (Stage.DSTNAT, Path.INPUT)),
    **dict.fromkeys((SetMark, SetConnectionMark, SetDscp), (Stage.MARK, Path.INPUT)),
    ClampMss: (Stage.TREAT, Path.FORWARD),
    Untrack: (Stage.UNTRACK, Path.INPUT),
    TransparentProxy: (Stage.TPROXY, Path.INPUT),
    Queue: (Stage.INSPECT, Path.FORWARD),
    Offload: FORWARD,
}
FULL = 0xFFFFFFFF


def addresses(*texts: str) -> Ranges:
    return Ranges.merged(pair for text in texts if (pair := parse_address(text)) is not None)


def one(text: str) -> Range:
    (pair,) = addresses(text)
    return pair


def altering(action: Action, cube: Cube = EVERYTHING) -> list[str]:
    """The lines of all chains for a rule, less the hook's and what the filter drops."""
    text = emitted(ruleset({PLACES[type(action)]: (Rule(cube, action),)}))
    found = [line.strip() for line in text.partition("\tchain ")[2].splitlines()[1:]]
    return [f for f in found if f not in ("", "}", "drop") and not f.startswith("type ")]


V4, V6 = (Cube.of({Field.FAMILY: Ranges.of(family)}) for family in (4, 6))
HTTP = Cube.of({Field.L4PROTO: Ranges.of(TCP), Field.DPORT: Ranges.of(80)})
PORTED = Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP)})
OTHERS = "meta l4proto != { tcp, udp, dccp, sctp }"
WITH_PORTS = "meta l4proto { tcp, udp, dccp, sctp }"

ALTERATIONS: list[tuple[Action, Cube, list[str]]] = [
    (Masquerade(), EVERYTHING, ["masquerade"]),
    (Masquerade(is_random=True), V4, ["meta nfproto ipv4 masquerade fully-random"]),
    (
        Masquerade((1024, 2047), is_random=True),
        EVERYTHING,
        [
            f"{WITH_PORTS} masquerade to :1024-2047 fully-random",
            f"{OTHERS} masquerade fully-random",
        ],
    ),
    (Masquerade((1024, 2047)), HTTP, ["tcp dport 80 masquerade to :1024-2047"]),
    (SourceNat(one("192.0.2.7")), V4, ["meta nfproto ipv4 snat ip to 192.0.2.7"]),
    (
        SourceNat(one("192.0.2.8/30"), (5000, 5000), is_random=True, is_persistent=True),
        PORTED,
        [
            "meta nfproto ipv4 meta l4proto { tcp, udp } snat ip to "
            "192.0.2.8-192.0.2.11:5000 fully-random,persistent"
        ],
    ),
    (
        SourceNat(one("2001:db8::/127"), (1024, 2047)),
        HTTP,
        ["meta nfproto ipv6 tcp dport 80 snat ip6 to [2001:db8::]-[2001:db8::1]:1024-2047"],
    ),
    (SourceNat(one("192.0.2.7")), V6, []),
    (
        DestinationNat(addresses("10.0.2.10"), 8080),
        HTTP & V4,
        ["meta nfproto ipv4 tcp dport 80 dnat ip to 10.0.2.10:8080"],
    ),
    (
        DestinationNat(addresses("2001:db8::1"), 8080),
        HTTP,
        ["meta nfproto ipv6 tcp dport 80 dnat ip6 to [2001:db8::1]:8080"],
    ),
    (
        DestinationNat(addresses("10.0.2.10", "10.0.2.12")),
        V4,
        ["meta nfproto ipv4 dnat ip to numgen inc mod 2 map { 0 : 10.0.2.10, 1 : 10.0.2.12 }"],
    ),
    (
        DestinationNat(addresses("10.0.2.10", "10.0.2.12"), 8080, by_source=True),
        HTTP & V4,
        [
            "meta nfproto ipv4 tcp dport 80 dnat ip to jhash ip saddr mod 2 seed 0x1 map "
            "{ 0 : 10.0.2.10, 1 : 10.0.2.12 }:8080"
        ],
    ),
    (
        DestinationNat(addresses("10.0.0.0/16"), by_source=True),
        V4,
        ["meta nfproto ipv4 dnat ip to 10.0.0.0-10.0.255.255 persistent"],
    ),
    (RedirectToSelf(3128), HTTP, ["tcp dport 80 redirect to :3128"]),
    (
        MapPrefix(End.DESTINATION, one("10.0.2.16/28")),
        V4,
        ["meta nfproto ipv4 dnat ip prefix to 10.0.2.16/28"],
    ),
    (
        MapPrefix(End.SOURCE, one("2001:db8::/64")),
        V6,
        ["meta nfproto ipv6 snat ip6 prefix to 2001:db8::/64"],
    ),
    (SetMark(0x10, FULL), EVERYTHING, ["meta mark set 0x10"]),
    (SetMark(0x10, 0xFF), EVERYTHING, ["meta mark set meta mark & 0xffffff00 | 0x10"]),
    (SetMark(0x10, 0x10), EVERYTHING, ["meta mark set meta mark | 0x10"]),
    (SetMark(0, 0x10), EVERYTHING, ["meta mark set meta mark & 0xffffffef"]),
    (SetConnectionMark(1, 0xF), EVERYTHING, ["ct mark set ct mark & 0xfffffff0 | 0x1"]),
    (
        SetDscp(46),
        EVERYTHING,
        ["meta nfproto ipv4 ip dscp set ef", "meta nfproto ipv6 ip6 dscp set ef"],
    ),
    (SetDscp(5), V6, ["meta nfproto ipv6 ip6 dscp set 5"]),
    (ClampMss(None), HTTP, ["tcp dport 80 tcp option maxseg size set rt mtu"]),
    (ClampMss(1400), HTTP, ["tcp dport 80 tcp option maxseg size set 1400"]),
    (Untrack(), HTTP, ["tcp dport 80 notrack accept"]),
    (
        TransparentProxy(3129, TCP, 0x100, 0x100),
        HTTP,
        [
            "tcp dport 80 jump tproxy-input-1.proxy",
            "chain tproxy-input-1.proxy {",
            "meta l4proto tcp tproxy to :3129 meta mark set meta mark | 0x100 accept",
        ],
    ),
    (Queue(0, 0, may_bypass=False), HTTP, ["tcp dport 80 queue to 0"]),
    (Queue(1, 4, may_bypass=True), HTTP, ["tcp dport 80 queue flags bypass to 1-4"]),
    (Offload(("eth1", "eth0")), HTTP, ["tcp dport 80 flow add @offloaded"]),
]


@pytest.mark.parametrize(("action", "cube", "expected"), ALTERATIONS)
def test_what_changes_packets_is_said_as_people_say_it(
    action: Action, cube: Cube, expected: list[str]
) -> None:
    """For packets that it is for: of the family of an address, with ports where it has some."""
    assert altering(action, cube) == expected


def test_lines_that_take_turns_together_have_a_chain() -> None:
    cube = PORTED & V4 & Cube.of({Field.DPORT: Ranges.of(80), Field.DNATED: Ranges.of(0)})
    in_turn = DestinationNat(addresses("10.0.2.10", "10.0.2.12"), 8080)
    assert altering(in_turn, cube) == [
        "ct status & dnat == 0 meta nfproto ipv4 meta l4proto { tcp, udp } th dport 80 "
        "jump dstnat-input-1.turns",
        "ct state invalid,untracked meta nfproto ipv4 meta l4proto { tcp, udp } th dport 80 "
        "jump dstnat-input-1.turns",
        "chain dstnat-input-1.turns {",
        "meta l4proto { tcp, udp } dnat ip to numgen inc mod 2 map "
        "{ 0 : 10.0.2.10, 1 : 10.0.2.12 }:8080",
    ]
    tracked = cube & Cube.of({Field.CT_STATE: Ranges.of(State.NEW)})
    assert len(altering(in_turn, tracked)) == 1


def test_rules_of_one_statement_take_turns_together() -> None:
    """Not so those of two, whatever they have in common."""
    place = (Stage.DSTNAT, Path.INPUT)
    in_turn = DestinationNat(addresses("10.0.2.10", "10.0.2.12"), 8080)
    dns = Cube.of({Field.L4PROTO: Ranges.of(UDP), Field.DPORT: Ranges.of(53)}) & V4
    other = (Origin(Why.WRITTEN, Span(SourceFile("a.policy", TEXT), 6, len(TEXT))),)
    rules = (
        Rule(HTTP & V4, in_turn, (), WRITTEN),
        Rule(dns, in_turn, (), WRITTEN),
        Rule(dns, in_turn, (), other),
    )
    text = emitted(ruleset({place: rules, (Stage.DSTNAT, Path.OUTPUT): rules[:1]}))
    assert text.count("jump dstnat-input-1.turns ") == 3
    assert text.count("numgen") == 2
    assert "meta l4proto { tcp, udp } dnat ip to numgen" in text
    assert "udp dport 53 dnat ip to numgen" in text
    # Where no statement is behind a rule, it is alone.
    assert emitted(ruleset({place: (Rule(HTTP, in_turn), Rule(dns, in_turn))})).count("numgen") == 2


def test_all_that_is_offloaded_shares_a_flowtable() -> None:
    """The kernel takes no device that is in two of one table."""
    rules = (
        Rule(HTTP, Offload(("wan0", "lan0")), (), WRITTEN),
        Rule(PORTED, Offload(("wan0", "dmz.5"))),
    )
    (file,) = NftBackend().emit(ruleset({FORWARD: rules}), Report()).files
    body = [line.strip() for line in file.text.splitlines()]
    place = body.index("flowtable offloaded {")
    assert body[place + 1 : place + 4] == [
        "hook ingress priority filter",
        'devices = { "dmz.5", "lan0", "wan0" }',
        "}",
    ]
    assert file.origins[place] == WRITTEN
    assert file.text.count("flow add @offloaded") == 2
    assert "flowtable" not in emitted(ruleset({FORWARD: ()}))


def test_a_flowtable_goes_with_all_else_where_a_set_stays() -> None:
    """No kernel here has any: this is what nft prints of one, by its manual."""
    banned = DynamicSet("banned", 60, 10)
    rules = (Rule(HTTP, Offload(("eth0", "eth1"))),)
    script = emitted(ruleset({FORWARD: rules}, sets=(banned,)))
    listing = script[script.index("table inet policylang {") :].replace('"eth0"', "eth0")
    loaded = replacement(script, listing, {}).text
    removal = next(line for line in loaded.splitlines() if line.startswith("flush table"))
    assert removal == "; ".join(
        f"{verb} inet policylang{name}"
        for verb, name in (
            ("flush table", ""),
            ("delete flowtable", " offloaded"),
            ("delete chain", " filter-forward"),
        )
    )
    assert "flowtable offloaded {" in loaded


@pytest.mark.parametrize(
    "action",
    [
        Offload(("eth0", "wlan*")),
        DestinationNat(addresses("10.0.0.0/22", "10.0.9.0")),
        DestinationNat(addresses("10.0.0.0/22", "10.0.9.0"), by_source=True),
    ],
)
def test_what_nft_cannot_do_is_refused_at_the_statement(action: Action) -> None:
    report = Report()
    NftBackend().emit(ruleset({PLACES[type(action)]: (Rule(V4, action, (), WRITTEN),)}), report)
    (refused,) = report.diagnostics
    assert (refused.code, refused.span) == ("unsupported", WRITTEN[0].span)
    assert refused.message.startswith(("nft cannot offload", "nft cannot choose among"))
    assert refused.help


def test_an_action_for_ports_is_not_for_all_packets() -> None:
    with pytest.raises(AssertionError):
        altering(RedirectToSelf(3128), V4)
    with pytest.raises(AssertionError):
        altering(DestinationNat(addresses("10.0.2.10"), 80), V4)


def test_times_are_short() -> None:
    assert [duration(s) for s in (1, 60, 61, 3600, 90061, 7 * DAY_S)] == [
        "1s", "1m", "1m1s", "1h", "1d1h1m1s", "7d",
    ]  # fmt: skip


def test_as_many_targets_as_fit_are_chosen_among() -> None:
    """By source, a single range is chosen from by the kernel itself, however long it is."""
    among = addresses("10.0.0.0/23", "10.0.8.0/23")
    for by_source in (False, True):
        (line,) = altering(DestinationNat(among, by_source=by_source), V4)
        assert "mod 1024 " in line and line.endswith(", 1023 : 10.0.9.255 }")
    (line,) = altering(DestinationNat(addresses("10.0.0.0/8"), by_source=True), V4)
    assert line.endswith("dnat ip to 10.0.0.0-10.255.255.255 persistent")


def test_a_measure_holds_for_one_line() -> None:
    """No measure stands before a translation, of which some packets would meet another line."""
    for action in (Masquerade((1024, 2047)), RedirectToSelf(8080)):
        rule = Rule(HTTP, action, (RateGuard(5, "second", 5),))
        with pytest.raises(AssertionError, match="a measure holds for one line"):
            emitted(ruleset({PLACES[type(action)]: (rule,)}))
