"""Which `mark` statement decides: random policies, read as LANGUAGE.md says, and their rules.

The reading here knows statements in the order written and bits; it shares nothing with the rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from random import Random

import pytest

from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.lower.stateful import lower
from policylang.packets.cube import Packet
from policylang.packets.fields import TCP, AddressType, Field, FlowDirection, State
from policylang.packets.values import name_range, parse_one_address
from tests.model.meaning import resolved

PORTS = (80, 81)
MASKS = (0x1, 0x2, 0x3, 0x6, 0xF)
SEEDS = 1500


@dataclass(frozen=True)
class Said:
    """One statement: what it matches, and the bits or the code point that it sets."""

    ports: tuple[int, ...]
    mask: int = 0  # 0: it sets the code point
    value: int = 0
    of_answers: bool = False
    asked_mask: int = 0  # 0: it asks for no mark
    asked_value: int = 0
    asked_code: int | None = None

    @property
    def text(self) -> str:
        ports = ", ".join(map(str, self.ports))
        sets = f"{self.value:#x}/{self.mask:#x}" if self.mask else f"dscp {self.value}"
        answers = " answers" if self.of_answers else ""
        mark = f" mark {self.asked_value:#x}/{self.asked_mask:#x}" if self.asked_mask else ""
        code = "" if self.asked_code is None else f" dscp {self.asked_code}"
        return f"mark tcp {ports} from 192.0.2.1 to self as {sets}{answers}{mark}{code}\n"

    def matches(self, port: int, mark: int, code: int) -> bool:
        return (
            port in self.ports
            and mark & self.asked_mask == self.asked_value
            and self.asked_code in (None, code)
        )


def drawn(random: Random) -> tuple[Said, ...]:
    return tuple(_drawn(random) for _ in range(random.randint(1, 4)))


def _drawn(random: Random) -> Said:
    ports = random.choice(((80,), (81,), PORTS))
    asked_mask = random.choice((0, 0, 0, *MASKS))
    asked = asked_mask & random.getrandbits(4)
    code = random.choice((None, None, None, 0, 1))
    if random.random() < 0.25:
        return Said(ports, 0, random.randint(0, 2), False, asked_mask, asked, code)
    mask = random.choice(MASKS)
    value = mask & random.getrandbits(4)
    of_answers = bool(value) and random.random() < 0.5
    return Said(ports, mask, value, of_answers, asked_mask, asked, code)


# --- as it is meant ---------------------------------------------------------------------------


def meant(policy: tuple[Said, ...], port: int, mark: int, code: int) -> tuple[int, int, int]:
    """The mark and the code point of a first packet, and the mark of the answers to it."""
    decided = connection = connection_decided = 0
    is_coded = False
    for said in policy:
        if not said.matches(port, mark, code):
            continue
        if said.of_answers:
            free = said.mask & ~connection_decided
            connection |= said.value & free
            connection_decided |= said.mask
        elif said.mask:
            free = said.mask & ~decided
            mark = mark & ~free | said.value & free
            decided |= said.mask
        elif not is_coded:
            code, is_coded = said.value, True
    return mark, code, connection


# --- as it is done ----------------------------------------------------------------------------


@dataclass
class Walk:
    """A packet on its way through the rules of the stage."""

    packet: Packet
    mark: int
    connection: int = 0

    def through(self, rules: tuple[Rule, ...]) -> None:
        for rule in rules:
            if rule.cube.holds(self.packet) and all(map(self._holds, rule.guards)):
                self._meet(rule.action)

    def _holds(self, guard: ir.Guard) -> bool:
        match guard:
            case ir.MarkGuard():
                return self.mark & guard.mask == guard.value
            case ir.ConnectionMarkGuard():
                return self.connection & guard.mask == guard.value
            case _:
                raise AssertionError(guard)

    def _meet(self, action: ir.Action) -> None:
        match action:
            case ir.SetMark():
                self.mark = self.mark & ~action.mask | action.value
            case ir.SetConnectionMark():
                self.connection = self.connection & ~action.mask | action.value
            case ir.SetDscp():
                self.packet = {**self.packet, Field.DSCP: action.code}
            case _:
                raise AssertionError(action)


def packet(port: int, code: int, *, answers: bool) -> dict[Field, int]:
    here, there = (parse_one_address(text) for text in ("198.51.100.1", "192.0.2.1"))
    assert here is not None and there is not None
    source, destination = (here, there) if answers else (there, here)
    return {
        Field.IIF: name_range("" if answers else "eth0")[0],
        Field.OIF: name_range("eth0")[0],
        Field.CT_STATE: State.ESTABLISHED if answers else State.NEW,
        Field.CT_DIRECTION: FlowDirection.REPLY if answers else FlowDirection.ORIGINAL,
        Field.EXPECTED: 0,
        Field.FAMILY: 4,
        Field.SADDR: source,
        Field.DADDR: destination,
        Field.DADDR_TYPE: AddressType.UNICAST if answers else AddressType.LOCAL,
        Field.L4PROTO: TCP,
        Field.SPORT: port if answers else 40000,
        Field.DPORT: 40000 if answers else port,
        Field.DSCP: code,
    }


def done(ruleset: Ruleset, port: int, mark: int, code: int) -> tuple[int, int, int]:
    rules = {
        base.path: tuple(r for r in ruleset.chain(base.chain).items if isinstance(r, Rule))
        for base in ruleset.bases
        if base.stage is Stage.MARK
    }
    first = Walk(packet(port, code, answers=False), mark)
    first.through(rules.get(Path.INPUT, ()))
    answer = Walk(packet(port, 0, answers=True), 0, first.connection)
    answer.through(rules.get(Path.OUTPUT, ()))
    return first.mark, first.packet[Field.DSCP], answer.mark


def lowered(policy: tuple[Said, ...]) -> Ruleset | None:
    """The rules, or None where no order of them is right, as reported."""
    report = Report()
    ruleset = lower(resolved("".join(said.text for said in policy)), report)
    codes = [d.code for d in report.diagnostics]
    assert codes in ([], ["mark-reads-mark"]), codes
    return None if codes else ruleset


def differences(policy: tuple[Said, ...], ruleset: Ruleset) -> list[str]:
    found = []
    for port, mark, code in product(PORTS, range(16), range(2)):
        wanted, came = meant(policy, port, mark, code), done(ruleset, port, mark, code)
        if came != wanted:
            found.append(f"port {port} mark {mark:#x} dscp {code}: {came}, not {wanted}")
    return found


@pytest.mark.parametrize("part", range(4))
def test_the_first_that_matches_decides(part: int) -> None:
    refused = 0
    for seed in range(part, SEEDS, 4):
        policy = drawn(Random(seed))
        ruleset = lowered(policy)
        if ruleset is None:
            refused += 1
            continue
        found = differences(policy, ruleset)
        assert not found, "\n".join((f"seed {seed}", *(said.text for said in policy), *found))
    assert refused < SEEDS / 4 / 2, "most policies have an order, much as they ask"


def test_statements_that_read_nothing_are_never_refused() -> None:
    for seed in range(200):
        random = Random(seed)
        policy = tuple(Said(s.ports, s.mask, s.value, s.of_answers) for s in drawn(random))
        assert lowered(policy) is not None


@pytest.mark.parametrize("is_mark", [True, False], ids=["mark", "dscp"])
def test_tables_of_new_values_for_old_ones(is_mark: bool) -> None:
    """Conditions that exclude each other leave an order, unless the values go round in a circle."""
    orders = 0
    for first, second in product(product(range(4), repeat=2), repeat=2):
        if first[0] == second[0]:
            continue
        policy = tuple(
            Said(PORTS, 0x3, new, False, 0x3, old)
            if is_mark
            else Said(PORTS, 0, new, asked_code=old)
            for old, new in (first, second)
        )
        ruleset = lowered(policy)
        is_circle = first[1] == second[0] and second[1] == first[0]
        assert (ruleset is None) is is_circle, policy
        if ruleset is not None:
            orders += 1
            assert not differences(policy, ruleset), policy
    assert orders
