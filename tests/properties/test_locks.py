"""A lock file is read as it was written, and one that is damaged is told of, never half used."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policylang.diagnostics import Report
from policylang.packets.values import V6_BASE, Ranges
from policylang.source import SourceFile
from policylang.syntax.locks import Lock, Locked, lock_text, read_lock

V4_NUMBERS = st.integers(0, (1 << 32) - 1)
V6_NUMBERS = st.integers(V6_BASE, V6_BASE + (1 << 128) - 1)
PAIRS = st.one_of(st.tuples(V4_NUMBERS, V4_NUMBERS), st.tuples(V6_NUMBERS, V6_NUMBERS))
ADDRESSES = st.lists(PAIRS.map(lambda pair: (min(pair), max(pair))), max_size=6).map(Ranges.merged)
DATES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)).map(
    lambda date: date.replace(microsecond=0, tzinfo=UTC)
)
HEADERS = st.text(st.characters(min_codepoint=32, max_codepoint=126))
MARKS = st.dictionaries(st.sampled_from(["etag", "last-modified"]), HEADERS)
KEYS = st.tuples(st.sampled_from(["resolve", "url"]), st.text(min_size=1)).map(" ".join)
LOCKS = st.dictionaries(KEYS, st.builds(Locked, ADDRESSES, DATES, MARKS), max_size=4)


def read(text: str) -> tuple[Lock | None, Report]:
    report = Report()
    return read_lock(SourceFile("web.policy.lock", text), report), report


@given(LOCKS)
def test_a_lock_is_read_as_it_was_written(lock: Lock) -> None:
    text = lock_text(lock)
    assert read(text)[0] == lock
    assert lock_text(dict(reversed([*lock.items()]))) == text  # whatever the order


@given(LOCKS, st.data())
def test_a_damaged_lock_is_told_of_or_means_something(lock: Lock, data: st.DataObject) -> None:
    text = lock_text(lock)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    found, report = read(text[:start] + data.draw(st.text(max_size=4)) + text[end:])
    assert (found is None) == report.has_errors
    for told in report.diagnostics:
        assert told.code == "damaged-lock"
        assert told.span is not None and told.span.end <= len(told.span.file.text) + 1


OTHER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["lock", "sources", "resolve a"]), inner)
    ),
)


@given(OTHER)
def test_other_json_is_no_lock_file(value: object) -> None:
    found, report = read(json.dumps(value))
    assert (found is None) == report.has_errors


ONE = Locked(Ranges.of(1), datetime(2026, 1, 1, tzinfo=UTC))
GOOD = lock_text({"resolve a.example": ONE, "url https://b.example/": ONE})

DAMAGED = {
    "a merge that was not finished": ("<<<<<<< main\n" + GOOD, 1),
    "cut off": (GOOD[: GOOD.index("0.0.0.1")], 6),
    "another version": (GOOD.replace('"lock": 1', '"lock": 2'), 1),
    "no version": (GOOD.replace('"lock"', '"lok"'), 1),
    "a source that is neither": (GOOD.replace("url https", "file https"), 10),
    "a source without addresses": (GOOD.replace('"addresses"', '"address"', 1), 4),
    "a range of the wrong order": (GOOD.replace("0.0.0.1", "0.0.0.9-0.0.0.1", 1), 6),
    "a prefix with bits beyond it": (GOOD.replace("0.0.0.1", "0.0.0.1/24", 1), 6),
    "a number": (GOOD.replace('"0.0.0.1"', "5", 1), 6),
    "a day that there is not": (GOOD.replace("2026-01-01", "2026-02-30", 1), 8),
    "a header that cannot be sent": (
        GOOD.replace('"addresses"', '"etag": "a\\r\\nb", "addresses"', 1),
        4,
    ),
    "a source that stands twice": (GOOD.replace("url https://b.example/", "resolve a.example"), 10),
    "brackets without end": ("[" * 100_000, 1),
    "a number without end": ("9" * 10_000, 1),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_told_at_its_line(case: str) -> None:
    text, line = DAMAGED[case]
    found, report = read(text)
    assert found is None
    (told,) = report.diagnostics
    assert told.code == "damaged-lock"
    assert told.span is not None and told.span.line == line


def test_the_lock_that_is_damaged_above_is_a_good_one() -> None:
    assert read(GOOD)[0] == {"resolve a.example": ONE, "url https://b.example/": ONE}


def test_an_address_has_a_line_of_its_own() -> None:
    lock = {"resolve a.example": Locked(Ranges.of(1, 2, 3), ONE.refreshed)}
    assert lock_text(lock).splitlines()[5:7] == ['    "0.0.0.1",', '    "0.0.0.2/31"']
