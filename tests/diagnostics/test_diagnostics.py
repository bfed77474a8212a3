"""Every diagnostic has an example that shows it, and a message that follows the style guide."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import policylang
from policylang.backends import TARGETS
from policylang.cli import linting
from policylang.cli.render import Renderer
from policylang.codes import CODES
from policylang.diagnostics import Diagnostic, Report
from policylang.ir.actions import Drop, Jump
from policylang.ir.capabilities import Capabilities
from policylang.ir.ruleset import Base, Chain, Rule, Ruleset
from policylang.ir.stages import Path as Way
from policylang.ir.stages import Stage
from policylang.ir.verify import verify
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import Field
from policylang.packets.values import Ranges
from policylang.pipeline import OfHost, artifact_of, ruleset_of
from tests.diagnostics.triggers import TRIGGERS
from tests.golden.kept import Golden

PACKAGE = Path(policylang.__file__).parent
HERE = Path(__file__).parent
CASES = sorted([*HERE.glob("*.policy"), *HERE.glob("*/*.policy")])


def code_of(case: Path) -> str:
    return case.relative_to(HERE).parts[0].removesuffix(case.suffix)


def name_of(case: Path) -> str:
    return case.relative_to(HERE).with_suffix("").as_posix()


def parameters_of(policy: Path) -> dict[str, str]:
    """What is set from outside: comments of the policy that say `-D NAME=VALUE`."""
    text = policy.read_bytes().decode("utf-8", "replace")
    return dict(re.findall(r"^# -D ([^=\n]*)=(.*)$", text, re.MULTILINE))


def host_of(policy: Path) -> str | None:
    """The host that is meant: a comment of the policy that says `--host NAME`."""
    text = policy.read_bytes().decode("utf-8", "replace")
    found = re.search(r"^# --host (\S*)$", text, re.MULTILINE)
    return None if found is None else found[1]


def targets_of(policy: Path) -> list[str]:
    """All targets, or the one of a policy that says `# For TARGET alone.`."""
    text = policy.read_bytes().decode("utf-8", "replace")
    return re.findall(r"^# For (\w+) alone\.$", text, re.MULTILINE) or list(TARGETS)


@cache
def told_of(policy: Path) -> Report:
    """The same as `checked`, found out once."""
    return checked(policy)


def is_linted(policy: Path) -> bool:
    """Whether a policy says `# For lint.`: what it shows is told by a lint."""
    text = policy.read_bytes().decode("utf-8", "replace")
    return re.search(r"^# For lint\.$", text, re.MULTILINE) is not None


def checked(policy: Path) -> Report:
    """What `policylang check`, or `lint`, finds in a policy."""
    report = Report()
    if is_linted(policy):
        linting.lint(policy.name, policy, parameters_of(policy), report)
        return report
    source = OfHost(policy, host_of(policy))
    ruleset = ruleset_of(source, report, parameters=parameters_of(policy))
    if ruleset is not None:
        for target in targets_of(policy):
            artifact_of(ruleset, target, report)
    return report


def triggered(code: str, folder: Path, patch: pytest.MonkeyPatch) -> Report:
    report = Report()
    with patch.context() as inner:
        TRIGGERS[code](report, folder, inner)
    return report


def holds(golden: Golden, path: Path, report: Report) -> None:
    told = Renderer(color=False).render(report.in_order())
    if golden.is_update:
        path.write_text(told, encoding="utf-8")
    assert path.exists(), f"`pytest --update-golden` writes {path.name}"
    assert told == path.read_text(encoding="utf-8")


# --- the examples -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_example_shows_its_code_and_no_other(case: Path, golden: Golden) -> None:
    report = told_of(case)
    assert {d.code for d in report.diagnostics} == {code_of(case)}
    holds(golden, case.with_suffix(".txt"), report)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_example_says_what_it_proves(case: Path) -> None:
    first = case.read_text(encoding="utf-8").partition("\n")[0]
    assert re.fullmatch(r"# [A-Z`].*\.", first)


@pytest.mark.parametrize("code", TRIGGERS)
def test_trigger_shows_its_code(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, golden: Golden
) -> None:
    report = triggered(code, tmp_path, monkeypatch)
    assert code in {d.code for d in report.diagnostics}
    holds(golden, HERE / f"{code}.txt", report)


def test_every_code_has_an_example() -> None:
    assert {*map(code_of, CASES), *TRIGGERS} == CODES.keys()


def test_every_outcome_has_an_example() -> None:
    known = {case.with_suffix(".txt") for case in CASES} | {HERE / f"{c}.txt" for c in TRIGGERS}
    assert {*HERE.glob("*.txt"), *HERE.glob("*/*.txt")} == known


# --- the source -------------------------------------------------------------------------------


def constants() -> Iterator[str]:
    """All texts of the source, but for those of `codes` itself."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.stem != "codes":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_code_is_told_somewhere() -> None:
    assert not CODES.keys() - {*constants()}


# What no policy in a folder of a few files shows: includes fifty deep, and what every target can.
UNSHOWN = {
    ("syntax/loader.py", "nested-too-deep"),
    ("ir/verify.py", "unsupported"),
    ("syntax/parse.py", "syntax"),  # of questions, which stand on the command line
}


def reporting() -> Iterator[tuple[str, str, range]]:
    """Where the compiler tells of a mistake in a policy: file, code, lines."""
    for path in sorted(PACKAGE.rglob("*.py")):
        file = path.relative_to(PACKAGE).as_posix()
        if file.startswith(("apply/", "proving/", "provision/", "cli/", "codes.py")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            for code in (text for text in texts if text in CODES):
                assert node.end_lineno is not None
                yield file, code, range(node.lineno, node.end_lineno + 1)


def test_every_message_has_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call that reports is made by an example, not only one of each code."""
    made: set[tuple[str, int]] = set()
    add = Report.add

    def recorded(report: Report, *given: Any, **named: Any) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            made.add((frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
        add(report, *given, **named)

    monkeypatch.setattr(Report, "add", recorded)
    for case in CASES:
        checked(case)
    unshown = {
        (file, code)
        for file, code, lines in reporting()
        if not any((str(PACKAGE / file), line) in made for line in lines)
    }
    assert unshown == UNSHOWN


def test_files_that_include_one_another_too_deep(tmp_path: Path) -> None:
    for number in range(51):
        text = f'include "{number + 1}.policy"\n'
        (tmp_path / f"{number}.policy").write_text(text, encoding="utf-8")
    assert [d.code for d in checked(tmp_path / "0.policy").diagnostics] == ["nested-too-deep"]


def test_what_a_target_cannot_do() -> None:
    cube = Cube.of({Field.HOP_LIMIT: Ranges.of(255)})
    rules = (Rule(cube, Jump("other")), Rule(EVERYTHING, Drop()))
    chains = (Chain("input", rules), Chain("other", ()))
    ruleset = Ruleset((Base(Stage.FILTER, Way.INPUT, "input"),), chains)
    can = Capabilities("tables", {Stage.FILTER: frozenset()}, {Stage.FILTER: (Drop,)}, 9, 9)
    report = Report()
    verify(ruleset, can, report)
    assert [d.message for d in report.diagnostics] == [
        "tables cannot do jump here",
        "tables cannot do a match on family here",
        "tables cannot do a match on hop_limit here",
    ]


# --- the style --------------------------------------------------------------------------------

ACRONYM = re.compile(r"(IP|IPv4|IPv6|ICMP|ICMPv6|TCP|UDP|MAC|FTP)\b")
PYTHON = re.compile(r"\b(NoneType|None|str|int|tuple|list\[|dict|Ranges|Span|<class)\b")


def faults(diagnostic: Diagnostic) -> Iterator[str]:
    """What the style guide (17, 18) finds wrong with the texts of a diagnostic."""
    texts = [diagnostic.message, *(label.text for label in diagnostic.labels)]
    if diagnostic.help is not None:
        texts.append(diagnostic.help.partition("\n")[0])
    if "\n" in diagnostic.message:
        yield f"more than a line: {diagnostic.message!r}"
    for text in texts:
        if text[0].isupper() and not ACRONYM.match(text):
            yield f"a capital: {text!r}"
        if text.endswith((".", "!")):
            yield f"a full stop: {text!r}"
        if PYTHON.search(text):
            yield f"a word of Python: {text!r}"
        if text.count("`") % 2:
            yield f"an odd backtick: {text!r}"
        if "'" in re.sub(r"\w's?\b", "", text):
            yield f"a quote that is no backtick: {text!r}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_example_is_told_in_style(case: Path) -> None:
    assert not [fault for d in told_of(case).diagnostics for fault in faults(d)]


@pytest.mark.parametrize("code", TRIGGERS)
def test_trigger_is_told_in_style(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = triggered(code, tmp_path, monkeypatch).diagnostics
    ours = [replace(d, help=None) for d in found]  # help holds the words of programs
    assert not [fault for d in ours for fault in faults(d)]


@pytest.mark.parametrize(
    ("message", "help"),
    [
        ("No such service", None),
        ("no such service.", None),
        ("no service\nnamed x", None),
        ("no service 'x'", None),
        ("no service `x", None),
        ("expected a str", None),
        ("no such service", "Try another."),
    ],
)
def test_a_fault_of_style_is_found(message: str, help: str | None) -> None:
    assert list(faults(Diagnostic("unknown-service", message, None, help)))


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained(code: str) -> None:
    known = CODES[code]
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code)
    assert known.severity in ("error", "warning")
    assert not known.title.endswith(".") and not known.title[0].isupper()
    assert known.explanation.endswith(".") and len(known.explanation.split()) >= 5
    assert "  " not in known.explanation and "\n" not in known.explanation
    assert known.explanation.count("`") % 2 == 0
