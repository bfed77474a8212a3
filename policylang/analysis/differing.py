"""A disagreement in words: the packet, what it should meet, and what it does meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policylang.analysis import machine as m
from policylang.analysis.agreement import Disagreement, Side
from policylang.analysis.changes import Bits, Changes
from policylang.analysis.deeds import Again, Became, Deed, Passed
from policylang.analysis.wording import NO_NAMES, Names, packet_words, ranges_in_words
from policylang.ir import actions as ir
from policylang.ir.origin import Origin
from policylang.packets.fields import DADDR_TESTS, SADDR_TESTS, AddressType, Field
from policylang.packets.values import Ranges, format_address

# What `packet_words` tells of a packet.
TOLD = frozenset(
    {
        *(Field.FAMILY, Field.L4PROTO, Field.SADDR, Field.DADDR, Field.SPORT, Field.DPORT),
        *(Field.ICMP_TYPE, Field.ICMPV6_TYPE, Field.TCP_FLAGS, Field.IIF, Field.OIF),
        *(Field.CT_STATE, Field.SADDR_TYPE, Field.DADDR_TYPE),
    }
)
# What goes without saying.
USUAL = {
    Field.DSCP: 0,
    Field.CT_HELPER: 0,
    Field.CT_DIRECTION: 0,
    Field.IPSEC: 0,
    Field.IPSEC_OUT: 0,
    Field.REVERSE_PATH: 1,
    Field.SOURCE_ROUTED: 0,
    Field.ANSWER: 0,
    Field.TO_ASKER: 0,
    Field.DNATED: 0,
    Field.EXPECTED: 0,
    Field.HOP_LIMIT: 64,
    Field.SIZE: 60,
    **dict.fromkeys((*SADDR_TESTS, *DADDR_TESTS), 0),
}
SAID = {
    Field.DNATED: "translated",
    Field.EXPECTED: "predicted by a helper",
    Field.IPSEC: "inside IPsec",
    Field.IPSEC_OUT: "to go inside IPsec",
    Field.SOURCE_ROUTED: "source-routed",
    Field.ANSWER: "an answer to a question",
    Field.TO_ASKER: "to a port that asked",
}
CALLED = {
    Field.DSCP: "code point",
    Field.SIZE: "size",
    Field.HOP_LIMIT: "hop limit",
    Field.SMAC: "from MAC",
    Field.CT_HELPER: "of the helper",
    Field.ORIG_DADDR: "dialled at",
    Field.ORIG_DPORT: "dialled at port",
    Field.SPORT: "source port",
}


@dataclass(frozen=True, slots=True)
class Told:
    """A disagreement for people: each part is a phrase.

    `meant` and `loaded` go on from the name of who does it; `beside` are questions on whose
    answers it depends. `statement` is the origin behind the packet's fate, where one is known, and
    `line` where the other rule stands.
    """

    packet: str
    hook: str
    meant: str
    loaded: str
    beside: str
    statement: Origin | None
    line: str


def in_words(found: Disagreement, names: Names = NO_NAMES) -> Told:
    """What is to be said of a disagreement."""
    hook, _ = found.where
    meant, loaded = found.meant.deed, found.loaded.deed
    does, does_not = does_words(found.deed), f"does not {_bare(does_words(found.deed))}"
    other = loaded if found.is_meant else meant
    is_verdict = isinstance(found.deed, ir.Drop | ir.Reject | ir.Queue)
    if meant == loaded or (isinstance(other, Passed) and not is_verdict):
        texts = (does, does_not) if found.is_meant else (does_not, does)
    else:
        texts = (does_words(meant), does_words(loaded))
    return Told(
        packet_in_words(found.packet, names),
        hook.value,
        *texts,
        ", ".join(map(question_words, found.questions)),
        _statement(found.meant),
        found.loaded.done.line.place
        if found.loaded.done is not None and found.loaded.done.line is not None
        else "",
    )


def packet_in_words(packet: Mapping[Field, int], names: Names = NO_NAMES) -> str:
    """The packet, with all that is unusual about it."""
    parts = [packet_words(packet, names), _KINDS.get(packet.get(Field.DADDR_TYPE, 1), "")]
    for f, number in packet.items():
        if f in TOLD or USUAL.get(f) == number:
            continue
        if f in SAID:
            parts.append(SAID[f])
        elif f in CALLED:
            parts.append(f"{CALLED[f]} {ranges_in_words(f, Ranges.of(number))}")
        elif f is Field.CT_DIRECTION:
            parts.append("on its way back")
        elif f is Field.REVERSE_PATH:
            parts.append("not by the way back to its source")
    return _listed(*parts)


_KINDS: dict[int, str] = {
    AddressType.LOCAL: "for this host",
    AddressType.BROADCAST: "to a broadcast address",
    AddressType.ANYCAST: "to an anycast address",
    AddressType.MULTICAST: "to a group",
}


def _statement(side: Side) -> Origin | None:
    if side.done is None or side.done.line is None:
        return None
    origins = side.done.line.origins
    return next((origin for origin in origins if origin.span is not None), None)


def does_words(deed: Deed) -> str:
    """What is done to a packet, as a verb in the third person."""
    match deed:
        case Passed() | ir.Accept() | ir.Leave():
            return "lets it pass"
        case Again(act, time):
            return f"{does_words(act)}, {time} times"
        case Became(changes):
            return _became(changes)
        case ir.Drop():
            return "drops it"
        case ir.Reject(answer):
            return f"rejects it with {answer.value}"
        case ir.Log(prefix, level, group):
            parts = ["logs it", f"as `{prefix.strip()}`" if prefix.strip() else ""]
            parts.append(f"at level {level}" if level else "")
            parts.append(f"to group {group}" if group is not None else "")
            return " ".join(filter(None, parts))
        case ir.AssignHelper(helper, _):
            return f"gives it the helper {helper}"
        case ir.Masquerade() | ir.SourceNat():
            return f"changes its source ({_translation(deed)})"
        case ir.DestinationNat() | ir.RedirectToSelf() | ir.MapPrefix():
            return f"sends it elsewhere ({_translation(deed)})"
        case ir.TransparentProxy(port):
            return f"hands it to a proxy on port {port}"
        case ir.Queue(low, high, may_bypass):
            where = f"{low}" if low == high else f"{low}-{high}"
            return f"hands it to queue {where}{', or lets it pass' if may_bypass else ''}"
        case ir.ClampMss(size):
            return f"makes its segment size {'what the path takes' if size is None else size}"
        case ir.Offload(devices):
            return f"lets its connection go past the rules between {', '.join(devices)}"
        case m.Obscure(text):
            return f"does `{text}`"
        case _:
            return f"does {deed}"


def _bare(verb: str) -> str:
    """The verb without its `s`: what follows "does not"."""
    first, _, rest = verb.partition(" ")
    plain = first[:-2] if first == "does" else first.removesuffix("s")
    return f"{plain} {rest}".strip()


def _translation(deed: Deed) -> str:
    match deed:
        case ir.Masquerade(ports, is_random):
            return _listed("masquerade", _span(ports), "random" if is_random else "")
        case ir.SourceNat(addresses, ports, is_random, is_persistent):
            return _listed(
                _addresses(addresses),
                _span(ports),
                "random" if is_random else "",
                "persistent" if is_persistent else "",
            )
        case ir.DestinationNat(targets, port, by_source):
            texts = " ".join(map(_addresses, targets.pairs))
            return _listed(
                texts, "" if port is None else f"port {port}", "by source" if by_source else ""
            )
        case ir.RedirectToSelf(port):
            return f"this host, port {port}"
        case ir.MapPrefix(end, prefix):
            return f"{end.value} into {_addresses(prefix)}"
        case _:
            return str(deed)


def _listed(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _span(ports: tuple[int, int] | None) -> str:
    return "" if ports is None else f"ports {ports[0]}-{ports[1]}"


def _addresses(pair: tuple[int, int]) -> str:
    low, high = map(format_address, pair)
    return low if low == high else f"{low}-{high}"


def _became(changes: Changes) -> str:
    parts = [
        _bits("mark", changes.mark),
        _bits("connection mark", changes.connection_mark),
        "" if changes.code is None else f"code point {changes.code}",
        "untracked" if changes.is_untracked else "",
        *(
            f"{'.'.join(f.name.lower() for f in put.fields)} put into `{put.name}`"
            + ("" if put.timeout_s is None else f" for {put.timeout_s}s")
            for put in changes.puts
        ),
    ]
    return f"leaves it with {_listed(*parts)}"


def _bits(word: str, bits: Bits) -> str:
    full = bits.mask == 0xFFFFFFFF
    known = f"{word} {bits.value:#x}" + ("" if full else f"/{bits.mask:#x}")
    return _listed(
        known if bits.mask else "",
        f"{word} copied under {bits.copied:#x}" if bits.copied else "",
    )


def question_words(question: m.Question) -> str:
    """What a rule asks that a packet's fields do not tell."""
    match question:
        case m.RateHolds(per_s, burst, per, family):
            whom = "" if per is None else f" for each {per.end.value}/{per.prefix_len}"
            of = "" if family is None else f" of IPv{family}"
            return f"a rate of {per_s} a second with a burst of {burst}{whom}{of}"
        case m.ConnectionsHold(count, per, family):
            whom = "" if per is None else f" for each {per.end.value}/{per.prefix_len}"
            of = "" if family is None else f" of IPv{family}"
            return f"{count} connections{whom}{of}"
        case m.InSet(name, fields):
            return f"whether {'.'.join(f.name.lower() for f in fields)} is in `{name}`"
        case m.MaskIs(f, value, mask):
            return f"whether {f.name.lower()} ends like {value:x} under {mask:x}"
        case m.CgroupIs(path):
            return f"the cgroup {path}"
        case m.NotAfter(last_day, _):
            return f"the day ({last_day.isoformat()})"
        case m.Unknown(text):
            return f"`{text}`"
        case _:
            return str(question)
