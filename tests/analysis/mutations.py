"""Mistakes that a backend or an optimisation could make, each a text to put in another's place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """In a file of the package, `old`, which stands there once, becomes `new`."""

    file: str
    old: str
    new: str


_NFT = "policylang/backends/nft"
_XT = "policylang/backends/iptables"
_OPT = "policylang/optimise"
_M = Mutation

MUTATIONS = (
    # --- nft: where chains stand, and their ends
    _M(
        f"{_NFT}/__init__.py",
        'ASSIGN_HELPER, Path.INPUT): "type filter hook prerouting priority mangle"',
        'ASSIGN_HELPER, Path.INPUT): "type filter hook prerouting priority raw"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'ASSIGN_HELPER, Path.OUTPUT): "type filter hook output priority mangle"',
        'ASSIGN_HELPER, Path.OUTPUT): "type filter hook output priority filter"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'UNTRACK, Path.INPUT): "type filter hook prerouting priority raw + 1"',
        'UNTRACK, Path.INPUT): "type filter hook prerouting priority mangle"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'SCREEN_STATE, Path.INPUT): "type filter hook prerouting priority mangle"',
        'SCREEN_STATE, Path.INPUT): "type filter hook prerouting priority raw"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'MARK, Path.OUTPUT): "type route hook output priority mangle + 1"',
        'MARK, Path.OUTPUT): "type filter hook output priority mangle + 1"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'MARK, Path.INPUT): "type filter hook prerouting priority mangle + 1"',
        'MARK, Path.INPUT): "type filter hook prerouting priority filter"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'FILTER, Path.FORWARD): "type filter hook forward priority filter"',
        'FILTER, Path.FORWARD): "type filter hook input priority filter"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        'TPROXY, Path.INPUT): "type filter hook prerouting priority mangle + 2"',
        'TPROXY, Path.INPUT): "type filter hook prerouting priority filter"',
    ),
    _M(
        f"{_NFT}/__init__.py",
        "rules += spelling.lines(item, hint, chain.name in leaving)",
        "rules += list(spelling.lines(item, hint, chain.name in leaving))"
        "[: 0 if item is chain.items[-1] and base else None]",
    ),
    _M(
        f"{_NFT}/__init__.py",
        "for number, item in enumerate(chain.items, 1):",
        "for number, item in enumerate(reversed(chain.items), 1):",
    ),
    # --- nft: matches
    _M(
        f"{_NFT}/rules.py",
        'return f"!= {self.sets.spell(f, family, others)}"',
        'return f"{self.sets.spell(f, family, others)}"',
    ),
    _M(f"{_NFT}/rules.py", "alternatives.append([said])", "pass"),
    _M(f"{_NFT}/rules.py", "alternatives.append(asks)", "pass"),
    _M(f"{_NFT}/rules.py", 'asks = [f"{asks[0]} {said}"]', "pass"),
    _M(
        f"{_NFT}/rules.py",
        "if asks and part[Field.L4PROTO].single == OWN_ICMP[family]:",
        "if False:",
    ),
    _M(
        f"{_NFT}/rules.py",
        "if rule.action == RESET and self._names_family(rule.cube):",
        "if False:",
    ),
    _M(f"{_NFT}/rules.py", "for also in product(*asked):", "for also in [()]:"),
    _M(
        f"{_NFT}/rules.py",
        "return f\"{key} {'' if values.single == 1 else '!= '}@{name}\"",
        'return f"{key} @{name}"',
    ),
    _M(f"{_NFT}/rules.py", "{'==' if values.single == 1 else '!='} {value}", "== {value}"),
    _M(f"{_NFT}/rules.py", "return [spell.tcp_flags(cube[f])]", "return []"),
    _M(
        f"{_NFT}/rules.py",
        'return [f"ct helper {spell.value(f, pair)}" for pair in cube[f]]',
        "return []",
    ),
    _M(
        f"{_NFT}/rules.py",
        'return ["ct state " + ",".join(spell.value(f, pair) for pair in pairs)]',
        'return ["ct state " + spell.value(f, pairs.pairs[0])]',
    ),
    _M(
        f"{_NFT}/rules.py",
        'key = f"{spell.HEADERS[family]} daddr . udp dport . iifname"',
        'key = f"{spell.HEADERS[family]} saddr . udp dport . iifname"',
    ),
    _M(
        f"{_NFT}/rules.py",
        "cube = cube & Cube.of({Field.FAMILY: Ranges.of(family)})\n            keys",
        "cube = cube\n            keys",
    ),
    _M(
        f"{_NFT}/rules.py",
        "return _member(address, dynamic_set_name(name, family), values)",
        "return _member(address, dynamic_set_name(name, family), Ranges.of(1))",
    ),
    _M(f"{_NFT}/spell.py", 'return f"{ip} daddr"', 'return f"{ip} saddr"'),
    _M(
        f"{_NFT}/spell.py",
        "return f\"{'th' if single is None else PORTED_WORDS[single]} {field.name.lower()}\"",
        "return f\"{'th' if single is None else PORTED_WORDS[single]} dport\"",
    ),
    _M(f"{_NFT}/spell.py", 'return "ct original proto-dst"', 'return "ct original proto-src"'),
    _M(f"{_NFT}/spell.py", 'return [f"ct status {word}"]', 'return [f"ct status != {word}"]'),
    _M(
        f"{_NFT}/spell.py",
        'exists = "exists" if holds else "missing"',
        'exists = "missing" if holds else "exists"',
    ),
    _M(f"{_NFT}/spell.py", 'a_way_in = " iif != 0" if is_behind_routing else ""', 'a_way_in = ""'),
    _M(
        f"{_NFT}/spell.py",
        'for operator, patterns in (("", match.among), ("!= ", match.barring)):',
        'for operator, patterns in (("", match.among), ("", match.barring)):',
    ),
    _M(
        f"{_NFT}/spell.py",
        'return f"tcp flags & {mask} == {flags}"',
        'return f"tcp flags & {flags} == {flags}"',
    ),
    _M(f"{_NFT}/spell.py", '11: "time-exceeded",', '11: "parameter-problem",'),
    _M(
        f"{_NFT}/sets.py",
        "            texts = [spell.value(f, pair) for pair in pairs]",
        "            texts = [spell.value(f, pair) for pair in pairs][1:]",
    ),
    _M(f"{_NFT}/times.py", 'texts = [f"{low}-{high}"', 'texts = [f"{low}-{high - 3600}"'),
    _M(f"{_NFT}/times.py", 'on_days = "" if', 'on_days = "" if True or'),
    _M(
        f"{_NFT}/guards.py",
        'return f"limit rate {beyond}{rate} burst {measure.burst} packets"',
        'return f"limit rate {beyond}{rate} burst 5 packets"',
    ),
    _M(f"{_NFT}/guards.py", 'beyond = "over " if over else ""', 'beyond = ""'),
    _M(
        f"{_NFT}/guards.py",
        'return f"ct count {beyond}{measure.count}"',
        'return f"ct count {beyond}{measure.count + 1}"',
    ),
    _M(f"{_NFT}/guards.py", 'word = {"user": "skuid", "group": "skgid"}[kind]', 'word = "skuid"'),
    _M(
        f"{_NFT}/guards.py",
        "mask = (1 << bits) - (1 << (bits - length))",
        "mask = (1 << bits) - (1 << (bits - length + 8))",
    ),
    # --- nft: what is done
    _M(
        f"{_NFT}/statements.py",
        'ir.Answer.HOST_UNREACHABLE: "reject with icmpx type host-unreachable"',
        'ir.Answer.HOST_UNREACHABLE: "reject"',
    ),
    _M(f"{_NFT}/statements.py", 'return "notrack accept"', 'return "accept"'),
    _M(
        f"{_NFT}/alterations.py", 'kept = "" if first[0] == first[1] else "persistent"', 'kept = ""'
    ),
    _M(
        f"{_NFT}/alterations.py",
        'masked = "" if value == mask else f" & {kept:#010x}"',
        'masked = ""',
    ),
    _M(f"{_NFT}/alterations.py", '"fully-random" if action.is_random else "")', '"")'),
    _M(
        f"{_NFT}/alterations.py",
        'return f"{END_WORDS[action.end]} {ip} prefix to',
        'return f"dnat {ip} prefix to',
    ),
    _M(
        f"{_NFT}/alterations.py",
        "return f\"tcp option maxseg size set {'rt mtu' if action.size is None else action.size}\"",
        'return f"tcp option maxseg size set {action.size or 1400}"',
    ),
    _M(f"{_NFT}/variants.py", "protocols = Ranges.of(protocol)", "protocols = Ranges()"),
    _M(
        f"{_NFT}/parts.py",
        "for family in (4, 6):\n        half",
        "for family in (4,):\n        half",
    ),
    _M(
        "policylang/templates/nft/table.j2",
        'type "{{ helper.type }}" protocol {{ helper.protocol }}',
        'type "ftp" protocol {{ helper.protocol }}',
    ),
    # --- iptables: where chains stand
    _M(
        f"{_XT}/places.py",
        '(Stage.UNTRACK, Path.INPUT): Place("raw", "PREROUTING", "untrack")',
        '(Stage.UNTRACK, Path.INPUT): Place("raw", "OUTPUT", "untrack")',
    ),
    _M(
        f"{_XT}/places.py",
        '(Stage.SCREEN_STATE, Path.INPUT): Place("mangle", "PREROUTING", "screen-state")',
        '(Stage.SCREEN_STATE, Path.INPUT): Place("raw", "PREROUTING", "screen-state")',
    ),
    _M(
        f"{_XT}/places.py",
        '(Stage.SCREEN_STATE, Path.INPUT): Place("mangle", "PREROUTING"',
        '(Stage.SCREEN_STATE, Path.INPUT): Place("mangle", "INPUT"',
    ),
    _M(
        f"{_XT}/places.py",
        '(Stage.TREAT, Path.FORWARD): Place("mangle", "FORWARD"',
        '(Stage.TREAT, Path.FORWARD): Place("mangle", "OUTPUT"',
    ),
    _M(
        f"{_XT}/places.py",
        '(Stage.FILTER, Path.OUTPUT): Place("filter", "OUTPUT", "output")',
        '(Stage.FILTER, Path.OUTPUT): Place("mangle", "OUTPUT", "output")',
    ),
    _M(
        f"{_XT}/__init__.py",
        "key=lambda base: -order.index(base.stage)",
        "key=lambda base: order.index(base.stage)",
    ),
    _M(f"{_XT}/__init__.py", "chains |= with_foreign_sources(base.chain, chains)", "pass"),
    _M(
        f"{_XT}/__init__.py",
        "writer.write(name, chains[name].items)",
        "writer.write(name, chains[name].items[:-1])",
    ),
    _M(
        f"{_XT}/__init__.py",
        "writer.write(name, chains[name].items)",
        "writer.write(name, tuple(reversed(chains[name].items)))",
    ),
    # --- iptables: matches
    _M(
        f"{_XT}/matches.py",
        'return Sieve.any_of([f"! {option} {_interface(steps[0][0])}"])',
        'return Sieve.any_of([f"{option} {_interface(steps[0][0])}"])',
    ),
    _M(f"{_XT}/matches.py", "found = Slot.DNATED, dnated(values)", "continue"),
    _M(f"{_XT}/matches.py", "found = Slot.ORIG_DPORT, dialled_ports(values)", "continue"),
    _M(f"{_XT}/matches.py", "found = Slot.CT_DIRECTION, direction(values)", "continue"),
    _M(f"{_XT}/matches.py", "found = Slot.EXPECTED, expected(values)", "continue"),
    _M(
        f"{_XT}/matches.py",
        'found = Slot.OIF, interfaces("-o", values)',
        'found = Slot.OIF, interfaces("-i", values)',
    ),
    _M(
        f"{_XT}/connections.py",
        "names = [name for state, name in STATES.items() if state in values]",
        "names = [name for state, name in STATES.items() if state in values][:1]",
    ),
    _M(f"{_XT}/connections.py", 'sign = "" if 1 in values else "! "', 'sign = ""'),
    _M(
        f"{_XT}/addresses.py",
        'return f"-m iprange ! {side.range} {dashed(pair)}"',
        'return f"-m iprange {side.range} {dashed(pair)}"',
    ),
    _M(
        f"{_XT}/addresses.py",
        'Field.DADDR: Side("-d", "--dst-range", "dst"',
        'Field.DADDR: Side("-s", "--src-range", "src"',
    ),
    _M(
        f"{_XT}/prefixes.py",
        'return f"/{bits + 1 - size.bit_length()}"',
        'return f"/{bits - size.bit_length()}"',
    ),
    _M(
        f"{_XT}/transport.py",
        'return (f"! --{side}port {_port_range(missing.pairs[0])}",)',
        'return (f"--{side}port {_port_range(missing.pairs[0])}",)',
    ),
    _M(
        f"{_XT}/transport.py",
        'return (f"-m multiport --{side}ports {_port_list(values)}",)',
        'return (f"-m multiport --dports {_port_list(values)}",)',
    ),
    _M(f"{_XT}/transport.py", "parts.append(tcp_flags(cube[Field.TCP_FLAGS]))", "pass"),
    _M(
        f"{_XT}/transport.py",
        'return Sieve.any_of([f"{icmp} ! --icmp-type {missing}"])',
        "return Sieve.any_of([icmp])",
    ),
    _M(f"{_XT}/headers.py", "'ipsec' if 1 in values else 'none'", "'none'"),
    _M(f"{_XT}/headers.py", 'f"-m length --length {a}:{b}"', 'f"-m length --length {a}:{b + 1}"'),
    _M(
        f"{_XT}/routes.py",
        '"-m rpfilter" if 1 in values else "-m rpfilter --invert"',
        '"-m rpfilter"',
    ),
    _M(f"{_XT}/routes.py", 'apart = "".join(', 'apart = "" and "".join('),
    _M(
        f"{_XT}/remembered.py",
        'match = f"-m set --match-set {interfaces} dst,src -m set --match-set {ports} dst,dst"',
        'match = f"-m set --match-set {ports} dst,dst"',
    ),
    _M(f"{_XT}/remembered.py", 'sign = "" if 1 in values else "! "', 'sign = ""'),
    # --- iptables: guards and targets
    _M(f"{_XT}/guards.py", 'side = "above" if over else "upto"', 'side = "upto"'),
    _M(
        f"{_XT}/guards.py",
        'return f"-m limit --limit {rate} --limit-burst {guard.burst}"',
        'return f"-m limit --limit {rate}"',
    ),
    _M(f"{_XT}/guards.py", "hashlimit-{'above' if guard.over else 'upto'}", "hashlimit-upto"),
    _M(f"{_XT}/guards.py", 'words.append(f"--timestop {_clock(stop)}")', "pass"),
    _M(
        f"{_XT}/guards.py",
        "words.append(f\"--weekdays {','.join(WEEKDAYS[day] for day in some)}\")",
        "pass",
    ),
    _M(f"{_XT}/guards.py", 'return " --kerneltz" if is_local else ""', 'return ""'),
    _M(
        f"{_XT}/targets.py",
        'Answer.NET_UNREACHABLE: "icmp-net-unreachable"',
        'Answer.NET_UNREACHABLE: "icmp-host-unreachable"',
    ),
    _M(f"{_XT}/targets.py", 'return Target("-j CT --notrack")', 'return Target("-j RETURN")'),
    _M(
        f"{_XT}/targets.py",
        'return Target(f"-j MARK --set-xmark {_under(value, mask)}")',
        'return Target(f"-j MARK --set-xmark 0x{value:x}")',
    ),
    _M(f"{_XT}/targets.py", 'timed = "" if timeout_s is None else _for(timeout_s)', 'timed = ""'),
    _M(
        f"{_XT}/targets.py",
        'elements = [(interfaces, f"{of},dst") for of in DIRECTIONS.values()]',
        'elements = [(interfaces, f"{of},dst") for of in ("src",)]',
    ),
    _M(
        f"{_XT}/targets.py",
        '"--clamp-mss-to-pmtu" if size is None',
        '"--clamp-mss-to-pmtu" if True',
    ),
    _M(f"{_XT}/chains.py", "cube = cube & SYN_ALONE", "pass"),
    _M(
        f"{_XT}/chains.py",
        "self._line(here, {slot: match}, (), _go(inner) if lets_in else out, origins)",
        "self._line(here, {slot: match}, (), _go(inner), origins)",
    ),
    _M(
        f"{_XT}/chains.py",
        "goal = self._target(here, leaf, comes_back=not in_group)",
        "goal = self._target(here, leaf, comes_back=False)",
    ),
    _M(
        f"{_XT}/chains.py",
        'if action.target != "iptables" or action.family not in (None, self.family):',
        'if action.target != "iptables":',
    ),
    _M(
        f"{_XT}/translations.py",
        "left = range(len(goals), 1, -1)",
        "left = range(len(goals) + 1, 2, -1)",
    ),
    _M(
        f"{_XT}/translations.py",
        'return to(targets.pairs[0], " --persistent")',
        "return to(targets.pairs[0])",
    ),
    _M(f"{_XT}/translations.py", "return (found >= V6_BASE) == (family == 6)", "return True"),
    _M(
        f"{_XT}/lookups.py",
        "elif field in ADDRESS_FIELDS:\n            entries",
        "elif field in ADDRESS_FIELDS and False:\n            entries",
    ),
    _M(
        f"{_XT}/lookups.py",
        "return (Group(lookup.cube, nodes, _origins(entries)),)",
        "return nodes",
    ),
    # --- optimising
    _M(
        f"{_OPT}/order.py",
        "if is_plain(a) and is_plain(b) and a.action == b.action:",
        "if is_plain(a) and is_plain(b):",
    ),
    _M(
        f"{_OPT}/order.py",
        "return not _beside(a.cube, changed).meets(_beside(b.cube, changed))",
        "return True",
    ),
    _M(f"{_OPT}/shadow.py", "other.covers(cube)", "other.meets(cube)"),
    _M(f"{_OPT}/shadow.py", "del deciding[fields]", "pass"),
    _M(
        f"{_OPT}/merge.py",
        "(item.action, why, f, item.cube.beside(f))",
        "(item.action, why, f, ())",
    ),
    _M(f"{_OPT}/merge.py", "if index > last_other or _in_reach(rule, output, index):", "if True:"),
    _M(f"{_OPT}/merge.py", "if f is not Field.TCP_FLAGS", "if f is not Field.SADDR"),
    _M(
        f"{_OPT}/gather.py",
        "inside = [index for index in range(len(positions)) if index not in out]",
        "inside = [index for index in range(len(positions))]",
    ),
    _M(
        f"{_OPT}/dispatch.py",
        "if run.rules and not (run.fits(item, fields) and may_pass(item, run.behind)):",
        "if run.rules and not run.fits(item, fields):",
    ),
)

# Mutations that no proof finds, by file and text, and why not.
EXPLAINED: dict[tuple[str, str], str] = {
    (
        f"{_NFT}/rules.py",
        "cube = cube & Cube.of({Field.FAMILY: Ranges.of(family)})\n            keys",
    ): "does no harm: a key with an address is of the address's family alone",
    (
        f"{_NFT}/spell.py",
        'a_way_in = " iif != 0" if is_behind_routing else ""',
    ): "does no harm: such rules ask for a source that is not this host's as well",
    (
        f"{_NFT}/variants.py",
        "protocols = Ranges.of(protocol)",
    ): "does no harm: the ir's rules that hand packets to a proxy say the protocol",
    (
        f"{_XT}/__init__.py",
        "chains |= with_foreign_sources(base.chain, chains)",
    ): "does no harm: such rules ask for a source that is not this host's already",
    (
        f"{_XT}/chains.py",
        "cube = cube & SYN_ALONE",
    ): "does no harm: the target asks for SYN itself, and only SYN has a segment size",
    (
        f"{_XT}/translations.py",
        "return (found >= V6_BASE) == (family == 6)",
    ): "does no harm: the ir's rules with addresses of a family are of that family",
    (
        f"{_XT}/routes.py",
        'apart = "".join(',
    ): "is not seen: to the proof an address is local or multicast; to ip6tables it may be both",
    (
        f"{_OPT}/shadow.py",
        "del deciding[fields]",
    ): "does no harm yet: what puts an address into a set ends the packet's way in the next rule",
}
