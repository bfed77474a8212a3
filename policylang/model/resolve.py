"""From what was written to what was meant: declarations, rules, defaults and settings."""

from __future__ import annotations

from collections.abc import Iterator

from policylang.diagnostics import Report
from policylang.model.conditions import ConditionsReader
from policylang.model.elements import ADDRESS, Elements
from policylang.model.expectations import tests
from policylang.model.host_ends import own_addresses
from policylang.model.hosts import check_elsewhere
from policylang.model.native import Chains, native_rule
from policylang.model.options import Options
from policylang.model.policy import Policy, Protect, Statement
from policylang.model.protection import Protections
from policylang.model.rules import Context, Rules
from policylang.model.scope import Scope
from policylang.model.services import Services
from policylang.model.settings import defaults, said_items, settings, ways
from policylang.model.statement_reader import StatementReader
from policylang.model.treatments import treatment
from policylang.model.types import DynamicSet
from policylang.packets.values import Ranges
from policylang.syntax import tree

BOGONS = "bogons"  # the group of the catalogue that `protect … against bogons` is about


def resolve(loaded: tree.Loaded, report: Report, native_chains: Chains | None = None) -> Policy:
    """The policy that was meant; to be used only while `report` has no errors.

    `native_chains` are those in which lines of targets' own languages may stand. Reports every
    name that stands for nothing or for the wrong thing, every number out of
    bounds, and every end left unsaid, used or not.
    """
    scope = Scope(loaded, report)
    scope.declare_all()
    scope.declare_interfaces()
    elements = Elements(scope, report)
    services = Services(scope, elements, report)
    items = said_items(loaded, report)
    reading = ways(items, Options(report, elements.dynamic_set))
    options = Options(report, elements.dynamic_set, reading.log_rate)
    conditions = ConditionsReader(elements, options, report, reading.is_local_time)
    rules = Rules(scope, elements, services, options, conditions, report)
    protections = Protections(rules, options, report)
    reader = StatementReader(rules, elements, options, conditions, report)

    for declaration in scope.declared.values():
        match declaration:
            case tree.ZoneDecl():
                elements.zone_value(declaration)
            case tree.SetDecl():
                elements.set_value(declaration, declaration.name)
            case tree.ServiceDecl() | tree.ServiceGroup():
                services.traffic_of(declaration, declaration.name)
            case tree.HostDecl():
                elements.host_value(declaration)
            case tree.RulesDecl():
                draft = Context(used_at=(declaration.name,), is_draft=True)
                for _ in rules.unfold(declaration.statements, draft):
                    pass

    policy = Policy(
        tuple(_statements(loaded, rules, reader, native_chains or {}, report)),
        defaults(loaded, options, report),
        settings(items, options),
        tuple(
            elements.zone_value(d) for d in scope.declared.values() if isinstance(d, tree.ZoneDecl)
        ),
        tuple(
            (value.values, name)
            for name, d in scope.declared.items()
            if isinstance(d, tree.SetDecl) and (value := elements.set_value(d, d.name)).values
        ),
        tuple(_protections(loaded, protections)),
        tuple(_dynamic_sets(scope, elements)),
        _bogons(loaded, elements),
        tests(
            tuple(s for s in loaded.statements if isinstance(s, tree.TestDecl)),
            rules,
            options,
            report,
        ),
        own_addresses(elements),
    )
    check_elsewhere(policy, loaded, report)
    return policy


def _statements(
    loaded: tree.Loaded,
    rules: Rules,
    reader: StatementReader,
    native_chains: Chains,
    report: Report,
) -> Iterator[Statement]:
    """What makes rules of a target, in the order in which it is read."""
    for statement in loaded.statements:
        match statement:
            case tree.RuleNode() | tree.TrafficBlock() | tree.UseNode():
                yield from rules.unfold((statement,), Context())
            case tree.NativeNode():
                native = native_rule(statement, native_chains, report)
                if native is not None:
                    yield native
            case _ if isinstance(statement, tree.TreatmentNode):
                treated = treatment(statement, reader)
                if treated is not None:
                    yield treated


def _protections(loaded: tree.Loaded, protections: Protections) -> Iterator[Protect]:
    for statement in loaded.statements:
        if isinstance(statement, tree.ProtectNode):
            yield from protections.of(statement)


def _dynamic_sets(scope: Scope, elements: Elements) -> Iterator[DynamicSet]:
    for declaration in scope.declared.values():
        if isinstance(declaration, tree.SetDecl):
            held = elements.set_value(declaration, declaration.name).at_run_time
            if isinstance(held, DynamicSet):
                yield held


def _bogons(loaded: tree.Loaded, elements: Elements) -> Ranges:
    """What `against bogons` keeps out: the policy's own set of that name, else the catalogue's."""
    for statement in loaded.statements:
        if not isinstance(statement, tree.ProtectNode):
            continue
        for protection in statement.protections:
            if protection.name.text == BOGONS:
                return elements.set_of(protection.name, ADDRESS, "set of addresses")
    return Ranges()
