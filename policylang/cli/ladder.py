"""A conversation as a drawing: lifelines, an arrow a packet, and beside it what becomes of it.

The drawing is SVG 1.1 without scripts, fonts or links of its own; it follows the light or dark
look of whoever shows it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from policylang.analysis.conversation.advising import advice
from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.conversation.telling import STATES, Teller, Told, verdict_words
from policylang.analysis.conversation.tracking import Because
from policylang.analysis.conversation.wire import Wire
from policylang.analysis.walking import Verdict
from policylang.cli.visible import visible
from policylang.packets.fields import State
from policylang.packets.values import format_address, name_pattern

if TYPE_CHECKING:
    from policylang.analysis.wording import Names

Element = ElementTree.Element

# In pixels.
WIDTH = 1210
LADDER = (96, 664)  # where the first and the last lifeline stand
NOTES = 790  # where the notes begin
GUTTER = 34  # where the numbers stand
HEAD = 92  # from the top to the boxes of the lifelines
BOX = (164, 58)
PILL = 96  # wide enough for the longest state in any font
ROW = 40  # an arrow without notes
LINE = 16  # a line of the notes
SECTION = 40  # the name of a connection
LINK_LANES = (56, 8, 40)  # the outermost lane of a link, the way to the next, the last one
NOTE_COLUMNS = 58  # characters of a line of the notes
LABEL_CHARACTER = 7.3  # how wide a character of the labels is
SMALL_CHARACTER = 6.1

STYLE = """
.paper { fill: #ffffff }
.title { font: 600 20px system-ui, sans-serif; fill: #111827 }
.sub { font: 13px system-ui, sans-serif; fill: #4b5563 }
.box { fill: #f3f4f6; stroke: #9ca3af }
.wall { fill: #fff7ed; stroke: #ea580c }
.host { font: 600 14px system-ui, sans-serif; fill: #111827; text-anchor: middle }
.address { font: 12px ui-monospace, monospace; fill: #4b5563; text-anchor: middle }
.life { stroke: #cbd5e1; stroke-width: 1.5; stroke-dasharray: 2 4 }
.section { font: 600 13px system-ui, sans-serif; fill: #374151 }
.rule { stroke: #e5e7eb }
.number { font: 12px ui-monospace, monospace; fill: #6b7280; text-anchor: end }
.label { font: 12px ui-monospace, monospace; fill: #111827; text-anchor: middle;
  paint-order: stroke; stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round }
.small { font: 10px ui-monospace, monospace; fill: #6b7280; text-anchor: middle;
  paint-order: stroke; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round }
.note { font: 12px system-ui, sans-serif; fill: #374151 }
.decision { font: 12px system-ui, sans-serif; fill: #111827; font-weight: 600 }
.bad { font: 600 12px system-ui, sans-serif; fill: #b91c1c }
.pill { font: 600 10px system-ui, sans-serif; fill: #ffffff; text-anchor: middle }
.arrow { fill: none; stroke-width: 1.8 }
.cross { stroke: #b91c1c; stroke-width: 2.6; stroke-linecap: round }
.dot { fill: #ffffff; stroke-width: 1.8 }
.new { stroke: #b45309 } .fill-new { fill: #b45309 }
.established { stroke: #15803d } .fill-established { fill: #15803d }
.related { stroke: #7c3aed } .fill-related { fill: #7c3aed }
.invalid { stroke: #b91c1c } .fill-invalid { fill: #b91c1c }
.untracked { stroke: #0e7490 } .fill-untracked { fill: #0e7490 }
.link { fill: none; stroke: #7c3aed; stroke-width: 1.4; stroke-dasharray: 4 3 }
.works { fill: #f0fdf4; stroke: #15803d } .works-text { fill: #15803d }
.fails { fill: #fef2f2; stroke: #b91c1c } .fails-text { fill: #b91c1c }
.outcome { font: 600 14px system-ui, sans-serif }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0f172a }
  .title, .host, .label, .decision { fill: #f1f5f9 }
  .sub, .address, .note { fill: #cbd5e1 }
  .section { fill: #e2e8f0 } .number, .small { fill: #94a3b8 }
  .box { fill: #1e293b; stroke: #64748b } .wall { fill: #2a1a0c; stroke: #fb923c }
  .life { stroke: #475569 } .rule { stroke: #334155 }
  .label, .small { stroke: #0f172a } .dot { fill: #0f172a } .pill { fill: #0f172a }
  .bad { fill: #fca5a5 } .cross { stroke: #fca5a5 }
  .new { stroke: #fbbf24 } .fill-new { fill: #fbbf24 }
  .established { stroke: #4ade80 } .fill-established { fill: #4ade80 }
  .related { stroke: #c4b5fd } .fill-related { fill: #c4b5fd }
  .invalid { stroke: #fca5a5 } .fill-invalid { fill: #fca5a5 }
  .untracked { stroke: #67e8f9 } .fill-untracked { fill: #67e8f9 }
  .link { stroke: #c4b5fd }
  .works { fill: #052e16; stroke: #4ade80 } .works-text { fill: #4ade80 }
  .fails { fill: #450a0a; stroke: #fca5a5 } .fails-text { fill: #fca5a5 }
}
"""


def drawn(
    story: Story, title: str, names: Names, *, policy: str, asked: str, helper: str | None
) -> str:
    """The story as an SVG document."""
    drawing = _Drawing(story, title, names, policy, tuple(advice(story, asked, helper)))
    return drawing.text()


@dataclass(frozen=True, slots=True)
class _Row:
    """A packet's place: `y` is where its arrow is."""

    event: PacketEvent
    told: Told
    y: float


class _Drawing:
    def __init__(
        self, story: Story, title: str, names: Names, policy: str, sentences: tuple[str, ...]
    ) -> None:
        self.story = story
        self.title = title
        self.policy = policy
        self.sentences = sentences
        self.told = tuple(Teller(story, names).told())
        self.hosts = story.hosts
        first, last = LADDER
        steps = max(len(self.hosts) - 1, 1)
        gap = (last - first) / steps
        self.x = {host.name: first + gap * n for n, host in enumerate(self.hosts)}
        self.root = ElementTree.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"}
        )
        self.rows: list[_Row] = []

    def text(self) -> str:
        """The whole document."""
        ElementTree.SubElement(self.root, "title").text = visible(self.title)
        ElementTree.SubElement(self.root, "style").text = STYLE
        paper = self._add("rect", "paper", x=0, y=0, width=WIDTH)
        lives = ElementTree.SubElement(self.root, "g")
        self._header()
        bottom = self._packets(HEAD + BOX[1] + 18)
        for host in self.hosts:
            line = {"x1": self.x[host.name], "y1": HEAD + BOX[1], "y2": bottom}
            _set(
                ElementTree.SubElement(lives, "line", {"class": "life"}),
                {**line, "x2": self.x[host.name]},
            )
        self._links()
        bottom = self._footer(bottom + 24)
        _set(paper, {"height": bottom})
        _set(self.root, {"width": WIDTH, "height": bottom})
        self.root.set("viewBox", f"0 0 {WIDTH} {_number(bottom)}")
        ElementTree.indent(self.root, " ")
        body = ElementTree.tostring(self.root, encoding="unicode")
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'

    # --- above ----------------------------------------------------------------------------------

    def _header(self) -> None:
        self._text(24, 36, "title", self.title)
        self._text(24, 58, "sub", f"what {self.policy} makes of it, packet by packet")
        width, height = BOX
        for host in self.hosts:
            x = self.x[host.name]
            kind = "wall" if host.is_firewall else "box"
            self._add("rect", kind, x=x - width / 2, y=HEAD, width=width, height=height, rx=8)
            self._text(x, HEAD + 19, "host", host.name)
            self._text(x, HEAD + 35, "address", _fitting(format_address(host.address), 22))
            where = "the firewall"
            if not host.is_firewall:
                where = f"behind {name_pattern(host.interface, host.interface)}"
            self._text(x, HEAD + 50, "address", _fitting(where, 22))

    # --- packets ----------------------------------------------------------------------------------

    def _packets(self, y: float) -> float:
        link = ""
        for event, told in zip(self.story.packets, self.told, strict=True):
            if event.link != link:
                link = event.link
                y += SECTION
                self._text(LADDER[0] + 12, y - 14, "section", link)
                self._add("line", "rule", x1=GUTTER + 10, x2=WIDTH - 24, y1=y - 6, y2=y - 6)
            notes = list(_notes(told))
            height = max(ROW, LINE * len(notes) + 18)
            row = _Row(event, told, y + 24)
            self.rows.append(row)
            self._arrow(row)
            self._notes(row, notes)
            y += height
        return y + 8

    def _arrow(self, row: _Row) -> None:
        event, told, y = row.event, row.told, row.y
        state = State(told.state).name.lower()
        self._text(GUTTER, y + 4, "number", str(told.number))
        start, end = self.x[event.sender.name], self.x[event.receiver.name]
        wall = next((self.x[h.name] for h in self.hosts if h.is_firewall), end)
        passes_through = wall not in (start, end)
        stop = end
        if not event.passed:
            stop = wall if passes_through or event.receiver.is_firewall else start
            stop = stop + 46 if stop == start and end > start else stop
            stop = stop - 46 if stop == start and end < start else stop
        self._add("line", f"arrow {state}", x1=start, y1=y, x2=stop, y2=y)
        direction = 1 if end > start else -1
        if event.passed:
            tip = f"M{stop - 9 * direction} {y - 5} L{stop} {y} L{stop - 9 * direction} {y + 5} Z"
            self._add("path", f"fill-{state}", d=tip)
        else:
            for slope in (-1, 1):
                self._add(
                    "line", "cross", x1=stop - 6, x2=stop + 6, y1=y - 6 * slope, y2=y + 6 * slope
                )
        if passes_through and event.passed:
            _set(self._add("circle", f"dot {state}", cx=wall, cy=y), {"r": 4})
        self._labels(row, start, end, wall if passes_through else None)

    def _labels(self, row: _Row, start: float, end: float, wall: float | None) -> None:
        event, y = row.event, row.y
        room = int(abs(end - start) / LABEL_CHARACTER) - 3
        middle = (start + end) / 2
        if not event.passed and wall is not None:
            middle, room = (start + wall) / 2, int(abs(wall - start) / LABEL_CHARACTER) - 3
        element = self._text(middle, y - 7, "label", _fitting(row.told.says, room))
        if len(row.told.says) > room:
            ElementTree.SubElement(element, "title").text = visible(row.told.says)
        if wall is None:
            self._ends(middle, y, event.wire, abs(end - start))
            return
        self._ends((start + wall) / 2, y, event.wire, abs(wall - start))
        if event.passed:
            changed = _ends(event.carried.last) != _ends(event.wire)
            if changed:
                self._ends((wall + end) / 2, y, event.carried.last, abs(end - wall))

    def _ends(self, x: float, y: float, wire: Wire, room: float) -> None:
        text = _ends(wire)
        if len(text) * SMALL_CHARACTER > room - 24:
            text = " → ".join(f":{port}" for port in wire.ports) if wire.ports else ""
        self._text(x, y + 13, "small", text)

    def _notes(self, row: _Row, notes: list[tuple[str, str]]) -> None:
        state = State(row.told.state)
        self._pill(NOTES - 108, row.y - 9, state)
        y = row.y + 4
        for style, text in notes:
            self._text(NOTES, y, style, text)
            y += LINE

    def _pill(self, x: float, y: float, state: State) -> None:
        name = state.name.lower()
        self._add("rect", f"fill-{name}", x=x, y=y, width=PILL, height=18, rx=9)
        self._text(x + PILL / 2, y + 12.5, "pill", state.name)

    def _links(self) -> None:
        """From each announcement to the packets that it announced."""
        by_number = {row.event.number: row for row in self.rows}
        edge = LADDER[0] - 6
        lane, step, last = LINK_LANES
        for row in self.rows:
            tracked = row.event.carried.tracked
            if tracked.because is not Because.EXPECTED or tracked.related not in by_number:
                continue
            y1, y2 = by_number[tracked.related].y, row.y
            path = f"M{edge} {y1} C{lane} {y1} {lane} {y1} {lane} {y1 + 24}"
            path += f" L{lane} {y2 - 24} C{lane} {y2} {lane} {y2} {edge - 6} {y2}"
            self._add("path", "link", d=path)
            tip = f"M{edge - 8} {y2 - 4} L{edge} {y2} L{edge - 8} {y2 + 4} Z"
            self._add("path", "fill-related", d=tip)
            lane = max(lane - step, last)

    # --- below ----------------------------------------------------------------------------------

    def _footer(self, y: float) -> float:
        died = self.story.died
        kind = "works" if died is None else "fails"
        if died is None:
            packets = len(self.story.packets)
            what = "1 packet passes" if packets == 1 else f"{packets} packets pass"
            outcome = f"It works: {what}."
        else:
            outcome = f"It does not work: packet {died.number} is {_fate(died)}."
        lines = [line for one in self.sentences for line in _wrapped(one, 160)]
        height = 40 + LINE * len(lines) + (8 if lines else 0)
        self._add("rect", kind, x=24, y=y, width=WIDTH - 48, height=height, rx=8)
        self._text(40, y + 25, f"outcome {kind}-text", outcome)
        for number, line in enumerate(lines):
            self._text(40, y + 46 + LINE * number, "note", line)
        y += height + 26
        met = {told.state for told in self.told}
        for state, meaning in STATES.items():
            if state in met:
                self._pill(24, y - 9, state)
                for line in _wrapped(meaning, 150):
                    self._text(136, y + 4, "note", line)
                    y += LINE
                y += 8
        if any(row.event.carried.tracked.because is Because.EXPECTED for row in self.rows):
            self._add("line", "link", x1=24, x2=120, y1=y, y2=y)
            self._text(
                136, y + 4, "note", "from an announcement to the connection that it announced"
            )
            y += LINE + 8
        return y + 8

    # --- elements -------------------------------------------------------------------------------

    def _add(self, tag: str, style: str, **attributes: float | str) -> Element:
        element = ElementTree.SubElement(self.root, tag, {"class": style})
        _set(element, attributes)
        return element

    def _text(self, x: float, y: float, style: str, text: str) -> Element:
        element = self._add("text", style, x=x, y=y)
        element.text = visible(text)
        return element


def _notes(told: Told) -> Iterator[tuple[str, str]]:
    """What stands beside a packet, as lines with their style."""
    if told.is_routine:
        yield "note", told.why
        return
    for sentence in (told.why, *told.facts):
        for line in _wrapped(sentence, NOTE_COLUMNS):
            yield "note", line
    for line in _wrapped(told.decision, NOTE_COLUMNS - 8):
        yield ("decision" if told.passed else "bad"), line


def _wrapped(text: str, columns: int) -> list[str]:
    return textwrap.wrap(visible(text), columns, break_on_hyphens=False)


def _fate(died: PacketEvent) -> str:
    return verdict_words(died) if died.carried.verdict is not Verdict.PASSES else "lost"


def _ends(wire: Wire) -> str:
    source, destination = format_address(wire.source), format_address(wire.destination)
    if wire.ports is None or wire.family == 6:
        return f"{source} → {destination}"
    return f"{source}:{wire.ports[0]} → {destination}:{wire.ports[1]}"


def _fitting(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"


def _set(element: Element, attributes: Mapping[str, float | str]) -> None:
    for name, value in attributes.items():
        element.set(name, value if isinstance(value, str) else _number(value))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
