"""The nodes of sets, and what the files hold that sets name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policylang.packets.values import Ranges
from policylang.syntax.leaves import (
    Address,
    Duration,
    FileList,
    MacAddress,
    Name,
    Node,
    Number,
    NumberRange,
    Text,
)

SetElement = Address | Number | NumberRange | MacAddress | FileList | Name


@dataclass(frozen=True, slots=True)
class DynamicNode(Node):
    """`dynamic [timeout 1h] [size 65535]`."""

    timeout: Duration | None
    size: Number | None


@dataclass(frozen=True, slots=True)
class ListedNode(Node):
    """`resolve "NAME", … [refresh 1h]` or `url "URL", … [refresh 1d]`, by `kind`."""

    kind: str
    sources: tuple[Text, ...]
    refresh: Duration | None

    def key(self, source: Text) -> str:
        """What a lock file calls a source."""
        return f"{self.kind} {source.text}"


@dataclass(frozen=True, slots=True)
class SetDecl(Node):
    """`set NAME = elements [except exceptions]`, `set NAME = dynamic …` or a set from elsewhere.

    `set NAME =` with nothing behind is empty.
    """

    name: Name
    dynamic: DynamicNode | None
    listed: ListedNode | None
    elements: tuple[SetElement, ...]
    exceptions: tuple[SetElement, ...]


# --- what files hold ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListFile:
    """What a list file holds, as ranges in the numbering of `packets.values`.

    `kind` is `address`, `port`, `mac` (48-bit numbers), or None for a file without elements.
    """

    kind: str | None
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class LockedAddresses:
    """What the lock file has of the sources, called as by `ListedNode.key`.

    `policy` is what the policy beside it is called, None where the policy is no file: then there
    is no lock file.
    """

    of: Mapping[str, Ranges]
    policy: str | None
