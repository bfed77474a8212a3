"""What new rules let no packet begin is ended, nothing else is, and what is ended stays so."""

from __future__ import annotations

import errno
import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from policylang import pipeline
from policylang.apply import conntrack, flows, kernel, netlink, routing
from policylang.apply.flows import Flow, cut, to_cut
from policylang.apply.plain import Plain
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.packets.fields import AddressType
from policylang.packets.values import parse_one_address

from .applied import apply_text, until_true
from .ground import Ground, Loader, Namespace, family_of, ping

WAN = "zone wan { interface wan0 }\n"
BOTH = "zone wan { interface wan0 }\nzone lan { interface lan0 }\n"

SILENCE_S = 0.4  # as long as a byte may be on its way before it is thought lost

Ends = tuple[socket.socket, socket.socket]


def ruleset_of(policy: str) -> Ruleset:
    report = Report()
    found = pipeline.ruleset_of(pipeline.Text(policy, "test.policy", Path()), report)
    assert found is not None, report.diagnostics
    return found


def doomed(policy: str, namespace: Namespace, *, target: str | None = None) -> tuple[Flow, ...]:
    """What `to_cut` finds in a namespace."""
    report, ruleset = Report(), ruleset_of(policy)
    found = kernel.in_netns(namespace.name, lambda: to_cut(ruleset, report, target=target), report)
    assert found is not None and not report.diagnostics
    return found


def end(found: tuple[Flow, ...], namespace: Namespace) -> int:
    report = Report()
    ended = kernel.in_netns(namespace.name, lambda: cut(found, report), report)
    assert ended is not None and not report.diagnostics
    return ended


def ports(found: tuple[Flow, ...]) -> list[tuple[int, int | None]]:
    """The family and the port that was dialled of each, sorted."""
    entries = [flow.entry for flow in found]
    ends = [e.original if isinstance(e, conntrack.Connection) else e.first for e in entries]
    return sorted((e.family, e.destination_port or 0) for e in ends)


@contextmanager
def connected(
    client: Namespace, server: Namespace, address: str, port: int, listening: int = 0
) -> Iterator[Ends]:
    """Both ends of an open TCP connection, the client's first."""
    family = family_of(address)
    with client.opened(family, socket.SOCK_STREAM) as calling:
        with server.listen(family, listening or port) as listener:
            calling.settimeout(3)
            calling.connect((address, port))
            listener.settimeout(3)
            answering, _ = listener.accept()
        with answering:
            yield calling, answering


def hears(sender: socket.socket, receiver: socket.socket) -> bool:
    """Whether a byte that one end sends comes to the other."""
    sender.send(b"x")
    receiver.settimeout(SILENCE_S)
    try:
        return receiver.recv(1) == b"x"
    except TimeoutError:
        return False


def are_dead(*connections: Ends) -> bool:
    """Whether no byte of any comes through, whichever end sends it; all wait together."""
    ways = [way for ends in connections for way in (ends, ends[::-1])]
    for sender, _ in ways:
        sender.send(b"x")
    ready, _, _ = select.select([receiver for _, receiver in ways], [], [], SILENCE_S)
    return not ready


def is_alive(ends: Ends) -> bool:
    client, server = ends
    return hears(client, server) and hears(server, client)


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def loader(request: pytest.FixtureRequest) -> Loader:
    found: Loader = request.param
    return found


# --- in and out -------------------------------------------------------------------------------

OPEN = f"{WAN}allow ssh, http inbound from wan\n"
TIGHTER = f"{WAN}allow ssh inbound from wan\n"


def test_ends_what_is_not_allowed_and_nothing_else(
    pair: Ground, loader: Loader, tmp_path: Path
) -> None:
    """Data of what ended comes through no more, whoever sends first; the rest goes on."""
    fw, wan = pair.firewall, pair["wan"]
    apply_text(OPEN, loader, fw, tmp_path)
    with (
        connected(wan.neighbour, fw, wan.near.ipv4, 22) as ssh,
        connected(wan.neighbour, fw, wan.near.ipv4, 80) as web4,
        connected(wan.neighbour, fw, wan.near.ipv6, 80) as web6,
        connected(fw, wan.neighbour, wan.far.ipv4, 443) as outbound,
        connected(fw, fw, "127.0.0.1", 8080) as own,
    ):
        assert doomed(OPEN, fw) == ()
        apply_text(TIGHTER, loader, fw, tmp_path)
        found = doomed(TIGHTER, fw)
        assert ports(found) == [(4, 80), (6, 80)]
        assert all(map(is_alive, (ssh, web4, web6, outbound, own))), "it is the cut that ends them"
        assert end(found, fw) == 2
        for _, server in (web4, web6):
            server.send(b"y")  # conntrack would take this for a new connection of the server's
        time.sleep(0.1)
        assert not hears(*web4) and not hears(*web6)
        assert all(map(is_alive, (ssh, outbound, own)))
        assert doomed(TIGHTER, fw) == ()
        assert " dport=80 " not in fw.run(["conntrack", "-L"]).stdout


def test_what_ended_would_come_back_from_its_other_end(
    pair: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: without `stop_pick_up` one packet of the server brings it to life again."""
    fw, wan = pair.firewall, pair["wan"]
    apply_text(OPEN, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv4, 80) as (client, server):
        apply_text(TIGHTER, Loader.NFT, fw, tmp_path)
        found = doomed(TIGHTER, fw)
        assert [flow.may_return for flow in found] == [True]
        monkeypatch.setattr(flows, "stop_pick_up", lambda flows, report: ())
        assert end(found, fw) == 1
        assert not hears(client, server), "its own packets are denied"
        assert hears(server, client)
        until_true(lambda: hears(client, server))


def test_pick_up_stays_on_where_nothing_can_come_back(pair: Ground, tmp_path: Path) -> None:
    fw, wan = pair.firewall, pair["wan"]
    closed = f"{TIGHTER}default deny outbound\n"
    apply_text(OPEN, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv4, 80) as ends:
        apply_text(closed, Loader.NFT, fw, tmp_path)
        found = doomed(closed, fw)
        assert [flow.may_return for flow in found] == [False]
        assert end(found, fw) == 1
        assert are_dead(ends)
    with fw.entered():
        assert flows.PICK_UP.read_text() == "1\n"


def test_pick_up_is_switched_off_once_and_said(pair: Ground, tmp_path: Path) -> None:
    fw, wan = pair.firewall, pair["wan"]
    report = Report()
    apply_text(OPEN, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv4, 80):
        found = doomed(TIGHTER, fw)
        with fw.entered():
            assert flows.stop_pick_up(found, report) == (f"switched off `{flows.PICK_UP_NAME}`",)
            assert flows.PICK_UP.read_text() == "0\n"
            assert flows.stop_pick_up(found, report) == ()
    assert not report.diagnostics


def test_says_what_it_ends_in_words(pair: Ground, tmp_path: Path) -> None:
    fw, wan = pair.firewall, pair["wan"]
    apply_text(f"{WAN}allow http, ping inbound from wan\n", Loader.NFT, fw, tmp_path)
    closed = f"{WAN}allow ssh inbound from wan\n"
    with (
        connected(wan.neighbour, fw, wan.near.ipv4, 80) as (calling, _),
        connected(wan.neighbour, fw, wan.near.ipv6, 80) as (six, _),
    ):
        assert ping(wan.neighbour, wan.near.ipv4)
        texts = sorted(flow.text for flow in doomed(closed, fw))
        port, port6 = calling.getsockname()[1], six.getsockname()[1]
        assert texts == [
            "icmp type 8 192.0.2.2 -> 192.0.2.1 (wan0)",
            f"tcp 192.0.2.2:{port} -> 192.0.2.1:80 (wan0)",
            f"tcp [2001:db8:2::2]:{port6} -> [2001:db8:2::1]:80 (wan0)",
        ]


@pytest.mark.parametrize(
    "rule",
    [
        "allow http inbound limit 1/day",
        "set some = dynamic\nallow http inbound from some",
        "allow http inbound during 02:00-02:01 mon",
        "allow http inbound mark 0x7",
        'native nft input "tcp dport 80 accept"',
        "untracked http inbound from wan\nallow http inbound from wan",
    ],
)
def test_what_may_still_be_allowed_stays(pair: Ground, rule: str, tmp_path: Path) -> None:
    """Rates, members of sets, times, marks and native lines are not known of a packet to come."""
    fw, wan = pair.firewall, pair["wan"]
    apply_text(OPEN, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv4, 80):
        assert doomed(f"{WAN}{rule}\n", fw, target="nft") == ()
        other = rule.replace("dport 80", "dport 81").replace("http", "https")
        assert len(doomed(f"{WAN}{other}\n", fw, target="iptables")) == 1


def test_ends_no_other_that_took_the_place(pair: Ground, tmp_path: Path) -> None:
    """Between the listing and the cut a connection may be over, and another one of its ends be."""
    fw, wan = pair.firewall, pair["wan"]
    apply_text(OPEN, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv4, 80):
        (found,) = doomed(TIGHTER, fw)
        assert isinstance(found.entry, conntrack.Connection)
        number = bytes(byte ^ 0xFF for byte in found.entry.found[conntrack.ID])
        other = replace(found.entry, found={**found.entry.found, conntrack.ID: number})
        assert end((replace(found, entry=other),), fw) == 0
        assert end((found,), fw) == 1
        assert end((found,), fw) == 0


# --- through ----------------------------------------------------------------------------------


def test_interface_is_that_of_the_route_back(routed: Ground, tmp_path: Path) -> None:
    """A rule for one side ends the connections of the other; where routes are many, none."""
    fw, lan, wan = routed.firewall, routed["lan"], routed["wan"]
    apply_text(f"{BOTH}allow http inbound\n", Loader.NFT, fw, tmp_path)
    of_lan = f"{BOTH}allow http from lan to self\n"

    def six(command: str) -> None:
        fw.run(["ip", "-6", *command.split()])

    with (
        connected(lan.neighbour, fw, lan.near.ipv4, 80),
        connected(wan.neighbour, fw, wan.near.ipv6, 80),
    ):
        assert [f.interfaces for f in doomed(of_lan, fw)] == [frozenset({"wan0"})]
        six("rule add from 2001:db8:77::/48 lookup 77")
        assert doomed(of_lan, fw) == ()
        six("rule del from 2001:db8:77::/48 lookup 77")
        six("rule add fwmark 7 lookup 77")
        six("route add default dev lan0 table 77")
        assert doomed(of_lan, fw) == (), "what is marked comes by the other side"
        six("rule del fwmark 7 lookup 77")
        assert len(doomed(of_lan, fw)) == 1


def test_way_back_is_all_that_routes_tell(routed: Ground) -> None:
    """Several next hops are several interfaces; what no table tells, and a link's own, is open."""
    fw = routed.firewall
    fw.ip("route add 203.0.113.0/24 nexthop via 198.51.100.2 nexthop via 192.0.2.2")
    fw.ip("route add blackhole 203.0.113.128/25")
    with fw.entered():
        routes = routing.read()
        for text, names in (
            ("203.0.113.5", {"lan0", "wan0"}),
            ("203.0.113.200", None),
            ("198.51.100.7", {"lan0"}),
            ("2001:db8:2::7", {"wan0"}),
            ("10.0.0.1", None),
            ("fe80::1", None),
            ("127.0.0.1", {"lo"}),
        ):
            address = parse_one_address(text)
            assert address is not None
            found = routes.interfaces(address)
            assert (None if found is None else set(found)) == names, text
        kinds = {
            "192.0.2.1": AddressType.LOCAL,
            "127.5.5.5": AddressType.LOCAL,
            "2001:db8:2::1": AddressType.LOCAL,
            "192.0.2.255": AddressType.BROADCAST,
            "255.255.255.255": AddressType.BROADCAST,
            "224.0.0.251": AddressType.MULTICAST,
            "ff02::fb": AddressType.MULTICAST,
            "192.0.2.2": AddressType.UNICAST,
            "fe80::7": AddressType.UNICAST,
        }
        for text, kind in kinds.items():
            address = parse_one_address(text)
            assert address is not None and routes.type_of(address) is kind, text


FORWARDED = "allow http from lan to wan\nmasquerade from lan to wan\n"


def led_to(server: str) -> str:
    return f"dnat tcp 2222 from wan to {server} port 22\n"


def test_translated_connections_are_judged_as_the_filter_meets_them(
    routed: Ground, loader: Loader, tmp_path: Path
) -> None:
    """By their client's own address, and by where they are sent to."""
    fw, lan, wan = routed.firewall, routed["lan"], routed["wan"]
    server, other = lan.far.ipv4, "198.51.100.77"
    policy = f"{BOTH}{FORWARDED}{led_to(server)}"
    apply_text(policy, loader, fw, tmp_path)
    with (
        connected(lan.neighbour, wan.neighbour, wan.far.ipv4, 80) as out,
        connected(wan.neighbour, lan.neighbour, wan.near.ipv4, 2222, 22) as led_in,
    ):
        assert doomed(policy, fw) == ()
        assert doomed(f"{BOTH}allow http from {server} to wan\n{led_to(server)}", fw) == ()
        assert ports(doomed(f"{BOTH}allow http from {other} to wan\n", fw)) == [(4, 80), (4, 2222)]
        assert ports(doomed(f"{BOTH}{FORWARDED}", fw)) == [(4, 2222)]
        assert ports(doomed(f"{BOTH}{FORWARDED}{led_to(other)}", fw)) == [(4, 2222)]
        # Where nothing translates at all any more, nft lets go of what was translated before.
        without = f"{BOTH}{FORWARDED}allow all from lan to wan\n"
        apply_text(without, loader, fw, tmp_path)
        found = doomed(without, fw)
        assert [f.may_return for f in found] == [True]
        assert f":2222, sent to {server}:22 (wan0)" in found[0].text
        assert end(found, fw) == 1
        led_in[1].send(b"y")  # the server's packet would begin a connection of its own
        time.sleep(0.2)
        assert not hears(*led_in)
        assert is_alive(out)


# --- what helpers predict ---------------------------------------------------------------------

FTP = f"{WAN}allow ftp inbound from wan\n"
NO_HELPER = f"{WAN}allow tcp 21 inbound from wan\n"


def says(control: Ends, line: str) -> None:
    client, server = control
    server.send(f"{line}\r\n".encode())
    client.settimeout(3)
    assert client.recv(200).startswith(line[:3].encode())


def says_where(control: Ends, address: str, port: int) -> None:
    host = address.replace(".", ",")
    says(control, f"227 Entering Passive Mode ({host},{port >> 8},{port & 255})")


def test_what_a_helper_predicted_goes_with_its_master(
    pair: Ground, loader: Loader, tmp_path: Path
) -> None:
    fw, wan = pair.firewall, pair["wan"]
    apply_text(FTP, loader, fw, tmp_path)
    with (
        connected(wan.neighbour, fw, wan.near.ipv4, 21) as control,
        ExitStack() as stack,
    ):
        says(control, "220 ready")  # the helper knows where a line begins once it saw one end
        says_where(control, wan.near.ipv4, 40001)
        data = stack.enter_context(connected(wan.neighbour, fw, wan.near.ipv4, 40001))
        says_where(control, wan.near.ipv4, 40002)
        assert doomed(FTP, fw) == ()
        closed = f"{WAN}allow ssh inbound from wan\n"
        found = doomed(closed, fw)
        assert ports(found) == [(4, 21), (4, 40001), (4, 40002)]
        assert found[-1].text == "tcp 192.0.2.2 -> 192.0.2.1:40002, expected by ftp"
        # The control connection may go on, but nothing is admitted that a helper predicts.
        assert ports(doomed(NO_HELPER, fw)) == [(4, 40001), (4, 40002)]
        assert is_alive(data)
        apply_text(NO_HELPER, loader, fw, tmp_path)
        assert end(doomed(NO_HELPER, fw), fw) == 2
        assert doomed(NO_HELPER, fw) == ()
        assert fw.run(["conntrack", "-L", "expect"]).stdout == ""
        assert not hears(*data)
        assert is_alive(control)


def test_what_an_ended_master_brought_about_ends_with_it(pair: Ground, tmp_path: Path) -> None:
    """Though such a connection would be let in, if its master were another one."""
    fw, wan = pair.firewall, pair["wan"]
    elsewhere = f"{WAN}service other {{ tcp 2121 helper ftp }}\nallow other inbound from wan\n"
    apply_text(elsewhere, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv4, 2121) as control, ExitStack() as stack:
        says(control, "220 ready")
        says_where(control, wan.near.ipv4, 40001)
        stack.enter_context(connected(wan.neighbour, fw, wan.near.ipv4, 40001))
        says_where(control, wan.near.ipv4, 40002)
        assert doomed(elsewhere, fw) == ()
        found = doomed(FTP, fw)
        assert ports(found) == [(4, 2121), (4, 40001), (4, 40002)]
        assert end(found, fw) >= 2  # an expectation goes with its master


# --- many, and none ---------------------------------------------------------------------------

MANY = 20_000
MOST_S = 2.0  # of this process's own time; a fifth of what 100,000 may take


def _fill(count: int) -> None:
    """Entries of as many clients, a third to each of three ports."""

    def ends(kind: int, source: bytes, target: bytes, ports: tuple[int, int]) -> bytes:
        port_of = ((2, ports[0]), (3, ports[1]))
        carried = [netlink.attribute(n, struct.pack("!H", port)) for n, port in port_of]
        return netlink.nested(
            kind,
            netlink.nested(1, netlink.attribute(1, source), netlink.attribute(2, target)),
            netlink.nested(2, netlink.attribute(1, bytes([6])), *carried),
        )

    bodies = []
    here = socket.inet_aton("192.0.2.1")
    established = netlink.nested(4, netlink.nested(1, netlink.attribute(1, bytes([3]))))
    for n in range(count):
        there = socket.inet_aton(f"10.0.{n >> 8}.{n & 255}")
        port = (22, 80, 443)[n % 3]
        bodies.append(
            struct.pack("=BBH", socket.AF_INET, 0, 0)
            + ends(conntrack.ORIGINAL, there, here, (40_000, port))
            + ends(conntrack.REPLY, here, there, (port, 40_000))
            + netlink.attribute(conntrack.STATUS, struct.pack("!I", 0xE))
            + netlink.attribute(7, struct.pack("!I", 600))  # CTA_TIMEOUT
            + established
        )
    with netlink.opened(netlink.NETFILTER) as told:
        for start in range(0, count, 1000):  # IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL
            some = bodies[start : start + 1000]
            told._exchange(1 << 8, netlink.REQUEST | netlink.ACK | 0x600, some)


def test_many_are_read_judged_and_ended_quickly(pair: Ground) -> None:
    fw = pair.firewall
    fw.ip("route add default via 192.0.2.2")
    ruleset = ruleset_of(f"{WAN}allow ssh inbound from wan\nallow http from 10.0.0.0/20 to self\n")
    report = Report()
    with fw.entered():
        _fill(MANY)
        began = time.thread_time()
        found = to_cut(ruleset, report)
        took_s = time.thread_time() - began
        assert len(found) == sum(n % 3 == 2 or (n % 3 == 1 and n >= 4096) for n in range(MANY))
        assert took_s < MOST_S
        assert cut(found, report) == len(found)
        assert len(list(conntrack.connections())) == MANY - len(found)
    assert not report.diagnostics


def test_kernel_without_conntrack_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one built without it answers: no such protocol, or no such subsystem."""

    class Refusing:
        def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
            raise OSError(22, "Invalid argument")

    @contextmanager
    def opened(protocol: int, **options: bool) -> Iterator[Refusing]:
        yield Refusing()

    monkeypatch.setattr(netlink, "opened", opened)
    report = Report()
    assert to_cut(ruleset_of(TIGHTER), report) == ()
    assert [d.code for d in report.diagnostics] == ["flows-unknown"]


def test_kernel_says_why_it_refuses(pair: Ground) -> None:
    """A message that nobody knows is answered by an error, not by silence."""
    with pair.firewall.entered(), netlink.opened(netlink.NETFILTER) as asked:
        with pytest.raises(OSError, match="nvalid argument"):
            list(asked.dump(200 << 8, bytes(4)))
        assert asked.tell(200 << 8, [bytes(4)] * 3) == [22, 22, 22]


class Busy:
    """What the kernel answers of a connection that goes past the rules, as often as it is told."""

    def __init__(self, times: int) -> None:
        self.times = times

    def tell(self, kind: int, keys: list[bytes]) -> list[int]:
        self.times -= 1
        return [*(0 for _ in keys[1:]), errno.EBUSY if self.times >= 0 else 0]


@pytest.mark.parametrize(("times", "ended"), [(1, 3), (1000, 2)])
def test_what_goes_past_the_rules_is_waited_for(
    times: int, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot be ended until the rules are gone that let it; what stays so is told."""
    busy = Busy(times)

    @contextmanager
    def opened(protocol: int, **options: bool) -> Iterator[Busy]:
        yield busy

    monkeypatch.setattr(netlink, "opened", opened)
    monkeypatch.setattr(conntrack, "PATIENCE_S", 0.2)
    ends = conntrack.FlowTuple(4, 6, 1, 2, 50_000, 22)
    flow = Flow(conntrack.Connection(ends, ends, found={conntrack.ORIGINAL: b""}))
    report = Report()
    assert cut((flow, flow, flow), report) == ended
    told = [d.message for d in report.diagnostics]
    expected = "cannot end 1 open connection: device or resource busy"
    assert told == ([] if ended == 3 else [expected])


def test_what_is_written_down_ends_the_same(pair: Ground, tmp_path: Path) -> None:
    """A change that is confirmed later ends what was found when it was loaded."""
    fw, wan = pair.firewall, pair["wan"]
    apply_text(OPEN, Loader.NFT, fw, tmp_path)
    with connected(wan.neighbour, fw, wan.near.ipv6, 80):
        found = doomed(TIGHTER, fw)
        written = json.dumps(Plain().data(found))
        read: tuple[Flow, ...] = Plain().value(tuple[Flow, ...], json.loads(written))
        assert read == found and len(written) < 2000
        assert end(read, fw) == 1


def test_setting_of_the_language_reaches_the_artifact() -> None:
    for setting, cuts in (("cut", True), ("keep", False)):
        ruleset = ruleset_of(f"settings {{ on-reload {setting} }}\n{TIGHTER}")
        for target in ("nft", "iptables"):
            artifact = pipeline.artifact_of(ruleset, target, Report())
            assert artifact is not None and artifact.needs.cuts_flows is cuts
    assert not ruleset_of(TIGHTER).needs.cuts_flows
