"""The words of the commands that answer: what a policy does, and whether it is so.

It knows nothing of what they do.
"""

from __future__ import annotations

import argparse
from typing import Any

from policylang.backends import TARGETS
from policylang.cli import answer_descriptions
from policylang.cli.options import (
    EVERY_FORMAT,
    add_answer_look,
    add_command,
    add_file,
    add_files,
    add_flavour,
    add_look,
    add_parameters,
    add_place,
    add_subject,
)
from policylang.cli.visible import visible
from policylang.codes import CODES
from policylang.diagnostics import did_you_mean

MOST_PACKETS = 50_000  # of one expectation of a test


def add(commands: Any) -> None:
    """Add these commands, in the order in which the help lists them."""
    _add_lint(commands)
    _add_test(commands)
    _add_query(commands)
    _add_trace(commands)
    _add_diff(commands)
    _add_why(commands)
    _add_verify(commands)


def check(chosen: argparse.Namespace) -> None:
    """Errors that concern two options at once are told with the command's own usage."""
    if chosen.command in ("lint", "test") and chosen.files.count("-") > 1:
        chosen.parser.error("`-` is standard input, and can be read once")
    if chosen.command == "test" and not chosen.kernel and (chosen.target or chosen.packets):
        chosen.parser.error("--target and --packets are for `--kernel`")
    if chosen.command == "verify" and chosen.netns is not None and not chosen.live:
        chosen.parser.error("--netns is for `--live`: the proof itself needs no namespace")
    if chosen.command == "query":
        if chosen.matrix and chosen.questions:
            chosen.parser.error("--matrix asks its own questions: name services by `--services`")
        if not chosen.matrix and not chosen.questions:
            chosen.parser.error("ask a QUESTION, such as `ssh from any to self`, or `--matrix`")
        if chosen.services is not None and not chosen.matrix:
            chosen.parser.error("--services is for `--matrix`")
        if chosen.services is not None and not chosen.services.strip(", "):
            chosen.parser.error("--services names none: without it they are those of the policy")
    if chosen.command == "why":
        _check_why(chosen)
    if chosen.command == "diff":
        if chosen.rev is None and len(chosen.subjects) != 2:
            chosen.parser.error("name two things to compare, OLD and NEW, or `--rev A..B FILE`")
        if chosen.rev is not None and len(chosen.subjects) != 1:
            chosen.parser.error("--rev A..B is for one FILE")
        if chosen.rev is not None and "..." in chosen.rev:
            chosen.parser.error("--rev A..B has two dots: both revisions are taken as they are")
        if chosen.subjects.count("-") > 1:
            chosen.parser.error("`-` is standard input, and can be read once")


def _check_why(chosen: argparse.Namespace) -> None:
    if chosen.policy is None:
        if chosen.target is not None or chosen.parameters:
            chosen.parser.error("--target and -D are for `--policy FILE`")
    elif chosen.generation is not None:
        chosen.parser.error("--policy and --generation name two things to look in")
    elif chosen.netns is not None:
        chosen.parser.error("--netns is for what is in force there, and `--policy` is not")


def _add_test(commands: Any) -> None:
    one = add_command(commands, "test", "prove the tests of a policy", said=answer_descriptions)
    add_files(one)
    add_parameters(one)
    one.add_argument(
        "--name", metavar="PATTERN", help="the tests of this name alone; `*` stands for anything"
    )
    one.add_argument(
        "--kernel",
        action="store_true",
        help="play them on the real kernel, in namespaces of their own (as root)",
    )
    one.add_argument(
        "--target",
        choices=TARGETS,
        help="with --kernel: rules of this target alone (each way whose programs are here)",
    )
    one.add_argument(
        "--packets",
        type=_packets,
        metavar="N",
        help="with --kernel: at most so many for each expectation (300)",
    )
    add_answer_look(one, "results", formats=EVERY_FORMAT)


def _add_query(commands: Any) -> None:
    one = add_command(commands, "query", "say who can reach what", said=answer_descriptions)
    add_subject(
        one,
        ": `nft -j list ruleset`, iptables-save (`RULES.V4,RULES.V6`), a revision "
        "(`main:web.policy`), `live`",
    )
    one.add_argument("questions", nargs="*", metavar="QUESTION", help="worded like a rule")
    add_parameters(one)
    one.add_argument(
        "--matrix", action="store_true", help="a table: from each zone to each, by service"
    )
    one.add_argument(
        "--services",
        metavar="NAMES",
        help="of these services, with commas between (those that the policy names)",
    )
    one.add_argument(
        "--all", action="store_true", help="all parts of an answer, all rows of the table"
    )
    add_answer_look(one, "answers")


def _add_trace(commands: Any) -> None:
    one = add_command(
        commands, "trace", "tell a conversation packet by packet", said=answer_descriptions
    )
    add_subject(one, ", as for `query`")
    one.add_argument(
        "what", nargs="+", metavar="WHAT", help="worded like a rule: `ftp passive inbound from wan`"
    )
    add_parameters(one)
    one.add_argument("--reply", action="store_true", help="of a single packet: its answer as well")
    one.add_argument(
        "--verbose", action="store_true", help="each line of the rules that a packet meets"
    )
    one.add_argument(
        "-o",
        "--output",
        metavar="PATH",
        help="the file to write; one that ends in `.svg` gets a drawing",
    )
    one.add_argument(
        "--format",
        choices=("text", "json", "svg"),
        default="text",
        help="the story as text, as JSON, or as a drawing (text)",
    )
    one.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="colour in text; auto asks the terminal, NO_COLOR and FORCE_COLOR (auto)",
    )


def _add_lint(commands: Any) -> None:
    one = add_command(commands, "lint", "say what is hardly meant", said=answer_descriptions)
    add_files(one)
    add_parameters(one)
    for name, text in (("allow", "say nothing of it"), ("deny", "take it for an error")):
        one.add_argument(
            f"--{name}",
            action="append",
            default=[],
            type=_code,
            metavar="CODE",
            help=f"{text}; the word in brackets, may be given several times",
        )
    add_look(one, "on standard output", formats=EVERY_FORMAT)


def _code(text: str) -> str:
    if text not in CODES:
        hint = did_you_mean(text, CODES) or "`policylang explain` lists them all"
        raise argparse.ArgumentTypeError(f"no message has the id `{visible(text)}`: {hint}")
    return text


def _add_verify(commands: Any) -> None:
    one = add_command(
        commands, "verify", "prove that the rules do what a policy says", said=answer_descriptions
    )
    add_file(one)
    add_parameters(one)
    one.add_argument(
        "--target",
        choices=(*TARGETS, "both"),
        help="for this target (each whose programs are here)",
    )
    add_flavour(one)
    one.add_argument("--live", action="store_true", help="compare what is in force as well")
    add_place(one)
    add_answer_look(one, "results", formats=EVERY_FORMAT)


def _add_diff(commands: Any) -> None:
    one = add_command(
        commands, "diff", "say what two policies do differently", said=answer_descriptions
    )
    one.add_argument(
        "subjects",
        nargs="+",
        metavar="OLD NEW",
        help="policies, revisions of them (`main:web.policy`), `live`, `generation:N`, or rules of "
        "any origin; with `--rev` one FILE",
    )
    one.add_argument(
        "--rev", metavar="A..B", help="the FILE in two revisions of git, or in A and now"
    )
    add_parameters(one)
    add_place(one)
    one.add_argument(
        "--fail-on",
        choices=("any", "opened"),
        default="any",
        help="end with 2 where anything differs, or only where something is allowed that was not",
    )
    one.add_argument("--all", action="store_true", help="all changes, however many")
    add_answer_look(one, "changes", formats=("text", "markdown", "json"))


def _add_why(commands: Any) -> None:
    one = add_command(
        commands, "why", "find the statement behind a rule or a log line", said=answer_descriptions
    )
    one.add_argument(
        "what",
        nargs="+",
        metavar="WHAT",
        help="a rule, a line of the log, a handle, an address, a set, FILE:LINE; `-` reads one a "
        "line from standard input",
    )
    one.add_argument("--policy", metavar="FILE", help="of this policy (of what is in force)")
    one.add_argument("--target", choices=TARGETS, help="its rules for this target (nft)")
    one.add_argument(
        "--generation", type=int, metavar="N", help="of what an apply kept (what is in force)"
    )
    add_parameters(one)
    add_place(one)
    add_answer_look(one, "answers")


def _packets(text: str) -> int:
    """How many packets are tried for an expectation."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_PACKETS):
        raise argparse.ArgumentTypeError(f"expected a number from 1 to {MOST_PACKETS}")
    return int(text)
