"""Scripts for nft in words: nft itself reads them, in a network namespace, as root or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from policylang.cli import main
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy
from tests.warm import warm

ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
OLD = """\
zone wan { interface eth0 }
set admins = 192.0.2.0/28, 2001:db8::/64
allow https inbound from wan
allow ssh inbound from admins
"""

# Told once as root, so that all is imported, and then by nobody, whose file of Python may be none.
AS_NOBODY = """\
import ctypes, os, sys
from policylang.cli import main
main(["textconv", sys.argv[1]])
print("---", flush=True)
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: as of a process that was never root
main(["textconv", sys.argv[1]])
"""


def script(policy: str) -> str:
    artifact = compile_policy(Text(policy, "web.policy", Path()), "nft", Report())
    assert artifact is not None
    return artifact.files[0].text


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=ENV).stdout


@pytest.mark.usefixtures("kernel")
def test_git_shows_what_a_script_does_otherwise(tmp_path: Path) -> None:
    """Sets are told by what is in them, statements without their lines."""
    place = tmp_path / "place"
    place.mkdir()
    path = place / "nft.nft"
    git(place, "init", "-q")
    (place / ".gitattributes").write_text("*.nft diff=policylang\n")
    path.write_text(script(OLD))
    git(place, "add", "-A")
    git(place, "commit", "-qm", "one")
    path.write_text(script("\n" + OLD.replace("/28", "/24").replace("https", "http")))
    with warm(tmp_path) as program:
        git(place, "config", "diff.policylang.textconv", f"{program} textconv")
        shown = git(place, "diff")
    changed = [
        line
        for line in shown.splitlines()
        if line[:1] in "+-" and not line.startswith(("+++", "---"))
    ]
    assert sorted(changed[:-2]) == [
        "+    by web.policy: allow http inbound from wan",
        "+  tcp 22 from 192.0.2.0/24, 2001:db8::/64",
        "+  tcp 80 from any by eth0",
        "-    by web.policy: allow https inbound from wan",
        "-  tcp 22 from 192.0.2.0/28, 2001:db8::/64",
        "-  tcp 443 from any by eth0",
    ]
    assert [line[:11] for line in changed[-2:]] == ["-# As text:", "+# As text:"]


@pytest.mark.usefixtures("kernel")
def test_who_is_not_root_is_told_the_same() -> None:
    with TemporaryDirectory() as folder:  # pytest's own are for nobody else
        path = Path(folder, "nft.nft")
        path.write_text(script(OLD))
        path.parent.chmod(0o755)
        command = [sys.executable, "-c", AS_NOBODY, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENV)
    by_root, by_nobody = done.stdout.split("---\n")
    assert by_root.startswith("# What these rules do with IPv4 and IPv6; ")
    assert by_nobody == by_root


@pytest.mark.usefixtures("kernel")
def test_a_script_that_nft_refuses_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nft.nft"
    path.write_text("table inet x {\n\tchain y {\n\t\tnonsense\n\t}\n}\n")
    assert main(["textconv", str(path)]) == 0
    first, _, rest = capsys.readouterr().out.partition("\n")
    assert first == "# what this means is not told: nft does not take the script"
    assert rest == path.read_text()
