"""The policy of a generation as it was written, from the texts that were kept with it.

Texts without a rule of their own and lists were not kept: what names those has errors. It knows
nothing of what the policy is read for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from policylang import pipeline
from policylang.diagnostics import Report

if TYPE_CHECKING:
    from policylang.apply.record import Kept, Record
    from policylang.ir.ruleset import Ruleset
    from policylang.source import SourceFile


@contextmanager
def laid_out(files: Sequence[SourceFile]) -> Iterator[Path | None]:
    """Where the policy, the first of its texts, is while the context lasts; None without any."""
    with TemporaryDirectory(prefix="policylang-") as folder:
        for file in files:
            path = Path(folder, file.name)
            if ".." in path.parts or not path.is_relative_to(folder):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, encoding="utf-8")
        first = Path(folder, files[0].name) if files else None
        yield first if first is not None and first.exists() else None


def ruleset_of(record: Record, kept: Kept, report: Report) -> Ruleset | None:
    """The rules of a generation; None where its texts do not become what was loaded.

    Reports what keeps the record from being read.
    """
    sources = record.sources(kept.number, report)
    artifact = record.artifact(kept.number, report)
    if sources is None or artifact is None:
        return None
    own = Report()
    with laid_out(sources) as path:
        if path is None:
            return None
        source = pipeline.OfHost(path, kept.host or None)
        ruleset = pipeline.ruleset_of(source, own, parameters=dict(kept.parameters))
    again = None if ruleset is None else pipeline.artifact_of(ruleset, kept.target, own)
    if again is None:
        return None
    texts = [{file.name: file.text for file in one.files} for one in (artifact, again)]
    return ruleset if texts[0] == texts[1] else None
