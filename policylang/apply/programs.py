"""Runs the programs that talk to the kernel; knows nothing of what they are told."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from policylang.apply import kernel
from policylang.diagnostics import Report

# The kernel takes 100,000 addresses in under a second, but a long list of commands minutes.
PATIENCE_S = 600

# Where an administrator's programs are, also for whom the PATH of a plain user is set.
PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")

PACKAGES = {
    "nft": "nftables",
    "ipset": "ipset",
    "ip": "iproute2",
    "modprobe": "kmod",
}  # Debian's names; the others are iptables


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program that ran to its end left."""

    program: str
    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.status == 0

    @property
    def words(self) -> str:
        """What it said about its failure, without the advice to read its manual."""
        lines = (line.strip() for line in (self.stderr or self.stdout).splitlines())
        said = [line for line in lines if line and not line.startswith(("Try `", "# Warning"))]
        if said:
            return "\n".join(said)
        if self.status < 0:
            return f"{self.program} was ended by signal {-self.status}"
        return f"{self.program} ended with status {self.status} and said nothing"


def find(program: str) -> str | None:
    """The path of a program, or None where it is not installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *PLACES))
    found = shutil.which(program, path=path)
    return None if found is None else os.path.abspath(found)  # noqa: PTH100  keeps links: their name counts


def run(
    argv: Sequence[str],
    report: Report,
    *,
    stdin: str = "",
    descriptors: Sequence[int] = (),
    time_zone: str | None = None,
) -> Finished | None:
    """Run a program to its end, its messages in English; a failure's meaning is the caller's.

    With `time_zone` it takes that for the machine's.

    None, and `program-missing`, where it is not installed. A program that takes longer than
    `PATIENCE_S` is killed and reported as `loading-failed`.
    """
    path = find(argv[0])
    if path is None:
        report_missing(argv[0], report)
        return None
    name = Path(argv[0]).name
    try:
        done = subprocess.run(
            [path, *argv[1:]],
            input=stdin.encode(),
            capture_output=True,
            check=False,
            cwd="/",
            env={**os.environ, "LC_ALL": "C"} | ({"TZ": time_zone} if time_zone else {}),
            pass_fds=(*descriptors, *kernel.locks()),
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        message = f"`{name}` was ended after {PATIENCE_S} seconds"
        report.add("loading-failed", message, None)
        return None
    except OSError as error:  # not executable, or no memory for it
        report.add("loading-failed", f"cannot run `{name}`: {error.strerror}", None)
        return None
    return Finished(
        name,
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def report_missing(program: str, report: Report) -> None:
    """Say that a program is not there, and which package of Debian brings it."""
    package = PACKAGES.get(program, "iptables")
    report.add(
        "program-missing",
        f"the program `{program}` is not installed",
        None,
        help=f"install the package `{package}`: apt install {package}",
    )
