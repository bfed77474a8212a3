"""Loads the kernel modules that rules rely on; knows nothing of what they are for.

Modules belong to the machine, not to a namespace. A kernel whose modules are not to be seen here
(all is built in, or this is a container) is left to say by itself what it lacks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from policylang.apply import kernel, programs
from policylang.diagnostics import Label, Report
from policylang.ir.ruleset import Module

FOLDER = Path("/lib/modules")
LOADED = Path("/proc/modules")  # proc_modules(5); not there where the kernel can load none

PACKAGES_OF_MODULES = "linux-modules-extra, kernel-modules-extra or the like"
MOST_LABELS = 3


def load(modules: Sequence[Module], report: Report) -> tuple[str, ...] | None:
    """Load modules in their order; the names of those that were not loaded before.

    What is built into the kernel, or loaded, is left as it is. None, and `module-missing` for each
    at the statements that rely on it, where one that is required cannot be loaded;
    `program-missing` without modprobe(8), and `not-permitted`.
    """
    if not modules or not (FOLDER / os.uname().release).is_dir():
        return ()
    before = _loaded()
    wanted = [module for module in modules if _name(module.name) not in before]
    if wanted and not kernel.may_change(report):
        return None  # modprobe would blame the module
    missing = [module for module in wanted if not _is_loaded(module, report)]
    if missing:
        return None
    new = _loaded() - before
    return tuple(module.name for module in wanted if _name(module.name) in new)


def _is_loaded(module: Module, report: Report) -> bool:
    """Whether rules may rely on a module now."""
    finished = programs.run(["modprobe", "--", module.name], report)
    if finished is None:
        return False
    if finished.ok or not module.is_required:
        return True
    spans = tuple(dict.fromkeys(o.span for o in module.origins if o.span is not None))
    report.add(
        "module-missing",
        f"the kernel module `{module.name}`, which this statement relies on, cannot be loaded",
        spans[0] if spans else None,
        help=f"{finished.words}\nmodules may be in a package of their own: {PACKAGES_OF_MODULES}",
        labels=[Label(span, "and this one with it") for span in spans[1 : 1 + MOST_LABELS]],
    )
    return False


def _loaded() -> frozenset[str]:
    try:
        lines = LOADED.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(line.split(" ", 1)[0] for line in lines)


def _name(module: str) -> str:
    """A module's name as the kernel lists it."""
    return module.replace("-", "_")
