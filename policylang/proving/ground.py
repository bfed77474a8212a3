"""A firewall that rules are tried on: its interfaces, and behind each of them the world.

It knows which interfaces and networks a policy names, and nothing of its rules. The firewall and
the machine at the other end of each wire are namespaces of their own; that machine stands for all
addresses behind its interface.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from policylang.diagnostics import Report
from policylang.model.types import Zone
from policylang.packets.values import (
    V6_BASE,
    Ranges,
    format_address,
    name_pattern,
    name_range,
    parse_one_address,
    prefixes,
)
from policylang.proving.namespaces import Namespace, lay_wire, mac, namespace

LOOPBACK = "lo"
OUTSIDE = "outside0"  # an interface of no zone
NAME_LENGTH = 15  # IFNAMSIZ - 1
MOST_WIRES = 60
MOST_PREFIXES = 64  # of a zone's networks that are laid behind its interface as a whole
AT_ONCE = 2000  # commands of one `ip`

# Neighbours that every packet goes through, so that nobody has to be asked for.
GATEWAYS = ("169.254.77.1", "169.254.77.2", "fe80::77:1", "fe80::77:2")
# Where interfaces without networks have their addresses: none is said to be anybody's.
OWN_POOL = ("198.51.100.", "203.0.113.", "192.0.2.", "9.9.9.", "8.8.8.")
OWN_POOL_V6 = ("2001:db8:ffff::", "2001:db8:77::", "2a00:77::")


@dataclass(frozen=True, slots=True)
class Wire:
    """An interface of the firewall. `zones` are those that it is in, by their names.

    `networks` lie behind it, `own` are the firewall's addresses on it, one of each family.
    """

    name: str
    number: int
    zones: tuple[str, ...]
    networks: Ranges
    own: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """The interfaces of a firewall; what no network holds lies behind `default`.

    `left_out` are interfaces that were too many.
    """

    wires: tuple[Wire, ...]
    default: str
    left_out: tuple[str, ...] = ()

    def wire(self, name: str) -> Wire:
        return next(wire for wire in self.wires if wire.name == name)

    def behind(self, address: int) -> str:
        """The interface by which an address is reached where nothing else is said."""
        found = (wire.name for wire in self.wires if address in wire.networks)
        return next(found, self.default)

    @property
    def own(self) -> tuple[int, ...]:
        """The firewall's addresses."""
        return tuple(address for wire in self.wires for address in wire.own.values())


def plan(zones: Sequence[Zone], names: Iterable[Ranges], named: Ranges) -> Plan:
    """The firewall for a policy of these zones whose rules name these interfaces.

    `named` are all addresses that rules name: what is made up for the firewall is none of them.
    """
    patterns: dict[str, None] = {}
    for ranges in (*(z.interfaces for z in zones if z.interfaces is not None), *names):
        patterns |= dict.fromkeys(_patterns(ranges))
    called = dict.fromkeys(_concrete(pattern, patterns) for pattern in patterns)
    called.pop(LOOPBACK, None)
    if not any(name_range(OUTSIDE)[0] in Ranges.merged([name_range(p)]) for p in patterns):
        called[OUTSIDE] = None
    made = tuple(called)[:MOST_WIRES] or (OUTSIDE,)
    wires = tuple(_wire(name, number, zones, named) for number, name in enumerate(made, 1))
    open_ones = [w.name for w in wires if not w.networks and w.zones]
    return Plan(wires, (open_ones or [wires[-1].name])[0], tuple(called)[MOST_WIRES:])


def _patterns(ranges: Ranges) -> Iterator[str]:
    """The names of a set; of one that is no name and no pattern its two ends, if they are names."""
    for low, high in ranges:
        pattern = name_pattern(low, high)
        if pattern is not None:
            yield pattern


def _concrete(pattern: str, others: Iterable[str]) -> str:
    """A name that a pattern holds, and none of the narrower patterns."""
    if not pattern.endswith("*"):
        return pattern
    stem = pattern.removesuffix("*")
    narrower = [o for o in others if o != pattern and o.startswith(stem)]
    for ending in ("0", "7", "x", "77", "xx"):
        name = f"{stem}{ending}"[:NAME_LENGTH] or OUTSIDE
        number = name_range(name)[0]
        if not any(low <= number <= high for low, high in map(name_range, narrower)):
            return name
    return f"{stem}0"[:NAME_LENGTH]


def _wire(name: str, number: int, zones: Sequence[Zone], named: Ranges) -> Wire:
    of_it = [z for z in zones if z.interfaces is not None and name_range(name)[0] in z.interfaces]
    if name == OUTSIDE and not of_it:
        of_it = [z for z in zones if z.interfaces is None]
    networks = Ranges()
    for zone in of_it:
        networks |= zone.networks or Ranges()
    own = {family: _own(family, number, networks, named) for family in (4, 6)}
    in_zones = tuple(z.name for z in of_it if z.interfaces is not None)
    return Wire(name, number, in_zones, networks, own)


def _own(family: int, number: int, networks: Ranges, named: Ranges) -> int:
    """An address of the firewall: in the networks behind that interface, or made up."""
    for low, high in networks:
        if (low >= V6_BASE) == (family == 6) and high - low > 1:
            return low + min(number, high - low - 1)
    pool = OWN_POOL if family == 4 else OWN_POOL_V6
    found = [n for stem in pool if (n := parse_one_address(f"{stem}{200 + number % 50}"))]
    return next((n for n in found if n not in named), found[0])


# --- laying it --------------------------------------------------------------------------------


@dataclass(slots=True)
class Ground:
    """A firewall in a namespace, and behind each interface a namespace of its own.

    `roles` says of single addresses where they are, other than the plan has it: behind the
    interface of that name, or at the firewall itself (None).
    """

    plan: Plan
    firewall: Namespace
    peers: Mapping[str, Namespace]
    roles: dict[int, str | None] = field(default_factory=dict)

    def place(self, roles: Mapping[int, str | None]) -> None:
        """Put single addresses where they belong, and those of an earlier call back."""
        gone = [a for a, where in self.roles.items() if roles.get(a, "") != where]
        new = [a for a in roles if a in gone or a not in self.roles]
        commands = [_placing(a, self.roles[a], is_new=False) for a in gone]
        commands += [_placing(a, roles[a], is_new=True) for a in new]
        self.roles = dict(roles)
        for start in range(0, len(commands), AT_ONCE):
            self.firewall.ip(commands[start : start + AT_ONCE])


def _placing(address: int, where: str | None, *, is_new: bool) -> str:
    text = format_address(address)
    length = 128 if address >= V6_BASE else 32
    if where is None:
        flags = " nodad" if is_new and length == 128 else ""
        return f"addr {'add' if is_new else 'del'} {text}/{length} dev {LOOPBACK}{flags}"
    verb = "replace" if is_new else "del"
    return f"route {verb} {text}/{length} {_via(where, address)}"


def _via(name: str, address: int) -> str:
    gateway = GATEWAYS[3] if address >= V6_BASE else GATEWAYS[1]
    return f"via {gateway} dev {name} onlink"


# What a firewall needs in order to be judged packet by packet.
SETTINGS = (
    ("ipv4.ip_forward", "1"),
    ("ipv6.conf.all.forwarding", "1"),
    *((f"ipv4.conf.{scope}.rp_filter", "0") for scope in ("all", "default")),
    *((f"ipv4.conf.{scope}.send_redirects", "0") for scope in ("all", "default")),
    *((f"ipv4.conf.{scope}.accept_local", "1") for scope in ("all", "default")),
    ("ipv6.auto_flowlabels", "0"),
    # Every reject is answered, however many there are.
    ("ipv4.icmp_ratelimit", "0"),
    ("ipv4.icmp_msgs_per_sec", "1000000"),
    ("ipv4.icmp_msgs_burst", "1000000"),
    ("ipv6.icmp.ratelimit", "0"),
)
SILENT = tuple((f"ipv6.conf.{scope}.disable_ipv6", "1") for scope in ("all", "default"))


@contextmanager
def laid(plan: Plan, report: Report) -> Iterator[Ground | None]:
    """The firewall of a plan, without rules; everything is gone afterwards.

    None, and `not-permitted`, where this process may make no namespaces. Raises GroundError where
    the kernel refuses what is needed.
    """
    with ExitStack() as stack:
        firewall = namespace(stack, report)
        if firewall is None:
            yield None
            return
        firewall.settings(SETTINGS)
        peers: dict[str, Namespace] = {}
        for wire in plan.wires:
            peer = namespace(stack, report)
            if peer is None:
                yield None
                return
            peer.settings(SILENT)
            lay_wire(firewall, wire.name, wire.number, peer)
            peers[wire.name] = peer
        firewall.ip(_addresses(plan))
        yield Ground(plan, firewall, peers)


def _addresses(plan: Plan) -> Iterator[str]:
    for wire in plan.wires:
        far = mac(wire.number, is_far=True).hex(":")
        for gateway in (GATEWAYS[1], GATEWAYS[3]):
            yield f"neigh replace {gateway} lladdr {far} dev {wire.name} nud permanent"
        for family, address in wire.own.items():
            length, flags = (32, "") if family == 4 else (128, " nodad")
            yield f"addr add {format_address(address)}/{length} dev {wire.name}{flags}"
        for low, high in wire.networks.pairs[:MOST_PREFIXES]:
            if plan.behind(low) != wire.name:
                continue
            for base, length in prefixes(low, high):
                yield f"route replace {format_address(base)}/{length} {_via(wire.name, base)}"
    for everything in ("0.0.0.0/0", "::/0"):
        family = V6_BASE if ":" in everything else 0
        yield f"route replace {everything} {_via(plan.default, family)}"
