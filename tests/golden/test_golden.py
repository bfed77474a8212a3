"""Every folder beside this file holds a policy and what it compiles to.

A golden file proves that the output did not change, not that it is right: that is for
`tests/kernel` and `tests/differential`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.kept import Golden
from tests.golden.outputs import CASES, outputs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_output_is_as_kept(case: Path, golden: Golden) -> None:
    golden.holds(case, outputs(case / "policy.policy"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_says_what_it_proves(case: Path) -> None:
    first = (case / "policy.policy").read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# ") and first.endswith(".")
