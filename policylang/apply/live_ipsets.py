"""The ipsets of dynamic sets: read, filled and made anew; knows nothing of other ipsets of ours.

They are the sets of single addresses that take time-outs. Rules that use such a set go on using
it while it is made anew.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from policylang.apply import programs
from policylang.apply.livesets import Element, LiveSet, LiveSets, by_identity, fitting, lacking
from policylang.backends.iptables.names import PREFIX
from policylang.backends.iptables.sets import FAMILY_WORDS, TIMEOUT_S_MOST
from policylang.diagnostics import Report
from policylang.packets.values import V6_BASE, format_address, parse_one_address

ASIDE = f"{PREFIX}anew.aside"  # no dynamic set is called so: a policy's names have no dot

_NAME = re.compile(rf"{re.escape(PREFIX)}(.+)-v([46])")
_UNSPECIFIED = (0, V6_BASE)  # 0.0.0.0 and ::, which no ipset of addresses takes


def dynamic_sets(text: str) -> tuple[LiveSet, ...]:
    """The dynamic sets that a file of ipsets makes, or that `ipset save` shows, in order."""
    heads = {head.identity: head for line in text.splitlines() for head in _head(line.split())}
    elements: dict[str, list[str]] = {name: [] for name in heads}
    for line in text.splitlines():
        words = line.split(" ", 2)
        if words[0] == "add" and words[1] in heads:
            elements[words[1]].append(line)
    return tuple(
        LiveSet(head.name, head.family, head.timeout_s, head.size, tuple(_elements(elements[name])))
        for name, head in heads.items()
    )


def _head(words: Sequence[str]) -> Iterator[LiveSet]:
    """The set that a line makes, if it makes a dynamic one."""
    match [word for word in words if word != "-exist"]:
        case ["create", name, "hash:ip", *options] if found := _NAME.fullmatch(name):
            given = dict(zip(options[::2], options[1::2], strict=False))
            is_of_family = given.get("family") == FAMILY_WORDS[int(found[2])]
            if is_of_family and "timeout" in given:
                timeout_s, size = int(given["timeout"]), int(given["maxelem"])
                yield LiveSet(found[1], int(found[2]), timeout_s or None, size)


def _elements(lines: Iterable[str]) -> Iterator[Element]:
    """The elements that lines add, whatever else the lines are."""
    for line in lines:
        match line.split():
            case ["add", _, address, *options]:
                number = parse_one_address(address)
                left_s = int(options[options.index("timeout") + 1]) if "timeout" in options else 0
                if number is not None:
                    yield Element(number, left_s * 1000 or None)


def filled(sets: Iterable[LiveSet], wanted: LiveSets, report: Report) -> bool:
    """Put the elements of `wanted` into sets that lack them and have room; whether that worked."""
    lines = [
        _adding(live.identity, element)
        for live in sets
        for element in lacking(live, _storable(wanted.get(live.identity)))
    ]
    return not lines or restored(lines, "cannot fill the ipsets", report)


def _storable(live: LiveSet | None) -> LiveSet | None:
    if live is None:
        return None
    elements = tuple(e for e in live.elements if e.address not in _UNSPECIFIED)
    return LiveSet(live.name, live.family, live.timeout_s, live.size, elements)


def _adding(name: str, element: Element) -> str:
    options = ""
    if element.left_ms is not None:
        seconds = math.ceil(element.left_ms / 1000)
        options = f" timeout {min(max(1, seconds), TIMEOUT_S_MOST)}"
    return f"add {name} {format_address(element.address)}{options} -exist"


def adding(live: LiveSet, elements: Iterable[Element]) -> tuple[str, ...]:
    """The commands that put elements into a set; one that is there stays anew."""
    return tuple(_adding(live.identity, element) for element in elements)


def deleting(live: LiveSet, addresses: Iterable[int]) -> tuple[str, ...]:
    """The commands that take elements out of a set."""
    return tuple(f"del {live.identity} {format_address(a)} -exist" for a in addresses)


def flushing(live: LiveSet) -> str:
    """The command that empties a set."""
    return f"flush {live.identity}"


def made_as_declared(sets: Iterable[LiveSet], wanted: LiveSets, report: Report) -> bool:
    """Make those sets anew that `wanted` declares otherwise; whether all are so now.

    Their elements come along, as many as there is room for.
    """
    return all(
        _made_anew(live, wanted[live.identity], report)
        for live in sets
        if live.identity in wanted and not live.is_declared_like(wanted[live.identity])
    )


def _made_anew(live: LiveSet, wanted: LiveSet, report: Report) -> bool:
    name = live.identity
    programs.run(["ipset", "destroy", ASIDE], Report())  # of a load that was interrupted
    elements = fitting(live.elements, wanted.size)
    now = LiveSet(wanted.name, wanted.family, wanted.timeout_s, wanted.size, elements)
    lines = [
        f"create {ASIDE} hash:ip family {FAMILY_WORDS[now.family]}"
        f" timeout {now.timeout_s or 0} maxelem {now.size}",
        *(_adding(ASIDE, element) for element in elements),
        f"swap {name} {ASIDE}",
    ]
    if not restored(lines, f"cannot make the ipset `{name}` anew", report):
        programs.run(["ipset", "destroy", ASIDE], Report())
        return False
    # What packets put into the old one before the swap follows.
    old = programs.run(["ipset", "save", ASIDE], Report())
    late = tuple(_elements(old.stdout.splitlines() if old is not None else ()))
    filled([now], by_identity([LiveSet(now.name, now.family, None, 0, late)]), Report())
    return restored([f"destroy {ASIDE}"], f"cannot remove the old ipset `{name}`", report)


def restored(lines: Sequence[str], what: str, report: Report) -> bool:
    """Carry out commands of ipset; it stops at the first that is refused.

    Reports `loading-failed` with `what`, which could not be done, and `program-missing`.
    """
    text = "".join(f"{line}\n" for line in lines)
    finished = programs.run(["ipset", "restore"], report, stdin=text)
    if finished is not None and not finished.ok:
        report.add("loading-failed", what, None, help=finished.words)
    return finished is not None and finished.ok
