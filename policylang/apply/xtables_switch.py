"""The sets by whose elements' time-outs iptables' rules choose between two generations, as text.

A rule that leads to chains of ours asks whether the packet's source is in a set of sets. Its two
members hold every address of their family; while they are in it the answer is yes for each packet
of all tables, and no once they have timed out. Time-outs are counted in jiffies: no clock and no
process has a part in them. What the rules say this module does not know.

Four such sets say what is so. Turned on one after another, and timing out in the reverse order,
they have both filters hold at once while all other tables change: what one generation's
translations and marks made of a packet is then let pass by neither filter alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from policylang.backends.iptables.names import PREFIX

_STEM = f"{PREFIX}armed."  # no set of a policy is called so: its names have no dot

AHEAD = f"{_STEM}ahead"  # a copy of the pending filter judges first, unless all is CALM
OTHERS = f"{_STEM}others"  # tables other than filter are the pending generation's
FILTER = f"{_STEM}filter"  # so is filter, and OUTPUT in all tables
CALM = f"{_STEM}calm"  # nothing is changing; the time to confirm is this one's

STAGES = (AHEAD, OTHERS, FILTER)  # in the order in which they are turned on
MEMBERS = {f"{_STEM}ipv4": ("inet", "0.0.0.0/1", "128.0.0.0/1")} | {
    f"{_STEM}ipv6": ("inet6", "::/1", "8000::/1")
}

STEP_S = 1  # between two changes when the time is over, as an ipset counts

_CONDITION = re.compile(rf"(?:-m set (?:! )?--match-set {re.escape(_STEM)}\S+ src )+")


def is_switch(name: str) -> bool:
    """Whether a set is one of the switch's."""
    return name.startswith(_STEM)


def making() -> tuple[str, ...]:
    """What makes the sets where they are not there; what is turned on stays so."""
    members = (
        line
        for name, (family, *halves) in MEMBERS.items()
        for line in (
            f"create {name} hash:net family {family} hashsize 64 -exist",
            *(f"add {name} {half} -exist" for half in halves),
        )
    )
    sets = (f"create {name} list:set size 4 timeout 0 -exist" for name in (*STAGES, CALM))
    return (*members, *sets)


def destroying(there: Sequence[str]) -> tuple[str, ...]:
    """The names of the switch's sets that are there, in an order in which they can go."""
    found = [name for name in there if is_switch(name)]
    return tuple(sorted(found, key=lambda name: name in MEMBERS))


def turning_on(name: str, seconds: int) -> tuple[str, ...]:
    """For so long from now; 0: for good."""
    return tuple(f"add {name} {member} timeout {seconds} -exist" for member in MEMBERS)


def turning_off(name: str) -> tuple[str, ...]:
    """At once, if it is on."""
    return tuple(f"del {name} {member} -exist" for member in MEMBERS)


def arming(seconds: int) -> Iterator[tuple[str, ...]]:
    """The steps that put a pending generation in force, with a moment between two of them.

    CALM ends first, then what was turned on last.
    """
    for later, name in enumerate((*STAGES, CALM)):
        yield turning_on(name, seconds + (len(STAGES) - later) * STEP_S)


def keeping() -> Iterator[tuple[str, ...]]:
    """The steps that keep it in force for good."""
    return (turning_on(name, 0) for name in STAGES)


def confirming() -> tuple[str, ...]:
    """The same while there is time, in one go: it stops at the first line where there is none."""
    return (
        *(f"del {CALM} {member}" for member in MEMBERS),
        *(line for step in keeping() for line in step),
    )


def disarming() -> Iterator[tuple[str, ...]]:
    """The steps that put in force again what it replaced."""
    return (turning_off(name) for name in (CALM, *reversed(STAGES)))


def left_ms(listing: str) -> int:
    """The milliseconds that a set as `ipset save` shows it has left; 0: it is off."""
    found = [int(seconds) for seconds in re.findall(r"(?m)^add .* timeout (\d+)$", listing)]
    return min(found) * 1000 if len(found) == len(MEMBERS) else 0


def is_for_good(listing: str) -> bool:
    """Whether what `ipset save` shows was turned on for good."""
    return bool(re.search(r"(?m)^add .* timeout 0$", listing))


# --- conditions in rules --------------------------------------------------------------------------


def _asks(name: str, *, is_on: bool) -> str:
    return f"-m set {'' if is_on else '! '}--match-set {name} src "


def of_pending(table: str, chain: str) -> str:
    """What a rule of a built-in chain asks that leads to chains of a pending generation."""
    return _asks(_by(table, chain), is_on=True)


def of_replaced(table: str, chain: str) -> str:
    """What a rule of a built-in chain asks that leads to what a pending generation replaces."""
    return _asks(_by(table, chain), is_on=False)


def _by(table: str, chain: str) -> str:
    """No copy of a filter could judge what this host sends itself: all that it meets is turned
    at once.
    """
    return FILTER if table == "filter" or chain == "OUTPUT" else OTHERS


def of_copy() -> str:
    """What a rule asks that leads to the copy of a pending filter."""
    return _asks(AHEAD, is_on=True) + _asks(CALM, is_on=False)


def without_condition(rule: str) -> str:
    """A rule as it is where there is no switch."""
    return _CONDITION.sub("", rule)


def has_condition(rule: str) -> bool:
    """Whether a rule asks the switch."""
    return _CONDITION.search(rule) is not None
