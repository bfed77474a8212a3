"""What is emitted for nft reads as intended, knows its statements, and is refused where it must."""

from __future__ import annotations

from datetime import date

import pytest

from policylang.backends.nft import NftBackend
from policylang.backends.nft.guards import duration
from policylang.backends.nft.sets import dynamic_set_name
from policylang.diagnostics import Diagnostic, Report
from policylang.ir.actions import (
    Accept,
    AddToSet,
    Answer,
    Drop,
    End,
    Guard,
    Jump,
    Log,
    Native,
    Per,
    RateGuard,
    Reject,
    RememberAsker,
    RememberQuestion,
    TimeGuard,
    UntilGuard,
)
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Chain, DynamicSet, Item, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, UDP, Field
from policylang.packets.values import Ranges
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


def test_times_are_short() -> None:
    assert [duration(s) for s in (1, 60, 61, 3600, 90061, 7 * DAY_S)] == [
        "1s", "1m", "1m1s", "1h", "1d1h1m1s", "7d",
    ]  # fmt: skip
