"""Differences in words: what fares otherwise, how it did and does, who says so, and one packet.

It knows what differences are, and what policies call things; where words are printed, and in which
colours, it does not know.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from policylang.analysis.changed import Change, Differences, Fate, Kind
from policylang.analysis.machine import ALL, AddTo, Line
from policylang.analysis.reasons import act_words, conditions_words
from policylang.analysis.sides import Decider, Verdict, Way
from policylang.analysis.wording import Names, packet_words, words_of
from policylang.ir import actions as ir
from policylang.ir.actions import Translation, TransparentProxy
from policylang.ir.origin import Why
from policylang.packets.cube import Cube
from policylang.packets.fields import AddressType, Field
from policylang.packets.values import Ranges
from policylang.source import Span

MOST_STATEMENTS = 3
MOST_CUBES = 6

HEADINGS = {
    Kind.OPENED: "newly allowed",
    Kind.LOOSENED: "allowed more often",
    Kind.TIGHTENED: "allowed less often",
    Kind.RECONDITIONED: "allowed under other conditions",
    Kind.CLOSED: "newly denied",
    Kind.ANSWERED: "denied with another answer",
    Kind.TRANSLATED: "translated otherwise",
    Kind.HELPED: "given another conntrack helper",
    Kind.MARKED: "marked otherwise",
    Kind.LOGGED: "logged otherwise",
    Kind.COLLECTED: "put into sets otherwise",
    Kind.TREATED: "treated otherwise",
}
SIGNS = {Kind.OPENED: "+", Kind.CLOSED: "-"}
CHANGED = "~"

NOTHING = "no difference in meaning"


@dataclass(frozen=True, slots=True)
class Statement:
    """Who decides: a statement at a `span`, or only words of it, as of a default or a rule."""

    words: str
    span: Span | None = None

    @property
    def text(self) -> str:
        """One line for people."""
        return self.words if self.span is None else f"{self.span.place} {self.words}"


@dataclass(frozen=True, slots=True)
class Told:
    """A change in words.

    `packets` are its packets, one phrase each, less those of `excepted`; `left_out` says that not
    all are told. `was` and `becomes` are what is done with them, or empty where that goes without
    saying.
    """

    change: Change
    sign: str
    packets: tuple[str, ...]
    excepted: tuple[str, ...]
    left_out: bool
    was: str
    becomes: str
    statements_before: tuple[Statement, ...]
    statements_after: tuple[Statement, ...]
    example: str


def tell(change: Change, old: Names, new: Names, *, most: int | None = MOST_CUBES) -> Told:
    """A change in words; its packets are told by the names of the side that speaks of them.

    At most so many phrases of packets, and of what is excepted, are told; of None all.
    """
    names = both(old, new) if change.kind is Kind.CLOSED else both(new, old)
    shown = change.shown
    region = shown.region
    cubes, excepted = region.cubes[:most], region.excepted[:most]
    was, becomes = _done(change, shown.before, names), _done(change, shown.after, names)
    return Told(
        change,
        SIGNS.get(change.kind, CHANGED),
        tuple(_packets(change, cube, names) for cube in cubes),
        tuple(_packets(change, cube, names) for cube in excepted),
        (cubes, excepted, True) != (region.cubes, region.excepted, region.is_whole),
        was,
        becomes,
        tuple(_statements(change, shown.before)),
        tuple(_statements(change, shown.after)),
        packet_words(shown.example, names),
    )


def both(first: Names, second: Names) -> Names:
    """The names of two policies; where both call something by a name, that of the first."""
    zones = {zone.name: zone for zone in (*second.zones, *first.zones)}
    return Names(
        tuple(zones.values()),
        {**second.sets, **first.sets},
        {**second.services, **first.services},
        first.tests or second.tests,
        {**second.parts, **first.parts},
    )


def counted(differences: Differences) -> str:
    """How many there are of each kind: `2 newly allowed, 1 newly denied, 1 changed`."""
    opened, closed = len(differences.of(Kind.OPENED)), len(differences.of(Kind.CLOSED))
    changed = len(differences.changes) - opened - closed
    counts = ((opened, "newly allowed"), (closed, "newly denied"), (changed, "changed"))
    return ", ".join(f"{count} {words}" for count, words in counts if count) or NOTHING


# --- packets ----------------------------------------------------------------------------------


def _packets(change: Change, cube: Cube, names: Names) -> str:
    """Packets in a phrase, less what the way says."""
    untold = {Field.DNATED} if change.is_first else set()
    kinds = cube[Field.DADDR_TYPE]
    if change.way is Way.INBOUND and kinds.covers(_LOCAL) and Field.DADDR in cube:
        untold.add(Field.DADDR_TYPE)  # an address is told, and that it is one of this host
    text = words_of(cube, names, leave_out=frozenset(untold))
    if not change.is_first and Field.CT_STATE not in cube:
        text += " (in every state)"
    # On its way out an INVALID packet is read as any first one, which goes without saying.
    if change.shown.invalid_too and change.way is not Way.OUTBOUND:
        text += " (INVALID ones too)"
    return text


_LOCAL = Ranges.of(AddressType.LOCAL)


# --- what is done -----------------------------------------------------------------------------


def _done(change: Change, fate: Fate, names: Names) -> str:
    match change.kind:
        case Kind.OPENED | Kind.CLOSED | Kind.LOOSENED | Kind.TIGHTENED | Kind.RECONDITIONED:
            if change.kind is (Kind.OPENED if fate is change.shown.before else Kind.CLOSED):
                return _denied(fate)
            is_told = change.kind in (Kind.LOOSENED, Kind.TIGHTENED)
            return _passes(fate, names, always="always" if is_told else "")
        case Kind.ANSWERED:
            return _denied(fate)
        case Kind.TRANSLATED:
            return _translated(change, fate, names)
        case _:
            acts = [_act(act, names) for act in fate.acts]
            conditions = conditions_words(fate.conditions, names)
            said = ", ".join(acts) or _WITHOUT[change.kind]
            return f"{said}, {conditions}" if acts and conditions else said


def _passes(fate: Fate, names: Names, *, always: str) -> str:
    """On which conditions packets pass, and where they are sent."""
    conditions = conditions_words(fate.conditions, names)
    parts = [conditions or (always if fate.always else "")]
    for act in (fate.sent, fate.source):
        if act is not None:
            parts.append(_translation(act, names))
    return ", ".join(part for part in parts if part)


def _denied(fate: Fate) -> str:
    match fate.verdict:
        case Verdict.REJECTED if fate.answer is not None:
            return f"rejected with {fate.answer}"
        case Verdict.DROPPED:
            return "dropped"
        case _:
            return "denied"


def _translated(change: Change, fate: Fate, names: Names) -> str:
    """Of the two translations, the one that differs."""
    is_sent = change.shown.before.sent != change.shown.after.sent
    act = fate.sent if is_sent else fate.source
    if act is not None:
        return _translation(act, names)
    return "not sent elsewhere" if is_sent else "under its own address"


def _translation(act: Translation | TransparentProxy, names: Names) -> str:
    return act_words(Line(ALL, act), names)


_WITHOUT = {
    Kind.HELPED: "without a helper",
    Kind.MARKED: "not marked",
    Kind.LOGGED: "not logged",
    Kind.COLLECTED: "put into no set",
    Kind.TREATED: "left as it is",
}


def _act(act: Hashable, names: Names) -> str:
    match act:
        case ir.Log(prefix, level, group):
            where = "" if group is None else f" to group {group}"
            said = "" if level in (None, "warn", "warning") else f" at level {level}"
            return f'logged{where} as "{prefix}"{said}'
        case ir.AssignHelper(helper):
            return f"given the helper {helper}"
        case ir.SetMark(value, mask):
            return f"marked {_mark(value, mask)}"
        case ir.SetConnectionMark(value, mask):
            return f"its connection marked {_mark(value, mask)}"
        case ir.SetDscp(code):
            return f"given the code point {code}"
        case AddTo(name, fields, timeout_s):
            what = " and ".join(_FIELDS.get(f, f.name.lower()) for f in fields)
            time = "" if timeout_s is None else f" for {timeout_s}s"
            return f"its {what} put into `{name}`{time}"
        case ir.AddToSet(name, end, timeout_s):
            time = "" if timeout_s is None else f" for {timeout_s}s"
            return f"its {end} put into `{name}`{time}"
        case ir.ClampMss(size):
            return f"its segment size clamped to {'the path' if size is None else size}"
        case ir.Offload(devices):
            return f"offloaded between {', '.join(devices)}"
        case ir.Untrack():
            return "kept from conntrack"
        case _:
            return "changed"


def _mark(value: int, mask: int) -> str:
    return f"{value:#x}" if mask == 0xFFFFFFFF else f"{value:#x}/{mask:#x}"


_FIELDS = {
    Field.SADDR: "source",
    Field.DADDR: "destination",
    Field.SPORT: "source port",
    Field.DPORT: "port",
    Field.IIF: "interface",
    Field.OIF: "way out",
}


# --- who says so ------------------------------------------------------------------------------


def _statements(change: Change, fate: Fate) -> Iterator[Statement]:
    found = dict.fromkeys(one for d in fate.deciders for one in _of_decider(change, fate, d))
    shown = list(found)
    yield from shown[:MOST_STATEMENTS]
    if len(shown) > MOST_STATEMENTS:
        yield Statement(f"and {len(shown) - MOST_STATEMENTS} more")


def _of_decider(change: Change, fate: Fate, decider: Decider) -> Iterable[Statement]:
    spans = [o for o in decider.origins if o.span is not None]
    if spans:
        return (Statement(o.span.text, o.span) for o in spans if o.span is not None)
    if decider.origins:
        why = decider.origins[0].why
        if why is Why.DEFAULT:
            verb = "allow" if fate.verdict is Verdict.ACCEPTED else "deny"
            return (Statement(f"the default (`default {verb} {change.way}`)"),)
        return (Statement(_REASONS.get(why, why.value)),)
    return (Statement(decider.place or "what becomes of all else"),)


_REASONS = {
    Why.LOOPBACK: "what goes over the loopback interface passes",
    Why.ESSENTIAL: "IP needs it in order to work",
    Why.INVALID: "INVALID packets are dropped",
    Why.IMPLIED_REPLY: "open connections pass",
    Why.ICMP_ERROR: "errors about connections pass",
}
