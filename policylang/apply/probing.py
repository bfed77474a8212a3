"""Finds the conntrack helpers that this kernel lacks, by trying each of them alone.

It changes rules of the namespace that it works in, which must be a scratch one.
"""

from __future__ import annotations

from collections.abc import Sequence

from policylang.apply import nft, restore
from policylang.apply.generation import InputLine
from policylang.apply.restore import Tool
from policylang.backends.iptables import RULES
from policylang.diagnostics import Label, Report
from policylang.ir.ruleset import NeededHelper, Needs
from policylang.packets.fields import TCP, UDP

PROTOCOLS = {TCP: "tcp", UDP: "udp"}
PROBE = "policylang-probe"
MOST_LABELS = 3


def report_missing(needs: Needs, tools: Sequence[Tool], report: Report) -> bool:
    """Whether the kernel lacks helpers; `tools` are those of iptables, none for nft.

    Reports `helper-missing` for each at the statements that ask for it. Where the kernel refuses
    what has no helper as well, nothing can be said of helpers.
    """
    if not needs.helpers or not _takes(None, tools):
        return False
    missing = [helper for helper in needs.helpers if not _takes(helper, tools)]
    for helper in missing:
        spans = tuple(dict.fromkeys(o.span for o in helper.origins if o.span is not None))
        protocol = PROTOCOLS[helper.protocol].upper()
        report.add(
            "helper-missing",
            f"this kernel has no conntrack helper `{helper.name}` for {protocol}, which this"
            " statement relies on",
            spans[0] if spans else None,
            help="it is a part of the kernel, or a module that was not built or cannot be loaded"
            " from here; `policylang explain helper-missing` says more",
            labels=[Label(span, "and this one with it") for span in spans[1 : 1 + MOST_LABELS]],
        )
    return bool(missing)


def _takes(helper: NeededHelper | None, tools: Sequence[Tool]) -> bool:
    """Whether the kernel takes an object, or a rule, with that helper; None: with none."""
    if not tools:
        return _nft_takes(helper)
    of_family = dict(zip(RULES, tools, strict=True))
    families = (4,) if helper is None else helper.families
    return all(_iptables_takes(helper, of_family[family]) for family in families)


def _nft_takes(helper: NeededHelper | None) -> bool:
    made = "" if helper is None else _object(helper)
    commands = (f"table inet {PROBE} {{ {made}\n}}", f"delete table inet {PROBE}")
    return nft.carry_out(commands, "", Report())


def _object(helper: NeededHelper) -> str:
    return f'ct helper probe {{ type "{helper.name}" protocol {PROTOCOLS[helper.protocol]}; }};'


def _iptables_takes(helper: NeededHelper | None, tool: Tool) -> bool:
    if helper is None:
        rule = "-j CT --notrack"
    else:
        rule = f"-p {PROTOCOLS[helper.protocol]} -j CT --helper {helper.name}"
    lines = ("*raw", f":{PROBE} - [0:0]", f"-A {PROBE} {rule}", "COMMIT")
    finished = restore.restore(tool, [InputLine(line) for line in lines], Report())
    return finished is not None and finished.ok
