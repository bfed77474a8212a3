"""Plays what is expected of sessions: real conversations between the machines around a firewall.

It knows where client and server stand, and how their packets find the way; what they say to each
other is the protocols' business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from policylang.ir import actions as ir
from policylang.ir.ruleset import Lookup, Ruleset
from policylang.model.expectations import SessionExpectation
from policylang.model.types import Traffic
from policylang.packets.values import V6_BASE, Ranges, format_address
from policylang.proving.claims import Tried
from policylang.proving.court import fate_words, members_by_test
from policylang.proving.ground import GATEWAYS, Ground
from policylang.proving.namespaces import FAR, mac
from policylang.proving.protocols import conversation_of, spoken_over
from policylang.proving.talk import Line, Machine, SilenceError, talk
from policylang.proving.throwing import Fate

STAYS = "169.254.77.3"  # an address that every machine keeps
ATTEMPTS = 2  # a machine that is busy may lose a segment


@dataclass(frozen=True, slots=True)
class Played:
    """How many conversations were played, and which one did not come off, and why."""

    count: int
    wrong: tuple[Tried, str] | None = None


def chosen(
    expectation: SessionExpectation, about: Sequence[tuple[Tried, Fate]], most: int
) -> list[tuple[Tried, Fate]]:
    """Those of many first packets whose conversations are played: of each kind one, then others.

    Before all, one that did not pass: no conversation comes of that. Of `some`, those that passed.
    """
    found: dict[tuple[object, ...], tuple[Tried, Fate]] = {}
    told = sorted(about, key=lambda one: one[1].passed is not expectation.is_some)
    protocols, families = spoken_over(expectation.mode), _families(expectation)
    for rest in (0, 1, 2):
        for one, fate in told:
            probe = one.picked.probe
            kind = (probe.family, probe.protocol, one.picked.path, one.reached is None)
            ways = (probe.way_in, fate.where if fate.passed else one.picked.way_out)
            is_possible = (
                probe.protocol in protocols and probe.family in families and ways[0] != ways[1]
            )
            key = (*kind, *ways[: rest and 2], *(probe.ports[1:] if rest == 2 else ()))
            if is_possible and len(found) < most and (one, fate) not in found.values():
                found.setdefault(key, (one, fate))
    return list(found.values())


@dataclass(frozen=True, slots=True)
class Stage:
    """A firewall with its rules; `renew` loads them as if for the first time.

    `fill` puts addresses into dynamic sets, by the number of the test that asks for the set.
    `has_memory`: what became of packets may change what becomes of the next ones.
    """

    ground: Ground
    ruleset: Ruleset
    renew: Callable[[], None]
    fill: Callable[[Mapping[int, frozenset[int]]], None]
    has_memory: bool

    def play(self, expectation: SessionExpectation, tried: Sequence[tuple[Tried, Fate]]) -> Played:
        """Hold the conversations that begin with these packets, until it is known how they go."""
        wrong: tuple[Tried, str] | None = None
        count = 0
        for one, fate in tried:
            count += 1
            why = self._held(expectation, one, fate)
            if why is None and expectation.is_some:
                return Played(count)
            if why is not None:
                wrong = wrong or (one, why)
                if not expectation.is_some:
                    break
        return Played(count, wrong)

    def _held(self, expectation: SessionExpectation, one: Tried, fate: Fate) -> str | None:
        """Why a conversation does not come off, or None."""
        if not fate.passed and not self.has_memory:
            return f"its first packet: {fate_words(fate, one.picked.probe)}"
        why = None
        for attempt in range(ATTEMPTS):
            if self.has_memory and (attempt or not fate.passed):
                self.renew()
            try:
                self._hold(expectation, one, fate)
            except SilenceError as silence:
                why = str(silence)
            else:
                return None
        return why

    def _hold(self, expectation: SessionExpectation, one: Tried, fate: Fate) -> None:
        picked, probe = one.picked, one.picked.probe
        conversation = conversation_of(expectation.kind, expectation.mode)
        assert conversation is not None  # or no packet would have been picked (`claims`)
        self.ground.place(picked.roles)
        self.fill(members_by_test(picked.members))
        # Where the firewall sends the first packet, and as what it comes there.
        seen, where = fate.seen, fate.where if fate.passed else picked.way_out
        address = probe.destination if seen is None else seen.destination
        ports: tuple[int, ...] = (probe.ports[1],) if seen is None else (seen.ports[1],)
        if where is None:
            ports = (*ports, *(n for n in _redirected(self.ruleset) if n not in ports))
        with (
            self._machine(probe.way_in, probe.source) as client,
            self._machine(where, address) as server,
        ):
            line = Line(
                client,
                server,
                probe.family,
                (format_address(probe.destination), probe.ports[1]),
                ports,
                _source_port(expectation, probe.ports[0]),
                _data_ports(expectation, one),
            )
            with talk(line) as talking:
                conversation(talking, probe.protocol)

    @contextmanager
    def _machine(self, behind: str | None, address: int) -> Iterator[Machine]:
        """A machine with that address, behind an interface or (None) the firewall itself."""
        text = format_address(address)
        if behind is None:
            yield Machine(self.ground.firewall, text)
            return
        peer = self.ground.peers[behind]
        length, flags = (128, " nodad") if address >= V6_BASE else (32, "")
        peer.ip([f"addr add {text}/{length} dev {FAR}{flags}"])
        try:
            yield Machine(peer, text)
        finally:
            peer.ip([f"addr del {text}/{length} dev {FAR}"])


def _families(expectation: SessionExpectation) -> Ranges:
    """The families in which such a session is held: those that its helper knows."""
    helpers = [t.helper for t in expectation.asked.what if t.helper is not None]
    return Ranges.of(4, 6) if not helpers else helpers[0].families


def _source_port(expectation: SessionExpectation, port: int) -> int:
    """The client's port where the question asks for one; else the kernel chooses."""
    return 0 if expectation.asked.conditions.source_ports is None else port


def _data_ports(expectation: SessionExpectation, one: Tried) -> Ranges | None:
    """The ports that the service names for what the helper predicts."""
    packet = one.picked.probe

    def speaks_of(traffic: Traffic) -> bool:
        return (traffic.protocols is None or packet.protocol in traffic.protocols) and (
            traffic.ports is None or packet.ports[1] in traffic.ports
        )

    return next((t.data_ports for t in expectation.asked.what if speaks_of(t)), None)


def _redirected(ruleset: Ruleset) -> Iterator[int]:
    """The ports of this host to which rules send what was dialled elsewhere."""
    for chain in ruleset.chains:
        for item in chain.items:
            for one in item.entries if isinstance(item, Lookup) else (item,):
                if isinstance(one.action, ir.RedirectToSelf):
                    yield one.action.port


# --- the machines around ------------------------------------------------------------------------


def let_peers_speak(ground: Ground) -> None:
    """Give the machines behind the wires their way to the firewall, in both families."""
    for wire in ground.plan.wires:
        peer = ground.peers[wire.name]
        near = mac(wire.number, is_far=False).hex(":")
        peer.settings((("ipv6.conf.all.disable_ipv6", "0"), (f"ipv6.conf.{FAR}.disable_ipv6", "0")))
        # With the last address of an interface its routes go as well (fib_disable_ip).
        commands = [f"addr add {STAYS}/32 dev {FAR}"]
        for gateway, everything in ((GATEWAYS[0], "0.0.0.0/0"), (GATEWAYS[2], "::/0")):
            commands += (
                f"neigh replace {gateway} lladdr {near} dev {FAR} nud permanent",
                f"route replace {everything} via {gateway} dev {FAR} onlink",
            )
        peer.ip(commands)
