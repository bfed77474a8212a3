"""What the targets of the table nat make of addresses and ports."""

from __future__ import annotations

from policylang.analysis.machine import Hook
from policylang.analysis.reading_iptables.asking import NotUnderstoodError
from policylang.analysis.reading_iptables.numbers import address_span, number
from policylang.analysis.reading_iptables.options import Match
from policylang.ir.actions import (
    DestinationNat,
    End,
    MapPrefix,
    Masquerade,
    RedirectToSelf,
    SourceNat,
    Translation,
)
from policylang.packets.values import V6_BASE, Range, Ranges

TARGETS = {"MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP"}
OF_DESTINATIONS = {Hook.PREROUTING, Hook.OUTPUT}


def translation(name: str, done: Match, family: int, hooks: frozenset[Hook]) -> Translation:
    """The translation of a target; raises NotUnderstoodError.

    `hooks` are those from which packets come to the rule.
    """
    names = {option.name for option in done.options}
    is_random = bool(names & {"random", "random-fully"})
    match name:
        case "MASQUERADE":
            ports = done.word("to-ports")
            return Masquerade(_span(ports) if ports else None, is_random)
        case "SNAT":
            addresses, span = _place(done, "to-source", family)
            return SourceNat(addresses, span, is_random, "persistent" in names)
        case "DNAT":
            targets, span = _place(done, "to-destination", family)
            port = _single(span)
            by_source = "persistent" in names and targets[0] != targets[1]
            return DestinationNat(Ranges((targets,)), port, by_source)
        case "REDIRECT":
            port = _single(_span(done.word("to-ports") or ""))
            if port is None:
                raise NotUnderstoodError(done.text)
            return RedirectToSelf(port)
        case _:
            return MapPrefix(_end(hooks, done), _prefix(done, family))


def _place(done: Match, option: str, family: int) -> tuple[Range, Range | None]:
    """`ADDRESS[-ADDRESS][:PORT[-PORT]]`, IPv6 with ports in brackets."""
    words = [o.words[0] for o in done.options if o.name == option]
    if len(words) != 1:  # several ranges, which old kernels took turns among
        raise NotUnderstoodError(done.text)
    (text,) = words
    ports = ""
    if family == 6:
        if text.startswith("["):
            inner, closed, rest = text[1:].partition("]")
            # `[A]-[B]:PORT` is read as well as `[A-B]:PORT`.
            if closed and rest.startswith("-["):
                last, closed, rest = rest[2:].partition("]")
                inner = f"{inner}-{last}"
            text, ports = inner, rest.removeprefix(":")
            if not closed or (rest and not rest.startswith(":")):
                raise NotUnderstoodError(done.text)
    else:
        text, _, ports = text.partition(":")
    if not text or "/" in text:
        raise NotUnderstoodError(done.text)  # a port alone, or one that depends on the old one
    return address_span(text, family), _span(ports) if ports else None


def _span(text: str) -> Range:
    low, _, high = text.partition("-")
    pair = number(low, 65535), number(high or low, 65535)
    if pair[0] > pair[1]:
        raise NotUnderstoodError(text)
    return pair


def _single(span: Range | None) -> int | None:
    if span is not None and span[0] != span[1]:
        raise NotUnderstoodError("one of several ports")
    return None if span is None else span[0]


def _end(hooks: frozenset[Hook], done: Match) -> End:
    """Which address NETMAP changes: netmap_tg of xt_NETMAP.c looks at the hook."""
    if hooks and hooks <= OF_DESTINATIONS:
        return End.DESTINATION
    if hooks and not hooks & OF_DESTINATIONS:
        return End.SOURCE
    raise NotUnderstoodError(done.text)


def _prefix(done: Match, family: int) -> Range:
    text = done.word("to") or ""
    base, slash, mask = text.partition("/")
    if slash and not mask.isdigit():
        bits = address_span(mask, family)[0] - (V6_BASE if family == 6 else 0)
        width = 128 if family == 6 else 32
        free = ((1 << width) - 1) & ~bits
        if free & (free + 1):
            raise NotUnderstoodError(text)
        return address_span(f"{base}/{width - free.bit_length()}", family)
    return address_span(text, family)
