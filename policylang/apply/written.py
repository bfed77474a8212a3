"""Which statements stand behind which rule of a listing, told by the artifact that was loaded.

A rule of an artifact is a line, and tools list rules in the order of those lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policylang.apply.restore import FAMILIES
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.iptables import RULES
from policylang.ir.origin import Origin

Origins = tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class WrittenLine:
    """A rule or an element of an artifact: its chain or set, its text, and who asked for it.

    `number` counts the lines of one place from 1, as tools count rules.
    """

    place: str
    number: int
    text: str
    origins: Origins


_BLOCK = re.compile(r"\t(?P<place>(?:chain|set|map) \S+) \{")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LEADS = re.compile(r"(?:^| )(?:jump|goto|-[jg] policylang)\S*(?: |$)")
_LOGS = re.compile(r"(?:^| )(?:log|-j (?:NF)?LOG)(?: |$)")
_VERDICT = re.compile(r"(?:^| )(?:accept|drop|reject|return)(?: |$)")


def written(artifact: Artifact) -> Iterator[WrittenLine]:
    """All rules and elements of an artifact, in order."""
    numbers: dict[str, int] = {}
    for place, text, origins in _lines(artifact):
        numbers[place] = numbers.get(place, 0) + 1
        yield WrittenLine(place, numbers[place], text, origins)


def rules_of(artifact: Artifact) -> dict[str, list[Origins]]:
    """What stands behind each rule, in order, by the place of its chain."""
    found: dict[str, list[Origins]] = {}
    for place, _, origins in _lines(artifact):
        if not place.startswith(("set ", "map ")):
            found.setdefault(place, []).append(origins)
    return found


def elements_of(artifact: Artifact) -> dict[str, dict[str, Origins]]:
    """What stands behind each element of nft's sets and maps, by their place."""
    found: dict[str, dict[str, Origins]] = {}
    for place, text, origins in _lines(artifact):
        if place.startswith(("set ", "map ")):
            found.setdefault(place, {})[text.removesuffix(",")] = origins
    return found


def decides(rule: str) -> bool:
    """Whether a rule decides a packet or changes it, rather than logs it or leads elsewhere.

    A log and the verdict behind it see the same packets.
    """
    bare = _QUOTED.sub('""', rule)
    if _LEADS.search(bare):
        return False
    return not _LOGS.search(bare) or bool(_VERDICT.search(bare))


def _lines(artifact: Artifact) -> Iterator[tuple[str, str, Origins]]:
    if artifact.target == "nft":
        (script,) = artifact.files
        yield from _of_nft(script)
        return
    for (name, _), family in zip(RULES.values(), FAMILIES, strict=True):
        file = artifact.file(name)
        if file is not None:
            yield from _of_iptables(file, family)


def _of_nft(script: OutputFile) -> Iterator[tuple[str, str, Origins]]:
    place, is_element = "", False
    for text, origins in zip(script.text.split("\n"), script.origins, strict=False):
        if opening := _BLOCK.fullmatch(text):
            place, is_element = opening["place"], False
        elif text == "\t}":
            place = ""
        elif text == "\t\telements = {":
            is_element = True
        elif _is_element(text) if is_element else _is_rule(text, place):
            yield place, text.strip(), origins


def _is_element(text: str) -> bool:
    return text.startswith("\t\t\t")


def _is_rule(text: str, place: str) -> bool:
    return place.startswith("chain ") and bool(text) and not text.startswith("\t\ttype ")


def _of_iptables(file: OutputFile, family: str) -> Iterator[tuple[str, str, Origins]]:
    table = ""
    for text, origins in zip(file.text.split("\n"), file.origins, strict=False):
        if text.startswith("*"):
            table = text[1:]
        elif text.startswith("-A "):
            _, chain, rule = text.split(" ", 2)
            yield f"{family} {table} {chain}", rule, origins
