"""Tells whether the files of a folder are those that were put there, as sha256sum(1) can too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

SUMS = "SHA256SUMS"


def with_sums(files: Mapping[str, bytes], last: str) -> dict[str, bytes]:
    """Files with the one that tells their sums, in which `last` has the last line.

    So whoever finds the line of `last` has the lines of all the others.
    """
    return {**files, SUMS: _sums(files, last)}


def verified(folder: Path, last: str) -> dict[str, bytes]:
    """The files of a folder, all exactly as they were given to `with_sums`.

    OSError where one cannot be read, ValueError where one is not what it was.
    """
    names = sorted(entry.name for entry in os.scandir(folder))
    files = {name: (folder / name).read_bytes() for name in names}
    told = files.pop(SUMS, b"")
    if told != _sums(files, last):
        raise ValueError(_difference(told, files))
    return files


def _sums(files: Mapping[str, bytes], last: str) -> bytes:
    names = sorted(files, key=lambda name: (name == last, name))
    return "".join(f"{_sum(files[name])}  {name}\n" for name in names).encode()


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _difference(told: bytes, files: Mapping[str, bytes]) -> str:
    lines = [line.split("  ", 1) for line in told.decode(errors="replace").splitlines()]
    sums = {line[1]: line[0] for line in lines if len(line) == 2}
    for name in sums:
        if name not in files:
            return f"`{name}` is missing"
    for name, content in files.items():
        if sums.get(name, _sum(content)) != _sum(content):
            return f"`{name}` is damaged"
    return f"`{SUMS}` is damaged"
