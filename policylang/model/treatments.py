"""Which function resolves which of the statements that translate or treat packets."""

from __future__ import annotations

from typing import assert_never

from policylang.model.statement_reader import StatementReader
from policylang.model.translating import (
    netmap,
    port_forward,
    redirect,
    source_translation,
    transparent_proxying,
)
from policylang.model.translations import Treatment
from policylang.model.treating import clamp, marking, offloading, queueing, untracked
from policylang.syntax import tree


def treatment(node: tree.TreatmentNode, reader: StatementReader) -> Treatment | None:
    """What a statement means, or None where there are errors in it, as reported."""
    match node:
        case tree.MasqueradeNode() | tree.SnatNode():
            return source_translation(node, reader)
        case tree.DnatNode():
            return port_forward(node, reader)
        case tree.RedirectNode():
            return redirect(node, reader)
        case tree.TproxyNode():
            return transparent_proxying(node, reader)
        case tree.NetmapNode():
            return netmap(node, reader)
        case tree.ClampNode():
            return clamp(node, reader)
        case tree.MarkNode():
            return marking(node, reader)
        case tree.UntrackedNode():
            return untracked(node, reader)
        case tree.OffloadNode():
            return offloading(node, reader)
        case tree.QueueNode():
            return queueing(node, reader)
        case _:
            assert_never(node)
