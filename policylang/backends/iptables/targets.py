"""Spells actions; knows no matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from policylang.backends.iptables.names import dynamic_set_name
from policylang.backends.iptables.sets import IpSets, checked_timeout
from policylang.backends.iptables.sieve import InexpressibleError
from policylang.backends.iptables.transport import protocol_match, tcp_flags
from policylang.ir.actions import (
    Accept,
    AddToSet,
    Answer,
    AssignHelper,
    ClampMss,
    Drop,
    End,
    Leave,
    Log,
    Offload,
    Queue,
    Reject,
    RememberAsker,
    RememberQuestion,
    SetConnectionMark,
    SetDscp,
    SetMark,
    TransparentProxy,
    Untrack,
)
from policylang.ir.origin import Origin
from policylang.packets.fields import TCP, TCP_SYN, UDP, with_flags

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
    """The end of a line, and what the line must match of the protocol for the kernel to take it."""

    text: str
    needs: str | None = None


OF_TCP, OF_UDP = protocol_match(TCP), protocol_match(UDP)
# xt_TCPMSS (find_syn_match) wants to see in its own line that it meets nothing but SYN.
OF_SYN = " ".join((OF_TCP, *tcp_flags(with_flags(TCP_SYN, TCP_SYN))))

Plain = (
    Accept
    | Drop
    | Reject
    | Log
    | Leave
    | Call
    | SetMark
    | SetConnectionMark
    | SetDscp
    | ClampMss
    | Untrack
    | TransparentProxy
    | Queue
    | Offload
)


def target(action: Plain, family: int) -> Target:
    """The target of an action that is one line by itself; raises InexpressibleError."""
    match action:
        case Accept():
            return Target("-j ACCEPT")
        case Drop():
            return Target("-j DROP")
        case Reject(answer):
            needs = OF_TCP if answer is Answer.TCP_RESET else None
            return Target(f"-j REJECT --reject-with {ANSWERS[family][answer]}", needs)
        case Log():
            return Target(_log(action))
        case Leave():
            return Target("-j RETURN")
        case Call(chain, comes_back):
            return Target(f"-{'j' if comes_back else 'g'} {chain}")
        case SetMark(value, mask):
            return Target(f"-j MARK --set-xmark {_under(value, mask)}")
        case SetConnectionMark(value, mask):
            return Target(f"-j CONNMARK --set-xmark {_under(value, mask)}")
        case SetDscp(code):
            return Target(f"-j DSCP --set-dscp {code}")
        case ClampMss(size):
            option = "--clamp-mss-to-pmtu" if size is None else f"--set-mss {size}"
            return Target(f"-j TCPMSS {option}", OF_SYN)
        case Untrack():
            # Reading goes on, but what conntrack is not to see it does not see any more.
            return Target("-j CT --notrack")
        case TransparentProxy(port, protocol, value, mask):
            text = f"-j TPROXY --on-port {port} --tproxy-mark {_under(value, mask)}"
            return Target(text, protocol_match(protocol))
        case Queue(low, high, may_bypass):
            queues = f"--queue-num {low}" if low == high else f"--queue-balance {low}:{high}"
            return Target(f"-j NFQUEUE {queues}{' --queue-bypass' if may_bypass else ''}")
        case Offload():
            raise InexpressibleError(
                "connections that go past the rules",
                help="leave `offload` out for iptables, which has no flow tables; nft has them",
            )
        case _:
            assert_never(action)


def _under(value: int, mask: int) -> str:
    """Bits and the mask under which they are set: `--set-xmark` clears these first."""
    assert not value & ~mask, "a mark outside its mask"
    return f"0x{value:x}/0x{mask:x}"


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
                Target(f"-j SET --add-set {name} {flags} --exist{_for(timeout_s)}", OF_UDP)
                for name, flags in elements
            )
        case RememberAsker(timeout_s):
            name = sets.askers(origins)
            return (Target(f"-j SET --add-set {name} src --exist{_for(timeout_s)}", OF_UDP),)
        case _:
            assert_never(action)


def _for(timeout_s: int) -> str:
    return f" --timeout {checked_timeout(timeout_s)}"


def helper_target(action: AssignHelper) -> Target:
    """The target that gives a helper; what is read after it cannot take the helper back."""
    return Target(f"-j CT --helper {action.helper}", protocol_match(action.protocol))


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
