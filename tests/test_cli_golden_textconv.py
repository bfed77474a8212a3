"""`policylang textconv`: rules in words, and what git shows by it (nft: `tests/kernel`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policylang.analysis import diagram
from policylang.cli import golden_textconv, main
from policylang.cli.output import write_folder
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy

REPOSITORY = Path(__file__).parents[1]
OLD = """\
zone wan { interface eth0 }
allow https inbound from wan
reject ssh inbound log "ssh "
"""
ODD = """\
allow smtp inbound log "a (b) c:7 d) "
allow imaps inbound log "x: 7 (y"
"""

Told = Callable[[str], str]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder to itself."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """What the command says of a file."""

    def run(file: str) -> str:
        capsys.readouterr()
        assert main(["textconv", file]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return said.out

    return run


def compiled(policy: str, folder: str = ".") -> None:
    """Write what a policy compiles to for iptables."""
    report = Report()
    artifact = compile_policy(Text(policy, "web.policy", Path()), "iptables", report)
    assert artifact is not None, report.diagnostics
    files = {file.name: file.text for file in artifact.files}
    write_folder(Path(folder), files, (), report)
    assert not report.diagnostics


def blocks(text: str) -> dict[str, list[str]]:
    """What is told, by its headings."""
    found = {}
    for block in text.strip().split("\n\n"):
        heading, *lines = block.splitlines()
        found[heading] = [line.strip() for line in lines]
    return found


def test_it_says_what_passes_is_refused_and_logged_and_by_which_statement(told: Told) -> None:
    compiled(OLD)
    found = blocks(told("rules.v4"))
    assert "# What these rules do with IPv4; all else is dropped, and nothing done to it." in found
    passes = found["inbound: what passes"]
    at = passes.index("IPv4 tcp 443 from any by eth0")
    assert passes[at + 1] == "by web.policy: allow https inbound from wan"
    refused = found["inbound: what is refused with an answer"]
    assert refused == [
        *("IPv4 tcp 22", "rejected with tcp-reset"),
        "by web.policy: reject ssh inbound log 'ssh '",
    ]
    assert 'logged as "ssh ", within 10/second (burst 5)' in found["inbound: what is logged"]
    assert "by default" in found["outbound: what passes"]


def test_each_family_is_told_by_itself(told: Told) -> None:
    compiled("allow ping inbound from 192.0.2.1, 2001:db8::1\n")
    v4, v6 = told("rules.v4"), told("rules.v6")
    assert "icmp echo-request from 192.0.2.1" in v4
    assert "icmpv6 echo-request from 2001:db8::1" in v6
    assert ("IPv6" in v4, "IPv4" in v6) == (False, False)


def test_neither_names_of_files_nor_numbers_of_lines_are_told(told: Told) -> None:
    """Nor where a word of a statement holds what a place is written with."""
    compiled(OLD + ODD)
    before = told("rules.v4")
    assert "by web.policy: allow smtp inbound log 'a (b) c:7 d) '" in before
    compiled("\n\n\n" + OLD + ODD, "elsewhere")
    after = told("elsewhere/rules.v4")
    assert before.splitlines()[:-1] == after.splitlines()[:-1]
    # That the texts differ is told all the same, or git would show nothing at all.
    assert before.splitlines()[-1] != after.splitlines()[-1]


def test_rules_of_any_origin_are_told(told: Told) -> None:
    Path("saved").write_text(
        "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n"
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    )
    found = blocks(told("saved"))
    passes = found["inbound: what passes"]
    assert passes[:2] == ["IPv4 tcp 22 (INVALID ones too)", "by iptables filter INPUT"]
    assert found["outbound: what passes"][0] == "all IPv4 traffic"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("*filter\n-A INPUT", "cannot read `rules`"),
        ("allow ssh inbound\n", "these are no rules"),
        ("allow ftpp inbound\n", "no service named `ftpp`"),
        ("create x hash:ip\n", ""),
        ("", ""),
    ],
)
def test_what_cannot_be_told_is_shown_under_the_reason(told: Told, text: str, why: str) -> None:
    """A textconv that fails would be the end of the whole `git diff`."""
    Path("rules").write_text(text)
    first, _, rest = told("rules").partition("\n")
    assert first.startswith("# what this means is not told: ")
    assert why in first
    assert rest == text


def test_of_any_origin_no_number_is_told(told: Told) -> None:
    rule = {"family": "inet", "table": "t", "chain": "c", "expr": [{"accept": None}]}
    chain = {"family": "inet", "table": "t", "name": "c", "type": "filter", "hook": "input"}
    listed = [
        {"table": {"family": "inet", "name": "t"}},
        {"chain": {**chain, "prio": 0, "policy": "drop"}},
    ]
    texts = []
    for more in ({}, {"handle": 4}, {"comment": "why: not"}, {"handle": 5, "comment": "why: not"}):
        Path("rules").write_text(json.dumps({"nftables": [*listed, {"rule": {**rule, **more}}]}))
        (line,) = blocks(told("rules"))["inbound: what passes"][1:2]
        texts.append(line)
    assert texts == ["by inet t c", "by inet t c", "by why: not", "by why: not"]


def test_where_git_puts_a_side_is_not_told(told: Told, tmp_path: Path) -> None:
    """Else the reason would be a difference of two sides that are alike."""
    texts = set()
    for place in ("a/rules.v4", str(tmp_path / "b/rules.v4"), "-"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).write_text("*filter\n-A INPUT")
        texts.add(told(place).replace("`-`", "`rules.v4`"))
    (text,) = texts
    assert text.startswith("# what this means is not told: cannot read `rules.v4` at line ")


def test_what_is_too_large_is_shown_as_it_is(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_textconv, "Space", lambda: diagram.Space(3000))
    monkeypatch.setattr(diagram, "MOST_NODES", 3000)
    compiled(OLD)
    first, _, rest = told("rules.v4").partition("\n")
    assert (
        first
        == "# what this means is not told: they make too many different packets to be told apart"
    )
    assert rest == Path("rules.v4").read_text()


def test_a_file_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["textconv", "none"]) == 1
    assert "error[unreadable-file]: cannot read `none`" in capsys.readouterr().err


def git(*arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = ["git", *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def test_git_shows_what_differs_in_meaning() -> None:
    """By the command that the help has; `tests/examples` shows it by that of the examples."""
    git("init", "-q")
    git("config", "diff.policylang.textconv", f"{sys.executable} -m policylang textconv")
    Path(".gitattributes").write_text("rules.v4 diff=policylang\nrules.v6 diff=policylang\n")
    compiled(OLD, "web.golden/iptables")
    git("add", "-A")
    git("commit", "-qm", "one")
    compiled(OLD.replace("https", "https, imaps"), "web.golden/iptables")
    shown = git("diff", "--", "web.golden/iptables/rules.v4")
    assert "\n-  IPv4 tcp 443 from any by eth0\n" in shown
    assert "\n+  IPv4 tcp 443, 993 from any by eth0\n" in shown
    assert "-A policylang-input" not in shown
    assert "--dports 443,993" in git("diff", "--no-textconv")


def test_the_same_in_other_words_is_told_as_that(told: Told) -> None:
    compiled(OLD)
    path = Path("rules.v4")
    before = told("rules.v4").splitlines()
    path.write_text(path.read_text() + "# a comment\n")
    after = told("rules.v4").splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert [(old[:10], new[:10]) for old, new in changed] == [("# As text:", "# As text:")]
