"""Dynamic sets in texts of nft and ipset: what is read from them; without a kernel."""

from __future__ import annotations

from policylang.apply import live_ipsets
from policylang.apply.livesets import Element, LiveSet, fitting
from policylang.apply.nft_text import DELETE_TABLE, dynamic_sets, replacement
from policylang.packets.values import parse_one_address

LISTING = """\
table inet policylang {
	ct helper ftp-tcp {
		type "ftp" protocol tcp
		l3proto inet
	}

	set banned-v4 {
		type ipv4_addr
		size 100
		flags dynamic,timeout
		timeout 1h30m
		comment "set other-v4 { elements = { 192.0.2.99 }"
		elements = { 192.0.2.1 timeout 1d expires 23h59m59s7ms, 192.0.2.3,
			192.0.2.2 expires 3s comment "a, 192.0.2.8 }" }
	}

	set banned-v6 {
		type ipv6_addr
		flags dynamic,timeout
	}

	set rate.rule-v4 {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 5s
		elements = { 192.0.2.4 expires 3s limit rate 10/second }
	}

	set plain-v4 {
		type ipv4_addr
		flags interval
		elements = { 192.0.2.0/24 }
	}

	map ports {
		type inet_service : verdict
		elements = { 22 : jump sub }
	}

	chain input {
		type filter hook input priority filter; policy drop;
		ip saddr @banned-v4 drop comment "	chain not-one {"
		drop
	}

	chain sub {
	}
}
"""

SCRIPT = f"""\
table inet policylang
{DELETE_TABLE}

table inet policylang {{
	set banned-v4 {{
		type ipv4_addr
		size 100
		flags dynamic,timeout
		timeout 1h30m
	}}
	chain input {{
		accept
	}}
}}
"""


def number(text: str) -> int:
    found = parse_one_address(text)
    assert found is not None
    return found


def test_dynamic_sets_of_a_listing() -> None:
    """Sets that a policy declared, with the time that is left; no others, nothing from comments."""
    elements = (
        Element(number("192.0.2.1"), 86_399_007),
        Element(number("192.0.2.3"), None),
        Element(number("192.0.2.2"), 3000),
    )
    assert dynamic_sets(LISTING) == (
        LiveSet("banned", 4, 5400, 100, elements),
        LiveSet("banned", 6, None, 0),
    )


def test_a_set_that_stays_is_not_touched() -> None:
    """All else goes by name, on the line of the table's removal: every line keeps its number."""
    found = replacement(SCRIPT, LISTING, {})
    lines, before = found.text.split("\n"), SCRIPT.split("\n")
    assert [n for n, pair in enumerate(zip(lines, before, strict=True), 1) if len({*pair}) > 1] == [
        2
    ]
    assert found.added == {2}
    assert lines[1].split("; ") == [
        "flush table inet policylang",
        "delete map inet policylang ports",
        "delete set inet policylang banned-v6",
        "delete set inet policylang rate.rule-v4",
        "delete set inet policylang plain-v4",
        "delete chain inet policylang input",
        "delete chain inet policylang sub",
        "delete ct helper inet policylang ftp-tcp",
    ]


def test_without_a_set_that_stays_the_script_is_as_it_was() -> None:
    """The table goes whole where nothing of it stays; elements follow at the end."""
    assert replacement(SCRIPT, "", {}).text == SCRIPT
    other = SCRIPT.replace("1h30m", "2h")
    found = replacement(other, LISTING, {})
    assert found.text == (
        f"{other}add element inet policylang banned-v4 {{ 192.0.2.1 timeout 86399007ms,"
        " 192.0.2.3, 192.0.2.2 timeout 3000ms }\n"
    )
    assert found.added == {len(other.split("\n"))}


def test_dynamic_sets_of_ipset() -> None:
    """What ipset saves and what an artifact declares are read alike."""
    saved = (
        "create policylang-banned-v4 hash:ip family inet hashsize 1024 maxelem 9 timeout 60"
        " bucketsize 12 initval 0x1\n"
        "add policylang-banned-v4 192.0.2.1 timeout 59\n"
        "add policylang-banned-v4 192.0.2.2 timeout 0\n"
        "create policylang-for-ever-v6 hash:ip family inet6 timeout 0 maxelem 8 -exist\n"
        "create policylang-asked.port-v4 hash:ip,port family inet timeout 60 maxelem 65536\n"
        "create policylang-mail4-k3j4h5 hash:net family inet hashsize 64 maxelem 9\n"
        "create banned-v4 hash:ip family inet timeout 60 maxelem 9\n"
    )
    elements = Element(number("192.0.2.1"), 59_000), Element(number("192.0.2.2"), None)
    assert live_ipsets.dynamic_sets(saved) == (
        LiveSet("banned", 4, 60, 9, elements),
        LiveSet("for-ever", 6, None, 8),
    )


def test_what_stays_longest_is_kept() -> None:
    """Where there is room for some, those without an end come first, then those with the last."""
    a, b, c = Element(1, 10), Element(2, None), Element(3, 20)
    assert fitting((a, b, c), 3) == (a, b, c)
    assert fitting((a, b, c), 2) == (b, c)
    assert fitting((a, b, c), -1) == ()
