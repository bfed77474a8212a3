"""The ipsets of a ruleset: what they are called and what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from policylang.backends.base import Line
from policylang.backends.iptables.names import (
    ASKER_PORTS,
    PREFIX,
    QUESTION_INTERFACES,
    QUESTION_PORTS,
    dynamic_set_name,
    listed_set_name,
    named_set_name,
    set_name,
)
from policylang.backends.iptables.prefixes import of_family, prefix_texts
from policylang.backends.iptables.sieve import InexpressibleError
from policylang.ir.origin import Origin, joined
from policylang.ir.ruleset import AddressTest, DynamicSet, ListedSet, Ruleset
from policylang.packets.fields import FAMILY_ADDRESSES
from policylang.packets.values import Ranges

# The same for all sets of all generations, for `create -exist` refuses a set that is there
# with another `maxelem`. It is a bound and takes no memory.
MAXELEM = 1 << 24
HASHSIZE_LEAST = 64  # ip_set_hash_gen.h: IPSET_MIMINAL_HASHSIZE

FAMILY_WORDS = {4: "inet", 6: "inet6"}

TIMEOUT_S_MOST = 2_147_483  # linux/netfilter/ipset/ip_set.h: IPSET_MAX_TIMEOUT

# Of a question's address, port and interface: every rule gives the time itself.
QUESTION_OPTIONS = "timeout 60 maxelem 65536"

PORTS = "bitmap:port"
MACS = "hash:mac"


def checked_timeout(seconds: int) -> int:
    """The seconds, if a set can keep an element for so long; raises InexpressibleError."""
    if seconds > TIMEOUT_S_MOST:
        raise InexpressibleError(
            f"a time-out of {seconds} seconds",
            help=f"an ipset forgets after {TIMEOUT_S_MOST} seconds at most, which is 24 days",
        )
    return seconds


def mac_text(number: int) -> str:
    """Six bytes with colons."""
    return number.to_bytes(6, "big").hex(":")


@dataclass(slots=True)
class IpSet:
    """A set with its elements as ipset writes them, in order; `family` 0 where it has none."""

    name: str
    kind: str  # hash:net, bitmap:port, …
    family: int
    elements: Sequence[str]
    origins: tuple[Origin, ...] = ()

    @property
    def body(self) -> dict[str, object]:
        """What the template lays out: the set is filled under another name and then swapped in.

        So a set that is there and in use never lacks an element. That other name depends on
        the type, for it may have been left over by a load that was interrupted.
        """
        letters = self.kind.partition(":")[2].replace(",", "-")
        other = f"{PREFIX}new-{letters}{self.family or ''}"
        return {
            "name": self.name,
            "other": other,
            "create": Line(f"create {other} {self._options} -exist", self.origins),
            "options": self._options,
            "elements": "\n".join(f"add {other} {element}" for element in self.elements),
        }

    @property
    def _options(self) -> str:
        if self.kind == PORTS:
            return f"{self.kind} range 0-65535"
        hashsize = max(HASHSIZE_LEAST, 1 << len(self.elements).bit_length() >> 1)
        family = f" family {FAMILY_WORDS[self.family]}" if self.family else ""
        return f"{self.kind}{family} hashsize {hashsize} maxelem {MAXELEM}"


@dataclass(frozen=True, slots=True)
class KeptSet:
    """A set that packets fill: it is made where it is not there, and else left as it is."""

    name: str
    options: str
    origins: tuple[Origin, ...] = ()

    @property
    def line(self) -> Line:
        """The line that makes it; refused where a set of that name has other options."""
        return Line(f"create {self.name} {self.options} -exist", self.origins)


@dataclass(slots=True)
class IpSets:
    """Makes the sets that rules ask for, each once; `named` is what the policy calls values.

    The keys' first part is the family, 0 for ports. `tests` are what a ruleset's fields ask of
    addresses.
    """

    named: dict[tuple[int, Ranges], str]
    tests: tuple[AddressTest, ...] = ()
    _made: dict[str, IpSet] = field(default_factory=dict)
    _networks: dict[tuple[int, Ranges], IpSet] = field(default_factory=dict)
    _kept: dict[str, KeptSet] = field(default_factory=dict)

    @classmethod
    def of(cls, ruleset: Ruleset) -> IpSets:
        """No sets yet, and their names from a ruleset."""
        named: dict[tuple[int, Ranges], str] = {}
        for values, name in ruleset.set_names:
            named.setdefault((0, values), name)
            for family in FAMILY_ADDRESSES:
                named.setdefault((family, of_family(values, family)), name)
        return cls(named, ruleset.address_tests)

    @property
    def all(self) -> tuple[IpSet, ...]:
        """The sets by name."""
        return tuple(self._made[name] for name in sorted(self._made))

    @property
    def kept(self) -> tuple[KeptSet, ...]:
        """The sets that packets fill, by name."""
        return tuple(self._kept[name] for name in sorted(self._kept))

    def is_named(self, family: int, values: Ranges) -> bool:
        """Whether the policy has a name for these addresses."""
        return (family, values) in self.named

    def networks(self, members: Ranges, family: int, origins: tuple[Origin, ...]) -> str:
        """The name of the set of these addresses, all of one family."""
        key = (family, members)
        made = self._networks.get(key)
        if made is None:
            elements = prefix_texts(members)
            made = self._make("addresses", "hash:net", family, elements, self.named.get(key))
            self._networks[key] = made
        made.origins = joined(made.origins, origins)
        return made.name

    def listed(self, listed: ListedSet, family: int) -> str:
        """The name of the set of a list's addresses of a family, which change at run time."""
        name = listed_set_name(listed.source, family)
        elements = prefix_texts(of_family(listed.addresses, family))
        self._made.setdefault(name, IpSet(name, "hash:net", family, elements, listed.origins))
        return name

    def ports(self, values: Ranges, origins: tuple[Origin, ...]) -> str:
        """The name of a set of ports, for TCP and UDP."""
        elements = [str(low) if low == high else f"{low}-{high}" for low, high in values]
        return self._made_for("ports", PORTS, 0, elements, self.named.get((0, values)), origins)

    def dynamic(self, kept: DynamicSet) -> None:
        """Make the sets of a dynamic set, one a family. Raises InexpressibleError.

        They always have time-outs, for otherwise no rule could ever give one.
        """
        timeout_s = checked_timeout(kept.timeout_s or 0)
        for family, word in FAMILY_WORDS.items():
            name = dynamic_set_name(kept.name, family)
            options = f"hash:ip family {word} timeout {timeout_s} maxelem {kept.size}"
            self._keep(name, options, kept.origins)

    def questions(self, family: int, origins: tuple[Origin, ...]) -> tuple[str, str]:
        """The names of the sets of addresses with interfaces, and of addresses with ports."""
        interfaces, ports = QUESTION_INTERFACES[family], QUESTION_PORTS[family]
        for name, kind in ((interfaces, "hash:net,iface"), (ports, "hash:ip,port")):
            options = f"{kind} family {FAMILY_WORDS[family]} {QUESTION_OPTIONS}"
            self._keep(name, options, origins)
        return interfaces, ports

    def askers(self, origins: tuple[Origin, ...]) -> str:
        """The name of the set of ports that questions came from, of both families."""
        self._keep(ASKER_PORTS, f"{PORTS} range 0-65535 timeout 60", origins)
        return ASKER_PORTS

    def _keep(self, name: str, options: str, origins: tuple[Origin, ...]) -> None:
        before = self._kept.get(name)
        assert before is None or before.options == options
        all_origins = joined(before.origins, origins) if before else origins
        self._kept[name] = KeptSet(name, options, all_origins)

    def macs(self, values: Ranges, origins: tuple[Origin, ...]) -> str:
        """The name of a set of MAC addresses."""
        elements = [mac_text(n) for low, high in values for n in range(low, high + 1)]
        return self._made_for("macs", MACS, 0, elements, self.named.get((0, values)), origins)

    def other(
        self,
        wanted: str,
        kind: str,
        family: int,
        elements: Sequence[str],
        origins: tuple[Origin, ...],
    ) -> str:
        """The name of a set of any type and elements; `wanted` is what it would be called."""
        return self._made_for(wanted, kind, family, elements, None, origins)

    def _made_for(
        self,
        wanted: str,
        kind: str,
        family: int,
        elements: Sequence[str],
        called: str | None,
        origins: tuple[Origin, ...],
    ) -> str:
        made = self._make(wanted, kind, family, elements, called)
        made.origins = joined(made.origins, origins)
        return made.name

    def _make(
        self, wanted: str, kind: str, family: int, elements: Sequence[str], called: str | None
    ) -> IpSet:
        """`called` is the policy's own name for these elements, if it has one."""
        content = "\n".join((kind, str(family), *elements))
        while True:
            if called is None:
                name = set_name(wanted, str(family or ""), content)
            else:
                name = named_set_name(called, str(family or ""), content)
            made = self._made.setdefault(name, IpSet(name, kind, family, elements))
            if (made.kind, made.family, made.elements) == (kind, family, elements):
                return made
            content += "\n"  # two contents of one digest
