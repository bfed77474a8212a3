"""Takes the words of a rule apart: which match or target each option belongs to.

An option that no table knows belongs to the match or target named last, with all words up to the
next option.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from policylang.analysis.reading_iptables.option_names import (
    ALIASES,
    OF_MATCHES,
    OF_PROTOCOLS,
    OF_RULES,
    OF_TARGETS,
    SHORT,
)
from policylang.analysis.reading_iptables.words import Quoted, joined_words


@dataclass(frozen=True, slots=True)
class Option:
    """An option by its usual name, without dashes, with the words that follow it."""

    name: str
    words: tuple[str, ...] = ()
    negated: bool = False

    @property
    def text(self) -> str:
        sign = "! " if self.negated else ""
        return f"{sign}--{joined_words((self.name, *self.words))}"


@dataclass(frozen=True, slots=True)
class Match:
    """A match (`-m NAME`) with its options; the name is empty for those that every rule has."""

    name: str
    options: tuple[Option, ...] = ()

    @property
    def text(self) -> str:
        words = [option.text for option in self.options]
        return " ".join([f"-m {self.name}", *words] if self.name else words)

    @property
    def is_known(self) -> bool:
        """Whether all options of it are among those that are read."""
        return is_known(self.options, OF_MATCHES.get(self.name, {}))

    def get(self, name: str) -> Option | None:
        """The last option of that name, which is the one that holds."""
        found = None
        for option in self.options:
            if option.name == name:
                found = option
        return found

    def word(self, name: str) -> str | None:
        """The one word of an option, None where it is not there."""
        option = self.get(name)
        return option.words[0] if option is not None and option.words else None


def is_known(options: Iterable[Option], table: Mapping[str, tuple[str, int]]) -> bool:
    """Whether all options are in a table, each with as many words as it says there."""
    return all(table.get(o.name) == (o.name, len(o.words)) for o in options)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule taken apart. `target` is empty where there is none; `goes` for `-g`."""

    matches: tuple[Match, ...]
    target: str
    goes: bool
    done: Match  # the options of the target
    comment: str
    family: int | None = None  # 4 or 6, where it says so: the other program leaves it out

    @property
    def is_done_known(self) -> bool:
        """Whether all options of the target are among those that are read."""
        return is_known(self.done.options, OF_TARGETS.get(self.target, {}))

    @property
    def asks_for_interface(self) -> bool:
        names = {o.name for match in self.matches if not match.name for o in match.options}
        return bool(names & {"in-interface", "out-interface"})


class MisreadError(Exception):
    """Words that are no rule; the text says why."""


# Rules are many, and most of what stands in them is the same.
_made = lru_cache(maxsize=1 << 16)(Option)
_match = lru_cache(maxsize=1 << 16)(Match)


class _Reader:
    """Reads the words of one rule."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.at = 0
        self.plain: list[Option] = []
        self.loaded: list[tuple[str, list[Option]]] = []  # matches, the latest last
        self.target = ""
        self.goes = False
        self.done: list[Option] = []
        self.is_target_latest = False
        self.family: int | None = None

    def read(self) -> Rule:
        negated = False
        while self.at < len(self.words):
            word = self.words[self.at]
            self.at += 1
            if word == "!" and not isinstance(word, Quoted):
                if negated:
                    raise MisreadError("two `!` in a row")
                negated = True
                continue
            if not _is_option(word):
                raise MisreadError(f"`{word}` stands alone")
            self._option(word, negated)
            negated = False
        if negated:
            raise MisreadError("a `!` at the end")
        comments = [o.words[0] for name, some in self.loaded for o in some if name == "comment"]
        matches = [_match(n, tuple(options)) for n, options in self.loaded if n != "comment"]
        if self.plain:
            matches.insert(0, _match("", tuple(self.plain)))
        done = _match("", tuple(self.done))
        comment = " ".join(comments)
        return Rule(tuple(matches), self.target, self.goes, done, comment, self.family)

    def _option(self, word: str, negated: bool) -> None:
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        owner, spelled, count = self._owner(name)
        if count is None:
            words = [value] if equals else []
            while self.at < len(self.words) and not _is_option(self.words[self.at]):
                words.append(self.words[self.at])
                self.at += 1
            owner.append(_made(spelled, tuple(words), negated))
            return
        words = [value] if equals else []
        while len(words) < count:
            if self.at == len(self.words):
                raise MisreadError(f"nothing follows `{word}`")
            following = self.words[self.at]
            self.at += 1
            if following == "!" and not isinstance(following, Quoted) and not words:
                negated = not negated  # as iptables wrote it before 1.4.3
                continue
            words.append(following)
        if owner is not self.plain:
            owner.append(_made(spelled, tuple(words), negated))
            return
        match spelled:
            case "match":
                self.loaded.append((ALIASES.get(words[0], words[0]), []))
                self.is_target_latest = False
            case "jump" | "goto":
                if self.target:
                    raise MisreadError("two targets")
                self.target, self.goes = words[0], spelled == "goto"
                self.is_target_latest = True
            case "ipv4" | "ipv6":
                self.family = 4 if spelled == "ipv4" else 6
            case "set-counters":
                pass
            case _:
                owner.append(_made(spelled, tuple(words), negated))

    def _owner(self, word: str) -> tuple[list[Option], str, int | None]:
        """To what an option belongs, its usual name, and how many words follow, if that is known.

        What was loaded last is asked first, and a whole name comes before a beginning of one.
        """
        if word in SHORT:
            name = SHORT[word]
            return self.plain, *OF_RULES[name]
        name = word.lstrip("-")
        tables = [*self._tables()]
        for owner, table in tables:
            if name in table:
                return owner, *table[name]
        if not self._is_of_protocol(name):
            if self.is_target_latest and self.target not in OF_TARGETS:
                return self.done, name, None
            if not self.is_target_latest and self.loaded and self.loaded[-1][0] not in OF_MATCHES:
                return self.loaded[-1][1], name, None
        for owner, table in tables:
            found = {usual for spelled, usual in table.items() if spelled.startswith(name)}
            if len(found) == 1:
                return owner, *found.pop()
        if self._is_of_protocol(name):
            implied = self._of_protocol()
            self.loaded.insert(0, (implied, []))
            return self.loaded[0][1], *OF_MATCHES[implied][name]
        if self.is_target_latest:
            return self.done, name, None
        if self.loaded:
            return self.loaded[-1][1], name, None
        raise MisreadError(f"`{word}` belongs to no match")

    def _tables(self) -> Iterator[tuple[list[Option], Mapping[str, tuple[str, int]]]]:
        if self.is_target_latest:
            yield self.done, OF_TARGETS.get(self.target, {})
        for name, options in reversed(self.loaded):
            yield options, OF_MATCHES.get(name, {})
        if self.target and not self.is_target_latest:
            yield self.done, OF_TARGETS.get(self.target, {})
        yield self.plain, OF_RULES

    def _of_protocol(self) -> str:
        for option in self.plain:
            if option.name == "protocol" and not option.negated:
                return OF_PROTOCOLS.get(option.words[0].lower(), "")
        return ""

    def _is_of_protocol(self, name: str) -> bool:
        implied = self._of_protocol()
        return implied != "" and name in OF_MATCHES[implied]


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-") and not isinstance(word, Quoted)


def read_rule(words: tuple[str, ...]) -> Rule:
    """A rule from its words behind the chain's name; raises MisreadError."""
    return _Reader(words).read()
