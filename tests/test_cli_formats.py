"""Diagnostics as GitHub and editors show them: commands of a workflow, and SARIF."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from pydantic import ValidationError
from pydantic_sarif.model import StaticAnalysisResultsFormatSarifVersion210JsonSchema as Log

from policylang.cli import main
from policylang.cli.github import as_commands, kept_from_commands
from policylang.cli.sarif import as_sarif
from policylang.codes import CODES
from policylang.diagnostics import Diagnostic, Label
from policylang.source import SourceFile, Span

BAD = """\
zone wan { interface eth0 }
zone wan { interface eth1 }
allow ftpp inbound from wan
"""
FAILING = """\
allow ssh inbound
test "nobody gets in" { expect deny ssh inbound }
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how its terminal, or that of whoever runs it, is set up."""
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in the folder `here` of a repository; its status, output and messages."""
    (tmp_path / ".git").mkdir()
    here = tmp_path / "here"
    (here / "site").mkdir(parents=True)
    (here / "site" / "bad.policy").write_text(BAD)
    (here / "site" / "good.policy").write_text("allow ssh inbound\n")
    (here / "site" / "tested.policy").write_text(FAILING)
    monkeypatch.chdir(here)

    def command(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(arguments)
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def told(text: str, start: int, end: int, **more: Any) -> Diagnostic:
    return Diagnostic("syntax", "a message", Span(SourceFile("a.policy", text), start, end), **more)


# --- github -------------------------------------------------------------------------------------


def test_a_command_names_the_file_from_the_top_with_lines_and_columns(run: Run) -> None:
    status, out, err = run("check", "site/bad.policy", "--format", "github")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "::error file=here/site/bad.policy,line=2,endLine=2,col=6,endColumn=9,title=duplicate-name"
        "::`wan` is declared twice%0Ahere/site/bad.policy:1: first declared here as a zone",
        "::error file=here/site/bad.policy,line=3,endLine=3,col=7,endColumn=11,"
        "title=unknown-service::no service named `ftpp`%0Ahelp: did you mean `ftp`?",
    ]


def test_what_would_end_a_property_or_a_command_is_escaped() -> None:
    file = SourceFile("a,b:c%\n.policy", "x")
    one = Diagnostic("syntax", "50%\n::error::x", Span(file, 0, 1))
    (line,) = as_commands([one]).splitlines()
    assert line == (
        "::error file=a%2Cb%3Ac%25%0A.policy,line=1,endLine=1,col=1,endColumn=2,title=syntax"
        "::50%25\\x0a::error::x"
    )


def test_of_several_lines_no_columns_are_told() -> None:
    """GitHub takes none with two lines, and drops all four otherwise."""
    (line,) = as_commands([told("ab\ncd\n", 1, 4)]).splitlines()
    assert line == "::error file=a.policy,line=1,endLine=2,title=syntax::a message"


def test_without_a_place_there_is_no_property_of_one() -> None:
    one = Diagnostic("no-such-test", "no test is called `x`", None)
    assert as_commands([one]) == "::error title=no-such-test::no test is called `x`\n"


def test_nothing_acts_on_the_terminal_of_a_log() -> None:
    one = Diagnostic("syntax", "a \x1b[31m b", None, help="c\N{RIGHT-TO-LEFT OVERRIDE}")
    assert as_commands([one]) == "::error title=syntax::a \\x1b[31m b%0Ahelp: c\\u202e\n"


def test_commands_in_text_of_others_do_not_count() -> None:
    text = " ::error::forged\n"
    first, *lines, last = kept_from_commands(text).splitlines()
    word = first.removeprefix("::stop-commands::")
    assert (lines, last) == ([" ::error::forged"], f"::{word}::")
    # Nobody can write a text that holds its own word.
    assert word not in text
    assert kept_from_commands(f"{text}x\n").splitlines()[0] != first


# --- sarif --------------------------------------------------------------------------------------


def sarif(text: str) -> dict[str, Any]:
    """A log as a value; the test fails where the schema of SARIF 2.1.0 does not take it."""
    Log.model_validate_json(text)
    log: dict[str, Any] = json.loads(text)
    (one,) = log["runs"]
    run_: dict[str, Any] = one
    return run_


def test_a_log_is_as_the_schema_has_it_and_names_rules_and_places(run: Run) -> None:
    status, out, err = run("check", "site/bad.policy", "--format", "sarif")
    assert (status, err) == (1, "")
    found = sarif(out)
    assert found["columnKind"] == "unicodeCodePoints"
    rules = found["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["duplicate-name", "unknown-service"]
    for rule in rules:
        known = CODES[rule["id"]]
        assert rule["shortDescription"]["text"] == known.title
        assert rule["fullDescription"]["text"] == known.explanation
        assert known.explanation in rule["help"]["markdown"]
        assert rule["defaultConfiguration"]["level"] == known.severity
    twice, unknown = found["results"]
    assert rules[unknown["ruleIndex"]]["id"] == unknown["ruleId"] == "unknown-service"
    assert unknown["level"] == "error"
    assert unknown["message"]["text"] == "no service named `ftpp`\nhelp: did you mean `ftp`?"
    assert unknown["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "here/site/bad.policy", "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": 3, "startColumn": 7, "endLine": 3, "endColumn": 11},
            }
        }
    ]
    (related,) = twice["relatedLocations"]
    assert related["message"]["text"] == "first declared here as a zone"
    assert related["physicalLocation"]["region"]["startLine"] == 1
    assert "%SRCROOT%" in found["originalUriBaseIds"]


def test_the_schema_refuses_what_is_no_log() -> None:
    log = json.loads(as_sarif([told("x", 0, 1)]))
    del log["runs"][0]["results"][0]["message"]
    with pytest.raises(ValidationError):
        Log.model_validate_json(json.dumps(log))


def test_a_uri_holds_nothing_but_what_a_uri_may() -> None:
    name = "a b:ä%/x#y?.policy"
    one = Diagnostic("syntax", "m", Span(SourceFile(name, "x"), 0, 1))
    (result,) = sarif(as_sarif([one]))["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert re.fullmatch(r"[A-Za-z0-9%/._-]+", uri)
    assert unquote(uri) == name


def test_a_file_that_is_not_below_the_top_has_a_whole_uri(run: Run, tmp_path: Path) -> None:
    other = tmp_path.parent / f"{tmp_path.name}-other.policy"
    other.write_text(BAD)
    _, out, _ = run("check", str(other), "--format", "sarif")
    place = sarif(out)["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": f"file://{other}"}


def test_braces_are_no_placeholders_and_brackets_no_links() -> None:
    file = SourceFile("a.policy", "x")
    label = Label(Span(file, 0, 1), "here {0}")
    one = Diagnostic("syntax", "{1} [a](b)", Span(file, 0, 1), labels=(label,))
    (result,) = sarif(as_sarif([one]))["results"]
    assert result["message"]["text"] == "{{1}} [a] (b)"
    assert result["relatedLocations"][0]["message"]["text"] == "here {{0}}"


def test_where_all_is_well_there_is_a_log_without_results(run: Run) -> None:
    status, out, _ = run("check", "site/good.policy", "--format", "sarif")
    assert (status, sarif(out)["results"]) == (0, [])
    assert run("check", "site/good.policy", "--format", "github") == (0, "", "")


# --- commands -----------------------------------------------------------------------------------


def test_lint_tells_files_of_the_same_name_apart(run: Run) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "x.policy").write_text("set unused = 192.0.2.1\nallow ssh inbound from any\n")
    status, out, _ = run("lint", "a/x.policy", "b/x.policy", "--format", "github")
    assert status == 2
    files = re.findall(r"^::warning file=([^,]*),.*title=unused-declaration", out, re.MULTILINE)
    assert files == ["here/a/x.policy", "here/b/x.policy"]


def test_compile_prints_rules_here_and_commands_there(run: Run) -> None:
    status, out, err = run("compile", "site/good.policy", "--format", "github")
    assert (status, err) == (0, "")
    assert out.startswith("#!/usr/sbin/nft -f\n")
    status, out, err = run("compile", "site/bad.policy", "--format", "sarif")
    assert (status, out) == (1, "")
    assert len(sarif(err)["results"]) == 2


def test_a_failing_test_is_told_at_its_expectation(run: Run) -> None:
    status, out, err = run("test", "site/tested.policy", "--format", "github")
    assert (status, err) == (2, "")
    (line,) = out.splitlines()
    assert line.startswith("::error file=here/site/tested.policy,line=2,endLine=2,col=25,")
    assert "title=expectation-failed::" in line
    status, out, err = run("test", "site/tested.policy", "--format", "sarif")
    assert (status, err) == (2, "")
    assert [one["ruleId"] for one in sarif(out)["results"]] == ["expectation-failed"]
    status, out, _ = run("test", "site/bad.policy", "--format", "sarif")
    assert (status, len(sarif(out)["results"])) == (1, 2)


def test_verify_tells_errors_in_a_log_and_the_rest_beside_it(run: Run) -> None:
    status, out, err = run("verify", "site/bad.policy", "--format", "sarif")
    assert (status, err) == (1, "")
    assert len(sarif(out)["results"]) == 2
    status, out, _ = run("verify", "site/bad.policy", "--format", "github")
    assert (status, out.count("::error ")) == (1, 2)


def test_what_is_wrong_with_a_policy_as_a_whole_is_told_at_its_beginning(run: Run) -> None:
    """GitHub takes no result without a place."""
    _, out, _ = run("check", "site/none.policy", "--format", "sarif")
    (result,) = sarif(out)["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "here/site/none.policy"
    assert place["region"]["startLine"] == 1


def test_standard_input_has_no_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        class buffer:  # noqa: N801 - as sys.stdin has it
            @staticmethod
            def read() -> bytes:
                return BAD.encode()

    monkeypatch.setattr("sys.stdin", Stdin)
    _, out, _ = run("check", "-", "--format", "github")
    assert out.startswith("::error file=<stdin>,line=2,")
