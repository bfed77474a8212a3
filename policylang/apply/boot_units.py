"""Installs the service that loads what was confirmed when a machine starts, and removes it.

The service runs without Python and without us: a script for sh, the files of a generation and
the programs that load them. It knows systemd's places, and what rules look like it does not.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from policylang.apply import boot_place, durable, programs
from policylang.apply.boot_place import LOADER, SERVICE_FOLDER
from policylang.apply.checksums import SUMS
from policylang.apply.record import FOLDER, VARIABLE, Record
from policylang.apply.restore import LOCK_PATIENCE_S
from policylang.backends.iptables import SETS
from policylang.backends.nft import SCRIPT
from policylang.backends.proxying import TABLE
from policylang.backends.templating import render
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy

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

# What is loaded where what was confirmed cannot be: the language's own idea of closed.
CLOSED = "default deny inbound\ndefault deny outbound\ndefault deny forward\n"
CLOSED_FILES = {SCRIPT: "closed.nft", "rules.v4": "closed.v4", "rules.v6": "closed.v6"}

BESIDE = frozenset(
    (
        *(SERVICE_FOLDER / name for name in (LOADER, boot_place.MARK, *CLOSED_FILES.values())),
        *boot_place.DROP_INS,
    )
)

DEFAULT_REFRESH_S = 300
SPREAD = 10  # a tenth of the time between two refreshes

Files = Mapping[Path, str]  # below the root


def install(
    root: Path,
    report: Report,
    *,
    refresh_s: int | None = DEFAULT_REFRESH_S,
    program: Sequence[str] = (),
) -> tuple[str, ...] | None:
    """Write the units, the loader and what goes with them below `root`; in words what was done.

    `refresh_s` is the time between two refreshes of lists, None for none. `program` is how
    policylang is called, as the refresh does. Where the root is this machine's and systemd runs
    here, it is told. None, and `cannot-write`, where it cannot be done. Warns
    `nothing-confirmed` where a boot would load nothing yet.
    """
    state = Path(os.environ.get(VARIABLE) or FOLDER).absolute()
    written = {
        **_loader_files(state),
        **_units(state, refresh_s, program or called()),
    }
    units = [SERVICE] if refresh_s is None else [SERVICE, TIMER]
    stale = UNIT_PATHS - written.keys() - {_link(unit) for unit in units}
    try:
        if not _may_replace(root, written, report):
            return None
        said = [*_removed(root, stale), *_written(root, written)]
        for unit in units:
            _enable(root, unit)
    except OSError as error:
        _report(root, error, report)
        return None
    record = Record(root / state.relative_to("/"))
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


# --- what is written --------------------------------------------------------------------------


def _loader_files(state: Path) -> Files:
    values = {
        "state": shlex.quote(str(state)),
        "script": SCRIPT,
        "sets": SETS,
        "link": boot_place.LINK,
        "sums": SUMS,
        "way": boot_place.WAY,
        "about": boot_place.ABOUT.replace(".", r"\."),
        "mark": boot_place.MARK,
        "patience": str(LOCK_PATIENCE_S),
        "table": str(TABLE),
    }
    loader = render("service/load.j2", LOADER, values).text
    return {SERVICE_FOLDER / name: text for name, text in ((LOADER, loader), *_closed())}


def _closed() -> Iterator[tuple[str, str]]:
    for target in ("nft", "iptables"):
        report = Report()
        artifact = compile_policy(Text(CLOSED, "closed.policy", Path()), target, report)
        assert artifact is not None, report.in_order()
        for file in artifact.files:
            yield CLOSED_FILES[file.name], file.text


def _units(state: Path, refresh_s: int | None, program: Sequence[str]) -> Files:
    loader = _word(str(boot_place.ROOT / SERVICE_FOLDER / LOADER))
    files = {UNITS / SERVICE: _rendered(SERVICE, {"loader": loader})}
    if refresh_s is not None:
        command = " ".join(map(_word, (*program, "refresh", "--all")))
        # Only a command line knows variables: systemd.exec(5).
        variable = "" if state == FOLDER else _word(f"{VARIABLE}={state}").replace("$$", "$")
        files[UNITS / REFRESH] = _rendered(REFRESH, {"command": command, "variable": variable})
        times = {"seconds": str(refresh_s), "spread": str(refresh_s // SPREAD)}
        files[UNITS / TIMER] = _rendered(TIMER, times)
    return files


def _rendered(name: str, values: Mapping[str, str]) -> str:
    return render(f"service/{name}.j2", name, values).text


def _word(word: str) -> str:
    """A word of a command line in a unit: systemd.service(5), systemd.syntax(7)."""
    for special, written in {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}.items():
        word = word.replace(special, written)
    return f'"{word}"' if not word or set(word) & set(" \t'\"\\;") else word


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
        if path.is_file() and path.read_bytes() == text.encode():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.put_file(path, text.encode(), 0o644)
        yield f"wrote {path}"


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
