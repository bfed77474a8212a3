"""Destination translation: who is met under which address and port, and what stays closed.

The way from `wan` to the inner addresses is there: where one of them is not met directly, the
rules keep it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest

from .ground import Family, Loader, Reach, load_nft
from .mirror import MUST_FAIL_S, Seen, Visit, all_seen_as_expected, look, mirrors
from .router import Router, behind, router, secondary

PROTOCOLS = ("tcp", "udp")
SSH, DNS, HTTP, NEW, PROXY = 22, 53, 80, 2222, 3128
OLD_RANGE, NEW_RANGE = range(8000, 8004), range(9000, 9004)
NOBODY = 7  # no machine listens there
PORTS = (SSH, DNS, HTTP, NEW, PROXY, *OLD_RANGE, *NEW_RANGE)

OWN = {Family.IPV4: "192.0.2.7", Family.IPV6: "2001:db8:2::7"}  # a second one of the router
NOT_OWN = {Family.IPV4: "192.0.2.9", Family.IPV6: "2001:db8:2::9"}
CLIENTS = {
    Family.IPV4: tuple(f"192.0.2.{n}" for n in range(101, 117)),
    Family.IPV6: tuple(f"2001:db8:2::{n:x}" for n in range(0x101, 0x111)),
}


@pytest.fixture(scope="module", params=Loader, ids=lambda loader: loader.value)
def nat(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Router]:
    """A router that policies are applied to, for each way to load them."""
    directory = tmp_path_factory.mktemp("forward")
    with router(request.param, directory, PORTS) as laid, pytest.MonkeyPatch.context() as patch:
        # Legacy iptables takes one lock for the whole machine unless told another.
        patch.setenv("XTABLES_LOCKFILE", str(directory / "lock"))
        wan = laid.laid["wan"]
        laid.firewall.ip(*(secondary(address, "lo") for address in OWN.values()))
        for family in Family:
            laid.inhabit("wan", *CLIENTS[family])
            behind(wan, OWN[family], NOT_OWN[family])
        yield laid


def inner(nat: Router, *families: Family) -> str:
    """The machine in `lan`, as a policy writes it."""
    return ", ".join(nat.far("lan", family) for family in families or Family)


def met(nat: Router, family: Family, zone: str, port: int, source: str = "") -> Seen:
    """The machine of a zone, by a client in `wan`."""
    return Seen(zone, source or nat.far("wan", family), nat.far(zone, family), port)


def visit(
    nat: Router,
    family: Family,
    target: str,
    port: int,
    expected: Seen | Reach,
    *,
    zone: str = "wan",
    protocol: str = "tcp",
    source: str = "",
) -> Visit:
    """From the machine of a zone."""
    return Visit(nat.client(zone), target, port, expected, protocol, source)


# --- dnat ------------------------------------------------------------------------------------


def test_dnat(nat: Router) -> None:
    """Any address of the router leads to the target, for those in the zone that it names."""
    nat.apply(f"dnat tcp 80, udp 80 from wan to {inner(nat)}\n")
    tries = []
    for family, protocol in product(Family, PROTOCOLS):
        here = met(nat, family, "lan", HTTP)
        for target in (nat.near("wan", family), nat.near("dmz", family), OWN[family]):
            tries.append(visit(nat, family, target, HTTP, here, protocol=protocol))
        closed = [
            (nat.near("wan", family), SSH),
            (nat.far("lan", family), HTTP),
            (nat.far("dmz", family), HTTP),
            (NOT_OWN[family], HTTP),
        ]
        for target, port in closed:
            tries.append(visit(nat, family, target, port, Reach.TIMEOUT, protocol=protocol))
        for zone in ("dmz", "lan"):
            tries.append(
                visit(
                    nat,
                    family,
                    nat.near(zone, family),
                    HTTP,
                    Reach.TIMEOUT,
                    zone=zone,
                    protocol=protocol,
                )
            )
    all_seen_as_expected(tries)


def test_dnat_to_another_port(nat: Router) -> None:
    """Neither port of the target is open directly, nor the new one at the router."""
    statement = f"dnat tcp 2222, udp 2222 from wan to {inner(nat)} port 22\n"
    places = list(product(Family, PROTOCOLS, ("wan", "lan"), (SSH, NEW)))
    nat.apply(statement)
    tries = []
    for family, protocol, zone, port in places:
        target = nat.near("wan", family) if zone == "wan" else nat.far("lan", family)
        expected: Seen | Reach = Reach.TIMEOUT
        if (zone, port) == ("wan", NEW):
            expected = met(nat, family, "lan", SSH)
        tries.append(visit(nat, family, target, port, expected, protocol=protocol))
    all_seen_as_expected(tries)
    # The control: the way is there, and rules that open it are enough.
    ports = "tcp 22, 2222, udp 22, 2222"
    nat.apply(f"allow {ports} from wan to self\nallow {ports} from wan to lan\n")
    tries = []
    for family, protocol, zone, port in places:
        own = zone == "wan"
        target = nat.near("wan", family) if own else nat.far("lan", family)
        expected = Seen("self" if own else "lan", nat.far("wan", family), target, port)
        tries.append(visit(nat, family, target, port, expected, protocol=protocol))
    all_seen_as_expected(tries)


def test_dnat_of_a_range_of_ports(nat: Router) -> None:
    """As many new ports as old ones go one to one; one new port takes them all."""
    target = inner(nat)
    words = {"9000-9003": dict(zip(OLD_RANGE, NEW_RANGE, strict=True))}
    words["80"] = dict.fromkeys(OLD_RANGE, HTTP)
    for word, becomes in words.items():
        nat.apply(f"dnat tcp 8000-8003 from wan to {target} port {word}\n")
        tries = []
        for family, port in product(Family, OLD_RANGE):
            own = nat.near("wan", family)
            tries.append(visit(nat, family, own, port, met(nat, family, "lan", becomes[port])))
            for closed, at in (
                (port, nat.far("lan", family)),
                (becomes[port], nat.far("lan", family)),
                (becomes[port], own),
            ):
                tries.append(visit(nat, family, at, closed, Reach.TIMEOUT))
        all_seen_as_expected(tries)


def test_dnat_at_an_address(nat: Router) -> None:
    """`at` is the address that is dialled, be it the router's own or not."""
    for at in (OWN, NOT_OWN):
        nat.apply(f"dnat http from wan at {', '.join(at.values())} to {inner(nat)}\n")
        tries = []
        for family in Family:
            tries.append(visit(nat, family, at[family], HTTP, met(nat, family, "lan", HTTP)))
            for other in {nat.near("wan", family), OWN[family], NOT_OWN[family]} - {at[family]}:
                tries.append(visit(nat, family, other, HTTP, Reach.TIMEOUT))
        all_seen_as_expected(tries)


def test_dnat_of_whatever_is_dialled(nat: Router) -> None:
    """`at any` catches a service wherever it was meant to go: name look-ups, say."""
    resolver = ", ".join(nat.far("dmz", family) for family in Family)
    nat.apply(f"dnat udp 53 from lan at any to {resolver}\n")
    tries = []
    for family in Family:
        source = nat.far("lan", family)
        expected = Seen("dmz", source, nat.far("dmz", family), DNS)
        for target in (nat.far("wan", family), nat.near("lan", family), NOT_OWN[family]):
            tries.append(visit(nat, family, target, DNS, expected, zone="lan", protocol="udp"))
    all_seen_as_expected(tries)


def test_dnat_of_what_goes_to_a_zone(nat: Router) -> None:
    """`at` a zone is whatever goes there; exceptions go their own way."""
    goal = ", ".join(nat.far("dmz", family) for family in Family)
    spared = ", ".join(CLIENTS[family][0] for family in Family)
    nat.apply(f"dnat http from lan at wan except {spared} to {goal}\nallow http from lan to wan\n")
    tries = []
    for family in Family:
        source, dmz, free = nat.far("lan", family), nat.far("dmz", family), CLIENTS[family][0]
        translated = Seen("dmz", source, dmz, HTTP)
        for target, expected in (
            (nat.far("wan", family), translated),
            (CLIENTS[family][1], translated),
            (free, Seen("wan", source, free, HTTP)),
            (nat.near("lan", family), Reach.TIMEOUT),
            (dmz, Reach.TIMEOUT),
        ):
            tries.append(visit(nat, family, target, HTTP, expected, zone="lan"))
    all_seen_as_expected(tries)


def test_dnat_and_then_masquerade(nat: Router) -> None:
    """What is translated on the way in may be translated on the way out, by what it became."""
    nat.apply(
        f"dnat tcp 2222, tcp 8000 from wan to {inner(nat)} port 80\n"
        f"dnat tcp 53 from wan to {inner(nat)}\n"
        "masquerade http from wan to lan ipv4\nmasquerade http from wan to lan ipv6\n"
    )
    tries = []
    for family in Family:
        own, target = nat.near("wan", family), nat.far("lan", family)
        for dialled, port, source in (
            (NEW, HTTP, nat.near("lan", family)),
            (OLD_RANGE[0], HTTP, nat.near("lan", family)),
            (DNS, DNS, nat.far("wan", family)),
        ):
            tries.append(visit(nat, family, own, dialled, Seen("lan", source, target, port)))
    all_seen_as_expected(tries)


def test_errors_from_behind_come_back(nat: Router) -> None:
    """Where nobody listens behind the router, the client is told by the address it dialled."""
    nat.apply(f"dnat tcp {NOBODY}, udp {NOBODY} from wan to {inner(nat)}\n")
    all_seen_as_expected(
        visit(nat, family, nat.near("wan", family), NOBODY, Reach.REFUSED, protocol=protocol)
        for family, protocol in product(Family, PROTOCOLS)
    )


def test_dnat_of_one_family_leaves_the_other(nat: Router) -> None:
    """A target of one family translates that one alone; the other meets the router itself."""
    for family in Family:
        nat.apply(f"dnat http from wan to {inner(nat, family)}\nallow http inbound\n")
        tries = []
        for each in Family:
            own = nat.near("wan", each)
            expected = met(nat, each, "lan", HTTP)
            if each is not family:
                expected = Seen("self", nat.far("wan", each), own, HTTP)
            tries.append(visit(nat, each, own, HTTP, expected))
        all_seen_as_expected(tries)


def test_dnat_under_conditions(nat: Router) -> None:
    """What does not meet the conditions is neither translated nor let in."""
    nat.apply(f"dnat http from wan to {inner(nat)} source port 5000-5009\n")
    tries = []
    for family in Family:
        own = nat.near("wan", family)
        for source_port, expected in (
            (5003, met(nat, family, "lan", HTTP)),
            (5103, Reach.TIMEOUT),
        ):
            tries.append(Visit(nat.client("wan"), own, HTTP, expected, source_port=source_port))
    all_seen_as_expected(tries)


# --- order -----------------------------------------------------------------------------------


def test_a_rule_above_that_denies_wins(nat: Router) -> None:
    """A statement stands at its place: denials before it hold, and those behind it do not."""
    forward = f"dnat http from wan to {inner(nat)}\n"
    by_source = ", ".join(CLIENTS[family][0] for family in Family)
    by_both = ", ".join(CLIENTS[family][1] for family in Family)
    denials = (
        f"deny all from {by_source} to any\n"
        f"deny http from {by_both} to {inner(nat)}\n"  # what it was translated to
    )
    for is_above in (True, False):
        nat.apply(denials + forward if is_above else forward + denials)
        tries = []
        for family, number in product(Family, range(3)):
            own, client = nat.near("wan", family), CLIENTS[family][number]
            expected: Seen | Reach = met(nat, family, "lan", HTTP, client)
            if is_above and number < 2:
                expected = Reach.TIMEOUT
            tries.append(visit(nat, family, own, HTTP, expected, source=client))
        all_seen_as_expected(tries)


def test_the_first_dnat_decides(nat: Router) -> None:
    """In the order written: who is met by the first meets nobody else."""
    to_lan = f"dnat http from wan to {inner(nat)}\n"
    targets = ", ".join(nat.far("dmz", family) for family in Family)
    some = ", ".join(CLIENTS[family][0] for family in Family)
    to_dmz = f"dnat http from {some} to {targets}\n"
    for statements, zone in ((to_dmz + to_lan, "dmz"), (to_lan + to_dmz, "lan")):
        nat.apply(statements)
        tries = []
        for family in Family:
            own, special = nat.near("wan", family), CLIENTS[family][0]
            here = met(nat, family, zone, HTTP, special)
            tries.append(visit(nat, family, own, HTTP, here, source=special))
            tries.append(visit(nat, family, own, HTTP, met(nat, family, "lan", HTTP)))
        all_seen_as_expected(tries)


def test_what_one_dnat_lets_in_no_other_translation_does(nat: Router) -> None:
    """Connections to the same inner port pass if they were dialled as the statement says."""
    netmap = "netmap 192.0.2.8/29 to 198.51.100.0/29 on wan\n"
    mapped = "192.0.2.10"  # the machine in `lan`
    behind(nat.laid["wan"], mapped)
    ipv4, lan = Family.IPV4, inner(nat, Family.IPV4)
    nat.apply(
        f"dnat tcp 53 from wan at {OWN[ipv4]} to {lan}\n"
        f"dnat tcp 2222 from wan to {lan} port 22\n"
        f"dnat tcp 8000 from dmz to {lan} port 22\n"
        f"dnat http from wan to {lan}\n" + netmap
    )
    own, dmz = nat.near("wan", ipv4), nat.near("dmz", ipv4)
    by_dmz = Seen("lan", nat.far("dmz", ipv4), lan, SSH)
    all_seen_as_expected(
        (
            visit(nat, ipv4, OWN[ipv4], DNS, met(nat, ipv4, "lan", DNS)),
            visit(nat, ipv4, own, DNS, Reach.TIMEOUT),
            visit(nat, ipv4, own, NEW, met(nat, ipv4, "lan", SSH)),
            visit(nat, ipv4, own, OLD_RANGE[0], Reach.TIMEOUT),
            visit(nat, ipv4, own, HTTP, met(nat, ipv4, "lan", HTTP)),
            *(visit(nat, ipv4, mapped, port, Reach.TIMEOUT) for port in (DNS, SSH, NEW, HTTP)),
            visit(nat, ipv4, dmz, OLD_RANGE[0], by_dmz, zone="dmz"),
            visit(nat, ipv4, dmz, NEW, Reach.TIMEOUT, zone="dmz"),
        )
    )
    # The control: `netmap` does translate.
    nat.apply(netmap + f"allow ssh from wan to {lan}\n")
    all_seen_as_expected([visit(nat, ipv4, mapped, SSH, met(nat, ipv4, "lan", SSH))])


# --- several targets -------------------------------------------------------------------------


def targets(nat: Router, family: Family) -> dict[str, str]:
    """Three machines that can be met, by what they call themselves."""
    known = {zone: nat.far(zone, family) for zone in ("lan", "dmz")}
    return {**known, "other": nat.other_addresses.of(family)}


def served(nat: Router, family: Family, client: str) -> str:
    """Who serves a client."""
    outcome = look(nat.client("wan"), nat.near("wan", family), HTTP, source=client)
    assert isinstance(outcome, Seen), outcome
    assert outcome.source == client
    return outcome.server


def test_several_targets_take_turns(nat: Router) -> None:
    """Each gets its share of the connections, each family for itself."""
    written = ", ".join(a for family in Family for a in targets(nat, family).values())
    nat.apply(f"dnat http from wan to {written}\n")
    for family in Family:
        shares = Counter(served(nat, family, CLIENTS[family][0]) for _ in range(12))
        assert shares == dict.fromkeys(targets(nat, family), 4)


def test_several_targets_by_source(nat: Router) -> None:
    """With `by source` each client has its own, and all are used."""
    written = ", ".join(a for family in Family for a in targets(nat, family).values())
    nat.apply(f"dnat http from wan to {written} by source\n")
    for family in Family:
        found = {
            client: {served(nat, family, client) for _ in range(3)} for client in CLIENTS[family]
        }
        assert all(len(one) == 1 for one in found.values()), found
        assert len(set.union(*found.values())) > 1


# --- connections of this host, and hairpin ---------------------------------------------------


def test_dnat_of_own_connections(nat: Router) -> None:
    """`from self` translates what this host dials, at an address or at its own ones."""
    goal = ", ".join(nat.far("dmz", family) for family in Family)
    closed = "default deny outbound\n"
    for at, dialled in (
        (f"at {', '.join(NOT_OWN.values())} ", NOT_OWN),
        ("", {family: nat.near("wan", family) for family in Family}),
    ):
        nat.apply(f"dnat tcp 8000 from self {at}to {goal} port 80\n{closed}")
        tries = []
        for family in Family:
            expected = Seen("dmz", nat.near("wan", family), nat.far("dmz", family), HTTP)
            tries.append(Visit(nat.firewall, dialled[family], 8000, expected))
            tries.append(Visit(nat.firewall, nat.far("dmz", family), HTTP, Reach.TIMEOUT))
            # Nobody else's are.
            tries.append(visit(nat, family, dialled[family], 8000, Reach.TIMEOUT))
        all_seen_as_expected(tries)


def hairpin_tries(nat: Router, *, is_hairpin: bool) -> Iterator[Visit]:
    """Every zone dials the address in `wan`; who shares the target's zone is masqueraded."""
    for family in Family:
        own, target = nat.near("wan", family), nat.far("lan", family)
        sources = {
            "wan": nat.far("wan", family),
            "dmz": nat.far("dmz", family),
            "other": nat.near("lan", family),
        }
        for name, source in sources.items():
            client = nat.other if name == "other" else nat.client(name)
            expected: Seen | Reach = Seen("lan", source, target, HTTP)
            if name != "wan" and not is_hairpin:
                expected = Reach.TIMEOUT
            yield Visit(client, own, NEW, expected)
            yield Visit(client, own, HTTP, Reach.TIMEOUT)
        # Directly the target is met within its zone alone.
        neighbour = nat.other_addresses.of(family)
        yield Visit(nat.other, target, HTTP, Seen("lan", neighbour, target, HTTP))
        yield visit(nat, family, target, HTTP, Reach.TIMEOUT, zone="dmz")


@pytest.mark.parametrize("is_hairpin", [True, False], ids=["hairpin", "none"])
def test_hairpin(nat: Router, is_hairpin: bool) -> None:
    """The public address works from the other zones as well, and without the word it does not."""
    word = " hairpin" * is_hairpin
    nat.apply(f"dnat tcp 2222 from wan to {inner(nat)} port 80{word}\n")
    all_seen_as_expected(hairpin_tries(nat, is_hairpin=is_hairpin))


def test_hairpin_at_an_address(nat: Router) -> None:
    """`at` holds for those inside as well."""
    nat.apply(f"dnat http from wan at {', '.join(OWN.values())} to {inner(nat)} hairpin\n")
    tries = []
    for family in Family:
        expected = Seen("lan", nat.near("lan", family), nat.far("lan", family), HTTP)
        tries.append(Visit(nat.other, OWN[family], HTTP, expected))
        tries.append(Visit(nat.other, nat.near("wan", family), HTTP, Reach.TIMEOUT))
    all_seen_as_expected(tries)


def test_hairpin_to_targets_in_several_zones(nat: Router) -> None:
    """Who is masqueraded depends on the target that a connection was given."""
    written = ", ".join(nat.far(zone, family) for zone in ("lan", "dmz") for family in Family)
    nat.apply(f"dnat http from wan to {written} hairpin\n")
    for family in Family:
        own = nat.near("wan", family)
        clients = {"lan": (nat.other, nat.other_addresses.of(family))}
        clients["dmz"] = nat.client("dmz"), nat.far("dmz", family)
        for zone, (client, address) in clients.items():
            for _ in range(2):
                outcome = look(client, own, HTTP, patience_s=MUST_FAIL_S)
                if zone == "dmz" and outcome is Reach.TIMEOUT:
                    continue  # the client is the target itself, which takes it for a forgery
                assert isinstance(outcome, Seen)
                here = outcome.server
                assert outcome.source == (nat.near(zone, family) if here == zone else address)


BARE_HAIRPIN = """
table inet hand {
  chain arriving {
    type nat hook prerouting priority dstnat
    ip daddr 192.0.2.1 tcp dport 80 dnat ip to 198.51.100.2
    ip6 daddr 2001:db8:2::1 tcp dport 80 dnat ip6 to 2001:db8:51::2
  }
}
"""


def test_without_masquerading_no_hairpin_works(
    kernel: None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The control: the answers go to the client directly, which knows nothing of who sends them."""
    with router(Loader.NFT, tmp_path_factory.mktemp("bare"), (HTTP,)) as laid:
        load_nft(BARE_HAIRPIN, laid.firewall)
        for family in Family:
            own = laid.near("wan", family)
            assert look(laid.client("dmz"), own, HTTP) == Seen(
                "lan", laid.far("dmz", family), laid.far("lan", family), HTTP
            )
            assert look(laid.other, own, HTTP, patience_s=0.3) is Reach.TIMEOUT


# --- redirect --------------------------------------------------------------------------------


def test_redirect_of_what_passes_by(nat: Router) -> None:
    """What passes by meets a port of the router, which is open to nobody else."""
    nat.apply("redirect tcp 80, udp 80 from lan to wan port 3128\n")
    tries = []
    for family, protocol in product(Family, PROTOCOLS):
        source, own = nat.far("lan", family), nat.near("lan", family)
        here = Seen("self", source, own, PROXY)
        for target, port, expected in (
            (nat.far("wan", family), HTTP, here),
            (nat.far("wan", family), SSH, Reach.TIMEOUT),
            (nat.far("dmz", family), HTTP, Reach.TIMEOUT),
            (own, PROXY, Reach.TIMEOUT),
            (own, HTTP, Reach.TIMEOUT),
        ):
            tries.append(visit(nat, family, target, port, expected, zone="lan", protocol=protocol))
        target = nat.far("lan", family)
        tries.append(visit(nat, family, target, HTTP, Reach.TIMEOUT, protocol=protocol))
    all_seen_as_expected(tries)


def test_redirect_of_what_comes_in(nat: Router) -> None:
    """A port of the router stands for another, or a range for a range."""
    nat.apply(
        "redirect tcp 80 inbound port 3128\n"
        "redirect tcp 8000-8003 inbound from wan port 9000-9003\n"
    )
    tries = []
    for family in Family:
        own = nat.near("wan", family)
        becomes = {HTTP: PROXY, **dict(zip(OLD_RANGE, NEW_RANGE, strict=True))}
        for port, new in becomes.items():
            expected = Seen("self", nat.far("wan", family), own, new)
            tries.append(visit(nat, family, own, port, expected))
            tries.append(visit(nat, family, own, new, Reach.TIMEOUT))
        tries.append(visit(nat, family, nat.far("lan", family), HTTP, Reach.TIMEOUT))
        dmz = nat.near("dmz", family)
        tries.append(visit(nat, family, dmz, OLD_RANGE[0], Reach.TIMEOUT, zone="dmz"))
    all_seen_as_expected(tries)


def test_redirect_of_own_connections(nat: Router) -> None:
    """What this host itself dials comes back to it; what it sends elsewhere goes out."""
    nat.apply("redirect http outbound to wan port 3128\nallow all outbound\n")
    tries = []
    for family in Family:
        loopback = "127.0.0.1" if family is Family.IPV4 else "::1"
        source, target = nat.near("wan", family), nat.far("wan", family)
        redirected = Seen("self", source, loopback, PROXY)
        tries.append(Visit(nat.firewall, target, HTTP, redirected))
        tries.append(Visit(nat.firewall, target, SSH, Seen("wan", source, target, SSH)))
        dmz = nat.far("dmz", family)
        tries.append(
            Visit(nat.firewall, dmz, HTTP, Seen("dmz", nat.near("dmz", family), dmz, HTTP))
        )
    all_seen_as_expected(tries)


# --- tproxy ----------------------------------------------------------------------------------

TRANSPARENT = 3129


def test_transparent_proxy(nat: Router) -> None:
    """A local socket is met in the name of whoever was dialled, over TCP and UDP."""
    nat.apply(
        f"tproxy tcp 80, udp 53 from lan to port {TRANSPARENT}\nallow all from lan to wan, dmz\n"
    )
    tries = []
    with mirrors(nat.firewall, "proxy", [TRANSPARENT], transparent=True):
        for family, protocol in product(Family, PROTOCOLS):
            source = nat.far("lan", family)
            proxied = HTTP if protocol == "tcp" else DNS
            for zone, port in product(("wan", "dmz"), (HTTP, DNS)):
                target = nat.far(zone, family)
                server = "proxy" if port == proxied else zone
                expected: Seen | Reach = Seen(server, source, target, port)
                tries.append(
                    visit(nat, family, target, port, expected, zone="lan", protocol=protocol)
                )
            for zone, port in (("lan", TRANSPARENT), ("wan", TRANSPARENT), ("wan", HTTP)):
                target = nat.near(zone, family)
                expected = Reach.TIMEOUT
                tries.append(
                    visit(nat, family, target, port, expected, zone=zone, protocol=protocol)
                )
        all_seen_as_expected(tries)
        # Between the ends that it names alone.
        nat.apply(f"tproxy http from lan to dmz port {TRANSPARENT}\nallow all from lan to wan\n")
        tries = []
        for family, (zone, server) in product(Family, (("dmz", "proxy"), ("wan", "wan"))):
            target = nat.far(zone, family)
            expected = Seen(server, nat.far("lan", family), target, HTTP)
            tries.append(visit(nat, family, target, HTTP, expected, zone="lan"))
        all_seen_as_expected(tries)


# --- IPsec -----------------------------------------------------------------------------------


def test_what_leaves_inside_ipsec_is_not_translated(nat: Router) -> None:
    """No tunnel can be made on every kernel: each rule that translates sources excludes them."""
    nat.apply(
        "masquerade from lan to wan\nsnat from dmz to wan as 192.0.2.7\n"
        "netmap 192.0.2.32/29 to 198.51.100.40/29 on wan\n"
    )
    if nat.loader is Loader.NFT:
        argv, excludes = ["nft", "list", "table", "inet", "policylang"], "rt ipsec missing"
    else:
        argv, excludes = [f"{nat.loader.value}-save", "-t", "nat"], "--pol none"
    listed = nat.firewall.run(argv).stdout.splitlines()
    made = [line for line in listed if any(word in line for word in SOURCE_TRANSLATIONS)]
    assert len(made) == 3
    assert all(excludes in line for line in made), made


SOURCE_TRANSLATIONS = ("masquerade", "snat ", "MASQUERADE", "-j SNAT", "to 192.0.2.32/29")
