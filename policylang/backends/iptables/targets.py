"""Spells actions; knows no matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from policylang.backends.iptables.names import dynamic_set_name
from policylang.backends.iptables.sets import IpSets, checked_timeout
from policylang.backends.iptables.sieve import InexpressibleError
from policylang.ir.actions import (
    Accept,
    AddToSet,
    Answer,
    AssignHelper,
    Drop,
    End,
    Leave,
    Log,
    Reject,
    RememberAsker,
    RememberQuestion,
)
from policylang.ir.origin import Origin
from policylang.packets.fields import TCP, UDP

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


DIRECTIONS = {End.SOURCE: "src", End.DESTINATION: "dst"}


def set_targets(
    action: AddToSet | RememberQuestion | RememberAsker,
    family: int,
    sets: IpSets,
    origins: tuple[Origin, ...],
) -> tuple[Target, ...]:
    """The targets, each for a line, that put into sets; raises InexpressibleError.

    An element that is there already stays for the whole time anew. What the kernel cannot put
    into a set, as an address that is all zeros into a set of hosts, it leaves out.
    """
    match action:
        case AddToSet(name, end, timeout_s):
            timed = "" if timeout_s is None else _for(timeout_s)
            flags = DIRECTIONS[end]
            return (
                Target(f"-j SET --add-set {dynamic_set_name(name, family)} {flags} --exist{timed}"),
            )
        case RememberQuestion(timeout_s):
            interfaces, ports = sets.questions(family, origins)
            # Directions: of an interface, `dst` is the way out; of a port, `src` is its own.
            elements = [(interfaces, f"{of},dst") for of in DIRECTIONS.values()]
            elements += [(ports, f"{of},src") for of in DIRECTIONS.values()]
            return tuple(
                Target(f"-j SET --add-set {name} {flags} --exist{_for(timeout_s)}", UDP)
                for name, flags in elements
            )
        case RememberAsker(timeout_s):
            name = sets.askers(origins)
            return (Target(f"-j SET --add-set {name} src --exist{_for(timeout_s)}", UDP),)
        case _:
            assert_never(action)


def _for(timeout_s: int) -> str:
    return f" --timeout {checked_timeout(timeout_s)}"


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
