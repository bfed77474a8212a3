"""Which bits a packet is made of: the order of its fields, and of the words that are none.

It knows how many there are and where they stand, and no diagrams.
"""

from __future__ import annotations

from policylang.packets.fields import ADDRESS_FIELDS, UNIVERSE, Field

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

MARK, CT_MARK, USER, GROUP = "mark", "ct mark", "user", "group"
MARK_BEFORE, WEEK_S, LOCAL_WEEK_S = "mark before", "week", "local week"
# 7 * 86400 seconds fit into 20 bits; the others are 32-bit words of the kernel.
WORDS = {
    **{MARK: 32, CT_MARK: 32, MARK_BEFORE: 32, USER: 32, GROUP: 32},
    **{WEEK_S: 20, LOCAL_WEEK_S: 20},
}
MARKS = (MARK, CT_MARK, MARK_BEFORE)
UNANSWERED = (USER, GROUP, WEEK_S, LOCAL_WEEK_S)  # which nothing here settles
V4_BITS = 32


class Layout:
    """`width` and `start` of each field and word, `fields` by their bits, `count` of all bits."""

    def __init__(self) -> None:
        self.width: dict[Field | str, int] = {f: _bits(f) for f in FIELD_ORDER} | WORDS
        self.start: dict[Field | str, int] = {}
        self.count = 0
        for word, width in self.width.items():
            self.start[word] = self.count
            self.count += width
        self.fields = tuple(f for f in FIELD_ORDER for _ in range(self.width[f]))

    def variables(self, word: Field | str) -> range:
        """The numbers of a word's bits, the highest first; those of marks take turns.

        So what is copied from one mark to another is a small diagram.
        """
        width = self.width[word]
        if word in MARKS:
            start = self.start[MARK] + MARKS.index(str(word))
            return range(start, start + len(MARKS) * width, len(MARKS))
        return range(self.start[word], self.start[word] + width)


def _bits(f: Field) -> int:
    if f is Field.FAMILY:
        return 1
    if f in ADDRESS_FIELDS:
        return 128
    return max(1, UNIVERSE[f].pairs[-1][1].bit_length())
