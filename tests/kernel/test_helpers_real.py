"""Real servers and clients of the helpers' protocols at each place, and the page on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from .ground import Family, Ground, Loader
from .helpers_proved.page import SECTIONS, Entry, Page, matrix
from .helpers_proved.places import Place
from .helpers_proved.proof import (
    MUST_FAIL_S,
    MUST_PASS_S,
    Outcome,
    Proved,
    battleground,
    load,
    without_helpers,
)
from .helpers_proved.real import REAL, Real, Session, server_of

Try: TypeAlias = Callable[[Real, Place, Family, bool], Outcome]

CONTROL = Loader.NFT

CASES = [
    pytest.param(real, place, id=f"{real.serve.__name__}-{place.name.lower()}")
    for place in Place
    for real in REAL
    if real.tried(place)
]


@pytest.fixture(scope="module")
def laid(helper_programs: None) -> Iterator[Ground]:
    """One router for all proofs."""
    with battleground() as laid:
        yield laid


@pytest.fixture(scope="module")
def tried(laid: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Try]:
    """Try a session; the servers run wherever some place has them, before there are any rules."""
    with ExitStack() as stack:
        sessions: dict[tuple[str, str], Session] = {}
        for real in REAL:
            for place in Place:
                server = server_of(laid, place)
                key = (real.serve.__name__, server.name)
                if key not in sessions and real.tried(place):
                    folder = tmp_path_factory.mktemp("-".join(key))
                    sessions[key] = stack.enter_context(real.serve(laid, server, folder))

        def tried(real: Real, place: Place, family: Family, must_pass: bool) -> Outcome:
            line = place.line(laid, family, MUST_PASS_S if must_pass else MUST_FAIL_S)
            session = sessions[real.serve.__name__, server_of(laid, place).name]
            return session(line, real.subject.dialled(place), must_pass)

        yield tried


@pytest.fixture(scope="module")
def proved() -> Proved:
    """What this file proved so far."""
    return Proved()


@pytest.mark.parametrize("loader", Loader)
@pytest.mark.parametrize(("real", "place"), CASES)
def test_a_real_session_passes(
    laid: Ground,
    tried: Try,
    tmp_path: Path,
    proved: Proved,
    loader: Loader,
    real: Real,
    place: Place,
) -> None:
    """What a user writes for the service is enough for real programs."""
    subject = real.subject
    policy = subject.definitions(place, has_helper=True) + subject.statements(place)
    load(policy, loader, laid, tmp_path)
    for family in real.tried(place):
        outcome = tried(real, place, family, True)
        assert outcome.is_whole, (policy, family, outcome)
        proved.with_helper.add((subject.helper, real.title, place, family, loader))


@pytest.mark.parametrize("place", Place)
def test_nothing_passes_without_the_helper(
    laid: Ground, tried: Try, tmp_path: Path, proved: Proved, place: Place
) -> None:
    """The same policies with services that name no helper: the control connection is all.

    On one loader, since programs are patient: the emulated peers see it on each.
    """
    here = [(real, family) for real in REAL for family in real.tried(place)]
    load(without_helpers([real.subject for real, _ in here], place), CONTROL, laid, tmp_path)
    with ThreadPoolExecutor(len(here)) as pool:
        outcomes = list(pool.map(lambda one: tried(one[0], place, one[1], False), here))
    for (real, family), outcome in zip(here, outcomes, strict=True):
        assert outcome.is_control_alone, (real.title, family, outcome)
        proved.without.add((real.subject.helper, real.title, place, family, CONTROL))


def test_the_page_says_what_was_proved(proved: Proved, helpers_page: Page) -> None:
    """HELPERS.md has the table of what the tests above saw."""
    rows = [
        Entry(real.subject.helper, real.title, real.peers, real.subject.families, real.gap, {})
        for real in REAL
    ]
    helpers_page.says(SECTIONS[3], matrix(rows, proved, [CONTROL]))
