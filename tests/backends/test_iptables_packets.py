"""The kernel treats packets as rules say that are emitted for iptables: fields, guards, actions.

Both flavours are loaded beside each other where nothing is decided and nothing is counted, so
that every packet is thrown once for both.
"""

from __future__ import annotations

import ctypes
import platform
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from policylang.backends.iptables.names import dynamic_set_name
from policylang.ir.actions import (
    Guard,
    MarkGuard,
    OwnerGuard,
    RateGuard,
    TimeGuard,
    UntilGuard,
)
from policylang.ir.ruleset import DynamicSet, HostSuffix, Item
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import ICMPV6, UNIVERSE, AddressType, Field, FlowDirection
from policylang.packets.values import Ranges, parse_address
from tests.backends.iptables_station import (
    FAMILIES,
    FLAVOURS,
    FORWARD,
    INPUT,
    OUTPUT,
    PASS,
    SCREEN,
    SCREEN_STATE,
    Bench,
    among,
    counted,
    weighed,
)
from tests.backends.nft_station import FAR, OWN, Packet, arriving, leaving, ruleset
from tests.kernel.ground import Family

ARRIVING = (SCREEN, SCREEN_STATE, INPUT)
DAY_S, WEEK_S = 86_400, 7 * 86_400


def of(**terms: Ranges) -> Cube:
    return Cube.of({Field[name]: values for name, values in terms.items()})


ONE = Ranges.of(1)

# --- fields --------------------------------------------------------------------------------------

OTHER_MAC = "02:00:00:00:00:99"
SPENT_ROUTE = (43, bytes((0, 4, 0, 0, 0, 0, 0)))  # RFC 8200 section 4.4
ECHO = {4: 8, 6: 128}

# Name -> a packet; what is not said of it is as in `plain`.
PACKETS: dict[int, dict[str, Packet]] = {
    family: {
        "plain": arriving(family=family),
        "urgent": arriving(family=family, dscp=46),
        "large": arriving(family=family, size=200),
        "mac": arriving(family=family, mac=OTHER_MAC),
        "spoofed": arriving(family=family, source=FAR["eth1"][family]),
        "own": arriving(family=family, source=OWN["eth1"][family]),
        "listed": arriving(family=family, source={4: "192.0.2.77", 6: "2001:db8:1::77"}[family]),
    }
    for family in FAMILIES
}
PACKETS[4] |= {
    "nobody-all": arriving(source="0.0.0.0", destination="255.255.255.255"),
    "nobody-one": arriving(source="0.0.0.0"),
}
PACKETS[6] |= {
    "suffix": arriving(family=6, source="2001:db8:1::abcd:1"),
    "routed": arriving(family=6, extensions=(SPENT_ROUTE,)),
    "link": arriving(family=6, source="fe80::5"),
    "nobody": arriving(
        family=6,
        source="::",
        destination="ff02::1:ff00:1",
        protocol=ICMPV6,
        icmp_type=135,
        hop_limit=255,
    ),
}

LISTED = DynamicSet("listed", 3600, 100)
TARGETS = DynamicSet("a-set-of-a-rather-long-name", None, 9)
TESTS = (
    LISTED,
    TARGETS,
    HostSuffix(0xABCD0001, 0xFFFFFFFF),
    HostSuffix(0x2001 << 112, 0xFFFF << 112),
)


@dataclass(frozen=True)
class Case:
    """What a cube holds, by family, and where packets without such a field are left out."""

    cube: Cube
    holds: dict[int, set[str]]
    places: tuple[tuple[Stage, Path], ...] = ARRIVING
    turned: Field | None = None  # the field whose complement holds what this does not
    lacking: frozenset[str] = frozenset()  # packets that neither holds


def both(*names: str) -> dict[int, set[str]]:
    return {family: set(names) for family in FAMILIES}


def all_but(*names: str) -> dict[int, set[str]]:
    return {family: PACKETS[family].keys() - set(names) for family in FAMILIES}


def mac(text: str) -> int:
    return int(text.replace(":", ""), 16)


def prefix(text: str) -> Ranges:
    found = parse_address(text)
    assert found is not None
    return Ranges((found,))


SAME_NET = prefix("2001:db8:1::/64") | prefix("192.0.2.0/24")
UNTRACKED = frozenset({"nobody"})  # conntrack leaves neighbour discovery alone

CASES = {
    "dscp": Case(of(DSCP=Ranges.of(46)), both("urgent"), turned=Field.DSCP),
    "dscps": Case(of(DSCP=Ranges.of(1, 3, 46, 63)), both("urgent"), turned=Field.DSCP),
    "size": Case(of(SIZE=Ranges.of(200)), both("large"), turned=Field.SIZE),
    "sizes": Case(
        of(SIZE=Ranges(((20, 30), (199, 201)))),
        {4: {*PACKETS[4]}, 6: {"large"}},
        turned=Field.SIZE,
    ),
    "mac": Case(of(SMAC=Ranges.of(mac(OTHER_MAC))), both("mac"), turned=Field.SMAC),
    "macs": Case(of(SMAC=Ranges.of(1, 7, mac(OTHER_MAC))), both("mac"), turned=Field.SMAC),
    "from-local": Case(
        of(SADDR_TYPE=Ranges.of(AddressType.LOCAL)), both("own"), turned=Field.SADDR_TYPE
    ),
    "reverse": Case(
        of(REVERSE_PATH=ONE),
        all_but("spoofed", "own", "nobody-one"),
        places=(SCREEN, SCREEN_STATE),
        turned=Field.REVERSE_PATH,
    ),
    "routed": Case(of(SOURCE_ROUTED=ONE, FAMILY=Ranges.of(6)), {4: set(), 6: {"routed"}}),
    "straight": Case(
        of(SOURCE_ROUTED=Ranges.of(0), FAMILY=Ranges.of(6)),
        {4: set(), 6: PACKETS[6].keys() - {"routed"}},
    ),
    # No packet here comes out of IPsec: the kernel of these tests has no transforms.
    "ipsec": Case(of(IPSEC=ONE), both(), turned=Field.IPSEC),
    "original": Case(
        of(CT_DIRECTION=Ranges.of(FlowDirection.ORIGINAL)),
        all_but(*UNTRACKED),
        places=(SCREEN_STATE, INPUT),
        turned=Field.CT_DIRECTION,
        lacking=UNTRACKED,
    ),
    "listed": Case(of(SADDR_TEST_0=ONE), both("listed"), turned=Field.SADDR_TEST_0),
    "target": Case(
        of(DADDR_TEST_1=ONE), all_but("nobody-all", "nobody"), turned=Field.DADDR_TEST_1
    ),
    "suffix": Case(of(SADDR_TEST_2=ONE), {4: set(), 6: {"suffix"}}, turned=Field.SADDR_TEST_2),
    # A line that has an address already, and one that tests two suffixes.
    "suffix-near": Case(of(SADDR_TEST_2=ONE, SADDR=SAME_NET), {4: set(), 6: {"suffix"}}),
    "other-near": Case(
        of(SADDR_TEST_2=Ranges.of(0), SADDR=SAME_NET),
        {
            4: {"plain", "urgent", "large", "mac", "listed"},
            6: {"plain", "urgent", "large", "mac", "listed", "routed"},
        },
    ),
    "two-suffixes": Case(
        of(SADDR_TEST_2=Ranges.of(0), SADDR_TEST_3=ONE),
        {4: set(), 6: PACKETS[6].keys() - {"suffix", "link", "nobody"}},
    ),
    "to-suffix": Case(of(DADDR_TEST_3=ONE), {4: set(), 6: PACKETS[6].keys() - {"nobody"}}),
}


def rules_of(cases: dict[str, Case], place: tuple[Stage, Path]) -> list[Item]:
    found: list[Item] = [counted(f"{place[0].value}/all")]
    for name, case in cases.items():
        if place in case.places:
            found.append(counted(f"{place[0].value}/{name}", case.cube))
            if case.turned is not None:
                others = UNIVERSE[case.turned] - case.cube[case.turned]
                cube = case.cube.with_terms({case.turned: others})
                found.append(counted(f"{place[0].value}/!{name}", cube))
    # What one flavour drops the other one never sees.
    return [*found, PASS] if place is INPUT else found


def test_fields_say_what_arrives(bare: Bench) -> None:
    """Each field, and its complement, at each place that the capabilities name for it."""
    rules = ruleset(
        {
            **{place: rules_of(CASES, place) for place in ARRIVING},
            FORWARD: rules_of(CASES, INPUT),  # which is loaded, and meets no packet
        },
        tests=TESTS,
        sets=(LISTED, TARGETS),
    )
    for flavour in FLAVOURS:
        bare.load(flavour, rules)
    for family in FAMILIES:
        listed, target = (dynamic_set_name(test.name, family) for test in (LISTED, TARGETS))
        bare.ipset("add", listed, PACKETS[family]["listed"].source)
        bare.ipset("add", target, OWN["eth0"][family])
        weighed(bare.station, tuple(PACKETS[family].values()))
    for flavour in FLAVOURS:
        found = bare.counts(flavour)
        for family in FAMILIES:
            names = tuple(PACKETS[family])
            for place in ARRIVING:

                def met(name: str) -> set[str]:
                    return among(names, found[family, f"{place[0].value}/{name}"])  # noqa: B023

                reached = met("all")
                assert reached == set(names) or place is INPUT
                assert {"plain", "urgent", "large", "mac", "listed"} <= reached
                for name, case in CASES.items():
                    if place not in case.places:
                        continue
                    holds = case.holds[family] & reached
                    assert met(name) == holds, (flavour, family, place, name)
                    if case.turned is not None:
                        others = reached - holds - case.lacking
                        assert met(f"!{name}") == others, (flavour, family, place, name)


def test_what_travels_over_loopback_came_the_way_it_goes(bare: Bench) -> None:
    """Its source is an own address, which by any other interface is a lie; it has no MAC."""
    rules = [
        counted("reverse", of(REVERSE_PATH=ONE)),
        counted("forged", of(REVERSE_PATH=Ranges.of(0))),
        counted("other-mac", of(SMAC=UNIVERSE[Field.SMAC] - Ranges.of(7))),
    ]
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({SCREEN: rules}))
    for family in FAMILIES:
        with bare.station.inside.opened(Family(family), socket.SOCK_DGRAM) as opened:
            for _ in range(3):
                opened.sendto(b"", (OWN["eth0"][family], 53))
    expected = {(family, "reverse"): 3 for family in FAMILIES}
    for flavour in FLAVOURS:
        assert +bare.counts(flavour) == expected


def test_a_packet_goes_one_way_of_its_connection(bare: Bench) -> None:
    ways = [counted(way.name, of(CT_DIRECTION=Ranges.of(way))) for way in FlowDirection]
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({INPUT: [*ways, PASS]}))
    for family in FAMILIES:
        bare.station.send([leaving(family=family)])
        bare.station.throw([arriving(family=family, ports=(53, 40000))] * 3)  # answers to it
        bare.station.throw([arriving(family=family, ports=(53, 40001))] * 5)
    expected = {(f, "REPLY"): 3 for f in FAMILIES} | {(f, "ORIGINAL"): 5 for f in FAMILIES}
    for flavour in FLAVOURS:
        assert bare.counts(flavour) == expected


def test_sets_of_mac_addresses(bare: Bench) -> None:
    """Where a rule has many of them: of the kernels about, some lack that type of set."""
    made = bare.station.inside.run(["ipset", "create", "try", "hash:mac"], check=False)
    if "set type not supported" in made.stderr:
        pytest.xfail("this kernel has no sets of MAC addresses (ip_set_hash_mac)")
    bare.station.inside.run(["ipset", "destroy", "try"])
    many = Ranges.merged((n, n) for n in (*range(0, 80, 2), mac(OTHER_MAC)))
    rules = [
        counted("many", of(SMAC=many)),
        counted("others", of(SMAC=UNIVERSE[Field.SMAC] - many)),
    ]
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({SCREEN: rules}))
    for family in FAMILIES:
        bare.station.throw([PACKETS[family]["mac"]] * 3)
        bare.station.throw([PACKETS[family]["plain"]] * 5)
    expected = {(f, "many"): 3 for f in FAMILIES} | {(f, "others"): 5 for f in FAMILIES}
    for flavour in FLAVOURS:
        assert bare.counts(flavour) == expected


# --- guards that only look -----------------------------------------------------------------------

GETTIMEOFDAY = {"x86_64": 96, "aarch64": 169}  # asm/unistd.h; that of glibc knows no zone


def minutes_west() -> int:
    """The kernel's own time zone, by which it knows local time."""
    zone = (ctypes.c_int * 2)()
    number = GETTIMEOFDAY[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, None, zone) == 0
    return zone[0]


def in_week(moment: datetime) -> int:
    """Seconds since Monday, 00:00."""
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return moment.weekday() * DAY_S + int((moment - midnight).total_seconds())


def around(second: int, reach_s: int = 600) -> Ranges:
    """The seconds of the week around one of them, from one week into the next where need be."""
    spans = [((second - reach_s + n), (second + reach_s + n)) for n in (-WEEK_S, 0, WEEK_S)]
    return Ranges.merged(spans_in_week(spans))


def every_day(second: int) -> Ranges:
    """The same minutes of every day."""
    days = (around((second + day * DAY_S) % WEEK_S) for day in range(7))
    return Ranges.merged(pair for day in days for pair in day)


def spans_in_week(spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for low, high in spans:
        if high >= 0 and low < WEEK_S:
            yield max(low, 0), min(high, WEEK_S - 1)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_times_are_what_they_say_wherever_they_are_loaded(bare: Bench, zone: str) -> None:
    """The windows are minutes around now, and all of the week but these; days likewise."""
    utc = datetime.now(UTC)
    local = utc - timedelta(minutes=minutes_west())
    week = Ranges.between(0, WEEK_S - 1)
    rules: list[Item] = []
    held: set[str] = set()
    for is_local, now in ((False, utc), (True, local)):
        name = "local" if is_local else "utc"
        second = in_week(now)
        here, daily = around(second), every_day(second)
        for label, window, holds in (
            ("now", here, True),
            ("other", week - here, False),
            ("daily", daily, True),
            ("other-hours", week - daily, False),
            ("other-days", daily - here, False),
            ("always", week, True),
            ("two-windows", here | around((second + 7200) % WEEK_S), True),
            ("soon", around((second + 900) % WEEK_S), False),
            ("just-over", around((second - 900) % WEEK_S), False),
            # One window over midnight, whatever the hour is.
            ("but-for-some-hours", week - every_day(second + DAY_S // 2), True),
        ):
            rules.append(counted(f"{name}-{label}", EVERYTHING, TimeGuard(window, is_local)))
            held |= {f"{name}-{label}"} if holds else set()
        # Never the day that may end while this runs.
        for days, holds in ((1, True), (400, True), (-2, False)):
            until = UntilGuard((now + timedelta(days=days)).date(), is_local)
            rules.append(counted(f"{name}-until{days}", EVERYTHING, until))
            held |= {f"{name}-until{days}"} if holds else set()
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({SCREEN: rules}), zone)
    for family in FAMILIES:
        bare.station.throw([arriving(family=family)] * 3)
    for flavour in FLAVOURS:
        found = +bare.counts(flavour)
        assert found == {(family, name): 3 for family in FAMILIES for name in held}, flavour


def test_marks(bare: Bench) -> None:
    """What is urgent gets the mark 0x1f before any rule is read."""
    bare.station.nft(
        "table inet marks {\nchain c { type filter hook prerouting priority -310;\n"
        "ip dscp 46 mark set 0x1f\nip6 dscp 46 mark set 0x1f\n}\n}\n"
    )
    guards = {
        "all": MarkGuard(0x1F, 0xFFFFFFFF),
        "part": MarkGuard(0x10, 0xF0),
        "other": MarkGuard(0x20, 0xF0),
        "none": MarkGuard(0, 0xFFFFFFFF),
    }
    rules = [counted(name, EVERYTHING, guard) for name, guard in guards.items()]
    try:
        for flavour in FLAVOURS:
            bare.load(flavour, ruleset({SCREEN: rules, INPUT: [*rules, PASS]}))
        for family in FAMILIES:
            weighed(bare.station, [PACKETS[family]["plain"], PACKETS[family]["urgent"]])
    finally:
        bare.station.nft("delete table inet marks\n")
    once = {"all": 2, "part": 2, "none": 1}
    expected = {(f, name): 2 * n for f in FAMILIES for name, n in once.items()}  # at two places
    for flavour in FLAVOURS:
        assert +bare.counts(flavour) == expected


SENDERS = ((0, 0), (33, 33), (1234, 2345), (1999, 0), (2000, 33))  # user and group


def test_owners(bare: Bench) -> None:
    """`www-data` is 33; who is meant by its name and its number is met once all the same."""
    user, group = "user", "group"
    none = Ranges()
    guards: dict[str, tuple[tuple[Guard, ...], set[int]]] = {
        "one": ((OwnerGuard(user, Ranges.of(1234), ()),), {2}),
        "span": ((OwnerGuard(user, Ranges.between(1000, 1999), ()),), {2, 3}),
        "name": ((OwnerGuard(user, none, ("www-data",)),), {1}),
        "twice": ((OwnerGuard(user, Ranges.of(33, 1999), ("www-data",)),), {1, 3}),
        "group": ((OwnerGuard(group, Ranges.of(2345), ("www-data",)),), {1, 2, 4}),
        "both": (
            (OwnerGuard(user, Ranges.of(33, 1234), ()), OwnerGuard(group, Ranges.of(33), ())),
            {1},
        ),
        "nobody": ((OwnerGuard(user, none, ()),), set()),
        "limited": (
            (OwnerGuard(user, Ranges.of(33, 1234), ("www-data",)), RateGuard(1, "hour", 7)),
            {1, 2},
        ),
    }
    rules = [counted(name, EVERYTHING, *some) for name, (some, _) in guards.items()]
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({OUTPUT: [*rules, PASS]}))
    for family in FAMILIES:
        for turn, (uid, gid) in enumerate(SENDERS):
            with bare.station.sender(family, uid=uid, gid=gid) as opened:
                bare.station.send([leaving(family=family)] * (1 << turn), opened)
    for flavour in FLAVOURS:
        found = bare.counts(flavour)
        for family in FAMILIES:
            for name, (_, senders) in guards.items():
                expected = sum(1 << turn for turn in senders)
                # The bucket of a rule of three lines is one bucket.
                most = 7 if name == "limited" else expected
                assert found[family, name] == min(expected, most), (flavour, family, name)
