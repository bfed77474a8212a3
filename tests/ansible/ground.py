"""The proving ground: hosts of Debian 13 with systemd and sshd, a router between, a controller.

Each is in a network namespace of its own, and nothing of it touches the machine's network. What is
written on a host is in a folder of the test's, and is still there after it lost its power.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.ground import Addresses, Namespace

ENTER = Path(__file__).with_name("enter.sh")
INIT = ("/usr/lib/systemd/systemd", "--system", "--unit=multi-user.target", "--log-target=console")
BOOT_S = 60  # 2 on an idle machine

# What has no place in a container, or would be the machine's.
MASKED = (
    *("console-getty.service", "systemd-modules-load.service", "dev-hugepages.mount"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount"),
    *("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "dpkg-db-backup.timer"),
)
SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
"""
# A user who may become root: sshd lets root in by the same key.
USER = "deploy"
USER_LINES = {
    "passwd": f"{USER}:x:1000:1000::/home/{USER}:/bin/sh\n",
    "group": f"{USER}:x:1000:\n",
    "shadow": f"{USER}:*:20000:0:99999:7:::\n",
}


@dataclass(slots=True)
class Host:
    """A host, by its number on the router; on or off."""

    name: str
    number: int
    userland: Path
    folder: Path
    router: Namespace
    namespace: Namespace | None = None
    _started: subprocess.Popen[bytes] | None = None
    _cgroup: Path | None = None

    @property
    def addresses(self) -> Addresses:
        return Addresses(f"198.51.100.{16 * self.number + 2}", f"2001:db8:{self.number}::2")

    @property
    def _gateway(self) -> Addresses:
        return Addresses(f"198.51.100.{16 * self.number + 1}", f"2001:db8:{self.number}::1")

    def wired(self) -> Namespace:
        """A new namespace with a wire to the router."""
        made = Namespace.create(self.name)
        port, own, near = f"r{self.number}", self.addresses, self._gateway
        self.router.ip(
            f"link add {port} type veth peer name eth0 netns {made.name}",
            f"addr add {near.ipv4}/28 dev {port}",
            f"addr add {near.ipv6}/64 dev {port} nodad",
            f"link set {port} up",
        )
        made.ip(
            "link set eth0 up",
            f"addr add {own.ipv4}/28 dev eth0",
            f"addr add {own.ipv6}/64 dev eth0 nodad",
            f"route add default via {near.ipv4}",
            f"route add ::/0 via {near.ipv6}",
        )
        return made

    def prepared(self, public_key: str) -> str:
        """Write what is this host's own; its public key."""
        for name in ("upper", "work", "merged", "proc"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "console").touch()
        root = self.folder / "upper"
        (root / "home").mkdir(parents=True)
        for home, owner in (("root", 0), (f"home/{USER}", 1000)):
            for folder in (root / home, root / home / ".ssh"):
                folder.mkdir(mode=0o700)
                os.chown(folder, owner, owner)
            (root / home / ".ssh/authorized_keys").write_text(public_key)
        (root / "etc/sudoers.d").mkdir(parents=True)
        (root / "etc/sudoers.d/test").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
        for name, line in USER_LINES.items():
            known = (self.userland / "etc" / name).read_text()
            (root / "etc" / name).write_text(known + line)
        (root / "etc/shadow").chmod(0o640)
        (root / "etc/ssh/sshd_config.d").mkdir(parents=True)
        for one in self.userland.glob("etc/ssh/ssh_host_*"):  # they are every host's
            os.mknod(root / "etc/ssh" / one.name, 0, os.makedev(0, 0))  # overlayfs: not there
        key = root / "etc/ssh/ssh_host_ed25519_key"
        key.unlink(missing_ok=True)
        key.with_suffix(".pub").unlink(missing_ok=True)
        new_key(key)
        (root / "etc/ssh/sshd_config.d/test.conf").write_text(SSHD)
        (root / "etc/hostname").write_text(f"{self.name}\n")
        # Where it is not known, systemd takes this for the first boot and enables everything.
        (root / "etc/machine-id").write_text(f"{os.urandom(16).hex()}\n")
        (root / "etc/hosts").write_text(
            f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {self.name}\n"
        )
        (root / "etc/resolv.conf").write_text("")  # who asks it waits for 5 s
        units = root / "etc/systemd/system"
        units.mkdir(parents=True)
        for unit in MASKED:
            (units / unit).symlink_to("/dev/null")
        return key.with_suffix(".pub").read_text()

    def power_on(self) -> None:
        """Start it in a new namespace: rules that were there before are not there any more."""
        self.namespace = self.wired()
        kind, self._cgroup = _new_cgroup(self.name)
        legacy = ["SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"] if kind == "cgroup" else []
        with (self.folder / "log").open("ab") as log:
            self._started = subprocess.Popen(
                [
                    *("sh", "-c", 'echo $$ >"$0"; exec "$@"', str(self._cgroup / "cgroup.procs")),
                    *("nsenter", f"--net=/run/netns/{self.namespace.name}", "unshare"),
                    *("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child"),
                    *("sh", str(ENTER), str(self.userland), str(self.folder), self.name, kind),
                    *("/usr/bin/env", "-i", "container=test", *legacy, *INIT),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self, controller: Namespace) -> None:
        """Wait for its sshd; raises TimeoutError with what the host said."""
        script = f"exec 3<>/dev/tcp/{self.addresses.ipv4}/22; head -c 4 <&3"
        give_up = time.monotonic() + BOOT_S
        while time.monotonic() < give_up and self._started and self._started.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                done = controller.run(["bash", "-c", script], 2, check=False)
                if done.stdout.startswith("SSH"):
                    return
            time.sleep(0.05)
        log = (self.folder / "log").read_text(errors="replace")
        raise TimeoutError(f"{self.name} did not come up: {log[-2000:]}")

    def power_off(self) -> None:
        """All at once, and without a word on the wire."""
        if self.namespace is None:
            return
        self.router.run(["ip", "link", "set", f"r{self.number}", "down"], check=False)
        if self._started is not None:
            _kill(self._started)
        self.namespace.delete()
        # The namespace may live on for a moment, and its end of the wire with it.
        self.router.run(["ip", "link", "del", f"r{self.number}"], check=False)
        if self._cgroup is not None:
            _remove(self._cgroup)
        self.namespace = self._started = self._cgroup = None

    @property
    def inside(self) -> Namespace:
        """Its namespace while it is on."""
        assert self.namespace is not None, f"{self.name} is off"
        return self.namespace


def new_key(path: Path) -> None:
    """A pair of keys for SSH."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.parent.name, "-f", str(path)]
    subprocess.run(argv, check=True)


def _kill(started: subprocess.Popen[bytes]) -> None:
    """End process 1 inside: the kernel ends all others of its namespace before it is gone."""
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    with suppress(OSError):
        for pid in map(int, children.read_text().split()):
            handle = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            select.select([handle], [], [], BOOT_S)
            os.close(handle)
    started.kill()
    started.wait()


def _new_cgroup(name: str) -> tuple[str, Path]:
    """The kind of a new cgroup (`cgroup`: version 1, or `cgroup2`), and its folder."""
    mounts = [line.split()[:4] for line in Path("/proc/self/mounts").read_text().splitlines()]
    unified = [("cgroup2", place) for _, place, kind, _ in mounts if kind == "cgroup2"]
    named = [
        ("cgroup", place) for _, place, _, flags in mounts if "name=systemd" in flags.split(",")
    ]
    kind, place = [*named, *unified][-1]  # of two mounts the last one hides the first
    wanted = "name=systemd" if kind == "cgroup" else ""
    of_processes = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().split())
    (own,) = (path for _, names, path in of_processes if names == wanted)
    folder = Path(place, own.lstrip("/"), f"policylang-{os.getpid()}-{name}")
    folder.mkdir(exist_ok=True)
    return kind, folder


def _remove(cgroup: Path) -> None:
    give_up = time.monotonic() + 10
    while cgroup.exists() and time.monotonic() < give_up:
        inner = sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True)
        try:
            for one in (*inner, cgroup):
                one.rmdir()
        except OSError:  # what was killed has not ended yet
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Hosts by their names, and where Ansible runs; `settings` are for Ansible over SSH.

    It comes to `by_user` as a user who becomes root, to the others as root.
    """

    controller: Namespace
    router: Namespace
    hosts: Mapping[str, Host]
    settings: Mapping[str, str] = field(default_factory=dict)
    by_user: tuple[str, ...] = ()

    @property
    def inventory(self) -> str:
        """An inventory of Ansible; hosts called web1, web2 are in the group `web`."""
        groups: dict[str, list[str]] = {}
        for name, host in self.hosts.items():
            own = host.addresses
            addresses = f'["{own.ipv4}", "{own.ipv6}"]'
            user = f"{USER} ansible_become=true" if name in self.by_user else "root"
            line = f"{name} ansible_host={own.ipv4} policylang_addresses='{addresses}'"
            line += f" ansible_user={user}"
            groups.setdefault(name.rstrip("0123456789"), []).append(line)
        text = "".join(f"[{group}]\n" + "\n".join(lines) + "\n" for group, lines in groups.items())
        return text


@contextmanager
def fleet(
    userland: Path, folder: Path, *names: str, by_user: tuple[str, ...] = ()
) -> Iterator[Fleet]:
    """Hosts that are on; all of it is gone afterwards but for the folder."""
    with ExitStack() as stack:
        stack.enter_context(_writable(folder))
        router = Namespace.create("router")
        stack.callback(router.delete)
        router.sysctl("net.ipv4.ip_forward", "1")
        router.sysctl("net.ipv6.conf.all.forwarding", "1")
        new_key(folder / "id")
        public = (folder / "id.pub").read_text()
        # The controller is wired as hosts are.
        desk = Host("controller", 0, userland, folder / "controller", router)
        controller = desk.wired()
        stack.callback(controller.delete)
        hosts: dict[str, Host] = {}
        known = ""
        for number, name in enumerate(names, 1):
            host = Host(name, number, userland, folder / name, router)
            stack.callback(host.power_off)
            own = host.addresses
            known += f"{own.ipv4},{own.ipv6} {host.prepared(public)}"
            host.power_on()
            hosts[name] = host
        (folder / "known_hosts").write_text(known)
        # Sockets have short names (unix(7)), and folders of tests long ones.
        control = stack.enter_context(tempfile.TemporaryDirectory(prefix="pl"))
        for host in hosts.values():
            host.wait(controller)
        yield Fleet(controller, router, hosts, _settings(folder, control), by_user)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """In a container all may be overlayfs, which takes no upper layer of its own kind."""
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", str(folder)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    if kind != "overlayfs":
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _settings(folder: Path, control: str) -> dict[str, str]:
    options = {
        "ControlMaster": "auto",
        "ControlPersist": "60s",
        "UserKnownHostsFile": str(folder / "known_hosts"),
        "GSSAPIAuthentication": "no",
    }
    return {
        "ANSIBLE_PRIVATE_KEY_FILE": str(folder / "id"),
        "ANSIBLE_HOST_KEY_CHECKING": "1",
        "ANSIBLE_TIMEOUT": "3",
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
        "ANSIBLE_SSH_ARGS": " ".join(
            ("-F none", *(f"-o {name}={value}" for name, value in options.items()))
        ),
    }
