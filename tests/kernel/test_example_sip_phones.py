"""The phones of the examples: calls in both directions, with media, through one address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policylang.packets.fields import UDP

from .examples import is_between, load_example, move_in, on_every_loader, wire_of
from .ground import Family, Ground, Loader, Reach, ground
from .helpers_proved import sip
from .helpers_proved.talk import Conversation, End, Flow, Line, Ports, SilenceError, Talk
from .mirror import MUST_FAIL_S, MUST_PASS_S, Seen, Visit, all_seen_as_expected, mirrors

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLE = "sip-phones"
WIRES = {
    "wan": ("eth0", "203.0.113", "2001:db8:113:"),
    "lan": ("eth1", "10.0.0", "2001:db8:1:"),
}
STRANGER = "192.0.2.66"  # in `wan`, and not the provider
SIP, DNS, HTTP, HTTPS = 5060, 53, 80, 443
PORTS = (DNS, HTTP, HTTPS)
EF = 46  # RFC 3246

CALLS: dict[str, Conversation] = {
    "call": sip.call,
    "early media": sip.early_media,
    "registration": sip.registered,
    "call over TCP": sip.call_over_tcp,
}


def came_of(laid: Ground, call: Callable[[Talk], Iterator[Flow]], patience_s: float) -> list[Flow]:
    """What came of the connections that a phone's conversation with the provider announced."""
    lan, wan = laid["lan"], laid["wan"]
    line = Line(
        End(lan.neighbour, lan.far.ipv4),
        End(wan.neighbour, wan.far.ipv4),
        Family.IPV4,
        wan.far.ipv4,
        wan.near.ipv4,
        patience_s,
    )
    talk = Talk(line, Ports(SIP, SIP))
    flows: list[Flow] = []
    try:
        flows += call(talk)
    except SilenceError as silence:
        flows.append(Flow(str(silence), passed=False))
    finally:
        talk.close()
    flows += (Flow(surprise, passed=False) for surprise in talk.surprises)
    return flows


@on_every_loader
def test_phones_behind_a_router(tmp_path: Path, loader: Loader) -> None:
    """Signalling and media pass both ways, whoever speaks first, and are marked as voice."""
    with ground(*WIRES, wires=WIRES) as laid:
        lan, wan = laid["lan"], laid["wan"]
        load_example(EXAMPLE, laid.firewall, loader, tmp_path)
        with wire_of(wan) as wire:
            for name, call in CALLS.items():
                flows = came_of(laid, call, MUST_PASS_S)
                assert flows, name
                assert all(flow.passed for flow in flows), (name, flows)
            ours = [p for p in wire.heard() if is_between(p, wan.near.ipv4, wan.far.ipv4)]
        voice = [packet for packet in ours if packet[9] == UDP]
        # Signalling, RTP and RTCP of each call, at least.
        assert len(voice) >= 3 * len(CALLS)
        assert {packet[1] >> 2 for packet in voice} == {EF}
        move_in(laid.firewall, wan, STRANGER)
        with (
            mirrors(wan.neighbour, "wan", PORTS),
            mirrors(lan.neighbour, "lan", (SIP, *PORTS)),
            mirrors(laid.firewall, "self", (SIP, *PORTS)),
        ):
            all_seen_as_expected(tries(laid))


def tries(laid: Ground) -> Iterator[Visit]:
    """What else there is: the world for those inside, and nothing for the world."""
    lan, wan = laid["lan"], laid["wan"]
    for port in PORTS:
        target = wan.far.ipv4
        expected: Seen | Reach = Reach.TIMEOUT
        if port != HTTP:
            expected = Seen("wan", wan.near.ipv4, target, port)
        yield Visit(lan.neighbour, target, port, expected)
    for source in (STRANGER, wan.far.ipv4):
        for protocol in ("tcp", "udp"):
            for target in (wan.near.ipv4, lan.far.ipv4):
                for port in (SIP, DNS):
                    yield Visit(wan.neighbour, target, port, Reach.TIMEOUT, protocol, source)
    yield Visit(lan.neighbour, STRANGER, SIP, Reach.TIMEOUT)


def test_without_the_helper_no_voice_is_heard(tmp_path: Path) -> None:
    """The control: the port of SIP alone carries the signalling, and nothing that it announces."""
    changes = {
        "allow sip from lan": "allow udp 5060, tcp 5060 from lan",
        "mark sip from lan": "mark udp 5060 from lan",
    }
    with ground(*WIRES, wires=WIRES) as laid:
        load_example(EXAMPLE, laid.firewall, Loader.NFT, tmp_path, changes)
        for name, call in CALLS.items():
            flows = came_of(laid, call, MUST_FAIL_S)
            assert flows, name
            assert not any(flow.passed for flow in flows), (name, flows)
