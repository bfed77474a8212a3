"""One statement as rules of one path: what it asks, logs, remembers and decides.

Knows neither where the statement stands nor which packets it is about.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from policylang.ir import actions as ir
from policylang.ir.actions import Guard
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Chain, Rule
from policylang.lower.conditions import rate_guard
from policylang.lower.names import log_prefix
from policylang.model.types import AddTo, Log, RejectWith, Verb
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, Field
from policylang.packets.packetset import PacketSet
from policylang.packets.values import Ranges


@dataclass(frozen=True, slots=True)
class Decision:
    """What a statement does with its packets, whichever they are.

    `what` is the start of a log line where the policy gives none. `reminders` are rules that
    remember some of the packets and let them go on. With `is_counted`, to ask the guards of a
    packet changes what they say of the next one, so that they are asked once a packet. `does`
    stands in place of a verb: rules of which each packet meets the first whose cube it is in.
    """

    verb: Verb | None
    what: str
    origins: tuple[Origin, ...]
    answer: RejectWith | None = None
    log: Log | None = None
    adds: tuple[AddTo, ...] = ()
    guards: tuple[Guard, ...] = ()
    is_counted: bool = False
    reminders: tuple[Rule, ...] = ()
    does: tuple[Rule, ...] = ()


@dataclass(slots=True)
class Decider:
    """Writes decisions at one place; `chains` are those that it made on the way.

    A decision is known by its identity, for two statements may well say the same; who writes
    one several times keeps it.
    """

    prefix: str  # of the names of chains
    direction: str | None = None  # the policy's word for the path; None before the paths part
    chains: list[Chain] = field(default_factory=list)
    # By the identity of a decision, which is kept: that of a lost one may be given once more.
    _shared: dict[int, tuple[Decision, str]] = field(default_factory=dict)

    def rules(
        self, decision: Decision, cubes: tuple[Cube, ...], *, again: bool = False
    ) -> Iterator[Rule]:
        """The rules that decide what is in any of `cubes`.

        Where a rate, a count or a log would be asked in several rules, these share a chain, so
        that it holds for the statement, and once for a packet. `again` says that the same
        decision is written for other packets as well.
        """
        steps = self._steps(decision)
        verdicts = list(verdict_rules(decision, EVERYTHING))
        if decision.is_counted or steps:
            if again or len(cubes) > 1:
                yield from self._into_shared(decision, cubes, [*steps, *verdicts])
                return
            if decision.guards and (steps or len(verdicts) > 1):
                for cube in cubes:
                    inner = self._chain(decision, [*steps, *verdicts])
                    yield Rule(cube, ir.Jump(inner), decision.guards, decision.origins)
                return
        for cube in cubes:
            for step in steps:
                narrowed = step.cube & cube
                if not narrowed.is_empty:
                    yield Rule(narrowed, step.action, step.guards, step.origins)
            for verdict in verdict_rules(decision, cube):
                yield Rule(verdict.cube, verdict.action, decision.guards, verdict.origins)

    def _into_shared(
        self, decision: Decision, cubes: tuple[Cube, ...], body: list[Rule]
    ) -> Iterator[Rule]:
        if not cubes:
            return
        _, name = self._shared.get(id(decision), (decision, ""))
        if not name:
            if decision.guards and len(body) == 1:
                (rule,) = body
                body = [Rule(rule.cube, rule.action, decision.guards, rule.origins)]
            elif decision.guards:
                inner = self._chain(decision, body)
                body = [Rule(EVERYTHING, ir.Jump(inner), decision.guards, decision.origins)]
            name = self._chain(decision, body)
            self._shared[id(decision)] = (decision, name)
        if decision.is_counted:
            cubes = _disjoint(cubes)  # what a rate refuses must not be asked about once more
        for cube in cubes:
            yield Rule(cube, ir.Jump(name), (), decision.origins)

    def _steps(self, decision: Decision) -> list[Rule]:
        """What happens to a packet before the verdict."""
        steps: list[Rule] = []
        if decision.log is not None:
            prefix = log_prefix(decision.what, self.direction)
            steps.append(log_rule(decision.log, EVERYTHING, decision.origins, prefix))
        for add in decision.adds:
            action = ir.AddToSet(add.set.name, ir.End(add.side.value), add.timeout_s)
            steps.append(Rule(EVERYTHING, action, (), decision.origins))
        return [*steps, *decision.reminders]

    def _chain(self, decision: Decision, body: list[Rule]) -> str:
        kind = "limit" if decision.is_counted else "log" if decision.log is not None else "rule"
        name = f"{self.prefix}-{kind}-{len(self.chains) + 1}"
        self.chains.append(Chain(name, tuple(body)))
        return name


def _disjoint(cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
    found: list[Cube] = []
    before = PacketSet()
    for cube in cubes:
        rest = PacketSet((cube,)) - before
        found += rest.cubes
        before |= rest
    return tuple(found)


def log_rule(log: Log, cube: Cube, origins: tuple[Origin, ...], prefix: str) -> Rule:
    """The rule that logs what is in a cube; `prefix` holds where the policy says none."""
    return Rule(
        cube,
        ir.Log(prefix if log.prefix is None else log.prefix, log.level, log.group),
        () if log.rate is None else (rate_guard(log.rate),),
        origins,
    )


def verdict_rules(decision: Decision, cube: Cube) -> Iterator[Rule]:
    """The rules that decide what is in a cube, whatever the guards."""
    match decision.verb:
        case None:
            for rule in decision.does:
                narrowed = rule.cube & cube
                if not narrowed.is_empty:
                    yield Rule(narrowed, rule.action, (), decision.origins)
        case Verb.ALLOW:
            yield Rule(cube, ir.Accept(), (), decision.origins)
        case Verb.DENY:
            yield Rule(cube, ir.Drop(), (), decision.origins)
        case Verb.REJECT:
            assert decision.answer is not None
            tcp, other = ir.Answer(decision.answer.tcp), ir.Answer(decision.answer.other)
            of_tcp = cube & Cube.of({Field.L4PROTO: Ranges.of(TCP)})
            if tcp is not other and not of_tcp.is_empty:
                yield Rule(of_tcp, ir.Reject(tcp), (), decision.origins)
            if tcp is other or of_tcp != cube:
                yield Rule(cube, ir.Reject(other), (), decision.origins)
