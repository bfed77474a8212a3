"""`policylang test`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from policylang.cli import main

POLICY = """\
zone wan { interface eth0 }
set admins = 192.0.2.0/24
param door = 22
allow tcp $door inbound from admins
allow http inbound

test "the web is open" { expect allow http inbound }
test "ssh is closed" {
  expect deny ssh inbound from any except admins
  expect deny ssh inbound
}
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "web.policy"
    path.write_text(POLICY)
    return path


def test_each_test_has_a_line_and_what_fails_is_shown(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", str(policy)]) == 2
    told = capsys.readouterr()
    assert told.err == ""
    assert (
        told.out
        == f"""\
{policy}:
  ok      the web is open (1 expectation)
  FAILED  ssh is closed (1 of 2 expectations)

    error[expectation-failed]: not every packet is denied: `tcp SYN 192.0.2.1:40000 to \
198.51.100.1:22 (self), in by eth0 (wan), new` is accepted
      --> web.policy:10:3
      10 |   expect deny ssh inbound
         |   ^^^^^^^^^^^^^^^^^^^^^^^
      ::: web.policy:4:1
       4 | allow tcp $door inbound from admins
         | ----------------------------------- decided here


1 of 2 tests passed, 3 expectations
"""
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["--name", "the web*"], 0),
        (["--name", "ssh is closed"], 2),
        (["--name", "*ftp*"], 1),
        (["-D", "door=23"], 0),
        (["-D", "door=nothing"], 1),
    ],
)
def test_the_status_says_whether_all_is_as_expected(
    policy: Path, arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", str(policy), *arguments]) == status
    assert bool(capsys.readouterr().err) == (status == 1)


def test_errors_of_one_policy_keep_all_from_being_proved(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = policy.with_name("bad.policy")
    bad.write_text('allow ssh inbound test "x" { expect allow sssh inbound }')
    assert main(["test", str(policy), str(bad)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "error[unknown-service]: no service named `sssh`" in told.err
    assert "did you mean `ssh`?" in told.err


def test_a_policy_without_tests_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "empty.policy"
    path.write_text("allow ssh inbound")
    assert main(["test", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: no tests\n\n0 of 0 tests passed, 0 expectations\n"


def test_programs_read_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", str(policy), "--format", "json"]) == 2
    told = capsys.readouterr()
    assert told.err == "[]\n"
    result = json.loads(told.out)
    assert (result["version"], result["passed"], result["failed"]) == (1, 1, 1)
    (of_policy,) = result["policies"]
    assert [(t["name"], t["passed"]) for t in of_policy["tests"]] == [
        ("the web is open", True),
        ("ssh is closed", False),
    ]
    holds, fails = of_policy["tests"][1]["expectations"]
    assert holds["holds"] and holds["failure"] is None
    assert fails["text"] == "expect deny ssh inbound"
    assert (fails["file"], fails["line"], fails["column"]) == ("web.policy", 10, 3)
    failure = fails["failure"]
    assert failure["packet"].startswith("tcp SYN 192.0.2.1:40000 to 198.51.100.1:22")
    assert failure["why"] == "web.policy:4 allow tcp $door inbound from admins"
    assert [label["line"] for label in failure["labels"]] == [4]


def test_tests_are_compiled_to_nothing(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(policy)]) == 0
    whole = capsys.readouterr().out
    policy.write_text(POLICY.partition("test ")[0])
    assert main(["compile", str(policy)]) == 0
    assert capsys.readouterr().out == whole


def test_colours_are_for_terminals(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["test", str(policy), "--color", "always"])
    assert "\x1b[32mok\x1b[0m" in capsys.readouterr().out
    main(["test", str(policy)])
    assert "\x1b" not in capsys.readouterr().out
