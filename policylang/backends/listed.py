"""What sets of addresses from elsewhere are called in the kernel, the same for every target.

A name stands for the same sources in every generation, whatever they hold at the time: so what
keeps the elements up to date finds them again, and no rule's set is ever taken for another.
"""

from __future__ import annotations

import re

from policylang.ir.ruleset import ListSource

FAMILIES = (4, 6)

# No other name of ours ends so: those of a policy have no dot.
_ENDING = re.compile(r"-v[46]\.[0-9a-f]{8}$")
ENDING_BYTES = 12


def listed_name(source: ListSource, family: int, most_bytes: int | None = None) -> str:
    """The name of one family's part, as in `cdn-v4.0123abcd`; the policy's name for it is cut."""
    room = None if most_bytes is None else most_bytes - ENDING_BYTES
    return f"{source.name[:room]}-v{family}.{source.identity}"


def is_listed(name: str) -> bool:
    """Whether a set of ours is one of addresses from elsewhere."""
    return _ENDING.search(name) is not None
