"""Why a conversation does not work, and what would have to be said for it to work."""

from __future__ import annotations

from collections.abc import Iterator

from policylang.analysis.conversation.story import PacketEvent, Story
from policylang.analysis.conversation.telling import announces
from policylang.analysis.conversation.tracking import Because
from policylang.analysis.reasons import statement_of
from policylang.ir.origin import Why
from policylang.packets.fields import State
from policylang.packets.values import format_address


def advice(story: Story, asked: str, helper: str | None) -> Iterator[str]:
    """Sentences on the packet that died.

    `asked` are the words of the question; `helper` is the conntrack helper that such a
    conversation needs, None where it needs none.
    """
    died = story.died
    if died is None:
        return
    because = died.carried.tracked.because
    first = story.packets[0]
    if _is_of_others(died):
        yield from _of_others(story, died, helper)
    elif because in (Because.OPENS, Because.AGAIN, Because.MIDDLE) and died.link != first.link:
        yield from _second(story, died, asked, helper)
    elif because in (Because.OPENS, Because.AGAIN, Because.MIDDLE, Because.NOT_TRACKED):
        yield from _first(died, asked)
    elif because in (Because.EXPECTED, Because.EXPECTED_AGAIN):
        yield from _expected(died)
    elif died.carried.tracked.state is State.INVALID:
        if died.wire.icmp_type is None:
            yield "INVALID packets are dropped: no conversation that goes as it should has any"
        else:
            yield "INVALID packets are dropped, unless a statement names their ICMP type"
    else:
        yield from _denied(died)


def _is_of_others(died: PacketEvent) -> bool:
    """Whether no policy has made the rules: what a policy would have to say helps nobody then."""
    return died.deciding is not None and died.deciding.base.stage is None


def _of_others(story: Story, died: PacketEvent, helper: str | None) -> Iterator[str]:
    because = died.carried.tracked.because
    if because is Because.EXPECTED:
        yield "it was expected, but no rule lets what is RELATED pass here"
    elif because is Because.OPENS and died.link != story.packets[0].link and helper is not None:
        watching = story.packets[0].carried.tracked.connection
        if watching is not None and watching.helper is None:
            yield (
                f"no helper reads along: so the {died.link} counts as NEW, and no rule lets it "
                "pass as such"
            )


def _first(died: PacketEvent, asked: str) -> Iterator[str]:
    if _decided_by_statement(died):
        yield from _denied(died)
        if _was_sent_elsewhere(died):
            yield f"a statement in front of it would let this through, if it allows {_ends(died)}"
        else:
            yield f"a statement in front of it would let this through: `allow {asked}`"
        return
    if _was_sent_elsewhere(died):
        yield f"no statement allows it: rules speak of where it is sent, here {_ends(died)}"
    else:
        yield f"no statement allows it: `allow {asked}` would"


def _was_sent_elsewhere(died: PacketEvent) -> bool:
    """Whether what was dialled is not what rules see; what `dnat` allows is told as dialled."""
    return died.carried.last.destination != died.wire.destination


def _ends(died: PacketEvent) -> str:
    """Between whom the packet is when rules see it."""
    seen = died.carried.last
    port = "" if seen.ports is None else f", port {seen.ports[1]}"
    return f"{format_address(seen.source)} to {format_address(seen.destination)}{port}"


def _second(story: Story, died: PacketEvent, asked: str, helper: str | None) -> Iterator[str]:
    """A further connection that nobody expected."""
    announced = [p for p in story.packets if p.passed and announces(p)]
    connection = story.packets[0].carried.tracked.connection
    watched = connection is not None and connection.helper is not None
    if announced and any(p.carried.reading.ignored for p in announced):
        yield f"the helper heard of it in packet {announced[-1].number}, and did not believe it"
        return
    if not watched and helper is not None:
        where = f" in packet {announced[-1].number}" if announced else ""
        yield (
            f"the {died.link} was announced{where}, but no helper reads along: so it counts as "
            "NEW, and no statement allows it as such"
        )
        yield (
            f"allow the service with its conntrack helper (`helper {helper}` behind its ports in "
            f"`service`), as the built-in service does"
        )
        return
    yield f"nothing announced the {died.link} to a helper, and no statement allows it as NEW"
    yield f"`allow {asked}` is about the first connection alone"


def _expected(died: PacketEvent) -> Iterator[str]:
    connection = died.carried.tracked.connection
    assert connection is not None and connection.master is not None
    helper = connection.master.helper
    if _decided_by_statement(died) and not _is_default(died):
        yield from _denied(died)
    yield f"it was expected, but no statement that asks for helper `{helper}` admits {_ends(died)}"
    yield (
        "what a helper expects passes between the ends of the statement, to its `data` ports, else "
        "32768-60999 on this host as the client and 1024-65535 elsewhere"
    )


def _denied(died: PacketEvent) -> Iterator[str]:
    origin = None if died.decider is None else statement_of(died.decider.line)
    if origin is not None and origin.span is not None:
        yield f"`{origin.span.text}` ({origin.span.place}) decides before any other statement"


def _decided_by_statement(died: PacketEvent) -> bool:
    return died.decider is not None and statement_of(died.decider.line) is not None


def _is_default(died: PacketEvent) -> bool:
    assert died.decider is not None
    return any(origin.why is Why.DEFAULT for origin in died.decider.line.origins)
