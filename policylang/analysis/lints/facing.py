"""Conntrack helpers that read what anyone on the Internet sends."""

from __future__ import annotations

from policylang.analysis.lints.subject import Subject
from policylang.analysis.lints.wider import is_anyone
from policylang.diagnostics import Report
from policylang.model.translations import PortForward
from policylang.model.types import AnyEnd, End, PolicyRule, SelfEnd, Traffic, Verb


def find_facing(subject: Subject, report: Report) -> None:
    """Report statements by which a helper faces the Internet: `helper-faces-internet`.

    What `helper-faces-any` says already is not said again.
    """
    for statement in subject.statements.values():
        match statement:
            case PolicyRule(verb=Verb.ALLOW):
                if _is_own(statement.source):
                    continue  # this host chooses whom it talks to
            case PortForward():
                pass
            case _:
                continue
        if not subject.is_reached(statement.span) or not is_anyone(subject, statement.source):
            continue
        for traffic in statement.what:
            _tell(statement, traffic, report)


def _is_own(end: End) -> bool:
    return any(isinstance(e, SelfEnd) for one in end.lists for e in one.elements)


def _tell(statement: PolicyRule | PortForward, traffic: Traffic, report: Report) -> None:
    helper = traffic.helper
    if helper is None:
        return
    if helper.has_faults:
        if _is_any(statement.source):
            return  # `helper-faces-any`
        what = f"the kernel's helper `{helper.name}` has a record of faults, and the Internet"
        advice = "name the machines that need it"
    elif traffic.data_ports is None and any(e.by_client or e.by_server for e in helper.expects):
        what = f"the kernel's helper `{helper.name}` opens any port from 1024 on, and the Internet"
        advice = (
            f"say which ports it may open, by a service of your own: "
            f"`helper {helper.name} data FIRST-LAST`"
        )
    else:
        return
    by = "rule" if isinstance(statement, PolicyRule) else "statement"
    report.add(
        "helper-faces-internet",
        f"{what} may talk to it by this {by}",
        statement.span,
        help=advice,
    )


def _is_any(end: End) -> bool:
    return all(any(isinstance(e, AnyEnd) for e in one.elements) for one in end.lists)
