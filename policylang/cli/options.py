"""Options that several commands share, and how the command line tells its errors."""

from __future__ import annotations

import argparse
from types import ModuleType
from typing import Any, NoReturn

from policylang.cli import descriptions

FORMATTER = argparse.RawDescriptionHelpFormatter
EVERY_FORMAT = ("text", "json", "github", "sarif")  # of commands that reviews are made of
DONE, REFUSED, INTERNAL = 0, 1, 3  # exit statuses
CHANGES = 2  # of commands whose answer may be "no" or "differs", as others' tools have it


class Parser(argparse.ArgumentParser):
    """An argparse parser that takes whole option names alone, and errors in our look."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=FORMATTER, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        self.exit(REFUSED, f"{self.prog}: {message}\n{self.format_usage()}")


def add_command(
    commands: Any, name: str, text: str, *, of: str = "", said: ModuleType = descriptions
) -> argparse.ArgumentParser:
    """A command, with what a module says of it under its name; `of` is what it belongs to.

    `commands` is where argparse keeps commands. Raises AttributeError for one without description.
    """
    called = "_".join(part for part in (of, name) if part).upper().replace("-", "_")
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=getattr(said, called),
        epilog=getattr(said, f"{called}_EXAMPLES", None),
    )
    return added


def add_flavour(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flavour",
        choices=("nft", "legacy"),
        help="which iptables to use (what the machine calls iptables)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="write one JSON value to standard output"
    )


def add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--netns", metavar="NAME", help="in this network namespace: a name or a path"
    )


def add_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the policy; `-` reads standard input")


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="a policy; `-` reads standard input"
    )


def add_subject(parser: argparse.ArgumentParser, which: str) -> None:
    text = f"a policy; `-` reads standard input. Or rules of any origin{which}"
    parser.add_argument("file", metavar="FILE", help=text)


def add_pattern(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("pattern", nargs="?", metavar="PATTERN", help=what)
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="text or JSON (text)"
    )


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """What a policy is given from outside: the values of its parameters, and its host."""
    add_values(parser)
    add_host(parser)


def add_values(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-D",
        dest="parameters",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_parameter,
        help="the value of a parameter that the policy declares by `param`; may be repeated",
    )


def add_host(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host", metavar="NAME", help="which of its hosts, where the policy has several"
    )
    add_inventory(parser)


def add_inventory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inventory",
        metavar="FILE",
        action="append",
        default=[],
        help="hosts and sets of hosts that are declared beside the policy; may be repeated",
    )


def _parameter(text: str) -> tuple[str, str]:
    """The name and the value of `-D NAME=VALUE`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError("expected NAME=VALUE")
    return name, value


def add_look(
    parser: argparse.ArgumentParser,
    place: str,
    what: str = "errors and warnings",
    *,
    formats: tuple[str, ...] = ("text", "json"),
) -> None:
    elsewhere = ", as commands for GitHub Actions, or as SARIF" if "sarif" in formats else ""
    parser.add_argument(
        "--format",
        choices=formats,
        default="text",
        help=f"{what} as text, or as JSON{elsewhere} {place} (text)",
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour in messages; auto asks the terminal, NO_COLOR and FORCE_COLOR (auto)",
    )


def add_answer_look(
    parser: argparse.ArgumentParser, what: str, *, formats: tuple[str, ...] = ("text", "json")
) -> None:
    """The same of a command that answers on standard output, and tells what is wrong elsewhere."""
    place = "on standard output, messages on standard error"
    add_look(parser, place, f"{what} and messages", formats=formats)
