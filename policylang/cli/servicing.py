"""`install-service` and `uninstall-service`: what a boot loads by itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from policylang.apply import boot_units
from policylang.cli.options import DONE, REFUSED
from policylang.cli.teller import Teller
from policylang.cli.visible import visible


def install(chosen: argparse.Namespace, teller: Teller) -> int:
    """Write the units by which what was confirmed last is loaded at boot."""
    done = boot_units.install(
        Path(chosen.root),
        teller.report,
        refresh_s=chosen.refresh or None,
        program=boot_units.called(),
    )
    return _told(done, teller)


def uninstall(chosen: argparse.Namespace, teller: Teller) -> int:
    """Remove what `install` wrote; what is in force stays."""
    return _told(boot_units.uninstall(Path(chosen.root), teller.report), teller)


def _told(done: tuple[str, ...] | None, teller: Teller) -> int:
    teller.show()
    if done is None:
        return REFUSED
    for words in done or ("nothing to do",):
        print(visible(words))
    return REFUSED if teller.report.has_errors else DONE
