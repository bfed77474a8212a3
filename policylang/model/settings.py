"""Settings and defaults; knows no rules."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policylang.diagnostics import Label, Report
from policylang.model.options import LOG_RATE, Options
from policylang.model.policy import Default, InvalidPolicy, Settings
from policylang.model.types import Direction, Rate, Verb
from policylang.syntax import tree

UNSAID = {
    Direction.INBOUND: Default(Verb.DENY),
    Direction.FORWARD: Default(Verb.DENY),
    Direction.OUTBOUND: Default(Verb.ALLOW),
}

_WORDS = {
    tree.EssentialsSetting: "essentials",
    tree.InvalidSetting: "invalid",
    tree.OnReloadSetting: "on-reload",
    tree.LogLimitSetting: "log-limit",
    tree.TimeSetting: "time",
    tree.CountersSetting: "counters",
}


@dataclass(frozen=True, slots=True)
class Ways:
    """The settings that other statements are read by."""

    log_rate: Rate | None = LOG_RATE
    is_local_time: bool = False


def said_items(loaded: tree.Loaded, report: Report) -> tuple[tree.Setting, ...]:
    """The settings of all statements, each once; reports `duplicate-setting`."""
    first: dict[type, tree.Setting] = {}
    for statement in loaded.statements:
        if not isinstance(statement, tree.SettingsNode):
            continue
        for item in statement.items:
            if type(item) in first:
                report.add(
                    "duplicate-setting",
                    f"`{_WORDS[type(item)]}` is set twice",
                    item.span,
                    labels=(Label(first[type(item)].span, "the first is here"),),
                )
                continue
            first[type(item)] = item
    return tuple(first.values())


def ways(items: tuple[tree.Setting, ...], options: Options) -> Ways:
    """What the settings say of how other statements are read."""
    found = Ways()
    for item in items:
        match item:
            case tree.LogLimitSetting():
                found = replace(found, log_rate=options.log_limit(item.limit))
            case tree.TimeSetting():
                found = replace(found, is_local_time=item.value == "local")
    return found


def settings(items: tuple[tree.Setting, ...], options: Options) -> Settings:
    """What the settings say of packets."""
    found = Settings()
    for item in items:
        match item:
            case tree.EssentialsSetting():
                found = replace(found, essentials=item.value == "on")
            case tree.InvalidSetting():
                log = None if item.log is None else options.log(item.log)
                found = replace(found, invalid=InvalidPolicy(item.value), invalid_log=log)
            case tree.OnReloadSetting():
                found = replace(found, cuts_flows=item.value == "cut")
            case tree.CountersSetting():
                found = replace(found, has_counters=item.value == "on")
    return found


def defaults(loaded: tree.Loaded, options: Options, report: Report) -> dict[Direction, Default]:
    """What decides where no rule does, path by path; reports `duplicate-default`."""
    found: dict[Direction, Default] = {}
    for statement in loaded.statements:
        if not isinstance(statement, tree.DefaultNode):
            continue
        direction = Direction(statement.direction)
        answer = options.answer(statement.verb, statement.answers)
        said = options.of(statement.options)
        earlier = found.get(direction)
        if earlier is not None and earlier.span is not None:
            report.add(
                "duplicate-default",
                f"a second default for {direction.value}",
                statement.span,
                labels=(Label(earlier.span, "the first is here"),),
            )
            continue
        found[direction] = Default(
            Verb(statement.verb), answer, said.log, said.name, statement.span, said.adds
        )
    return {**UNSAID, **found}
