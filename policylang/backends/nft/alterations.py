"""What changes packets, as nft statements: addresses, marks, code points; knows no matches."""

from __future__ import annotations

from policylang.backends.nft import spell
from policylang.backends.nft.guards import FULL_MARK
from policylang.ir import actions as ir
from policylang.packets.fields import Field
from policylang.packets.values import V6_BASE, Range, Ranges, format_address

# The elements of the map from a turn to its target.
MOST_TARGETS = 1024
# The kernel would draw one with each load, and clients then meet other targets than before.
SEED = "seed 0x1"
END_WORDS = {ir.End.SOURCE: "snat", ir.End.DESTINATION: "dnat"}


def family_of(pair: Range) -> int:
    """The family (4, 6) of a range of addresses."""
    return 6 if pair[0] >= V6_BASE else 4


def masquerade(action: ir.Masquerade) -> str:
    """The statement; with ports for packets that have some alone."""
    ports = "" if action.ports is None else f"to :{_span(action.ports)}"
    return _joined("masquerade", ports, "fully-random" if action.is_random else "")


def source_nat(action: ir.SourceNat) -> str:
    """The statement, for packets of the family of the addresses."""
    flags = [
        word
        for word, is_set in (
            ("fully-random", action.is_random),
            ("persistent", action.is_persistent),
        )
        if is_set
    ]
    family = family_of(action.addresses)
    to = _target(action.addresses, None if action.ports is None else _span(action.ports))
    return _joined(f"snat {spell.HEADERS[family]} to", to, ",".join(flags))


def destination_nat(action: ir.DestinationNat) -> str:
    """The statement, for packets of the family of the targets; raises InexpressibleError.

    With several targets in turn, each statement in a table counts for itself.
    """
    ip = spell.HEADERS[family_of(action.targets.pairs[0])]
    port = None if action.port is None else str(action.port)
    (first, *others) = action.targets.pairs
    if not others and (action.by_source or first[0] == first[1]):
        # Of a range the kernel takes the address that the hash of both ends says, and with
        # `persistent` that of the source.
        kept = "" if first[0] == first[1] else "persistent"
        return _joined(f"dnat {ip} to", _target(first, port), kept)
    count = action.targets.count
    if count > MOST_TARGETS:
        raise spell.InexpressibleError(
            f"choose among {count} targets",
            help=f"name at most {MOST_TARGETS}, or one range with `by source`",
        )
    turn = f"jhash {ip} saddr mod {count} {SEED}" if action.by_source else f"numgen inc mod {count}"
    chosen = ", ".join(f"{n} : {target}" for n, target in enumerate(_each(action.targets)))
    end = "" if port is None else f":{port}"
    return f"dnat {ip} to {turn} map {{ {chosen} }}{end}"


def _each(targets: Ranges) -> list[str]:
    return [format_address(n) for low, high in targets for n in range(low, high + 1)]


def map_prefix(action: ir.MapPrefix) -> str:
    """The statement, for packets of the family of the prefix."""
    ip = spell.HEADERS[family_of(action.prefix)]
    if action.prefix[0] == action.prefix[1]:
        return f"{END_WORDS[action.end]} {ip} to {format_address(action.prefix[0])}"
    return f"{END_WORDS[action.end]} {ip} prefix to {spell.value(Field.SADDR, action.prefix)}"


def mark(word: str, value: int, mask: int) -> str:
    """The statement that sets some bits of `meta mark` or `ct mark`, and keeps the others."""
    assert value & ~mask == 0, "a mark within its mask"
    kept = FULL_MARK & ~mask
    if not kept:
        return f"{word} set {value:#x}"
    masked = "" if value == mask else f" & {kept:#010x}"
    added = f" | {value:#x}" if value else ""
    return f"{word} set {word}{masked}{added}"


def dscp(action: ir.SetDscp, family: int) -> str:
    """The statement for packets of a family."""
    return f"{spell.HEADERS[family]} dscp set {spell.value(Field.DSCP, (action.code,) * 2)}"


def clamp_mss(action: ir.ClampMss) -> str:
    """The statement; the kernel never makes the size that a SYN offers larger."""
    return f"tcp option maxseg size set {'rt mtu' if action.size is None else action.size}"


def queue(action: ir.Queue) -> str:
    """The statement; of several queues, the packets of a connection go to the same."""
    flags = "flags bypass" if action.may_bypass else ""
    return _joined("queue", flags, f"to {_span((action.low, action.high))}")


def _target(addresses: Range, ports: str | None) -> str:
    """Addresses as a translation takes them; those of IPv6 in brackets beside a port."""
    low, high = addresses
    is_bracketed = family_of(addresses) == 6 and ports is not None
    texts = [format_address(n) for n in ((low,) if low == high else (low, high))]
    text = "-".join(f"[{text}]" if is_bracketed else text for text in texts)
    return text if ports is None else f"{text}:{ports}"


def _span(pair: Range) -> str:
    low, high = pair
    return str(low) if low == high else f"{low}-{high}"


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))
