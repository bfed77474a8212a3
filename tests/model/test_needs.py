"""What a policy relies on beside its rules is asked for by every statement that relies on it."""

from __future__ import annotations

import pytest

from policylang.ir.ruleset import Module
from tests.model.meaning import lowered

DECLARED = "zone wan { interface eth0 }\nzone lan { interface eth1 }\n"


@pytest.mark.parametrize(
    ("policy", "translates"),
    [
        ("allow ftp from lan to wan", False),
        ("tproxy ftp from lan to wan port 3129", False),
        ("redirect ftp from lan to wan port 3128", True),
        ("dnat ftp from wan to 192.0.2.1", True),
        ("allow ftp from wan to published", False),
    ],
)
def test_who_is_given_a_helper_needs_its_modules(policy: str, translates: bool) -> None:
    """The NAT part is required where the policy translates."""
    assert lowered(DECLARED + policy).needs.modules == (
        Module("nf_conntrack_ftp"),
        Module("nf_nat_ftp", is_required=translates),
    )


def test_who_is_given_no_helper_needs_no_modules() -> None:
    for policy in ("deny ftp from lan to wan", "allow tcp 21 from lan to wan"):
        assert not lowered(DECLARED + policy).needs.modules
