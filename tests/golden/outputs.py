"""What a policy compiles to, as files in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.backends import TARGETS
from policylang.backends.base import Artifact, OutputFile
from policylang.backends.boot import boot_files
from policylang.diagnostics import Report
from policylang.ir.dump import dump
from policylang.pipeline import OfHost, Source, artifact_of, loaded_from, ruleset_of
from tests.golden.kept import BOOT, IR, Outputs

CASES = sorted(path.parent for path in Path(__file__).parent.glob("*/policy.policy"))
SITE = "site.policy"  # of several hosts, which are compiled one by one
EXAMPLES = sorted(
    path for path in Path(__file__).parents[2].glob("examples/*/*.policy") if path.name != SITE
)
SITES = sorted(Path(__file__).parents[2].glob(f"examples/*/{SITE}"))


def outputs_of_hosts(site: Path) -> Outputs:
    """What a policy of several hosts compiles to, in a folder for each."""
    hosts = loaded_from(site, Report()).hosts
    return {
        f"{host}/{name}": text
        for host in hosts
        for name, text in outputs(OfHost(site, host)).items()
        if name != IR
    }


def outputs(policy: Source) -> Outputs:
    """All that a policy compiles to: a script for nft, a folder for iptables, and the ir.

    What rules need at boot is the same for every target, in a folder `boot`.

    The test fails where the policy has an error.
    """
    report = Report()
    ruleset = ruleset_of(policy, report)
    texts: dict[str, str] = {}
    if ruleset is not None:
        texts[IR] = dump(ruleset)
        texts |= {f"{BOOT}/{file.name}": file.text for file in boot_files(ruleset.needs)}
        for target in TARGETS:
            artifact = artifact_of(ruleset, target, report)
            if artifact is not None:
                texts |= {path_of(artifact, file): file.text for file in artifact.files}
    if report.has_errors:
        told = "\n".join(f"  {d.code}: {d.message}" for d in report.in_order())
        pytest.fail(f"{policy} has errors\n{told}", pytrace=False)
    return texts


def path_of(artifact: Artifact, file: OutputFile) -> str:
    """Where a file of an artifact is kept: `nft.nft`, `iptables/rules.v4`."""
    if len(artifact.files) == 1:
        return f"{artifact.target}{Path(file.name).suffix}"
    return f"{artifact.target}/{file.name}"
