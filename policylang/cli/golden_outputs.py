"""What a policy compiles to, as files of a folder, and how those that are kept differ from it.

A policy has `nft.nft`, `iptables/rules.v4` and so on, and in `boot/` what rules need at boot. One
of several hosts has these in a folder for each host. It writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from policylang import pipeline
from policylang.backends import TARGETS
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.boot import boot_files
from policylang.cli.fleet import for_each_host
from policylang.cli.output import is_ours
from policylang.cli.unified import unified
from policylang.diagnostics import Report
from policylang.syntax.tree import Loaded

BOOT = "boot"

Outputs = Mapping[str, str]  # path below the folder → text


class How(StrEnum):
    """How a kept file differs."""

    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class Difference:
    """A file that is kept, and is not what the policy compiles to; `name` is below the folder."""

    name: str
    how: How
    before: str
    after: str

    def lines(self, folder: Path) -> Iterator[str]:
        """A unified diff, without line ends."""
        path = (folder / self.name).as_posix()
        old = "/dev/null" if self.how is How.ADDED else f"{path} (kept)"
        new = "/dev/null" if self.how is How.REMOVED else f"{path} (now)"
        yield from unified(self.before, self.after, old, new)


def outputs(
    loaded: Loaded, targets: Sequence[str], report: Report, *, only: str | None = None
) -> Outputs | None:
    """All that a policy becomes, for each of its hosts or `only` one; None, with all errors, where
    one fails.
    """

    def made(one: Loaded, own: Report) -> dict[str, str]:
        return dict(_of_one(one, targets, own))

    found: dict[str | None, dict[str, str]] = {}
    if loaded.hosts and only is None:
        found.update(for_each_host(loaded, made, report).items())
    else:
        one = pipeline.of_host(loaded, only, report)
        found[only] = {} if one is None else made(one, report)
    if report.has_errors:
        return None
    return {
        name if host is None else f"{host}/{name}": text
        for host, texts in found.items()
        for name, text in texts.items()
    }


def _of_one(loaded: Loaded, targets: Sequence[str], report: Report) -> Iterator[tuple[str, str]]:
    """The files of one firewall, each with its path."""
    ruleset = pipeline.ruleset_of(loaded, report)
    if ruleset is None:
        return
    yield from ((f"{BOOT}/{file.name}", file.text) for file in boot_files(ruleset.needs))
    for target in targets:
        artifact = pipeline.artifact_of(ruleset, target, report)
        if artifact is not None:
            yield from ((path_of(artifact, file), file.text) for file in artifact.files)


def path_of(artifact: Artifact, file: OutputFile) -> str:
    """Where a file of an artifact is kept: `nft.nft`, `iptables/rules.v4`."""
    if len(artifact.files) == 1:
        return f"{artifact.target}{Path(file.name).suffix}"
    return f"{artifact.target}/{file.name}"


def differences(folder: Path, texts: Outputs, targets: Sequence[str]) -> tuple[Difference, ...]:
    """How what is kept in a folder differs; files of other targets, and of others, do not count.

    What is no UTF-8 has marks in its place, and so differs. Raises OSError.
    """
    kept = {
        name: _text(folder / name) for name in _ours_in(folder, targets) | _there(folder, texts)
    }
    found: list[Difference] = []
    for name in sorted({*kept, *texts}):
        before, after = kept.get(name), texts.get(name)
        if before is None:
            found.append(Difference(name, How.ADDED, "", after or ""))
        elif after is None:
            found.append(Difference(name, How.REMOVED, before, ""))
        elif before != after:
            found.append(Difference(name, How.CHANGED, before, after))
    return tuple(found)


def _there(folder: Path, texts: Outputs) -> set[str]:
    return {name for name in texts if (folder / name).is_file()}


def _ours_in(folder: Path, targets: Sequence[str]) -> set[str]:
    """The files that a compile for these targets may have left in a folder."""
    below = ((path, path.relative_to(folder)) for path in folder.rglob("*"))
    return {
        name.as_posix()
        for path, name in below
        if _part_of(name) in (*targets, BOOT) and path.is_file() and is_ours(path)
    }


def _part_of(name: Path) -> str:
    """The target that a path below the folder is an output for, if any is, or `BOOT`."""
    return name.stem if name.stem in TARGETS else name.parent.name


def _text(path: Path) -> str:
    """What a file holds, with its line ends as they are."""
    return path.read_bytes().decode("utf-8", "replace")
