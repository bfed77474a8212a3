"""Tightening: the open connections that new rules would not let begin any more, and their end.

For each connection its first packet is put together again, as the filter would meet it, and asked
what may become of it. What is not known of that packet (the interface behind ambiguous routes,
rates, times, members of dynamic sets) may be anything: a connection is ended where no packet
could open it, and stays where some packet may.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path as File

from policylang.apply import conntrack, routing
from policylang.apply.conntrack import Connection, Expectation, FlowTuple
from policylang.apply.judging import Judge
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.packets.fields import (
    DCCP,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
)
from policylang.packets.values import V6_BASE, format_address

PORTED = {TCP: "tcp", UDP: "udp", DCCP: "dccp", SCTP: "sctp"}
OTHERS = {ICMP: "icmp", ICMPV6: "icmpv6", 47: "gre", 50: "esp", 51: "ah", 2: "igmp"}

# Conntrack takes up TCP connections in their midst unless told not to
# (Documentation/networking/nf_conntrack-sysctl.rst).
PICK_UP = File("/proc/sys/net/netfilter/nf_conntrack_tcp_loose")
PICK_UP_NAME = "net.netfilter.nf_conntrack_tcp_loose"


@dataclass(frozen=True, slots=True)
class Flow:
    """An open connection, or one that a helper expects, that the new rules do not let begin.

    `interfaces` are those by which its client's packets come or leave, where they are known.
    With `may_return` the rules let packets of its other end begin a connection, so that it
    would live on if conntrack took it up again in its midst.
    """

    entry: Connection | Expectation
    interfaces: frozenset[str] | None = None
    may_return: bool = False

    @property
    def text(self) -> str:
        """As in `tcp 192.0.2.2:40112 -> 192.0.2.1:22 (wan0)`."""
        where = f" ({', '.join(sorted(self.interfaces))})" if self.interfaces else ""
        if isinstance(self.entry, Expectation):
            helper = f" by {self.entry.helper}" if self.entry.helper else ""
            return f"{_ends(self.entry.first, self.entry.mask)}, expected{helper}{where}"
        sent_to = ""
        original, reply = self.entry.original, self.entry.reply
        if self.entry.is_sent_elsewhere:
            sent_to = f", sent to {_end(reply.source, reply.source_port)}"
        return f"{_ends(original)}{sent_to}{where}"


def to_cut(ruleset: Ruleset, report: Report, *, target: str | None = None) -> tuple[Flow, ...]:
    """The connections in this thread's namespace that no packet could open under a ruleset.

    Lines of a target's own count where they are those of `target`. Reports `flows-unknown`,
    where the kernel does not tell what is open.
    """
    try:
        open_now = tuple(conntrack.connections())
        expected = tuple(conntrack.expectations())
        if not open_now and not expected:
            return ()
        judge = Judge(ruleset, routing.read(), target)
        judge.ask_for_ways(open_now)
        return tuple(_condemned(judge, open_now, expected))
    except OSError as error:
        report.add(
            "flows-unknown",
            f"cannot read what connections are open: {_reason(error)}",
            None,
            help="the connections that the policy no longer allows stay open",
        )
        return ()


def cut(flows: Iterable[Flow], report: Report) -> int:
    """End connections, and no others that took their place; how many were still there.

    Where one could come back in its midst, from its other end, `stop_pick_up` comes first.
    Reports `flows-not-cut`.
    """
    doomed = tuple(flows)
    stop_pick_up(doomed, report)
    if not doomed:
        return 0
    try:
        ended = conntrack.end([flow.entry for flow in doomed])
    except OSError as error:
        _not_cut("open connections", error, report)
        return 0
    for number, count in ended.refused.items():
        which = f"{count} open connection{'' if count == 1 else 's'}"
        _not_cut(which, OSError(number, os.strerror(number)), report)
    return ended.count


def stop_pick_up(flows: Iterable[Flow], report: Report) -> tuple[str, ...]:
    """Let conntrack take up no TCP in its midst, where a flow could come back so; in words.

    The setting is the namespace's and holds until it is changed or the machine starts again.
    Reports `flows-not-cut` where it cannot be written.
    """
    if not any(flow.may_return for flow in flows):
        return ()
    try:
        if PICK_UP.read_text().strip() == "0":
            return ()
        PICK_UP.write_text("0\n")
    except OSError as error:
        report.add(
            "flows-not-cut",
            f"connections that are cut may come back: {_reason(error)}",
            None,
            help=f"set `{PICK_UP_NAME}` to 0 where it can be written (for a container: from"
            " outside)",
        )
        return ()
    return (f"switched off `{PICK_UP_NAME}`",)


def _not_cut(which: str, error: OSError, report: Report) -> None:
    report.add(
        "flows-not-cut",
        f"cannot end {which}: {_reason(error)}",
        None,
        help="`conntrack -L` lists them, `conntrack -D` ends them",
    )


def _reason(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]


def _condemned(
    judge: Judge, open_now: tuple[Connection, ...], expected: tuple[Expectation, ...]
) -> Iterator[Flow]:
    """What may not go on, masters before what they brought about."""
    wanted = {one.master for one in open_now if one.master is not None}
    wanted |= {one.master for one in expected}
    known = {one.original: one for one in open_now if one.original in wanted} if wanted else {}
    doomed: dict[int, bool] = {}

    def is_doomed(one: Connection) -> bool:
        if id(one) not in doomed:
            doomed[id(one)] = False  # what comes back to itself is judged by itself
            master = None if one.master is None else known.get(one.master)
            goes_down = master is not None and is_doomed(master)
            doomed[id(one)] = goes_down or not judge.may_begin(one, master)
        return doomed[id(one)]

    ended = [one for one in open_now if is_doomed(one)]
    judge.routes.ask(judge.client_end(one) for one in ended)
    for one in ended:
        yield Flow(one, judge.routes.interfaces(judge.client_end(one)), judge.may_return(one))
    for prediction in expected:
        master = known.get(prediction.master)
        goes_down = master is not None and is_doomed(master)
        if goes_down or not judge.may_come(prediction, master):
            yield Flow(prediction)


def _ends(first: FlowTuple, mask: FlowTuple | None = None) -> str:
    protocol = PORTED.get(first.protocol) or OTHERS.get(first.protocol, str(first.protocol))
    kind = "" if first.icmp_type is None else f" type {first.icmp_type}"
    source = _end(first.source, first.source_port)
    if mask is not None:
        address = "any" if not mask.source % V6_BASE else format_address(first.source)
        source = address if not mask.source_port else source
    return f"{protocol}{kind} {source} -> {_end(first.destination, first.destination_port)}"


def _end(address: int, port: int | None) -> str:
    text = format_address(address)
    if port is None:
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
