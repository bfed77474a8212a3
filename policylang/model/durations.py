"""Durations as numbers of seconds; knows no bounds."""

from __future__ import annotations

import re

UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration_s(text: str) -> int:
    """A duration such as `1h30m` in seconds."""
    parts = re.findall(r"([0-9]+)([smhdw])", text)
    return sum(int(count) * UNIT_S[unit] for count, unit in parts)
