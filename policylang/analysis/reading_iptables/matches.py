"""What each match of a rule asks, those that are not understood as an open question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from policylang.analysis.machine import Hook, Unknown
from policylang.analysis.reading_iptables import (
    connections,
    headers,
    owners,
    rates,
    raw_bytes,
    routes,
    times,
    transport,
)
from policylang.analysis.reading_iptables.addresses import address_match, iprange
from policylang.analysis.reading_iptables.asking import (
    EVERY,
    NONE,
    Asked,
    NotUnderstoodError,
    all_of,
    of,
    turned,
    where,
)
from policylang.analysis.reading_iptables.members import Sets
from policylang.analysis.reading_iptables.numbers import name_span
from policylang.analysis.reading_iptables.options import Match, Option, Rule
from policylang.packets.fields import OCTET, UNIVERSE, Field
from policylang.packets.values import Ranges

# With the hooks where packets have none.
INTERFACES = {
    "in-interface": (Field.IIF, {Hook.OUTPUT}),
    "out-interface": (Field.OIF, {Hook.PREROUTING, Hook.INPUT}),
}

RAW = "raw"  # the table that packets meet before conntrack
# What conntrack says of a packet, which it has not seen yet there.
OF_CONNTRACK = {"conntrack", "state", "helper", "connmark", "connlimit", "connbytes", "connlabel"}

OF_PACKETS: dict[str, Callable[[Match], Asked]] = {
    "helper": connections.helper,
    "rpfilter": routes.reverse_path,
    "mac": headers.mac,
    "length": headers.length,
    "dscp": headers.dscp,
    "tos": headers.tos,
    "mark": owners.mark,
    "connmark": owners.connection_mark,
    "cgroup": owners.cgroup,
    "time": times.time,
    "policy": headers.ipsec,
}
OF_FAMILY: dict[str, Callable[[Match, int], Asked]] = {
    "iprange": iprange,
    "conntrack": connections.conntrack,
    "state": connections.conntrack,
    "addrtype": routes.address_types,
    "limit": rates.limit,
    "hashlimit": rates.hashlimit,
    "connlimit": rates.connlimit,
}
OF_ONE_FAMILY: dict[tuple[str, int], Callable[[Match], Asked]] = {
    ("hl", 6): headers.hop_limit,
    ("rt", 6): headers.routing_header,
    ("ipv6header", 6): headers.ipv6_headers,
    ("ipv4options", 4): headers.ipv4_options,
}
OF_PROTOCOL: dict[str, Callable[[Match, Ranges], Asked]] = {
    "tcp": transport.ported,
    "udp": transport.ported,
    "dccp": transport.ported,
    "sctp": transport.ported,
    "multiport": transport.multiport,
    "icmp": transport.icmp,
    "icmp6": transport.icmpv6,
}
# An option of these without others asks nothing, for `-p` has said it.
BARE = {"tcp", "udp", "dccp", "sctp", "udplite", "icmp", "icmp6"}


@dataclass(slots=True)
class Matches:
    """Reads the matches of the rules of one family and table, that these hooks lead to."""

    family: int
    table: str
    sets: Sets
    hooks: frozenset[Hook]
    owners: owners.Owners
    _asked: dict[tuple[Match, Ranges], Asked] = field(default_factory=dict)
    _said: dict[Option, Asked] = field(default_factory=dict)

    def asked(self, rule: Rule) -> tuple[Asked, Ranges]:
        """What all matches ask together, and the protocols that `-p` leaves."""
        protocols = OCTET
        for match in rule.matches:
            if not match.name:
                try:
                    protocols = self._protocols(match)
                except NotUnderstoodError:
                    protocols = OCTET
        parts: list[Asked] = []
        for match in rule.matches:
            if match.name:
                parts.append(self._one(match, protocols))
            else:
                parts += self._plain(match)
        return all_of(parts), protocols

    def _protocols(self, match: Match) -> Ranges:
        option = match.get("protocol")
        return OCTET if option is None else transport.protocol(option)

    def _one(self, match: Match, protocols: Ranges) -> Asked:
        key = match, protocols
        found = self._asked.get(key)
        if found is None:
            try:
                found = self._extension(match, protocols)
            except NotUnderstoodError:
                found = where(Unknown(match.text))
            self._asked[key] = found
        return found

    def _plain(self, match: Match) -> Iterator[Asked]:
        for option in match.options:
            found = self._said.get(option)
            if found is None:
                try:
                    found = self._option(option)
                except NotUnderstoodError:
                    found = where(Unknown(option.text))
                self._said[option] = found
            yield found

    def _option(self, option: Option) -> Asked:
        match option.name:
            case "protocol":
                values = transport.protocol(option)
                if values == OCTET:
                    return EVERY
                return of(Field.L4PROTO, values) if values else NONE
            case "source" | "destination":
                return address_match(option, self.family)
            case "in-interface" | "out-interface":
                return _interface(option, self.hooks)
            case _:
                raise NotUnderstoodError(option.text)

    def _extension(self, match: Match, protocols: Ranges) -> Asked:
        name, family = match.name, self.family
        if self.table == RAW and name in OF_CONNTRACK:
            raise NotUnderstoodError(match.text)
        if not match.is_known:
            raise NotUnderstoodError(match.text)
        if name in BARE and not match.options:
            return EVERY
        if name == "owner":
            return owners.owner(match, self.owners)
        if name in OF_PACKETS:
            return OF_PACKETS[name](match)
        if name in OF_FAMILY:
            return OF_FAMILY[name](match, family)
        if (name, family) in OF_ONE_FAMILY:
            return OF_ONE_FAMILY[name, family](match)
        if name in OF_PROTOCOL:
            return OF_PROTOCOL[name](match, protocols)
        if name == "set":
            return self.sets.match(match, family)
        if name == "u32":
            return raw_bytes.u32(match, family, protocols)
        raise NotUnderstoodError(match.text)


def _interface(option: Option, hooks: frozenset[Hook]) -> Asked:
    """A name, or with a trailing `+` all that begin so.

    What came from nowhere has a name without letters, and what has not found its way out yet.
    """
    text = option.words[0]
    pattern = f"{text[:-1]}*" if text.endswith("+") else text
    if text.endswith("*"):  # which is a letter like any other to iptables
        raise NotUnderstoodError(text)
    field, without = INTERFACES[option.name]
    values = turned(Ranges((name_span(pattern),)), field, negated=option.negated)
    if hooks and hooks <= without:
        values = UNIVERSE[field] if 0 in values else Ranges()
    if values == UNIVERSE[field]:
        return EVERY
    return of(field, values) if values else NONE
