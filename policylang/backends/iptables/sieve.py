"""What one rule of iptables cannot say of a field, as matches to be tried one after another."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, auto


class InexpressibleError(Exception):
    """Something of a ruleset that iptables has no words for; says what, and what would do."""

    def __init__(self, what: str, help: str | None = None) -> None:
        super().__init__(what)
        self.help = help


class Slot(IntEnum):
    """The places of matches in a line, the cheap ones first: the kernel reads them in order.

    Behind `ADDRESS_TESTS` each of these has a place of its own, and so has each guard behind
    `GUARDS`: their numbers are added.
    """

    IIF = auto()
    OIF = auto()
    SADDR = auto()
    DADDR = auto()
    TRANSPORT = auto()  # a protocol with its ports or types: --dport needs its -p in the line
    HOP_LIMIT = auto()
    DSCP = auto()
    SIZE = auto()
    CT_STATE = auto()
    CT_DIRECTION = auto()
    DNATED = auto()
    EXPECTED = auto()
    ORIG_DADDR = auto()
    ORIG_DPORT = auto()
    SMAC = auto()
    SMAC_SET = auto()
    SADDR_SET = auto()
    DADDR_SET = auto()
    PAIRS = auto()
    ADDRESS_TESTS = 100
    ANSWER = 200
    TO_ASKER = auto()
    IPSEC = auto()
    IPSEC_OUT = auto()
    SOURCE_ROUTED = auto()
    SADDR_TYPE = auto()
    DADDR_TYPE = auto()
    REVERSE_PATH = auto()
    CT_HELPER = auto()
    GUARDS = 300


@dataclass(frozen=True, slots=True)
class Sieve:
    """Matches in order: the first that a packet meets says whether it is in.

    `otherwise` holds for a packet that meets none. No packet meets two of the matches that let
    it in, unless one between them keeps it out, or `may_overlap` says that it may be so.
    """

    steps: tuple[tuple[str, bool], ...]
    otherwise: bool = False
    may_overlap: bool = False

    @classmethod
    def any_of(cls, matches: Iterable[str]) -> Sieve:
        return cls(tuple((match, True) for match in matches))

    @classmethod
    def none_of(cls, matches: Iterable[str]) -> Sieve:
        return cls(tuple((match, False) for match in matches), otherwise=True)

    @property
    def alternatives(self) -> tuple[str, ...]:
        """The matches that let a packet in."""
        return tuple(match for match, lets_in in self.steps if lets_in)

    @property
    def barred(self) -> tuple[str, ...]:
        """The matches that keep a packet out."""
        return tuple(match for match, lets_in in self.steps if not lets_in)

    @property
    def is_plain(self) -> bool:
        """Whether it asks for one of `alternatives`, if there are any, and for none of `barred`."""
        verdicts = [lets_in for _, lets_in in self.steps]
        return sorted(verdicts) == verdicts and self.otherwise is not any(verdicts)


Matches = dict[int, Sieve]  # by `Slot`, or a number behind one
