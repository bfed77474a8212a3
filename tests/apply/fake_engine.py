"""A way to load rules without any kernel: what is in force is a value that tests look at.

Whatever an artifact is, it is one chain with its script as the only rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from policylang.apply import engines, ipsets, kernel, nft, transaction
from policylang.apply.livesets import LiveSets
from policylang.apply.loaded import NOTHING, Chain, Loaded, Rule
from policylang.backends.base import Artifact
from policylang.diagnostics import Report

T = TypeVar("T")


def as_loaded(artifact: Artifact) -> Loaded:
    return Loaded((Chain("chain input", "", (Rule(artifact.files[0].text),)),))


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass(slots=True)
class FakeEngine:
    """`left_ms` is what the pending generation has left; `calls` are the steps that were taken.

    A step that is named in `killed_in` ends the process: before it did anything, or after.
    """

    way: str = "nft"
    ours: Loaded = NOTHING
    beside: Loaded = NOTHING
    left_ms: int | None = None
    calls: list[str] = field(default_factory=list)
    killed_in: str = ""
    is_done_then: bool = False
    fails_in: str = ""

    def rehearse(self, artifact: Artifact, report: Report) -> Loaded | None:
        return as_loaded(artifact)

    def listed(self, report: Report) -> Loaded | None:
        return self.ours

    def load(self, artifact: Artifact, report: Report, carried: LiveSets) -> bool:
        def load() -> None:
            self.ours = as_loaded(artifact)

        return self._step("load", load, report)

    def remove(self, report: Report) -> bool:
        def remove() -> None:
            self.ours, self.beside, self.left_ms = NOTHING, NOTHING, None

        return self._step("remove", remove, report)

    def arm(self, artifact: Artifact, seconds: int, report: Report) -> bool:
        def arm() -> None:
            self.beside, self.left_ms = as_loaded(artifact), seconds * 1000

        return self._step("arm", arm, report)

    def armed_ms(self, report: Report) -> int | None:
        return self.left_ms

    def pending(self, report: Report) -> Loaded | None:
        return self.beside

    def keep(self, artifact: Artifact, report: Report, *, is_late: bool = False) -> bool:
        if not (self.left_ms or is_late):
            report.add("too-late", "the time to confirm is over", None)
            return False

        def keep() -> None:
            self.ours, self.beside, self.left_ms = as_loaded(artifact), NOTHING, None

        return self._step("keep", keep, report)

    def disarm(self, report: Report) -> bool:
        def disarm() -> None:
            self.beside, self.left_ms = NOTHING, None

        return self._step("disarm", disarm, report)

    def _step(self, name: str, work: Callable[[], None], report: Report) -> bool:
        self.calls.append(name)
        if self.killed_in == name:
            self.killed_in = ""
            if self.is_done_then:
                work()
            raise KilledError
        if self.fails_in == name:
            report.add("loading-failed", f"{name} failed", None)
            return False
        work()
        return True


def in_place(patch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    """Let `engine` be the only way to load, for whoever may not touch the kernel."""

    def present() -> Iterator[FakeEngine]:
        yield engine

    def here(work: Callable[[], T], report: Report) -> T:
        return work()

    patch.setattr(engines, "chosen", lambda target, flavour, report: engine)
    patch.setattr(engines, "by_way", lambda way: engine)
    patch.setattr(engines, "present", present)
    patch.setattr(kernel, "in_scratch", here)
    patch.setattr(kernel, "may_change", lambda report: True)
    patch.setattr(nft, "live_sets", lambda report: ())
    patch.setattr(transaction, "see_to_the_rest", lambda needs, report: ())
    patch.setattr(transaction, "_of_ipset", dict)
    patch.setattr(ipsets, "destroy_others", lambda made, report: None)
