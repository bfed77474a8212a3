"""`untracked`: conntrack knows nothing of the traffic, and rules hold for both its directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .applied import apply_text
from .examples import forget_connections
from .ground import Addresses, Family, Ground, Loader, Namespace, Reach, ground, ping
from .mirror import Seen, Visit, all_seen_as_expected, mirrors

ZONES = "zone wan { interface wan0 }\nzone lan { interface lan0 }\nzone dmz { interface dmz0 }\n"
CLOSED = "default deny inbound\ndefault deny outbound\ndefault deny forward\n"
DNS, HTTP, HIGH = PORTS = (53, 80, 8053)
NOBODY = 5353  # a port on which nobody listens
BOTH = ("tcp", "udp")

# The words for the way, who asks and who answers.
WAYS = {
    "inbound": ("wan", "self"),
    "outbound": ("self", "wan"),
    "from lan to wan": ("lan", "wan"),
}
on_each_way = pytest.mark.parametrize("way", WAYS)


@dataclass(frozen=True, slots=True)
class Router:
    """A router that takes policies by one loader, with a machine in each zone that answers."""

    laid: Ground
    loader: Loader
    directory: Path

    def apply(self, statements: str) -> None:
        """Apply a policy, its zones being there and all else closed; no connection is known."""
        policy = ZONES + CLOSED + statements
        apply_text(policy, self.loader, self.laid.firewall, self.directory)
        forget_connections(self.laid.firewall)

    def machine(self, zone: str) -> Namespace:
        return self.laid.firewall if zone == "self" else self.laid[zone].neighbour

    def visits(
        self,
        start: str,
        goal: str,
        port: int,
        protocols: Iterable[str] = BOTH,
        *,
        came: bool | Reach = True,
        source_port: int = 0,
    ) -> Iterator[Visit]:
        """Questions from a machine to another one, which are answered, or what comes instead."""
        target = self.laid[start].near if goal == "self" else self.laid[goal].far
        source: Addresses = self.laid[goal].near if start == "self" else self.laid[start].far
        for family in Family:
            seen = Seen(goal, source.of(family), target.of(family), port)
            expected = came if isinstance(came, Reach) else seen if came else Reach.TIMEOUT
            for protocol in protocols:
                yield Visit(
                    self.machine(start),
                    target.of(family),
                    port,
                    expected,
                    protocol,
                    source_port=source_port,
                )

    def known_ports(self) -> set[int]:
        """The ports of all connections that conntrack knows."""
        found: set[int] = set()
        for family in ("ipv4", "ipv6"):
            listing = self.laid.firewall.run(["conntrack", "-L", "-f", family]).stdout
            words = (word for word in listing.split() if word.startswith("dport="))
            found |= {int(word.partition("=")[2]) for word in words}
        return found


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def router(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Router]:
    """Such a router, for each way to load policies into it."""
    directory = tmp_path_factory.mktemp("untracked")
    with ground("wan", "lan", "dmz") as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        with (
            mirrors(laid.firewall, "self", PORTS),
            mirrors(laid["wan"].neighbour, "wan", PORTS),
            mirrors(laid["lan"].neighbour, "lan", PORTS),
        ):
            yield Router(laid, request.param, directory)


@on_each_way
def test_an_exchange_that_conntrack_does_not_see(router: Router, way: str) -> None:
    """Questions and answers pass by the rule that allows them, and nothing is known of them."""
    start, goal = WAYS[way]
    router.apply(f"untracked dns {way}\nallow dns, tcp {HTTP}, udp {HTTP} {way}\n")
    all_seen_as_expected((*router.visits(start, goal, DNS), *router.visits(start, goal, HTTP)))
    known = router.known_ports()
    assert HTTP in known, "the control: conntrack knows the rest"
    assert DNS not in known


@on_each_way
def test_it_allows_nothing(router: Router, way: str) -> None:
    """What this host is not to send fails at once, over UDP; everything else is silent."""
    start, goal = WAYS[way]
    router.apply(f"untracked dns {way}\n")
    udp = Reach.UNREACHABLE if start == "self" else Reach.TIMEOUT
    all_seen_as_expected(
        (
            *router.visits(start, goal, DNS, ["tcp"], came=False),
            *router.visits(start, goal, DNS, ["udp"], came=udp),
        )
    )


def test_no_more_than_it_says_is_untracked(router: Router) -> None:
    """Not the other way round, and not what this host sends to itself."""
    router.apply(
        "untracked udp 53 from wan to self\nallow all outbound\nallow all from lan to wan\n"
    )
    all_seen_as_expected(
        (
            *router.visits("self", "wan", DNS),
            *router.visits("lan", "wan", DNS),
        )
    )
    assert DNS in router.known_ports()


@on_each_way
def test_errors_about_it_come_back(router: Router, way: str) -> None:
    """Conntrack cannot tell what an ICMP error is about, so those that go there pass."""
    start, goal = WAYS[way]
    refused = list(router.visits(start, goal, NOBODY, ["udp"], came=Reach.REFUSED))
    router.apply(f"untracked udp {NOBODY} {way}\nallow udp {NOBODY} {way}\n")
    all_seen_as_expected(refused)


def test_pings(router: Router) -> None:
    """The answer to an echo request is an echo reply."""
    router.apply("untracked ping inbound\nallow ping inbound\n")
    target = router.laid["wan"].near
    for family in Family:
        assert ping(router.machine("wan"), target.of(family))
        assert not ping(router.machine("self"), router.laid["wan"].far.of(family), 0.2)
    listing = router.laid.firewall.run(["conntrack", "-L"]).stdout
    assert "icmp" not in listing


@pytest.mark.parametrize(
    ("rules", "came"),
    [
        ("deny dns inbound from FAR\nallow dns inbound\n", False),
        ("deny all from self to FAR\nallow dns inbound\n", False),
        ("allow dns inbound\ndeny all outbound\n", True),
        ("allow dns inbound limit 1000/second burst 100 per source\n", True),
        ("deny dns inbound limit over 1000/second burst 100 per source\nallow dns inbound\n", True),
        ("allow dns inbound mac MAC\n", False),
        ("allow dns inbound mac MAC\nallow all outbound\n", True),
        ("allow dns inbound during 00:00-24:00 ipv4\nallow dns inbound ipv6\n", True),
    ],
    ids=["banned", "answer banned", "above", "rate", "over", "mac", "mac outbound", "times"],
)
def test_rules_are_read_for_answers_at_their_place(router: Router, rules: str, came: bool) -> None:
    """A ban above stops both, and a rule that asks for more than answers tell leaves them."""
    wan = router.laid["wan"]
    told = rules.replace("FAR", f"{wan.far.ipv4}, {wan.far.ipv6}").replace("MAC", wan.far_mac)
    router.apply(f"untracked dns inbound\n{told}")
    all_seen_as_expected(router.visits("wan", "self", DNS, came=came))


def test_what_pretends_to_be_an_answer(router: Router) -> None:
    """An answer opens no TCP connection, and goes to the ports that a rule gives its clients."""
    router.apply("untracked dns outbound\nallow dns outbound source port 1024-65535\n")
    all_seen_as_expected(
        (
            *router.visits("self", "wan", DNS),
            *router.visits("dmz", "self", HTTP, source_port=DNS, came=False),
            *router.visits("dmz", "self", HIGH, ["tcp"], source_port=DNS, came=False),
            *router.visits("dmz", "self", HIGH, ["udp"], came=False),
        )
    )
