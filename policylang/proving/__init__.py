"""Plays the tests of a policy on the real kernel, in namespaces that are gone afterwards.

The firewall of the policy stands in a namespace, loaded as `apply` would load it, and behind each
of its interfaces another namespace that stands for the world there. Nothing leaves them.
"""

from __future__ import annotations

from policylang.proving.proof import MOST_PACKETS as MOST_PACKETS
from policylang.proving.proof import prove as prove
from policylang.proving.results import Result as Result
from policylang.proving.results import Status as Status
