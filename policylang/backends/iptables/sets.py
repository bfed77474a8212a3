"""The ipsets of a ruleset: what they are called and what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from policylang.backends.base import Line
from policylang.backends.iptables.names import PREFIX, set_name
from policylang.backends.iptables.prefixes import of_family, prefix_texts
from policylang.ir.origin import Origin, joined
from policylang.packets.fields import FAMILY_ADDRESSES
from policylang.packets.values import Ranges

# The same for all sets of all generations, for `create -exist` refuses a set that is there
# with another `maxelem`. It is a bound and takes no memory.
MAXELEM = 1 << 24
HASHSIZE_LEAST = 64  # ip_set_hash_gen.h: IPSET_MIMINAL_HASHSIZE

FAMILY_WORDS = {4: "inet", 6: "inet6"}


@dataclass(slots=True)
class IpSet:
    """A set with its elements as ipset writes them, in order; `family` 0 for ports alone."""

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
            "elements": f"add {other} " + f"\nadd {other} ".join(self.elements),
        }

    @property
    def _options(self) -> str:
        if not self.family:
            return f"{self.kind} range 0-65535"
        hashsize = max(HASHSIZE_LEAST, 1 << (len(self.elements).bit_length() - 1))
        family = FAMILY_WORDS[self.family]
        return f"{self.kind} family {family} hashsize {hashsize} maxelem {MAXELEM}"


@dataclass(slots=True)
class IpSets:
    """Makes the sets that rules ask for, each once; `named` is what the policy calls values.

    The keys' first part is the family, 0 for ports.
    """

    named: dict[tuple[int, Ranges], str]
    _made: dict[str, IpSet] = field(default_factory=dict)
    _networks: dict[tuple[int, Ranges], IpSet] = field(default_factory=dict)

    @classmethod
    def of(cls, set_names: Iterable[tuple[Ranges, str]]) -> IpSets:
        """No sets yet, and their names from a ruleset."""
        named: dict[tuple[int, Ranges], str] = {}
        for values, name in set_names:
            named.setdefault((0, values), name)
            for family in FAMILY_ADDRESSES:
                named.setdefault((family, of_family(values, family)), name)
        return cls(named)

    @property
    def all(self) -> tuple[IpSet, ...]:
        """The sets by name."""
        return tuple(self._made[name] for name in sorted(self._made))

    def is_named(self, family: int, values: Ranges) -> bool:
        """Whether the policy has a name for these addresses."""
        return (family, values) in self.named

    def networks(self, members: Ranges, family: int, origins: tuple[Origin, ...]) -> str:
        """The name of the set of these addresses, all of one family."""
        key = (family, members)
        made = self._networks.get(key)
        if made is None:
            wanted = self.named.get(key, "addresses")
            elements = prefix_texts(members)
            made = self._networks[key] = self._make(wanted, "hash:net", family, elements)
        made.origins = joined(made.origins, origins)
        return made.name

    def ports(self, values: Ranges, origins: tuple[Origin, ...]) -> str:
        """The name of a set of ports, for TCP and UDP."""
        elements = [str(low) if low == high else f"{low}-{high}" for low, high in values]
        return self.other(self.named.get((0, values), "ports"), "bitmap:port", 0, elements, origins)

    def other(
        self,
        wanted: str,
        kind: str,
        family: int,
        elements: Sequence[str],
        origins: tuple[Origin, ...],
    ) -> str:
        """The name of a set of any type and elements; `wanted` is what it would be called."""
        made = self._make(wanted, kind, family, elements)
        made.origins = joined(made.origins, origins)
        return made.name

    def _make(self, wanted: str, kind: str, family: int, elements: Sequence[str]) -> IpSet:
        content = "\n".join((kind, str(family), *elements))
        while True:
            name = set_name(wanted, str(family or ""), content)
            made = self._made.setdefault(name, IpSet(name, kind, family, elements))
            if (made.kind, made.family, made.elements) == (kind, family, elements):
                return made
            content += "\n"  # two contents of one digest
