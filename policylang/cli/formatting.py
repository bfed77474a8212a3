"""`policylang fmt`: files in, the same files in canonical form out; the form is `syntax.format`'s.

Each file is read, laid out and written by itself: one with mistakes is left alone, and so told,
while the others are formatted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from policylang.cli import output
from policylang.cli.unified import unified
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.source import SourceFile
from policylang.syntax.decoding import decoded
from policylang.syntax.format import format_policy

STDIN, STDIN_NAME = "-", "<stdin>"
BOM = "\N{BYTE ORDER MARK}"


def run(chosen: argparse.Namespace, report: Report) -> bool:
    """Format what was asked for; whether all of it is canonical now, as far as was asked.

    Reports what cannot be read, written or formatted.
    """
    answers = [_format(file, chosen, report) for file in chosen.files]
    return all(answers)


def _format(file: str, chosen: argparse.Namespace, report: Report) -> bool:
    name = STDIN_NAME if file == STDIN else file
    is_kept = chosen.check or chosen.diff or file == STDIN
    data = _read(file, report, is_kept=is_kept)
    read = None if data is None else decoded(data, name, report)
    if read is None:
        return True
    text = read.text
    formatted = format_policy(SourceFile(name, text.removeprefix(BOM)), report)
    if formatted is None:
        return True
    if chosen.diff:
        shown = visible(name)
        lines = unified(text, formatted, shown, shown)
        output.write_stdout("".join(f"{line}\n" for line in lines), report)
        return text == formatted
    if chosen.check:
        if text != formatted:
            print(f"{visible(name)}: not in canonical form")
        return text == formatted
    if file == STDIN:
        output.write_stdout(formatted, report)
    elif text != formatted:
        before = len(report.diagnostics)
        output.write_file(Path(file), formatted, report)
        if len(report.diagnostics) == before:
            print(f"{visible(name)}: formatted")
    return True


def _read(file: str, report: Report, *, is_kept: bool) -> bytes | None:
    """The bytes of a file; `is_kept` says that it will not be written. Reports what is none."""
    if file == STDIN:
        if sys.stdin is None:
            report.add("unreadable-file", "standard input is closed", None)
            return None
        return sys.stdin.buffer.read()
    path = Path(file)
    try:
        if not is_kept and path.exists() and not path.is_file() and not path.is_dir():
            what = f"cannot format `{file}` in place: it is no regular file"
            report.add("cannot-write", what, None, help="`policylang fmt -` reads standard input")
            return None
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name that holds NUL
        why = getattr(error, "strerror", None) or "no such path"
        report.add("unreadable-file", f"cannot read `{file}`: {why[0].lower()}{why[1:]}", None)
        return None
