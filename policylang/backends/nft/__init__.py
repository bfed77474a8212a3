"""The nft target: one inet table, replaced as a whole in one transaction."""

from __future__ import annotations

from policylang.backends.base import Artifact, Line
from policylang.backends.nft import spell
from policylang.backends.nft.rules import Spelling
from policylang.backends.nft.sets import NamedSet, Sets
from policylang.backends.nft.statements import FLOWTABLE, Statements
from policylang.backends.templating import render
from policylang.diagnostics import Report
from policylang.ir import actions as ir
from policylang.ir.capabilities import Capabilities
from policylang.ir.origin import joined
from policylang.ir.ruleset import Base, Chain, Item, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.optimise.reading import read
from policylang.packets.fields import Field

TABLE = "inet policylang"
SCRIPT = "policylang.nft"

# Helpers: after conntrack (-200) and before dstnat (-100), so that the port is the dialled one.
# At raw (-300) an assignment loads and does nothing. Marks of this host's own packets are set
# where they lead to a new route (`type route`).
HOOKS: dict[tuple[Stage, Path], str] = {
    (Stage.SCREEN, Path.INPUT): "type filter hook prerouting priority raw",
    (Stage.UNTRACK, Path.INPUT): "type filter hook prerouting priority raw + 1",
    (Stage.UNTRACK, Path.OUTPUT): "type filter hook output priority raw + 1",
    (Stage.SCREEN_STATE, Path.INPUT): "type filter hook prerouting priority mangle",
    (Stage.ASSIGN_HELPER, Path.INPUT): "type filter hook prerouting priority mangle",
    (Stage.ASSIGN_HELPER, Path.FORWARD): "type filter hook prerouting priority mangle",
    (Stage.ASSIGN_HELPER, Path.OUTPUT): "type filter hook output priority mangle",
    (Stage.MARK, Path.INPUT): "type filter hook prerouting priority mangle + 1",
    (Stage.MARK, Path.OUTPUT): "type route hook output priority mangle + 1",
    (Stage.TPROXY, Path.INPUT): "type filter hook prerouting priority mangle + 2",
    (Stage.DSTNAT, Path.INPUT): "type nat hook prerouting priority dstnat",
    (Stage.DSTNAT, Path.OUTPUT): "type nat hook output priority -100",  # dstnat has no name here
    (Stage.TREAT, Path.FORWARD): "type filter hook forward priority mangle",
    (Stage.TREAT, Path.OUTPUT): "type filter hook output priority mangle + 3",
    (Stage.FILTER, Path.INPUT): "type filter hook input priority filter",
    (Stage.FILTER, Path.FORWARD): "type filter hook forward priority filter",
    (Stage.FILTER, Path.OUTPUT): "type filter hook output priority filter",
    (Stage.INSPECT, Path.INPUT): "type filter hook input priority filter + 10",
    (Stage.INSPECT, Path.FORWARD): "type filter hook forward priority filter + 10",
    (Stage.INSPECT, Path.OUTPUT): "type filter hook output priority filter + 10",
    (Stage.SRCNAT, Path.FORWARD): "type nat hook postrouting priority srcnat",
}

ALL = frozenset(Field)
OF_CONNTRACK = frozenset(
    {
        *(Field.CT_STATE, Field.CT_HELPER, Field.CT_DIRECTION),
        *(Field.DNATED, Field.ORIG_DADDR, Field.ORIG_DPORT, Field.EXPECTED),
    }
)
OF_ROUTING = frozenset({Field.OIF, Field.IPSEC_OUT})
# Known to the hooks that packets pass on their way in.
OF_ARRIVAL = frozenset({Field.IPSEC, Field.REVERSE_PATH})

PASSED_ON = (ir.Jump, ir.Log, ir.Leave)

CAPABILITIES = Capabilities(
    target="nft",
    fields={
        Stage.SCREEN: ALL - OF_CONNTRACK - OF_ROUTING,
        Stage.UNTRACK: ALL - OF_CONNTRACK - {Field.IPSEC_OUT},
        Stage.SCREEN_STATE: ALL - OF_ROUTING,
        Stage.ASSIGN_HELPER: ALL - {Field.CT_HELPER, Field.IPSEC_OUT},
        Stage.MARK: ALL - {Field.IPSEC_OUT},
        Stage.TPROXY: ALL - OF_ROUTING,
        Stage.DSTNAT: ALL - {Field.IPSEC_OUT},
        Stage.TREAT: ALL,
        Stage.FILTER: ALL,
        Stage.INSPECT: ALL,
        Stage.SRCNAT: ALL - OF_ARRIVAL,
    },
    actions={
        Stage.SCREEN: (ir.Drop, ir.Jump, ir.Log, ir.AddToSet),
        Stage.UNTRACK: (ir.Untrack, *PASSED_ON),
        Stage.SCREEN_STATE: (ir.Drop, ir.Jump, ir.Log, ir.AddToSet),
        Stage.ASSIGN_HELPER: (ir.AssignHelper, ir.Leave),
        Stage.MARK: (ir.SetMark, ir.SetConnectionMark, ir.SetDscp, *PASSED_ON),
        Stage.TPROXY: (ir.TransparentProxy, *PASSED_ON),
        Stage.DSTNAT: (ir.DestinationNat, ir.RedirectToSelf, ir.MapPrefix, *PASSED_ON),
        Stage.TREAT: (ir.ClampMss, *PASSED_ON),
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
            ir.Offload,
        ),
        Stage.INSPECT: (ir.Queue, *PASSED_ON),
        Stage.SRCNAT: (ir.Masquerade, ir.SourceNat, ir.MapPrefix, *PASSED_ON),
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
        leaving = _read_on(Stage.SRCNAT, ruleset)
        chains = []
        for chain, base in _in_reading_order(ruleset):
            rules: list[Line] = []
            for number, item in enumerate(chain.items, 1):
                try:
                    hint = f"{chain.name}-{number}"
                    rules += spelling.lines(item, hint, chain.name in leaving)
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
                "flowtables": _flowtables(spelling.statements),
                "sets": [_body(named) for named in sets.all()],
                "chains": chains,
            },
        )
        return Artifact(self.name, (file,), ruleset.needs)


def _in_reading_order(ruleset: Ruleset) -> list[tuple[Chain, Base | None]]:
    """Base chains by stage, each with the chains behind it as they stand."""
    bases = {base.chain: base for base in ruleset.bases}
    return [(chain, bases.get(chain.name)) for chain in ruleset.chains]


def _read_on(stage: Stage, ruleset: Ruleset) -> set[str]:
    """The names of the chains that are read on a stage."""
    bodies = {chain.name: chain for chain in ruleset.chains}
    return read(bodies, (base.chain for base in ruleset.bases if base.stage is stage))


def _hook(base: Base | None, chain: Chain) -> str:
    if base is None:
        return ""
    policy = "accept"
    if base.stage is Stage.FILTER:
        last = chain.items[-1]
        assert isinstance(last, Rule)
        policy = "accept" if isinstance(last.action, ir.Accept) else "drop"
    return f"{HOOKS[base.stage, base.path]}; policy {policy};"


def _flowtables(statements: Statements) -> list[dict[str, object]]:
    if not statements.devices:
        return []
    origins = joined(*statements.devices.values())
    devices = ", ".join(f'"{device}"' for device in sorted(statements.devices))
    header = ["hook ingress priority filter", f"devices = {{ {devices} }}"]
    return [{"opening": Line(f"flowtable {FLOWTABLE} {{", origins), "header": header}]


def _body(named: NamedSet) -> dict[str, object]:
    return {
        "opening": Line(f"{named.word} {named.name} {{", named.origins),
        "header": named.header,
        "elements": named.elements,
    }


def _report(item: Item, reason: spell.InexpressibleError, report: Report) -> None:
    origins = item.origins if isinstance(item, Rule) else item.entries[0].origins
    span = next((o.span for o in origins if o.span is not None), None)
    report.add("unsupported", f"nft cannot {reason}", span, help=reason.help)
