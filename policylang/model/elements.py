"""Addresses, ports, sets and zones become ranges of numbers; knows nothing of rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from policylang.diagnostics import Label, Report
from policylang.model.scope import Scope, cycle
from policylang.model.types import Zone
from policylang.packets.fields import PORTS
from policylang.packets.values import (
    NAME_BYTES,
    Range,
    Ranges,
    format_address,
    name_range,
    parse_address,
    parse_one_address,
)
from policylang.syntax import tree

ADDRESS = "address"
PORT = "port"
KIND_WORDS = {ADDRESS: "addresses", PORT: "ports"}


@dataclass(frozen=True, slots=True)
class SetValue:
    """What a set holds; `kind` None where nothing tells it (an empty set)."""

    kind: str | None
    values: Ranges


@dataclass(slots=True)
class Elements:
    """Resolves sets and zones, each once."""

    scope: Scope
    report: Report
    _sets: dict[str, SetValue] = field(default_factory=dict)
    _zones: dict[str, Zone] = field(default_factory=dict)
    _open: list[tree.Name] = field(default_factory=list)

    # --- single values ----------------------------------------------------------------------

    def address(self, node: tree.Address) -> Range | None:
        """The range of an address, prefix or range; reports `bad-address`, `host-bits`."""
        parsed = parse_address(node.text)
        if parsed is None:
            self.report.add(
                "bad-address",
                f"`{node.text}` is not an address, a prefix or a range of addresses",
                node.span,
                help=_address_help(node.text),
            )
            return None
        base, slash, length = node.text.partition("/")
        if slash and parse_one_address(base) != parsed[0]:
            self.report.add(
                "host-bits",
                f"`{node.text}` has bits set beyond its prefix of {length}",
                node.span,
                help=f"`{format_address(parsed[0])}/{length}` is meant; write the address alone to "
                "mean one host",
            )
        return parsed

    def port(self, node: tree.Number | tree.NumberRange) -> Range | None:
        """The range of a port or a range of ports; reports `bad-port`, `bad-range`."""
        low, high = (
            (node.value, node.value) if isinstance(node, tree.Number) else (node.low, node.high)
        )
        if low > high:
            self.report.add(
                "bad-range",
                f"the range {low}-{high} ends before it starts",
                node.span,
                help=f"write {high}-{low}",
            )
            return None
        if high > PORTS.pairs[0][1]:
            bad = low if low > PORTS.pairs[0][1] else high
            self.report.add(
                "bad-port", f"{bad} is not a port", node.span, help="ports end at 65535"
            )
            return None
        return low, high

    def ports(
        self,
        elements: Iterable[tree.Number | tree.NumberRange | tree.Name],
        exceptions: Iterable[tree.Number | tree.NumberRange | tree.Name] = (),
    ) -> Ranges:
        """The ports of a list; names are sets of ports."""
        return self._port_list(elements) - self._port_list(exceptions)

    def _port_list(self, elements: Iterable[tree.Number | tree.NumberRange | tree.Name]) -> Ranges:
        pairs: list[Range] = []
        for element in elements:
            if isinstance(element, tree.Name):
                pairs.extend(self.set_of(element, PORT, "set of ports"))
            else:
                port = self.port(element)
                if port is not None:
                    pairs.append(port)
        return Ranges.merged(pairs)

    # --- sets -------------------------------------------------------------------------------

    def set_of(self, name: tree.Name, kind: str, wanted: str) -> Ranges:
        """The values of the set that a name stands for, which must hold `kind`."""
        declaration = self.scope.find(name.text)
        if not isinstance(declaration, tree.SetDecl):
            self.scope.unknown("unknown-name", wanted, name, tree.SetDecl)
            return Ranges()
        value = self.set_value(declaration, name)
        if value.kind not in (kind, None):
            self.report.add(
                "wrong-kind",
                f"`{name.text}` is a set of {KIND_WORDS[value.kind]}; expected a {wanted}",
                name.span,
                labels=(Label(declaration.name.span, "declared here"),),
            )
            return Ranges()
        return value.values

    def set_value(self, declaration: tree.SetDecl, at: tree.Node) -> SetValue:
        """What a set holds; reports `set-cycle`, `mixed-set`, `empty-set` and bad elements."""
        name = declaration.name.text
        if name in self._sets:
            return self._sets[name]
        opened = [n.text for n in self._open]
        if name in opened:
            path = (*self._open[opened.index(name) :],)
            cycle(self.report, "set-cycle", "set", at.span, path)
            return SetValue(None, Ranges())
        self._open.append(declaration.name)
        kind, values = self._list(declaration.elements, None)
        if declaration.exceptions:
            kind, taken = self._list(declaration.exceptions, kind)
            values = values - taken
        self._open.pop()
        value = SetValue(kind, values)
        self._sets[name] = value
        if not values and not self.report.has_errors:  # an error may be why it is empty
            self.report.add(
                "empty-set",
                f"set `{name}` is empty: what names it matches nothing",
                declaration.name.span,
            )
        return value

    def _list(
        self, elements: Iterable[tree.SetElement], kind: str | None
    ) -> tuple[str | None, Ranges]:
        pairs: list[Range] = []
        for element in elements:
            element_kind, found = self._element(element)
            if element_kind is None:
                continue
            if kind is None:
                kind = element_kind
            if element_kind != kind:
                self.report.add(
                    "mixed-set",
                    f"a set of {KIND_WORDS[kind]} cannot hold {KIND_WORDS[element_kind]}",
                    element.span,
                )
                continue
            pairs.extend(found)
        return kind, Ranges.merged(pairs)

    def _element(self, element: tree.SetElement) -> tuple[str | None, Iterable[Range]]:
        match element:
            case tree.Address():
                address = self.address(element)
                return ADDRESS, () if address is None else (address,)
            case tree.Number() | tree.NumberRange():
                port = self.port(element)
                return PORT, () if port is None else (port,)
            case tree.FileList():
                held = self.scope.loaded.lists.get((element.span.file.name, element.path))
                if held is None:  # could not be read, which was reported
                    return None, ()
                return held.kind, held.pairs
            case tree.Name():
                declaration = self.scope.find(element.text)
                if not isinstance(declaration, tree.SetDecl):
                    self.scope.unknown("unknown-name", "set", element, tree.SetDecl)
                    return None, ()
                value = self.set_value(declaration, element)
                return value.kind, value.values

    # --- zones ------------------------------------------------------------------------------

    def zone(self, name: tree.Name) -> Zone | None:
        """The zone that a name stands for; reports `unknown-zone` or `wrong-kind`."""
        declaration = self.scope.find(name.text)
        if isinstance(declaration, tree.ZoneDecl):
            return self.zone_value(declaration)
        self.scope.unknown("unknown-zone", "zone", name, tree.ZoneDecl)
        return None

    def zone_value(self, declaration: tree.ZoneDecl) -> Zone:
        """A declared zone; reports `empty-zone`, `bad-interface` and bad networks."""
        name = declaration.name.text
        if name not in self._zones:
            interfaces: list[Range] = []
            networks: list[Range] = []
            says_interface = says_network = False
            for item in declaration.items:
                if isinstance(item, tree.InterfaceItem):
                    says_interface = True
                    interfaces += (r for n in item.names if (r := self._interface(n)) is not None)
                else:
                    says_network = True
                    for element in item.elements:
                        if isinstance(element, tree.Name):
                            networks += self.set_of(element, ADDRESS, "set of addresses")
                        elif (address := self.address(element)) is not None:
                            networks.append(address)
            if not (says_interface or says_network):
                self.report.add(
                    "empty-zone",
                    f"zone `{name}` has neither an interface nor a network",
                    declaration.name.span,
                    help=f"for example: zone {name} {{ interface eth0 }}",
                )
            self._zones[name] = Zone(
                name,
                Ranges.merged(interfaces) if says_interface else None,
                Ranges.merged(networks) if says_network else None,
                declaration.name.span,
            )
        return self._zones[name]

    def _interface(self, name: tree.Name) -> Range | None:
        text = name.text
        stem = text.removesuffix("*")
        problem: str | None = None
        if not text:
            problem = "an interface name cannot be empty"
        elif "*" in stem:
            problem = "`*` may stand at the end of an interface name alone"
        elif len(text.encode()) >= NAME_BYTES:
            problem = f"the interface name `{text}` is longer than {NAME_BYTES - 1} bytes"
        elif text in (".", "..") or any(c in "/:\"'\\+" or not 33 <= ord(c) < 127 for c in stem):
            problem = f"`{text}` cannot be the name of an interface"
        if problem is not None:
            self.report.add("bad-interface", problem, name.span)
            return None
        return name_range(text)


def _address_help(text: str) -> str:
    _, slash, length = text.partition("/")
    if slash and not length.isdigit():
        return "write the length of the prefix as a number, as in 192.0.2.0/24"
    if slash and parse_address(text.partition("/")[0]) is not None:
        return f"a prefix length is at most {128 if ':' in text else 32}"
    if "-" in text:
        return "a range is two addresses of one family, the lower one first"
    if ":" not in text and any(p.isdigit() and int(p) > 255 for p in text.split(".")):
        return "each of the four numbers is at most 255"
    return "for example 192.0.2.7, 192.0.2.0/24, 2001:db8::/32 or 192.0.2.10-192.0.2.20"
