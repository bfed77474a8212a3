"""The words of the command line; knows nothing of what the commands do."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from policylang import __version__
from policylang.backends import TARGETS
from policylang.cli import answers, descriptions, golden_arguments
from policylang.cli.options import (
    EVERY_FORMAT,
    Parser,
    add_answer_look,
    add_command,
    add_file,
    add_flavour,
    add_json,
    add_look,
    add_parameters,
    add_pattern,
    add_place,
    add_values,
    add_yes,
)
from policylang.cli.visible import visible

DEFAULT_REFRESH_S = 300  # of `boot_units` too, which is slow to import

MOST_CONFIRM_S = 3600  # who has not come back after an hour is shut out


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command and its options; raises SystemExit once help, version or an error is told."""
    parser = _parser()
    chosen, others = parser.parse_known_args(arguments)
    # What stands behind an option belongs to the words before it; argparse gives it up.
    words = {
        **{"query": "questions", "test": "files"},
        **{"golden": "paths", "review": "subjects"},
    }.get(chosen.command)
    if words is not None and not any(other.startswith("-") for other in others):
        getattr(chosen, words).extend(others)
    elif others:
        parser.error(f"unrecognized arguments: {' '.join(others)}")
    # Errors that concern two options at once are told with the command's own usage.
    if chosen.command == "compile" and chosen.all_hosts:
        if chosen.output in (None, "-"):
            chosen.parser.error("--all-hosts makes many files: it needs `-o DIR`")
        if chosen.host is not None or chosen.target == "ir":
            chosen.parser.error("--all-hosts is for every host, and for nft or iptables")
    if chosen.command == "compile" and chosen.target == "iptables" and chosen.output in (None, "-"):
        chosen.parser.error("--target iptables makes several files: it needs `-o DIR`")
    if getattr(chosen, "flavour", None) and chosen.target not in ("iptables", "both", None):
        chosen.parser.error("--flavour is for `--target iptables`")
    if "parameters" in chosen:
        names = [name for name, _ in chosen.parameters]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            chosen.parser.error(f"-D {visible(twice)} is given twice")
        chosen.parameters = dict(chosen.parameters)
    if chosen.command == "refresh":
        if chosen.all == (chosen.file is not None):
            chosen.parser.error("name either a FILE or `--all`")
        if chosen.file == "-":
            chosen.parser.error("the lock file stands beside a FILE: standard input has none")
        if chosen.all and chosen.check:
            chosen.parser.error("--check is for one FILE")
    answers.check(chosen)
    golden_arguments.check(chosen)
    if chosen.command == "fmt" and "-" in chosen.files and len(chosen.files) > 1:
        chosen.parser.error("`-` stands alone: it is not a file to rewrite")
    return chosen


@cache
def _parser() -> Parser:
    """The parser of all command lines of a process: it is never changed."""
    parser = Parser(
        prog="policylang", description=descriptions.DESCRIPTION, epilog=descriptions.EXAMPLES
    )
    parser.add_argument("--version", action="version", version=f"policylang {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )

    one = add_command(commands, "compile", "print or write the rules")
    add_file(one)
    add_parameters(one)
    one.add_argument(
        "--all-hosts",
        action="store_true",
        help="for every host of the policy: HOST.nft, or for iptables a folder HOST, in `-o DIR`",
    )
    one.add_argument("--target", choices=(*TARGETS, "ir"), default="nft", help="what to make (nft)")
    one.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="the file or folder to write, for iptables a folder; `-` is standard output",
    )
    add_look(one, "on standard error", formats=EVERY_FORMAT)

    one = add_command(commands, "check", "report errors and warnings")
    add_file(one)
    add_parameters(one)
    one.add_argument("--target", choices=TARGETS, help="check for this target alone")
    add_look(one, "on standard output", formats=EVERY_FORMAT)
    answers.add(commands)
    golden_arguments.add(commands)

    _add_changes(commands)
    _add_tellings(commands)
    _add_services(commands)

    _add_set(commands)
    _add_refresh(commands)

    one = add_command(commands, "fmt", "lay policies out")
    one.add_argument(
        "files", nargs="+", metavar="FILE", help="a policy; `-` alone reads standard input"
    )
    one.add_argument(
        "--check", action="store_true", help="write nothing, name the files that would change"
    )
    one.add_argument("--diff", action="store_true", help="write nothing, print what would change")
    add_look(one, "on standard error")

    one = add_command(commands, "services", "list or explain built-in services")
    add_pattern(one, "a name, a topic, a glob or a port")

    one = add_command(commands, "groups", "list or explain built-in groups of addresses")
    add_pattern(one, "a name, a topic, a glob or an address")

    one = add_command(commands, "explain", "explain a message")
    one.add_argument("code", nargs="?", metavar="CODE", help="the word in brackets")
    for one in commands.choices.values():
        one.set_defaults(parser=one)
    return parser


def _add_changes(commands: Any) -> None:
    """The commands that change what is in force, and `plan`, which says what one would."""
    for name, text in (("plan", "say what an apply would change"), ("apply", "load a policy")):
        one = add_command(commands, name, text)
        add_file(one)
        add_parameters(one)
        one.add_argument("--target", choices=TARGETS, default="nft", help="what to load (nft)")
        add_flavour(one)
        one.add_argument(
            "--flows",
            choices=("cut", "keep"),
            help="end the open connections that the new policy no longer allows (as the policy "
            "says by `on-reload`, or else keep)",
        )
        add_place(one)
        if name == "plan":
            one.add_argument(
                "--detailed-exitcode", action="store_true", help="end with 2 where it would change"
            )
        else:
            _add_confirm(one)
            add_yes(one)
            one.add_argument(
                "--check", action="store_true", help="change nothing, and end with 2 if it would"
            )
        add_json(one)
        add_look(one, "on standard error")

    one = add_command(commands, "confirm", "keep a change that waits for it")
    add_place(one)
    add_json(one)
    add_look(one, "on standard error")

    one = add_command(commands, "rollback", "go back to what was in force")
    one.add_argument("number", nargs="?", type=int, metavar="GENERATION", help="the one before")
    _add_confirm(one)
    add_yes(one)
    add_place(one)
    add_json(one)
    add_look(one, "on standard error")

    one = add_command(commands, "panic", "close everything but your own SSH")
    one.add_argument(
        "--target", choices=TARGETS, help="what to load (what is in force, or else nft)"
    )
    add_flavour(one)
    one.add_argument("--ssh", metavar="ADDRESS", help="where SSH is to be let in from")
    add_yes(one)
    add_place(one)
    add_json(one)
    add_look(one, "on standard error")

    one = add_command(commands, "stop", "take the firewall away")
    add_yes(one)
    add_place(one)
    add_json(one)
    add_look(one, "on standard error")


def _add_tellings(commands: Any) -> None:
    """The commands that tell what is in force."""
    for name, text in (
        ("status", "say what is in force"),
        ("drift", "say what changed since it was loaded"),
        ("generations", "list what was applied and is kept"),
    ):
        one = add_command(commands, name, text)
        add_place(one)
        add_json(one)
        add_look(one, "on standard error")


def _add_services(commands: Any) -> None:
    """The commands that write and remove what a boot does."""
    for name, text in (
        ("install-service", "load what was confirmed at boot"),
        ("uninstall-service", "leave the boot alone again"),
    ):
        one = add_command(commands, name, text)
        one.add_argument("--root", metavar="DIR", default="/", help="below this folder (/)")
        if name == "install-service":
            one.add_argument(
                "--refresh",
                metavar="TIME",
                type=_refresh_s,
                default=DEFAULT_REFRESH_S,
                help="how often to look for lists that are due, 0 for never (5m)",
            )
        add_look(one, "on standard error")


def _add_confirm(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--confirm",
        metavar="TIME",
        type=_duration_s,
        help="take it back after so long, as in 60s or 5m, unless `policylang confirm` is run "
        "(60s on a terminal over SSH)",
    )
    group.add_argument(
        "--no-confirm", dest="confirm", action="store_const", const=0, help="keep it at once"
    )


def _duration_s(text: str) -> int:
    """How long to wait for a confirmation, in seconds."""
    total = _seconds(text)
    if total is None or not 1 <= total <= MOST_CONFIRM_S:
        raise argparse.ArgumentTypeError("expected a time from 1s to 1h, as in 60s or 5m")
    return total


def _refresh_s(text: str) -> int:
    """The time between two refreshes, in seconds; 0 is none."""
    total = 0 if text == "0" else _seconds(text)
    if total is None or 0 < total < 60:
        raise argparse.ArgumentTypeError("expected a time from 1m, as in 15m or 1d, or 0")
    return total


def _seconds(text: str) -> int | None:
    """A duration as a policy has it; None for what is none."""
    parts = re.findall(r"([0-9]+)([smhd])", text)
    total = sum(
        int(count) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for count, unit in parts
    )
    return total if "".join(count + unit for count, unit in parts) == text else None


def _add_refresh(commands: Any) -> None:
    one = add_command(commands, "refresh", "ask again for addresses from elsewhere")
    one.add_argument("file", nargs="?", metavar="FILE", help="the policy")
    add_values(one)
    one.add_argument(
        "--all", action="store_true", help="what is due of all that is in force, and no FILE"
    )
    one.add_argument(
        "--due", action="store_true", help="sources alone whose `refresh` time has come"
    )
    one.add_argument(
        "--check", action="store_true", help="write and change nothing, say what would change"
    )
    add_place(one)
    add_look(one, "on standard error")


def _add_set(commands: Any) -> None:
    """The command `set` with its own commands; `commands` is where argparse keeps commands."""
    group = add_command(commands, "set", "list and change dynamic sets that are loaded")
    actions = group.add_subparsers(
        title="commands", dest="action", metavar="COMMAND", required=True
    )

    one = add_command(actions, "list", "show what is in them", of="set")
    one.add_argument("name", nargs="?", metavar="NAME", help="one set alone")
    add_place(one)
    add_answer_look(one, "the list")

    for action, text in (
        ("add", "put addresses into one"),
        ("delete", "take addresses out of one"),
        ("flush", "empty one"),
    ):
        one = add_command(actions, action, text, of="set")
        one.add_argument("name", metavar="NAME", help="the set")
        if action != "flush":
            one.add_argument("addresses", nargs="+", metavar="ADDRESS", help="a single address")
        if action == "add":
            one.add_argument(
                "--timeout",
                metavar="TIME",
                help="for so long, as in 90s or 1h30m (the set's own time-out)",
            )
        add_place(one)
        add_look(one, "on standard error")
