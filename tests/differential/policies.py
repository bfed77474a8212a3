"""Random policies, as text; knows only how the language is written, not what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random

from tests.differential.arena import ANCHORS, GROUPS, INTERFACES, OWN

# What `random.policy.lock` has the addresses of.
LISTED_NAMES = tuple(f'"{name}.example"' for name in ("near", "networks", "own", "wild", "v6"))
ZONE_NAMES = ("wan", "lan", "office", "guests", "servers")
# Names that are there, names of several, names that only begin like one, and one that is not.
INTERFACE_NAMES = (*INTERFACES, "lan*", "lan1*", "wan*", "l*", "vpn0", "*")
WILD_ADDRESSES = (
    "0.0.0.0/0",
    "::/0",
    "0.0.0.0",
    "255.255.255.255",
    "224.0.0.0/8",
    "fe80::/10",
    "ff02::/16",
    "10.0.0.0/8",
    "2001:db8::/32",
    "8.8.8.0/24",
    *GROUPS,
)
NOTED_PORTS = (1, 21, 22, 25, 53, 69, 80, 443, 1023, 1024, 2121, 5060, 8080, 32767, 32768, 60999)
# Those with helpers, those without ports, and some of the others.
SERVICES = (
    *("ftp", "tftp", "sip", "irc", "pptp", "h323", "sane", "snmp", "amanda", "netbios-ns"),
    *("ping", "igmp", "gre", "esp", "ipsec", "ospf", "vrrp", "traceroute"),
    *("ssh", "http", "https", "dns", "ntp", "smtp", "samba", "ldap", "syslog", "kerberos"),
)
HELPERS = {
    "ftp": "tcp",
    "tftp": "udp",
    "sip": "udp",
    "irc": "tcp",
    "sane": "tcp",
    "amanda": "udp",
    "snmp": "udp",
}
ICMP_TYPES = {
    "icmp": ("echo-request", "destination-unreachable", "echo-reply", "5", "8", "13", "3", "255"),
    "icmpv6": (
        *("echo-request", "router-advertisement", "neighbour-solicitation", "packet-too-big"),
        *("neighbour-advertisement", "router-solicitation", "137", "143", "1", "200", "255", "0"),
    ),
}
PROTOCOLS = ("gre", "esp", "igmp", "2", "47", "89", "1", "58", "6", "17", "200", "0", "255", "254")
KEYWORD_PROTOCOLS = ("icmp", "icmpv6", "tcp", "udp")  # in a list they would start another WHAT
ANSWERS = (
    *("tcp-reset", "port-unreachable", "host-unreachable", "net-unreachable", "admin-prohibited"),
    "tcp-reset, admin-prohibited",
)
VERBS = ("allow", "allow", "allow", "deny", "deny", "reject")
# Hosts that end alike: every second or fourth one, and the first of each network.
SUFFIXES = ("::1/-127", "::2/-126", "::a/-124", "::1/-64", "::fb/-112")
SENDERS = ("02:00:00:00:02:01", "52:54:00:12:34:56", "02:00:00:00:01:01", "00:11:22:33:44:55")
DSCPS = ("af11", "ef", "cs1", "2", "8-12", "0", "af12", "3-34", "46-63")
SIZES = ("0-100", "40", "28-60", "61-1500", "100-65535", "0")
MARKS = ("0x1", "0x10", "0x10/0xff", "0/0xf0", "0xff00/0xff00", "0", "1/1")
USERS = ("0", "1000", "1000-1001", "0, 1001", "2000-3000")
GROUPS_OF_USERS = ("0", "100", "1000-2000", "99, 1000")
HOURS = (
    *("00:00-12:00", "12:00-24:00", "08:00-18:00", "22:00-06:00", "06:30-07:00, 09:00-21:00"),
    *("00:00-12:00 mon-fri", "13:00-04:00 sat, sun", "mon, wed, fri-sun", "thu-mon", "tue"),
)
LAST_DAYS = ("2020-12-31", "2037-12-31", "2036-02-29", "2026-01-01")
# Nothing that is sent here exceeds them.
RATES = ("10000/second burst 10000", "10000/second burst 5000 per source")
CONNECTIONS = ("60000 connections", "50000 connections per source", "900 connections per source/24")
PROTECTIONS = ("spoofing", "bogons", "bad-flags", "syn-flood limit 10000/second burst 10000")


def random_policy(random: Random, *, translates: bool = False) -> str:
    """The text of a policy; now and then one that the compiler refuses.

    With `translates`, some of its statements send connections elsewhere.
    """
    return _Author(random, translates=translates).policy()


class _Author:
    """Writes one policy; declared names are gathered so that later statements use them."""

    def __init__(self, random: Random, *, translates: bool = False) -> None:
        self.random = random
        self.aside = Random(random.getstate()[1][1])  # so that what it draws changes no other
        self.translates = translates
        self.zones: list[str] = []
        self.address_sets: list[str] = []
        self.dynamic_sets: list[str] = []  # filled before, or by the lock file
        self.gathering_sets: list[str] = []  # filled by rules
        self.port_sets: list[str] = []
        self.services: list[str] = []
        self.groups: list[str] = []
        self.whole_groups: list[str] = []
        self.points = [self.point() for _ in range(6)]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def pick(self, choices: Sequence[str]) -> str:
        return self.random.choice(choices)

    def list_of(self, one: Callable[[], str], most: int) -> str:
        """A list of mostly few elements, each once."""
        count = min(most, 1 + int(self.random.expovariate(1.1)))
        return ", ".join(dict.fromkeys(one() for _ in range(count)))

    # --- the document -----------------------------------------------------------------------

    def policy(self) -> str:
        lines: list[str] = []
        for name in self.random.sample(ZONE_NAMES, self.random.randint(1, 4)):
            lines.append(self.zone(name))
            self.zones.append(name)
        for number in range(self.random.randint(0, 4)):
            lines.append(self.address_set(f"hosts{number}"))
            self.address_sets.append(f"hosts{number}")
        for number in range(self.random.randint(0, 2) if self.chance(0.4) else 0):
            time = self.pick(("", " timeout 1h", " timeout 2d size 4096"))
            names = self.aside.sample(LISTED_NAMES, self.aside.randint(1, 3))
            is_listed = self.aside.random() < 0.5
            says = f"resolve {', '.join(names)}" if is_listed else f"dynamic{time}"
            lines.append(f"set seen{number} = {says}")
            self.dynamic_sets.append(f"seen{number}")
        if self.chance(0.2):
            lines.append("set gathered = dynamic timeout 1h")
            self.gathering_sets.append("gathered")
        for number in range(self.random.randint(0, 2)):
            lines.append(self.port_set(f"ports{number}"))
            self.port_sets.append(f"ports{number}")
        for number in range(self.random.randint(0, 3)):
            lines.append(self.service(f"own{number}"))
            self.services.append(f"own{number}")
        for number in range(self.random.randint(0, 2)):
            lines.append(self.rules(f"some{number}", whole=False))
            self.groups.append(f"some{number}")
        if self.chance(0.2):
            lines.append(self.rules("whole0", whole=True))
            self.whole_groups.append("whole0")
        for _ in range(self.random.randint(1, 12)):
            lines.append(self.statement())
        if self.translates:
            self.scatter(lines)
        if self.chance(0.3):
            position = self.random.randint(0, len(lines))
            while position < len(lines) and not lines[position].startswith(("traffic", *VERBS)):
                position += 1
            lines[position:position] = self.alike(self.random.randint(6, 40))
        if self.chance(0.25):
            lines.append(self.protect())
        lines += self.defaults()
        if self.chance(0.3):
            settings = self.random.choice(
                (
                    "essentials off",
                    "invalid accept",
                    "essentials off invalid accept",
                    "invalid drop log",
                )
            )
            lines.append(f"settings {{ {settings} }}")
        return "\n".join(lines) + "\n"

    def alike(self, count: int) -> list[str]:
        """Rules of one shape, as an optimiser gathers them."""
        shape = self.random.randint(0, 5)
        verbs = self.random.choice((VERBS, ("allow",), ("allow", "reject")))
        place = self.place()
        zones = (*self.zones, "self", "any")

        def one() -> str:
            protocol = self.pick(("tcp", "udp"))
            if shape == 0:
                return f"{protocol} {self.port()} {place}"
            if shape == 1:
                return f"all from {self.address()} to {self.pick(zones)}"
            if shape == 2:
                return f"{protocol} {self.port()} inbound from {self.address()}"
            if shape == 3:
                return f"tcp {self.port()} from {self.address()} to {self.address()}"
            if shape == 4:
                return f"{self.what_element()} from {self.pick(zones)} to {self.pick(zones)}"
            return f"{self.traffic_item()} {place}"

        return [f"{self.pick(verbs)} {one()}" for _ in range(count)]

    def defaults(self) -> list[str]:
        lines = []
        for direction in ("inbound", "outbound", "forward"):
            if self.chance(0.5):
                verb = self.pick(("allow", "deny", "deny", "reject"))
                lines.append(f"default {verb} {direction}{self.answer(verb)}{self.adding()}")
        return lines

    def protect(self) -> str:
        zones = self.random.sample(self.zones, self.random.randint(1, len(self.zones)))
        source = ", ".join(zones) if self.chance(0.7) else "any"
        if self.chance(0.2):
            source += f" except {self.pick(self.zones)}"
        kinds = self.random.sample(PROTECTIONS, self.random.choice((1, 1, 2, 3)))
        log = " log" if self.chance(0.1) else ""
        return f"protect from {source} against {', '.join(kinds)}{log}{self.adding()}"

    # --- declarations -----------------------------------------------------------------------

    def zone(self, name: str) -> str:
        parts = []
        kind = self.random.random()
        if kind < 0.75:
            count = self.random.choice((1, 1, 2))
            names = self.random.sample(INTERFACE_NAMES, count)
            parts.append("interface " + ", ".join(f'"{n}"' for n in names))
        if kind > 0.45:
            parts.append(f"network {self.list_of(self.network, 3)}")
        return f"zone {name} {{ {'  '.join(parts)} }}"

    def network(self) -> str:
        if self.address_sets and self.chance(0.2):
            return self.pick(self.address_sets)
        return self.address()

    def address(self) -> str:
        """An address, a prefix or a range; most are around the same few points."""
        where = self.random.random()
        if where < 0.07:
            return self.pick(WILD_ADDRESSES)
        if where < 0.18:
            own = self.random.choice(OWN[self.pick(INTERFACES)])
            return str(own.ip) if self.chance(0.5) else str(own.network)
        point = self.random.choice(self.points)
        kind = self.random.random()
        if kind < 0.3:
            return str(point)
        if kind < 0.75:
            shortest = 14 if point.version == 4 else 60
            length = self.random.randint(shortest, point.max_prefixlen)
            return str(ip_network(f"{point}/{length}", strict=False))
        spread = self.random.randint(1, 14)
        low = int(point) - self.random.getrandbits(spread)
        high = int(point) + self.random.getrandbits(spread)
        return f"{type(point)(low)}-{type(point)(high)}"

    def point(self) -> IPv4Address | IPv6Address:
        anchor = ip_network(self.pick(ANCHORS))
        free = anchor.max_prefixlen - anchor.prefixlen
        return anchor.network_address + self.random.getrandbits(free)

    def address_set(self, name: str) -> str:
        if self.chance(0.04):
            return f"set {name} ="
        elements = self.list_of(self.set_element, 8)
        if self.chance(0.1):
            elements = ", ".join(self.address() for _ in range(self.random.randint(20, 200)))
        text = f"set {name} = {elements}"
        if self.chance(0.3):
            text += f" except {self.list_of(self.set_element, 3)}"
        return text

    def set_element(self) -> str:
        if self.address_sets and self.chance(0.25):
            return self.pick(self.address_sets)
        return self.address()

    def port(self) -> str:
        where = self.random.random()
        if where < 0.15 and self.port_sets:
            return self.pick(self.port_sets)
        low = self.random.choice(NOTED_PORTS) if where < 0.7 else self.random.randint(0, 65535)
        if self.chance(0.3):
            high = min(65535, low + self.random.choice((1, 5, 100, 1000, 40000)))
            return f"{low}-{high}"
        return str(low)

    def port_list(self) -> str:
        text = self.list_of(self.port, 20)
        if self.chance(0.04):
            numbers = (self.random.randint(1, 65535) for _ in range(self.random.randint(10, 40)))
            text = ", ".join(map(str, numbers))
        if self.chance(0.15):
            text += f" except {self.list_of(self.port, 3)}"
        return text

    def port_set(self, name: str) -> str:
        return f"set {name} = {self.port_list()}"

    def service(self, name: str) -> str:
        if self.chance(0.25):
            return f"service {name} = {self.list_of(self.service_name, 3)}"
        items = []
        if self.chance(0.3):
            helper = self.pick(tuple(HELPERS))
            items.append(f"{HELPERS[helper]} {self.port_list()} helper {helper}")
            if self.chance(0.5):
                low = self.random.choice((1024, 5000, 40000, 61000))
                items.append(f"data {low}-{low + self.random.choice((0, 10, 1000))}")
        items += (self.traffic_item() for _ in range(self.random.choice((1, 1, 2, 3))))
        return f"service {name} {{ {'  '.join(items)} }}"

    def traffic_item(self) -> str:
        kind = self.random.random()
        if kind < 0.45:
            return f"tcp {self.port_list()}"
        if kind < 0.7:
            return f"udp {self.port_list()}"
        if kind < 0.78:
            return f"{self.pick(('sctp', 'dccp'))} {self.port_list()}"
        if kind < 0.92:
            protocol = self.pick(("icmp", "icmpv6"))
            return f"{protocol} {self.list_of(lambda: self.pick(ICMP_TYPES[protocol]), 3)}"
        if kind < 0.94:
            return f"protocol {self.pick(KEYWORD_PROTOCOLS)}"
        return f"protocol {self.list_of(lambda: self.pick(PROTOCOLS), 3)}"

    def service_name(self) -> str:
        if self.services and self.chance(0.5):
            return self.pick(self.services)
        return self.pick(SERVICES)

    # --- rules ------------------------------------------------------------------------------

    def rules(self, name: str, *, whole: bool) -> str:
        place = self.place if whole else self.partial_place
        body = [self.rule(place()) for _ in range(self.random.randint(1, 4))]
        return f"rules {name} {{\n" + "".join(f"  {line}\n" for line in body) + "}"

    def statement(self) -> str:
        kind = self.random.random()
        if kind < 0.7:
            place = self.place()
            return self.rule(place, (place,))
        if kind < 0.73 and self.whole_groups:
            return f"use {self.pick(self.whole_groups)}"
        return self.block(2)

    def block(self, depth: int) -> str:
        """A block whose place says both ends; places within narrow it."""
        place = self.place()
        body: list[str] = []
        for _ in range(self.random.randint(1, 4)):
            kind = self.random.random()
            if self.groups and kind < 0.3:
                body.append(f"use {self.pick(self.groups)}")
            elif depth > 1 and kind < 0.4:
                body.append(self.narrowing_block())
            else:
                inner = self.partial_place()
                body.append(self.rule(inner, (place, inner)))
        lines = "\n".join(body).replace("\n", "\n  ")
        return f"traffic {place} {{\n  {lines}\n}}"

    def narrowing_block(self) -> str:
        place = self.partial_place() or f"from {self.end()}"
        body = [self.rule(self.partial_place()) for _ in range(self.random.randint(1, 3))]
        return f"traffic {place} {{\n" + "".join(f"  {line}\n" for line in body) + "}"

    def rule(self, place: str, places: tuple[str, ...] = ()) -> str:
        """A rule; `places` are all that hold for it, none where it stands for several."""
        verb = self.pick(VERBS)
        text = f"{verb} {self.what()} {place}{self.answer(verb)}".rstrip()
        conditions = self.conditions(places) if self.chance(0.35) else ""
        text += conditions
        is_counted = " limit " in conditions or " connections" in conditions
        if verb != "allow" and not is_counted and self.chance(0.12):
            text += " also established"
        text += self.adding()
        if self.chance(0.06):
            text += ' log "seen "'
        if self.chance(0.03):
            text += ' name "a name"'
        return text

    def adding(self) -> str:
        if not self.gathering_sets or not self.chance(0.3):
            return ""
        time = self.pick(("", " for 10m"))
        return (
            f" add {self.pick(('source', 'destination'))} to {self.pick(self.gathering_sets)}{time}"
        )

    def conditions(self, places: tuple[str, ...]) -> str:
        """One condition or more that rules at the place may have."""
        kinds: dict[str, Callable[[], str]] = {
            "family": lambda: self.pick(("ipv4", "ipv6")),
            "source port": lambda: f"source port {self.port_list()}",
            "dscp": lambda: f"dscp {self.list_of(lambda: self.pick(DSCPS), 2)}",
            "size": lambda: f"size {self.list_of(lambda: self.pick(SIZES), 2)}",
            "mark": lambda: f"mark {self.pick(MARKS)}",
            "during": lambda: f"during {self.pick(HOURS)}",
            "until": lambda: f"until {self.pick(LAST_DAYS)}",
            "limit": lambda: f"limit {self.pick(('', 'over '))}{self.pick(RATES)}",
            "max": lambda: f"{self.pick(('max', 'over'))} {self.pick(CONNECTIONS)}",
        }
        own = [p for p in places if p.startswith("outbound") or p.startswith("from self to ")]
        if own:
            kinds["user"] = lambda: f"user {self.pick(USERS)}"
            kinds["group"] = lambda: f"group {self.pick(GROUPS_OF_USERS)}"
        elif places and not any("from self" in p for p in places):
            kinds["mac"] = lambda: f"mac {self.list_of(lambda: self.pick(SENDERS), 3)}"
            kinds["ipsec"] = lambda: "ipsec"
        count = self.random.choice((1, 1, 1, 2, 3))
        chosen = self.random.sample(sorted(kinds), min(count, len(kinds)))
        if "ipsec" in chosen and len(chosen) > 1:
            chosen.remove("ipsec")  # and behind another one, for `to lan except ipsec` is an end
            kinds["not ipsec"] = lambda: self.pick(("ipsec", "except ipsec"))
            chosen.append("not ipsec")
        return "".join(f" {kinds[kind]()}" for kind in chosen)

    def what(self) -> str:
        return "all" if self.chance(0.12) else self.list_of(self.what_element, 4)

    def what_element(self) -> str:
        return self.service_name() if self.chance(0.45) else self.traffic_item()

    def answer(self, verb: str) -> str:
        return f" with {self.pick(ANSWERS)}" if verb == "reject" and self.chance(0.5) else ""

    # --- translations -----------------------------------------------------------------------

    def scatter(self, lines: list[str]) -> None:
        """Put translations among the statements."""
        first = next((n for n, line in enumerate(lines) if line.startswith(VERBS)), len(lines))
        for _ in range(self.random.randint(1, 5)):
            lines.insert(self.random.randint(first, len(lines)), self.translation())

    def translation(self) -> str:
        kind = self.random.random()
        if kind < 0.4:
            return self.port_forward()
        if kind < 0.6:
            place = f"from {self.end()} to {self.met()}" if self.chance(0.7) else "inbound"
            what, port = self.ported()
            new = port or f" port {self.random.choice(NOTED_PORTS)}"
            conditions = self.translated_conditions((place,))
            return f"redirect {what} {place}{new}{conditions}"
        if kind < 0.68:
            prefixes = self.prefixes()
            mark = f" mark {self.pick(MARKS)}" if self.chance(0.1) else ""
            return f"netmap {prefixes[0]} to {prefixes[1]} on {self.pick(self.zones)}{mark}"
        if kind < 0.76:
            what = self.pick(("http", "dns", "tcp 80-443", "udp 53", "protocol tcp, udp"))
            to = f" to {self.destination()}" if self.chance(0.5) else ""
            source = self.end()
            conditions = self.translated_conditions((f"from {source} to any",))
            return f"tproxy {what} from {source}{to} port 3129{conditions}"
        return self.source_translation()

    def port_forward(self) -> str:
        what, port = (self.what(), "") if self.chance(0.3) else self.ported()
        if port == "" and not self.chance(0.5) and not what.startswith("all"):
            port = f" port {self.random.choice(NOTED_PORTS)}"
        source = self.end()
        at = f" at {self.met()}" if self.chance(0.4) else ""
        targets = self.list_of(self.target, 3)
        by_source = " by source" if self.chance(0.2) else ""
        hairpin = " hairpin" if self.chance(0.3) else ""
        conditions = self.translated_conditions((f"from {source} to any",))
        return f"dnat {what} from {source}{at} to {targets}{by_source}{port}{hairpin}{conditions}"

    def ported(self) -> tuple[str, str]:
        """What has ports, and as many new ones now and then."""
        if self.chance(0.3):
            old, new = (self.random.randint(1, 65000) for _ in range(2))
            count = self.random.randint(1, 4)
            return f"tcp {old}-{old + count}", f" port {new}-{new + count}"
        kind = self.pick(("tcp", "udp", "http", "ftp", "tftp", "dns"))
        return (f"{kind} {self.port_list()}" if kind in ("tcp", "udp") else kind), ""

    def target(self) -> str:
        """A few addresses of other machines."""
        point = self.random.choice(self.points)
        return str(point) if self.chance(0.7) else f"{point}-{point + self.random.randint(1, 9)}"

    def prefixes(self) -> tuple[str, str]:
        point = self.random.choice(self.points)
        same = [p for p in (*self.points, self.point()) if p.version == point.version]
        length = self.random.randint(24, 32) if point.version == 4 else self.random.randint(60, 128)
        other = self.random.choice(same)
        outer, inner = (ip_network(f"{p}/{length}", strict=False) for p in (point, other))
        return str(outer), str(inner)

    def source_translation(self) -> str:
        what = f"{self.what()} " if self.chance(0.4) else ""
        place = f"from {self.end()} to {self.met()}"
        port = f" port {self.pick(('1024-2048', '20000-30000'))}" if self.chance(0.2) else ""
        random = " random" if self.chance(0.2) else ""
        if self.chance(0.5):
            return f"masquerade {what}{place}{port}{random}{self.translated_conditions((place,))}"
        addresses = self.list_of(self.target, 2)
        conditions = self.translated_conditions((place,))
        return f"snat {what}{place} as {addresses}{port}{random}{conditions}"

    def met(self) -> str:
        """An end that is no group, and where packets do not come from."""
        while "ipsec" in (end := self.end()):
            pass
        return end

    def translated_conditions(self, places: tuple[str, ...]) -> str:
        if not self.chance(0.3):
            return ""
        conditions = self.conditions(places)
        return "" if " limit " in conditions or " connections" in conditions else conditions

    # --- places -----------------------------------------------------------------------------

    def place(self) -> str:
        """A place that says both ends."""
        kind = self.random.random()
        if kind < 0.1:
            return "inbound"
        if kind < 0.27:
            return f"inbound from {self.end()}"
        if kind < 0.37:
            return f"inbound to {self.destination()}"
        if kind < 0.42:
            return f"inbound from {self.end()} to {self.destination()}"
        if kind < 0.46:
            return "outbound"
        if kind < 0.58:
            return f"outbound to {self.destination()}"
        return f"from {self.end()} to {self.destination()}"

    def partial_place(self) -> str:
        """A place within a block that says both ends already."""
        kind = self.random.random()
        if kind < 0.4:
            return ""
        if kind < 0.65:
            return f"from {self.end()}"
        if kind < 0.85:
            return f"to {self.destination()}"
        if kind < 0.9:
            return self.pick(("inbound", "outbound"))
        return f"from {self.end()} to {self.destination()}"

    def end(self) -> str:
        return self.end_list(groups=False)

    def destination(self) -> str:
        return self.end_list(groups=True)

    def end_list(self, *, groups: bool) -> str:
        text = self.list_of(lambda: self.end_element(groups=groups), 4)
        if self.chance(0.2):
            exceptions = self.list_of(lambda: self.end_element(groups=groups), 2)
            if exceptions not in ("any", text):
                text += f" except {exceptions}"
        return text

    def end_element(self, *, groups: bool) -> str:
        kind = self.random.random()
        if kind < 0.1:
            return "any"
        if kind < 0.18:
            return "self"
        if groups and self.translates and kind < 0.22:
            ports = f" {self.port()}" if self.chance(0.4) else ""
            at = f" at {self.address()}" if self.chance(0.3) else ""
            return f"published{ports}{at}"
        if groups and kind < 0.26:
            element = self.pick(("broadcast", "multicast"))
        elif kind < 0.28:
            element = self.pick(SUFFIXES)
        elif kind < 0.36 and self.dynamic_sets:
            element = self.pick(self.dynamic_sets)
        elif not groups and kind < 0.38:
            element = "ipsec"
        elif kind < 0.6:
            element = self.pick(self.zones)
        elif kind < 0.8 and self.address_sets:
            element = self.pick(self.address_sets)
        else:
            element = self.address()
        if self.chance(0.12):
            element += f" in {self.pick(self.zones)}"
        return element
