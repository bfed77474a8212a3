"""The collection is what Galaxy, ansible-test and ansible-lint ask of one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import policylang
from tests.kernel.ground import REPOSITORY

from .controller import PROGRAMS, environment

FIREWALL = Path("ansible_collections/policylang/firewall")
GET_PIP = "get_pip_24_2.py"  # as ansible-test of ansible-core 2.19 calls what it fetches
OLDEST_MODULES = (3, 8)  # the oldest Python of a target of ansible-core 2.19


def checked(argv: list[str], folder: Path, env: dict[str, str]) -> str:
    """What a program says that finds nothing wrong."""
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where ansible-test keeps its virtual environments: from run to run, where pytest does."""
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = tmp_path if cache is None else cache.mkdir("ansible-test")
    place = folder / ".ansible/test/cache" / GET_PIP
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(Path(__file__).with_name("stand_in_for_get_pip.py"), place)
    return folder


def test_ansible_test_finds_nothing_wrong(collections: Path, home: Path) -> None:
    version = ".".join(map(str, sys.version_info[:2]))
    program = str(PROGRAMS / "ansible-test")
    env = {**environment(home, collections), "HOME": str(home)}
    del env["PYTHONPATH"]
    argv = [program, "sanity", "--python", version, "--color", "no"]
    said = checked(argv, collections / FIREWALL, env)
    assert said.count("Running sanity test") >= 20


def test_ansible_lint_finds_nothing_wrong(collections: Path, tmp_path: Path) -> None:
    program = str(PROGRAMS / "ansible-lint")
    argv = [program, "--offline", "--strict", "--profile", "production", "--nocolor"]
    checked(argv, collections / FIREWALL, environment(tmp_path, collections))


def test_what_is_built_is_the_version_of_the_compiler(collections: Path) -> None:
    (built,) = collections.glob("*.tar.gz")
    with tarfile.open(built) as packed:
        names = packed.getnames()
        manifest = packed.extractfile("MANIFEST.json")
        assert manifest is not None
        about = json.load(manifest)["collection_info"]
    assert (about["namespace"], about["name"]) == ("policylang", "firewall")
    assert about["version"] == policylang.__version__
    assert {name.partition("/")[0] for name in names} == {
        *("MANIFEST.json", "FILES.json", "README.md", "CHANGELOG.md"),
        *("meta", "plugins", "roles", "tests"),
    }
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/output")]
    changes = (collections / FIREWALL / "CHANGELOG.md").read_text()
    assert f"## {policylang.__version__}\n" in changes


@pytest.mark.parametrize("folder", ["modules"])
def test_modules_can_be_read_by_every_python_that_ansible_knows(folder: str) -> None:
    import ast

    for path in (REPOSITORY / "ansible/plugins" / folder).glob("*.py"):
        ast.parse(path.read_text(), feature_version=OLDEST_MODULES)


def test_each_action_is_documented(collections: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, collections)
    for kind, names in (
        ("module", ("apply", "boot", "info", "on_target")),
        ("filter", ("compile",)),
    ):
        argv = [str(PROGRAMS / "ansible-doc"), "--json", "--type", kind]
        argv += [f"policylang.firewall.{name}" for name in names]
        told = json.loads(checked(argv, tmp_path, {**os.environ, **env}))
        assert len(told) == len(names)
        assert all(one["doc"]["short_description"] for one in told.values())
