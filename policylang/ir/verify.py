"""Checks a ruleset before it is emitted: well formed, and nothing a target cannot express.

A malformed ruleset is a mistake of this program (`AssertionError`); what a target cannot do
is the policy's, and is reported at the statement that asked for it.
"""

from __future__ import annotations

from policylang.diagnostics import Report
from policylang.ir.actions import Accept, Action, AssignHelper, Drop, Jump, Log, Reject
from policylang.ir.capabilities import Capabilities
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Base, Chain, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Stage
from policylang.packets.cube import EVERYTHING


def verify(ruleset: Ruleset, can: Capabilities, report: Report) -> Ruleset:
    """The ruleset itself; reports `unsupported` and `log-prefix-too-long`."""
    chains = {chain.name: chain for chain in ruleset.chains}
    assert len(chains) == len(ruleset.chains), "two chains of one name"
    reached: set[str] = set()
    for base in ruleset.bases:
        _walk(chains[base.chain], base, chains, can, report, reached, ())
        if base.stage is Stage.FILTER:
            last = chains[base.chain].items[-1]
            assert isinstance(last, Rule), "a base chain ends in a rule"
            assert last.cube == EVERYTHING and not last.guards, "the last rule takes everything"
            assert isinstance(last.action, (Accept, Drop, Reject)), "the last rule decides"
    assert reached == set(chains), f"chains that nothing reads: {set(chains) - reached}"
    return ruleset


def _walk(
    chain: Chain,
    base: Base,
    chains: dict[str, Chain],
    can: Capabilities,
    report: Report,
    reached: set[str],
    callers: tuple[str, ...],
) -> None:
    assert chain.name not in callers, f"chain {chain.name} jumps to itself"
    if chain.name in reached and chain.name != base.chain:
        return
    reached.add(chain.name)
    for item in chain.items:
        for action, origins in _actions(item):
            _check_action(action, origins, base.stage, can, report)
            if isinstance(action, Jump):
                _walk(
                    chains[action.chain],
                    base,
                    chains,
                    can,
                    report,
                    reached,
                    (*callers, chain.name),
                )
        used = set(item.cube.fields) | set(item.fields if isinstance(item, Lookup) else ())
        origins = tuple(o for _, os in _actions(item) for o in os)
        for field in sorted(used - can.fields[base.stage]):
            _unsupported(f"a match on {field.name.lower()}", origins, can, report)


def _actions(item: Item) -> tuple[tuple[Action, tuple[Origin, ...]], ...]:
    if isinstance(item, Rule):
        return ((item.action, item.origins),)
    return tuple((entry.action, entry.origins) for entry in item.entries)


def _check_action(
    action: Action,
    origins: tuple[Origin, ...],
    stage: Stage,
    can: Capabilities,
    report: Report,
) -> None:
    if not isinstance(action, can.actions[stage]):
        what = action.helper if isinstance(action, AssignHelper) else type(action).__name__.lower()
        _unsupported(what, origins, can, report)
    if isinstance(action, Log):
        most = can.log_prefix_bytes if action.group is None else can.log_group_prefix_bytes
        if len(action.prefix.encode()) > most:
            report.add(
                "log-prefix-too-long",
                f"{can.target} takes a log prefix of at most {most} bytes, not of "
                f"{len(action.prefix.encode())}",
                next((o.span for o in origins if o.span), None),
                help=f"shorten the prefix by {len(action.prefix.encode()) - most} bytes",
            )


def _unsupported(what: str, origins: tuple[Origin, ...], can: Capabilities, report: Report) -> None:
    span = next((o.span for o in origins if o.span), None)
    report.add("unsupported", f"{can.target} cannot do {what} here", span)
