"""What is done for a target before and between its jobs: compile, prove, and say what is to do.

How a target is reached it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from policylang import pipeline
from policylang.analysis.machine import Machine
from policylang.analysis.reading_iptables import read_iptables
from policylang.analysis.reading_nft import read_nft
from policylang.analysis.together import together
from policylang.apply import boot_written, engines, proved
from policylang.apply.listing import Listing
from policylang.backends.base import Artifact
from policylang.backends.boot import boot_files
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.lower.stateful import lower
from policylang.model.policy import Policy
from policylang.pipeline import OfHost, Text
from policylang.provision.inventory import (
    Inventory,
    NoAddressError,
    left_out,
    names_of,
    text_of,
)
from policylang.provision.messages import Cargo, Load, Rehearse, Rehearsed, seal
from policylang.source import SourceFile


@dataclass(frozen=True, slots=True)
class Wanted:
    """A policy for a machine. `host` is its name where it is said, `called` where the policy has
    hosts and it is not. `cuts_flows` None leaves open connections to the policy."""

    policy: Path | Text
    target: str
    parameters: Mapping[str, str]
    host: str | None = None
    called: str | None = None
    inventory: Inventory | None = None
    cuts_flows: bool | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """A policy for one machine. `meant` are the rules as the statements say them.

    `host` is the one of the policy that was meant, None where it has none. `left_out` are machines
    of the inventory that are missing in a group which the policy names, by group.
    """

    name: str
    host: str | None
    policy: Policy
    meant: Ruleset
    ruleset: Ruleset
    artifact: Artifact
    left_out: Mapping[str, tuple[str, ...]]


def compiled(wanted: Wanted, report: Report) -> Compiled | None:
    """What a policy compiles to for a machine; None where `report` has errors.

    ValueError, as `inventory.text_of` has it, for a machine that cannot be declared, and
    NoAddressError where that is the one that is meant.
    """
    beside, missing = _inventory(wanted)
    source = OfHost(wanted.policy, None, beside)
    loaded = pipeline.loaded_from(source, report, wanted.parameters)
    host = wanted.host
    if host is None and loaded.hosts:
        host = wanted.called
    machines = {} if wanted.inventory is None else wanted.inventory.hosts
    if host is not None and host not in loaded.hosts and not machines.get(host, (host,)):
        raise NoAddressError(host)
    one = pipeline.of_host(loaded, host, report)
    policy = None if one is None or report.has_errors else pipeline.policy_of(one, report)
    if policy is None:
        return None
    meant = lower(policy, report)
    ruleset = None if report.has_errors else pipeline.optimised(meant, report)
    if ruleset is None:
        return None
    artifact = pipeline.artifact_of(ruleset, wanted.target, report)
    if artifact is None:
        return None
    if wanted.cuts_flows is not None:
        needs = replace(artifact.needs, cuts_flows=wanted.cuts_flows)
        artifact = replace(artifact, needs=needs)
    name = pipeline.name_of(source)
    return Compiled(name, host, policy, meant, ruleset, artifact, missing)


def _inventory(wanted: Wanted) -> tuple[tuple[SourceFile, ...], Mapping[str, tuple[str, ...]]]:
    """Texts of the inventory, and what is missing in groups that the policy names."""
    if wanted.inventory is None:
        return (), {}
    names = names_of(pipeline.loaded_from(wanted.policy, Report(), wanted.parameters))
    return (text_of(wanted.inventory, names),), left_out(wanted.inventory, names)


def cargo(one: Compiled, wanted: Wanted, flavour: str | None, made_by: str) -> Cargo:
    """What travels to the target; `flavour` is that of iptables."""
    return Cargo(
        one.artifact,
        one.ruleset,
        flavour,
        boot_files(one.artifact.needs),
        one.name if one.host is None else f"{one.name} on {one.host}",
        one.host or "",
        tuple(sorted(wanted.parameters.items())),
        made_by,
        _texts(one),
    )


def _texts(one: Compiled) -> tuple[SourceFile, ...]:
    """The texts behind the rules, that of the policy itself first."""
    lines = chain.from_iterable(file.origins for file in one.artifact.files)
    spans = (origin.span for origins in lines for origin in origins)
    files = {span.file.name: span.file for span in spans if span is not None}
    name = Path(one.name).name
    return tuple(sorted(files.values(), key=lambda file: (Path(file.name).name != name, file.name)))


def rehearse(one: Compiled, sent: Cargo, *, wants_past: bool) -> Rehearse:
    """The job to show what would be loaded, with all that its proof needs."""
    return Rehearse(sent, proved.with_logs(one.meant, one.artifact.target), wants_past)


def is_proved(one: Compiled, found: Rehearsed, report: Report) -> bool:
    """Whether what a target rehearsed does what the policy says; reports as `proved.proof` does."""
    engine = engines.by_way(found.way)
    told = proved.proof(
        one.meant, found.rehearsal, engine, report, here=found.here, again=found.again
    )
    return told is not None


def load(sent: Cargo, found: Rehearsed, confirm_s: int | None) -> Load:
    """The job to put in force what was proved, and nothing else."""
    return Load(sent, seal(found.rehearsal.loaded), confirm_s)


def machine_of(listings: tuple[Listing, ...]) -> Machine:
    """All rules of a target, as packets meet them; UnreadableError where they are none."""
    return together(
        read_nft(one.json)
        if one.target == "nft"
        else read_iptables(one.rules_v4, one.rules_v6, one.sets)
        for one in listings
    )


def service_files(state_folder: str) -> dict[str, str]:
    """The files of the service that loads at boot, by their places below the root.

    Lists from elsewhere are the controller's business: without policylang a target asks for none.
    """
    files = boot_written.files(Path(state_folder), None, ())
    return {str(place): text for place, text in files.items()}
