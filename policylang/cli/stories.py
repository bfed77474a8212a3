"""A conversation as text for a terminal, and as JSON; what happened in it is not decided here."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from policylang.analysis.conversation.advising import advice
from policylang.analysis.conversation.story import PacketEvent, Remark
from policylang.analysis.conversation.telling import STATES, Told, passages_words
from policylang.analysis.conversation.telling import Teller as StoryTeller
from policylang.analysis.conversation.wire import PROTOCOL_NAMES
from policylang.analysis.reasons import statement_of
from policylang.cli.render import json_place
from policylang.cli.visible import visible
from policylang.packets.fields import State
from policylang.packets.values import format_address, name_pattern

if TYPE_CHECKING:
    from policylang.cli.tracing import Traced

WIDTH = 100
INDENT = " " * 6

# Select graphic rendition (ECMA-48).
COLORS = {
    State.NEW: "33",
    State.ESTABLISHED: "32",
    State.RELATED: "35",
    State.INVALID: "31",
    State.UNTRACKED: "36",
}
BOLD, DIM, GOOD, BAD = "1", "2", "1;32", "1;31"


def as_text(traced: Traced, *, color: bool, is_verbose: bool) -> str:
    """The story for people, in 100 columns."""
    writer = _Writer(traced, color=color, is_verbose=is_verbose)
    return "\n".join(writer.lines()) + "\n"


class _Writer:
    def __init__(self, traced: Traced, *, color: bool, is_verbose: bool) -> None:
        self.traced = traced
        self.story = traced.story
        self.color = color
        self.is_verbose = is_verbose
        self.link = ""
        self.order = {host.name: n for n, host in enumerate(self.story.hosts)}
        self.names = max(len(host.name) for host in self.story.hosts)

    def lines(self) -> Iterator[str]:
        from policylang.cli.tracing import title_of

        yield self._paint(f"{visible(title_of(self.traced))}", BOLD)
        yield from self._hosts()
        told = {one.number: one for one in StoryTeller(self.story, self.traced.names).told()}
        for event in self.story.events:
            if isinstance(event, Remark):
                yield from self._wrapped(event.text)
            else:
                yield from self._packet(event, told[event.number])
        yield ""
        yield from self._states()
        yield ""
        yield from self._end()

    def _hosts(self) -> Iterator[str]:
        for host in self.story.hosts:
            where = "this is the firewall"
            if not host.is_firewall:
                name = name_pattern(host.interface, host.interface)
                where = f"behind {visible(name or '?')}"
            yield f"  {host.name:<{self.names}}  {format_address(host.address):<24}  {where}"

    # --- packets ----------------------------------------------------------------------------------

    def _packet(self, event: PacketEvent, told: Told) -> Iterator[str]:
        if event.link != self.link:
            self.link = event.link
            yield ""
            yield self._paint(event.link, BOLD)
        left, right = event.sender.name, event.receiver.name
        arrow = "→"
        if self.order.get(left, 0) > self.order.get(right, 0):
            left, right, arrow = right, left, "←"
        state = State(told.state).name
        head = f"{told.number:>3}  {left:<{self.names}} {arrow} {right:<{self.names}}  "
        room = WIDTH - len(head) - 13
        says = _cut(visible(told.says), room)
        mark = "" if told.passed else "✗ "
        room_of_state = self._paint(f"{state:<11}", COLORS[told.state])
        yield f"{head}{mark}{says:<{room - len(mark)}}  {room_of_state}".rstrip()
        if told.is_routine and not self.is_verbose:
            return
        yield from self._wrapped(f"{told.protocol} {told.ends}", DIM)
        yield from self._wrapped(f"{state}: {told.why}")
        for fact in told.facts:
            yield from self._wrapped(fact)
        yield from self._wrapped(told.decision, None if told.passed else BAD)
        if self.is_verbose:
            for hook, words in passages_words(event, self.traced.names):
                yield from self._wrapped(f"{hook:<12} {words}", DIM, hanging=13)

    def _wrapped(self, text: str, style: str | None = None, *, hanging: int = 2) -> Iterator[str]:
        lines = textwrap.wrap(
            visible(text),
            WIDTH,
            initial_indent=INDENT,
            subsequent_indent=INDENT + " " * hanging,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines:
            yield line if style is None else self._paint(line, style)

    # --- the end --------------------------------------------------------------------------------

    def _states(self) -> Iterator[str]:
        """What the states that occurred mean."""
        met = {event.carried.tracked.state for event in self.story.packets}
        for state, meaning in STATES.items():
            if state in met:
                name = self._paint(f"{state.name:<12}", COLORS[state])
                first, *more = textwrap.wrap(meaning, WIDTH - 14)
                yield f"{name}  {first}"
                yield from (" " * 14 + line for line in more)

    def _end(self) -> Iterator[str]:
        packets = len(self.story.packets)
        if self.story.died is None:
            what = "1 packet passes" if packets == 1 else f"{packets} packets pass"
            yield self._paint(f"It works: {what}.", GOOD)
        else:
            died = self.story.died
            yield self._paint(f"It does not work: packet {died.number} does not pass.", BAD)
            for sentence in advice(self.story, self.traced.words.question, self.traced.helper):
                yield from textwrap.wrap(
                    f"- {visible(sentence)}", WIDTH, subsequent_indent="  ", break_long_words=False
                )
        if self.traced.others:
            others = " and ".join(self.traced.others)
            yield f"The same words are also about {others} packets: name both ends to see those."
        doubts = tuple(dict.fromkeys(doubt.about for doubt in self.story.doubts))
        if doubts:
            yield from textwrap.wrap(
                "Not all of the rules are understood, so it may go otherwise: "
                + "; ".join(f"`{visible(text)}`" for text in doubts[:5]),
                WIDTH,
            )

    def _paint(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self.color and text.strip() else text


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"


# --- for programs ---------------------------------------------------------------------------------


def as_json(traced: Traced) -> dict[str, object]:
    """The value that `--format json` prints; its keys are stable.

    `version` is 1. `asked` is the question, `works` whether all of it passes, `certain` is false
    where something in the rules is not understood; `other_ways` are further paths (`inbound`,
    `forwarded`, `outbound`) that packets of the same words may take. `hosts` are objects with
    `name`, `address` and `interface` (null of the firewall itself). `packets` are objects with
    `number`, `from` and `to` (names of hosts), `connection` (what it is for), `protocol`, `says`,
    `source` and `destination` (each with `address` and `port`, null where there is none),
    `arrives_as` (the same two, null where it does not arrive), `state` (`new`, `established`,
    `related`, `invalid`, `untracked`), `reason` (a key of few words) and `why` (a sentence),
    `related_packet` (the number that it speaks of, or null), `helper_set` (a name or null),
    `expects` (objects with `protocol`, `source`, `source_port`, `destination` and `port`; null
    where any will do), `facts` (sentences), `verdict` (`passes`, `dropped`, `rejected`),
    `decided_by` (`text` and the five of a place) and `lines` (objects with `hook`, `chain`, `place`
    and `text`: all that it met).
    `advice` are sentences on what would have to be said for it to work.
    """
    told = StoryTeller(traced.story, traced.names).told()
    return {
        "version": 1,
        "policy": traced.policy,
        "asked": traced.words.question,
        "mode": traced.words.mode,
        "works": traced.story.works,
        "certain": not traced.story.doubts,
        "other_ways": list(traced.others),
        "hosts": [
            {
                "name": host.name,
                "address": format_address(host.address),
                "interface": None
                if host.is_firewall
                else name_pattern(host.interface, host.interface),
            }
            for host in traced.story.hosts
        ],
        "packets": [
            _packet_as_json(event, one)
            for event, one in zip(traced.story.packets, told, strict=True)
        ],
        "advice": list(advice(traced.story, traced.words.question, traced.helper)),
    }


def _packet_as_json(event: PacketEvent, told: Told) -> dict[str, object]:
    from policylang.analysis.conversation.telling import met_words

    tracked = event.carried.tracked
    origin = None if event.decider is None else statement_of(event.decider.line)
    span = None if origin is None else origin.span
    return {
        "number": event.number,
        "from": event.sender.name,
        "to": event.receiver.name,
        "connection": event.link,
        "protocol": told.protocol,
        "says": told.says,
        **_ends_as_json(event.wire.source, event.wire.destination, event.wire.ports),
        "arrives_as": None
        if event.arrived is None
        else _ends_as_json(event.arrived.source, event.arrived.destination, event.arrived.ports),
        "state": State(told.state).name.lower(),
        "reason": tracked.because.value,
        "why": told.why,
        "related_packet": tracked.related,
        "helper_set": event.carried.assigned,
        "expects": [
            {
                "protocol": PROTOCOL_NAMES.get(one.protocol, str(one.protocol)),
                "source": None if one.source is None else format_address(one.source),
                "source_port": one.source_port,
                "destination": format_address(one.destination),
                "port": one.destination_port,
            }
            for one in event.carried.reading.expects
        ],
        "facts": list(told.facts),
        "verdict": event.carried.verdict.value,
        "decided_by": {"text": told.decision, **json_place(span)},
        "lines": [
            {
                "hook": passage.base.hook.value,
                "chain": met.chain,
                "place": met.line.place,
                "text": met_words(met),
            }
            for passage in event.carried.passages
            for met in passage.met
        ],
    }


def _ends_as_json(
    source: int, destination: int, ports: tuple[int, int] | None
) -> dict[str, object]:
    first, second = (None, None) if ports is None else ports
    return {
        "source": {"address": format_address(source), "port": first},
        "destination": {"address": format_address(destination), "port": second},
    }
