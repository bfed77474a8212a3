"""The conditions of a rule, resolved and checked; knows neither places nor what becomes of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import date

from policylang.diagnostics import Label, Report, did_you_mean
from policylang.model.elements import MAC, Elements, mac_number
from policylang.model.options import Options, plain_text
from policylang.model.types import (
    Conditions,
    Connections,
    Hours,
    Limit,
    Mark,
    Owners,
    Until,
)
from policylang.packets.fields import UNIVERSE, Field
from policylang.packets.values import Range, Ranges
from policylang.source import Span
from policylang.syntax import tree

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_S = 86_400
WEEK_S = len(DAYS) * DAY_S
FIRST_YEAR = 1970
WEEK = Ranges.between(0, WEEK_S - 1)

MOST_CONNECTIONS = 1_000_000
MARK_MAX = (1 << 32) - 1
ID_MAX = (1 << 32) - 2  # the last one means "no user" (chown(2))

# RFC 2474, RFC 2597, RFC 3246, RFC 5865, RFC 8622.
DSCP_NAMES = {
    "be": 0,
    "le": 1,
    **{f"cs{n}": n * 8 for n in range(8)},
    **{f"af{c}{d}": c * 8 + d * 2 for c in range(1, 5) for d in range(1, 4)},
    "va": 44,
    "ef": 46,
}

MOST_CGROUP_PATH = 511  # XT_CGROUP_PATH_LEN, less the NUL behind it

# useradd(8), with capitals and dots, which many directories have.
_OWNER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


@dataclass(slots=True)
class ConditionsReader:
    """Resolves the conditions of rules."""

    elements: Elements
    options: Options
    report: Report
    is_local_time: bool

    def read(self, nodes: tuple[tree.Condition, ...]) -> Conditions:
        """What the conditions of a rule say; reports what is wrong with each, and doubled ones."""
        conditions = Conditions()
        first: dict[str, Span] = {}
        for node in nodes:
            word = _word(node)
            if word in first:
                self.report.add(
                    "duplicate-condition",
                    f"`{word}` is given twice",
                    node.span,
                    help=_TWICE.get(type(node), "several values of one condition stand in a list"),
                    labels=(Label(first[word], "the first is here"),),
                )
                continue
            first[word] = node.span
            conditions = self._with(conditions, node)
        return conditions

    def _with(self, so_far: Conditions, node: tree.Condition) -> Conditions:
        match node:
            case tree.LimitCondition():
                limit = Limit(self.options.rate(node.rate), node.over is not None)
                return replace(so_far, limit=limit)
            case tree.ConnectionsCondition():
                return replace(so_far, connections=self._connections(node))
            case tree.OwnerCondition(kind="user"):
                return replace(so_far, users=self._owners(node))
            case tree.OwnerCondition():
                return replace(so_far, groups=self._owners(node))
            case tree.CgroupCondition():
                return replace(so_far, cgroup=self._cgroup(node.path))
            case tree.MacCondition():
                return replace(so_far, macs=self._macs(node))
            case tree.SourcePortCondition():
                ports = self.elements.ports(node.elements, node.exceptions)
                return replace(so_far, source_ports=ports)
            case tree.DuringCondition():
                return replace(so_far, hours=Hours(self._week(node), self._is_local(node)))
            case tree.UntilCondition():
                until = self._until(node)
                return so_far if until is None else replace(so_far, until=until)
            case tree.MarkCondition():
                return replace(so_far, mark=self.mark(node.mark))
            case tree.DscpCondition():
                return replace(so_far, dscp=self._dscp(node))
            case tree.SizeCondition():
                return replace(so_far, sizes=self._sizes(node))
            case tree.FamilyCondition():
                return replace(so_far, families=Ranges.of({"ipv4": 4, "ipv6": 6}[node.family]))
            case tree.IpsecCondition():
                return replace(so_far, ipsec=node.sign is None)

    # --- one condition ------------------------------------------------------------------------

    def _connections(self, node: tree.ConnectionsCondition) -> Connections:
        count = node.count.value
        if not 1 <= count <= MOST_CONNECTIONS:
            self.report.add(
                "bad-count",
                f"a number of connections is from 1 to {MOST_CONNECTIONS}, not `{count}`",
                node.count.span,
                help="to let nothing through, `deny` it" if count == 0 else None,
            )
        per = None if node.per is None else self.options.per(node.per)
        return Connections(count, node.bound == "over", per)

    def _owners(self, node: tree.OwnerCondition) -> Owners:
        pairs: list[Range] = []
        names: list[str] = []
        for owner in node.owners:
            if isinstance(owner, tree.Name):
                if _OWNER.fullmatch(owner.text) is None:
                    self.report.add(
                        "bad-owner",
                        f"`{owner.text}` cannot be the name of a {node.kind}",
                        owner.span,
                        help="letters, digits, `_`, `-` and dots, at most 32; or write the number",
                    )
                names.append(owner.text)
            elif (pair := self._pair(owner, "bad-owner", f"a {node.kind} id", ID_MAX)) is not None:
                pairs.append(pair)
        return Owners(Ranges.merged(pairs), tuple(sorted(set(names))))

    def _pair(
        self, node: tree.Number | tree.NumberRange, code: str, what: str, most: int
    ) -> Range | None:
        """A number or a range up to `most`; reports `code` and `bad-range`."""
        low, high = (
            (node.value, node.value) if isinstance(node, tree.Number) else (node.low, node.high)
        )
        if low > high:
            self.report.add(
                "bad-range",
                f"the range `{low}-{high}` ends before it starts",
                node.span,
                help=f"write `{high}-{low}`",
            )
            return None
        if high > most:
            bad = low if low > most else high
            self.report.add(code, f"`{bad}` is not {what}", node.span, help=f"they end at {most}")
            return None
        return low, high

    def _cgroup(self, node: tree.Text) -> str:
        path = plain_text(self.report, node, but="$*?[]{};").strip("/")
        parts = path.split("/")
        if len(path) > MOST_CGROUP_PATH:
            self.report.add(
                "bad-cgroup",
                f"the path of a control group has at most {MOST_CGROUP_PATH} bytes, not "
                f"`{len(path)}`",
                node.span,
            )
        elif not path or any(part in ("", ".", "..") for part in parts):
            self.report.add(
                "bad-cgroup",
                f"`{node.text}` is not the path of a control group",
                node.span,
                help='a path below /sys/fs/cgroup: `cgroup "system.slice/nginx.service"`',
            )
        return path

    def _macs(self, node: tree.MacCondition) -> Ranges:
        pairs: list[Range] = []
        for element in node.addresses:
            if isinstance(element, tree.MacAddress):
                number = mac_number(element.text)
                pairs.append((number, number))
            else:
                pairs.extend(self.elements.set_of(element, MAC, "set of MAC addresses"))
        return Ranges.merged(pairs)

    def _is_local(self, node: tree.DuringCondition) -> bool:
        if self.is_local_time:
            self.report.add(
                "local-time",
                "this is the local time of the machine that loads the rules, and moves when "
                "daylight saving time starts or ends",
                node.span,
                help="load the policy again after each change, or write the time in UTC",
            )
        return self.is_local_time

    def _week(self, node: tree.DuringCondition) -> Ranges:
        days = self._days(node.days) if node.days else tuple(range(len(DAYS)))
        windows = [w for text in node.windows if (w := self._window(text)) is not None]
        if not node.windows:
            windows = [(0, DAY_S)]
        pairs: list[Range] = []
        for day in days:
            for start, end in windows:
                low, high = day * DAY_S + start, day * DAY_S + end - 1
                if end <= start:  # past midnight, into the next day
                    high += DAY_S
                pairs.append((low, min(high, WEEK_S - 1)))
                if high >= WEEK_S:
                    pairs.append((0, high - WEEK_S))
        return Ranges.merged(pairs)

    def _window(self, node: tree.TimeWindow) -> tuple[int, int] | None:
        """The start and the end of a window, in seconds of the day; the end may be DAY_S."""
        seconds: list[int] = []
        for part in node.text.split("-"):
            hour, minute = map(int, part.split(":"))
            seconds.append(hour * 3600 + minute * 60)
            if minute > 59 or hour > 24 or seconds[-1] > DAY_S or (hour == 24 and len(seconds) < 2):
                self.report.add(
                    "bad-time",
                    f"`{part}` is not a time of the day",
                    node.span,
                    help="from 00:00 to 23:59, and 24:00 as an end",
                )
                return None
        start, end = seconds
        if start == end:
            self.report.add(
                "bad-time",
                f"`{node.text}` is no time at all",
                node.span,
                help="the whole day is 00:00-24:00",
            )
            return None
        return start, end

    def _days(self, nodes: tuple[tree.Name, ...]) -> tuple[int, ...]:
        days: set[int] = set()
        for node in nodes:
            first, _, last = node.text.lower().partition("-")
            try:
                low, high = DAYS.index(first), DAYS.index(last or first)
            except ValueError:
                self.report.add(
                    "bad-day",
                    f"`{node.text}` is no day of the week",
                    node.span,
                    help=did_you_mean(node.text.lower(), DAYS)
                    or "the days are " + ", ".join(DAYS) + ", and ranges such as mon-fri",
                )
                continue
            span = (high - low) % len(DAYS) + 1
            days.update((low + n) % len(DAYS) for n in range(span))
        return tuple(sorted(days))

    def _until(self, node: tree.UntilCondition) -> Until | None:
        try:
            last_day = date.fromisoformat(node.date.text)
        except ValueError:
            self.report.add(
                "bad-date",
                f"`{node.date.text}` is not a day",
                node.date.span,
                help="a date is year, month and day: 2027-01-31",
            )
            return None
        if last_day.year < FIRST_YEAR:
            self.report.add(
                "bad-date",
                f"`{node.date.text}` is before the first day that the kernel knows",
                node.date.span,
                help="its clock starts in 1970",
            )
        return Until(last_day, self.is_local_time)

    def mark(self, node: tree.Masked | tree.Number) -> Mark:
        """A mark and its mask, all 32 bits where none is written; reports `bad-mark`."""
        if isinstance(node, tree.Number):
            value, mask = node.value, MARK_MAX
        else:
            value, mask = (int(part, 0) for part in map(_plain_number, node.text.split("/")))
        if value > MARK_MAX or mask > MARK_MAX:
            self.report.add(
                "bad-mark",
                f"`{value if value > MARK_MAX else mask:#x}` has more than the 32 bits of a mark",
                node.span,
            )
        elif value & ~mask:
            self.report.add(
                "bad-mark",
                f"`{value:#x}` has bits outside of its mask `{mask:#x}`, so no packet has it",
                node.span,
                help=f"`{value & mask:#x}/{mask:#x}` is meant, or another mask",
            )
        elif not mask:
            self.report.add(
                "bad-mark",
                "a mask of 0 looks at nothing, so every packet has such a mark",
                node.span,
                help="leave the condition out",
            )
        return Mark(value, mask)

    def code_point(self, node: tree.Name | tree.Number) -> int | None:
        """The number of a DSCP code point; reports `bad-dscp`."""
        pair = self._code_points(node)
        return None if pair is None else pair[0]

    def _dscp(self, node: tree.DscpCondition) -> Ranges:
        found = (self._code_points(value) for value in node.values)
        return Ranges.merged(pair for pair in found if pair is not None)

    def _code_points(self, node: tree.Name | tree.NumberRange | tree.Number) -> Range | None:
        if not isinstance(node, tree.Name):
            return self._pair(node, "bad-dscp", "a code point", UNIVERSE[Field.DSCP].pairs[0][1])
        number = DSCP_NAMES.get(node.text.lower())
        if number is None:
            self.report.add(
                "bad-dscp",
                f"no DSCP code point named `{node.text}`",
                node.span,
                help=did_you_mean(node.text.lower(), DSCP_NAMES)
                or "the names are " + ", ".join(DSCP_NAMES),
            )
            return None
        return number, number

    def _sizes(self, node: tree.SizeCondition) -> Ranges:
        most = UNIVERSE[Field.SIZE].pairs[0][1]
        found = (self._pair(v, "bad-size", "the size of a packet", most) for v in node.values)
        return Ranges.merged(pair for pair in found if pair is not None)


# How to say what two conditions of a kind were meant to say.
_TWICE: dict[type[tree.Condition], str] = {
    tree.FamilyCondition: "a rule without it holds for both families",
    tree.IpsecCondition: "a rule without it holds for both",
    tree.LimitCondition: "the second is a rule of its own",
    tree.ConnectionsCondition: "the second is a rule of its own",
    tree.CgroupCondition: "the second is a rule of its own",
    tree.UntilCondition: "the earlier of two days is enough",
    tree.MarkCondition: "the second is a rule of its own",
}


def _plain_number(text: str) -> str:
    """The number as Python reads it: leading zeros mean nothing here."""
    return text if text[:2] in ("0x", "0X") else str(int(text))


def _word(node: tree.Condition) -> str:
    """What a condition is called: a rule has at most one of each."""
    match node:
        case tree.OwnerCondition(kind=word):
            return word
        case tree.ConnectionsCondition():
            return "max` or `over"
        case tree.FamilyCondition():
            return "ipv4` or `ipv6"
        case tree.IpsecCondition():
            return "ipsec"
        case tree.SourcePortCondition():
            return "source port"
        case _:
            return type(node).__name__.removesuffix("Condition").lower()
