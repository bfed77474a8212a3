"""Network namespaces without a name, and the wires between them; knows no policy.

A namespace is there for as long as somebody holds its descriptor: when the process ends, however
it ends, the kernel takes it away with all that is in it. Nothing is written to `/run/netns`.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from policylang.apply import kernel, programs
from policylang.diagnostics import Report

T = TypeVar("T")

SIOCGIFFLAGS = 0x8913  # linux/sockios.h
IFF_RUNNING = 0x40  # linux/if.h
PATIENCE_S = 5.0
LOOK_S = 0.002

FIRST_INDEX = 100


class GroundError(Exception):
    """What is needed for a proof could not be made; the message is for people."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, held by a descriptor of this process."""

    descriptor: int

    @property
    def path(self) -> str:
        """What this process, and a program that has the descriptor, can open it by."""
        return f"/proc/self/fd/{self.descriptor}"

    def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, done inside by a thread of its own."""
        done: list[T] = []
        report = Report()
        kernel.in_netns(self.path, lambda: done.append(work()), report)
        if not done:
            raise GroundError(report.diagnostics[0].message)
        return done[0]

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket that belongs to this namespace for good."""
        return self.do(lambda: socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))

    def run(self, argv: Sequence[str], stdin: str = "", others: Iterable[Namespace] = ()) -> str:
        """What a program writes that runs to its end inside; GroundError where it fails.

        It may name `others` by their paths.
        """
        report = Report()
        descriptors = [other.descriptor for other in others]
        finished = self.do(lambda: programs.run(argv, report, stdin=stdin, descriptors=descriptors))
        if finished is None:
            raise GroundError(report.diagnostics[0].message)
        if not finished.ok:
            raise GroundError(f"`{' '.join(argv)}`: {finished.words.splitlines()[0]}")
        return finished.stdout

    def ip(self, commands: Iterable[str], others: Iterable[Namespace] = ()) -> None:
        """Carry out commands of `ip`, all in one process."""
        lines = "".join(f"{command}\n" for command in commands)
        if lines:
            self.run(["ip", "-batch", "-"], lines, others)

    def settings(self, values: Iterable[tuple[str, str]]) -> None:
        """Write sysctls of the network; those that this kernel lacks are left out."""

        def write() -> None:
            for name, value in values:
                path = Path("/proc/sys/net", *name.split("."))
                try:
                    path.write_text(value)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise GroundError(f"cannot write `{path}`: {error.strerror}") from error

        self.do(write)


def namespace(stack: ExitStack, report: Report) -> Namespace | None:
    """A new namespace with loopback up, there until the stack is closed.

    None, and `not-permitted`, where this process may make none.
    """
    descriptor = kernel.in_scratch(
        lambda: os.open(kernel.OWN_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC), report
    )
    if descriptor is None:
        return None
    stack.callback(os.close, descriptor)
    made = Namespace(descriptor)
    # Interfaces that are made later take `default`: no duplicate address detection, or IPv6
    # addresses are not usable at once.
    made.settings(
        (f"ipv6.conf.{scope}.{name}", "0")
        for scope in ("all", "default")
        for name in ("accept_dad", "router_solicitations", "accept_ra")
    )
    made.ip(["link set lo up"])
    return made


def mac(number: int, *, is_far: bool) -> bytes:
    """The Ethernet address of one end of wire `number`, locally administered (IEEE 802)."""
    return bytes((2, 0, 0, 0, 1 + is_far, number))


FAR = "far"  # what the interface is called at the other end of every wire


def lay_wire(near: Namespace, name: str, number: int, far: Namespace) -> None:
    """A wire from `near`, where its interface has that name, to `far`."""
    macs = mac(number, is_far=False).hex(":"), mac(number, is_far=True).hex(":")
    # Both ends of one index would make the kernel take the wire for something slower, and start
    # it up to a second late (linkwatch_urgent_event in net/core).
    near.ip(
        [
            f"link add {name} index {FIRST_INDEX + number} address {macs[0]} type veth"
            f" peer name {FAR} address {macs[1]} netns {far.path}",
            f"link set {name} up",
        ],
        [far],
    )
    far.ip([f"link set {FAR} up"])
    for end, called in ((near, name), (far, FAR)):
        end.do(partial(_wait_until_running, called))


def _wait_until_running(name: str) -> None:
    request = struct.pack("16sH14x", name.encode(), 0)
    give_up = time.monotonic() + PATIENCE_S
    with socket.socket() as opened:
        while not struct.unpack_from("H", fcntl.ioctl(opened, SIOCGIFFLAGS, request), 16)[0] & (
            IFF_RUNNING
        ):
            if time.monotonic() > give_up:
                raise GroundError(f"the interface `{name}` does not come up")
            time.sleep(LOOK_S)
