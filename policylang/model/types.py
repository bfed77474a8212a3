"""What a policy is made of, resolved; knows neither how it was written nor what it becomes.

Everything a rule names is in the rule: zones, sets and services are resolved to their values,
and the way a list was written (elements and exceptions, a block around a rule) is kept, so
that the meaning can be read off without the lowering.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from policylang.packets.values import Ranges
from policylang.source import Span


class Verb(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    REJECT = "reject"


class Direction(StrEnum):
    """The path of a connection's first packet, as `default` statements name it."""

    INBOUND = "inbound"
    FORWARD = "forward"
    OUTBOUND = "outbound"


class Answer(StrEnum):
    """What `reject` answers."""

    TCP_RESET = "tcp-reset"
    PORT_UNREACHABLE = "port-unreachable"
    HOST_UNREACHABLE = "host-unreachable"
    NET_UNREACHABLE = "net-unreachable"
    ADMIN_PROHIBITED = "admin-prohibited"


@dataclass(frozen=True, slots=True)
class RejectWith:
    """The answers of a `reject`: `tcp` to TCP, `other` to everything else."""

    tcp: Answer = Answer.TCP_RESET
    other: Answer = Answer.PORT_UNREACHABLE


class Side(StrEnum):
    """One of the two addresses of a connection's first packet."""

    SOURCE = "source"
    DESTINATION = "destination"


@dataclass(frozen=True, slots=True)
class Per:
    """Each source or destination for itself, or each prefix of these lengths."""

    side: Side
    prefix_len_v4: int = 32
    prefix_len_v6: int = 128


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` a `unit`, after a first `burst`; `per` None means all together."""

    count: int
    unit: str  # second, minute, hour, day
    burst: int = 5
    per: Per | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """How to log: `rate` None means every packet; `level` and `group` exclude each other."""

    prefix: str | None
    level: str | None
    group: int | None
    rate: Rate | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Zone:
    """A named part of the network; None means that the zone does not say, empty means none."""

    name: str
    interfaces: Ranges | None  # as `values.name_range` numbers names
    networks: Ranges | None  # address numbers
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class DynamicSet:
    """A set of single addresses that is filled at run time; `timeout_s` None: for ever."""

    name: str
    timeout_s: int | None
    size: int
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A set of addresses from elsewhere, kept up to date at run time.

    `sources` are as a lock file calls them; `addresses` are what it holds of them.
    """

    name: str
    sources: tuple[str, ...]
    refresh_s: int
    addresses: Ranges
    span: Span = field(compare=False)


class Group(StrEnum):
    """Destinations that are no addresses of one machine."""

    BROADCAST = "broadcast"
    MULTICAST = "multicast"


@dataclass(frozen=True, slots=True)
class AnyEnd:
    """Every address, this host's own included."""


@dataclass(frozen=True, slots=True)
class SelfEnd:
    """This host."""


@dataclass(frozen=True, slots=True)
class ZoneEnd:
    """Another machine, in `zone`; and in every zone of `within` too (`A in lan`)."""

    zone: Zone
    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class AddressEnd:
    """Another machine with one of these addresses, in every zone of `within`."""

    addresses: Ranges
    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupEnd:
    """Whoever is addressed by a broadcast or multicast, in every zone of `within`."""

    group: Group
    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class DynamicEnd:
    """Another machine whose address is in the set by then, in every zone of `within`."""

    set: DynamicSet | ListedSet
    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class SuffixEnd:
    """Another machine whose IPv6 address ends so: its bits under `mask` are `value`."""

    value: int
    mask: int
    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class IpsecEnd:
    """Another machine whose packets arrive inside IPsec, in every zone of `within`."""

    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class PublishedEnd:
    """Another machine that another tool forwards a port of this host to, as containers do.

    `ports` and `addresses` are those that the client dialled; None means any. With this end
    the ports of what a rule speaks of are those dialled, too.
    """

    ports: Ranges | None = None
    addresses: Ranges | None = None
    within: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True)
class HostEnd:
    """Hosts of the policy: this one under its addresses `own`, other machines under `others`.

    What goes between others passes through this host where `is_passed`. A zone that other hosts
    have and this one has not is such an end, too: `elsewhere` is its name, `others` are its
    networks, and nobody where it has none.
    """

    own: Ranges
    others: Ranges
    within: tuple[Zone, ...] = ()
    is_passed: bool = False
    elsewhere: str | None = None
    span: Span | None = field(default=None, compare=False)


EndElement = (
    AnyEnd
    | SelfEnd
    | ZoneEnd
    | AddressEnd
    | GroupEnd
    | DynamicEnd
    | SuffixEnd
    | IpsecEnd
    | PublishedEnd
    | HostEnd
)


@dataclass(frozen=True, slots=True)
class EndList:
    """A list of elements less a list of exceptions."""

    elements: tuple[EndElement, ...]
    exceptions: tuple[EndElement, ...] = ()
    span: Span | None = field(default=None, compare=False)

    @property
    def is_self(self) -> bool:
        """Whether it names this host and nobody else."""
        return bool(self.elements) and all(isinstance(e, SelfEnd) for e in self.elements)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: what *all* of the lists name, the outermost block's first.

    A list narrows those before it. Where one list says `self` in so many words, addresses and
    groups in the other lists mean this host's own (`inbound to A`, `traffic inbound { allow
    ssh to A }`); everywhere else they mean other machines.

    Exceptions take away by address and group whoever the machine is; a zone is never this host,
    so a zone among the exceptions leaves this host in.
    """

    lists: tuple[EndList, ...]


@dataclass(frozen=True, slots=True)
class Expectation:
    """Connections that a helper predicts: their protocols, and who opens them."""

    protocols: Ranges
    by_client: bool
    by_server: bool


@dataclass(frozen=True, slots=True)
class Helper:
    """A conntrack helper, as the catalogue's `helpers.policy` describes it."""

    name: str
    assigns: tuple[tuple[str, int], ...]  # (kernel's helper name, l4proto)
    matches: tuple[str, ...]  # names that expected connections carry
    expects: tuple[Expectation, ...]
    families: Ranges  # 4, 6
    modules: tuple[str, ...]
    nat_modules: tuple[str, ...]
    has_faults: bool  # a record of kernel vulnerabilities


@dataclass(frozen=True, slots=True)
class Traffic:
    """One thing that a rule speaks of; None means any.

    `names_icmp` tells a written ICMP type from `all` and `protocol icmp`: such rules are read
    for INVALID packets and for essential ones too. `data_ports` are the destination ports of
    the connections that `helper` predicts. With `answers_from_any`, answers to a question come
    from elsewhere than where it went.
    """

    protocols: Ranges | None = None
    ports: Ranges | None = None
    icmp_types: Ranges | None = None  # of ICMP where protocols is {1}, of ICMPv6 where {58}
    helper: Helper | None = None
    data_ports: Ranges | None = None
    answers_from_any: bool = False
    service: str | None = None  # the service that it came from

    @property
    def names_icmp(self) -> bool:
        return self.icmp_types is not None


@dataclass(frozen=True, slots=True)
class Limit:
    """What is within a rate, or with `over` what is beyond it."""

    rate: Rate
    over: bool


@dataclass(frozen=True, slots=True)
class Connections:
    """While at most `count` connections are open, this one included; with `over`, while more."""

    count: int
    over: bool
    per: Per | None


@dataclass(frozen=True, slots=True)
class Owners:
    """Users or groups, by number, and by names that the machine looks up which loads the rules."""

    ids: Ranges
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hours:
    """Seconds of the week, which starts on Monday at 00:00, in UTC or local time."""

    week_s: Ranges
    is_local: bool


@dataclass(frozen=True, slots=True)
class Until:
    """Up to the end of a day, in UTC or local time."""

    last_day: date
    is_local: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A packet mark that has, under `mask`, this `value`."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """What else must hold for a rule to match; None means that it does not matter.

    INVARIANT: each is consumed in `lower/conditions.py`; `tests/model/test_consumption.py`
    changes each one and demands other rules.
    """

    families: Ranges | None = None  # 4, 6
    ipsec: bool | None = None  # whether it arrived inside IPsec
    macs: Ranges | None = None
    source_ports: Ranges | None = None
    dscp: Ranges | None = None
    sizes: Ranges | None = None  # bytes, the IP header included
    mark: Mark | None = None
    users: Owners | None = None
    groups: Owners | None = None
    cgroup: str | None = None  # a path below the mount of version 2
    hours: Hours | None = None
    until: Until | None = None
    connections: Connections | None = None
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class AddTo:
    """Put an address of the packet into a dynamic set; `timeout_s` None: for the set's time."""

    set: DynamicSet
    side: Side
    timeout_s: int | None


@dataclass(frozen=True, slots=True)
class NativeRule:
    """A line of a target's own language, at its place among the rules of one path.

    `family` is 4 or 6 where it is for one alone.
    """

    target: str
    direction: Direction
    text: str
    family: int | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule as written, its blocks and groups unfolded.

    `used_at` are the `use` statements by which a rule of a group came here, outermost first.
    """

    verb: Verb
    what: tuple[Traffic, ...]
    source: End
    destination: End
    answer: RejectWith | None
    log: Log | None
    name: str | None
    span: Span = field(compare=False)
    used_at: tuple[Span, ...] = field(default=(), compare=False)
    conditions: Conditions = Conditions()
    adds: tuple[AddTo, ...] = ()
    also_established: bool = False
