"""What becomes of a packet that matches; knows no target's words for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Accept:
    """Let it through: nothing after this is read on this stage."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Let it vanish."""


class Answer(StrEnum):
    """What a rejected packet's sender is told."""

    TCP_RESET = "tcp-reset"  # only on rules that match TCP alone
    PORT_UNREACHABLE = "port-unreachable"
    HOST_UNREACHABLE = "host-unreachable"
    NET_UNREACHABLE = "net-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop it and tell the sender, by ICMP or ICMPv6 as its family asks."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Jump:
    """Read a chain, and come back where nothing in it decides."""

    chain: str


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line to the log and go on; `level` and `group` (NFLOG) exclude each other."""

    prefix: str
    level: str | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class AssignHelper:
    """Give the connection a conntrack helper; nothing after this is read on this stage.

    `helper` is the kernel's name; the rule matches the l4 protocol `protocol` alone.
    """

    helper: str
    protocol: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Nothing after this is read on this stage, and nothing is decided."""


Action = Accept | Drop | Reject | Jump | Log | AssignHelper | Leave


def is_terminal(action: Action) -> bool:
    """Whether no later rule of the stage sees a packet that this one took."""
    return not isinstance(action, (Jump, Log))


@dataclass(frozen=True, slots=True)
class RateGuard:
    """Matches while the rate of matches is at most `count` a `unit`, after a first `burst`."""

    count: int
    unit: str  # second, minute, hour, day
    burst: int


Guard = RateGuard
