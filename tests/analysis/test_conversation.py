"""Whole conversations: each packet's state and why, what helpers expect, what is translated.

That the kernel says the same is proved in tests/kernel/test_conversations.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from policylang.analysis.conversation import staging
from policylang.analysis.conversation.advising import advice
from policylang.analysis.conversation.firewall import Firewall
from policylang.analysis.conversation.playing import Died, Stage
from policylang.analysis.conversation.predicting import Heard, read
from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.conversation.tcp import Odd, TcpState, after, is_possible
from policylang.analysis.conversation.telling import Teller
from policylang.analysis.conversation.tracking import (
    Because,
    Connection,
    Expectation,
    Follow,
    Table,
    Tracked,
)
from policylang.analysis.conversation.wire import Message, Offer, Style, Wire
from policylang.analysis.conversation.world import Host, World
from policylang.analysis.machine import ALL, Base, Hook, Line, Machine
from policylang.analysis.modelled import machine_of
from policylang.cli import main
from policylang.diagnostics import Report
from policylang.ir.actions import Answer, AssignHelper, Masquerade, Reject
from policylang.lower.stateful import lower
from policylang.packets.cube import Cube
from policylang.packets.fields import ICMP, ICMPV6, TCP, UDP, Field, FlowDirection, State
from policylang.packets.values import Ranges, format_address, name_range, parse_one_address
from tests.analysis.conversations import briefly, resolved_of, story_of

SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04
ORIGINAL, REPLY = FlowDirection.ORIGINAL, FlowDirection.REPLY

ZONES = """\
zone wan { interface eth0 }
zone lan { interface eth1  network 198.51.100.0/24, 2001:db8:5::/64 }
default deny outbound
"""
FTP_ALT = "service ftp-alt { tcp 2121 helper ftp }\n"
BARE = "service bare { tcp 21 }\n"
PUBLISHED = "dnat ftp-alt from wan to 198.51.100.2 port 21\n"


def number_of(text: str) -> int:
    number = parse_one_address(text)
    assert number is not None
    return number


A, B, C = (number_of(text) for text in ("203.0.113.9", "192.0.2.1", "192.0.2.2"))


def event(story: Story, says: str) -> PacketEvent:
    """The first packet that says so."""
    for told, one in zip(Teller(story).told(), story.packets, strict=True):
        if told.says.startswith(says):
            return one
    raise AssertionError(f"nobody says {says}: {briefly(story)}")


def expected(story: Story) -> list[PacketEvent]:
    """The packets that open what a helper expected."""
    return [e for e in story.packets if e.carried.tracked.because is Because.EXPECTED]


# --- whole stories ----------------------------------------------------------------------------


def test_passive_ftp_is_told_packet_by_packet() -> None:
    """The handshake is NEW once, all else ESTABLISHED, and the data connection RELATED."""
    story = story_of(f"{ZONES}allow ftp inbound from wan\n", "ftp inbound from wan", mode="passive")
    assert story.works
    assert briefly(story)[:3] == [
        "client → this host SYN NEW passes",
        "this host → client SYN, ACK ESTABLISHED passes",
        "client → this host ACK ESTABLISHED passes",
    ]
    assert briefly(story)[8:13] == [
        "client → this host PASV ESTABLISHED passes",
        "this host → client 227 Entering Passive Mode (192,0,2,1,195,80) ESTABLISHED passes",
        "client → this host SYN RELATED passes",
        "this host → client SYN, ACK ESTABLISHED passes",
        "client → this host ACK ESTABLISHED passes",
    ]
    states = [State(e.carried.tracked.state) for e in story.packets]
    assert states.count(State.NEW) == states.count(State.RELATED) == 1
    (data,) = expected(story)
    announced = event(story, "227")
    assert data.carried.tracked.related == announced.number
    assert data.decider is not None
    assert [o.text for o in data.decider.line.origins] == [
        "test.policy:4 helper expectation: allow ftp inbound from wan"
    ]
    assert story.packets[0].carried.assigned == "ftp"


ROLES = {
    "server": ("allow ftp inbound from wan\n", "ftp inbound from wan"),
    "client": ("allow ftp outbound to wan\n", "ftp outbound to wan"),
    "router": ("allow ftp from lan to wan\n", "ftp from lan to wan"),
    "masquerading": ("allow ftp from lan to wan\nmasquerade from lan to wan\n",
                     "ftp from lan to wan"),
    "published": (f"{FTP_ALT}{PUBLISHED}", "ftp-alt inbound from wan"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["passive", "active"])
@pytest.mark.parametrize("role", ROLES)
def test_ftp_works_in_every_role(role: str, mode: str) -> None:
    statements, question = ROLES[role]
    story = story_of(ZONES + statements, question, mode=mode)
    assert story.works, briefly(story)
    (data,) = expected(story)
    assert (data.sender == story.packets[0].sender) == (mode == "passive")
    assert data.carried.tracked.state is State.RELATED


@pytest.mark.parametrize("mode", ["passive", "active"])
def test_ftp_without_a_helper_dies_where_its_data_connection_is_new(mode: str) -> None:
    story = story_of(
        f"{ZONES}{BARE}allow bare from lan to wan\n", "bare from lan to wan", kind="ftp", mode=mode
    )
    assert story.died is not None
    assert story.died.link == "data connection"
    assert story.died.carried.tracked.state is State.NEW
    sentences = list(advice(story, "bare from lan to wan", "ftp"))
    assert "no helper reads along" in sentences[0]
    assert "`helper ftp`" in sentences[1]


def test_what_is_expected_passes_between_the_ends_of_the_statement_alone() -> None:
    """The helper is given by where it comes from; what it predicts goes by another interface."""
    policy = (
        "zone wan { interface eth0 }\nzone dmz { interface eth2 }\nzone lan { interface eth1 }\n"
        f"{BARE}allow ftp from lan to dmz\nallow bare from lan to wan\ndefault deny outbound\n"
    )
    story = story_of(policy, "bare from lan to wan", kind="ftp", mode="passive")
    assert story.died is not None
    assert story.died.carried.tracked.because is Because.EXPECTED
    (told, *_) = advice(story, "bare from lan to wan", "ftp")
    assert "no statement that asks for helper `ftp` admits" in told


def test_data_ports_bound_what_passes() -> None:
    service = "service narrow { tcp 21 helper ftp data 2000-2001 }\n"
    policy = f"{ZONES}{service}allow narrow inbound from wan\n"
    story = story_of(policy, "narrow inbound from wan", mode="passive")
    assert story.works
    (data,) = expected(story)
    assert data.wire.ports is not None
    assert data.wire.ports[1] == 2000


OTHERS = {
    "tftp": ["transfer"],
    "sip": ["voice (RTP)", "reports (RTCP)"],
    "irc": ["direct chat"],
    "pptp": ["tunnel (GRE)"],
    "sane": ["image"],
    "amanda": ["data", "messages", "index"],
    "h323": ["channels (H.245)", "voice (RTP)", "reports (RTCP)"],
}


@pytest.mark.parametrize("masquerade", ["", "masquerade from lan to wan\n"])
@pytest.mark.parametrize("service", OTHERS)
def test_every_helper_expects_what_its_conversation_opens(service: str, masquerade: str) -> None:
    story = story_of(
        f"{ZONES}allow {service} from lan to wan\n{masquerade}", f"{service} from lan to wan"
    )
    assert story.works, briefly(story)
    assert [e.link for e in expected(story)] == OTHERS[service]


@pytest.mark.parametrize("service", OTHERS)
def test_without_its_helper_no_such_conversation_works(service: str) -> None:
    ports = {"tftp": "udp 69", "sip": "udp 5060", "irc": "tcp 6667", "pptp": "tcp 1723",
             "sane": "tcp 6566", "amanda": "udp 10080", "h323": "tcp 1720"}[service]  # fmt: skip
    policy = f"{ZONES}service other {{ {ports} }}\nallow other from lan to wan\n"
    story = story_of(policy, "other from lan to wan", kind=service)
    assert story.died is not None
    assert story.died.link == OTHERS[service][0]
    assert story.died.carried.tracked.state is State.NEW


@pytest.mark.parametrize(("service", "port"), [("netbios-ns", 137), ("snmp", 161)])
def test_a_broadcast_is_answered_by_any_machine_of_its_network(service: str, port: int) -> None:
    name = f"service asked {{ udp {port} helper {service} }}\n"
    story = story_of(f"{ZONES}{name}allow asked outbound to lan\n", "asked outbound to lan")
    assert story.works, briefly(story)
    (answer,) = expected(story)
    (expectation,) = story.packets[0].carried.reading.expects
    assert expectation.source_port == port
    assert expectation.source_prefix_len == 24
    flow = answer.wire.flow
    assert expectation.meets(flow)
    assert not expectation.meets(replace(flow, source_port=port + 1))
    assert not expectation.meets(replace(flow, source=number_of("198.51.101.7")))


# --- addresses --------------------------------------------------------------------------------


SMALL = """\
zone wan { interface eth0  network 203.0.113.0/30 }
zone lan { interface eth1  network 203.0.113.4/30 }
zone one { interface eth2  network 203.0.113.9, fd00:9::9 }
"""


@pytest.mark.parametrize(
    ("question", "ends"),
    [
        ("ftp from wan to lan", ("203.0.113.2", "203.0.113.6")),
        ("ftp from one to wan", ("203.0.113.9", "203.0.113.2")),
        ("ftp inbound from one", ("203.0.113.9", "192.0.2.1")),
        ("ftp inbound from one ipv6", ("fd00:9::9", "2001:db8:1::1")),
    ],
)
def test_machines_of_small_networks_are_neither_this_host_nor_everybody(
    question: str, ends: tuple[str, str]
) -> None:
    story = story_of(f"{SMALL}allow {question}\n", question)
    first = story.packets[0].wire
    assert (format_address(first.source), format_address(first.destination)) == ends
    assert story.works, briefly(story)


def test_who_answers_a_broadcast_is_in_a_small_network_too() -> None:
    story = story_of(f"{SMALL}allow snmp outbound to lan\n", "snmp outbound to lan")
    question, answer = story.packets
    assert format_address(question.wire.destination) == "203.0.113.7"
    assert format_address(answer.wire.source) == "203.0.113.6"
    assert answer.carried.tracked.because is Because.EXPECTED


def test_a_group_is_asked_over_udp_and_answers_by_an_address_of_its_own() -> None:
    """RFC 1122 section 3.2.1.3: no packet comes from a group, so the answer begins anew."""
    for place, group in (("multicast", "224.0.0.10"), ("broadcast", "192.0.2.255")):
        story = story_of(f"allow dns inbound to {place}\n", f"dns inbound to {place}")
        assert briefly(story) == [
            "client → this host a question NEW passes",
            "this host → client its answer NEW passes",
        ]
        question, answer = story.packets
        assert format_address(question.wire.destination) == group
        assert format_address(answer.wire.source) == "192.0.2.1"


def test_nobody_speaks_tcp_to_a_group() -> None:
    resolved, rule, asker = resolved_of("allow ssh inbound\n", "ssh inbound to multicast")
    wanted = staging.Wanted("plain")
    assert not [*staging.casts(asker.asked(rule), wanted, resolved.zones)]


# --- translation --------------------------------------------------------------------------------


def test_a_connection_is_told_to_be_translated_as_the_one_that_announced_it() -> None:
    """nf_nat_follow_master: whoever takes up the chat is seen as the server (nf_nat_irc.c)."""
    policy = f"{ZONES}allow irc from lan to wan\nmasquerade from lan to wan\n"
    story = story_of(policy, "irc from lan to wan")
    (chat,) = expected(story)
    told = [*Teller(story).told()][chat.number - 1]
    by = " (as the connection that announced it is translated)"
    assert told.facts == (
        f"its destination becomes 198.51.100.10:50000{by}",
        f"its source becomes {format_address(story.packets[0].wire.destination)}:40000{by}",
    )


def test_a_masqueraded_client_is_announced_under_the_address_that_the_server_knows() -> None:
    policy = f"{ZONES}allow ftp from lan to wan\nmasquerade from lan to wan\n"
    story = story_of(policy, "ftp from lan to wan", mode="active")
    said = event(story, "PORT")
    assert said.wire.message is not None
    assert said.wire.message.text == "PORT 198,51,100,10,195,80"
    assert said.carried.last.message is not None
    assert said.carried.last.message.text == "PORT 192,0,2,2,195,80"
    (data,) = expected(story)
    assert format_address(data.wire.destination) == "192.0.2.2"
    assert data.carried.last.destination == story.packets[0].wire.source
    back = story.packets[data.number]
    assert format_address(back.carried.last.source) == "192.0.2.2"


def test_a_published_server_is_announced_under_the_address_that_was_dialled() -> None:
    story = story_of(f"{ZONES}{FTP_ALT}{PUBLISHED}", "ftp-alt inbound from wan", mode="passive")
    first = story.packets[0]
    assert first.wire.ports is not None and first.carried.last.ports is not None
    assert (first.wire.ports[1], first.carried.last.ports[1]) == (2121, 21)
    answer = story.packets[1]
    assert answer.carried.last.source == first.wire.destination
    assert answer.carried.last.ports is not None
    assert answer.carried.last.ports[0] == 2121
    (data,) = expected(story)
    assert data.wire.destination == first.wire.destination
    assert format_address(data.carried.last.destination) == "198.51.100.2"


def test_h323_over_ipv6_is_announced_under_the_address_that_nobody_knows() -> None:
    """Its companion for translations knows IPv4 alone."""
    policy = f"{ZONES}allow h323 from lan to wan\nmasquerade from lan to wan ipv6\n"
    story = story_of(policy, "h323 from lan to wan ipv6")
    assert story.died is not None
    assert story.died.link == "voice (RTP)"
    assert story.died.carried.tracked.state is State.NEW


def staged(*bases: Base, **chains: tuple[Line, ...]) -> tuple[Stage, Host, Host]:
    """A stage with a client and a server, between which a machine stands."""
    eth0, eth1 = name_range("eth0")[0], name_range("eth1")[0]
    hosts = (
        Host("client", A, eth1),
        Host("firewall", B, 0),
        Host("server", number_of("198.51.100.80"), eth0),
    )
    world = World({eth0: (B,)}, hosts, (), eth0, {})
    return Stage(Firewall(Machine(bases, chains), world), hosts), hosts[0], hosts[2]


def test_only_the_first_packet_gives_a_helper() -> None:
    for flags, helper in ((SYN, "ftp"), (ACK, None)):
        assigned = Line((Cube.of({Field.TCP_FLAGS: Ranges.of(flags)}),), AssignHelper("ftp", TCP))
        stage, client, server = staged(Base(Hook.PREROUTING, -150, "c"), c=(assigned,))
        stage.connect("control", client, 40_000, (server.address, 21))
        connection = stage.story(None).packets[0].carried.tracked.connection
        assert connection is not None
        assert connection.helper == helper


def test_the_answer_to_what_is_rejected_comes_from_what_was_dialled() -> None:
    """Rules that translate first packets have no say in it."""
    stage, client, server = staged(
        Base(Hook.FORWARD, 0, "f"),
        Base(Hook.POSTROUTING, 100, "nat", is_nat=True),
        f=(Line(ALL, Reject(Answer.TCP_RESET)),),
        nat=(Line(ALL, Masquerade()),),
    )
    with pytest.raises(Died):
        stage.connect("connection", client, 40_000, (server.address, 22))
    answer = stage.story(None).packets[1]
    assert (answer.carried.last.source, answer.carried.last.destination) == (
        server.address,
        client.address,
    )


def test_two_clients_of_one_port_are_kept_apart_behind_one_address() -> None:
    """The kernel looks for another source port (nf_nat_used_tuple)."""
    eth0, eth1 = name_range("eth0")[0], name_range("eth1")[0]
    machine = Machine(
        (Base(Hook.POSTROUTING, 100, "nat", is_nat=True),), {"nat": (Line(ALL, Masquerade()),)}
    )
    hosts = (
        Host("client", A, eth1), Host("other", A + 1, eth1), Host("firewall", B, 0),
        Host("server", number_of("192.0.2.80"), eth0),
    )  # fmt: skip
    world = World({eth0: (B,)}, hosts, (), eth0, {})
    stage = Stage(Firewall(machine, world), hosts)
    far = (hosts[3].address, 80)
    stage.connect("first", hosts[0], 40_000, far)
    second = stage.connect("second", hosts[1], 40_000, far)
    assert second.seen == (B, 40_001)
    assert stage.story(None).packets[-1].carried.tracked.state is State.ESTABLISHED


def test_an_error_about_a_translated_connection_finds_the_client() -> None:
    """RELATED, addressed to the client, and the packet that it quotes is the client's own."""
    policy, rule, asker = resolved_of(
        f"{ZONES}allow udp 53 from lan to wan\nmasquerade from lan to wan\n",
        "udp 53 from lan to wan",
    )
    cast = next(staging.casts(asker.asked(rule), staging.Wanted("plain"), policy.zones))
    firewall = Firewall(machine_of(lower(policy, Report())), cast.world)
    stage = Stage(firewall, cast.hosts)
    link = stage.dial("exchange", UDP, cast.client, 40_000, (cast.dialled, 53))
    stage.forth(link)
    sent = stage.story(None).packets[0].carried.last
    router = number_of("203.0.113.200")
    for destination, state in ((sent.source, State.RELATED), (B, State.INVALID)):
        error = Wire(4, ICMP, router, destination, icmp_type=3, about=sent, size=56)
        carried = firewall.carry(error, name_range("eth0")[0], 9)
        assert carried.tracked.state is state
        if state is State.RELATED:
            assert carried.tracked.because is Because.ERROR
            assert carried.last.destination == cast.client.address
            assert carried.last.source == router
            assert carried.last.about is not None
            assert carried.last.about.source == cast.client.address
    unknown = replace(sent, ports=(1, 2))
    error = Wire(4, ICMP, router, sent.source, icmp_type=3, about=unknown, size=56)
    assert firewall.carry(error, name_range("eth0")[0], 10).tracked.state is State.INVALID


@pytest.mark.parametrize(
    ("mode", "question", "says"),
    [
        ("too-big", "tcp 443 from lan to wan", "destination-unreachable: fragmentation needed"),
        ("too-big", "tcp 443 from lan to wan ipv6", "packet-too-big: fragmentation needed"),
        ("unreachable", "udp 53 from lan to wan", "destination-unreachable: port-unreachable"),
        ("too-big", "tcp 443 inbound from wan", "destination-unreachable: fragmentation needed"),
    ],
)
def test_an_error_is_part_of_the_conversation(mode: str, question: str, says: str) -> None:
    policy = f"{ZONES}allow tcp 443, udp 53 from lan to wan\nallow tcp 443 inbound from wan\n"
    story = story_of(policy, question, kind="plain", mode=mode)
    assert story.works, briefly(story)
    error = event(story, says)
    assert error.carried.tracked.because is Because.ERROR
    assert error.link == "error"
    assert error.wire.about is not None


# --- what dies ----------------------------------------------------------------------------------


def test_what_a_statement_rejects_is_answered() -> None:
    story = story_of(f"{ZONES}reject ssh inbound from wan\n", "ssh inbound from wan")
    assert briefly(story) == [
        "client → this host SYN NEW rejected",
        "this host → client RST, ACK RELATED passes",
    ]
    udp = story_of(f"{ZONES}reject udp 53 inbound from wan\n", "udp 53 inbound from wan")
    assert briefly(udp)[1] == (
        "this host → client destination-unreachable: port-unreachable RELATED passes"
    )


def test_a_default_that_denies_is_told_with_the_statement_that_is_missing() -> None:
    story = story_of(ZONES, "ssh from 203.0.113.9 to self")
    assert list(advice(story, "ssh from 203.0.113.9 to self", None)) == [
        "no statement allows it: `allow ssh from 203.0.113.9 to self` would"
    ]
    denied = story_of(f"{ZONES}deny ssh inbound\n", "ssh from 203.0.113.9 to self")
    (first, _) = advice(denied, "ssh from 203.0.113.9 to self", None)
    assert first == "`deny ssh inbound` (test.policy:4) decides before any other statement"


def test_what_is_sent_elsewhere_is_allowed_by_where_it_goes() -> None:
    """Rules name the inner address of a netmap: to allow what is dialled would change nothing."""
    policy = f"{ZONES}netmap 192.0.2.16/28 to 198.51.100.16/28 on wan\n"
    story = story_of(policy, "ssh from wan to 192.0.2.20")
    (sentence,) = advice(story, "ssh from wan to 192.0.2.20", None)
    assert sentence.endswith("here 203.0.113.9 to 198.51.100.20, port 22")
    there = story_of(f"{policy}allow ssh from wan to 198.51.100.20\n", "ssh from wan to 192.0.2.20")
    assert there.works
    dialled = story_of(f"{policy}allow ssh from wan to 192.0.2.20\n", "ssh from wan to 192.0.2.20")
    assert not dialled.works


def test_an_icmp_error_about_nothing_may_be_allowed_by_its_type() -> None:
    story = story_of(ZONES, "icmp redirect inbound from wan")
    assert story.packets[0].link == "message"
    assert [*advice(story, "icmp redirect inbound from wan", None)] == [
        "INVALID packets are dropped, unless a statement names their ICMP type"
    ]
    allowed = f"{ZONES}allow icmp redirect inbound from wan\n"
    assert story_of(allowed, "icmp redirect inbound from wan").works


def test_a_line_that_is_not_understood_is_told_by_its_statement() -> None:
    policy = f'{ZONES}native nft input "meta mark 7 accept"\n'
    told = [*Teller(story_of(policy, "ssh inbound from wan")).told()]
    assert told[0].facts == (
        "not certain: `meta mark 7 accept` (test.policy:4) may decide otherwise",
    )


def test_what_conntrack_leaves_alone_is_untracked_both_ways() -> None:
    policy = f"{ZONES}untracked udp 53 from lan to wan\nallow udp 53 from lan to wan\n"
    story = story_of(policy, "udp 53 from lan to wan")
    assert [State(e.carried.tracked.state) for e in story.packets] == [State.UNTRACKED] * 2
    assert story.works


@pytest.mark.parametrize(
    ("state", "works"),
    [
        (State.NEW, True),
        (State.ESTABLISHED, True),
        (State.RELATED, True),
        (State.INVALID, False),
        (State.UNTRACKED, True),
    ],
)
def test_a_single_packet_has_the_state_that_is_asked_for(state: State, works: bool) -> None:
    policy = f"{ZONES}allow tcp 22 inbound from wan\n"
    story = story_of(policy, "tcp 22 inbound from wan", kind="packet", state=state)
    (packet,) = story.packets
    assert packet.carried.tracked.state is state
    assert story.works is works
    answered = story_of(policy, "tcp 22 inbound from wan", kind="packet", is_answered=True)
    assert [e.carried.tracked.state for e in answered.packets] == [State.NEW, State.ESTABLISHED]


@pytest.mark.parametrize("what", ["tcp 22", "udp 53", "ping"])
@pytest.mark.parametrize(
    ("state", "answer"),
    [
        (State.NEW, State.ESTABLISHED),
        (State.ESTABLISHED, State.ESTABLISHED),
        (State.RELATED, State.ESTABLISHED),
        (State.UNTRACKED, State.UNTRACKED),
    ],
)
def test_the_answer_to_a_single_packet_is_of_its_connection(
    what: str, state: State, answer: State
) -> None:
    question = f"{what} inbound from wan"
    policy = f"{ZONES}allow {question}\nallow all outbound\n"
    story = story_of(policy, question, kind="packet", state=state, is_answered=True)
    assert [e.carried.tracked.state for e in story.packets] == [state, answer]
    if answer is State.ESTABLISHED:
        assert [e.carried.tracked.related for e in story.packets][1] == 1


# --- conntrack by itself ------------------------------------------------------------------------


def tcp(flags: int, *, back: bool = False) -> Wire:
    ends = (B, A, (80, 40_000)) if back else (A, B, (40_000, 80))
    return Wire(4, TCP, ends[0], ends[1], ends[2], flags)


def states(*wires: Wire) -> list[str]:
    """What a new table says of packets, each of which comes through."""
    table = Table()
    found = []
    for number, wire in enumerate(wires, 1):
        tracked = table.take(wire, number)
        if tracked.connection is not None and tracked.because is not Because.ERROR:
            table.confirm(tracked.connection)
        found.append(f"{tracked.state.name} {tracked.because.value}")
    return found


def test_a_connection_is_new_until_it_is_answered() -> None:
    again = states(tcp(SYN), tcp(SYN), tcp(SYN | ACK, back=True), tcp(ACK), tcp(ACK, back=True))
    assert again == [
        "NEW opens",
        "NEW again",
        "ESTABLISHED answers",
        "ESTABLISHED goes-on",
        "ESTABLISHED answers",
    ]


def test_what_does_not_come_next_is_invalid() -> None:
    assert states(tcp(SYN), tcp(ACK)) == ["NEW opens", "INVALID out-of-step"]
    assert states(tcp(SYN), tcp(RST, back=True), tcp(ACK, back=True))[1:] == [
        "ESTABLISHED answers",
        "NEW middle",  # a refusal ends what was never answered otherwise
    ]
    assert states(tcp(SYN | ACK)) == ["INVALID no-beginning"]
    assert states(tcp(ACK)) == ["NEW middle"]
    assert states(tcp(RST)) == ["INVALID no-beginning"]
    assert states(tcp(SYN | FIN)) == ["INVALID impossible-flags"]
    assert states(replace(tcp(SYN), is_broken=True)) == ["INVALID broken"]


def test_a_closed_connection_begins_anew_and_a_refused_one_does_not() -> None:
    """Unless who begins anew is who broke it off (RFC 1122 section 4.2.2.13)."""
    opened = (tcp(SYN), tcp(SYN | ACK, back=True), tcp(ACK))
    by_server = (tcp(FIN | ACK, back=True), tcp(FIN | ACK), tcp(ACK, back=True))
    by_client = (tcp(FIN | ACK), tcp(FIN | ACK, back=True), tcp(ACK))
    assert states(*opened, *by_server, tcp(SYN))[-1] == "NEW opens"
    assert states(*opened, *by_client, tcp(SYN))[-1] == "NEW opens"
    assert states(*opened, tcp(FIN | ACK), tcp(SYN))[-1] == "ESTABLISHED goes-on"
    assert states(*opened, tcp(RST), tcp(SYN))[-1] == "NEW opens"
    assert states(*opened, tcp(RST, back=True), tcp(SYN))[-1] == "ESTABLISHED goes-on"


def test_echoes_belong_together_and_nothing_else_does() -> None:
    def echo(icmp_type: int, identifier: int = 1, *, back: bool = False) -> Wire:
        ends = (B, A) if back else (A, B)
        return Wire(4, ICMP, *ends, icmp_type=icmp_type, identifier=identifier)

    assert states(echo(8), echo(0, back=True)) == ["NEW opens", "ESTABLISHED answers"]
    assert states(echo(8), echo(0, 2, back=True))[1] == "INVALID no-beginning"
    assert states(echo(0)) == ["INVALID no-beginning"]
    assert states(echo(13), echo(14, back=True))[1] == "ESTABLISHED answers"
    assert states(echo(3)) == ["INVALID error-about-nothing"]
    v6 = number_of("2001:db8::1")
    assert states(Wire(6, ICMPV6, v6, v6 + 1, icmp_type=135)) == ["UNTRACKED left-alone"]
    assert states(Wire(6, ICMPV6, v6, v6 + 1, icmp_type=2)) == ["INVALID error-about-nothing"]


def test_tcp_takes_flags_together_that_a_tcp_sends() -> None:
    assert is_possible(SYN)
    assert is_possible(RST | ACK)
    assert is_possible(SYN | 0x08)  # PSH does not matter
    assert not is_possible(0)
    assert not is_possible(FIN)
    assert not is_possible(SYN | RST)


def test_tcp_both_may_open_at_once() -> None:
    state = TcpState.NONE
    for direction, flags, goal in (
        (ORIGINAL, SYN, TcpState.SYN_SENT),
        (REPLY, SYN, TcpState.SYN_SENT2),
        (ORIGINAL, SYN | ACK, TcpState.SYN_RECV),
        (REPLY, SYN | ACK, Odd.IGNORED),
        (ORIGINAL, ACK, TcpState.ESTABLISHED),
    ):
        found = after(state, direction, flags)
        assert found is goal
        state = found if isinstance(found, TcpState) else state


def predicted(*, is_permanent: bool = False) -> tuple[Table, Wire]:
    """A table that expects a connection from A to port 5000 of B, and a packet that opens it."""
    table = Table()
    master = table.take(tcp(SYN), 1).connection
    assert master is not None
    master.mark, master.helper = 7, "ftp"
    table.confirm(master)
    table.expect(Expectation(master, TCP, A, None, B, 5000, ORIGINAL, 1, is_permanent=is_permanent))
    return table, Wire(4, TCP, A, B, (50_000, 5000), SYN)


def test_what_is_expected_comes_once_unless_it_is_said_to_come_again() -> None:
    for is_permanent, second in ((False, State.NEW), (True, State.RELATED)):
        table, wire = predicted(is_permanent=is_permanent)
        assert table.take(wire, 2).state is State.RELATED
        assert table.take(replace(wire, ports=(50_001, 5000)), 3).state is second


def test_a_predicted_connection_has_the_mark_of_the_one_that_announced_it() -> None:
    table, wire = predicted()
    connection = table.take(wire, 2).connection
    assert connection is not None
    assert (connection.mark, connection.helper, connection.is_expected) == (7, None, True)


def test_a_predicted_connection_stays_related_until_it_is_answered() -> None:
    table, wire = predicted()
    first = table.take(wire, 2)
    assert first.connection is not None
    table.confirm(first.connection)
    again = table.take(wire, 3)
    assert (again.state, again.because) == (State.RELATED, Because.EXPECTED_AGAIN)


# --- helpers by themselves ------------------------------------------------------------------------


def heard(kind: str, offers: tuple[Offer, ...], helper: str, **more: object):  # type: ignore[no-untyped-def]
    """What a helper makes of a message in an established connection from A to B."""
    protocol = more.get("protocol", TCP)
    back = bool(more.get("back"))
    wire = Wire(4, protocol, A, B, (40_000, 21))  # type: ignore[arg-type]
    connection = Connection(1, wire.flow, wire.flow.inverted, 1, helper=helper)
    connection.memory.update(more.get("memory", {}))  # type: ignore[call-overload]
    state = more.get("state", State.ESTABLISHED)
    direction = REPLY if back else ORIGINAL
    tracked = Tracked(state, direction, Because.GOES_ON, connection)  # type: ignore[arg-type]
    message = Message(kind, kind, offers)
    return read(Heard(wire, message, tracked, connection, 5))


def test_ftp_heeds_the_one_who_may_announce() -> None:
    own, foreign = Offer(Style.COMMAS, A, 5000), Offer(Style.COMMAS, C, 5000)
    (expectation,) = heard("PORT", (own,), "ftp").expects
    assert (expectation.source, expectation.source_port) == (B, None)
    assert (expectation.destination, expectation.destination_port) == (A, 5000)
    assert expectation.follow is Follow.NOT
    assert heard("PORT", (foreign,), "ftp").expects == ()
    assert heard("PORT", (foreign,), "ftp").ignored is not None
    assert heard("PORT", (own,), "ftp", back=True).expects == ()
    assert heard("227", (own,), "ftp").expects == ()
    assert heard("PORT", (own,), "ftp", state=State.NEW).expects == ()
    (passive,) = heard("227", (Offer(Style.COMMAS, B, 6000),), "ftp", back=True).expects
    assert (passive.source, passive.destination) == (A, B)


def test_irc_lets_anybody_answer_and_hears_the_client_alone() -> None:
    offer = Offer(Style.DCC, A, 5000)
    (expectation,) = heard("DCC", (offer,), "irc").expects
    assert expectation.source is None
    assert heard("DCC", (offer,), "irc", back=True).expects == ()
    assert heard("DCC", (Offer(Style.DCC, C, 5000),), "irc").ignored is not None


def test_sane_heeds_the_answer_to_a_start_alone() -> None:
    offer = (Offer(Style.NUMBER, B, 5000),)
    started = {"asked": "START"}
    (expectation,) = heard("START reply", offer, "sane", back=True, memory=started).expects
    assert (expectation.source, expectation.destination) == (A, B)
    assert heard("START reply", offer, "sane", back=True).expects == ()
    assert heard("START reply", offer, "sane", memory=started).expects == ()


def test_sip_expects_media_from_the_other_end_and_calls_of_a_registrar() -> None:
    media = heard("INVITE", (Offer(Style.SDP, A, 5000),), "sip", protocol=UDP)
    assert [(e.source, e.destination, e.destination_port) for e in media.expects] == [
        (B, A, 5000),
        (B, A, 5001),
    ]
    assert heard("INVITE", (Offer(Style.SDP, C, 5000),), "sip", protocol=UDP).expects == ()
    registered = {"registers": "5060"}
    agreed = heard("200 REGISTER", (), "sip", protocol=UDP, back=True, memory=registered)
    (call,) = agreed.expects
    assert (call.source, call.destination, call.destination_port) == (B, A, 5060)
    assert call.helper == "sip"
    assert call.is_permanent


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "web.policy"
    path.write_text(
        f"{ZONES}allow ftp inbound from wan\nallow ssh inbound from wan limit 5/minute\n"
    )
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["trace", *words])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_trace_tells_the_story(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, str(policy), "ftp", "passive", "inbound", "from", "wan")
    assert (status, err) == (0, "")
    assert "RELATED: no connection of these ends is known, but helper `ftp` read `227" in out
    assert "passes: web.policy:4 allow ftp inbound from wan" in out
    assert out.endswith("It works: 25 packets pass.\n")
    assert max(map(len, out.splitlines())) <= 100
    status, verbose, _ = run(capsys, str(policy), "ftp passive inbound from wan", "--verbose")
    assert "set helper ftp" in verbose
    assert max(map(len, verbose.splitlines())) <= 100
    assert "\x1b[" in run(capsys, str(policy), "ssh inbound", "--color", "always")[1]


def test_trace_tells_the_conditions_that_it_took_for_granted(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, str(policy), "ssh from 203.0.113.9")
    assert "limit 5/minute, if it is within 5/minute (burst 5)" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("packet tcp 22 inbound flags sin", "`sin` is no TCP flag"),
        ("packet tcp 22 inbound state odd", "`odd` is no state"),
        ("packet tcp 22 inbound state", "nothing stands behind `state`"),
        ("ssh inbound flags syn", "`flags` is said of a single packet"),
        ("packet flags syn", "nothing is said of what to trace"),
        ("sip passive from wan to lan", None),
        ("ssh from wan to nowhere", None),
        ("ssh inbound from wan interface eth7", "no packet is what"),
        ("ssh inbound interface eth0123456789012", "`eth0123456789012` is no interface"),
        ("ssh inbound interface eth*", "`eth*` is no interface"),
        ("ssh inbound --reply", "`--reply` is said of a single packet"),
        ("packet udp 53 inbound flags syn", "`udp 53 inbound` is not TCP"),
        ("ping too-big inbound", "no error about `ping inbound` is played"),
        ("ssh from wan to published", "name where it goes to"),
    ],
)
def test_trace_refuses_what_it_does_not_understand(
    policy: Path, capsys: pytest.CaptureFixture[str], words: str, message: str | None
) -> None:
    status, out, err = run(capsys, str(policy), *words.split())
    assert (status, out) == (1, "")
    if message is not None:
        assert message in err
        assert "error[bad-trace]" in err


def test_trace_exits_with_2_where_something_dies(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, str(policy), "https", "inbound", "from", "wan")
    assert status == 2
    assert "`allow https inbound from wan` would" in out


def test_trace_says_what_else_its_words_are_about(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, str(policy), "ftp passive from any to any")
    assert out.endswith(
        "The same words are also about forwarded and outbound packets: name both ends to see "
        "those.\n"
    )
    told = json.loads(run(capsys, str(policy), "ftp from any to any", "--format", "json")[1])
    assert told["other_ways"] == ["forwarded", "outbound"]


def test_trace_writes_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, str(policy), "ftp passive inbound from wan", "--format", "json")
    told = json.loads(out)
    assert status == 0
    assert (told["version"], told["works"], told["certain"]) == (1, True, True)
    data = told["packets"][10]
    assert data["state"] == "related"
    assert data["reason"] == "expected"
    assert data["related_packet"] == 10
    assert data["decided_by"]["line"] == 4
    assert told["packets"][9]["expects"] == [
        {
            "protocol": "tcp",
            "source": "203.0.113.9",
            "source_port": None,
            "destination": "192.0.2.1",
            "port": 50_000,
        }
    ]
    assert told["packets"][0]["helper_set"] == "ftp"


SVG = "{http://www.w3.org/2000/svg}"


def test_trace_draws(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The drawing is well-formed, has an arrow a packet, and nothing leaves the paper."""
    goal = tmp_path / "story.svg"
    assert run(capsys, str(policy), "ftp passive inbound from wan", "-o", str(goal))[:2] == (0, "")
    root = ElementTree.parse(goal).getroot()
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    arrows = [e for e in root.iter(f"{SVG}line") if "arrow" in e.get("class", "")]
    assert len(arrows) == 25
    assert {e.get("class") for e in arrows} == {"arrow new", "arrow established", "arrow related"}
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x", -1)) <= width
        assert 0 <= float(text.get("y", -1)) <= height
    assert [e for e in root.iter(f"{SVG}path") if e.get("class") == "link"]
    _, out, _ = run(capsys, str(policy), "ftp passive inbound from wan", "--format", "svg")
    assert out == goal.read_text()


def test_a_drawing_escapes_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a<b&c.policy"
    path.write_text(f'{ZONES}allow tcp 22 inbound name "<script>&amp; x"\n')
    _, out, _ = run(capsys, str(path), "tcp 22 inbound", "--format", "svg")
    root = ElementTree.fromstring(out)
    texts = "".join(root.itertext())
    assert "<script>&amp; x" in texts
    assert "a<b&c.policy" in texts
    assert not list(root.iter(f"{SVG}script"))


def test_trace_reads_rules_of_other_origin(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not understood is told: it may be otherwise."""
    rules = tmp_path / "rules.v4"
    rules.write_text(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        '-A INPUT -m u32 --u32 "0=1" -j DROP\n'
        "-A INPUT -i eth0 -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    )
    status, out, err = run(capsys, str(rules), "ssh", "from", "203.0.113.9", "interface", "eth0")
    assert (status, err) == (0, "")
    assert "Not all of the rules are understood" in out
    status, out, _ = run(capsys, str(rules), "https", "from", "203.0.113.9", "interface", "eth0")
    assert status == 2
    assert "by the policy of chain" in out
    assert "statement" not in out and "`allow" not in out  # rules of others have none


def test_the_interfaces_of_rules_are_those_that_they_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is sent on leaves by another interface than that by which it came."""
    rules = tmp_path / "rules.v4"
    rules.write_text(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n"
        "-A PREROUTING -p tcp -m tcp --dport 2121 -j DNAT --to-destination 10.0.0.5:21\n"
        "-A POSTROUTING -o wan0 -j MASQUERADE\nCOMMIT\n"
        "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -i lan0 -j ACCEPT\nCOMMIT\n"
    )
    words = (str(rules), "tcp 2121 inbound interface wan0", "--format", "json")
    told = json.loads(run(capsys, *words)[1])
    assert [h["interface"] for h in told["hosts"]] == ["wan0", None, "lan0"]
    assert told["packets"][0]["arrives_as"]["source"]["address"] == "203.0.113.9"


# --- sessions in tests ----------------------------------------------------------------------------


def expectations(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = tmp_path / "tested.policy"
    path.write_text(text)
    status = main(["test", str(path), "--format", "json"])
    return status, capsys.readouterr().out


def test_sessions_are_proved_for_all_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = f"{ZONES}allow ftp from lan to wan\nmasquerade from lan to wan\n"
    holds = "expect session ftp passive from lan to wan expect session ftp active from lan to wan"
    status, _ = expectations(tmp_path, f'{policy}test "a" {{ {holds} }}\n', capsys)
    assert status == 0
    one = "deny ftp from 198.51.100.7 to wan\n"
    status, out = expectations(
        tmp_path, f'{ZONES}{one}allow ftp from lan to wan\ntest "a" {{ {holds} }}\n', capsys
    )
    assert status == 2
    failure = json.loads(out)["policies"][0]["tests"][0]["expectations"][0]["failure"]
    assert "198.51.100.7" in failure["packet"]
    some = "expect some session ftp passive from lan to wan"
    status, _ = expectations(
        tmp_path, f'{ZONES}{one}allow ftp from lan to wan\ntest "a" {{ {some} }}\n', capsys
    )
    assert status == 0


@pytest.mark.parametrize("kind", ["pptp", "irc", "sane", "amanda", "tftp write", 'sip "tcp"'])
def test_sessions_of_every_helper_are_proved(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a helper knows IPv4 alone, nothing is asked of IPv6."""
    policy = f"{ZONES}allow {kind.split()[0]} inbound from wan\n"
    text = f'{policy}test "a" {{ expect session {kind} inbound from wan }}\n'
    status, out = expectations(tmp_path, text, capsys)
    assert status == 0, out


def test_a_session_fails_where_its_second_connection_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = f"{ZONES}{BARE}allow bare from lan to wan\n"
    for some in ("", "some "):
        text = f'{policy}test "a" {{ expect {some}session ftp passive from lan to wan }}\n'
        status, out = expectations(tmp_path, text, capsys)
        assert status == 2
        (shown,) = json.loads(out)["policies"][0]["tests"][0]["expectations"]
        assert "SYN of the data connection, is dropped" in shown["failure"]["message"]
        assert "no helper reads along" in shown["failure"]["help"]


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ("session ssh inbound from wan", "not every session begins: not every packet is allowed:"),
        ("some session ssh inbound from wan", "no session begins: no packet is allowed:"),
        ("session irc inbound from wan ipv6", "no packet is described by this, so it proves"),
        ("some session irc inbound from wan ipv6", "no packet is described by this, so it proves"),
    ],
)
def test_a_session_that_does_not_begin_is_told_by_its_first_packet(
    expected: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f'{ZONES}test "a" {{ expect {expected} }}\n'
    status, out = expectations(tmp_path, text, capsys)
    assert status == 2
    (shown,) = json.loads(out)["policies"][0]["tests"][0]["expectations"]
    assert shown["failure"]["message"].startswith(message)
