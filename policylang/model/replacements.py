"""The addresses and ports that a translation puts in the place of others, read and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable

from policylang.model.statement_reader import StatementReader
from policylang.model.types import Traffic
from policylang.packets.values import Range, Ranges
from policylang.syntax import tree

MOST_NEW_PORTS = 256  # one rule each
_WITH_PORT = re.compile(r"(?P<address>[0-9.]+):(?P<ports>[0-9]{1,5}(-[0-9]{1,5})?)")

PortNumbers = tree.Number | tree.NumberRange


def addresses(
    reader: StatementReader, nodes: Iterable[tree.Address | tree.Name], otherwise: str
) -> Ranges:
    """Addresses and sets of them, not those that are filled at run time.

    Reports `bad-address` for one with a port; `otherwise` is the help where a name is no set.
    """
    alone = []
    for node in nodes:
        match = None if isinstance(node, tree.Name) else _WITH_PORT.fullmatch(node.text)
        if match is None:
            alone.append(node)
            continue
        reader.report.add(
            "bad-address",
            f"`{node.text}` is an address and a port",
            node.span,
            help=f"the port stands apart, behind all addresses: "
            f"`{match['address']} port {match['ports']}`",
        )
    return reader.elements.addresses(alone, otherwise=otherwise)


def new_ports(
    reader: StatementReader, node: PortNumbers | None, what: tuple[Traffic, ...]
) -> Range | None:
    """The ports that take the place of those of `what`; reports `bad-new-port`."""
    if node is None:
        return None
    ports = reader.elements.port(node)
    if ports is None:
        return None
    low, high = ports
    if low == 0:
        _bad_port(reader, "no connection goes to port 0", node)
    elif any(traffic.ports is None for traffic in what):
        _bad_port(
            reader,
            "a new port is for what has one",
            node,
            help="name services or ports: `tcp 8080`, not `all`",
        )
    elif low != high:
        if high - low >= MOST_NEW_PORTS:
            _bad_port(reader, f"there can be {MOST_NEW_PORTS} new ports at most", node)
        for traffic in what:
            old = traffic.ports or Ranges()
            if len(old) != 1 or old.count != high - low + 1:
                _bad_port(
                    reader,
                    f"{high - low + 1} new ports need a range of as many old ones",
                    node,
                    help="one new port can take the place of any number",
                )
                break
    return ports


def source_ports(reader: StatementReader, node: PortNumbers | None) -> Range | None:
    """The range that source ports are taken from; reports `bad-new-port`."""
    ports = None if node is None else reader.elements.port(node)
    if node is not None and ports is not None and ports[0] == 0:
        _bad_port(reader, "no connection comes from port 0", node)
    return ports


def proxy_port(reader: StatementReader, node: tree.Number) -> int:
    """The port of a proxy, 0 where it is none, as reported: `bad-new-port`, `bad-port`."""
    port = reader.elements.port(node)
    if port is not None and port[0] == 0:
        _bad_port(reader, "no proxy listens on port 0", node)
    return 0 if port is None else port[0]


def _bad_port(
    reader: StatementReader, message: str, node: tree.Node, *, help: str | None = None
) -> None:
    reader.report.add("bad-new-port", message, node.span, help=help)
