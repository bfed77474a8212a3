"""`policylang refresh` at the command line: what it takes, writes and says, without a kernel."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from policylang.apply import kernel
from policylang.cli import main
from policylang.diagnostics import Report

POLICY = 'set cdn = resolve "cdn.example", "www.example"\nallow https outbound to cdn\n'
ANSWERS = {"cdn.example": "192.0.2.1", "www.example": "2001:db8::1"}


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who may not look at what is loaded, and a resolver that knows `ANSWERS`."""

    def getaddrinfo(name: str, port: None, family: int, type: int) -> list[Any]:
        text = ANSWERS.get(name)
        if text is None or (":" in text) != (family == socket.AF_INET6):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, type, 0, "", (text, 0))]

    def may_change(report: Report) -> bool:
        report.add("not-permitted", "may not read or change what is loaded", None)
        return False

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(kernel, "may_change", may_change)
    monkeypatch.chdir(tmp_path)
    Path("web.policy").write_text(POLICY)


def test_a_lock_file_is_written_and_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever has it compiles; nobody needs root for that."""
    assert main(["check", "web.policy"]) == 1
    assert capsys.readouterr().err.count("help: run `policylang refresh web.policy`") == 2
    assert main(["refresh", "web.policy"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "cdn.example: 1 address or prefix, 1 new, 0 gone",
        "www.example: 1 address or prefix, 1 new, 0 gone",
        "the lock file alone: what is loaded can be looked at as root",
    ]
    assert main(["compile", "web.policy"]) == 0
    script = capsys.readouterr().out
    assert "192.0.2.1" in script and "2001:db8::1" in script
    assert main(["refresh", "web.policy", "--due"]) == 0
    assert "example" not in capsys.readouterr().out


def test_the_lock_file_has_what_the_policy_names_alone() -> None:
    main(["refresh", "web.policy"])
    Path("own.policy").write_text('set more = resolve "www.example" refresh 5m\n')
    Path("web.policy").write_text('include "own.policy"\n')
    assert main(["refresh", "web.policy"]) == 0
    assert list(json.loads(Path("web.policy.lock").read_text())["sources"]) == [
        "resolve www.example"
    ]
    assert not Path("own.policy.lock").exists()


def test_a_lock_file_that_is_a_link_stays_one() -> None:
    Path("kept").mkdir()
    Path("web.policy.lock").symlink_to("kept/lock")
    assert main(["refresh", "web.policy"]) == 0
    assert Path("web.policy.lock").is_symlink() and Path("kept/lock").is_file()
    assert [path.name for path in Path("kept").iterdir()] == ["lock"]


def test_sources_that_fail_are_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.policy").write_text('set cdn = resolve "nowhere.example"\n')
    assert main(["refresh", "web.policy", "--format", "json"]) == 1
    (told,) = json.loads(capsys.readouterr().err)
    assert (told["code"], told["severity"]) == ("source-failed", "warning")
    assert main(["check", "web.policy"]) == 1


def test_a_policy_without_lists_needs_no_lock_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.policy").write_text("allow ssh inbound\n")
    assert main(["refresh", "web.policy"]) == 0
    assert capsys.readouterr().out == "web.policy: no list from elsewhere\n"
    assert not Path("web.policy.lock").exists()


def test_a_policy_with_mistakes_is_not_refreshed() -> None:
    Path("web.policy").write_text(f'{POLICY}set bad = url "ftp://lists.example/"\n')
    assert main(["refresh", "web.policy"]) == 1
    assert not Path("web.policy.lock").exists()


def test_parameters_reach_the_sets(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.policy").write_text(
        f"param every = 5m\n{POLICY}".replace('ple"\n', 'ple" refresh $every\n')
    )
    assert main(["refresh", "web.policy", "-D", "every=0s"]) == 1
    assert "error[bad-duration]" in capsys.readouterr().err
    assert main(["refresh", "web.policy", "-D", "every=10m"]) == 0


def test_a_lock_file_that_cannot_be_written_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Path("web.policy.lock").symlink_to("gone/lock")
    assert main(["refresh", "web.policy"]) == 1
    assert "error[cannot-write]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["-"], ["web.policy", "--all"], ["--all", "--check"]], ids=" ".join
)
def test_what_is_to_be_refreshed_is_said(arguments: list[str]) -> None:
    assert main(["refresh", *arguments]) == 1


def test_standard_input_has_no_lock_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("web.policy").open() as policy:
        monkeypatch.setattr("sys.stdin", policy)
        assert main(["check", "-"]) == 1
    assert "save the policy as a file" in capsys.readouterr().err


def test_lists_of_some_hosts_are_asked_for_too(capsys: pytest.CaptureFixture[str]) -> None:
    own = 'on a { set cdn = resolve "cdn.example" allow https outbound to cdn }'
    Path("site.policy").write_text(f"host a {{ address 192.0.2.9 }}\n{own}\n")
    assert main(["refresh", "site.policy"]) == 0
    assert capsys.readouterr().out.startswith("cdn.example: 1 address or prefix, 1 new, 0 gone\n")
    assert main(["compile", "--host", "a", "site.policy"]) == 0
