"""What an expression of a rule does, to which packets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from policylang.analysis.machine import Act
from policylang.analysis.reading_nft.cases import Cases

Deeds = Sequence[tuple[Cases, Act | None]]


@dataclass(frozen=True, slots=True)
class Step:
    """The acts of an expression, each with the packets that meet it; None: they only go on.

    The rule ends for packets that none of the cases holds, unless `goes_on`. With `is_total`
    each packet is in one of them.
    """

    deeds: Deeds
    goes_on: bool = False
    is_total: bool = False

    @property
    def acts(self) -> list[Act]:
        return [act for _, act in self.deeds if act is not None]
