"""Reads a policy and all that it names: includes, lists, the catalogue; the edge of `syntax`.

The one module here that opens files. What the files say is for `parse` and `lists`.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from policylang.diagnostics import Label, Report
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.lists import parse_list
from policylang.syntax.parse import parse
from policylang.syntax.wording import quoted

SUFFIX = ".policy"
MOST_OPEN = 50  # files that include one another

_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves of characters


def load(path: Path, report: Report) -> tree.Loaded:
    """The policy in a file, with all that it includes and names.

    Never raises on account of a file: what cannot be read is reported and left out.
    """
    loader = _Loader(path.parent, report)
    file = loader.read(path, None)
    if file is not None:
        loader.include(file, path, None)
    return loader.loaded()


def load_text(text: str, name: str, folder: Path, report: Report) -> tree.Loaded:
    """The policy in a text that came from elsewhere, standard input say.

    `name` is what messages call it; paths in it are relative to `folder`.
    """
    loader = _Loader(folder, report)
    file = SourceFile(name, text.removeprefix("\N{BYTE ORDER MARK}"))
    if loader.is_text(file):
        loader.include(file, folder / name, None)
    return loader.loaded()


@dataclass(slots=True)
class _Loader:
    """What has been read so far. `folder` is the one that file names are relative to."""

    folder: Path
    report: Report
    statements: list[tree.Statement] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    lists: dict[tuple[str, str], tree.ListFile] = field(default_factory=dict)
    open: dict[str, Span | None] = field(default_factory=dict)  # path: the include that read it
    done: set[str] = field(default_factory=set)  # paths of files that were included
    read_lists: dict[str, tree.ListFile | None] = field(default_factory=dict)

    # --- files ------------------------------------------------------------------------------

    def read(self, path: Path, span: Span | None) -> SourceFile | None:
        """A file's text; `span` is what names it. Reports what cannot be read."""
        name = self.name_of(path)
        try:
            data = path.read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no such path"
            self.report.add(
                "unreadable-file", f"cannot read {quoted(name)}: {why[0].lower()}{why[1:]}", span
            )
            return None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode("utf-8")
            file = SourceFile(name, before + error.object[error.start :].decode("latin-1"))
            self.report.add(
                "not-utf8",
                f"byte {error.object[error.start]:#04x} is not UTF-8",
                Span(file, len(before), len(before) + 1),
                help="save the file as UTF-8",
            )
            return None
        file = SourceFile(name, text)
        return file if self.is_text(file) else None

    def is_text(self, file: SourceFile) -> bool:
        """Whether a text holds nothing that no text file holds; reports the first."""
        match = _NO_TEXT.search(file.text)
        if match is None:
            return True
        span = Span(file, match.start(), match.end())
        self.report.add("not-utf8", f"the character U+{ord(match[0]):04X} is not text", span)
        return False

    def name_of(self, path: Path) -> str:
        """What messages call a file: its path from the policy's folder, with `/`."""
        name = Path(os.path.relpath(path, self.folder)).as_posix()
        return name.encode("utf-8", "backslashreplace").decode("utf-8")

    # --- includes and lists -----------------------------------------------------------------

    def include(self, file: SourceFile, path: Path, span: Span | None) -> None:
        """Take in the statements of a file, and of what it includes, in reading order."""
        key = os.path.realpath(path)
        self.open[key] = span
        document = parse(file, self.report)
        self.broken += document.broken
        for statement in document.statements:
            if isinstance(statement, tree.Include):
                for target in self.targets(statement, path.parent):
                    self.include_once(target, statement.path.span)
            else:
                self.statements.append(statement)
                if isinstance(statement, tree.SetDecl):
                    for element in (*statement.elements, *statement.exceptions):
                        if isinstance(element, tree.FileList):
                            self.list_file(element, path.parent)
        del self.open[key]
        self.done.add(key)

    def targets(self, include: tree.Include, folder: Path) -> list[Path]:
        """The files that an include names, sorted; reports a pattern that matches none."""
        text = include.path.text
        if not glob.has_magic(text):
            return [folder / text]
        found = sorted(glob.glob(text, root_dir=folder))  # noqa: PTH207 - Path: no absolute ones
        if not found:
            self.report.add("include-nothing", f"{quoted(text)} matches no file", include.path.span)
        return [folder / name for name in found]

    def include_once(self, path: Path, span: Span) -> None:
        """Take in a file unless it has been; reports a cycle."""
        key = os.path.realpath(path)
        if key in self.done:
            return
        if key in self.open:
            by = self.open[key]
            labels = (
                [Label(by, "this reads it, and has not come to its end")] if by is not None else []
            )
            self.report.add(
                "include-cycle",
                f"{quoted(self.name_of(path))} includes itself",
                span,
                labels=labels,
            )
            return
        if len(self.open) >= MOST_OPEN:
            self.report.add(
                "nested-too-deep", f"files include one another more than {MOST_OPEN} deep", span
            )
            return
        file = self.read(path, span)
        if file is None:
            self.done.add(key)
        else:
            self.include(file, path, span)

    def list_file(self, element: tree.FileList, folder: Path) -> None:
        """Read the list that a set names, unless it has been."""
        path = folder / element.path
        key = os.path.realpath(path)
        if key not in self.read_lists:
            file = self.read(path, element.span)
            self.read_lists[key] = None if file is None else parse_list(file, self.report)
        held = self.read_lists[key]
        if held is not None:
            self.lists[element.span.file.name, element.path] = held

    # --- the catalogue ----------------------------------------------------------------------

    def loaded(self) -> tree.Loaded:
        """All of it, with what the catalogue adds."""
        known = _known_services()
        services = self.services(frozenset(known))
        helpers: dict[str, tree.HelperDecl] = {}
        if any(_names_helper(s) for s in (*self.statements, *services.values())):
            document = self.catalogue_file("helpers")
            helpers = {
                s.name.text: s for s in document.statements if isinstance(s, tree.HelperDecl)
            }
        return tree.Loaded(
            tuple(self.statements), self.lists, services, known, helpers, tuple(self.broken)
        )

    def services(self, known: frozenset[str]) -> dict[str, tree.ServiceDecl | tree.ServiceGroup]:
        """The catalogue's services that the policy names and does not declare."""
        declared = {s.name.text for s in self.statements if isinstance(s, _DECLARATIONS)}
        services: dict[str, tree.ServiceDecl | tree.ServiceGroup] = {}
        wanted = list(_named_services(self.statements))
        for name in wanted:
            if name in known and name not in declared and name not in services:
                for statement in self.catalogue_file(f"services/{name}").statements:
                    if isinstance(statement, (tree.ServiceDecl, tree.ServiceGroup)):
                        services[statement.name.text] = statement
                        wanted.extend(_named_services([statement]))
        return services

    def catalogue_file(self, name: str) -> tree.Document:
        """A file of the catalogue, `ssh.policy` for `services/ssh`."""
        text = files("policylang").joinpath(f"catalogue/{name}{SUFFIX}").read_text("utf-8")
        file = SourceFile(f"catalogue/{name.rpartition('/')[2]}{SUFFIX}", text)
        return parse(file, self.report, catalogue=True)


_DECLARATIONS = (tree.ZoneDecl, tree.SetDecl, tree.ServiceDecl, tree.ServiceGroup, tree.RulesDecl)


def _known_services() -> tuple[str, ...]:
    folder = files("policylang").joinpath("catalogue/services")
    return tuple(
        sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))
    )


def _named_services(statements: list[tree.Statement]) -> Iterator[str]:
    """The names that may be those of services, blocks and groups included."""
    stack = list(reversed(statements))
    while stack:
        match stack.pop():
            case tree.RuleNode(what=what):
                yield from (element.text for element in what if isinstance(element, tree.Name))
            case tree.ServiceGroup(members=members):
                yield from (member.text for member in members)
            case tree.TrafficBlock(statements=inside) | tree.RulesDecl(statements=inside):
                stack.extend(reversed(inside))
            case _:
                pass


def _names_helper(statement: tree.Statement) -> bool:
    return isinstance(statement, tree.ServiceDecl) and any(
        isinstance(item, tree.HelperItem) for item in statement.items
    )
