"""A target that has nothing of policylang but the archive, and only the programs of one way.

Its Python is the distribution's, on its own; what else the machine has is hidden from it.
"""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from policylang.diagnostics import Report
from policylang.pipeline import Text
from policylang.provision import controller, shipping, wire
from policylang.provision.controller import Compiled, Wanted
from policylang.provision.messages import Answer, Brought, Cargo, Job, Rehearsed
from tests.kernel.ground import Loader, Namespace

T = TypeVar("T")

PYTHON = "/usr/bin/python3"
LIBRARY = Path("/usr/lib/python3/dist-packages/nftables")


def unpacked(folder: Path) -> Path:
    """The archive, unpacked in a folder."""
    with zipfile.ZipFile(io.BytesIO(shipping.archive())) as packed:
        packed.extractall(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Target:
    """A namespace in which jobs are done as on a machine of its own."""

    namespace: Namespace
    archive: Path
    loader: Loader
    folder: Path

    def answer(self, job: Job) -> Answer:
        """What becomes of a job; raises `CommandError` with what was said where it breaks."""
        script = "\n".join((*self._hiding(), 'exec "$@"'))
        argv = ["unshare", "--mount", "sh", "-euc", script, "sh", PYTHON, "-I", str(self.archive)]
        env = {
            "POLICYLANG_STATE": str(self.folder / "state"),
            "XTABLES_LOCKFILE": str(self.folder / "lock"),
        }
        done = self.namespace.run(argv, 60, stdin=wire.written(job), env=env)
        found: Answer = wire.read(Answer, done.stdout)
        return found

    def does(self, job: Job, kind: type[T]) -> T:
        """What a job that succeeds finds."""
        answer = self.answer(job)
        assert isinstance(answer.found, kind), answer.diagnostics
        return answer.found

    def _hiding(self) -> Iterator[str]:
        """Commands that hide what machines without libnftables, or without nft, do not have."""
        (self.folder / "empty").mkdir(exist_ok=True)
        if LIBRARY.exists():
            yield f"mount --bind {self.folder / 'empty'} {LIBRARY}"
        program = shutil.which("nft")
        if self.loader is not Loader.NFT and program is not None:
            yield f"mount --bind /dev/null {program}"

    # --- a whole apply ------------------------------------------------------------------------

    def wanted(self, text: str, **parameters: str) -> Wanted:
        """A policy for this target."""
        return Wanted(Text(text, "test.policy", self.folder), self.loader.target, parameters)

    def compiled(self, text: str, **parameters: str) -> tuple[Compiled, Cargo]:
        """A policy as it travels to this target."""
        report = Report()
        wanted = self.wanted(text, **parameters)
        one = controller.compiled(wanted, report)
        assert one is not None, report.diagnostics
        flavour = None if self.loader.flavour is None else self.loader.flavour.value
        return one, controller.cargo(one, wanted, flavour, "a test")

    def rehearsed(self, text: str, *, wants_past: bool = False) -> Rehearsed:
        """What the target tells of a policy, which it is proved to do."""
        one, cargo = self.compiled(text)
        found = self.does(controller.rehearse(one, cargo, wants_past=wants_past), Rehearsed)
        report = Report()
        assert controller.is_proved(one, found, report), report.diagnostics
        return found

    def applied(self, text: str, confirm_s: int | None = None) -> Brought:
        """A policy that is put in force."""
        found = self.rehearsed(text)
        _, cargo = self.compiled(text)
        return self.does(controller.load(cargo, found, confirm_s), Brought)
