"""What becomes of packets on their way from host to host, by the rules of each that they meet.

Sender, gateways and receiver are asked one after the other, each by its own rules, and what
arrives at one may pass there or not. Which hosts packets come by is told by addresses: who has one
sends and receives under it, and every gateway may be between two others unless both are behind
one of its interfaces. Who has no host's address is beyond the gateways. It knows neither how
questions are worded nor how answers are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.following import Fate
from policylang.analysis.machine import Machine
from policylang.analysis.questions import Answer, Beginnings, Piece, Pieces
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.stages import Path
from policylang.lower.asked import Asking, asking
from policylang.model.policy import Policy
from policylang.model.types import (
    AddressEnd,
    AnyEnd,
    End,
    EndElement,
    HostEnd,
    PolicyRule,
    SelfEnd,
    ZoneEnd,
)
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import ADDRESSES, Ranges

ORDER = (Path.OUTPUT, Path.FORWARD, Path.INPUT)  # who sends, who passes on, who receives

# What is the same wherever a packet is met; all else is known to each host alone.
_OF_PACKETS = frozenset(
    {
        *(Field.FAMILY, Field.SADDR, Field.DADDR, Field.L4PROTO, Field.SPORT, Field.DPORT),
        *(Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.TCP_FLAGS, Field.SIZE),
    }
)
_OF_HOSTS = tuple(f for f in Field if f not in _OF_PACKETS)


@dataclass(frozen=True, slots=True)
class OneHost:
    """A host: its addresses, its policy, and its rules, one line a statement."""

    name: str
    addresses: Ranges
    is_gateway: bool
    policy: Policy
    machine: Machine


@dataclass(frozen=True, slots=True)
class OnHost:
    """What a host does with packets of a question that it sends, passes on or receives (`path`).

    `is_sent_on` says that another host changed their addresses before they came.
    """

    host: OneHost
    path: Path
    found: Pieces
    beginnings: Beginnings
    asker: Asking
    is_sent_on: bool = False

    @property
    def answer(self) -> Answer:
        """What the host answers for its own part."""
        return self.beginnings.answer(self.found)


@dataclass(frozen=True, slots=True)
class Way:
    """The answer of all hosts together, and what each says, in the order of the way.

    About nobody there is no part.
    """

    answer: Answer
    parts: tuple[OnHost, ...]


class Site:
    """The hosts of a policy; `questions` are those that may be asked, by host."""

    def __init__(
        self,
        hosts: Iterable[OneHost],
        questions: Callable[[OneHost], Iterable[PolicyRule]],
        report: Report,
        *,
        is_alone: bool = False,
    ) -> None:
        self.hosts = tuple(host for host in hosts if host.addresses)
        self.space = Space()
        self._is_alone = is_alone
        self._askers = {h.name: asking(h.policy, questions(h), report) for h in self.hosts}
        self._beginnings: dict[str, Beginnings] = {}

    def way(self, asked: Mapping[str, PolicyRule]) -> Way:
        """The answer to a question, which is worded for each host by its name."""
        parts = [part for host in self.hosts for part in self._parts(host, asked[host.name])]
        parts.sort(key=lambda part: ORDER.index(part.path))
        found: list[OnHost] = []
        union = self.space.union
        changed = self.space.nothing  # flows that come under another source than they were sent
        total = never = may_stop = self.space.nothing
        for part in parts:
            if part.path is Path.INPUT and changed:
                part = replace(part, found=self._less(part.found, changed))
            if not part.found.asked:
                continue
            found.append(part)
            flows, passing, stopped = self._sorted(part.found)
            total |= flows
            never |= flows - passing
            may_stop |= stopped
            for piece in part.found.pieces:
                for target, sent in self._sent_on(part, piece):
                    own = self._flows(piece.packets)
                    if piece.fate.sources:
                        changed |= own
                    _, arriving, lost = self._sorted(target.found)
                    found.append(target)
                    if sent.meets(lost):
                        may_stop |= own
                    if not sent.meets(arriving):
                        never |= own
        total = union((total, never))
        if not total:
            return Way(Answer.NO, ())
        answer = Answer.PARTLY
        if not total - never:
            answer = Answer.NO
        elif not may_stop:
            answer = Answer.YES
        return Way(answer, tuple(found))

    # --- one host -----------------------------------------------------------------------------

    def _parts(self, host: OneHost, rule: PolicyRule) -> Iterator[OnHost]:
        """What a host says of a question, for each path on which it is met."""
        space, asker = self.space, self._askers[host.name]
        asked = asker.asked(_seen_from(host, rule))
        limits = {path: self._limit(host, path) for path in Path}
        dialled = {
            path: tuple(cube for cube in cubes if space.of(cube).meets(limits[path]))
            for path, cubes in asked.dialled.items()
        }
        if not any(dialled.values()):
            return
        beginnings = self._beginnings_of(host)
        pieces = beginnings.pieces(replace(asked, dialled=dialled)).pieces
        for path in ORDER:
            yield OnHost(
                host,
                path,
                self._within((p for p in pieces if p.path is path), limits[path]),
                beginnings,
                asker,
            )

    def _beginnings_of(self, host: OneHost) -> Beginnings:
        found = self._beginnings.get(host.name)
        if found is None:
            tests = self._askers[host.name].tests
            found = self._beginnings[host.name] = Beginnings(
                host.machine, tests, host.policy.zones, is_alone=self._is_alone, space=self.space
            )
        return found

    def _limit(self, host: OneHost, path: Path) -> Packets:
        """The packets that a host meets on a path, as far as addresses tell."""
        own, others = host.addresses, ADDRESSES - host.addresses
        match path:
            case Path.OUTPUT:
                met = self.space.of(Cube.of({Field.SADDR: own, Field.DADDR: others}))
                return met & self._by_its_way(host, Field.DADDR, Field.OIF)
            case Path.INPUT:
                met = self.space.of(Cube.of({Field.SADDR: others, Field.DADDR: own}))
                return met & self._by_its_way(host, Field.SADDR, Field.IIF)
        if not host.is_gateway:
            return self.space.nothing
        met = self.space.of(Cube.of({Field.SADDR: others, Field.DADDR: others}))
        met &= self._by_its_way(host, Field.SADDR, Field.IIF)
        met &= self._by_its_way(host, Field.DADDR, Field.OIF)
        return met - self._next_door(host)

    def _by_its_way(self, host: OneHost, address: Field, interface: Field) -> Packets:
        """What comes or goes by an interface of the zone in which its address is.

        A zone without networks has every address that is in no other one's (LANGUAGE 6).
        """
        space, ways = self.space, list(_networks(host))
        told = space.of_all(Cube.of({address: networks}) for _, networks in ways)
        by_its_way = space.of_all(
            Cube.of({address: networks, interface: interfaces}) for interfaces, networks in ways
        )
        return (space.everything - told) | by_its_way

    def _next_door(self, host: OneHost) -> Packets:
        """What goes between machines behind one and the same interface, and so by no gateway."""
        return self.space.of_all(
            Cube.of({Field.SADDR: networks, Field.DADDR: networks})
            for interfaces, networks in _networks(host)
            if interfaces.single is not None
        )

    def _within(self, pieces: Iterable[Piece], limit: Packets) -> Pieces:
        found = tuple(
            replace(piece, packets=own, domain=piece.domain & limit)
            for piece in pieces
            if (own := piece.packets & limit)
        )
        return Pieces(self.space.may(self.space.union(p.packets for p in found)), found)

    def _less(self, found: Pieces, flows: Packets) -> Pieces:
        return self._within(found.pieces, self.space.everything - flows)

    # --- from host to host ----------------------------------------------------------------------

    def _sent_on(self, part: OnHost, piece: Piece) -> Iterator[tuple[OnHost, Packets]]:
        """Where packets go to whose addresses a host changed, and as what they arrive there."""
        fate = piece.fate
        if not fate.is_accepted or not (fate.translated or fate.sources):
            return
        sent = self._flows(_as_sent(self.space, part.host, piece))
        for host in self.hosts:
            if host is part.host:
                continue
            arriving = sent & self.space.of(Cube.of({Field.DADDR: host.addresses}))
            if not arriving:
                continue
            beginnings = self._beginnings_of(host)
            first = beginnings.first(Path.INPUT)
            limit = self._limit(host, Path.INPUT) & arriving
            pieces = (Piece(f, f.entered, Path.INPUT, first) for f in beginnings.fates(Path.INPUT))
            found = self._within(pieces, limit)
            if found.asked:
                asker = self._askers[host.name]
                yield OnHost(host, Path.INPUT, found, beginnings, asker, True), arriving

    def _sorted(self, found: Pieces) -> tuple[Packets, Packets, Packets]:
        """All packets, those that may pass, and those that may not, as every host sees them."""
        passing = found.union(self.space, lambda fate: fate.is_accepted)
        stopped = found.union(self.space, lambda fate: not fate.is_accepted)
        return self._flows(found.asked), self._flows(passing), self._flows(stopped)

    def _flows(self, packets: Packets) -> Packets:
        """Packets as every host sees them that they come by."""
        return self.space.free(self.space.free_of_marks(self.space.may(packets)), *_OF_HOSTS)


def by_its_way(host: OneHost, rule: PolicyRule) -> PolicyRule:
    """A question in which others are in the zones in which their addresses are."""
    return replace(
        rule,
        source=_in_zones(host, rule.source),
        destination=_in_zones(host, rule.destination),
    )


def _in_zones(host: OneHost, end: End) -> End:
    zones = [zone for zone in host.policy.zones if zone.interfaces is not None]
    if not zones:
        return end
    known = Ranges.merged(pair for zone in zones for pair in zone.networks or ())

    def placed(element: EndElement) -> Iterator[EndElement]:
        match element:
            case AnyEnd():
                yield SelfEnd()
                yield from map(ZoneEnd, zones)
            case AddressEnd(addresses, ()):
                yield from within(addresses)
            case HostEnd(others=others, within=()):
                yield replace(element, others=Ranges())
                yield from within(others)
            case _:
                yield element

    def within(addresses: Ranges) -> Iterator[EndElement]:
        for zone in zones:
            there = addresses - known if zone.networks is None else addresses & zone.networks
            if there:
                yield AddressEnd(there, (zone,))

    return End(
        tuple(
            replace(one, elements=tuple(e for old in one.elements for e in placed(old)))
            for one in end.lists
        )
    )


def _seen_from(host: OneHost, rule: PolicyRule) -> PolicyRule:
    """A question in which this host's own addresses are its own, however they are named."""
    return replace(
        rule,
        source=_with_own(host, rule.source),
        destination=_with_own(host, rule.destination),
    )


def _with_own(host: OneHost, end: End) -> End:
    def seen(element: EndElement) -> EndElement:
        if not isinstance(element, AddressEnd) or element.within:
            return element
        own = element.addresses & host.addresses
        return HostEnd(own, element.addresses - own, is_passed=True)

    return End(
        tuple(
            replace(
                one,
                elements=tuple(map(seen, one.elements)),
                exceptions=tuple(map(seen, one.exceptions)),
            )
            for one in end.lists
        )
    )


def _networks(host: OneHost) -> Iterator[tuple[Ranges, Ranges]]:
    """The interfaces of a host's zones, each with the addresses that are beyond them."""
    left, others = ADDRESSES, Ranges()
    for zone in host.policy.zones:
        if zone.interfaces is None:
            continue
        if zone.networks is None:
            others = others | zone.interfaces
        else:
            left = left - zone.networks
            yield zone.interfaces, zone.networks
    if others:
        yield others, left


def _as_sent(space: Space, host: OneHost, piece: Piece) -> Packets:
    """The packets of a piece as they leave the host, under the addresses that it gave to them."""
    fate: Fate = piece.fate
    as_they_came = piece.packets
    if fate.translated is not None:
        as_they_came = space.free(as_they_came, Field.DADDR, Field.DPORT)
    decided = fate.decided & space.free(as_they_came, *_OF_HOSTS)
    left, sent = decided, space.nothing
    for met in fate.sources:
        own = met.packets & left
        left -= own
        sent |= space.assigned(
            space.free(own, Field.SPORT), {Field.SADDR: _new_source(met.line.act, host)}
        )
    return sent | left


def _new_source(act: object, host: OneHost) -> Ranges:
    match act:
        case ir.SourceNat(addresses):
            return Ranges((addresses,))
        case ir.MapPrefix(_, prefix):
            return Ranges((prefix,))
        case _:
            return host.addresses
