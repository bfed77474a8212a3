"""Reads iptables and ipset listings of any origin as a `Machine`; knows nothing of how they came.

It reads what the kernel was given or says it has, and knows no backend of ours.
"""

from __future__ import annotations

from policylang.analysis.reading_iptables.reading import read_iptables

__all__ = ["read_iptables"]
