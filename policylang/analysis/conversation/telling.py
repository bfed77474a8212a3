"""A story in words: what each packet says, which state it has and why, and who decided.

It knows nothing of terminals, colours or drawings; sentences have no line ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from policylang.analysis.completing import PORTED
from policylang.analysis.conversation.firewall import Translated
from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.conversation.tracking import Because, Expectation
from policylang.analysis.conversation.wire import PROTOCOL_NAMES, Wire
from policylang.analysis.machine import Condition, Hook
from policylang.analysis.reasons import act_words, conditions_words, reason_words, statement_of
from policylang.analysis.walking import Met, Passage, Verdict
from policylang.analysis.wording import ICMP_TYPES, NO_NAMES, Names
from policylang.ir import actions as ir
from policylang.ir.origin import Why
from policylang.ir.stages import Path
from policylang.packets.fields import (
    ICMP,
    TCP,
    TCP_ACK,
    TCP_FIN,
    TCP_PSH,
    TCP_RST,
    TCP_SYN,
    TCP_URG,
    UDP,
    Field,
    State,
)
from policylang.packets.values import V6_BASE, format_address

FLAGS = {
    TCP_SYN: "SYN",
    TCP_FIN: "FIN",
    TCP_RST: "RST",
    TCP_PSH: "PSH",
    TCP_ACK: "ACK",
    TCP_URG: "URG",
}

# What the states mean, for those who have not met them.
STATES = {
    State.NEW: "begins a connection, or asks once more where nothing answered; the rules decide",
    State.ESTABLISHED: "belongs to a connection that was let in and answered: it passes unasked",
    State.RELATED: "opens a connection that an open one announced to a helper, or tells an error "
    "about one; passes where a statement asked for the helper",
    State.INVALID: "fits no connection and can begin none",
    State.UNTRACKED: "conntrack leaves it alone: each packet is judged by itself",
}

_PATHS = {Hook.INPUT: Path.INPUT, Hook.FORWARD: Path.FORWARD, Hook.OUTPUT: Path.OUTPUT}

# What of the language lets packets pass, where no statement of its own does.
_PASSES_BY = {
    Why.IMPLIED_REPLY: "what belongs to an open connection passes",
    Why.ICMP_ERROR: "ICMP errors about a connection pass",
    Why.REJECT_ANSWER: "the answers of `reject` pass",
    Why.LOOPBACK: "what goes over the loopback interface passes",
}


@dataclass(frozen=True, slots=True)
class Told:
    """One packet in words.

    `says` is what it carries, `ends` from where to where it goes, `protocol` its name. `why` is
    the reason for its state, `facts` what else comes of it, `decision` who let it pass or not.
    With `is_routine` nothing about it is new to who has read so far.
    """

    number: int
    sender: str
    receiver: str
    link: str
    protocol: str
    says: str
    ends: str
    state: State
    why: str
    facts: tuple[str, ...]
    decision: str
    passed: bool
    is_routine: bool


class Teller:
    """Tells the packets of one story, in order; what was explained once is said briefly then."""

    def __init__(self, story: Story, names: Names = NO_NAMES) -> None:
        self.story = story
        self.names = names
        self.explained: set[tuple[int, Because]] = set()
        self.announced: dict[int, str] = {}  # by packet: what it said
        self.opened: dict[int, int] = {}

    def told(self) -> Iterator[Told]:
        """Each packet in turn."""
        for event in self.story.packets:
            yield self._told(event)

    def _told(self, event: PacketEvent) -> Told:
        tracked = event.carried.tracked
        says = says_words(event.wire)
        self.announced[event.number] = says
        connection = tracked.connection
        key = (0 if connection is None else connection.number, tracked.because)
        is_known = key in self.explained
        self.explained.add(key)
        facts = tuple(self._facts(event, is_known=is_known))
        return Told(
            event.number,
            event.sender.name,
            event.receiver.name,
            event.link,
            PROTOCOL_NAMES.get(event.wire.protocol, str(event.wire.protocol)),
            says,
            ends_words(event.wire),
            tracked.state,
            self._why(event, is_known=is_known),
            facts,
            decision_words(event, self.names),
            event.passed,
            is_known and not facts and event.passed and tracked.state is State.ESTABLISHED,
        )

    # --- why it has its state -------------------------------------------------------------------

    def _why(self, event: PacketEvent, *, is_known: bool) -> str:
        tracked = event.carried.tracked
        related = tracked.related
        match tracked.because:
            case Because.OPENS:
                return "no connection of these ends is known: it begins one"
            case Because.AGAIN:
                return f"the connection of packet {related} has had no answer yet"
            case Because.MIDDLE:
                return (
                    "no connection of these ends is known, and it looks like the middle of "
                    "one: conntrack lets it begin one all the same"
                )
            case Because.ANSWERS:
                if is_known:
                    return f"an answer in the connection of packet {related}"
                return f"it answers packet {related}: both sides have spoken, the connection stands"
            case Because.GOES_ON:
                if is_known:
                    return f"more of the connection that packet {related} answered"
                return f"its connection was answered by packet {related}"
            case Because.EXPECTED:
                return self._expected(event)
            case Because.EXPECTED_AGAIN:
                return f"of the connection that packet {related} opened, which had been announced"
            case Because.ERROR:
                return f"it tells of an error in the connection that packet {related} opened"
            case Because.REFUSAL:
                return f"this host's own answer to packet {related}"
            case Because.GIVEN:
                return "that is what was asked for"
            case Because.BROKEN:
                return "its checksum or sequence number fits no connection"
            case Because.IMPOSSIBLE_FLAGS:
                return f"no TCP sends {flags_words(event.wire.flags)} together"
            case Because.NO_BEGINNING:
                what = says_words(event.wire)
                return f"no connection of these ends is known, and none begins with {what}"
            case Because.OUT_OF_STEP:
                return f"it does not come next in the connection that packet {related} opened"
            case Because.ERROR_ABOUT_NOTHING:
                return "it tells of an error in a connection that is not known"
            case Because.NOT_TRACKED:
                return "a rule says that conntrack leaves it alone"
            case Because.LEFT_ALONE:
                return "conntrack leaves neighbour and listener discovery alone"
            case Because.NOT_THERE:
                return "it was dropped before conntrack saw it"

    def _expected(self, event: PacketEvent) -> str:
        tracked = event.carried.tracked
        assert tracked.connection is not None and tracked.related is not None
        master = tracked.connection.master
        assert master is not None
        said = self.announced.get(tracked.related, "it")
        return (
            f"no connection of these ends is known, but helper `{master.helper}` read "
            f"`{said}` in packet {tracked.related} and expects it"
        )

    # --- what comes of it -------------------------------------------------------------------------

    def _facts(self, event: PacketEvent, *, is_known: bool) -> Iterator[str]:
        carried = event.carried
        # Later packets go the same way as the first; what they look like then is no news.
        for one in carried.translations:
            if one.line is not None or carried.tracked.because is Because.EXPECTED:
                yield from self._translated(event, one)
        if carried.assigned is not None:
            yield (
                f"helper `{carried.assigned}` is set on the connection and reads along from now on"
                f"{self._assigned_by(event)}"
            )
        last = carried.last.message
        if event.passed and last is not None and last != event.wire.message:
            yield f"translated inside, too: it arrives as `{last.text}`"
        yield from expectations_words(carried.reading.expects)
        if carried.reading.ignored is not None:
            yield f"the helper pays no heed to it: {carried.reading.ignored}"
        for doubt in event.doubts:
            origin = statement_of(doubt.line)
            place = doubt.line.place if origin is None or origin.span is None else origin.span.place
            yield f"not certain: `{doubt.about}` ({place}) may decide otherwise"

    def _translated(self, event: PacketEvent, one: Translated) -> Iterator[str]:
        """Without a line it follows from the connection that announced this one."""
        by = " (as the connection that announced it is translated)"
        if one.line is not None:
            met = (m for m in _all_met(event) if m.line.place == one.line and _translates(m))
            line = next(met, None)
            by = "" if line is None else f" ({reason_words(line.line)})"
        for what, is_source in (("destination", False), ("source", True)):
            became = _place(one.after, is_source=is_source)
            if became != _place(one.before, is_source=is_source):
                yield f"its {what} becomes {became}{by}"

    def _assigned_by(self, event: PacketEvent) -> str:
        for met in _all_met(event):
            if isinstance(met.line.act, ir.AssignHelper):
                origin = statement_of(met.line)
                return "" if origin is None or origin.span is None else f" ({origin.span.place})"
        return ""


def expectations_words(expects: tuple[Expectation, ...]) -> Iterator[str]:
    """What a helper expects, ports of the same ends together."""
    groups: dict[tuple[str, str, str], list[Expectation]] = {}
    for one in expects:
        source = "any address" if one.source is None else format_address(one.source)
        if one.source_prefix_len is not None:
            source = f"the network of {source}/{one.source_prefix_len}"
        if one.source_port is not None and one.protocol in (TCP, UDP):
            source += f" port {one.source_port}"
        protocol = PROTOCOL_NAMES.get(one.protocol, str(one.protocol))
        groups.setdefault((source, format_address(one.destination), protocol), []).append(one)
    for (source, destination, protocol), members in groups.items():
        helper = members[0].master.helper
        ports = [str(one.destination_port) for one in members]
        what = "call" if protocol == "gre" else "port"
        listed = f"{what}{'s' if len(ports) > 1 else ''} {' and '.join(ports)}"
        if len(ports) > 2:
            listed = f"{what}s {', '.join(ports[:-1])} and {ports[-1]}"
        yield (
            f"helper `{helper}` reads this and expects: {protocol} from {source} to {destination}, "
            f"{listed}"
        )


# --- single words ---------------------------------------------------------------------------------


def says_words(wire: Wire) -> str:
    """What a packet carries: its message, else its flags or ICMP type, else its protocol."""
    if wire.icmp_type is not None:
        field = Field.ICMP_TYPE if wire.protocol == ICMP else Field.ICMPV6_TYPE
        name = ICMP_TYPES[field].get(wire.icmp_type, f"type {wire.icmp_type}")
        if wire.message is not None and wire.message.text != name:
            return f"{name}: {wire.message.text}"
        return name
    if wire.message is not None:
        return wire.message.text
    return flags_words(wire.flags) if wire.protocol == TCP else "data"


def flags_words(flags: int) -> str:
    """`SYN, ACK`."""
    return ", ".join(name for bit, name in FLAGS.items() if flags & bit) or "no flags"


def ends_words(wire: Wire) -> str:
    """`203.0.113.9:40000 → 192.0.2.1:21`."""
    return f"{_place(wire, is_source=True)} → {_place(wire, is_source=False)}"


def _place(wire: Wire, *, is_source: bool) -> str:
    address = wire.source if is_source else wire.destination
    text = format_address(address)
    if wire.ports is None or wire.protocol not in PORTED:
        return text
    port = wire.ports[0 if is_source else 1]
    return f"[{text}]:{port}" if address >= V6_BASE else f"{text}:{port}"


# --- who decided ------------------------------------------------------------------------------


def decision_words(event: PacketEvent, names: Names = NO_NAMES) -> str:
    """`passes: web.policy:3 allow ftp inbound from wan`."""
    passage = event.deciding
    verdict = verdict_words(event)
    if passage is None:
        return f"{verdict}: no rule looks at it"
    if passage.decider is None:
        return f"{verdict}: by the policy of chain {passage.base.place or passage.base.chain}"
    reason = _reason(passage)
    conditions = conditions_words(_told_conditions(passage), names)
    return f"{verdict}: {reason}" + (f", if it is {conditions}" if conditions else "")


def verdict_words(event: PacketEvent) -> str:
    """`passes`, `dropped`, `rejected with tcp-reset`."""
    match event.carried.verdict:
        case Verdict.PASSES:
            return "passes"
        case Verdict.DROPPED:
            return "dropped"
        case Verdict.REJECTED:
            act = None if event.decider is None else event.decider.line.act
            return f"rejected with {act.answer.value}" if isinstance(act, ir.Reject) else "rejected"


def _reason(passage: Passage) -> str:
    assert passage.decider is not None
    line = passage.decider.line
    if statement_of(line) is None and line.origins:
        known = _PASSES_BY.get(line.origins[0].why)
        if known is not None:
            return known
    return reason_words(line, _PATHS.get(passage.base.hook))


def _told_conditions(passage: Passage) -> tuple[Condition, ...]:
    assert passage.decider is not None
    return tuple(c for c in passage.decider.line.conditions if c in passage.asked)


# --- all lines, for those who want to see them ------------------------------------------------


def passages_words(event: PacketEvent, names: Names = NO_NAMES) -> Iterator[tuple[str, str]]:
    """The hook of each base chain that the packet entered, and each line that it met there."""
    for passage in event.carried.passages:
        hook = passage.base.hook.value
        if not passage.met:
            yield hook, f"{passage.base.chain}: nothing matches"
        for met in passage.met:
            yield hook, f"{met.line.place or met.chain}: {met_words(met, names)}"


def met_words(met: Met, names: Names = NO_NAMES) -> str:
    """What a line does, and why it is there."""
    act = met.line.act
    what = {
        ir.Accept: "accept",
        ir.Drop: "drop",
        ir.Log: "log",
        ir.Leave: "leave the chain",
        ir.Untrack: "leave untracked",
    }.get(type(act))
    match act:
        case ir.Reject(answer):
            what = f"reject with {answer.value}"
        case ir.Jump(chain):
            what = f"jump to {chain}"
        case ir.AssignHelper(helper, _):
            what = f"set helper {helper}"
        case ir.SetMark(value, mask):
            what = f"mark {value:#x}/{mask:#x}"
        case ir.SetConnectionMark(value, mask):
            what = f"connection mark {value:#x}/{mask:#x}"
        case ir.AddToSet(name, end):
            what = f"add {end.value} to {name}"
        case _ if what is None and isinstance(act, ir.Translation | ir.TransparentProxy):
            what = act_words(met.line, names)
    origin = met.line.origins[0].text if met.line.origins else ""
    return " ".join(part for part in (what or type(act).__name__.lower(), origin) if part)


def _all_met(event: PacketEvent) -> Iterator[Met]:
    for passage in event.carried.passages:
        yield from passage.met


def _translates(met: Met) -> bool:
    return isinstance(met.line.act, ir.Translation)


def announces(event: PacketEvent) -> bool:
    """Whether a packet names a port where somebody waits, in a way that a helper might read."""
    message = event.wire.message
    return message is not None and bool(message.offers)
