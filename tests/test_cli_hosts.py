"""Policies of several hosts on the command line: one, all of them, and what is between them."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from policylang.analysis.diagram import TooLargeError
from policylang.analysis.site import Site
from policylang.cli import fleet, main
from tests.benchmark.policies import fleet as fleet_of
from tests.kernel.ground import REPOSITORY

SITE = """\
host web1 { address 10.0.2.10, 2001:db8:2::10 }
host web2 { address 10.0.2.11 }
host db1 { address 10.0.3.5 }
host gw {
  address 10.0.2.1
  gateway
  zone wan { interface eth0 }
  zone dmz { interface eth1  network 10.0.2.0/24, 2001:db8:2::/64 }
  zone inside { interface eth2  network 10.0.3.0/24 }
}
set webservers = web1, web2
allow postgresql from webservers to db1
on webservers { allow http, https inbound }
on gw { allow http, https from wan to webservers }
default deny outbound
"""
HOSTS = ("web1", "web2", "db1", "gw")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("site.policy")
    path.write_text(SITE)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    """What a command writes to standard output and to standard error."""
    assert main(arguments) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


# --- one host, and all of them ----------------------------------------------------------------


def test_one_of_several_has_to_be_chosen(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ("compile", "site.policy"),
        ("query", "site.policy", "--matrix"),
        ("verify", "site.policy", "--live"),
    ):
        _, err = told(capsys, *command, status=1)
        assert "error[which-host]: the policy has 4 hosts, and none of them is chosen" in err
    _, err = told(capsys, "compile", "--host", "web3", "site.policy", status=1)
    assert "did you mean `web2`?" in err or "did you mean `web1`?" in err
    site.write_text("allow ssh inbound\n")
    _, err = told(capsys, "compile", "--host", "web1", "site.policy", status=1)
    assert "has no host `web1`" in err and "the policy has no hosts" in err


def test_all_hosts_are_what_each_of_them_is(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = told(capsys, "compile", "--all-hosts", "-o", "out", "site.policy")
    assert err == "site.policy: 4 hosts compiled into out\n"
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(f"{h}.nft" for h in HOSTS)
    told(capsys, "compile", "--all-hosts", "--target", "iptables", "-o", "ip", "site.policy")
    for host in HOSTS:
        alone, _ = told(capsys, "compile", "--host", host, "site.policy")
        assert Path(f"out/{host}.nft").read_text() == alone
        place = ("--target", "iptables", "-o", f"alone-{host}/")
        told(capsys, "compile", "--host", host, *place, "site.policy")
        names = sorted(path.name for path in Path(f"alone-{host}").iterdir())
        assert names == sorted(path.name for path in Path(f"ip/{host}").iterdir())
        for name in names:
            assert Path(f"ip/{host}/{name}").read_text() == Path(f"alone-{host}/{name}").read_text()


def test_what_a_host_needs_no_longer_is_removed(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiling = ("compile", "--all-hosts", "--target", "iptables", "-o", "ip", "site.policy")
    told(capsys, *compiling)
    assert Path("ip/gw/sysctl.conf").exists()
    own = Path("ip/gw/notes.txt")
    own.write_text("mine\n")
    site.write_text(
        SITE.replace("gateway", "").replace("from wan to webservers", "inbound from wan")
    )
    told(capsys, *compiling)
    assert not Path("ip/gw/sysctl.conf").exists() and own.exists()


def test_nothing_is_written_where_any_host_fails(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And each one's errors are told: those of one host do not hide another's."""
    wrong = "on web1 { allow sssh inbound }\non db1 { allow ssh inbound from nowhere }\n"
    site.write_text(f"{SITE}{wrong}allow https from wan to any\n")
    _, err = told(capsys, "compile", "--all-hosts", "-o", "out", "site.policy", status=1)
    assert not Path("out").exists()
    assert "no service named `sssh` (on `web1`)" in err
    assert "named `nowhere` (on `db1`)" in err
    assert "is not known where this holds, too (on `web1`, `web2` and `db1`)" in err
    assert "3 of 4 hosts failed; nothing is written" in err
    site.write_text(SITE)
    _, err = told(capsys, "compile", "--all-hosts", "-o", "site.policy", "site.policy", status=1)
    assert "cannot write `site.policy`" in err and "failed" not in err


def test_what_is_wrong_on_all_hosts_is_told_once(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_text(f"{SITE}allow sssh inbound\n")
    _, err = told(capsys, "check", "site.policy", status=1)
    assert err.count("error[") == 1 and "(on " not in err


def test_errors_are_json_too(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text(f"{SITE}on web1 {{ allow sssh inbound }}\n")
    out, _ = told(capsys, "check", "--format", "json", "site.policy", status=1)
    (one,) = json.loads(out)
    assert one["line"] == 16 and one["message"].endswith("(on `web1`)")


@pytest.mark.parametrize(
    "options",
    (
        ("--all-hosts",),
        ("--all-hosts", "-o", "-"),
        ("--all-hosts", "-o", "out", "--host", "web1"),
        ("--all-hosts", "-o", "out", "--target", "ir"),
    ),
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(("compile", *options, "site.policy")) == 1
    assert "--all-hosts" in capsys.readouterr().err


# --- many of them ---------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("fleet.policy")
    path.write_text(fleet_of(60))
    return path


def test_a_fleet_compiles_to_the_same_bytes_however_many_work_at_it(
    many: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "on web3 { allow tcp 2 inbound from 10.0.0.2/8 }"
    many.write_text(f"{many.read_text()}{own}\nallow tcp 1 from 10.0.0.1/8 to web\n")
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        _, err = told(capsys, "compile", "--all-hosts", "-o", f"out{cores}", "fleet.policy")
        texts = {path.name: path.read_bytes() for path in Path(f"out{cores}").iterdir()}
        found.append((texts, err.replace(f"out{cores}", "out")))
    assert len(found[0][0]) == 60 and found[0] == found[1] == found[2]
    assert "(on `web3`)" in found[0][1] and found[0][1].count("host-bits") == 2


def test_what_a_process_does_not_tell_is_done_without_it(
    many: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed by a machine without memory, say."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(fleet, "_tell", lambda *_: os._exit(9))
    told(capsys, "compile", "--all-hosts", "-o", "out", "fleet.policy")
    assert len(list(Path("out").iterdir())) == 60


def test_how_a_process_ends_is_told_by_nobody_else(
    many: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt comes to all of them, and is told once."""
    ours, one = os.getpid(), fleet._one

    def interrupted(*given: Any) -> Any:
        if os.getpid() != ours:
            raise KeyboardInterrupt
        return one(*given)

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(fleet, "_one", interrupted)
    assert main(("compile", "--all-hosts", "-o", "out", "fleet.policy")) == 0
    assert capfd.readouterr().err == "fleet.policy: 60 hosts compiled into out\n"


def test_progress_is_shown_on_a_terminal(many: Path) -> None:
    """And nowhere else: the tests before this one read what is written there."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "policylang", "compile", "--all-hosts", "-o", "out", str(many)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(argv, stderr=theirs, env=environment, check=True)
    os.close(theirs)
    shown = b""
    while b"compiled into out" not in shown:
        shown += os.read(ours, 65536)
    os.close(ours)
    assert done.returncode == 0 and b"\r60 of 60 hosts" in shown


# --- declared beside the policy -------------------------------------------------------------------


def test_hosts_may_be_declared_beside_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    hosts, rule, others = SITE.partition("allow postgresql")
    Path("hosts.policy").write_text(hosts)
    Path("rules.policy").write_text(rule + others)
    Path("site.policy").write_text(SITE)
    given = ("--inventory", "hosts.policy", "rules.policy")
    for host in HOSTS:
        beside, _ = told(capsys, "compile", "--host", host, *given)
        whole, _ = told(capsys, "compile", "--host", host, "site.policy")
        rules = [line.partition(" comment ")[0] for line in beside.splitlines()]
        assert rules == [line.partition(" comment ")[0] for line in whole.splitlines()]
    out, _ = told(capsys, "query", *given, "postgresql from web1 to db1")
    assert out.startswith("postgresql from web1 to db1: yes\n")
    _, err = told(capsys, "check", "--inventory", "none\x1b.policy", "rules.policy", status=1)
    assert "cannot read `noneU+001B.policy`: no such file" in err


def test_what_an_inventory_names_is_beside_it(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the policy is; and who includes it as well has it once."""
    Path("inventory").mkdir()
    Path("site").mkdir()
    Path("inventory/hosts.policy").write_text('set bad = file "bad.txt"\n', "utf-8-sig")
    Path("inventory/bad.txt").write_text("192.0.2.0/24\n")
    Path("site/site.policy").write_text(f"{SITE}deny all inbound from bad\n")
    given = ("--inventory", "inventory/hosts.policy", "site/site.policy")
    out, _ = told(capsys, "compile", "--host", "db1", *given)
    assert "192.0.2.0/24" in out
    Path("site/site.policy").write_text(f'include "../inventory/hosts.policy"\n{SITE}')
    told(capsys, "check", *given)


def test_what_comes_by_a_pipe_is_read_once(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts, rule, others = SITE.partition("allow postgresql")
    Path("rules.policy").write_text(rule + others)

    @contextmanager
    def by_pipe(text: str) -> Iterator[str]:
        ours, theirs = os.pipe()
        os.write(theirs, text.encode())
        os.close(theirs)
        yield f"/dev/fd/{ours}"
        os.close(ours)

    question = "postgresql from web1 to db1"
    for arguments, status, said in (
        (("query", "rules.policy", question), 0, "yes"),
        (("diff", "rules.policy", "rules.policy"), 0, "no difference in meaning on 4 hosts"),
        (("test", "rules.policy", "rules.policy"), 0, "0 of 0 tests passed"),
        (("lint", "rules.policy", "rules.policy"), 0, "rules.policy: nothing found"),
    ):
        with by_pipe(hosts) as inventory:
            out, err = told(capsys, *arguments, "--inventory", inventory, status=status)
            assert said in out and "error" not in err
    with by_pipe(SITE) as policy:
        out, _ = told(capsys, "query", policy, question)
    assert out.startswith(f"{question}: yes")
    with by_pipe(SITE) as policy:
        out, _ = told(capsys, "diff", "site.policy", policy)
    assert out == "no difference in meaning on 4 hosts\n"
    standard = TextIOWrapper(BytesIO(SITE.encode()))
    monkeypatch.setattr(sys, "stdin", standard)
    out, _ = told(capsys, "query", "-", question)
    assert out.startswith(f"{question}: yes")


# --- what is between them -------------------------------------------------------------------------


def test_a_query_follows_packets_from_host_to_host(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = told(capsys, "query", "--format", "json", "site.policy", "postgresql from web1 to db1")
    (answer,) = json.loads(out)["answers"]
    assert answer["answer"] == "yes"
    met = [(one["host"], one["path"], one["answer"]) for one in answer["hosts"]]
    assert met == [("web1", "outbound", "yes"), ("gw", "forward", "yes"), ("db1", "inbound", "yes")]
    out, _ = told(capsys, "query", "site.policy", "ssh from web1 to db1", status=2)
    assert out.startswith("ssh from web1 to db1: no: `web1`, `gw` and `db1` stop it\n")
    out, _ = told(capsys, "query", "site.policy", "https from db1 to 203.0.113.9", status=2)
    assert "gw passes on: no" in out and "web1" not in out
    out, _ = told(capsys, "query", "site.policy", "http from 203.0.113.1 to 10.0.2.99", status=2)
    assert "gw passes on" in out and "receives" not in out


def test_a_query_says_of_whom_it_cannot_tell(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_text(f"{SITE}host laptop {{ }}\ndefault allow inbound\n")
    out, _ = told(capsys, "query", "site.policy", "ssh inbound from 10.0.2.99")
    assert out.endswith("\nWithout an address it is not told what `laptop` sends or receives.\n")
    arguments = ("query", "--format", "json", "site.policy", "ssh inbound from 10.0.2.99")
    out, _ = told(capsys, *arguments)
    assert json.loads(out)["without_address"] == ["laptop"]


def test_one_host_is_asked_for_itself_where_it_is_named(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = told(capsys, "query", "--host", "db1", "site.policy", "postgresql from web1 to db1")
    assert out.splitlines()[0].endswith(": yes") and "db1 receives" not in out


def steps(
    capsys: pytest.CaptureFixture[str], *words: str, status: int = 0
) -> tuple[list[tuple[str, str]], list[dict[str, Any]], str | None]:
    """The hosts of a trace with their paths, their stories, and the host that stops it."""
    out, _ = told(capsys, "trace", "--format", "json", "site.policy", *words, status=status)
    found = json.loads(out)
    assert found["works"] is (status == 0)
    met = [(one["host"], one["path"]) for one in found["steps"]]
    return met, [one["story"] for one in found["steps"]], found["stopped_by"]


def first_ends(story: dict[str, Any]) -> tuple[str, str, int]:
    """From where to where the first packet of a story goes, and to which port."""
    ends = story["packets"][0]["source"], story["packets"][0]["destination"]
    return ends[0]["address"], ends[1]["address"], ends[1]["port"]


def test_a_trace_goes_from_host_to_host(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question = ("postgresql", "from", "web1", "to", "db1")
    way = [("web1", "outbound"), ("gw", "forward"), ("db1", "inbound")]
    met, told_by, stop = steps(capsys, *question)
    assert (met, stop) == (way, None)
    assert {first_ends(story) for story in told_by} == {("10.0.2.10", "10.0.3.5", 5432)}
    assert [host["name"] for host in told_by[1]["hosts"]] == ["web1", "gw", "db1"]
    out, _ = told(capsys, "trace", "site.policy", *question)
    assert "gw passes on:\n\npostgresql from web1 to db1\n" in out
    assert out.endswith("\nOn the whole way, by `web1`, `gw` and `db1`, it works.\n")
    for number, (left_out, _) in enumerate(way):
        others = ", ".join(one for one in HOSTS if one != left_out)
        rule = f"on {others} {{ allow postgresql from webservers to db1 }}"
        site.write_text(SITE.replace("allow postgresql from webservers to db1", rule))
        met, _, stop = steps(capsys, *question, status=2)
        assert (met, stop) == (way[: number + 1], left_out)


SENT_ON = """\
host gw {
  address 198.51.100.1, 10.0.9.1
  gateway
  zone wan { interface eth0 }
  zone link { interface eth1  network 10.0.9.0/24, 10.0.3.0/24 }
}
host core {
  address 10.0.9.2, 10.0.3.1
  gateway
  zone up { interface eth0 }
  zone back { interface eth1  network 10.0.3.0/24 }
}
host db1 { address 10.0.3.5 }
service ftp-alt { tcp 2121  helper ftp }
on gw {
  dnat ftp from wan at 198.51.100.1 to db1 port 2121
  masquerade from link to wan
  allow https from link to wan
}
on core { allow https from db1 to up }
on db1 { allow ftp-alt inbound }
"""


def test_a_trace_follows_what_is_sent_on(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the addresses and the port that it has by then, and with all that a helper predicts."""
    question = ("ftp", "from", "203.0.113.9", "to", "198.51.100.1")
    way = [("gw", "inbound"), ("core", "forward"), ("db1", "inbound")]
    for rule, status, stopped in (
        ("allow ftp-alt from up to db1", 0, None),
        ("allow tcp 2121 from up to db1", 2, 11),  # nobody there reads where its data goes
    ):
        site.write_text(f"{SENT_ON}on core {{ {rule} }}\n")
        met, told_by, stop = steps(capsys, *question, status=status)
        assert (met, stop) == (way, "core" if stopped else None)
        assert first_ends(told_by[0])[1:] == ("198.51.100.1", 21)
        assert first_ends(told_by[2]) == ("203.0.113.9", "10.0.3.5", 2121)
        out, _ = told(capsys, "trace", "site.policy", *question, status=status)
        end = f"it does not work: `core` stops packet {stopped}." if stopped else "it works."
        assert out.rstrip().endswith(end)
    met, told_by, _ = steps(capsys, "https", "from", "db1", "to", "203.0.113.9")
    assert met == [("db1", "outbound"), ("core", "forward"), ("gw", "forward")]
    arrived = told_by[2]["packets"][0]["arrives_as"]
    assert arrived["source"]["address"] == "198.51.100.1"  # its own, at that interface


def test_what_is_not_traced_on_several_hosts(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, why in (
        (("ssh", "from", "web1", "to", "web1"), "no packet between hosts, or by a gateway"),
        (("ssh", "from", "web1", "to", "db1", "interface", "eth0"), "is said of one host"),
        (("ssh", "from", "web1", "to", "db1", "-o", "way.svg"), "is not drawn"),
        (("ssh", "from", "nobody", "to", "db1"), "named `nobody`"),
    ):
        _, err = told(capsys, "trace", "site.policy", *words, status=1)
        assert why in err
    assert not Path("way.svg").exists()

    def too_large(*_: object) -> None:
        raise TooLargeError

    monkeypatch.setattr(Site, "way", too_large)
    _, err = told(capsys, "trace", "site.policy", "ssh", "from", "web1", "to", "db1", status=1)
    assert "error[too-large]" in err


def test_verify_tells_of_all_hosts_at_once(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = "on web1 { allow sssh inbound }\non db1 { allow ssh inbound from nowhere }\n"
    site.write_text(f"{SITE}{wrong}allow ssh inbound from 10.0.0.1/8\nallow ][\n")
    out, _ = told(capsys, "verify", "--format", "json", "site.policy", status=1)
    found = json.loads(out)
    assert (found["agrees"], list(found["hosts"])) == (False, list(HOSTS))
    told_of = [(one["code"], one["message"].partition("(")[2]) for one in found["diagnostics"]]
    assert ("syntax", "") in told_of and ("host-bits", "") in told_of
    assert ("unknown-service", "on `web1`)") in told_of
    assert ("unknown-name", "on `db1`)") in told_of
    out, _ = told(capsys, "verify", "--format", "sarif", "site.policy", status=1)
    assert len(json.loads(out)["runs"][0]["results"]) == 4


TESTS = """test "along the way" {
  expect allow postgresql from webservers to db1
  expect deny postgresql from any except webservers to db1
  expect some allow http from any to web1
  expect session http from 203.0.113.9 to web1
}
on web1 { test "own" { expect allow http inbound } }
"""


def test_tests_hold_along_the_whole_way(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text(SITE + TESTS)
    out, _ = told(capsys, "test", "site.policy")
    assert "along the way (4 expectations)" in out and "own (on web1) (1 expectation)" in out
    # Each host that loses its part breaks the first of them, and is named.
    for host in ("web1", "gw", "db1"):
        others = ", ".join(one for one in HOSTS if one != host)
        rule = f"on {others} {{ allow postgresql from webservers to db1 }}"
        text = SITE.replace("allow postgresql from webservers to db1", rule)
        site.write_text(text + TESTS)
        out, _ = told(capsys, "test", "site.policy", status=2)
        assert f" is dropped on `{host}`" in out
    # What the sender alone stops is stopped: nobody behind it need do so, too.
    test = 'test "t" { expect deny ssh from web1 to db1 }'
    site.write_text(f"{SITE}on gw, db1 {{ allow ssh from web1 to db1 }}\n{test}\n")
    told(capsys, "test", "site.policy")


def test_expectations_that_fail_along_the_way(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (
        ("allow ssh from web1 to db1", "dropped on `web1`"),
        ("deny postgresql from web1 to db1", "accepted on `db1`"),
        ("reject ssh from 203.0.113.9 to web1", "dropped on `gw`"),
        ("deny http from any to web1", "accepted on `web1`"),
        ("session ftp passive from web1 to db1", "on `web1`: "),
        ("allow ssh from 10.0.2.10 to 10.0.2.10", "no packet between hosts"),
    )
    expected = "".join(f"  expect {line}\n" for line, _ in lines)
    site.write_text(f'{SITE}test "wrong" {{\n{expected}}}\n')
    out, _ = told(capsys, "test", "--format", "json", "site.policy", status=2)
    (test,) = json.loads(out)["policies"][0]["tests"]
    for one, (_, why) in zip(test["expectations"], lines, strict=True):
        assert not one["holds"] and why in one["failure"]["message"], one


def test_how_packets_are_stopped_is_told_by_who_stops_them(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever others would do, to whom they never come; and of several packets, by each."""
    rules = (
        "on gw { reject ssh from web1 to db1 }\n"
        "on gw { reject https from 203.0.113.0/24 to web1 }\n"
    )
    site.write_text(
        SITE.replace("on gw { allow http, https from wan", f"{rules}on gw {{ allow http from wan")
    )
    lines = {
        "drop ssh from web1 to db1": True,  # web1 drops it, gw would reject it
        "reject ssh from web1 to db1": False,
        "some reject https from 203.0.113.0/24 to webservers": True,  # of web1 alone
        "some drop https from 203.0.113.0/24 to webservers": True,
        "reject https from 203.0.113.0/24 to web1": True,
        "reject https from 203.0.113.0/24 to webservers": False,
        "some reject https from 203.0.113.0/24 to web2": False,
    }
    expected = "".join(f"  expect {line}\n" for line in lines)
    site.write_text(f'{site.read_text()}test "how" {{\n{expected}}}\n')
    out, _ = told(capsys, "test", "--format", "json", "site.policy", status=2)
    (test,) = json.loads(out)["policies"][0]["tests"]
    found = {one["text"].removeprefix("expect "): one["holds"] for one in test["expectations"]}
    assert found == lines


def test_sessions_that_are_sent_on_are_let_in_by_who_gets_them(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = 'test "ftp" { expect session ftp passive from wan to 198.51.100.1 }'
    for rule, status in (("", 0), ("on db1 { deny all inbound from 203.0.113.0/24 }", 2)):
        rules = f"{rule}\n{SENT_ON}on core {{ allow ftp-alt from up to db1 }}\n"
        site.write_text(f"{rules}{test}\n")
        out, _ = told(capsys, "test", "site.policy", status=status)
        assert ("not every first packet is let in that is sent on" in out) == (status == 2)


def test_a_diff_goes_host_by_host(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = SITE.replace("allow http, https inbound", "allow https inbound")
    Path("new.policy").write_text(changed.replace("web2", "web3"))
    out, _ = told(capsys, "diff", "site.policy", "new.policy", status=2)
    assert out.startswith("host web3 is new\nhost web2 is gone\n\nhost web1: ")
    assert "no difference on 2 hosts more" in out
    told(capsys, "diff", "--fail-on", "opened", "site.policy", "new.policy", status=2)
    Path("new.policy").write_text(changed)
    told(capsys, "diff", "--fail-on", "opened", "site.policy", "new.policy")
    out, _ = told(capsys, "diff", "--format", "json", "site.policy", "new.policy", status=2)
    found = json.loads(out)
    assert (found["added"], found["removed"], list(found["hosts"])) == ([], [], list(HOSTS))
    assert [host for host, one in found["hosts"].items() if one["differs"]] == ["web1", "web2"]
    out, _ = told(capsys, "diff", "--format", "markdown", "site.policy", "new.policy", status=2)
    assert "web1: site.policy" in out and "No difference in meaning on 2 hosts." in out
    out, _ = told(capsys, "diff", "site.policy", "site.policy")
    assert out == "no difference in meaning on 4 hosts\n"
    _, err = told(capsys, "diff", "site.policy", "live", "--netns", "none", status=1)
    assert "which-host" in err


def test_lint_tells_of_which_host_it_speaks(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text(f"{SITE}on db1 {{ allow ssh inbound allow ssh inbound from 192.0.2.1 }}\n")
    _, err = told(capsys, "lint", "site.policy", status=2)
    assert "(on `db1`)" in err and "on `web1`" not in err


def test_lint_leaves_what_tells_the_way_or_is_for_others_too(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zones of a gateway say who is behind which interface, and an inventory is nobody's alone."""
    Path("more.policy").write_text("set spare = db1\nhost web9 { address 10.0.2.19 }\n")
    given = ("lint", "--inventory", "more.policy", "site.policy")
    out, _ = told(capsys, *given)
    assert out == "site.policy: nothing found\n"
    site.write_text(f"{SITE}set idle = web2\non db1 {{ zone none {{ interface eth9 }} }}\n")
    _, err = told(capsys, *given, status=2)
    assert "the set `idle`" in err and "the zone `none`" in err and "spare" not in err
