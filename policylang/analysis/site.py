"""What becomes of packets on their way from host to host, by the rules of each that they meet.

Sender, gateways and receiver are asked one after the other, each by its own rules, and what
arrives at one may pass there or not. Which hosts packets come by is told by addresses: who has one
sends and receives under it, and every gateway may be between two others unless both are behind
one of its interfaces. Who has no host's address is beyond the gateways. What a host sends on under
other addresses is asked again of all that come behind it. It knows neither how questions are
worded nor how answers are told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from policylang.analysis.diagram import Packets, Space
from policylang.analysis.following import Fate
from policylang.analysis.machine import Hook
from policylang.analysis.questions import Answer, Beginnings, Piece, Pieces
from policylang.analysis.site_hosts import OneHost, beyond, in_zones, seen_from, with_elements
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.stages import Path
from policylang.lower.asked import Asking, asking
from policylang.model.types import EndElement, HostEnd, PolicyRule
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


@dataclass(frozen=True, slots=True)
class _Course:
    """What becomes of flows: `never` of them pass for certain, and `may_stop` perhaps."""

    parts: tuple[OnHost, ...]
    total: Packets
    never: Packets
    may_stop: Packets


class Site:
    """The hosts of a policy; `questions` are those that may be asked, by host.

    Hosts without addresses send and receive nothing here; gateways among them pass on.
    """

    def __init__(
        self,
        hosts: Iterable[OneHost],
        questions: Callable[[OneHost], Iterable[PolicyRule]],
        report: Report,
        *,
        is_alone: bool = False,
    ) -> None:
        hosts = tuple(hosts)
        self.hosts = tuple(host for host in hosts if host.addresses or host.is_gateway)
        self.space = Space()
        self._is_alone = is_alone
        self._askers = {h.name: asking(h.policy, questions(h), report) for h in self.hosts}
        self._beginnings: dict[str, Beginnings] = {}
        self._zones = in_zones(hosts)

    def way(self, asked: Mapping[str, PolicyRule]) -> Way:
        """The answer to a question, which is worded for each host by its name."""
        parts = (part for host in self.hosts for part in self._parts(host, asked[host.name]))
        course = self._course(parts, ())
        if not course.total:
            return Way(Answer.NO, ())
        answer = Answer.PARTLY
        if not course.total - course.never:
            answer = Answer.NO
        elif not course.may_stop:
            answer = Answer.YES
        return Way(answer, course.parts)

    def ends(self, way: Way) -> Iterator[OnHost]:
        """Where packets come to their end: hosts with those alone that come there and are stopped.

        What certainly is stopped before does not come; of several gateways none is before another.
        """
        gone = self.space.nothing
        for is_sent_on, path in product((False, True), ORDER):
            group = [p for p in way.parts if p.path is path and p.is_sent_on is is_sent_on]
            for part in group:
                stopped = (p for p in part.found.pieces if not p.fate.is_accepted)
                left = self.space.everything if is_sent_on else self.space.everything - gone
                if (found := self._within(stopped, left)).asked:
                    yield replace(part, found=found)
            for part in group:
                flows, passing, _ = self._sorted(part.found)
                gone |= flows - passing

    def some_packet(self, part: OnHost) -> tuple[int, int] | None:
        """The source and the destination of one of the packets of a part, as plain as can be."""
        packet = self._flows(part.found.asked).witness(part.beginnings.plausible)
        return None if packet is None else (packet[Field.SADDR], packet[Field.DADDR])

    def met_by(
        self, source: int, destination: int, hosts: Iterable[OneHost]
    ) -> tuple[tuple[OneHost, Path], ...]:
        """Those of the hosts by which packets come, and on which path, in the order of the way.

        Where addresses do not tell which of two gateways is the first, the policy's order does.
        """
        packet = self.space.of(
            Cube.of({Field.SADDR: Ranges.of(source), Field.DADDR: Ranges.of(destination)})
        )
        met = [(h, path) for h in hosts for path in ORDER if self._limit(h, path).meets(packet)]
        gateways = [host for host, path in met if path is Path.FORWARD]

        def rank(one: tuple[OneHost, Path]) -> tuple[int, int]:
            before = sum(self._behind(other, one[0]).covers(packet) for other in gateways)
            return ORDER.index(one[1]), before

        return tuple(sorted(met, key=rank))

    def known(self, rule: PolicyRule) -> PolicyRule:
        """A question in which zones of other hosts are whoever is in them, by its address."""

        def known(element: EndElement) -> EndElement:
            if isinstance(element, HostEnd) and element.elsewhere in self._zones:
                return replace(element, others=self._zones[element.elsewhere])
            return element

        return with_elements(rule, known)

    # --- one host -----------------------------------------------------------------------------

    def _parts(self, host: OneHost, rule: PolicyRule) -> Iterator[OnHost]:
        """What a host says of a question, for each path on which it is met."""
        space, asker = self.space, self._askers[host.name]
        asked = asker.asked(seen_from(host, self.known(rule)))
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
                self._within(
                    (p for p in pieces if p.path is path),
                    limits[path],
                    domain=beginnings.first(path) & limits[path],
                ),
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
        space, ways = self.space, list(beyond(host))
        told = space.of_all(Cube.of({address: networks}) for _, networks in ways)
        by_its_way = space.of_all(
            Cube.of({address: networks, interface: interfaces}) for interfaces, networks in ways
        )
        return (space.everything - told) | by_its_way

    def _next_door(self, host: OneHost) -> Packets:
        """What goes between machines behind one and the same interface, and so by no gateway."""
        return self.space.of_all(
            Cube.of({Field.SADDR: networks, Field.DADDR: networks})
            for interfaces, networks in beyond(host)
            if interfaces.single is not None
        )

    def _within(
        self, pieces: Iterable[Piece], limit: Packets, *, domain: Packets | None = None
    ) -> Pieces:
        """Those of the packets that are in `limit`, in words of all that comes in `domain`."""
        found = tuple(
            replace(piece, packets=own, domain=piece.domain if domain is None else domain)
            for piece in pieces
            if (own := piece.packets & limit)
        )
        return Pieces(self.space.may(self.space.union(p.packets for p in found)), found)

    # --- from host to host ----------------------------------------------------------------------

    def _course(self, parts: Iterable[OnHost], by: tuple[str, ...]) -> _Course:
        """What becomes of the packets of parts; the hosts `by` have sent them on before."""
        space = self.space
        found: list[OnHost] = []
        total = never = may_stop = space.nothing
        for part in self._as_met(sorted(parts, key=lambda part: ORDER.index(part.path))):
            found.append(part)
            flows, passing, stopped = self._sorted(part.found)
            total |= flows
            never |= flows - passing
            may_stop |= stopped
            for piece in filter(_is_sent_on, part.found.pieces):
                own = self._flows(piece.packets)
                if part.host.name in by:  # round and round, which nothing here can tell
                    may_stop |= own
                    continue
                sent = self._flows(_as_sent(space, part.host, piece))
                onward = self._course(self._onward(part.host, sent, by), (*by, part.host.name))
                found += onward.parts
                if onward.may_stop:
                    may_stop |= own
                if not sent - onward.never:
                    never |= own
        return _Course(tuple(found), total, never, may_stop)

    def _as_met(self, parts: Sequence[OnHost]) -> Iterator[OnHost]:
        """Parts less what does not come there as it was sent, as a host before has changed it."""
        changing = [(part, flows) for part in parts if (flows := self._changed(part))]
        for part in parts:
            gone = self.space.nothing
            for other, flows in changing:
                if other.host is not part.host:
                    gone |= flows & self._met_behind(other, part)
            if gone:
                left = self.space.everything - gone
                part = replace(part, found=self._within(part.found.pieces, left))
            if part.found.asked:
                yield part

    def _changed(self, part: OnHost) -> Packets:
        """The flows that leave a host under other addresses than they came under, if at all."""
        passing = [piece for piece in part.found.pieces if piece.fate.is_accepted]
        changed, kept = (
            self._flows(self.space.union(p.packets for p in passing if _is_changed(p.fate) is so))
            for so in (True, False)
        )
        return changed - kept

    def _met_behind(self, one: OnHost, other: OnHost) -> Packets:
        """Of what comes by both of two hosts, what certainly comes by the other one later."""
        if other.path is Path.OUTPUT:
            return self.space.nothing
        if one.path is Path.OUTPUT or (one.path is Path.FORWARD and other.path is Path.INPUT):
            return self.space.everything
        if other.path is Path.INPUT:
            return self.space.nothing
        return self._behind(one.host, other.host)

    def _behind(self, one: OneHost, other: OneHost) -> Packets:
        """What certainly comes by one gateway before it comes by the other, by its source."""
        return self._seems_behind(one, other) - self._seems_behind(other, one)

    def _seems_behind(self, one: OneHost, other: OneHost) -> Packets:
        """What comes to a gateway by another interface than that by which it reaches the other."""
        ways = list(beyond(one))
        known = Ranges.merged(pair for _, networks in ways for pair in networks)
        if not other.addresses or not known.covers(other.addresses):
            return self.space.nothing
        return self.space.of_all(
            Cube.of({Field.SADDR: networks})
            for _, networks in ways
            if not networks.meets(other.addresses)
        )

    def _onward(self, sender: OneHost, sent: Packets, by: tuple[str, ...]) -> Iterator[OnHost]:
        """Who meets what a host sends on under other addresses; gateways `by` had it before."""
        for host in self.hosts:
            if host is sender:
                continue
            for path in (Path.INPUT,) if host.name in by else (Path.FORWARD, Path.INPUT):
                limit = self._limit(host, path)
                if not limit.meets(sent):
                    continue
                beginnings = self._beginnings_of(host)
                domain = beginnings.first(path) & limit
                pieces = (Piece(f, f.entered, path, domain) for f in beginnings.fates(path))
                found = self._within(pieces, limit & sent)
                if found.asked:
                    asker = self._askers[host.name]
                    yield OnHost(host, path, found, beginnings, asker, is_sent_on=True)

    def _sorted(self, found: Pieces) -> tuple[Packets, Packets, Packets]:
        """All packets, those that may pass, and those that may not, as every host sees them."""
        passing = found.union(self.space, lambda fate: fate.is_accepted)
        stopped = found.union(self.space, lambda fate: not fate.is_accepted)
        return self._flows(found.asked), self._flows(passing), self._flows(stopped)

    def _flows(self, packets: Packets) -> Packets:
        """Packets as every host sees them that they come by."""
        return self.space.free(self.space.free_of_marks(self.space.may(packets)), *_OF_HOSTS)


def _is_changed(fate: Fate) -> bool:
    """Whether packets go on under other addresses or ports than they came under."""
    return bool(fate.translated or fate.sources)


def _is_sent_on(piece: Piece) -> bool:
    """Whether a host lets packets go on under other addresses, to another host."""
    fate = piece.fate
    return fate.is_accepted and _is_changed(fate) and fate.hook is not Hook.INPUT


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
            return host.addresses or ADDRESSES
