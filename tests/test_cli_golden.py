"""`policylang golden`: what it keeps beside policies, what differs, and what it rewrites."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policylang.cli import golden as golden_module
from policylang.cli import golden_cases, main, output
from policylang.diagnostics import Report

WEB = "zone wan { interface eth0 }\nallow https inbound from wan\n"
HOSTS = """\
host web1 { address 192.0.2.10 }
host db1 { address 192.0.2.20 }
allow postgresql from web1 to db1
"""
LACKING = "allow ftpp inbound\nallow httpp inbound\n"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder to itself; none depends on the terminal."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def golden(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its status, output and messages."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["golden", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def put(name: str, text: str) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def below(folder: str) -> dict[str, str]:
    """All files below a folder, with what they hold."""
    found = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in found}


# --- keeping ------------------------------------------------------------------------------------


def test_what_is_kept_is_what_compile_makes(golden: Run) -> None:
    put("site/web.policy", WEB)
    assert golden("site", "--update") == (0, "site/web.policy: 3 added\n1 policy: 1 updated\n", "")
    kept = below("site/web.golden")
    assert sorted(kept) == ["iptables/rules.v4", "iptables/rules.v6", "nft.nft"]
    assert main(["compile", "site/web.policy", "-o", "rules.nft"]) == 0
    assert main(["compile", "site/web.policy", "--target", "iptables", "-o", "rules"]) == 0
    assert kept["nft.nft"] == Path("rules.nft").read_text()
    assert {name: text for name, text in kept.items() if "/" in name} == {
        f"iptables/{name}": text for name, text in below("rules").items()
    }


def test_what_rules_need_at_boot_is_kept_once(golden: Run) -> None:
    put("router.policy", "allow ftp from 192.0.2.0/24 to any\n")
    golden(".", "--update")
    kept = below("router.golden")
    assert {"boot/modules-load.conf", "boot/sysctl.conf"} < set(kept)
    assert "nf_conntrack_ftp" in kept["boot/modules-load.conf"]


def test_a_second_update_touches_nothing(golden: Run) -> None:
    put("web.policy", WEB)
    golden(".", "--update")

    def written() -> dict[Path, tuple[int, int]]:
        found = ((path, path.stat()) for path in Path("web.golden").rglob("*"))
        return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found}

    before = written()
    assert golden(".", "--update") == (0, "1 policy: 1 as kept\n", "")
    assert before == written()
    assert golden(".") == (0, "1 policy: 1 as kept\n", "")
    assert golden(".", "--check") == (0, "1 policy: 1 as kept\n", "")


def test_of_several_hosts_each_has_a_folder(golden: Run) -> None:
    put("site.policy", HOSTS)
    assert golden(".", "--update")[0] == 0
    kept = below("site.golden")
    assert {name.partition("/")[0] for name in kept} == {"web1", "db1"}
    assert "tcp dport 5432" in kept["db1/nft.nft"]
    assert kept["db1/nft.nft"] != kept["web1/nft.nft"]
    put("site.policy", HOSTS.replace("db1", "db2"))
    golden(".", "--update")
    assert {name.partition("/")[0] for name in below("site.golden")} == {"web1", "db2"}
    assert not Path("site.golden/db1").exists()


def test_hosts_of_an_inventory_are_hosts(golden: Run) -> None:
    put("site.policy", "allow postgresql from web1 to db1\n")
    put("hosts.inventory", HOSTS.rpartition("allow")[0])
    assert golden("site.policy", "--update")[0] == 1
    assert golden("site.policy", "--update", "--inventory", "hosts.inventory")[0] == 0
    assert Path("site.golden/db1/nft.nft").exists()


def test_one_target_alone_leaves_the_other_as_it_is(golden: Run) -> None:
    put("web.policy", WEB)
    assert golden(".", "--update", "--target", "nft")[0] == 0
    assert sorted(below("web.golden")) == ["nft.nft"]
    golden(".", "--update")
    put("web.golden/iptables/rules.v4", "# policylang\nsomething else\n")
    assert golden(".", "--target", "nft")[0] == 0
    assert golden(".")[0] == 2
    put("web.policy", WEB.replace("https", "http"))
    golden(".", "--update", "--target", "nft")
    assert "something else" in Path("web.golden/iptables/rules.v4").read_text()


UNTIL = "allow smtp inbound until 2045-01-31\n"  # what iptables cannot say


def test_a_policy_is_kept_for_the_targets_that_a_file_beside_it_names(golden: Run) -> None:
    put("a.policy", WEB)
    put("b.policy", f"{WEB}{UNTIL}")
    assert golden(".", "--update")[0] == 1
    put("b.targets", "# iptables cannot say that\nnft\n")
    assert golden(".", "--update")[0] == 0
    assert sorted(below("b.golden")) == ["nft.nft"]
    assert len(below("a.golden")) == 3
    assert golden(".") == (0, "2 policies: 2 as kept\n", "")
    # What was kept for another one goes, and an option chooses among those that are named.
    put("a.targets", "iptables")
    status, out, _ = golden(".")
    assert (status, "--- a.golden/nft.nft (kept)\n+++ /dev/null\n" in out) == (2, True)
    assert golden(".", "--target", "iptables")[0] == 0
    assert golden(".", "--update", "--target", "nft")[1].startswith("a.policy: 1 removed\n")
    assert sorted(below("a.golden")) == ["iptables/rules.v4", "iptables/rules.v6"]
    assert golden(".")[0] == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("iptables, nft", ("nft", "iptables")),
        ("\ufeffnft # and no other\r\n", ("nft",)),
        ("# nft\n", None),
        ("nft;iptables", None),
        ("NFT", None),
    ],
)
def test_targets_are_words(text: str, found: tuple[str, ...] | None) -> None:
    put("a.targets", text)
    report = Report()
    named = golden_cases.targets_beside(Path("a.policy"), report)
    assert report.has_errors == (found is None)
    assert named == (found or ("nft", "iptables"))


# --- differences --------------------------------------------------------------------------------


def test_a_difference_ends_with_2_and_shows_its_lines(golden: Run) -> None:
    put("site/web.policy", WEB)
    golden("site", "--update")
    put("site/web.policy", WEB.replace("https", "http"))
    before = below("site")
    status, out, err = golden("site", "--target", "nft")
    assert (status, err) == (2, "")
    assert "site/web.policy: compiles to something else than is kept\n" in out
    assert "--- site/web.golden/nft.nft (kept)\n+++ site/web.golden/nft.nft (now)\n" in out
    (gone,) = re.findall(r"^-\t.*", out, re.MULTILINE)
    (come,) = re.findall(r"^\+\t.*", out, re.MULTILINE)
    assert ("tcp dport 443 " in gone, "tcp dport 80 " in come) == (True, True)
    assert "1 policy: 1 different\n`policylang golden --update site` keeps" in out
    assert below("site") == before
    assert golden("site", "--update")[1] == "site/web.policy: 3 changed\n1 policy: 1 updated\n"
    assert golden("site")[0] == 0


def test_of_what_was_never_kept_there_is_no_diff(golden: Run) -> None:
    put("web.policy", WEB)
    status, out, _ = golden(".")
    assert status == 2
    assert out.splitlines()[:1] == ["web.policy: nothing is kept of what it compiles to"]
    assert "+++" not in out


def test_a_file_that_is_missing_or_too_much_differs(golden: Run) -> None:
    put("web.policy", WEB)
    golden(".", "--update")
    Path("web.golden/iptables/rules.v6").unlink()
    put("web.golden/iptables/sets.ipset", "# Made by policylang\ncreate x hash:ip\n")
    status, out, _ = golden(".")
    assert status == 2
    assert "--- /dev/null\n+++ web.golden/iptables/rules.v6 (now)\n" in out
    assert "--- web.golden/iptables/sets.ipset (kept)\n+++ /dev/null\n" in out
    assert golden(".", "--update")[1].startswith("web.policy: 1 added, 1 removed\n")
    assert golden(".")[0] == 0


def test_files_of_others_are_left_alone(golden: Run) -> None:
    put("web.policy", WEB)
    golden(".", "--update")
    put("web.golden/README", "kept by policylang golden\n")
    put("of-others.golden/README", "kept by policylang golden\n")
    assert golden(".") == (0, "1 policy: 1 as kept\n", "")
    put("web.policy", WEB.replace("https", "http"))
    golden(".", "--update")
    assert Path("web.golden/README").read_text() == "kept by policylang golden\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x\r\n", "-x\\x0d\n+x\n"),
        ("x", "-x\n\\ No newline at end of file\n+x\n"),
        ("x\x0b\n", "-x\\x0b\n+x\n"),
        ("x\u2028\n", "-x\\u2028\n+x\n"),
    ],
)
def test_whatever_differs_is_shown(
    golden: Run, monkeypatch: pytest.MonkeyPatch, text: str, line: str
) -> None:
    """Where the ends of lines differ as well, which git may rewrite."""
    put("web.policy", WEB)
    put("web.golden/nft.nft", text)
    monkeypatch.setattr(golden_module, "outputs", lambda *_: {"nft.nft": "x\n"})
    status, out, _ = golden(".", "--target", "nft")
    assert (status, f"\n{line}" in out) == (2, True)


def test_outputs_of_a_policy_that_is_gone_are_told_and_removed(golden: Run) -> None:
    put("site/old.policy", WEB)
    put("site/web.policy", WEB)
    golden("site", "--update")
    Path("site/old.policy").unlink()
    status, out, _ = golden("site")
    assert status == 2
    assert "site/old.policy: is not there any more, and what it compiled to still is\n" in out
    assert golden("site", "--update")[0] == 0
    assert not Path("site/old.golden").exists()
    assert Path("site/web.golden/nft.nft").exists()
    assert golden("site") == (0, "1 policy: 1 as kept\n", "")


def test_outputs_of_what_has_become_a_part_are_told_as_that(golden: Run) -> None:
    put("part.policy", "allow ssh inbound\n")
    golden(".", "--update")
    put("web.policy", f'{WEB}include "part.policy"\n')
    status, out, _ = golden(".")
    assert status == 2
    assert "part.policy: is a part of others, and what it compiled to by itself is still " in out
    assert golden(".", "--update")[0] == 0
    assert not Path("part.golden").exists()


def test_what_a_kept_file_holds_does_not_act_on_the_terminal(golden: Run) -> None:
    put("web.policy", WEB)
    golden(".", "--update")
    put("web.golden/nft.nft", "# Made by policylang\x1b[2J\n")
    _, out, _ = golden(".")
    assert "\x1b" not in out
    assert "-# Made by policylang\\x1b[2J\n" in out
    Path("web.golden/nft.nft").write_bytes(b"# policylang \xff\n")
    assert golden(".")[0] == 2


def test_colours_mark_lines(golden: Run) -> None:
    put("web.policy", WEB)
    golden(".", "--update")
    put("web.policy", WEB.replace("https", "http"))
    _, out, _ = golden(".", "--color", "always")
    assert re.search("\x1b\\[31m-\t.*443.*\x1b\\[0m", out)
    assert re.search("\x1b\\[32m\\+\t.*80.*\x1b\\[0m", out)


# --- which policies -----------------------------------------------------------------------------


def test_parts_that_others_include_are_no_policies(golden: Run) -> None:
    put("web.policy", f'{WEB}include "parts/*.policy"\n')
    put("parts/ssh.policy", "allow ssh inbound from wan\n")
    put("sub/mail.policy", "allow smtp inbound\n")
    put(".hidden/x.policy", LACKING)
    assert golden(".", "--update")[:2] == (
        0,
        "sub/mail.policy: 3 added\nweb.policy: 3 added\n2 policies: 2 updated\n",
    )
    assert sorted(path.as_posix() for path in Path().rglob("*.golden")) == [
        "sub/mail.golden",
        "web.golden",
    ]
    put("parts/ssh.policy", "allow ssh inbound from wan\nallow imaps inbound from wan\n")
    assert "tcp dport" in golden(".")[1]


def test_a_part_is_a_policy_where_it_is_named(golden: Run) -> None:
    put("web.policy", f'{WEB}include "ssh.policy"\n')
    put("ssh.policy", "allow ssh inbound\n")
    assert golden("ssh.policy", "--update")[0] == 0
    assert Path("ssh.golden/nft.nft").exists()


def test_of_files_that_include_one_another_all_are_told(golden: Run) -> None:
    put("a.policy", 'include "b.policy"\n')
    put("b.policy", 'include "a.policy"\n')
    status, out, err = golden(".")
    assert (status, err.count("error[include-cycle]")) == (1, 2)
    assert "2 policies: 2 with errors\n" in out


def test_errors_of_all_policies_are_told_in_one_run(golden: Run) -> None:
    """Those without errors are rewritten; what was kept of the others stays."""
    put("site/a/web.policy", WEB)
    golden("site", "--update")
    put("site/a/web.policy", LACKING)
    put("site/b/web.policy", LACKING)
    put("site/good.policy", WEB)
    before = below("site/a/web.golden")
    status, out, err = golden("site", "--update")
    assert status == 1
    assert re.findall(r"--> (\S+)", err) == [
        *("site/a/web.policy:1:7", "site/a/web.policy:2:7"),
        *("site/b/web.policy:1:7", "site/b/web.policy:2:7"),
    ]
    assert "3 policies: 1 updated, 2 with errors\n" in out
    assert below("site/a/web.golden") == before
    assert Path("site/good.golden/nft.nft").exists()


def test_an_error_of_one_host_or_target_keeps_all_of_the_policy(golden: Run) -> None:
    put("site.policy", HOSTS)
    golden(".", "--update")
    before = below("site.golden")
    put("site.policy", f"{HOSTS}allow ssh to web1\non db1 {{ allow ftpp inbound }}\n")
    status, _, err = golden(".", "--update")
    assert status == 1
    assert "no service named `ftpp`" in err
    assert below("site.golden") == before


def test_a_folder_without_policies_is_told(golden: Run) -> None:
    Path("empty").mkdir()
    status, _, err = golden("empty")
    assert status == 1
    assert "error[no-policies]: there is no policy in `empty`" in err
    status, _, err = golden("nowhere")
    assert (status, "error[unreadable-file]: cannot read `nowhere`" in err) == (1, True)


def test_a_pipe_is_no_policy_and_is_not_waited_for(golden: Run) -> None:
    put("web.policy", WEB)
    os.mkfifo("x.policy")
    for path in (".", "x.policy"):
        status, _, err = golden(path)
        assert status == 1
        assert "error[unreadable-file]: cannot read `x.policy`: it is neither a file nor " in err


def test_a_folder_that_cannot_be_looked_into_is_told(
    golden: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in it is not as kept: nobody knows."""
    put("web.policy", WEB)
    put("shut/mail.policy", WEB)
    golden(".", "--update")
    look = os.scandir

    def refused(path: str) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr(os, "scandir", refused)
    status, _, err = golden(".")
    assert status == 1
    assert err.count("error[unreadable-file]: cannot read `./shut`: Permission denied") == 1


# --- parameters ---------------------------------------------------------------------------------


def test_a_file_beside_the_policy_gives_parameters_values(golden: Run) -> None:
    put(
        "web.policy",
        "param uplink\nparam admins = 192.0.2.1\nzone wan { interface $uplink }\n"
        "allow ssh inbound from $admins in wan\n",
    )
    put(
        "web.params",
        '# the line outside\nuplink = "eth0.7"  # a VLAN\n\nadmins=198.51.100.1, 2001:db8::1\n',
    )
    assert golden(".", "--update")[0] == 0
    rules = Path("web.golden/nft.nft").read_text()
    assert 'iifname "eth0.7"' in rules
    assert "198.51.100.1" in rules


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("uplink eth0\n", "1:1", "the line gives no parameter a value"),
        ("\nuplink = \n", "2:1", "the line gives no parameter a value"),
        ('uplink = "eth0\n', "1:1", "the line gives no parameter a value"),
        ("= eth0\n", "1:1", "the line gives no parameter a value"),
        ("uplink = a\nuplink = b\n", "2:1", "the parameter `uplink` is given a second value"),
    ],
)
def test_a_line_that_gives_no_value_is_told(
    golden: Run, text: str, place: str, message: str
) -> None:
    put("web.policy", "param uplink = eth0\nallow ssh inbound\n")
    put("web.params", text)
    status, _, err = golden(".")
    assert status == 1
    assert f"error[bad-params]: {message}\n  --> web.params:{place}\n" in err


def test_values_that_nothing_declares_are_told(golden: Run) -> None:
    put("web.policy", "allow ssh inbound\n")
    put("web.params", "uplnk = eth0\n")
    status, _, err = golden(".")
    assert status == 1
    assert "error[unknown-parameter]: `-D uplnk`: " in err
    assert "--> web.policy:1:1\n" in err


def test_values_keep_their_quotes_and_what_is_in_them() -> None:
    put("a.params", 'a = "x # y", "z"   # no more\nb = 1-2, 3\n')
    report = Report()
    found = golden_cases.parameters_beside(Path("a.policy"), report)
    assert found == {"a": '"x # y", "z"', "b": "1-2, 3"}
    assert not report.diagnostics


# --- formats ------------------------------------------------------------------------------------


def test_json_says_of_each_policy_what_became_of_it(golden: Run) -> None:
    put("bad.policy", LACKING)
    put("web.policy", WEB)
    golden("web.policy", "--update")
    put("web.policy", WEB.replace("https", "http"))
    status, out, err = golden(".", "--target", "nft", "--format", "json")
    assert (status, err) == (1, "")
    told = json.loads(out)
    assert told["version"] == 1
    bad, web = told["policies"]
    assert bad == {
        **{"policy": "bad.policy", "folder": "bad.golden", "state": "failed"},
        **{"gone": False, "files": []},
    }
    assert (web["policy"], web["state"]) == ("web.policy", "differs")
    (file,) = web["files"]
    assert (file["file"], file["how"]) == ("nft.nft", "changed")
    assert file["diff"].startswith("--- web.golden/nft.nft (kept)\n")
    assert {one["code"] for one in told["diagnostics"]} == {"unknown-service"}
    assert {one["file"] for one in told["diagnostics"]} == {"bad.policy"}


def test_a_workflow_is_told_at_the_policy_and_reads_no_commands_in_the_diff(golden: Run) -> None:
    Path(".git").mkdir()
    put("site/web.policy", WEB)
    golden("site", "--update")
    put("site/web.golden/nft.nft", "# Made by policylang\n::error::forged\n")
    status, out, err = golden("site", "--format", "github")
    assert (status, err) == (2, "")
    first, stop, *_, last = out.splitlines()
    assert first.startswith("::error file=site/web.policy,line=1,")
    assert "title=golden-differs::" in first
    word = stop.removeprefix("::stop-commands::")
    assert (len(word), last) == (64, f"::{word}::")
    assert out.index("forged") > out.index(stop)


def test_sarif_has_a_result_for_each_policy_that_differs(golden: Run) -> None:
    put("a.policy", WEB)
    put("b.policy", LACKING)
    status, out, _ = golden(".", "--format", "sarif")
    assert status == 1
    (one,) = json.loads(out)["runs"]
    assert [result["ruleId"] for result in one["results"]] == [
        *("unknown-service", "unknown-service"),
        "golden-differs",
    ]


# --- writing ------------------------------------------------------------------------------------


def test_nothing_is_replaced_before_all_is_on_the_disk(
    golden: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("web.policy", WEB)
    golden(".", "--update")
    before = below("web.golden")
    put("web.policy", WEB.replace("https", "http"))
    written = output._written_aside

    def full(path: Path, text: str) -> Path:
        if path.name == "rules.v6":
            raise OSError(28, "No space left on device")
        return written(path, text)

    monkeypatch.setattr(output, "_written_aside", full)
    status, out, err = golden(".", "--update")
    assert (status, "error[cannot-write]" in err) == (1, True)
    assert "cannot write `web.golden" in err
    assert "1 policy: 1 with errors\n" in out
    assert below("web.golden") == before
    assert not [name for name in os.listdir("web.golden") if name.startswith(".")]  # noqa: PTH208
