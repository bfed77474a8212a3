"""Rules as they are written for nft, and the lines that a reader is to make of each."""

from __future__ import annotations

from datetime import date
from fractions import Fraction

from policylang.analysis.machine import (
    Act,
    AddTo,
    Condition,
    ConnectionMarkIs,
    ConnectionsHold,
    CopyMark,
    Goto,
    InSet,
    Line,
    MarkIs,
    MaskIs,
    NotAfter,
    Obscure,
    OwnerIs,
    Per,
    RateHolds,
    Return,
    Unknown,
    WeekTimeIs,
)
from policylang.ir import actions as ir
from policylang.ir.actions import Accept, Answer, Drop, End, Jump
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import ICMP, TCP, UDP, Field, State
from policylang.packets.values import Ranges, name_range, parse_address, parse_one_address


def among(**terms: object) -> Cube:
    """The cube of fields by their names: a number, a text as nft has it, or ranges."""
    return Cube.of({Field[key]: _values(said) for key, said in terms.items()})


def _values(said: object) -> Ranges:
    match said:
        case Ranges():
            return said
        case int(number):
            return Ranges.of(number)
        case str(text) if (pair := parse_address(text)) is not None:
            return Ranges((pair,))
        case str(text):
            return Ranges((name_range(text),))
    raise AssertionError(said)


def address(text: str) -> int:
    found = parse_one_address(text)
    assert found is not None
    return found


def line(cube: Cube, act: Act, *conditions: Condition) -> Line:
    return Line((cube,), act, conditions)


def holds(question: object, answer: bool = True) -> Condition:
    return Condition(question, answer)  # type: ignore[arg-type]


ANY = EVERYTHING
FULL = (1 << 32) - 1
V4, V6 = among(FAMILY=4), among(FAMILY=6)
OF_TCP, OF_UDP = among(L4PROTO=TCP), among(L4PROTO=UDP)
PORTED = Ranges.of(6, 17, 33, 132)
TRACKED = among(CT_STATE=Ranges.of(State.NEW, State.ESTABLISHED, State.RELATED))
SSH = among(L4PROTO=TCP, DPORT=22)
DAY_S = 86_400
EVERY_DAY = range(0, 7 * DAY_S, DAY_S)


def rate(
    per_s: Fraction | int, burst: int = 5, per: Per | None = None, family: int | None = None
) -> RateHolds:
    return RateHolds(Fraction(per_s), burst, per, family)


def to(text: str, port: int | None = None, *, by_source: bool = False) -> ir.DestinationNat:
    return ir.DestinationNat(_values(text), port, by_source)


def week(*pairs: tuple[int, int]) -> WeekTimeIs:
    return WeekTimeIs(Ranges.merged((day + a, day + b) for day in EVERY_DAY for a, b in pairs))


TABLE = """
table inet t {
	ct helper ftp-std { type "ftp" protocol tcp; l3proto inet; }
	ct helper ftp-v4 { type "ftp" protocol tcp; l3proto ip; }
	limit few { rate 10/minute burst 3 packets; }
	set once { type ipv4_addr; size 100; flags dynamic,timeout; timeout 5m; }
	set kept { type ipv4_addr; size 100; flags dynamic; }
	set twos_by_port { type inet_service . ipv4_addr; flags timeout; }
	set pairs { type ipv4_addr . inet_service; flags dynamic; }
	set twos { type ipv4_addr . inet_service; flags dynamic; }
	map ports { type inet_service : ipv4_addr . inet_service; elements = { 80 : 192.0.2.7 . 8080 } }
	map verdicts { type ipv4_addr : verdict; flags interval; elements = { 192.0.2.0/24 : accept, * : drop } }
	map grown { type ipv4_addr : mark; flags dynamic; }
	set metered { type ipv4_addr; flags dynamic; limit rate 5/minute; elements = { 192.0.2.7 limit rate 5/minute } }
	map marks { type ipv4_addr : mark; elements = { 192.0.2.7 : 0x7 } }
	chain sub {
		return
	}
	chain to { type nat hook prerouting priority dstnat; }
	chain from { type nat hook postrouting priority srcnat; }
	chain raw { type filter hook prerouting priority raw; }
	chain mangle { type filter hook prerouting priority mangle; }
	chain input { type filter hook input priority filter; }
	chain onward { type filter hook forward priority filter; }
	chain out { type filter hook output priority filter; }
}
"""  # noqa: E501 (as nft takes it)

# The chain, the rule, and the lines that it is read as; a rule is put there by itself.

# nft 1.0.6 lists it in its own words, for it has no JSON for what is put into a map.
_GROWS = "update @grown { ip saddr : 0x00000005 }"
GROWN = (line(ANY, Obscure(_GROWS, may_decide=True), holds(Unknown(_GROWS))),)
# A mark of which nobody knows any bit.
_SETS = "bit {:#x} of what comes of: ct mark set ip saddr map @grown"
FREED: tuple[tuple[Act, tuple[Condition, ...]], ...] = (
    (ir.SetConnectionMark(0, FULL), ()),
    *(
        (ir.SetConnectionMark(bit, bit), (holds(Unknown(_SETS.format(bit))),))
        for bit in (1 << n for n in range(32))
    ),
)

RULES: tuple[tuple[str, str, tuple[Line, ...]], ...] = (
    ("input", "accept", (line(ANY, Accept()),)),
    ("input", "counter drop", (line(ANY, Drop()),)),
    ("input", "jump sub", (line(ANY, Jump("inet t sub")),)),
    ("input", "tcp dport 22 goto sub", (line(SSH, Goto("inet t sub")),)),
    ("input", "return", (line(ANY, Return()),)),
    ("input", "continue", ()),
    ("input", "tcp dport 22 counter", ()),
    # verdict maps
    (
        "input",
        "tcp dport vmap { 22 : accept, 80-90 : drop, 53 : jump sub, 54 : continue }",
        (
            line(SSH, Accept()),
            line(among(L4PROTO=TCP, DPORT=53), Jump("inet t sub")),
            line(among(L4PROTO=TCP, DPORT=Ranges.between(80, 90)), Drop()),
        ),
    ),
    (
        "input",
        "ip saddr vmap @verdicts",
        (
            line(among(SADDR="192.0.2.0/24"), Accept()),
            line(among(SADDR=_values("0.0.0.0/0") - _values("192.0.2.0/24")), Drop()),
        ),
    ),
    (
        "input",
        "ct state vmap { established : accept, related : accept, invalid : drop }",
        (
            line(among(CT_STATE=int(State.INVALID)), Drop()),
            line(among(CT_STATE=Ranges.of(State.ESTABLISHED, State.RELATED)), Accept()),
        ),
    ),
    (
        "input",
        "numgen inc mod 2 vmap { 0 : accept, 1 : drop }",
        (
            line(ANY, Accept(), holds(Unknown("numgen inc mod 2 { 0 }"))),
            line(ANY, Drop(), holds(Unknown("numgen inc mod 2 { 1 }"))),
        ),
    ),
    # rejects
    ("input", "reject", (line(ANY, ir.Reject(Answer.PORT_UNREACHABLE)),)),
    (
        "input",
        "reject with icmpx host-unreachable",
        (line(ANY, ir.Reject(Answer.HOST_UNREACHABLE)),),
    ),
    ("input", "reject with icmpx no-route", (line(ANY, ir.Reject(Answer.NET_UNREACHABLE)),)),
    (
        "input",
        "reject with icmpx admin-prohibited",
        (line(ANY, ir.Reject(Answer.ADMIN_PROHIBITED)),),
    ),
    ("input", "reject with icmp net-unreachable", (line(V4, ir.Reject(Answer.NET_UNREACHABLE)),)),
    (
        "input",
        "reject with icmpv6 addr-unreachable",
        (line(V6, ir.Reject(Answer.HOST_UNREACHABLE)),),
    ),
    ("input", "reject with tcp reset", (line(OF_TCP, ir.Reject(Answer.TCP_RESET)),)),
    (
        "input",
        "reject with icmp host-prohibited",
        (
            line(V4, Obscure("reject with icmp host-prohibited", may_decide=False)),
            line(V4, Drop()),
        ),
    ),
    # logs
    ("input", "log", (line(ANY, ir.Log("")),)),
    ("input", 'log prefix "a b" level info flags all', (line(ANY, ir.Log("a b", "info")),)),
    ("input", 'log prefix "x" group 5 snaplen 5', (line(ANY, ir.Log("x", None, 5)),)),
    (
        "input",
        'iifname "lo" log prefix "x" tcp dport 22 accept',
        (
            line(among(IIF="lo"), ir.Log("x")),
            line(among(IIF="lo") & SSH, Accept()),
        ),
    ),
    # rates and counts
    ("input", "limit rate 10/second accept", (line(ANY, Accept(), holds(rate(10))),)),
    (
        "input",
        "meta nfproto ipv6 limit rate over 10/minute burst 20 packets drop",
        (line(V6, Drop(), holds(rate(Fraction(1, 6), 20, None, 6), False)),),
    ),
    ("input", "limit name few accept", (line(ANY, Accept(), holds(rate(Fraction(1, 6), 3))),)),
    (
        "input",
        "tcp dport 22 limit rate 1/hour log accept",
        (
            line(SSH, ir.Log(""), holds(rate(Fraction(1, 3600)))),
            line(SSH, Accept(), holds(rate(Fraction(1, 3600)))),
        ),
    ),
    (
        "input",
        "limit rate over 10 mbytes/second drop",
        (line(ANY, Drop(), holds(Unknown("limit rate 10 mbytes/second"), False)),),
    ),
    (
        "input",
        "ct count over 10 drop",
        (line(ANY, Drop(), holds(ConnectionsHold(10, None, None), False)),),
    ),
    (
        "input",
        "update @kept { ip saddr limit rate 5/second } accept",
        (line(V4, Accept(), holds(rate(5, 5, Per(End.SOURCE, 32), 4))),),
    ),
    (
        "input",
        "update @once { ip daddr & 255.255.255.0 limit rate over 5/minute burst 9 packets } drop",
        (line(V4, Drop(), holds(rate(Fraction(1, 12), 9, Per(End.DESTINATION, 24), 4), False)),),
    ),
    (
        "input",
        "add @kept { ip saddr ct count over 5 } drop",
        (line(V4, Drop(), holds(ConnectionsHold(5, Per(End.SOURCE, 32), 4), False)),),
    ),
    (
        "input",
        "meter m { ip6 saddr & ffff:ffff:ffff:: timeout 5s limit rate 5/second } accept",
        (line(V6, Accept(), holds(rate(5, 5, Per(End.SOURCE, 48), 6))),),
    ),
    (
        "input",
        "update @twos { ip saddr . tcp dport limit rate 5/second } accept",
        (line(V4 & OF_TCP, Accept(), holds(Unknown("ip saddr . tcp dport limit rate 5/second"))),),
    ),
    (
        "input",
        "quota over 5 mbytes drop",
        (line(ANY, Drop(), holds(Unknown("quota 5 mbytes"), False)),),
    ),
    # sets
    ("input", "add @kept { ip saddr }", (line(V4, AddTo("kept", (Field.SADDR,), None)),)),
    (
        "input",
        "update @once { ip daddr timeout 1m } accept",
        (line(V4, AddTo("once", (Field.DADDR,), 60)), line(V4, Accept())),
    ),
    (
        "input",
        "update @pairs { ip saddr . tcp dport }",
        (line(V4 & OF_TCP, AddTo("pairs", (Field.SADDR, Field.DPORT), None)),),
    ),
    (
        "input",
        "delete @kept { ip saddr }",
        (line(V4, Obscure("delete @kept { ip saddr }", may_decide=False)),),
    ),
    (
        "input",
        "ip saddr . tcp dport != @pairs drop",
        (line(V4 & OF_TCP, Drop(), holds(InSet("pairs", (Field.SADDR, Field.DPORT)), False)),),
    ),
    # translations
    ("to", "dnat ip to 192.0.2.7", (line(V4, to("192.0.2.7")),)),
    ("to", "dnat ip to 192.0.2.7 persistent", (line(V4, to("192.0.2.7")),)),
    (
        "to",
        "tcp dport 80 dnat ip6 to [2001:db8::7]:8080",
        (line(V6 & among(L4PROTO=TCP, DPORT=80), to("2001:db8::7", 8080)),),
    ),
    (
        "to",
        "dnat ip to 192.0.2.8-192.0.2.9 persistent",
        (line(V4, to("192.0.2.8/31", by_source=True)),),
    ),
    ("to", "dnat ip to 192.0.2.8-192.0.2.9", (line(V4, to("192.0.2.8/31")),)),
    (
        "to",
        "dnat ip to numgen inc mod 2 map { 0 : 192.0.2.8, 1 : 192.0.2.9 }",
        (line(V4, to("192.0.2.8/31")),),
    ),
    (
        "to",
        "meta l4proto tcp dnat ip to jhash ip saddr mod 2 seed 0x1"
        " map { 0 : 192.0.2.8, 1 : 192.0.2.9 }:80",
        (line(V4 & OF_TCP, to("192.0.2.8/31", 80, by_source=True)),),
    ),
    (
        "to",
        "dnat ip to numgen inc mod 3 map { 0 : 192.0.2.8, 1 : 192.0.2.9 }",
        (
            line(
                V4,
                Obscure(
                    "dnat family ip addr numgen inc mod 3 map { 0 : 192.0.2.8, 1 : 192.0.2.9 }",
                    may_decide=True,
                ),
            ),
        ),
    ),
    (
        "to",
        "dnat ip to tcp dport map { 80 : 192.0.2.7, 443 : 192.0.2.8 }",
        (
            line(V4 & among(L4PROTO=TCP, DPORT=80), to("192.0.2.7")),
            line(V4 & among(L4PROTO=TCP, DPORT=443), to("192.0.2.8")),
        ),
    ),
    (
        "to",
        "dnat ip to tcp dport map @ports",
        (line(V4 & among(L4PROTO=TCP, DPORT=80), to("192.0.2.7", 8080)),),
    ),
    (
        "to",
        "ip daddr 198.51.100.0/24 dnat ip prefix to 192.0.2.0/24",
        (
            line(
                among(DADDR="198.51.100.0/24"),
                ir.MapPrefix(End.DESTINATION, (address("192.0.2.0"), address("192.0.2.255"))),
            ),
        ),
    ),
    (
        "to",
        "tcp dport 80 redirect to :8080",
        (line(among(L4PROTO=TCP, DPORT=80), ir.RedirectToSelf(8080)),),
    ),
    ("to", "redirect", (line(ANY, Obscure("redirect", may_decide=True)),)),
    ("from", "masquerade", (line(ANY, ir.Masquerade()),)),
    (
        "from",
        "meta l4proto tcp masquerade to :1024-2047 fully-random",
        (line(OF_TCP, ir.Masquerade((1024, 2047), is_random=True)),),
    ),
    (
        "from",
        "snat ip to 192.0.2.8-192.0.2.9 random,persistent",
        (
            line(
                V4,
                ir.SourceNat(
                    (address("192.0.2.8"), address("192.0.2.9")),
                    is_random=True,
                    is_persistent=True,
                ),
            ),
        ),
    ),
    (
        "from",
        "snat ip6 prefix to 2001:db8:1::/64",
        (
            line(
                V6,
                ir.MapPrefix(
                    End.SOURCE,
                    (address("2001:db8:1::"), address("2001:db8:1:0:ffff:ffff:ffff:ffff")),
                ),
            ),
        ),
    ),
    # marks and what else is written
    ("mangle", "meta mark set 0x5", (line(ANY, ir.SetMark(5, FULL)),)),
    ("mangle", "meta mark set meta mark and 0xfffffff0 or 0x3", (line(ANY, ir.SetMark(3, 0xF)),)),
    (
        "mangle",
        "ct mark set ct mark or 0x1 accept",
        (line(ANY, ir.SetConnectionMark(1, 1)), line(ANY, Accept())),
    ),
    ("mangle", "meta mark set ct mark", (line(TRACKED, CopyMark(False, FULL)),)),
    (
        "mangle",
        "ct mark set meta mark and 0xff",
        (line(ANY, CopyMark(True, 0xFF)), line(ANY, ir.SetConnectionMark(0, 0xFFFFFF00))),
    ),
    (
        "mangle",
        "meta mark set ip saddr map @marks",
        (line(among(SADDR="192.0.2.7"), ir.SetMark(7, FULL)),),
    ),
    ("mangle", "update @grown { ip saddr : 0x5 }", GROWN),
    (
        "mangle",
        "ct mark set ip saddr map @grown",
        (
            line(
                ANY,
                Obscure("ct mark set ip saddr map @grown", may_decide=False),
                holds(Unknown("there is a value: ct mark set ip saddr map @grown")),
            ),
            *(
                line(
                    ANY,
                    act,
                    holds(Unknown("there is a value: ct mark set ip saddr map @grown")),
                    *bit,
                )
                for act, bit in FREED
            ),
        ),
    ),
    (
        "mangle",
        "ip daddr set 192.0.2.7",
        (line(V4, Obscure("ip daddr set 192.0.2.7", may_decide=True)),),
    ),
    ("mangle", "ip dscp set ef", (line(V4, ir.SetDscp(46)),)),
    ("mangle", "ip6 dscp set cs1", (line(V6, ir.SetDscp(8)),)),
    ("mangle", "ip ttl set 5", (line(V4, Obscure("ip ttl set 5", may_decide=False)),)),
    (
        "mangle",
        "tcp flags syn tcp option maxseg size set 1300",
        (line(among(TCP_FLAGS=Ranges.of(*(n for n in range(256) if n & 2))), ir.ClampMss(1300)),),
    ),
    ("onward", "tcp option maxseg size set rt mtu", (line(OF_TCP, ir.ClampMss(None)),)),
    # conntrack
    (
        "mangle",
        "tcp dport 21 ct helper set ftp-std accept",
        (
            line(among(L4PROTO=TCP, DPORT=21), ir.AssignHelper("ftp", TCP)),
            line(among(L4PROTO=TCP, DPORT=21), Accept()),
        ),
    ),
    ("mangle", "ct helper set ftp-v4", (line(V4 & OF_TCP, ir.AssignHelper("ftp", TCP)),)),
    (
        "raw",
        "ct helper set ftp-std",
        (line(ANY, Obscure("ct helper set ftp-std", may_decide=False)),),
    ),
    ("raw", "tcp dport 22 notrack accept", (line(SSH, ir.Untrack()), line(SSH, Accept()))),
    (
        "mangle",
        "tcp dport 22 notrack accept",
        (line(SSH & among(CT_STATE=int(State.INVALID)), ir.Untrack()), line(SSH, Accept())),
    ),
    # proxies
    (
        "mangle",
        "tcp dport 80 tproxy to :8080 meta mark set 0x1 accept",
        (
            line(
                among(L4PROTO=TCP, DPORT=80),
                ir.TransparentProxy(8080, TCP, 1, FULL),
                holds(Unknown("a transparent socket listens on port 8080")),
            ),
        ),
    ),
    (
        "mangle",
        "tcp dport 80 tproxy to :8080",
        (
            line(
                among(L4PROTO=TCP, DPORT=80),
                Obscure("tproxy port 8080", may_decide=True),
                holds(Unknown("tproxy port 8080")),
            ),
        ),
    ),
    (
        "mangle",
        "meta l4proto tcp tproxy to :tcp dport map { 1 : 2, 3 : 4 } accept",
        (
            line(
                OF_TCP,
                Obscure("tproxy port tcp dport map { 1 : 2, 3 : 4 }", may_decide=True),
                holds(Unknown("tproxy port tcp dport map { 1 : 2, 3 : 4 }")),
            ),
            line(OF_TCP, Accept(), holds(Unknown("tproxy port tcp dport map { 1 : 2, 3 : 4 }"))),
        ),
    ),
    ("input", "synproxy mss 1460", (line(OF_TCP, Obscure("synproxy mss 1460", may_decide=True)),)),
    # what is no field
    (
        "input",
        "ip saddr @metered accept",
        (line(ANY, Accept(), holds(Unknown("ip saddr @metered"))),),
    ),
    ("input", "ct label 5 accept", (line(TRACKED, Accept(), holds(Unknown("ct label in 5"))),)),
    ("input", "ct label == 5 accept", (line(TRACKED, Accept(), holds(Unknown("ct label 5"))),)),
    (
        "input",
        "exthdr frag exists accept",
        (line(V6, Accept(), holds(Unknown("exthdr frag exists"))),),
    ),
    (
        "input",
        "exthdr frag missing accept",
        (line(V6, Accept(), holds(Unknown("exthdr frag exists"), False)),),
    ),
    (
        "input",
        "exthdr frag != missing accept",
        (line(V6, Accept(), holds(Unknown("exthdr frag exists"))),),
    ),
    (
        "input",
        "th dport . ip saddr @twos_by_port accept",
        (
            line(
                V4 & among(L4PROTO=PORTED),
                Accept(),
                holds(InSet("twos_by_port", (Field.DPORT, Field.SADDR))),
            ),
            line(
                V4 & among(L4PROTO=Ranges.between(0, 255) - PORTED),
                Accept(),
                holds(Unknown("th dport . ip saddr @twos_by_port (no ports)")),
            ),
        ),
    ),
    ("input", "meta mark 0x5 accept", (line(ANY, Accept(), holds(MarkIs(5, FULL))),)),
    ("input", "meta mark != 0x5 accept", (line(ANY, Accept(), holds(MarkIs(5, FULL), False)),)),
    (
        "input",
        "meta mark & 0xff000000 == 0x10000000 accept",
        (line(ANY, Accept(), holds(MarkIs(0x10000000, 0xFF000000))),),
    ),
    (
        "input",
        "meta mark { 0x1, 0x8-0xb } accept",
        (
            line(ANY, Accept(), holds(MarkIs(1, FULL))),
            line(ANY, Accept(), holds(MarkIs(8, 0xFFFFFFFC))),
        ),
    ),
    (
        "input",
        "ct mark & 0xff == 0x1 accept",
        (line(TRACKED, Accept(), holds(ConnectionMarkIs(1, 0xFF))),),
    ),
    (
        "out",
        "meta skuid { 0, 1000-2000 } accept",
        (line(ANY, Accept(), holds(OwnerIs("user", Ranges(((0, 0), (1000, 2000)))))),),
    ),
    (
        "out",
        "meta skgid != 5 accept",
        (line(ANY, Accept(), holds(OwnerIs("group", Ranges(((0, 4), (6, FULL)))))),),
    ),
    (
        "input",
        'meta hour "08:00"-"16:59:59" accept',
        (line(ANY, Accept(), holds(week((28_800, 61_199)))),),
    ),
    (
        "input",
        'meta day { "Monday", "Sunday" } meta hour 0-3599 accept',
        (
            line(
                ANY,
                Accept(),
                holds(WeekTimeIs(Ranges(((0, 3599), (6 * DAY_S, 6 * DAY_S + 3599))))),
            ),
        ),
    ),
    (
        "input",
        'meta time < "2030-01-01 00:00:00" accept',
        (line(ANY, Accept(), holds(NotAfter(date(2029, 12, 31), False))),),
    ),
    (
        "input",
        'meta time >= "2030-01-01 00:00:00" accept',
        (line(ANY, Accept(), holds(NotAfter(date(2029, 12, 31), False), False)),),
    ),
    (
        "input",
        'meta time < "2030-01-01 10:00:00" accept',
        (line(ANY, Accept(), holds(Unknown("meta time < 2030-01-01 10:00:00"))),),
    ),
    (
        "input",
        "ip6 saddr & ::ffff:ffff:ffff:ffff == ::1 accept",
        (line(V6, Accept(), holds(MaskIs(Field.SADDR, 1, (1 << 64) - 1))),),
    ),
    ("input", "ct status snat drop", (line(TRACKED, Drop(), holds(Unknown("ct status snat"))),)),
    (
        "input",
        "ct status != dnat drop",
        (line(TRACKED, Drop(), holds(Unknown("ct status dnat"), False)),),
    ),
    (
        "input",
        "th dport 53 drop",
        (
            line(among(L4PROTO=PORTED, DPORT=53), Drop()),
            line(
                among(L4PROTO=Ranges.between(0, 255) - PORTED),
                Drop(),
                holds(Unknown("th dport 53 (no ports)")),
            ),
        ),
    ),
    (
        "input",
        "ip6 nexthdr tcp drop",
        (
            line(
                V6 & OF_TCP,
                Drop(),
                holds(Unknown("no extension header stands before the transport header")),
            ),
        ),
    ),
    # what is not understood is asked for, of the packets that have it
    ("input", "ip ttl 1 drop", (line(V4, Drop(), holds(Unknown("ip ttl 1"))),)),
    (
        "input",
        "icmp code != 3 drop",
        (
            line(
                V4 & among(L4PROTO=ICMP),
                Drop(),
                holds(Unknown("icmp code port-unreachable"), False),
            ),
        ),
    ),
    ("input", "udp length 5 drop", (line(OF_UDP, Drop(), holds(Unknown("udp length 5"))),)),
    (
        "input",
        "rt type 0 drop",
        (line(V6 & among(SOURCE_ROUTED=1), Drop(), holds(Unknown("exthdr rt type 0"))),),
    ),
    ("input", "frag id 1 drop", (line(V6, Drop(), holds(Unknown("exthdr frag id 1"))),)),
    (
        "input",
        "tcp option sack missing drop",
        (line(ANY, Drop(), holds(Unknown("tcp option sack exists"), False)),),
    ),
    (
        "input",
        "tcp option maxseg size < 500 drop",
        (line(OF_TCP, Drop(), holds(Unknown("tcp option maxseg size < 500"))),),
    ),
    ("input", "ct expiration 5s drop", (line(TRACKED, Drop(), holds(Unknown("ct expiration 5"))),)),
    ("input", "ct zone 5 drop", (line(TRACKED, Drop(), holds(Unknown("ct zone 5"))),)),
    (
        "input",
        "meta pkttype broadcast drop",
        (line(ANY, Drop(), holds(Unknown("meta pkttype broadcast"))),),
    ),
    (
        "input",
        "socket transparent 1 drop",
        (line(ANY, Drop(), holds(Unknown("socket transparent 1"))),),
    ),
    (
        "input",
        "fib saddr . mark . iif oif missing drop",
        (line(ANY, Drop(), holds(Unknown("fib saddr . mark . iif oif exists"), False)),),
    ),
    (
        "input",
        "ip saddr . ip id { 192.0.2.7 . 5 } drop",
        (line(V4, Drop(), holds(Unknown("ip saddr . ip id { 192.0.2.7 . 5 }"))),),
    ),
    (
        "input",
        "dccp type request drop",
        (line(among(L4PROTO=33), Drop(), holds(Unknown("dccp type request"))),),
    ),
    # what nft misprints, and so nobody can know
    (
        "input",
        "iifname . meta length { lo . 41-99 } drop",
        (line(ANY, Drop(), holds(Unknown("iifname . meta length { lo . 0 }"))),),
    ),
    (
        "input",
        "ip dscp . tcp dport { cs1 . 22 } drop",
        (line(V4 & OF_TCP, Drop(), holds(Unknown("ip dscp >> 2 . tcp dport { cs1 . 22 }"))),),
    ),
    (
        "input",
        "ip6 dscp . tcp dport { cs1 . 22 } drop",
        (line(V6 & OF_TCP, Drop(), holds(Unknown("ip6 dscp >> 6 . tcp dport { cs0 . 22 }"))),),
    ),
    # a side without an interface has an empty name
    ("input", 'oifname != "eth0" accept', (line(ANY, Accept()),)),
    ("input", 'oifname "eth0" accept', ()),
    ("out", 'iifname "lo" accept', ()),
    ("mangle", "iif 0 accept", (line(among(IIF=0), Accept()),)),
)
