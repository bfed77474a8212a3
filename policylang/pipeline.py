"""The compiler from end to end: text → tree → model → ir → ir → artifact.

Reading starts here. Each step is a function from one frozen value to the next and writes only
to the report; a policy with an error compiles to nothing. What is done with an artifact
(written, loaded) is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from policylang.backends import NATIVE_CHAINS, backend
from policylang.backends.base import Artifact
from policylang.diagnostics import Report
from policylang.ir.ruleset import ListedSet, Ruleset
from policylang.ir.verify import verify
from policylang.lower.address_tests import listed_set
from policylang.lower.stateful import DIRECTIONS, lower
from policylang.model.check import check
from policylang.model.hosts import of_host as of_host
from policylang.model.lists import listed_set as read_list
from policylang.model.policy import Policy
from policylang.model.resolve import resolve
from policylang.model.types import Direction
from policylang.optimise import optimise
from policylang.source import SourceFile
from policylang.syntax.loader import NO_PARAMETERS, load, load_text
from policylang.syntax.mentions import flat, quoted_ends
from policylang.syntax.tree import Loaded, SetDecl


@dataclass(frozen=True, slots=True)
class Text:
    """A policy that is no file: messages call it `name`, and its paths start at `folder`."""

    text: str
    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class OfHost:
    """A policy as one of its hosts has it, `host` None: of one firewall.

    `inventory` are texts of the language that are read before it, hosts and sets of hosts say.
    """

    source: Path | Text
    host: str | None
    inventory: tuple[SourceFile, ...] = ()


Source = Path | Text | OfHost | Loaded


def path_of(source: Source) -> Path | None:
    """The file that a policy is in; None where it came from elsewhere."""
    match source:
        case Path():
            return source
        case OfHost(policy):
            return path_of(policy)
        case _:
            return None


def name_of(source: Source) -> str:
    """What messages call a policy."""
    match source:
        case Path():
            return str(source)
        case Text():
            return source.name
        case OfHost(policy):
            return name_of(policy)
        case Loaded():
            return source.files[0].name if source.files else "<rules>"


def compile_policy(
    source: Source, target: str, report: Report, *, parameters: Mapping[str, str] = NO_PARAMETERS
) -> Artifact | None:
    """What the policy compiles to for a target, or None where `report` has errors.

    `parameters` are values, as texts of the language, for what the policy declares by `param`.
    """
    ruleset = ruleset_of(source, report, parameters=parameters)
    return None if ruleset is None else artifact_of(ruleset, target, report)


def ruleset_of(
    source: Source, report: Report, *, parameters: Mapping[str, str] = NO_PARAMETERS
) -> Ruleset | None:
    """The part that all targets share: the optimised rules, or None where there are errors."""
    ruleset = lowered(source, report, parameters=parameters)
    return None if ruleset is None else optimised(ruleset, report)


def lowered(
    source: Source, report: Report, *, parameters: Mapping[str, str] = NO_PARAMETERS
) -> Ruleset | None:
    """The rules as the statements say them, before any of them becomes part of another."""
    policy = policy_of(source, report, parameters=parameters)
    if policy is None:
        return None
    ruleset = lower(policy, report)
    return None if report.has_errors else ruleset


def optimised(ruleset: Ruleset, report: Report) -> Ruleset | None:
    """Rules that do the same and are fewer, or None where there are errors."""
    ruleset = optimise(ruleset, report)
    return None if report.has_errors else ruleset


def policy_of(
    source: Source,
    report: Report,
    *,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    questions: tuple[SourceFile, ...] = (),
) -> Policy | None:
    """What the policy means, or None where there are errors.

    `questions` are put to it in its own words: they are the last of its tests.
    """
    return meant_by(loaded_from(source, report, parameters, questions), report)


def loaded_from(
    source: Source,
    report: Report,
    parameters: Mapping[str, str] = NO_PARAMETERS,
    questions: tuple[SourceFile, ...] = (),
) -> Loaded:
    """The policy as it is written, with all that it includes and names."""
    match source:
        case Loaded():
            return source
        case OfHost(policy, host, inventory):
            given = report, parameters, questions, inventory
            if isinstance(policy, Path):
                return _chosen(load(policy, *given), host, report)
            return _chosen(load_text(policy.text, policy.name, policy.folder, *given), host, report)
        case Path():
            return load(source, report, parameters, questions)
        case Text():
            return load_text(source.text, source.name, source.folder, report, parameters, questions)


def _chosen(loaded: Loaded, host: str | None, report: Report) -> Loaded:
    """The policy as a host has it; where that cannot be, it is told, and it is as it is written."""
    if host is None:
        return loaded
    return of_host(loaded, host, report) or replace(loaded, here=host)


def meant_by(loaded: Loaded, report: Report) -> Policy | None:
    """What a policy as it is written means, or None where there are errors.

    Of several hosts, one has to be chosen: `which-host`.
    """
    if loaded.here is None and of_host(loaded, None, report) is None:
        return None
    policy = resolve(loaded, report, native_chains())
    if report.has_errors:
        return None
    check(policy, report)
    return None if report.has_errors else policy


def questions_of(questions: tuple[SourceFile, ...], report: Report) -> Policy | None:
    """Questions to rules that are no policy's, as the tests of an empty one; None with errors.

    There are no zones: a name in quotes is an interface.
    """
    loaded = load_text("", "<rules>", Path(), report, NO_PARAMETERS, questions)
    loaded = replace(loaded, interfaces=tuple(quoted_ends(loaded.statements)))
    policy = resolve(loaded, report, native_chains())
    return None if report.has_errors else policy


def lists_of(
    policy: Path, report: Report, *, parameters: Mapping[str, str] = NO_PARAMETERS
) -> tuple[ListedSet, ...] | None:
    """The lists from elsewhere that a policy declares, used or not, without their addresses.

    They are read off the declarations, so that what is not locked yet can be asked for. None where
    there are errors in what was read.
    """
    loaded = load(policy, report, parameters)
    lists = [
        listed_set(read_list(declaration, declaration.listed, None, report))
        for declaration in flat(loaded.statements)
        if isinstance(declaration, SetDecl) and declaration.listed is not None
    ]
    return None if report.has_errors else tuple(lists)


def native_chains() -> dict[str, dict[str, Direction]]:
    """The chains, by target, in which a line of the target's own language may stand."""
    return {
        target: {chain: DIRECTIONS[path] for chain, path in chains.items()}
        for target, chains in NATIVE_CHAINS.items()
    }


def verified_ruleset(
    source: Source, report: Report, *, parameters: Mapping[str, str] = NO_PARAMETERS
) -> Ruleset | None:
    """What `ruleset_of` makes, proved to be well formed, whatever targets can do with it."""
    ruleset = ruleset_of(source, report, parameters=parameters)
    if ruleset is not None:
        verify(ruleset, backend("nft").capabilities, Report())
    return ruleset


def artifact_of(ruleset: Ruleset, target: str, report: Report) -> Artifact | None:
    """What rules become for a target, or None where it cannot express them all.

    Errors that `report` holds already do not matter: one ruleset can be tried on many targets.
    """
    chosen = backend(target)
    own = Report()
    verify(ruleset, chosen.capabilities, own)
    artifact = None if own.has_errors else chosen.emit(ruleset, own)
    report.take(own)
    return None if own.has_errors else artifact
