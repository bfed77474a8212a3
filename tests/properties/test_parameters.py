"""`$NAME` is the value of a parameter, and a value is never anything but a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policylang.diagnostics import Report
from policylang.syntax import tokens, tree
from policylang.syntax.loader import load, load_text

NONE: Mapping[str, str] = {}


def read(text: str, values: Mapping[str, str] = NONE) -> tuple[tree.Loaded, Report]:
    report = Report()
    return load_text(text, "p.policy", Path("nowhere"), report, values), report


def told(report: Report) -> list[str]:
    """The diagnostics as `code marked-text`, or `code: message` where no file is at fault."""
    lines = []
    for d in report.in_order():
        if d.span is None:
            lines.append(f"{d.code}: {d.message}")
        else:
            lines.append(f"{d.code} {d.span.file.text[d.span.start : d.span.end]}")
    return lines


def assert_same(text: str, plain: str, values: Mapping[str, str] = NONE) -> tree.Loaded:
    """A policy with parameters is the policy with their values."""
    result, report = read(text, values)
    assert told(report) == []
    other, _ = read(plain)
    assert result.statements == other.statements
    return result


# --- wherever a token may stand -------------------------------------------------------------

# The value, a use of it, and the same without a parameter.
USES = [
    ("eth0", "zone z { interface $x }", "zone z { interface eth0 }"),
    ('"wlan*"', "zone z { interface eth0, $x }", 'zone z { interface eth0, "wlan*" }'),
    ("lan", "zone $x { interface eth0 } allow ssh from $x to self", None),
    ("192.0.2.0/24", "zone z { network $x }", "zone z { network 192.0.2.0/24 }"),
    ("192.0.2.1-192.0.2.9", "deny all inbound from $x", None),
    ("2001:db8::1", "set s = 192.0.2.1, $x except ::1", None),
    ("00:11:22:33:44:55", "set s = $x", "set s = 00:11:22:33:44:55"),
    ("8080", "allow tcp $x inbound", "allow tcp 8080 inbound"),
    ("0xffffffffffffffff", "service s { tcp $x }", None),
    ("80-90", "service s { tcp 1, $x  udp $x }", "service s { tcp 1, 80-90  udp 80-90 }"),
    ('"FW "', "deny all inbound log $x", 'deny all inbound log "FW "'),
    ('"a rule"', "deny all inbound name $x", 'deny all inbound name "a rule"'),
    ("warn", "deny all inbound log level $x", "deny all inbound log level warn"),
    ("off", "settings { essentials $x }", "settings { essentials off }"),
    ("ssh", "allow $x inbound", "allow ssh inbound"),
    ('"any"', "allow $x inbound", 'allow "any" inbound'),
    ("1, 2-3, 4", "set s = 0, $x, 5", "set s = 0, 1, 2-3, 4, 5"),
    ("ssh, ntp", "allow $x inbound", "allow ssh, ntp inbound"),
    ("lan, 192.0.2.1", "deny all from $x except 192.0.2.1 to self", None),
    ("1, 2", "set s = $x except $x", "set s = 1, 2 except 1, 2"),
    ("lan", "traffic from $x to self { allow ssh }", "traffic from lan to self { allow ssh }"),
    ("a, b", "rules a { } rules b { } use $x", "rules a { } rules b { } use a, b"),
    ("192.0.2.7", "snat from a to b as $x dnat http from a at $x to 10.0.2.1, $x", None),
    ("80-90", "snat from a to b as c port $x redirect tcp $x inbound port $x", None),
    ("0x10/0xff", "mark ssh from a to b as $x answers mark $x", None),
    ("ef", "mark ssh from a to b as dscp $x dscp $x", None),
    ("7", "mark ssh outbound as $x queue ssh outbound to $x clamp mss outbound as $x", None),
    ("192.0.2.0/24", "netmap $x to $x on wan deny all from a to published at $x", None),
    ("a, b", "netmap 192.0.2.0/24 to 10.0.2.0/24 on $x offload from $x to $x", None),
]


@pytest.mark.parametrize(("value", "use", "plain"), USES)
def test_a_parameter_is_its_value(value: str, use: str, plain: str | None) -> None:
    plain = use.replace("$x", value) if plain is None else plain
    assert_same(f"param x = {value}\n{use}", plain)
    assert_same(f"param x\n{use}", plain, {"x": value})
    assert_same(f"param x = 1, other\n{use}", plain, {"x": f" {value}\n"})
    assert_same(f"param w = {value} param x = $w\n{use}", plain)


def test_what_stands_for_a_value_has_the_place_of_its_name() -> None:
    text = "param x = 192.0.2.1, 192.0.2.2\nset s = $x"
    result, _ = read(text)
    (statement,) = result.statements
    assert isinstance(statement, tree.SetDecl)
    assert [text[e.span.start : e.span.end] for e in statement.elements] == ["$x", "$x"]
    assert statement.span.text == "set s = $x"


def test_a_value_from_outside_goes_before_the_one_that_is_written() -> None:
    assert_same("param x = 1 param y = $x, 3 set s = $y", "set s = 2, 3", {"x": "2"})


def test_files_share_their_parameters(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.policy").write_text("param lan = eth1\nset a = $http")
    (tmp_path / "site" / "l.txt").write_text("192.0.2.1")
    (tmp_path / "site" / "b.policy").write_text('param list = "l.txt" set b = file $list')
    (tmp_path / "main.policy").write_text(
        'param http = 80 param files = "site/*.policy"\ninclude $files zone lan { interface $lan }'
    )
    report = Report()
    result = load(tmp_path / "main.policy", report, {"lan": "eth7"})
    assert told(report) == []
    assert [type(s).__name__ for s in result.statements] == ["SetDecl", "SetDecl", "ZoneDecl"]
    other, _ = read("zone lan { interface eth7 }")
    assert result.statements[-1:] == other.statements
    ((name, element),) = result.lists
    assert (name, element.path) == ("site/b.policy", "l.txt")


# --- what is told ---------------------------------------------------------------------------

MISTAKES: list[tuple[str, Mapping[str, str], list[str]]] = [
    ("set s = $x", NONE, ["unknown-parameter $x"]),
    ("zone z { interface $x } allow ssh from z to self", NONE, ["unknown-parameter $x"]),
    ("traffic from $x to self { allow ssh }", NONE, ["unknown-parameter $x"]),
    ("set s = $x, $x param x = 1", NONE, ["unknown-parameter $x"] * 2),
    ("param x = $x", NONE, ["unknown-parameter $x"]),
    ("param x set s = $x", NONE, ["parameter-unset param x"]),
    ("param x = 1 param x = 2 set s = $x", NONE, ["duplicate-parameter x"]),
    ("param x =\nset s = $x", NONE, ["syntax ="]),
    ("param x = 1 2\nset s = $x, $y", NONE, ["syntax 2", "unknown-parameter $y"]),
    ("param x = { }\nset s = $x", NONE, ["syntax {"]),
    ('param "a b" = 1', NONE, ['bad-name "a b"']),
    ("traffic inbound { param x = 1 allow tcp $x }", NONE, ["misplaced param"]),
    ("param host = 1", NONE, ["reserved-word host"]),
    ("param x = any", NONE, ["reserved-word any"]),
    ("allow ssh inbound\n$x", NONE, ["unknown-parameter $x"]),
    ("param x = a, b\nallow ssh inbound\n$x\nalow ssh", NONE, ["syntax $x", "syntax alow"]),
    ("$x ssh inbound", NONE, ["syntax $x"]),
    ("allow $ inbound", NONE, ["syntax $"]),
    ("param x = lan zone lan { } allow ssh $x", NONE, ["syntax $x"]),
    (
        "param x = 1",
        {"y": "1"},
        ["unknown-parameter: `-D y`: the policy declares no such parameter"],
    ),
    ("", {"x\n": "1"}, ["unknown-parameter: `-D xU+000A`: the policy declares no such parameter"]),
]


@pytest.mark.parametrize(("text", "values", "wanted"), MISTAKES)
def test_a_mistake_is_told_where_it_is(
    text: str, values: Mapping[str, str], wanted: list[str]
) -> None:
    assert told(read(text, values)[1]) == wanted


def test_a_declaration_behind_the_use_is_shown() -> None:
    _, report = read("set s = $x\nparam x = 1")
    (diagnostic,) = report.diagnostics
    assert [label.span.line for label in diagnostic.labels] == [2]
    assert diagnostic.help == "a parameter is declared before it is used"


REFUSED = {
    "": "the value is empty",
    " \n": "the value is empty",
    "any": "`any` is a reserved word, not a value",
    "lan from": "expected a comma, not `from`",
    "1,": "expected a value after the last comma",
    ",1": "expected a value, not `,`",
    "1 2": "expected a comma, not `2`",
    "{": "expected a value, not `{`",
    "1 }": "expected a comma, not `}`",
    "a = b": "expected a comma, not `=`",
    "$y": "expected a value, not `$y`",
    "eth0;": "`;` separates nothing",
    "eth0.100": "`eth0.100` is neither a name, a number nor an address",
    "eth0 # the uplink": "a value has no comments",
    "#": "the value is empty",
    '"a': "the closing quote is missing",
    '"a"b"': "the closing quote is missing",
    '"a\nb"': "the closing quote is missing",
    "a\0": "the character U+0000 is not text",
    '"\udce4"': "the character U+DCE4 is not text",
    '"\x1b[2J"': "the character U+001B is not text",
}


@pytest.mark.parametrize("value", REFUSED)
def test_a_value_from_outside_is_a_value(value: str) -> None:
    _, report = read("param x = 1 set s = $x", {"x": value})
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "bad-parameter" and diagnostic.span is None
    assert diagnostic.message.startswith("`-D x`: ")
    assert diagnostic.message.removeprefix("`-D x`: ").startswith(REFUSED[value].partition(":")[0])


HOSTILE = st.text() | st.lists(
    st.sampled_from([*sorted(tokens.WORDS), "1", "eth0", ",", '"', "{", "}", "=", "#", "\n", "$x"])
).map(" ".join)


@given(HOSTILE)
def test_no_value_changes_what_stands_around_it(value: str) -> None:
    """Whatever is set from outside, a statement stays one statement, of the form it has."""
    text = "param x set a = 1 set s = 0, $x, 9 set b = 2"
    result, report = read(text, {"x": value})
    if report.has_errors:
        assert {d.code for d in report.diagnostics} <= {"bad-parameter", "syntax"}
        return
    before, statement, behind = result.statements
    assert isinstance(statement, tree.SetDecl)
    assert statement.elements[0] == tree.Number(statement.span, 0)
    assert statement.elements[-1] == tree.Number(statement.span, 9)
    assert statement.exceptions == ()
    assert isinstance(before, tree.SetDecl) and isinstance(behind, tree.SetDecl)
    written = re.sub(r'"[^"]*"', '""', value)
    assert len(statement.elements) == 3 + written.count(",")
