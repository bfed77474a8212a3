"""What rules ask of addresses that no list of ranges answers; each question gets a number.

Members of dynamic sets are known at run time alone, those of lists from elsewhere change there,
and the addresses that end alike are too many to list. Each is a field of its own in the ir:
`Field.SADDR_TEST_n`, `Field.DADDR_TEST_n`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import assert_never

from policylang.diagnostics import Report
from policylang.ir import ruleset as ir
from policylang.ir.origin import Origin, Why
from policylang.model.policy import Policy, Statement
from policylang.model.translations import (
    Clamp,
    Marking,
    Netmap,
    Offloading,
    PortForward,
    Queueing,
    Redirect,
    SourceTranslation,
    TransparentProxying,
    Untracked,
)
from policylang.model.types import (
    DynamicEnd,
    DynamicSet,
    End,
    ListedSet,
    NativeRule,
    PolicyRule,
    SuffixEnd,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    DADDR_TESTS,
    MOST_ADDRESS_TESTS,
    SADDR_TESTS,
    Field,
)
from policylang.packets.values import Ranges
from policylang.source import Span

PASSED = Ranges.of(1)


@dataclass(frozen=True, slots=True)
class AddressTests:
    """The tests of a policy: the number of each, in the order in which rules first ask it."""

    numbers: dict[ir.AddressTest, int]

    def cube(self, element: DynamicEnd | SuffixEnd, address: Field) -> Cube:
        """The packets whose SADDR or DADDR passes the test of an end."""
        number = self.numbers[_test(element)]
        tests = SADDR_TESTS if address is Field.SADDR else DADDR_TESTS
        terms = {tests[number]: PASSED}
        if isinstance(element, SuffixEnd):
            terms[Field.FAMILY] = Ranges.of(6)
        return Cube.of(terms)

    @property
    def asked(self) -> tuple[ir.AddressTest, ...]:
        """The tests, by their numbers."""
        return tuple(self.numbers)


def address_tests(policy: Policy, report: Report) -> AddressTests:
    """The tests that the ends of a policy's rules ask; reports `too-many-tests`."""
    return number_tests((end for s in policy.statements for end in _ends(s)), report)


def number_tests(
    ends: Iterable[End], report: Report, before: AddressTests | None = None
) -> AddressTests:
    """The tests that ends ask, behind those of `before`; reports `too-many-tests`."""
    numbers = {} if before is None else dict(before.numbers)
    for span, element in _elements(ends):
        test = _test(element)
        if test in numbers:
            continue
        if len(numbers) == MOST_ADDRESS_TESTS:
            report.add(
                "too-many-tests",
                f"rules name more than {MOST_ADDRESS_TESTS} host suffixes, dynamic sets and lists "
                "from elsewhere",
                span,
                help="one set can serve several rules, and a list may have several sources",
            )
            break
        numbers[test] = len(numbers)
    return AddressTests(numbers)


def dynamic_set(held: DynamicSet) -> ir.DynamicSet:
    """A dynamic set as the ir has it."""
    return ir.DynamicSet(held.name, held.timeout_s, held.size, (Origin(Why.WRITTEN, held.span),))


def listed_set(held: ListedSet) -> ir.ListedSet:
    """A list from elsewhere as the ir has it."""
    source = ir.ListSource(held.name, held.sources, held.refresh_s)
    return ir.ListedSet(source, held.addresses, (Origin(Why.WRITTEN, held.span),))


def _test(element: DynamicEnd | SuffixEnd) -> ir.AddressTest:
    if isinstance(element, SuffixEnd):
        return ir.HostSuffix(element.value, element.mask)
    match element.set:
        case DynamicSet() as held:
            return dynamic_set(held)
        case ListedSet() as held:
            return listed_set(held)


def _elements(ends: Iterable[End]) -> Iterator[tuple[Span | None, DynamicEnd | SuffixEnd]]:
    for one in (one for end in ends for one in end.lists):
        for element in (*one.elements, *one.exceptions):
            if isinstance(element, (DynamicEnd, SuffixEnd)):
                yield one.span, element


def _ends(statement: Statement) -> tuple[End, ...]:
    match statement:
        case NativeRule():
            return ()
        case PortForward():
            return (statement.source, *(() if statement.at is None else (statement.at,)))
        case Netmap():
            return (statement.on,)
        case (
            PolicyRule()
            | SourceTranslation()
            | Redirect()
            | TransparentProxying()
            | Clamp()
            | Marking()
            | Untracked()
            | Offloading()
            | Queueing()
        ):
            return (statement.source, statement.destination)
        case _:
            assert_never(statement)
