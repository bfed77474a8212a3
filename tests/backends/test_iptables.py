"""What the iptables target writes, and what it refuses to write."""

from __future__ import annotations

import re
import time

import pytest

from policylang.backends.base import Artifact
from policylang.backends.iptables import IptablesBackend
from policylang.diagnostics import Report
from policylang.ir.actions import Accept, Drop, Jump, Log, RateGuard
from policylang.ir.origin import Origin, Why
from policylang.ir.ruleset import Base, Chain, Entry, Item, Lookup, Rule, Ruleset
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
    assert [name[: len("policylang-admins4")] for name in found] == [
        "policylang-admins4",
        "policylang-admins6",
    ]
    assert sum(found[0] in line for line in rules(ruleset)) == 2


def test_another_content_has_another_name() -> None:
    """The rules that are in force while new sets are loaded go on seeing the old ones."""

    def named(values: Ranges) -> set[str]:
        rule = Rule(Cube.of({Field.SADDR: values}), Accept())
        return set_names(filtering(rule, named=((values, "admins"),)))

    assert named(ADMINS) == named(ADMINS)
    assert not named(ADMINS) & named(ADMINS | addresses("203.0.113.1", "2001:db8:3::1"))


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
