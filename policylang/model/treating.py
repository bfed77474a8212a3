"""The statements that treat packets without translating them, resolved."""

from __future__ import annotations

from policylang.model.statement_reader import StatementReader
from policylang.model.translations import Clamp, Marking, Offloading, Queueing, Untracked
from policylang.model.types import End, IpsecEnd
from policylang.packets.values import name_pattern
from policylang.syntax import tree

QUEUE_MAX = 0xFFFF  # NFQNL_QUEUE_NUM, 16 bits
MSS_BOUNDS = (88, 65495)  # 128 bytes of IPv4 less both headers; the longest IPv4 packet less them

# What is known of packets that go one way, and not of their answers.
_OF_ONE_WAY = (
    *(tree.OwnerCondition, tree.CgroupCondition, tree.MacCondition, tree.IpsecCondition),
    *(tree.MarkCondition, tree.DscpCondition, tree.SizeCondition),
)

# Each function returns what its statement means, or None where an end is unsaid, as reported.


def clamp(node: tree.ClampNode, reader: StatementReader) -> Clamp | None:
    """Reports `missing-end`, `bad-mss`."""
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    low, high = MSS_BOUNDS
    if node.size is not None and not low <= node.size.value <= high:
        reader.report.add(
            "bad-mss",
            f"a segment size is from {low} to {high}, not `{node.size.value}`",
            node.size.span,
        )
    conditions = reader.conditions_of_both_ways(node)
    if ends is None:
        return None
    return Clamp(
        source=End(ends.source),
        destination=End(ends.destination),
        size=None if node.size is None else node.size.value,
        conditions=conditions,
        name=said.name,
        span=node.span,
    )


def marking(node: tree.MarkNode, reader: StatementReader) -> Marking | None:
    """Reports `missing-end`, `bad-mark`, `bad-dscp`."""
    what = reader.rules.what(node.what)
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    mark = None if node.mark is None else reader.conditions.mark(node.mark)
    dscp = None if node.code is None else reader.conditions.code_point(node.code)
    if node.code is not None and node.of_answers is not None:
        reader.report.add(
            "misplaced-option",
            "`answers` is for marks: code points are set on the way there",
            node.of_answers.span,
            help="write a statement for the other direction",
        )
    if mark is not None and not mark.value and mark.mask and node.of_answers is not None:
        reader.report.add(
            "bad-mark",
            "answers do not find a mark of 0: every connection starts with it",
            node.of_answers.span,
            help="choose a value that is not 0",
        )
    if ends is None:
        return None
    return Marking(
        what=what,
        source=End(ends.source),
        destination=End(ends.destination),
        mark=mark,
        dscp=dscp,
        of_answers=node.of_answers is not None,
        conditions=reader.conditions_on(node, ends),
        name=said.name,
        span=node.span,
    )


def untracked(node: tree.UntrackedNode, reader: StatementReader) -> Untracked | None:
    """Reports `missing-end`, `wrong-end`, `misplaced-condition`."""
    what = reader.rules.what(node.what)
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    reader.refuse_conditions(
        [condition for condition in node.conditions if isinstance(condition, _OF_ONE_WAY)],
        "conntrack leaves both directions alone, and this is known of one",
        "`source port`, `ipv4`, `ipv6`, `during` and `until` can stand here",
    )
    if ends is None:
        return None
    for one in ends.source:
        reader.check_elements(
            node.place.source,
            one,
            lambda element: not isinstance(element, IpsecEnd),
            "machines or a zone: of what goes back into a tunnel nobody tells in time",
        )
    return Untracked(
        what=what,
        source=End(ends.source),
        destination=End(ends.destination),
        conditions=reader.conditions_on(node, ends, _OF_ONE_WAY),
        name=said.name,
        span=node.span,
    )


def offloading(node: tree.OffloadNode, reader: StatementReader) -> Offloading | None:
    """Reports `missing-end`, `wrong-end`, `no-device`, `misplaced-condition`."""
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    if ends is not None and any(one.is_self for one in (*ends.source, *ends.destination)):
        reader.report.add(
            "wrong-end",
            "what comes to this host or from it is not offloaded",
            node.place.span,
            help="name zones on both sides: `from lan to wan`",
        )
        return None
    reader.refuse_conditions(
        [c for c in node.conditions if not isinstance(c, tree.FamilyCondition)],
        "what is offloaded is told by its ends and family alone",
        "`ipv4` and `ipv6` can stand here",
    )
    conditions = reader.conditions.read(node.conditions)
    if ends is None:
        return None
    return Offloading(
        source=End(ends.source),
        destination=End(ends.destination),
        devices=_devices(node.place, reader),
        conditions=conditions,
        name=said.name,
        span=node.span,
    )


def _devices(place: tree.Place, reader: StatementReader) -> tuple[str, ...]:
    """The interfaces of the zones between which connections are offloaded, sorted.

    Reports `no-device` where they are not all named.
    """
    names: set[str] = set()
    for node in (place.source, place.destination):
        for item in () if node is None else node.elements:
            interfaces = None
            if isinstance(item.element, tree.Name):
                declaration = reader.rules.scope.find(item.element.text)
                if declaration is None:
                    continue  # as reported
                if isinstance(declaration, tree.ZoneDecl):
                    interfaces = reader.elements.zone_value(declaration).interfaces
            patterns = [name_pattern(low, high) or "*" for low, high in interfaces or ()]
            if not patterns or any(pattern.endswith("*") for pattern in patterns):
                reader.report.add(
                    "no-device",
                    f"`{item.span.text}` does not say by which interfaces",
                    item.span,
                    help="connections are offloaded between interfaces: name zones that have "
                    "some, without a `*`",
                )
            names.update(patterns)
    return tuple(sorted(names))


def queueing(node: tree.QueueNode, reader: StatementReader) -> Queueing | None:
    """Reports `missing-end`, `bad-range`, `bad-queue`."""
    what = reader.rules.what(node.what)
    ends = reader.ends(node, node.place)
    said = reader.said(node)
    queues = node.queues
    low, high = (
        (queues.low, queues.high)
        if isinstance(queues, tree.NumberRange)
        else (queues.value, queues.value)
    )
    if low > high:
        reader.report.add(
            "bad-range",
            f"the range `{low}-{high}` ends before it starts",
            queues.span,
            help=f"write `{high}-{low}`",
        )
    elif high > QUEUE_MAX:
        reader.report.add("bad-queue", f"queues are numbered from 0 to {QUEUE_MAX}", queues.span)
    if ends is None:
        return None
    return Queueing(
        what=what,
        source=End(ends.source),
        destination=End(ends.destination),
        queues=(low, high),
        may_bypass=node.may_bypass is not None,
        conditions=reader.conditions_on(node, ends),
        name=said.name,
        span=node.span,
    )
