"""What each form of a translation becomes, on every stage that has a part in it.

`translations.txt` has the sentences of LANGUAGE.md, policies, and below each the rules that its
statements became, `STAGE PATH ACTION FIELD VALUES …`, as `policylang compile --target ir` shows
them before anything is optimised.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from policylang.ir.origin import Why
from policylang.ir.stages import Stage
from tests.model.meaning import rules

WRITTEN = Path(__file__).with_name("translations.txt")
DECLARED = """
zone wan { interface eth0 }
zone lan { interface eth1  network 192.168.1.0/24, fd00:1::/64 }
zone dmz { interface eth2 }
set admins = 192.0.2.7
set banned = dynamic
"""


def forms(written: Path = WRITTEN) -> Iterator[tuple[str, list[str]]]:
    """The policies of a file with their rules: a paragraph each, its rules indented."""
    for paragraph in written.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in paragraph.splitlines() if not line.startswith("#")]
        if lines:
            policy = [line for line in lines if not line.startswith("    ")]
            yield "\n".join(policy), [line.strip() for line in lines[len(policy) :]]


def became(text: str) -> list[str]:
    return [
        f"{stage} {rule}"
        for stage in Stage
        for rule in rules(f"{DECLARED}{text}", Why.WRITTEN, stage=stage)
    ]


@pytest.mark.parametrize(("text", "expected"), list(forms()), ids=[text for text, _ in forms()])
def test_form_becomes(text: str, expected: list[str]) -> None:
    assert became(text) == expected


# --- conditions -------------------------------------------------------------------------------

CONDITIONS = (
    *("ipv4", "mac 02:00:00:00:00:01", "source port 1024-65535", "dscp ef", "size 0-100"),
    *("mark 5/0xff", "during 08:00-18:00", "until 2027-01-31", "ipsec"),
)
OWN_CONDITIONS = ("user 5", "group 5", 'cgroup "a/b"', "ipv4", "dscp ef", "mark 5/0xff")
NETMAP = "netmap 198.51.100.16/28 to 10.0.2.16/28 on wan"
CONDITIONED = {
    **{
        f"{statement} {condition}": (statement, stages)
        for condition in CONDITIONS
        for statement, stages in (
            ("masquerade from dmz to wan ipv6", ("srcnat",)),
            ("snat from dmz to wan as 198.51.100.7, 2001:db8::7", ("srcnat",)),
            (
                "dnat http from dmz to 10.0.2.10, 2001:db8::10 hairpin",
                ("dstnat", "filter", "srcnat"),
            ),
            ("redirect http from dmz to any port 3128", ("dstnat", "filter")),
            ("tproxy http from dmz to port 3129", ("tproxy", "filter")),
        )
        if (statement, condition) != ("masquerade from dmz to wan ipv6", "ipv4")
    },
    **{
        f"{statement} {condition}": (statement, stages)
        for condition in OWN_CONDITIONS
        for statement, stages in (
            ("dnat http from self to 10.0.2.10, 2001:db8::10", ("dstnat", "filter")),
            ("redirect http from self to wan port 3128", ("dstnat", "filter")),
            ("snat from self to wan as 198.51.100.7, 2001:db8::7", ("srcnat",)),
        )
    },
    f"{NETMAP} mark 5/0xff": (NETMAP, ("dstnat", "srcnat")),
}


@pytest.mark.parametrize("text", CONDITIONED)
def test_a_condition_holds_on_every_stage(text: str) -> None:
    """What is lost in one place would be hidden by the others that have it."""
    without, stages = CONDITIONED[text]
    with_it, bare = became(text), became(without)
    for stage in stages:
        conditioned = [rule for rule in with_it if rule.startswith(stage)]
        unconditioned = [rule for rule in bare if rule.startswith(stage)]
        assert conditioned
        if text.endswith("ipv4"):
            assert conditioned != unconditioned  # what is of each family stands for itself
        else:
            assert not {*conditioned} & {*unconditioned}
