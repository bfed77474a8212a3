"""What tables, chains and rules there are after a text of iptables-restore; reads no match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from policylang.analysis.reading_iptables.words import split_words
from policylang.analysis.unreadable import UnreadableError

_COUNTERS = re.compile(r"\[\d+:\d+\]\s*")
_PLACE = re.compile(r"[0-9]{1,9}")
_OTHER_TOOL = re.compile(r"# Table `(?P<name>[^']*)' is incompatible")

LONG = {
    "--append": "-A",
    "--insert": "-I",
    "--new-chain": "-N",
    "--new": "-N",
    "--policy": "-P",
    "--flush": "-F",
}


@dataclass(frozen=True, slots=True)
class Written:
    """A rule as it stands: its words behind the chain's name, and its line in the text."""

    words: tuple[str, ...]
    line: int


@dataclass(slots=True)
class Chain:
    """The rules of a chain, in order; `policy` None for one that no packet enters by itself."""

    policy: str | None = None
    rules: list[Written] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """The chains of a table by name, in the order of the text."""

    name: str
    line: int
    chains: dict[str, Chain] = field(default_factory=dict)

    def chain(self, name: str) -> Chain:
        """The chain of that name; made where there is none yet."""
        return self.chains.setdefault(name, Chain())


def read_tables(text: str) -> dict[str, Table]:
    """The tables of a text by name; raises UnreadableError with the line."""
    tables: dict[str, Table] = {}
    now: Table | None = None
    number = 0
    for number, raw in enumerate(text.removesuffix("\n").split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            if other := _OTHER_TOOL.match(line):
                said = f"the table `{other['name']}` has rules that iptables cannot list"
                raise UnreadableError(said, number)
            continue
        if line.startswith("*"):
            if now is not None:
                raise UnreadableError(f"the table `{now.name}` has no COMMIT", number)
            name = line[1:].strip()
            now = tables.setdefault(name, Table(name, number))
        elif line == "COMMIT":
            now = None
        elif now is None:
            raise UnreadableError("expected `*` and a table, as iptables-save writes it", number)
        elif line.startswith(":"):
            _declare(now, line[1:].split(), number)
        else:
            _command(now, line, number)
    if now is not None:
        raise UnreadableError(f"the text ends within the table `{now.name}`", number)
    return tables


def _declare(table: Table, words: Sequence[str], number: int) -> None:
    if len(words) < 2:
        raise UnreadableError("expected a chain and its policy after `:`", number)
    name, policy = words[:2]
    table.chains[name] = Chain(None if policy == "-" else policy)


def _command(table: Table, line: str, number: int) -> None:
    words = split_words(_COUNTERS.sub("", line, count=1) if line.startswith("[") else line)
    if words is None:
        raise UnreadableError("a quote is not closed", number)
    if not words:
        raise UnreadableError("expected a rule behind the counters", number)
    command, *rest = words
    command = LONG.get(command, command)
    if command not in ("-A", "-I", "-N", "-P", "-F") or not (rest or command == "-F"):
        raise UnreadableError(f"expected a rule: `{words[0]}` is read nowhere here", number)
    match command:
        case "-A":
            table.chain(rest[0]).rules.append(Written(tuple(rest[1:]), number))
        case "-I":
            at, rule = 0, rest[1:]
            rules = table.chain(rest[0]).rules
            if rule and _PLACE.fullmatch(rule[0]):
                at, rule = int(rule[0]) - 1, rule[1:]
            if not 0 <= at <= len(rules):
                raise UnreadableError(f"the chain `{rest[0]}` has no rule {at + 1}", number)
            rules.insert(at, Written(tuple(rule), number))
        case "-N":
            table.chain(rest[0])
        case "-P" if len(rest) > 1:
            table.chain(rest[0]).policy = rest[1]
        case "-P":
            raise UnreadableError("expected a policy behind the chain", number)
        case _:
            for chain in [table.chain(rest[0])] if rest else table.chains.values():
                chain.rules.clear()
