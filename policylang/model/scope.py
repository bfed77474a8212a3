"""The name space of a policy: what each name declares; knows nothing of values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.source import Span
from policylang.syntax import tree
from policylang.syntax.slips import MAC_HELP, looks_like_mac
from policylang.syntax.tokens import RESERVED

# How Linux and its usual programs call interfaces.
_INTERFACE = re.compile(r"(eth|en[ospx]|wl|ww|ppp|br|wg|tun|tap|docker|bond|vlan)[\w-]*[0-9]")

Declaration = (
    tree.ZoneDecl
    | tree.SetDecl
    | tree.ServiceDecl
    | tree.ServiceGroup
    | tree.RulesDecl
    | tree.HostDecl
)


@dataclass(slots=True)
class Scope:
    """Declarations by name; what the catalogue has stands behind the policy's own."""

    loaded: tree.Loaded
    report: Report
    declared: dict[str, Declaration] = field(default_factory=dict)

    def declare_all(self) -> None:
        """Take in every declaration; reports `duplicate-name` and `shadows-catalogue`."""
        for statement in self.loaded.statements:
            if not isinstance(statement, Declaration):
                continue
            name = statement.name
            if not _is_plain_name(name.text):
                self.report.add(
                    "bad-name",
                    f"`{name.text}` cannot be the name of a {kind_of(statement)}",
                    name.span,
                    help="a name is letters, digits, `_` and `-`, and starts with a letter",
                )
            earlier = self.declared.get(name.text)
            if earlier is not None:
                self.report.add(
                    "duplicate-name",
                    f"`{name.text}` is declared twice",
                    name.span,
                    labels=(
                        Label(earlier.name.span, f"first declared here as a {kind_of(earlier)}"),
                    ),
                )
                continue
            self.declared[name.text] = statement
            if isinstance(statement, tree.SetDecl):
                built_in = self.loaded.known_sets
            elif isinstance(statement, (tree.ServiceDecl, tree.ServiceGroup)):
                built_in = self.loaded.known_services
            else:
                built_in = ()
            if name.text in built_in:
                self.report.add(
                    "shadows-catalogue",
                    f"{kind_of(statement)} `{name.text}` takes the place of the built-in one",
                    name.span,
                )

    def declare_interfaces(self) -> None:
        """Take in the names that stand for an interface each, as zones of that name."""
        for name in self.loaded.interfaces:
            item = tree.InterfaceItem(name.span, (name,))
            self.declared.setdefault(name.text, tree.ZoneDecl(name.span, name, (item,)))

    def find(self, name: str) -> Declaration | None:
        """What a name stands for, the catalogue's services and groups of addresses included."""
        return (
            self.declared.get(name) or self.loaded.services.get(name) or self.loaded.sets.get(name)
        )

    def unknown(
        self, code: str, wanted: str, name: tree.Name, *kinds: type, otherwise: str | None = None
    ) -> None:
        """Report that a name stands for nothing, or not for what is wanted here.

        `wanted` is in words ("zone, set or address"); `kinds` are the declarations it means;
        `otherwise` is the help where the name itself suggests none.
        """
        found = self.find(name.text)
        if found is not None:
            self.wrong_kind(wanted, name, found, otherwise)
            return
        if name.text in self.loaded.broken:  # its declaration could not be read, as reported
            return
        if name.text in RESERVED and not name.quoted:  # no name at all, as reported
            return
        if name.text in self.loaded.elsewhere and tree.ZoneDecl in kinds:
            _, hosts = self.loaded.elsewhere[name.text]
            otherwise = f"it is a zone of {told_hosts(hosts)}: `on {hosts[0]} {{ … }}`"
            self.report.add(
                code, f"`{self.loaded.here}` has no zone `{name.text}`", name.span, help=otherwise
            )
            return
        candidates = [n for n, d in self.declared.items() if isinstance(d, kinds)]
        if tree.ServiceDecl in kinds:
            candidates += self.loaded.known_services
        if tree.SetDecl in kinds:
            candidates += self.loaded.known_sets
        hint = did_you_mean(name.text, candidates)
        if looks_like_mac(name.text):
            hint = MAC_HELP
        elif hint is None and name.text in self.loaded.known_services:
            hint = f"`{name.text}` is a service, which stands for protocol and ports together"
        elif hint is None and tree.ZoneDecl in kinds:
            hint = self._interface_hint(name.text)
        self.report.add(code, f"no {wanted} named `{name.text}`", name.span, help=hint or otherwise)

    def _interface_hint(self, text: str) -> str | None:
        """The zone that is meant by the name of an interface."""
        for declaration in self.declared.values():
            if isinstance(declaration, tree.ZoneDecl):
                for item in declaration.items:
                    if isinstance(item, tree.InterfaceItem) and any(
                        name.text == text for name in item.names
                    ):
                        return f"it is an interface of zone `{declaration.name.text}`"
        if _INTERFACE.fullmatch(text):
            return f"an interface stands in a zone: `zone wan {{ interface {text} }}`"
        return None

    def wrong_kind(
        self, wanted: str, name: tree.Name, found: Declaration, help: str | None = None
    ) -> None:
        """Report a name that stands for something else than is wanted here."""
        self.report.add(
            "wrong-kind",
            f"`{name.text}` is a {kind_of(found)}; expected a {wanted}",
            name.span,
            help=help,
            labels=(Label(found.name.span, "declared here"),),
        )


def kind_of(declaration: Declaration) -> str:
    """What users call a declaration."""
    match declaration:
        case tree.ZoneDecl():
            return "zone"
        case tree.SetDecl():
            return "set"
        case tree.RulesDecl():
            return "group of rules"
        case tree.HostDecl():
            return "host"
        case _:
            return "service"


MOST_HOSTS = 3  # that are named in a message


def told_hosts(names: Sequence[str]) -> str:
    """Hosts in words: "`web1`", "`web1` and `web2`", "`web1`, `web2` and 7 more"; of none ""."""
    shown = [f"`{name}`" for name in names[:MOST_HOSTS]]
    if not shown:
        return ""
    if len(names) > MOST_HOSTS:
        return f"{', '.join(shown[:-1])} and {len(names) - MOST_HOSTS + 1} more"
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _is_plain_name(text: str) -> bool:
    return (
        text[:1].isascii()
        and text[:1].isalpha()
        and all(c.isascii() and (c.isalnum() or c in "_-") for c in text)
    )


def cycle(report: Report, code: str, kind: str, at: Span, path: tuple[tree.Name, ...]) -> None:
    """Report declarations that name themselves by way of each other."""
    way = " → ".join(f"`{name.text}`" for name in (*path, path[0]))
    report.add(
        code,
        f"{kind} `{path[0].text}` contains itself",
        at,
        help=f"the way round is {way}" if len(path) > 1 else None,
        labels=(Label(path[0].span, "declared here"),),
    )
