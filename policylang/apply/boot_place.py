"""What a boot finds: the generation that is loaded without us, and what goes with it in /etc.

A boot has neither Python nor us: it loads the files of a generation's folder by the programs
that they are for. A link in the state folder leads there, and is changed at one stroke.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from policylang.apply import durable
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.boot import MODULES, SYSCTLS, boot_files

ROOT = Path("/")
LINK = "boot"
ABOUT = "generation.json"  # what a boot does not read: all but the texts of the files
WAY = "way"  # the file that tells by which programs a generation is loaded

SERVICE_FOLDER = Path("etc/policylang/boot")
LOADER = "load"
# Tells a machine that must not come up open from one that has no policy yet; stands where the
# loader stands, for the state folder may be on a disk that does not come up.
MARK = "confirmed"
STATE_LINE = "state="  # a line of the loader: where the state folder is

# Below the root: where the system looks, and the file of a generation that is put there.
DROP_INS = {
    Path("etc/modules-load.d/policylang.conf"): MODULES,
    Path("etc/sysctl.d/90-policylang.conf"): SYSCTLS,
}


def files(
    artifact: Artifact, way: str, laid_out: Iterable[OutputFile] | None = None
) -> dict[str, bytes]:
    """What a boot needs of an artifact beside its own files; `laid_out` where it is known."""
    known = boot_files(artifact.needs) if laid_out is None else laid_out
    needed = {file.name: file.text.encode() for file in known}
    return {**needed, WAY: f"{way}\n".encode()}


def linked_number(folder: Path) -> int | None:
    """The generation that a boot loads, or None where there is none."""
    try:
        return int((folder / LINK).readlink().name)
    except (OSError, ValueError):
        return None


def is_served(folder: Path, root: Path) -> bool:
    """Whether the service that is installed under `root` loads what is in that state folder."""
    try:
        lines = (root / SERVICE_FOLDER / LOADER).read_text().splitlines()
    except (OSError, ValueError):
        return False
    line = next((line for line in lines if line.startswith(STATE_LINE)), None)
    return line == f"{STATE_LINE}{shlex.quote(str(seen_from(root, folder)))}"


def seen_from(root: Path, path: Path) -> Path:
    """The path that something below `root` has once that is the root."""
    path = path.absolute()
    root = root.absolute()
    return ROOT / path.relative_to(root) if path.is_relative_to(root) else path


def write_drop_ins(folder: Path, contents: Mapping[str, bytes], root: Path) -> None:
    """Put what a generation needs beside its rules where the system looks for it at boot.

    `contents` are the generation's files. Nothing is done where no service is installed.
    OSError where it cannot be written.
    """
    if not is_served(folder, root):
        return
    for place, name in DROP_INS.items():
        path = root / place
        if name in contents:
            path.parent.mkdir(parents=True, exist_ok=True)
            durable.put_file(path, contents[name], 0o644)
        else:
            path.unlink(missing_ok=True)
    note = b"# The way by which a boot loads what was confirmed; where it cannot, it closes all.\n"
    durable.put_file(root / SERVICE_FOLDER / MARK, contents[WAY] + note, 0o644)
