"""`policylang test`: proves what the tests of policies expect, and tells of each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from policylang.cli.formats import ELSEWHERE, placed
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.render import Renderer, as_json, json_place
from policylang.cli.teller import show, show_elsewhere, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Diagnostic, Report

if TYPE_CHECKING:
    from policylang.analysis.proofs import ProvedTest, Shown
    from policylang.model.expectations import Test
    from policylang.model.policy import Policy
    from policylang.pipeline import Source
    from policylang.syntax.tree import Loaded

_PASSED, _FAILED = "ok", "FAILED"


@dataclass(frozen=True, slots=True)
class _Tests:
    """The chosen tests of a policy, and how they are proved; `policy` where it has one host."""

    name: str
    chosen: tuple[Test, ...]
    prove: Callable[[Report], Iterator[ProvedTest]]
    policy: Policy | None = None


def run(chosen: argparse.Namespace, sources: Iterable[tuple[str, Source]], report: Report) -> int:
    """Prove the tests of policies, each with what lines call it; the exit status.

    2 where an expectation does not hold, 1 where a policy has errors or no test has the name.
    """
    found = [
        tests
        for name, source in sources
        if (tests := _tests_of(name, source, chosen, report)) is not None
    ]
    if chosen.name is not None and not report.has_errors and not any(t.chosen for t in found):
        report.add(
            "no-such-test",
            f"no test is called `{chosen.name}`",
            None,
            help="`--name` takes a name or a pattern: `--name '*ftp*'`",
        )
    if chosen.kernel and not report.has_errors:
        from policylang.cli import playing

        to_play = [(t.name, t.policy, t.chosen) for t in found if t.policy is not None]
        return playing.run(to_play, chosen, report)
    results: list[tuple[_Tests, tuple[ProvedTest, ...]]] = []
    if not report.has_errors:
        for tests in found:
            results.append((tests, tuple(_proved(tests, chosen, report))))
            if report.has_errors:
                break
    if chosen.format in ELSEWHERE:
        failures = [(tests.name, f) for tests, found in results for t in found for f in _failed(t)]
        show_elsewhere(failures, chosen, report)
    else:
        show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    if chosen.format == "json":
        print(json.dumps(results_as_json(results), indent=2))
    elif chosen.format == "text":
        _tell_sum(results)
    return DONE if all(t.holds for _, tested in results for t in tested) else CHANGES


def _failed(tested: ProvedTest) -> list[Diagnostic]:
    return [one.failure for one in tested.shown if one.failure is not None]


def _tests_of(
    name: str, source: Source, chosen: argparse.Namespace, report: Report
) -> _Tests | None:
    """The tests of a policy that were chosen; None where it has errors."""
    from policylang import pipeline
    from policylang.lower.stateful import lower

    own = Report()
    loaded = pipeline.loaded_from(source, own, chosen.parameters)
    if loaded.hosts and loaded.here is None and not chosen.kernel:
        found = _of_site(name, loaded, chosen, own)
        report.take(placed(own, name, chosen.format))
        return found
    policy = pipeline.meant_by(loaded, own)
    # Not optimised: each rule is of one statement, so that it can be told which one decided.
    ruleset = None if policy is None else lower(policy, own)
    report.take(placed(own, name, chosen.format))
    if policy is None or ruleset is None or own.has_errors:
        return None
    tests = tuple(t for t in policy.tests if chosen.name is None or _is_named(t, chosen.name))

    def prove(report: Report) -> Iterator[ProvedTest]:
        from policylang.analysis.proofs import prove_tests
        from policylang.analysis.sessions import player

        return prove_tests(policy, ruleset, tests, player(policy, ruleset), report)

    return _Tests(name, tests, prove, policy)


def _of_site(
    name: str, loaded: Loaded, chosen: argparse.Namespace, report: Report
) -> _Tests | None:
    """The tests of a policy of several hosts: what they expect holds along the whole way."""
    from policylang.analysis.sessions import player
    from policylang.analysis.site_proofs import Proving, prove_site, tests_of
    from policylang.cli.sites import with_rules

    provings = [
        Proving(host, ruleset, player(host.policy, ruleset))
        for host, ruleset in with_rules(loaded, report)
    ]
    if report.has_errors:
        return None
    tests = {
        key: by_host
        for key, by_host in tests_of(provings).items()
        if chosen.name is None or _is_named(next(iter(by_host.values())), chosen.name)
    }
    firsts = tuple(next(iter(by_host.values())) for by_host in tests.values())
    return _Tests(name, firsts, lambda report: prove_site(provings, tests, report))


def _is_named(test: Test, pattern: str) -> bool:
    return test.name == pattern or fnmatchcase(test.name, pattern)


def _proved(tests: _Tests, chosen: argparse.Namespace, report: Report) -> Iterator[ProvedTest]:
    """What came of the tests of one policy, told as it is found; reports `too-large`."""
    from policylang.analysis.diagram import TooLargeError

    is_text = chosen.format == "text"
    if is_text:
        print(f"{tests.name}:{'' if tests.chosen else ' no tests'}")
    try:
        for tested in tests.prove(report):
            if is_text:
                _tell(tested, chosen)
            yield tested
    except TooLargeError:
        report.add(
            "too-large",
            f"the rules of `{tests.name}` make too many different packets to be told apart",
            None,
            help="fewer statements that overlap in everything, or tests of a part of them, may do",
        )


def _tell(tested: ProvedTest, chosen: argparse.Namespace) -> None:
    """One line for a test, and behind it what does not hold."""
    count = len(tested.shown)
    many = f"{count} expectation{'' if count == 1 else 's'}"
    is_colored = wants_color(chosen.color, sys.stdout)
    mark = _PASSED if tested.holds else _FAILED
    if is_colored:
        mark = f"\x1b[{'32' if tested.holds else '1;31'}m{mark}\x1b[0m"
    failed = sum(not one.holds for one in tested.shown)
    said = many if not failed else f"{failed} of {many}"
    padding = " " * (len(_FAILED) - len(_PASSED if tested.holds else _FAILED))
    print(f"  {mark}{padding}  {visible(tested.test.name)} ({said})")
    failures = _failed(tested)
    if failures:
        text = Renderer(is_colored).render(failures)
        print("\n" + "".join(f"    {line}\n" if line else "\n" for line in text.splitlines()))


def _tell_sum(results: list[tuple[_Tests, tuple[ProvedTest, ...]]]) -> None:
    every = [tested for _, found in results for tested in found]
    failed = sum(not tested.holds for tested in every)
    expectations = sum(len(tested.shown) for tested in every)
    said = f"{len(every) - failed} of {len(every)} test{'' if len(every) == 1 else 's'} passed"
    print(f"\n{said}, {expectations} expectation{'' if expectations == 1 else 's'}")


def results_as_json(results: list[tuple[_Tests, tuple[ProvedTest, ...]]]) -> dict[str, object]:
    """The value that `--format json` prints; its keys are stable.

    `version` is 1, `passed` and `failed` count tests. `policies` has an object for each policy:
    `policy` (as it was named) and `tests`; each of these has `name`, `passed` and `expectations`,
    and each of those `text`, the five of its place (`file`, `line`, `column`, `end_line`,
    `end_column`), `holds`, and `failure`: null, or an object with `message`, `packet` (one packet
    in words, or null), `why` (what decided, or null), `help` and `labels`, which are as those of
    `check --format json`.
    """
    every = [tested for _, found in results for tested in found]
    return {
        "version": 1,
        "passed": sum(tested.holds for tested in every),
        "failed": sum(not tested.holds for tested in every),
        "policies": [
            {
                "policy": tests.name,
                "tests": [
                    {
                        "name": tested.test.name,
                        "passed": tested.holds,
                        "expectations": [_shown_as_json(one) for one in tested.shown],
                    }
                    for tested in found
                ],
            }
            for tests, found in results
        ],
    }


def _shown_as_json(shown: Shown) -> dict[str, object]:
    failure: dict[str, object] | None = None
    if shown.failure is not None:
        (told,) = json.loads(as_json([shown.failure]))
        failure = {
            "message": told["message"],
            "packet": shown.packet,
            "why": shown.why,
            "help": told["help"],
            "labels": told["labels"],
        }
    span = shown.expectation.span
    return {"text": span.text, **json_place(span), "holds": shown.holds, "failure": failure}
