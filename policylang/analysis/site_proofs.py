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
from policylang.analysis.questions import Answer
from policylang.analysis.site import OnHost, Site, Way
from policylang.analysis.site_hosts import OneHost, by_its_way
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
        ends = tuple(self.site.ends(way))
        if _holds(expectation, way, ends):
            return Shown(expectation, True)
        # What is to pass: by the first who stops it. What is stopped in the wrong way: by who does
        # so. What is not to pass: by the last who lets it.
        told: Iterable[OnHost] = reversed(way.parts)
        if expectation.wanted is Wanted.ALLOW:
            told = way.parts
        elif way.answer is Answer.NO:
            told = ends
        for part in told:
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
            placed = replace(one, asked=by_its_way(proving.host, self.site.known(one.asked)))
            shown = proving.play(placed)
            if not shown.holds:
                return _on(host, shown)
        for part in way.parts:
            if part.is_sent_on and part.answer is not Answer.YES and not expectation.is_some:
                message = f"on `{part.host.name}`: not every first packet is let in that is sent on"
                return Shown(expectation, False, Diagnostic(FAILED, message, expectation.span))
        return Shown(expectation, True)


def _holds(expectation: PacketExpectation, way: Way, ends: Sequence[OnHost]) -> bool:
    """Whether an expectation is so along the whole way."""
    match expectation.wanted:
        case Wanted.ALLOW:
            return way.answer is Answer.YES or (expectation.is_some and way.answer is not Answer.NO)
        case Wanted.DENY:
            return way.answer is Answer.NO or (expectation.is_some and way.answer is not Answer.YES)
        case Wanted.DROP | Wanted.REJECT:
            as_wanted = (judged(expectation, one.found, one.beginnings).holds for one in ends)
            if expectation.is_some:
                return any(as_wanted)
            return way.answer is Answer.NO and all(as_wanted)


def _about_nobody(expectation: Expectation) -> Shown:
    message = "no packet between hosts, or by a gateway, is described by this"
    help_ = "say both ends; hosts need addresses, and others come by a `gateway`"
    return Shown(expectation, False, Diagnostic(FAILED, message, expectation.span, help_))


def _on(host: str, shown: Shown) -> Shown:
    failure = shown.failure
    if failure is None:
        return shown
    return replace(shown, failure=replace(failure, message=f"on `{host}`: {failure.message}"))
