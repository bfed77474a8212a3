"""What a question is asked of: a policy, a revision of one, what is or was in force, others' rules.

Whatever it was, it becomes a machine. What its rules mean it does not know.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from policylang.cli.given import NOTHING, Given
from policylang.cli.revisions import Revision, laid_out, revision_of
from policylang.diagnostics import Report

if TYPE_CHECKING:
    from policylang.analysis.machine import Machine
    from policylang.analysis.wording import Names
    from policylang.apply.listing import Listing
    from policylang.apply.record import Record
    from policylang.backends.base import Artifact
    from policylang.ir.ruleset import Ruleset
    from policylang.model.policy import Policy
    from policylang.pipeline import Source, Text
    from policylang.source import SourceFile
    from policylang.syntax.tree import Loaded

LIVE, GENERATION = "live", "generation"
_GENERATION = re.compile(r"[0-9]{1,9}")
STDIN, STDIN_NAME = "-", "<stdin>"
RULES_V4, RULES_V6, SETS = "rules.v4", "rules.v6", "sets.ipset"  # of a compile to a folder
NFT, IPTABLES = "nft", "iptables"
MOST_HEAD_LINES = 5  # of a file, in which its program says its name

_READABLE = "`nft -j list ruleset`, `iptables-save` and `ip6tables-save` write what can be read"


@dataclass(frozen=True, slots=True)
class Subject:
    """`name` is what lines call it, `names` what it calls things.

    `policy` and `ruleset` are there where it is a policy. Else it is rules of `target` as a kernel
    has them, or had, and `machine` is in that target's words. Of other `families` it tells nothing.
    """

    name: str
    machine: Machine
    names: Names
    policy: Policy | None = None
    ruleset: Ruleset | None = None
    target: str | None = None
    families: tuple[int, ...] = (4, 6)


@dataclass(frozen=True, slots=True)
class SeveralHosts:
    """A policy of several hosts, none of which was chosen: on each it would be another subject."""

    name: str
    loaded: Loaded


def subject_of(
    words: str,
    report: Report,
    *,
    parameters: Mapping[str, str],
    netns: str | None = None,
    questions: tuple[SourceFile, ...] = (),
    given: Given = NOTHING,
) -> Subject | None:
    """The same as `named`; where a policy has several hosts, one has to be chosen: `which-host`."""
    found = named(
        words, report, parameters=parameters, netns=netns, questions=questions, given=given
    )
    return one_of(found, report)


def one_of(found: Subject | SeveralHosts | None, report: Report) -> Subject | None:
    """What is one subject; None, and `which-host`, of several hosts."""
    if not isinstance(found, SeveralHosts):
        return found
    from policylang import pipeline

    pipeline.of_host(found.loaded, None, report)
    return None


def named(
    words: str,
    report: Report,
    *,
    parameters: Mapping[str, str],
    netns: str | None = None,
    questions: tuple[SourceFile, ...] = (),
    given: Given = NOTHING,
) -> Subject | SeveralHosts | None:
    """What words of the command line name; None, with errors in the report, where it is nothing.

    A FILE, `-`, `REV:FILE`, `generation:N`, `live`, or rules of any origin: what `nft -j list
    ruleset` or iptables-save wrote (IPv4, IPv6 and ipsets with commas between), a script for nft,
    or a folder that `compile --target iptables` wrote. A file of such a name comes first.
    `questions` are put to a policy in its own words, as the last of its tests.
    """
    if words != STDIN and not Path(words).exists():
        if words == LIVE:
            return _live(netns, report)
        kind, _, number = words.partition(":")
        if words == GENERATION or (kind == GENERATION and _GENERATION.fullmatch(number)):
            return _generation(int(number) if number else None, netns, report)
        if "," in words:
            return _saved(words.split(","), words, report)
        revision = revision_of(words)
        if revision is not None:
            return of_revision(
                revision, report, parameters=parameters, questions=questions, given=given
            )
    return _file(words, words, report, parameters, questions, given)


def of_revision(
    revision: Revision,
    report: Report,
    *,
    parameters: Mapping[str, str],
    questions: tuple[SourceFile, ...] = (),
    given: Given = NOTHING,
) -> Subject | SeveralHosts | None:
    """A file as it is in a revision of git."""
    with laid_out(revision, report) as path:
        if path is None:
            return None
        return _file(str(path), revision.text, report, parameters, questions, given)


# --- files ------------------------------------------------------------------------------------


def _file(
    words: str,
    called: str,
    report: Report,
    parameters: Mapping[str, str],
    questions: tuple[SourceFile, ...],
    given: Given,
) -> Subject | SeveralHosts | None:
    path = Path(words)
    if words != STDIN and path.is_dir() and (path / RULES_V4).exists():
        names = [path / one for one in (RULES_V4, RULES_V6, SETS)]
        return _saved([str(one) for one in names if one.exists()], called, report)
    data = _bytes(words, called, report)
    if data is None:
        return None
    text = _decoded(data)
    match _kind_of(text):
        case "nft-json":
            from policylang.analysis.reading_nft import read_nft

            return _read(called, NFT, lambda: read_nft(text), report)
        case "iptables":
            return _of_texts([text], called, report)
        case "nft-script":
            return _script(text, called, report)
    called = STDIN_NAME if words == STDIN else called
    source = _source(words, data, called, report)
    if source is None:
        return None
    return _policy(given.to(source), called, report, parameters, questions)


def _source(words: str, data: bytes, called: str, report: Report) -> Path | Text | None:
    """A policy that was read; None, with `not-utf8`, where it is no text and has no place to tell.

    What can be read only once (standard input, a pipe) is not read again.
    """
    from policylang.pipeline import Text

    if words != STDIN and Path(words).is_file():
        return Path(words)
    try:
        return Text(data.decode("utf-8-sig"), called, Path.cwd())
    except UnicodeDecodeError as error:
        where = "standard input" if words == STDIN else f"`{called}`"
        report.add("not-utf8", f"byte {error.start + 1} of {where} is not UTF-8", None)
        return None


def _bytes(words: str, called: str, report: Report) -> bytes | None:
    """What a file or standard input holds; reports `unreadable-file`."""
    if words == STDIN:
        return _input(called, report)
    try:
        return Path(words).read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no such path"
        report.add("unreadable-file", f"cannot read `{called}`: {why[0].lower()}{why[1:]}", None)
        return None


def _decoded(data: bytes) -> str:
    """Text in which what is not UTF-8 has a mark in its place: who reads a policy tells where."""
    return data.decode("utf-8-sig", "replace")


def _text(words: str, report: Report) -> str | None:
    data = _bytes(words, words, report)
    return None if data is None else _decoded(data)


def standard_input(called: str, report: Report) -> str | None:
    """What standard input holds; reports `unreadable-file`."""
    data = _input(called, report)
    return None if data is None else _decoded(data)


def _input(called: str, report: Report) -> bytes | None:
    if sys.stdin is None:
        report.add("unreadable-file", "standard input is closed", None)
        return None
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        why = error.strerror or "it cannot be read"
        report.add("unreadable-file", f"cannot read `{called}`: {why}", None)
        return None


def _kind_of(text: str) -> str:
    """`nft-json`, `iptables`, `nft-script`; what else is a policy, or is told as one."""
    if text.lstrip()[:1] in ("{", "["):
        return "nft-json"
    lines = [line.strip() for line in text.splitlines()]
    # One that is cut off is told as one that is cut off.
    if _first_line(text) in _TABLES or ("COMMIT" in lines and any(ln in _TABLES for ln in lines)):
        return "iptables"
    if text.startswith("#!") and "nft" in lines[0]:
        return "nft-script"
    return "nft-script" if _first_line(text).startswith(_NFT_WORDS) else "policy"


def _first_line(text: str) -> str:
    """The first line that is neither empty nor a comment."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "")


_TABLES = frozenset(f"*{name}" for name in ("filter", "nat", "mangle", "raw", "security"))
_NFT_WORDS = ("table ", "add table ", "flush ruleset", "flush table ", "destroy table ")


def _policy(
    source: Source,
    called: str,
    report: Report,
    parameters: Mapping[str, str],
    questions: tuple[SourceFile, ...],
) -> Subject | SeveralHosts | None:
    """A policy; its warnings are for who compiles it."""
    from policylang import pipeline

    own = Report()
    loaded = pipeline.loaded_from(source, own, parameters, questions)
    if loaded.hosts and loaded.here is None:
        if own.has_errors:
            report.take(own)
        return SeveralHosts(called, loaded)
    return _of_loaded(called, loaded, own, report)


def on_host(site: SeveralHosts, host: str, report: Report) -> Subject | None:
    """What one of several hosts does; None, with errors in the report, where that is not told."""
    from policylang import pipeline

    own = Report()
    loaded = pipeline.of_host(site.loaded, host, own)
    if loaded is None:
        report.take(own)
        return None
    return _of_loaded(site.name, loaded, own, report)


def _of_loaded(called: str, loaded: Loaded, own: Report, report: Report) -> Subject | None:
    """The same of a policy that was read, with what was told of it meanwhile."""
    from policylang import pipeline
    from policylang.analysis.modelled import machine_of
    from policylang.analysis.naming import names_of
    from policylang.lower.stateful import lower

    policy = pipeline.meant_by(loaded, own)
    ruleset = None if policy is None else lower(policy, own)
    if own.has_errors or policy is None or ruleset is None:
        report.take(own)
        return None
    names = names_of(policy, ruleset.address_tests)
    return Subject(called, machine_of(ruleset), names, policy, ruleset)


def _saved(names: list[str], called: str, report: Report) -> Subject | None:
    texts = [text for name in names if (text := _text(name, report)) is not None]
    return _of_texts(texts, called, report) if len(texts) == len(names) else None


def _of_texts(texts: list[str], called: str, report: Report) -> Subject | None:
    """Rules of iptables: IPv4, IPv6 where there is a second text, and sets wherever they are."""
    from policylang.analysis.reading_iptables import read_iptables

    sets = [text for text in texts if _first_line(text).startswith(("create ", "add "))]
    rules = [text for text in texts if text not in sets]
    if len(rules) not in (1, 2):
        message = f"`{called}` names {len(rules)} texts of rules"
        help_ = "name the rules for IPv4, those for IPv6, and what `ipset save` wrote"
        report.add("unreadable-rules", message, None, help=help_)
        return None
    v4, v6 = (*rules, "")[:2]
    family = 6 if len(rules) == 1 and _is_for_ipv6(v4) else 4
    if family == 6:
        v4, v6 = v6, v4
    found = _read(called, IPTABLES, lambda: read_iptables(v4, v6, "".join(sets)), report)
    return found if found is None or len(rules) > 1 else replace(found, families=(family,))


def _is_for_ipv6(rules: str) -> bool:
    """Whether rules of iptables are for IPv6: the comment says so that their program writes."""
    comments = (line for line in rules.splitlines()[:MOST_HEAD_LINES] if line.startswith("#"))
    return any("ip6tables" in line for line in comments)


def _script(text: str, called: str, report: Report) -> Subject | None:
    """A script for nft, which nft itself is to read: in a scratch namespace."""
    from policylang.apply import kernel, running

    shown = kernel.in_scratch(lambda: running.listing_of_script(text, report), report)
    return None if shown is None else _listed(called, (shown,), report)


def _read(called: str, target: str, read: Callable[[], Machine], report: Report) -> Subject | None:
    from policylang.analysis.unreadable import UnreadableError
    from policylang.analysis.wording import NO_NAMES

    try:
        return Subject(called, read(), NO_NAMES, target=target)
    except UnreadableError as error:
        message = f"cannot read `{called}` at line {error.line}: {error.message}"
        report.add("unreadable-rules", message, None, help=_READABLE)
        return None


# --- what is and was in force -----------------------------------------------------------------


def _listed(called: str, shown: tuple[Listing, ...], report: Report) -> Subject | None:
    from policylang.analysis.reading_iptables import read_iptables
    from policylang.analysis.reading_nft import read_nft
    from policylang.analysis.together import together

    def read() -> Machine:
        machines = (
            read_nft(one.json)
            if one.target == NFT
            else read_iptables(one.rules_v4, one.rules_v6, one.sets)
            for one in shown
        )
        return together(machines)

    is_ours_by_iptables = any("policylang" in one.rules_v4 for one in shown)
    return _read(called, IPTABLES if is_ours_by_iptables else NFT, read, report)


def _live(netns: str | None, report: Report) -> Subject | None:
    """All that packets meet in a namespace, whoever loaded it."""
    from policylang.apply import guard, running
    from policylang.cli.changing import site_of

    shown = guard.inside(site_of(netns), lambda: running.running(report), report)
    return None if shown is None else _listed(LIVE, shown, report)


def _generation(number: int | None, netns: str | None, report: Report) -> Subject | None:
    """A generation of the record, the one in force where no number is given."""
    from policylang.cli.changing import site_of

    found = artifact_in_record(site_of(netns).record, number, report)
    if found is None:
        return None
    number, artifact = found
    called = f"{GENERATION}:{number}"
    shown = _listing_of(artifact, report)
    subject = None if shown is None else _listed(called, (shown,), report)
    return None if subject is None else replace(subject, target=artifact.target)


def artifact_in_record(
    record: Record, number: int | None, report: Report
) -> tuple[int, Artifact] | None:
    """A generation and its number, of None that by which packets are judged at present.

    Reports `no-such-generation`, and what keeps the record from being read.
    """
    if number is None:
        number = in_force(record, report)
        if number is None:
            if not report.has_errors:
                message = "no generation is in force"
                help_ = "`policylang generations` lists those that are kept"
                report.add("no-such-generation", message, None, help=help_)
            return None
    artifact = record.artifact(number, report)
    return None if artifact is None else (number, artifact)


def in_force(record: Record, report: Report) -> int | None:
    """The generation by which packets are judged at present; None where there is none."""
    state = record.state(report)
    return None if state is None else state.pending or state.current


def machine_of_artifact(called: str, artifact: Artifact, report: Report) -> Machine | None:
    """The rules of an artifact, read as the kernel lists them."""
    shown = _listing_of(artifact, report)
    subject = None if shown is None else _listed(called, (shown,), report)
    return None if subject is None else subject.machine


def _listing_of(artifact: Artifact, report: Report) -> Listing | None:
    from policylang.apply import kernel, running

    if artifact.target == IPTABLES and not kernel.may_change(Report()):
        return running.text_of(artifact)
    return kernel.in_scratch(lambda: running.listing_of(artifact, report), report)


# --- two of them ------------------------------------------------------------------------------


def in_same_words(
    one: Subject, other: Subject, owners: Mapping[tuple[str, str], int] | None = None
) -> tuple[Machine, Machine]:
    """The machines of two subjects with sets called alike, so that they can be compared.

    What is not a policy's is read with the names that the other's policy gives to its sets.
    `owners` are the numbers of the users and groups that rules name, None: on this machine. A
    family of which one of the two tells nothing is left out of both.
    """
    from policylang.analysis.modelled import machine_of
    from policylang.analysis.ours import as_asked, as_listed
    from policylang.apply.here import owners as owners_of

    target = one.target or other.target or NFT
    rulesets = [subject.ruleset for subject in (one, other) if subject.ruleset is not None]

    is_here = any(subject.target is not None for subject in (one, other))

    def told(subject: Subject) -> Machine:
        if subject.ruleset is not None:
            # What a kernel has speaks of numbers of users, and has one target's lines alone.
            machine = subject.machine
            if is_here:
                numbers = owners_of(subject.ruleset) if owners is None else owners
                machine = machine_of(subject.ruleset, target=target, owners=numbers)
            return as_asked(machine, subject.ruleset, target)
        return as_listed(subject.machine, rulesets[0], target) if rulesets else subject.machine

    known = families_of(one, other)
    return _of_families(told(one), known), _of_families(told(other), known)


def families_of(one: Subject, other: Subject) -> tuple[int, ...]:
    """The families of which both subjects tell."""
    return tuple(family for family in one.families if family in other.families)


def _of_families(machine: Machine, families: tuple[int, ...]) -> Machine:
    kept = (
        replace(base, families=known)
        for base in machine.bases
        if (known := tuple(f for f in base.families if f in families))
    )
    return replace(machine, bases=tuple(kept))
