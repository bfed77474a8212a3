"""Which policies of a folder outputs are kept of, and what each of them is given from outside.

A policy is a file `*.policy` that no other includes. Beside it may be files of its name: `.params`
has values of its parameters, a line `NAME = VALUE` for each, and `.targets` names the targets that
it is for, where these are not all. It knows nothing of what policies compile to.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from policylang import pipeline
from policylang.backends import TARGETS
from policylang.diagnostics import Label, Report
from policylang.source import SourceFile, Span
from policylang.syntax.decoding import decoded
from policylang.syntax.tree import Loaded

SUFFIX, PARAMETERS, CHOSEN, KEPT = ".policy", ".params", ".targets", ".golden"
NEITHER = "it is neither a file nor a folder"
_WORD = re.compile(r"#[^\n]*|[^\s,#\N{BYTE ORDER MARK}]+")
_LINE = re.compile(r'[ \t]*(?P<name>[^\s=#"]+)[ \t]*=[ \t]*(?P<value>(?:[^"#\n]|"[^"\n]*")+)')


@dataclass(frozen=True, slots=True)
class Case:
    """A policy as it was read: `path` from this folder, and the `targets` that it is for.

    `report` is what was found wrong with it so far.
    """

    path: Path
    loaded: Loaded
    targets: tuple[str, ...]
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

    Reports `unreadable-file` for a path that is neither and for a folder that cannot be looked
    into, and `no-policies` for one without any.
    """
    named: dict[Path, None] = {}
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            below = list(_below(path, SUFFIX, report))
            found |= dict.fromkeys(below)
            if not below:
                message = f"there is no policy in `{path}`"
                report.add("no-policies", message, None, help=f"policies are files `*{SUFFIX}`")
        elif path.is_file():
            named[path] = None
        else:
            why = NEITHER if path.exists() else "no such file or folder"
            report.add("unreadable-file", f"cannot read `{path}`: {why}", None)
    read = {path: _read(path, inventory) for path in {**named, **found}}
    parts = _parts(read.values())
    return tuple(read[path] for path in sorted(read) if path in named or _key(path) not in parts)


def folders_without(paths: Iterable[Path], known: Iterable[Case]) -> tuple[Path, ...]:
    """Folders of kept outputs below these whose policy is not there any more."""
    kept = {case.folder for case in known}
    # What cannot be looked into was reported when policies were looked for.
    below = {one for path in paths if path.is_dir() for one in _below(path, KEPT, Report())}
    return tuple(sorted(below - kept))


def _below(folder: Path, suffix: str, report: Report) -> Iterator[Path]:
    """What is called so below a folder; what is hidden, kept, or a link to a folder is left out."""

    def tell(error: OSError) -> None:
        message = f"cannot read `{error.filename}`: {error.strerror}"
        report.add("unreadable-file", message, None)

    for where, folders, files in os.walk(folder, onerror=tell):
        here = Path(where)
        for name in folders if suffix == KEPT else files:
            path = here / name
            if not _is_called(name, suffix):
                continue
            if suffix == SUFFIX and path.exists() and not path.is_file():
                # To read a pipe would be to wait for who writes to it.
                report.add("unreadable-file", f"cannot read `{path}`: {NEITHER}", None)
            else:
                yield path
        folders[:] = [n for n in folders if not (n.startswith(".") or n.endswith(KEPT))]


def _is_called(name: str, suffix: str) -> bool:
    return name.endswith(suffix) and not name.startswith(".")


def _read(path: Path, inventory: tuple[SourceFile, ...]) -> Case:
    report = Report()
    parameters, targets = parameters_beside(path, report), targets_beside(path, report)
    source = pipeline.OfHost(path, None, inventory) if inventory else path
    return Case(path, pipeline.loaded_from(source, report, parameters), targets, report)


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


# --- what is given beside it ------------------------------------------------------------------


def parameters_beside(policy: Path, report: Report) -> Mapping[str, str]:
    """The values of a policy's parameters, as texts of the language; nothing where no file is.

    Reports `bad-params`, `not-utf8` and `unreadable-file`.
    """
    file = _beside(policy, PARAMETERS, report)
    return {} if file is None else _parameters(file, report)


def targets_beside(policy: Path, report: Report) -> tuple[str, ...]:
    """The targets that a policy is for, in the order of `TARGETS`; all where no file is.

    Reports `bad-targets`, `not-utf8` and `unreadable-file`; then they are all.
    """
    file = _beside(policy, CHOSEN, report)
    return TARGETS if file is None else _targets(file, report)


def _beside(policy: Path, suffix: str, report: Report) -> SourceFile | None:
    """The file of that suffix beside a policy; None where there is none, or it is no text."""
    path = policy.with_suffix(suffix)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        report.add("unreadable-file", f"cannot read `{path.name}`: {error.strerror}", None)
        return None
    return decoded(data, path.name, report)


def _targets(file: SourceFile, report: Report) -> tuple[str, ...]:
    known = " and ".join(TARGETS)
    named: set[str] = set()
    before = len(report.diagnostics)
    for match in _WORD.finditer(file.text):
        word = match[0]
        if word in TARGETS:
            named.add(word)
        elif not word.startswith("#"):
            span = Span(file, match.start(), match.end())
            message = f"there is no target `{word}`"
            report.add("bad-targets", message, span, help=f"targets are {known}")
    if not named and len(report.diagnostics) == before:
        help_ = f"targets are {known}; without the file it is for all of them"
        report.add("bad-targets", "the policy is for no target", Span(file, 0, 0), help=help_)
    return tuple(target for target in TARGETS if target in named) or TARGETS


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
