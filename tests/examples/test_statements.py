"""The examples are as short as they are meant to be, and `examples/README.md` says how short."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from policylang.diagnostics import Report
from policylang.syntax import tree
from policylang.syntax.loader import load
from tests.golden.outputs import EXAMPLES
from tests.kernel.ground import REPOSITORY

README = REPOSITORY / "examples" / "README.md"

# What an administrator has to write at most, by the name of the example.
AT_MOST = {
    "workstation": 3,
    "web-ftp-server": 3,
    "nat-router": 8,
    "home-router": 8,
    "dmz-ftp": 9,
    "two-uplinks": 10,
    "one-to-one": 9,
    "transparent-proxy": 9,
    "sip-phones": 8,
    "three-zones": 12,
    "ssh-blocklist": 5,
    "lan-server": 6,
    "mail-server": 8,
    "kiosk": 8,
    "bastion": 8,
}


def counted(statements: Iterable[object]) -> int:
    """How many statements those are; a block is one, and so is each that stands in it."""
    return sum(
        1 + (counted(one.statements) if isinstance(one, (tree.TrafficBlock, tree.RulesDecl)) else 0)
        for one in statements
    )


def length(policy: Path) -> int:
    """How many statements a policy is made of."""
    report = Report()
    loaded = load(policy, report)
    assert not report.diagnostics
    return counted(loaded.statements)


@pytest.mark.parametrize("name", AT_MOST)
def test_an_example_is_short(name: str) -> None:
    assert length(REPOSITORY / "examples" / name / f"{name}.policy") <= AT_MOST[name]


def test_statements_are_counted_one_by_one(tmp_path: Path) -> None:
    """Those in blocks, nested ones too, and those in groups count for themselves."""
    policy = tmp_path / "blocks.policy"
    policy.write_text(
        "zone wan { interface eth0 }\n"
        "rules common { allow ping  allow ssh }\n"
        "traffic from wan to self {\n"
        "  use common\n"
        "  traffic from 192.0.2.0/24 { allow http  allow https }\n"
        "}\n"
    )
    assert length(policy) == 1 + 3 + 1 + 1 + 3


def test_the_list_of_examples_is_right() -> None:
    """Every example has a line with its length, and every line an example."""
    rows = re.findall(r"^\| \[(.+)\]\((.+)\) \| (\d+) \|", README.read_text(), re.MULTILINE)
    listed = {(name, README.parent / path, int(count)) for name, path, count in rows}
    assert listed == {(policy.stem, policy, length(policy)) for policy in EXAMPLES}
