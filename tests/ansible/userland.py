"""A Debian 13 userland as a folder, made once on a machine and never written to again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SUITE = "trixie"
# What a small server has: sshd, systemd, Python's whole standard library, what loads rules, and
# what Ansible asks for packages with.
PACKAGES = (
    *("openssh-server", "python3", "nftables", "iptables", "ipset", "iproute2", "kmod"),
    *("systemd", "systemd-sysv", "sudo", "python3-apt"),
)
OPTIONS = (
    "--aptopt=APT::Install-Recommends false",
    "--dpkgopt=force-unsafe-io",
    *(
        f"--dpkgopt=path-exclude=/usr/share/{folder}/*"
        for folder in ("man", "doc", "locale", "info")
    ),
)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
USUAL_MIRROR = "http://deb.debian.org/debian"
PROGRAMS = ("mmdebstrap", "ssh", "ssh-keygen", "unshare", "nsenter")


def userland() -> Path:
    """The folder, in the user's cache; it is made in half a minute. AssertionError if it fails."""
    wanted = " ".join((SUITE, *PACKAGES, *OPTIONS))
    name = f"debian-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policylang-tests"
    cache.mkdir(parents=True, exist_ok=True)
    place = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            made = cache / f"{name}.partial"
            shutil.rmtree(made, ignore_errors=True)
            _make(made)
            made.rename(place)
    return place


def _make(folder: Path) -> None:
    argv = [
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
        *(*OPTIONS, f"--keyring={KEYRING}", SUITE, str(folder), _mirror()),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _mirror() -> str:
    """Where this machine itself gets Debian from."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    told = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    return next((one for one in told if one.rstrip("/").endswith("/debian")), USUAL_MIRROR)
