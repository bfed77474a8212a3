"""A generation beside another, and how listings tell them apart; texts, without a kernel."""

from __future__ import annotations

import re

import pytest

from policylang.apply import xtables_switch
from policylang.apply.generation import InputLine, read
from policylang.apply.loaded import Chain, Count, KernelSet, Rule
from policylang.apply.xtables_listing import Snapshot, counts_kept, told
from policylang.apply.xtables_pending import all_beside, arming, disarming, with_names

RULES = """\
*raw
:policylang-screen - [0:0]
:policylang-input - [0:0]
-I PREROUTING 1 -j policylang-input
-I PREROUTING 1 -j policylang-screen
-A policylang-screen -i wan0 -m comment --comment "see -j policylang-input" -j DROP
COMMIT
*filter
:policylang-input - [0:0]
-I INPUT 1 -j policylang-input
-A policylang-input -m set --match-set policylang-friends.4abcdef src -j ACCEPT
-A policylang-input -j DROP
COMMIT
"""
LISTING = """\
*nat
:PREROUTING ACCEPT [0:0]
:policylang-dstnat - [0:0]
[4:40] -A PREROUTING -j policylang-dstnat
COMMIT
*filter
:INPUT ACCEPT [0:0]
:mine - [0:0]
:policylang-input - [0:0]
[1:1] -A INPUT -j mine
[7:70] -A INPUT -j policylang-input
[1:1] -A INPUT -j mine
[6:60] -A policylang-input -m set --match-set policylang-friends.4zzzzzz src -j ACCEPT
[1:10] -A policylang-input -m comment --comment "web.policy:1 it\\'s \\"it\\"" -j DROP
COMMIT
"""

OTHERS = "-m set{} --match-set policylang-armed.others src "
FILTER = "-m set{} --match-set policylang-armed.filter src "
AHEAD = (
    "-m set --match-set policylang-armed.ahead src -m set ! --match-set policylang-armed.calm src "
)


def tables(lines: tuple[InputLine, ...]) -> dict[str, list[str]]:
    """The lines of each commit by its table, a count before the rule that begins with it."""
    found: dict[str, list[str]] = {}
    for line in lines:
        count = f"[{line.count.packets}:{line.count.bytes}] " if line.count else ""
        if line.text.startswith("*"):
            block = found.setdefault(line.text[1:], [])
        elif line.text != "COMMIT":
            block.append(count + line.text)
    return found


def test_what_is_armed_stands_before_what_it_replaces() -> None:
    """In each place; each asks the switch, and what counted goes on doing so."""
    assert tables(arming(RULES, read(LISTING))) == {
        "raw": [
            ":policylang+screen - [0:0]",
            ":policylang+input - [0:0]",
            f"-I PREROUTING 1 {OTHERS.format('')}-j policylang+screen",
            f"-I PREROUTING 2 {OTHERS.format('')}-j policylang+input",
            '-A policylang+screen -i wan0 -m comment --comment "see -j policylang-input" -j DROP',
        ],
        "filter": [
            ":policylang+input - [0:0]",
            "-D INPUT -j policylang-input",
            f"-I INPUT 2 {FILTER.format('')}-j policylang+input",
            f"[7:70] -I INPUT 3 {FILTER.format(' !')}-j policylang-input",
            "-A policylang+input -m set --match-set policylang-friends.4abcdef src -j ACCEPT",
            "-A policylang+input -j DROP",
        ],
        "mangle": [
            ":policylang+ahead-1 - [0:0]",
            f"-A INPUT {AHEAD}-j policylang+ahead-1",
            "-A policylang+ahead-1 -m set --match-set policylang-friends.4abcdef src -j ACCEPT",
            "-A policylang+ahead-1 -j DROP",
        ],
        "nat": [
            "-D PREROUTING -j policylang-dstnat",
            f"[4:40] -I PREROUTING 1 {OTHERS.format(' !')}-j policylang-dstnat",
        ],
    }


def test_what_this_host_sends_meets_one_generation_alone() -> None:
    """No copy of a filter could judge it: all of OUTPUT is turned with the filter."""
    rules = "*mangle\n:policylang-mark - [0:0]\n-I OUTPUT 1 -j policylang-mark\nCOMMIT\n"
    assert (
        f"-I OUTPUT 1 {FILTER.format('')}-j policylang+mark" in tables(arming(rules, ()))["mangle"]
    )


def test_lines_of_what_is_armed_know_where_they_come_from() -> None:
    """Those of the copy, too."""
    written = RULES.splitlines()
    found = [line for line in arming(RULES, ()) if line.text.startswith("-A policylang+")]
    assert len(found) == 5
    for line in found:
        assert line.number is not None
        assert line.text.split(" ", 2)[2] == written[line.number - 1].split(" ", 2)[2]


ARMED = """\
*nat
:PREROUTING ACCEPT [0:0]
:policylang-dstnat - [0:0]
-A PREROUTING -m set ! --match-set policylang-armed.others src -j policylang-dstnat
COMMIT
*filter
:INPUT ACCEPT [0:0]
:policylang+input - [0:0]
:policylang-input - [0:0]
-A INPUT -j LOG
-A INPUT -m set --match-set policylang-armed.filter src -j policylang+input
[7:70] -A INPUT -m set ! --match-set policylang-armed.filter src -j policylang-input
[9:90] -A policylang+input -m set --match-set policylang+friends.4abcdef src -j ACCEPT
-A policylang+input -m comment --comment "policylang+" -j DROP
[6:60] -A policylang-input -m set --match-set policylang-friends.4zzzzzz src -j ACCEPT
COMMIT
"""


def test_what_is_disarmed_leaves_the_rest_as_it_was() -> None:
    assert tables(disarming(read(ARMED))) == {
        "nat": [
            "-D PREROUTING -m set ! --match-set policylang-armed.others src -j policylang-dstnat",
            "-I PREROUTING 1 -j policylang-dstnat",
        ],
        "filter": [
            ":policylang+input - [0:0]",
            f"-D INPUT {FILTER.format('')}-j policylang+input",
            f"-D INPUT {FILTER.format(' !')}-j policylang-input",
            "[7:70] -I INPUT 2 -j policylang-input",
            "-X policylang+input",
        ],
    }
    assert disarming(read(LISTING)) == ()


# --- listings -------------------------------------------------------------------------------------

SETS = {
    "policylang-friends.4zzzzzz": (
        "create policylang-friends.4zzzzzz hash:net family inet hashsize 64 maxelem 16777216"
        " bucketsize 12 initval 0x1\n"
        "add policylang-friends.4zzzzzz 192.0.2.1\n"
        "add policylang-friends.4zzzzzz 192.0.2.8/30\n"
    ),
    "policylang+friends.4abcdef": (
        "create policylang+friends.4abcdef hash:net family inet hashsize 128 maxelem 16777216\n"
        "add policylang+friends.4abcdef 192.0.2.2\n"
    ),
    "policylang-banned-v4": (
        "create policylang-banned-v4 hash:ip family inet hashsize 64 maxelem 9 timeout 60\n"
        "add policylang-banned-v4 192.0.2.3 timeout 7\n"
    ),
    "policylang-armed.calm": "create policylang-armed.calm list:set size 4 timeout 0\n",
}


def snapshot(listing: str) -> Snapshot:
    return Snapshot((read(listing), ()), SETS)


def test_what_is_in_force_is_listed_without_what_is_pending() -> None:
    """Nor is the switch, or anything that asks it; what a set is called says nothing of it."""
    found = told(snapshot(ARMED).in_force)
    friend = "-m set --match-set policylang-friends.4 src -j ACCEPT"
    assert found.chains == (
        Chain("iptables filter INPUT", "", (Rule("-j policylang-input"),)),
        Chain("iptables filter policylang-input", "", (Rule(friend),)),
        Chain("iptables nat PREROUTING", "", (Rule("-j policylang-dstnat"),)),
        Chain("iptables nat policylang-dstnat", "", ()),
    )
    assert [chain.rules[0].count for chain in found.chains[:2]] == [Count(7, 70), Count(6, 60)]
    assert found.sets == (
        KernelSet("ipset policylang-banned-v4", "hash:ip family inet maxelem 9 timeout 60", None),
        KernelSet(
            "ipset policylang-friends.4",
            "hash:net family inet maxelem 16777216",
            frozenset({"192.0.2.1", "192.0.2.8/30"}),
        ),
    )
    assert found.others == ()


def test_what_is_pending_is_listed_as_it_is_once_it_is_in_force() -> None:
    found = told(snapshot(ARMED).pending)
    friend = "-m set --match-set policylang-friends.4 src -j ACCEPT"
    assert found.chains == (
        Chain("iptables filter INPUT", "", (Rule("-j policylang-input"),)),
        Chain(
            "iptables filter policylang-input",
            "",
            (Rule(friend), Rule("-j DROP", "policylang+")),
        ),
    )
    assert [one.place for one in found.sets] == ["ipset policylang-friends.4"]


def test_comments_are_apart_and_as_they_were_written() -> None:
    (chain,) = (
        chain
        for chain in told(snapshot(LISTING).in_force).chains
        if chain.place == "iptables filter policylang-input"
    )
    assert chain.rules[1] == Rule("-j DROP", 'web.policy:1 it\'s "it"')


def test_two_sets_of_one_name_keep_their_own() -> None:
    """Else one would be taken for the other."""
    sets = {
        name: f"create {name} hash:net\n"
        for name in ("policylang-a.4bbbbbb", "policylang-a.4c23457")
    }
    assert [one.place for one in told(Snapshot(((), ()), sets)).sets] == [
        f"ipset {n}" for n in sets
    ]


def test_the_same_rules_count_on() -> None:
    """Of both generations, in order, whatever their comments say and their sets hold."""
    now = snapshot(ARMED)
    (made,) = [
        table for table in read(LISTING.replace("4zzzzzz", "4new123")) if table.name == "filter"
    ]
    kept = counts_kept(
        (made,),
        {"policylang-friends.4new123": "policylang-friends.4"},
        [(part.rules[0], part.called) for part in (now.in_force, now.pending)],
    )
    (table,) = kept
    assert table.counts == (Count(6 + 9, 60 + 90), None)
    assert [jump.count for jump in table.jumps] == [Count(7, 70)]


# --- the switch -----------------------------------------------------------------------------------


def timeouts(steps: list[tuple[str, ...]]) -> list[tuple[str, int]]:
    found = re.findall(
        r"add policylang-armed\.(\S+) \S+ timeout (\d+)", "\n".join(map("\n".join, steps))
    )
    return [(name, int(seconds)) for name, seconds in found[::2]]


def test_both_filters_hold_while_all_else_is_turned() -> None:
    """On the way there, and on the way back, which the kernel goes alone."""
    armed = timeouts(list(xtables_switch.arming(60)))
    assert [name for name, _ in armed] == ["ahead", "others", "filter", "calm"]
    ends = sorted(armed, key=lambda one: one[1])
    assert ends == [("calm", 60), ("filter", 61), ("others", 62), ("ahead", 63)]
    back = [step[0].split()[1] for step in xtables_switch.disarming()]
    assert back == [f"policylang-armed.{name}" for name, _ in ends]


def test_a_confirmation_begins_with_the_question_whether_there_is_time() -> None:
    """The first line is refused where the element is no longer there."""
    lines = xtables_switch.confirming()
    assert [line.split()[0] for line in lines] == ["del"] * 2 + ["add"] * 6
    assert not [line for line in lines[:2] if "-exist" in line]
    assert all(line.endswith("timeout 0 -exist") for line in lines[2:])


@pytest.mark.parametrize(
    ("elements", "left_ms"),
    [
        ("add a policylang-armed.ipv4 timeout 7\nadd a policylang-armed.ipv6 timeout 6\n", 6000),
        ("add a policylang-armed.ipv6 timeout 6\n", 0),
        ("", 0),
    ],
)
def test_what_is_left_is_what_both_families_have(elements: str, left_ms: int) -> None:
    assert xtables_switch.left_ms(f"create a list:set size 4 timeout 0\n{elements}") == left_ms


def test_files_of_sets_take_other_names() -> None:
    """Whole words alone: a name may be the beginning of another."""
    text = "create policylang-a hash:net\nswap policylang-new policylang-a\nadd policylang-ab 1\n"
    assert with_names(text, {"policylang-a": "policylang+a"}) == (
        "create policylang+a hash:net\nswap policylang-new policylang+a\nadd policylang-ab 1\n"
    )


def test_sets_that_are_only_on_the_way_are_pending_too() -> None:
    """What an end in the midst of it leaves is then known for what it is."""
    text = "create policylang-new-net4 hash:net\nswap policylang-new-net4 policylang-a\n"
    assert all_beside(text) == text.replace("policylang-", "policylang+")
