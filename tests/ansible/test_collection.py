"""The collection is what Galaxy, ansible-test and ansible-lint ask of one."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import policylang
from tests.kernel.ground import REPOSITORY

from .controller import PROGRAMS, environment

SOURCE = REPOSITORY / "ansible"
FIREWALL = Path("ansible_collections/policylang/firewall")
GET_PIP = "get_pip_24_2.py"  # as ansible-test of ansible-core 2.19 calls what it fetches
# Most of what is installed is never imported: pip is not to compile it.
LAZY = "[install]\ncompile = false\n"
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
    settings = folder / ".config/pip/pip.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(LAZY)
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
    argv += ["--skip-list", "galaxy[no-repository]"]  # there is none to name as long as it has none
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


def test_modules_can_be_read_by_every_python_that_ansible_knows() -> None:
    for path in (SOURCE / "plugins/modules").glob("*.py"):
        ast.parse(path.read_text(), feature_version=OLDEST_MODULES)


def constant(path: Path, name: str) -> Any:
    """What a file calls by a name, without its being run."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return ast.literal_eval(value)
    raise AssertionError(f"{path} has no {name}")


def without_words(options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in option.items() if key != "description"}
        for name, option in options.items()
    }


def test_the_options_that_are_documented_are_those_that_are_taken() -> None:
    """Those of the role, too, with their defaults, and each is handed on."""
    documented = yaml.safe_load(constant(SOURCE / "plugins/modules/apply.py", "DOCUMENTATION"))
    options = constant(SOURCE / "plugins/action/apply.py", "OPTIONS")
    assert without_words(documented["options"]) == options

    role = SOURCE / "roles/firewall"
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    of_role = without_words(specs["argument_specs"]["main"]["options"])
    assert (
        options.items()
        <= {name.removeprefix("firewall_"): option for name, option in of_role.items()}.items()
    )
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    assert {name: one["default"] for name, one in of_role.items() if "default" in one} == {
        name: value for name, value in defaults.items() if name != "firewall_packages"
    }
    _, tasks = (role / "tasks/main.yml").read_text().split("policylang.firewall.apply:\n")
    for name in options:
        assert f'\n    {name}: "{{{{ firewall_{name}' in f"\n{tasks}"


def test_modules_are_kept_whole_or_not_at_all(collections: Path, tmp_path: Path) -> None:
    """Half of them is replaced, all of them is left to whoever is at work with it."""
    place = collections / FIREWALL / "plugins/modules/on_target.py"
    spec = importlib.util.spec_from_file_location("on_target", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("__main__.py", "new")
        packed.writestr("policylang/__init__.py", "")
    kept = tmp_path / "kept"
    digests = [f"{number}" * module.DIGITS for number in range(6)]
    for number, digest in enumerate(digests[:5]):
        (kept / digest / "policylang").mkdir(parents=True)
        os.utime(kept / digest, (number, number))
    for name, age_s in ((".new-old", 2 * module.DAY_S), (".new-young", 0)):
        (kept / name).mkdir()
        os.utime(kept / name, (time.time() - age_s,) * 2)

    module._keep(archive, kept / digests[0])
    assert (kept / digests[0] / "__main__.py").read_text() == "new"
    assert {one.name for one in kept.iterdir()} == {
        *(digests[0], digests[3], digests[4]),
        ".new-young",
    }
    (kept / digests[0] / "__main__.py").write_text("at work")
    module._keep(archive, kept / digests[0])
    assert (kept / digests[0] / "__main__.py").read_text() == "at work"


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
