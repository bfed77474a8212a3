"""What is right but should be known: warnings about a whole, resolved policy."""

from __future__ import annotations

from policylang.diagnostics import Report
from policylang.model.policy import Policy
from policylang.model.translations import PortForward, Redirect
from policylang.model.types import AddressEnd, AnyEnd, End, Helper, HostEnd, PolicyRule, Verb
from policylang.packets.fields import FAMILY_ADDRESSES, UNIVERSE, Field
from policylang.packets.values import Ranges

# Statements that let connections through, and have their helpers assigned.
_Allowing = PolicyRule | PortForward | Redirect


def check(policy: Policy, report: Report) -> Policy:
    """The policy itself; reports `helper-faces-any`, `helper-one-family`."""
    for statement in policy.statements:
        match statement:
            case PolicyRule(verb=Verb.ALLOW) | PortForward() | Redirect():
                _check_helpers(statement, report)
            case _:
                pass
    return policy


def _check_helpers(statement: _Allowing, report: Report) -> None:
    is_rule = isinstance(statement, PolicyRule)
    for helper in _helpers(statement):
        if helper.has_faults and _faces_any(statement):
            report.add(
                "helper-faces-any",
                f"the kernel's helper `{helper.name}` has a record of faults, and this "
                f"{'rule' if is_rule else 'statement'} lets anyone reach it",
                statement.span,
                help="name the machines or the zone that need it",
            )
        if (
            helper.families != UNIVERSE[Field.FAMILY]
            and not _within(statement, helper)
            and not _is_answered_anyway(statement, helper)
        ):
            words = " and ".join(f"IPv{family}" for family, _ in helper.families)
            report.add(
                "helper-one-family",
                f"the kernel's helper `{helper.name}` knows {words} alone; over the other "
                f"family the {'rule' if is_rule else 'statement'} holds without it",
                statement.span,
            )


def _helpers(statement: _Allowing) -> tuple[Helper, ...]:
    found = {t.helper.name: t.helper for t in statement.what if t.helper is not None}
    return tuple(found.values())


def _is_answered_anyway(statement: _Allowing, helper: Helper) -> bool:
    """Whether the answers that a helper predicts come in without it, over both families."""
    return all(t.answers_from_any for t in statement.what if t.helper == helper)


def _faces_any(statement: _Allowing) -> bool:
    """Whether anyone is at one of the ends; the targets of a port forward are named."""
    if isinstance(statement, PortForward):
        return _is_any(statement.source)
    return _is_any(statement.source) or _is_any(statement.destination)


def _is_any(end: End) -> bool:
    return all(any(isinstance(e, AnyEnd) for e in one.elements) for one in end.lists)


def _within(statement: _Allowing, helper: Helper) -> bool:
    """Whether a statement keeps within the families of its helper."""
    families = statement.conditions.families
    if families is not None and helper.families.covers(families):
        return True
    ends = [statement.source]
    if not isinstance(statement, PortForward):
        ends.append(statement.destination)
    elif not _of_other_families(statement.targets, helper):
        return True
    elif statement.at is not None:
        ends.append(statement.at)
    for end in ends:
        for one in end.lists:
            addresses = [
                e.addresses if isinstance(e, AddressEnd) else e.own | e.others
                for e in one.elements
                if isinstance(e, (AddressEnd, HostEnd))
            ]
            if len(addresses) == len(one.elements) and not any(
                _of_other_families(a, helper) for a in addresses
            ):
                return True
    return False


def _of_other_families(addresses: Ranges, helper: Helper) -> bool:
    """Whether some of the addresses are of a family that a helper does not know."""
    return any(
        addresses.meets(all_of_it)
        for family, all_of_it in FAMILY_ADDRESSES.items()
        if family not in helper.families
    )
