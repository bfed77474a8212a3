"""The tests of a policy of several hosts: what is expected along the whole way of packets.

A test that holds for all hosts is about packets from the sender by the gateways to the receiver;
one that a block has for some of them is about each of these by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from policylang.analysis.expectations import judged
from policylang.analysis.naming import names_of
from policylang.analysis.proofs import FAILED, Play, ProvedTest, Shown, prove_tests, shown_by
from policylang.analysis.questions import Answer, is_answered
from policylang.analysis.site import OneHost, OnHost, Site, Way, by_its_way
from policylang.diagnostics import Diagnostic, Report
from policylang.ir.ruleset import Ruleset
from policylang.model.expectations import (
    Expectation,
    PacketExpectation,
    SessionExpectation,
    Test,
    Wanted,
)
from policylang.model.types import PolicyRule
from policylang.source import SourceFile

_Key = tuple[SourceFile, int]  # of a test: where it is written


@dataclass(frozen=True, slots=True)
class Proving:
    """A host, its rules, and who plays sessions by them."""

    host: OneHost
    ruleset: Ruleset
    play: Play


def tests_of(provings: Iterable[Proving]) -> dict[_Key, dict[str, Test]]:
    """Each test, by where it is written, as the hosts have it for which it holds."""
    found: dict[_Key, dict[str, Test]] = {}
    for one in provings:
        for test in one.host.policy.tests:
            found.setdefault((test.span.file, test.span.start), {})[one.host.name] = test
    return found


def prove_site(
    provings: Sequence[Proving], tests: Mapping[_Key, Mapping[str, Test]], report: Report
) -> Iterator[ProvedTest]:
    """What came of tests, one after the other; raises `TooLargeError`.

    Reports `too-many-tests`.
    """
    of_all = [by_host for by_host in tests.values() if len(by_host) == len(provings)]
    questions = {
        one.host.name: [e.asked for by in of_all for e in by[one.host.name].expectations]
        for one in provings
    }
    hosts = [one.host for one in provings]
    site = Site(hosts, lambda host: questions[host.name], report, is_alone=True)
    if report.has_errors:
        return
    prover = _Prover(site, {one.host.name: one for one in provings}, questions)
    for by_host in tests.values():
        if len(by_host) == len(provings):
            yield prover.proved(by_host)
            continue
        for one in provings:
            test = by_host.get(one.host.name)
            if test is not None:
                own = replace(test, name=f"{test.name} (on {one.host.name})")
                yield from prove_tests(one.host.policy, one.ruleset, (own,), one.play, report)


@dataclass(frozen=True, slots=True)
class _Prover:
    site: Site
    provings: Mapping[str, Proving]
    questions: Mapping[str, Sequence[PolicyRule]]

    def proved(self, by_host: Mapping[str, Test]) -> ProvedTest:
        """A test that holds for all hosts."""
        first = next(iter(by_host.values()))
        shown: list[Shown] = []
        for number, expectation in enumerate(first.expectations):
            own = {host: test.expectations[number] for host, test in by_host.items()}
            way = self.site.way({host: one.asked for host, one in own.items()})
            match expectation:
                case PacketExpectation():
                    shown.append(self._packets(expectation, own, way))
                case SessionExpectation():
                    shown.append(self._session(expectation, own, way))
        return ProvedTest(first, tuple(shown))

    def _packets(
        self, expectation: PacketExpectation, own: Mapping[str, Expectation], way: Way
    ) -> Shown:
        if not way.parts:
            return _about_nobody(expectation)
        if _holds(expectation, way):
            return Shown(expectation, True)
        # What is to pass, or is stopped in the wrong way: by the first who stops it. What is not to
        # pass: by the last who lets it.
        is_stopped = expectation.wanted is Wanted.ALLOW or way.answer is Answer.NO
        for part in way.parts if is_stopped else reversed(way.parts):
            one = own[part.host.name]
            assert isinstance(one, PacketExpectation)
            proof = judged(one, part.found, part.beginnings)
            if not proof.holds:
                asked = self.questions[part.host.name]
                names = names_of(part.host.policy, part.asker.tests, asked)
                return shown_by(one, proof, names, part.host.name)
        message = "not so along the whole way, though each host by itself does as expected"
        return Shown(expectation, False, Diagnostic(FAILED, message, expectation.span))

    def _session(
        self, expectation: SessionExpectation, own: Mapping[str, Expectation], way: Way
    ) -> Shown:
        """Sessions are played by the rules of each host that their first packets come by."""
        if not way.parts:
            return _about_nobody(expectation)
        for host in dict.fromkeys(part.host.name for part in way.parts if not part.is_sent_on):
            one = own[host]
            assert isinstance(one, SessionExpectation)
            proving = self.provings[host]
            placed = replace(one, asked=by_its_way(proving.host, one.asked))
            shown = proving.play(placed)
            if not shown.holds:
                return _on(host, shown)
        return Shown(expectation, True)


def _holds(expectation: PacketExpectation, way: Way) -> bool:
    """Whether an expectation is so along the whole way."""
    match expectation.wanted:
        case Wanted.ALLOW:
            return way.answer is Answer.YES or (expectation.is_some and way.answer is not Answer.NO)
        case Wanted.DENY:
            return way.answer is Answer.NO or (expectation.is_some and way.answer is not Answer.YES)
        case wanted:
            if way.answer is not Answer.NO and not expectation.is_some:
                return False
            stopping = [part for part in way.parts if part.answer is Answer.NO]
            as_wanted = [_all_so(part, expectation, wanted) for part in stopping]
            return any(as_wanted) if expectation.is_some else bool(stopping) and all(as_wanted)


def _all_so(part: OnHost, expectation: PacketExpectation, wanted: Wanted) -> bool:
    """Whether a host that stops packets does so as it is wanted: by an answer or without."""
    if expectation.answer is not None:
        return judged(expectation, part.found, part.beginnings).holds
    is_reject = wanted is Wanted.REJECT
    return all(is_answered(piece.fate) is is_reject for piece in part.found.pieces)


def _about_nobody(expectation: Expectation) -> Shown:
    message = "no packet between hosts, or by a gateway, is described by this"
    help_ = "say both ends; hosts need addresses, and others come by a `gateway`"
    return Shown(expectation, False, Diagnostic(FAILED, message, expectation.span, help_))


def _on(host: str, shown: Shown) -> Shown:
    failure = shown.failure
    if failure is None:
        return shown
    return replace(shown, failure=replace(failure, message=f"on `{host}`: {failure.message}"))
