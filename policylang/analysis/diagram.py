"""Sets of packets as decision diagrams; the only module that knows the library that holds them.

A packet is a row of bits: its fields, the words that are no field (marks, owner, time of the
week), and a bit for each question that nothing here can answer. A set of packets is a Boolean
function of them, held as a binary decision diagram: two sets are equal exactly if their diagrams
are one node, however they came about. It knows neither policies nor targets.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import reduce
from operator import and_, or_

from oxidd.bcdd import BCDDFunction, BCDDManager, BCDDSubstitution
from oxidd.util import DDMemoryError

from policylang.analysis.machine import (
    Condition,
    ConnectionMarkIs,
    MarkIs,
    OwnerIs,
    Question,
    WeekTimeIs,
)
from policylang.analysis.ordinary import ORDINARY, ordinary_values
from policylang.packets.cube import Cube
from policylang.packets.fields import (
    ADDRESS_FIELDS,
    UNIVERSE,
    Field,
)
from policylang.packets.packetset import compact
from policylang.packets.values import V4_MAX, V6_BASE, Range, Ranges

# INVARIANT: FAMILY stands before the addresses, whose bits mean something else for each family.
_FIRST = (
    Field.FAMILY,
    Field.CT_STATE,
    Field.DNATED,
    Field.DADDR_TYPE,
    Field.SADDR_TYPE,
    Field.L4PROTO,
    Field.DPORT,
    Field.ICMP_TYPE,
    Field.ICMPV6_TYPE,
    Field.IIF,
    Field.OIF,
    Field.SADDR,
    Field.DADDR,
)
FIELD_ORDER = (*_FIRST, *(f for f in Field if f not in _FIRST))

_MARK, _CT_MARK, _USER, _GROUP = "mark", "ct mark", "user", "group"
_WEEK_S, _LOCAL_WEEK_S, _DSCP_BEFORE = "week", "local week", "dscp before"
# 7 * 86400 seconds fit into 20 bits; the others are 32-bit words of the kernel.
_WORDS = {
    **{_MARK: 32, _CT_MARK: 32, _USER: 32, _GROUP: 32},
    **{_WEEK_S: 20, _LOCAL_WEEK_S: 20, _DSCP_BEFORE: 6},
}
_UNANSWERED = (_USER, _GROUP, _WEEK_S, _LOCAL_WEEK_S)  # which nothing here settles

MOST_NODES = 6_000_000  # of 16 bytes and a share of two tables each: about 250 MB
CACHE_ENTRIES = 1 << 19
V4_BITS = 32
MOST_COPIES = 64


class TooLargeError(Exception):
    """The sets of packets do not fit into the memory that an answer may take."""


class Packets:
    """A set of packets of one `Space`; what says nothing of a field holds all its values."""

    __slots__ = ("function", "space")

    def __init__(self, space: Space, function: BCDDFunction) -> None:
        self.space = space
        self.function = function

    def __and__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function & other.function)

    def __or__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function | other.function)

    def __sub__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function & ~other.function)

    def __invert__(self) -> Packets:
        return self.space.everything - self

    def __xor__(self, other: Packets) -> Packets:
        return self.space.held(lambda: self.function ^ other.function)

    def __bool__(self) -> bool:
        return bool(self.function.satisfiable())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Packets) and bool(self.function == other.function)

    def __hash__(self) -> int:
        return hash(self.function)

    def covers(self, other: Packets) -> bool:
        return not (other - self)

    def meets(self, other: Packets) -> bool:
        return bool(self & other)

    def cubes(self, most: int | None = None) -> Iterator[Cube]:
        """Disjoint cubes that make up the set, `most` of them at most; open questions left out.

        A packet that belongs to the set for some answers is in them.
        """
        left = most
        for family in (4, 6):
            if left == 0:
                return
            part = self.space.may(self & self.space.of(Cube.of({Field.FAMILY: Ranges.of(family)})))
            for cube in self.space.cubes_of(part, family):
                yield cube
                if left is not None:
                    left -= 1
                    if left == 0:
                        return

    def regions(self, most: int) -> tuple[tuple[Cube, ...], bool]:
        """Few cubes with the set's packets, and whether these are all of them.

        Not more than `most` are taken apart; what is left of those that differ in one field alone
        is put together again, both families into one.
        """
        found = list(self.cubes(most + 1))
        return compact(found[:most]), len(found) <= most

    def questions(self) -> tuple[Question, ...]:
        """The open questions on which it depends whether a packet is in the set."""
        return tuple(
            question
            for question, one in self.space.asked()
            if self.space.without(self, one) != self
        )

    def witness(self, prefer: Iterable[Cube] = ()) -> dict[Field, int] | None:
        """One packet of the set, as much as can be like an ordinary one; None of an empty set.

        Each of `prefer` is met where that can be, the first before the others. The fields of
        addresses, ports and types are those that the packet's family and protocol have.
        """
        if not self:
            return None
        left = self.space.may(self)
        for cube in (*prefer, *ORDINARY):
            near = left & self.space.of(cube)
            if near:
                left = near
        cube = next(left.cubes(1))
        return ordinary_values(cube)


class Space:
    """Packets as rows of bits. Sets of one space can be put together, those of two cannot."""

    def __init__(self, most_nodes: int = MOST_NODES) -> None:
        self._manager = BCDDManager(most_nodes, CACHE_ENTRIES, 1)
        self._width: dict[Field | str, int] = {f: _bits(f) for f in FIELD_ORDER} | _WORDS
        self._start: dict[Field | str, int] = {}
        self._at: list[tuple[Field, int]] = []  # of each variable of a field: the field, its bit
        count = 0
        for word, width in self._width.items():
            self._start[word] = count
            if isinstance(word, Field):
                self._at += [(word, bit) for bit in range(width)]
            count += width
        self._manager.add_vars(count)
        self._bits = [self._manager.var(n) for n in range(count)]
        self._true, self._false = self._manager.true(), self._manager.false()
        self._held: dict[tuple[Field | str, Ranges], BCDDFunction] = {}
        self._cubes: dict[Cube, Packets] = {}
        self._conjunctions: dict[tuple[Field | str, ...], BCDDFunction] = {}
        self._questions: dict[Hashable, tuple[Question, BCDDFunction]] = {}
        self._open = self._conjunction(_UNANSWERED)
        self.nothing = Packets(self, self._false)
        everything = self._true
        for f in (Field.CT_STATE, Field.DADDR_TYPE, Field.SADDR_TYPE):
            everything = everything & self._word(f, UNIVERSE[f])
        self.everything = Packets(self, everything)

    def held(self, made: Callable[[], BCDDFunction]) -> Packets:
        """What `made` returns, as packets; raises `TooLargeError` where it does not fit."""
        try:
            return Packets(self, made())
        except DDMemoryError as error:
            raise TooLargeError from error

    # --- making -------------------------------------------------------------------------------

    def of(self, cube: Cube) -> Packets:
        """The packets of a cube."""
        found = self._cubes.get(cube)
        if found is None:
            found = self._cubes[cube] = self.held(lambda: self._cube(cube))
        return found

    def of_all(self, cubes: Iterable[Cube]) -> Packets:
        """The packets of any of the cubes."""
        return self.union(self.of(cube) for cube in cubes)

    def union(self, sets: Iterable[Packets]) -> Packets:
        """The packets of any of the sets; in halves, which keeps what is between them small."""
        waiting = list(sets)
        while len(waiting) > 1:
            waiting = [reduce(or_, waiting[n : n + 2]) for n in range(0, len(waiting), 2)]
        return waiting[0] if waiting else self.nothing

    def answered(self, condition: Condition, at: str = "") -> Packets:
        """The packets for which a condition holds.

        Marks, owners and times of the week are words of the packet; other questions are a bit
        each, the same for all that ask the same at the same place `at`.
        """
        made = self.held(lambda: self._asked_for(condition.question, at))
        return made & self.everything if condition.holds else ~made

    def _asked_for(self, question: Question, at: str) -> BCDDFunction:
        match question:
            case MarkIs(value, mask):
                return self._masked(_MARK, value, mask)
            case ConnectionMarkIs(value, mask):
                return self._masked(_CT_MARK, value, mask)
            case OwnerIs(kind, ids):
                return self._word(_USER if kind == "user" else _GROUP, ids)
            case WeekTimeIs(week_s, is_local):
                return self._word(_LOCAL_WEEK_S if is_local else _WEEK_S, week_s)
            case _:
                return self._question(question, at)

    def _question(self, question: Question, at: str) -> BCDDFunction:
        key = (question, at)
        if key not in self._questions:
            (number,) = self._manager.add_vars(1)
            bit = self._manager.var(number)
            self._questions[key] = question, bit
            self._open = self._open & bit
        return self._questions[key][1]

    def asked(self) -> Iterator[tuple[Question, BCDDFunction]]:
        """The questions that are a bit each, so far, and their bits."""
        yield from self._questions.values()

    # --- changing -----------------------------------------------------------------------------

    def may(self, packets: Packets) -> Packets:
        """Packets that are in the set for some answer to every open question."""
        return self.held(lambda: packets.function.exists(self._open))

    def must(self, packets: Packets) -> Packets:
        """Packets that are in the set whatever the answers are."""
        return self.held(lambda: packets.function.forall(self._open))

    def without(self, packets: Packets, bit: BCDDFunction) -> Packets:
        """The set with one question left out."""
        return self.held(lambda: packets.function.exists(bit))

    def free(self, packets: Packets, *fields: Field) -> Packets:
        """The set with nothing said of some fields."""
        cube = self._conjunction(fields)
        return self.held(lambda: packets.function.exists(cube)) & self.everything

    def assigned(self, packets: Packets, values: Mapping[Field, Ranges]) -> Packets:
        """The packets after some of their fields became any of these values."""
        return self.free(packets, *values) & self.of(Cube.of(values))

    def with_mark(self, packets: Packets, value: int, mask: int) -> Packets:
        """The packets after their mark got `value` under `mask`."""
        return self._marked(packets, _MARK, value, mask)

    def with_connection_mark(self, packets: Packets, value: int, mask: int) -> Packets:
        """The packets after their connection's mark got `value` under `mask`."""
        return self._marked(packets, _CT_MARK, value, mask)

    def remembering_dscp(self, packets: Packets) -> Packets:
        """The packets, each with the code point that it has now kept beside it."""
        each = (Ranges.of(n) for n in range(64))
        same = (self._word(Field.DSCP, n) & self._word(_DSCP_BEFORE, n) for n in each)
        relation = reduce(or_, same, self._false)
        return self.held(lambda: packets.function & relation)

    def with_remembered_dscp(self, packets: Packets) -> Packets:
        """The packets with the code point that was kept, whatever it became."""
        freed = self.free(packets, Field.DSCP)
        start, aim = self._start[_DSCP_BEFORE], self._start[Field.DSCP]
        pairs = [(start + n, self._bits[aim + n]) for n in range(self._width[Field.DSCP])]
        exchange = BCDDSubstitution(pairs)
        return self.held(lambda: freed.function.substitute(exchange))

    def free_of_marks(self, packets: Packets) -> Packets:
        """The set with nothing said of the packet's and its connection's mark."""
        cube = self._conjunction((_MARK, _CT_MARK))
        return self.held(lambda: packets.function.exists(cube))

    def free_of_mark(self, packets: Packets) -> Packets:
        """The set with nothing said of the packet's mark."""
        cube = self._conjunction((_MARK,))
        return self.held(lambda: packets.function.exists(cube))

    def _marked(self, packets: Packets, word: str, value: int, mask: int) -> Packets:
        bits = [b for n, b in self._word_bits(word) if mask >> n & 1]
        if not bits:
            return packets
        changed = reduce(and_, bits)
        made = self._masked(word, value, mask)
        return self.held(lambda: packets.function.exists(changed) & made)

    def copied_mark(self, packets: Packets, mask: int, *, to_connection: bool) -> Packets:
        """The packets after one of the two marks got the other's bits under `mask`."""
        source, target = (_MARK, _CT_MARK) if to_connection else (_CT_MARK, _MARK)
        pairs = zip(self._word_bits(source), self._word_bits(target), strict=True)
        wanted = [(one, other) for (n, one), (_, other) in pairs if mask >> n & 1]
        if not wanted:
            return packets
        changed = reduce(and_, (other for _, other in wanted))
        relation = reduce(and_, (one.equiv(other) for one, other in wanted))
        return self.held(lambda: packets.function.exists(changed) & relation)

    def moved(self, packets: Packets, source: Field, target: Field) -> Packets:
        """The packets with a field's value in another field; what was there is lost.

        The first field may have any value then. Both are of one kind.
        """
        freed = self.free(packets, target)
        start, aim = self._start[source], self._start[target]
        pairs = [(start + n, self._bits[aim + n]) for n in range(self._width[source])]
        exchange = BCDDSubstitution(pairs)
        return self.held(lambda: freed.function.substitute(exchange))

    def copied(self, packets: Packets, source: Field, target: Field) -> Packets:
        """The packets with a field's value in another field as well; both are of one kind.

        What was there is lost. Exact where the first field has at most `MOST_COPIES` values that
        are no neighbours; of a whole range the second one has any value.
        """
        freed = self.free(packets, target)
        others = self._conjunction(word for word in self._width if word is not source)
        alone = self.may(self.held(lambda: freed.function.exists(others)))
        values = Ranges.merged(pair for cube in alone.cubes() for pair in cube[source])
        pairs = values.pairs if len(values) <= MOST_COPIES else UNIVERSE[source].pairs
        same = (self._word(source, Ranges((r,))) & self._word(target, Ranges((r,))) for r in pairs)
        relation = reduce(or_, same, self._false)
        return self.held(lambda: freed.function & relation)

    # --- taking apart -------------------------------------------------------------------------

    def cubes_of(self, packets: Packets, family: int) -> Iterator[Cube]:
        """Disjoint cubes of a set whose packets are all of one family."""
        marks = self._conjunction((_MARK, _CT_MARK))
        terms = {Field.FAMILY: Ranges.of(family)}
        all_of_it = self.of(Cube.of(terms)).function
        function = self.held(lambda: (packets.function & all_of_it).exists(marks)).function
        children = function.cofactors()  # by FAMILY, the first variable
        if children is not None:
            yield from self._taken_apart(children[0 if family == 6 else 1], terms)

    def _taken_apart(self, function: BCDDFunction, terms: dict[Field, Ranges]) -> Iterator[Cube]:
        level = function.node_level()
        if level is None:
            if function.satisfiable():
                cube = Cube.of(terms)
                if not cube.is_empty:
                    yield cube
            return
        word = self._at[level][0]
        family = terms[Field.FAMILY].pairs[0][0]
        for values, rest in self._by_value(function, word, family):
            yield from self._taken_apart(rest, {**terms, word: values})

    def _by_value(
        self, function: BCDDFunction, word: Field, family: int
    ) -> list[tuple[Ranges, BCDDFunction]]:
        """The values of a field by what is left of the set for them."""
        width, base = self._width[word], 0
        if word in ADDRESS_FIELDS:
            width, base = (V4_BITS, 0) if family == 4 else (width, V6_BASE)
        end = self._start[word] + self._width[word]
        found: dict[BCDDFunction, list[Range]] = {}
        waiting = [(function, 0, 0)]  # what is left, the bits read, their value
        while waiting:
            left, read, value = waiting.pop()
            level = left.node_level()
            if level is None or level >= end:
                if level is not None or left.satisfiable():
                    low = base + (value << (width - read))
                    found.setdefault(left, []).append((low, low + (1 << (width - read)) - 1))
                continue
            skipped = level - self._start[word] - read
            if skipped:
                # Both values of the bits that nothing asks: one range where nothing else follows.
                waiting += [(left, read + 1, value << 1), (left, read + 1, value << 1 | 1)]
                continue
            children = left.cofactors()
            assert children is not None, "a node has two children"
            yes, no = children
            waiting += [(no, read + 1, value << 1), (yes, read + 1, value << 1 | 1)]
        universe = UNIVERSE[word]
        made = [(Ranges.merged(pairs) & universe, left) for left, pairs in found.items()]
        return sorted(((v, left) for v, left in made if v), key=lambda one: one[0].pairs)

    # --- bits ---------------------------------------------------------------------------------

    def _cube(self, cube: Cube) -> BCDDFunction:
        function = self._true
        for f, values in sorted(cube, key=lambda term: -self._start[term[0]]):
            function = self._word(f, values) & function
        return function & self.everything.function

    def _word(self, word: Field | str, values: Ranges) -> BCDDFunction:
        key = (word, values)
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = self._made(word, values)
        return found

    def _made(self, word: Field | str, values: Ranges) -> BCDDFunction:
        start, width = self._start[word], self._width[word]
        if word is Field.FAMILY:
            is_6 = self._bits[start]
            of_each = ((is_6 if family == 6 else ~is_6) for family in (4, 6) if family in values)
            return reduce(or_, of_each, self._false)
        if word in ADDRESS_FIELDS:
            is_6 = self._bits[self._start[Field.FAMILY]]
            v4 = tuple(pair for pair in values if pair[0] <= V4_MAX)
            v6 = tuple((low - V6_BASE, high - V6_BASE) for low, high in values if low >= V6_BASE)
            return is_6.ite(self._block(start, width, v6), self._block(start, V4_BITS, v4))
        return self._block(start, width, values.pairs)

    def _block(self, start: int, width: int, pairs: tuple[Range, ...]) -> BCDDFunction:
        """The numbers of `width` bits, the first of them variable `start`, in sorted ranges."""
        highs = [high for _, high in pairs]
        lows = [low for low, _ in pairs]

        def within(low: int, bit: int) -> BCDDFunction:
            """Of the numbers from `low` that differ in the bits from `bit` on."""
            high = low + (1 << (width - bit)) - 1
            first = bisect_left(highs, low)
            if first == len(pairs) or lows[first] > high:
                return self._false
            if lows[first] <= low and highs[first] >= high:
                return self._true
            middle = (low + high + 1) // 2
            return self._bits[start + bit].ite(within(middle, bit + 1), within(low, bit + 1))

        return within(0, 0)

    def _word_bits(self, word: str) -> list[tuple[int, BCDDFunction]]:
        """The bits of a word by the power of two that they stand for."""
        width = self._width[word]
        return [(width - 1 - n, self._bits[v]) for n, v in enumerate(self._variables(word))]

    def _variables(self, word: Field | str) -> range:
        """The variables of a word's bits; those of the two marks take turns.

        So what is copied from one mark to the other is a small diagram.
        """
        start, width = self._start[word], self._width[word]
        if word == _MARK:
            return range(start, start + 2 * width, 2)
        if word == _CT_MARK:
            return range(start - width + 1, start + width, 2)
        return range(start, start + width)

    def _masked(self, word: str, value: int, mask: int) -> BCDDFunction:
        function = self._true
        if value & ~mask:
            return self._false
        for n, bit in reversed(self._word_bits(word)):
            if mask >> n & 1:
                function = (bit if value >> n & 1 else ~bit) & function
        return function

    def _conjunction(self, words: Iterable[Field | str]) -> BCDDFunction:
        """All bits of some words together, which is how the library is told of variables."""
        key = tuple(words)
        found = self._conjunctions.get(key)
        if found is None:
            found = self._true
            for number in sorted((v for word in key for v in self._variables(word)), reverse=True):
                found = self._bits[number] & found
            self._conjunctions[key] = found
        return found


def _bits(f: Field) -> int:
    if f is Field.FAMILY:
        return 1
    if f in ADDRESS_FIELDS:
        return 128
    return max(1, UNIVERSE[f].pairs[-1][1].bit_length())
