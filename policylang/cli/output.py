"""Writes what a policy compiles to: all of it or nothing; knows nothing of what is in it."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from policylang.diagnostics import Report

HEAD_BYTES = 200


def write_stdout(text: str, report: Report) -> None:
    """Write to standard output as UTF-8, to its end; reports `cannot-write`.

    Raises BrokenPipeError where nobody reads it.
    """
    if sys.stdout is None:
        report.add("cannot-write", "standard output is closed", None)
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        report.add("cannot-write", f"cannot write to standard output: {error.strerror}", None)


def write_file(path: Path, text: str, report: Report) -> None:
    """Put a file in place, with the rights of the one that was there; reports `cannot-write`.

    What is no regular file (a device, a pipe) is written to as it is.
    """
    if path.is_dir():
        report.add("cannot-write", f"cannot write `{path}`: it is a folder", None)
        return
    with _told(path, report):
        target = Path(os.path.realpath(path))  # a link stays a link
        if target.exists() and not target.is_file():
            target.write_bytes(text.encode())
        else:
            _replace({target: text}, ())


def replace_file(path: Path, text: str, report: Report) -> None:
    """Put a file in the place of what is there, also of a link; reports `cannot-write`.

    For what is done without anybody looking on: who may write to the folder could make a link to
    any file of the machine.
    """
    with _told(path, report):
        _replace({path: text}, ())


def is_folder(path: str | None) -> bool:
    """Whether a place that was asked for is a folder: it is one, or a `/` says so."""
    return path is not None and (path.endswith(os.sep) or Path(path).is_dir())


def write_folder(
    folder: Path,
    files: Mapping[str, str],
    stale: Collection[str],
    report: Report,
    *,
    careful: Collection[str] = (),
) -> None:
    """Put all files in place, and then delete those of `stale` that an earlier compile made.

    Names may have folders of their own in them, `web1/rules.v4`.
    Nothing is replaced or deleted before every file is on the disk, and nothing at all where a
    file of `careful`, whose name others use as well, is not ours. Reports `cannot-write`.
    """
    with _told(folder, report):
        for parent in {(folder / name).parent for name in files}:
            parent.mkdir(parents=True, exist_ok=True)
        for path in (folder / name for name in files if name in careful):
            if path.exists() and not is_ours(path):
                message = f"cannot write `{path}`: it is there, and policylang did not make it"
                report.add("cannot-write", message, None)
                return
        _replace(
            {folder / name: text for name, text in files.items()},
            [folder / name for name in stale if is_ours(folder / name)],
        )


def write_files(files: Mapping[Path, str], stale: Collection[Path], report: Report) -> None:
    """Put files in place, wherever they are, and then delete those of `stale`; see `write_folder`.

    Folders are made, and removed again where nothing is left in them. Reports `cannot-write`, of
    the folder that all of them are in.
    """
    parents = {path.parent for path in (*files, *stale)}
    with _told(Path(os.path.commonpath(parents)) if parents else Path(), report):
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
        _replace(files, stale)
        for folder in sorted({path.parent for path in stale}, reverse=True):
            with contextlib.suppress(OSError):  # something is left in it
                folder.rmdir()


def is_ours(path: Path) -> bool:
    """Whether a file says at its head that policylang made it."""
    try:
        with path.open("rb") as file:
            return b"policylang" in file.read(HEAD_BYTES)
    except FileNotFoundError:
        return False


def _replace(files: Mapping[Path, str], stale: Collection[Path]) -> None:
    with contextlib.ExitStack() as unfinished:
        ready: dict[Path, Path] = {}
        for path, text in files.items():
            ready[path] = _written_aside(path, text)
            unfinished.callback(ready[path].unlink, missing_ok=True)
        for path, aside in ready.items():
            aside.replace(path)
    for path in stale:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in files}:
        _sync(folder)


def _written_aside(path: Path, text: str) -> Path:
    """A complete file beside `path`, on the disk, with the rights and owner it is to have."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            _take_rights(file.fileno(), path)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        Path(name).unlink()
        raise
    return Path(name)


def _take_rights(descriptor: int, path: Path) -> None:
    try:
        before = path.stat()
    except FileNotFoundError:
        mask = os.umask(0o077)
        os.umask(mask)
        os.fchmod(descriptor, 0o666 & ~mask)
        return
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
    with contextlib.suppress(PermissionError):  # only root may give a file away
        os.fchown(descriptor, before.st_uid, before.st_gid)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told(path: Path, report: Report) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        report.add("cannot-write", f"cannot write `{path}`: {error.strerror or error}", None)
