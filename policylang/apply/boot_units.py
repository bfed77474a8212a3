"""Installs the service that loads what was confirmed when a machine starts, and removes it.

The service runs without Python and without us: a script for sh, the files of a generation and
the programs that load them. It knows systemd's places; what the files say, it does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from policylang.apply import boot_place, durable, programs
from policylang.apply.boot_place import LOADER, SERVICE_FOLDER
from policylang.apply.record import FOLDER, VARIABLE, Record
from policylang.diagnostics import Report

UNITS = Path("etc/systemd/system")
SERVICE, TIMER = "policylang.service", "policylang-refresh.timer"
REFRESH = "policylang-refresh.service"
WANTED_BY = {SERVICE: "sysinit.target.wants", TIMER: "timers.target.wants"}
RUNNING = Path("/run/systemd/system")  # sd_booted(3)

UNIT_PATHS = frozenset(
    (
        *(UNITS / name for name in (SERVICE, REFRESH, TIMER)),
        *(UNITS / wants / unit for unit, wants in WANTED_BY.items()),
    )
)

OURS = b"Made by "  # at the head of all that is written here

CLOSED_FILES = ("closed.nft", "closed.v4", "closed.v6")  # as backends call theirs

BESIDE = frozenset(
    (
        *(SERVICE_FOLDER / name for name in (LOADER, boot_place.MARK, *CLOSED_FILES)),
        *boot_place.DROP_INS,
    )
)

DEFAULT_REFRESH_S = 300

Files = Mapping[Path, str]  # below the root


def install(
    root: Path,
    report: Report,
    *,
    refresh_s: int | None = DEFAULT_REFRESH_S,
    program: Sequence[str] = (),
) -> tuple[str, ...] | None:
    """Write the units, the loader and what goes with them below `root`; as `put` does.

    `refresh_s` is the time between two refreshes of lists, None for none. `program` is how
    policylang is called, as the refresh does.
    """
    from policylang.apply import boot_written  # what it rests on takes long to load

    files = boot_written.files(state_folder(), refresh_s, program or called())
    return put(root, files, report)


def state_folder() -> Path:
    """The record that a boot loads from, as long as nothing else is said; absolute."""
    return Path(os.environ.get(VARIABLE) or FOLDER).absolute()


def put(root: Path, files: Files, report: Report) -> tuple[str, ...] | None:
    """Write the service's files below `root`, and have systemd start it; in words what was done.

    Where the root is this machine's and systemd runs here, it is told. None, and `cannot-write`,
    where it cannot be done. Warns `nothing-confirmed` where a boot would load nothing yet.
    """
    units = _units_of(files)
    stale = _stale(files)
    try:
        if not _may_replace(root, files, report):
            return None
        said = [*_removed(root, stale), *_written(root, files)]
        for unit in units:
            _enable(root, unit)
    except OSError as error:
        _report(root, error, report)
        return None
    record = Record(root / state_folder().relative_to("/"))
    number = boot_place.linked_number(record.folder)
    if number is None:
        report.add(
            "nothing-confirmed",
            "no policy is confirmed yet: a boot loads nothing",
            None,
            help="`policylang apply` loads one; what is confirmed is loaded at boot from then on",
        )
    elif record.confirm_for_boot(number, report, root=root):
        said.append(f"a boot loads generation {number}")
    return (*said, *_told_systemd(root, [["daemon-reload"], *(["start", u] for u in units[1:])]))


def unlike(root: Path, files: Files) -> tuple[Path, ...]:
    """What `put` would write, remove or link below `root`, as absolute paths.

    OSError where it cannot be read.
    """
    wrong = [place for place, text in files.items() if not _is_there(root / place, text)]
    wrong += [_link(unit) for unit in _units_of(files) if not (root / _link(unit)).is_symlink()]
    wrong += [
        place for place in _stale(files) if (root / place).is_symlink() or (root / place).exists()
    ]
    return tuple(sorted(Path("/") / place for place in wrong))


def _units_of(files: Files) -> tuple[str, ...]:
    """The units that systemd is to start by itself."""
    return (SERVICE, TIMER) if UNITS / TIMER in files else (SERVICE,)


def _stale(files: Files) -> frozenset[Path]:
    """What an earlier installation may have left that this one has not."""
    return UNIT_PATHS - files.keys() - {_link(unit) for unit in _units_of(files)}


def uninstall(root: Path, report: Report) -> tuple[str, ...] | None:
    """Remove what `install` writes, and what confirmations wrote beside it; in words.

    What was kept and what is in force stays. None, and `cannot-write`, where it cannot be done.
    """
    told = _told_systemd(root, [["stop", TIMER]]) if (root / UNITS / TIMER).exists() else ()
    try:
        # The units first: none of them is to find its loader gone.
        removed = (*_removed(root, UNIT_PATHS), *_removed(root, BESIDE))
        for folder in (root / SERVICE_FOLDER, (root / SERVICE_FOLDER).parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
    except OSError as error:
        _report(root, error, report)
        return None
    return (*told, *removed, *(_told_systemd(root, [["daemon-reload"]]) if removed else ()))


def called() -> tuple[str, ...]:
    """How policylang is called from anywhere: the program, or this Python and the module."""
    program = programs.find("policylang")
    return (program,) if program else (sys.executable, "-m", "policylang")


# --- the disk ---------------------------------------------------------------------------------


def _may_replace(root: Path, written: Files, report: Report) -> bool:
    """Whether what is there of these names is ours."""
    for path in (root / place for place in written):
        if path.exists() and OURS not in path.read_bytes()[:200]:
            message = f"cannot write `{path}`: it is there, and policylang did not make it"
            report.add("cannot-write", message, None)
            return False
    return True


def _written(root: Path, files: Files) -> Iterator[str]:
    for place, text in files.items():
        path = root / place
        if _is_there(path, text):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.put_file(path, text.encode(), 0o644)
        yield f"wrote {path}"


def _is_there(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _removed(root: Path, places: frozenset[Path]) -> Iterator[str]:
    for path in sorted(root / place for place in places):
        if path.is_symlink() or path.exists():
            path.unlink()
            durable.sync(path.parent)
            yield f"removed {path}"


def _link(unit: str) -> Path:
    return UNITS / WANTED_BY[unit] / unit


def _enable(root: Path, unit: str) -> None:
    """What `systemctl enable` does, which a root that is none of a running system cannot."""
    link = root / _link(unit)
    link.parent.mkdir(parents=True, exist_ok=True)
    durable.put_link(link, f"/{UNITS / unit}")


def _told_systemd(root: Path, commands: Sequence[Sequence[str]]) -> Iterator[str]:
    if root.resolve() != boot_place.ROOT or not RUNNING.is_dir():
        return
    for command in commands:
        finished = programs.run(["systemctl", *command], Report())
        words = f"`systemctl {' '.join(command)}`"
        if finished is None or not finished.ok:
            yield f"{words} failed: {'it is missing' if finished is None else finished.words}"
        else:
            yield f"ran {words}"


def _report(root: Path, error: OSError, report: Report) -> None:
    where = error.filename2 or error.filename or root
    report.add("cannot-write", f"cannot write `{where}`: {error.strerror or error}", None)
