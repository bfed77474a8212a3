"""What rules for iptables count and keep: rates, connections, sets, questions; and native lines.

The flavours share what has a name in the kernel (buckets and sets), so they are loaded in turn.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as FilePath

import pytest

from policylang.backends.iptables.names import (
    ASKER_PORTS,
    QUESTION_INTERFACES,
    QUESTION_PORTS,
    dynamic_set_name,
)
from policylang.ir.actions import (
    AddToSet,
    CgroupGuard,
    ConnectionsGuard,
    End,
    Native,
    Per,
    RateGuard,
    RememberAsker,
    RememberQuestion,
)
from policylang.ir.ruleset import DynamicSet, Item, Rule, Ruleset
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import TCP, Field
from policylang.packets.values import Ranges
from tests.backends.iptables_station import (
    FAMILIES,
    FLAVOURS,
    FORWARD,
    INPUT,
    OUTPUT,
    PASS,
    PORT,
    SCREEN,
    SCREEN_STATE,
    Bench,
    counted,
)
from tests.backends.nft_station import (
    FAR,
    OWN,
    WIRES,
    Packet,
    arriving,
    introduced,
    leaving,
    ruleset,
)
from tests.kernel.ground import CommandError, Family

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


def of(**terms: Ranges) -> Cube:
    return Cube.of({Field[name]: values for name, values in terms.items()})


ONE, ZERO = Ranges.of(1), Ranges.of(0)

# Sources that the first two share a /24 and a /64 of; the third is in another one.
SOURCES = {
    4: ("192.0.2.2", "192.0.2.3", "203.0.113.2"),
    6: ("2001:db8:1::2", "2001:db8:1::3", "2001:db8:9::2"),
}
DESTINATIONS = {4: ("192.0.2.1", "198.51.100.1"), 6: ("2001:db8:1::1", "2001:db8:2::1")}
PER_SOURCE, PER_NET = Per(End.SOURCE), Per(End.SOURCE, 24, 64)
PER_DESTINATION = Per(End.DESTINATION)


# --- rates ---------------------------------------------------------------------------------------

BURST = 5
SLOW = RateGuard(1, "hour", BURST)


def test_rates_are_asked_once_a_packet_by_bucket(bare: Bench) -> None:
    """Ten packets from each source; a bucket lets five of them by. The families count apart."""
    limits: dict[str, tuple[Per | None, int]] = {
        "all": (None, 1),
        "source": (PER_SOURCE, 3),
        "net": (PER_NET, 2),
        "destination": (PER_DESTINATION, 1),
    }
    rules: list[Item] = []
    for name, (per, _) in limits.items():
        rules.append(counted(name, EVERYTHING, replace(SLOW, per=per)))
        rules.append(counted(f"{name}-over", EVERYTHING, replace(SLOW, per=per, over=True)))
    rules += [
        # What takes several lines, or a chain, has one bucket all the same.
        counted("lines", of(DSCP=Ranges.of(0, 1, 2)), SLOW),
        counted("chain", of(ANSWER=ZERO, DSCP=Ranges.of(0, 1, 2)), replace(SLOW, per=PER_SOURCE)),
        counted("fast", EVERYTHING, RateGuard(10_000, "second", 20_000)),
        # A guard is asked only if those before it hold.
        counted("both", EVERYTHING, SLOW, replace(SLOW, burst=3)),
        counted("missed", of(DSCP=Ranges.of(7)), SLOW),
    ]
    for flavour in FLAVOURS:
        bare.clear()
        # The same rules in three tables: none of them shares a bucket with another.
        places = {SCREEN: rules, SCREEN_STATE: rules, INPUT: [*rules, PASS]}
        bare.load(flavour, ruleset(places))
        for family in FAMILIES:
            for source in SOURCES[family]:
                bare.station.throw([arriving(family=family, source=source)] * 10)
        found = bare.counts(flavour)
        for family in FAMILIES:
            sent = 10 * len(SOURCES[family])
            for name, (_, buckets) in limits.items():
                passed = 3 * BURST * buckets
                assert found[family, name] == passed, (flavour, family, name)
                assert found[family, f"{name}-over"] == 3 * sent - passed, (flavour, family, name)
            assert found[family, "lines"] == 3 * BURST
            assert found[family, "chain"] == 3 * BURST * 3
            assert found[family, "fast"] == 3 * sent
            assert found[family, "both"] == 3 * 3
            assert found[family, "missed"] == 0


@each_flavour
def test_a_bucket_fills_again(bare: Bench, flavour: str) -> None:
    guard = RateGuard(10, "second", 2)
    rules = [
        counted("all", EVERYTHING, guard),
        counted("source", EVERYTHING, replace(guard, per=PER_SOURCE)),
    ]
    bare.load(flavour, ruleset({SCREEN: rules}))
    bare.station.throw([arriving()] * 20)
    at_once = bare.counts(flavour)
    time.sleep(0.3)
    bare.station.throw([arriving()] * 20)
    for name in ("all", "source"):
        assert 2 <= at_once[4, name] < 10, name
        assert 2 <= bare.counts(flavour)[4, name] - at_once[4, name] < 10, name


@each_flavour
def test_a_new_generation_has_its_own_rate_and_keeps_a_bucket_that_is_the_same(
    bare: Bench, flavour: str
) -> None:
    """The kernel gives a rule the buckets of its name with the rate that they were made with."""

    def generation(burst: int) -> Ruleset:
        guard = replace(SLOW, burst=burst, per=PER_SOURCE)
        return ruleset({SCREEN: [counted("source", EVERYTHING, guard)]})

    passed = []
    for burst in (5, 5, 8):
        # In one commit, as `apply` does it: the old rules are there until the new ones are.
        bare.load_over(flavour, generation(burst))
        bare.station.throw([arriving()] * 20)
        passed.append(bare.counts(flavour)[4, "source"])
    assert passed == [5, 0, 8]


# --- connections ---------------------------------------------------------------------------------


def opening(number: int, family: int, source: str, destination: str) -> Packet:
    """The first packet of a connection of its own."""
    return arriving(
        family=family, source=source, destination=destination, ports=(2000 + number, PORT)
    )


def test_connections_are_counted_while_they_are_open(bare: Bench) -> None:
    limits: dict[str, tuple[Per | None, int]] = {
        "all": (None, 1),
        "source": (PER_SOURCE, 3),
        "net": (PER_NET, 2),
        "destination": (PER_DESTINATION, 2),
    }
    rules: list[Item] = []
    for name, (per, _) in limits.items():
        rules.append(counted(name, EVERYTHING, ConnectionsGuard(4, per=per)))
        rules.append(counted(f"{name}-over", EVERYTHING, ConnectionsGuard(4, True, per)))
    # Three lines, one count.
    rules.append(counted("lines", of(DSCP=Ranges.of(0, 1, 2)), ConnectionsGuard(4)))
    for flavour in FLAVOURS:
        bare.clear()
        bare.load(flavour, ruleset({INPUT: [*rules, PASS]}))
        for again in (1, 2):
            for family in FAMILIES:
                for source in SOURCES[family]:
                    for destination in DESTINATIONS[family]:
                        bare.station.throw(
                            opening(n, family, source, destination) for n in range(5)
                        )
            found = bare.counts(flavour)
            for family in FAMILIES:
                for name, (_, tables) in limits.items():
                    assert found[family, name] == again * 4 * tables, (flavour, family, name)
                    over = again * (30 - 4 * tables)
                    assert found[family, f"{name}-over"] == over, (flavour, family, name)
                assert found[family, "lines"] == again * 4
            # What is closed counts no longer.
            bare.forget_connections()


# --- cgroups -------------------------------------------------------------------------------------

CGROUPS = FilePath("/sys/fs/cgroup")
SEND = """
import pathlib, socket, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
for family, address in ((socket.AF_INET, sys.argv[2]), (socket.AF_INET6, sys.argv[3])):
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"", (address, 53))
"""


@pytest.fixture
def cgroup() -> Iterator[FilePath]:
    """A group of version 2 with one in it, below the mount."""
    mounts = [line.split() for line in FilePath("/proc/mounts").read_text().splitlines()]
    roots = [FilePath(words[1]) for words in mounts if words[2] == "cgroup2"]
    if not roots:
        pytest.xfail("this machine has no cgroups of version 2")
    outer = roots[0] / f"policylang-{os.getpid()}"
    inner = outer / "in it"
    try:
        outer.mkdir()
        inner.mkdir()
    except OSError as error:
        pytest.xfail(f"this machine makes no cgroups: {error}")
    yield outer
    inner.rmdir()
    outer.rmdir()


def test_cgroups_are_met_with_those_below_them(bare: Bench, cgroup: FilePath) -> None:
    paths = {"outer": cgroup.name, "inner": f"{cgroup.name}/in it"}
    rules = [counted(name, EVERYTHING, CgroupGuard(path)) for name, path in paths.items()]
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({OUTPUT: [*rules, PASS]}))
    for path in (cgroup, cgroup / "in it", cgroup.parent):
        # `ip netns exec` would mount another /sys, without cgroups.
        with bare.station.inside.entered():
            argv = [sys.executable, "-c", SEND, str(path), FAR["eth0"][4], FAR["eth0"][6]]
            subprocess.run(argv, check=True, timeout=20)
    for flavour in FLAVOURS:
        found = bare.counts(flavour)
        for family in FAMILIES:
            assert (found[family, "outer"], found[family, "inner"]) == (2, 1)


# --- sets that packets fill ----------------------------------------------------------------------

BANNED, SEEN = DynamicSet("banned", 600, 100), DynamicSet("seen", None, 2)


@each_flavour
def test_addresses_are_put_into_sets_and_stay_there(bare: Bench, flavour: str) -> None:
    """What a rule adds goes on, is refreshed by each packet, and survives a new generation."""
    rules: list[Item] = [
        Rule(of(DSCP=ZERO), AddToSet("banned", End.SOURCE, None)),
        Rule(of(DSCP=Ranges.of(46)), AddToSet("banned", End.SOURCE, 3600)),
        Rule(EVERYTHING, AddToSet("seen", End.DESTINATION, None)),
        Rule(of(DSCP=Ranges.of(46)), AddToSet("seen", End.SOURCE, 90)),
        counted("after"),
    ]
    places = {SCREEN: rules, SCREEN_STATE: rules, INPUT: [*rules, PASS]}
    rules_of_all = ruleset(places, sets=(BANNED, SEEN))
    bare.load(flavour, rules_of_all)
    for family in FAMILIES:
        banned, seen = (dynamic_set_name(one.name, family) for one in (BANNED, SEEN))
        plain, urgent = arriving(family=family), arriving(family=family, dscp=46)
        bare.station.throw([plain])
        assert 590 < bare.elements(banned).pop(plain.source) <= 600
        assert bare.elements(seen) == {plain.destination: 0}
        bare.station.throw([urgent])
        assert bare.elements(banned)[plain.source] > 3590
        # The bound of the set is one more: what does not fit is left out, and goes on.
        bare.station.throw([replace(urgent, source=SOURCES[family][1])])
        assert bare.elements(seen).keys() == {plain.destination, plain.source}
        assert bare.elements(banned).keys() == {plain.source, SOURCES[family][1]}
        bare.load(flavour, rules_of_all)
        assert bare.elements(banned).keys() == {plain.source, SOURCES[family][1]}
        assert bare.elements(seen).keys() == {plain.destination, plain.source}
    # Nobody's address is put into no set, and is no error.
    nobody = arriving(source="0.0.0.0", destination="255.255.255.255")
    bare.station.throw([nobody])
    assert "0.0.0.0" not in bare.elements(dynamic_set_name("banned", 4))
    assert bare.counts(flavour)[4, "after"] >= 2  # since the second load; at raw and mangle


def test_a_set_that_has_other_options_is_refused(bare: Bench) -> None:
    """`apply` has to carry its elements over: ipset leaves the set as it was."""
    bare.load("legacy", ruleset({SCREEN: []}, sets=(BANNED,)))
    name = dynamic_set_name("banned", 4)
    bare.ipset("add", name, "192.0.2.9")
    for other in (replace(BANNED, timeout_s=60), replace(BANNED, size=200)):
        with pytest.raises(CommandError, match="already exists"):
            bare.load_over("legacy", ruleset({SCREEN: []}, sets=(other,)))
    assert bare.elements(name).keys() == {"192.0.2.9"}
    assert "timeout 600" in bare.ipset("list", "-terse", name) or "600" in bare.ipset("save", name)


# --- questions and answers -----------------------------------------------------------------------

QUESTION = RememberQuestion(2)
ASKING = 4000  # a port that asks


def ask(bare: Bench, family: int, group: str, wire: str = "eth0") -> None:
    """Ask from the firewall, by a wire."""
    packet = leaving(wire, family, destination=group, ports=(ASKING, 5353))
    bare.station.send([packet, replace(packet, protocol=TCP, ports=(ASKING + 1, 5353))])


GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}


@each_flavour
def test_answers_come_in_for_a_while(bare: Bench, flavour: str) -> None:
    """To the asking address or the group that was asked, its port, and by its interface."""
    bare.load(
        flavour,
        ruleset(
            {
                OUTPUT: [Rule(EVERYTHING, QUESTION), PASS],
                SCREEN: [counted("answer", of(ANSWER=ONE)), counted("other", of(ANSWER=ZERO))],
            }
        ),
    )
    for family in FAMILIES:
        ask(bare, family, GROUPS[family])
        own, group = OWN["eth0"][family], GROUPS[family]
        ports = (5353, ASKING)
        answer = arriving(family=family, ports=ports)
        answers = [
            answer,
            replace(answer, source=SOURCES[family][2]),
            replace(answer, destination=group),
        ]
        others = [
            replace(answer, ports=(5353, ASKING + 2)),
            replace(answer, destination=OWN["eth1"][family]),
            arriving("eth1", family, ports=ports),
            arriving("eth1", family, destination=own, ports=ports),
            replace(answer, protocol=TCP),
            # A question that is no UDP is forgotten at once.
            replace(answer, ports=(5353, ASKING + 1)),
            replace(answer, protocol=TCP, ports=(5353, ASKING + 1)),
        ]
        bare.station.throw([*answers, *others])
        found = bare.counts(flavour)
        assert found[family, "answer"] == len(answers)
        assert found[family, "other"] == len(others)
        assert bare.elements(QUESTION_INTERFACES[family]).keys() == {f"{own},eth0", f"{group},eth0"}
        assert bare.elements(QUESTION_PORTS[family]).keys() == {
            f"{own},udp:{ASKING}",
            f"{group},udp:{ASKING}",
        }
    assert set(bare.elements(QUESTION_PORTS[6]).values()) <= {1, 2}
    time.sleep(2.3)
    bare.station.throw(arriving(family=family, ports=(5353, ASKING)) for family in FAMILIES)
    assert [bare.counts(flavour)[family, "answer"] for family in FAMILIES] == [3, 3]


@each_flavour
def test_who_has_no_address_yet_is_answered(bare: Bench, flavour: str) -> None:
    """DHCP: from 0.0.0.0 to everybody, and the offer is for everybody, too."""
    inside = bare.station.inside
    # With an address on any interface, the kernel would take that one.
    inside.ip(*(f"addr del {OWN[wire][4]}/24 dev {wire}" for wire in WIRES))
    try:
        bare.load(
            flavour,
            ruleset(
                {
                    OUTPUT: [Rule(EVERYTHING, QUESTION), PASS],
                    SCREEN: [counted("answer", of(ANSWER=ONE))],
                }
            ),
        )
        with inside.opened(Family.IPV4, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth1")
            client.bind(("", 68))
            client.sendto(b"discover", ("255.255.255.255", 67))
        assert bare.elements(QUESTION_INTERFACES[4]).keys() == {
            "0.0.0.0,eth1",
            "255.255.255.255,eth1",
        }
        offer = arriving("eth1", destination="255.255.255.255", ports=(67, 68))
        bare.station.throw([offer, replace(offer, wire="eth0"), replace(offer, ports=(67, 69))])
        assert bare.counts(flavour)[4, "answer"] == 1
    finally:
        for wire in WIRES:
            # With its last address an interface forgets all its neighbours.
            inside.ip(f"addr add {OWN[wire][4]}/24 brd + dev {wire}", *introduced(wire))


@each_flavour
def test_questions_that_are_forwarded_are_remembered_too(bare: Bench, flavour: str) -> None:
    """By the interface by which they leave, not by the one by which they came."""
    inside = bare.station.inside
    for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        inside.sysctl(key, "1")
    try:
        bare.load(
            flavour,
            ruleset(
                {
                    FORWARD: [Rule(of(DPORT=Ranges.of(161)), QUESTION), PASS],
                    SCREEN: [counted("answer", of(ANSWER=ONE))],
                }
            ),
        )
        for family in FAMILIES:
            asker, asked = FAR["eth0"][family], FAR["eth1"][family]
            question = arriving(family=family, destination=asked, ports=(ASKING, 161))
            answer = arriving("eth1", family, destination=asker, ports=(161, ASKING))
            bare.station.throw([question, answer, replace(answer, wire="eth0")])
            assert bare.counts(flavour)[family, "answer"] == 1
            assert f"{asker},eth1" in bare.elements(QUESTION_INTERFACES[family])
    finally:
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            inside.sysctl(key, "0")


@each_flavour
def test_askers_are_answered_for_a_while(bare: Bench, flavour: str) -> None:
    bare.load(
        flavour,
        ruleset(
            {
                INPUT: [Rule(EVERYTHING, RememberAsker(2)), PASS],
                OUTPUT: [
                    counted("asker", of(TO_ASKER=ONE)),
                    # By port, for resets and ICMP errors leave as well, whenever they like.
                    counted("other", of(TO_ASKER=ZERO, DPORT=Ranges.between(ASKING, ASKING + 6))),
                    PASS,
                ],
            }
        ),
    )
    asked = [arriving(family=family, ports=(ASKING + family, PORT)) for family in FAMILIES]
    bare.station.throw([*asked, *(replace(one, protocol=TCP, ports=(9, 9)) for one in asked)])
    held = bare.elements(ASKER_PORTS)
    assert held.keys() == {str(ASKING + family) for family in FAMILIES}
    before = {family: bare.counts(flavour)[family, "other"] for family in FAMILIES}
    for family in FAMILIES:
        to_asker = leaving(family=family, ports=(PORT, ASKING + family))
        to_other = replace(to_asker, ports=(PORT, ASKING))
        bare.station.send([to_asker, to_other, replace(to_asker, protocol=TCP)])
        found = bare.counts(flavour)
        assert found[family, "asker"] == 1
        assert found[family, "other"] - before[family] == 2
    time.sleep(2.3)
    bare.station.send(leaving(family=f, ports=(PORT, ASKING + f)) for f in FAMILIES)
    assert [bare.counts(flavour)[family, "asker"] for family in FAMILIES] == [1, 1]


# --- lines of the user's own ---------------------------------------------------------------------


def test_a_native_line_stands_in_its_place_as_it_is(bare: Bench) -> None:
    def native(name: str, matches: str = "", family: int | None = None) -> Rule:
        text = f"{matches} -j NFLOG --nflog-group 1 --nflog-prefix {name}".strip()
        return Rule(EVERYTHING, Native("iptables", text, family))

    rules: list[Item] = [
        native("all"),
        native("urgent", "-m dscp --dscp 46"),
        native("four", family=4),
        native("six", family=6),
        Rule(EVERYTHING, Native("nft", "drop", None)),
        PASS,
        native("behind"),
    ]
    for flavour in FLAVOURS:
        bare.load(flavour, ruleset({INPUT: rules}))
    for family in FAMILIES:
        bare.station.throw([arriving(family=family), arriving(family=family, dscp=46)])
    for flavour in FLAVOURS:
        assert +bare.counts(flavour) == {
            (4, "all"): 2,
            (6, "all"): 2,
            (4, "urgent"): 1,
            (6, "urgent"): 1,
            (4, "four"): 2,
            (6, "six"): 2,
        }
