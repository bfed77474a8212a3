"""Policies to measure with, of any size; the same ones on every run."""

from __future__ import annotations

from ipaddress import IPv4Address

FIVE_SERVICES = """\
zone wan { interface wan0 }
set admins = 192.0.2.0/24, 2001:db8:1::/48

allow http, https, ftp inbound from wan
allow ssh inbound from admins
allow ping inbound
"""

HOSTS = int(IPv4Address("198.18.0.0"))  # 198.18.0.0/15: RFC 2544, for benchmarks
FEWEST_PORT = 1024
PORTS = 60_000


def host(index: int) -> tuple[str, int]:
    """The address and port of the rule with that index, no two of which are alike."""
    return str(IPv4Address(HOSTS + index * 3)), FEWEST_PORT + index * 7919 % PORTS


def host_rules(count: int) -> str:
    """As many rules of one verdict, each for a host and a port."""
    return "".join(f"allow udp {p} inbound from {a}\n" for a, p in map(host, range(count)))


def prefix_list(count: int) -> str:
    """A list file of prefixes that neither overlap nor touch, every fourth of them IPv6."""
    return "".join(f"{prefix}\n" for prefix in map(_prefix, range(count)))


def _prefix(index: int) -> str:
    if index % 4 == 3:
        return f"2001:db8:{index // 2:x}::/48"  # 65,536 of them at most, every second one used
    return f"{IPv4Address((1 << 28) + index * 2048)}/{24 - index % 3}"
