#!/usr/bin/python
# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: on_target
short_description: Do one job of policylang on a target
version_added: "0.1.0"
description:
  - What the actions of this collection run on a target. It is no task for a playbook.
  - It hands a job to the part of policylang that travelled to the target, and returns its answer.
  - It needs Python 3.11 or later with its standard library, and C(nft) or the programs of iptables.
options:
  digest:
    description: What tells the modules that are to do the job from those of any other version.
    type: str
    required: true
  job:
    description: The job.
    type: str
    required: true
  archive:
    description: Where the modules are, if they have just travelled to the target.
    type: path
  keep:
    description: Whether they are kept for the next job, in O(folder).
    type: bool
    default: false
  folder:
    description: Where they are kept.
    type: path
    default: /usr/local/lib/policylang
attributes:
  check_mode:
    support: full
    description: What a job may change is written in it.
  diff_mode:
    support: none
    description: The actions of the collection see to that.
author:
  - The authors of policylang (!UNKNOWN)
"""

EXAMPLES = r"""
- name: Put a policy in force; this is what a playbook uses
  policylang.firewall.apply:
    policy: site.policy
"""

RETURN = r"""
answer:
  description: What became of the job.
  returned: when the modules are there
  type: str
missing:
  description: Whether the modules have to travel first.
  returned: always
  type: bool
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

OLDEST = (3, 11)
FIRST = "__main__.py"  # what Python runs of a folder
DIGITS = 64  # of SHA-256, in hexadecimal
MOST_KEPT = 3  # versions of the modules: plays of several controllers may go on at once
NEW = ".new-"  # how places begin at which modules are unpacked
DAY_S = 86400  # what was begun so long ago was broken off


def main():
    """Run a job by modules that are kept, or that have just come."""
    module = AnsibleModule(
        argument_spec={
            "digest": {"type": "str", "required": True},
            "job": {"type": "str", "required": True},
            "archive": {"type": "path"},
            "keep": {"type": "bool", "default": False},
            "folder": {"type": "path", "default": "/usr/local/lib/policylang"},
        },
        supports_check_mode=True,
        no_log=True,  # a whole policy would stand in the system's log
    )
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:3]))
        wanted = ".".join(map(str, OLDEST))
        module.fail_json(
            msg=f"a target needs Python {wanted} or later, and {sys.executable} is {found}"
            "; ansible_python_interpreter can name another"
        )
    folder = Path(module.params["folder"]) / module.params["digest"]
    archive = module.params["archive"]
    if not (folder / FIRST).is_file():
        if archive is None:
            module.exit_json(changed=False, missing=True)
        try:
            if module.params["keep"]:
                _keep(archive, folder)
            else:
                folder = Path(tempfile.mkdtemp(prefix="policylang-", dir=module.tmpdir))
                _unpack(archive, folder)
        except OSError as error:
            module.fail_json(
                msg=f"cannot write `{error.filename2 or error.filename or folder}`: {error.strerror or error}"
                "; become root, or name another folder by the variable policylang_folder"
            )
    module.exit_json(changed=False, missing=False, answer=_answer(module, folder))


def _answer(module, folder):
    done = subprocess.run(
        [sys.executable, "-I", str(folder)],
        input=module.params["job"].encode(),
        capture_output=True,
        check=False,
        cwd="/",
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        last = said.splitlines()[-1:] or ["it said nothing"]
        module.fail_json(
            msg=f"policylang ended with status {done.returncode} on the target: {last[0]}",
            stderr=said,
        )
    return done.stdout.decode()


def _keep(archive, folder):
    """Unpack beside the place and move there: whoever looks finds all of it or nothing."""
    parent = folder.parent
    parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=NEW, dir=str(parent)))
    try:
        _unpack(archive, made)
        made.chmod(0o755)
        for path in (*made.rglob("*"), made):
            _sync(path)  # or a machine that loses its power has empty files by the right names
        if (folder / FIRST).is_file():
            return  # another play brought it meanwhile, and may be at work with it
        if folder.is_dir():
            shutil.rmtree(str(folder))  # whatever it is, it is not all of it
        made.rename(folder)
        _sync(parent)
    finally:
        shutil.rmtree(str(made), ignore_errors=True)
    _forget(parent)


def _unpack(archive, folder):
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(str(folder))


def _sync(path):
    descriptor = os.open(str(path), os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(parent):
    """Remove all but the newest versions, and what was broken off."""
    times = {}
    for place in parent.iterdir():
        try:
            times[place] = place.stat().st_mtime
        except FileNotFoundError:  # another play forgets as well
            continue
    kept = [place for place in times if len(place.name) == DIGITS]
    kept.sort(key=lambda place: times[place], reverse=True)
    begun = [place for place in times if place.name.startswith(NEW)]
    old = [place for place in begun if times[place] < time.time() - DAY_S] + kept[MOST_KEPT:]
    for place in old:
        shutil.rmtree(str(place), ignore_errors=True)


if __name__ == "__main__":
    main()
