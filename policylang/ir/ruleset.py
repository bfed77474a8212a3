"""Rulesets: chains of cubes with actions; knows neither policies nor targets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from policylang.ir.actions import Action, Guard
from policylang.ir.origin import Origin
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import Cube
from policylang.packets.fields import Field
from policylang.packets.values import Range, Ranges


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets in `cube` that pass all guards meet `action`; the others go on."""

    cube: Cube
    action: Action
    guards: tuple[Guard, ...] = ()
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """One element of a lookup: a range a field, in the order of the lookup's fields."""

    key: tuple[Range, ...]
    action: Action
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Lookup:
    """Packets in `cube` are looked up by their `fields`: the entry that holds them decides.

    Packets that no entry holds go on. Entries are disjoint, so their order means nothing. Every
    packet in `cube` has all of `fields`: ports come with a protocol that has them, in the cube or
    as a field of the key. An address field's ranges are each of one family, and in an entry all
    addresses are of the same one.
    """

    cube: Cube
    fields: tuple[Field, ...]
    entries: tuple[Entry, ...]

    @property
    def action(self) -> Action | None:
        """The action of all entries, or None where they differ."""
        actions = {entry.action for entry in self.entries}
        return actions.pop() if len(actions) == 1 else None


Item = Rule | Lookup


@dataclass(frozen=True, slots=True)
class Chain:
    """Items that are read in order; a packet that comes to the end goes back to the caller."""

    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Base:
    """The chain that a packet enters on a stage and path.

    INVARIANT: on FILTER its last item decides every packet (an explicit final verdict).
    """

    stage: Stage
    path: Path
    chain: str


@dataclass(frozen=True, slots=True)
class DynamicSet:
    """A set of single addresses that is filled at run time; `timeout_s` None: for ever."""

    name: str
    timeout_s: int | None
    size: int
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class HostSuffix:
    """IPv6 addresses whose bits under `mask` are `value` (both 128 bits)."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class ListSource:
    """Where the addresses of a set come from; what they are now is looked up at run time.

    `sources` are texts such as `resolve cdn.example` and `url https://lists.example/a`, which are
    to be asked again every `refresh_s`.
    """

    name: str
    sources: tuple[str, ...]
    refresh_s: int

    @property
    def identity(self) -> str:
        """Eight hexadecimal digits: of one name and of the same sources, always the same."""
        text = "\n".join((self.name, *sorted(set(self.sources))))
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class ListedSet:
    """A set of addresses from elsewhere, and what it holds to begin with."""

    source: ListSource
    addresses: Ranges
    origins: tuple[Origin, ...] = field(default=(), compare=False)


AddressTest = DynamicSet | ListedSet | HostSuffix


@dataclass(frozen=True, slots=True)
class Module:
    """A kernel module that rules rely on, where the kernel has modules at all.

    One that is not required is of use to other programs' rules alone.
    """

    name: str
    is_required: bool = True
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class NeededHelper:
    """A conntrack helper that rules assign, by the kernel's name for it."""

    name: str
    protocol: int
    families: tuple[int, ...]  # 4, 6
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Forwarding:
    """Packets of a family (4, 6) are let through this host."""

    family: int
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """Packets whose mark has `value` under `mask` are delivered to this host."""

    value: int
    mask: int
    families: tuple[int, ...]  # 4, 6
    origins: tuple[Origin, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Needs:
    """What the rules rely on beside themselves, for whoever loads them to see to.

    `inbound` is a statement about this host that one may take to hold for ports that other
    programs forward, where no statement speaks of those. `forwards_any` says whether packets to
    such ports may pass at all. `cuts_flows` asks to end open connections that the rules would not
    let begin; `lists` are to be kept up to date.
    """

    forwards: tuple[Forwarding, ...] = ()
    modules: tuple[Module, ...] = ()
    helpers: tuple[NeededHelper, ...] = ()
    proxy_route: ProxyRoute | None = None
    inbound: Origin | None = field(default=None, compare=False)
    forwards_any: bool = False
    cuts_flows: bool = False
    lists: tuple[ListSource, ...] = ()


NO_NEEDS = Needs()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All chains. `chains` are unique by name; every one is a base chain or jumped to.

    `address_tests` are what the fields SADDR_TEST_n and DADDR_TEST_n ask; `dynamic_sets` all
    that the policy declares, used by a rule or not. `has_counters` asks for a counter in each
    rule, where the target does not count anyway. `set_names` are what the policy calls some
    sets of values, for readable output; they take no part in the meaning. `needs` are for the
    one who loads.
    """

    bases: tuple[Base, ...]
    chains: tuple[Chain, ...]
    set_names: tuple[tuple[Ranges, str], ...] = field(default=(), compare=False)
    address_tests: tuple[AddressTest, ...] = ()
    dynamic_sets: tuple[DynamicSet, ...] = ()
    has_counters: bool = False
    needs: Needs = NO_NEEDS

    def chain(self, name: str) -> Chain:
        """The chain of that name; KeyError where there is none."""
        for chain in self.chains:
            if chain.name == name:
                return chain
        raise KeyError(name)


def entry_cube(lookup: Lookup, entry: Entry) -> Cube:
    """The packets that an entry of a lookup holds."""
    key = {f: Ranges.between(*r) for f, r in zip(lookup.fields, entry.key, strict=True)}
    return lookup.cube & Cube.of(key)
