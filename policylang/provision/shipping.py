"""Makes the archive that travels to a target: our own modules that are run there, and no others.

What is needed is read off the modules themselves. What a function imports by itself belongs to
what is done on the controller, and stays there.
"""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = "policylang"
FOLDER = Path(__file__).resolve().parent.parent

TARGET = "policylang.provision.target"
ENTRY = "policylang.provision.entry"
FIRST = "__main__.py"  # what Python runs of an archive, or of a folder

# The beginning of time of the format, so that the same modules make the same bytes.
EPOCH = (1980, 1, 1, 0, 0, 0)
MODE = 0o644


def archive() -> bytes:
    """A zip file of the modules, the same bytes for the same modules."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, content in sorted(files().items()):
            about = zipfile.ZipInfo(name, EPOCH)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.external_attr = MODE << 16
            about.create_system = 3  # Unix, wherever it is made
            packed.writestr(about, content)
    return memory.getvalue()


def digest(package: Path = FOLDER) -> str:
    """What tells this version of our modules from any other, in hexadecimal.

    It is over all of them: which of those travel takes ten times as long to find out.
    """
    seen = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        name = path.relative_to(package).as_posix()
        seen.update(f"{name} {len(content)}\n".encode() + content)
    return seen.hexdigest()


@cache
def files() -> Mapping[str, bytes]:
    """The files of the archive, by their names in it."""
    found = {FIRST: _path(ENTRY).read_bytes()}
    for module in modules():
        path = _path(module)
        found[f"{PACKAGE}/{path.relative_to(FOLDER).as_posix()}"] = path.read_bytes()
    return found


@cache
def modules() -> frozenset[str]:
    """The names of the modules that a target needs, packages among them."""
    found: set[str] = set()
    waiting = [TARGET]
    while waiting:
        module = waiting.pop()
        if module in found:
            continue
        found.add(module)
        waiting += _imported(module)
        parent = module.rpartition(".")[0]
        if parent:
            waiting.append(parent)
    return frozenset(found)


def _imported(module: str) -> Iterator[str]:
    """The modules of ours that a module imports when it is imported itself."""
    for statement in ast.parse(_path(module).read_bytes()).body:
        match statement:
            case ast.Import(names=names):
                yield from (one.name for one in names if _is_ours(one.name))
            case ast.ImportFrom(module=str(name), names=names) if _is_ours(name):
                yield name
                yield from (
                    f"{name}.{one.name}" for one in names if _is_module(f"{name}.{one.name}")
                )


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(f"{PACKAGE}.")


def _is_module(name: str) -> bool:
    return _path(name).is_file()


def _path(module: str) -> Path:
    parts = module.split(".")[1:]
    folder = FOLDER.joinpath(*parts)
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
