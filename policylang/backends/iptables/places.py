"""Where in iptables a packet is met on each stage and path, and what can be done there."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.ir.actions import (
    Accept,
    Action,
    AddToSet,
    AssignHelper,
    ClampMss,
    DestinationNat,
    Drop,
    Jump,
    Leave,
    Log,
    MapPrefix,
    Masquerade,
    Native,
    Offload,
    Queue,
    RedirectToSelf,
    Reject,
    RememberAsker,
    RememberQuestion,
    SetConnectionMark,
    SetDscp,
    SetMark,
    SourceNat,
    TransparentProxy,
    Untrack,
)
from policylang.ir.capabilities import Capabilities
from policylang.ir.stages import Path, Stage
from policylang.packets.fields import Field


@dataclass(frozen=True, slots=True)
class Place:
    """A built-in chain, by which packets come to our own, and what ours is called."""

    table: str
    chain: str
    ours: str


# In the order of the file. What is committed first may hold a moment without the rest: nothing is
# translated before the filter is there that knows of it.
TABLES = ("raw", "mangle", "security", "filter", "nat")

# A helper works only where it is assigned before conntrack confirms the connection: in raw,
# by a template that conntrack then takes it from. The table security is read behind filter.
PLACES: dict[tuple[Stage, Path], Place] = {
    (Stage.SCREEN, Path.INPUT): Place("raw", "PREROUTING", "screen"),
    (Stage.UNTRACK, Path.INPUT): Place("raw", "PREROUTING", "untrack"),
    (Stage.UNTRACK, Path.OUTPUT): Place("raw", "OUTPUT", "untrack-output"),
    (Stage.SCREEN_STATE, Path.INPUT): Place("mangle", "PREROUTING", "screen-state"),
    (Stage.ASSIGN_HELPER, Path.INPUT): Place("raw", "PREROUTING", "input"),
    (Stage.ASSIGN_HELPER, Path.FORWARD): Place("raw", "PREROUTING", "forward"),
    (Stage.ASSIGN_HELPER, Path.OUTPUT): Place("raw", "OUTPUT", "output"),
    (Stage.MARK, Path.INPUT): Place("mangle", "PREROUTING", "mark"),
    (Stage.MARK, Path.OUTPUT): Place("mangle", "OUTPUT", "mark-output"),
    (Stage.TPROXY, Path.INPUT): Place("mangle", "PREROUTING", "tproxy"),
    (Stage.DSTNAT, Path.INPUT): Place("nat", "PREROUTING", "dstnat"),
    (Stage.DSTNAT, Path.OUTPUT): Place("nat", "OUTPUT", "dstnat-output"),
    (Stage.TREAT, Path.FORWARD): Place("mangle", "FORWARD", "treat-forward"),
    (Stage.TREAT, Path.OUTPUT): Place("mangle", "OUTPUT", "treat-output"),
    (Stage.FILTER, Path.INPUT): Place("filter", "INPUT", "input"),
    (Stage.FILTER, Path.FORWARD): Place("filter", "FORWARD", "forward"),
    (Stage.FILTER, Path.OUTPUT): Place("filter", "OUTPUT", "output"),
    (Stage.INSPECT, Path.INPUT): Place("security", "INPUT", "inspect-input"),
    (Stage.INSPECT, Path.FORWARD): Place("security", "FORWARD", "inspect-forward"),
    (Stage.INSPECT, Path.OUTPUT): Place("security", "OUTPUT", "inspect-output"),
    (Stage.SRCNAT, Path.FORWARD): Place("nat", "POSTROUTING", "srcnat"),
}

EVERY = frozenset(Field)

# What only conntrack knows, and it has not seen the packet yet in raw.
OF_CONNTRACK = frozenset(
    {
        *(Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION),
        *(Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT, Field.EXPECTED),
    }
)
# rpfilter_check of net/ipv4/netfilter/ipt_rpfilter.c takes raw and mangle, PREROUTING, alone.
OF_ARRIVAL = frozenset({Field.REVERSE_PATH})
# policy_mt_check of net/netfilter/xt_policy.c wants to know which way a packet goes; xt_mac has
# no place in POSTROUTING. The way out is not known before routing.
OF_WAY_OUT = frozenset({Field.IPSEC_OUT})
OF_WAY_IN = frozenset({Field.SMAC, Field.IPSEC})
UNROUTED = OF_WAY_OUT | {Field.OIF}

# Stages that one can leave without more ado.
BESIDE: tuple[type[Action], ...] = (Leave, Jump, Log)

CAPABILITIES = Capabilities(
    target="iptables",
    fields={
        Stage.SCREEN: EVERY - OF_CONNTRACK - UNROUTED,
        Stage.UNTRACK: EVERY - OF_CONNTRACK - OF_ARRIVAL - OF_WAY_OUT,
        Stage.SCREEN_STATE: EVERY - UNROUTED,
        Stage.ASSIGN_HELPER: EVERY - OF_CONNTRACK - OF_ARRIVAL - OF_WAY_OUT,
        Stage.MARK: EVERY - OF_ARRIVAL - OF_WAY_OUT,
        Stage.TPROXY: EVERY - OF_ARRIVAL - UNROUTED,
        Stage.DSTNAT: EVERY - OF_ARRIVAL - OF_WAY_OUT,
        Stage.TREAT: EVERY - OF_ARRIVAL,
        Stage.FILTER: EVERY - OF_ARRIVAL,
        Stage.INSPECT: EVERY - OF_ARRIVAL,
        Stage.SRCNAT: EVERY - OF_ARRIVAL - OF_WAY_IN,
    },
    actions={
        Stage.SCREEN: (Drop, Log, Jump, AddToSet, Native),
        Stage.UNTRACK: (Untrack, Leave, Jump),  # what conntrack does not see is read on
        Stage.SCREEN_STATE: (Drop, Log, Jump, AddToSet, Native),
        Stage.ASSIGN_HELPER: (AssignHelper, Leave, Jump),
        Stage.MARK: (SetMark, SetConnectionMark, SetDscp, *BESIDE),
        Stage.TPROXY: (TransparentProxy, *BESIDE),
        Stage.DSTNAT: (DestinationNat, RedirectToSelf, MapPrefix, *BESIDE),
        Stage.TREAT: (ClampMss, *BESIDE),
        Stage.FILTER: (
            Accept,
            Drop,
            Reject,
            Jump,
            Log,
            AddToSet,
            RememberQuestion,
            RememberAsker,
            Native,
            Offload,  # which is refused with a word of what to do
        ),
        Stage.INSPECT: (Queue, *BESIDE),
        Stage.SRCNAT: (Masquerade, SourceNat, MapPrefix, *BESIDE),
    },
    log_prefix_bytes=29,  # linux/netfilter/xt_LOG.h: char prefix[30]
    log_group_prefix_bytes=63,  # linux/netfilter/xt_NFLOG.h: char prefix[64]
)
