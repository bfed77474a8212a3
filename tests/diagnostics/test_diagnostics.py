"""Every diagnostic has an example that shows it, and a message that follows the style guide."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import policylang
from policylang.backends import TARGETS
from policylang.cli.render import Renderer
from policylang.codes import CODES
from policylang.diagnostics import Diagnostic, Report
from policylang.pipeline import artifact_of, ruleset_of
from tests.diagnostics.triggers import TRIGGERS
from tests.golden.kept import Golden

HERE = Path(__file__).parent
CASES = sorted([*HERE.glob("*.policy"), *HERE.glob("*/*.policy")])


def code_of(case: Path) -> str:
    return case.relative_to(HERE).parts[0].removesuffix(case.suffix)


def name_of(case: Path) -> str:
    return case.relative_to(HERE).with_suffix("").as_posix()


def checked(policy: Path) -> Report:
    """What `policylang check` finds in a policy."""
    report = Report()
    ruleset = ruleset_of(policy, report)
    if ruleset is not None:
        for target in TARGETS:
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
    report = checked(case)
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
    for path in sorted(Path(policylang.__file__).parent.rglob("*.py")):
        if path.stem != "codes":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_every_code_is_told_somewhere() -> None:
    assert not CODES.keys() - {*constants()}


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
    assert not [fault for d in checked(case).diagnostics for fault in faults(d)]


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
