"""The names that statements mention, as far as the catalogue may have them; resolves nothing.

What is named is loaded: a name too many costs the reading of a file, one too few an error at a
name that is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from policylang.syntax import tree

PROTECTED_AGAINST = "bogons"  # the set that `protect … against bogons` is about


def named_services(statements: Iterable[tree.Statement]) -> Iterator[str]:
    """The names that may be those of services, within blocks and groups of rules too."""
    for statement in flat(statements):
        match statement:
            case tree.RuleNode(what=what) | tree.ExpectNode(what=what):
                yield from _names(what)
            case tree.SessionNode(kind=kind):
                yield kind.text
            case tree.ServiceGroup(members=members):
                yield from _names(members)
            case _ if isinstance(statement, tree.TreatmentNode):
                yield from _names(_what(statement))
            case _:
                pass


def named_sets(statements: Iterable[tree.Statement]) -> Iterator[str]:
    """The names that may be those of sets, within blocks and groups of rules too.

    Sets of ports and of MAC addresses are among them: the catalogue has neither, but then whoever
    names a set of addresses there is told so.
    """
    for statement in flat(statements):
        match statement:
            case tree.RuleNode() | tree.ExpectNode():
                yield from _sets_of_rule(statement)
            case tree.SessionNode(place=place, conditions=conditions):
                if place is not None:
                    yield from _sets_of_place(place)
                yield from _sets_of_conditions(conditions)
            case tree.TrafficBlock(place=place):
                yield from _sets_of_place(place)
            case tree.SetDecl(elements=elements, exceptions=exceptions):
                yield from _names((*elements, *exceptions))
            case tree.ZoneDecl(items=parts):
                for part in parts:
                    if isinstance(part, tree.NetworkItem):
                        yield from _names(part.elements)
            case tree.ServiceDecl(items=items):
                for item in items:
                    if isinstance(item, tree.PortsItem):
                        yield from _names((*item.elements, *item.exceptions))
                    elif isinstance(item, tree.DataItem):
                        yield from _names(item.elements)
            case tree.ProtectNode(source=source):
                yield PROTECTED_AGAINST
                yield from _sets_of_end(source)
            case _ if isinstance(statement, tree.TreatmentNode):
                yield from _sets_of_treatment(statement)
            case _:
                pass


def quoted_ends(statements: Iterable[tree.Statement]) -> Iterator[tree.Name]:
    """The names in quotes at the ends of what is asked."""
    for statement in flat(statements):
        if not isinstance(statement, tree.ExpectNode) or statement.place is None:
            continue
        for end in (statement.place.source, statement.place.destination):
            for item in () if end is None else (*end.elements, *end.exceptions):
                for name in (item.element, *item.zones):
                    if isinstance(name, tree.Name) and name.quoted:
                        yield name


def flat(statements: Iterable[tree.Statement]) -> Iterator[tree.Statement]:
    """All statements in reading order, those within blocks and groups of rules behind it."""
    stack = list(statements)
    stack.reverse()
    while stack:
        statement = stack.pop()
        yield statement
        if isinstance(statement, (tree.TrafficBlock, tree.RulesDecl, tree.OnBlock)):
            stack.extend(reversed(statement.statements))
        elif isinstance(statement, tree.TestDecl):
            stack.extend(reversed(statement.expectations))
        elif isinstance(statement, tree.HostDecl):
            stack.extend(reversed(statement.zones))


def _what(node: tree.TreatmentNode) -> tuple[tree.WhatElement, ...]:
    """What a statement speaks of; nothing where it is about everything."""
    match node:
        case tree.NetmapNode() | tree.ClampNode() | tree.OffloadNode():
            return ()
        case _:
            return node.what


def _sets_of_treatment(node: tree.TreatmentNode) -> Iterator[str]:
    yield from _sets_of_what(_what(node))
    yield from _sets_of_conditions(node.conditions)
    match node:
        case tree.DnatNode(source=source, at=at, targets=targets):
            yield from _names(targets)
            for end in (source, at):
                if end is not None:
                    yield from _sets_of_end(end)
        case tree.TproxyNode(source=source, destination=destination):
            for end in (source, destination):
                if end is not None:
                    yield from _sets_of_end(end)
        case tree.SnatNode(place=place, addresses=addresses):
            yield from _names(addresses)
            yield from _sets_of_place(place)
        case tree.NetmapNode():
            pass
        case _:
            yield from _sets_of_place(node.place)


def _sets_of_rule(rule: tree.RuleNode | tree.ExpectNode) -> Iterator[str]:
    yield from _sets_of_what(rule.what)
    if rule.place is not None:
        yield from _sets_of_place(rule.place)
    yield from _sets_of_conditions(rule.conditions)
    for option in rule.options:
        if isinstance(option, tree.AddOption):
            yield option.set.text


def _sets_of_what(what: tuple[tree.WhatElement, ...]) -> Iterator[str]:
    for element in what:
        if isinstance(element, tree.Name):
            yield element.text
        elif isinstance(element, tree.PortsWhat) and isinstance(element.element, tree.Name):
            yield element.element.text


def _sets_of_conditions(conditions: tuple[tree.Condition, ...]) -> Iterator[str]:
    for condition in conditions:
        match condition:
            case tree.MacCondition(addresses=elements):
                yield from _names(elements)
            case tree.SourcePortCondition(elements=elements, exceptions=exceptions):
                yield from _names((*elements, *exceptions))
            case _:
                pass


def _sets_of_place(place: tree.Place) -> Iterator[str]:
    for end in (place.source, place.destination):
        if end is not None:
            yield from _sets_of_end(end)


def _sets_of_end(end: tree.EndListNode) -> Iterator[str]:
    for item in (*end.elements, *end.exceptions):
        match item.element:
            case tree.Name(text=text):
                yield text
            case tree.PublishedNode(addresses=addresses):
                yield from _names(addresses)
            case _:
                pass


def _names(elements: Iterable[object]) -> Iterator[str]:
    return (element.text for element in elements if isinstance(element, tree.Name))
