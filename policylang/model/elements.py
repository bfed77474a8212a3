"""Addresses, ports, sets and zones become ranges of numbers; knows nothing of rules."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from policylang.diagnostics import Label, Report
from policylang.model.durations import duration_s
from policylang.model.lists import listed_set
from policylang.model.scope import Scope, cycle
from policylang.model.types import DynamicSet, ListedSet, Zone
from policylang.packets.fields import PORTS
from policylang.packets.values import (
    NAME_BYTES,
    V6_BASE,
    Range,
    Ranges,
    format_address,
    name_range,
    parse_address,
    parse_one_address,
)
from policylang.syntax import tree
from policylang.syntax.slips import MAC_HELP, looks_like_mac

ADDRESS = "address"
PORT = "port"
MAC = "mac"
HOST = "host"
KIND_WORDS = {ADDRESS: "addresses", PORT: "ports", MAC: "MAC addresses", HOST: "hosts"}

DYNAMIC_SIZE = 65_535
MOST_DYNAMIC_SIZE = 1 << 24
MOST_DYNAMIC_NAME = 64

MOST_SECONDS = 2_147_483  # ipset holds no longer time-out (IPSET_MAX_TIMEOUT), 24 days


@dataclass(frozen=True, slots=True)
class SetValue:
    """What a set holds; `kind` None where nothing tells it (an empty set).

    `at_run_time` where what it holds may change while a policy is in force; `values` is empty
    then.
    """

    kind: str | None
    values: Ranges
    at_run_time: DynamicSet | ListedSet | None = None


@dataclass(slots=True)
class Elements:
    """Resolves sets and zones, each once."""

    scope: Scope
    report: Report
    _sets: dict[str, SetValue] = field(default_factory=dict)
    _zones: dict[str, Zone] = field(default_factory=dict)
    _hosts: dict[str, Ranges] = field(default_factory=dict)
    _open: list[tree.Name] = field(default_factory=list)

    # --- single values ----------------------------------------------------------------------

    def address(self, node: tree.Address) -> Range | None:
        """The range of an address, prefix or range; reports `bad-address`, `host-bits`."""
        if "/-" in node.text:
            self.report.add(
                "bad-suffix",
                f"`{node.text}` is the end of an address, which has its place in rules alone",
                node.span,
                help="name it where a rule says `from` or `to`",
            )
            return None
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

    def addresses(
        self, nodes: Iterable[tree.Address | tree.Name], *, otherwise: str | None = None
    ) -> Ranges:
        """Addresses and sets of them, not those that are filled at run time.

        `otherwise` is the help for a name that stands for something else or for nothing.
        """
        found = Ranges()
        for node in nodes:
            if isinstance(node, tree.Name):
                found = found | self.set_of(node, ADDRESS, "set of addresses", otherwise)
            elif (pair := self.address(node)) is not None:
                found = found | Ranges((pair,))
        return found

    def suffix(self, node: tree.Address) -> tuple[int, int] | None:
        """The value and the mask of an end of IPv6 addresses (`::10/-64`); reports `bad-suffix`.

        The length counts the leading bits that do not matter.
        """
        base, _, length = node.text.partition("/-")
        parsed = parse_one_address(base)
        ignored = int(length) if length.isascii() and length.isdigit() else 0
        if parsed is None or parsed < V6_BASE or not 1 <= ignored <= 127:
            self.report.add(
                "bad-suffix",
                f"`{node.text}` is not the end of an IPv6 address",
                node.span,
                help="for example `::10/-64`: whatever the first 64 bits are, the rest is ::10",
            )
            return None
        value, mask = parsed - V6_BASE, (1 << (128 - ignored)) - 1
        if value & ~mask:
            self.report.add(
                "bad-suffix",
                f"`{node.text}` has bits set among the first {ignored}, which do not matter",
                node.span,
                help=f"`{format_address((value & mask) + V6_BASE)}/-{ignored}` is meant",
            )
        return value & mask, mask

    def port(self, node: tree.Number | tree.NumberRange) -> Range | None:
        """The range of a port or a range of ports; reports `bad-port`, `bad-range`."""
        low, high = (
            (node.value, node.value) if isinstance(node, tree.Number) else (node.low, node.high)
        )
        if low > high:
            self.report.add(
                "bad-range",
                f"the range `{low}-{high}` ends before it starts",
                node.span,
                help=f"write `{high}-{low}`",
            )
            return None
        if high > PORTS.pairs[0][1]:
            bad = low if low > PORTS.pairs[0][1] else high
            self.report.add(
                "bad-port", f"`{bad}` is not a port", node.span, help="ports end at 65535"
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

    def set_of(
        self, name: tree.Name, kind: str, wanted: str, otherwise: str | None = None
    ) -> Ranges:
        """The values of the set that a name stands for, which must hold `kind`."""
        declaration = self.scope.find(name.text)
        if isinstance(declaration, tree.HostDecl) and kind == ADDRESS:
            return self.host_addresses(declaration, name)
        if not isinstance(declaration, tree.SetDecl):
            self.scope.unknown("unknown-name", wanted, name, tree.SetDecl, otherwise=otherwise)
            return Ranges()
        value = self.set_value(declaration, name)
        if value.at_run_time is not None:
            self._tell_dynamic(name, value.at_run_time)
            return Ranges()
        if value.kind not in (kind, None) and (value.kind, kind) != (HOST, ADDRESS):
            self.report.add(
                "wrong-kind",
                f"`{name.text}` is a set of {KIND_WORDS[value.kind]}; expected a {wanted}",
                name.span,
                labels=(Label(declaration.name.span, "declared here"),),
            )
            return Ranges()
        return value.values

    def _tell_dynamic(self, name: tree.Name, held: DynamicSet | ListedSet) -> None:
        how = "filled" if isinstance(held, DynamicSet) else "kept up to date"
        self.report.add(
            "dynamic-set",
            f"`{name.text}` is {how} at run time, so it cannot be a part of something else",
            name.span,
            help="name it where a rule says `from`, `to` or `except`",
        )

    def dynamic_set(self, name: tree.Name) -> DynamicSet | None:
        """The dynamic set that a name stands for; reports `not-dynamic` and unknown names."""
        declaration = self.scope.find(name.text)
        if not isinstance(declaration, tree.SetDecl):
            self.scope.unknown("unknown-name", "dynamic set", name, tree.SetDecl)
            return None
        held = self.set_value(declaration, name).at_run_time
        if isinstance(held, DynamicSet):
            return held
        how = "written out" if held is None else "a list from elsewhere"
        self.report.add(
            "not-dynamic",
            f"`{name.text}` is {how}, and nothing can be put into it",
            name.span,
            help="declare one to be filled at run time: `set NAME = dynamic`"
            if held is not None
            else f"declare it to be filled at run time: `set {name.text} = dynamic`",
            labels=(Label(declaration.name.span, "declared here"),),
        )
        return None

    def _dynamic(self, declaration: tree.SetDecl, node: tree.DynamicNode) -> SetValue:
        name = declaration.name
        if len(name.text) > MOST_DYNAMIC_NAME:
            self.report.add(
                "bad-name",
                f"the name of a dynamic set has at most {MOST_DYNAMIC_NAME} characters, not "
                f"`{len(name.text)}`",
                name.span,
                help="sets are called by it at run time",
            )
        size = DYNAMIC_SIZE if node.size is None else node.size.value
        if not 1 <= size <= MOST_DYNAMIC_SIZE:
            assert node.size is not None
            self.report.add(
                "bad-size",
                f"a dynamic set holds from 1 to {MOST_DYNAMIC_SIZE} elements, not `{size}`",
                node.size.span,
            )
        timeout_s = None if node.timeout is None else seconds(self.report, node.timeout)
        dynamic = DynamicSet(name.text, timeout_s, size, declaration.span)
        return SetValue(ADDRESS, Ranges(), dynamic)

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
        if declaration.dynamic is not None:
            self._sets[name] = self._dynamic(declaration, declaration.dynamic)
            return self._sets[name]
        if declaration.listed is not None:
            locked = self.scope.loaded.locked
            held = listed_set(declaration, declaration.listed, locked, self.report)
            self._sets[name] = SetValue(ADDRESS, Ranges(), held)
            return self._sets[name]
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
                    help=f"make another set for the {KIND_WORDS[element_kind]}",
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
            case tree.MacAddress():
                number = mac_number(element.text)
                return MAC, ((number, number),)
            case tree.FileList():
                held = self.scope.loaded.lists.get((element.span.file.name, element))
                if held is None:  # could not be read, which was reported
                    return None, ()
                return held.kind, held.pairs
            case tree.Name():
                declaration = self.scope.find(element.text)
                if isinstance(declaration, tree.HostDecl):
                    return HOST, self.host_addresses(declaration, element)
                if not isinstance(declaration, tree.SetDecl):
                    self.scope.unknown("unknown-name", "set", element, tree.SetDecl)
                    return None, ()
                value = self.set_value(declaration, element)
                if value.at_run_time is not None:
                    self._tell_dynamic(element, value.at_run_time)
                    return None, ()
                return value.kind, value.values

    # --- hosts ------------------------------------------------------------------------------

    def host_addresses(self, declaration: tree.HostDecl, at: tree.Name) -> Ranges:
        """The addresses of a host that is named `at` a place; reports `host-without-address`."""
        found = self.host_value(declaration)
        if not any(isinstance(item, tree.AddressItem) for item in declaration.items):
            self.report.add(
                "host-without-address",
                f"host `{at.text}` has no address by which others could be told who it is",
                at.span,
                help=f"host {at.text} {{ address 192.0.2.1 }}",
                labels=(Label(declaration.name.span, "declared here"),),
            )
        return found

    def host_value(self, declaration: tree.HostDecl) -> Ranges:
        """The addresses of a host; reports `host-address` and bad ones."""
        name = declaration.name.text
        if name not in self._hosts:
            nodes = (
                node
                for item in declaration.items
                if isinstance(item, tree.AddressItem)
                for node in item.addresses
            )
            self._hosts[name] = Ranges.merged(
                pair for node in nodes if (pair := self._own_address(node)) is not None
            )
        return self._hosts[name]

    def _own_address(self, node: tree.Address) -> Range | None:
        pair = self.address(node)
        if pair is not None and (pair[0] != pair[1] or "/" in node.text):
            self.report.add(
                "host-address",
                f"`{node.text}` is more than the address of one host",
                node.span,
                help="a network stands in a zone: `zone dmz { network 10.0.2.0/24 }`",
            )
            return None
        return pair

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
                    networks += self.addresses(item.elements)
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
        elif (
            text in (".", "..")
            or text[0] in "-!"
            or any(c in "/:\"'\\+" or not 33 <= ord(c) < 127 for c in stem)
        ):
            problem = f"`{text}` cannot be the name of an interface"
        if problem is not None:
            self.report.add("bad-interface", problem, name.span)
            return None
        return name_range(text)


def mac_number(text: str) -> int:
    """The number of a MAC address; `text` is six bytes as the language writes them."""
    return int(text.replace(":", ""), 16)


def seconds(report: Report, node: tree.Duration) -> int:
    """A duration in seconds, for which a set keeps an element; reports `bad-duration`."""
    total = duration_s(node.text)
    if not 1 <= total <= MOST_SECONDS:
        report.add(
            "bad-duration",
            f"`{node.text}` is not a time that a set can keep an element for",
            node.span,
            help=f"from 1s to {MOST_SECONDS}s, which is 24 days; without a time, for ever",
        )
    return total


def _address_help(text: str) -> str:
    _, slash, length = text.partition("/")
    if slash and not length.isdigit():
        return "write the length of the prefix as a number, as in 192.0.2.0/24"
    if slash and parse_address(text.partition("/")[0]) is not None:
        return f"a prefix length is at most {128 if ':' in text else 32}"
    if looks_like_mac(text):
        return MAC_HELP
    if "-" in text:
        return "a range is two addresses of one family, the lower one first"
    if ":" not in text and any(p.isdigit() and int(p) > 255 for p in text.split(".")):
        return "each of the four numbers is at most 255"
    return "for example 192.0.2.7, 192.0.2.0/24, 2001:db8::/32 or 192.0.2.10-192.0.2.20"
