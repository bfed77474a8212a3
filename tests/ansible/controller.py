"""A controller: Ansible with the collection as it is built, in a namespace and its own folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kernel.ground import REPOSITORY, Namespace

PROGRAMS = Path(sys.executable).parent
CALLBACKS = Path(__file__).parent / "callbacks"
TARGETS_PYTHON = "/usr/bin/python3"


def is_there() -> bool:
    """Whether Ansible is installed beside this Python."""
    return (PROGRAMS / "ansible-playbook").exists()


def environment(folder: Path, collections: Path) -> dict[str, str]:
    """What keeps Ansible to a folder: what it says has no colour and is in English."""
    return {
        "PATH": f"{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(REPOSITORY),
        # One for all tests: Ansible, all of its plugins and ours are compiled for each otherwise.
        "PYTHONPYCACHEPREFIX": os.environ.get("PYTHONPYCACHEPREFIX", str(collections / "pycache")),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "ANSIBLE_GALAXY_DISPLAY_PROGRESS": "0",
    }


def install(folder: Path) -> Path:
    """Build the collection, and install what was built below a folder, which is returned."""
    env = environment(folder, folder)
    galaxy = [str(PROGRAMS / "ansible-galaxy"), "collection"]
    for argv in (
        [*galaxy, "build", str(REPOSITORY / "ansible"), "--output-path", str(folder)],
        [*galaxy, "install", "--offline", "-p", str(folder), "policylang-firewall-0.1.0.tar.gz"],
    ):
        done = subprocess.run(
            argv, env=env, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a task on a host; `status` is ok, failed or unreachable."""

    host: str
    task: str
    status: str
    result: Mapping[str, Any]

    @property
    def changed(self) -> bool:
        return bool(self.result.get("changed"))


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a playbook: its tasks in order, all that was printed, and the exit status."""

    tasks: tuple[Told, ...]
    text: str
    status: int

    def of(self, host: str) -> tuple[Told, ...]:
        """What came of it on a host."""
        return tuple(one for one in self.tasks if one.host == host)

    @property
    def last(self) -> Told:
        assert self.tasks, self.text
        return self.tasks[-1]


@dataclass(frozen=True, slots=True)
class Controller:
    """Where playbooks are played; `variables` are those of every play."""

    namespace: Namespace
    folder: Path
    collections: Path
    inventory: str
    options: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def kept(self) -> Path:
        """Where a target that is here keeps what travelled to it: once for all tests."""
        return self.collections / "kept"

    def play(self, tasks: str, *options: str, timeout_s: float = 120, **variables: Any) -> Played:
        """Play tasks (YAML) on all hosts of the inventory."""
        (self.folder / "inventory.ini").write_text(self.inventory)
        indented = "".join(f"    {line}\n" for line in tasks.strip("\n").splitlines())
        book = f"- hosts: all\n  gather_facts: false\n  tasks:\n{indented}"
        (self.folder / "play.yml").write_text(book)
        told = self.folder / "told.jsonl"
        told.unlink(missing_ok=True)
        extra = {
            "ansible_python_interpreter": TARGETS_PYTHON,
            "policylang_folder": str(self.kept),
            **self.variables,
            **variables,
        }
        env = {
            **environment(self.folder, self.collections),
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "told",
            "TOLD": str(told),
            **self.settings,
        }
        argv = [
            *(str(PROGRAMS / "ansible-playbook"), "-i", "inventory.ini", "play.yml"),
            *("-e", json.dumps(extra), *self.options, *options),
        ]
        done = self.namespace.run(
            ["env", "-C", str(self.folder), *argv], timeout_s, env=env, check=False
        )
        lines = told.read_text().splitlines() if told.exists() else []
        found = tuple(Told(**json.loads(line)) for line in lines)
        return Played(found, done.stdout + done.stderr, done.returncode)
