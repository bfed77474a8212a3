"""Which bits a packet is made of: the order of its fields, and of the words that are none.

It knows how many there are and where they stand, and no diagrams.
"""

from __future__ import annotations

from policylang.packets.fields import ADDRESS_FIELDS, UNIVERSE, Field

# INVARIANT: FAMILY stands before the addresses, whose bits mean something else for each family.
_FIRST = (
    Field.FAMILY,
    Field.IIF,
    Field.OIF,
    Field.CT_STATE,
    Field.DNATED,
    Field.DADDR_TYPE,
    Field.SADDR_TYPE,
    Field.L4PROTO,
    Field.DPORT,
    Field.ORIG_DPORT,
    Field.ICMP_TYPE,
    Field.ICMPV6_TYPE,
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
# Words that are copied into each other take turns, bit by bit: so two that are equal are a small
# diagram. Sets that tell ports apart by what was dialled are taken apart with its bits elsewhere.
DIALLED_APART = "dialled port apart"
TURNS: tuple[tuple[Field | str, ...], ...] = ((Field.DPORT, Field.ORIG_DPORT), MARKS)
UNANSWERED = (USER, GROUP, WEEK_S, LOCAL_WEEK_S)  # which nothing here settles
V4_BITS = 32


class Layout:
    """Where each word's bits stand: `variables`, the highest bit first, of `count` in all.

    `told` says of a variable which field it is a bit of, and which one, as sets are taken apart.
    """

    def __init__(self) -> None:
        self.width: dict[Field | str, int] = {}
        for f in FIELD_ORDER:
            self.width[f] = _bits(f)
            if f is Field.ORIG_DPORT:
                self.width[DIALLED_APART] = _bits(f)
        self.width.update(WORDS)
        self.variables: dict[Field | str, range] = {}
        self.count = 0
        turns: dict[Field | str, tuple[Field | str, ...]] = {}
        for group in TURNS:
            turns |= dict.fromkeys(group, group)
        for word in self.width:
            if word not in self.variables:
                self._place(turns.get(word, (word,)))
        self.told: dict[int, tuple[Field, int]] = {}
        for word, variables in self.variables.items():
            told: Field | str = Field.ORIG_DPORT if word == DIALLED_APART else word
            if isinstance(told, Field) and word is not Field.ORIG_DPORT:
                self.told |= {v: (told, bit) for bit, v in enumerate(variables)}

    def _place(self, group: tuple[Field | str, ...]) -> None:
        width = self.width[group[0]]
        for turn, word in enumerate(group):
            first = self.count + turn
            self.variables[word] = range(first, first + len(group) * width, len(group))
        self.count += len(group) * width


def _bits(f: Field) -> int:
    if f is Field.FAMILY:
        return 1
    if f in ADDRESS_FIELDS:
        return 128
    return max(1, UNIVERSE[f].pairs[-1][1].bit_length())
