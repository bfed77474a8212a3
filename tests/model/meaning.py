"""Reads a policy and shows what became of its statements, a line a rule."""

from __future__ import annotations

from pathlib import Path as Folder

from policylang.diagnostics import Report
from policylang.ir.dump import dump
from policylang.ir.origin import Why
from policylang.ir.ruleset import Chain, Rule, Ruleset
from policylang.ir.stages import Stage
from policylang.lower.stateful import lower
from policylang.model.check import check
from policylang.model.hosts import of_host
from policylang.model.policy import Policy
from policylang.model.resolve import resolve
from policylang.pipeline import native_chains
from policylang.syntax.loader import load_text

COMMENT = "  # "
HERE = Folder(__file__).parent  # of the lock file, which has what lists from elsewhere hold


def resolved(text: str) -> Policy:
    """The policy that a text means to its first host, if any; fails where it has errors."""
    report = Report()
    loaded = load_text(text, "p.policy", HERE, report)
    if loaded.hosts:
        loaded = of_host(loaded, loaded.hosts[0], report) or loaded
    policy = resolve(loaded, report, native_chains())
    assert not report.has_errors, [d.message for d in report.diagnostics]
    return policy


def lowered(text: str) -> Ruleset:
    return lower(resolved(text), Report())


def warned(text: str) -> list[str]:
    """The codes of the warnings, in order."""
    report = Report()
    policy = resolve(load_text(text, "p.policy", HERE, report), report, native_chains())
    assert not report.has_errors
    lower(check(policy, report), report)
    return [d.code for d in report.in_order()]


def rules(text: str, *whys: Why, stage: Stage = Stage.FILTER) -> list[str]:
    """The rules that exist for one of these reasons, as `PATH ACTION FIELD VALUES …`.

    Chains that a rule jumps to stand behind it, their lines indented.
    """
    ruleset = lowered(text)
    bodies = {chain.name: chain for chain in ruleset.chains}
    found: list[str] = []
    for base in ruleset.bases:
        if base.stage is stage:
            items = tuple(
                item
                for item in bodies[base.chain].items
                if isinstance(item, Rule) and any(o.why in whys for o in item.origins)
            )
            found += (f"{base.path.value} {line}" for line in _lines(base.chain, items))
    named = [
        chain for chain in ruleset.chains if chain.name not in {b.chain for b in ruleset.bases}
    ]
    for chain in named:
        found += (f"{chain.name} {line}" for line in _lines(chain.name, chain.items))
    return found


def _lines(name: str, items: tuple[object, ...]) -> list[str]:
    shown = dump(Ruleset((), (Chain(name, items),)))  # type: ignore[arg-type]
    lines = shown.splitlines()[1:]
    return [" ".join(line.partition(COMMENT)[0].split()) for line in lines]


def written(text: str) -> list[str]:
    """What the rules of a policy themselves became."""
    return rules(text, Why.WRITTEN)
