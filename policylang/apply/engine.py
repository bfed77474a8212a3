"""What a way to load rules must be able to do; knows neither nft nor iptables.

A change that is not yet confirmed is a *pending* generation beside the one that is in force. Both
are in the kernel, and elements of sets that time out choose between them: what reverts an
unconfirmed change is the kernel alone, whatever became of the process that loaded it.
"""

from __future__ import annotations

from typing import Protocol

from policylang.apply.livesets import LiveSets
from policylang.apply.loaded import Loaded
from policylang.backends.base import Artifact
from policylang.diagnostics import Report


class Engine(Protocol):
    """One target and flavour, in the network namespace of the calling thread.

    What fails is told in the report, and what was in force is then still in force.
    """

    @property
    def way(self) -> str:
        """`nft`, `iptables-nft` or `iptables-legacy`."""
        ...

    def rehearse(self, artifact: Artifact, report: Report) -> Loaded | None:
        """What an artifact is once it is loaded; the calling thread is in a scratch namespace."""
        ...

    def listed(self, report: Report) -> Loaded | None:
        """What is in force of ours, less all that belongs to a pending generation."""
        ...

    def load(self, artifact: Artifact, report: Report, carried: LiveSets) -> bool:
        """Put an artifact in the place of what is in force.

        Dynamic sets keep their elements, and those of `carried` come to them; rules that stay
        keep what they counted. Where sets' elements alone differ, they alone are touched.
        """
        ...

    def remove(self, report: Report) -> bool:
        """Take all away that is ours, a pending generation too; whether there was any."""
        ...

    def arm(self, artifact: Artifact, seconds: int, report: Report) -> bool:
        """Put an artifact in force for some seconds, beside what it replaces for that time.

        When the time is over, what was in force is in force again, with nobody's help. Reports
        `cannot-arm` where the kernel has no means to.
        """
        ...

    def armed_ms(self, report: Report) -> int | None:
        """The milliseconds that a pending generation has left; 0: over, None: there is none."""
        ...

    def pending(self, report: Report) -> Loaded | None:
        """The pending generation, as `rehearse` would show it; empty where there is none."""
        ...

    def keep(self, artifact: Artifact, report: Report, *, is_late: bool = False) -> bool:
        """Put a pending generation's artifact in force for good; nothing of it is pending then.

        Reports `too-late`, and changes nothing, where the time is over, unless `is_late`: then it
        was decided while there was time, and is completed.
        """
        ...

    def disarm(self, report: Report) -> bool:
        """End a pending generation: what it replaced is in force, and nothing is left of it."""
        ...
