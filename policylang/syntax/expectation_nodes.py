"""The nodes of tests: what is to be proved of a policy."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.clauses import Condition, Option
from policylang.syntax.leaves import Name, Node, Text
from policylang.syntax.rule_nodes import Place, WhatElement


@dataclass(frozen=True, slots=True)
class ExpectNode(Node):
    """`expect [some] allow|deny|drop|reject WHAT [PLACE] [with ANSWERS] [CONDITIONS] [OPTIONS]`.

    What cannot stand there is for the model to refuse: options, and what counts.
    """

    some: str | None
    verb: str
    what: tuple[WhatElement, ...]
    place: Place | None
    answers: tuple[Name, ...]
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class SessionNode(Node):
    """`expect [some] session KIND [MODE] [PLACE] [CONDITIONS] [OPTIONS]`."""

    some: str | None
    kind: Name
    mode: Name | None
    place: Place | None
    conditions: tuple[Condition, ...]
    options: tuple[Option, ...]


Expectation = ExpectNode | SessionNode


@dataclass(frozen=True, slots=True)
class TestDecl(Node):
    """`test "NAME" { expectations }`."""

    name: Text
    expectations: tuple[Expectation, ...]
