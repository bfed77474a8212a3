"""What the README shows is what the compiler does."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policylang.backends import TARGETS
from policylang.cli import main
from policylang.packets.values import Ranges
from policylang.syntax.locks import Locked, lock_text
from tests.kernel.ground import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the README in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    policy = Path("web.policy")
    policy.write_text(blocks("policy")[0])
    return policy


def test_rules_are_those_of_the_policy(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(web)]) == 0
    lines = re.sub(r' comment ".*"$', "", capsys.readouterr().out, flags=re.MULTILINE).splitlines()
    made = iter(line.strip() for line in lines)
    (shown,) = blocks("nft")
    missing = [line for line in map(str.strip, shown.splitlines()) if line and line not in made]
    assert missing == []  # each line stands behind the one before it


def test_error_is_told_as_shown(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web.write_text(web.read_text().replace("ftp ", "ftpp "))
    assert main(["check", str(web)]) == 1
    (shown,) = blocks("text")
    assert capsys.readouterr().err.startswith(shown)


@pytest.mark.parametrize("target", TARGETS)
def test_the_router_needs_what_is_said(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("router.policy").write_text(blocks("policy")[1])
    assert main(["compile", "router.policy", "-o", "out/", "--target", target]) == 0
    assert capsys.readouterr().err == ""
    shown = blocks("console")[0]
    said = shown.partition("switched on")[2].strip().split(", ")
    sysctls = Path("out/sysctl.conf").read_text()
    assert said == [f"`{name}`" for name in re.findall(r"^(\S+) = 1$", sysctls, re.MULTILINE)]
    assert "nf_nat_ftp" in Path("out/modules-load.conf").read_text().splitlines()


def test_what_is_expected_holds(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web.write_text(web.read_text() + blocks("policy")[2])
    assert main(["test", str(web)]) == 0
    assert "3 expectations" in capsys.readouterr().out


def test_the_answer_is_the_one_shown(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks("console")[1]
    command, _, answer = shown.partition("\n")
    assert main(shlex.split(command)[2:]) == 2
    assert capsys.readouterr().out.strip() == answer.strip()


def test_several_hosts_compile_and_answer_as_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("site.policy").write_text(blocks("policy")[3])
    compiling, told, asking, answer = blocks("console")[2].splitlines()
    assert main(shlex.split(compiling)[2:]) == 0
    assert capsys.readouterr().err.strip() == told
    names = sorted(path.name for path in Path("build").iterdir())
    assert names == ["db1.nft", "gw.nft", "web1.nft"]
    assert main(shlex.split(asking)[2:]) == 2
    assert capsys.readouterr().out.startswith(f"{answer}\n")


def test_language_tour_compiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "own.policy").write_text("allow http outbound\n")
    (tmp_path / "blocklist.txt").write_text("198.51.100.0/24\n")
    (tmp_path / "tour.policy").write_text(blocks("policy")[4])
    mirrors = Locked(Ranges.of(1), datetime(2026, 1, 1, tzinfo=UTC))
    lock = lock_text({"resolve mirror.example": mirrors})
    (tmp_path / "tour.policy.lock").write_text(lock)
    assert main(["check", str(tmp_path / "tour.policy")]) == 0
    assert "warning" not in capsys.readouterr().err
