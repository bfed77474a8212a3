"""The nodes of the catalogue's own statements, which describe conntrack helpers."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.syntax.leaves import Keyword, Name, Node, Text


@dataclass(frozen=True, slots=True)
class AssignItem(Node):
    """`assign "ftp" tcp`."""

    kernel_name: Text
    protocol: str


@dataclass(frozen=True, slots=True)
class MatchItem(Node):
    """`match "RAS", "Q.931"`."""

    kernel_names: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class ExpectItem(Node):
    """`expect tcp, udp from client, server`."""

    protocols: tuple[Name, ...]
    openers: tuple[Name, ...]


@dataclass(frozen=True, slots=True)
class FamilyItem(Node):
    """`family ipv4, ipv6`."""

    families: tuple[Keyword, ...]


@dataclass(frozen=True, slots=True)
class ModulesItem(Node):
    """`modules "nf_conntrack_ftp"`."""

    names: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class NatItem(Node):
    """`nat "nf_nat_ftp"`."""

    names: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class FaultsItem(Node):
    """`faults`: the helper has a record of kernel vulnerabilities."""


HelperDeclItem = (
    AssignItem | MatchItem | ExpectItem | FamilyItem | ModulesItem | NatItem | FaultsItem
)


@dataclass(frozen=True, slots=True)
class HelperDecl(Node):
    """`helper NAME { … }`, in the catalogue alone."""

    name: Name
    items: tuple[HelperDeclItem, ...]
