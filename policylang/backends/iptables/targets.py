"""Spells actions and guards; knows no matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from policylang.backends.iptables.sieve import InexpressibleError
from policylang.ir.actions import (
    Accept,
    Answer,
    AssignHelper,
    Drop,
    Leave,
    Log,
    RateGuard,
    Reject,
)
from policylang.packets.fields import TCP

ANSWERS = {
    4: {
        Answer.TCP_RESET: "tcp-reset",
        Answer.PORT_UNREACHABLE: "icmp-port-unreachable",
        Answer.HOST_UNREACHABLE: "icmp-host-unreachable",
        Answer.NET_UNREACHABLE: "icmp-net-unreachable",
        Answer.ADMIN_PROHIBITED: "icmp-admin-prohibited",
    },
    6: {
        Answer.TCP_RESET: "tcp-reset",
        Answer.PORT_UNREACHABLE: "icmp6-port-unreachable",
        Answer.HOST_UNREACHABLE: "icmp6-addr-unreachable",
        Answer.NET_UNREACHABLE: "icmp6-no-route",
        Answer.ADMIN_PROHIBITED: "icmp6-adm-prohibited",
    },
}

# What policies call syslog's levels, and what iptables does.
LOG_LEVELS = {
    "emerg": "emerg",
    "alert": "alert",
    "crit": "crit",
    "err": "error",
    "error": "error",
    "warn": "warning",
    "warning": "warning",
    "notice": "notice",
    "info": "info",
    "debug": "debug",
}

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}

LIMIT_SCALE = 10_000  # linux/netfilter/xt_limit.h: XT_LIMIT_SCALE
LIMIT_STEPS_LEAST = 100  # a rate is a whole number of steps: fewer are more than 1 % off
LIMIT_BURST_MOST = 10_000  # libxt_limit
# xt_limit counts credits in 32 bits, HZ * CREDITS_PER_JIFFY a second; the most is at HZ=300.
LIMIT_SECONDS_MOST = (1 << 32) // 38_400
HASHLIMIT_RATE_MOST = 1_000_000  # XT_HASHLIMIT_SCALE_v2
HASHLIMIT_BURST_MOST = 1_000_000  # libxt_hashlimit


@dataclass(frozen=True, slots=True)
class Call:
    """Read a chain of the output; `comes_back` says whether to the next line or to the caller's."""

    chain: str
    comes_back: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """The end of a line, and the protocol that the line must match for the kernel to take it."""

    text: str
    protocol: int | None = None


def target(action: Accept | Drop | Reject | Log | Leave | Call, family: int) -> Target:
    """The target of an action that is one line by itself; raises InexpressibleError."""
    match action:
        case Accept():
            return Target("-j ACCEPT")
        case Drop():
            return Target("-j DROP")
        case Reject(answer):
            needs = TCP if answer is Answer.TCP_RESET else None
            return Target(f"-j REJECT --reject-with {ANSWERS[family][answer]}", needs)
        case Log():
            return Target(_log(action))
        case Leave():
            return Target("-j RETURN")
        case Call(chain, comes_back):
            return Target(f"-{'j' if comes_back else 'g'} {chain}")
        case _:
            assert_never(action)


def helper_target(action: AssignHelper) -> Target:
    """The target that gives a helper; what is read after it cannot take the helper back."""
    return Target(f"-j CT --helper {action.helper}", action.protocol)


def _log(action: Log) -> str:
    if action.group is not None:
        prefix = f" --nflog-prefix {quoted(action.prefix)}" if action.prefix else ""
        return f"-j NFLOG --nflog-group {action.group}{prefix}"
    prefix = f" --log-prefix {quoted(action.prefix)}" if action.prefix else ""
    if action.level is None:
        return f"-j LOG{prefix}"
    if action.level not in LOG_LEVELS:
        raise InexpressibleError(f"the log level `{action.level}`")
    return f"-j LOG{prefix} --log-level {LOG_LEVELS[action.level]}"


def quoted(text: str) -> str:
    """The text as iptables-restore reads it back (add_param_to_argv of xshared.c)."""
    if not text.isprintable():
        raise InexpressibleError("a log prefix with control characters")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def guard_match(guard: RateGuard, name: str) -> str:
    """The match of a guard; `name` is unique to it. Raises InexpressibleError.

    Not every rate fits xt_limit: a high one is a coarse multiple of its steps, and a slow one
    with a large burst overflows its credits, which the kernel refuses or, worse, does not
    notice. xt_hashlimit, without anything to hash, holds the high ones.
    """
    seconds = SECONDS[guard.unit]
    steps, rest = divmod(LIMIT_SCALE * seconds, guard.count)
    rate = f"{guard.count}/{guard.unit}"
    slowness = guard.burst * seconds / guard.count
    if slowness > LIMIT_SECONDS_MOST:
        raise InexpressibleError(f"a rate of {rate} with a burst of {guard.burst}")
    if steps >= (LIMIT_STEPS_LEAST if rest else 1) and guard.burst <= LIMIT_BURST_MOST:
        return f"-m limit --limit {rate} --limit-burst {guard.burst}"
    if guard.count > HASHLIMIT_RATE_MOST * seconds or guard.burst > HASHLIMIT_BURST_MOST:
        raise InexpressibleError(f"a rate of {rate} with a burst of {guard.burst}")
    # A bucket that was not used for so long is full again and may be forgotten.
    full_ms = max(1000, int(slowness * 1000) + 1)
    return (
        f"-m hashlimit --hashlimit-upto {rate} --hashlimit-burst {guard.burst} "
        f"--hashlimit-name {name} --hashlimit-htable-expire {full_ms}"
    )
