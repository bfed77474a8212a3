"""The words of the command line; knows nothing of what the commands do."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from policylang import __version__
from policylang.backends import TARGETS

DONE, REFUSED, LOOK, INTERNAL = 0, 1, 2, 3  # exit statuses; LOOK: look at the command line

FORMATTER = argparse.RawDescriptionHelpFormatter

DESCRIPTION = """\
Say what a Linux firewall should allow; get the nftables or iptables rules for it.
"""

EXAMPLES = """\
examples:
  policylang check web.policy
      say what is wrong with a policy, for both targets
  policylang compile web.policy
      print the nftables script that the policy compiles to
  policylang compile web.policy --target iptables -o out/
      write out/rules.v4, out/rules.v6 and, where sets are used, out/sets.ipset
  sudo policylang apply web.policy
      try the policy in a scratch network namespace, then load it
  policylang explain unknown-service
      explain a message

exit status:
  0  done
  1  the policy has errors, or could not be read, written or loaded
  2  the command line is wrong
  3  a mistake in policylang itself
"""

COMPILE = """\
Compile a policy. Nothing is written where the policy has an error.

For nft the output is one script for `nft -f`, for iptables a folder with rules.v4, rules.v6
and, where sets are used, sets.ipset. `ir` shows the rules before they become a target's.
"""

COMPILE_EXAMPLES = """\
examples:
  policylang compile web.policy > web.nft
  policylang compile web.policy -o /etc/nftables.conf
  policylang compile web.policy --target iptables -o out/
  generate-policy | policylang compile - --target nft

Files are written aside and moved into place once all of them are complete. With `--format
json` errors and warnings go to standard error as one JSON array.
"""

CHECK = """\
Say everything that is wrong with a policy, for both targets unless one is named.
"""

CHECK_EXAMPLES = """\
examples:
  policylang check web.policy
  policylang check web.policy --target nft
  policylang check web.policy --format json

With `--format json` standard output is one JSON array, empty where all is well. Each entry has
the keys code, severity (error or warning), message, file, line, column, end_line, end_column
(counted from 1, in characters, the end exclusive; null where no file is at fault), help (or
null) and labels: an array of other places with message, file, line, column, end_line and
end_column.
"""

APPLY = """\
Compile a policy, load it in a scratch network namespace, and then for real.

It takes the place of what was applied before, whichever target that was for; rules of other
programs are left alone. Where anything fails, what was in force stays in force.
"""

APPLY_EXAMPLES = """\
examples:
  sudo policylang apply web.policy
  sudo policylang apply web.policy --target iptables --flavour legacy
  sudo policylang apply web.policy --netns router1
"""

EXPLAIN = """\
Explain a message by its id (the word in brackets), or list all of them.
"""


class _Parser(argparse.ArgumentParser):
    """An argparse parser that takes whole option names alone, and errors in our look."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=FORMATTER, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(LOOK, f"{self.prog}: {message}\n{self.format_usage()}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command and its options; raises SystemExit once help, version or an error is told."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    # Errors that concern two options at once are told with the command's own usage.
    if chosen.command == "compile" and chosen.target == "iptables" and chosen.output in (None, "-"):
        chosen.parser.error("--target iptables makes several files: it needs `-o DIR`")
    if chosen.command == "apply" and chosen.target != "iptables" and chosen.flavour:
        chosen.parser.error("--flavour is for `--target iptables`")
    return chosen


def _parser() -> _Parser:
    parser = _Parser(prog="policylang", description=DESCRIPTION, epilog=EXAMPLES)
    parser.add_argument("--version", action="version", version=f"policylang {__version__}")
    commands = parser.add_subparsers(
        title="commands", dest="command", metavar="COMMAND", required=True
    )

    one = commands.add_parser(
        "compile", help="print or write the rules", description=COMPILE, epilog=COMPILE_EXAMPLES
    )
    _add_file(one)
    one.add_argument("--target", choices=(*TARGETS, "ir"), default="nft", help="what to make (nft)")
    one.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="the file, or for iptables the folder, to write; `-` is standard output",
    )
    _add_look(one, "on standard error")

    one = commands.add_parser(
        "check", help="report errors and warnings", description=CHECK, epilog=CHECK_EXAMPLES
    )
    _add_file(one)
    one.add_argument("--target", choices=TARGETS, help="check for this target alone")
    _add_look(one, "on standard output")

    one = commands.add_parser(
        "apply", help="load a policy into the kernel", description=APPLY, epilog=APPLY_EXAMPLES
    )
    _add_file(one)
    one.add_argument("--target", choices=TARGETS, default="nft", help="what to load (nft)")
    one.add_argument(
        "--flavour",
        choices=("nft", "legacy"),
        help="which iptables to use (what the machine calls iptables)",
    )
    one.add_argument(
        "--netns", metavar="NAME", help="load into this network namespace: a name or a path"
    )
    _add_look(one, "on standard error")

    one = commands.add_parser("explain", help="explain a message", description=EXPLAIN)
    one.add_argument("code", nargs="?", metavar="CODE", help="the word in brackets")
    for one in commands.choices.values():
        one.set_defaults(parser=one)
    return parser


def _add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the policy; `-` reads standard input")


def _add_look(parser: argparse.ArgumentParser, place: str) -> None:
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help=f"errors and warnings as text, or as JSON {place} (text)",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour in messages; auto asks the terminal, NO_COLOR and FORCE_COLOR (auto)",
    )
