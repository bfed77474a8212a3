"""What the tests here need that load what targets emit: namespaces, and one to count in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.iptables_station import Bench, bench
from tests.kernel.conftest import kernel

__all__ = ["kernel"]


@pytest.fixture(scope="module")
def wired(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("iptables") / "lock") as laid:
        yield laid


@pytest.fixture
def bare(wired: Bench) -> Iterator[Bench]:
    """A firewall without rules, sets and connections, before and afterwards."""
    wired.clear()
    yield wired
    wired.clear()
