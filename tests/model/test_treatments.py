"""What marks, clamps, queues and the like become, on every stage that has a part in it.

`treatments.txt` is written like `translations.txt`. With what statements become stands what rules
say of answers that conntrack does not know.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.ir.origin import Why
from policylang.ir.stages import Path as Way
from policylang.ir.stages import Stage
from policylang.lower.mirroring import mirrored, untold
from policylang.packets.cube import EMPTY, Cube
from policylang.packets.fields import UNIVERSE, AddressType, Field
from policylang.packets.values import Ranges, parse_address
from tests.model.meaning import lowered, rules, warned
from tests.model.test_translations import DECLARED, forms

WRITTEN = Path(__file__).with_name("treatments.txt")
FORMS = list(forms(WRITTEN))


@pytest.mark.parametrize(("text", "expected"), FORMS, ids=[text for text, _ in FORMS])
def test_form_becomes(text: str, expected: list[str]) -> None:
    assert [
        f"{stage} {rule}"
        for stage in Stage
        for rule in rules(f"{DECLARED}{text}", Why.WRITTEN, Why.ANSWER, stage=stage)
    ] == expected


# --- answers ----------------------------------------------------------------------------------


def addresses(text: str) -> Ranges:
    parsed = parse_address(text)
    assert parsed is not None
    return Ranges((parsed,))


INNER, OUTER = addresses("192.0.2.0/24"), addresses("198.51.100.7")
QUESTION = Cube.of(
    {
        Field.IIF: Ranges.of(5),
        Field.SADDR: INNER,
        Field.DADDR: OUTER,
        Field.L4PROTO: Ranges.of(6),
        Field.SPORT: Ranges.between(1024, 65535),
        Field.DPORT: Ranges.of(80),
        Field.SADDR_TEST_3: Ranges.of(1),
    }
)


def test_an_answer_has_everything_the_other_way_round() -> None:
    assert mirrored(QUESTION) == Cube.of(
        {
            Field.OIF: Ranges.of(5),
            Field.DADDR: INNER,
            Field.SADDR: OUTER,
            Field.L4PROTO: Ranges.of(6),
            Field.DPORT: Ranges.between(1024, 65535),
            Field.SPORT: Ranges.of(80),
            Field.DADDR_TEST_3: Ranges.of(1),
        }
    )
    assert mirrored(mirrored(QUESTION)) == QUESTION


@pytest.mark.parametrize("field", Field, ids=lambda field: field.name)
def test_what_answers_do_not_tell_is_refused(field: Field) -> None:
    """Each field is either in the answers or named: none is left out."""
    least = UNIVERSE[field].pairs[0][0]
    cube = Cube.of({field: Ranges.of(8 if field is Field.ICMP_TYPE else least)})
    if field in untold(cube):
        with pytest.raises(ValueError, match=field.name):
            mirrored(cube)
    elif field is not Field.DADDR_TYPE:
        assert mirrored(cube) != mirrored(Cube())


@pytest.mark.parametrize(
    "cube",
    [
        Cube.of({Field.DADDR_TYPE: Ranges.of(AddressType.BROADCAST)}),
        Cube.of({Field.DADDR: addresses("224.0.0.0/24")}),
        Cube.of({Field.ICMP_TYPE: Ranges.of(3, 5)}),
    ],
    ids=["broadcast", "multicast", "errors"],
)
def test_nobody_answers(cube: Cube) -> None:
    assert mirrored(cube) == EMPTY


# --- the rest ---------------------------------------------------------------------------------


def test_errors_about_untracked_traffic_pass_where_it_goes() -> None:
    """On each path before INVALID packets are dropped, and between the ends alone."""
    shown = {
        base.path: [
            (
                rule.cube[Field.IIF] != UNIVERSE[Field.IIF],
                rule.cube[Field.OIF] != UNIVERSE[Field.OIF],
            )
            for rule in ruleset.chain(base.chain).items
            if any(o.why is Why.ICMP_ERROR and o.span for o in getattr(rule, "origins", ()))
        ]
        for ruleset in [
            lowered(f"{DECLARED}untracked dns from dmz to wan\nallow dns from dmz to wan")
        ]
        for base in ruleset.bases
        if base.stage is Stage.FILTER
    }
    assert shown == {Way.INPUT: [], Way.OUTPUT: [], Way.FORWARD: [(True, True)] * 4}


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("mark tcp 80 from lan to wan as 0x1/0xf\nmark all from lan to wan as 0x10/0xf0", []),
        ("untracked dns inbound\nallow http inbound max 5 connections", []),
        ("untracked dns inbound\nallow dns inbound max 5 connections", ["needs-tracking"]),
        ("untracked dns inbound\nallow dns inbound limit 5/second", []),
        ("untracked dns inbound\ndeny dns inbound size 0-99", []),
        ("untracked dns inbound\nallow dns inbound size 0-99", ["answers-untold"]),
        ("untracked dns inbound\nallow dns inbound from ipsec", ["answers-untold"]),
        ("untracked dns inbound\nallow dns from lan to wan size 0-99", []),
        ("untracked dns inbound\ndnat http from wan to 192.168.1.2", []),
        ("untracked dns inbound\ndnat dns from wan to 192.168.1.2", ["needs-tracking"]),
        ("untracked dns inbound\nredirect dns inbound from wan port 5353", ["needs-tracking"]),
        ("untracked dns outbound\nallow dns outbound\nmasquerade from lan to wan", []),
        ("untracked dns from lan to wan\nmasquerade from lan to wan", ["needs-tracking"]),
        ("untracked ftp inbound\nallow ftp inbound", ["needs-tracking"]),
        ("untracked tcp 20 inbound\nallow ftp inbound", []),
        (
            "mark dns from wan to wan as 0x1 ipv4\nmark all from self to self as 1",
            ["matches-nothing"],
        ),
        ("clamp mss from self to self", ["matches-nothing"]),
        ("untracked all from self to self", ["matches-nothing"]),
        ("untracked icmp echo-request inbound ipv6", ["matches-nothing"]),
        ("clamp mss from 192.0.2.1 to wan ipv6", ["matches-nothing"]),
        ("offload from lan to lan ipv6", []),
        ("queue all from self to self to 1", ["matches-nothing"]),
        ("offload from dmz to wan\nmark sip from lan to wan as dscp ef", []),
        ("offload from lan to wan\nmark sip from wan to lan as dscp ef", ["offload-bypasses"]),
        ("offload from lan to wan\nqueue icmp echo-request from lan to wan to 1", []),
        ("offload from lan to wan\ndeny all from wan to lan", []),
    ],
)
def test_warnings(text: str, codes: list[str]) -> None:
    assert warned(f"{DECLARED}{text}") == codes
