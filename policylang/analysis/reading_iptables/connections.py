"""What is asked of a packet's connection: `-m conntrack`, `-m state` and `-m helper`."""

from __future__ import annotations

import re

from policylang.analysis.reading_iptables.addresses import ALL_BITS
from policylang.analysis.reading_iptables.asking import (
    Asked,
    NotUnderstoodError,
    all_of,
    any_of,
    of,
    turned,
)
from policylang.analysis.reading_iptables.numbers import (
    address,
    address_span,
    by_mask,
    name_span,
    span,
)
from policylang.analysis.reading_iptables.options import Match, Option
from policylang.analysis.reading_iptables.transport import PORTED, protocol
from policylang.packets.fields import FAMILY_ADDRESSES, Field, FlowDirection, State
from policylang.packets.values import V6_BASE, Ranges

TRACKED = Ranges.of(State.NEW, State.ESTABLISHED, State.RELATED)
LOST = Ranges.of(State.INVALID, State.UNTRACKED)  # of no connection

# A number behind a helper's name is the port that it was registered for; the kernel compares the
# helper's own name with the beginning alone (helper_mt of xt_helper.c).
_PORT = re.compile(r"-\d+$")


def conntrack(match: Match, family: int) -> Asked:
    """`-m conntrack`.

    What has no connection meets no option but the states; beside these the others are not looked
    at for it (conntrack_mt of xt_conntrack.c).
    """
    if not match.options:
        raise NotUnderstoodError(match.text)
    state = match.get("ctstate") or match.get("state")
    others = [_option(o, family) for o in match.options if o.name not in ("ctstate", "state")]
    tracked = of(Field.CT_STATE, TRACKED)
    if state is None:
        return all_of([*others, tracked])
    states = _states(state)
    if not others:
        return states
    found = all_of([states, tracked, *others])
    lost = all_of([states, of(Field.CT_STATE, LOST)])
    if not lost.cubes:
        return found
    if found.conditions:
        raise NotUnderstoodError(match.text)
    return any_of((*found.ways, *lost.ways))


def _states(option: Option) -> Asked:
    names = {name.upper() for name in option.words[0].split(",")}
    if not names <= {*State.__members__, "DNAT"}:
        raise NotUnderstoodError(option.text)  # SNAT is no field
    states = Ranges.of(*(State[name] for name in names - {"DNAT"}))
    if "DNAT" not in names:
        return of(Field.CT_STATE, turned(states, Field.CT_STATE, negated=option.negated))
    if option.negated:
        apart = turned(states, Field.CT_STATE, negated=True)
        return any_of([{Field.CT_STATE: apart, Field.DNATED: Ranges.of(0)}])
    dnated = {Field.DNATED: Ranges.of(1)}
    return any_of([dnated, {Field.CT_STATE: states}] if states else [dnated])


def _option(option: Option, family: int) -> Asked:
    text = option.words[0]
    match option.name:
        case "ctdir":
            way = FlowDirection[text.upper()] if text.upper() in FlowDirection.__members__ else None
            if way is None:
                raise NotUnderstoodError(option.text)
            values = turned(Ranges.of(way), Field.CT_DIRECTION, negated=option.negated)
            return of(Field.CT_DIRECTION, values)
        case "ctorigdst":
            return of(Field.ORIG_DADDR, _dialled(text, family, negated=option.negated))
        case "ctorigdstport":
            values = Ranges((span(text, 65535),))
            return of(Field.ORIG_DPORT, turned(values, Field.ORIG_DPORT, negated=option.negated))
        case "ctproto":  # of the connection, which an ICMP error is not alike
            values = protocol(option)
            if not PORTED.covers(values):
                raise NotUnderstoodError(option.text)
            return of(Field.L4PROTO, values).but_unknown(f"-m conntrack {option.text}")
        case "ctstatus" if text.upper() == "EXPECTED":
            return of(Field.EXPECTED, Ranges.of(0 if option.negated else 1))
        case _:
            raise NotUnderstoodError(option.text)


def _dialled(text: str, family: int, *, negated: bool) -> Ranges:
    base, slash, mask_text = text.partition("/")
    if slash and not mask_text.isdigit():
        start = V6_BASE if family == 6 else 0
        mask = address(mask_text, family) - start
        free = ALL_BITS[family] & ~mask
        value = (address(base, family) - start) & mask
        if free & (free + 1) == 0:
            values = Ranges.between(start + value, start + value + free)
        elif family == 4:
            values = by_mask(value, mask)
        else:
            raise NotUnderstoodError(text)
    else:
        values = Ranges((address_span(text, family),))
    return FAMILY_ADDRESSES[family] - values if negated else values


def helper(match: Match) -> Asked:
    """`-m helper`: by whom a connection was predicted; an empty name is any.

    One that nobody predicted has a name without letters.
    """
    option = match.get("helper")
    if option is None:
        raise NotUnderstoodError(match.text)
    name = option.words[0]
    names = [name, _PORT.sub("", name)] if name else []
    values = Ranges.merged(name_span(word) for word in names)
    if not name:
        values = turned(Ranges.of(0), Field.CT_HELPER, negated=True)
    return of(Field.CT_HELPER, turned(values, Field.CT_HELPER, negated=option.negated))
