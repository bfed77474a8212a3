"""Services become the traffic that they stand for; knows nothing of places."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from policylang.diagnostics import Report, did_you_mean
from policylang.model.elements import Elements
from policylang.model.protocols import ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS
from policylang.model.scope import Scope, cycle
from policylang.model.types import Expectation, Helper, Traffic
from policylang.packets.fields import DCCP, ICMP, ICMPV6, OCTET, SCTP, TCP, UDP
from policylang.packets.values import Ranges
from policylang.syntax import tree

PORT_PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "dccp": DCCP}
PROTOCOL_WORDS = {number: name for name, number in PORT_PROTOCOLS.items()}
FIRST_UNPRIVILEGED_PORT = 1024


@dataclass(slots=True)
class Services:
    """Resolves services and helpers, each once."""

    scope: Scope
    elements: Elements
    report: Report
    _services: dict[str, tuple[Traffic, ...]] = field(default_factory=dict)
    _helpers: dict[str, Helper] = field(default_factory=dict)
    _open: list[tree.Name] = field(default_factory=list)
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def service(self, name: tree.Name) -> tuple[Traffic, ...]:
        """The traffic of the service that a name stands for; reports names that are none."""
        declaration = self.scope.find(name.text)
        if not isinstance(declaration, (tree.ServiceDecl, tree.ServiceGroup)):
            self.scope.unknown(
                "unknown-service", "service", name, tree.ServiceDecl, tree.ServiceGroup
            )
            return ()
        return self.traffic_of(declaration, name)

    def traffic_of(
        self, declaration: tree.ServiceDecl | tree.ServiceGroup, at: tree.Node
    ) -> tuple[Traffic, ...]:
        """What a declared service stands for; reports `service-cycle` and what is wrong in it.

        `notes[name]` holds what the service warns of.
        """
        name = declaration.name.text
        if name in self._services:
            return self._services[name]
        opened = [n.text for n in self._open]
        if name in opened:
            path = (*self._open[opened.index(name) :],)
            cycle(self.report, "service-cycle", "service", at.span, path)
            return ()
        self._open.append(declaration.name)
        if isinstance(declaration, tree.ServiceGroup):
            traffic = tuple(t for member in declaration.members for t in self.service(member))
            self.notes[name] = tuple(
                dict.fromkeys(n for m in declaration.members for n in self.notes.get(m.text, ()))
            )
        else:
            traffic = self._items(declaration)
        self._open.pop()
        if not traffic and not self.report.has_errors:
            self.report.add(
                "empty-service",
                f"service `{name}` says nothing: what names it matches nothing",
                declaration.name.span,
            )
        self._services[name] = traffic
        return traffic

    def _items(self, declaration: tree.ServiceDecl) -> tuple[Traffic, ...]:
        name = declaration.name.text
        done: list[Traffic] = []
        waiting: list[Traffic] = []  # those that a helper behind them applies to
        notes: list[str] = []
        for item in declaration.items:
            match item:
                case tree.PortsItem():
                    ports = self.elements.ports(item.elements, item.exceptions)
                    waiting.append(self.port_traffic(item.protocol, ports, name))
                case tree.IcmpItem():
                    types = Ranges.merged(
                        (t, t)
                        for node in item.types
                        if (t := self.icmp_type(item.protocol, node)) is not None
                    )
                    waiting.append(icmp_traffic(item.protocol, types, name))
                case tree.ProtocolItem():
                    numbers = Ranges.merged(
                        (n, n) for node in item.protocols if (n := self.protocol(node)) is not None
                    )
                    waiting.append(Traffic(protocols=numbers, service=name))
                case tree.HelperItem():
                    done += self._with_helper(item, waiting)
                    waiting = []
                case tree.DataItem():
                    done = self._with_data(item, done)
                case tree.AnswersItem():
                    done, waiting = _with_answers(done), _with_answers(waiting)
                    self._check_answers(item, (*done, *waiting))
                case tree.WarnItem():
                    notes.append(item.text.text)
        self.notes[name] = tuple(notes)
        return (*done, *waiting)

    def port_traffic(self, protocol: str, ports: Ranges, service: str | None) -> Traffic:
        return Traffic(protocols=Ranges.of(PORT_PROTOCOLS[protocol]), ports=ports, service=service)

    def _with_helper(self, item: tree.HelperItem, waiting: list[Traffic]) -> list[Traffic]:
        helper = self.helper(item.name)
        if helper is None:
            return waiting
        wanted = Ranges.of(*(protocol for _, protocol in helper.assigns))
        words = ", ".join(PROTOCOL_WORDS[p] for _, p in helper.assigns)
        fits = [t for t in waiting if t.ports is not None and t.protocols is not None]
        fits = [t for t in fits if t.protocols is not None and wanted.covers(t.protocols)]
        if len(fits) != len(waiting) or not waiting:
            self.report.add(
                "helper-protocol",
                f"helper `{helper.name}` follows {words} alone"
                if waiting
                else f"helper `{helper.name}` has no ports before it to apply to",
                item.span,
                help="a helper applies to what stands before it; other protocols stand behind it",
            )
        return [replace(t, helper=helper) if t in fits else t for t in waiting]

    def _with_data(self, item: tree.DataItem, done: list[Traffic]) -> list[Traffic]:
        ports = self.elements.ports(item.elements)
        if not any(t.helper for t in done):
            self.report.add(
                "data-without-helper",
                "`data` is about what a helper predicts, and no helper stands before it",
                item.span,
                help="write the helper first: helper ftp data 40000-40100",
            )
        if ports and ports.pairs[0][0] < FIRST_UNPRIVILEGED_PORT:
            self.report.add(
                "data-privileged",
                "these `data` ports reach below 1024, where a peer could have services opened",
                item.span,
            )
        return [replace(t, data_ports=ports) if t.helper else t for t in done]

    def _check_answers(self, item: tree.AnswersItem, traffic: tuple[Traffic, ...]) -> None:
        if not any(t.answers_from_any for t in traffic):
            self.report.add(
                "answers-without-udp",
                "`answers from any` is about questions over UDP, and no UDP port stands before it",
                item.span,
                help="for example: udp 5353 answers from any",
            )

    # --- helpers ----------------------------------------------------------------------------

    def helper(self, name: tree.Name) -> Helper | None:
        """The conntrack helper of that name; reports `unknown-helper`."""
        if name.text not in self._helpers:
            declaration = self.scope.loaded.helpers.get(name.text)
            if declaration is None:
                self.report.add(
                    "unknown-helper",
                    f"no conntrack helper named `{name.text}`",
                    name.span,
                    help=did_you_mean(name.text, self.scope.loaded.helpers)
                    or "the helpers are " + ", ".join(sorted(self.scope.loaded.helpers)),
                )
                return None
            self._helpers[name.text] = _helper(declaration)
        return self._helpers[name.text]

    # --- single protocols and types ---------------------------------------------------------

    def protocol(self, node: tree.Number | tree.Name) -> int | None:
        """The number of an IP protocol; reports `unknown-protocol`."""
        if isinstance(node, tree.Number):
            if node.value in OCTET:
                return node.value
            self.report.add(
                "unknown-protocol",
                f"`{node.value}` is not an IP protocol",
                node.span,
                help="protocol numbers end at 255",
            )
            return None
        number = PROTOCOLS.get(node.text.lower())
        if number is None:
            self.report.add(
                "unknown-protocol",
                f"no IP protocol named `{node.text}`",
                node.span,
                help=did_you_mean(node.text, PROTOCOLS) or "its number can be written as well",
            )
        return number

    def is_protocol(self, text: str) -> bool:
        """Whether a word names an IP protocol."""
        return text.lower() in PROTOCOLS

    def icmp_type(self, protocol: str, node: tree.Number | tree.Name) -> int | None:
        """The number of an ICMP or ICMPv6 type; reports `unknown-icmp-type`."""
        if isinstance(node, tree.Number):
            if node.value in OCTET:
                return node.value
            self.report.add(
                "unknown-icmp-type",
                f"`{node.value}` is not a type of {protocol}",
                node.span,
                help="types end at 255",
            )
            return None
        types = icmp_types(protocol)
        number = types.get(node.text.lower())
        if number is None:
            other = "icmpv6" if protocol == "icmp" else "icmp"
            hint = did_you_mean(node.text, types) or "its number can be written as well"
            if node.text.lower() in icmp_types(other):
                hint = f"{other} has a type of that name"
            self.report.add(
                "unknown-icmp-type",
                f"no type of {protocol} named `{node.text}`",
                node.span,
                help=hint,
            )
        return number


def _with_answers(traffic: list[Traffic]) -> list[Traffic]:
    """The traffic, of which questions over UDP are answered from anywhere."""
    udp = Ranges.of(UDP)
    return [replace(t, answers_from_any=True) if t.protocols == udp else t for t in traffic]


def icmp_types(protocol: str) -> dict[str, int]:
    """The type names of `icmp` or `icmpv6`."""
    return ICMP_TYPES if protocol == "icmp" else ICMPV6_TYPES


def icmp_traffic(protocol: str, types: Ranges, service: str | None) -> Traffic:
    number = ICMP if protocol == "icmp" else ICMPV6
    return Traffic(protocols=Ranges.of(number), icmp_types=types, service=service)


def _helper(declaration: tree.HelperDecl) -> Helper:
    """The helper that a declaration of the catalogue describes.

    Raises AssertionError or KeyError where the catalogue itself is wrong.
    """
    assigns: list[tuple[str, int]] = []
    matches: list[str] = []
    expects: list[Expectation] = []
    families = Ranges.of(4, 6)
    modules: tuple[str, ...] = ()
    nat: tuple[str, ...] = ()
    has_faults = False
    for item in declaration.items:
        match item:
            case tree.AssignItem():
                assigns.append((item.kernel_name.text, PORT_PROTOCOLS[item.protocol]))
            case tree.MatchItem():
                matches += (name.text for name in item.kernel_names)
            case tree.ExpectItem():
                openers = {name.text for name in item.openers}
                assert openers <= {"client", "server"}, declaration.span.place
                expects.append(
                    Expectation(
                        Ranges.of(*(PROTOCOLS[name.text] for name in item.protocols)),
                        "client" in openers,
                        "server" in openers,
                    )
                )
            case tree.FamilyItem():
                families = Ranges.of(*({"ipv4": 4, "ipv6": 6}[k.text] for k in item.families))
            case tree.ModulesItem():
                modules = tuple(name.text for name in item.names)
            case tree.NatItem():
                nat = tuple(name.text for name in item.names)
            case tree.FaultsItem():
                has_faults = True
    assert assigns and expects, declaration.span.place
    return Helper(
        declaration.name.text,
        tuple(assigns),
        tuple(matches) or tuple(name for name, _ in assigns),
        tuple(expects),
        families,
        modules,
        nat,
        has_faults,
    )
