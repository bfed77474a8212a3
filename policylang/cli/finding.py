"""What is known of a rule, a log line, a counter, an element: the statements behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path

from policylang.analysis.machine import Line
from policylang.analysis.reasons import fate_words
from policylang.analysis.walking import Verdict
from policylang.analysis.whence import Logged, read_log, traced
from policylang.analysis.wording import packet_words
from policylang.apply.written import WrittenLine
from policylang.cli.knowing import Known, bare, comment, without_counts
from policylang.cli.subjects import NFT
from policylang.ir.origin import Origin, Why
from policylang.packets.fields import ADDRESS_FIELDS, Field
from policylang.packets.values import (
    V4_ADDRESSES,
    V6_ADDRESSES,
    Range,
    Ranges,
    parse_address,
)
from policylang.source import Span
from policylang.syntax import tree

NEAR = 0.8  # how alike a rule must be to be named where none is the same
MOST_RULES = 8

_HANDLE = re.compile(r"(?:# )?handle (?P<handle>\d{1,9})")
_APPENDED = re.compile(r"^(?:-t \S+ )?-[AI] (?P<chain>\S+) (?:\d+ )?(?P<rule>.*)$")
_ADDED = re.compile(r"^(?:add|insert) rule \S+ \S+ (?P<chain>\S+) (?P<rule>.*)$")
_NUMBERED = re.compile(r"^(?P<chain>\S+(?: \S+){0,3}?) (?:rule )?#?(?P<number>\d{1,9})$")
_PLACE = re.compile(r"^(?P<file>\S+):(?P<line>\d{1,9})(?: .*)?$")
_COUNTER = re.compile(r"^\s*(?:\d+|-)\s+(?:\d+|-)\s+(?P<place>\S+:\d{1,9}) ")


@dataclass(frozen=True, slots=True)
class Because:
    """A statement, and what it has to do with what was asked, in words."""

    words: str
    origins: tuple[Origin, ...]
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What was asked, of which kind it is, and all that is known of it; `notes` beside."""

    asked: str
    kind: str
    because: tuple[Because, ...]
    notes: tuple[str, ...] = ()


def explained(text: str, known: Known) -> Found:
    """What is known of one thing, whatever kind it is of."""
    logged = read_log(text)
    if logged is not None:
        return _log(text, logged, known)
    if (counter := _COUNTER.match(text)) is not None:
        return _statement(text, counter["place"], known)
    if (handle := _HANDLE.fullmatch(text.strip())) is not None:
        return _handle(text, int(handle["handle"]), known)
    word = text.removeprefix("set ").strip()
    if parse_address(word) is not None:
        return _address(text, word, known)
    if text.startswith("set ") or _declaration(_lasting(word), known) is not None:
        return _set(text, word, known)
    if (place := _PLACE.match(text)) is not None and not text.startswith("-"):
        return _statement(text, f"{place['file']}:{place['line']}", known)
    if (numbered := _NUMBERED.match(text)) is not None:
        found = _numbered(text, numbered["chain"], int(numbered["number"]), known)
        if found is not None:
            return found
    return _rule(text, known)


# --- rules ------------------------------------------------------------------------------------


def _rules(known: Known) -> list[WrittenLine]:
    return [line for line in known.lines if not line.place.startswith(("set ", "map "))]


def _handle(text: str, handle: int, known: Known) -> Found:
    line = known.handles.get(handle)
    if line is None:
        notes = ("handles are those of the rules in force: `nft -a list table inet policylang`",)
        return Found(text, "rule", (), notes)
    return Found(text, "rule", (_of_line(line),))


def _numbered(text: str, chain: str, number: int, known: Known) -> Found | None:
    """The rule of a chain by its number, counted from 1; None where there is no such chain."""
    wanted = chain.removeprefix("chain ").split()[-1]
    table = chain.split()[-2:-1]
    lines = [
        line
        for line in _rules(known)
        if line.place.split()[-1] in (wanted, f"policylang-{wanted.lower()}")
        and (not table or table[0] in line.place or known.artifact.target == NFT)
    ]
    if not lines:
        return None
    found = tuple(_of_line(line) for line in lines if line.number == number)
    most = max(line.number for line in lines)
    return Found(text, "rule", found, () if found else (f"the chain has {most} rules",))


def _rule(text: str, known: Known) -> Found:
    """A rule by its text, with or without its chain, its comment and what it counted."""
    chain, rule = "", without_counts(text.strip())
    rule = re.sub(r" # handle \d+$", "", rule)
    for form in (_APPENDED, _ADDED):
        if (found := form.match(rule)) is not None:
            chain, rule = found["chain"], found["rule"]
    plain = bare(rule)
    lines = [line for line in _rules(known) if bare(line.text) == plain]
    lines = lines or known.listed.get(plain, [])
    lines = [line for line in lines if not chain or line.place.split()[-1] == chain] or lines
    if not lines and (said := comment(rule)):
        lines = [line for line in _rules(known) if comment(line.text) == said]
    if lines:
        kept = {(line.place, line.origins): line for line in lines}
        return Found(text, "rule", tuple(_of_line(line) for line in kept.values()))
    return Found(text, "rule", (), tuple(_nearest(plain, known)))


def _nearest(plain: str, known: Known) -> Iterator[str]:
    matcher = SequenceMatcher(b=plain, autojunk=False)
    best, likeness = None, NEAR
    for line in _rules(known):
        matcher.set_seq1(bare(line.text))
        if matcher.real_quick_ratio() > likeness and matcher.ratio() > likeness:
            best, likeness = line, matcher.ratio()
    if best is None:
        yield f"no rule of {known.name} is like it"
    else:
        yield f"the nearest rule is `{best.text}`, number {best.number} of {best.place}"


def _of_line(line: WrittenLine) -> Because:
    return Because(f"{line.place}, rule {line.number}", line.origins, line.text)


# --- statements -------------------------------------------------------------------------------


def _statement(text: str, place: str, known: Known) -> Found:
    """The rules that a statement became, by the file and line where it stands."""
    file, _, number = place.rpartition(":")
    name = Path(file).name
    own = [
        line
        for line in known.lines
        for o in line.origins
        if o.span is not None
        and Path(o.span.file.name).name == name
        and o.span.line <= int(number) <= _last_line(o.span)
    ]
    shown = list(dict.fromkeys(own))
    for declaration in () if shown else _declarations(known):
        span = declaration.span
        if Path(span.file.name).name == name and span.line <= int(number) <= _last_line(span):
            return replace(_set(text, declaration.name.text, known), kind="statement")
    because = tuple(_of_line(line) for line in shown[:MOST_RULES])
    more = len(shown) - MOST_RULES
    notes = (f"and {more} more rules",) if more > 0 else ()
    if not shown:
        notes = (f"no rule of {known.name} comes from there",)
    return Found(text, "statement", because, notes)


def _last_line(span: Span) -> int:
    return span.file.line_of(max(span.start, span.end - 1))


# --- logs -------------------------------------------------------------------------------------


def _log(text: str, logged: Logged, known: Known) -> Found:
    found = traced(logged, known.machine, known.address_tests)
    packet = packet_words(dict(logged.packet))
    if found is None:
        note = "no rule logs with such a prefix: another program's may, or rules of before"
        return Found(text, "log", (), (packet, note))
    because: list[Because] = []
    for line in found.lines:
        words = "logged by" if found.walk is not None else "logged by one of"
        because.append(Because(words, _origins(line, known), _place(line)))
    notes = [packet]
    if found.walk is not None and found.state is not None:
        notes.append(f"as a packet of state {found.state.name}")
        decider = found.walk.decider
        is_accepted = found.walk.verdict is Verdict.PASSES
        fate = fate_words(None if decider is None else decider.line, is_accepted=is_accepted)
        if decider is None:
            notes.append(f"{fate} by what becomes of all else")
        else:
            line = decider.line
            because.append(Because(f"{fate} by", _origins(line, known), _place(line)))
    return Found(text, "log", tuple(_merged(because)), tuple(notes))


def _merged(because: list[Because]) -> Iterator[Because]:
    """One entry for a statement that both logs and decides."""
    if len(because) == 2 and because[0].origins == because[1].origins:
        keys = [[(o.why, o.span) for o in one.origins] for one in because]
        if keys[0] == keys[1] and because[0].origins:
            yield replace(
                because[0],
                words=f"{because[0].words} and {because[1].words}".replace(" by and ", " and "),
            )
            return
    yield from because


def _origins(line: Line, known: Known) -> tuple[Origin, ...]:
    """The statements of a line; of one that was read from a kernel, by the rule it is."""
    if line.origins:
        return line.origins
    said = line.place.partition(": ")[2] or line.place.partition(" (")[2].removesuffix(")")
    for one in known.lines:
        if said and comment(one.text) == said:
            return one.origins
    return ()


def _place(line: Line) -> str:
    return "" if line.origins else line.place


# --- addresses and sets -----------------------------------------------------------------------


def _address(text: str, word: str, known: Known) -> Found:
    """The sets that hold an address, and the statements that speak of it."""
    pair = parse_address(word)
    assert pair is not None, "it was an address"
    wanted = Ranges((pair,))
    because = [*_declared(wanted, known), *_held(pair, known)]
    seen = {_key(one.origins) for one in because}
    for chain in known.machine.chains.values():
        for line in chain:
            for cube in line.cubes:
                ends = [f for f in ADDRESS_FIELDS if f in cube and _speaks_of(cube[f], wanted)]
                origins = _origins(line, known)
                if ends and origins and _key(origins) not in seen:
                    seen.add(_key(origins))
                    end = "source" if ends[0] is Field.SADDR else "destination"
                    because.append(Because(f"named as a {end} by", origins, _place(line)))
    notes = () if because else (f"nothing in {known.name} names it",)
    return Found(text, "element", tuple(because), notes)


def _speaks_of(values: Ranges, wanted: Ranges) -> bool:
    """Whether values hold an address, and are no leftovers of what a rule excepts."""
    if not values.covers(wanted):
        return False
    whole = V4_ADDRESSES if V4_ADDRESSES.covers(wanted) else V6_ADDRESSES
    own = values & whole
    return own != whole and own.count * 2 <= whole.count


def _key(origins: Sequence[Origin]) -> tuple[object, ...]:
    return tuple((o.span.file.name, o.span.start) for o in origins if o.span is not None)


def _declared(wanted: Ranges, known: Known) -> Iterator[Because]:
    """The sets whose declarations, or lists, hold an address; with the line of the list."""
    for declaration in _declarations(known):
        for element in declaration.elements:
            words = ""
            if isinstance(element, tree.Address):
                pair = parse_address(element.text)
                if pair is not None and Ranges((pair,)).covers(wanted):
                    words = f"an element of set `{declaration.name.text}`, `{element.text}`"
            elif isinstance(element, tree.FileList) and known.loaded is not None:
                held = known.loaded.lists.get((element.span.file.name, element))
                if held is not None and Ranges.merged(held.pairs).covers(wanted):
                    where = _line_of_list(element, wanted, known)
                    words = f"in the list `{where}` of set `{declaration.name.text}`"
            if words:
                yield Because(words, (Origin(Why.WRITTEN, declaration.span),))


def _line_of_list(element: tree.FileList, wanted: Ranges, known: Known) -> str:
    """The list and the line of it that holds an address, where it can be read again."""
    if known.folder is None:
        return element.path
    path = known.folder / Path(element.span.file.name).parent / element.path
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return element.path
    for number, line in enumerate(lines, 1):
        pairs = filter(None, map(parse_address, re.split(r"[\s,;#]+", line)))
        if any(Ranges((pair,)).covers(wanted) for pair in pairs):
            return f"{element.path}:{number}"
    return element.path


def _held(pair: Range, known: Known) -> Iterator[Because]:
    """The sets that packets fill, or people, and that hold an address at present."""
    for live in known.live:
        for element in live.elements:
            if pair == (element.address, element.address):
                left = "" if element.left_ms is None else f", for {element.left_ms // 1000}s more"
                found = _set("", live.name, known)
                origins = tuple(o for one in found.because for o in one.origins)
                yield Because(
                    f"in set `{live.name}` at present{left}", tuple(dict.fromkeys(origins))
                )


def _declarations(known: Known) -> Iterator[tree.SetDecl]:
    if known.loaded is not None:
        for statement in known.loaded.statements:
            if isinstance(statement, tree.SetDecl):
                yield statement


def _declaration(name: str, known: Known) -> tree.SetDecl | None:
    for declaration in _declarations(known):
        if declaration.name.text == name:
            return declaration
    return None


def _lasting(name: str) -> str:
    """What the policy calls a set that the kernel knows by a name."""
    return re.sub(r"-v[46]$", "", name.removeprefix("@").removeprefix("policylang-"))


def _set(text: str, name: str, known: Known) -> Found:
    """Where a set is declared, and which statements ask for it or fill it."""
    lasting = _lasting(name)
    because: list[Because] = []
    for declaration in _declarations(known):
        if declaration.name.text in (name, lasting):
            because.append(Because("declared by", (Origin(Why.WRITTEN, declaration.span),)))
    uses: dict[tuple[object, ...], Because] = {}
    name_in_kernel = rf"(?:policylang-)?{re.escape(lasting)}(?:-v[46])?"
    pattern = re.compile(rf"(?:@|-set ){name_in_kernel}(?![\w.-])")
    for line in _rules(known):
        if pattern.search(line.text):
            fills = re.search(r"\b(?:add|update) @|-j SET\b", line.text) is not None
            words = "filled by" if fills else "asked for by"
            uses.setdefault((words, *_key(line.origins)), Because(words, line.origins))
    because += uses.values()
    notes = () if because else (f"no set of {known.name} is called so",)
    return Found(text, "set", tuple(because), notes)
