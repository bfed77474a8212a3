"""What conntrack makes of TCP flags, packet by packet (net/netfilter/nf_conntrack_proto_tcp.c).

Sequence numbers are not known here: every packet is taken to be within the window.
"""

from __future__ import annotations

from enum import Enum, IntEnum

from policylang.packets.fields import (
    TCP_ACK,
    TCP_FIN,
    TCP_RST,
    TCP_SYN,
    TCP_URG,
    FlowDirection,
)


class TcpState(IntEnum):
    """enum tcp_conntrack."""

    NONE = 0
    SYN_SENT = 1
    SYN_RECV = 2
    ESTABLISHED = 3
    FIN_WAIT = 4
    CLOSE_WAIT = 5
    LAST_ACK = 6
    TIME_WAIT = 7
    CLOSE = 8
    SYN_SENT2 = 9


class Odd(Enum):
    """What is no step from one state to another."""

    IGNORED = "ignored"  # it passes, and leaves the connection as it is
    INVALID = "invalid"  # it belongs to no connection


# `tcp_valid_flags`: PSH, ECE and CWR do not matter.
_VALID = (
    TCP_SYN,
    TCP_SYN | TCP_URG,
    TCP_SYN | TCP_ACK,
    TCP_RST,
    TCP_RST | TCP_ACK,
    TCP_FIN | TCP_ACK,
    TCP_FIN | TCP_ACK | TCP_URG,
    TCP_ACK,
    TCP_ACK | TCP_URG,
)
_MATTER = TCP_FIN | TCP_SYN | TCP_RST | TCP_ACK | TCP_URG


def is_possible(flags: int) -> bool:
    """Whether a TCP may send these flags together."""
    return flags & _MATTER in _VALID


def after(state: TcpState, direction: FlowDirection, flags: int) -> TcpState | Odd:
    """The state that a packet leads to.

    From NONE it is the state in which a connection begins whose first packet this is: an
    acknowledgement begins one too (nf_conntrack_tcp_loose is on unless somebody switched it off).
    """
    if flags & TCP_RST:
        return Odd.INVALID if state is TcpState.NONE else TcpState.CLOSE
    forth = direction is FlowDirection.ORIGINAL
    match bool(flags & TCP_SYN), bool(flags & TCP_ACK):
        case True, False:
            return _after_syn(state) if forth else _after_syn_of_reply(state)
        case True, True:
            return _after_syn_ack(state, forth=forth)
    if flags & TCP_FIN:
        return _AFTER_FIN.get(state, Odd.INVALID)
    return _after_ack(state, forth=forth) if flags & TCP_ACK else Odd.INVALID


def _after_syn(state: TcpState) -> TcpState | Odd:
    match state:
        case TcpState.NONE | TcpState.SYN_SENT | TcpState.TIME_WAIT | TcpState.CLOSE:
            return TcpState.SYN_SENT  # of a closed connection: it begins anew
        case TcpState.SYN_SENT2:
            return state
        case _:
            return Odd.IGNORED


def _after_syn_of_reply(state: TcpState) -> TcpState | Odd:
    match state:
        case TcpState.SYN_SENT | TcpState.SYN_SENT2:
            return TcpState.SYN_SENT2  # both opened at once
        case TcpState.TIME_WAIT:
            return TcpState.SYN_SENT
        case _:
            return Odd.INVALID


def _after_syn_ack(state: TcpState, *, forth: bool) -> TcpState | Odd:
    if forth:
        both = state in (TcpState.SYN_RECV, TcpState.SYN_SENT2)
        return TcpState.SYN_RECV if both else Odd.INVALID
    match state:
        case TcpState.NONE:
            return Odd.INVALID
        case TcpState.SYN_SENT | TcpState.SYN_SENT2:
            return TcpState.SYN_RECV
        case _:
            return Odd.IGNORED


_AFTER_FIN = {
    TcpState.SYN_RECV: TcpState.FIN_WAIT,
    TcpState.ESTABLISHED: TcpState.FIN_WAIT,
    TcpState.FIN_WAIT: TcpState.LAST_ACK,
    TcpState.CLOSE_WAIT: TcpState.LAST_ACK,
    TcpState.LAST_ACK: TcpState.LAST_ACK,
    TcpState.TIME_WAIT: TcpState.TIME_WAIT,
    TcpState.CLOSE: TcpState.CLOSE,
}


def _after_ack(state: TcpState, *, forth: bool) -> TcpState | Odd:
    match state:
        case TcpState.NONE:
            return TcpState.ESTABLISHED if forth else Odd.INVALID
        case TcpState.SYN_SENT | TcpState.SYN_SENT2:
            return Odd.INVALID if forth else Odd.IGNORED
        case TcpState.SYN_RECV:
            return TcpState.ESTABLISHED if forth else state
        case TcpState.FIN_WAIT | TcpState.CLOSE_WAIT:
            return TcpState.CLOSE_WAIT
        case TcpState.LAST_ACK | TcpState.TIME_WAIT:
            return TcpState.TIME_WAIT
        case TcpState.ESTABLISHED | TcpState.CLOSE:
            return state
