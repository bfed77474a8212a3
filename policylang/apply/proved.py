"""Proves that what is to be loaded does to every packet what the policy says, before it is loaded.

What the kernel lists of it in a scratch namespace is read by readers that share nothing with what
wrote it, and compared with the policy's rules packet by packet, all packets at once. It knows the
order of these steps, and what to say where they fail.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from policylang import pipeline
from policylang.analysis import natives
from policylang.analysis.agreement import Disagreement, Ground
from policylang.analysis.diagram import TooLargeError
from policylang.analysis.differing import in_words, packet_in_words
from policylang.analysis.machine import Goto, Machine, Obscure, Unknown
from policylang.analysis.modelled import machine_of
from policylang.analysis.ours import as_asked, as_listed
from policylang.analysis.places_that_work import misplaced
from policylang.analysis.reading_iptables import read_iptables
from policylang.analysis.reading_nft import read_nft
from policylang.analysis.unreadable import UnreadableError
from policylang.apply import transaction
from policylang.apply.engine import Engine
from policylang.apply.here import Here, here_of, utc_offset_s
from policylang.apply.listing import Listing
from policylang.apply.loaded import Chain, Loaded
from policylang.apply.transaction import Rehearsal
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.ruleset import Rule, Ruleset

MOST_TOLD = 3  # disagreements of one listing: one mistake often has many

OURS = "this is a mistake in policylang: nothing is loaded. Please report it with the policy"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared: the policy's rules and the target's, as packets meet them."""

    meant: Machine
    listed: Machine


def is_proved(ruleset: Ruleset, rehearsal: Rehearsal, engine: Engine, report: Report) -> bool:
    """Whether it is proved that a rehearsal did what a policy says; reports as `proof` does."""
    return proof(ruleset, rehearsal, engine, report) is not None


def proof(
    ruleset: Ruleset,
    rehearsal: Rehearsal,
    engine: Engine,
    report: Report,
    *,
    here: Here | None = None,
    again: Rehearsal | None = None,
) -> Proof | None:
    """What was proved; None, with `not-as-meant` or `not-proved` in `report`, where it is not so.

    `ruleset` is as the statements say it (`pipeline.lowered`), `rehearsal` of the artifact that
    it became. Where rules have lines of the target's own, they are loaded once more, with a log in
    the place of each. Where there is too much to prove, `unproved` is reported, and that is told.

    Another machine's rehearsal comes with what that machine tells of itself in `here`, and with its
    rehearsal of `with_logs` in `again`.
    """
    here = here_of(ruleset) if here is None else here
    target = rehearsal.listing.target
    marked = natives.marked(ruleset, target)
    if marked is not None:
        again = _rehearsed(marked, target, engine) if again is None else again
        if again is None:
            _not_proved(engine.way, "the rules without lines of its own language", "", report)
            return None
        if not _are_alike(rehearsal.loaded, again.loaded):
            _not_proved(engine.way, "lines of its own language among the others", "", report)
            return None
        ruleset, rehearsal = marked, again
    listed = read(rehearsal.listing, engine.way, report, ruleset, here)
    if listed is None:
        return None
    listed = as_listed(listed, ruleset, target)
    meant = policy_machine(ruleset, target, here)
    if _is_understood(listed, engine.way, report) and _agree(
        meant, listed, target, engine.way, report
    ):
        return Proof(meant, listed)
    return None


def with_logs(meant: Ruleset, target: str) -> Artifact | None:
    """What is rehearsed beside the policy's rules, to prove them; None where nothing is."""
    marked = natives.marked(meant, target)
    return None if marked is None else _artifact(marked, target)


def _artifact(meant: Ruleset, target: str) -> Artifact | None:
    ruleset = pipeline.optimised(meant, Report())
    return None if ruleset is None else pipeline.artifact_of(ruleset, target, Report())


def _rehearsed(meant: Ruleset, target: str, engine: Engine) -> Rehearsal | None:
    artifact = _artifact(meant, target)
    return None if artifact is None else transaction.rehearsal(artifact, engine, Report())


def policy_machine(ruleset: Ruleset, target: str, here: Here | None = None) -> Machine:
    """The rules of a policy, in the words in which a target's can be compared with them."""
    here = here_of(ruleset) if here is None else here
    machine = machine_of(ruleset, target=target, owners=here.owners)
    return as_asked(machine, ruleset, target, here.utc_offset_s)


def read(
    text: Listing, way: str, report: Report, ruleset: Ruleset, here: Here | None = None
) -> Machine | None:
    """The rules of a listing; None, and `not-proved`, where it is none.

    `ruleset` says whether last days end at midnight in UTC or in local time.
    """
    try:
        if text.target == "nft":
            offset_s = utc_offset_s() if here is None else here.utc_offset_s
            is_local = _is_local(ruleset)
            return read_nft(_ending_at_midnight(text.json, offset_s) if is_local else text.json)
        return read_iptables(text.rules_v4, text.rules_v6, text.sets)
    except UnreadableError as error:
        message = f"what {way} lists cannot be read: {error.message}"
        report.add("not-proved", message, None, help=OURS)
        return None


def _is_local(ruleset: Ruleset) -> bool:
    guards = (
        guard
        for chain in ruleset.chains
        for item in chain.items
        if isinstance(item, Rule)
        for guard in item.guards
    )
    return any(isinstance(guard, ir.UntilGuard) and guard.is_local for guard in guards)


# As nft lists it: `{"left": {"meta": {"key": "time"}}, "right": "2027-02-01 05:00:00"}`.
_MOMENT = re.compile(r'(?<="right": ")\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?=")')


def _ending_at_midnight(text: str, offset_s: int) -> str:
    """A listing in which moments are those of the clock by which nft read them."""
    offset = timedelta(seconds=offset_s)
    return _MOMENT.sub(lambda found: str(datetime.fromisoformat(found[0]) + offset), text)


# --- comparing --------------------------------------------------------------------------------


def _agree(meant: Machine, listed: Machine, target: str, way: str, report: Report) -> bool:
    for wrong in misplaced(listed, target):
        origin = next(iter(wrong.line.origins), None)
        message = f"a rule of {way} does nothing where it stands: it {wrong.why}"
        help_ = f"{wrong.line.place or wrong.base.place}: {OURS}"
        report.add("not-as-meant", message, origin.span if origin else None, help=help_)
        return False
    try:
        found = list(islice(_disagreements(meant, listed, way, report), MOST_TOLD))
    except TooLargeError:
        message = f"there are too many different packets to prove what {way} does to each"
        help_ = "the kernel took the rules: `apply` loads them nevertheless"
        report.add("unproved", message, None, help=help_)
        return True
    for one in found:
        tell(one, way, report)
    return not found and not report.has_errors


def _disagreements(
    meant: Machine, listed: Machine, way: str, report: Report
) -> Iterator[Disagreement]:
    ground = Ground(meant, listed)
    there = ground.followed(listed)
    yield from ground.differences(ground.followed(meant), there)
    for base, packet in ground.left_to_policy(there):
        message = f"a chain of {way} leaves packets to its policy: {packet_in_words(packet)}"
        help_ = f"{base.place}: they would pass while it is replaced; {OURS}"
        report.add("not-as-meant", message, None, help=help_)


def tell(found: Disagreement, way: str, report: Report) -> None:
    """Report `not-as-meant`, at the statement that decides what is meant."""
    told = in_words(found)
    message = f"{way} {told.loaded} where the policy {told.meant}: {told.packet} ({told.hook})"
    parts = [f"it meets {told.line}" if told.line else "it meets no rule that decides"]
    if told.beside:
        parts.append(f"it depends on {told.beside}")
    span = None if told.statement is None else told.statement.span
    report.add("not-as-meant", message, span, help=f"{'; '.join(parts)}. {OURS}")


def _is_understood(machine: Machine, way: str, report: Report) -> bool:
    """Whether all that packets can meet is understood; reports `not-proved`."""
    for text, place in _obscure(machine):
        _not_proved(way, f"`{text}`", place, report)
        return False
    return True


def _obscure(machine: Machine) -> Iterator[tuple[str, str]]:
    """What is not understood of the lines that packets can come to, and where it stands."""
    reached = {base.chain for base in machine.bases}
    waiting = list(reached)
    while waiting:
        for line in machine.chains[waiting.pop()]:
            if isinstance(line.act, Obscure):
                yield line.act.text, line.place
            for condition in line.conditions:
                if isinstance(condition.question, Unknown):
                    yield condition.question.text, line.place
            if isinstance(line.act, ir.Jump | Goto) and line.act.chain not in reached:
                reached.add(line.act.chain)
                waiting.append(line.act.chain)


def _not_proved(way: str, what: str, place: str, report: Report) -> None:
    message = f"{way} lists {what}, which cannot be compared with the policy"
    report.add("not-proved", message, None, help=f"{place}: {OURS}" if place else OURS)


# --- lines of a target's own ------------------------------------------------------------------


def _are_alike(there: Loaded, with_logs: Loaded) -> bool:
    """Whether rules differ in nothing but what stands where `with_logs` has its logs."""
    if there.sets != with_logs.sets or there.others != with_logs.others:
        return False
    pairs = zip(there.chains, with_logs.chains, strict=False)
    return len(there.chains) == len(with_logs.chains) and all(_is_alike(*pair) for pair in pairs)


def _is_alike(there: Chain, with_logs: Chain) -> bool:
    """A line may have become several rules of the kernel, in the place of the log.

    It is in chains of its own family alone, where it is for one.
    """
    if (there.place, there.head) != (with_logs.place, with_logs.head):
        return False
    here = _family_of(there)
    pieces: list[list[str]] = [[]]
    least: list[int] = []  # rules that stand in the place of each log
    for rule in with_logs.rules:
        family = natives.family_of(rule.text)
        if family is None:
            pieces[-1].append(rule.text)
        else:
            pieces.append([])
            least.append(int(natives.ANY_FAMILY in (family, here) or family == here))
    return _is_made_of([rule.text for rule in there.rules], pieces, least)


def _family_of(chain: Chain) -> int:
    """The family of a chain of iptables; that of nft's is any."""
    return {"iptables": 4, "ip6tables": 6}.get(chain.place.split(" ")[0], natives.ANY_FAMILY)


def _is_made_of(rules: list[str], pieces: list[list[str]], least: list[int]) -> bool:
    """Whether rules are these pieces in order, with no fewer than `least` others between two."""
    first, *others = pieces
    if rules[: len(first)] != first:
        return False
    if not others:
        return len(rules) == len(first)
    rest, (count, *counts) = rules[len(first) :], least
    ends = range(count, len(rest) + 1) if count else (0,)
    return any(_is_made_of(rest[n:], others, counts) for n in ends)
