"""Files, backups, scans: each helper at each place, on every loader, and the page on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .ground import Ground, Loader
from .helpers_proved.page import SECTIONS, Page, entries, matrix
from .helpers_proved.places import Place
from .helpers_proved.proof import Proved, battleground, disprove, prove
from .helpers_proved.subjects import TRANSFER, Subject

CASES = [
    pytest.param(subject, place, id=f"{subject.service}-{subject.port}-{place.name.lower()}")
    for subject in TRANSFER
    for place in Place
    if subject.tried(place)
]


@pytest.fixture(scope="module")
def laid(kernel: None) -> Iterator[Ground]:
    """One router for all proofs: each policy takes the place of the one before."""
    with battleground() as laid:
        yield laid


@pytest.fixture(scope="module")
def proved() -> Proved:
    """What this file proved so far."""
    return Proved()


@pytest.mark.parametrize("loader", Loader)
@pytest.mark.parametrize(("subject", "place"), CASES)
def test_all_that_the_helper_predicts_passes(
    laid: Ground, tmp_path: Path, proved: Proved, loader: Loader, subject: Subject, place: Place
) -> None:
    """What a user writes for the service is enough, and every address is as it should be."""
    prove(subject, place, loader, laid, tmp_path, proved)


@pytest.mark.parametrize("loader", Loader)
def test_nothing_passes_without_the_helper(
    kernel: None, tmp_path: Path, proved: Proved, loader: Loader
) -> None:
    """The same policies with services that name no helper: the control connection is all."""
    disprove(TRANSFER, loader, tmp_path, proved)


def test_the_page_says_what_was_proved(proved: Proved, helpers_page: Page) -> None:
    """HELPERS.md has the table of what the tests above saw."""
    helpers_page.says(SECTIONS[0], matrix(entries(TRANSFER), proved))
