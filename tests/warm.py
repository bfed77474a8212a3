"""`policylang` for programs that call it by the dozen: a stand-in that a warm process works for.

Hooks, workflows, git and pyinfra start a new process for each command line, and each would import
all of policylang anew, which takes longer than what it does. The process here has everything
imported, and forks for each call: with the caller's arguments, environment, folder, standard
streams, and network and mount namespaces. It knows nothing of what is called. That policylang
starts by itself is proved elsewhere.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from traceback import print_exc

REPOSITORY = Path(__file__).resolve().parents[1]

STREAMS = 3  # standard input, output and error
MOST_BYTES = 1 << 20  # of a call: arguments and environment
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
UCRED = struct.Struct("iii")  # unix(7): pid, uid, gid

# Started by whoever calls `policylang`: what it imports is all that it costs.
STAND_IN = """\
#!{python} -IS
import array, os, socket, sys
import json
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as wire:
    wire.connect({place!r})
    call = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    streams = array.array("i", [0, 1, 2])
    wire.sendmsg([len(call).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    wire.sendall(call)
    answer = wire.recv(1)
sys.exit(answer[0] if answer else "the process that works for it has died")
"""


@contextmanager
def warm(folder: Path) -> Iterator[Path]:
    """A program in a folder that does what `policylang` does, as long as the context lasts."""
    with tempfile.TemporaryDirectory() as own:  # unix(7): the name of a socket is a short one
        place = f"{own}/warm"
        program = folder / "policylang"
        program.write_text(STAND_IN.format(python=sys.executable, place=place))
        program.chmod(0o755)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(place)
            listening.listen()
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(listening.fileno())],
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=REPOSITORY,
            )
        try:
            yield program
        finally:
            child.terminate()
            child.wait()


def _serve(listening: socket.socket) -> None:
    """Answer calls until this process is ended."""
    import policylang

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for module in pkgutil.walk_packages(policylang.__path__, "policylang."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of a package that a machine need not have
                importlib.import_module(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who ends is not waited for
    while True:
        wire, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            _answer(wire)
        wire.close()


def _answer(wire: socket.socket) -> None:
    """Do what was called for in the place of whoever called; does not return."""
    status = 1
    try:
        words, environment, folder = _call(wire)
        _go_where_it_is(wire)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        from policylang.cli import main

        status = main(words)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    except BaseException:
        print_exc()
    finally:
        wire.send(bytes([status]))
        os._exit(status)


def _call(wire: socket.socket) -> tuple[list[str], dict[str, str], str]:
    """Arguments, environment and folder; standard streams are the caller's from then on."""
    fds = array.array("i")
    head, more, _, _ = wire.recvmsg(4, socket.CMSG_SPACE(STREAMS * fds.itemsize))
    for level, kind, data in more:
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        fds.frombytes(data)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    # Those that are there were made of files, or pipes, of the warm process.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        mode, buffering = "w" if number else "r", 1 if name == "stderr" else -1
        stream = open(number, mode, buffering, encoding="utf-8")  # noqa: SIM115, PTH123  as long as it lives
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    size = int.from_bytes(head, "big")
    assert size <= MOST_BYTES
    text = b""
    while len(text) < size:
        text += wire.recv(size - len(text))
    words, environment, folder = json.loads(text)
    return words, environment, folder


def _go_where_it_is(wire: socket.socket) -> None:
    """Enter the caller's network and mount namespaces, where they are others."""
    pid, _, _ = UCRED.unpack(wire.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    libc = ctypes.CDLL(None, use_errno=True)
    for name, kind in (("net", CLONE_NEWNET), ("mnt", CLONE_NEWNS)):
        theirs, ours = Path(f"/proc/{pid}/ns/{name}"), Path(f"/proc/self/ns/{name}")
        if theirs.readlink() != ours.readlink():
            with theirs.open() as there:
                if libc.setns(there.fileno(), kind) != 0:
                    raise OSError(ctypes.get_errno(), f"setns {name}")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
