"""Writes the files of the service that loads what was confirmed; puts them nowhere."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from policylang.apply import boot_place
from policylang.apply.boot_place import LOADER, SERVICE_FOLDER
from policylang.apply.boot_units import REFRESH, SERVICE, TIMER, UNITS, Files
from policylang.apply.checksums import SUMS
from policylang.apply.record import FOLDER, VARIABLE
from policylang.apply.restore import LOCK_PATIENCE_S
from policylang.backends.iptables import SETS
from policylang.backends.nft import SCRIPT
from policylang.backends.proxying import TABLE
from policylang.backends.templating import render
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy

# What is loaded where what was confirmed cannot be: the language's own idea of closed.
CLOSED = "default deny inbound\ndefault deny outbound\ndefault deny forward\n"
CLOSED_FILES = {SCRIPT: "closed.nft", "rules.v4": "closed.v4", "rules.v6": "closed.v6"}

SPREAD = 10  # a tenth of the time between two refreshes


def files(state: Path, refresh_s: int | None, program: Sequence[str]) -> Files:
    """The service's files, by their places below the root.

    `state` is the folder of the record, absolute. `refresh_s` is the time between two refreshes of
    lists, None for none, and `program` how policylang is called for them.
    """
    return {**_loader_files(state), **_units(state, refresh_s, program)}


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
