"""Names of our chains and ipsets: within the kernel's limits, unique, the same on every run."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping

PREFIX = "policylang-"

CHAIN_BYTES = 28  # XT_EXTENSION_MAXNAMELEN 29, less the final NUL
SET_BYTES = 31  # IPSET_MAXNAMELEN 32, less the final NUL
DIGEST_LETTERS = 6  # 30 bits


def digest(text: str) -> str:
    """Six letters and digits that tell texts apart."""
    hashed = hashlib.sha256(text.encode()).digest()
    return base64.b32encode(hashed).decode().lower()[:DIGEST_LETTERS]


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
