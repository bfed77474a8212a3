"""What counts: `-m limit`, `-m hashlimit` and `-m connlimit`."""

from __future__ import annotations

from fractions import Fraction

from policylang.analysis.machine import ConnectionsHold, Per, RateHolds
from policylang.analysis.reading_iptables.asking import Asked, NotUnderstoodError, where
from policylang.analysis.reading_iptables.numbers import number
from policylang.analysis.reading_iptables.options import Match, Option
from policylang.ir.actions import End

UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
BURST = 5  # libxt_limit, libxt_hashlimit: where none is given
BITS = {4: 32, 6: 128}
MODES = {"srcip": End.SOURCE, "dstip": End.DESTINATION}
# How buckets are kept, and what they are called.
_STORAGE = {
    "hashlimit-name",
    "hashlimit-htable-size",
    "hashlimit-htable-max",
    "hashlimit-htable-expire",
    "hashlimit-htable-gcinterval",
}


def limit(match: Match, family: int) -> Asked:
    """`-m limit`: one bucket for all that comes to the rule, 3/hour unless it says otherwise."""
    if any(option.negated for option in match.options):
        raise NotUnderstoodError(match.text)
    rate = _per_s(match.word("limit") or "3/hour")
    burst = number(match.word("limit-burst") or str(BURST))
    return where(RateHolds(rate, burst, None, family))


def hashlimit(match: Match, family: int) -> Asked:
    """`-m hashlimit`, where it counts packets for one kind of address or all together."""
    rates = [o for o in match.options if o.name in ("hashlimit-upto", "hashlimit-above")]
    if len(rates) != 1:
        raise NotUnderstoodError(match.text)
    (rate,) = rates
    burst = BURST
    modes: list[str] = []
    lengths = {End.SOURCE: BITS[family], End.DESTINATION: BITS[family]}
    for option in match.options:
        if option is rate or option.name in _STORAGE:
            continue
        if option.negated:
            raise NotUnderstoodError(match.text)
        match option.name:
            case "hashlimit-burst":
                burst = number(option.words[0])
            case "hashlimit-mode":
                modes = option.words[0].lower().split(",")
            case "hashlimit-srcmask":
                lengths[End.SOURCE] = number(option.words[0], BITS[family])
            case "hashlimit-dstmask":
                lengths[End.DESTINATION] = number(option.words[0], BITS[family])
            case _:
                raise NotUnderstoodError(match.text)
    if len(modes) > 1 or not set(modes) <= set(MODES):
        raise NotUnderstoodError(match.text)
    ends = [MODES[mode] for mode in modes]
    per = Per(ends[0], lengths[ends[0]]) if ends and lengths[ends[0]] else None
    asked = RateHolds(_per_s(rate.words[0]), burst, per, family)
    return where(asked, holds=(rate.name == "hashlimit-upto") is not rate.negated)


def _per_s(text: str) -> Fraction:
    """Packets a second; a rate of bytes is no question here, nor is one of none."""
    count, _, unit = text.partition("/")
    names = [name for name in UNITS_S if name.startswith(unit.lower())] if unit else ["second"]
    if len(names) != 1:
        raise NotUnderstoodError(text)
    return Fraction(number(count), UNITS_S[names[0]])


def connlimit(match: Match, family: int) -> Asked:
    """`-m connlimit`, for each source unless it says `--connlimit-daddr`."""
    count: Option | None = None
    end, length = End.SOURCE, BITS[family]
    for option in match.options:
        match option.name:
            case "connlimit-upto" | "connlimit-above" if count is None:
                count = option
            case "connlimit-mask" if not option.negated:
                length = number(option.words[0], BITS[family])
            case "connlimit-saddr":
                end = End.SOURCE
            case "connlimit-daddr":
                end = End.DESTINATION
            case _:
                raise NotUnderstoodError(match.text)
    if count is None:
        raise NotUnderstoodError(match.text)
    per = Per(end, length) if length else None
    asked = ConnectionsHold(number(count.words[0]), per, family)
    return where(asked, holds=(count.name == "connlimit-upto") is not count.negated)
