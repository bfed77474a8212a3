"""Why a rule exists and which statement asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from policylang.source import Span


class Why(StrEnum):
    """The reasons for which a rule exists; all but the first are read by people as they stand."""

    WRITTEN = "written"
    DEFAULT = "default"
    LOOPBACK = "loopback"
    IMPLIED_REPLY = "implied reply"
    ICMP_ERROR = "icmp error about a connection"
    REJECT_ANSWER = "reset of a rejected connection"
    HELPER_ASSIGNMENT = "helper assignment"
    HELPER_EXPECTATION = "helper expectation"
    ANSWER = "answer to a question"
    ESSENTIAL = "essential"
    PROTECTION = "protection"
    INVALID = "invalid"
    DISPATCH = "dispatch"


@dataclass(frozen=True, slots=True)
class Origin:
    """A statement and why it made a rule; `span` None where the language itself did.

    `name` is the rule's own (`name "TEXT"`), `service` the service or group member that the
    rule stands for. Takes no part in equality wherever it is stored.
    """

    why: Why
    span: Span | None = field(default=None, compare=False)
    name: str | None = None
    service: str | None = None

    @property
    def text(self) -> str:
        """`file:line statement`, or the reason where no statement asked for it."""
        if self.span is None:
            return self.why.value
        what = f"{self.name}: {self.span.text}" if self.name else self.span.text
        if self.why in (Why.WRITTEN, Why.DEFAULT, Why.PROTECTION):
            return f"{self.span.place} {what}"
        return f"{self.span.place} {self.why.value}: {what}"


def describe(origins: tuple[Origin, ...]) -> str:
    """One line for the comment of a rule that came from these statements."""
    texts = list(dict.fromkeys(origin.text for origin in origins))
    if not texts:
        return ""
    if len(texts) == 1:
        return texts[0]
    return f"{texts[0]} and {len(texts) - 1} more"


def joined(*groups: tuple[Origin, ...]) -> tuple[Origin, ...]:
    """The origins of rules that become one, each once, in order."""
    seen: dict[tuple[Why, str, int, str | None], Origin] = {}
    for group in groups:
        for origin in group:
            span = origin.span
            place = ("", -1) if span is None else (span.file.name, span.start)
            seen.setdefault((origin.why, *place, origin.service), origin)
    return tuple(seen.values())
