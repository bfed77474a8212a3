"""Options of a rule, defaults and settings, from the text of a policy to what the kernel does.

Each way of loading; each with a control that fares otherwise.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from policylang.packets.fields import TCP, UDP
from tests.backends.nft_station import Packet, arriving, leaving

from .applied import FAMILIES, Firewall, leaving_by, through, to_port, until_true
from .ground import Loader
from .logged import Listener, kernel_log

# --- log -------------------------------------------------------------------------------------

GROUPS = (5, 6)


@pytest.fixture
def listener(firewall: Firewall) -> Iterator[Listener]:
    opened = Listener(firewall.station.inside, *GROUPS)
    yield opened
    opened.close()


def flood(port: int, times: int, *last: int, family: int) -> list[Packet]:
    """First packets of as many connections, from hosts of the first network that end so."""
    prefix = {4: "192.0.2.", 6: "2001:db8:1::"}[family]
    return [
        arriving(family=family, source=f"{prefix}{host}", ports=(10000 + n, port))
        for n in range(times)
        for host in last or (66,)
    ]


def test_how_often_a_rule_logs(firewall: Firewall, listener: Listener) -> None:
    """Ten a second after five at once unless said otherwise; all of them; for each source."""
    firewall.apply(
        """
        allow udp 1000 inbound log group 5
        allow udp 1001 inbound log group 5 limit none
        allow udp 1002 inbound log group 5 limit 1/hour burst 2
        allow udp 1003 inbound log group 5 limit 1/hour burst 2 per source
        allow udp 1004, tcp 1004 inbound log group 5 limit 1/hour burst 2
        allow udp 1005 inbound
        """
    )
    for family in FAMILIES:
        started = time.monotonic()
        packets = [p for port in range(1000, 1006) for p in flood(port, 30, 66, 67, family=family)]
        assert firewall.takes(*packets) == [True] * len(packets)  # logged or not
        elapsed_s = time.monotonic() - started
        logged = listener.entries()
        assert {entry.family for entry in logged} == {family}
        counts = Counter(entry.destination_port for entry in logged)
        assert 5 <= counts.pop(1000) <= 6 + 10 * elapsed_s
        assert counts == {1001: 60, 1002: 2, 1003: 4, 1004: 2}


def test_what_a_rule_logs(firewall: Firewall, listener: Listener) -> None:
    """What it matched, once, before the verdict; under its prefix or the verb and the path."""
    firewall.apply(
        """
        zone near { interface eth0 }
        zone other { interface eth1 }
        settings { invalid drop log "bad " group 5 }
        allow udp 1000 inbound log "one " group 5
        deny udp 1001 inbound log group 6
        reject udp 1002 from near to other log group 5
        reject tcp 1003 outbound log group 5
        allow udp 1004, tcp 1004 from near to other, self log group 6
        deny udp 1005 inbound log "five " group 5 name "named"
        default deny inbound log "rest " group 6
        default reject forward log group 6
        """
    )
    for family in FAMILIES:
        assert firewall.takes(
            *to_port(1000, [arriving(family=family)]),
            *to_port(1001, [arriving(family=family)]),
            *to_port(1004, [arriving(family=family)]),
            *to_port(1005, [arriving(family=family)]),
            *to_port(1006, [arriving(family=family)]),
            # Neither SYN nor anything else: conntrack calls it INVALID.
            *to_port(1000, [arriving(family=family, protocol=TCP, tcp_flags=0)]),
        ) == [True, False, True, False, False, False]
        near = [arriving(family=family)]
        assert firewall.forwards(
            *(p for port in (1002, 1004, 1007) for p in to_port(port, through(near)))
        ) == [False, True, False]
        sent = leaving(family=family, protocol=TCP, ports=(9, 1003))
        assert firewall.sends(sent, *to_port(1000, [sent])) == [False, True]
        logged = [(e.prefix, e.group, e.destination_port) for e in listener.entries()]
        assert sorted(logged) == [
            ("allow forward: ", 6, 1004),
            ("allow inbound: ", 6, 1004),
            ("bad ", 5, 1000),
            ("default reject forward: ", 6, 1007),
            ("deny inbound: ", 6, 1001),
            ("five ", 5, 1005),
            ("one ", 5, 1000),
            ("reject forward: ", 5, 1002),
            ("reject outbound: ", 5, 1003),
            ("rest ", 6, 1006),
        ]


@pytest.mark.parametrize(("limit", "expected"), [("1/hour burst 3", 3), ("none", 20)])
def test_the_rate_of_logs_that_say_none(
    firewall: Firewall, listener: Listener, limit: str, expected: int
) -> None:
    """`log-limit` holds for them alone, of rules and of defaults."""
    firewall.apply(
        f"""
        settings {{ log-limit {limit} }}
        allow udp 1000 inbound log group 5
        allow udp 1001 inbound log group 5 limit 1/hour burst 4
        default deny inbound log group 5
        """
    )
    for family in FAMILIES:
        for port in (1000, 1001, 1002):
            firewall.station.throw(flood(port, 20, family=family))
        counts = Counter(entry.destination_port for entry in listener.entries())
        assert counts == {1000: expected, 1001: 4, 1002: expected}


def test_the_kernel_s_log(firewall: Firewall) -> None:
    """Where no group is said; at its level, as a warning unless said."""
    prefix = f"pl{os.getpid()}"
    firewall.apply(
        f"""
        allow udp 1000 inbound log "{prefix} plain "
        allow udp 1001 inbound log "{prefix} info " level info
        deny udp 1002 inbound log "{prefix} err " level err limit none
        allow udp 1003 inbound log "{prefix} group " group 5
        """
    )
    with kernel_log() as log:
        for family in FAMILIES:
            for port in range(1000, 1005):
                firewall.station.throw(to_port(port, [arriving(family=family)]))
            lines = [(level, *text.split()[1:3]) for level, text in log.lines(prefix)]
            assert lines == [
                (4, "plain", "IN=eth0"),
                (6, "info", "IN=eth0"),
                (3, "err", "IN=eth0"),
            ]


# --- add to a set ----------------------------------------------------------------------------


def hosts(*last: int) -> dict[int, list[str]]:
    return {4: [f"192.0.2.{n}" for n in last], 6: [f"2001:db8:1::{n}" for n in last]}


def test_adding_to_a_set(firewall: Firewall) -> None:
    """The end that is named, and no other, whatever the verdict is; the rule then decides."""
    firewall.apply(
        """
        zone near { interface eth0 }
        zone other { interface eth1 }
        set sources = dynamic
        set targets = dynamic timeout 1h size 100
        set strays = dynamic timeout 1h
        allow udp 1010 inbound from sources
        allow udp 1011 from near to targets
        allow udp 1012 inbound from strays
        allow udp 1013 inbound from targets
        allow udp 1000 inbound add source to sources
        deny udp 1001 inbound add source to sources for 5m
        reject udp 1002 from near to other add destination to targets
        allow udp 1003 inbound from near
        default deny inbound add source to strays
        """
    )
    for family in FAMILIES:
        allowed, denied, stranger = (
            arriving(family=family, source=source) for source in hosts(11, 12, 13)[family]
        )
        assert firewall.takes(*to_port(1003, (allowed, denied, stranger))) == [True] * 3
        assert firewall.takes(*to_port(1010, (allowed, denied))) == [False] * 2
        assert firewall.takes(*to_port(1000, [allowed]), *to_port(1001, [denied])) == [True, False]
        assert firewall.takes(*to_port(1010, (allowed, denied, stranger))) == [True, True, False]
        # What the default decided was put in by it, and what a rule decided was not.
        assert firewall.takes(*to_port(1012, (allowed, denied, stranger))) == [True] * 3
        fresh = arriving(family=family, source=hosts(14)[family][0])
        assert firewall.takes(*to_port(1000, [fresh]), *to_port(1012, [fresh])) == [True, False]
        for port, passes in ((1011, False), (1002, False), (1011, True)):
            assert firewall.forwards(*to_port(port, through([allowed]))) == [passes]
        assert firewall.takes(*to_port(1013, [allowed])) == [False]


def test_how_long_an_address_stays(firewall: Firewall) -> None:
    """For the rule's time, else the set's, and the whole of it anew with each packet."""
    firewall.apply(
        """
        set short = dynamic timeout 1s
        set long = dynamic timeout 1h
        allow udp 1010 inbound from short
        allow udp 1011 inbound from long
        allow udp 1000 inbound add source to short
        allow udp 1001 inbound add source to long for 1s
        allow udp 1002 inbound add source to long
        """
    )
    # Kept alive by rules that are met again; and the one that was put in for an hour.
    for_short, for_long, kept = ([p for f in FAMILIES for p in _from(n, f)] for n in (21, 22, 23))
    once = [p for f in FAMILIES for p in _from(24, f)]

    def members() -> list[tuple[bool, ...]]:
        in_short, in_long = ([*for_short, *once], [*for_long, *once, *kept])
        return [
            tuple(firewall.takes(*to_port(1010, in_short))),
            tuple(firewall.takes(*to_port(1011, in_long))),
        ]

    def meet(port: int, packets: Sequence[Packet]) -> None:
        assert all(firewall.takes(*to_port(port, packets)))

    meet(1000, [*for_short, *once])
    meet(1001, [*for_long, *once])
    meet(1002, kept)
    assert members() == [(True,) * 4, (True,) * 6]
    here, gone = (True, True), (False, False)

    def only_once_are_gone() -> bool:
        meet(1000, for_short)
        meet(1001, for_long)
        return members() == [here + gone, here + gone + here]

    started = time.monotonic()
    until_true(only_once_are_gone)
    until_true(lambda: members() == [gone + gone, gone + gone + here])
    assert time.monotonic() - started > 1.5


def _from(host: int, family: int) -> list[Packet]:
    return [arriving(family=family, source=hosts(host)[family][0])]


def test_a_full_set_takes_no_more(firewall: Firewall) -> None:
    """The rule then decides as if it had."""
    firewall.apply(
        """
        set few = dynamic size 2
        allow udp 1010 inbound from few
        allow udp 1000 inbound add source to few
        """
    )
    for family in FAMILIES:
        packets = [p for n in (31, 32, 33, 34) for p in _from(n, family)]
        assert firewall.takes(*to_port(1000, packets)) == [True] * 4
        assert sum(firewall.takes(*to_port(1010, packets))) == 2


def test_sets_outlive_a_changed_policy(firewall: Firewall) -> None:
    """What was put in stays, while the set is in the policy."""
    policy = "set kept = dynamic timeout 1h\nallow udp 1010 inbound from kept\n"
    firewall.apply(f"{policy}allow udp 1000 inbound add source to kept")
    for family in FAMILIES:
        assert firewall.takes(*to_port(1000, _from(41, family))) == [True]
    firewall.apply(f"{policy}allow udp 1000 inbound")
    for family in FAMILIES:
        packets = [*_from(41, family), *_from(42, family)]
        assert firewall.takes(*to_port(1010, packets)) == [True, False]
        assert firewall.takes(*to_port(1000, packets)) == [True, True]
    firewall.apply("allow udp 1000 inbound")
    firewall.apply(policy)
    for family in FAMILIES:
        assert firewall.takes(*to_port(1010, _from(41, family))) == [False]


# --- answers ---------------------------------------------------------------------------------

RESET = "reset"
# The types and codes of RFC 792, RFC 1812 and RFC 4443.
ANSWERS = {
    "port-unreachable": {4: (3, 3), 6: (1, 4)},
    "host-unreachable": {4: (3, 1), 6: (1, 3)},
    "net-unreachable": {4: (3, 0), 6: (1, 0)},
    "admin-prohibited": {4: (3, 13), 6: (1, 1)},
}
# What a rule says -> what it answers to TCP, and to the rest.
REJECTIONS: dict[str, tuple[str | None, str | None]] = {
    "reject {}": (RESET, "port-unreachable"),
    "reject {} with tcp-reset": (RESET, "port-unreachable"),
    **{f"reject {{}} with {answer}": (answer, answer) for answer in ANSWERS},
    **{f"reject {{}} with tcp-reset, {answer}": (RESET, answer) for answer in ANSWERS},
    "deny {}": (None, None),
}


def answer_of(data: bytes) -> tuple[str, int, object]:
    """The protocol that was answered, the port that was asked, and how."""
    family = data[0] >> 4
    protocol, payload = (data[9], data[20:]) if family == 4 else (data[6], data[40:])
    if protocol == TCP:
        assert payload[13] & 4, "no other TCP leaves here than resets"
        return "tcp", int.from_bytes(payload[:2], "big"), RESET
    quoted = payload[8:]
    quoted_protocol, ports = (quoted[9], quoted[20:]) if family == 4 else (quoted[6], quoted[40:])
    asked = {TCP: "tcp", UDP: "udp"}[quoted_protocol]
    return asked, int.from_bytes(ports[2:4], "big"), (payload[0], payload[1])


RULES = {1000 + n: rule for n, rule in enumerate(REJECTIONS)}  # by port


def rejections(place: str) -> str:
    """A rule of each kind, about a port of its own."""
    return "\n".join(rule.format(f"tcp {port}, udp {port} {place}") for port, rule in RULES.items())


def expected_answers(
    family: int, default: tuple[str | None, str | None]
) -> list[tuple[str, int, object]]:
    """What is answered to TCP and UDP for each rule, and for port 2000 by the default."""
    answers = {port: REJECTIONS[rule] for port, rule in RULES.items()} | {2000: default}
    found: list[tuple[str, int, object]] = [
        (protocol, port, ANSWERS[answer][family] if answer in ANSWERS else answer)
        for port, both in answers.items()
        for protocol, answer in zip(("tcp", "udp"), both, strict=True)
        if answer is not None
    ]
    return sorted(found, key=str)


@pytest.fixture
def unlimited_errors(firewall: Firewall) -> None:
    """The kernel sends a host as many ICMP errors as there are reasons for."""
    # The types whose rate is limited: none that is sent here.
    firewall.station.inside.sysctl("net.ipv4.icmp_ratemask", "0")
    firewall.station.inside.sysctl("net.ipv6.icmp.ratemask", "0")


@pytest.mark.usefixtures("unlimited_errors")
def test_answers_to_others(firewall: Firewall) -> None:
    """Each answer to TCP and to UDP, of rules and of defaults, whatever may go out."""
    firewall.apply(
        f"""
        zone near {{ interface eth0 }}
        zone other {{ interface eth1 }}
        {rejections("from near to other, self")}
        default reject inbound with net-unreachable
        default reject forward with tcp-reset, host-unreachable
        default deny outbound
        """
    )
    with leaving_by(firewall, "eth0") as answers:
        for family in FAMILIES:
            packets = [
                arriving(family=family, ports=(9, port), protocol=protocol)
                for port in (*RULES, 2000)
                for protocol in (TCP, UDP)
            ]
            for thrown, default in (
                (packets, ("net-unreachable", "net-unreachable")),
                (through(packets), (RESET, "host-unreachable")),
            ):
                firewall.station.throw(thrown)
                found = sorted(map(answer_of, answers()), key=str)
                assert found == expected_answers(family, default)


@pytest.mark.usefixtures("unlimited_errors")
def test_answers_to_this_host_s_own(firewall: Firewall) -> None:
    """What its processes send is answered over the loopback interface."""
    firewall.apply(
        f"{rejections('outbound')}\ndefault reject outbound with tcp-reset, admin-prohibited"
    )
    with leaving_by(firewall, "lo") as answers:
        for family in FAMILIES:
            firewall.station.send(
                leaving(family=family, ports=(9, port), protocol=protocol)
                for port in (*RULES, 2000)
                for protocol in (TCP, UDP)
            )
            found = sorted(map(answer_of, answers()), key=str)
            assert found == expected_answers(family, (RESET, "admin-prohibited"))


# --- counters and names ----------------------------------------------------------------------


def test_counters(firewall: Firewall) -> None:
    """On, every rule counts what met it; off, nft's do not (iptables' always do)."""
    rules = 'allow udp 1000 inbound name "the first"\ndeny udp 1001 inbound name "the second"\n'
    before = [0, 0]  # what was counted lives on where the rules are the same
    for setting in ("off", "on"):
        firewall.apply(f"{rules}settings {{ counters {setting} }}")
        for port, times in ((1000, 3), (1001, 5)):
            firewall.station.throw(to_port(port, [arriving()] * times))
        counts = [counted(firewall, port) for port in (1000, 1001)]
        is_off = setting == "off" and firewall.loader is Loader.NFT
        assert counts == ([None, None] if is_off else [before[0] + 3, before[1] + 5])
        before = [count or 0 for count in counts]


def counted(firewall: Firewall, port: int) -> int | None:
    """How many packets the rule of that port has met, or None where it does not count."""
    (rule,) = (line for line in firewall.listing().splitlines() if f"dport {port} " in line)
    found = re.search(r"counter packets (\d+)|^\[(\d+):", rule)
    return None if found is None else int(found[1] or found[2])


def test_names(firewall: Firewall) -> None:
    """The name of a rule stands in the listing, with what it became."""
    firewall.apply('allow udp 1000 inbound name "the first"\ndeny udp 1001 inbound')
    lines = {
        port: line
        for line in firewall.listing().splitlines()
        for port in (1000, 1001)
        if f"dport {port} " in line
    }
    assert ("the first" in lines[1000], "the first" in lines[1001]) == (True, False)
