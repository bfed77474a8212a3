"""Files as they are in a revision of git, laid out in a folder for as long as they are needed.

It knows git, and nothing of what the files are. Neither the working tree nor the index is touched.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from policylang.diagnostics import Report

PATIENCE_S = 120
_FILE, _FOLDER = b"blob\n", b"tree\n"  # git-cat-file(1): what is kept under a path
FOLDER, TREE = "policylang-", "tree"  # what is made for a revision begins so, and holds its files


@dataclass(frozen=True, slots=True)
class Revision:
    """A file of a revision: `name` as git takes it (`HEAD~1`, `v2`), `path` in it.

    `shown` is how lines call the path where that is not as it was written.
    """

    name: str
    path: str
    shown: str = ""

    @property
    def text(self) -> str:
        """As git writes it: `HEAD~1:site.policy`."""
        return f"{self.name}:{self.shown or self.path}"


def revision_of(words: str) -> Revision | None:
    """The file of a revision that `REV:PATH` names; None for words of another form."""
    name, colon, path = words.partition(":")
    return Revision(name, path) if name and colon and path else None


def both_ends(revisions: str) -> tuple[str, str | None]:
    """The two revisions of `A..B`; of `A..` and of `A` the second is None: what is there now."""
    first, _, second = revisions.partition("..")
    return first or "HEAD", second or None


@contextmanager
def laid_out(revision: Revision, report: Report) -> Iterator[Path | None]:
    """Where the file is while the context lasts, with all that the revision holds around it.

    A path counts from the top of the repository, as in `git show REV:PATH`, or where nothing is
    there, as one that starts with `./` does, from this folder. None, and `no-such-revision` or
    `git-failed`, where it cannot be had.
    """
    with trees() as laid:
        yield laid.file(revision, report)


@contextmanager
def trees() -> Iterator[Trees]:
    """Revisions laid out, as long as the context lasts."""
    with ExitStack() as folders:
        yield Trees(folders)


@dataclass(frozen=True, slots=True)
class Trees:
    """Lays out what revisions hold as `laid_out` does, each revision once."""

    _folders: ExitStack
    _tops: dict[str, Path] = field(default_factory=dict)  # by the name of the tree

    def file(self, revision: Revision, report: Report) -> Path | None:
        """Where a file is; None, reported, where it cannot be had."""
        before = len(report.diagnostics)
        found = self._laid(revision, _FILE, report)
        if found is None and len(report.diagnostics) == before:
            _report_none(revision, "that revision has no such file", report)
        return found

    def folder(self, revision: Revision, report: Report) -> Path | None:
        """Where a folder is; None where the revision has none, or reported where git cannot say."""
        return self._laid(revision, _FOLDER, report)

    def _laid(self, revision: Revision, kind: bytes, report: Report) -> Path | None:
        repository = _repository(revision, report)
        tree = None if repository is None else _tree(revision, report)
        if repository is None or tree is None:
            return None
        within = _path_within(revision, tree, repository.prefix, kind)
        if within is None:
            return None
        if tree not in self._tops:
            folder = self._folders.enter_context(tempfile.TemporaryDirectory(prefix=FOLDER))
            top = _checked_out(revision, repository, tree, Path(folder), report)
            if top is None:
                return None
            self._tops[tree] = top
        return self._tops[tree] / within


def top_of(path: Path) -> Path:
    """Where the revision begins that `laid_out` laid out, of a path in it."""
    around = (*reversed(path.parents), path)
    return next(one for one in around if one.name == TREE and one.parent.name.startswith(FOLDER))


def is_there(revision: Revision, report: Report) -> bool | None:
    """Whether the revision has the file; None, reported as by `laid_out`, where git cannot say."""
    repository = _repository(revision, report)
    tree = None if repository is None else _tree(revision, report)
    if repository is None or tree is None:
        return None
    return _path_within(revision, tree, repository.prefix) is not None


def _checked_out(
    revision: Revision, repository: _Repository, tree: str, folder: Path, report: Report
) -> Path | None:
    """Where all files of a tree are, in a folder that is empty before."""
    top = folder / TREE
    top.mkdir()
    # An index of its own, so that neither that of the repository nor its files are touched.
    # `git archive` would leave out what `export-ignore` says.
    own = {"GIT_INDEX_FILE": str(folder / "index")}
    place = (f"--git-dir={repository.folder}", f"--work-tree={top}")
    for command in (("read-tree", tree), ("checkout-index", "--all", "--force", "--quiet")):
        done = _git((*place, *command), own, cwd=top)
        if isinstance(done, str):
            message = f"git cannot lay out the revision `{revision.name}`"
            report.add("git-failed", message, None, help=done)
            return None
    return top


@dataclass(frozen=True, slots=True)
class _Repository:
    """`folder` is where git keeps it; `prefix` is this folder's path from the top, or empty."""

    folder: str
    prefix: str


def _repository(revision: Revision, report: Report) -> _Repository | None:
    folder = _git(("rev-parse", "--absolute-git-dir"))
    prefix = _git(("rev-parse", "--show-prefix"))
    for answer in (folder, prefix):
        if isinstance(answer, str):
            message = f"cannot read `{revision.text}` from git"
            report.add("git-failed", message, None, help=answer)
            return None
    assert isinstance(folder, bytes)
    assert isinstance(prefix, bytes)
    return _Repository(os.fsdecode(folder.rstrip(b"\n")), os.fsdecode(prefix.rstrip(b"\n")))


def _tree(revision: Revision, report: Report) -> str | None:
    """The name of the tree of files of a revision."""
    if not revision.name.startswith("-"):  # git would take it for an option
        found = _git(("rev-parse", "--verify", "--quiet", f"{revision.name}^{{tree}}"))
        if isinstance(found, bytes):
            return found.decode().strip()
    _report_none(revision, f"git knows no revision `{revision.name}`", report)
    return None


def _path_within(
    revision: Revision, tree: str, prefix: str, wanted: bytes = _FILE
) -> PurePosixPath | None:
    """The path of a file, or a folder, from the top of the tree; None where there is none."""
    path = revision.path
    if PurePosixPath(path).is_absolute():
        top = _git(("rev-parse", "--show-toplevel"))
        if isinstance(top, str):
            return None
        path = f"./{os.path.relpath(path, Path.cwd())}"
    from_here = os.path.normpath(PurePosixPath(prefix, path))
    is_from_here = path.startswith(("./", "../"))
    for one in (from_here,) if is_from_here else (os.path.normpath(path), from_here):
        kind = _git(("cat-file", "-t", f"{tree}:{'' if one == '.' else one}"))
        if kind == wanted:
            return PurePosixPath(one)
    return None


def _report_none(revision: Revision, why: str, report: Report) -> None:
    help_ = "`git log --oneline -- FILE` lists the revisions of a file"
    message = f"cannot read `{revision.text}`: {why}"
    report.add("no-such-revision", message, None, help=help_)


def _git(
    arguments: tuple[str, ...], more: Mapping[str, str] | None = None, cwd: Path | None = None
) -> bytes | str:
    """What git wrote, as bytes; or a text of why it did not."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", **(more or {})},
            timeout=PATIENCE_S,
        )
    except FileNotFoundError:
        return "the program `git` is not installed: apt install git"
    except subprocess.TimeoutExpired:
        return f"git was ended after {PATIENCE_S} seconds"
    except (OSError, ValueError) as error:  # ValueError: a null byte
        return f"cannot run git: {error}"
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.decode(errors="replace").strip().splitlines()
    words = "\n".join(line.removeprefix("fatal: ") for line in said)
    return words or f"git ended with status {done.returncode}"
