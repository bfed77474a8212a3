"""A machine that boots: a root folder of its own in which the lines of systemd units are run.

Nothing of Python is in it, of programs what a small system has, and of rights what the unit
leaves. It knows no rules; whose namespace it is, the test says. Where systemd is wanted as well,
it is process 1 of a pid namespace, with a /dev, a cgroup and a host name of its own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from policylang.apply.boot_units import install
from policylang.apply.record import Record
from policylang.diagnostics import Report

from .ground import Namespace

# What a minimal Debian has, and what loads rules.
BASE = ("sh", "cat", "sed", "grep", "tail", "sha256sum")
LOADERS = (
    *("nft", "ipset", "ip"),
    *(
        f"{family}-{flavour}-{what}"
        for family in ("iptables", "ip6tables")
        for flavour in ("nft", "legacy")
        for what in ("save", "restore")
    ),
)
PROGRAMS = (*BASE, *LOADERS)
PLACE = "boot/programs"  # below the root: the only folder on the PATH

SHARED = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "dev", "sys")
ETC = ("ld.so.cache", "protocols", "services", "iproute2")

# In a mount namespace: the machine's programs below the root, Python away, all but /run read-only
# (ProtectSystem=strict). $1: the root, $2: whether /proc is there; the rest is what to run.
ENTER = """
set -e
root=$1 proc=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
for folder in usr bin sbin lib lib32 lib64 dev sys; do
    if [ -d "/$folder" ] && [ ! -h "/$folder" ]; then mount --rbind "/$folder" "$root/$folder"; fi
done
[ "$proc" = no ] || mount --rbind /proc "$root/proc"
for python in "$root"/usr/bin/python*; do
    if [ -f "$python" ] && [ ! -h "$python" ]; then mount --bind /dev/null "$python"; fi
done
mount -t tmpfs none "$root/run"
mount -o remount,bind,ro "$root"
[ -z "$cgroup" ] || eval "$systemd"
exec chroot "$root" "$@"
"""

# And what systemd wants of a container: systemd.io/CONTAINER_INTERFACE. It sets no sysctl of the
# machine's, and finds no device of it.
SYSTEMD = """
mount -t tmpfs none "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
: >"$root/dev/console"
mount --bind /dev/null "$root/dev/console"
mount -t tmpfs none "$root/tmp"
umount -l "$root/proc"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t tmpfs none "$root/sys/fs/cgroup"
if [ "$cgroup" = cgroup2 ]; then
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
else
    mkdir "$root/sys/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
fi
mount --bind "$root/../seen" "$root/srv"
"""
MANAGER = "/usr/lib/systemd/systemd"
BOOT_S = 20

# What is ordered behind the rules, as networks are: it writes down what it finds.
NETWORK = """
[Unit]
DefaultDependencies=no
Wants=network-pre.target
After=network-pre.target

[Service]
Type=oneshot
StandardOutput=append:/srv/rules
ExecStart=-/usr/sbin/nft list ruleset
ExecStart=-/usr/sbin/iptables-legacy-save
ExecStart=-/usr/sbin/ip6tables-legacy-save
ExecStart=/usr/bin/systemctl show policylang.service --property=Result
ExecStart=/usr/bin/touch /srv/done
"""
TARGET = "[Unit]\nDefaultDependencies=no\nWants=policylang.service network.service\n"
# It has no journal; and its rights are read.
DROP_IN = """
[Service]
StandardError=append:/srv/journal
ExecStartPre=/bin/sh -c 'cat /proc/self/status >&2'
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a unit's line; `journal` is all that it said."""

    status: int
    journal: str


@dataclass(frozen=True, slots=True)
class Booted:
    """What stood in the kernel when the network was to come, and what the service said."""

    rules: str
    journal: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A root folder with the service installed, and the namespace that it is started in."""

    root: Path
    namespace: Namespace

    @classmethod
    def made(cls, root: Path, namespace: Namespace, *, is_installed: bool = True) -> Machine:
        for name in (*SHARED, "proc", "run", "etc", "tmp", "srv", PLACE):
            outside = Path("/", name)
            if outside.is_symlink():
                (root / name).symlink_to(outside.readlink())
            else:
                (root / name).mkdir(parents=True)
        for name in ETC:
            if Path("/etc", name).is_dir():
                shutil.copytree(Path("/etc", name), root / "etc" / name)
            elif Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), root / "etc" / name)
        machine = cls(root, namespace)
        for program in PROGRAMS:
            machine.give(program)
        if is_installed:
            assert install(root, Report(), program=["/usr/bin/true"]) is not None
        return machine

    @property
    def record(self) -> Record:
        return Record(self.root / "var/lib/policylang")

    def give(self, program: str) -> None:
        """Put a program on the PATH."""
        found = shutil.which(program)
        assert found is not None, program
        (self.root / PLACE / program).symlink_to(found)

    def take(self, *programs: str, script: str = "exit 127") -> None:
        """Let programs fail, or do something else."""
        for program in programs:
            path = self.root / PLACE / program
            path.unlink()
            path.write_text(f"#!/bin/sh\n{script}\n")
            path.chmod(0o755)

    def unit(self, name: str = "policylang.service") -> str:
        return (self.root / "etc/systemd/system" / name).read_text()

    def line(self, setting: str) -> str:
        """What a setting of the service is."""
        (found,) = re.findall(rf"^{setting}=(.*)$", self.unit(), re.MULTILINE)
        return str(found)

    def carry_out(self, setting: str, *, result: str = "success", has_proc: bool = True) -> Ended:
        """Run a command line of the service as its unit says: with its rights alone."""
        rights = ",".join(
            "+" + name.removeprefix("CAP_").lower()
            for name in self.line("CapabilityBoundingSet").split()
        )
        limits = [f"--bounding-set=-all,{rights}", "--inh-caps=-all", "--no-new-privs"]
        return self.run(
            ["/usr/bin/setpriv", *limits, *shlex.split(self.line(setting))],
            result=result,
            has_proc=has_proc,
        )

    def run(self, argv: Sequence[str], *, result: str = "success", has_proc: bool = True) -> Ended:
        """Run a program in the root."""
        done = self.namespace.run(
            [
                *("unshare", "--mount", "sh", "-c", ENTER, "sh"),
                *(str(self.root), "yes" if has_proc else "no"),
                *("/usr/bin/env", "-i", f"PATH=/{PLACE}", f"SERVICE_RESULT={result}"),
                *argv,
            ],
            check=False,
        )
        return Ended(done.returncode, done.stdout + done.stderr)

    def boot(self, drop_in: str = "") -> Booted:
        """Start systemd, and let it start the service and what comes after it.

        `drop_in` are further settings of the service. Raises TimeoutError where that does not
        come.
        """
        units = self.root / "etc/systemd/system"
        (units / "network.service").write_text(NETWORK)
        (units / "test.target").write_text(TARGET)
        (units / "policylang.service.d").mkdir(exist_ok=True)
        (units / "policylang.service.d" / "test.conf").write_text(DROP_IN + drop_in)
        (self.root / "etc/machine-id").write_text("")
        seen = self.root.parent / "seen"
        seen.mkdir()
        with _own_cgroup() as (kind, procs):
            enter = 'echo $$ >"$0"; exec "$@"'
            child = subprocess.Popen(
                [
                    *("sh", "-c", enter, str(procs)),
                    *("nsenter", f"--net=/run/netns/{self.namespace.name}", "unshare"),
                    *("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"),
                    *("sh", "-c", ENTER, "sh", str(self.root), "yes"),
                    *("/usr/bin/env", "-i", "container=test", MANAGER),
                    *("--system", "--unit=test.target", "--log-target=null"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "cgroup": kind, "systemd": SYSTEMD},
            )
            try:
                give_up = time.monotonic() + BOOT_S
                while not (seen / "done").exists():
                    if time.monotonic() > give_up or child.poll() is not None:
                        raise TimeoutError(f"systemd did not come so far in {BOOT_S} s")
                    time.sleep(0.02)
            finally:
                child.kill()  # and process 1 with it, and with that all that it started
                child.wait()
        journal = (seen / "journal").read_text()
        return Booted((seen / "rules").read_text(), journal)


def systemd_obstacle() -> str | None:
    """Why no systemd can be started here, or None where it can."""
    if not Path(MANAGER).exists():
        return "a boot needs systemd to be installed"
    try:
        with _own_cgroup():
            return None
    except OSError as error:
        return f"a boot needs a cgroup of its own: {error}"


@contextmanager
def _own_cgroup() -> Iterator[tuple[str, Path]]:
    """The kind of a new cgroup (`cgroup`: version 1, or `cgroup2`), and its file of processes."""
    mounts = [line.split()[:4] for line in Path("/proc/self/mounts").read_text().splitlines()]
    named = [
        (kind, place) for _, place, kind, flags in mounts if "name=systemd" in flags.split(",")
    ]
    unified = [(kind, place) for _, place, kind, _ in mounts if kind == "cgroup2"]
    if not named + unified:
        raise FileNotFoundError("cgroups are not mounted")
    kind, place = (named + unified)[0]
    wanted = "name=systemd" if kind == "cgroup" else ""
    of_processes = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().split())
    (own,) = (path for _, names, path in of_processes if names == wanted)
    folder = Path(place, own.lstrip("/"), f"policylang-{os.getpid()}")
    folder.mkdir()
    try:
        yield kind, folder / "cgroup.procs"
    finally:
        give_up = time.monotonic() + BOOT_S
        while folder.exists():
            inner = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
            try:
                for one in (*inner, folder):
                    one.rmdir()
            except OSError:  # what was killed has not ended yet
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
