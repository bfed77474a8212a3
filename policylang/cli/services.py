"""`policylang services` and `policylang groups`: what is built in, listed, searched, explained."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from textwrap import wrap
from typing import TypeVar

from policylang.cli.builtin import Group, Service, read_groups, read_services
from policylang.cli.options import DONE, REFUSED
from policylang.cli.visible import visible
from policylang.diagnostics import did_you_mean
from policylang.model.protocols import ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS
from policylang.model.services import PORT_PROTOCOLS
from policylang.model.types import Helper, Traffic
from policylang.packets.values import Ranges, format_address, parse_address, prefixes

WIDTH = 80  # of what is explained
PORTS_WIDTH = 24  # of the list's column; what is longer moves the description
LABEL_WIDTH = 10
PORT_MAX = 65535  # 16 bits

_PORT = re.compile(r"(?:(tcp|udp|sctp|dccp)[/ ])?([0-9]{1,5})(?:/(tcp|udp|sctp|dccp))?")

Entry = TypeVar("Entry", Service, Group)


def services(chosen: argparse.Namespace) -> int:
    """List, search or explain services; the exit status."""
    found = _found(chosen, read_services(), _finds_port)
    if chosen.format == "json":
        print(json.dumps([_service_as_json(service) for service in found], indent=2))
    elif chosen.pattern is not None and len(found) == 1:
        print("\n".join(_explained_service(found[0])))
    else:
        _print_list([(s.name, spoken(s.traffic), s.description) for s in found])
    return DONE if found else REFUSED


def groups(chosen: argparse.Namespace) -> int:
    """List, search or explain groups of addresses; the exit status."""
    found = _found(chosen, read_groups(), _finds_address)
    if chosen.format == "json":
        print(json.dumps([_group_as_json(group) for group in found], indent=2))
    elif chosen.pattern is not None and len(found) == 1:
        print("\n".join(_explained_group(found[0])))
    else:
        _print_list([(group.name, "", group.description) for group in found])
    return DONE if found else REFUSED


# --- searching ------------------------------------------------------------------------------


def _found(
    chosen: argparse.Namespace,
    entries: tuple[Entry, ...],
    by_value: Callable[[str], Callable[[Entry], bool] | None],
) -> tuple[Entry, ...]:
    """The entries that are asked for; says so where there are none."""
    if chosen.pattern is None:
        return entries
    found = tuple(_matching(chosen.pattern.lower(), entries, by_value))
    if not found:
        hint = did_you_mean(chosen.pattern.lower(), [entry.name for entry in entries])
        print(
            f"policylang {chosen.command}: nothing matches `{visible(chosen.pattern)}`: "
            + (hint or f"`policylang {chosen.command}` lists them all"),
            file=sys.stderr,
        )
    return found


def _matching(
    pattern: str,
    entries: Iterable[Entry],
    by_value: Callable[[str], Callable[[Entry], bool] | None],
) -> Iterator[Entry]:
    """What a pattern is about: a whole name, a port or an address, a glob, or a part of a text."""
    entries = list(entries)
    exact = [entry for entry in entries if entry.name == pattern]
    has_value = by_value(pattern)
    if exact:
        yield from exact
    elif has_value is not None:
        yield from (entry for entry in entries if has_value(entry))
    elif any(c in pattern for c in "*?["):
        yield from (entry for entry in entries if fnmatchcase(entry.name, pattern))
    else:
        for entry in entries:
            if pattern in entry.name or pattern in entry.description.lower():
                yield entry


def _finds_port(pattern: str) -> Callable[[Service], bool] | None:
    """Whether a service has a port, `443`, `tcp/443` or `443/tcp`; None where that is none."""
    match = _PORT.fullmatch(pattern)
    if match is None or (match[1] and match[3]) or int(match[2]) > PORT_MAX:
        return None
    port, protocol = int(match[2]), match[1] or match[3]

    def finds(service: Service) -> bool:
        return any(
            traffic.ports is not None
            and port in traffic.ports
            and (protocol is None or traffic.protocols == Ranges.of(PORT_PROTOCOLS[protocol]))
            for traffic in service.traffic
        )

    return finds


def _finds_address(pattern: str) -> Callable[[Group], bool] | None:
    """Whether a group holds all of an address, a prefix or a range; None where that is none."""
    pair = parse_address(pattern)
    if pair is None:
        return None
    wanted = Ranges.between(*pair)
    return lambda group: group.addresses.covers(wanted)


# --- text -----------------------------------------------------------------------------------


def spoken(traffic: Iterable[Traffic]) -> str:
    """The protocols and ports of a service in short: `tcp 80, 443  udp 443`."""
    held: dict[str, Ranges] = {}
    for one in traffic:
        for protocol in _protocols(one):
            held[protocol] = held.get(protocol, Ranges()) | _ports(one)
    plain = [protocol for protocol, values in held.items() if not values]
    words = [f"{protocol} {_numbers(protocol, v)}" for protocol, v in held.items() if v]
    if plain:
        words.append(f"protocol {', '.join(plain)}")
    return "  ".join(words)


def _protocols(traffic: Traffic) -> list[str]:
    assert traffic.protocols is not None, "a service says of which protocol it is"
    names = {number: name for name, number in reversed(PROTOCOLS.items())}
    return [names.get(n, str(n)) for low, high in traffic.protocols for n in range(low, high + 1)]


def _ports(traffic: Traffic) -> Ranges:
    """The ports, or the types of ICMP."""
    return traffic.ports or traffic.icmp_types or Ranges()


def _numbers(protocol: str, values: Ranges) -> str:
    types = {"icmp": ICMP_TYPES, "icmpv6": ICMPV6_TYPES}.get(protocol, {})
    names = {number: name for name, number in reversed(types.items())}
    return ", ".join(
        names.get(low, str(low)) if low == high else f"{low}-{high}" for low, high in values
    )


def _print_list(rows: list[tuple[str, str, str]]) -> None:
    name_width = max((len(name) for name, _, _ in rows), default=0)
    middle_width = min(max((len(middle) for _, middle, _ in rows), default=0), PORTS_WIDTH)
    for name, middle, description in rows:
        columns = [f"{name:<{name_width}}"]
        if middle_width:
            columns.append(f"{middle:<{middle_width}}")
        print("  ".join([*columns, description]))


def _explained_service(service: Service) -> Iterator[str]:
    yield from wrap(f"{service.name}: {service.description}", WIDTH)
    yield ""
    for traffic in service.traffic:
        yield from _labelled("opens", spoken([traffic]))
        if traffic.helper is not None:
            yield from _labelled("helper", _helper(traffic.helper))
            if traffic.data_ports is not None:
                yield from _labelled("data", _numbers("", traffic.data_ports))
        if traffic.answers_from_any:
            yield from _labelled(
                "answers", "from any machine of the network that was asked, to the asking port"
            )
    if len(service.members) > 1:
        yield from _labelled("members", ", ".join(service.members))
    if service.same_as:
        yield from _labelled("same as", ", ".join(service.same_as))
    for note in service.notes:
        yield from _labelled("note", note)
    yield ""
    yield service.text


def _helper(helper: Helper) -> str:
    """What a conntrack helper does, in a line."""
    openers = []
    if any(expectation.by_client for expectation in helper.expects):
        openers.append("the client")
    if any(expectation.by_server for expectation in helper.expects):
        openers.append("the server")
    words = [f"{helper.name} lets in what it predicts, opened by {' or '.join(openers)}"]
    if helper.families == Ranges.of(4):
        words.append("IPv4 alone")
    if helper.has_faults:
        words.append("a record of kernel faults")
    return "; ".join(words)


def _explained_group(group: Group) -> Iterator[str]:
    yield from wrap(f"{group.name}: {group.description}", WIDTH)
    yield ""
    yield from _labelled("holds", ", ".join(_elements(group.addresses)))
    yield ""
    yield group.text


def _elements(addresses: Ranges) -> Iterator[str]:
    """Addresses, prefixes and ranges, each as short as it can be written."""
    for low, high in addresses:
        if low == high:
            yield format_address(low)
            continue
        (first, length), *others = prefixes(low, high)
        if others:
            yield f"{format_address(low)}-{format_address(high)}"
        else:
            yield f"{format_address(first)}/{length}"


def _labelled(label: str, text: str) -> Iterator[str]:
    first = f"  {label:<{LABEL_WIDTH}}"
    yield from wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


# --- JSON -----------------------------------------------------------------------------------


def _service_as_json(service: Service) -> dict[str, object]:
    return {
        "name": service.name,
        "description": service.description,
        "opens": [_traffic_as_json(traffic) for traffic in service.traffic],
        "members": list(service.members),
        "same_as": list(service.same_as),
        "notes": list(service.notes),
        "text": service.text,
    }


def _traffic_as_json(traffic: Traffic) -> dict[str, object]:
    return {
        "protocols": _protocols(traffic),
        "ports": _pairs(traffic.ports),
        "icmp_types": _pairs(traffic.icmp_types),
        "helper": None if traffic.helper is None else traffic.helper.name,
        "data_ports": _pairs(traffic.data_ports),
        "answers_from_any": traffic.answers_from_any,
    }


def _pairs(values: Ranges | None) -> list[list[int]] | None:
    return None if values is None else [[low, high] for low, high in values]


def _group_as_json(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "description": group.description,
        "addresses": list(_elements(group.addresses)),
        "text": group.text,
    }
