"""Makes a policy small: what can be left out without curing what is wrong is left out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from tests.differential.campaign import (
    Discrepancy,
    Failure,
    Range,
    Tally,
    run_policy,
    verdicts_of,
)
from tests.differential.compiling import RefusedError, compiled

PATIENCE_S = 60.0
# What begins a part of a statement that can be left out.
OPTIONAL = (
    *(
        "except",
        "in",
        "with",
        "log",
        "name",
        "helper",
        "data",
        "also",
        "add",
        "limit",
        "over",
        "max",
    ),
    *("user", "group", "mac", "source", "during", "until", "mark", "dscp", "size", "ipv4", "ipv6"),
    *("ipsec", "timeout", "per", "burst"),
)


def shrunk(ground: Range, found: Discrepancy) -> Discrepancy:
    """The same probe with a small policy, by statements and list elements, that shows it."""
    text = _smallest(found.policy, lambda text: _again(ground, found, text) is not None)
    return _again(ground, found, text) or found


def shrunk_failure(ground: Range, found: Failure) -> Failure:
    """The same failure with a small policy."""
    targets = ground.targets if found.way is None else {found.way: ground.targets[found.way]}
    small = replace(ground, targets=targets)

    def again(text: str) -> Failure | None:
        tally = Tally()
        run_policy(small, text, found.seed, 1, tally)
        return next((f for f in tally.failures if f.kind == found.kind), None)

    text = _smallest(found.policy, lambda text: again(text) is not None)
    return again(text) or found


def _smallest(text: str, is_wrong: Callable[[str], bool]) -> str:
    """A text of which nothing more can be left out, or as small a one as there is time for."""
    give_up = time.monotonic() + PATIENCE_S
    before = None
    while text != before:
        before = text
        for shorter in (_without_lines, _without_words):
            position = 0
            while position < len(candidates := list(shorter(text))):
                if time.monotonic() > give_up:
                    return text
                if is_wrong(candidates[position]):
                    text = candidates[position]  # and the next one has taken its position
                else:
                    position += 1
    return text


def _again(ground: Range, found: Discrepancy, text: str) -> Discrepancy | None:
    """The discrepancy as another policy shows it, or None where that does not."""
    try:
        result = compiled(text, [found.way.target])
    except RefusedError:
        return None
    declared = {held.name for held in result.policy.dynamic_sets}
    members = {name: m for name, m in found.volley.members.items() if name in declared}
    volley = replace(found.volley, probes=[found.probe], members=members)
    packets = ground.packets(volley)
    if not packets or declared != set(members):
        return None
    verdicts = verdicts_of(result.policy, packets, volley)
    artifact = result.artifacts[found.way.target]
    wrong = ground.wrong_ones(found.way, artifact, volley, packets, verdicts)
    if not wrong:
        return None
    return replace(found, policy=text, packet=packets[1], verdict=verdicts[1], fate=wrong[1])


def _without_lines(text: str) -> Iterator[str]:
    """Texts with some lines left out: a quarter of them, a statement, or a block around some."""
    lines = text.splitlines()
    quarter = max(1, len(lines) // 4)
    pieces = [range(n, n + quarter) for n in range(0, len(lines), quarter)] if quarter > 2 else []
    pieces += [_statement(lines, start) for start in range(len(lines))]
    for piece in pieces:
        if piece:
            yield _joined(line for n, line in enumerate(lines) if n not in piece)
    for number, line in enumerate(lines):
        if line.endswith("{"):
            block = _statement(lines, number)
            inner = lines[number + 1 : block.stop - 1]
            yield _joined((*lines[:number], *inner, *lines[block.stop :]))


def _without_words(text: str) -> Iterator[str]:
    """Texts with an element of a list, an exception or an option left out of a line."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        for simpler in _simpler(line):
            yield _joined((*lines[:number], simpler, *lines[number + 1 :]))


def _joined(lines: Iterator[str] | Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _statement(lines: Sequence[str], start: int) -> range:
    """The lines of the statement that begins on a line; none where a block only ends there."""
    depth = 0
    for number in range(start, len(lines)):
        depth += lines[number].count("{") - lines[number].count("}")
        if depth <= 0:
            return range(start, number + 1) if depth == 0 else range(0)
    return range(0)


def _simpler(line: str) -> Iterator[str]:
    """The line with an element of a list, an exception or an option left out."""
    words = line.split(" ")
    listed = [n for n, word in enumerate(words) if word.endswith(",")]
    if len(listed) > 8:
        middle = listed[len(listed) // 2]
        yield " ".join((*words[: listed[0]], *words[middle + 1 :]))
        yield " ".join((*words[:middle], words[middle].rstrip(","), *words[listed[-1] + 2 :]))
    for number, word in enumerate(words):
        if word.endswith(","):
            yield " ".join((*words[:number], *words[number + 1 :]))
            if number + 1 < len(words):
                kept = word.removesuffix(",")
                yield " ".join((*words[:number], kept, *words[number + 2 :]))
        if word in OPTIONAL:
            for end in range(len(words), number + 1, -1):
                yield " ".join((*words[:number], *words[end:]))
