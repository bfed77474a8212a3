"""Whatever GUARANTEES.md promises names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "GUARANTEES.md"

NOT_PROMISED = "## What is not promised"


def _tests() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"(?m)^def (test_\w+)", file.read_text())}


def test_every_test_that_is_named_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert len(named) > 50
    assert named <= _tests(), sorted(named - _tests())


def test_every_promise_names_a_test() -> None:
    """Each section does, and each point of a list."""
    promised, _, _ = PAGE.read_text().partition(NOT_PROMISED)
    sections = promised.split("\n## ")[1:]
    assert len(sections) > 5
    for section in sections:
        assert "`test_" in section, section
        points = re.findall(r"(?ms)^- .*?(?=^- |\n\n|\Z)", section)
        for point in points:
            assert "`test_" in point, point


def test_files_that_are_named_are_there() -> None:
    for name in re.findall(r"`(tests/[\w/]+\.py)`", PAGE.read_text()):
        assert (ROOT / name).is_file(), name
