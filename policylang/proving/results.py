"""What a proof on the real kernel found; knows neither how it was found nor how it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from policylang.model.expectations import Expectation, Test
from policylang.packets.fields import Field


class Status(StrEnum):
    """What became of an expectation."""

    OK = "ok"
    FAILED = "failed"
    IMPOSSIBLE = "not possible here"


@dataclass(frozen=True, slots=True)
class Result:
    """An expectation of a test, played on one way to load the rules.

    `way` is `nft`, `iptables-nft` or `iptables-legacy`. `tried` counts packets, or conversations.
    `packet` is the one that went otherwise, where it was a packet. `said` is what happened, or
    what keeps it from being played: empty where all is as it was expected. `notes` are what was
    left out.
    """

    test: Test
    expectation: Expectation
    way: str
    status: Status
    tried: int = 0
    packet: Mapping[Field, int] | None = field(default=None, compare=False)
    said: str = ""
    notes: tuple[str, ...] = ()
