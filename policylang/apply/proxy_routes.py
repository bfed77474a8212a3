"""Lays and removes the way of packets to a transparent proxy, in this thread's namespace.

Rules and routes of ours carry a protocol number of our own; others are never touched.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from policylang.apply import programs
from policylang.backends.proxying import PRIORITY, PROTOCOL, ROUTE, TABLE, rule
from policylang.diagnostics import Report
from policylang.ir.ruleset import ProxyRoute

FAMILIES = (4, 6)
LOCAL = "2"  # RTN_LOCAL, linux/rtnetlink.h


def lay(route: ProxyRoute | None, report: Report) -> tuple[str, ...]:
    """Let marked packets be delivered here, or none any more; what was changed, in words.

    Reports `no-proxy-route` where that fails, `foreign-route` for rules and routes of others at
    the place of ours, and `left-behind` for what cannot be removed.
    """
    if programs.find("ip") is None and route is None:
        return ()  # nothing of ours can be there
    changed: list[str] = []
    for family in FAMILIES:
        wanted = route is not None and family in route.families
        if wanted and route is not None:
            changed += _laid(family, route, report)
        else:
            changed += _removed(family, report)
    return tuple(changed)


def _laid(family: int, route: ProxyRoute, report: Report) -> list[str]:
    rules, routes = _listed(family, "rule"), _listed(family, "route", "table", str(TABLE))
    _report_foreign(family, rules, routes, report)
    asked = rule(route.value, route.mask)
    there = [_as_asked(one) for one in rules if _is_ours(one)]
    commands = [] if any(map(_is_our_route, routes)) else [f"route add {ROUTE}"]
    if asked not in there:
        commands.append(f"rule add {asked}")
    # What replaces an older one comes first: no packet of the proxy's goes astray in between.
    commands += [f"rule del {old}" for old in there if old != asked]
    for command in commands:
        finished = programs.run(["ip", f"-{family}", *command.split()], report)
        if finished is None:
            return []
        if not finished.ok:
            span = next((o.span for o in route.origins if o.span is not None), None)
            report.add(
                "no-proxy-route",
                f"cannot lay the IPv{family} route to the proxy",
                span,
                help=f"the rules are in force; `ip -{family} {command}` says: {finished.words}",
            )
            return []
    return [f"laid the IPv{family} route to the proxy"] if commands else []


def _removed(family: int, report: Report) -> list[str]:
    commands = [f"rule del {_as_asked(one)}" for one in _listed(family, "rule") if _is_ours(one)]
    if not commands:
        return []  # and no route, which comes before its rule and goes after it
    if any(map(_is_our_route, _listed(family, "route", "table", str(TABLE)))):
        commands.append(f"route del {ROUTE}")
    for command in commands:
        finished = programs.run(["ip", f"-{family}", *command.split()], report)
        if finished is None or not finished.ok:
            message = f"cannot remove the IPv{family} route to the proxy of an earlier apply"
            words = None if finished is None else finished.words
            report.add("left-behind", message, None, help=words)
            return []
    return [f"removed the IPv{family} route to the proxy"]


Listed = dict[str, Any]  # as ip(8) prints it with -json -Numeric


def _listed(family: int, what: str, *selector: str) -> list[Listed]:
    """Rules or routes; none where the family or policy routing is not there."""
    argv = ["ip", f"-{family}", "-json", "-Numeric", what, "show", *selector]
    finished = programs.run(argv, Report())
    if finished is None or not finished.ok:
        return []
    try:
        found: list[Listed] = json.loads(finished.stdout or "[]")
    except ValueError:  # of before 2018 (iproute2 4.16), which knows no JSON for this
        return []
    return found


def _is_ours(one: Listed) -> bool:
    return one.get("protocol") == str(PROTOCOL) and one.get("table") == str(TABLE)


def _is_our_route(one: Listed) -> bool:
    is_ours = one.get("protocol") == str(PROTOCOL)
    return is_ours and (one.get("type"), one.get("dst")) == (LOCAL, "default")


def _as_asked(one: Listed) -> str:
    """A rule of ours in the words that made it."""
    return rule(int(one.get("fwmark", "0"), 0), int(one.get("fwmask", "0xffffffff"), 0))


def _report_foreign(
    family: int, rules: Sequence[Listed], routes: Sequence[Listed], report: Report
) -> None:
    others = [one for one in rules if not _is_ours(one)]
    if any(one.get("priority") == PRIORITY for one in others):
        what = f"another IPv{family} rule has the priority {PRIORITY}"
    elif any(one.get("table") == str(TABLE) for one in others):
        what = f"another IPv{family} rule leads to the routing table {TABLE}"
    elif not all(map(_is_our_route, routes)):
        what = f"the IPv{family} routing table {TABLE} holds routes of others"
    else:
        return
    report.add(
        "foreign-route",
        f"{what}, where the route to the proxy is",
        None,
        help=f"it was left alone: see `ip -{family} rule` and `ip -{family} route show table"
        f" {TABLE}`",
    )
