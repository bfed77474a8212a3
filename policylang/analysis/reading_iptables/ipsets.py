"""The ipsets that are there after a text of `ipset save` or for `ipset restore`, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policylang.analysis.unreadable import UnreadableError

FAMILIES = {"inet": 4, "inet6": 6}


@dataclass(frozen=True, slots=True)
class IpSet:
    """A set: its type (`hash:net,port`), its options, and its elements as they are written."""

    name: str
    kind: str
    options: Mapping[str, str]
    elements: list[str] = field(default_factory=list)

    @property
    def family(self) -> int | None:
        """4 or 6; None for types that hold no address, and for lists."""
        if self.kind in ("bitmap:port", "hash:mac", "list:set"):
            return None
        return FAMILIES.get(self.options.get("family", "inet"))

    @property
    def has_timeouts(self) -> bool:
        return "timeout" in self.options

    @property
    def parts(self) -> tuple[str, ...]:
        """What an element consists of: `ip`, `net`, `port`, `iface`, `mac`, …"""
        return tuple(self.kind.partition(":")[2].split(","))


_FLAGS = {"counters", "comment", "skbinfo", "forceadd", "-exist", "-!"}


def read_sets(text: str) -> dict[str, IpSet]:
    """The sets by name; raises UnreadableError with the line."""
    sets: dict[str, IpSet] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        if line.startswith("add "):
            _, _, rest = line.partition(" ")
            name, _, element = rest.strip().partition(" ")
            if name not in sets or not element:
                raise UnreadableError(f"no set `{name}` to add to", number)
            sets[name].elements.append(element)
            continue
        words = line.split()
        if words and not words[0].startswith("#"):
            _command(words, sets, number)
    return sets


def _command(words: list[str], sets: dict[str, IpSet], number: int) -> None:
    match words:
        case ["create" | "-N" | "n", name, kind, *rest]:
            sets.setdefault(name, IpSet(name, kind, _options(rest)))
        case ["add" | "-A", name, *rest] if name in sets and rest:
            sets[name].elements.append(" ".join(rest))
        case ["del" | "-D", name, element, *_] if name in sets:
            sets[name].elements[:] = [e for e in sets[name].elements if e.split()[0] != element]
        case ["flush" | "-F", name] if name in sets:
            sets[name].elements.clear()
        case ["destroy" | "-X", name] if name in sets:
            del sets[name]
        case ["swap" | "-W", one, other] if one in sets and other in sets:
            a, b = sets[one], sets[other]
            sets[one] = IpSet(one, b.kind, b.options, b.elements)
            sets[other] = IpSet(other, a.kind, a.options, a.elements)
        case ["COMMIT" | "quit" | "flush" | "destroy"]:
            pass
        case _:
            raise UnreadableError(f"`{' '.join(words[:3])}` is no line of ipset save", number)


def _options(words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        options[word] = "" if word in _FLAGS else next(rest, "")
    return options
