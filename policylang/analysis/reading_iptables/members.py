"""What `-m set` looks at: the elements of plain sets, of others a question.

A set is a question (`InSet`) where it can change under the rules: where it has time-outs (what it
holds at the moment is forgotten in another), where a rule adds to it or deletes from it, and where
the caller says so. All others are what stands in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from policylang.analysis.machine import InSet
from policylang.analysis.reading_iptables.asking import (
    EVERY,
    NONE,
    Asked,
    NotUnderstoodError,
    all_of,
    any_of,
    of,
    where,
)
from policylang.analysis.reading_iptables.elements import elements
from policylang.analysis.reading_iptables.ipsets import IpSet
from policylang.analysis.reading_iptables.options import Match
from policylang.packets.fields import TCP, UDP, Field
from policylang.packets.values import Ranges

BITMAP_PROTOCOLS = Ranges.of(TCP, UDP)  # all that a bitmap of ports takes (ip_set_get_ip_port)

ADDRESSES = {"src": Field.SADDR, "dst": Field.DADDR}
OF_PARTS: Mapping[str, Mapping[str, Field]] = {
    "ip": ADDRESSES,
    "net": ADDRESSES,
    "port": {"src": Field.SPORT, "dst": Field.DPORT},
    "iface": {"src": Field.IIF, "dst": Field.OIF},
    "mac": {"src": Field.SMAC},
}
LIST = "list:set"
KINDS = {
    "bitmap:ip",
    "bitmap:port",
    "hash:ip",
    "hash:net",
    "hash:mac",
    "hash:ip,port",
    "hash:net,port",
    "hash:net,iface",
    "hash:net,net",
    "hash:ip,mac",
    "bitmap:ip,mac",
    "hash:ip,port,ip",
    "hash:ip,port,net",
    "hash:net,port,net",
}
# What a line of `create` may say that does not change which packets are in, or is looked at.
_OPTIONS = {
    *("family", "hashsize", "maxelem", "bucketsize", "initval", "range", "timeout", "size"),
    *("counters", "comment", "skbinfo", "forceadd", "netmask", "-exist", "-!"),
}


@dataclass(slots=True)
class Sets:
    """The ipsets, and which of them change under the rules."""

    by_name: Mapping[str, IpSet]
    is_open: Callable[[str], bool]
    filled: frozenset[str] = frozenset()  # by a rule's target
    _asked: dict[tuple[str, tuple[str, ...], int, bool], Asked] = field(default_factory=dict)

    def match(self, match: Match, family: int) -> Asked:
        """`-m set --match-set NAME FLAGS`."""
        option = match.get("match-set")
        if option is None:
            raise NotUnderstoodError(match.text)
        name, flags = option.words
        asked = self.asked(name, tuple(flags.split(",")), family, negated=option.negated)
        return asked if len(match.options) == 1 else asked.but_unknown(match.text)

    def asked(self, name: str, flags: tuple[str, ...], family: int, *, negated: bool) -> Asked:
        """The packets that are, or with `negated` are not, in a set."""
        key = name, flags, family, negated
        found = self._asked.get(key)
        if found is None:
            found = self._asked[key] = self._look(name, flags, family, negated=negated)
        return found

    def _look(self, name: str, flags: tuple[str, ...], family: int, *, negated: bool) -> Asked:
        ipset = self.by_name.get(name)
        if ipset is None:
            raise NotUnderstoodError(name)
        changes = ipset.has_timeouts or name in self.filled or self.is_open(name)
        if ipset.kind == LIST:
            if changes:
                raise NotUnderstoodError(name)
            return self._listed(ipset, flags, family, negated=negated)
        # ip_set_test looks into no set of more parts than flags, nor of the other family.
        if len(flags) < len(ipset.parts) or ipset.family not in (None, family):
            return EVERY if negated else NONE
        fields = set_fields(ipset, flags)
        if not changes:
            return elements(ipset, fields, negated=negated)
        asked = where(InSet(name, fields), holds=not negated)
        if ipset.kind == "bitmap:port" and not negated:
            return all_of([asked, of(Field.L4PROTO, BITMAP_PROTOCOLS)])
        return asked

    def _listed(self, ipset: IpSet, flags: tuple[str, ...], family: int, *, negated: bool) -> Asked:
        """A list of sets, in any of which a packet may be (list_set_ktest of ip_set_list_set.c)."""
        names = [element.partition(" ")[0] for element in ipset.elements]
        if any(name in self.by_name and self.by_name[name].kind == LIST for name in names):
            raise NotUnderstoodError(ipset.name)  # which ipset refuses
        found = [self.asked(name, flags, family, negated=negated) for name in names]
        if negated:
            return all_of(found)
        if any(asked.conditions for asked in found):
            if len(found) == 1:
                return found[0]
            raise NotUnderstoodError(ipset.name)
        return any_of(terms for asked in found for terms in asked.ways)


def set_fields(ipset: IpSet, flags: Sequence[str]) -> tuple[Field, ...]:
    """The field that each part of an element is compared with.

    A port is compared together with its protocol, except in a bitmap of ports.
    """
    if ipset.kind not in KINDS or ipset.options.keys() - _OPTIONS:
        raise NotUnderstoodError(ipset.kind)
    found: list[Field] = []
    for part, flag in zip(ipset.parts, flags, strict=False):
        its_field = OF_PARTS[part].get(flag)
        if its_field is None:
            raise NotUnderstoodError(f"{part} {flag}")
        found.append(its_field)
    return tuple(found)
