"""Values that differ in one attribute alone, and all the attributes that there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any, TypeVar, get_args, get_type_hints

from policylang.packets.cube import Cube
from policylang.packets.values import Ranges

T = TypeVar("T")

VALUES = (Ranges, Cube)  # dataclasses that are one value


def reached(root: type, found: set[type] | None = None) -> set[type]:
    """The dataclasses and enumerations that values of a class are made of, itself included."""
    found = set() if found is None else found
    if root in found or root in VALUES:
        return found
    if is_dataclass(root):
        found.add(root)
        hints = get_type_hints(root)
        for attribute in attributes(root):
            for part in _parts(hints[attribute]):
                reached(part, found)
    elif issubclass(root, Enum):
        found.add(root)
    return found


def _parts(hint: Any) -> Iterator[type]:
    arguments = get_args(hint)
    for argument in arguments:
        yield from _parts(argument)
    if not arguments and isinstance(hint, type):
        yield hint


def attributes(of: type) -> list[str]:
    """The attributes of a dataclass that take part in what its values mean."""
    return [field.name for field in fields(of) if field.compare]


def changed(value: T, of: type, attribute: str, new: Any) -> T:
    """The value with an attribute set anew in the first instance of a class that it changes.

    `new` is what to set, or a function of what is set. Fails where there is no such instance.
    """
    result, is_done = _changed(value, of, attribute, new)
    assert is_done, f"no {of.__name__} in it, or no other {attribute}"
    return result  # type: ignore[no-any-return]


def first(value: Any, of: type) -> Any:
    """The first instance of a class in a value, or None."""
    if type(value) is of:
        return value
    for part in _held(value):
        found = first(part, of)
        if found is not None:
            return found
    return None


def _held(value: Any) -> Iterator[Any]:
    if is_dataclass(value) and not isinstance(value, (type, *VALUES)):
        yield from (getattr(value, name) for name in attributes(type(value)))
    elif isinstance(value, tuple):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()


def _changed(value: Any, of: type, attribute: str, new: Any) -> tuple[Any, bool]:
    if type(value) is of:
        old = getattr(value, attribute)
        wanted = new(old) if callable(new) else new
        if wanted != old:
            return replace(value, **{attribute: wanted}), True  # type: ignore[type-var]
    if is_dataclass(value) and not isinstance(value, (type, *VALUES)):
        for name in attributes(type(value)):
            inner, is_done = _changed(getattr(value, name), of, attribute, new)
            if is_done:
                return replace(value, **{name: inner}), True
    elif isinstance(value, tuple):
        for number, element in enumerate(value):
            inner, is_done = _changed(element, of, attribute, new)
            if is_done:
                return (*value[:number], inner, *value[number + 1 :]), True
    elif isinstance(value, dict):
        for key, element in value.items():
            inner, is_done = _changed(element, of, attribute, new)
            if is_done:
                return {**value, key: inner}, True
    return value, False
