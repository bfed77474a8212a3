"""What this machine alone knows of what rules say: who its users are, and what its clock shows."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from policylang.ir import actions as ir
from policylang.ir.ruleset import Rule, Ruleset


@dataclass(frozen=True, slots=True)
class Here:
    """What rules are compared with.

    `owners` are the numbers of users and groups that they name, by kind and name; local time is
    `utc_offset_s` ahead of UTC.
    """

    owners: Mapping[tuple[str, str], int]
    utc_offset_s: int


def here_of(ruleset: Ruleset) -> Here:
    """What this machine knows of what these rules say."""
    return Here(owners(ruleset), utc_offset_s())


def utc_offset_s() -> int:
    """How far local time is ahead of UTC at the present."""
    offset = datetime.now().astimezone().utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def owners(ruleset: Ruleset) -> dict[tuple[str, str], int]:
    """The numbers that users and groups which rules name have on this machine."""
    names = {
        (guard.kind, name)
        for chain in ruleset.chains
        for item in chain.items
        if isinstance(item, Rule)
        for guard in item.guards
        if isinstance(guard, ir.OwnerGuard)
        for name in guard.names
    }
    found: dict[tuple[str, str], int] = {}
    for kind, name in names:
        try:
            number = pwd.getpwnam(name).pw_uid if kind == "user" else grp.getgrnam(name).gr_gid
        except KeyError:
            continue  # the target's own program has refused it
        found[kind, name] = number
    return found
