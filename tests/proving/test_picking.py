"""The packets that stand for a question are on both sides of every border, and within it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path as FilePath
from random import Random

from policylang.diagnostics import Report
from policylang.ir.stages import Path
from policylang.lower.asked import asking
from policylang.lower.stateful import lower
from policylang.model.expectations import PacketExpectation
from policylang.model.policy import Policy
from policylang.optimise import optimise
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP
from policylang.packets.values import Ranges, format_address, name_range
from policylang.pipeline import Text, policy_of
from policylang.proving import octets
from policylang.proving.borders import borders
from policylang.proving.court import CODES
from policylang.proving.frames import Probe, Sight, packet_bytes, sight
from policylang.proving.ground import Plan, plan
from policylang.proving.picking import Picked, Picker
from policylang.proving.volleys import volleys

POLICY = """
zone wan { interface eth0 }
zone lan { interface eth1, "wlan*"  network 192.168.1.0/24, fd00:1::/64 }
zone dmz { interface "wlan7" }
set admins = 192.0.2.0/25, 2001:db8:1::/48 except 192.0.2.66
deny tcp 1000-1010, udp 53 inbound from lan
allow ssh, tcp 2000-2010 inbound from admins
allow all from lan to wan
"""


def _read(text: str) -> Policy:
    report = Report()
    policy = policy_of(Text(text, "t.policy", FilePath("/")), report)
    assert policy is not None, report.diagnostics
    return policy


def _picked(question: str, most: int = 300) -> tuple[list[Picked], Plan]:
    policy = _read(f'{POLICY}test "t" {{ expect deny {question} }}')
    report = Report()
    ruleset = optimise(lower(policy, report), report)
    (expectation,) = policy.tests[0].expectations
    assert isinstance(expectation, PacketExpectation)
    asker = asking(policy, [expectation.asked], report)
    made = plan(policy.zones, (), Ranges())
    picker = Picker(made, borders(ruleset), asker.tests, Random(1))
    return picker.pick(asker.asked(expectation.asked).dialled, most), made


def test_ports_at_both_sides_of_every_border_are_tried() -> None:
    found, _ = _picked("tcp 900-2100 inbound")
    ports = {one.probe.ports[1] for one in found}
    assert ports >= {900, 999, 1000, 1010, 1011, 1999, 2000, 2010, 2011, 2100}
    assert all(900 <= port <= 2100 for port in ports)
    assert {one.probe.protocol for one in found} == {TCP}


def test_addresses_at_both_sides_of_every_border_are_tried_in_both_families() -> None:
    found, _ = _picked("ssh inbound")
    sources = {format_address(one.probe.source) for one in found}
    assert sources >= {"192.0.2.0", "192.0.2.65", "192.0.2.66", "192.0.2.67", "192.0.2.127"}
    assert sources >= {"192.0.1.255", "192.0.2.128", "2001:db8:1::", "192.168.1.255"}
    assert {one.probe.family for one in found} == {4, 6}


def test_packets_come_by_every_interface_that_the_question_means() -> None:
    found, _ = _picked("ssh inbound")
    assert {one.probe.way_in for one in found} == {"eth0", "eth1", "wlan0", "wlan7", "outside0"}
    found, _ = _picked("ssh inbound from lan")
    assert {one.probe.way_in for one in found} == {"eth1", "wlan0", "wlan7"}
    found, _ = _picked("all from lan to wan")
    assert {one.way_out for one in found} == {"eth0"}
    assert {one.probe.protocol for one in found} >= {TCP, UDP, 1, 58, 47}


def test_a_wildcard_gets_a_name_that_no_other_pattern_means() -> None:
    _, made = _picked("ssh inbound")
    assert [wire.name for wire in made.wires] == ["eth0", "eth1", "wlan0", "wlan7", "outside0"]
    assert made.wire("wlan0").zones == ("lan",)
    assert made.wire("wlan7").zones == ("lan", "dmz")
    low, high = name_range("wlan*")
    assert low <= name_range("wlan0")[0] <= high
    assert not made.wire("outside0").zones


def test_every_rule_that_a_question_meets_is_met() -> None:
    """However wide the question is: of few packets some are within each rule."""
    found, _ = _picked("all inbound", 60)
    met = [one for one in found if one.probe.protocol == TCP and 1000 <= one.probe.ports[1] <= 1010]
    assert met
    assert [one for one in found if one.probe.protocol == TCP and one.probe.ports[1] == 22]


def test_the_same_question_gets_the_same_packets() -> None:
    assert _picked("all inbound")[0] == _picked("all inbound")[0]


def test_no_address_is_at_two_places_in_one_volley() -> None:
    found, _ = _picked("ssh inbound")
    made, places = volleys(found)
    assert len(places) == len(found)
    assert [made[at].probes[serial] for at, serial in places] == found
    for volley in made:
        for one in volley.probes.values():
            assert all(volley.roles[address] == where for address, where in one.roles.items())


def test_a_probe_is_known_again_by_its_bytes() -> None:
    found = [one for some in ("ssh inbound", "all from lan to wan") for one in _picked(some)[0]]
    for serial, one in enumerate(found, 1):
        probe = one.probe
        seen = sight(packet_bytes(probe, serial))
        assert seen is not None and seen.is_probe
        assert (seen.serial, seen.source, seen.destination) == (
            serial,
            probe.source,
            probe.destination,
        )
        assert (seen.family, seen.protocol) == (probe.family, probe.protocol)
        assert len(packet_bytes(probe, serial)) == probe.size


def test_an_answer_names_the_probe_that_it_is_for() -> None:
    probe = Probe("eth0", 0x08080808, 0xC0000201, TCP, (4000, 22))
    quoted = packet_bytes(probe, 777)
    error = _icmp(3, 13, quoted)
    assert sight(error) == Sight(4, 9, 1, 2, 1, (0, 0), 777, (3, 13), False)
    assert error[21] == CODES[next(a for a in CODES if a.value == "admin-prohibited")][4]
    reset = bytearray(quoted)
    reset[33] = 0x14  # RST and ACK
    reset[28:32] = ((777 << 11) + 1).to_bytes(4)
    seen = sight(bytes(reset))
    assert seen is not None and (seen.answers, seen.answer) == (777, None)


def _icmp(kind: int, code: int, quoted: bytes) -> bytes:
    head = bytes((0x45, 0, 0, 28 + len(quoted), 0, 9, 0, 0, 64, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2))
    return head + bytes((kind, code, 0, 0, 0, 0, 0, 0)) + quoted


# By hand from the RFCs: DNS over UDP from 192.0.2.1:4000 to 198.51.100.2:53, without a question.
UDP_V4 = (
    "4500001c0005000040118e95"  # RFC 791: 28 bytes, identification 5, hop limit 64, UDP
    "c0000201c6336402"
    "0fa00035000803d2"  # RFC 768: 8 bytes, and the checksum over the pseudo header
)


ZEROS = (0, 0xFFFF)  # in ones' complement


def test_bytes_are_those_of_the_standards() -> None:
    source, destination = ip_address("192.0.2.1"), ip_address("198.51.100.2")
    probe = Probe(None, int(source), int(destination), UDP, (4000, 53))
    assert packet_bytes(probe, 5).hex() == UDP_V4
    assert octets.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert octets.internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D  # RFC 1071


def test_a_receiver_finds_every_checksum_right() -> None:
    """RFC 1071: with the checksum in its place, the sum over all of it is zero, of either sign."""
    for one in (p for some in ("all from lan to wan", "ssh inbound") for p in _picked(some)[0]):
        probe = one.probe
        data = packet_bytes(probe, 5)
        ends, rest = (data[12:20], data[20:]) if probe.family == 4 else (data[8:40], data[40:])
        if probe.family == 4:
            assert octets.internet_checksum(data[:20]) in ZEROS
        if probe.protocol in (TCP, UDP, ICMPV6):
            pseudo = ends + len(rest).to_bytes(4) + probe.protocol.to_bytes(4)
            assert octets.internet_checksum(pseudo + rest) in ZEROS
        elif probe.protocol in (ICMP, octets.IGMP):
            assert octets.internet_checksum(rest) in ZEROS


def test_paths_are_those_of_the_question() -> None:
    assert {one.path for one in _picked("ssh from any to any")[0]} == set(Path)
    assert {one.path for one in _picked("ssh outbound")[0]} == {Path.OUTPUT}
