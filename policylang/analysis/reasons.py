"""Why packets meet what they meet, in words: statements, verdicts, and what these depend on.

It knows lines and their origins, and no packets.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from policylang.analysis.machine import (
    CgroupIs,
    Condition,
    ConnectionMarkIs,
    ConnectionsHold,
    InSet,
    Line,
    MarkIs,
    MaskIs,
    NotAfter,
    Obscure,
    OwnerIs,
    Per,
    RateHolds,
    Unknown,
    WeekTimeIs,
)
from policylang.analysis.wording import NO_NAMES, Names, ranges_in_words
from policylang.ir import actions as ir
from policylang.ir.actions import UNIT_S
from policylang.ir.origin import Origin, Why
from policylang.ir.stages import Path
from policylang.packets.fields import Field
from policylang.packets.values import Ranges

# What of the language itself decides, where no statement does.
_OF_THE_LANGUAGE = {
    Why.DEFAULT: "the default",
    Why.LOOPBACK: "what goes over the loopback interface passes",
    Why.ESSENTIAL: "IP needs it in order to work",
    Why.INVALID: "it belongs to no connection",
}
_DIRECTIONS = {Path.INPUT: "inbound", Path.FORWARD: "forward", Path.OUTPUT: "outbound"}
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_S = 86_400


def statement_of(line: Line | None) -> Origin | None:
    """The statement that a line comes from, the first of several; None where there is none."""
    if line is None:
        return None
    return next((origin for origin in line.origins if origin.span is not None), None)


def reason_words(line: Line | None, path: Path | None = None) -> str:
    """What decided: `file:line statement`, or the rule of the language that did."""
    origin = statement_of(line)
    if origin is not None:
        return origin.text
    if line is None:
        return "the policy of the chain: no rule decides"
    if line.origins:
        why = line.origins[0].why
        if why is Why.DEFAULT and path is not None:
            verb = "allow" if isinstance(line.act, ir.Accept) else "deny"
            return f"the default (`default {verb} {_DIRECTIONS[path]}`)"
        return _OF_THE_LANGUAGE.get(why, why.value)
    return line.place


def fate_words(line: Line | None, *, is_accepted: bool) -> str:
    """What becomes of packets: accepted, dropped, rejected with an answer."""
    match line.act if line is not None else None:
        case ir.Reject(answer):
            return f"rejected with {answer.value}"
        case ir.Queue(low, high):
            queue = str(low) if low == high else f"{low}-{high}"
            return f"{'let pass' if is_accepted else 'dropped'} by the program of queue {queue}"
        case Obscure():
            is_native = statement_of(line) is not None
            by = "a native line" if is_native else "a rule that is not understood"
            return f"{'accepted' if is_accepted else 'dropped'} by {by}"
        case _:
            return "accepted" if is_accepted else "dropped"


def act_words(line: Line, names: Names = NO_NAMES) -> str:
    """What a translation does with packets: `sent on to 10.0.2.10 port 8080`."""
    match line.act:
        case ir.DestinationNat(targets, port):
            new_port = "" if port is None else f" port {port}"
            return f"sent on to {ranges_in_words(Field.DADDR, targets, names)}{new_port}"
        case ir.RedirectToSelf(port):
            return f"sent to port {port} of this host"
        case ir.MapPrefix(ir.End.DESTINATION, prefix):
            inner = ranges_in_words(Field.DADDR, Ranges((prefix,)))
            return f"sent on to the same place in {inner}"
        case ir.MapPrefix(_, prefix):
            return f"from the same place in {ranges_in_words(Field.SADDR, Ranges((prefix,)))}"
        case ir.TransparentProxy(port):
            return f"handed to the local proxy on port {port}"
        case ir.Masquerade():
            return "from the address of the way out"
        case ir.SourceNat(addresses):
            return f"from {ranges_in_words(Field.SADDR, Ranges((addresses,)), names)}"
        case _:
            return "translated"


def conditions_words(conditions: Iterable[Condition], names: Names = NO_NAMES) -> str:
    """Several conditions as one phrase: `within 4/second and while it is mon 08:00 to …`."""
    return " and ".join(dict.fromkeys(condition_words(c, names) for c in conditions))


def condition_words(condition: Condition, names: Names = NO_NAMES) -> str:
    """What must be the case, behind `if it is`: `within 4/minute (burst 5)`."""
    positive, negative = _words(condition, names)
    return positive if condition.holds else negative


def _words(condition: Condition, names: Names) -> tuple[str, str]:
    match condition.question:
        case RateHolds(per_s, burst, per, _):
            rate = f"{_rate(per_s)} (burst {burst}){_per(per)}"
            return f"within {rate}", f"over {rate}"
        case ConnectionsHold(count, per, _):
            words = f"{count} open connections{_per(per)}"
            return f"among the first {words}", f"beyond {words}"
        case OwnerIs(kind, ids):
            numbers = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ids)
            return f"sent by {kind} {numbers}", f"not sent by {kind} {numbers}"
        case CgroupIs(path):
            return f"sent from cgroup `{path}`", f"not sent from cgroup `{path}`"
        case WeekTimeIs(week_s, is_local):
            times = _times(week_s) + (" local time" if is_local else " UTC")
            return f"sent {times}", f"sent outside {times}"
        case NotAfter(last_day):
            return f"sent until {last_day}", f"sent after {last_day}"
        case MarkIs(value, mask):
            mark = f"mark {value:#x}/{mask:#x}"
            return f"of {mark}", f"not of {mark}"
        case ConnectionMarkIs(value, mask):
            mark = f"connection mark {value:#x}/{mask:#x}"
            return f"of {mark}", f"not of {mark}"
        case InSet(name, fields):
            what = " and ".join(_IN_SETS.get(f, f.name.lower()) for f in fields)
            return f"with its {what} in set `{name}`", f"with its {what} not in set `{name}`"
        case MaskIs(f, value, mask):
            bits = f"{_IN_SETS.get(f, f.name.lower())} & {mask:#x} is {value:#x}"
            return f"whose {bits}", f"not whose {bits}"
        case Unknown(text):
            return f"such that `{text}` holds", f"such that `{text}` does not hold"


_IN_SETS = {
    Field.SADDR: "source",
    Field.DADDR: "destination",
    Field.SPORT: "source port",
    Field.DPORT: "port",
    Field.IIF: "interface",
    Field.OIF: "way out",
    Field.L4PROTO: "protocol",
}


def _rate(per_s: Fraction) -> str:
    for unit, seconds in UNIT_S.items():
        count = per_s * seconds
        if count.denominator == 1:
            return f"{count.numerator}/{unit}"
    return f"{float(per_s):g}/second"


def _per(per: Per | None) -> str:
    if per is None:
        return ""
    is_whole = per.prefix_len in (32, 128)
    return f" per {per.end.value}{'' if is_whole else f'/{per.prefix_len}'}"


def _times(week_s: Ranges) -> str:
    """Hours with the days on which they are: `mon-fri 08:00-18:00`."""
    days: dict[tuple[int, int], list[int]] = {}
    for low, high in week_s:
        for day in range(low // _DAY_S, high // _DAY_S + 1):
            start, end = max(low - day * _DAY_S, 0), min(high - day * _DAY_S + 1, _DAY_S)
            days.setdefault((start, end), []).append(day)
    return ", ".join(f"{_days(on)}{_time(start)}-{_time(end)}" for (start, end), on in days.items())


def _days(days: list[int]) -> str:
    """Days in front of hours; nothing where these are on every day."""
    if len(days) == len(_DAYS):
        return ""
    if len(days) > 2 and days == list(range(days[0], days[-1] + 1)):
        return f"{_DAYS[days[0]]}-{_DAYS[days[-1]]} "
    return ", ".join(_DAYS[day] for day in days) + " "


def _time(second: int) -> str:
    return f"{second // 3600:02}:{second % 3600 // 60:02}"
