"""The nft target: one inet table, replaced as a whole in one transaction."""

from __future__ import annotations

from policylang.backends.base import Artifact, Line
from policylang.backends.nft import spell
from policylang.backends.nft.rules import Spelling
from policylang.backends.nft.sets import NamedSet, Sets
from policylang.backends.templating import render
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.capabilities import Capabilities
from policylang.ir.ruleset import Base, Chain, Item, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.fields import Field

TABLE = "inet policylang"
SCRIPT = "policylang.nft"

# Helpers: after conntrack (-200) and before dstnat (-100), so that the port is the dialled one.
# At raw (-300) an assignment loads and does nothing.
HOOKS: dict[tuple[Stage, Path], str] = {
    (Stage.SCREEN, Path.INPUT): "hook prerouting priority raw",
    (Stage.SCREEN_STATE, Path.INPUT): "hook prerouting priority mangle",
    (Stage.ASSIGN_HELPER, Path.INPUT): "hook prerouting priority mangle",
    (Stage.ASSIGN_HELPER, Path.FORWARD): "hook prerouting priority mangle",
    (Stage.ASSIGN_HELPER, Path.OUTPUT): "hook output priority mangle",
    (Stage.FILTER, Path.INPUT): "hook input priority filter",
    (Stage.FILTER, Path.FORWARD): "hook forward priority filter",
    (Stage.FILTER, Path.OUTPUT): "hook output priority filter",
}

OF_CONNTRACK = frozenset({Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION})
OF_ROUTING = frozenset({Field.OIF})

CAPABILITIES = Capabilities(
    target="nft",
    fields={
        Stage.SCREEN: frozenset(Field) - OF_CONNTRACK - OF_ROUTING,
        Stage.SCREEN_STATE: frozenset(Field) - OF_ROUTING,
        Stage.ASSIGN_HELPER: frozenset(Field) - {Field.CT_HELPER},
        Stage.FILTER: frozenset(Field),
    },
    actions={
        Stage.SCREEN: (ir.Drop, ir.Jump, ir.Log, ir.AddToSet),
        Stage.SCREEN_STATE: (ir.Drop, ir.Jump, ir.Log, ir.AddToSet),
        Stage.ASSIGN_HELPER: (ir.AssignHelper, ir.Leave),
        Stage.FILTER: (
            ir.Accept,
            ir.Drop,
            ir.Reject,
            ir.Jump,
            ir.Log,
            ir.AddToSet,
            ir.RememberQuestion,
            ir.RememberAsker,
            ir.Native,
        ),
    },
    log_prefix_bytes=127,  # NF_LOG_PREFIXLEN less the final NUL
    log_group_prefix_bytes=127,
)


class NftBackend:
    """Emits one script, `policylang.nft`, for `nft -f`."""

    name = "nft"
    capabilities = CAPABILITIES

    def emit(self, ruleset: Ruleset, report: Report) -> Artifact:
        """The script; reports `unsupported` for what nft has no words for."""
        sets = Sets.of(ruleset)
        spelling = Spelling(sets, ruleset)
        chains = []
        for chain, base in _in_reading_order(ruleset):
            rules: list[Line] = []
            for number, item in enumerate(chain.items, 1):
                try:
                    rules += spelling.lines(item, f"{chain.name}-{number}")
                except spell.InexpressibleError as reason:
                    _report(item, reason, report)
            chains.append({"name": chain.name, "hook": _hook(base, chain), "rules": rules})
        chains += (
            {"name": name, "hook": "", "rules": [Line(statement)]}
            for name, statement in sorted(spelling.statements.answers.items())
        )
        chains += (
            {"name": name, "hook": "", "rules": lines}
            for name, lines in sorted(spelling.asked.items())
        )
        file = render(
            "nft/table.j2",
            SCRIPT,
            {
                "table": TABLE,
                "helpers": [
                    {
                        "opening": Line(f"ct helper {name} {{", origins),
                        "type": action.helper,
                        "protocol": spell.PORTED_WORDS[action.protocol],
                    }
                    for name, (action, origins) in sorted(spelling.statements.helpers.items())
                ],
                "sets": [_body(named) for named in sets.all()],
                "chains": chains,
            },
        )
        return Artifact(self.name, (file,))


def _in_reading_order(ruleset: Ruleset) -> list[tuple[Chain, Base | None]]:
    """Base chains by stage, each with the chains behind it as they stand."""
    bases = {base.chain: base for base in ruleset.bases}
    return [(chain, bases.get(chain.name)) for chain in ruleset.chains]


def _hook(base: Base | None, chain: Chain) -> str:
    if base is None:
        return ""
    policy = "accept"
    if base.stage is Stage.FILTER:
        last = chain.items[-1]
        assert isinstance(last, Rule)
        policy = "accept" if isinstance(last.action, ir.Accept) else "drop"
    return f"type filter {HOOKS[base.stage, base.path]}; policy {policy};"


def _body(named: NamedSet) -> dict[str, object]:
    return {
        "opening": Line(f"{named.word} {named.name} {{", named.origins),
        "header": named.header,
        "elements": named.elements,
    }


def _report(item: Item, reason: spell.InexpressibleError, report: Report) -> None:
    origins = item.origins if isinstance(item, Rule) else item.entries[0].origins
    span = next((o.span for o in origins if o.span is not None), None)
    report.add("unsupported", f"nft cannot match {reason}", span, help=reason.help)
