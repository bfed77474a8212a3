"""What an example compiles to is beside it, and none of them draws a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.backends import TARGETS
from policylang.diagnostics import Report
from policylang.pipeline import compile_policy
from tests.golden.kept import IR, Golden
from tests.golden.outputs import EXAMPLES, SITES, outputs, outputs_of_hosts


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.stem)
def test_output_is_beside_the_policy(policy: Path, golden: Golden) -> None:
    texts = outputs(policy)
    golden.holds(policy.parent, {name: text for name, text in texts.items() if name != IR})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.stem)
def test_an_example_draws_no_warning(policy: Path, target: str) -> None:
    report = Report()
    compile_policy(policy, target, report)
    assert report.diagnostics == []


@pytest.mark.parametrize("site", SITES, ids=lambda path: path.parent.name)
def test_outputs_of_hosts_are_beside_the_policy(site: Path, golden: Golden) -> None:
    golden.holds(site.parent, outputs_of_hosts(site))
