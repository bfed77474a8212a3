"""Translations and other treatment of packets, resolved and checked; knows not what they become."""

from __future__ import annotations

from dataclasses import dataclass

from policylang.model.translating import TranslationReader
from policylang.model.translations import (
    Clamp,
    Marking,
    Offloading,
    Queueing,
    Treatment,
    Untracked,
)
from policylang.model.types import (
    End,
    EndList,
    IpsecEnd,
    SelfEnd,
)
from policylang.packets.values import name_pattern
from policylang.syntax import tree

QUEUE_MAX = 0xFFFF  # NFQNL_QUEUE_NUM, 16 bits
MSS_BOUNDS = (88, 65495)  # 128 bytes of IPv4 less both headers; the longest IPv4 packet less them


# What is known of packets that go one way, and not of their answers.
_OF_ONE_WAY = (
    *(tree.OwnerCondition, tree.CgroupCondition, tree.MacCondition, tree.IpsecCondition),
    *(tree.MarkCondition, tree.DscpCondition, tree.SizeCondition),
)


@dataclass(frozen=True, slots=True)
class Treatments(TranslationReader):
    """Resolves the statements that translate or treat packets."""

    def of(self, node: tree.TreatmentNode) -> Treatment | None:
        """What a statement means; None where its ends are unsaid, as reported."""
        match node:
            case tree.MasqueradeNode() | tree.SnatNode():
                return self._source_translation(node)
            case tree.DnatNode():
                return self._forward(node)
            case tree.RedirectNode():
                return self._redirect(node)
            case tree.TproxyNode():
                return self._proxying(node)
            case tree.NetmapNode():
                return self._netmap(node)
            case tree.ClampNode():
                return self._clamp(node)
            case tree.MarkNode():
                return self._marking(node)
            case tree.UntrackedNode():
                return self._untracked(node)
            case tree.OffloadNode():
                return self._offloading(node)
            case tree.QueueNode():
                return self._queueing(node)

    def _clamp(self, node: tree.ClampNode) -> Clamp | None:
        ends = self._ends(node, node.place)
        said = self._said(node)
        size = None if node.size is None else node.size.value
        low, high = MSS_BOUNDS
        if node.size is not None and not low <= node.size.value <= high:
            self.report.add(
                "bad-mss",
                f"a segment size is from {low} to {high}, not `{node.size.value}`",
                node.size.span,
            )
        for condition in node.conditions:
            if not isinstance(condition, (tree.FamilyCondition, tree.MarkCondition)):
                self.report.add(
                    "misplaced-condition",
                    "`clamp mss` holds in both directions, and this is known of one alone",
                    condition.span,
                    help="`ipv4`, `ipv6` and `mark` can stand here",
                )
        conditions = self.conditions.read(node.conditions)
        if ends is None:
            return None
        return Clamp(
            End(ends.source), End(ends.destination), size, conditions, said.name, node.span
        )

    def _marking(self, node: tree.MarkNode) -> Marking | None:
        what = self.rules.what(node.what)
        ends = self._ends(node, node.place)
        said = self._said(node)
        mark = None if node.mark is None else self.conditions.mark(node.mark)
        dscp = None if node.code is None else self.conditions.code_point(node.code)
        if node.code is not None and node.of_answers is not None:
            self.report.add(
                "misplaced-option",
                "`answers` is for marks: code points are set on the way there",
                node.of_answers.span,
                help="write a statement for the other direction",
            )
        if mark is not None and not mark.value and mark.mask and node.of_answers is not None:
            self.report.add(
                "bad-mark",
                "answers do not find a mark of 0: every connection starts with it",
                node.of_answers.span,
                help="choose a value that is not 0",
            )
        if ends is None:
            return None
        conditions = self._conditions(node, ends)
        return Marking(
            what,
            End(ends.source),
            End(ends.destination),
            mark,
            dscp,
            node.of_answers is not None,
            conditions,
            said.name,
            node.span,
        )

    def _untracked(self, node: tree.UntrackedNode) -> Untracked | None:
        what = self.rules.what(node.what)
        ends = self._ends(node, node.place)
        said = self._said(node)
        for condition in node.conditions:
            if isinstance(condition, _OF_ONE_WAY):
                self.report.add(
                    "misplaced-condition",
                    "conntrack leaves both directions alone, and this is known of one",
                    condition.span,
                    help="`source port`, `ipv4`, `ipv6`, `during` and `until` can stand here",
                )
        if ends is None:
            return None
        for one in ends.source:
            self._check_elements(
                node.place.source,
                one,
                lambda element: not isinstance(element, IpsecEnd),
                "machines or a zone: of what goes back into a tunnel nobody tells in time",
            )
        return Untracked(
            what,
            End(ends.source),
            End(ends.destination),
            self._conditions(node, ends),
            said.name,
            node.span,
        )

    def _offloading(self, node: tree.OffloadNode) -> Offloading | None:
        ends = self._ends(node, node.place)
        said = self._said(node)
        if ends is not None and (_is_self(ends.source) or _is_self(ends.destination)):
            self.report.add(
                "wrong-end",
                "what comes to this host or from it is not offloaded",
                node.place.span,
                help="name zones on both sides: `from lan to wan`",
            )
            return None
        for condition in node.conditions:
            if not isinstance(condition, tree.FamilyCondition):
                self.report.add(
                    "misplaced-condition",
                    "what is offloaded is told by its ends and family alone",
                    condition.span,
                )
        conditions = self.conditions.read(node.conditions)
        if ends is None:
            return None
        devices = self._devices(node.place)
        return Offloading(
            End(ends.source), End(ends.destination), devices, conditions, said.name, node.span
        )

    def _devices(self, place: tree.Place) -> tuple[str, ...]:
        """The interfaces of the zones between which connections are offloaded, sorted.

        Reports `no-device` where they are not all named.
        """
        names: set[str] = set()
        for node in (place.source, place.destination):
            for item in () if node is None else node.elements:
                declaration = (
                    self.rules.scope.find(item.element.text)
                    if isinstance(item.element, tree.Name)
                    else None
                )
                zone = (
                    self.elements.zone_value(declaration)
                    if isinstance(declaration, tree.ZoneDecl)
                    else None
                )
                interfaces = None if zone is None else zone.interfaces
                patterns = [name_pattern(low, high) or "*" for low, high in interfaces or ()]
                if not patterns or any(pattern.endswith("*") for pattern in patterns):
                    self.report.add(
                        "no-device",
                        f"`{item.span.text}` does not say by which interfaces",
                        item.span,
                        help="connections are offloaded between interfaces: name zones that have "
                        "some, without a `*`",
                    )
                names.update(patterns)
        return tuple(sorted(names))

    def _queueing(self, node: tree.QueueNode) -> Queueing | None:
        what = self.rules.what(node.what)
        ends = self._ends(node, node.place)
        said = self._said(node)
        queues = node.queues
        low, high = (
            (queues.low, queues.high)
            if isinstance(queues, tree.NumberRange)
            else (queues.value, queues.value)
        )
        if low > high:
            self.report.add(
                "bad-range",
                f"the range `{low}-{high}` ends before it starts",
                queues.span,
                help=f"write `{high}-{low}`",
            )
        elif high > QUEUE_MAX:
            self.report.add("bad-queue", f"queues are numbered from 0 to {QUEUE_MAX}", queues.span)
        if ends is None:
            return None
        return Queueing(
            what,
            End(ends.source),
            End(ends.destination),
            (low, high),
            node.may_bypass is not None,
            self._conditions(node, ends),
            said.name,
            node.span,
        )


def _is_self(end: tuple[EndList, ...]) -> bool:
    """Whether an end is this host and nothing else."""
    return any(one.elements and all(isinstance(e, SelfEnd) for e in one.elements) for one in end)
