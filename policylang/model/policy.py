"""The resolved policy as a whole: its statements in order, its defaults and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from policylang.model.expectations import Test
from policylang.model.translations import Treatment
from policylang.model.types import (
    AddTo,
    Direction,
    DynamicSet,
    End,
    Log,
    NativeRule,
    PolicyRule,
    Rate,
    RejectWith,
    Verb,
    Zone,
)
from policylang.packets.values import Ranges
from policylang.source import Span


@dataclass(frozen=True, slots=True)
class Default:
    """What decides where no rule does; `span` None where the policy says nothing."""

    verb: Verb
    answer: RejectWith | None = None
    log: Log | None = None
    name: str | None = None
    span: Span | None = field(default=None, compare=False)
    adds: tuple[AddTo, ...] = ()


class Protection(StrEnum):
    """What `protect` keeps out."""

    SPOOFING = "spoofing"
    BOGONS = "bogons"
    BAD_FLAGS = "bad-flags"
    SOURCE_ROUTING = "source-routing"
    SYN_FLOOD = "syn-flood"


@dataclass(frozen=True, slots=True)
class Protect:
    """Keep a kind of packet out that comes from `source`; `rate` is for floods alone."""

    source: End
    protection: Protection
    rate: Rate | None
    log: Log | None
    name: str | None
    adds: tuple[AddTo, ...]
    span: Span = field(compare=False)


class InvalidPolicy(Enum):
    """What becomes of INVALID packets that arrive or are forwarded."""

    DROP = "drop"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Settings:
    essentials: bool = True
    invalid: InvalidPolicy = InvalidPolicy.DROP
    invalid_log: Log | None = None
    has_counters: bool = False
    cuts_flows: bool = False  # open connections that are not allowed any more end on a reload


Statement = PolicyRule | NativeRule | Treatment


@dataclass(frozen=True, slots=True)
class Policy:
    """A whole policy for one firewall: the statements in the order in which they are read.

    `tests` mean nothing to the rules; `bogons` are the sources that `protect … against bogons`
    keeps out; `set_names` are what the
    policy calls the sets it declares, for readable output. `addresses` are those that it says the
    host has that is meant, where it has several hosts.
    """

    statements: tuple[Statement, ...]
    defaults: dict[Direction, Default]
    settings: Settings
    zones: tuple[Zone, ...]
    set_names: tuple[tuple[Ranges, str], ...] = field(default=(), compare=False)
    protections: tuple[Protect, ...] = ()
    dynamic_sets: tuple[DynamicSet, ...] = ()
    bogons: Ranges = field(default_factory=Ranges)
    tests: tuple[Test, ...] = ()
    addresses: Ranges = field(default_factory=Ranges)

    @property
    def treatments(self) -> tuple[Treatment, ...]:
        """The statements that translate or treat packets."""
        return tuple(s for s in self.statements if isinstance(s, Treatment))

    @property
    def rules(self) -> tuple[PolicyRule, ...]:
        """The rules, without the lines of targets' own languages."""
        return tuple(s for s in self.statements if isinstance(s, PolicyRule))
