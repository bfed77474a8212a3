"""What tests expect of whole conversations: whether they work, and what is told where they do not.

A conversation is about packets of four sorts. That its first packet passes is proved for every
one, as for any expectation. Of each group of them that one line decides alike a conversation is
played. For the connections that a helper predicts in it, it is proved that their first packets
pass between all ends of the group and to every port on which they may be waited for. All else is
of open connections, and passes with what opened them unless a rule bans it, which is played.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from policylang.analysis.conversation import staging
from policylang.analysis.conversation.advising import advice
from policylang.analysis.conversation.casting import NoCastError, cast
from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.conversation.telling import Teller, verdict_words
from policylang.analysis.conversation.tracking import ORIGINAL, Because
from policylang.analysis.diagram import Packets, Space
from policylang.analysis.expectations import proved
from policylang.analysis.following import Follower
from policylang.analysis.machine import Hook, Line
from policylang.analysis.modelled import machine_of
from policylang.analysis.naming import names_of
from policylang.analysis.proofs import FAILED, Play, Shown, shown_by
from policylang.analysis.questions import Beginnings, Piece
from policylang.analysis.reasons import fate_words, reason_words, statement_of
from policylang.analysis.surroundings import NOBODY
from policylang.analysis.wording import Names, packet_words
from policylang.diagnostics import Diagnostic, Label, Report
from policylang.ir.ruleset import AddressTest, Ruleset
from policylang.ir.stages import Path
from policylang.lower.asked import Asked, asking
from policylang.lower.expected import EPHEMERAL_PORTS, UNPRIVILEGED_PORTS
from policylang.model.expectations import PacketExpectation, SessionExpectation, Wanted
from policylang.model.policy import Policy
from policylang.packets.cube import Cube
from policylang.packets.fields import TCP, TCP_SYN, UDP, Field, State, with_flags
from policylang.packets.values import Ranges, name_range

SHOWN = 4  # packets of a story that a message shows, up to the one that died
MOST_GROUPS = 200  # of first packets that are decided alike, of which a conversation is played

_ENDS = (Field.FAMILY, Field.IIF, Field.OIF, Field.SADDR, Field.DADDR)
_TURNED = {
    Field.IIF: Field.OIF,
    Field.OIF: Field.IIF,
    Field.SADDR: Field.DADDR,
    Field.DADDR: Field.SADDR,
}
_PATHS = {Hook.INPUT: Path.INPUT, Hook.FORWARD: Path.FORWARD, Hook.OUTPUT: Path.OUTPUT}


def player(policy: Policy, ruleset: Ruleset) -> Play:
    """Who plays the sessions that tests of a policy expect."""
    return _Player(policy, ruleset).play


@dataclass(frozen=True, slots=True)
class _Failure:
    """What does not work: a conversation as it was played, or a connection in one.

    `line` decided what died; `packet` is that packet in words.
    """

    message: str
    packet: str
    line: Line | None
    help: tuple[str, ...]


class _Player:
    def __init__(self, policy: Policy, ruleset: Ruleset) -> None:
        self.policy = policy
        self.machine = machine_of(ruleset)
        self._beginnings: dict[tuple[AddressTest, ...], Beginnings] = {}
        self._followers: dict[tuple[AddressTest, ...], Follower] = {}

    def play(self, expectation: SessionExpectation) -> Shown:
        """Whether the conversations of an expectation work, and what is told if not."""
        asker = asking(self.policy, [expectation.asked], Report())
        asked = asker.asked(expectation.asked)
        names = names_of(self.policy, asker.tests, [expectation.asked])
        beginnings = self._of(asker.tests)
        failures: list[_Failure] = []
        unbegun: Shown | None = None
        for wanted in _wanted(expectation):
            meant = _narrowed(asked, wanted)
            first = PacketExpectation(
                Wanted.ALLOW, expectation.is_some, expectation.asked, None, expectation.span
            )
            proof = proved(first, meant, beginnings)
            if not proof.holds:
                unbegun = self._first_fails(expectation, shown_by(first, proof, names))
                if not expectation.is_some:
                    return unbegun
                continue
            found = self._of_groups(expectation, wanted, meant, beginnings, asker.tests, names)
            for failure in found:
                if failure is None and expectation.is_some:
                    return Shown(expectation, True)
                if failure is not None and not expectation.is_some:
                    return _shown(expectation, failure)
                if failure is not None:
                    failures.append(failure)
        if not expectation.is_some:
            return Shown(expectation, True)
        if failures:
            return _shown(expectation, failures[0])
        if unbegun is not None:
            return unbegun
        told = Diagnostic(FAILED, "no such session can be played", expectation.span)
        return Shown(expectation, False, told)

    def _of(self, tests: tuple[AddressTest, ...]) -> Beginnings:
        """What becomes of first packets, followed once for the same questions about addresses."""
        found = self._beginnings.get(tests)
        if found is None:
            found = self._beginnings[tests] = Beginnings(self.machine, tests, self.policy.zones)
        return found

    def _first_fails(self, expectation: SessionExpectation, shown: Shown) -> Shown:
        assert shown.failure is not None
        message = shown.failure.message
        if shown.packet is not None:  # else it is about nobody, and says so
            which = "no" if expectation.is_some else "not every"
            message = f"{which} session begins: {message}"
        failure = replace(shown.failure, message=message)
        return replace(shown, expectation=expectation, failure=failure)

    def _of_groups(
        self,
        expectation: SessionExpectation,
        wanted: staging.Wanted,
        asked: Asked,
        beginnings: Beginnings,
        tests: tuple[AddressTest, ...],
        names: Names,
    ) -> Iterator[_Failure | None]:
        """What does not work, or None, for each group of first packets that pass."""
        space = beginnings.space
        pieces = beginnings.pieces(asked).pieces
        for piece in pieces[:MOST_GROUPS]:
            packet = piece.packets.witness() if piece.fate.is_accepted else None
            if packet is None:
                continue
            story = self._played(expectation, wanted, packet, tests)
            if story is None:
                continue
            if story.died is not None:
                yield _of_story(story, expectation, names)
                continue
            is_broadcast = wanted.kind in staging.BROADCASTS  # whoever answers was not dialled
            yield (
                None
                if is_broadcast
                else self._predicted(expectation, story, piece, space, tests, names)
            )

    def _played(
        self,
        expectation: SessionExpectation,
        wanted: staging.Wanted,
        packet: dict[Field, int],
        tests: tuple[AddressTest, ...],
    ) -> Story | None:
        """The conversation that begins with a packet; None where nobody can have it."""
        path = Path.FORWARD
        if packet.get(Field.IIF, NOBODY) == NOBODY:
            path = Path.OUTPUT
        elif packet.get(Field.OIF, NOBODY) == NOBODY:
            path = Path.INPUT
        told = (*_ENDS, Field.L4PROTO, Field.DPORT, Field.ICMP_TYPE, Field.ICMPV6_TYPE)
        cube = Cube.of({f: Ranges.of(packet[f]) for f in told if f in packet})
        if path is Path.INPUT:
            cube = cube.without(Field.OIF)
        if path is Path.OUTPUT:
            cube = cube.without(Field.IIF)
        try:
            chosen = cast(
                self.policy.zones, path, cube, is_broadcast=wanted.kind in staging.BROADCASTS
            )
        except NoCastError:
            return None
        return staging.play(self.machine, chosen, wanted, expectation.asked, address_tests=tests)

    # --- what helpers predict -------------------------------------------------------------------

    def _predicted(
        self,
        expectation: SessionExpectation,
        story: Story,
        piece: Piece,
        space: Space,
        tests: tuple[AddressTest, ...],
        names: Names,
    ) -> _Failure | None:
        """Whether all connections that are predicted between the ends of a group pass."""
        follower = self._followers.get(tests)
        if follower is None:
            follower = Follower(self.machine, space, address_tests=tests)
            self._followers[tests] = follower
        for event in story.packets:
            if event.carried.tracked.because is not Because.EXPECTED:
                continue
            hook = next(h for h in event.carried.hooks if h in _PATHS)
            packets = self._all_predicted(expectation, event, hook, piece, space)
            reading = follower.hook(hook, packets)
            denied = space.must(reading.denied)
            packet = denied.witness() if denied else None
            if packet is None:
                continue
            line = next(
                (
                    met.line
                    for met, accepts in reading.decisions
                    if not accepts and met.packets.meets(denied)
                ),
                None,
            )
            what = packet_words(packet, names)
            fate = fate_words(line, is_accepted=False)
            return _Failure(
                f"not every {event.link} comes about: `{what}` is {fate}",
                what,
                line,
                (f"no statement decides: {reason_words(line, _PATHS[hook])}",)
                if statement_of(line) is None
                else (),
            )
        return None

    def _all_predicted(
        self,
        expectation: SessionExpectation,
        event: PacketEvent,
        hook: Hook,
        piece: Piece,
        space: Space,
    ) -> Packets:
        """First packets such as this one, between all ends of a group and to all ports."""
        connection = event.carried.tracked.connection
        assert connection is not None and connection.master is not None
        assert connection.expectation is not None and connection.master.helper is not None
        turned = connection.expectation.direction is not ORIGINAL
        terms = {
            Field.CT_STATE: Ranges.of(State.RELATED),
            Field.CT_HELPER: Ranges((name_range(connection.master.helper),)),
            Field.CT_DIRECTION: Ranges.of(ORIGINAL),
            Field.EXPECTED: Ranges.of(1),
            Field.L4PROTO: Ranges.of(event.wire.protocol),
        }
        if event.wire.protocol in (TCP, UDP):
            terms[Field.DPORT] = _ports(expectation, to_own_client=turned and hook is Hook.INPUT)
        if event.wire.protocol == TCP:
            terms[Field.TCP_FLAGS] = with_flags(0xFF, TCP_SYN)
        # A group may be a part of what the line decides: of one family, where a helper knows one.
        terms[Field.FAMILY] = space.values(piece.packets, Field.FAMILY)
        first = Cube.of(terms)
        decided = piece.packets if piece.fate.translated is None else piece.fate.decided
        return space.of_all(
            first & _ends(cube, turned=turned, hook=hook) for cube in decided.cubes()
        )


def _wanted(expectation: SessionExpectation) -> tuple[staging.Wanted, ...]:
    """What is to be played; a call over each transport where none is named."""
    if expectation.kind == "sip" and expectation.mode is None:
        return tuple(
            staging.Wanted("sip", "udp" if protocol == UDP else "tcp")
            for protocol in (UDP, TCP)
            if any(t.protocols is None or protocol in t.protocols for t in expectation.asked.what)
        )
    return (staging.Wanted(expectation.kind, expectation.mode),)


def _narrowed(asked: Asked, wanted: staging.Wanted) -> Asked:
    """The packets of a question by which such a conversation begins."""

    def narrowed(cubes: tuple[Cube, ...]) -> tuple[Cube, ...]:
        return tuple(c for cube in cubes if not (c := staging.narrowed(cube, wanted)).is_empty)

    return replace(
        asked,
        dialled={path: narrowed(cubes) for path, cubes in asked.dialled.items()},
        reached={path: narrowed(cubes) for path, cubes in asked.reached.items()},
        published=narrowed(asked.published),
    )


def _ports(expectation: SessionExpectation, *, to_own_client: bool) -> Ranges:
    """The ports on which a further connection may be waited for, as LANGUAGE.md has them."""
    of_traffic = next((t.data_ports for t in expectation.asked.what if t.data_ports), None)
    if of_traffic is not None:
        return of_traffic
    return EPHEMERAL_PORTS if to_own_client else UNPRIVILEGED_PORTS


def _ends(cube: Cube, *, turned: bool, hook: Hook) -> Cube:
    """Where packets of a cube come from and go to, or the other way round."""
    terms = {f: cube[f] for f in _ENDS if f in cube}
    if turned:
        terms = {_TURNED.get(f, f): values for f, values in terms.items()}
    if hook is Hook.INPUT:
        terms[Field.OIF] = Ranges.of(NOBODY)
    if hook is Hook.OUTPUT:
        terms[Field.IIF] = Ranges.of(NOBODY)
    return Cube.of(terms)


# --- what is told ---------------------------------------------------------------------------------


def _of_story(story: Story, expectation: SessionExpectation, names: Names) -> _Failure:
    died = story.died
    assert died is not None
    told = tuple(Teller(story, names).told())
    at = next(n for n, one in enumerate(told) if one.number == died.number)
    shown = [f"… {at + 1 - SHOWN} packets before"] if at >= SHOWN else []
    for one in told[max(at + 1 - SHOWN, 0) : at + 1]:
        fate = "" if one.passed else f": {one.decision}"
        shown.append(
            f"packet {one.number}, {one.sender} to {one.receiver}: {one.says} "
            f"({State(one.state).name}){fate}"
        )
    what = f"{told[at].says} of the {died.link}, {told[at].ends}"
    advised = tuple(advice(story, _question(expectation), _helper(expectation)))
    return _Failure(
        f"not every session works: packet {died.number}, {told[at].says} of the {died.link}, is "
        f"{verdict_words(died)}",
        what,
        None if died.decider is None else died.decider.line,
        (*shown, *advised),
    )


def _question(expectation: SessionExpectation) -> str:
    """The words of the expectation, as a rule would have them."""
    words = expectation.span.text.split()
    for word in ("expect", "some", "session"):
        if words[:1] == [word]:
            words = words[1:]
    if expectation.mode is not None and words[1:2] == [expectation.mode]:
        words = [words[0], *words[2:]]
    return " ".join(words)


def _helper(expectation: SessionExpectation) -> str | None:
    return expectation.kind if expectation.kind in staging.HELPED else None


def _shown(expectation: SessionExpectation, failure: _Failure) -> Shown:
    message = failure.message
    if expectation.is_some:
        message = message.replace("not every", "no", 1)
    origin = statement_of(failure.line)
    labels: tuple[Label, ...] = ()
    if origin is not None and origin.span is not None:
        labels = (Label(origin.span, "decided here"),)
    told = Diagnostic(FAILED, message, expectation.span, "\n".join(failure.help) or None, labels)
    return Shown(expectation, False, told, failure.packet, reason_words(failure.line))
