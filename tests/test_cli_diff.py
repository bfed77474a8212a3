"""What `policylang diff` reads, prints and answers; what differs is tested in `analysis`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from policylang.analysis.diagram import TooLargeError
from policylang.cli import main
from policylang.cli.options import REFUSED
from policylang.cli.revisions import both_ends

OLD = """\
zone wan { interface eth0 }
set admins = 192.0.2.0/24
allow http, https inbound from wan
allow ssh inbound from admins
dnat tcp 2222 from wan to 192.0.2.11 port 22
"""
NEW = OLD.replace("http, https", "http").replace("ssh inbound from admins", "ssh inbound")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how its terminal, or that of whoever runs it, is set up."""
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def diff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the command in a folder with two policies; its status, output and messages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.policy").write_text(OLD)
    (tmp_path / "new.policy").write_text(NEW)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["diff", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


# --- text ---------------------------------------------------------------------------------------

TEXT = """\
old.policy → new.policy: 1 newly allowed, 1 newly denied

newly allowed
  + inbound tcp 22 (ssh) from any but admins
      now  new.policy:4 allow ssh inbound
      was  dropped, by the default (`default deny inbound`)
      e.g. tcp SYN 203.0.113.7:40000 to 192.0.2.1:22 (self), in by eth0 (wan), new

newly denied
  - inbound tcp 443 (https) from wan
      now  dropped, by the default (`default deny inbound`)
      was  old.policy:3 allow http, https inbound from wan
      e.g. tcp SYN 203.0.113.7:40000 to 192.0.2.1:443 (self), in by eth0 (wan), new
"""


def test_what_opens_is_told_first_with_a_packet_and_the_statements(diff: Run) -> None:
    assert diff("old.policy", "new.policy") == (2, TEXT, "")


def test_no_difference_is_one_line_and_status_0(diff: Run, tmp_path: Path) -> None:
    (tmp_path / "new.policy").write_text(OLD.replace("wan", "outside") + "# more\n")
    said = "old.policy → new.policy: no difference in meaning\n"
    assert diff("old.policy", "new.policy") == (0, said, "")


def test_fail_on_opened_lets_pass_what_only_closes(diff: Run) -> None:
    assert diff("old.policy", "new.policy", "--fail-on", "opened")[0] == 2
    (status, out, _) = diff("new.policy", "old.policy", "--fail-on", "opened")
    assert (status, "newly allowed" in out) == (2, True)  # https is open again
    Path("new.policy").write_text(OLD.replace("http, https", "http"))
    assert diff("old.policy", "new.policy", "--fail-on", "opened")[0] == 0
    assert diff("old.policy", "new.policy")[0] == 2


def test_another_target_of_a_port_forward_opens_that_target(diff: Run) -> None:
    Path("new.policy").write_text(OLD.replace("192.0.2.11", "192.0.2.12"))
    status, out, _ = diff("old.policy", "new.policy", "--fail-on", "opened")
    assert status == 2
    assert "sent on to 192.0.2.12 port 22" in out
    Path("new.policy").write_text(OLD + "masquerade from 198.51.100.0/24 to wan\n")
    assert diff("old.policy", "new.policy", "--fail-on", "opened")[0] == 0


def test_many_changes_are_cut_unless_all_are_asked_for(diff: Run) -> None:
    many = "".join(f"allow tcp {n} inbound from 198.51.100.{n}\n" for n in range(1, 41))
    Path("new.policy").write_text(OLD + many)
    _, out, _ = diff("old.policy", "new.policy")
    assert out.count("  + inbound") == 20
    assert "  … and 20 more: `--all` shows them\n" in out
    _, out, _ = diff("old.policy", "new.policy", "--all")
    assert out.count("  + inbound") == 40


def test_colours_mark_what_opens_and_what_closes(diff: Run) -> None:
    _, out, _ = diff("old.policy", "new.policy", "--color", "always")
    assert "\x1b[32m  + inbound tcp 22 (ssh) from any but admins\x1b[0m" in out
    assert "\x1b[31m  - inbound tcp 443 (https) from wan\x1b[0m" in out


def test_errors_of_either_policy_are_told_and_nothing_else(diff: Run) -> None:
    Path("new.policy").write_text("allow htpp inbound\n")
    status, out, err = diff("old.policy", "new.policy")
    assert (status, out) == (1, "")
    assert "error[unknown-service]" in err


def test_an_error_says_on_which_side_it_is(diff: Run, tmp_path: Path) -> None:
    """Two files of one name, each with an error at the same place."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "web.policy").write_text("allow htpp inbound\n")
    (tmp_path / "web.policy").write_text("allow shh inbound\n")
    status, out, err = diff("old/web.policy", "web.policy")
    assert (status, out) == (1, "")
    assert "no service named `htpp`\n  --> old/web.policy:1:7\n" in err
    assert "no service named `shh`\n  --> web.policy:1:7\n" in err


def test_a_policy_may_come_by_a_pipe(diff: Run) -> None:
    """As from `<(git show main:web.policy)`: it can be read once."""
    reading, writing = os.pipe()
    os.write(writing, OLD.encode())
    os.close(writing)
    status, out, _ = diff(f"/dev/fd/{reading}", "old.policy")
    os.close(reading)
    assert (status, "no difference" in out) == (0, True)


def test_standard_input_that_is_no_text_is_refused(
    diff: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = TextIOWrapper(BytesIO(b"allow ssh inbound # \xff\n"))
    monkeypatch.setattr("sys.stdin", stream)
    status, _, err = diff("old.policy", "-")
    assert status == 1
    assert "error[not-utf8]: byte 21 of standard input is not UTF-8" in err


def test_a_parameter_is_of_both(diff: Run) -> None:
    for name, port in (("old", 22), ("new", 23)):
        text = f"param from-where = 192.0.2.1\nallow tcp {port} inbound from $from-where\n"
        Path(f"{name}.policy").write_text(text)
    _, out, _ = diff("old.policy", "new.policy", "-D", "from-where=198.51.100.9")
    assert out.count("from 198.51.100.9") == 2


def test_standard_input_is_a_policy(diff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("new.policy").open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        status, out, _ = diff("old.policy", "-")
    assert status == 2
    assert out.startswith("old.policy → <stdin>: 1 newly allowed")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["old.policy"], "name two things to compare"),
        (["a", "b", "c"], "name two things to compare"),
        (["--rev", "A..B", "a", "b"], "--rev A..B is for one FILE"),
        (["-", "-"], "can be read once"),
        (["--rev", "A...B", "a"], "has two dots"),
    ],
)
def test_the_command_line_says_what_it_needs(diff: Run, arguments: list[str], says: str) -> None:
    status, _, err = diff(*arguments)
    assert status == REFUSED
    assert says in err


# --- Markdown and JSON --------------------------------------------------------------------------

MARKDOWN = """\
### old.policy → new.policy: 1 newly allowed, 1 newly denied

**Opens**

| | way | packets | now | was |
|---|---|---|---|---|
| `+` | inbound | tcp 22 (ssh) from any but admins | `new.policy:4` | dropped<br>`the default (ʼdefault deny inboundʼ)` |

**Closes**

| | way | packets | now | was |
|---|---|---|---|---|
| `-` | inbound | tcp 443 (https) from wan | dropped<br>`the default (ʼdefault deny inboundʼ)` | `old.policy:3` |

<details><summary>Packets and statements</summary>

- `+` inbound tcp 22 (ssh) from any but admins
  - for example `tcp SYN 203.0.113.7:40000 to 192.0.2.1:22 (self), in by eth0 (wan), new`
  - now: `new.policy:4 allow ssh inbound`
  - was: dropped, `the default (ʼdefault deny inboundʼ)`
- `-` inbound tcp 443 (https) from wan
  - for example `tcp SYN 203.0.113.7:40000 to 192.0.2.1:443 (self), in by eth0 (wan), new`
  - now: dropped, `the default (ʼdefault deny inboundʼ)`
  - was: `old.policy:3 allow http, https inbound from wan`

</details>
"""  # noqa: E501 - a row of a table is a line


def test_a_review_comment_has_a_table_and_folds_the_rest(diff: Run) -> None:
    assert diff("old.policy", "new.policy", "--format", "markdown") == (2, MARKDOWN, "")


def test_nothing_in_a_policy_is_markup_of_the_comment(diff: Run) -> None:
    name = "a|b</details>`*_.policy"
    Path(name.replace("/", "-")).write_text(NEW)
    _, out, _ = diff("old.policy", name.replace("/", "-"), "--format", "markdown")
    assert out.startswith(r"### old.policy → a\|b\<-details\>\`\*\_.policy: ")
    assert all(line.count(" | ") == 4 for line in out.splitlines() if line.startswith("| `"))


def test_programs_get_all_of_it(diff: Run) -> None:
    status, out, _ = diff("old.policy", "new.policy", "--format", "json")
    told: dict[str, Any] = json.loads(out)
    assert status == 2
    assert {**told, "changes": len(told["changes"])} == {
        "version": 1,
        "families": [4, 6],
        "old": "old.policy",
        "new": "new.policy",
        "differs": True,
        "opens": True,
        "changes": 2,
    }
    first = told["changes"][0]
    assert (first["kind"], first["way"], first["first"], first["sure"]) == (
        *("opened", "inbound", True, True),
    )
    assert first["packets"][0]["fields"]["dport"] == ["22"]
    assert first["becomes"]["statements"][0]["line"] == 4
    assert first["was"]["verdict"] == "dropped"
    assert first["example"]["fields"]["saddr"] == "203.0.113.7"


# --- where policies come from -------------------------------------------------------------------


def git(*arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(diff: Run, tmp_path: Path) -> None:
    """Two commits of a policy that includes a file and reads a list beside its folder."""
    for folder in ("site", "lists"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lists/bad.txt").write_text("203.0.113.0/25\n")
    (tmp_path / "site/rules.policy").write_text("allow ssh inbound\n")
    (tmp_path / "site/gw.policy").write_text(
        'set bad = file "../lists/bad.txt"\ndeny all from bad to any\ninclude "rules.policy"\n'
    )
    git("init", "-q", ".")
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "lists/bad.txt").write_text("203.0.113.0/24\n")
    (tmp_path / "site/rules.policy").write_text("allow ssh, http inbound\n")
    git("commit", "-qam", "two")


@pytest.mark.usefixtures("repository")
def test_a_revision_is_read_with_all_that_it_includes(diff: Run, tmp_path: Path) -> None:
    status, out, _ = diff("HEAD~1:site/gw.policy", "HEAD:site/gw.policy")
    assert status == 2
    assert out.startswith("HEAD~1:site/gw.policy → HEAD:site/gw.policy: 1 newly allowed, 1 newly")
    assert "+ inbound tcp 80 (http) from any but bad" in out
    assert "- inbound tcp 22 (ssh) from 203.0.113.128/25" in out
    assert (
        diff("--rev", "HEAD~1..HEAD", "site/gw.policy")[1].splitlines()[1:]
        == (out.splitlines()[1:])
    )
    assert diff("HEAD:./site/gw.policy", "site/gw.policy")[0] == 0
    assert diff("--rev", "HEAD", str(tmp_path / "site/gw.policy"))[0] == 0


@pytest.mark.usefixtures("repository")
def test_a_revision_is_of_the_folder_that_it_is_asked_in(
    diff: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("site")
    assert diff("--rev", "HEAD~1..", "gw.policy")[0] == 2
    assert diff("HEAD:gw.policy", "gw.policy")[0] == 0


@pytest.mark.usefixtures("repository")
def test_git_leaves_everything_as_it_is(diff: Run, tmp_path: Path) -> None:
    (tmp_path / "site/rules.policy").write_text("allow ssh, https inbound\n")
    (tmp_path / "untracked").write_text("x")
    index = (tmp_path / ".git/index").read_bytes()
    before = subprocess.run(["git", "status", "--short"], capture_output=True, check=True).stdout
    assert diff("--rev", "HEAD", "site/gw.policy")[0] == 2
    after = subprocess.run(["git", "status", "--short"], capture_output=True, check=True).stdout
    assert before == after
    assert (tmp_path / ".git/index").read_bytes() == index


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    "subject", ["HEAD:site/no.policy", "v9:site/gw.policy", "--x:site/gw.policy"]
)
def test_what_git_does_not_know_is_an_error(diff: Run, subject: str) -> None:
    status, out, err = diff("site/gw.policy", "--", subject)
    assert (status, out) == (1, "")
    assert "error[no-such-revision]" in err


@pytest.mark.parametrize(
    ("words", "ends"),
    [("a..b", ("a", "b")), ("a..", ("a", None)), ("a", ("a", None)), ("..b", ("HEAD", "b"))],
)
def test_revisions_may_be_open(words: str, ends: tuple[str, str | None]) -> None:
    assert both_ends(words) == ends


# --- rules of any origin ------------------------------------------------------------------------

SAVED = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
{more}COMMIT
"""


def test_iptables_save_is_read_as_it_is(diff: Run) -> None:
    Path("a.v4").write_text(SAVED.format(more=""))
    Path("b.v4").write_text(SAVED.format(more="-A INPUT -p udp -m udp --dport 53 -j ACCEPT\n"))
    status, out, _ = diff("a.v4", "b.v4")
    assert status == 2
    assert "  + inbound IPv4 udp 53 (INVALID ones too)\n      now  iptables filter INPUT 4" in out
    assert diff("a.v4", "a.v4")[0] == 0


def test_rules_of_one_family_are_compared_in_that_family(diff: Run) -> None:
    """What iptables-save wrote of IPv4 tells nothing of IPv6: nothing is open by it."""
    assert main(["compile", "old.policy", "--target", "iptables", "-o", "out/"]) == 0
    note = "\nthese rules are of IPv4: nothing is said of IPv6\n"
    same = f"old.policy → out/rules.v4: no difference in meaning\n{note}"
    assert diff("old.policy", "out/rules.v4")[:2] == (0, same)
    status, out, _ = diff("out/rules.v4", "new.policy", "--format", "json")
    told = json.loads(out)
    assert (status, told["families"]) == (2, [4])
    families = [p["fields"].get("family") for c in told["changes"] for p in c["packets"]]
    assert families == [["4"]] * len(families)
    _, out, _ = diff("out/rules.v4", "new.policy", "--format", "markdown")
    assert out.endswith(note)
    Path("six.v6").write_text(f"# Generated by ip6tables-save\n{SAVED.format(more='')}")
    status, _, err = diff("out/rules.v4", "six.v6")
    assert (status, "have rules of two families" in err) == (1, True)


def test_a_folder_of_compile_is_what_the_policy_is(diff: Run) -> None:
    assert main(["compile", "old.policy", "--target", "iptables", "-o", "out/"]) == 0
    assert diff("out", "old.policy")[:2] == (0, "out → old.policy: no difference in meaning\n")
    assert diff("out/rules.v4,out/rules.v6", "old.policy")[0] == 0
    status, out, _ = diff("out", "new.policy")
    assert status == 2
    assert "+ inbound tcp 22 (ssh) from any but admins" in out


def test_sets_of_a_folder_are_called_as_the_policy_calls_them(diff: Run) -> None:
    more = "set banned = dynamic timeout 1h\ndeny all from banned to any\n"
    Path("old.policy").write_text(more + OLD)
    assert main(["compile", "old.policy", "--target", "iptables", "-o", "out/"]) == 0
    assert Path("out/sets.ipset").exists()
    assert diff("out", "old.policy")[0] == 0
    Path("new.policy").write_text(more.replace("deny", "reject") + OLD)
    status, out, _ = diff("out", "new.policy")
    assert status == 2
    assert "denied with another answer" in out


def test_what_is_not_understood_may_be_so(diff: Run) -> None:
    """Nothing is guessed: a match that no reader knows may hold or not."""
    Path("a.v4").write_text(SAVED.format(more=""))
    more = '-A INPUT -p tcp -m tcp --dport 80 -m u32 --u32 "0x0=0x1" -j ACCEPT\n'
    Path("b.v4").write_text(SAVED.format(more=more))
    _, out, _ = diff("a.v4", "b.v4")
    assert "  + inbound perhaps IPv4 tcp 80 (INVALID ones too)\n" in out
    told = json.loads(diff("a.v4", "b.v4", "--format", "json")[1])
    assert [change["sure"] for change in told["changes"]] == [False]


def nft_listing(*ports: int) -> str:
    """What `nft -j list ruleset` shows of a chain that lets these ports in."""
    chain = {
        **{"family": "inet", "table": "own", "name": "in", "handle": 1, "type": "filter"},
        **{"hook": "input", "prio": 0, "policy": "drop"},
    }
    rules: list[object] = []
    for handle, port in enumerate(ports, 2):
        field = {"payload": {"protocol": "tcp", "field": "dport"}}
        expr = [{"match": {"op": "==", "left": field, "right": port}}, {"accept": None}]
        at = {"family": "inet", "table": "own", "chain": "in", "handle": handle}
        rules.append({"rule": {**at, "expr": expr}})
    table = {"table": {"family": "inet", "name": "own", "handle": 1}}
    return json.dumps({"nftables": [table, {"chain": chain}, *rules]})


def test_a_listing_of_nft_is_read_as_it_is(diff: Run) -> None:
    Path("a.json").write_text(nft_listing(22))
    Path("b.json").write_text(nft_listing(22, 443))
    status, out, _ = diff("a.json", "b.json")
    assert status == 2
    assert "  + inbound tcp 443 (INVALID ones too)\n      now  inet own in, handle 3" in out
    assert diff("a.json", "a.json")[0] == 0


def test_too_many_kinds_of_packets_are_an_error(diff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise TooLargeError

    monkeypatch.setattr("policylang.analysis.differences.differences", full)
    status, out, err = diff("old.policy", "new.policy")
    assert (status, out) == (1, "")
    assert "error[too-large]" in err


def test_a_text_that_is_cut_off_is_refused_as_a_whole(diff: Run) -> None:
    Path("a.json").write_text('{"nftables": [{"table": {"fam')
    status, out, err = diff("a.json", "old.policy")
    assert (status, out) == (1, "")
    assert "error[unreadable-rules]" in err
