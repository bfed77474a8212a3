"""The command line: what it says when something goes wrong outside of a policy, and its status.

It imports what it needs when it needs it: `--version` and `--help` load neither the grammar
nor the templates.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from policylang.cli.arguments import parse
from policylang.cli.options import INTERNAL, REFUSED


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line (without the program's name); the exit status.

    0: done. 1: the policy has errors, or could not be read, written or loaded, or the command line
    is wrong. 2: the answer of a command that asks is no. 3: a mistake in policylang. 130:
    interrupted.
    """
    _prepare_streams()
    # To look for cycles costs a tenth of a small compile, and the process ends soon anyway.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        status = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        _tell("interrupted")
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        _discard_output()
        _tell("nobody reads the output any more")
        status = REFUSED
    except OSError as error:
        _discard_output()
        name = f"`{error.filename}`: " if error.filename else ""
        _tell(f"{name}{error.strerror or error}")
        status = REFUSED
    except Exception as mistake:  # the last resort: a mistake of ours is told as one
        package = _missing_package(mistake)
        if package is None:
            _tell_mistake(mistake)
            status = INTERNAL
        else:
            _tell(f"this needs the Python package `{package}`: {mistake}")
            status = REFUSED
    finally:
        if was_collecting:
            gc.enable()
    return status


def _run(arguments: Sequence[str] | None) -> int:
    try:
        chosen = parse(arguments)
    except SystemExit as end:  # argparse's way to say that it has said all there is to say
        return end.code if isinstance(end.code, int) else REFUSED
    from policylang.cli import commands

    return commands.run(chosen)


def _prepare_streams() -> None:
    """Make it safe to write any text: nothing is lost on a terminal of few characters."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123  for as long as we live
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Let the interpreter, which flushes once more at its end, find somebody to write to.

    Without it, Python 3.12 and later end with status 120 of their own.
    """
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout is sys.__stdout__:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _missing_package(mistake: Exception) -> str | None:
    """The package of others that could not be imported, if that is what went wrong."""
    if not isinstance(mistake, ImportError) or mistake.name is None:
        return None
    package = mistake.name.partition(".")[0]
    return None if package == __package__.partition(".")[0] else package


def _tell(text: str) -> None:
    from policylang.cli.visible import visible

    with contextlib.suppress(OSError):  # nobody is there to be told
        print(f"policylang: {visible(text)}", file=sys.stderr)


def _tell_mistake(mistake: Exception) -> None:
    what = f"{type(mistake).__name__}: {mistake}".splitlines()[0].removesuffix(": ")
    _tell(f"this is a mistake in policylang, not in the policy: {what}")
    if os.environ.get("POLICYLANG_DEBUG") == "1":
        from traceback import print_exception

        print_exception(mistake)
    else:
        _tell("nothing was written or loaded; POLICYLANG_DEBUG=1 shows where it happened")
