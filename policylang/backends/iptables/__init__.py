"""The iptables target: files for iptables-restore, ip6tables-restore and ipset restore.

All that is ours is in chains whose names start with `policylang-`, one of them for each
built-in chain that leads to it. Nothing else is named in the files.
"""

from __future__ import annotations

from collections.abc import Sequence

from policylang.backends.base import Artifact, Line
from policylang.backends.iptables.chains import TableWriter
from policylang.backends.iptables.leaving import without_nested_leave
from policylang.backends.iptables.names import ChainNames
from policylang.backends.iptables.places import CAPABILITIES, PLACES, TABLES
from policylang.backends.iptables.sets import IpSets
from policylang.backends.templating import render
from policylang.diagnostics import Report
from policylang.ir.ruleset import Base, Chain, Ruleset
from policylang.ir.stages import Stage

RULES = {4: ("rules.v4", "iptables-restore"), 6: ("rules.v6", "ip6tables-restore")}
SETS = "sets.ipset"


class IptablesBackend:
    """Emits `rules.v4`, `rules.v6` and, where a rule needs one, `sets.ipset`."""

    name = "iptables"
    capabilities = CAPABILITIES

    def emit(self, ruleset: Ruleset, report: Report) -> Artifact:
        """The files; reports `unsupported` for values that iptables cannot tell apart."""
        sets = IpSets.of(ruleset.set_names)
        files = []
        for family, (name, program) in RULES.items():
            tables = [
                _table(table, bases, ruleset, family, sets, report)
                for table in TABLES
                if (bases := [b for b in ruleset.bases if PLACES[b.stage, b.path].table == table])
            ]
            files.append(render("iptables/rules.j2", name, {"program": program, "tables": tables}))
        if sets.all:
            bodies = [ipset.body for ipset in sets.all]
            files.append(render("iptables/sets.j2", SETS, {"sets": bodies}))
        return Artifact(self.name, tuple(files))


def _table(
    table: str,
    bases: Sequence[Base],
    ruleset: Ruleset,
    family: int,
    sets: IpSets,
    report: Report,
) -> dict[str, object]:
    """A table as the template takes it. The jumps are inserted one before the other."""
    chains = {chain.name: chain for chain in ruleset.chains}
    entries: dict[str, str] = {}
    for base in bases:
        entries.setdefault(base.chain, base.path.value)
        if base.stage is Stage.ASSIGN_HELPER:
            items = tuple(without_nested_leave(chains[base.chain], chains))
            chains[base.chain] = Chain(base.chain, items)
    names = ChainNames(entries, chains)
    writer = TableWriter(family, names, sets, report)
    waiting = list(entries)
    known = set(waiting)
    for name in waiting:
        writer.write(name, chains[name].items)
        waiting += (callee for callee in writer.called if callee not in known)
        known.update(writer.called)
        writer.called.clear()
    jumps = [(PLACES[base.stage, base.path].chain, names[base.chain]) for base in bases]
    return {
        "name": table,
        "chains": [Line(f":{chain} - [0:0]") for chain in writer.chains],
        "jumps": [Line(f"-I {chain} 1 -j {ours}") for chain, ours in jumps],
        "rules": list(writer.chains.values()),
    }
