"""What a question is about: the packets that an `allow` of the same words would match.

A question means nothing to the rules; it looks at them from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from policylang.diagnostics import Report
from policylang.ir.actions import Guard
from policylang.ir.ruleset import AddressTest
from policylang.ir.stages import Path
from policylang.lower.address_tests import AddressTests, address_tests, number_tests
from policylang.lower.conditions import guards
from policylang.lower.paths import Places
from policylang.lower.placing import place
from policylang.model.policy import Policy
from policylang.model.types import End, PolicyRule
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.packetset import compact


@dataclass(frozen=True, slots=True)
class Asked:
    """The packets of a question, path by path.

    `dialled` are as they come to the first rules, before anything is translated. `reached` are as
    they are when they are filtered, having been sent elsewhere: what passes through this host, and
    what it sends itself. `published` are those that another program has translated. `guards` say
    what else is asked of each.
    """

    dialled: dict[Path, tuple[Cube, ...]]
    reached: dict[Path, tuple[Cube, ...]]
    published: tuple[Cube, ...]
    guards: tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Asking:
    """Reads the questions to one policy; `tests` are what address tests ask, the policy's first."""

    places: Places
    tests: tuple[AddressTest, ...]

    def asked(self, rule: PolicyRule) -> Asked:
        """The packets that a question is about, worded as a rule; none where it is about nobody."""
        placed = place(rule, self.places, Report(), own_is_translated=True)
        plain: dict[Path, tuple[Cube, ...]] = {}
        sent: dict[Path, tuple[Cube, ...]] = {}
        published: list[Cube] = []
        for path, cubes in placed.cubes.items():
            dialled, reached = [], []
            for cube in cubes:
                if Field.DNATED not in cube:
                    dialled.append(cube)
                    reached.append(cube)
                elif 0 in cube[Field.DNATED]:
                    dialled.append(cube.without(Field.DNATED))
                else:
                    reached.append(cube)
                    if path is Path.FORWARD:
                        published.append(cube)
            plain[path] = compact(dialled)
            sent[path] = () if path is Path.INPUT else compact(reached)
        return Asked(plain, sent, compact(published), guards(rule.conditions))


def asking(policy: Policy, questions: Iterable[PolicyRule], report: Report) -> Asking:
    """Who can tell what questions to a policy are about; reports `too-many-tests`."""
    of_policy = address_tests(policy, report)
    tests = number_tests(_ends(questions), report, of_policy)
    return Asking(Places(AddressTests(tests.numbers), policy.zones), tests.asked)


def _ends(questions: Iterable[PolicyRule]) -> Iterator[End]:
    for one in questions:
        yield from (one.source, one.destination)
