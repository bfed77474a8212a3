"""A policy of several hosts as one of them has it; knows what names hosts, and no rule's meaning.

Which hosts a block is for is told before anything else is resolved: what is left then is a policy
of one firewall, in which the names of hosts stand for addresses (LANGUAGE 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.model.policy import Policy
from policylang.model.scope import kind_of, told_hosts
from policylang.model.translations import PortForward
from policylang.model.types import AnyEnd, End, EndElement, EndList, HostEnd, SelfEnd, ZoneEnd
from policylang.source import Span
from policylang.syntax import tree
from policylang.syntax.mentions import flat

SELF = End((EndList((SelfEnd(),)),))


def of_host(loaded: tree.Loaded, host: str | None, report: Report) -> tree.Loaded | None:
    """A policy as one of its hosts has it; one without hosts is as it is.

    None, with an error in `report`, where it has hosts and `host` is none of them (`which-host`,
    `no-such-host`). Names of hosts that blocks are for are told of wherever they stand, also where
    the policy has no host that they could be.
    """
    names = loaded.hosts
    if not names and host is None:
        return _Choice(loaded, report).of_none()
    if host is None:
        report.add(
            "which-host",
            f"the policy has {len(names)} hosts, and none of them is chosen",
            None,
            help=f"`--host {names[0]}`, for one of them",
        )
        return None
    if host not in names:
        hint = did_you_mean(host, names) or f"the policy has {told_hosts(names) or 'no hosts'}"
        report.add("no-such-host", f"the policy has no host `{host}`", None, help=hint)
        return None
    return _Choice(loaded, report).of(host)


@dataclass(slots=True)
class _Choice:
    loaded: tree.Loaded
    report: Report
    _names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _declared: dict[str, tree.Statement] = field(default_factory=dict)

    def of_none(self) -> tree.Loaded:
        """The policy of one firewall, in which no block can be for a host."""
        self._declare()
        for one in self.loaded.statements:
            if isinstance(one, tree.OnBlock):
                self._of_block(one)
        return self.loaded

    def of(self, host: str) -> tree.Loaded:
        """What holds for a host, at the places where it is written."""
        self._declare()
        statements: list[tree.Statement] = []
        others: dict[str, dict[str, tree.ZoneDecl]] = {}  # zones, by name and host
        for statement in self.loaded.statements:
            match statement:
                case tree.HostDecl(name=name):
                    statements.append(statement)
                    if name.text == host:
                        statements += statement.zones
                    for zone in statement.zones:
                        others.setdefault(zone.name.text, {})[name.text] = zone
                case tree.OnBlock():
                    hosts = self._of_block(statement)
                    if host in hosts:
                        statements += statement.statements
                    for one in statement.statements:
                        if isinstance(one, tree.ZoneDecl):
                            others.setdefault(one.name.text, {}).update(dict.fromkeys(hosts, one))
                case _:
                    statements.append(statement)
        own = {one.name.text for one in statements if isinstance(one, tree.ZoneDecl)}
        elsewhere = {
            name: (tuple(found.values()), tuple(found))
            for name, found in others.items()
            if name not in own
        }
        return replace(self.loaded, statements=tuple(statements), here=host, elsewhere=elsewhere)

    def _declare(self) -> None:
        for one in self.loaded.statements:
            if isinstance(one, (tree.HostDecl, tree.SetDecl)):
                self._declared.setdefault(one.name.text, one)

    def _of_block(self, block: tree.OnBlock) -> tuple[str, ...]:
        """The hosts that a block is for; reports `block-for-nobody`."""
        taken = {*self._of_names(block.exceptions)}
        found = tuple(name for name in self._of_names(block.hosts) if name not in taken)
        if not found and not self.report.has_errors:  # an error may be why there are none
            first, last = block.hosts[0], (*block.hosts, *block.exceptions)[-1]
            span = Span(first.span.file, first.span.start, last.span.end)
            message = "no host is left that this block would be for"
            self.report.add("block-for-nobody", message, span)
        return found

    def _of_names(self, names: Iterable[tree.Name]) -> Iterator[str]:
        for name in names:
            yield from self._of_name(name)

    def _of_name(self, name: tree.Name) -> tuple[str, ...]:
        declaration = self._declared.get(name.text)
        match declaration:
            case tree.HostDecl():
                return (name.text,)
            case tree.SetDecl():
                return self._of_set(declaration, name)
            case _:
                self._unknown(name)
                return ()

    def _of_set(self, declaration: tree.SetDecl, at: tree.Name) -> tuple[str, ...]:
        name = declaration.name.text
        if name in self._names:
            return self._names[name]
        if name in self._open:  # which is told where the set is declared
            return ()
        self._open.append(name)
        found: list[str] = []
        if declaration.dynamic is not None or declaration.listed is not None:
            self._no_host(at, declaration)
        lists = (declaration.elements, declaration.exceptions)
        for number, elements in enumerate(lists):
            for element in elements:
                if not isinstance(element, tree.Name):
                    self._no_host(at, declaration)
                    self._open.pop()
                    return self._names.setdefault(name, ())
                of_element = self._of_name(element)
                found = (
                    [one for one in found if one not in of_element]
                    if number
                    else [*found, *of_element]
                )
        self._open.pop()
        return self._names.setdefault(name, tuple(dict.fromkeys(found)))

    def _no_host(self, at: tree.Name, declaration: tree.SetDecl) -> None:
        self.report.add(
            "wrong-kind",
            f"`{at.text}` is a set of something else; expected a host or a set of hosts",
            at.span,
            labels=(Label(declaration.name.span, "declared here"),),
        )

    def _unknown(self, name: tree.Name) -> None:
        if name.text in self.loaded.broken:  # its declaration could not be read, as reported
            return
        other = next(
            (
                one
                for one in flat(self.loaded.statements)
                if isinstance(
                    one, (tree.ZoneDecl, tree.ServiceDecl, tree.ServiceGroup, tree.RulesDecl)
                )
                and one.name.text == name.text
            ),
            None,
        )
        if other is not None:
            self.report.add(
                "wrong-kind",
                f"`{name.text}` is a {kind_of(other)}; expected a host or a set of hosts",
                name.span,
                labels=(Label(other.name.span, "declared here"),),
            )
            return
        hint = did_you_mean(name.text, self._declared)
        self.report.add(
            "unknown-name", f"no host or set of hosts named `{name.text}`", name.span, help=hint
        )


# --- zones that this host has not ----------------------------------------------------------------


def check_elsewhere(policy: Policy, loaded: tree.Loaded, report: Report) -> None:
    """Report `zone-elsewhere`: a rule that concerns this host names a zone that is not known here.

    A zone that another host knows by its interface alone is nobody here. Where the rule is about
    that other host, so be it; where it speaks of this one, that would be an end lost.
    """
    for statement in (*policy.statements, *policy.protections):
        source = getattr(statement, "source", None)
        if not isinstance(source, End):
            continue
        if isinstance(statement, PortForward):
            destination = statement.at or SELF
        else:
            destination = getattr(statement, "destination", SELF)
        for end, other in ((source, destination), (destination, source)):
            for element in _lost(end):
                if _concerns(other, element):
                    _tell(element, loaded, report)


def _lost(end: End) -> Iterator[HostEnd]:
    """The zones of other hosts at an end that are nobody here."""
    for one in end.lists:
        for element in (*one.elements, *one.exceptions):
            if isinstance(element, HostEnd) and element.elsewhere and not element.others:
                yield element


def _concerns(other: End, element: HostEnd) -> bool:
    """Whether a rule between a zone of other hosts and this end is about this host."""
    says_self = any(isinstance(e, SelfEnd) for one in other.lists for e in one.elements)
    if all(any(_may_be_own(e, says_self) for e in one.elements) for one in other.lists):
        return True
    if not element.is_passed:
        return False
    return all(any(_may_be_passed(e) for e in one.elements) for one in other.lists)


def _may_be_own(element: EndElement, says_self: bool) -> bool:
    match element:
        case AnyEnd() | SelfEnd():
            return True
        case HostEnd():
            return bool(element.own)
        case ZoneEnd():
            return False
        case _:
            return says_self


def _may_be_passed(element: EndElement) -> bool:
    if isinstance(element, HostEnd):
        return bool(element.others)
    return not isinstance(element, SelfEnd)


def _tell(element: HostEnd, loaded: tree.Loaded, report: Report) -> None:
    assert element.elsewhere is not None
    _, hosts = loaded.elsewhere[element.elsewhere]
    report.add(
        "zone-elsewhere",
        f"zone `{element.elsewhere}` of {told_hosts(hosts)} is not known where this holds, too",
        element.span,
        help=f"say it `on {hosts[0]} {{ … }}` alone, or give the other hosts a zone of that name, "
        "or the zone its networks",
    )
