"""The iptables target: files for iptables-restore, ip6tables-restore and ipset restore.

All that is ours is in chains whose names start with `policylang-`, one of them for each
built-in chain that leads to it. Nothing else is named in the files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policylang.backends.base import Artifact, Line, OutputFile
from policylang.backends.iptables.arrived import with_foreign_sources
from policylang.backends.iptables.chains import TableWriter, refuse
from policylang.backends.iptables.leaving import without_nested_leave
from policylang.backends.iptables.names import ChainNames
from policylang.backends.iptables.places import CAPABILITIES, PLACES, TABLES
from policylang.backends.iptables.sets import IpSet, IpSets, KeptSet
from policylang.backends.iptables.sieve import InexpressibleError
from policylang.backends.templating import render
from policylang.backends.turns import protocols_in_turn
from policylang.diagnostics import Report
from policylang.ir.ruleset import Base, Chain, DynamicSet, Ruleset
from policylang.ir.stages import Stage

RULES = {4: ("rules.v4", "iptables-restore"), 6: ("rules.v6", "ip6tables-restore")}
SETS = "sets.ipset"


class IptablesBackend:
    """Emits `rules.v4`, `rules.v6` and, where a rule needs one, `sets.ipset`."""

    name = "iptables"
    capabilities = CAPABILITIES

    def emit(self, ruleset: Ruleset, report: Report) -> Artifact:
        """The files; reports `unsupported` for values that iptables cannot tell apart."""
        sets = IpSets.of(ruleset)
        for kept in ruleset.dynamic_sets:
            _declare(kept, sets, report)
        files = []
        for family, (name, program) in RULES.items():
            tables = [
                _table(table, bases, ruleset, family, sets, report)
                for table in TABLES
                if (bases := [b for b in ruleset.bases if PLACES[b.stage, b.path].table == table])
            ]
            files.append(render("iptables/rules.j2", name, {"program": program, "tables": tables}))
        if sets.all or sets.kept:
            files.append(sets_file(sets.all, sets.kept))
        return Artifact(self.name, tuple(files), ruleset.needs)


def sets_file(filled: Iterable[IpSet], kept: Iterable[KeptSet] = ()) -> OutputFile:
    """What `ipset restore` makes sets of, those that are filled by being swapped in."""
    laid_out = {
        "kept": [ipset.line for ipset in kept],
        "sets": [ipset.body for ipset in filled],
    }
    return render("iptables/sets.j2", SETS, laid_out)


def _declare(kept: DynamicSet, sets: IpSets, report: Report) -> None:
    """Make the sets of a dynamic set; reports `unsupported`."""
    try:
        sets.dynamic(kept)
    except InexpressibleError as reason:
        refuse(reason, kept.origins, report)


def _table(
    table: str,
    bases: Sequence[Base],
    ruleset: Ruleset,
    family: int,
    sets: IpSets,
    report: Report,
) -> dict[str, object]:
    """A table as the template takes it.

    The jumps are inserted one before the other, so what comes first in a packet's way is last.
    """
    chains = {chain.name: chain for chain in ruleset.chains}
    entries: dict[str, str] = {}
    for base in bases:
        entries.setdefault(base.chain, PLACES[base.stage, base.path].ours)
        if base.stage is Stage.SRCNAT:
            chains |= with_foreign_sources(base.chain, chains)
        if base.stage is not Stage.FILTER:
            items = tuple(without_nested_leave(chains[base.chain], chains))
            chains[base.chain] = Chain(base.chain, items)
    names = ChainNames(entries, chains)
    writer = TableWriter(table, family, names, sets, report, protocols_in_turn(ruleset))
    waiting = list(entries)
    known = set(waiting)
    for name in waiting:
        writer.write(name, chains[name].items)
        waiting += (callee for callee in writer.called if callee not in known)
        known.update(writer.called)
        writer.called.clear()
    order = list(Stage)
    latest_first = sorted(bases, key=lambda base: -order.index(base.stage))
    jumps = [(PLACES[base.stage, base.path].chain, names[base.chain]) for base in latest_first]
    return {
        "name": table,
        "chains": [Line(f":{chain} - [0:0]") for chain in writer.chains],
        "jumps": [Line(f"-I {chain} 1 -j {ours}") for chain, ours in jumps],
        "rules": list(writer.chains.values()),
    }
