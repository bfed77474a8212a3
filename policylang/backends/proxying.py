"""How packets for a transparent proxy come to this host: a routing rule and a route for it.

They are words for ip(8), the same for every target. TPROXY marks a packet before routing; the
rule takes marked packets to a table of their own, in which every address is this host's.
"""

from __future__ import annotations

from policylang.ir.ruleset import ProxyRoute

# Behind `local` (0), before what VPNs and VRFs put there (l3mdev 1000, Tailscale 5210, wg-quick
# 32764): a packet for the proxy takes no other way.
PRIORITY = 700
# `pl` in ASCII: far from the numbers that people and rt_tables(5) give (up to 255, often 100).
TABLE = 0x706C
# Who made a rule or a route (rtnetlink(7), RTPROT): none of those in rt_protos is this one.
PROTOCOL = 112

ROUTE = f"local default dev lo table {TABLE} protocol {PROTOCOL}"


def rule(value: int, mask: int) -> str:
    """The rule for packets with such a mark, as `ip rule add` and `ip rule del` take it."""
    return f"fwmark {value:#x}/{mask:#x} priority {PRIORITY} table {TABLE} protocol {PROTOCOL}"


def commands(route: ProxyRoute) -> tuple[str, ...]:
    """What `ip -4 -batch` and `ip -6 -batch` carry out: no packet is taken to an empty table."""
    return f"route add {ROUTE}", f"rule add {rule(route.value, route.mask)}"
