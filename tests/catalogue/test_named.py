"""A policy names the catalogue's groups wherever a set may stand, as if it had declared them."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.diagnostics import Report
from policylang.model.resolve import resolve
from policylang.model.types import AddressEnd, AnyEnd
from policylang.packets.values import Ranges
from policylang.syntax import tree
from policylang.syntax.loader import load_text
from tests.catalogue.whole import addresses_of


def groups_of(text: str) -> set[str]:
    """The groups that a policy makes the loader read."""
    report = Report()
    found = load_text(text, "p.policy", Path(), report)
    assert not report.diagnostics
    return set(found.sets)


def told(text: str) -> list[tuple[str, str | None]]:
    """What is said of a policy: codes, and the help with each."""
    report = Report()
    resolve(load_text(text, "p.policy", Path(), report), report, {})
    return [(d.code, d.help) for d in report.in_order()]


@pytest.mark.parametrize(
    "text",
    [
        "allow ssh inbound from GROUP",
        "allow ssh inbound from any except GROUP",
        "allow ssh outbound to GROUP",
        "zone z { interface eth0 } allow ssh from GROUP in z to z",
        "zone z { network GROUP }",
        "set s = GROUP",
        "set s = 10.0.0.0/7 except GROUP",
        "traffic inbound from GROUP { allow ssh }",
        "traffic inbound { traffic from GROUP { allow ssh } }",
        "traffic inbound { allow ssh from GROUP }",
        "rules r { allow ssh inbound from GROUP }",
    ],
)
def test_groups_are_read_where_a_set_may_stand(text: str) -> None:
    for group in ("private", "rfc1918", "link-local"):
        policy = text.replace("GROUP", group)
        assert groups_of(policy) == {group}
        assert not {code for code, _ in told(policy)} & {"unknown-name", "wrong-kind"}


def test_groups_are_read_when_they_are_named() -> None:
    assert groups_of("allow ssh inbound") == set()
    assert groups_of("allow ssh inbound from nonesuch") == set()
    assert groups_of("set private = 10.0.0.0/8 allow ssh inbound from private, shared") == {
        "shared"
    }


def test_protection_brings_its_bogons() -> None:
    """`bogons` in `protect` names no set; what it is about is read all the same."""
    text = "zone wan { interface eth0 } protect from wan against bad-flags, bogons"
    assert groups_of(text) == {"bogons"}
    assert groups_of(f"set bogons = 192.0.2.0/24 {text}") == set()


def test_a_group_is_a_set_like_any_other() -> None:
    report = Report()
    text = "set mine = private, shared except 10.0.0.0/8 allow ssh inbound from mine"
    (rule,) = resolve(load_text(text, "p.policy", Path(), report), report, {}).rules
    ((source,),) = (end.elements for end in rule.source.lists if end.elements != (AnyEnd(),))
    ten = Ranges.between(10 << 24, (11 << 24) - 1)
    assert isinstance(source, AddressEnd)
    assert source.addresses == (addresses_of("private") | addresses_of("shared")) - ten
    assert not report.diagnostics


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("allow ssh inbound from privat", [("unknown-name", "did you mean `private`?")]),
        ("set s = bogon", [("unknown-name", "did you mean `bogons`?")]),
        ("allow tcp private inbound", [("wrong-kind", None)]),
        ("allow private inbound", [("wrong-kind", None)]),
        ("service s { tcp private }", [("wrong-kind", None)]),
        ("allow ssh inbound source port private", [("wrong-kind", None)]),
    ],
)
def test_mistakes_are_told_as_of_any_set(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert told(text)[: len(expected)] == expected


def test_a_set_of_a_groups_name_takes_its_place() -> None:
    """As a service does: it warns, and the policy's own is meant everywhere."""
    text = "set private = 192.0.2.0/24 allow ssh inbound from private"
    assert told(text) == [("shadows-catalogue", None)]
    report = Report()
    loaded = load_text(text, "p.policy", Path(), report)
    assert "private" not in loaded.sets and "private" in loaded.known_sets
    assert told("zone private { interface eth0 } allow ssh inbound from private") == []


def test_groups_are_told_by_their_own_file() -> None:
    report = Report()
    loaded = load_text("allow ssh inbound from private", "p.policy", Path(), report)
    group = loaded.sets["private"]
    assert isinstance(group, tree.SetDecl)
    assert group.span.file.name == "catalogue/private.policy"
