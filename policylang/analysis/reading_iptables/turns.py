"""Puts rules together that share connections among targets: all of them are one translation.

Such are neighbours that ask the same but for their turn (`-m statistic`) or for the last bits of
the source's address (`-m u32`), the last of which takes what is left. Where they only go to
chains that differ in the target alone, these chains become one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from policylang.analysis.machine import Act, Condition, Goto, Line, Unknown
from policylang.analysis.reading_iptables.asking import NotUnderstoodError
from policylang.analysis.reading_iptables.numbers import number
from policylang.analysis.reading_iptables.options import Match, Rule
from policylang.analysis.reading_iptables.raw_bytes import tests
from policylang.ir.actions import DestinationNat, Jump
from policylang.packets.values import Ranges

# Where the last four bytes of a source stand (RFC 791 section 3.1, RFC 8200 section 3).
SADDR_END = {4: 12, 6: 20}
NEAR = Fraction(1, 1000)  # the kernel keeps a probability in 31 bits, and lists fewer digits

NO_RESIDUES = Ranges()


@dataclass(frozen=True, slots=True)
class Share:
    """What part of the connections that come to a rule it takes; `asked` is the match's text.

    `part` is one of so many, in turn or by chance; else `residues` are those that the source's
    last bits, under `mask`, may be.
    """

    asked: str
    part: int | None = None
    mask: int = 0
    residues: Ranges = NO_RESIDUES


@dataclass(frozen=True, slots=True)
class Read:
    """A line, and the rule that it comes from."""

    rule: Rule
    line: Line


def share_of(rule: Rule, family: int) -> Share | None:
    """The share of a rule, None where it has none that is understood."""
    found: list[Share] = []
    for match in rule.matches:
        try:
            if match.name == "statistic":
                found.append(_turn(match))
            elif match.name == "u32" and (share := _residues(match, family)):
                found.append(share)
        except NotUnderstoodError:
            return None
    return found[0] if len(found) == 1 else None


def _turn(match: Match) -> Share:
    if any(option.negated for option in match.options):
        raise NotUnderstoodError(match.text)
    if match.word("mode") == "nth":
        return Share(match.text, number(match.word("every") or ""))
    try:
        chance = Fraction(match.word("probability") or "")
    except (ValueError, ZeroDivisionError):
        raise NotUnderstoodError(match.text) from None
    if not 0 < chance < 1:
        raise NotUnderstoodError(match.text)
    part = round(1 / chance)
    if abs(chance - Fraction(1, part)) > NEAR * chance:
        raise NotUnderstoodError(match.text)
    return Share(match.text, part)


def _residues(match: Match, family: int) -> Share | None:
    found, negated = tests(match)
    mask = found[0].mask
    if len(found) > 1 or negated or found[0].start != SADDR_END[family] or mask is None:
        return None
    if mask & (mask + 1):
        return None  # these are no last bits
    return Share(match.text, None, mask, Ranges.merged(found[0].values))


def together(chains: Mapping[str, Sequence[Read]], family: int) -> dict[str, tuple[Line, ...]]:
    """The lines of all chains, with rules put together that share connections."""
    plain = {name: tuple(read.line for read in reads) for name, reads in chains.items()}
    if not any(_shares(reads) for reads in chains.values()):
        return plain
    merger = _Merger(plain, family)
    found = {name: tuple(merger.merged(reads)) for name, reads in chains.items()}
    found |= merger.made
    left = {act.chain for lines in found.values() for act in _leading(lines)}
    return {n: lines for n, lines in found.items() if n not in merger.merged_away or n in left}


def _shares(reads: Sequence[Read]) -> bool:
    return any(match.name in ("statistic", "u32") for read in reads for match in read.rule.matches)


def _leading(lines: Sequence[Line]) -> Iterator[Jump | Goto]:
    for line in lines:
        if isinstance(line.act, Jump | Goto):
            yield line.act


class _Merger:
    """Makes one translation of several, and one chain of several that differ in it alone."""

    def __init__(self, chains: Mapping[str, tuple[Line, ...]], family: int) -> None:
        self.chains = chains
        self.family = family
        self.made: dict[str, tuple[Line, ...]] = {}
        self.merged_away: set[str] = set()

    def merged(self, reads: Sequence[Read]) -> Iterator[Line]:
        at = 0
        while at < len(reads):
            count = self._group(reads, at)
            act = None
            if count:
                lines = [read.line for read in reads[at : at + count]]
                share = share_of(reads[at].rule, self.family)
                by_source = share is not None and share.part is None
                act = self._one_act([line.act for line in lines], by_source=by_source)
            if act is None:
                yield reads[at].line
                at += 1
            else:
                yield replace(reads[at + count - 1].line, act=act, place=reads[at].line.place)
                at += count

    def _group(self, reads: Sequence[Read], start: int) -> int:
        """How many lines from `start` on share what comes to them; 0 where it is none."""
        shares: list[Share] = []
        asked = None
        for at in range(start, len(reads)):
            share = share_of(reads[at].rule, self.family)
            line = reads[at].line
            mine = line.cubes, _others(line, share)
            if asked is None:
                asked = mine
            elif mine != asked:
                return 0
            if share is None:
                return len(shares) + 1 if shares and _is_whole(shares) else 0
            shares.append(share)
        return 0

    def _one_act(self, acts: Sequence[Act], *, by_source: bool) -> Act | None:
        translations = [act for act in acts if isinstance(act, DestinationNat)]
        if len(translations) == len(acts):
            if len({act.port for act in translations}) > 1 or any(
                a.by_source for a in translations
            ):
                return None
            targets = Ranges.merged(pair for act in translations for pair in act.targets)
            return DestinationNat(targets, translations[0].port, by_source)
        leading = [act for act in acts if isinstance(act, Jump | Goto)]
        if len(leading) < len(acts) or len({type(act) for act in leading}) > 1:
            return None
        names = [act.chain for act in leading]
        name = self._one_chain(names, by_source=by_source)
        if name is None:
            return None
        return Goto(name) if isinstance(leading[0], Goto) else Jump(name)

    def _one_chain(self, names: Sequence[str], *, by_source: bool) -> str | None:
        """The chain in place of several; None where these differ in more than a target."""
        found: list[Line] = []
        chains = [self.chains[name] for name in names]
        if len({len(lines) for lines in chains}) > 1:
            return None
        for lines in zip(*chains, strict=True):
            first = lines[0]
            if any((o.cubes, o.conditions) != (first.cubes, first.conditions) for o in lines):
                return None
            act = self._one_act([line.act for line in lines], by_source=by_source)
            if act is None:
                return None
            found.append(replace(first, act=act))
        name = f"{names[0]} and {len(names) - 1} more"
        self.made[name] = tuple(found)
        self.merged_away.update(names)
        return name


def _others(line: Line, share: Share | None) -> tuple[Condition, ...]:
    if share is None:
        return line.conditions
    return tuple(c for c in line.conditions if not _is_of(c, share.asked))


def _is_of(condition: Condition, asked: str) -> bool:
    """Whether a condition is that of a match, at whatever place."""
    match condition.question:
        case Unknown(text):
            return condition.holds and (text == asked or text.startswith(f"{asked} ("))
    return False


def _is_whole(shares: Sequence[Share]) -> bool:
    """Whether with a last rule that takes the rest each takes as much as another."""
    if all(share.part is not None for share in shares):
        return [share.part for share in shares] == list(range(len(shares) + 1, 1, -1))
    if any(share.part is not None for share in shares) or len({s.mask for s in shares}) > 1:
        return False
    taken = Ranges()
    for share in shares:
        if share.residues.meets(taken):
            return False
        taken = taken | share.residues
    return True
