"""`policylang review`: what its comment says, in which order, and what it leaves out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from policylang.analysis import diagram
from policylang.cli import golden_review, main, revisions
from policylang.cli.comment import MARK, Host, Section, comment
from policylang.codes import CODES

OLD = """\
zone wan { interface eth0 }
allow http, https inbound from wan
allow ssh inbound from 192.0.2.0/24
"""
NEW = OLD.replace("http, https", "http").replace("ssh inbound from 192.0.2.0/24", "ssh inbound")
HOSTS = """\
host web1 { address 192.0.2.10 }
host db1 { address 192.0.2.20 }
allow postgresql from web1 to db1
allow https from any to web1
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how its terminal, or that of whoever runs it, is set up."""
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the command in a folder with two policies; its status, output and messages."""
    monkeypatch.chdir(tmp_path)
    put("old.policy", OLD)
    put("new.policy", NEW)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["review", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def put(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")


def git(*arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


def commit(message: str) -> None:
    git("add", "-A")
    git("commit", "-qm", message)


# --- what it says -------------------------------------------------------------------------------


def test_meaning_comes_first_then_text_then_rules_folded_away(review: Run) -> None:
    status, out, err = review("old.policy", "new.policy")
    assert (status, err) == (2, "")
    assert out.startswith(
        f"{MARK}\n\n### old.policy → new.policy: 1 newly allowed, 1 newly denied\n\n**Opens**\n"
    )
    parts = ("**Opens**", "tcp 22", "**Closes**", "tcp 443", "**Text**", "```diff", "Rules: ")
    places = [out.index(part) for part in parts]
    assert places == sorted(places)
    text = out[out.index("**Text**") : out.index("<details><summary>Rules")]
    assert "\n-allow http, https inbound from wan\n" in text
    assert "\n+allow http inbound from wan\n" in text
    rules = out[out.index("<details><summary>Rules") :]
    assert re.match(r"<details><summary>Rules: \d+ lines differ</summary>\n\n`nft\.nft`, ", rules)
    assert re.search(r"^\+\t+tcp dport 22 accept", rules, re.MULTILINE)
    assert re.search(r"^-A policylang-input .*--dport 443", rules, re.MULTILINE) is None
    assert "\n--A policylang-input -i eth0 -p tcp -m multiport --dports 80,443 " in rules
    assert rules.rstrip().endswith("```\n\n</details>")


def test_what_means_the_same_shows_its_text_alone(review: Run) -> None:
    put("new.policy", f"# a word\n{OLD}")
    status, out, _ = review("old.policy", "new.policy")
    assert status == 0
    assert "### old.policy → new.policy: no difference in meaning\n" in out
    assert "\n+# a word\n" in out
    put("sub/old.policy", OLD)
    status, out, _ = review("old.policy", "sub/old.policy")
    assert (status, "```" in out) == (0, False)


def test_fail_on_opened_lets_pass_what_only_closes(review: Run) -> None:
    assert review("old.policy", "new.policy", "--fail-on", "opened")[0] == 2
    put("new.policy", OLD.replace("http, https", "http"))
    assert review("old.policy", "new.policy", "--fail-on", "opened")[0] == 0
    assert review("old.policy", "new.policy")[0] == 2


def test_one_target_alone_can_be_shown(review: Run) -> None:
    _, out, _ = review("old.policy", "new.policy", "--target", "iptables")
    assert ("rules.v4" in out, "nft.nft" in out) == (True, False)


def test_a_policy_that_is_for_one_target_is_shown_for_it_alone(review: Run) -> None:
    put("new.policy", f"{NEW}allow smtp inbound until 2045-01-31\n")
    put("new.targets", "nft\n")
    status, out, _ = review("old.policy", "new.policy")
    assert (status, "there are no rules" in out, "`nft.nft`" in out) == (2, False, True)
    assert "--- new.targets\n+++ new.targets\n" in out


def test_what_a_target_cannot_say_is_said(review: Run) -> None:
    put("new.policy", f"{NEW}allow smtp inbound until 2045-01-31\n")
    status, out, _ = review("old.policy", "new.policy")
    assert status == 2
    assert "there are no rules for iptables: " in out
    assert "`nft.nft`" in out


# --- revisions ----------------------------------------------------------------------------------


@pytest.fixture
def repository(review: Run) -> Run:
    """The same in a repository with two revisions of `site/web.policy` and what it reads."""
    git("init", "-q")
    put(
        "site/web.policy",
        f'{OLD}include "more.policy"\n'
        'set bad = file "../lists/bad.txt"\ndeny all from bad to any\n',
    )
    put("site/more.policy", "allow smtp inbound from wan\n")
    put("lists/bad.txt", "198.51.100.1\n")
    commit("old")
    put("site/more.policy", "allow smtp, imaps inbound from wan\n")
    put("lists/bad.txt", "198.51.100.1\n198.51.100.2\n")
    commit("new")
    return review


def test_revisions_are_read_with_all_that_they_include_and_name(repository: Run) -> None:
    status, out, err = repository("--rev", "HEAD~1..HEAD", "site/web.policy")
    assert (status, err) == (2, "")
    assert "### site/web.policy: " in out
    assert "--- site/more.policy\n+++ site/more.policy\n" in out
    assert "\n+allow smtp, imaps inbound from wan\n" in out
    assert "--- lists/bad.txt\n+++ lists/bad.txt\n" in out
    assert "\n+198.51.100.2\n" in out
    same = repository("HEAD~1:site/web.policy", "site/web.policy")
    assert (same[0], "imaps" in same[1]) == (2, True)


def test_a_revision_is_laid_out_once(repository: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many policies of it are compared; nothing of it is left."""
    asked: list[Path] = []
    call = revisions._git

    def counted(
        arguments: tuple[str, ...], more: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> bytes | str:
        if "checkout-index" in arguments and cwd is not None:
            asked.append(cwd)
        return call(arguments, more, cwd)

    monkeypatch.setattr(revisions, "_git", counted)
    files = ("site/web.policy", "site/more.policy")
    assert repository("--rev", "HEAD~1..HEAD", *files)[0] == 1  # a part means nothing by itself
    assert len(asked) == len(set(asked)) == 2
    assert not any(place.exists() for place in asked)


def test_files_of_the_machine_are_not_shown(repository: Run, tmp_path: Path) -> None:
    """What a policy reads may be anything; what is written into a comment may not."""
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_text("198.51.100.77\n")
    text = Path("site/web.policy").read_text()
    git("tag", "before")
    for name in (str(secret), "link", "../.git/x"):
        if name == "link":
            Path("site/link").symlink_to(secret)
        Path(".git/x").write_text("198.51.100.77\n")
        put("site/web.policy", text.replace("../lists/bad.txt", name))
        commit(name)
        for side in ("before..", "before..HEAD"):
            if name.startswith("../") and side.endswith("HEAD"):
                continue  # a revision has no such file
            status, out, err = repository("--rev", side, "site/web.policy", "--target", "nft")
            assert (status, err) == (0, "")  # what is denied was denied
            shown = out[out.index("**Text**") : out.index("<details><summary>Rules")]
            assert "198.51.100.77" not in shown
    secret.write_text("# hush\nallow https inbound\n")
    Path("site/web.policy").unlink()
    Path("site/web.policy").symlink_to(secret)
    status, out, _ = repository("--rev", "before..", "site/web.policy")
    assert (status, "hush" in out, "**Opens**" in out) == (2, False, True)


def test_a_revision_and_what_is_there_now(repository: Run) -> None:
    assert repository("--rev", "HEAD", "site/web.policy")[0] == 0
    put("site/more.policy", "allow smtp inbound\n")
    status, out, _ = repository("--rev", "HEAD", "site/web.policy")
    assert (status, "+allow smtp inbound\n" in out) == (2, True)


def test_a_policy_that_is_new_is_compared_with_nothing(repository: Run) -> None:
    put("site/mail.policy", "allow smtp inbound\ndefault deny outbound\n")
    status, out, err = repository("--rev", "HEAD", "site/web.policy", "site/mail.policy")
    assert (status, err) == (2, "")
    assert "### site/mail.policy is new: 1 newly allowed\n" in out
    assert out.endswith("\nNo difference at all in `site/web.policy`.\n")
    assert "| `+` | inbound | tcp 25 (smtp) | `mail.policy:1` |  |\n" in out
    # What every firewall does is not told.
    assert "igmp" not in out[: out.index("**Text**")]
    assert repository("--rev", "HEAD", "site/mail.policy", "--fail-on", "opened")[0] == 2


def test_a_policy_that_is_removed_is_told(repository: Run) -> None:
    Path("site/web.policy").unlink()
    status, out, err = repository("--rev", "HEAD", "site/web.policy")
    assert (status, err) == (2, "")
    assert "### site/web.policy is removed\n" in out
    assert "\n-allow ssh inbound from 192.0.2.0/24\n" in out


def test_of_a_folder_all_policies_are_compared_that_either_side_has(repository: Run) -> None:
    """Below it too; what another one includes is read with that one, and else is none."""
    put("site/gone.policy", "allow ssh inbound\n")
    put("site/part.policy", "allow ntp inbound\n")
    commit("three")
    Path("site/gone.policy").unlink()
    put("site/part.policy", "allow ntp inbound from wan\n")
    text = Path("site/web.policy").read_text()
    put("site/web.policy", f'{text}include "part.policy"\n')
    put('site/a/größe "1".policy', "allow http inbound\n")
    commit("other three")
    for side in ("HEAD~1..HEAD", "HEAD~1"):
        for folder in ("site", "site/", "."):
            status, out, err = repository("--rev", side, folder, "--target", "nft")
            assert (status, err) == (2, "")
            assert re.findall("^### (.*)", out, re.MULTILINE) == [
                'site/a/größe "1".policy is new: 2 newly allowed',
                "site/gone.policy is removed",
                "site/part.policy is removed",
                "site/web.policy: 1 newly allowed",
            ]
    assert repository("--rev", "HEAD", "site")[0] == 0
    for revs in ("nonsense..HEAD", "HEAD..nonsense", "nonsense"):
        status, out, err = repository("--rev", revs, "site")
        assert (status, out, err.count("error[no-such-revision]") > 0) == (1, "", True)
    status, _, err = repository("--rev", "HEAD", "lists")
    assert (status, "error[no-policies]: there is no policy in `lists`" in err) == (1, True)


def test_a_file_that_is_nowhere_is_an_error(repository: Run) -> None:
    status, out, err = repository("--rev", "HEAD", "site/none.policy")
    assert (status, out) == (1, "")
    assert "cannot read `site/none.policy`: no such file on either side" in err
    status, _, err = repository("--rev", "nonsense", "site/web.policy")
    assert (status, "error[no-such-revision]" in err) == (1, True)


def test_parameters_beside_the_policy_hold_on_each_side(repository: Run) -> None:
    put("site/p.policy", "param p\nallow tcp $p inbound\n")
    put("site/p.params", "p = 1022\n")
    commit("parameters")
    put("site/p.params", "p = 2022\n")
    status, out, err = repository("--rev", "HEAD", "site/p.policy")
    assert (status, err) == (2, "")
    assert "--- site/p.params\n+++ site/p.params\n" in out
    assert "tcp 2022" in out
    assert repository("--rev", "HEAD", "site/p.policy", "-D", "p=1")[0] == 0


def test_a_policy_with_errors_is_told_in_the_comment_too(repository: Run) -> None:
    put("site/more.policy", "allow smttp inbound\n")
    put("site/other.policy", "allow ssh inbound\n")
    status, out, err = repository("--rev", "HEAD", "site/web.policy", "site/other.policy")
    assert status == 1
    assert (
        "### site/web.policy: cannot be compared\n\n"
        "- site/more.policy:1: unknown-service: no service named "
    ) in out
    assert "### site/other.policy is new: " in out
    assert "--> site/more.policy:1:7" in err
    # An error that the change mends is told to be one of before.
    commit("an error")
    put("site/more.policy", "allow smtp inbound\n")
    status, out, _ = repository("--rev", "HEAD", "site/web.policy")
    assert (status, "- HEAD:site/more.policy:1: unknown-service: " in out) == (1, True)
    assert out.count("unknown-service") == 1


def test_of_errors_in_files_of_the_machine_no_word_is_told(repository: Run, tmp_path: Path) -> None:
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_text("hush 198.51.100.77\nhush\n")
    Path("site/web.params").symlink_to(secret)
    put("site/params.policy", "allow ssh inbound\n")
    Path("site/params.params").symlink_to(secret)
    put("site/list.policy", f'set x = file "{secret}"\nallow ssh inbound from x\n')
    put("site/part.policy", f'include "{secret}"\n')
    Path("site/all.policy").symlink_to(secret)
    files = [f"site/{name}.policy" for name in ("web", "params", "list", "part", "all")]
    for side in ("HEAD", "HEAD~1..HEAD"):
        status, out, err = repository("--rev", side, *files)
        assert status == 1
        assert "hush" not in out
        assert out.count(": cannot be compared\n") == len(files)
        title = CODES["bad-list-line"].title
        assert f"- bad-list-line: {title}, in a file that is no part of the repository\n" in out
        assert "web.params\\` leads out of the repository\n" in out
        assert "hush" in err  # whoever runs it may read it
        if side == "HEAD":
            commit("secrets")


# --- hosts --------------------------------------------------------------------------------------


def test_hosts_are_told_one_by_one_and_those_that_stay_in_a_sentence(review: Run) -> None:
    put("old.policy", HOSTS)
    put(
        "new.policy",
        HOSTS.replace("to web1\n", "to web1, db1\n") + "host m { address 192.0.2.30 }\n",
    )
    status, out, err = review("old.policy", "new.policy")
    assert (status, err) == (2, "")
    assert "### old.policy → new.policy, host db1: 1 newly allowed\n" in out
    assert "### old.policy → new.policy, host m is new: " in out
    assert "No difference in meaning on `web1`.\n" in out
    assert "`db1/nft.nft`" in out
    status, out, _ = review("old.policy", "new.policy", "--host", "web1")
    assert (status, "db1/nft.nft" in out) == (0, False)


def test_a_host_that_is_removed_is_told(review: Run) -> None:
    put("old.policy", f"{HOSTS}host m {{ address 192.0.2.30 }}\n")
    put("new.policy", HOSTS)
    status, out, _ = review("old.policy", "new.policy")
    assert status == 2
    assert "### old.policy → new.policy, host m is removed\n" in out
    assert "No difference in meaning on `web1`, `db1`.\n" in out


# --- safety -------------------------------------------------------------------------------------


def outside_fences(text: str) -> str:
    """What is not between fences: there alone Markdown and HTML mean anything (CommonMark 4.5)."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        ticks = re.match(r"`{3,}", line)
        if fence:
            if ticks and len(ticks[0]) >= len(fence) and line.strip() == ticks[0]:
                fence = ""
        elif ticks:
            fence = ticks[0]
        else:
            lines.append(line)
    assert not fence
    return "\n".join(lines)


EVIL = """\
# ```
# </details><script>alert(1)</script> @everyone <!-- ~~~
````
# x\N{RIGHT-TO-LEFT OVERRIDE}
"""


def test_nothing_in_a_policy_ends_a_fence_or_is_markup(review: Run) -> None:
    comments = "".join(f"# {line}\n" for line in EVIL.splitlines())
    put("new.policy", f"{comments}{NEW}")
    put("a</summary>`@b.policy".replace("/", "-"), f"{NEW}{comments}")
    for name in ("new.policy", "a<-summary>`@b.policy"):
        status, out, _ = review("old.policy", name)
        assert status == 2
        assert "`````diff\n" in out
        outside = outside_fences(out)
        for word in ("script", "everyone", "\N{RIGHT-TO-LEFT OVERRIDE}"):
            assert word not in outside
        assert outside.count("<details>") == outside.count("</details>") == 2
        assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in out
        # Who is named in code is not called.
        assert "@b" not in re.sub("`[^`\n]+`", "", outside)


# --- size ---------------------------------------------------------------------------------------


def test_a_comment_never_exceeds_its_limit_and_says_what_is_left_out(
    review: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Sequence[Section]] = []

    def kept(sections: Sequence[Section], limit: int) -> str:
        found.append(sections)
        return comment(sections, limit)

    monkeypatch.setattr(golden_review, "comment", kept)
    many = "".join(f"allow tcp {n} inbound from 198.51.100.{n}\n" for n in range(1, 200))
    put("new.policy", f"{NEW}{many}")
    status, said, _ = review("old.policy", "new.policy", "--limit", "1000")
    assert status == 2
    for limit in (1000, 1500, 2500, 4000, 8000, 20000):
        out = comment(found[0], limit)
        assert 0 < len(out) <= limit
        assert out == said or limit > 1000
        assert "left out: a comment here has at most " in out
        outside = outside_fences(out)
        assert outside.count("<details>") == outside.count("</details>")
        if limit >= 2500:
            assert "newly allowed" in out


def test_rules_are_cut_before_text_and_text_before_meaning(review: Run) -> None:
    _, whole, _ = review("old.policy", "new.policy")
    meaning, text = whole.index("**Text**"), whole.index("<details><summary>Rules")
    _, out, _ = review("old.policy", "new.policy", "--limit", str(text + 400))
    assert out[:text] == whole[:text]
    assert re.search(r"_\d+ more lines are left out: a comment here has at most", out)
    _, out, _ = review("old.policy", "new.policy", "--limit", str(int(meaning * 1.4)))
    assert out[:meaning] == whole[:meaning]


def test_policies_that_do_not_fit_are_counted() -> None:
    sections = [Section(f"{n}.policy", hosts=(Host(None, "is removed"),)) for n in range(100)]
    text = comment(sections, 1000)
    assert len(text) <= 1000
    shown = text.count("### ")
    assert 0 < shown < 100
    assert f"_{100 - shown} more policies are left out: a comment here has at most 1,000 " in text
    assert comment(sections, 65_536).count("### ") == 100


def test_of_a_fleet_those_that_do_the_same_are_told_once(review: Run) -> None:
    hosts = "".join(f"host h{n} {{ address 192.0.2.{n} }}\n" for n in range(1, 12))
    put("old.policy", f"{hosts}allow ssh inbound\n")
    put("new.policy", f"{hosts}allow ssh, https inbound\non h2 {{ allow smtp inbound }}\n")
    status, out, _ = review("old.policy", "new.policy", "--target", "nft")
    assert status == 2
    assert re.findall(r"^### .*", out, re.MULTILINE) == [
        "### old.policy → new.policy, hosts h1, h3, h4, h5, h6, h7, h8, h9 and 2 more: "
        "1 newly allowed",
        "### old.policy → new.policy, host h2: 2 newly allowed",
    ]


def test_of_a_fleet_a_few_hosts_are_told_where_all_do_not_fit(review: Run) -> None:
    hosts = "".join(f"host h{n} {{ address 192.0.2.{n} }}\n" for n in range(1, 13))
    ports = "".join(f"on h{n} {{ allow tcp {n + 1000} inbound }}\n" for n in range(1, 13))
    put("old.policy", f"{hosts}allow ssh inbound\n")
    put("new.policy", f"{hosts}allow ssh inbound\n{ports}")
    status, out, _ = review("old.policy", "new.policy", "--limit", "4000", "--target", "nft")
    assert (status, len(out) <= 4000) == (2, True)
    shown = out.count(", host h")
    assert 0 < shown < 12
    assert f"… and {12 - shown} more hosts differ.\n" in out


def test_what_is_too_large_to_compare_is_said(review: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_review, "Space", lambda: diagram.Space(3000))
    monkeypatch.setattr(diagram, "MOST_NODES", 3000)
    status, out, err = review("old.policy", "new.policy")
    assert (status, "error[too-large]" in err) == (1, True)
    assert "too many different packets to be compared\n" in out
    assert "**Text**" in out


@pytest.mark.parametrize(
    "arguments",
    [["a.policy"], ["a.policy", "b.policy", "c.policy"], ["--rev", "a...b", "x.policy"]],
)
def test_words_that_make_no_comparison_are_refused(review: Run, arguments: list[str]) -> None:
    status, _, err = review(*arguments)
    assert (status, "usage: policylang review" in err) == (1, True)
