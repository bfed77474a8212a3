"""What is proved in the kernel, as GitHub and editors show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policylang.cli import main

pytestmark = pytest.mark.usefixtures("kernel")


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder to itself, the top of a repository."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / "site").mkdir()


def test_a_proof_leaves_a_log_without_results(capsys: pytest.CaptureFixture[str]) -> None:
    """The words for people are on standard error: standard output is the log alone."""
    Path("site/web.policy").write_text("allow ssh inbound\n")
    arguments = ["verify", "site/web.policy", "--target", "nft", "--format"]
    assert main([*arguments, "sarif"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["runs"][0]["results"] == []
    assert said.err == "site/web.policy: nft does with every packet what the policy says\n"
    assert main([*arguments, "github"]) == 0
    assert capsys.readouterr().out == ""


def test_what_the_kernel_does_otherwise_is_told_at_its_expectation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = 'allow ssh inbound\ntest "nobody" { expect deny ssh inbound }\n'
    Path("site/web.policy").write_text(text)
    arguments = ["test", "site/web.policy", "--kernel", "--target", "nft", "--packets", "5"]
    assert main([*arguments, "--format", "github"]) == 2
    said = capsys.readouterr()
    assert said.err == ""
    (line,) = said.out.splitlines()
    assert line.startswith("::error file=site/web.policy,line=2,endLine=2,col=17,")
    assert "title=expectation-failed::" in line
    assert main([*arguments, "--format", "sarif"]) == 2
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    assert [one["ruleId"] for one in run["results"]] == ["expectation-failed"]
