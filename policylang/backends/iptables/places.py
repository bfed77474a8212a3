"""Where in iptables a packet is met on each stage and path, and what can be done there."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.ir.actions import (
    Accept,
    AddToSet,
    AssignHelper,
    Drop,
    Jump,
    Leave,
    Log,
    Native,
    Reject,
    RememberAsker,
    RememberQuestion,
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


TABLES = ("raw", "mangle", "filter")  # in the order of the file, and in which a packet meets them

# A helper works only where it is assigned before conntrack confirms the connection: in raw,
# by a template that conntrack then takes it from.
PLACES: dict[tuple[Stage, Path], Place] = {
    (Stage.SCREEN, Path.INPUT): Place("raw", "PREROUTING", "screen"),
    (Stage.SCREEN_STATE, Path.INPUT): Place("mangle", "PREROUTING", "screen-state"),
    (Stage.ASSIGN_HELPER, Path.INPUT): Place("raw", "PREROUTING", "input"),
    (Stage.ASSIGN_HELPER, Path.FORWARD): Place("raw", "PREROUTING", "forward"),
    (Stage.ASSIGN_HELPER, Path.OUTPUT): Place("raw", "OUTPUT", "output"),
    (Stage.FILTER, Path.INPUT): Place("filter", "INPUT", "input"),
    (Stage.FILTER, Path.FORWARD): Place("filter", "FORWARD", "forward"),
    (Stage.FILTER, Path.OUTPUT): Place("filter", "OUTPUT", "output"),
}

NOTHING: frozenset[Field] = frozenset()

# What only conntrack knows, and it has not seen the packet yet in raw.
OF_CONNTRACK = frozenset({Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION})
# rpfilter_check of net/ipv4/netfilter/ipt_rpfilter.c takes raw and mangle, PREROUTING, alone.
OF_ARRIVAL = frozenset({Field.REVERSE_PATH})

CAPABILITIES = Capabilities(
    target="iptables",
    fields={
        **dict.fromkeys(Stage, NOTHING),
        Stage.SCREEN: frozenset(Field) - OF_CONNTRACK - {Field.OIF},
        Stage.SCREEN_STATE: frozenset(Field) - {Field.OIF},
        Stage.ASSIGN_HELPER: frozenset(Field) - OF_CONNTRACK - OF_ARRIVAL,
        Stage.FILTER: frozenset(Field) - OF_ARRIVAL,
    },
    actions={
        **dict.fromkeys(Stage, ()),
        Stage.SCREEN: (Drop, Log, Jump, AddToSet, Native),
        Stage.SCREEN_STATE: (Drop, Log, Jump, AddToSet, Native),
        Stage.ASSIGN_HELPER: (AssignHelper, Leave, Jump),
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
        ),
    },
    log_prefix_bytes=29,  # linux/netfilter/xt_LOG.h: char prefix[30]
    log_group_prefix_bytes=63,  # linux/netfilter/xt_NFLOG.h: char prefix[64]
)
