"""From what was written to what was meant: declarations, rules, defaults and settings."""

from __future__ import annotations

from policylang.diagnostics import Label, Report
from policylang.model.elements import Elements
from policylang.model.options import Options
from policylang.model.rules import Context, Rules
from policylang.model.scope import Scope
from policylang.model.services import Services
from policylang.model.types import (
    Default,
    Direction,
    InvalidPolicy,
    Log,
    Policy,
    RejectWith,
    Settings,
    Verb,
)
from policylang.syntax import tree

UNSAID = {
    Direction.INBOUND: Default(Verb.DENY),
    Direction.FORWARD: Default(Verb.DENY),
    Direction.OUTBOUND: Default(Verb.ALLOW),
}


def resolve(loaded: tree.Loaded, report: Report) -> Policy:
    """The policy that was meant; to be used only while `report` has no errors.

    Reports every name that stands for nothing or for the wrong thing, every number out of
    bounds, and every end left unsaid, used or not.
    """
    scope = Scope(loaded, report)
    scope.declare_all()
    elements = Elements(scope, report)
    services = Services(scope, elements, report)
    options = Options(report)
    rules = Rules(scope, elements, services, options, report)

    for declaration in scope.declared.values():
        match declaration:
            case tree.ZoneDecl():
                elements.zone_value(declaration)
            case tree.SetDecl():
                elements.set_value(declaration, declaration.name)
            case tree.ServiceDecl() | tree.ServiceGroup():
                services.traffic_of(declaration, declaration.name)
            case tree.RulesDecl():
                draft = Context(used_at=(declaration.name,), is_draft=True)
                for _ in rules.unfold(declaration.statements, draft):
                    pass

    statements = [
        s
        for s in loaded.statements
        if isinstance(s, (tree.RuleNode, tree.TrafficBlock, tree.UseNode))
    ]
    return Policy(
        tuple(rules.unfold(statements, Context())),
        _defaults(loaded, options, report),
        _settings(loaded, options, report),
        tuple(
            elements.zone_value(d) for d in scope.declared.values() if isinstance(d, tree.ZoneDecl)
        ),
        tuple(
            (value.values, name)
            for name, d in scope.declared.items()
            if isinstance(d, tree.SetDecl) and (value := elements.set_value(d, d.name)).values
        ),
    )


def _defaults(loaded: tree.Loaded, options: Options, report: Report) -> dict[Direction, Default]:
    said: dict[Direction, Default] = {}
    for statement in loaded.statements:
        if not isinstance(statement, tree.DefaultNode):
            continue
        direction = Direction(statement.direction)
        answer: RejectWith | None = options.answer(statement.verb, statement.answers)
        log, name = options.of(statement.options)
        earlier = said.get(direction)
        if earlier is not None and earlier.span is not None:
            report.add(
                "duplicate-default",
                f"a second default for {direction.value}",
                statement.span,
                labels=(Label(earlier.span, "the first is here"),),
            )
            continue
        said[direction] = Default(Verb(statement.verb), answer, log, name, statement.span)
    return {**UNSAID, **said}


def _settings(loaded: tree.Loaded, options: Options, report: Report) -> Settings:
    first: dict[type, tree.Node] = {}
    essentials, invalid = True, InvalidPolicy.DROP
    invalid_log: Log | None = None
    for statement in loaded.statements:
        if not isinstance(statement, tree.SettingsNode):
            continue
        for item in statement.items:
            if type(item) in first:
                word = "essentials" if isinstance(item, tree.EssentialsSetting) else "invalid"
                report.add(
                    "duplicate-setting",
                    f"`{word}` is set twice",
                    item.span,
                    labels=(Label(first[type(item)].span, "the first is here"),),
                )
                continue
            first[type(item)] = item
            match item:
                case tree.EssentialsSetting():
                    essentials = item.value == "on"
                case tree.InvalidSetting():
                    invalid = InvalidPolicy(item.value)
                    invalid_log = None if item.log is None else options.log(item.log)
    return Settings(essentials, invalid, invalid_log)
