"""The commands of a pending generation as text; without a kernel."""

from __future__ import annotations

import pytest

from policylang.apply import nft_pending, nft_script
from policylang.apply.loaded import Chain, Count, KernelSet, Loaded, Rule
from policylang.apply.nft_counts import counted
from policylang.apply.nft_listing import Table, read
from policylang.apply.nft_pending import Tables, arming, still_armed, unyielding
from policylang.apply.nft_text import DELETE_TABLE

SCRIPT = f"""\
#!/usr/sbin/nft -f
# Made by policylang. Loading replaces the table inet policylang whole.

table inet policylang
{DELETE_TABLE}

table inet policylang {{
	set banned-v4 {{
		type ipv4_addr
		size 1
		flags dynamic,timeout
		timeout 1h
	}}

	map input-1 {{
		type inet_service : verdict
		counter
		elements = {{
			22 : accept,  # web.policy:3
			23 : drop,
		}}
	}}

	chain screen-input {{
		type filter hook prerouting priority raw; policy accept;
		ip saddr @banned-v4 counter drop comment "type filter hook input priority 0; policy drop;"
	}}

	chain dstnat-output {{
		type nat hook output priority -100; policy accept;
	}}

	chain input {{
		type filter hook input priority filter + 10; policy drop;
		tcp dport 1 counter accept comment "counter"
		tcp dport 1 counter accept comment "table inet policylang {{"
		log prefix "counter accept" counter
		counter name "x" counter
		counter packets 1 bytes 2 counter
		tcp dport vmap @input-1
		counter drop
	}}
}}

# sysctl.conf: net.ipv4.ip_forward = 1
"""

OURS = """\
table inet policylang { # handle 1
	set banned-v4 { # handle 9
		type ipv4_addr
		size 9
		flags dynamic,timeout
		elements = { 192.0.2.1 expires 5s, 192.0.2.2 expires 7s }
	}
%s
	chain input { # handle 2
		type filter hook input priority filter; policy drop;
%s		tcp dport 1 accept comment "meta nfproto @switch.yields accept" # handle 4
	}

	chain sub { # handle 3
	}
}
"""
PLAIN = OURS % ("", "")


def yielding(elements: str) -> str:
    switch = (
        "\n\tset switch.yields { # handle 7\n\t\ttype nf_proto\n\t\tflags timeout\n"
        f"{elements}\t}}\n"
    )
    return OURS % (switch, "\t\tmeta nfproto @switch.yields accept # handle 8\n")


def table(listing: str) -> Table:
    (found,) = read(listing)
    return found


def armed_script(seconds: int, ours: str | None) -> tuple[list[str], list[str]]:
    """The lines that stand for the script's, and those that follow."""
    found = arming(SCRIPT, seconds, None if ours is None else table(ours), ())
    lines = found.text.split("\n")
    count = SCRIPT.count("\n")
    assert found.added >= {*range(count + 1, len(lines))}
    return lines[:count], lines[count:-1]


def test_a_script_is_put_beside_our_table() -> None:
    """Its table and priorities are others, each base chain asks first; no other line changes."""
    own, more = armed_script(60, PLAIN)
    changed = {
        number: line
        for number, (line, before) in enumerate(zip(own, SCRIPT.split("\n"), strict=False), 1)
        if line != before
    }
    assert changed == {
        4: "table inet policylang-pending",
        5: "delete table inet policylang-pending; table inet policylang-pending { set switch.armed"
        " { type nf_proto; flags timeout; elements = { ipv4 timeout 62s, ipv6 timeout 62s }; }; }",
        7: "table inet policylang-pending {",
        25: "\t\ttype filter hook prerouting priority -299; policy accept;"
        " meta nfproto != @switch.armed accept",
        30: "\t\ttype nat hook output priority -99; policy accept;"
        " meta nfproto != @switch.armed accept",
        34: "\t\ttype filter hook input priority 11; policy drop;"
        " meta nfproto != @switch.armed accept",
    }
    assert more == [
        "add element inet policylang-pending banned-v4 { 192.0.2.2 timeout 7000ms }",
        "table inet policylang { set switch.yields { type nf_proto; flags timeout;"
        " elements = { ipv4 timeout 60s, ipv6 timeout 60s }; }; }",
        "insert rule inet policylang input meta nfproto @switch.yields accept",
    ]


def test_the_first_of_all_stands_alone() -> None:
    """Where we have no table there is nothing that yields, and the time is that of the switch."""
    own, more = armed_script(60, None)
    assert more == []
    assert "ipv4 timeout 60s, ipv6 timeout 60s" in own[4]


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("table inet policylang {", "table inet policylang  {"),
        ("table inet policylang\n", "table  inet policylang\n"),
        (DELETE_TABLE, "destroy table inet policylang"),
        ("\tchain input {", "\tchain input  {"),
        ("# sysctl.conf", "add chain inet policylang x"),
    ],
)
def test_a_line_that_does_not_fit_is_not_passed_over(line: str, instead: str) -> None:
    """A script that is not laid out by our template is a mistake of ours."""
    assert line in SCRIPT
    with pytest.raises((AssertionError, ValueError, IndexError)):
        nft_script.read(SCRIPT.replace(line, instead, 1))


# --- what is there ---------------------------------------------------------------------------

PENDING = """\
table inet policylang-pending { # handle 2
	set switch.armed { # handle 7
		type nf_proto
		flags timeout
%s	}
}
"""
BOTH = "\t\telements = { ipv4 timeout 1m expires 2s5ms, ipv6 timeout 1m expires 2s4ms }\n"
ONE = "\t\telements = { ipv4 timeout 1m expires 2s5ms }\n"


@pytest.mark.parametrize(
    ("ours", "pending", "left_ms"),
    [
        (None, None, None),
        (PLAIN, None, None),
        (yielding(BOTH), PENDING % BOTH, 2004),
        (yielding(""), PENDING % BOTH, 0),  # over; both judge for a while
        (yielding(ONE), PENDING % BOTH, 0),
        (PLAIN, PENDING % BOTH, 0),  # broken off: ours judges already
        (yielding(BOTH), None, 0),  # somebody took the pending table away
        (None, PENDING % BOTH, 2004),
        (None, PENDING % "", 0),
    ],
)
def test_the_time_that_is_left(ours: str | None, pending: str | None, left_ms: int | None) -> None:
    """There is some only for a pending generation that ours yields to, or that is all there is."""
    there = (None if listing is None else table(listing) for listing in (ours, pending))
    assert Tables(*there).left_ms == left_ms


def test_what_ends_it() -> None:
    """What was put into our table goes by handle, and no rule that only speaks of it."""
    assert unyielding(table(yielding(BOTH))) == (
        "delete rule inet policylang input handle 8",
        "delete set inet policylang switch.yields",
    )
    assert unyielding(table(PLAIN)) == ()
    assert still_armed(table(PLAIN)) == (
        "delete element inet policylang switch.yields { ipv4, ipv6 }"
    )
    assert still_armed(None) == (
        "delete element inet policylang-pending switch.armed { ipv4, ipv6 }"
    )
    assert nft_pending.DELETE_PENDING == "delete table inet policylang-pending"


# --- counts ----------------------------------------------------------------------------------


def rules(*counts: Count | None) -> tuple[Rule, ...]:
    texts = (
        *("tcp dport 1 counter accept",) * 2,
        'log prefix "counter accept" counter',
        'counter name "x" counter',
        "counter counter",
        "tcp dport vmap @input-1",
        "counter drop",
    )
    return tuple(Rule(t, f"{n}", c) for n, (t, c) in enumerate(zip(texts, counts, strict=True)))


def generation(*counts: Count | None, elements: dict[str, Count] | None = None) -> Loaded:
    one = KernelSet(
        "map input-1",
        "type inet_service : verdict; counter",
        frozenset({"22 : accept", "23 : drop"}),
        elements or {},
    )
    screen = Chain("chain screen-input", "", (Rule("ip saddr @banned-v4 counter drop"),))
    chains = (
        screen,
        Chain("chain dstnat-output", "", ()),
        Chain("chain input", "", rules(*counts)),
    )
    return Loaded(chains, (one,))


def test_rules_count_on() -> None:
    """The same rules in their order, each with one counter of its own; quotes hold none."""
    live = generation(
        *(Count(3, 30), Count(4, 40), Count(5, 50), Count(6, 60), Count(7, 70), None, Count(0, 0)),
        elements={"22 : accept": Count(8, 80), "23 : drop": Count(0, 0), "24 : drop": Count(9, 9)},
    )
    found = counted(SCRIPT, generation(*[None] * 7), live, "inet t")
    lines = found.text.split("\n")
    changed = [new for new, old in zip(lines, SCRIPT.split("\n"), strict=True) if new != old]
    assert [line.strip() for line in changed] == [
        'tcp dport 1 counter packets 3 bytes 30 accept comment "counter"',
        'tcp dport 1 counter packets 4 bytes 40 accept comment "table inet policylang {"',
        'log prefix "counter accept" counter packets 5 bytes 50',
        'counter name "x" counter packets 6 bytes 60',
        "counter packets 1 bytes 2 counter packets 7 bytes 70",
    ]
    assert found.commands == (
        "delete element inet t input-1 { 22 : accept }",
        "add element inet t input-1 { 22 counter packets 8 bytes 80 : accept }",
    )


def test_a_rule_less_lets_the_others_count_on() -> None:
    """Of two rules that were the same, the one that is left has what the first counted."""
    live = generation(Count(3, 30), None, None, None, None, None, Count(9, 90))
    (chain,) = (chain for chain in live.chains if chain.place == "chain input")
    fewer = Loaded((Chain(chain.place, "", chain.rules[1:]),))
    found = counted(SCRIPT, generation(*[None] * 7), fewer, "inet t")
    assert "counter packets 3 bytes 30" not in found.text
    assert "counter packets 9 bytes 90 drop" in found.text
    assert found.commands == ()
