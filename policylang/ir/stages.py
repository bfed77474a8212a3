"""The stages of a packet's way and the paths it takes; a target maps each pair to its place."""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """What is done to a packet, in the order in which it happens."""

    SCREEN = "screen"  # before conntrack: packets that no connection is to come of
    UNTRACK = "untrack"
    SCREEN_STATE = "screen-state"  # the same, by what conntrack made of them
    ASSIGN_HELPER = "assign-helper"
    MARK = "mark"  # marks and code points, by what they were before any translation
    TPROXY = "tproxy"  # what is delivered to a local proxy, its addresses as they are
    DSTNAT = "dstnat"
    TREAT = "treat"  # changes of packets whose way out is known
    FILTER = "filter"
    INSPECT = "inspect"  # what passed FILTER and is handed to a program that may still drop it
    SRCNAT = "srcnat"


class Path(StrEnum):
    """Whom a packet is for: this host, another one, or it is this host's own.

    On the stages before routing, INPUT and FORWARD packets arrive at the same place; a rule
    there tells them apart by the destination's address type. UNTRACK, MARK, TPROXY and DSTNAT
    have one chain for both, on INPUT, for the first rule that matches decides; SRCNAT has one for
    all that leaves, on FORWARD, where this host's own packets have a local source and no IIF.
    """

    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
