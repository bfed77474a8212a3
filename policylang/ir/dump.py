"""A ruleset as text for people and golden files; nothing reads it back."""

from __future__ import annotations

from collections.abc import Iterator

from policylang.ir import actions as ir
from policylang.ir.origin import Origin, describe
from policylang.ir.ruleset import Lookup, Rule, Ruleset
from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, UNIVERSE, AddressType, Field, State
from policylang.packets.values import Range, Ranges, format_address, name_pattern, prefixes

WIDTH = 72  # where comments start
SHOWN = 12  # ranges shown of a set of values
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def dump(ruleset: Ruleset) -> str:
    """The chains in order, a line for each rule and each entry of a lookup."""
    lines: list[str] = []
    bases = {base.chain: base for base in ruleset.bases}
    for chain in ruleset.chains:
        base = bases.get(chain.name)
        where = f"  # {base.stage.value} on {base.path.value}" if base else ""
        lines.append(f"chain {chain.name}{where}")
        for item in chain.items:
            lines += _rule(item) if isinstance(item, Rule) else _lookup(item)
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _rule(rule: Rule) -> Iterator[str]:
    guards = "".join(f" [{_guard(guard)}]" for guard in rule.guards)
    yield _line(f"  {_action(rule.action)}{guards}  {_cube(rule.cube)}", rule.origins)


def _guard(guard: ir.Guard) -> str:
    match guard:
        case ir.RateGuard():
            over = "over " if guard.over else ""
            return f"{over}{guard.count}/{guard.unit} burst {guard.burst}{_per(guard.per)}"
        case ir.ConnectionsGuard():
            over = "over " if guard.over else ""
            return f"{over}{guard.count} connections{_per(guard.per)}"
        case ir.OwnerGuard():
            ids = (str(low) if low == high else f"{low}-{high}" for low, high in guard.ids)
            return f"{guard.kind} {', '.join((*guard.names, *ids))}"
        case ir.CgroupGuard():
            return f"cgroup {guard.path}"
        case ir.MarkGuard():
            return f"mark {guard.value:#x}/{guard.mask:#x}"
        case ir.ConnectionMarkGuard():
            return f"connection mark {guard.value:#x}/{guard.mask:#x}"
        case ir.TimeGuard():
            local = " local time" if guard.is_local else ""
            hours = (f"{_moment(low)}-{_moment(high + 1)}" for low, high in guard.week_s)
            return f"{', '.join(hours)}{local}"
        case ir.UntilGuard():
            local = " local time" if guard.is_local else ""
            return f"until {guard.last_day.isoformat()}{local}"


def _per(per: ir.Per | None) -> str:
    return "" if per is None else f" per {per.end}/{per.prefix_len_v4}/{per.prefix_len_v6}"


def _ports(ports: Range | None, is_random: bool) -> str:
    """The choice of source ports of a translation."""
    said = "" if ports is None else f" port {_range(Field.SPORT, ports)}"
    return f"{said} random" if is_random else said


def _moment(week_s: int) -> str:
    """A second of the week, as in `tue 08:00`; the end of Sunday is `mon 00:00`."""
    day, second = divmod(week_s, 86_400)
    return f"{DAYS[day % 7]} {second // 3600:02}:{second // 60 % 60:02}"


def _lookup(lookup: Lookup) -> Iterator[str]:
    fields = " . ".join(f.name.lower() for f in lookup.fields)
    yield f"  lookup {fields}  {_cube(lookup.cube)}".rstrip()
    for entry in lookup.entries:
        key = " . ".join(_range(f, pair) for f, pair in zip(lookup.fields, entry.key, strict=True))
        yield _line(f"    {key} : {_action(entry.action)}", entry.origins)


def _line(text: str, origins: tuple[Origin, ...]) -> str:
    text = text.rstrip()
    why = describe(origins)
    return f"{text:<{WIDTH}}  # {why}" if why else text


def _action(action: ir.Action) -> str:
    match action:
        case ir.Jump():
            return f"jump {action.chain}"
        case ir.Reject():
            return f"reject {action.answer.value}"
        case ir.AssignHelper():
            return f"assign-helper {action.helper}"
        case ir.AddToSet():
            time = "" if action.timeout_s is None else f" for {action.timeout_s}s"
            return f"add {action.end} to {action.set}{time}"
        case ir.RememberQuestion() | ir.RememberAsker():
            what = "question" if isinstance(action, ir.RememberQuestion) else "asker"
            return f"remember {what} for {action.timeout_s}s"
        case ir.Native():
            return f'native {action.target} "{action.text}"'
        case ir.Masquerade():
            return f"masquerade{_ports(action.ports, action.is_random)}"
        case ir.SourceNat():
            kept = " persistent" if action.is_persistent else ""
            address = _range(Field.SADDR, action.addresses)
            return f"snat {address}{_ports(action.ports, action.is_random)}{kept}"
        case ir.DestinationNat():
            port = "" if action.port is None else f" port {action.port}"
            turn = " by source" if action.by_source else ""
            return f"dnat {_values(Field.DADDR, action.targets)}{port}{turn}"
        case ir.RedirectToSelf():
            return f"redirect port {action.port}"
        case ir.MapPrefix():
            return f"map {action.end} to {_range(Field.SADDR, action.prefix)}"
        case ir.SetMark():
            return f"set mark {action.value:#x}/{action.mask:#x}"
        case ir.SetConnectionMark():
            return f"set connection mark {action.value:#x}/{action.mask:#x}"
        case ir.SetDscp():
            return f"set dscp {action.code}"
        case ir.ClampMss():
            return f"clamp mss {'to the path' if action.size is None else action.size}"
        case ir.TransparentProxy():
            return f"tproxy port {action.port} mark {action.value:#x}/{action.mask:#x}"
        case ir.Queue():
            bypass = " bypass" if action.may_bypass else ""
            return f"queue {_range(Field.DPORT, (action.low, action.high))}{bypass}"
        case ir.Offload():
            return f"offload {', '.join(action.devices)}"
        case ir.Log():
            where = f" level {action.level}" if action.level else ""
            where = f" group {action.group}" if action.group is not None else where
            return f'log "{action.prefix}"{where}'
        case _:
            return type(action).__name__.lower()


def _cube(cube: Cube) -> str:
    return "  ".join(f"{f.name.lower()} {_values(f, v)}" for f, v in cube.stated)


def _values(f: Field, values: Ranges) -> str:
    others = UNIVERSE[f] - values
    if others and len(others) < len(values):
        return f"not {_values(f, others)}"
    if f in (Field.CT_STATE, Field.FAMILY):
        values = Ranges(tuple((n, n) for low, high in values for n in range(low, high + 1)))
    texts = [_range(f, pair) for pair in values.pairs[:SHOWN]]
    more = f", … {len(values)} in all" if len(values) > SHOWN else ""
    return texts[0] if len(values) == 1 else "{" + ", ".join(texts) + more + "}"


def _range(f: Field, pair: Range) -> str:
    low, high = pair
    if f in ADDRESS_FIELDS:
        if low == high:
            return format_address(low)
        parts = list(prefixes(low, high)) if (low < 1 << 128) == (high < 1 << 128) else []
        if len(parts) == 1:
            return f"{format_address(low)}/{parts[0][1]}"
        return f"{format_address(low)}-{format_address(high)}"
    if f in (Field.IIF, Field.OIF, Field.CT_HELPER):
        return name_pattern(low, high) or f"{low:#x}-{high:#x}"
    if f is Field.CT_STATE and low == high:
        return State(low).name.lower()
    if f is Field.DADDR_TYPE and low == high and low in set(AddressType):
        return AddressType(low).name.lower()
    return str(low) if low == high else f"{low}-{high}"
