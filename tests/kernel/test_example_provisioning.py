"""The examples of provisioning, by the programs themselves, on a machine that is a namespace.

What they write to /etc goes to a copy of it, which nobody else sees. Salt takes minutes to install,
Puppet is large, and cloud-init would take over the machine at its next boot: of these, the command
lines run as they stand in the examples. Where `puppet` or `salt-call` is there, it runs instead.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.kernel.ground import REPOSITORY, Ground, Namespace
from tests.kernel.secure_shell import secure_shell
from tests.warm import warm

pytestmark = pytest.mark.usefixtures("kernel")

EXAMPLES = REPOSITORY / "examples/provisioning"
POLICY = "/etc/policylang/web.policy"
BAD = "allow nonsense inbound\n"
PUPPET, SALT = shutil.which("puppet"), shutil.which("salt-call")

# Facts that Puppet would ask clouds and disks for, which takes seconds and changes nothing.
FACTS = 'facts : { blocklist : ["EC2", "GCE", "Azure", "networking", "disks", "dmi"] }\n'


@dataclass(frozen=True, slots=True)
class Machine:
    """A namespace with an /etc and an /usr/local/sbin of its own; `folder` is for its files."""

    inside: Namespace
    folder: Path

    @property
    def entered(self) -> tuple[str, ...]:
        """What a command line is handed to, to run on the machine."""
        mounts = f"""
            mount --bind {self.folder}/etc /etc &&
            mount --bind {self.folder}/sbin /usr/local/sbin && exec "$@"
        """
        return ("unshare", "--mount", "sh", "-c", mounts, "sh")

    def run(
        self, *argv: str, status: int | None = 0, within: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What came of a program that ended with that status."""
        there = ("env", f"--chdir={within or self.folder}")
        done = self.inside.run(
            [*self.entered, *there, *argv],
            120,
            check=False,
            env={**os.environ, "HOME": "/root"},
        )
        said = done.stdout + done.stderr
        assert status is None or done.returncode == status, f"{done.returncode}: {said}"
        return done

    def shell(self, line: str, status: int | None = 0) -> str:
        return self.run("sh", "-c", line, status=status).stdout

    @property
    def policy(self) -> Path:
        """The policy on the machine, as it is seen from here."""
        return self.folder / POLICY.removeprefix("/")

    @property
    def rules(self) -> str:
        return self.inside.run(["nft", "list", "ruleset"]).stdout

    def demand_all_in_force(self) -> None:
        """The policy of the examples is in force for good, and its rules do not wait."""
        told = json.loads(self.shell("policylang status --json"))
        assert told["pending"] is None and told["confirmed"] is not None
        assert not told["drifted"] and told["current"]["policy"] == POLICY
        assert 'iifname "eth0" tcp dport { 80, 443 } accept' in self.rules
        self.shell(f"policylang apply {POLICY} --check")


def furnished(inside: Namespace, folder: Path, policylang: Path) -> Machine:
    """A machine with policylang in a folder of its path."""
    subprocess.run(["cp", "-a", "/etc", str(folder)], check=True)
    shutil.rmtree(folder / "etc/policylang", ignore_errors=True)
    (folder / "sbin").mkdir()
    program = folder / "sbin/policylang"
    program.write_text(f'#!/bin/sh\nPOLICYLANG_STATE={folder}/state exec {policylang} "$@"\n')
    program.chmod(0o755)
    return Machine(inside, folder)


@pytest.fixture(scope="module")
def policylang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with warm(tmp_path_factory.mktemp("warm")) as program:
        yield program


@pytest.fixture
def machine(policylang: Path, tmp_path: Path) -> Iterator[Machine]:
    inside = Namespace.create("prov")
    yield furnished(inside, tmp_path, policylang)
    inside.delete()


def with_a_mistake(example: str, policy: str, folder: Path) -> Path:
    """A copy of an example whose policy has an error."""
    copy = folder / "bad"
    shutil.copytree(EXAMPLES / example, copy)
    with (copy / policy).open("a", encoding="utf-8") as file:
        file.write(BAD)
    return copy


# --- pyinfra ---------------------------------------------------------------------------------

NAMES = (
    "Put the policy in its place",
    "Put the policy in force",
    "Make a new connection",
    "Keep the change",
)


def test_pyinfra(machine: Machine) -> None:
    """A dry run tells and changes nothing, the first run loads and confirms, the second nothing."""

    def run(*options: str, folder: Path = EXAMPLES / "pyinfra", status: int = 0) -> str:
        pyinfra = str(Path(sys.executable).with_name("pyinfra"))
        done = machine.run(pyinfra, "@local", "deploy.py", *options, within=folder, status=status)
        return done.stdout + done.stderr

    def counted(said: str) -> dict[str, str]:
        """What the table at the end has of each operation."""
        return {
            name: " ".join(line.removeprefix(f"    {name}").split())
            for name in NAMES
            for line in said.splitlines()
            if line.startswith(f"    {name} ")
        }

    told = counted(run("--dry"))
    assert [told[name] for name in NAMES[:2]] == ["1 (@local) -"] * 2
    assert machine.rules == "" and not machine.policy.exists()

    assert counted(run("-y")) == dict.fromkeys(NAMES, "1 1 - -")
    machine.demand_all_in_force()

    assert counted(run("-y")) == dict.fromkeys(NAMES, "1 - - 1")

    before = machine.rules
    bad = with_a_mistake("pyinfra", "web.policy", machine.folder)
    said = run("-y", folder=bad, status=1)
    assert "web.policy:8:7: no service named `nonsense`" in said and "Traceback" not in said
    assert machine.rules == before and BAD not in machine.policy.read_text()


OPEN, SHUT = "allow ssh, http inbound\n", "allow http inbound\nreject ssh inbound\n"


def test_pyinfra_is_not_shut_out(
    ssh_programs: None, pair: Ground, policylang: Path, tmp_path: Path
) -> None:
    """Over SSH: what is open to a new connection is kept, what is not is taken back."""
    far = furnished(pair.firewall, tmp_path, policylang)
    copy = tmp_path / "pyinfra"
    shutil.copytree(EXAMPLES / "pyinfra", copy)

    with secure_shell(pair, tmp_path, far.entered) as shell:
        access = {"ssh_user": "root", "ssh_key": f"{tmp_path}/client"}
        access |= {"ssh_known_hosts_file": f"{tmp_path}/known", "ssh_file_transfer_protocol": "scp"}
        (copy / "inventory.py").write_text(f"hosts = [({shell.address!r}, {access!r})]\n")

        def run(policy: str, status: int) -> str:
            (copy / "web.policy").write_text(policy)
            pyinfra = str(Path(sys.executable).with_name("pyinfra"))
            argv = ["env", f"--chdir={copy}", pyinfra, "inventory.py", "deploy.py", "-y"]
            done = shell.clients.run(argv, 120, check=False)
            said = done.stdout + done.stderr
            assert done.returncode == status, said
            return said

        assert "Grand total" in run(OPEN, 0)
        told = json.loads(far.shell("policylang status --json"))
        assert (told["current"]["generation"], told["pending"]) == (1, None)

        said = run(SHUT, 1)
        assert "Starting operation: Make a new connection" in said and "Traceback" not in said
        assert "Starting operation: Keep the change" not in said
        told = json.loads(far.shell("policylang status --json"))
        assert (told["current"]["generation"], told["pending"]["generation"]) == (1, 2)


# --- Puppet ----------------------------------------------------------------------------------


if PUPPET is None:

    def test_command_lines_of_puppet(machine: Machine) -> None:
        """What the class runs, in the order in which Puppet runs it."""
        text = (EXAMPLES / "puppet/modules/firewall/manifests/init.pp").read_text(encoding="utf-8")
        said = dict(re.findall(r"(validate_cmd|command|unless) *=> '(.*)'", text))
        source = EXAMPLES / "puppet/modules/firewall/files/web.policy"
        bad = with_a_mistake("puppet/modules", "firewall/files/web.policy", machine.folder)
        machine.shell(said["validate_cmd"].replace("%", str(source)))
        wrong = bad / "firewall/files/web.policy"
        machine.shell(said["validate_cmd"].replace("%", str(wrong)), status=1)
        _loads_once(machine, source, said["command"], said["unless"])

else:

    def test_puppet(machine: Machine) -> None:
        """A run with `--noop` changes nothing, the first loads, the second changes nothing."""
        for folder in ("etc/facter", "etc/puppetlabs/facter"):  # Debian's place, and Puppet's own
            place = machine.folder / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / "facter.conf").write_text(FACTS)

        def run(*options: str, modules: Path = EXAMPLES / "puppet/modules", status: int) -> str:
            folders = ("--confdir", str(machine.folder / "conf"), "--vardir", str(machine.folder))
            options = (*options, "--modulepath", str(modules), "--detailed-exitcodes")
            command = ("apply", *folders, *options, "--color=false", "-e", "include firewall")
            return machine.run(str(PUPPET), *command, status=status).stdout

        said = run("--noop", status=0)
        assert "Exec[firewall]/returns: current_value 'notrun', should be ['0'] (noop)" in said
        assert machine.rules == "" and not machine.policy.exists()

        assert "Exec[firewall]/returns: executed successfully" in run(status=2)
        machine.demand_all_in_force()
        assert "Exec[firewall]" not in run(status=0)

        before = machine.rules
        bad = with_a_mistake("puppet/modules", "firewall/files/web.policy", machine.folder)
        run(modules=bad, status=4)
        assert machine.rules == before and BAD not in machine.policy.read_text()


# --- Salt ------------------------------------------------------------------------------------


def _loads_once(machine: Machine, source: Path, command: str, unless: str) -> None:
    """What a tool does with a policy, what it runs, and what tells it that it need not."""
    machine.shell(unless, status=1)  # as a trial asks: it is not there yet
    machine.policy.parent.mkdir()
    shutil.copy(source, machine.policy)
    machine.shell(unless, status=2)
    machine.shell(command)
    machine.demand_all_in_force()
    machine.shell(unless)

    machine.inside.run(["nft", "insert rule inet policylang input tcp dport 23 accept"])
    machine.shell(unless, status=2)  # somebody else's change is put right
    machine.shell(command)
    assert "dport 23" not in machine.rules


def _merged(options: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for option in options for name, value in option.items()}


if SALT is None:

    def test_command_lines_of_salt(machine: Machine) -> None:
        """What the state runs, in the order in which Salt runs it (salt.states.file, .cmd)."""
        states = yaml.safe_load((EXAMPLES / "salt/firewall/init.sls").read_text(encoding="utf-8"))
        managed = _merged(states[POLICY]["file.managed"])
        source = managed["source"].replace("salt://", f"{EXAMPLES}/salt/")
        command = _merged(states["firewall"]["cmd.run"])
        assert command["require"] == [{"file": POLICY}]

        machine.shell(f"{managed['check_cmd']} {source}")
        bad = with_a_mistake("salt", "firewall/web.policy", machine.folder)
        machine.shell(f"{managed['check_cmd']} {bad}/firewall/web.policy", status=1)

        _loads_once(machine, Path(source), command["name"], command["unless"])

else:

    def test_salt(machine: Machine) -> None:
        """A run with `test=True` changes nothing, the first loads, the second changes nothing."""

        def run(*options: str, root: Path = EXAMPLES / "salt", status: int = 0) -> dict[str, Any]:
            folder = machine.folder / "salt"
            (folder / "conf").mkdir(parents=True, exist_ok=True)
            done = machine.run(
                *(str(SALT), "--local", "--retcode-passthrough", "--id", "one", "--out", "json"),
                *("--config-dir", str(folder / "conf"), "--cachedir", str(folder / "cache")),
                *("--file-root", str(root), "--log-file", str(folder / "log")),
                *("state.apply", "firewall", *options),
                status=status,
            )
            states = json.loads(done.stdout)["local"].values()
            return {state["__id__"]: state["result"] for state in states}

        assert run("test=True") == {POLICY: None, "firewall": None}
        assert machine.rules == "" and not machine.policy.exists()
        assert run() == {POLICY: True, "firewall": True}
        machine.demand_all_in_force()
        assert run("test=True") == {POLICY: True, "firewall": True}  # nothing would change
        bad = with_a_mistake("salt", "firewall/web.policy", machine.folder)
        assert run(root=bad, status=2) == {POLICY: False, "firewall": False}
        assert BAD not in machine.policy.read_text()


# --- cloud-init ------------------------------------------------------------------------------


def test_command_lines_of_cloud_init(machine: Machine) -> None:
    """What is written and run at the first boot; and once more, which changes nothing."""
    text = (EXAMPLES / "cloud-init/user-data.yaml").read_text(encoding="utf-8")
    assert text.startswith("#cloud-config\n")
    data = yaml.safe_load(text)
    (written,) = data["write_files"]
    assert written["path"] == POLICY and int(written["permissions"], 8) == 0o644
    machine.policy.parent.mkdir()
    machine.policy.write_text(written["content"])

    commands = [list(map(str, line)) for line in data["runcmd"]]
    ours = [command for command in commands if command[0] == "policylang"]
    assert [command[1] for command in ours] == ["apply", "install-service"]
    assert commands[-len(ours) :] == ours and commands[len(commands) - len(ours) - 1][-1] == (
        "/usr/local/sbin/policylang"
    )
    for _ in range(2):
        for command in ours:
            # The machine's own systemd is no part of this one.
            root = ("--root", str(machine.folder)) if command[1] == "install-service" else ()
            said = machine.shell(shlex.join((*command, *root)))
    machine.demand_all_in_force()
    assert "nothing to change" in machine.shell(shlex.join(ours[0]))
    assert list((machine.folder / "etc/systemd/system").glob("policylang*.service")), said


# --- the pages -------------------------------------------------------------------------------


def test_the_examples_have_one_policy() -> None:
    data = yaml.safe_load((EXAMPLES / "cloud-init/user-data.yaml").read_text(encoding="utf-8"))
    texts = {path.read_text(encoding="utf-8") for path in EXAMPLES.rglob("web.policy")}
    assert texts == {data["write_files"][0]["content"]}


def test_the_pages_name_what_there_is() -> None:
    """Every link leads to a file, and every file is linked."""
    pages = sorted(EXAMPLES.rglob("README.md"))
    linked = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    }
    there = {
        path for path in EXAMPLES.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    }
    assert linked | {pages[0], *EXAMPLES.rglob("web.policy")} == there


def test_the_object_that_is_shown_keeps_to_the_schema() -> None:
    schema = json.loads((EXAMPLES / "outcome.schema.json").read_text(encoding="utf-8"))
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert list(Draft202012Validator(schema).iter_errors(json.loads(shown))) == []
    explained = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert explained == list(json.loads(shown)) == schema["required"]
