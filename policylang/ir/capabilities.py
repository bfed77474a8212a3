"""What a target can do, as data; a backend fills it in and `verify` reads it."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.ir.actions import Action
from policylang.ir.stages import Stage
from policylang.packets.fields import Field


@dataclass(frozen=True, slots=True)
class Capabilities:
    """`fields` a stage can match, `actions` it can take, and how long a log prefix may be."""

    target: str
    fields: dict[Stage, frozenset[Field]]
    actions: dict[Stage, tuple[type[Action], ...]]
    log_prefix_bytes: int
    log_group_prefix_bytes: int
