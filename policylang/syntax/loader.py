"""Reads a policy and all that it names: includes, lists, the catalogue; the edge of `syntax`.

The one module here that opens files. What the files say is for `parse` and `lists`.
"""

from __future__ import annotations

import glob
import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from policylang.diagnostics import Label, Report
from policylang.silences import Misfit, silences
from policylang.source import SourceFile, Span
from policylang.syntax import tree
from policylang.syntax.decoding import decoded, is_text
from policylang.syntax.mentions import flat, named_services, named_sets
from policylang.syntax.parameters import Parameters
from policylang.syntax.parse import opened, parse, read_question
from policylang.syntax.wording import quoted

if TYPE_CHECKING:
    from policylang.syntax.locks import Lock

SUFFIX = ".policy"
LOCK_SUFFIX = ".lock"  # behind the whole name of the policy's file
SERVICES, GROUPS = "services", "groups"  # folders of the catalogue
MOST_OPEN = 50  # files that include one another

NO_PARAMETERS: Mapping[str, str] = MappingProxyType({})


def load(
    path: Path,
    report: Report,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    questions: Iterable[SourceFile] = (),
    inventory: Iterable[SourceFile] = (),
) -> tree.Loaded:
    """The policy in a file, with all that it includes and names.

    `parameters` are the values of its parameters that are set from outside, `questions` what is
    asked of it in its own words: a test each, behind those that it has. `inventory` are texts of
    the language that are read before it, as if it included them. Never raises on account of a
    file: what cannot be read is reported and left out.
    """
    loader = _Loader(path.parent, report, Parameters.given(parameters, report), path)
    file = loader.read(path, None)
    if file is not None:
        loader.take_inventory(inventory)
        loader.include(file, path, None)
        loader.ask(questions)
    return loader.loaded()


def load_text(
    text: str,
    name: str,
    folder: Path,
    report: Report,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    questions: Iterable[SourceFile] = (),
    inventory: Iterable[SourceFile] = (),
) -> tree.Loaded:
    """The policy in a text that came from elsewhere, standard input say.

    `name` is what messages call it; paths in it are relative to `folder`. A name as of standard
    input, `<stdin>`, is no file's, and then there is no lock file.
    """
    policy = None if name.startswith("<") else folder / name
    loader = _Loader(folder, report, Parameters.given(parameters, report), policy)
    file = SourceFile(name, text.removeprefix("\N{BYTE ORDER MARK}"))
    if is_text(file, report):
        loader.take_inventory(inventory)
        loader.include(file, folder / name, None)
        loader.ask(questions)
    return loader.loaded()


def lock_path(policy: Path) -> Path:
    """Where the lock file of a policy's file is."""
    return policy.with_name(policy.name + LOCK_SUFFIX)


def read_lock_beside(policy: Path, name: str, report: Report) -> Lock | None:
    """What the lock file beside a policy holds, which messages call `name`; nothing without one.

    None, reported, where it cannot be read: `unreadable-file`, `not-utf8`, `damaged-lock`.
    """
    try:
        data = lock_path(policy).read_bytes()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such path"
        message = f"cannot read {quoted(name)}: {why[0].lower()}{why[1:]}"
        report.add("unreadable-file", message, None)
        return None
    from policylang.syntax.locks import read_lock  # as lists below

    file = decoded(data, name, report)
    return None if file is None else read_lock(file, report)


def load_catalogue(report: Report) -> tree.Loaded:
    """All services and groups of addresses that are built in, and no statement."""
    loader = _Loader(Path(), report, Parameters(report))
    services, sets = catalogue_names(SERVICES), catalogue_names(GROUPS)
    return loader.with_catalogue((), services, sets, frozenset())


@dataclass(slots=True)
class _Loader:
    """What has been read so far. `folder` is the one that file names are relative to.

    `policy` is the file of the policy, None where it has none.
    """

    folder: Path
    report: Report
    parameters: Parameters
    policy: Path | None = None
    wants_lock: bool = False
    files: list[SourceFile] = field(default_factory=list)
    beside: int = 0  # how many of them, the first, are no part of the policy
    statements: list[tree.Statement] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    lists: dict[tuple[str, tree.FileList], tree.ListFile] = field(default_factory=dict)
    open: dict[str, Span | None] = field(default_factory=dict)  # path: the include that read it
    done: set[str] = field(default_factory=set)  # paths of files that were included
    read_lists: dict[tuple[str, tree.Number | tree.Text | None], tree.ListFile | None] = field(
        default_factory=dict
    )

    # --- files ------------------------------------------------------------------------------

    def read(self, path: Path, span: Span | None) -> SourceFile | None:
        """A file's text; `span` is what names it. Reports what cannot be read."""
        data = self.read_bytes(path, span)
        return None if data is None else self.decoded(path, data)

    def read_bytes(self, path: Path, span: Span | None) -> bytes | None:
        """What a file holds; reports what cannot be read."""
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no such path"
            self.report.add(
                "unreadable-file",
                f"cannot read {quoted(self.name_of(path))}: {why[0].lower()}{why[1:]}",
                span,
            )
            return None

    def decoded(self, path: Path, data: bytes) -> SourceFile | None:
        """The text that a file holds, less a byte order mark; reports what is none."""
        return decoded(data.removeprefix(BOM_UTF8), self.name_of(path), self.report)

    def name_of(self, path: Path) -> str:
        """What messages call a file: its path from the policy's folder, with `/`."""
        name = Path(os.path.relpath(path, self.folder)).as_posix()
        return name.encode("utf-8", "backslashreplace").decode("utf-8")

    # --- includes and lists -----------------------------------------------------------------

    def include(self, file: SourceFile, path: Path, span: Span | None) -> None:
        """Take in the statements of a file, and of what it includes, in reading order."""
        key = os.path.realpath(path)
        self.open[key] = span
        self.files.append(file)
        for misfit in (s for s in silences(file) if isinstance(s, Misfit)):
            self.report.add("bad-allow", misfit.message, misfit.span, help=misfit.help)
        with opened(file, self.report, self.parameters) as statements:
            for statement in statements.read(catalogue=False):
                self.take(statement, path)
            self.broken += statements.broken
        del self.open[key]
        self.done.add(key)

    def take_inventory(self, inventory: Iterable[SourceFile]) -> None:
        """Take in texts that are given beside the policy, each once; their names are their paths.

        A name in angle brackets is no file's: then paths in it start at the policy's folder.
        """
        for file in inventory:
            is_file = not file.name.startswith("<")
            path = Path(file.name) if is_file else self.folder / file.name
            if os.path.realpath(path) not in self.done:
                self.include(file, path, None)
        self.beside = len(self.files)

    def ask(self, questions: Iterable[SourceFile]) -> None:
        """Take in what is asked, in the names and parameters of all that was read."""
        for file in questions:
            question = read_question(file, self.report, self.parameters)
            if question is not None:
                self.statements.append(question)

    def take(self, statement: tree.Statement, path: Path) -> None:
        """Take in a statement of the file at `path`, before the next one is read."""
        match statement:
            case tree.Include():
                for target in self.targets(statement, path.parent):
                    self.include_once(target, statement.path.span)
                return
            case tree.ParamDecl():
                self.parameters.declare(statement)
                return
            case tree.SetDecl():
                self.take_set(statement, path)
            case tree.OnBlock():
                for one in statement.statements:
                    if isinstance(one, tree.SetDecl):
                        self.take_set(one, path)
            case _:
                pass
        self.statements.append(statement)

    def take_set(self, declaration: tree.SetDecl, path: Path) -> None:
        """Read what a set of the file at `path` is made of elsewhere."""
        self.wants_lock |= declaration.listed is not None
        for element in (*declaration.elements, *declaration.exceptions):
            if isinstance(element, tree.FileList):
                self.list_file(element, path.parent)

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
        if "://" in element.path:
            self.report.add(
                "unreadable-file",
                f"{quoted(element.path)} is no file of this machine",
                element.span,
                help=f'a list from elsewhere is a set: `set NAME = url "{element.path}"`',
            )
            return
        path = folder / element.path
        key = os.path.realpath(path), element.column
        if key not in self.read_lists:
            self.read_lists[key] = self.list_of(path, element)
        held = self.read_lists[key]
        if held is not None:
            self.lists[element.span.file.name, element] = held

    def list_of(self, path: Path, element: tree.FileList) -> tree.ListFile | None:
        """What a list file holds; None where it cannot be read, which is reported."""
        data = self.read_bytes(path, element.span)
        if data is None:
            return None
        # Most policies read no list, and their formats take milliseconds to import.
        from policylang.syntax.lists import packed_by, parse_list

        packed = packed_by(data)
        if packed is not None:
            form, program = packed
            self.report.add(
                "bad-list-format",
                f"{quoted(self.name_of(path))} is packed by {form}",
                element.span,
                help=f"unpack it with `{program}`: lists are read as text",
            )
            return None
        file = self.decoded(path, data)
        return None if file is None else parse_list(file, self.report, element.column)

    def locked(self) -> tree.LockedAddresses | None:
        """What the lock file holds, nothing where there is none; None where it is damaged."""
        if self.policy is None:
            return tree.LockedAddresses({}, None)
        lock = read_lock_beside(self.policy, self.name_of(lock_path(self.policy)), self.report)
        if lock is None:
            return None
        addresses = {key: locked.addresses for key, locked in lock.items()}
        return tree.LockedAddresses(addresses, self.name_of(self.policy))

    # --- the catalogue ----------------------------------------------------------------------

    def loaded(self) -> tree.Loaded:
        """All of it, with what the catalogue adds."""
        self.parameters.tell_undeclared()
        declared = self.declared()
        statements = tuple(self.statements)
        return self.with_catalogue(
            statements,
            [name for name in named_services(statements) if name not in declared],
            [name for name in named_sets(statements) if name not in declared],
            declared,
        )

    def with_catalogue(
        self,
        statements: tuple[tree.Statement, ...],
        services: Iterable[str],
        sets: Iterable[str],
        declared: frozenset[str],
    ) -> tree.Loaded:
        """Statements with those of the named services and sets that the catalogue has.

        What the services name is read as well, unless it is declared.
        """
        known_services, known_sets = catalogue_names(SERVICES), catalogue_names(GROUPS)
        read_services = self.services(services, frozenset(known_services) - declared)
        helpers: dict[str, tree.HelperDecl] = {}
        if any(_names_helper(s) for s in (*flat(statements), *read_services.values())):
            document = self.catalogue_file("helpers")
            helpers = {
                s.name.text: s for s in document.statements if isinstance(s, tree.HelperDecl)
            }
        return tree.Loaded(
            statements,
            self.lists,
            read_services,
            known_services,
            helpers,
            tuple(self.broken),
            self.sets(sets, frozenset(known_sets)),
            known_sets,
            self.locked() if self.wants_lock else None,
            files=(*self.files[self.beside :], *self.files[: self.beside]),
            beside=tuple(self.files[: self.beside]),
        )

    def services(
        self, names: Iterable[str], known: frozenset[str]
    ) -> dict[str, tree.ServiceDecl | tree.ServiceGroup]:
        """The services among the names that are known, and those that they name."""
        services: dict[str, tree.ServiceDecl | tree.ServiceGroup] = {}
        wanted = list(names)
        for name in wanted:
            if name in known and name not in services:
                for statement in self.catalogue_file(f"{SERVICES}/{name}").statements:
                    if isinstance(statement, (tree.ServiceDecl, tree.ServiceGroup)):
                        services[statement.name.text] = statement
                        wanted.extend(named_services([statement]))
        return services

    def sets(self, names: Iterable[str], known: frozenset[str]) -> dict[str, tree.SetDecl]:
        """The groups of addresses among the names that are known."""
        return {
            statement.name.text: statement
            for name in dict.fromkeys(names)
            if name in known
            for statement in self.catalogue_file(f"{GROUPS}/{name}").statements
            if isinstance(statement, tree.SetDecl)
        }

    def declared(self) -> frozenset[str]:
        """The names that the policy declares for all of its hosts."""
        return frozenset(s.name.text for s in self.statements if isinstance(s, _DECLARATIONS))

    def catalogue_file(self, name: str) -> tree.Document:
        """A file of the catalogue, `ssh.policy` for `services/ssh`."""
        text = files("policylang").joinpath(f"catalogue/{name}{SUFFIX}").read_text("utf-8")
        file = SourceFile(f"catalogue/{name.rpartition('/')[2]}{SUFFIX}", text)
        return parse(file, self.report, catalogue=True)


_DECLARATIONS = (
    *(tree.ZoneDecl, tree.SetDecl, tree.ServiceDecl, tree.ServiceGroup, tree.RulesDecl),
    tree.HostDecl,
)


@cache  # nothing else in a compile reads a folder of so many files
def catalogue_names(folder: str) -> tuple[str, ...]:
    """The names of all that the catalogue has in a folder (`SERVICES`, `GROUPS`), sorted."""
    held = files("policylang").joinpath(f"catalogue/{folder}")
    return tuple(
        sorted(f.name.removesuffix(SUFFIX) for f in held.iterdir() if f.name.endswith(SUFFIX))
    )


def _names_helper(statement: tree.Statement) -> bool:
    return isinstance(statement, tree.ServiceDecl) and any(
        isinstance(item, tree.HelperItem) for item in statement.items
    )
