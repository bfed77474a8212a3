"""What tests of provisioning need: the right to make namespaces, and targets in them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.ground import Loader, Namespace, obstacle

from .controller import Controller, install, is_there
from .shipped import Target, unpacked


@pytest.fixture(scope="session")
def kernel() -> None:
    """Skip, or fail in CI, where this machine cannot carry a kernel test."""
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What travels, unpacked."""
    return unpacked(tmp_path_factory.mktemp("archive"))


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def loader(request: pytest.FixtureRequest) -> Loader:
    """Each way to load rules."""
    chosen: Loader = request.param
    return chosen


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    """An empty namespace."""
    made = Namespace.create("target")
    yield made
    made.delete()


@pytest.fixture
def target(namespace: Namespace, archive: Path, loader: Loader, tmp_path: Path) -> Target:
    """A target that has the programs of one way alone."""
    return Target(namespace, archive, loader, tmp_path)


@pytest.fixture(scope="session")
def collections(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collection, built and installed; without Ansible tests are skipped, or fail in CI."""
    if not is_there():
        reason = "Ansible is not installed beside this Python"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return install(tmp_path_factory.mktemp("collections"))


@pytest.fixture
def local(namespace: Namespace, collections: Path, tmp_path: Path) -> Controller:
    """A controller that is the target itself."""
    settings = {
        "POLICYLANG_STATE": str(tmp_path / "state"),
        "XTABLES_LOCKFILE": str(tmp_path / "lock"),
    }
    inventory = "[web]\nweb1 ansible_host=192.0.2.1\n"
    return Controller(namespace, tmp_path, collections, inventory, ("-c", "local"), {}, settings)
