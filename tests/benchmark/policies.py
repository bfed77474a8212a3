"""Policies to measure with, of any size; the same ones on every run."""

from __future__ import annotations

from ipaddress import IPv4Address
from random import Random

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


def fleet(count: int) -> str:
    """A policy of as many hosts: web servers, their databases and one gateway."""
    webs, databases = count // 2, count - count // 2 - 1
    names = [f"web{n}" for n in range(webs)], [f"db{n}" for n in range(databases)]
    hosts = [
        f"host {name} {{ address 10.{net}.{n // 250}.{n % 250 + 1}, 2001:db8:{net}::{n + 1:x} }}"
        for net, group in enumerate(names, 1)
        for n, name in enumerate(group)
    ]
    sets = [
        f"set {what} = {', '.join(group)}" for what, group in zip(("web", "db"), names, strict=True)
    ]
    pairs = (f"allow tcp {9000 + n} from web{n % webs} to db{n % databases}" for n in range(40))
    return "\n".join(
        (
            *hosts,
            "host gw { address 198.51.100.1  gateway",
            "  zone wan { interface eth0 }  zone dmz { interface eth1 } }",
            *sets,
            "allow ssh inbound from 10.9.0.0/24",
            "allow postgresql from web to db",
            "allow dns, ntp outbound",
            "allow ping inbound",
            "on web { allow http, https inbound }",
            "on gw { masquerade from dmz to wan  allow https from wan to web }",
            "default deny outbound",
            *pairs,
            "",
        )
    )


def overlapping_rules(count: int, *, seed: int = 7) -> str:
    """A router's policy of as many statements, whose prefixes and port ranges overlap at random."""
    draw = Random(seed)
    lines = [
        "zone wan { interface eth0 }",
        "zone lan { interface eth1 network 10.0.0.0/8, fd00::/16 }",
        "zone dmz { interface eth2 }",
    ]
    lines += (_overlapping_rule(draw) for _ in range(count - len(lines)))
    return "\n".join(lines) + "\n"


def _overlapping_rule(draw: Random) -> str:
    first = draw.randrange(1, 60_000)
    ports = first if draw.random() < 0.6 else f"{first}-{first + draw.choice((10, 100, 5000))}"
    what = f"{draw.choice(('allow', 'allow', 'deny'))} {draw.choice(('tcp', 'udp'))} {ports}"
    place = draw.choice(
        (
            f"inbound from {_any_prefix(draw)}",
            "inbound from wan",
            f"outbound to {_any_prefix(draw)}",
            f"from {_any_prefix(draw)} in wan to lan",
            "from lan to dmz",
            f"from dmz to {_any_prefix(draw)} in wan",
        )
    )
    return f"{what} {place}"


def _any_prefix(draw: Random) -> str:
    if draw.random() < 0.2:
        return f"2001:db8:{draw.randrange(65_536):x}::/48"
    length = draw.choice((8, 12, 16, 20, 24, 28, 32))
    start = draw.choice((10, 172, 192)) << 24 | draw.getrandbits(24)
    return f"{IPv4Address(start >> (32 - length) << (32 - length))}/{length}"


def expectations(count: int, *, seed: int = 8) -> str:
    """A test block of as many expectations, all of which ask and none of which fails."""
    draw = Random(seed)
    lines = "".join(
        f"  expect some deny tcp {draw.randrange(1, 65_000)} inbound from {_any_prefix(draw)}\n"
        for _ in range(count)
    )
    return f'test "what is asked" {{\n{lines}}}\n'


def prefix_list(count: int) -> str:
    """A list file of prefixes that neither overlap nor touch, every fourth of them IPv6."""
    return "".join(f"{prefix}\n" for prefix in map(_prefix, range(count)))


def _prefix(index: int) -> str:
    if index % 4 == 3:
        return f"2001:db8:{index // 2:x}::/48"  # 65,536 of them at most, every second one used
    return f"{IPv4Address((1 << 28) + index * 2048)}/{24 - index % 3}"
