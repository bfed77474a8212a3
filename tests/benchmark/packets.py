"""What a packet that opens a connection costs, by the number of rules and by target.

Packets are counted and dropped behind the firewall's filter, so that none becomes a connection
and every one is the first of its own. The rulesets take turns, round by round: what disturbs
the machine disturbs them all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.benchmark.injection import Volley, udp_frame
from tests.benchmark.policies import host, host_rules
from tests.benchmark.quiet import undisturbed
from tests.kernel.ground import Ground, Loader, Namespace, ground, load_nft

FEW, MANY = 100, 10_000
ROUNDS = 15
VOLLEYS = 12  # a round
FRAMES = 512  # a volley
SOURCE_PORT = 40_000
STRANGER = "192.0.2.200"  # that no rule names

COUNTING = """\
table inet counting {{
  chain arrived {{
    type filter hook prerouting priority -500
    meta l4proto udp counter
  }}
  chain passed {{
    type filter hook input priority filter + 10
    meta l4proto udp {state} counter drop
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A firewall to measure: `rules` of one verdict, loaded one way (None: nothing is)."""

    name: str
    loader: Loader | None
    rules: int
    with_conntrack: bool = True


NOTHING = Case("nothing loaded", None, 0, with_conntrack=False)
CONNTRACK = Case("conntrack alone", None, 0)
CASES = (
    NOTHING,
    CONNTRACK,
    *(
        Case(f"{loader.value}, {rules:,} rules", loader, rules)
        for loader in Loader
        for rules in (FEW, MANY)
    ),
)


class Packets(Enum):
    """What is shot at a firewall."""

    ALLOWED = "allowed"  # by rules from the first to the last, evenly
    DENIED = "denied"  # no rule is about the sender


@dataclass(frozen=True, slots=True)
class Cost:
    """ns for a packet, a value a round."""

    case: Case
    packets: Packets
    ns: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Firewall:
    """A firewall that was loaded, and what is shot at it."""

    case: Case
    namespace: Namespace
    volleys: Mapping[Packets, Volley]


def measure(directory: Path) -> tuple[Cost, ...]:
    """The costs of all cases; raises AssertionError where a firewall counts wrongly."""
    with ExitStack() as stack:
        firewalls = [stack.enter_context(_firewall(case, directory)) for case in CASES]
        costs = {(f.case, packets): list[float]() for f in firewalls for packets in f.volleys}
        with undisturbed():
            for _ in range(ROUNDS):
                for firewall in firewalls:
                    for packets, volley in firewall.volleys.items():
                        costs[firewall.case, packets].append(volley.ns_per_packet(VOLLEYS))
        for firewall in firewalls:
            _check_counts(firewall)
    return tuple(Cost(case, packets, tuple(ns)) for (case, packets), ns in costs.items())


@contextmanager
def _firewall(case: Case, directory: Path) -> Iterator[_Firewall]:
    with ground("wan") as laid, ExitStack() as stack:
        here, wan = laid.firewall, laid["wan"]
        here.ip(f"route add default via {wan.far.ipv4}")  # senders are not spoofed
        if case.loader is not None:
            case.loader.load(host_rules(case.rules), here, directory)
        load_nft(COUNTING.format(state="ct state new" if case.with_conntrack else ""), here)
        rules = case.rules or MANY
        named = [host(index * rules // FRAMES) for index in range(FRAMES)]
        senders = {Packets.ALLOWED: named}
        if case.loader is not None:
            senders[Packets.DENIED] = [(STRANGER, port) for _, port in named]
        volleys = {packets: _volley(laid, frames) for packets, frames in senders.items()}
        for volley in volleys.values():
            stack.callback(volley.close)
        yield _Firewall(case, here, volleys)


def _volley(laid: Ground, named: Sequence[tuple[str, int]]) -> Volley:
    wan = laid["wan"]
    macs = (_mac(wan.neighbour, "eth0"), _mac(laid.firewall, wan.interface))
    frames = [
        udp_frame(macs, address, wan.near.ipv4, (SOURCE_PORT, port)) for address, port in named
    ]
    return Volley(wan.neighbour, "eth0", frames)


def _mac(namespace: Namespace, interface: str) -> bytes:
    listing = namespace.run(["ip", "-json", "link", "show", "dev", interface]).stdout
    return bytes.fromhex(json.loads(listing)[0]["address"].replace(":", ""))


def _check_counts(firewall: _Firewall) -> None:
    sent = ROUNDS * VOLLEYS * FRAMES
    listing = firewall.namespace.run(["nft", "-j", "list", "table", "inet", "counting"]).stdout
    counted = {
        rule["chain"]: sum(e["counter"]["packets"] for e in rule["expr"] if "counter" in e)
        for entry in json.loads(listing)["nftables"]
        if (rule := entry.get("rule")) is not None
    }
    wanted = {"arrived": sent * len(firewall.volleys), "passed": sent}
    assert counted == wanted, f"{firewall.case.name}: {counted}, not {wanted}"
