"""Writes down what an artifact is beside its files' texts, and reads it again; knows no disk.

Spans point into the texts of the policy, which are kept with them: so errors of the kernel are
shown at the statements also when the policy has long changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from policylang.apply.plain import Data, Plain
from policylang.backends.base import Artifact, OutputFile
from policylang.ir.origin import Origin
from policylang.source import SourceFile, Span


@dataclass(frozen=True, slots=True)
class Described:
    """An artifact without its files' texts, as plain data, and the texts of the policy."""

    data: Data
    sources: tuple[SourceFile, ...]


def describe(artifact: Artifact, sources: Iterable[SourceFile]) -> Described:
    """Describe an artifact; `sources` come first among the texts, and those of spans after."""
    writer = _Writer()
    for source in sources:
        writer.index_of(source)
    described = writer.data(artifact)
    return Described(
        {"artifact": described, "origins": writer.origins}, tuple(writer.sources.values())
    )


def restore(described: Described, texts: Mapping[str, str]) -> Artifact:
    """The artifact again; `texts` are those of its files. ValueError where it was none."""
    try:
        reader = _Reader(described.sources, texts)
        reader.origins.extend(reader.origin(one) for one in described.data["origins"])
        artifact: Artifact = reader.value(Artifact, described.data["artifact"])
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"it is no artifact: {error}") from error
    return artifact


@dataclass(slots=True)
class _Writer(Plain):
    """Origins stand in a table, each once, for a statement has many lines; texts are left out."""

    sources: dict[tuple[str, str], SourceFile] = field(default_factory=dict)
    origins: list[Data] = field(default_factory=list)
    _places: dict[tuple[str, str], int] = field(default_factory=dict)
    _known: dict[tuple[object, ...], int] = field(default_factory=dict)

    def data(self, value: object) -> Data:
        match value:
            case OutputFile():
                described = Plain.data(self, value)
                del described["text"]
                return described
            case Origin():
                return self._index_of_origin(value)
        return Plain.data(self, value)

    def index_of(self, source: SourceFile) -> int:
        key = (source.name, source.text)
        self.sources.setdefault(key, source)
        return self._places.setdefault(key, len(self._places))

    def _index_of_origin(self, origin: Origin) -> int:
        span = origin.span
        place = None if span is None else [self.index_of(span.file), span.start, span.end]
        key = (origin.why, origin.name, origin.service, *(place or ()))
        if key not in self._known:
            self._known[key] = len(self.origins)
            self.origins.append([place, Plain.data(self, replace(origin, span=None))])
        return self._known[key]


@dataclass(slots=True)
class _Reader(Plain):
    sources: tuple[SourceFile, ...]
    texts: Mapping[str, str]
    origins: list[Origin] = field(default_factory=list)

    def value(self, kind: Any, data: Data) -> Any:
        if kind is Origin:
            return self.origins[self._index(data)]
        if kind is OutputFile:
            return Plain.value(self, kind, {**data, "text": self.texts[data["name"]]})
        return Plain.value(self, kind, data)

    def origin(self, data: Data) -> Origin:
        place, words = data
        origin: Origin = Plain.value(self, Origin, words)
        if place is None:
            return origin
        file, start, end = map(self._index, place)
        source = self.sources[file]
        if not start <= end <= len(source.text):
            raise ValueError("a statement stands behind the end of its file")
        return replace(origin, span=Span(source, start, end))

    def _index(self, data: Data) -> int:
        index: int = Plain.value(self, int, data)
        if index < 0:
            raise ValueError(f"{index} is no place in a list")
        return index
