"""The stages of a packet's way and the paths it takes; a target maps each pair to its place."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """What is done to a packet, in the order in which it happens."""

    SCREEN = "screen"  # before conntrack: packets that no connection is to come of
    UNTRACK = "untrack"
    SCREEN_STATE = "screen-state"  # the same, by what conntrack made of them
    ASSIGN_HELPER = "assign-helper"
    MARK = "mark"
    DSTNAT = "dstnat"
    FILTER = "filter"
    SRCNAT = "srcnat"


class Path(StrEnum):
    """Whom a packet is for: this host, another one, or it is this host's own.

    On the stages before routing, INPUT and FORWARD packets arrive at the same place; a rule
    there tells them apart by the destination's address type.
    """

    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
