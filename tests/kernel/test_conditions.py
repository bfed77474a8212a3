"""Conditions of a rule, from the text of a policy to the packets that it takes.

Each holds for packets that meet it and fails for packets that miss it by one thing, in rules that
allow and in rules that deny, for both families; and each way of loading.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP
from tests.backends.nft_station import FAR, OWN, Hook, Packet, arriving, leaving

from .applied import FAMILIES, Firewall, count, each, through, to_port, until_true
from .ground import (
    CommandError,
    Family,
    Loader,
    Reach,
    ground,
    policylang,
    probe_tcp,
)
from .logged import Listener

ZONES = """
zone near { interface eth0 }
zone other { interface eth1 }
set far = 198.51.100.2, 2001:db8:2::2
"""

# --- what a packet looks like ----------------------------------------------------------------

MAC, MAC_TOO, OTHER_MAC = (f"02:00:00:00:09:{n:02x}" for n in range(3))
IPV6_PAIR = {4: "192.0.2.16", 6: "2001:db8:7::10"}  # no neighbours: senders of no return


@dataclass(frozen=True)
class Case:
    """A condition (and who it is about), packets that meet it and packets that do not."""

    condition: str
    meets: Sequence[Packet]
    misses: Sequence[Packet]
    source: str = "any except self"


def sport(*ports: int, family: int | None = None) -> list[Packet]:
    families = FAMILIES if family is None else (family,)
    return [arriving(family=f, ports=(port, 0)) for port in ports for f in families]


def sized(*sizes: int) -> list[Packet]:
    return [arriving(family=f, size=size) for size in sizes for f in FAMILIES]


def marked_dscp(*values: int) -> list[Packet]:
    return [arriving(family=f, dscp=value) for value in values for f in FAMILIES]


def by_mac(*macs: str) -> list[Packet]:
    return [arriving(family=f, mac=mac) for mac in macs for f in FAMILIES]


def by(*sources: str, wire: str = "eth0") -> list[Packet]:
    return [arriving(wire, 6 if ":" in source else 4, source=source) for source in sources]


FRIENDS = ("192.0.2.77", "2001:db8:1::77")
STRANGERS = ("192.0.2.78", "2001:db8:1::78")
# Two networks of a provider, and hosts that end alike in both.
SUFFIXED = ("2001:db8:a::10", "2001:db8:b::10")
UNSUFFIXED = ("2001:db8:a::11", "2001:db8:a:0:1::10", "192.0.2.16")

# The test's own rule gives packets from these ports a mark.
MARKS = {41000: 0x10, 41001: 0x110, 41002: 0x11, 41003: 0x80000010}
BY_PORT = ", ".join(f"{port} : {mark}" for port, mark in MARKS.items())
MARKING = f"""
table inet marking
delete table inet marking
table inet marking {{
  chain prerouting {{
    type filter hook prerouting priority -350
    meta mark set udp sport map {{ {BY_PORT} }}
  }}
}}
"""

PORT_SET = "set some-ports = 4000, 5000-5002"
MAC_SET = f"set cards = {MAC}, {MAC_TOO}"
DYNAMIC = "set friends = dynamic\nset targets = dynamic"
FILLING = """
allow udp 9 inbound add source to friends
allow udp 9 from any except self to far add destination to targets
"""

LOOKS = {
    "mac": Case(f"mac {MAC}", by_mac(MAC), by_mac(OTHER_MAC, MAC_TOO)),
    "macs": Case(f"mac {MAC}, {MAC_TOO}", by_mac(MAC, MAC_TOO), by_mac(OTHER_MAC)),
    "mac set": Case("mac cards", by_mac(MAC, MAC_TOO), by_mac(OTHER_MAC)),
    "source port": Case("source port 4000", sport(4000), sport(3999, 4001)),
    "source ports": Case("source port 7, 4000-4002", sport(7, 4000, 4002), sport(6, 8, 4003)),
    "source port set": Case("source port some-ports", sport(4000, 5002), sport(4001, 5003)),
    "source port except": Case(
        "source port 4000-5000, some-ports except 4500, 5001",
        sport(4000, 4499, 5002),
        sport(4500, 5001, 3999),
    ),
    "mark": Case("mark 0x10", sport(41000), sport(41001, 41002, 41003, 40000)),
    "mark masked": Case("mark 0x10/0xff", sport(41000, 41001, 41003), sport(41002, 40000)),
    "mark none": Case("mark 0/0x10", sport(40000), sport(41000, 41001, 41002)),
    "dscp name": Case("dscp ef", marked_dscp(46), marked_dscp(45, 47, 0)),
    "dscp list": Case(
        "dscp af41, cs1, be, 3-5", marked_dscp(34, 8, 0, 3, 5), marked_dscp(2, 6, 35, 46)
    ),
    "size up to": Case("size 0-100", sized(60, 99, 100), sized(101, 500)),
    "size from": Case("size 256-65535", sized(256, 1400), sized(255, 60)),
    "size": Case("size 99, 200-300", sized(99, 200, 300), sized(98, 100, 199, 301)),
    "ipv4": Case("ipv4", sport(1, family=4), sport(1, family=6)),
    "ipv6": Case("ipv6", sport(1, family=6), sport(1, family=4)),
    "suffix": Case("", by(*SUFFIXED), by(*UNSUFFIXED), "::10/-64"),
    "suffix except": Case("", by(SUFFIXED[0]), by(SUFFIXED[1]), "::10/-64 except 2001:db8:b::/48"),
    "but suffix": Case("", by(*UNSUFFIXED), by(*SUFFIXED), "any except self, ::10/-64"),
    "suffix in zone": Case("", by(*SUFFIXED), by(*SUFFIXED, wire="eth1"), "::10/-64 in near"),
    # This kernel has no transform (ESP, AH): no packet here has come out of IPsec.
    "ipsec": Case("ipsec", (), sport(1)),
    "no ipsec": Case("source port 1 except ipsec", sport(1), sport(2)),
    "ipsec end": Case("", sport(1), (), "any except self, ipsec"),
    "dynamic": Case("", by(*FRIENDS), by(*STRANGERS), "friends"),
    "but dynamic": Case("", by(*STRANGERS), by(*FRIENDS), "any except self, friends"),
    "dynamic in zone": Case("", by(*FRIENDS), by(*FRIENDS, wire="eth1"), "friends in near"),
    "all together": Case(
        f"mac {MAC} source port 41000-41003 mark 0x10/0xff dscp ef size 90-110 ipv4",
        [arriving(mac=MAC, ports=(41001, 0), dscp=46, size=100)],
        [
            arriving(mac=OTHER_MAC, ports=(41001, 0), dscp=46, size=100),
            arriving(mac=MAC, ports=(41002, 0), dscp=46, size=100),
            arriving(mac=MAC, ports=(41001, 0), dscp=45, size=100),
            arriving(mac=MAC, ports=(41001, 0), dscp=46, size=111),
            arriving(family=6, mac=MAC, ports=(41001, 0), dscp=46, size=100),
        ],
    ),
}
ALLOWED, DENIED = 1000, 2000  # the first port of the rules that allow, and that deny


def numbered(cases: dict[str, Case], first: int) -> Iterator[tuple[int, Case]]:
    return zip(range(first, first + len(cases)), cases.values(), strict=True)


def test_what_a_packet_looks_like(firewall: Firewall) -> None:
    """To this host and through it, where the condition opens and where it closes."""
    firewall.station.nft(MARKING)
    firewall.apply(
        "\n".join(
            (
                ZONES,
                PORT_SET,
                MAC_SET,
                DYNAMIC,
                FILLING,
                *(
                    f"allow udp {port} from {case.source} to self, far {case.condition}"
                    for port, case in numbered(LOOKS, ALLOWED)
                ),
                *(
                    f"deny udp {port} from {case.source} to self, far {case.condition}"
                    for port, case in numbered(LOOKS, DENIED)
                ),
                f"allow udp {DENIED}-{DENIED + 999} from any except self to self, far",
                "allow udp 3000 from any except self to targets",
            )
        )
    )
    firewall.station.throw(to_port(9, by(*FRIENDS)))
    found, expected = {}, {}
    for first, turned in ((ALLOWED, False), (DENIED, True)):
        for (name, case), (port, _) in zip(LOOKS.items(), numbered(LOOKS, first), strict=True):
            packets = to_port(port, (*case.meets, *case.misses))
            verdicts = [True] * len(case.meets) + [False] * len(case.misses)
            expected[name, turned] = [passes is not turned for passes in verdicts] * 2
            found[name, turned] = firewall.takes(*packets) + firewall.forwards(*through(packets))
    assert found == expected


def test_a_dynamic_set_as_a_destination(firewall: Firewall) -> None:
    """It takes those that were put in, and no others."""
    firewall.apply(
        f"""
        {ZONES}
        set met = dynamic
        allow udp 9 from any except self to far add destination to met
        allow udp 10 from any except self to met
        allow udp 11 from any except self to any except self, met
        """
    )
    packets = [
        arriving(family=family, destination=address, ports=(1, port))
        for family in FAMILIES
        for port in (10, 11)
        for address in (FAR["eth1"][family], FAR["eth1"][family] + "2")
    ]
    assert firewall.forwards(*packets) == [False, False, True, True] * 2
    firewall.station.throw(through(to_port(9, each(arriving))))
    assert firewall.forwards(*packets) == [True, False, False, True] * 2


def test_a_host_suffix_as_a_destination(firewall: Firewall) -> None:
    """Whatever the provider's prefix is; IPv4 has none."""
    firewall.apply(
        f"""{ZONES}
        allow udp 10 from any except self to ::10/-64 except 2001:db8:2:9::/64
        allow udp 11 from any except self to any except self, ::10/-64
        allow udp 12 from any except self to ::10/-64 in other
        """
    )
    firewall.station.inside.ip(
        "route replace 2001:db8:2::/56 via 2001:db8:2::2 dev eth1",
        "route replace 2001:db8:3::/64 via 2001:db8:1::2 dev eth0",
    )
    hosts = ("2001:db8:2:8::10", "2001:db8:2:9::10", "2001:db8:2:8::11", "2001:db8:3::10")
    for port, expected in (
        (10, [True, False, False, True]),
        (11, [False, False, True, False]),
        (12, [True, True, False, False]),
    ):
        packets = [arriving(family=6, destination=host, ports=(9, port)) for host in hosts]
        assert firewall.forwards(*packets) == expected
        assert firewall.forwards(*to_port(port, through([arriving()]))) == [port == 11]


# --- who sends -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A condition of a rule from this host, and who meets it or does not: by uid, gid or mark."""

    condition: str
    meets: Sequence[dict[str, int]]
    misses: Sequence[dict[str, int]]


def uids(*numbers: int) -> list[dict[str, int]]:
    return [{"uid": number} for number in numbers]


def gids(*numbers: int) -> list[dict[str, int]]:
    return [{"gid": number} for number in numbers]


# Debian's users and groups: daemon is 1, www-data 33, nobody 65534.
SENDERS = {
    "user": Sent("user 1042", uids(1042), uids(0, 1041, 1043)),
    "user name": Sent("user www-data", uids(33), uids(0, 34)),
    "user zero": Sent("user root", uids(0), uids(33)),
    "users": Sent("user 7, 1000-1010, nobody", uids(7, 1000, 1010, 65534), uids(8, 999, 1011)),
    "group": Sent("group 1042", gids(1042), [*gids(0, 1041), *uids(1042)]),
    "group name": Sent("group daemon", gids(1), gids(0, 2)),
    "groups": Sent("group 7, www-data, 50-60", gids(7, 33, 50, 60), gids(8, 49, 61)),
    "user and group": Sent(
        "user 1042 group 1043",
        [{"uid": 1042, "gid": 1043}],
        [{"uid": 1042}, {"gid": 1043}, {"uid": 1043, "gid": 1042}],
    ),
    "mark": Sent("mark 0x10/0xff", [{"mark": 0x110}], [{"mark": 0x11}, {}]),
}


def test_who_sends(firewall: Firewall) -> None:
    """By sockets of other users and groups, where the condition opens and where it closes."""
    ports = {name: (ALLOWED + n, DENIED + n) for n, name in enumerate(SENDERS)}
    firewall.apply(
        "default deny outbound\n"
        + "".join(
            f"allow udp {allowed} outbound {SENDERS[name].condition}\n"
            f"deny udp {denied} outbound {SENDERS[name].condition}\n"
            for name, (allowed, denied) in ports.items()
        )
        + f"allow udp {DENIED}-{DENIED + 999} outbound\n"
    )
    serials: dict[int, tuple[str, int, int, int]] = {}
    expected = {}
    for name, case in SENDERS.items():
        cases = [*((who, True) for who in case.meets), *((who, False) for who in case.misses)]
        for turn, (who, holds) in enumerate(cases):
            for family in FAMILIES:
                with firewall.station.sender(family, **who) as opened:  # type: ignore[arg-type]
                    for port in ports[name]:
                        packet = leaving(family=family, ports=(9, port))
                        firewall.station.send((packet,), by=opened)
                        key = name, turn, family, port
                        serials[firewall.station.thrown] = key
                        expected[key] = holds is (port < DENIED)
    seen = firewall.station.seen(Hook.OUTPUT)
    assert {key: serial in seen for serial, key in serials.items()} == expected


def test_what_a_packet_looks_like_that_is_sent(firewall: Firewall) -> None:
    """The same fields as where packets arrive, less the sender's MAC address."""
    cases = {
        name: case
        for name, case in LOOKS.items()
        if name.startswith(("source port", "dscp", "size", "ipv"))
    }
    firewall.apply(
        f"default deny outbound\n{PORT_SET}\n"
        + "".join(
            f"allow udp {port} outbound {case.condition}\n"
            for port, case in numbered(cases, ALLOWED)
        )
    )
    found, expected = {}, {}
    for (name, case), (port, _) in zip(cases.items(), numbered(cases, ALLOWED), strict=True):
        packets = [
            replace(p, source=OWN["eth0"][p.family], destination=FAR["eth0"][p.family])
            for p in to_port(port, (*case.meets, *case.misses))
        ]
        expected[name] = [True] * len(case.meets) + [False] * len(case.misses)
        found[name] = firewall.sends(*packets)
    assert found == expected


# Sends a datagram of each family, and says whether the firewall let it.
SENDING = """
import socket
for family, address in ((socket.AF_INET, '192.0.2.2'), (socket.AF_INET6, '2001:db8:1::2')):
    with socket.socket(family, socket.SOCK_DGRAM) as opened:
        try:
            opened.sendto(b'', (address, 1000))
            print('sent', end=' ')
        except PermissionError:
            print('dropped', end=' ')
"""
# Moves itself into a control group, then becomes another program.
INTO = 'echo $$ > "$0/cgroup.procs" && exec "$@"'


@contextmanager
def control_groups(*below: str) -> Iterator[Path]:
    """Make a control group of version 2, and those below it; all are gone afterwards."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    where = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
    if not where:
        pytest.xfail("no control groups of version 2 are mounted here")
    top = where[0] / f"policylang-{os.getpid()}"
    made: list[Path] = []
    try:
        for path in (top, *(top / name for name in below)):
            path.mkdir()
            made.append(path)
        yield top
    finally:
        for path in reversed(made):
            path.rmdir()


def test_who_sends_by_control_group(firewall: Firewall) -> None:
    """Processes in the group and below it meet the condition, those beside it do not."""
    with control_groups("inner", "inner/deep", "other") as top:
        policy = firewall.directory / "cgroup.policy"
        policy.write_text(
            f'default deny outbound\nallow udp 1000 outbound cgroup "{top.name}/inner"\n'
        )
        # nft looks for the group below /sys/fs/cgroup, wherever else it may be mounted.
        mounted = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
        inside = firewall.station.inside
        policylang(
            *("apply", "--yes", str(policy), "--netns", inside.name, *firewall.loader.options),
            directory=firewall.directory,
            lock=inside.name,
            under=("unshare", "--mount", "sh", "-c", mounted, "sh"),
        )
        found = {}
        for name in ("inner", "inner/deep", "other", ""):
            argv = [*("sh", "-c", INTO, str(top / name)), "ip", "netns", "exec", inside.name]
            argv += [sys.executable, "-c", SENDING]
            found[name] = subprocess.check_output(argv, text=True).split()
        sent, dropped = ["sent"] * 2, ["dropped"] * 2
        assert found == {"inner": sent, "inner/deep": sent, "other": dropped, "": dropped}


@pytest.mark.parametrize("condition", ["user no-such-user", "group no-such-group", 'cgroup "none"'])
def test_who_is_not_there_stops_the_load(firewall: Firewall, condition: str) -> None:
    """A rule that can meet nobody is not loaded, and what was in force is in force."""
    firewall.apply("default deny outbound\nallow udp 1000 outbound")
    with pytest.raises(CommandError, match=r"error\["):
        firewall.apply(f"default deny outbound\nallow udp 1001 outbound {condition}")
    for family in FAMILIES:
        sent = [leaving(family=family, ports=(9, port)) for port in (1000, 1001)]
        assert firewall.sends(*sent) == [True, False]


# --- when ------------------------------------------------------------------------------------

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MARGIN = timedelta(minutes=3)  # a test is over long before
TIME_ZONES = ("America/New_York", "Asia/Kolkata")


def window(starts: datetime, ends: datetime) -> str:
    return f"{starts:%H:%M}-{ends:%H:%M}"


def moments(now: datetime) -> dict[str, bool]:
    """Conditions, and whether they hold at that time."""
    around, before, after = (
        (now - MARGIN, now + MARGIN),
        (now - HOUR, now - MARGIN),
        (now + MARGIN, now + HOUR),
    )
    today, tomorrow, yesterday = (DAYS[(now + DAY * n).weekday()] for n in (0, 1, -1))
    started, starting = DAYS[around[0].weekday()], DAYS[after[0].weekday()]
    # From after now round the clock to before now, and to after it, which began a day earlier.
    rest = window(now + MARGIN, now - MARGIN)
    long = window(now + HOUR, now + MARGIN)
    began = DAYS[(now + HOUR - DAY).weekday()]
    not_began = DAYS[(now + HOUR).weekday()]
    others = ", ".join(day for day in DAYS if day != today)
    return {
        f"during {window(*around)}": True,
        f"during {window(*before)}": False,
        f"during {window(*after)}": False,
        f"during {window(*before)}, {window(*around)}, {window(*after)}": True,
        f"during {window(*around)} {started}": True,
        f"during {window(*around)} {', '.join(day for day in DAYS if day != started)}": False,
        f"during {window(*after)} {starting}": False,
        f"during {rest}": False,
        f"during {long}": True,
        f"during {long} {began}": True,
        f"during {long} {not_began}": False,
        f"during {today}": True,
        f"during {tomorrow}, {yesterday}": False,
        f"during {others}": False,
        f"during {window(*around)} {started} until {now + DAY:%Y-%m-%d}": True,
        f"until {now - DAY:%Y-%m-%d}": False,
        f"until {now:%Y-%m-%d}": True,
        f"until {now + DAY:%Y-%m-%d}": True,
    }


def check_times(firewall: Firewall, settings: str, now: datetime, zone: str) -> None:
    """Each condition has a port of its own, where it opens, and one where it closes."""
    cases = {c: holds for c, holds in moments(now).items() if not settings or not has_days(c)}
    policy = [settings]
    policy += [f"allow udp {ALLOWED + n} inbound {c}" for n, c in enumerate(cases)]
    policy += [f"deny udp {DENIED + n} inbound {c}" for n, c in enumerate(cases)]
    policy += [f"allow udp {DENIED}-{DENIED + 999} inbound"]
    firewall.apply("\n".join(policy), zone)
    for family in FAMILIES:
        for first, turned in ((ALLOWED, False), (DENIED, True)):
            packets = [arriving(family=family, ports=(1, first + n)) for n, _ in enumerate(cases)]
            found = dict(zip(cases, firewall.takes(*packets), strict=True))
            assert found == {c: holds is not turned for c, holds in cases.items()}


def has_days(condition: str) -> bool:
    return any(day in condition for day in DAYS)


@pytest.mark.parametrize("zone", TIME_ZONES)
def test_hours_and_days_of_utc(firewall: Firewall, zone: str) -> None:
    """They mean the same wherever the rules are loaded."""
    away_from_midnight()
    check_times(firewall, "", datetime.now(UTC), zone)


@pytest.mark.parametrize("zone", TIME_ZONES)
def test_local_hours(firewall: Firewall, zone: str) -> None:
    """nft has them from the zone of whoever loads, iptables from the kernel's."""
    away_from_midnight()
    now = datetime.now(ZoneInfo(zone))
    if firewall.loader is not Loader.NFT:
        now = datetime.now(UTC) - timedelta(minutes=kernel_minutes_west())
    check_times(firewall, "settings { time local }", now, zone)


def away_from_midnight() -> None:
    """Wait where a day is about to end, in any of the zones, for the next one."""
    zones = [ZoneInfo(zone) for zone in ("UTC", *TIME_ZONES)]
    while any(f"{datetime.now(zone):%H:%M}" == "23:59" for zone in zones):
        time.sleep(1)


class _Zone(ctypes.Structure):
    """`struct timezone` (gettimeofday(2))."""

    _fields_ = (("minutes_west", ctypes.c_int), ("dst", ctypes.c_int))


def kernel_minutes_west() -> int:
    """The time zone that the kernel was told of, once, at boot (settimeofday(2)): mostly none."""
    zone = _Zone()
    ctypes.CDLL(None).gettimeofday(None, ctypes.byref(zone))
    return int(zone.minutes_west)


def test_local_hours_on_some_days(firewall: Firewall) -> None:
    """nft cannot say them, and what it is told is an error; iptables can."""
    now = datetime.now(UTC) - timedelta(minutes=kernel_minutes_west())
    today, tomorrow = (DAYS[(now + DAY * n).weekday()] for n in (0, 1))
    policy = "settings { time local }\n" + "".join(
        f"allow udp {port} inbound during 00:00-23:59, 23:59-00:00 {day}\n"
        for port, day in ((1000, today), (1001, tomorrow))
    )
    if firewall.loader is Loader.NFT:
        with pytest.raises(CommandError, match=r"error\[unsupported\]"):
            firewall.apply(policy)
        return
    away_from_midnight()
    firewall.apply(policy)
    assert firewall.takes(*to_port(1000, each(arriving))) == [True] * 2
    assert firewall.takes(*to_port(1001, each(arriving))) == [False] * 2


def test_a_day_beyond_what_iptables_can_say(firewall: Firewall) -> None:
    """Its clock has 32 bits; there the day is refused, and not taken for one that is past."""
    policy = "allow udp 1000 inbound until 2040-01-01"
    if firewall.loader is Loader.NFT:
        firewall.apply(policy)
        assert firewall.takes(*to_port(1000, each(arriving))) == [True] * 2
        return
    with pytest.raises(CommandError, match=r"error\[unsupported\]"):
        firewall.apply(policy)


# --- how often -------------------------------------------------------------------------------

# A bucket of one an hour holds no other before a test is over.


def senders(*last: int, family: int, port: int = 1000) -> list[Packet]:
    prefix = {4: "192.0.2.", 6: "2001:db8:1::"}[family]
    return [arriving(family=family, source=f"{prefix}{n}", ports=(9, port)) for n in last]


def test_a_rate_and_its_burst(firewall: Firewall) -> None:
    """Up to the burst (5 unless said), and the other part; IPv4 and IPv6, and each path, apart."""
    firewall.station.nft(MARKING)
    firewall.apply(
        f"""
        {ZONES}
        allow udp 1000 from any except self to self, far limit 1/hour
        allow udp 1001 inbound limit 2/hour burst 3
        deny udp 1002 inbound limit over 1/minute burst 3
        allow udp 1002 inbound
        deny udp 1003 inbound limit 1/hour burst 3
        allow udp 1003 inbound source port 9
        allow udp 1004 inbound limit 1/hour burst 2
        allow udp 1004 inbound source port 10
        allow udp 1005 inbound limit 1/hour burst 2 mac {MAC} source port 7
        allow udp 1006 inbound limit 1/hour burst 2 mark 0x10
        allow udp 1007 inbound source port 7
        allow udp 1007-1008 inbound limit 1/hour burst 2
        allow udp 1009 inbound max 3 connections limit 1/hour burst 5
        allow udp 1010 inbound max 5 connections limit 1/hour burst 3
        """
    )
    for family in FAMILIES:

        def sent(
            port: int, times: int, source_port: int = 9, mac: str | None = None
        ) -> list[Packet]:
            one = arriving(family=family, ports=(source_port, port), mac=mac)  # noqa: B023
            return [one] * times

        assert count(firewall.takes(*sent(1000, 8))) == 5
        assert count(firewall.forwards(*through(sent(1000, 8)))) == 5
        assert count(firewall.takes(*sent(1001, 8))) == 3
        assert count(firewall.takes(*sent(1002, 8))) == 3
        assert firewall.takes(*sent(1003, 6)) == [False] * 3 + [True] * 3
        # What is over the rate goes on to the next rule, which is about some of it.
        assert count(firewall.takes(*sent(1004, 5))) == 2
        assert count(firewall.takes(*sent(1004, 5, 10))) == 5
        # The rate is asked where all other conditions hold.
        assert count(firewall.takes(*sent(1005, 9, 7), *sent(1005, 9, 8, mac=MAC))) == 0
        assert count(firewall.takes(*sent(1005, 5, 7, mac=MAC))) == 2
        assert count(firewall.takes(*sent(1006, 9))) == 0
        assert count(firewall.takes(*sent(1006, 5, 41000))) == 2
        # What a rule above takes is not counted.
        assert count(firewall.takes(*sent(1007, 9, 7))) == 9
        assert count(firewall.takes(*sent(1008, 3), *sent(1007, 3))) == 2
        # With a count of connections both must hold; what that refuses, the rate does not count.
        others = [p for port in range(1, 8) for p in sent(1009, 1, port)]
        assert count(firewall.takes(*others)) == 3
        assert count(firewall.takes(*sent(1010, 5))) == 3


def test_a_bucket_fills_again(firewall: Firewall) -> None:
    """At the rate: not at once, and not later than a few times the time of one packet."""
    firewall.apply("allow udp 1000 inbound limit 5/second burst 2")
    packet = arriving(ports=(9, 1000))
    started = time.monotonic()
    assert count(firewall.takes(*[packet] * 4)) == 2
    until_true(lambda: firewall.takes(packet)[0])
    assert time.monotonic() - started > 0.1


def test_a_rate_for_each_address(firewall: Firewall) -> None:
    """One source's flood leaves another alone, and so does what goes to one destination."""
    firewall.apply(
        f"""
        {ZONES}
        allow udp 1000 inbound limit 1/hour burst 3 per source
        deny udp 1001 inbound limit over 1/hour burst 3 per source
        allow udp 1001 inbound
        allow udp 1002 inbound limit 1/hour burst 3 per source/30
        allow udp 1003 inbound limit 1/hour burst 3 per source/24
        allow udp 1004 inbound limit 1/hour burst 3 per destination
        """
    )
    for family in FAMILIES:
        for port in (1000, 1001):
            flood, other = (senders(n, family=family, port=port) * 9 for n in (66, 67))
            assert count(firewall.takes(*flood)) == 3
            assert count(firewall.takes(*other)) == 3
        # 4 to 7 are of one /30; IPv6 goes by /64 then, which holds them all.
        verdicts = firewall.takes(*senders(4, 5, 6, 7, 8, 9, family=family, port=1002))
        assert verdicts == [True] * 3 + [False] + [family == 4] * 2
        assert count(firewall.takes(*senders(4, 99, 200, 250, family=family, port=1003))) == 3
        elsewhere = [replace(p, source=FAR["eth1"][family]) for p in senders(1, family=family)]
        assert firewall.takes(*to_port(1003, elsewhere)) == [True]
        assert count(firewall.takes(*senders(4, 5, 6, 7, family=family, port=1004))) == 3
        there = [replace(p, destination=OWN["eth1"][family]) for p in senders(4, family=family)]
        assert firewall.takes(*to_port(1004, there)) == [True]


def test_one_rate_for_a_statement(firewall: Firewall) -> None:
    """Whatever services and zones it names, they share its bucket."""
    firewall.apply(
        f"""
        {ZONES}
        allow udp 1000-1001, tcp 1000, dns inbound from near, other limit 1/hour burst 3
        """
    )
    for family in FAMILIES:
        packets = [
            arriving("eth0", family, ports=(9, 1000)),
            arriving("eth1", family, ports=(9, 1001)),
            arriving("eth1", family, ports=(9, 1000), protocol=TCP),
            arriving("eth0", family, ports=(9, 1001)),
            arriving("eth1", family, ports=(9, 1000)),
            arriving("eth0", family, ports=(9, 53)),
            arriving("eth0", family, ports=(9, 1000), protocol=TCP),
        ]
        assert count(firewall.takes(*packets)) == 3


def test_a_rate_of_several_steps(firewall: Firewall) -> None:
    """What is logged, put in a set and answered is what is within the rate, and no more."""
    firewall.apply(
        """
        set seen = dynamic
        reject tcp 1000, udp 1000 inbound limit 1/hour burst 3
        allow tcp 1000, udp 1000 inbound
        allow udp 1001 inbound from seen
        allow udp 1002-1003, tcp 1002 inbound limit 1/hour burst 2
            log "within " group 5 limit none add source to seen
        """
    )
    listener = Listener(firewall.station.inside, 5)
    for family in FAMILIES:
        both = [arriving(family=family, protocol=p, ports=(9, 1000)) for p in (TCP, UDP)]
        assert firewall.takes(*both, *both, *both) == [False] * 3 + [True] * 3
        packets = senders(71, 72, 73, family=family, port=1002)
        assert count(firewall.takes(*packets)) == 2
        assert firewall.takes(*to_port(1001, packets)) == [True, True, False]
        assert [entry.prefix for entry in listener.entries()] == ["within "] * 2
    listener.close()


def test_a_rate_counts_what_opens_a_connection(firewall: Firewall) -> None:
    """The rest of a connection passes and is not counted, but of pings every packet is."""
    firewall.apply(
        """
        allow udp 1000 inbound limit 1/hour burst 2
        allow ping inbound limit 1/hour burst 3
        """
    )
    for family in FAMILIES:
        packet = arriving(family=family, ports=(9, 1000))
        firewall.station.throw([packet])
        firewall.station.send([leaving(family=family, ports=(1000, 9))])
        assert count(firewall.takes(*[packet] * 9)) == 9
        other = replace(packet, ports=(10, 1000))
        assert count(firewall.takes(*[other] * 3)) == 1
        protocol, echo = {4: (ICMP, 8), 6: (ICMPV6, 128)}[family]
        ping = arriving(family=family, protocol=protocol, icmp_type=echo)
        # The kernel answers the first one, which makes a connection of it.
        assert count(firewall.takes(*[ping] * 6)) == 3


def test_a_changed_rate_holds_at_once(firewall: Firewall) -> None:
    """What the rules before it counted is not kept under another rate."""
    for per, burst in (("", 2), ("", 4), (" per source", 2), (" per source", 4)):
        firewall.apply(f"allow udp 1000 inbound limit 1/hour burst {burst}{per}")
        for family in FAMILIES:
            assert count(firewall.takes(*senders(*[5] * 6, family=family))) == burst


# --- how many --------------------------------------------------------------------------------


def opened(*ports: int, source: int, to: int, family: int) -> list[Packet]:
    """First packets of connections from those ports."""
    return [replace(p, ports=(port, to)) for port in ports for p in senders(source, family=family)]


def test_open_connections(firewall: Firewall) -> None:
    """The first N pass and the next does not; for all, and for each source or network apart."""
    firewall.apply(
        """
        allow udp 1000 inbound max 8 connections
        allow udp 1001 inbound max 2 connections per source
        allow udp 1002 inbound max 2 connections per source/24
        deny udp 1003 inbound over 2 connections per source
        allow udp 1003 inbound
        deny udp 1004 inbound over 2 connections
        allow udp 1004 inbound
        deny udp 1005 inbound max 2 connections
        allow udp 1005 inbound
        allow udp 1006 inbound max 2 connections per destination
        """
    )
    for family in FAMILIES:

        def passing(to: int, *ports: int, source: int = 66) -> list[bool]:
            packets = opened(*ports, source=source, to=to, family=family)  # noqa: B023
            return firewall.takes(*packets)

        # The ninth, and more from elsewhere: everybody's are counted together.
        assert count(passing(1000, *range(1, 11))) == 8
        assert count(passing(1000, 1, source=67)) == 0
        for per_source in (1001, 1003):
            # A second packet of one is no other.
            assert count(passing(per_source, 1, 2, 1, 2, 3, 4)) == 4
            assert count(passing(per_source, 1, 2, 3, 4, source=67)) == 2
        assert count(passing(1002, 1)) == 1
        assert count(passing(1002, 1, 2, source=67)) == 1
        other = [replace(p, source=FAR["eth1"][family]) for p in senders(1, family=family)]
        assert firewall.takes(*to_port(1002, other)) == [True]
        assert count(passing(1004, 1, 2)) == 2
        assert count(passing(1004, 1, source=67)) == 0
        # What is denied is soon forgotten: how soon, the kernel decides.
        assert passing(1005, 1, 2) == [False] * 2
        assert any(passing(1005, *range(3, 12)))
        assert count(passing(1006, 1, 2, 3)) == 2
        # The end of one lets another in; the kernel forgets those that it refused two ticks later.
        ended = ["conntrack", "-D", "-f", f"ipv{family}", "-p", "udp", "--dport", "1000"]
        firewall.station.inside.run([*ended, "--sport", "3"])
        until_true(lambda: passing(1000, 20)[0])
        assert count(passing(1000, 21)) == 0


@pytest.mark.parametrize("loader", Loader)
def test_tcp_connections(kernel: None, loader: Loader, tmp_path: Path) -> None:
    """Of sockets that are open and answer: the ninth waits until one of the others is closed."""
    with ground("wan") as laid, ExitStack() as stack:
        loader.load("allow tcp 1000 inbound max 8 connections per source", laid.firewall, tmp_path)
        wan = laid["wan"]
        for family in Family:
            stack.enter_context(laid.firewall.listen(family, 1000))
            address = wan.near.of(family)
            connected = []
            for _ in range(8):
                client = stack.enter_context(wan.neighbour.opened(family, socket.SOCK_STREAM))
                client.settimeout(2)
                client.connect((address, 1000))
                connected.append(client)
            assert probe_tcp(wan.neighbour, address, 1000, 0.2) is Reach.TIMEOUT
            linger = struct.pack("ii", 1, 0)  # on, for no time: closed by a reset
            connected[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connected[0].close()
            assert probe_tcp(wan.neighbour, address, 1000, 2) is Reach.OPEN
