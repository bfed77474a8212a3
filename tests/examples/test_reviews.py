"""What `examples/reviews` shows works: hooks, workflows and attributes, run as far as no host is.

Each shell step is executed as it is written, in a repository; what would talk to a code host is a
program of the test that writes down what it was asked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import pytest
import yaml

from policylang.cli.comment import MARK
from tests.warm import warm

REPOSITORY = Path(__file__).parents[2]
REVIEWS = REPOSITORY / "examples" / "reviews"
HOOKS = REPOSITORY / ".pre-commit-hooks.yaml"
BIN = Path(sys.executable).parent

# Stands for `gh` and for curl: the words it was called with, and the comment it was given. It
# answers with the numbers of the comments that are there already.
RECORDER = """\
#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$@" >> "$RECORD"
for word in "$@"; do
  case $word in
    *@*comment.md) cp "${word#*@}" "$RECORD.md" ;;
    */comment.md) cp "$word" "$RECORD.md" ;;
    *.id) printf '%s' "$COMMENTS" ;;
  esac
done
"""


class Site:
    """A repository with the example's policies, at a commit `main`, and programs to run in it."""

    def __init__(self, folder: Path, policylang: Path) -> None:
        self.folder = folder / "site"
        self.temp = folder / "temp"
        self.record = folder / "record"
        programs = folder / "bin"
        for place in (programs, self.temp):
            place.mkdir()
        (programs / "policylang").symlink_to(policylang)
        for name in ("gh", "curl"):
            (programs / name).write_text(RECORDER)
            (programs / name).chmod(0o755)
        self.env = {
            **{"PATH": f"{programs}:{BIN}:{os.environ['PATH']}", "HOME": str(folder)},
            **{"RECORD": str(self.record), "COMMENTS": "", "RUNNER_TEMP": str(self.temp)},
            **{"GIT_CONFIG_NOSYSTEM": "1", "PRE_COMMIT_HOME": str(folder / "pre-commit")},
            "LC_ALL": "C.UTF-8",
        }
        copytree(REVIEWS / "firewall", self.folder / "firewall")
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "a")
        self.git("config", "user.email", "a@example")
        self.commit("old")

    def run(
        self, *command: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def step(self, text: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """A step as GitHub runs it: its documentation has these options."""
        return self.run("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text, env=env)

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message, "--no-verify")

    def change(self, old: str, new: str, name: str = "firewall/web.policy") -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def policylang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm(tmp_path_factory.mktemp("warm")) as program:
        yield program


@pytest.fixture
def site(policylang: Path, tmp_path: Path) -> Site:
    return Site(tmp_path, policylang)


def parsed(name: str) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load((REVIEWS / name).read_text())
    return value


# --- the folder ---------------------------------------------------------------------------------


def test_what_is_kept_is_what_the_policy_compiles_to(site: Site) -> None:
    done = site.run("policylang", "golden", "firewall")
    assert (done.returncode, done.stdout) == (0, "1 policy: 1 as kept\n")
    for words in (["test"], ["lint"], ["fmt", "--check"]):
        assert site.run("policylang", *words, "firewall/web.policy").returncode == 0


def test_the_readme_lists_what_is_there() -> None:
    listed = re.findall(r"^\| \[([^\]]+)\]\(([^)]+)\)", (REVIEWS / "README.md").read_text(), re.M)
    assert all(name == path for name, path in listed)
    there = {f"{p.name}/" if p.is_dir() else p.name for p in REVIEWS.iterdir()} - {"README.md"}
    assert {name for name, _ in listed} == there


# --- github -------------------------------------------------------------------------------------


def test_files_are_what_their_schemas_say(site: Site) -> None:
    for schema, *more in (
        ("vendor.github-workflows", str(REVIEWS / "github.yml")),
        ("vendor.gitlab-ci", "--data-transform", "gitlab-ci", str(REVIEWS / "gitlab.yml")),
    ):
        done = site.run("check-jsonschema", "--builtin-schema", schema, *more)
        assert done.returncode == 0, done.stdout
    for words in (
        ("validate-manifest", str(HOOKS)),
        ("validate-config", str(REVIEWS / "pre-commit-config.yaml")),
    ):
        done = site.run("pre-commit", *words)
        assert done.returncode == 0, done.stdout


def steps() -> dict[str, dict[str, Any]]:
    """The steps of the workflow that run something, but for what installs policylang."""
    found = parsed("github.yml")["jobs"]["review"]["steps"]
    return {one["name"]: one for one in found if "run" in one and one["name"] != "Install"}


def run_workflow(site: Site, base: str) -> dict[str, subprocess.CompletedProcess[str]]:
    """Every step of the workflow, with what GitHub would have put in the place of expressions."""
    given = {
        "github.event.pull_request.base.sha": base,
        "github.event.number": "7",
        "github.token": "secret",
        "github.repository": "a/site",
    }
    done = {}
    for name, step in steps().items():
        env = {
            key: re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda m: given[m[1]], str(value))
            for key, value in step.get("env", {}).items()
        }
        assert "${{" not in step["run"]  # what others write would be part of the script
        reads = re.search(r"^ *policylang ", step["run"], re.MULTILINE)
        assert not (reads and "secret" in env.values())
        done[name] = site.step(step["run"], env)
    return done


def test_the_workflow_comments_on_a_change_and_passes(site: Site) -> None:
    base = site.git("rev-parse", "HEAD")
    site.change("http, https inbound", "http, https, imaps inbound")
    assert site.run("policylang", "golden", "firewall", "--update").returncode == 0
    site.commit("new")
    done = run_workflow(site, base)
    assert {name: one.returncode for name, one in done.items()} == dict.fromkeys(done, 0)
    asked, *words = site.record.read_text().split("gh\n")[1:]
    assert "\nrepos/a/site/issues/7/comments\n" in asked
    assert "github-actions[bot]" in asked and f'startswith("{MARK}")' in asked
    assert [one.split() for one in words] == [
        ["pr", "comment", "7", "--body-file", f"{site.temp}/comment.md"]
    ]
    comment = Path(f"{site.record}.md").read_text()
    assert "### firewall/web.policy: 1 newly allowed\n" in comment
    assert "tcp 993 (imaps)" in comment
    assert "### firewall/parts" not in comment  # a part is no policy
    assert (site.temp / "lint.sarif").read_text().startswith("{\n")
    assert site.git("status", "--short") == ""  # in a checkout a name may be a link to anywhere
    # Of comments by the same name ours is replaced, and the last one of them.
    step = steps()["Comment"]["run"]
    env = {"NUMBER": "7", "GH_REPO": "a/site", "COMMENTS": "11\n12\n"}
    site.record.unlink()
    assert site.step(step, env).returncode == 0
    _, patched = site.record.read_text().split("gh\n")[1:]
    assert patched.split() == [
        *("api", "--method", "PATCH", "repos/a/site/issues/comments/12", "--silent"),
        *("--field", f"body=@{site.temp}/comment.md"),
    ]


@pytest.mark.parametrize(("status", "said", "passes"), [
    (0, "x", True), (1, "x", True), (2, "x", True),
    (1, "", False), (3, "", False), (3, "x", False), (127, "", False),
])  # fmt: skip
def test_a_review_that_could_not_be_made_fails(
    site: Site, status: int, said: str, passes: bool
) -> None:
    """Also where nothing else does: with 1 it has said why, in the comment, or nothing at all."""
    program = site.folder.parent / "bin" / "policylang"
    program.unlink()
    program.write_text(f"#!/bin/sh\nprintf '{said}'\nexit {status}\n")
    program.chmod(0o755)
    base = site.git("rev-parse", "HEAD")
    done = site.step(steps()["Review"]["run"], {"BASE": base})
    assert (done.returncode == 0) == passes, done.stderr
    job, *_ = parsed("gitlab.yml")["firewall-review"]["script"]
    done = site.step(job, {"CI_MERGE_REQUEST_DIFF_BASE_SHA": base})
    assert (done.returncode == 0) == passes, done.stderr


def test_the_workflow_fails_where_kept_rules_were_forgotten(site: Site) -> None:
    base = site.git("rev-parse", "HEAD")
    site.change("http, https inbound", "http inbound")
    site.commit("new")
    done = run_workflow(site, base)
    failed = {name for name, one in done.items() if one.returncode}
    assert failed == {"Kept rules"}
    assert "::error file=firewall/web.policy," in done["Kept rules"].stdout


def test_the_workflow_tells_of_errors_and_still_comments(site: Site) -> None:
    base = site.git("rev-parse", "HEAD")
    site.change("allow http, https inbound", "allow htttp inbound")
    (site.folder / "firewall" / "mail.policy").write_text("allow smtp inbound\n")
    site.commit("new")
    done = run_workflow(site, base)
    failed = {name for name, one in done.items() if one.returncode}
    assert failed == {"Kept rules", "Tests", "Findings"}
    comment = Path(f"{site.record}.md").read_text()
    assert "### firewall/web.policy: cannot be compared\n" in comment
    assert "### firewall/mail.policy is new: " in comment
    assert "::error file=firewall/web.policy,line=" in done["Tests"].stdout


def test_the_workflow_tells_of_a_policy_that_is_removed_whatever_its_name(site: Site) -> None:
    name = 'größe "1".policy'
    (site.folder / "firewall" / name).write_text("allow smtp inbound\n")
    site.commit("two")
    base = site.git("rev-parse", "HEAD")
    (site.folder / "firewall" / name).unlink()
    site.commit("one")
    done = site.step(steps()["Review"]["run"], {"BASE": base})
    assert done.returncode == 0, done.stderr
    comment = (site.temp / "comment.md").read_text()
    assert f"### firewall/{name} is removed\n" in comment
    assert "No difference at all in `firewall/web.policy`.\n" in comment
    # Where there is nothing to compare, that is told, and there is no comment.
    rmtree(site.folder / "firewall")
    site.commit("none")
    done = site.step(steps()["Review"]["run"], {"BASE": site.git("rev-parse", "HEAD")})
    assert done.returncode == 1 and "`firewall`: no such file on either side" in done.stderr


# --- gitlab -------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "secret"])
def test_the_job_comments_where_it_may(site: Site, token: str) -> None:
    base = site.git("rev-parse", "HEAD")
    site.change("http, https inbound", "http, https, imaps inbound")
    site.run("policylang", "golden", "firewall", "--update")
    site.commit("new")
    env = {
        **{"CI_MERGE_REQUEST_DIFF_BASE_SHA": base, "REVIEW_TOKEN": token},
        **{"CI_API_V4_URL": "https://git.example/api/v4", "CI_PROJECT_ID": "3"},
        **{"CI_MERGE_REQUEST_IID": "7"},
    }
    (site.folder / "comment.md").symlink_to("/dev/full")  # what a change may hold
    for command in parsed("gitlab.yml")["firewall-review"]["script"]:
        done = site.step(command, env)
        assert done.returncode == 0, done.stderr
    assert "tcp 993 (imaps)" in (site.folder / "comment.md").read_text()
    assert site.record.exists() == bool(token)
    if token:
        words = site.record.read_text().splitlines()
        assert words[-1] == "https://git.example/api/v4/projects/3/merge_requests/7/notes"
        assert "body@comment.md" in words


def test_the_job_fails_where_kept_rules_were_forgotten(site: Site) -> None:
    site.change("http, https inbound", "http, https, imaps inbound")
    found = parsed("gitlab.yml")["firewall-review"]["script"]
    assert [site.step(one, {}).returncode for one in found[1:]] == [2, 0, 0]


# --- pre-commit ---------------------------------------------------------------------------------


def local_config() -> dict[str, Any]:
    """The example's hooks as those of the manifest, run by what is here instead of downloaded."""
    manifest = {one["id"]: one for one in yaml.safe_load(HOOKS.read_text())}
    (asked,) = parsed("pre-commit-config.yaml")["repos"]
    hooks = [{**manifest[one["id"]], **one, "language": "system"} for one in asked["hooks"]]
    return {"repos": [{"repo": "local", "hooks": hooks}]}


def test_hooks_let_a_commit_pass_only_with_its_kept_rules(site: Site) -> None:
    (site.folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(local_config()))
    site.commit("hooks")
    assert site.run("pre-commit", "install").returncode == 0
    site.change("http, https inbound", "http,  https, imaps inbound")
    site.git("add", "-A")
    done = site.run("git", "commit", "-qm", "not laid out")
    assert done.returncode != 0
    assert "firewall/web.policy: formatted" in done.stderr
    site.git("add", "-A")
    done = site.run("git", "commit", "-qm", "not kept")
    assert done.returncode != 0
    assert "firewall/web.policy: compiles to something else than is kept" in done.stderr
    assert "+++ firewall/web.golden/nft.nft (now)" in done.stderr
    assert site.run("policylang", "golden", "firewall", "--update").returncode == 0
    site.git("add", "-A")
    done = site.run("git", "commit", "-qm", "kept")
    assert done.returncode == 0, done.stderr
    assert site.git("status", "--short") == ""
    site.change("expect deny ssh", "expect allow ssh")
    site.git("add", "-A")
    done = site.run("git", "commit", "-qm", "a test that fails")
    assert done.returncode != 0
    assert "expectation-failed" in done.stderr


def test_hooks_do_not_run_for_other_files(site: Site) -> None:
    (site.folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(local_config()))
    (site.folder / "README").write_text("nothing\n")
    site.git("add", "-A")
    done = site.run("pre-commit", "run")
    assert done.returncode == 0
    assert done.stdout.count("(no files to check)Skipped") == 3


def test_every_hook_of_the_manifest_runs(site: Site) -> None:
    hooks = [{**one, "language": "system"} for one in yaml.safe_load(HOOKS.read_text())]
    config = {"repos": [{"repo": "local", "hooks": hooks}], "exclude": "/parts/"}
    (site.folder / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    site.git("add", "-A")
    done = site.run("pre-commit", "run", "--all-files")
    assert (done.returncode, done.stdout.count("Passed")) == (0, len(hooks)), done.stdout


# --- git ----------------------------------------------------------------------------------------


def test_the_attributes_make_git_speak_of_meaning(site: Site) -> None:
    (site.folder / ".gitattributes").write_text((REVIEWS / "gitattributes").read_text())
    (line,) = re.findall(r"git config (diff\.\S+) '(.*)'", (REVIEWS / "gitattributes").read_text())
    site.git("config", *line)
    site.commit("attributes")
    site.change("http, https inbound", "http, https, imaps inbound")
    site.run("policylang", "golden", "firewall", "--update")
    shown = site.git("diff", "firewall/web.golden/iptables")
    assert re.search(r"^\+  IPv4 tcp 80, 443, 993 from any by ens3", shown, re.MULTILINE)
    assert "policylang-input" not in shown
