"""Names of our chains and ipsets: within the kernel's limits, unique, the same on every run."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping

from policylang.backends.listed import listed_name
from policylang.ir.ruleset import ListSource

PREFIX = "policylang-"

CHAIN_BYTES = 28  # XT_EXTENSION_MAXNAMELEN 29, less the final NUL
SET_BYTES = 31  # IPSET_MAXNAMELEN 32, less the final NUL
DIGEST_LETTERS = 6  # 30 bits


def digest(text: str, letters: int = DIGEST_LETTERS) -> str:
    """So many letters and digits, at most 52, that tell texts apart."""
    hashed = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(hashed).decode().lower()[:letters]


def plain(text: str) -> str:
    """The text with every character that has a meaning somewhere replaced."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-") or "x"


class ChainNames:
    """The names of one table's chains.

    `entries` are the chains that built-in ones jump to, with the names that they must have.
    """

    def __init__(self, entries: Mapping[str, str], others: Iterable[str]) -> None:
        self._names = {chain: PREFIX + name for chain, name in entries.items()}
        self._taken = set(self._names.values())
        for chain in others:
            if chain not in self._names:
                self._names[chain] = self._free(plain(chain))

    def __getitem__(self, chain: str) -> str:
        return self._names[chain]

    def near(self, name: str) -> str:
        """A new name, numbered, for a part of the chain that is called `name`."""
        stem = name.removeprefix(PREFIX)
        number = 1
        while (found := self._cut(stem, f"-{number}")) in self._taken:
            number += 1
        self._taken.add(found)
        return found

    def apart(self, text: str) -> str:
        """A name for a chain that stands in no chain of the ruleset."""
        return self._free(plain(text))

    def _free(self, wanted: str) -> str:
        name = PREFIX + wanted
        if len(name) > CHAIN_BYTES:
            name = self._cut(wanted, f"-{digest(wanted)}")
        number = 1
        while name in self._taken:
            number += 1
            name = self._cut(wanted, f"-{number}")
        self._taken.add(name)
        return name

    def _cut(self, stem: str, ending: str) -> str:
        room = CHAIN_BYTES - len(PREFIX) - len(ending)
        return PREFIX + stem[:room].rstrip("-") + ending


def set_name(wanted: str, family: str, content: str) -> str:
    """The name of an ipset of this content; `family` is 4, 6 or nothing.

    INVARIANT: a name never stands for other elements than it stands for now. Sets are loaded
    before the rules, and the rules that are still in force must not see what is meant for
    their successors: that could be more open than either.
    """
    ending = f"{family}-{digest(content)}"
    room = SET_BYTES - len(PREFIX) - len(ending)
    return PREFIX + plain(wanted)[:room].rstrip("-") + ending


def named_set_name(name: str, family: str, content: str) -> str:
    """The name of an ipset of this content, which the policy calls `name`.

    What stands before the content's digest stays when the elements change, and a dot sets it off
    from the names of other ipsets.
    """
    stays = plain(name)
    room = SET_BYTES - len(PREFIX) - len(".4") - DIGEST_LETTERS
    if len(stays) > room:
        stays = f"{stays[: room - DIGEST_LETTERS - 1]}.{digest(stays)}"
    return f"{PREFIX}{stays}.{family or 0}{digest(content)}"


_NAMED = re.compile(rf"({re.escape(PREFIX)}.+\.[046])[a-z0-9]{{{DIGEST_LETTERS}}}")


def lasting_name(name: str) -> str:
    """What stays of an ipset's name when its elements change; all of it, where the policy has none.

    INVARIANT: no other function here makes a name that `_NAMED` takes for one of these.
    """
    found = _NAMED.fullmatch(name)
    return found[1] if found else name


def renewed_names(name: str) -> tuple[str, ...]:
    """Other names for an ipset of a name that lasts, where its own is taken by other elements."""
    return tuple(f"{name[:-1]}{digit}" for digit in "0189")  # which no digest has


LONG_NAME_LETTERS = 10  # 50 bits: these names are not checked for being unique


def dynamic_set_name(name: str, family: int) -> str:
    """The name of the ipset that is one family's part of a dynamic set.

    It is the same in every generation, for the set keeps its elements. Names of `set_name` end
    in a digest, which `v4` and `v6` are too short for; a name that is cut has a dot, which no
    name of a policy has.
    """
    ending = f"-v{family}"
    room = SET_BYTES - len(PREFIX) - len(ending)
    if len(name) > room:
        name = f"{name[: room - LONG_NAME_LETTERS - 1]}.{digest(name, LONG_NAME_LETTERS)}"
    return PREFIX + name + ending


def listed_set_name(source: ListSource, family: int) -> str:
    """The name of the ipset that is one family's part of a list from elsewhere."""
    return PREFIX + listed_name(source, family, SET_BYTES - len(PREFIX))


# What is kept of questions, under names that no dynamic set has.
QUESTION_INTERFACES = {4: f"{PREFIX}asked.iface-v4", 6: f"{PREFIX}asked.iface-v6"}
QUESTION_PORTS = {4: f"{PREFIX}asked.port-v4", 6: f"{PREFIX}asked.port-v6"}
ASKER_PORTS = f"{PREFIX}asked.by"
