"""Options that all tests share, and what holds for every test in CI."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from tests.golden.kept import Golden

UPDATE = "--update-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(UPDATE, action="store_true", help="rewrite golden files (not in CI)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(UPDATE) and os.environ.get("CI"):
        raise pytest.UsageError(f"{UPDATE} is refused where CI is set: somebody must read the diff")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that is skipped has failed: a kernel test that did not run proves nothing."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI every test must run: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """What tests apply is recorded in a folder of their own, and never in the machine's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLICYLANG_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The comparison with golden files; with `--update-golden` it writes them instead."""
    return Golden(is_update=request.config.getoption(UPDATE))
