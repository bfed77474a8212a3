"""A firewall that lets nothing pass: what rules do is what they do otherwise than it."""

from __future__ import annotations

from policylang.analysis.machine import Base, Hook, Machine

FILTER = 0  # NF_IP_PRI_FILTER, linux/netfilter_ipv4.h


def closed(families: tuple[int, ...] = (4, 6)) -> Machine:
    """A machine that drops every packet of these families on its way in, through and out."""
    hooks = (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT)
    bases = tuple(Base(hook, FILTER, f"closed-{hook}", families, drops=True) for hook in hooks)
    return Machine(bases, {base.chain: () for base in bases})
