"""Which policies of a folder outputs are kept of, and what each of them is given from outside.

A policy is a file `*.policy` that no other includes. Its parameters are in a file beside it, of its
name with `.params`: a line `NAME = VALUE` for each. It knows nothing of what policies compile to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policylang import pipeline
from policylang.diagnostics import Label, Report
from policylang.source import SourceFile, Span
from policylang.syntax.decoding import decoded
from policylang.syntax.tree import Loaded

SUFFIX, PARAMETERS, KEPT = ".policy", ".params", ".golden"
_LINE = re.compile(r'[ \t]*(?P<name>[^\s=#"]+)[ \t]*=[ \t]*(?P<value>(?:[^"#\n]|"[^"\n]*")+)')


@dataclass(frozen=True, slots=True)
class Case:
    """A policy as it was read: `path` from this folder, and what was found wrong with it so far."""

    path: Path
    loaded: Loaded
    report: Report

    @property
    def folder(self) -> Path:
        """Where its outputs are kept."""
        return kept_beside(self.path)


def kept_beside(policy: Path) -> Path:
    """Where the outputs of a policy are kept: `web.golden` beside `web.policy`."""
    return policy.with_suffix(KEPT)


def cases(
    paths: Iterable[Path], inventory: tuple[SourceFile, ...], report: Report
) -> tuple[Case, ...]:
    """The policies in folders, and those that are named themselves, in the order of their paths.

    Reports `unreadable-file` for a path that is neither, and `no-policies` for a folder without.
    """
    named: dict[Path, None] = {}
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = list(_below(path, SUFFIX))
            found |= dict.fromkeys(below)
            if not below:
                message = f"there is no policy in `{path}`"
                report.add("no-policies", message, None, help=f"policies are files `*{SUFFIX}`")
        elif path.is_file():
            named[path] = None
        else:
            report.add("unreadable-file", f"cannot read `{path}`: no such file or folder", None)
    read = {path: _read(path, inventory) for path in {**named, **found}}
    parts = _parts(read.values())
    return tuple(read[path] for path in sorted(read) if path in named or _key(path) not in parts)


def folders_without(paths: Iterable[Path], known: Iterable[Case]) -> tuple[Path, ...]:
    """Folders of kept outputs below these whose policy is not there any more."""
    kept = {case.folder for case in known}
    below = {one for path in paths if path.is_dir() for one in _below(path, KEPT)}
    return tuple(sorted(below - kept))


def _below(folder: Path, suffix: str) -> Iterator[Path]:
    """What is called so below a folder; what is hidden, or kept, is not looked at."""
    for where, folders, files in os.walk(folder):
        here = Path(where)
        if suffix == KEPT:
            yield from (here / name for name in folders if _is_called(name, suffix))
        else:
            yield from (here / name for name in files if _is_called(name, suffix))
        folders[:] = [n for n in folders if not (n.startswith(".") or n.endswith(KEPT))]


def _is_called(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def _read(path: Path, inventory: tuple[SourceFile, ...]) -> Case:
    report = Report()
    parameters = parameters_beside(path, report)
    source = pipeline.OfHost(path, None, inventory) if inventory else path
    return Case(path, pipeline.loaded_from(source, report, parameters), report)


def _parts(read: Iterable[Case]) -> frozenset[str]:
    """The files that are only parts: another one includes them, and they do not include that one.

    Of files that include one another, which is a mistake, none is a part: it is told.
    """
    includes = {_key(case.path): frozenset(_included(case)) for case in read}
    return frozenset(
        part
        for whole, parts in includes.items()
        for part in parts
        if part != whole and whole not in includes.get(part, frozenset())
    )


def _included(case: Case) -> Iterator[str]:
    for file in case.loaded.files:
        yield _key(case.path.parent / file.name)


def _key(path: Path) -> str:
    return os.path.realpath(path)


# --- parameters -------------------------------------------------------------------------------


def parameters_beside(policy: Path, report: Report) -> Mapping[str, str]:
    """The values of a policy's parameters, as texts of the language; nothing where no file is.

    Reports `bad-params`, `not-utf8` and `unreadable-file`.
    """
    path = policy.with_suffix(PARAMETERS)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        report.add("unreadable-file", f"cannot read `{path.name}`: {error.strerror}", None)
        return {}
    file = decoded(data, path.name, report)
    return {} if file is None else _parameters(file, report)


def _parameters(file: SourceFile, report: Report) -> dict[str, str]:
    values: dict[str, str] = {}
    places: dict[str, Span] = {}
    for number, start in enumerate(file.line_starts, start=1):
        line = file.line_text(number).removeprefix("\N{BYTE ORDER MARK}")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = Span(file, start, start + len(file.line_text(number)))
        found = _LINE.match(line)
        value = "" if found is None else found["value"].strip()
        rest = "" if found is None else line[found.end() :]
        if found is None or not value or (rest and not rest.startswith("#")):
            message = "the line gives no parameter a value"
            help_ = "a line is `NAME = VALUE`, and `#` starts a comment"
            report.add("bad-params", message, whole, help=help_)
            continue
        name = found["name"]
        span = Span(file, start + found.start("name"), start + found.end("name"))
        if name in values:
            label = Label(places[name], "it has one here")
            message = f"the parameter `{name}` is given a second value"
            report.add("bad-params", message, span, labels=(label,))
            continue
        values[name], places[name] = value, span
    return values
