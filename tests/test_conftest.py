"""The options that all tests share do what they say, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.ground import REPOSITORY

PROBE = "import pytest\n\n@pytest.mark.skip(reason='because')\ndef test_nothing(): pass\n"


def pytest_says(directory: Path, *arguments: str, ci: str | None) -> tuple[int, str]:
    """The status and the words of pytest with our options, run on one skipped test."""
    (directory / "test_probe.py").write_text(PROBE)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"PYTHONPATH": str(REPOSITORY)} | ({} if ci is None else {"CI": ci})
    options = ("-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(directory))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments, str(directory)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_skipped_test_fails_in_ci_alone(tmp_path: Path) -> None:
    status, words = pytest_says(tmp_path, ci="true")
    assert status == pytest.ExitCode.TESTS_FAILED and "because" in words
    assert pytest_says(tmp_path, ci=None)[0] == pytest.ExitCode.OK


def test_golden_files_are_not_rewritten_in_ci(tmp_path: Path) -> None:
    status, words = pytest_says(tmp_path, "--update-golden", ci="true")
    assert status == pytest.ExitCode.USAGE_ERROR and "refused" in words
    assert pytest_says(tmp_path, "--update-golden", ci=None)[0] == pytest.ExitCode.OK
