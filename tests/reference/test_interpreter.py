"""The interpreter against sentences of LANGUAGE.md, worked out by hand.

A case is a policy in `cases/`. Comments behind it are packets and what becomes of them: `#+`
passes, `#-` is dropped, `#!answer` is rejected with that answer.

    #+ wan0>self 192.0.2.7>198.51.100.1 tcp 22 established hop=255 by=ftp to=broadcast
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from policylang.diagnostics import Report
from policylang.model.resolve import resolve
from policylang.packets.fields import AddressType, State
from policylang.syntax.loader import load_text
from tests.reference.interpreter import MULTICAST, Packet, decide

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("cases/*.policy"))
PORTED = {"tcp": 6, "udp": 17, "dccp": 33, "sctp": 132}
ICMP = {"icmp": 1, "icmpv6": 58}


def packet(words: list[str]) -> Packet:
    """The packet that a line of a case describes."""
    way, addresses, protocol, number, *rest = words
    iif, _, oif = way.partition(">")
    source, destination = map(ip_address, addresses.split(">"))
    tags = dict(word.split("=") for word in rest if "=" in word)
    states = [State[word.upper()] for word in rest if "=" not in word]
    kind = AddressType.LOCAL if oif == "self" else AddressType.UNICAST
    if any(destination in network for network in MULTICAST):
        kind = AddressType.MULTICAST
    if "to" in tags:
        kind = AddressType[tags["to"].upper()]
    return Packet(
        None if iif == "self" else iif,
        None if oif == "self" else oif,
        source,
        destination,
        PORTED.get(protocol) or ICMP.get(protocol) or int(number),
        (50000, int(number)) if protocol in PORTED else None,
        int(number) if protocol in ICMP else None,
        int(tags.get("hop", 64)),
        states[0] if states else State.NEW,
        tags.get("by"),
        kind,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_interpreter_says_what_the_language_says(case: Path) -> None:
    text = case.read_text()
    report = Report()
    policy = resolve(load_text(text, "case.policy", HERE, report), report)
    assert not report.has_errors, [d.message for d in report.in_order()]
    wrong = []
    expected = [line for line in text.splitlines() if line[:2] in ("#+", "#-", "#!")]
    assert expected
    for line in expected:
        verdict = decide(policy, packet(line.split()[1:]))
        if verdict.accepted:
            mark = "#+"
        else:
            mark = "#-" if verdict.answer is None else f"#!{verdict.answer.value}"
        if mark != line.split()[0]:
            wrong.append(f"{line}\n  got {mark} because of {verdict.because}")
    assert not wrong, "\n".join(wrong)


def test_a_wrong_line_is_found_out() -> None:
    """A case is worth its lines: with the marks turned round none of them holds."""
    report = Report()
    policy = resolve(load_text("allow ssh inbound", "case.policy", HERE, report), report)
    passes = packet(["wan0>self", "192.0.2.7>198.51.100.1", "tcp", "22"])
    stays = packet(["wan0>self", "192.0.2.7>198.51.100.1", "tcp", "23"])
    assert decide(policy, passes).accepted
    assert not decide(policy, stays).accepted
