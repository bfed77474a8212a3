"""Options that all tests share, and what holds for every test in CI."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.golden.kept import Golden

UPDATE = "--update-golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(UPDATE, action="store_true", help="rewrite golden files (not in CI)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption(UPDATE) and os.environ.get("CI"):
        raise pytest.UsageError(f"{UPDATE} is refused where CI is set: somebody must read the diff")
    if sys.dont_write_bytecode:
        _keep_bytecode_elsewhere(config)


def _keep_bytecode_elsewhere(config: pytest.Config) -> None:
    """Where the checkout is to stay clean, bytecode is kept in pytest's cache, or for this run.

    Without any, each process that a test starts would compile all that it imports once more.
    """
    cache: pytest.Cache | None = getattr(config, "cache", None)  # None with `no:cacheprovider`
    if cache is None:
        folder = Path(tempfile.mkdtemp(prefix="bytecode-"))
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    else:
        folder = cache.mkdir("bytecode")
    sys.pycache_prefix, sys.dont_write_bytecode = str(folder), False
    # Workers of xdist start with this environment.
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is there once tests are collected stays: to look for cycles in it finds none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
