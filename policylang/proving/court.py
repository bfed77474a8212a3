"""Throws the packets of claims at rules that are loaded, and judges what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from policylang.ir.stages import Path
from policylang.model.expectations import PacketExpectation, Wanted
from policylang.model.types import Answer, RejectWith
from policylang.packets.fields import (
    TCP,
    UDP,
    AddressType,
    Field,
)
from policylang.packets.values import format_address
from policylang.proving.claims import Claim, Tried
from policylang.proving.frames import Probe
from policylang.proving.ground import Ground
from policylang.proving.picking import Picked
from policylang.proving.throwing import Fate, Thrower
from policylang.proving.volleys import volleys

MOST_AGAIN = 6  # packets of an expectation that are tried again by themselves

# The codes of "destination unreachable", of IPv4 (RFC 792, RFC 1812) and IPv6 (RFC 4443).
CODES = {
    Answer.PORT_UNREACHABLE: {4: 3, 6: 4},
    Answer.HOST_UNREACHABLE: {4: 1, 6: 3},
    Answer.NET_UNREACHABLE: {4: 0, 6: 0},
    Answer.ADMIN_PROHIBITED: {4: 13, 6: 1},
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found: None as `wrong` where all is as expected, else the packet and its fate.

    `count` are the packets that were what the expectation is about.
    """

    count: int
    wrong: tuple[Tried, Fate] | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Court:
    """Throws packets at rules that are loaded; `renew` loads them as if for the first time.

    `fill` puts addresses into dynamic sets, by the number of the test that asks for the set.
    """

    thrower: Thrower
    renew: Callable[[], None]
    fill: Callable[[Mapping[int, frozenset[int]]], None]
    has_memory: bool

    @property
    def ground(self) -> Ground:
        return self.thrower.ground

    def judge(self, of_all: Sequence[tuple[PacketExpectation, Claim]]) -> list[Verdict]:
        """What becomes of the packets of each claim."""
        fates = self._fates_of([claim for _, claim in of_all])
        pairs = zip(of_all, fates, strict=True)
        return [self._judged(expectation, claim, some) for (expectation, claim), some in pairs]

    def about(self, of_all: Sequence[Claim]) -> list[list[tuple[Tried, Fate]]]:
        """Of each claim the packets that are what is expected, and what becomes of them."""
        pairs = zip(of_all, self._fates_of(of_all), strict=True)
        return [_about(claim, fates) for claim, fates in pairs]

    def sure(self, some: Sequence[tuple[Tried, Fate]]) -> list[tuple[Tried, Fate]]:
        """The same, those that seem to be denied thrown once more: a lost frame is no verdict."""
        return [(one, fate if fate.passed else self._once_more(one)) for one, fate in some]

    def _once_more(self, tried: Tried) -> Fate:
        if self.has_memory:
            self.renew()
        (fate,) = self.fates([tried.picked])
        return fate

    def _fates_of(self, of_all: Sequence[Claim]) -> list[list[Fate]]:
        """The fates of the packets of claims, which are thrown together where that may be."""
        if self.has_memory:  # what came before must not have used a rate up
            apart = []
            for claim in of_all:
                self.renew()
                apart.append(self.fates([one.picked for one in claim.tried]))
            return apart
        fates = iter(self.fates([one.picked for claim in of_all for one in claim.tried]))
        return [[next(fates) for _ in claim.tried] for claim in of_all]

    def _judged(
        self, expectation: PacketExpectation, claim: Claim, fates: Sequence[Fate]
    ) -> Verdict:
        about = _about(claim, fates)
        wrong = [one for one in about if not is_as_wanted(expectation, *one)]
        as_wanted = Verdict(len(about), None, claim.notes)
        if expectation.is_some and len(wrong) < len(about):
            return as_wanted
        kept: list[tuple[Tried, Fate]] = []
        # What a rule counts or remembers, or a lost frame, is no verdict: once more, and alone.
        for tried, _ in _spread(wrong, MOST_AGAIN):
            fate = self._alone(expectation, tried)
            if fate is None:
                if expectation.is_some:
                    return as_wanted
                continue
            kept.append((tried, fate))
            if not expectation.is_some:
                break
        if kept:
            return replace(as_wanted, wrong=kept[0])
        if wrong:
            crowd = f"{len(wrong)} of the packets passed otherwise where many came"
            return replace(as_wanted, notes=(*claim.notes, crowd))
        return as_wanted

    def _alone(self, expectation: PacketExpectation, tried: Tried) -> Fate | None:
        """What becomes of a packet by itself; None where that is what is wanted."""
        fate = self._once_more(tried)
        return None if is_as_wanted(expectation, tried, fate) else fate

    def fates(self, picked: Sequence[Picked]) -> list[Fate]:
        """What becomes of packets that are thrown together."""
        made, places = volleys(picked)
        found: list[dict[int, Fate]] = []
        for volley in made:
            self.ground.place(volley.roles)
            self.fill(members_by_test(volley.members))
            self.thrower.forget()
            marks = {s: one.probe.mark for s, one in volley.probes.items() if one.probe.mark}
            self.thrower.mark(marks)
            probes = {serial: one.probe for serial, one in volley.probes.items()}
            found.append(self.thrower.throw(probes))
        return [found[at][serial] for at, serial in places]


def _about(claim: Claim, fates: Sequence[Fate]) -> list[tuple[Tried, Fate]]:
    """The packets of a claim that are in fact what is expected, as their fates show."""
    pairs = zip(claim.tried, fates, strict=True)
    return [(tried, fate) for tried, fate in pairs if tried.counts(fate)]


def members_by_test(members: Mapping[tuple[int, int], bool]) -> dict[int, frozenset[int]]:
    """The addresses that are in sets, by the number of the test, of what is by address and test."""
    held: dict[int, set[int]] = {}
    for (address, number), is_held in members.items():
        inside = held.setdefault(number, set())
        if is_held:
            inside.add(address)
    return {number: frozenset(inside) for number, inside in held.items()}


def _spread(wrong: Sequence[tuple[Tried, Fate]], most: int) -> Iterator[tuple[Tried, Fate]]:
    step = max(1, len(wrong) // most)
    yield from wrong[::step][:most]


def is_as_wanted(expectation: PacketExpectation, tried: Tried, fate: Fate) -> bool:
    """Whether that is what is to become of a packet."""
    match expectation.wanted:
        case Wanted.ALLOW:
            return fate.passed
        case Wanted.DENY:
            return not fate.passed
        case Wanted.DROP:
            return not fate.passed and fate.answer is None
        case Wanted.REJECT:
            if fate.passed:
                return False
            if fate.answer is None:
                return not _must_be_answered(tried)
            return _is_answer(expectation.answer, tried, fate.answer)


def _must_be_answered(tried: Tried) -> bool:
    """Whether the kernel answers a packet that is rejected (RFC 1122 section 3.2.2, RFC 4443 2.4).

    What this host sends itself is answered within it.
    """
    probe = tried.picked.probe
    return (
        tried.picked.path is not Path.OUTPUT
        and probe.protocol in (TCP, UDP)
        and tried.packet[Field.DADDR_TYPE] in (AddressType.UNICAST, AddressType.LOCAL)
        and tried.packet[Field.SADDR_TYPE] == AddressType.UNICAST
    )


def _is_answer(wanted: RejectWith | None, tried: Tried, answer: tuple[int, ...]) -> bool:
    if wanted is None:
        return True
    probe = tried.picked.probe
    due = wanted.tcp if probe.protocol == TCP else wanted.other
    if due is Answer.TCP_RESET:
        return answer == ()
    return len(answer) == 2 and answer[1] == CODES[due][probe.family]


def fate_words(fate: Fate, probe: Probe) -> str:
    """What became of a packet, as the end of a sentence."""
    family = probe.family
    if fate.passed and fate.seen is not None and fate.seen.destination != probe.destination:
        return f"it was sent on to {format_address(fate.seen.destination)}, out by `{fate.where}`"
    if fate.passed:
        return "it was let in" if fate.where is None else f"it passed, out by `{fate.where}`"
    if fate.answer is None:
        return "it was dropped"
    if fate.answer == ():
        return f"it was rejected with {Answer.TCP_RESET}"
    codes = (a for a, of_family in CODES.items() if of_family[family] == fate.answer[1])
    return f"it was rejected with {next(codes, 'an ICMP error')}"
