"""Values of ours as texts that travel from one machine to another, and back; opens no connection.

A dataclass is told with its class, for one may stand in the place of another (`Accept` and `Drop`
have the same fields). Texts of policies and origins of rules stand in tables, each once. Both ends
run the same policylang; whatever is not exactly what is asked for is refused all the same.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, is_dataclass, replace
from datetime import date, datetime
from enum import IntEnum
from typing import Any

from policylang.apply.plain import Data, Plain
from policylang.ir.origin import Origin
from policylang.source import SourceFile

CLASS = ""  # a key that is no field's name


def written(value: object) -> str:
    """A value as text; TypeError for what has no plain form."""
    writer = _Writer()
    data = writer.data(value)
    sources = [[one.name, one.text] for one in writer.sources]
    return json.dumps({"sources": sources, "origins": writer.origins, "value": data})


def read(kind: Any, text: str) -> Any:
    """The value of a type that was written so; ValueError where it is none."""
    try:
        told = json.loads(text)
        sources = tuple(SourceFile(str(name), str(words)) for name, words in told["sources"])
        reader = _Reader(sources)
        reader.origins.extend(reader.origin(one) for one in told["origins"])
        return reader.value(kind, told["value"])
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"it is no value of ours: {error}") from error


@dataclass(slots=True)
class _Writer(Plain):
    sources: list[SourceFile] = field(default_factory=list)
    origins: list[Data] = field(default_factory=list)
    _places: dict[SourceFile, int] = field(default_factory=dict)
    _known: dict[tuple[object, ...], int] = field(default_factory=dict)

    def data(self, value: object) -> Data:
        match value:
            case SourceFile():
                return self._place(value)
            case Origin():
                return self._index(value)
            case date() if not isinstance(value, datetime):
                return value.isoformat()
        described = Plain.data(self, value)
        if is_dataclass(value):
            described[CLASS] = type(value).__name__
        return described

    def _place(self, source: SourceFile) -> int:
        if source not in self._places:
            self._places[source] = len(self.sources)
            self.sources.append(source)
        return self._places[source]

    def _index(self, origin: Origin) -> int:
        span = origin.span
        place = None if span is None else [self._place(span.file), span.start, span.end]
        key = (origin.why, origin.name, origin.service, *(place or ()))
        if key not in self._known:
            self._known[key] = len(self.origins)
            described = Plain.data(self, replace(origin, span=None))
            described["span"] = None if span is None else self.data(span)
            self.origins.append(described)
        return self._known[key]


@dataclass(slots=True)
class _Reader(Plain):
    sources: tuple[SourceFile, ...]
    origins: list[Origin] = field(default_factory=list)

    def origin(self, data: Data) -> Origin:
        found: Origin = Plain.value(self, Origin, data)
        return found

    def value(self, kind: Any, data: Data) -> Any:
        if kind is SourceFile:
            return self.sources[self._index(data)]
        if kind is Origin:
            return self.origins[self._index(data)]
        if kind is date:
            return date.fromisoformat(Plain.value(self, str, data))
        if isinstance(kind, type) and issubclass(kind, IntEnum):
            return kind(Plain.value(self, int, data))
        if is_dataclass(kind):
            if not isinstance(data, dict) or data.get(CLASS) != getattr(kind, "__name__", None):
                raise ValueError(f"another value stands where {kind} is expected")
            data = {name: one for name, one in data.items() if name != CLASS}
        return Plain.value(self, kind, data)

    def _index(self, data: Data) -> int:
        index: int = Plain.value(self, int, data)
        if index < 0:
            raise ValueError(f"{index} is no place in a list")
        return index
