"""Puts files and folders in place so that a power cut leaves the old or the new, never a part.

Everything is written aside, brought to the disk and renamed. Whoever asks handles OSError.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

ASIDE = ".new-"  # what the names of unfinished things begin with
PRIVATE = 0o700


def make_folder(folder: Path) -> None:
    """Make a folder that is nobody else's business, with those above it that are not there."""
    missing = []
    for one in (folder, *folder.parents):
        if one.is_dir():
            break
        missing.append(one)
    for one in reversed(missing):
        one.mkdir(PRIVATE, exist_ok=True)
        sync(one.parent)
    folder.chmod(PRIVATE)


def put_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put a file in the place of the one that is there."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=ASIDE)
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def put_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Put a new folder with files at a place where nothing is; FileExistsError where is."""
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=ASIDE))
    try:
        for name, content in files.items():
            with (aside / name).open("xb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o600)
                os.fsync(file.fileno())
        sync(aside)
        if path.exists():  # an empty folder would be replaced by a rename
            raise FileExistsError(17, os.strerror(17), str(path))
        aside.rename(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(path.parent)


def put_link(path: Path, target: str) -> None:
    """Let a symbolic link lead to `target`, in the place of the link or file that is there."""
    aside = path.parent / f"{ASIDE}{path.name}-{os.getpid()}"
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(target)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder with all in it; what a power cut leaves of it is no longer at its place."""
    aside = path.parent / f"{ASIDE}gone-{path.name}-{os.getpid()}"
    path.rename(aside)
    sync(path.parent)
    shutil.rmtree(aside)


def clear_unfinished(folder: Path) -> None:
    """Remove what processes that were killed left aside; nobody else may be writing there."""
    for path in folder.glob(f"{ASIDE}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Bring to the disk what a folder's entries are."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
