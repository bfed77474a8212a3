"""`policylang trace`: tells a conversation packet by packet, and why each one passes or not."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from policylang.cli.given import given
from policylang.cli.options import CHANGES, DONE, REFUSED
from policylang.cli.output import write_file, write_stdout
from policylang.cli.subjects import SeveralHosts, Subject, named
from policylang.cli.teller import show, wants_color
from policylang.diagnostics import Report, did_you_mean
from policylang.packets.values import NAME_BYTES
from policylang.source import SourceFile

if TYPE_CHECKING:
    from policylang.analysis.conversation.casting import Cast
    from policylang.analysis.conversation.staging import Wanted
    from policylang.analysis.conversation.story import Story
    from policylang.analysis.machine import Machine
    from policylang.analysis.wording import Names
    from policylang.model.policy import Policy
    from policylang.model.types import PolicyRule

SINGLE = "packet"  # what stands before the words for a single packet
PLACES = frozenset({"inbound", "outbound", "from", "to"})
PLACE_ENDS = frozenset({"to", "inbound", "outbound"})  # what says where it goes
STATES = ("new", "established", "related", "invalid", "untracked")
FLAGS = {"fin": 0x01, "syn": 0x02, "rst": 0x04, "psh": 0x08, "ack": 0x10, "urg": 0x20, "none": 0}
OWN_WORDS = ("flags", "state", "interface")


@dataclass(frozen=True, slots=True)
class Words:
    """What is to be traced: a question in the language's words, and what it cannot say.

    `is_packet` asks for a single packet; `flags` is a number, `state` one of `STATES`.
    """

    question: str
    is_packet: bool
    mode: str | None
    flags: int | None
    state: str | None
    interface: str | None


@dataclass(frozen=True, slots=True)
class Traced:
    """A story, and what it was asked by; `helper` is the one that such a conversation needs.

    `others` are further ways (`forwarded`) that packets of the same words may take.
    """

    policy: str
    words: Words
    wanted: Wanted
    cast: Cast
    story: Story
    others: tuple[str, ...]
    helper: str | None
    names: Names


def run(chosen: argparse.Namespace) -> int:
    """Trace what was asked for; the exit status.

    2 where the conversation does not work, 1 where something could not be read.
    """
    report = Report()
    words = words_of(chosen.what, report)
    found = None if words is None else _subject(chosen, words, report)
    works = False
    if words is not None and isinstance(found, SeveralHosts):
        from policylang.cli import site_traces

        followed = site_traces.follow(found, chosen, words, report)
        if followed is not None:
            works = followed.stop is None
            _write(site_traces.text_of(followed, chosen), chosen, report)
    elif words is not None and isinstance(found, Subject) and not report.has_errors:
        traced = _traced(found, chosen, words, report)
        if traced is not None and not report.has_errors:
            works = traced.story.works
            _write(_text(traced, chosen), chosen, report)
    show(report, chosen, sys.stderr)
    if report.has_errors:
        return REFUSED
    return DONE if works else CHANGES


# --- what is asked ------------------------------------------------------------------------------


def words_of(what: list[str], report: Report) -> Words | None:
    """The words of the command line taken apart; None, reported as `bad-trace`, where one is odd.

    An end that is left out is this host.
    """
    words = " ".join(what).replace(", ", ",").split()
    is_packet = words[:1] == [SINGLE]
    rest = words[1:] if is_packet else words
    said: dict[str, str] = {}
    kept: list[str] = []
    while rest:
        word, *rest = rest
        if word in OWN_WORDS:
            if not rest or word in said:
                odd = f"nothing stands behind `{word}`" if not rest else f"`{word}` is said twice"
                report.add("bad-trace", odd, None, help=_HELP[word])
                return None
            said[word], *rest = rest
        else:
            kept.append(word)
    flags = _flags(said.get("flags"), report)
    state = said.get("state")
    if state is not None and state not in STATES:
        hint = did_you_mean(state, STATES) or _HELP["state"]
        report.add("bad-trace", f"`{state}` is no state", None, help=hint)
    if not is_packet and ("flags" in said or "state" in said):
        message = f"`{'flags' if 'flags' in said else 'state'}` is said of a single packet"
        example = f"packet tcp 22 inbound {'flags syn,fin' if 'flags' in said else 'state invalid'}"
        report.add("bad-trace", message, None, help=f"for example `{example}`")
    interface = said.get("interface")
    if interface is not None and not _is_interface(interface):
        report.add("bad-trace", f"`{interface}` is no interface", None, help=_HELP["interface"])
    if not kept:
        message = "nothing is said of what to trace"
        report.add("bad-trace", message, None, help="for example `ftp passive inbound from wan`")
    if report.has_errors:
        return None
    kept, mode = _without_mode(kept, is_packet=is_packet)
    return Words(" ".join(_with_ends(kept)), is_packet, mode, flags, state, interface)


_HELP = {
    "flags": "flags stand behind it: `flags syn,ack`, or `flags none`",
    "state": f"a state stands behind it: {', '.join(STATES)}",
    "interface": "the name of one stands behind it, of 15 bytes at most: `interface eth0`",
}


def _is_interface(name: str) -> bool:
    """Whether the kernel takes it for a name (dev_valid_name); a pattern is no single one."""
    odd = not name.isprintable() or any(letter in name for letter in "/:*")
    return not odd and name not in (".", "..") and len(name.encode()) < NAME_BYTES


def _flags(text: str | None, report: Report) -> int | None:
    if text is None:
        return None
    flags = 0
    for name in text.split(","):
        if name not in FLAGS:
            hint = did_you_mean(name, FLAGS) or f"flags are {', '.join(FLAGS)}"
            report.add("bad-trace", f"`{name or text}` is no TCP flag", None, help=hint)
            return None
        flags |= FLAGS[name]
    return flags


def _without_mode(kept: list[str], *, is_packet: bool) -> tuple[list[str], str | None]:
    """The words less that behind the service which says how it goes (`ftp passive`)."""
    from policylang.analysis.conversation.staging import MODES

    if is_packet or len(kept) < 2:
        return kept, None
    if kept[1] in MODES.get(kept[0], ()):
        return [kept[0], *kept[2:]], kept[1]
    modes = {mode for modes in MODES.values() for mode in modes} - {"tcp", "udp"}
    for at, word in enumerate(kept[1:], 1):
        if word in PLACES:
            break
        if word in modes:
            return [*kept[:at], *kept[at + 1 :]], word
    return kept, None


def _with_ends(kept: list[str]) -> list[str]:
    """The words with this host as the end that is left out."""
    said = set(kept)
    if said & PLACE_ENDS and ("to" not in said or said & {"from", "inbound", "outbound"}):
        return kept
    if "from" in said:
        return [*kept, "to", "self"]
    if "to" in said:
        at = kept.index("to")
        return [*kept[:at], "from", "self", *kept[at:]]
    return [*kept, "inbound"]


# --- the story ----------------------------------------------------------------------------------


def _subject(
    chosen: argparse.Namespace, words: Words, report: Report
) -> Subject | SeveralHosts | None:
    """Whose rules are asked: a policy has the question as the last of its tests."""
    besides = given(chosen, report)
    if besides is None:
        return None
    return named(
        chosen.file,
        report,
        parameters=chosen.parameters,
        questions=_questions(words),
        given=besides,
    )


def _questions(words: Words) -> tuple[SourceFile, ...]:
    return (SourceFile("trace", words.question),)


def _traced(
    found: Subject, chosen: argparse.Namespace, words: Words, report: Report
) -> Traced | None:
    from policylang import pipeline
    from policylang.analysis.conversation import staging
    from policylang.analysis.matrix import interfaces_of
    from policylang.analysis.modelled import machine_of
    from policylang.lower.asked import asking
    from policylang.lower.stateful import lower

    policy: Policy | None = found.policy
    machine: Machine = found.machine
    if policy is not None:
        # Not optimised: each line is of one statement, so that it can be told which one decided.
        machine = machine_of(lower(policy, Report()))
        zones = policy.zones
    else:
        policy = pipeline.questions_of(_questions(words), report)
        if policy is None:
            return None
        zones = interfaces_of(machine)
    (expectation,) = policy.tests[-1].expectations
    rule: PolicyRule = expectation.asked
    asker = asking(policy, [rule], report)
    wanted = wanted_of(words, rule, report, is_answered=chosen.reply)
    if wanted is None or report.has_errors:
        return None
    asked = asker.asked(rule)
    casts = staging.casts(asked, wanted, zones)
    cast = next(casts, None)
    if cast is None:
        help_ = "the ends and what it speaks of exclude each other, or are of two families"
        if asked.published:
            help_ = "what another program forwards is not known here: name where it goes to"
        report.add("bad-trace", f"no packet is what `{words.question}` says", None, help=help_)
        return None
    refuse_what_does_not_fit(words, wanted, cast, report)
    if report.has_errors:
        return None
    story = staging.play(machine, cast, wanted, rule, address_tests=asker.tests)
    others = dict.fromkeys(_WAYS[other.path] for other in casts if other.path is not cast.path)
    return Traced(
        found.name,
        words,
        wanted,
        cast,
        story,
        tuple(others),
        helper_of(wanted),
        found.names,
    )


def refuse_what_does_not_fit(words: Words, wanted: Wanted, cast: Cast, report: Report) -> None:
    """Report `bad-trace` where something is said that packets of this protocol do not have."""
    from policylang.analysis.conversation.scripts import TOO_BIG, UNREACHABLE
    from policylang.analysis.conversation.wire import ECHOES
    from policylang.packets.fields import TCP

    if words.flags is not None and cast.protocol != TCP:
        message = f"`{words.question}` is not TCP, which alone has `flags`"
        report.add("bad-trace", message, None, help="leave them out")
    if wanted.mode in (TOO_BIG, UNREACHABLE) and cast.protocol in ECHOES:
        message = f"no error about `{words.question}` is played, which is ICMP itself"
        report.add("bad-trace", message, None, help=f"leave out `{wanted.mode}`")


_WAYS = {"input": "inbound", "forward": "forwarded", "output": "outbound"}


def wanted_of(
    words: Words, rule: PolicyRule, report: Report, *, is_answered: bool
) -> Wanted | None:
    """What is to be played of a question; None, with `bad-trace`, where that cannot be."""
    from policylang.analysis.conversation import staging
    from policylang.analysis.conversation.scripts import PACKET, PLAIN
    from policylang.packets.fields import State
    from policylang.packets.values import name_range

    kind = staging.kind_of(rule)
    if is_answered and not words.is_packet:
        help_ = "for example `packet tcp 22 inbound`; a conversation has its answers anyway"
        report.add("bad-trace", "`--reply` is said of a single packet", None, help=help_)
        return None
    if words.is_packet:
        kind = PACKET
    elif kind not in staging.MODES:
        kind = PLAIN
    if words.mode is not None and kind == PLAIN and words.mode not in staging.MODES[PLAIN]:
        # A service of the policy's own, without a helper: the mode says what it speaks.
        kind = next((k for k, modes in staging.MODES.items() if words.mode in modes), kind)
    modes = staging.MODES[kind]
    if words.mode is not None and words.mode not in modes:
        names = ", ".join(f"`{mode}`" for mode in modes)
        report.add(
            "bad-trace",
            f"such a conversation is not `{words.mode}`",
            None,
            help=f"it is {names}" if names else "leave it out",
        )
        return None
    wanted = staging.Wanted(kind, words.mode, words.flags, is_answered=is_answered)
    if words.state is not None:
        wanted = replace(wanted, state=State[words.state.upper()])
    if words.interface is not None:
        wanted = replace(wanted, interface=name_range(words.interface)[0])
    return wanted


def helper_of(wanted: Wanted) -> str | None:
    """The conntrack helper that such a conversation needs, if it needs one."""
    from policylang.analysis.conversation import staging

    return wanted.kind if wanted.kind in staging.HELPED else None


# --- telling --------------------------------------------------------------------------------------


def _text(traced: Traced, chosen: argparse.Namespace) -> str:
    """The story in the form that is wanted."""
    from policylang.cli import ladder, stories

    path = chosen.output
    if chosen.format == "svg" or (path is not None and path.endswith(".svg")):
        return ladder.drawn(
            traced.story,
            title_of(traced),
            traced.names,
            policy=traced.policy,
            asked=traced.words.question,
            helper=traced.helper,
        )
    if chosen.format == "json":
        return json.dumps(stories.as_json(traced), indent=2) + "\n"
    color = path in (None, "-") and wants_color(chosen.color, sys.stdout)
    return stories.as_text(traced, color=color, is_verbose=chosen.verbose)


def _write(text: str, chosen: argparse.Namespace, report: Report) -> None:
    """Write it where it is wanted."""
    if chosen.output in (None, "-"):
        write_stdout(text, report)
    else:
        write_file(Path(chosen.output), text, report)


def title_of(traced: Traced) -> str:
    """What was asked, with the mode that was played."""
    words = traced.words
    service, _, rest = words.question.partition(" ")
    mode = "" if words.mode is None else f" {words.mode}"
    return f"{'packet ' if words.is_packet else ''}{service}{mode} {rest}".strip()
