"""The order of a proof: choose packets, and for each way to load the rules throw and judge them.

It knows which ways there are, and what a policy's tests expect; how it is done it leaves to others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from random import Random

from policylang.apply import engines, kernel, programs, transaction
from policylang.apply.loaded import Loaded
from policylang.apply.nft_engine import NftEngine
from policylang.apply.restore import Flavour
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import DynamicSet, Lookup, Ruleset
from policylang.lower.asked import Asking, asking
from policylang.lower.stateful import lower
from policylang.model.expectations import Expectation, PacketExpectation, SessionExpectation, Test
from policylang.model.policy import Policy
from policylang.optimise import optimise
from policylang.packets.fields import Field
from policylang.packets.values import Ranges
from policylang.pipeline import artifact_of
from policylang.proving import filling
from policylang.proving.borders import borders, guards
from policylang.proving.claims import Claim, claims, groups_in
from policylang.proving.court import Court, Verdict, fate_words
from policylang.proving.ground import Ground, Plan, laid, plan
from policylang.proving.namespaces import GroundError
from policylang.proving.picking import Picker
from policylang.proving.results import Result, Status
from policylang.proving.sessions import Played, Stage, chosen, let_peers_speak
from policylang.proving.throwing import thrower

MOST_PACKETS = 300  # for each expectation
PACKETS_A_SESSION, FEWEST_SESSIONS = 40, 2  # as many of these take as long
SEED = 1  # the same packets for the same policy


@dataclass(frozen=True, slots=True)
class Way:
    """A way to load rules: a target and, of iptables, a flavour."""

    target: str
    flavour: Flavour | None

    @property
    def name(self) -> str:
        return self.target if self.flavour is None else f"{self.target}-{self.flavour}"


def ways(target: str | None) -> tuple[Way, ...]:
    """The ways whose programs are installed, of one target or of all."""
    present = [engine.way for engine in engines.present()]
    every = [Way("nft", None), *(Way("iptables", flavour) for flavour in Flavour)]
    return tuple(w for w in every if w.name in present and target in (None, w.target))


def prove(
    policy: Policy,
    report: Report,
    *,
    target: str | None = None,
    tests: Sequence[Test] | None = None,
    most: int = MOST_PACKETS,
) -> tuple[Result, ...] | None:
    """What the real kernel does with what a policy expects: each expectation on each way to load.

    `tests` are those of the policy's tests that are played, None all. At most so many packets are
    thrown for each expectation. None where nothing could be played: reports `not-permitted`,
    `program-missing`, `loading-failed`, `too-many-tests`, and what lowering finds.
    """
    chosen = policy.tests if tests is None else tuple(tests)
    ruleset = optimise(lower(policy, report), Report())
    if report.has_errors:
        return None
    for program in ("nft", "ip"):
        if programs.find(program) is None:
            programs.report_missing(program, report)
            return None
    expected = [(test, one) for test in chosen for one in test.expectations]
    asked = asking(policy, (one.asked for _, one in expected), report)
    if report.has_errors:
        return None
    try:
        return _Proof(policy, ruleset, asked, expected, report, most).over(ways(target))
    except GroundError as error:
        report.add("loading-failed", "cannot play tests on this machine", None, help=str(error))
        return None


@dataclass(slots=True)
class _Proof:
    policy: Policy
    ruleset: Ruleset
    asking: Asking
    expected: list[tuple[Test, Expectation]]
    report: Report
    most: int

    def over(self, every: Sequence[Way]) -> tuple[Result, ...] | None:
        """The results way by way, in the order of the tests."""
        made = self._plan()
        claimed = self._claims(made)
        if claimed is None:
            return None
        results: list[Result] = []
        for way in every:
            own = Report()
            artifact = artifact_of(self.ruleset, way.target, own)
            if artifact is None:
                message = own.in_order()[0].message
                results += self._impossible(way, f"the policy does not compile for it: {message}")
                continue
            found = self._on(way, artifact, made, claimed)
            if found is None:
                return None
            results += found
        return tuple(results)

    def _plan(self) -> Plan:
        found = borders(self.ruleset)
        named = Ranges.merged(
            (n, n) for f in (Field.SADDR, Field.DADDR) for n in found.values.get(f, ())
        )
        names = (
            values
            for chain in self.ruleset.chains
            for item in chain.items
            for f, values in item.cube
            if f in (Field.IIF, Field.OIF)
        )
        return plan(self.policy.zones, names, named)

    def _groups(self) -> tuple[int, ...]:
        cubes = (
            cube for chain in self.ruleset.chains for item in chain.items for cube in [item.cube]
        )
        return groups_in(cubes)

    def _claims(self, made: Plan) -> list[Claim] | None:
        pinned = Ranges()
        for chain in self.ruleset.chains:
            for item in chain.items:
                actions = item.entries if isinstance(item, Lookup) else (item,)
                for one in actions:
                    if isinstance(one.action, ir.DestinationNat):
                        pinned |= one.action.targets
        picker = Picker(made, borders(self.ruleset), self.asking.tests, Random(SEED), pinned)
        wanted = [(one, self.asking.asked(one.asked)) for _, one in self.expected]
        with ExitStack() as stack:
            ground = stack.enter_context(laid(made, self.report))
            if ground is None:
                return None
            control = stack.enter_context(thrower(ground, is_control=True, groups=self._groups()))
            return claims(wanted, self.ruleset, picker, control, self.most)

    def _on(
        self, way: Way, artifact: Artifact, made: Plan, claimed: list[Claim]
    ) -> list[Result] | None:
        with ExitStack() as stack:
            ground = stack.enter_context(laid(made, self.report))
            if ground is None:
                return None
            own = Report()
            if not _loaded(way, artifact, ground, own):
                self.report.take(own)
                story = next((d.message for d in own.in_order() if d.severity == "error"), "")
                return list(self._impossible(way, f"the rules cannot be loaded: {story}"))
            return self._played(way, artifact, ground, claimed)

    def _played(
        self, way: Way, artifact: Artifact, ground: Ground, claimed: list[Claim]
    ) -> list[Result]:
        remembers = has_memory(self.ruleset)
        again = _renewing(way, artifact, ground)
        filled: dict[int, frozenset[int]] = {}

        def renew() -> None:
            filled.clear()
            again()

        def fill(held: Mapping[int, frozenset[int]]) -> None:
            wanted: dict[DynamicSet, frozenset[int]] = {}
            for number, addresses in held.items():
                test = self.asking.tests[number]
                if isinstance(test, DynamicSet) and filled.get(number, frozenset()) != addresses:
                    wanted[test] = addresses
            filling.fill(ground.firewall, way.target, wanted)
            if not remembers:
                filled.update(held)

        pairs = [(one, claim) for (_, one), claim in zip(self.expected, claimed, strict=True)]
        packets = [(one, c) for one, c in pairs if isinstance(one, PacketExpectation)]
        many = max(FEWEST_SESSIONS, self.most // PACKETS_A_SESSION)
        talks = [(one, c) for one, c in pairs if isinstance(one, SessionExpectation)]
        with thrower(ground, groups=self._groups()) as throwing:
            court = Court(throwing, renew, fill, remembers)
            verdicts = iter(court.judge(packets))
            about = court.about([claim for _, claim in talks])
            beginning = zip(talks, about, strict=True)
            held = [(one, court.sure(chosen(one, some, many))) for (one, _), some in beginning]
        if talks:
            let_peers_speak(ground)
        stage = Stage(ground, self.ruleset, renew, fill, remembers)
        played = iter([stage.play(one, beginnings) for one, beginnings in held])
        return [
            _of_packets(test, claim, next(verdicts), way)
            if isinstance(claim.expectation, PacketExpectation)
            else _of_session(test, claim, next(played), way)
            for (test, _), claim in zip(self.expected, claimed, strict=True)
        ]

    def _impossible(self, way: Way, why: str) -> Iterator[Result]:
        for test, one in self.expected:
            yield Result(test, one, way.name, Status.IMPOSSIBLE, said=why)


def _of_packets(test: Test, claim: Claim, verdict: Verdict, way: Way) -> Result:
    made = Result(test, claim.expectation, way.name, Status.OK, verdict.count, notes=verdict.notes)
    if not verdict.count:
        said = claim.why or "no packet that it is about can be made here"
        return replace(made, status=Status.IMPOSSIBLE, said=said)
    if verdict.wrong is None:
        return made
    one, fate = verdict.wrong
    said = fate_words(fate, one.picked.probe)
    return replace(made, status=Status.FAILED, packet=one.packet, said=said)


def _of_session(test: Test, claim: Claim, played: Played, way: Way) -> Result:
    made = Result(test, claim.expectation, way.name, Status.OK, played.count, notes=claim.notes)
    if not played.count:
        said = claim.why or "no client and no server that it is about can stand here"
        return replace(made, status=Status.IMPOSSIBLE, said=said)
    if played.wrong is None:
        return made
    one, why = played.wrong
    return replace(made, status=Status.FAILED, packet=one.packet, said=why)


def has_memory(ruleset: Ruleset) -> bool:
    """Whether what became of packets may change what becomes of the next ones."""
    remembering = (ir.AddToSet, ir.RememberQuestion, ir.RememberAsker)
    counting = (ir.RateGuard, ir.ConnectionsGuard)
    return any(isinstance(guard, counting) for guard in guards(ruleset)) or any(
        isinstance(item.action, remembering)
        for chain in ruleset.chains
        for item in chain.items
        if not isinstance(item, Lookup)
    )


def _loaded(way: Way, artifact: Artifact, ground: Ground, report: Report) -> bool:
    """Whether the rules are in force in the firewall's namespace."""
    netns = ground.firewall.path
    return (
        transaction.apply(artifact, report, netns=netns, flavour=way.flavour) is not None
        and not report.has_errors
    )


def _renewing(way: Way, artifact: Artifact, ground: Ground) -> Callable[[], None]:
    """Loads the rules once more, as if nothing had ever come to them."""
    engine = engines.by_way(way.name)
    rehearsed: list[Loaded] = []

    def again() -> None:
        engine.remove(Report())
        own = Report()
        if isinstance(engine, NftEngine):
            if not rehearsed:
                made = kernel.in_scratch(lambda: engine.rehearse(artifact, own), own)
                rehearsed.extend(() if made is None else (made,))
            is_loaded = engine.load(artifact, own, {}, rehearsed=next(iter(rehearsed), None))
        else:
            is_loaded = engine.load(artifact, own, {})
        if not is_loaded:
            raise GroundError(own.diagnostics[0].message)

    return lambda: ground.firewall.do(again)
