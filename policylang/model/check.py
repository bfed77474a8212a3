"""What is right but should be known: warnings about a whole, resolved policy."""

from __future__ import annotations

from policylang.diagnostics import Report
from policylang.model.types import AddressEnd, AnyEnd, End, Helper, Policy, PolicyRule, Verb
from policylang.packets.fields import FAMILY_ADDRESSES, UNIVERSE, Field


def check(policy: Policy, report: Report) -> Policy:
    """The policy itself; reports `helper-faces-any`, `helper-one-family`."""
    for rule in policy.rules:
        if rule.verb is not Verb.ALLOW:
            continue
        for helper in _helpers(rule):
            if helper.has_faults and (_is_any(rule.source) or _is_any(rule.destination)):
                report.add(
                    "helper-faces-any",
                    f"the kernel's helper `{helper.name}` has a record of faults, and this rule "
                    "lets anyone reach it",
                    rule.span,
                    help="name the machines or the zone that need it",
                )
            if (
                helper.families != UNIVERSE[Field.FAMILY]
                and not _within(rule, helper)
                and not _is_answered_anyway(rule, helper)
            ):
                words = " and ".join(f"IPv{family}" for family, _ in helper.families)
                report.add(
                    "helper-one-family",
                    f"the kernel's helper `{helper.name}` knows {words} alone; over the other "
                    "family the rule holds without it",
                    rule.span,
                )
    return policy


def _helpers(rule: PolicyRule) -> tuple[Helper, ...]:
    found = {t.helper.name: t.helper for t in rule.what if t.helper is not None}
    return tuple(found.values())


def _is_answered_anyway(rule: PolicyRule, helper: Helper) -> bool:
    """Whether the answers that a helper predicts come in without it, over both families."""
    return all(t.answers_from_any for t in rule.what if t.helper == helper)


def _is_any(end: End) -> bool:
    return all(any(isinstance(e, AnyEnd) for e in one.elements) for one in end.lists)


def _within(rule: PolicyRule, helper: Helper) -> bool:
    """Whether a rule keeps within the families of its helper."""
    families = rule.conditions.families
    if families is not None and helper.families.covers(families):
        return True
    for end in (rule.source, rule.destination):
        for one in end.lists:
            addresses = [e.addresses for e in one.elements if isinstance(e, AddressEnd)]
            if len(addresses) == len(one.elements) and all(
                not a.meets(all_of_it)
                for a in addresses
                for family, all_of_it in FAMILY_ADDRESSES.items()
                if family not in helper.families
            ):
                return True
    return False
