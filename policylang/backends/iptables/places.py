"""Where in iptables a packet is met on each stage and path, and what can be done there."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.ir.actions import Accept, AssignHelper, Drop, Jump, Leave, Log, Reject
from policylang.ir.capabilities import Capabilities
from policylang.ir.stages import Path, Stage
from policylang.packets.fields import Field


@dataclass(frozen=True, slots=True)
class Place:
    """A built-in chain, by which packets come to our own."""

    table: str
    chain: str


TABLES = ("raw", "filter")  # in the order of the file

# A helper works only where it is assigned before conntrack confirms the connection: in raw,
# by a template that conntrack then takes it from.
PLACES: dict[tuple[Stage, Path], Place] = {
    (Stage.ASSIGN_HELPER, Path.INPUT): Place("raw", "PREROUTING"),
    (Stage.ASSIGN_HELPER, Path.FORWARD): Place("raw", "PREROUTING"),
    (Stage.ASSIGN_HELPER, Path.OUTPUT): Place("raw", "OUTPUT"),
    (Stage.FILTER, Path.INPUT): Place("filter", "INPUT"),
    (Stage.FILTER, Path.FORWARD): Place("filter", "FORWARD"),
    (Stage.FILTER, Path.OUTPUT): Place("filter", "OUTPUT"),
}

NOTHING: frozenset[Field] = frozenset()

CAPABILITIES = Capabilities(
    target="iptables",
    fields={
        **dict.fromkeys(Stage, NOTHING),
        # In raw, conntrack has not seen the packet yet.
        Stage.ASSIGN_HELPER: frozenset(Field) - {Field.CT_STATE, Field.CT_HELPER},
        Stage.FILTER: frozenset(Field),
    },
    actions={
        **dict.fromkeys(Stage, ()),
        Stage.ASSIGN_HELPER: (AssignHelper, Leave, Jump),
        Stage.FILTER: (Accept, Drop, Reject, Jump, Log),
    },
    log_prefix_bytes=29,  # linux/netfilter/xt_LOG.h: char prefix[30]
    log_group_prefix_bytes=63,  # linux/netfilter/xt_NFLOG.h: char prefix[64]
)
