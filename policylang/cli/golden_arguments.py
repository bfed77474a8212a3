"""The words of the commands that reviews are made of; knows nothing of what they do."""

from __future__ import annotations

import argparse
from typing import Any

from policylang.backends import TARGETS
from policylang.cli import golden_descriptions
from policylang.cli.options import (
    EVERY_FORMAT,
    add_command,
    add_inventory,
    add_look,
    add_parameters,
)

COMMENT_LIMIT = 65_536  # characters of a comment on GitHub; GitLab has 1,000,000
LEAST_LIMIT = 1_000


def add(commands: Any) -> None:
    """Add these commands, in the order in which the help lists them."""
    one = add_command(
        commands, "golden", "keep what policies compile to beside them", said=golden_descriptions
    )
    one.add_argument("paths", nargs="+", metavar="DIR", help="a folder of policies, or one of them")
    how = one.add_mutually_exclusive_group()
    how.add_argument(
        "--check", dest="update", action="store_false", default=False, help="say what differs"
    )
    how.add_argument("--update", action="store_true", help="rewrite what differs")
    one.add_argument(
        "--target",
        dest="targets",
        action="append",
        choices=TARGETS,
        help="for this target alone; may be repeated (all of them)",
    )
    add_inventory(one)
    one.set_defaults(host=None)
    add_look(one, "on standard output", "what differs and messages", formats=EVERY_FORMAT)

    one = add_command(
        commands, "review", "write a comment on a change of policies", said=golden_descriptions
    )
    one.add_argument(
        "subjects",
        nargs="+",
        metavar="OLD NEW",
        help="policies, or revisions of them (`main:web.policy`); with `--rev` FILEs and folders",
    )
    one.add_argument("--rev", metavar="A..B", help="these in two revisions of git, or in A and now")
    add_parameters(one)
    one.add_argument(
        "--target",
        choices=TARGETS,
        help="show the rules of this target alone (both)",
    )
    one.add_argument(
        "--limit",
        type=_limit,
        default=COMMENT_LIMIT,
        metavar="N",
        help=f"at most so many characters ({COMMENT_LIMIT})",
    )
    one.add_argument(
        "--fail-on",
        choices=("any", "opened"),
        default="any",
        help="end with 2 where anything differs, or only where something is allowed that was not",
    )
    one.set_defaults(format="text", color="auto")

    one = add_command(
        commands,
        "textconv",
        "say what compiled rules mean, for `git diff`",
        said=golden_descriptions,
    )
    one.add_argument("file", metavar="FILE", help="a script for nft, or for iptables-restore")


def check(chosen: argparse.Namespace) -> None:
    """Errors that concern two options at once are told with the command's own usage."""
    if chosen.command == "review":
        if chosen.rev is None and len(chosen.subjects) != 2:
            chosen.parser.error("name two policies, OLD and NEW, or `--rev A..B FILE`")
        if chosen.rev is not None and "..." in chosen.rev:
            chosen.parser.error("--rev A..B has two dots: both revisions are taken as they are")


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= LEAST_LIMIT):
        raise argparse.ArgumentTypeError(f"expected a number from {LEAST_LIMIT}")
    return int(text)
