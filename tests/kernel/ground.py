"""The test ground: network namespaces, the wires between them, and probes along those wires.

It knows no policy and no protocol above TCP and UDP. Every namespace is made here and deleted
here, no packet leaves them, and only processes that were started inside them are ended.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import itertools
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import (
    ExitStack,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from unittest import mock

from policylang.apply import proved
from policylang.apply.restore import Flavour
from policylang.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]

CLONE_NEWNET = 0x40000000  # linux/sched.h
MS_BIND, MNT_DETACH = 4096, 2  # linux/mount.h, linux/fs.h

NAMESPACES = Path("/run/netns")  # ip-netns(8)

PROGRAMS = ("ip", "nft", "iptables-nft-restore", "iptables-legacy-restore", "ipset", "conntrack")

_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


def obstacle(*programs: str) -> str | None:
    """Return why kernel tests cannot run here (`None` where they can)."""
    if os.geteuid() != 0:
        return "kernel tests make network namespaces: they need root"
    absent = [name for name in (*PROGRAMS, *programs) if shutil.which(name) is None]
    if absent:
        return f"kernel tests need {', '.join(absent)}"
    return None


class Family(Enum):
    """An address family, by the number that its addresses carry."""

    IPV4 = 4
    IPV6 = 6

    @property
    def af(self) -> socket.AddressFamily:
        """The family as the socket interface calls it."""
        return socket.AF_INET if self is Family.IPV4 else socket.AF_INET6


def family_of(address: str) -> Family:
    """Return the family of an address in text form."""
    return Family.IPV6 if ":" in address else Family.IPV4


# --- namespaces ------------------------------------------------------------------------------


class CommandError(Exception):
    """A command of the test ground ended with an error, told with all that it printed."""


@dataclass(slots=True)
class Namespace:
    """A network namespace with loopback up, and the processes that were started in it."""

    name: str
    _children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @classmethod
    def create(cls, role: str) -> Namespace:
        """Return a new namespace whose name tells this process, a serial number and `role`."""
        number = next(_serial)
        name = f"pl{os.getpid()}-{number}-{role}"
        if number == 0:
            _call(["ip", "netns", "add", name])  # which prepares the folder, too
        else:
            _add(NAMESPACES / name)
        namespace = cls(name)
        try:
            # Interfaces that are made later take `default`: no duplicate address detection, or
            # IPv6 addresses are not usable at once.
            for key in ("all", "default"):
                namespace.sysctl(f"net.ipv6.conf.{key}.accept_dad", "0")
                namespace.sysctl(f"net.ipv6.conf.{key}.router_solicitations", "0")
            namespace.ip("link set lo up")
        except BaseException:
            namespace.delete()
            raise
        return namespace

    def delete(self) -> None:
        """End what was started here, with all that it started itself, and delete the namespace."""
        for child in self._children:
            end(child)
        self._children.clear()
        # Children of children (a server's sessions): nobody but this test could start anything in
        # this namespace, so what is still in it is ours.
        _wait(self._is_empty_once_killed, f"the processes in {self.name} to end")
        _delete(NAMESPACES / self.name)

    def _is_empty_once_killed(self) -> bool:
        left = [pid for pid in self._inside() if pid != os.getpid()]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def _inside(self) -> Iterator[int]:
        """The processes in it."""
        own = (NAMESPACES / self.name).stat().st_ino
        for place in Path("/proc").iterdir():
            with suppress(OSError):  # it has ended
                if place.name.isdecimal() and (place / "ns" / "net").stat().st_ino == own:
                    yield int(place.name)

    def ip(self, *commands: str) -> None:
        """Carry out `ip` commands, one a line, in one process."""
        _call(["ip", "-batch", "-"], stdin="\n".join(commands), within=self)

    def run(
        self,
        argv: Sequence[str],
        timeout_s: float = 20,
        *,
        stdin: str | None = None,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; raises `CommandError` unless `check` is off.

        It inherits the namespace, which takes half the time of `ip netns exec`: that makes a mount
        namespace as well, and mounts another /sys, and what is in /etc/netns. Who needs these
        says so, as who mounts anything says `unshare --mount`.
        """
        return _call(argv, timeout_s, stdin=stdin, check=check, env=env, within=self)

    def spawn(
        self,
        argv: Sequence[str],
        *,
        stdout: int = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a process group of its own; it is ended with the namespace."""
        child = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *argv],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def sysctl(self, key: str, value: str) -> None:
        """Set a network sysctl of this namespace; the parts of `key` are joined by dots."""
        with self.entered():
            Path("/proc/sys", *key.split(".")).write_text(value)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let the calling thread open its sockets in this namespace; they stay in it for good."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(NAMESPACES / self.name, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def opened(self, family: Family, kind: socket.SocketKind) -> socket.socket:
        """Return a new socket that belongs to this namespace."""
        with self.entered():
            return socket.socket(family.af, kind)

    def listen(self, family: Family, port: int) -> socket.socket:
        """Return a TCP socket that listens on every address; the kernel answers the handshake."""
        listener = self.opened(family, socket.SOCK_STREAM)
        _own_family_only(listener, family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(64)
        return listener

    @contextmanager
    def udp_echo(self, family: Family, port: int, address: str = "") -> Iterator[None]:
        """Answer every datagram to `port` with itself, as that address (or the first there is)."""
        echo = self.opened(family, socket.SOCK_DGRAM)
        _own_family_only(echo, family)
        echo.bind((address, port))
        over, switch = os.pipe()
        waiting = select.poll()
        waiting.register(echo, select.POLLIN)
        waiting.register(over, select.POLLIN)

        def answer() -> None:
            while over not in dict(waiting.poll()):
                # An ICMP error about an earlier answer, or one that the firewall forbids.
                with suppress(OSError):
                    data, peer = echo.recvfrom(2048)
                    echo.sendto(data, peer)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield
        finally:
            os.close(switch)
            thread.join()
            os.close(over)
            echo.close()


def end(child: subprocess.Popen[bytes], patience_s: float = 2) -> None:
    """End a process that `Namespace.spawn` started, with its process group, and reap it."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


def _add(path: Path) -> None:
    """What `ip netns add` does, in a fifth of the time."""
    path.touch(0o000, exist_ok=False)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _succeeded("unshare", _libc.unshare(CLONE_NEWNET))
        try:
            made = b"/proc/thread-self/ns/net"
            _succeeded("mount", _libc.mount(made, os.fsencode(path), b"none", MS_BIND, None))
        finally:
            _setns(home)
    finally:
        os.close(home)


def _delete(path: Path) -> None:
    """What `ip netns del` does."""
    _succeeded("umount2", _libc.umount2(os.fsencode(path), MNT_DETACH))
    path.unlink()


def _setns(descriptor: int) -> None:
    _succeeded("setns", _libc.setns(descriptor, CLONE_NEWNET))


def _succeeded(call: str, status: int) -> None:
    if status != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}")


def _own_family_only(opened: socket.socket, family: Family) -> None:
    if family is Family.IPV6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


@contextmanager
def _local_time() -> Iterator[None]:
    """Local time is that of the environment, as it is in a process that starts in it."""
    time.tzset()
    try:
        yield
    finally:
        with mock.patch.dict(os.environ):
            os.environ.pop("TZ", None)
            time.tzset()


def _call(
    argv: Sequence[str],
    timeout_s: float = 20,
    *,
    stdin: str | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    within: Namespace | None = None,
) -> subprocess.CompletedProcess[str]:
    with nullcontext() if within is None else within.entered():
        child = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
        )
    with child:
        try:
            out, err = child.communicate(stdin if stdin is not None else "", timeout_s)
        except BaseException:
            child.kill()
            raise
    done = subprocess.CompletedProcess(list(argv), child.returncode, out, err)
    if check and done.returncode != 0:
        told = f"{done.stdout}{done.stderr}"
        raise CommandError(f"{' '.join(argv)} ended with {done.returncode}\n{told}{stdin or ''}")
    return done


# --- wires -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Addresses:
    """One address of each family."""

    ipv4: str
    ipv6: str

    def of(self, family: Family) -> str:
        """The address of that family."""
        return self.ipv4 if family is Family.IPV4 else self.ipv6


@dataclass(frozen=True, slots=True)
class Segment:
    """A wire from the firewall to one neighbour: `near` is the firewall's end, `far` the other."""

    interface: str
    near: Addresses
    far: Addresses
    near_mac: str
    far_mac: str
    neighbour: Namespace


@dataclass(frozen=True, slots=True)
class Ground:
    """A firewall and its neighbours, one behind each of its interfaces."""

    firewall: Namespace
    segments: Mapping[str, Segment]

    def __getitem__(self, zone: str) -> Segment:
        return self.segments[zone]


# Zone -> the firewall's interface, the IPv4 and the IPv6 prefix; .1 is near and .2 is far.
WIRES = MappingProxyType(
    {
        "wan": ("wan0", "192.0.2", "2001:db8:2:"),
        "lan": ("lan0", "198.51.100", "2001:db8:51:"),
        "dmz": ("dmz0", "203.0.113", "2001:db8:113:"),
    }
)


FIRST_INDEX = 100  # of the firewall's interfaces; the neighbours count from 1

SIOCGIFFLAGS = 0x8913  # linux/sockios.h
IFF_RUNNING = 0x40  # linux/if.h


@contextmanager
def ground(
    *zones: str, discovery: bool = False, wires: Mapping[str, tuple[str, str, str]] = WIRES
) -> Iterator[Ground]:
    """Lay a firewall with a neighbour in each zone; it forwards where it has more than one.

    The neighbours' only route is through the firewall. Everything is gone afterwards. `wires` is
    for policies that have interfaces and addresses of their own.

    Both ends of a wire know each other's MAC address, because the kernel has one neighbour table
    for all namespaces together (1024 entries, gc_thresh3): whoever fills it elsewhere on the
    machine stops discovery here for seconds. With `discovery` they must ask, by ARP and ICMPv6.
    """
    with ExitStack() as stack:
        firewall = _created(stack, "fw")
        if len(zones) > 1:
            firewall.sysctl("net.ipv4.ip_forward", "1")
            firewall.sysctl("net.ipv6.conf.all.forwarding", "1")
        segments: dict[str, Segment] = {}
        for zone in zones:
            interface, ipv4, ipv6 = wires[zone]
            near = Addresses(f"{ipv4}.1", f"{ipv6}:1")
            far = Addresses(f"{ipv4}.2", f"{ipv6}:2")
            neighbour = _created(stack, zone)
            # Both ends of one index would make the kernel take the wire for something slower,
            # and start it up to a second late (linkwatch_urgent_event in net/core).
            index = FIRST_INDEX + len(segments)
            near_mac, far_mac = f"02:00:00:00:01:{index:02x}", f"02:00:00:00:02:{index:02x}"
            firewall.ip(
                f"link add {interface} index {index} address {near_mac} type veth"
                f" peer name eth0 address {far_mac} netns {neighbour.name}",
                f"link set {interface} up",
            )
            neighbour.ip("link set eth0 up")
            _settle(firewall, interface, near)
            _settle(neighbour, "eth0", far)
            neighbour.ip(f"route add default via {near.ipv4}", f"route add ::/0 via {near.ipv6}")
            if not discovery:
                firewall.ip(*_introduced(interface, far, far_mac))
                neighbour.ip(*_introduced("eth0", near, near_mac))
            segments[zone] = Segment(interface, near, far, near_mac, far_mac, neighbour)
        yield Ground(firewall, MappingProxyType(segments))


def _created(stack: ExitStack, role: str) -> Namespace:
    namespace = Namespace.create(role)
    stack.callback(namespace.delete)
    return namespace


def _introduced(interface: str, other: Addresses, mac: str) -> tuple[str, ...]:
    """Tell where another machine is; a permanent entry takes no part in the table's limit."""
    return tuple(
        f"neigh replace {address} lladdr {mac} dev {interface} nud permanent"
        for address in (other.ipv4, other.ipv6)
    )


def _settle(namespace: Namespace, interface: str, addresses: Addresses) -> None:
    """Give an interface its addresses; it sends, and answers those who ask for them.

    What is handed to it too early is lost, and is repeated no sooner than a second later.
    """
    request = struct.pack("16sH14x", interface.encode(), 0)

    def is_running() -> bool:
        answer = fcntl.ioctl(opened, SIOCGIFFLAGS, request)
        return bool(struct.unpack_from("H", answer, 16)[0] & IFF_RUNNING)

    def groups() -> set[str]:
        lines = Path("/proc/thread-self/net/igmp6").read_text().splitlines()
        return {line.split()[2] for line in lines if line.split()[1] == interface}

    def has_joined(*prefixes: str) -> bool:
        return all(any(group.startswith(prefix) for group in groups()) for prefix in prefixes)

    with namespace.entered(), socket.socket() as opened:
        # The group of its link-local address is the last that the interface does by itself.
        _wait(lambda: is_running() and has_joined(SOLICITED), f"{interface} to come up")
        namespace.ip(
            f"addr add {addresses.ipv4}/24 dev {interface}",
            f"addr add {addresses.ipv6}/64 dev {interface} nodad",
        )
        own = SOLICITED + socket.inet_pton(socket.AF_INET6, addresses.ipv6)[-3:].hex()
        _wait(lambda: has_joined(own), f"{interface} to join the group of its address")


# The solicited-node groups of RFC 4291 section 2.7.1, as /proc spells them, without the three
# bytes that an address ends in.
SOLICITED = "ff0200000000000000000001ff"


def _wait(is_so: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + 5
    while not is_so():
        if time.monotonic() > give_up:
            raise CommandError(f"waited in vain for {what}")
        time.sleep(0.002)


# --- loading ---------------------------------------------------------------------------------


class Loader(Enum):
    """A way from a policy into the kernel."""

    NFT = "nft"
    IPTABLES_NFT = "iptables-nft"
    IPTABLES_LEGACY = "iptables-legacy"

    @property
    def target(self) -> str:
        """What the policy is compiled for."""
        return "nft" if self is Loader.NFT else "iptables"

    @property
    def flavour(self) -> Flavour | None:
        """Which part of the kernel iptables is to speak to."""
        match self:
            case Loader.NFT:
                return None
            case Loader.IPTABLES_NFT:
                return Flavour.NFT
            case Loader.IPTABLES_LEGACY:
                return Flavour.LEGACY

    @property
    def options(self) -> tuple[str, ...]:
        """What `policylang apply` must be told to take this way."""
        flavour = () if self.flavour is None else ("--flavour", self.flavour.value)
        return ("--target", self.target, *flavour)

    def load(
        self, policy: str, namespace: Namespace, directory: Path, time_zone: str = "UTC"
    ) -> None:
        """Apply a policy text to a namespace, on a machine of that time zone.

        What packets are to show is not proved here as well, which takes longer than to load it;
        `policylang` itself always does. Raises `CommandError` with the compiler's words.
        """
        written = directory / f"{namespace.name}.policy"
        written.write_text(policy)
        command = ("apply", "--yes", str(written), "--netns", namespace.name, *self.options)
        with mock.patch.object(proved, "is_proved", lambda *_: True):
            policylang(*command, directory=directory, lock=namespace.name, time_zone=time_zone)


def policylang(
    *arguments: str,
    directory: Path,
    lock: str = "none",
    time_zone: str = "UTC",
    under: Sequence[str] = (),
    has_both: bool = False,
) -> str:
    """Carry out a command line of the compiler; what it prints, or with `has_both` also its errors.

    Within this process, since to start another one takes longer than to apply; but `under` a
    command that changes what is around it. Raises `CommandError` unless it succeeds.
    """
    # Legacy iptables takes one lock for the whole machine unless told another.
    environment = {"XTABLES_LOCKFILE": str(directory / f"{lock}.lock"), "TZ": time_zone}
    try:
        if under:
            argv = [*under, sys.executable, "-m", "policylang", *arguments]
            return _call(argv, 60, env={"PYTHONPATH": str(REPOSITORY), **environment}).stdout
        out = io.StringIO()
        err = out if has_both else io.StringIO()
        surroundings = mock.patch.dict(os.environ, environment)
        with surroundings, _local_time(), redirect_stdout(out), redirect_stderr(err):
            status = main(arguments)
        if status != 0:
            told = out.getvalue() + ("" if has_both else err.getvalue())
            raise CommandError(f"policylang {' '.join(arguments)} ended with {status}\n{told}")
        return out.getvalue()
    except CommandError as failed:
        policies = [Path(word) for word in arguments if word.endswith(".policy")]
        raise CommandError(f"{failed}\n" + "\n".join(p.read_text() for p in policies)) from None


def load_nft(script: str, namespace: Namespace) -> None:
    """Load nft commands that a test wrote by hand."""
    namespace.run(["nft", "-f", "-"], stdin=script)


# --- probes ----------------------------------------------------------------------------------

PROBE_S = 0.7  # what is answered at all is answered within a hundredth of it


class Reach(Enum):
    """What came of a probe."""

    OPEN = "open"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"


UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM)


def probe_tcp(
    client: Namespace,
    address: str,
    port: int,
    timeout_s: float = PROBE_S,
    source_port: int = 0,
    source: str = "",
) -> Reach:
    """Open a TCP connection and close it; a connection that stays silent is a time-out."""
    with client.opened(family_of(address), socket.SOCK_STREAM) as opened:
        if source_port or source:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((source, source_port))
        opened.setblocking(False)
        try:
            opened.connect((address, port))
        except BlockingIOError:  # under way
            code = _came_of(opened, timeout_s)
        except OSError as error:
            return reach_of(error)
        else:
            return Reach.OPEN
        return reach_of(OSError(code, os.strerror(code))) if code else Reach.OPEN


def _came_of(connecting: socket.socket, timeout_s: float) -> int:
    """The error in which connect() ended, or 0.

    On veth an ICMP error arrives inside connect(), while the socket is busy: it is noted and may
    be asked for (sk_err_soft), and wakes nobody before the next SYN, a second later.
    """
    code = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        return code
    waiting = select.poll()
    waiting.register(connecting, select.POLLOUT)
    if not waiting.poll(timeout_s * 1000):
        return errno.ETIMEDOUT
    return connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def probe_udp(client: Namespace, address: str, port: int, timeout_s: float = 1.0) -> Reach:
    """Send datagrams until one is answered; an ICMP error counts as the answer that it is."""
    with client.opened(family_of(address), socket.SOCK_DGRAM) as opened:
        opened.settimeout(timeout_s / 2)
        try:
            opened.connect((address, port))
            for _ in range(2):
                opened.send(b"probe")
                try:
                    opened.recv(2048)
                except TimeoutError:
                    continue
                return Reach.OPEN
        except OSError as error:
            return reach_of(error)
        return Reach.TIMEOUT


def ping(client: Namespace, address: str, timeout_s: float = 1.0) -> bool:
    """Return whether one of two ICMP or ICMPv6 echo requests was answered."""
    family = family_of(address)
    request, reply, protocol = ECHO[family]
    identifier = next(_serial) & 0xFFFF
    with client.entered():
        opened = socket.socket(family.af, socket.SOCK_RAW, protocol)
    with opened:
        for sequence in range(2):
            give_up = time.monotonic() + timeout_s / 2
            body = struct.pack("!HH", identifier, sequence)
            # ICMPv6's checksum is the kernel's business on a raw socket.
            checksum = internet_checksum(struct.pack("!BBH", request, 0, 0) + body)
            try:
                opened.sendto(struct.pack("!BBH", request, 0, checksum) + body, (address, 0))
                while (left := give_up - time.monotonic()) > 0:
                    opened.settimeout(left)
                    data = opened.recv(2048)
                    message = data[(data[0] & 15) * 4 :] if family is Family.IPV4 else data
                    if message[0] == reply and message[4:6] == body[:2]:
                        return True
            except OSError:  # a time-out, or an ICMP error
                continue
    return False


# Echo request and reply type (RFC 792, RFC 4443) and the protocol that carries them.
ECHO = MappingProxyType(
    {
        Family.IPV4: (8, 0, socket.IPPROTO_ICMP),
        Family.IPV6: (128, 129, socket.IPPROTO_ICMPV6),
    }
)


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071 over `data`."""
    padded = data + b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def reach_of(error: OSError) -> Reach:
    """What an error of a socket says of the way; raises it again where it says nothing."""
    if isinstance(error, TimeoutError):
        return Reach.TIMEOUT
    if error.errno == errno.ECONNREFUSED:
        return Reach.REFUSED
    if error.errno in UNREACHABLE:
        return Reach.UNREACHABLE
    raise error


def wait_until_open(
    namespace: Namespace, family: Family, port: int, child: subprocess.Popen[bytes]
) -> None:
    """Wait until a server that was just started listens on its own loopback address."""
    address = Addresses("127.0.0.1", "::1").of(family)
    give_up = time.monotonic() + 10
    while probe_tcp(namespace, address, port) is not Reach.OPEN:
        if child.poll() is not None:
            raise CommandError(f"the server on port {port} ended with {child.returncode}")
        if time.monotonic() > give_up:
            raise CommandError(f"no server on port {port} of {namespace.name}")
        time.sleep(0.02)
