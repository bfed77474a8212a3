"""textX's own tools read, check and compile policies as policylang does."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass, fields
from functools import cache
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock
from zipfile import ZipFile

import pytest
from click import Group
from click.testing import CliRunner
from textx import get_children, get_location, registration

from policylang.backends import TARGETS
from policylang.cli import main
from policylang.diagnostics import Report
from policylang.editors import textx
from policylang.pipeline import artifact_of, ruleset_of
from policylang.source import SourceFile
from policylang.syntax import tree
from policylang.syntax.parameters import Parameters
from policylang.syntax.parse import ROLES, opened
from tests.differential.policies import random_policy
from tests.editors.policies import WHOLE, name_of
from tests.kernel.ground import REPOSITORY

MISTAKEN = [
    path
    for path in sorted((REPOSITORY / "tests/diagnostics").rglob("*.policy"))
    if not re.search(rb"^host\b", path.read_bytes(), re.MULTILINE)  # these have tests of their own
]

RANDOM = "tests/differential/random.policy"  # the name of a file that a lock file stands beside

GOOD = "param wan = eth0\nzone wan { interface $wan }\nallow ssh inbound from wan\n"
BAD = "allow ftpp inbound\nallow ssh inbound from nowhere\n"


@cache
def metamodel() -> textx.PolicyMetaModel:
    return textx.metamodel()


# --- the language ----------------------------------------------------------------------------

Place = tuple[str, int, int]  # the class of a node, where it starts and ends (exclusive)


def places_of_ours(file: SourceFile) -> list[Place]:
    """The nodes that the compiler's own reader makes of a file, statement by statement."""
    report = Report()
    parameters = Parameters(report)
    places: list[Place] = []
    with opened(file, report, parameters) as statements:
        for statement in statements.read(catalogue=False):
            places += _places(statement)
            if isinstance(statement, tree.ParamDecl):
                parameters.declare(statement)
    assert not report.has_errors
    return places


def _places(value: Any) -> Iterator[Place]:
    if isinstance(value, tree.Node):
        yield type(value).__name__, value.span.start, value.span.end
        for part in fields(value):
            yield from _places(getattr(value, part.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _places(part)


def places_of_textx(model: Any) -> list[Place]:
    found = []
    for node in get_children(lambda _: True, model):
        rule = type(node).__name__
        name = ROLES[rule].__name__ if rule in ROLES else rule
        found.append((name, node._tx_position, node._tx_position_end))
    return found[1:]  # the document itself


@pytest.mark.parametrize("policy", WHOLE, ids=name_of)
def test_a_model_has_the_nodes_of_the_compiler_in_their_places(policy: Path) -> None:
    model = metamodel().model_from_file(str(policy))
    ours = places_of_ours(SourceFile(policy.name, policy.read_text(encoding="utf-8")))
    assert sorted(places_of_textx(model)) == sorted(ours)


def test_models_of_random_policies_have_them_too() -> None:
    compared = 0
    for seed in range(40):
        text = random_policy(Random(seed), translates=seed % 2 == 1)
        try:
            model = metamodel().model_from_str(text, str(REPOSITORY / RANDOM))
        except textx.PolicyError:  # the generator writes what the compiler refuses now and then
            continue
        ours = places_of_ours(SourceFile(RANDOM, text))
        assert sorted(places_of_textx(model)) == sorted(ours), f"seed {seed}\n{text}"
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("policy", MISTAKEN, ids=name_of)
def test_a_model_is_refused_for_what_the_compiler_refuses(policy: Path) -> None:
    report = Report()
    ruleset = ruleset_of(policy, report)
    refused = [Report() for _ in TARGETS]
    if ruleset is not None:
        made = [artifact_of(ruleset, t, r) for t, r in zip(TARGETS, refused, strict=True)]
        if not any(made):
            for one in refused:
                report.take(one)
    if not report.has_errors:
        assert metamodel().model_from_file(str(policy)).statements is not None
        return
    with pytest.raises(textx.PolicyError) as refusal:
        metamodel().model_from_file(str(policy))
    told = [(d.code, d.message) for d in refusal.value.diagnostics]
    assert told == [(d.code, d.message) for d in report.in_order()]
    lines = str(refusal.value).splitlines()
    for d in report.diagnostics:
        if d.span is not None:
            name, line, column = d.span.file.name, d.span.line, d.span.column
            place = f"{policy.parent / name}:{line}:{column}: {d.severity}[{d.code}]: "
            assert any(told.startswith(place) for told in lines)


def test_all_mistakes_are_told_and_the_first_has_a_place_for_tools(tmp_path: Path) -> None:
    policy = tmp_path / "bad.policy"
    policy.write_text(BAD)
    with pytest.raises(textx.PolicyError) as refusal:
        metamodel().model_from_file(str(policy))
    error = refusal.value
    assert (error.line, error.col, error.nchar) == (1, 7, 4)
    assert error.filename == str(policy) and error.err_type == "unknown-service"
    counted, *lines = str(error).splitlines()
    assert counted == "2 errors"
    assert [line.partition("]")[0] for line in lines if "error[" in line] == [
        f"{policy}:1:7: error[unknown-service",
        f"{policy}:2:24: error[unknown-name",
    ]
    assert "    help: did you mean `ftp`?" in lines


def test_a_text_without_a_file_is_a_model_as_well() -> None:
    model = metamodel().model_from_str(GOOD)
    assert [type(statement).__name__ for statement in model.statements] == [
        *("ParamDecl", "ZoneDecl", "RuleNode"),
    ]
    with pytest.raises(textx.PolicyError, match=r"<text>:1:7: error\[unknown-service\]"):
        metamodel().model_from_str(BAD)


def test_values_stand_for_parameters_in_the_places_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "site.policy").write_text(
        'include "names.policy"\nset all-of-them = $admins, 10.0.0.1 allow ssh inbound from $admins'
    )
    (tmp_path / "names.policy").write_text(
        "param base = 192.0.2.1\nparam admins = $base, 192.0.2.3"
    )
    model = metamodel().model_from_file(
        str(tmp_path / "site.policy"), parameters="base = 198.51.100.77"
    )
    _, declared, rule = model.statements
    assert [element.text for element in declared.elements] == [
        *("198.51.100.77", "192.0.2.3", "10.0.0.1"),
    ]
    where = [get_location(element) for element in declared.elements]
    assert [(at["line"], at["col"], at["nchar"]) for at in where] == [
        *((2, 19, 7), (2, 19, 7), (2, 28, 8)),
    ]
    assert get_location(rule)["col"] == 37
    first, second = rule.place.source.elements
    assert (first.element.text, second.element.text) == ("198.51.100.77", "192.0.2.3")


def test_parameters_that_are_none_are_refused() -> None:
    with pytest.raises(Exception, match="`wan` is no parameter"):
        metamodel().model_from_str(GOOD, parameters="wan")
    with pytest.raises(Exception, match="the parameter `wan` is given twice"):
        metamodel().model_from_str(GOOD, parameters="wan=eth1; wan = eth2")
    with pytest.raises(textx.PolicyError, match="declares no such parameter"):
        metamodel().model_from_str(GOOD, parameters="lan=eth1")


def test_names_that_begin_like_words_are_names() -> None:
    text = "set dynamic-hosts = 192.0.2.1\nset x = dynamic-hosts\nallow ssh inbound from x"
    model = metamodel().model_from_str(text)
    assert model.statements[1].elements[0].text == "dynamic-hosts"


def test_what_one_target_cannot_say_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    both = "zone lan { interface eth0 }\nzone wan { interface eth1 }\n"
    metamodel().model_from_str(f"{both}offload from lan to wan\nallow all from lan to wan")
    assert "not for iptables:" in caplog.text and "<text>:3:1: error[unsupported]" in caplog.text


# --- the programs ----------------------------------------------------------------------------


@cache
def program_of_textx() -> Group:
    with mock.patch("logging.basicConfig"):  # what it does when it is imported
        from textx.cli import textx as program
    assert isinstance(program, Group)
    return program


@dataclass(frozen=True, slots=True)
class Installed:
    """policylang as a wheel has it, apart from the checkout, and programs that find it there."""

    folder: Path
    work: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What came of a program of the environment that the tests run in, in its own process."""
        path = Path(sys.executable).with_name(program)
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [str(path), *arguments],
            env=environment,
            cwd=self.work,
            check=False,
            capture_output=True,
            text=True,
        )

    def textx(self, *arguments: str) -> tuple[int, str]:
        """The exit status of textX's program, and all that it said; in this process.

        It finds by the wheel's entry points what it then loads from the checkout.
        """
        said = StringIO()
        handler = logging.StreamHandler(said)
        registration.clear_language_registrations()
        registration.clear_generator_registrations()
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            with chdir(self.work), mock.patch.object(sys, "path", [*sys.path, str(self.folder)]):
                done = CliRunner().invoke(program_of_textx(), arguments)
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        return done.exit_code, done.output + said.getvalue()


# What pip does to make a wheel (PEP 517), less the pip.
BUILD = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a wheel of the checkout holds, which is what pip puts into one."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "source"
    for name in ("policylang", "templates"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    command = [sys.executable, "-c", BUILD, str(folder)]
    subprocess.run(command, check=True, capture_output=True, cwd=copy)
    (made,) = folder.glob("*.whl")
    with ZipFile(made) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Installed:
    (tmp_path / "good.policy").write_text(GOOD)
    (tmp_path / "bad.policy").write_text(BAD)
    return Installed(wheel, tmp_path)


def compiled(policy: Path, target: str, *options: str) -> dict[str, str]:
    """What `policylang compile` writes into a folder or a file."""
    place = policy.parent / "by-policylang" / target
    place.parent.mkdir(exist_ok=True)
    arguments = ["compile", str(policy), "--target", target, "-o", str(place), *options]
    assert main(arguments) == 0
    return texts(place)


def texts(place: Path) -> dict[str, str]:
    if place.is_file():
        return {"": place.read_text()}
    return {path.name: path.read_text() for path in place.iterdir()}


def test_the_program_of_textx_generates_by_the_wheel_alone(installed: Installed) -> None:
    done = installed.run("textx", "generate", "good.policy", "--target", "nft")
    assert done.returncode == 0, done.stderr
    assert texts(installed.work / "good.nft") == compiled(installed.work / "good.policy", "nft")


def test_textx_lists_the_language_and_its_generators(installed: Installed) -> None:
    assert "policylang (*.policy)" in installed.textx("list-languages")[1]
    said = installed.textx("list-generators")[1]
    assert "policylang -> nft" in said and "policylang -> iptables" in said


def test_textx_checks(installed: Installed) -> None:
    status, said = installed.textx("check", "good.policy")
    assert status == 0 and said.rstrip().endswith("good.policy: OK.")
    status, said = installed.textx("check", "bad.policy")
    assert status == 1 and "Traceback" not in said
    assert "bad.policy:1:7: error[unknown-service]: no service named `ftpp`" in said
    assert "bad.policy:2:24: error[unknown-name]" in said


@pytest.mark.parametrize(("target", "name"), [("nft", "good.nft"), ("iptables", "good.iptables")])
def test_textx_generates_what_policylang_compiles(
    target: str, name: str, installed: Installed
) -> None:
    beside, out = installed.work / name, installed.work / "out/deep" / name
    generate = ("generate", "good.policy", "--target", target)
    status, said = installed.textx(*generate)
    assert status == 0, said
    status, said = installed.textx(*generate, "-o", "out/deep")
    assert status == 0 and str(out) in said
    expected = compiled(installed.work / "good.policy", target)
    assert texts(beside) == texts(out) == expected


def test_textx_overwrites_when_told_alone(installed: Installed) -> None:
    made = installed.work / "good.nft"
    made.write_text("mine\n")
    status, said = installed.textx("generate", "good.policy", "--target", "nft")
    assert status == 0 and "NOT overwriting" in said and made.read_text() == "mine\n"
    status, _ = installed.textx("generate", "good.policy", "--target", "nft", "--overwrite")
    assert status == 0 and "chain input" in made.read_text()


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_a_policy_that_says_nothing_is_one(text: str, installed: Installed) -> None:
    policy = installed.work / "empty.policy"
    policy.write_text(text)
    status, said = installed.textx("check", "empty.policy")
    assert status == 0, said
    status, said = installed.textx("generate", "empty.policy", "--target", "nft")
    assert status == 0, said
    assert texts(installed.work / "empty.nft") == compiled(policy, "nft")
    model = metamodel().model_from_file(str(policy))
    assert (model.statements, get_location(model)["nchar"]) == ([], len(text))


def test_a_folder_that_cannot_be_made_is_told(installed: Installed) -> None:
    generate = ("generate", "good.policy", "--target", "nft", "-o", "bad.policy/out")
    status, said = installed.textx(*generate)
    assert status == 1
    assert f"cannot write `{installed.work}/bad.policy/out`: Not a directory" in said


def test_textx_generates_nothing_from_a_policy_with_an_error(installed: Installed) -> None:
    status, said = installed.textx("generate", "bad.policy", "--target", "nft")
    assert status == 1 and "error[unknown-service]" in said
    assert not (installed.work / "bad.nft").exists()


def test_parameters_reach_the_generator(installed: Installed) -> None:
    given = ("--parameters", "wan = ens3")
    assert installed.textx("generate", "good.policy", "--target", "nft", *given)[0] == 0
    expected = compiled(installed.work / "good.policy", "nft", "-D", "wan=ens3")
    assert texts(installed.work / "good.nft") == expected
    assert '"ens3"' in expected[""]
    status, said = installed.textx("generate", "good.policy", "--target", "nft", "--wan", "ens3")
    assert status == 1 and "'wan' is not defined" in said


def test_what_a_target_cannot_say_generates_nothing_for_it(installed: Installed) -> None:
    both = "zone lan { interface eth0 }\nzone wan { interface eth1 }\n"
    text = f"{both}offload from lan to wan\nallow all from lan to wan\n"
    (installed.work / "fast.policy").write_text(text)
    status, said = installed.textx("generate", "fast.policy", "--target", "iptables")
    assert status == 1 and "error[unsupported]" in said
    assert not (installed.work / "fast.iptables").exists()
    assert installed.textx("generate", "fast.policy", "--target", "nft")[0] == 0


def test_generators_for_any_language_take_a_policy(installed: Installed) -> None:
    status, said = installed.textx("generate", "good.policy", "--target", "dot")
    assert status == 0, said
    assert "ZoneDecl" in (installed.work / "good.dot").read_text()


def test_pygmentize_knows_policies_by_name_and_by_file(installed: Installed) -> None:
    def coloured(*how: str) -> str:
        done = installed.run("pygmentize", *how, "-f", "tokens", "good.policy")
        assert done.returncode == 0, done.stderr
        return done.stdout

    by_name = coloured("-l", "policylang")
    assert "Token.Keyword.Reserved\t'allow'" in by_name and "Error" not in by_name
    assert coloured() == by_name


FLEET = """\
host web1 { address 192.0.2.10 }
host db1 { address 192.0.2.20 }
allow postgresql from web1 to db1
on web1 { allow https inbound }
"""


def test_every_host_of_a_policy_is_checked_and_generated(installed: Installed) -> None:
    fleet = installed.work / "fleet.policy"
    fleet.write_text(FLEET)
    for target in TARGETS:
        assert installed.textx("generate", "fleet.policy", "--target", target)[0] == 0
        one = ("--target", target, "--host", "web1")
        assert installed.textx("generate", "fleet.policy", *one)[0] == 0
        expected = compiled(fleet, target, "--host", "web1")
        assert texts(installed.work / f"fleet.web1.{target}") == expected
    made = installed.work / "fleet.nft"
    assert sorted(path.name for path in made.iterdir()) == ["db1.nft", "web1.nft"]
    assert (made / "web1.nft").read_text() == (installed.work / "fleet.web1.nft").read_text()
    assert texts(installed.work / "fleet.iptables/web1") == expected


def test_what_is_wrong_on_one_host_is_told(installed: Installed) -> None:
    (installed.work / "fleet.policy").write_text(f"{FLEET}on db1 {{ allow ftpp inbound }}\n")
    status, said = installed.textx("check", "fleet.policy")
    assert status == 1 and "fleet.policy:5:16: error[unknown-service]" in said
