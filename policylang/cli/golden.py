"""`policylang golden`: keeps what policies compile to beside them, and says where it differs.

Each policy is compiled, compared and written by itself: one with errors keeps what is kept of it,
and is told with all the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from policylang.backends import TARGETS
from policylang.cli import output
from policylang.cli.formats import ELSEWHERE, placed
from policylang.cli.github import kept_from_commands
from policylang.cli.given import given
from policylang.cli.golden_cases import SUFFIX, Case, cases, folders_without
from policylang.cli.golden_outputs import Difference, How, differences, outputs
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.places import from_here
from policylang.cli.render import as_json
from policylang.cli.teller import show, wants_color
from policylang.cli.visible import visible
from policylang.diagnostics import Report, Severity

_COLORS = {"+": "32", "-": "31", "@": "36"}  # ECMA-48: green, red, cyan


class State(StrEnum):
    """What came of a policy."""

    KEPT = "kept"
    DIFFERS = "differs"
    UPDATED = "updated"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of a policy, where its outputs are kept, and which of them differ or did.

    `is_gone`: it is no policy any more, and its outputs still are.
    """

    policy: Path
    folder: Path
    state: State
    found: tuple[Difference, ...] = ()
    report: Report = field(default_factory=Report)
    is_gone: bool = False

    @property
    def is_new(self) -> bool:
        """Whether nothing was kept of the policy."""
        return bool(self.found) and not self.folder.exists()


def run(chosen: argparse.Namespace, report: Report) -> int:
    """Compare, or rewrite with `--update`; the exit status.

    2 where something differs, 1 where a policy has errors or something cannot be read or written.
    """
    paths = [Path(path) for path in chosen.paths]
    targets = [t for t in TARGETS if not chosen.targets or t in chosen.targets]
    besides = given(chosen, report)
    if besides is None:
        show(report, chosen, sys.stderr if chosen.format == "text" else sys.stdout)
        return REFUSED
    found = cases(paths, besides.inventory, report)
    looked = [_looked(case, targets) for case in found]
    gone = (_orphan(folder, targets) for folder in folders_without(paths, found))
    looked += [one for one in gone if one.state is not State.KEPT]
    if chosen.update:
        looked = [_updated(one) for one in looked]
    _tell(chosen, looked, report)
    if report.has_errors or any(one.state is State.FAILED for one in looked):
        return REFUSED
    return CHANGES if any(one.state is State.DIFFERS for one in looked) else DONE


# --- one policy -------------------------------------------------------------------------------


def _looked(case: Case, targets: Sequence[str]) -> Looked:
    """How what is kept of a policy differs from what it compiles to; its warnings are `check`'s."""
    wanted = [target for target in targets if target in case.targets]
    texts = outputs(case.loaded, wanted, case.report)
    errors = Report([d for d in case.report.diagnostics if d.severity is Severity.ERROR])
    if texts is None:
        return Looked(case.path, case.folder, State.FAILED, report=errors)
    return _compared(Looked(case.path, case.folder, State.KEPT), dict(texts), targets)


def _orphan(folder: Path, targets: Sequence[str]) -> Looked:
    """What is kept of a policy that is none any more: all of it differs."""
    gone = Looked(folder.with_suffix(SUFFIX), folder, State.KEPT, is_gone=True)
    return _compared(gone, {}, targets)


def _compared(one: Looked, texts: dict[str, str], targets: Sequence[str]) -> Looked:
    try:
        found = differences(one.folder, texts, targets)
    except OSError as error:
        own = Report()
        message = f"cannot read `{error.filename}`: {error.strerror}"
        own.add("unreadable-file", message, None)
        return replace(one, state=State.FAILED, report=own)
    return replace(one, state=State.DIFFERS, found=found) if found else one


def _updated(one: Looked) -> Looked:
    """The policy with its outputs rewritten, all of them or none."""
    if one.state is not State.DIFFERS:
        return one
    own = Report()
    output.write_files(
        {one.folder / d.name: d.after for d in one.found if d.how is not How.REMOVED},
        [one.folder / d.name for d in one.found if d.how is How.REMOVED],
        own,
    )
    if own.has_errors:
        return replace(one, state=State.FAILED, report=own)
    with contextlib.suppress(OSError):  # something is left in it
        one.folder.rmdir()
    return replace(one, state=State.UPDATED)


# --- telling ----------------------------------------------------------------------------------


def _tell(chosen: argparse.Namespace, looked: Sequence[Looked], report: Report) -> None:
    told = Report([*report.diagnostics])
    for one in looked:
        told.take(_called(one.report, str(one.policy), chosen.format))
    if chosen.format == "json":
        print(json.dumps(_as_json(looked, told), indent=2))
        return
    if chosen.format in ELSEWHERE:
        for one in looked:
            told.take(_called(_as_report(one, chosen.paths), str(one.policy), chosen.format))
        show(told, chosen, sys.stdout)
        if chosen.format == "github":
            lines = "".join(f"{line}\n" for one in looked for line in _diff_lines(one, ""))
            print(kept_from_commands(lines) if lines else "", end="")
        return
    for one in looked:
        for line in _lines(one, color=wants_color(chosen.color, sys.stdout)):
            print(line)
    show(told, chosen, sys.stderr)
    for line in _sum_lines(looked, chosen.paths):
        print(line)


def _called(report: Report, policy: str, form: str) -> Report:
    """Files of several policies in the words of the command line, or as others know them."""
    if form in ELSEWHERE:
        return placed(report, policy, form)
    return from_here(report, policy)


def _lines(one: Looked, *, color: bool) -> Iterator[str]:
    """What is told of one policy, nothing where all is as kept."""
    name = visible(str(one.policy))
    match one.state:
        case State.UPDATED:
            counts = [(how, sum(d.how is how for d in one.found)) for how in How]
            said = ", ".join(f"{count} {how}" for how, count in counts if count)
            yield f"{name}: {said}"
        case State.DIFFERS:
            yield f"{name}: {_differs(one)}"
            yield from _diff_lines(one, "always" if color else "")
        case State.FAILED:
            yield f"{name}: has errors"
        case State.KEPT:
            pass


def _differs(one: Looked) -> str:
    if one.is_gone and one.policy.exists():
        return "is a part of others, and what it compiled to by itself is still kept"
    if one.is_gone:
        return "is not there any more, and what it compiled to still is"
    if one.is_new:
        return "nothing is kept of what it compiles to"
    return "compiles to something else than is kept"


def _diff_lines(one: Looked, color: str) -> Iterator[str]:
    """The difference of each file; of a policy of which nothing is kept, and of none, no lines."""
    if one.state is not State.DIFFERS or one.is_new or one.is_gone:
        return
    for difference in one.found:
        for line in difference.lines(one.folder):
            shown = "\t".join(visible(part) for part in line.split("\t"))
            look = _COLORS.get(line[:1]) if color else None
            yield f"\x1b[{look}m{shown}\x1b[0m" if look else shown


def _sum_lines(looked: Sequence[Looked], paths: Iterable[str]) -> Iterator[str]:
    policies = [one for one in looked if not one.is_gone]
    words = {
        State.KEPT: "as kept",
        State.UPDATED: "updated",
        State.FAILED: "with errors",
        State.DIFFERS: "different",
    }
    counts = [(words[state], sum(one.state is state for one in looked)) for state in words]
    many = f"{len(policies)} polic{'y' if len(policies) == 1 else 'ies'}"
    yield f"{many}: {', '.join(f'{n} {word}' for word, n in counts if n) or 'nothing to keep'}"
    if any(one.state is State.DIFFERS for one in looked):
        yield f"{_command(paths)} keeps what they compile to now"


def _command(paths: Iterable[str]) -> str:
    return f"`policylang golden --update {' '.join(visible(path) for path in paths)}`"


def _as_report(one: Looked, paths: Iterable[str]) -> Report:
    """What differs, as something that is told at the policy."""
    found = Report()
    if one.state is State.DIFFERS:
        message = f"`{one.policy}`: {_differs(one)}"
        found.add("golden-differs", message, None, help=f"{_command(paths)} keeps it")
    return found


def _as_json(looked: Iterable[Looked], report: Report) -> dict[str, object]:
    """One object; its keys are stable.

    `version` (1), `policies` (each with `policy`, `folder`, `state`: kept, differs, updated or
    failed, `gone`: whether it is no policy any more, and `files`: an array with `file`, `how`:
    changed, added or removed, and `diff`), and `diagnostics`, as `check` has them.
    """
    return {
        "version": 1,
        "policies": [
            {
                "policy": one.policy.as_posix(),
                "folder": one.folder.as_posix(),
                "state": str(one.state),
                "gone": one.is_gone,
                "files": [
                    {"file": d.name, "how": str(d.how), "diff": "\n".join(d.lines(one.folder))}
                    for d in one.found
                ],
            }
            for one in looked
        ],
        "diagnostics": json.loads(as_json(report.in_order())),
    }
