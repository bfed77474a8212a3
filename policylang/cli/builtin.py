"""What is built in, as the commands that tell of it need it; knows nothing of how it is told."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.diagnostics import Report
from policylang.model.elements import Elements
from policylang.model.scope import Scope
from policylang.model.services import Services
from policylang.model.types import Traffic
from policylang.packets.values import Ranges
from policylang.syntax import tree
from policylang.syntax.loader import load_catalogue


@dataclass(frozen=True, slots=True)
class Service:
    """A service of the catalogue. `same_as` are the other names of what it means.

    `members` are the services that it names where it is a group. `notes` are what it warns of.
    """

    name: str
    description: str
    traffic: tuple[Traffic, ...]
    members: tuple[str, ...]
    same_as: tuple[str, ...]
    notes: tuple[str, ...]
    text: str  # of its file, less the description


@dataclass(frozen=True, slots=True)
class Group:
    """A group of addresses of the catalogue."""

    name: str
    description: str
    addresses: Ranges
    text: str  # of its file, less the description


def read_services() -> tuple[Service, ...]:
    """All services of the catalogue, sorted by name."""
    report = Report()
    catalogue = load_catalogue(report)
    scope = Scope(catalogue, report)
    model = Services(scope, Elements(scope, report), report)
    meant = {name: _meant(name, catalogue.services) for name in catalogue.services}
    names: dict[str, list[str]] = {}
    for name, other in meant.items():
        names.setdefault(other, []).append(name)
    found = []
    for name, declaration in catalogue.services.items():
        traffic = model.traffic_of(declaration, declaration.name)
        description, text = _texts(declaration)
        members: tuple[str, ...] = ()
        if isinstance(declaration, tree.ServiceGroup):
            members = tuple(member.text for member in declaration.members)
        same_as = tuple(other for other in names[meant[name]] if other != name)
        found.append(Service(name, description, traffic, members, same_as, model.notes[name], text))
    assert not report.diagnostics, "the catalogue has mistakes"
    return tuple(found)


def read_groups() -> tuple[Group, ...]:
    """All groups of addresses of the catalogue, sorted by name."""
    report = Report()
    catalogue = load_catalogue(report)
    elements = Elements(Scope(catalogue, report), report)
    found = []
    for name, declaration in catalogue.sets.items():
        description, text = _texts(declaration)
        values = elements.set_value(declaration, declaration.name).values
        found.append(Group(name, description, values, text))
    assert not report.diagnostics, "the catalogue has mistakes"
    return tuple(found)


def _meant(name: str, services: dict[str, tree.ServiceDecl | tree.ServiceGroup]) -> str:
    """The service that a name means, by way of groups that have one member."""
    declaration = services[name]
    if isinstance(declaration, tree.ServiceGroup) and len(declaration.members) == 1:
        return _meant(declaration.members[0].text, services)
    return name


def _texts(declaration: tree.ServiceDecl | tree.ServiceGroup | tree.SetDecl) -> tuple[str, str]:
    """The description, which is the first line of the file, and the rest of it."""
    first, _, rest = declaration.span.file.text.partition("\n")
    return first.removeprefix("# "), rest.rstrip("\n")
