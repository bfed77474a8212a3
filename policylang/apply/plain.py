"""Turns frozen values into plain data that JSON can hold, and back; knows nothing of files.

What a value is made of is read off its class, so that a field that is added is never lost on
the way. Data is untrusted: whatever is not exactly what a class asks for is refused.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

Data = Any  # what json.loads returns: None, bool, int, str, lists and dicts of them


class Plain:
    """Dataclasses become objects, tuples and sets lists, mappings lists of pairs.

    Times become texts of UTC, bytes hexadecimal digits; the rest stays what it is.
    """

    def data(self, value: object) -> Data:
        """The plain form; TypeError for what has none."""
        match value:
            case None | bool() | int():
                return value
            case str():
                return str(value)
            case datetime():
                return value.astimezone(UTC).isoformat(timespec="seconds")
            case bytes():
                return value.hex()
            case tuple():
                return [self.data(item) for item in value]
            case frozenset():
                return [self.data(item) for item in sorted(value)]
            case Mapping():
                return [[self.data(key), self.data(item)] for key, item in value.items()]
        if is_dataclass(value):
            return {f.name: self.data(getattr(value, f.name)) for f in fields(value) if f.init}
        raise TypeError(f"{type(value).__name__} has no plain form")

    def value(self, kind: Any, data: Data) -> Any:
        """The value of a type whose plain form that is; ValueError where it is of no such.

        A field that is not there has its default: an earlier version did not know it.
        """
        origin = get_origin(kind)
        if origin in (Union, types.UnionType):
            return self._one_of(get_args(kind), data)
        if origin is tuple:
            return self._tuple(get_args(kind), data)
        if origin is frozenset:
            return frozenset(self._tuple((*get_args(kind), ...), data))
        if origin is Mapping:
            return dict(self._tuple((types.GenericAlias(tuple, get_args(kind)), ...), data))
        if origin is Literal:
            if data in get_args(kind):
                return data
        elif kind in (bool, int, str, types.NoneType):
            if type(data) is kind:
                return data
        elif kind is bytes:
            return bytes.fromhex(self.value(str, data))
        elif kind is datetime:
            return datetime.fromisoformat(self.value(str, data)).astimezone(UTC)
        elif isinstance(kind, type) and issubclass(kind, StrEnum):
            return kind(self.value(str, data))
        elif is_dataclass(kind):
            return self._dataclass(kind, data)
        raise ValueError(f"{data!r:.40} stands where {kind} is expected")

    def _one_of(self, kinds: tuple[Any, ...], data: Data) -> Any:
        """The value of the first type that fits."""
        for kind in kinds:
            try:
                return self.value(kind, data)
            except ValueError:
                continue
        raise ValueError(f"{data!r:.40} stands where one of {kinds} is expected")

    def _tuple(self, kinds: tuple[Any, ...], data: Data) -> tuple[Any, ...]:
        if not isinstance(data, list):
            raise ValueError(f"{data!r:.40} stands where a list is expected")
        if kinds[-1] is Ellipsis:
            return tuple(self.value(kinds[0], item) for item in data)
        return tuple(self.value(kind, item) for kind, item in zip(kinds, data, strict=True))

    def _dataclass(self, kind: Any, data: Data) -> Any:
        if not isinstance(data, dict):
            raise ValueError(f"{data!r:.40} stands where a {kind.__name__} is expected")
        kinds, needed = _fields(kind)
        if not needed <= data.keys() <= kinds.keys():
            raise ValueError(f"a {kind.__name__} has {[*kinds]} and not {[*data]}")
        return kind(**{name: self.value(kinds[name], one) for name, one in data.items()})


@cache
def _fields(kind: Any) -> tuple[Mapping[str, Any], frozenset[str]]:
    """The types of a dataclass's fields, and those fields that have no default."""
    hints = get_type_hints(kind)
    given = [f for f in fields(kind) if f.init]
    needed = (f.name for f in given if f.default is MISSING and f.default_factory is MISSING)
    return {f.name: hints[f.name] for f in given}, frozenset(needed)
