"""Golden files: compared with what there is now, or rewritten; knows no compiler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import pytest

from policylang.backends import TARGETS

IR = "ir.txt"
BOOT = "boot"
MOST_DIFF_LINES = 80

Outputs = Mapping[str, str]  # path below the folder → text


@dataclass(frozen=True, slots=True)
class Golden:
    """Compares outputs with files, or rewrites the files."""

    is_update: bool

    def holds(self, folder: Path, texts: Outputs) -> None:
        """Fail with a diff unless the golden files in `folder` are these, no more and no less."""
        kept = {str(path.relative_to(folder)): path for path in _golden_files(folder)}
        if self.is_update:
            for name in kept.keys() - texts.keys():
                kept[name].unlink()
            for name, text in texts.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
            return
        before = {name: path.read_text(encoding="utf-8") for name, path in kept.items()}
        diff = [
            line
            for name in sorted(before.keys() | texts.keys())
            for line in _diff(name, before.get(name, ""), texts.get(name, ""))
        ]
        if diff or before.keys() != texts.keys():
            shown = "\n".join(diff[:MOST_DIFF_LINES])
            more = f"\n… {len(diff)} lines in all" if len(diff) > MOST_DIFF_LINES else ""
            pytest.fail(
                f"{folder.name} compiles to something else now; where that is right, "
                f"`pytest --update-golden` keeps it\n{shown}{more}",
                pytrace=False,
            )


def _golden_files(folder: Path) -> Iterator[Path]:
    """What outputs may have left in a folder or in that of a host, whether or not they still do."""
    for place in ("", "*/"):
        for target in TARGETS:
            yield from folder.glob(f"{place}{target}.*")
            yield from folder.glob(f"{place}{target}/*")
        yield from folder.glob(f"{place}{BOOT}/*")
    yield from folder.glob(IR)


def _diff(name: str, before: str, after: str) -> Iterator[str]:
    lines = (before.splitlines(), after.splitlines())
    yield from unified_diff(*lines, f"{name} (kept)", f"{name} (now)", n=2, lineterm="")
