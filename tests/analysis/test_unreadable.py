"""What no kernel can list is refused, whoever reads it."""

from __future__ import annotations

import json

import pytest

from policylang.analysis.reading_iptables import read_iptables
from policylang.analysis.reading_nft import read_nft
from policylang.analysis.unreadable import UnreadableError

CIRCLES = (
    "-A A -j A",
    "-A A -j B\n-A B -g A",
    "-A A -j INPUT",
)


@pytest.mark.parametrize("rules", CIRCLES)
def test_chains_do_not_jump_round(rules: str) -> None:
    text = f"*filter\n:INPUT ACCEPT\n:A -\n:B -\n-A INPUT -j A\n{rules}\nCOMMIT\n"
    with pytest.raises(UnreadableError, match="circle"):
        read_iptables(text, "")


def test_chains_that_meet_again_are_no_circle() -> None:
    text = "*filter\n:INPUT ACCEPT\n:A -\n:B -\n-A INPUT -j A\n-A INPUT -j B\n-A A -j B\nCOMMIT\n"
    assert read_iptables(text, "").chains


@pytest.mark.parametrize("verdict", ["jump", "goto"])
def test_nor_do_those_of_nft(verdict: str) -> None:
    at = {"family": "inet", "table": "t"}
    rule = {**at, "chain": "a", "handle": 2, "expr": [{verdict: {"target": "a"}}]}
    listing = [
        {"table": {"family": "inet", "name": "t", "handle": 1}},
        {"chain": {**at, "name": "a", "handle": 1}},
        {"rule": rule},
    ]
    with pytest.raises(UnreadableError, match="circle"):
        read_nft(json.dumps({"nftables": listing}))
