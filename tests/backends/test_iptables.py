"""What the iptables target writes, and what it refuses to write."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import date
from random import Random

import pytest

from policylang.backends.base import Artifact
from policylang.backends.iptables import IptablesBackend
from policylang.backends.iptables.names import (
    ASKER_PORTS,
    QUESTION_PORTS,
    SET_BYTES,
    dynamic_set_name,
    lasting_name,
    named_set_name,
    renewed_names,
    set_name,
)
from policylang.diagnostics import Report
from policylang.ir.actions import (
    Accept,
    Action,
    AddToSet,
    AssignHelper,
    CgroupGuard,
    ConnectionsGuard,
    DestinationNat,
    Drop,
    End,
    Guard,
    Jump,
    Log,
    MarkGuard,
    Native,
    OwnerGuard,
    Per,
    RateGuard,
    RememberQuestion,
    TimeGuard,
    UntilGuard,
)
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Base, Chain, DynamicSet, Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, UDP, Field
from policylang.packets.values import Ranges, name_range, parse_address
from policylang.source import SourceFile, Span

DROP = Rule(EVERYTHING, Drop())


def addresses(*texts: str) -> Ranges:
    return Ranges.merged(found for text in texts if (found := parse_address(text)))


def names(*patterns: str) -> Ranges:
    return Ranges.merged(map(name_range, patterns))


def from_(*texts: str) -> Cube:
    return Cube.of({Field.SADDR: addresses(*texts)})


def filtering(*items: Item, named: tuple[tuple[Ranges, str], ...] = ()) -> Ruleset:
    chain = Chain("input", (*items, DROP))
    return Ruleset((Base(Stage.FILTER, Path.INPUT, "input"),), (chain,), named)


def emitted(ruleset: Ruleset) -> Artifact:
    report = Report()
    artifact = IptablesBackend().emit(ruleset, report)
    assert not report.diagnostics
    return artifact


def rules(ruleset: Ruleset, name: str = "rules.v4") -> list[str]:
    """The rule lines of a file."""
    file = emitted(ruleset).file(name)
    assert file is not None
    return [line for line in file.text.splitlines() if line.startswith("-A")]


def refusals(*items: Item) -> list[str]:
    report = Report()
    IptablesBackend().emit(filtering(*items), report)
    return [f"{d.code}: {d.message}" for d in report.diagnostics]


# --- files ---------------------------------------------------------------------------------------


def test_jumps_stand_together_behind_the_chains() -> None:
    file = emitted(filtering()).files[0]
    assert file.name == "rules.v4"
    assert [line for line in file.text.splitlines() if line and line[0] != "#"] == [
        "*filter",
        ":policylang-input - [0:0]",
        "-I INPUT 1 -j policylang-input",
        "-A policylang-input -j DROP",
        "COMMIT",
    ]


def test_a_rule_of_one_family_is_in_its_file_alone() -> None:
    ruleset = filtering(Rule(from_("2001:db8::/32"), Accept()))
    assert rules(ruleset, "rules.v4") == ["-A policylang-input -j DROP"]
    assert rules(ruleset, "rules.v6")[0] == "-A policylang-input -s 2001:db8::/32 -j ACCEPT"


def test_there_is_no_file_of_sets_without_sets() -> None:
    assert [file.name for file in emitted(filtering()).files] == ["rules.v4", "rules.v6"]


def test_a_line_tells_its_statement() -> None:
    text = 'allow ssh from "admins\\" to self\n'
    origin = Origin(Why.WRITTEN, Span(SourceFile("a.policy", text), 0, len(text) - 1))
    rule = Rule(from_("192.0.2.1"), Accept(), (), (origin,))
    file = emitted(filtering(rule)).files[0]
    number = next(i for i, line in enumerate(file.text.splitlines()) if "192.0.2.1" in line)
    assert file.origins[number] == (origin,)
    comment = "a.policy:1 allow ssh from 'admins/' to self"
    assert f'-m comment --comment "{comment}" -j ACCEPT' in file.text


def test_a_chain_that_a_family_never_reaches_is_not_in_its_file() -> None:
    base = Chain("input", (Rule(from_("192.0.2.1"), Jump("inner")), DROP))
    inner = Chain("inner", (Rule(EVERYTHING, Accept()),))
    ruleset = Ruleset((Base(Stage.FILTER, Path.INPUT, "input"),), (base, inner))
    v4, v6 = emitted(ruleset).files
    assert ":policylang-inner " in v4.text
    assert "inner" not in v6.text


def test_long_and_like_names_stay_apart() -> None:
    inner = [Chain("x" * 40 + letter, (Rule(EVERYTHING, Accept()),)) for letter in "ab"]
    jumps = (Rule(EVERYTHING, Jump(chain.name)) for chain in inner)
    base = Chain("input", (*jumps, DROP))
    ruleset = Ruleset((Base(Stage.FILTER, Path.INPUT, "input"),), (base, *inner))
    declared = re.findall(r"^:(\S+)", emitted(ruleset).files[0].text, re.MULTILINE)
    assert len(set(declared)) == 3
    assert all(len(name) <= 28 for name in declared)


# --- rules ---------------------------------------------------------------------------------------


def test_a_guard_stands_once_where_a_rule_takes_several_lines() -> None:
    cube = Cube.of({Field.L4PROTO: Ranges.of(TCP, UDP), Field.DPORT: Ranges.of(53)})
    logged = Rule(cube, Log("dns "), (RateGuard(10, "second", 5),))
    assert rules(filtering(logged))[:-1] == [
        "-A policylang-input -p tcp --dport 53 -j policylang-input-1",
        "-A policylang-input -p udp --dport 53 -j policylang-input-1",
        "-A policylang-input -j DROP",
    ]
    assert rules(filtering(logged))[-1] == (
        "-A policylang-input-1 -m limit --limit 10/second --limit-burst 5 "
        '-j LOG --log-prefix "dns "'
    )


def test_all_interfaces_but_two_become_a_chain() -> None:
    others = Ranges.between(0, (1 << 128) - 1) - names("eth0", "wg*")
    assert rules(filtering(Rule(Cube.of({Field.IIF: others}), Accept()))) == [
        "-A policylang-input -j policylang-input-1",
        "-A policylang-input -j DROP",
        "-A policylang-input-1 -i eth0 -j RETURN",
        "-A policylang-input-1 -i wg+ -j RETURN",
        "-A policylang-input-1 -j ACCEPT",
    ]


def test_wildcards_side_by_side_stay_two() -> None:
    """`eth0*` and `eth1` are one range of numbers."""
    cube = Cube.of({Field.IIF: names("eth0*", "eth1")})
    assert rules(filtering(Rule(cube, Accept())))[:2] == [
        "-A policylang-input -i eth1 -j ACCEPT",
        "-A policylang-input -i eth0+ -j ACCEPT",
    ]


def test_a_port_stands_before_multiport() -> None:
    """`--dport` behind `-m multiport` would be read as short of `--dports`."""
    cube = Cube.of(
        {
            Field.L4PROTO: Ranges.of(TCP),
            Field.SPORT: Ranges.of(1, 3, 5),
            Field.DPORT: Ranges.of(80),
        }
    )
    (line, _) = rules(filtering(Rule(cube, Accept())))
    assert "-p tcp --dport 80 -m multiport --sports 1,3,5" in line


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (RateGuard(4, "minute", 8), "-m limit --limit 4/minute --limit-burst 8"),
        (RateGuard(7, "day", 5), "-m limit --limit 7/day --limit-burst 5"),
        # A limit of 7,000 a second would be one of 10,000.
        (RateGuard(7000, "second", 5), "-m hashlimit --hashlimit-upto 7000/second"),
        (RateGuard(10, "second", 20_000), "-m hashlimit --hashlimit-upto 10/second"),
    ],
)
def test_rates(rate: RateGuard, words: str) -> None:
    assert words in rules(filtering(Rule(EVERYTHING, Log("x"), (rate,))))[0]


# --- refusals ------------------------------------------------------------------------------------


def test_what_iptables_has_no_words_for_is_an_error() -> None:
    plus = Rule(Cube.of({Field.IIF: names("tun+")}), Accept())
    assert refusals(plus) == [
        "unsupported: iptables cannot express an interface name that ends in `+` (`tun+`)"
    ]
    slow = Rule(EVERYTHING, Log("x"), (RateGuard(1, "day", 5),))
    assert refusals(slow) == [
        "unsupported: iptables cannot express a rate of 1/day with a burst of 5"
    ]


@pytest.mark.parametrize(
    ("item", "message", "help"),
    [
        (
            Rule(EVERYTHING, Log("x"), (RateGuard(1, "day", 5),)),
            "a rate of 1/day with a burst of 5",
            "a burst of 1 fits",
        ),
        (
            Rule(EVERYTHING, Accept(), (UntilGuard(date(2038, 1, 1), False),)),
            "a last day in 2038",
            "iptables knows no time after 2037",
        ),
        (
            Rule(Cube.of({Field.SOURCE_ROUTED: Ranges.of(1)}), Drop()),
            "IPv4 source route options",
            "leave it out",
        ),
        (
            Rule(EVERYTHING, AddToSet("banned", End.SOURCE, 30 * 86400)),
            "a time-out of 2592000 seconds",
            "2147483 seconds at most",
        ),
    ],
)
def test_a_refusal_says_what_would_do(item: Rule, message: str, help: str) -> None:
    span = Span(SourceFile("a.policy", "some words\n"), 0, 4)
    report = Report()
    located = Rule(item.cube, item.action, item.guards, (Origin(Why.WRITTEN, span),))
    IptablesBackend().emit(filtering(located), report)
    (diagnostic,) = report.diagnostics
    assert diagnostic.message == f"iptables cannot express {message}"
    assert diagnostic.help is not None and help in diagnostic.help
    assert diagnostic.span == span


def test_a_dynamic_set_that_forgets_too_late_is_refused_at_its_statement() -> None:
    span = Span(SourceFile("a.policy", "set banned = dynamic timeout 30d\n"), 0, 10)
    kept = DynamicSet("banned", 30 * 86400, 100, (Origin(Why.WRITTEN, span),))
    report = Report()
    IptablesBackend().emit(replace(filtering(), dynamic_sets=(kept,)), report)
    assert [(d.code, d.span) for d in report.diagnostics] == [("unsupported", span)]


# --- guards --------------------------------------------------------------------------------------

HOUR_S, DAY_S = 3600, 86400
WORK = Ranges(tuple((d * DAY_S + 8 * HOUR_S, d * DAY_S + 18 * HOUR_S - 1) for d in range(5)))
NIGHTS = Ranges.merged(
    (d * DAY_S + low * HOUR_S, d * DAY_S + high * HOUR_S - 1)
    for d in range(7)
    for low, high in ((22, 24), (0, 6))
)


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (
            TimeGuard(WORK, False),
            "-m time --timestart 08:00 --timestop 17:59:59 --weekdays Mon,Tue,Wed,Thu,Fri",
        ),
        (TimeGuard(NIGHTS, True), "-m time --timestart 22:00 --timestop 05:59:59 --kerneltz"),
        (TimeGuard(Ranges.between(0, 2 * DAY_S - 1), False), "-m time --weekdays Mon,Tue"),
        (UntilGuard(date(2027, 1, 31), False), "-m time --datestop 2027-01-31T23:59:59"),
        (UntilGuard(date(2027, 1, 31), True), "-m time --datestop 2027-01-31T23:59:59 --kerneltz"),
        (OwnerGuard("user", Ranges(), ("www-data",)), '-m owner --uid-owner "www-data"'),
        (OwnerGuard("group", Ranges.between(7, 9), ()), "-m owner --gid-owner 7-9"),
        (CgroupGuard("system.slice/a b"), '-m cgroup --path "system.slice/a b"'),
        (MarkGuard(16, 255), "-m mark --mark 0x10/0xff"),
        (ConnectionsGuard(8), "-m connlimit --connlimit-upto 8 --connlimit-mask 0"),
        (
            ConnectionsGuard(8, True, Per(End.DESTINATION, 24)),
            "-m connlimit --connlimit-above 8 --connlimit-mask 24 --connlimit-daddr",
        ),
        (
            RateGuard(9, "second", 3, True, Per(End.SOURCE, 24)),
            "-m hashlimit --hashlimit-above 9/second --hashlimit-burst 3 --hashlimit-mode srcip"
            " --hashlimit-srcmask 24 --hashlimit-htable-max 65535",
        ),
    ],
)  # fmt: skip
def test_guards(guard: Guard, words: str) -> None:
    (line, _) = rules(filtering(Rule(EVERYTHING, Accept(), (guard,))))
    assert line.startswith(f"-A policylang-input {words}")


def test_a_window_that_never_closes_is_no_condition() -> None:
    always = TimeGuard(Ranges.between(0, 7 * DAY_S - 1), False)
    assert rules(filtering(Rule(EVERYTHING, Accept(), (always,))))[0] == (
        "-A policylang-input -j ACCEPT"
    )
    never = TimeGuard(Ranges(), False)
    assert rules(filtering(Rule(EVERYTHING, Accept(), (never,)))) == ["-A policylang-input -j DROP"]


DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def minutes_of(line: str) -> set[int]:
    """The minutes of the week of a window, as xt_time.c compares them."""
    found = dict(re.findall(r"--(\w+) (\S+)", line))
    start, stop = (
        int(hours) * 60 + int(minutes)
        for hours, minutes, *_ in (
            found.get(name, other).split(":")
            for name, other in (("timestart", "00:00"), ("timestop", "23:59"))
        )
    )
    days = [DAYS.index(day) for day in found.get("weekdays", ",".join(DAYS)).split(",")]
    return {
        day * 1440 + minute
        for day in days
        for minute in range(1440)
        if (start <= minute <= stop if start < stop else minute >= start or minute <= stop)
    }


@pytest.mark.parametrize("seed", range(20))
def test_windows_are_the_minutes_that_were_meant(seed: int) -> None:
    random = Random(seed)
    spans = []
    for _ in range(random.randrange(1, 4)):
        start, length = random.randrange(1440), random.randrange(2, 1200)
        for day in random.sample(range(7), random.randrange(1, 8)):
            low = day * 1440 + start
            spans += [(low, min(low + length, 10_080) - 1), (0, low + length - 10_081)]
    minutes = Ranges.merged((low, high) for low, high in spans if low <= high)
    week_s = Ranges.merged((low * 60, high * 60 + 59) for low, high in minutes)
    lines = rules(filtering(Rule(EVERYTHING, Accept(), (TimeGuard(week_s, False),))))[:-1]
    said = [minute for line in lines for minute in minutes_of(line)]
    assert len(said) == len(set(said)), "no minute is in two windows"
    assert set(said) == {minute for low, high in minutes for minute in range(low, high + 1)}


def test_what_looks_stands_before_what_counts_and_counts_once() -> None:
    guards = (
        OwnerGuard("user", Ranges.of(33), ("www-data",)),
        MarkGuard(1, 1),
        RateGuard(4, "minute", 8),
        ConnectionsGuard(8),
    )
    name, inner, innermost = (f"policylang-input{tail}" for tail in ("", "-1", "-1-1"))
    assert rules(filtering(Rule(EVERYTHING, Log("x"), guards))) == [
        f"-A {name} -m mark --mark 0x1/0x1 -j {inner}",
        f"-A {name} -j DROP",
        f"-A {inner} -m owner --uid-owner 33 -g {innermost}",
        f'-A {inner} -m owner --uid-owner "www-data" -g {innermost}',
        f"-A {innermost} -m limit --limit 4/minute --limit-burst 8"
        ' -m connlimit --connlimit-upto 8 --connlimit-mask 0 -j LOG --log-prefix "x"',
    ]


def test_buckets_are_shared_with_no_other_rule() -> None:
    """Their names hold in all tables, and bring the rate along that they were made with."""
    tcp = Cube.of({Field.L4PROTO: Ranges.of(TCP)})

    def names_of(guard: RateGuard) -> list[str]:
        items = (Rule(tcp, Log("x"), (guard,)), Rule(tcp, Log("y"), (guard,)))
        helped = Rule(tcp, AssignHelper("ftp", TCP), (guard,))
        ruleset = Ruleset(
            (Base(Stage.FILTER, Path.INPUT, "a"), Base(Stage.ASSIGN_HELPER, Path.INPUT, "b")),
            (Chain("a", (*items, DROP)), Chain("b", (helped,))),
        )
        return re.findall(r"--hashlimit-name (\S+)", "\n".join(rules(ruleset)))

    per_source = RateGuard(5, "second", 5, per=Per(End.SOURCE))
    found = [*names_of(per_source), *names_of(RateGuard(6, "second", 5, per=Per(End.SOURCE)))]
    assert len(set(found)) == 6
    assert names_of(per_source) == names_of(per_source)


# --- places and native lines ---------------------------------------------------------------------


def test_what_arrives_is_screened_before_it_is_helped() -> None:
    ruleset = Ruleset(
        (
            Base(Stage.FILTER, Path.INPUT, "a"),
            Base(Stage.SCREEN, Path.INPUT, "b"),
            Base(Stage.ASSIGN_HELPER, Path.INPUT, "c"),
            Base(Stage.SCREEN_STATE, Path.INPUT, "d"),
        ),
        (
            Chain("a", (DROP,)),
            Chain("b", (Rule(from_("192.0.2.1"), Drop()),)),
            Chain("c", (Rule(TCP_ALONE, AssignHelper("ftp", TCP)),)),
            Chain("d", (Rule(Cube.of({Field.CT_STATE: Ranges.of(3)}), Drop()),)),
        ),
    )
    file = emitted(ruleset).files[0]
    words = [line for line in file.text.splitlines() if line[:2] in ("*r", "*m", "*f", "-I")]
    assert words == [
        "*raw",
        "-I PREROUTING 1 -j policylang-input",
        "-I PREROUTING 1 -j policylang-screen",
        "*mangle",
        "-I PREROUTING 1 -j policylang-screen-state",
        "*filter",
        "-I INPUT 1 -j policylang-input",
    ]


TCP_ALONE = Cube.of({Field.L4PROTO: Ranges.of(TCP)})


def test_a_native_line_keeps_its_statement() -> None:
    span = Span(SourceFile("a.policy", 'native iptables INPUT "-j DROP"\n'), 0, 31)
    origin = Origin(Why.WRITTEN, span)
    native = Rule(EVERYTHING, Native("iptables", "-m u32 --u32 0=0 -j DROP", 6), (), (origin,))
    other = Rule(EVERYTHING, Native("nft", "drop", None), (), (origin,))
    v4, v6 = emitted(filtering(native, other)).files
    assert "u32" not in v4.text
    lines = v6.text.splitlines()
    number = lines.index("-A policylang-input -m u32 --u32 0=0 -j DROP")
    assert v6.origins[number] == (origin,)
    assert "-j drop" not in v6.text and " drop" not in v6.text
    assert refusals(Rule(EVERYTHING, Native("iptables", "-j DROP\nCOMMIT", None))) == [
        "unsupported: iptables cannot express a line with control characters"
    ]


# --- sets that packets fill ----------------------------------------------------------------------


def test_dynamic_sets_are_made_and_never_emptied() -> None:
    kept = (DynamicSet("banned", 3600, 65535), DynamicSet("b" * 40, None, 10))
    file = emitted(replace(filtering(), dynamic_sets=kept)).file("sets.ipset")
    assert file is not None
    made = [line for line in file.text.splitlines() if line and line[0] != "#"]
    long = [dynamic_set_name("b" * 40, family) for family in (4, 6)]
    assert made == [
        "create policylang-banned-v4 hash:ip family inet timeout 3600 maxelem 65535 -exist",
        "create policylang-banned-v6 hash:ip family inet6 timeout 3600 maxelem 65535 -exist",
        f"create {long[0]} hash:ip family inet timeout 0 maxelem 10 -exist",
        f"create {long[1]} hash:ip family inet6 timeout 0 maxelem 10 -exist",
    ]


def test_names_of_dynamic_sets_stay_apart() -> None:
    wanted = ["x" * n for n in range(1, 60)] + ["x" * 6 + "-y" * 20, "asked", "new", "put-back"]
    made = [dynamic_set_name(name, family) for name in wanted for family in (4, 6)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"policylang-[\w.-]{1,20}", name) for name in made)
    # Those of sets of values end in six letters behind a dash.
    assert not any(re.search(r"-\w{6}$", name) for name in made)


def test_questions_that_are_remembered_for_one_time_share_a_chain() -> None:
    asked = (Rule(from_(text), RememberQuestion(3)) for text in ("192.0.2.1", "192.0.2.2"))
    lines = rules(filtering(*asked))
    assert sum("-j policylang-asked-3s" in line for line in lines) == 2
    assert sum("--add-set" in line for line in lines) == 4


def test_many_mac_addresses_are_an_ipset() -> None:
    """Few are not: some kernels have no such type."""

    def lines_of(count: int) -> list[str]:
        values = Ranges.of(*range(2, 2 + 2 * count, 2))
        return rules(filtering(Rule(Cube.of({Field.SMAC: values}), Accept())))[:-1]

    assert len(lines_of(16)) == 16
    (line,) = lines_of(17)
    assert re.search(r"-m set --match-set policylang-macs-\w{6} src -j ACCEPT", line)


# --- sets ----------------------------------------------------------------------------------------

ADMINS = addresses("192.0.2.0/24", "198.51.100.7", "2001:db8:1::/48", "2001:db8:2::1")


def set_names(ruleset: Ruleset) -> set[str]:
    file = emitted(ruleset).file("sets.ipset")
    assert file is not None
    return set(re.findall(r"^swap \S+ (\S+)$", file.text, re.MULTILINE))


def test_a_set_is_called_what_the_policy_calls_it_and_shared() -> None:
    port = [Cube.of({Field.L4PROTO: Ranges.of(TCP), Field.DPORT: Ranges.of(n)}) for n in (22, 80)]
    admins = Cube.of({Field.SADDR: ADMINS})
    ruleset = filtering(*(Rule(admins & p, Accept()) for p in port), named=((ADMINS, "admins"),))
    found = sorted(set_names(ruleset))
    assert [lasting_name(name) for name in found] == [
        "policylang-admins.4",
        "policylang-admins.6",
    ]
    assert sum(found[0] in line for line in rules(ruleset)) == 2


def test_another_content_has_another_name() -> None:
    """The rules that are in force while new sets are loaded go on seeing the old ones."""

    def named(values: Ranges) -> set[str]:
        rule = Rule(Cube.of({Field.SADDR: values}), Accept())
        return set_names(filtering(rule, named=((values, "admins"),)))

    assert named(ADMINS) == named(ADMINS)
    others = named(ADMINS | addresses("203.0.113.1", "2001:db8:3::1"))
    assert not named(ADMINS) & others
    assert {*map(lasting_name, named(ADMINS))} == {*map(lasting_name, others)}


def test_what_stays_of_a_name_tells_sets_apart() -> None:
    """Long names as well, and no other ipset's name is taken for one that lasts."""
    long = ["a-rather-long-name-of-a-set", "a-rather-long-name-of-another"]
    made = [named_set_name(name, family, "x") for name in long for family in ("4", "6", "")]
    assert all(len(name) <= SET_BYTES for name in made)
    assert len({lasting_name(name) for name in made}) == len(made)
    assert not {*made} & {*map(lasting_name, made)}
    others = [
        *(dynamic_set_name(name, 4) for name in ("short", *long)),
        *(set_name(name, "4", "x") for name in ("addresses", *long)),
        ASKER_PORTS,
        *QUESTION_PORTS.values(),
    ]
    assert [lasting_name(name) for name in others] == others
    (first, *_) = made
    renewed = renewed_names(first)
    assert first not in renewed
    assert {lasting_name(name) for name in renewed} == {lasting_name(first)}


def test_pairs_of_address_and_port_are_one_ipset() -> None:
    entries = tuple(
        Entry(((n, n), (TCP, TCP), (1000 + n, 1000 + n)), Accept()) for n in range(2, 202, 2)
    )
    lookup = Lookup(EVERYTHING, (Field.SADDR, Field.L4PROTO, Field.DPORT), entries)
    ruleset = filtering(lookup)
    (name,) = set_names(ruleset)
    assert rules(ruleset)[0] == (f"-A policylang-input -m set --match-set {name} src,dst -j ACCEPT")
    sets = emitted(ruleset).file("sets.ipset")
    assert sets is not None
    assert "add policylang-new-ip-port4 0.0.0.2,tcp:1002\n" in sets.text


def test_a_wide_range_of_ports_does_not_become_single_elements() -> None:
    narrow = [Entry(((n, n), (TCP, TCP), (n, n)), Accept()) for n in range(100)]
    wide = [Entry(((n, n), (TCP, TCP), (n, 60_000 + n)), Accept()) for n in range(200, 300, 2)]
    fields = (Field.SADDR, Field.L4PROTO, Field.DPORT)
    ruleset = filtering(Lookup(EVERYTHING, fields, (*narrow, *wide)))
    assert len(set_names(ruleset)) == 1
    assert sum("--dport" in line for line in rules(ruleset) if "ACCEPT" in line) == 50
    sets = emitted(ruleset).file("sets.ipset")
    assert sets is not None
    assert sets.text.count("\nadd ") == 100


def test_large_sets_are_written_fast() -> None:
    blocked = Ranges(tuple((n << 9, (n << 9) + 255) for n in range(100_000)))
    cube = Cube.of({Field.SADDR: blocked})
    emitted(filtering())  # imports and templates
    started = time.process_time()
    artifact = emitted(filtering(*(Rule(cube, Drop()) for _ in range(3))))
    assert time.process_time() - started < 1.0  # 0.15 s where the machine does nothing else
    sets = artifact.file("sets.ipset")
    assert sets is not None
    assert sets.text.count("\nadd ") == 100_000


# --- translations --------------------------------------------------------------------------------

IPV4_TCP = Cube.of({Field.FAMILY: Ranges.of(4), Field.L4PROTO: Ranges.of(TCP)})


def translating(action: Action, origins: tuple[Origin, ...] = ()) -> Ruleset:
    rule = Rule(IPV4_TCP, action, (), origins)
    chains = (Chain("dstnat", (rule,)),)
    return Ruleset((Base(Stage.DSTNAT, Path.INPUT, "dstnat"),), chains)


@pytest.mark.parametrize("by_source", [False, True])
def test_targets_are_chosen_among_line_by_line(by_source: bool) -> None:
    """As many as 256; by source, the kernel chooses from a single range, however long it is."""
    fitting = DestinationNat(addresses("10.0.0.0/25", "10.0.2.0/25"), 80, by_source)
    lines = [line for line in rules(translating(fitting)) if "-j DNAT" in line]
    assert len(lines) == 256
    assert lines[-1].endswith("-p tcp -j DNAT --to-destination 10.0.2.127:80")
    span = Span(SourceFile("a.policy", "dnat"), 0, 4)
    report = Report()
    beyond = DestinationNat(addresses("10.0.0.0/24", "10.0.2.0"), 80, by_source)
    IptablesBackend().emit(translating(beyond, (Origin(Why.WRITTEN, span),)), report)
    (refused,) = report.diagnostics
    assert (refused.code, refused.span) == ("unsupported", span)
    assert refused.message == "iptables cannot express 257 targets"
    assert refused.help
    (line,) = rules(translating(DestinationNat(addresses("10.0.0.0/8"), 80, by_source=True)))
    assert line.endswith("--to-destination 10.0.0.0-10.255.255.255:80 --persistent")
