"""What every kernel test needs: the right to make namespaces, and the grounds to test on.

Where namespaces cannot be made the tests are skipped and say why, but with `CI` set they fail.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from policylang.apply import nft
from tests.backends.nft_station import station
from tests.conftest import UPDATE

from . import ftp, secure_shell
from .applied import Firewall
from .desk import Desk
from .ground import Ground, Loader, ground, obstacle
from .helpers_proved import real
from .helpers_proved.page import Page


@pytest.fixture(scope="session")
def kernel() -> None:
    """Skip, or fail in CI, where this machine cannot carry a kernel test."""
    _require(obstacle())


@pytest.fixture(scope="session")
def ftp_programs() -> None:
    """The same, for tests that speak FTP."""
    _require(obstacle(*ftp.PROGRAMS))


@pytest.fixture(scope="session")
def helper_programs() -> None:
    """The same, for tests that speak what helpers know."""
    _require(obstacle(*real.PROGRAMS))


@pytest.fixture(scope="session")
def ssh_programs() -> None:
    """The same, for tests that work over SSH."""
    _require(obstacle(*secure_shell.PROGRAMS))


@pytest.fixture(scope="session", autouse=True)
def orderly_end() -> Iterator[None]:
    """Let a polite signal (that of `timeout`) end the run like Ctrl-C: namespaces are deleted."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def _require(reason: str | None) -> None:
    if reason is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module", autouse=True)
def nft_program(request: pytest.FixtureRequest) -> Iterator[None]:
    """Load nft rules by the program `nft`, in a tenth of the time that Python and libnftables take.

    Both hand the same script to the same library. What most users have, libnftables, is there for
    the tests of `apply` itself, for one of the examples and for whoever starts the command line.
    """
    ways = nft._ways
    with pytest.MonkeyPatch.context() as patch:
        if not request.path.name.startswith(BY_LIBNFTABLES):
            patch.setattr(nft, "_ways", lambda file: iter([*ways(file)][-1:]))
        yield


BY_LIBNFTABLES = ("test_apply", "test_example_web_ftp_server")


@pytest.fixture
def pair(kernel: None) -> Iterator[Ground]:
    """A firewall, and one neighbour in zone `wan`."""
    with ground("wan") as laid:
        yield laid


@pytest.fixture
def routed(kernel: None) -> Iterator[Ground]:
    """A firewall that forwards between `lan` and `wan`, with a neighbour in each."""
    with ground("lan", "wan") as laid:
        yield laid


@pytest.fixture
def zoned(kernel: None) -> Iterator[Ground]:
    """A firewall with a neighbour in each of `wan`, `lan` and `dmz`."""
    with ground("wan", "lan", "dmz") as laid:
        yield laid


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def firewall(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Firewall]:
    """A firewall that packets can be thrown at, for each way to load policies into it."""
    directory = tmp_path_factory.mktemp("applied")
    with station() as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        laid.inside.sysctl("net.ipv4.ip_forward", "1")
        laid.inside.sysctl("net.ipv6.conf.all.forwarding", "1")
        yield Firewall(laid, request.param, directory)


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def loader(request: pytest.FixtureRequest) -> Loader:
    """Each way to load policies."""
    chosen: Loader = request.param
    return chosen


@pytest.fixture
def desk(pair: Ground, loader: Loader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Where commands are typed for a firewall with one neighbour, for each way to load."""
    return Desk(pair, loader, tmp_path, capsys)


@pytest.fixture
def helpers_page(request: pytest.FixtureRequest) -> Page:
    """The page of what was proved of helpers; with `--update-golden` it is written instead."""
    return Page(is_update=request.config.getoption(UPDATE))
