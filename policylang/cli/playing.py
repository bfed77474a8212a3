"""`policylang test --kernel`: plays what tests expect on the real kernel, and tells of each way."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policylang.cli.formats import ELSEWHERE
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import Renderer, json_place
from policylang.cli.teller import show, show_elsewhere, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Diagnostic, Report

if TYPE_CHECKING:
    from policylang.model.expectations import Expectation, Test
    from policylang.model.policy import Policy
    from policylang.proving import Result

FAILED = "expectation-failed"


@dataclass(frozen=True, slots=True)
class Played:
    """What came of the tests of one policy; `name` is what lines call it."""

    name: str
    tests: tuple[Test, ...]
    results: tuple[Result, ...]

    @property
    def ways(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(result.way for result in self.results))

    def of(self, test: Test, way: str) -> tuple[Result, ...]:
        """What came of one test on one way to load."""
        return tuple(r for r in self.results if r.test is test and r.way == way)


def run(
    found: Iterable[tuple[str, Policy, tuple[Test, ...]]],
    chosen: argparse.Namespace,
    report: Report,
) -> int:
    """Play the chosen tests of policies, each with what lines call it; the exit status.

    2 where the kernel does otherwise than is expected, 1 where nothing can be played.
    """
    from policylang.proving import MOST_PACKETS, Status, prove

    most = chosen.packets or MOST_PACKETS
    every: list[Played] = []
    for name, policy, tests in found:
        own = Report()
        results = prove(policy, own, target=chosen.target, tests=tests, most=most)
        for one in own.diagnostics:
            if one.severity == "error":  # what it warns of is told by `check`
                report.add(one.code, one.message, one.span, help=one.help, labels=one.labels)
        if results is None:
            break
        every.append(Played(name, tests, results))
        if chosen.format == "text":
            _tell(every[-1], chosen)
    if chosen.format in ELSEWHERE:
        failures = [(one.name, f) for one in every for f in _failures(one.results)]
        show_elsewhere(failures, chosen, report)
    else:
        show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    if chosen.format == "json":
        print(json.dumps(as_json(every), indent=2))
    elif chosen.format == "text":
        _tell_sum(every)
    has_failed = any(r.status is Status.FAILED for played in every for r in played.results)
    return CHANGES if has_failed else DONE


# --- text ---------------------------------------------------------------------------------------


def _tell(played: Played, chosen: argparse.Namespace) -> None:
    """The tests of a policy, way by way, and behind each what is otherwise."""
    is_colored = wants_color(chosen.color, sys.stdout)
    if not played.tests:
        print(f"{played.name}: no tests")
    for way in played.ways:
        print(f"{played.name}, on {way}:")
        for test in played.tests:
            results = played.of(test, way)
            print(f"  {_mark(results, is_colored)}  {visible(test.name)} ({_many(results)})")
            for line in _beside(results):
                print(f"          {visible(line)}")
            failures = list(_failures(results))
            if failures:
                text = Renderer(is_colored).render(failures)
                lines = (f"    {line}\n" if line else "\n" for line in text.splitlines())
                print("\n" + "".join(lines))


def _mark(results: Sequence[Result], is_colored: bool) -> str:
    from policylang.proving import Status

    states = {result.status for result in results}
    if Status.FAILED in states:
        word, color = "FAILED", "1;31"
    elif states == {Status.IMPOSSIBLE}:
        word, color = "-", "33"
    else:
        word, color = "ok", "32"
    padding = " " * (len("FAILED") - len(word))
    return f"\x1b[{color}m{word}\x1b[0m{padding}" if is_colored else word + padding


def _many(results: Sequence[Result]) -> str:
    failed = sum(result.status == "failed" for result in results)
    many = f"{len(results)} expectation{'' if len(results) == 1 else 's'}"
    return ", ".join([f"{failed} of {many}" if failed else many, *_tried_words(results)])


def _tried_words(results: Sequence[Result]) -> Iterator[str]:
    for count, what in zip(_tried(results), ("packet", "session"), strict=True):
        if count:
            yield f"{count:,} {what}{'' if count == 1 else 's'}"


def _tried(results: Iterable[Result]) -> tuple[int, int]:
    """How many packets and how many conversations."""
    from policylang.model.expectations import SessionExpectation

    packets = sessions = 0
    for result in results:
        if isinstance(result.expectation, SessionExpectation):
            sessions += result.tried
        else:
            packets += result.tried
    return packets, sessions


def _beside(results: Iterable[Result]) -> Iterator[str]:
    """What was not played, and what was left out, each expectation in its own words."""
    for result in results:
        text = result.expectation.span.text
        if result.status == "not possible here":
            yield f"not played: {text}: {result.said}"
        for note in result.notes:
            yield f"{text}: {note}"


def _failures(results: Iterable[Result]) -> Iterator[Diagnostic]:
    for result in results:
        if result.status == "failed":
            yield Diagnostic(FAILED, _story(result), result.expectation.span)


def _story(result: Result) -> str:
    """What the kernel did instead, with the packet that shows it."""
    packet = _packet(result)
    wanted = _wanted(result.expectation)
    if wanted is None:
        return f"the session does not come off in the kernel: {result.said} (`{packet}`)"
    which = "no packet is" if result.expectation.is_some else "not every packet is"
    return f"{which} {wanted} by the kernel: `{packet}`: {result.said}"


def _wanted(expectation: Expectation) -> str | None:
    """What was to become of packets; None of a session."""
    from policylang.model.expectations import PacketExpectation, Wanted

    if not isinstance(expectation, PacketExpectation):
        return None
    return {
        Wanted.ALLOW: "allowed",
        Wanted.DENY: "denied",
        Wanted.DROP: "dropped",
        Wanted.REJECT: "rejected",
    }[expectation.wanted]


def _packet(result: Result) -> str | None:
    from policylang.analysis.wording import packet_words

    return None if result.packet is None else packet_words(result.packet)


def _tell_sum(every: Sequence[Played]) -> None:
    results = [result for played in every for result in played.results]
    ways = dict.fromkeys(result.way for result in results)
    failed = sum(result.status == "failed" for result in results)
    left_out = sum(result.status == "not possible here" for result in results)
    said = f"{len(results) - failed - left_out} of {len(results)} expectations met"
    if ways:
        said += f" on {' and '.join(filter(None, (', '.join([*ways][:-1]), [*ways][-1])))}"
    said = ", ".join((said, *_tried_words(results)))
    print(f"\n{said}" + (f"; {left_out} could not be played" if left_out else ""))


# --- JSON ---------------------------------------------------------------------------------------


def as_json(every: Sequence[Played]) -> dict[str, object]:
    """The value that `--format json` prints; its keys are stable.

    `version` is 1, `met`, `failed` and `not_played` count results. `policies` has an object for
    each policy: `policy` and `tests`; each of these has `name` and `expectations`, and each of
    those `text`, the five of its place (`file`, `line`, `column`, `end_line`, `end_column`) and
    `ways`: objects with `way` (`nft`, `iptables-nft`, `iptables-legacy`), `status` (`ok`,
    `failed`, `not possible here`), `tried` (packets or sessions), `packet` (in words, or null),
    `said` (what happened, or what keeps it from being played) and `notes`.
    """
    results = [result for played in every for result in played.results]
    return {
        "version": 1,
        "met": sum(result.status == "ok" for result in results),
        "failed": sum(result.status == "failed" for result in results),
        "not_played": sum(result.status == "not possible here" for result in results),
        "policies": [
            {
                "policy": played.name,
                "tests": [
                    {"name": test.name, "expectations": list(_expectations(played, test))}
                    for test in played.tests
                ],
            }
            for played in every
        ],
    }


def _expectations(played: Played, test: Test) -> Iterator[dict[str, object]]:
    for number, one in enumerate(test.expectations):
        ways = [played.of(test, way)[number] for way in played.ways]
        yield {
            "text": one.span.text,
            **json_place(one.span),
            "ways": [
                {
                    "way": result.way,
                    "status": result.status.value,
                    "tried": result.tried,
                    "packet": _packet(result),
                    "said": result.said,
                    "notes": list(result.notes),
                }
                for result in ways
            ],
        }
