"""Texts of iptables and ipset are read as the kernel takes them, and nothing in them is guessed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from policylang.analysis.machine import (
    Act,
    AddTo,
    CgroupIs,
    Condition,
    ConnectionMarkIs,
    ConnectionsHold,
    CopyMark,
    Goto,
    Hook,
    InSet,
    Line,
    Machine,
    MarkIs,
    MaskIs,
    NotAfter,
    Obscure,
    OwnerIs,
    Per,
    Question,
    RateHolds,
    Return,
    Unknown,
    WeekTimeIs,
)
from policylang.analysis.reading_iptables import read_iptables
from policylang.analysis.unreadable import UnreadableError
from policylang.ir import actions as ir
from policylang.ir.actions import Answer, End
from policylang.packets.cube import Cube
from policylang.packets.fields import ADDRESS_FIELDS, FAMILY_ADDRESSES, UNIVERSE, Field, with_flags
from policylang.packets.values import Ranges, name_range, parse_address
from tests.analysis import foreign_rules
from tests.analysis.foreign_rules import RULESETS, Foreign, Judge, Shot
from tests.differential.campaign import Range, _must_be_answered, shooting_range
from tests.differential.loading import Way
from tests.kernel.ground import Namespace, obstacle

REPOSITORY = Path(__file__).resolve().parents[2]
WRITTEN = sorted(
    path.parent
    for folder in ("tests/golden", "examples")
    for path in (REPOSITORY / folder).glob("*/iptables/rules.v4")
)
LOADED = ("answers-from-elsewhere", "conditions", "dnat-balance", "host-rules", "kiosk", "mark",
          "protect", "rates-and-counts", "suffixes-and-ipsec", "three-zones",
          "transparent-proxy")  # fmt: skip

# What is no field and no question in what we write ourselves.
NATIVE = {"-m tcpmss --mss 1:499"}
OWNERS = {
    ("user", "root"): 0,
    ("user", "_apt"): 42,
    ("user", "mail"): 8,
    ("group", "mail"): 8,
    ("user", "proxy"): 13,
}

IPSETS = """
create hosts hash:ip family inet hashsize 64 maxelem 65536
add hosts 192.0.2.1
add hosts 192.0.2.2
create six hash:net family inet6 hashsize 64 maxelem 65536
add six 2001:db8::/32
create banned hash:ip family inet timeout 0
create seen hash:ip family inet
create ports bitmap:port range 0-65535
add ports 22
create asked bitmap:port range 0-65535 timeout 60
create cards hash:mac
add cards 02:00:00:00:00:01
create pairs hash:ip,port family inet timeout 60
create ways hash:net,iface family inet timeout 60
create both hash:ip,port family inet
add both 192.0.2.1,tcp:22
add both 192.0.2.2,tcp:22
add both 192.0.2.2,udp:53
create bare hash:ip,port family inet
add bare 192.0.2.1,443
create marked hash:ip,mark family inet
create types hash:ip,port family inet
add types 192.0.2.1,icmp:8/0
"""


def terms(family: int, **said: str | int | Ranges) -> Cube:
    """A cube in few words: `saddr="192.0.2.0/24"`, `dport="!22,80-90"`, `iif="eth*"`."""
    found: dict[Field, Ranges] = {}
    for name, text in said.items():
        f = Field[{"proto": "l4proto", "state": "ct_state"}.get(name, name).upper()]
        found[f] = text if isinstance(text, Ranges) else _values(f, str(text), family)
    return Cube.of(found)


def _values(f: Field, text: str, family: int) -> Ranges:
    pairs = []
    for word in text.removeprefix("!").split(","):
        if f in ADDRESS_FIELDS:
            pair = parse_address(word)
            assert pair is not None
        elif f in (Field.IIF, Field.OIF, Field.CT_HELPER):
            pair = name_range(word)
        else:
            low, _, high = word.partition("-")
            pair = int(low), int(high or low)
        pairs.append(pair)
    values = Ranges.merged(pairs)
    everything = FAMILY_ADDRESSES[family] if f in ADDRESS_FIELDS else UNIVERSE[f]
    return everything - values if text.startswith("!") else values


def lines_of(rule: str, family: int, table: str = "filter", chain: str = "INPUT") -> list[Line]:
    """What a rule that stands alone is read as."""
    text = f"*{table}\n:{chain} ACCEPT [0:0]\n:other - [0:0]\n-A {chain} {rule}\nCOMMIT\n"
    v4, v6 = (text, "") if family == 4 else ("", text)
    machine = read_iptables(v4, v6, IPSETS)
    (base,) = machine.bases
    return list(machine.chains[base.chain])


# --- matches --------------------------------------------------------------------------------------

TRACKED = "0-2"
DAY_S = 86_400

FIELDS: list[tuple[str, list[dict[str, str | int | Ranges]]]] = [
    ("-i eth0", [{"iif": "eth0"}]),
    ("! -i wan+", [{"iif": "!wan*"}]),
    ("-o eth0", []),  # INPUT knows of no way out
    ("! -o eth0", [{}]),
    ("-i +", [{}]),
    ("-s 192.0.2.1/24 ! -d 198.51.100.7", [{"saddr": "192.0.2.0/24", "daddr": "!198.51.100.7"}]),
    ("-s ! 10.0.0.0/8 -p ! tcp", [{"saddr": "!10.0.0.0/8", "proto": "!6"}]),
    ("-s 192.0/24 -d any/0", [{"saddr": "192.0.0.0/24"}]),
    ("-s 10", [{"saddr": "10.0.0.0"}]),
    ("! -s 0/0", []),
    ("-s 10.0.0.0/255.0.0.0", [{"saddr": "10.0.0.0/8"}]),
    ("-s 192.0.2.0/255.255.255.253", [{"saddr": "192.0.2.0,192.0.2.2"}]),
    ("-m iprange ! --src-range 10.0.0.1-10.0.0.9", [{"saddr": "!10.0.0.1-10.0.0.9"}]),
    ("-p tcp", [{"proto": 6}]),
    ("-p 0", [{}]),
    ("! -p ospf", [{"proto": "!89"}]),
    ("-p tcp --dport 22", [{"proto": 6, "dport": 22}]),
    ("-p udp -m udp --sport :53", [{"proto": 17, "sport": "0-53"}]),
    ("-p sctp ! --dport 5060", [{"proto": 132, "dport": "!5060"}]),
    ("-p tcp -m multiport --dports 22,80:90", [{"proto": 6, "dport": "22,80-90"}]),
    (
        "-p udp -m multiport --ports 53",
        [{"proto": 17, "sport": 53}, {"proto": 17, "dport": 53}],
    ),
    ("-p udp -m multiport ! --ports 53", [{"proto": 17, "sport": "!53", "dport": "!53"}]),
    ("-p tcp -m multiport --dport 22,80", [{"proto": 6, "dport": "22,80"}]),
    ("-p tcp --syn", [{"proto": 6, "tcp_flags": with_flags(0x17, 0x02)}]),
    ("-p tcp --tcp-flags ALL NONE", [{"proto": 6, "tcp_flags": with_flags(0x3F, 0)}]),
    ("-p icmp --icmp-type 8", [{"icmp_type": 8}]),
    ("-p icmp --icmp-type echo-req", [{"icmp_type": 8}]),
    ("-p icmp --icmp-type any", [{"proto": 1}]),
    ("-p icmp ! --icmp-type 3", [{"icmp_type": "!3"}]),
    ("-m state --state NEW,RELATED", [{"state": "0,2"}]),
    ("-m conntrack ! --ctstate INVALID", [{"state": "!3"}]),
    ("-m conntrack --ctstate DNAT", [{"dnated": 1}]),
    ("-m conntrack --ctstate NEW,DNAT", [{"dnated": 1}, {"state": 0}]),
    ("-m conntrack ! --ctstate NEW,DNAT", [{"dnated": 0, "state": "!0"}]),
    ("-m conntrack --ctdir REPLY", [{"ct_direction": 1, "state": TRACKED}]),
    ("-m conntrack --ctstatus EXPECTED", [{"expected": 1, "state": TRACKED}]),
    ("-m conntrack ! --ctstatus EXPECTED", [{"expected": 0, "state": TRACKED}]),
    (
        "-m conntrack --ctstate NEW,INVALID --ctdir REPLY",
        [{"state": 0, "ct_direction": 1}, {"state": 3}],
    ),
    (
        "-m conntrack ! --ctorigdst 192.0.2.0/24",
        [{"orig_daddr": "!192.0.2.0/24", "state": TRACKED}],
    ),
    (
        "-p tcp -m conntrack --ctorigdstport 80:90",
        [{"proto": 6, "orig_dport": "80-90", "state": TRACKED}],
    ),
    ("-m helper --helper ftp", [{"ct_helper": "ftp"}]),
    ("-m helper --helper ftp-2121", [{"ct_helper": "ftp,ftp-2121"}]),
    ('-m helper --helper ""', [{"ct_helper": "!"}]),
    ("-m helper ! --helper sip", [{"ct_helper": "!sip"}]),
    ("-m addrtype --dst-type LOCAL,BROADCAST", [{"daddr_type": "2,3"}]),
    ("-m addrtype ! --src-type UNICAST", [{"saddr_type": "!1"}]),
    ("-m mac ! --mac-source 02:00:00:00:00:01", [{"smac": f"!{0x02_00_00_00_00_01}"}]),
    ("-m dscp --dscp-class af41", [{"dscp": 34}]),
    ("-m dscp ! --dscp 0x2e -m dscp ! --dscp 0", [{"dscp": "!46,0"}]),
    ("-m tos --tos 0xb8/0xfc", [{"dscp": 46}]),
    ("-m length --length 100:", [{"size": "100-65535"}]),
    ("-m policy --dir in --pol ipsec", [{"ipsec": 1}]),
    ("-m set --match-set hosts src", [{"saddr": "192.0.2.1-192.0.2.2"}]),
    ("-m set ! --match-set hosts dst", [{"daddr": "!192.0.2.1-192.0.2.2"}]),
    ("-m set ! --match-set six src", [{}]),
    ("-m set --match-set ports dst", [{"proto": "6,17", "dport": 22}]),
    ("-m set ! --match-set ports dst", [{"proto": "!6,17"}, {"proto": "6,17", "dport": "!22"}]),
    ("-m set --match-set cards src", [{"smac": 0x02_00_00_00_00_01}]),
    (
        "-m set --match-set both src,dst",
        [
            {"saddr": "192.0.2.1-192.0.2.2", "proto": 6, "dport": 22},
            {"saddr": "192.0.2.2", "proto": 17, "dport": 53},
        ],
    ),
    ("-m set --match-set bare src,dst", [{"saddr": "192.0.2.1", "proto": 6, "dport": 443}]),
    ("-m set ! --match-set both src", [{}]),  # a set of two parts, and one flag
    ('-m u32 --u32 "6&0xFF=0"', [{"proto": 0}]),
    ('-p icmp -m u32 --u32 "0>>22&0x3C@0>>24=3:5,255"', [{"icmp_type": "3-5,255"}]),
    ('-m u32 --u32 "0xc&0xffffff00=0xc0000200"', [{"saddr": "192.0.2.0/24"}]),
]
FIELDS_V6: list[tuple[str, list[dict[str, str | int | Ranges]]]] = [
    ("-s 2001:db8::/32", [{"saddr": "2001:db8::/32"}]),
    ("! -d 2001:db8::/ffff:ffff::", [{"daddr": "!2001:db8::/32"}]),
    ("-p icmpv6 --icmpv6-type echo-request", [{"icmpv6_type": 128}]),
    ("-p ipv6-icmp -m icmp6 ! --icmpv6-type 135", [{"icmpv6_type": "!135"}]),
    ("-m hl --hl-lt 255", [{"hop_limit": "0-254"}]),
    ("-m hl --hl-gt 254", [{"hop_limit": 255}]),
    ("-m rt", [{"source_routed": 1}]),
    ("-m ipv6header --header route --soft", [{"source_routed": 1}]),
    ("-m addrtype --dst-type UNICAST", [{"daddr_type": "!0,5"}]),
    ("-m addrtype --dst-type MULTICAST,LOCAL", []),
    ("-m addrtype --dst-type UNREACHABLE", [{"daddr_type": "6-8"}]),
    ("-m set --match-set six dst", [{"daddr": "2001:db8::/32"}]),
    ("-m set --match-set hosts src", []),  # a set of the other family holds none of these
]


@pytest.mark.parametrize(
    ("family", "rule", "cubes"),
    [(4, *case) for case in FIELDS] + [(6, *case) for case in FIELDS_V6],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_match_is_the_fields_that_it_asks_for(
    family: int, rule: str, cubes: list[dict[str, str | int | Ranges]]
) -> None:
    found = lines_of(f"{rule} -j ACCEPT", family)
    wanted = {terms(family, **said) for said in cubes}
    if not wanted:
        assert not found
        return
    (line,) = found
    assert set(line.cubes) == wanted
    assert (line.act, line.conditions) == (ir.Accept(), ())


def _week(*windows: tuple[int, int, int]) -> WeekTimeIs:
    """A day, and the first and last second of it."""
    return WeekTimeIs(Ranges.merged((d * DAY_S + a, d * DAY_S + b) for d, a, b in windows))


EVERY_DAY = range(7)
CONDITIONS: list[tuple[str, Question, bool]] = [
    ("-m mark --mark 0x10/0xf0", MarkIs(0x10, 0xF0), True),
    ("-m mark ! --mark 7", MarkIs(7, 0xFFFF_FFFF), False),
    ("-m connmark --mark 0x2/0xff", ConnectionMarkIs(2, 0xFF), True),
    ("-m owner --uid-owner 1000-1999", OwnerIs("user", Ranges.between(1000, 1999)), True),
    ("-m owner ! --gid-owner 5", OwnerIs("group", Ranges.of(5)), False),
    ("-m owner --uid-owner www-data", Unknown("user www-data"), True),
    ("-m cgroup --path /system.slice/a", CgroupIs("system.slice/a"), True),
    ("-m limit --limit 7/min", RateHolds(Fraction(7, 60), 5, None, 4), True),
    ("-m limit --limit 10/s --limit-burst 20", RateHolds(Fraction(10), 20, None, 4), True),
    (
        "-m hashlimit --hashlimit-above 3/hour --hashlimit-mode srcip --hashlimit-srcmask 24 "
        "--hashlimit-name x",
        RateHolds(Fraction(3, 3600), 5, Per(End.SOURCE, 24), 4),
        False,
    ),
    (
        "-m hashlimit --hashlimit-upto 3/day --hashlimit-burst 9 --hashlimit-name x",
        RateHolds(Fraction(3, DAY_S), 9, None, 4),
        True,
    ),
    (
        "-m hashlimit --hashlimit-upto 1/sec --hashlimit-mode dstip --hashlimit-name x",
        RateHolds(Fraction(1), 5, Per(End.DESTINATION, 32), 4),
        True,
    ),
    (
        "-m hashlimit ! --hashlimit-upto 1/min --hashlimit-name x",
        RateHolds(Fraction(1, 60), 5, None, 4),
        False,
    ),
    ("-m connlimit --connlimit-above 9", ConnectionsHold(9, Per(End.SOURCE, 32), 4), False),
    (
        "-m connlimit --connlimit-upto 9 --connlimit-mask 0",
        ConnectionsHold(9, None, 4),
        True,
    ),
    (
        "-m connlimit ! --connlimit-above 2 --connlimit-mask 24 --connlimit-daddr",
        ConnectionsHold(2, Per(End.DESTINATION, 24), 4),
        True,
    ),
    (
        "-m time --timestart 08:00 --timestop 09:00:30 --weekdays Mon,sa",
        _week((0, 28800, 32430), (5, 28800, 32430)),
        True,
    ),
    (
        "-m time --timestart 22:00 --timestop 06:00 --weekdays Fri",
        _week((4, 79200, 86399), (4, 0, 21600)),
        True,
    ),
    (
        "-m time --timestart 22:00 --timestop 06:00 --weekdays Sun --contiguous",
        _week((6, 79200, 86399), (0, 0, 21600)),
        True,
    ),
    (
        "-m time --timestop 12:00 --datestop 2038-01-19T03:14:07",
        _week(*((day, 0, 43200) for day in EVERY_DAY)),
        True,
    ),
    (
        "-m time ! --weekdays 1,2,3,4,5,6 --kerneltz",
        WeekTimeIs(Ranges.between(6 * DAY_S, 7 * DAY_S - 1), is_local=True),
        True,
    ),
    ("-m time --datestop 2027-01-31T23:59:59", NotAfter(date(2027, 1, 31), False), True),
    ("-m set --match-set banned src", InSet("banned", (Field.SADDR,)), True),
    ("-m set ! --match-set banned dst", InSet("banned", (Field.DADDR,)), False),
    ("-m set --match-set pairs dst,dst", InSet("pairs", (Field.DADDR, Field.DPORT)), True),
    ("-m set --match-set ways dst,src", InSet("ways", (Field.DADDR, Field.IIF)), True),
]


@pytest.mark.parametrize(("rule", "question", "holds"), CONDITIONS, ids=lambda v: str(v)[:60])
def test_what_is_no_field_is_a_question(rule: str, question: Question, holds: bool) -> None:
    (line,) = lines_of(f"{rule} -j DROP", 4)
    assert line.conditions == (Condition(question, holds),)
    assert line.cubes == (Cube(),)


def test_a_bitmap_of_ports_holds_those_of_tcp_and_udp() -> None:
    asked = InSet("asked", (Field.DPORT,))
    (line,) = lines_of("-m set --match-set asked dst -j DROP", 6)
    assert (line.cubes, line.conditions) == ((terms(6, proto="6,17"),), (Condition(asked),))
    (line,) = lines_of("-m set ! --match-set asked dst -j DROP", 6)
    assert (line.cubes, line.conditions) == ((Cube(),), (Condition(asked, False),))


def test_a_mask_of_ipv6_with_gaps_is_a_question() -> None:
    (line,) = lines_of("! -s ::7/::ffff:ffff:ffff:ffff -j DROP", 6)
    assert line.conditions == (Condition(MaskIs(Field.SADDR, 7, (1 << 64) - 1), False),)


def test_connection_marks_are_of_connections() -> None:
    """To ask for other bits than zero is to ask for a connection; to ask for zero is not."""
    for rule in ("-m connmark --mark 0/0xff", "-m connmark ! --mark 1"):
        (line,) = lines_of(f"{rule} -j DROP", 4)
        assert line.cubes == (terms(4, state=TRACKED),)


# Each is unknown with its text, beside what is understood of it.
UNKNOWN: list[tuple[str, dict[str, str | int | Ranges]]] = [
    ("-f", {}),
    ("-p tcp --dport ssh", {"proto": 6}),
    ("-p udplite --dport 53", {"proto": 136}),
    ("-p tcp --tcp-option 5", {"proto": 6}),
    ("-p icmp --icmp-type 3/4", {"icmp_type": 3}),
    ("-p icmp ! --icmp-type fragmentation-needed", {"proto": 1}),
    ("-m conntrack --ctstate SNAT", {}),
    ("-m conntrack --ctreplsrc 192.0.2.1", {}),
    ("-m addrtype --dst-type LOCAL --limit-iface-in", {}),
    ("-m rpfilter --loose", {}),
    ("-m tos --tos Minimize-Delay", {}),
    ("-m ttl --ttl-eq 64", {}),
    ("-m owner --socket-exists", {}),
    ("-m limit --limit 5/fortnight", {}),
    ("-m hashlimit --hashlimit-upto 512kb/s --hashlimit-name x", {}),
    ("-m hashlimit --hashlimit-upto 5/s --hashlimit-mode srcip,dstport --hashlimit-name x", {}),
    ("-m time --datestart 2027-01-01T00:00:00", {}),
    ("-m set --match-set nowhere src", {}),
    ("-m set --match-set marked src,dst", {}),
    ("-m set --match-set types src,src", {}),
    ("-m set --match-set hosts src --packets-gt 5", {"saddr": "192.0.2.1-192.0.2.2"}),
    ("-m statistic --mode random --probability 0.5", {}),
    ("-m recent --rcheck --seconds 60 --name X", {}),
    ('-m u32 --u32 "2&0xFFFF=0x100"', {}),
    ('-m string --algo bm --string "-j DROP"', {}),
    ("-m nothing-known --of 1 2 --this", {}),
    ("-m policy --dir in --pol ipsec --proto esp", {"ipsec": 1}),
    # options that a later version may have
    ("-m mac --mac-source 02:00:00:00:00:01 --over vlan", {}),
    ("-m helper --helper ftp --once", {}),
    # what nothing lists
    ("-m time --datestop 2027-02-31T23:59:59", {}),
    ('-p icmp --icmp-type ""', {"proto": 1}),
    ("-i a\ud800", {}),
    (f"-m limit --limit {'9' * 5000}/second", {}),
]


@pytest.mark.parametrize(("rule", "said"), UNKNOWN, ids=lambda v: str(v)[:60])
def test_what_is_not_understood_is_unknown(rule: str, said: dict[str, str | int | Ranges]) -> None:
    (line,) = lines_of(f"{rule} -j DROP", 4)
    assert line.cubes == (terms(4, **said),)
    (condition,) = line.conditions
    assert isinstance(condition.question, Unknown)
    for word in rule.split("-m ")[-1].split():
        if word.isalnum() and not word.isdigit() and "!" not in rule:
            assert word in condition.question.text, "the text is that of the rule"


@pytest.mark.parametrize(
    "rule",
    [
        "-m statistic --mode random --probability 0.25",
        "-m statistic --mode nth --every 7 --packet 3",
        "-m quota --quota 5000",
        "-m recent --update --seconds 60 --name X",
    ],
)
def test_what_counts_for_itself_is_a_question_of_its_rule(rule: str) -> None:
    """A packet that one of them leaves alone may meet the next one."""
    text = f"*filter\n:INPUT ACCEPT\n-A INPUT {rule} -j ACCEPT\n-A INPUT {rule} -j DROP\nCOMMIT\n"
    first, second = read_iptables(text, "").chains["iptables filter INPUT"]
    assert first.conditions != second.conditions


def test_conntrack_has_seen_nothing_in_raw() -> None:
    (line,) = lines_of("-m conntrack --ctstate NEW -j DROP", 4, "raw", "PREROUTING")
    assert line.conditions == (Condition(Unknown("-m conntrack --ctstate NEW")),)
    (line,) = lines_of("-j CONNMARK --set-mark 1", 4, "raw", "PREROUTING")
    assert line.act == Obscure("CONNMARK --set-mark 1", may_decide=False)


def test_the_reverse_path_is_asked_before_routing() -> None:
    for rule, value in (("-m rpfilter", 1), ("-m rpfilter --invert", 0)):
        (line,) = lines_of(f"{rule} -j DROP", 4, "raw", "PREROUTING")
        assert line.cubes == (terms(4, reverse_path=value),)


# --- targets --------------------------------------------------------------------------------------

T = "mangle", "PREROUTING"
N = "nat", "PREROUTING"
S = "nat", "POSTROUTING"
F = "filter", "INPUT"
ONE = parse_address("192.0.2.1")
SOME = parse_address("192.0.2.1-192.0.2.9")
NET = parse_address("192.0.2.0/24")
assert ONE is not None and SOME is not None and NET is not None

TARGETS: list[tuple[tuple[str, str], str, Act]] = [
    (F, "-j other", ir.Jump("iptables filter other")),
    (F, "-g other", Goto("iptables filter other")),
    (F, "-j RETURN", Return()),
    (F, "-j REJECT", ir.Reject(Answer.PORT_UNREACHABLE)),
    (F, "-j REJECT --reject-with icmp-net-unreachable", ir.Reject(Answer.NET_UNREACHABLE)),
    (F, "-j REJECT --reject-with icmp-host-unreach", ir.Reject(Answer.HOST_UNREACHABLE)),
    (F, "-j REJECT --reject-with admin-prohib", ir.Reject(Answer.ADMIN_PROHIBITED)),
    (F, "-p tcp -j REJECT --reject-with tcp-reset", ir.Reject(Answer.TCP_RESET)),
    (F, '-j LOG --log-prefix "a \\"b\\" " --log-level 4', ir.Log('a "b" ')),
    (F, "-j LOG --log-level error --log-uid", ir.Log("", "err")),
    (F, "-j LOG --log-level 7", ir.Log("", "debug")),
    (F, "-j NFLOG --nflog-prefix x --nflog-group 5", ir.Log("x", None, 5)),
    (F, "-j NFLOG", ir.Log("", None, 0)),
    (F, "-j SET --add-set banned src --exist --timeout 60", AddTo("banned", (Field.SADDR,), 60)),
    (F, "-j SET --add-set pairs dst,src", AddTo("pairs", (Field.DADDR, Field.SPORT), None)),
    (F, "-j SET --del-set banned src", Obscure("SET --del-set banned src", False)),
    (F, "-j NFQUEUE --queue-balance 0:3 --queue-bypass", ir.Queue(0, 3, True)),
    (F, "-j NFQUEUE --queue-num 7", ir.Queue(7, 7, False)),
    (F, "-j TEE --gateway 192.0.2.1", Obscure("TEE --gateway 192.0.2.1", False)),
    (F, "-j SYNPROXY --mss 1460", Obscure("SYNPROXY --mss 1460", True)),
    (T, "-j MARK --set-mark 5", ir.SetMark(5, 0xFFFF_FFFF)),
    (T, "-j MARK --set-mark 0x3/0x1", ir.SetMark(3, 3)),
    (T, "-j MARK --set-xmark 0x10/0xf0", ir.SetMark(0x10, 0xF0)),
    (T, "-j MARK --and-mark 0xff", ir.SetMark(0, 0xFFFF_FF00)),
    (T, "-j MARK --or-mark 0x8", ir.SetMark(8, 8)),
    (T, "-j CONNMARK --set-xmark 3/1", Obscure("CONNMARK --set-xmark 3/1", False)),
    (T, "-j CONNMARK --set-mark 1/0xf", ir.SetConnectionMark(1, 0xF)),
    (T, "-j CONNMARK --save-mark", CopyMark(True, 0xFFFF_FFFF)),
    (T, "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff", CopyMark(False, 0xFF)),
    (
        T,
        "-j CONNMARK --save-mark --nfmask 1 --ctmask 2",
        Obscure("CONNMARK --save-mark --nfmask 1 --ctmask 2", False),
    ),
    (T, "-j DSCP --set-dscp-class CS1", ir.SetDscp(8)),
    (T, "-j TOS --set-tos 0xb8/0xfc", ir.SetDscp(46)),
    (T, "-j TOS --set-tos 0xb8", Obscure("TOS --set-tos 0xb8", False)),
    (T, "-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu", ir.ClampMss(None)),
    (T, "-p tcp --syn -j TCPMSS --set-mss 1400", ir.ClampMss(1400)),
    (
        T,
        "-p udp -j TPROXY --on-port 53 --tproxy-mark 1/0xff",
        ir.TransparentProxy(53, 17, 1, 0xFF),
    ),
    (
        T,
        "-p tcp -j TPROXY --on-port 80 --on-ip 192.0.2.1",
        Obscure("TPROXY --on-port 80 --on-ip 192.0.2.1", True),
    ),
    (("raw", "PREROUTING"), "-j CT --notrack", ir.Untrack()),
    (("raw", "OUTPUT"), "-j NOTRACK", ir.Untrack()),
    (("raw", "OUTPUT"), "-p tcp -j CT --helper ftp", ir.AssignHelper("ftp", 6)),
    (("raw", "OUTPUT"), "-j CT --zone 1", Obscure("CT --zone 1", False)),
    (N, "-j DNAT --to-destination 192.0.2.1", ir.DestinationNat(Ranges((ONE,)))),
    (N, "-p tcp -j DNAT --to-destination 192.0.2.1:80", ir.DestinationNat(Ranges((ONE,)), 80)),
    (
        N,
        "-j DNAT --to-destination 192.0.2.1-192.0.2.9 --persistent",
        ir.DestinationNat(Ranges((SOME,)), None, True),
    ),
    (
        N,
        "-p tcp -j DNAT --to-destination 192.0.2.1:80-90",
        Obscure("DNAT --to-destination 192.0.2.1:80-90", True),
    ),
    (N, "-p tcp -j DNAT --to-destination :80", Obscure("DNAT --to-destination :80", True)),
    (N, "-p tcp -j REDIRECT --to-ports 3128", ir.RedirectToSelf(3128)),
    (N, "-j REDIRECT", Obscure("REDIRECT", True)),
    (N, "-d 198.51.100.0/24 -j NETMAP --to 192.0.2.0/24", ir.MapPrefix(End.DESTINATION, NET)),
    (S, "-j NETMAP --to 192.0.2.0/255.255.255.0", ir.MapPrefix(End.SOURCE, NET)),
    (S, "-j MASQUERADE", ir.Masquerade()),
    (S, "-p tcp -j MASQUERADE --to-ports 1-9 --random", ir.Masquerade((1, 9), True)),
    (
        S,
        "-p tcp -j SNAT --to-source 192.0.2.1-192.0.2.9:5 --random-fully --persistent",
        ir.SourceNat(SOME, (5, 5), True, True),
    ),
]


@pytest.mark.parametrize(("place", "rule", "act"), TARGETS, ids=lambda v: str(v)[:60])
def test_a_target_is_an_act(place: tuple[str, str], rule: str, act: Act) -> None:
    (line,) = lines_of(rule, 4, *place)
    assert (line.act, line.conditions) == (act, ())


def test_bits_of_a_mark_that_are_turned_round_take_two_lines() -> None:
    """As kube-proxy writes it: `--set-xmark` with bits outside of the mask."""
    text = "*mangle\n:PREROUTING ACCEPT\n-A PREROUTING -j MARK --set-xmark 0x6/0x2\nCOMMIT\n"
    chains = read_iptables(text, "").chains
    first, second = chains["iptables mangle PREROUTING"]
    assert first.act == ir.SetMark(2, 2)
    assert isinstance(second.act, ir.Jump)
    is_set, otherwise = chains[second.act.chain]
    assert is_set.conditions == (Condition(MarkIs(4, 4)),)
    assert isinstance(is_set.act, Goto)
    (clears,) = chains[is_set.act.chain]
    assert (clears.act, otherwise.act) == (ir.SetMark(0, 4), ir.SetMark(4, 4))


def test_targets_of_ipv6() -> None:
    (line,) = lines_of("-p tcp -j DNAT --to-destination [2001:db8::1]:80", 6, *N)
    address = parse_address("2001:db8::1")
    assert address is not None
    assert line.act == ir.DestinationNat(Ranges((address,)), 80)
    for word, answer in (
        ("icmp6-no-route", Answer.NET_UNREACHABLE),
        ("adm-prohibited", Answer.ADMIN_PROHIBITED),
        ("icmp6-addr-unreachable", Answer.HOST_UNREACHABLE),
        ("port-unreach", Answer.PORT_UNREACHABLE),
    ):
        (line,) = lines_of(f"-j REJECT --reject-with {word}", 6)
        assert line.act == ir.Reject(answer)


def test_an_answer_that_is_none_of_ours_is_told_beside_the_nearest() -> None:
    first, second = lines_of("-j REJECT --reject-with icmp-host-prohibited", 4)
    assert first.act == Obscure("REJECT answers icmp-host-prohibited", may_decide=False)
    assert second.act == ir.Reject(Answer.ADMIN_PROHIBITED)


def test_a_rule_without_target_does_nothing_unless_a_match_does() -> None:
    assert lines_of("-p tcp", 4) == []
    (line,) = lines_of("-p tcp -m recent --set --name X", 4)
    assert line.act == Obscure("-m recent --set --name X", may_decide=False)


def test_a_target_with_options_that_nobody_knows_is_not_understood() -> None:
    (line,) = lines_of("-j SNAT --to-source 192.0.2.1 --by-moon", 4, "nat", "POSTROUTING")
    assert line.act == Obscure("SNAT --to-source 192.0.2.1 --by-moon", may_decide=True)


@pytest.mark.parametrize(
    ("target", "asked"),
    [
        ("TOS --set-tos 0x10/0x3f", "-m dscp --dscp 4"),
        ("HL --hl-set 5", "-m hl --hl-eq 5"),
        ("HMARK --hmark-tuple src --hmark-mod 4 --hmark-rnd 0x1", "-m mark --mark 1"),
        ("CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff00", "-m mark --mark 1"),
        ("SET --del-set hosts src", "-m set --match-set hosts src"),
    ],
)
def test_what_is_changed_unknown_to_us_is_not_asked_as_before(target: str, asked: str) -> None:
    """Where a rule asks for what a target sets, nobody knows what becomes of the packet."""
    rules = f"*mangle\n:INPUT ACCEPT\n-A INPUT -j {target}\n"
    name = "ip6tables mangle INPUT"
    (line,) = read_iptables("", f"{rules}COMMIT\n", IPSETS).chains[name]
    assert isinstance(line.act, Obscure) and not line.act.may_decide
    later = f"{rules}COMMIT\n*filter\n:INPUT ACCEPT\n-A INPUT {asked} -j ACCEPT\nCOMMIT\n"
    (line,) = read_iptables("", later, IPSETS).chains[name]
    assert isinstance(line.act, Obscure) and line.act.may_decide


def test_a_line_ends_at_its_end_alone() -> None:
    (line,) = lines_of('-j DROP -m comment --comment "a\x0bb\u2028c"', 4)
    assert line.place == "iptables filter INPUT 1: a\x0bb\u2028c"


# --- sharing --------------------------------------------------------------------------------------


def _nat(*rules: str) -> Machine:
    body = "".join(f"{rule}\n" for rule in rules)
    chains = ":a - [0:0]\n:b - [0:0]\n"
    return read_iptables(f"*nat\n:PREROUTING ACCEPT [0:0]\n{chains}{body}COMMIT\n", "")


def _to(*numbers: int) -> Ranges:
    pairs = (parse_address(f"192.0.2.{number}") for number in numbers)
    return Ranges.merged(pair for pair in pairs if pair is not None)


@pytest.mark.parametrize(
    ("shares", "by_source"),
    [
        (("statistic --mode nth --every 3 --packet 0", "statistic --mode nth --every 2"), False),
        (
            (
                "statistic --mode random --probability 0.33333333349",
                "statistic --mode random --probability 0.5",
            ),
            False,
        ),
        (('u32 --u32 "12&0x3FF=0,3,6"', 'u32 --u32 "0xc&0x3ff=0x1,0x4,0x7"'), True),
    ],
)
def test_rules_that_share_connections_are_one(shares: tuple[str, str], by_source: bool) -> None:
    dnat = "-j DNAT --to-destination 192.0.2"
    machine = _nat(
        "-A PREROUTING -i eth1 -j ACCEPT",
        f"-A PREROUTING -p tcp --dport 80 -m {shares[0]} {dnat}.1:8080",
        f"-A PREROUTING -p tcp --dport 80 -m {shares[1]} {dnat}.2:8080",
        f"-A PREROUTING -p tcp --dport 80 {dnat}.3:8080",
        "-A PREROUTING -p udp -j RETURN",
    )
    _, line, last = machine.chains["iptables nat PREROUTING"]
    assert line.act == ir.DestinationNat(_to(1, 2, 3), 8080, by_source)
    assert (line.cubes, line.conditions) == ((terms(4, proto=6, dport=80),), ())
    assert last.act == Return()


def test_chains_that_differ_in_the_target_alone_become_one() -> None:
    machine = _nat(
        "-A PREROUTING -m statistic --mode nth --every 2 --packet 0 -g a",
        "-A PREROUTING -g b",
        *(
            f"-A {chain} -p {protocol} -j DNAT --to-destination 192.0.2.{number}:53"
            for number, chain in enumerate("ab", 1)
            for protocol in ("tcp", "udp")
        ),
    )
    (line,) = machine.chains["iptables nat PREROUTING"]
    assert isinstance(line.act, Goto)
    lines = machine.chains[line.act.chain]
    assert [found.act for found in lines] == [ir.DestinationNat(_to(1, 2), 53)] * 2
    assert [found.cubes for found in lines] == [(terms(4, proto=n),) for n in (6, 17)]
    assert len(machine.chains) == 2


@pytest.mark.parametrize(
    "rules",
    [
        ("-m statistic --mode nth --every 3 --packet 0 {0}.1", "{0}.2"),  # two of three shares
        ("-m statistic --mode nth --every 2 --packet 0 {0}.1", "-p tcp {0}.2"),
        ("-m statistic --mode nth --every 2 --packet 0 {0}.1:1 -p tcp", "{0}.2:2 -p tcp"),
        ('-m u32 --u32 "12&0xFF=1" {0}.1', '-m u32 --u32 "12&0xFF=1,2" {0}.2', "{0}.3"),
        ("-m statistic --mode nth --every 2 --packet 0 {0}.1", "-j ACCEPT"),
    ],
)
def test_rules_that_do_not_share_alike_stay_apart(rules: tuple[str, ...]) -> None:
    dnat = "-j DNAT --to-destination 192.0.2"
    machine = _nat(*(f"-A PREROUTING {rule.format(dnat)}" for rule in rules))
    lines = machine.chains["iptables nat PREROUTING"]
    assert len(lines) > 1
    assert any(isinstance(c.question, Unknown) for c in lines[0].conditions)


# --- chains and places ----------------------------------------------------------------------------


def test_base_chains_stand_where_the_kernel_registers_them() -> None:
    chains = {
        "raw": "PREROUTING OUTPUT",
        "mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING",
        "nat": "PREROUTING INPUT OUTPUT POSTROUTING",
        "filter": "INPUT FORWARD OUTPUT",
        "security": "INPUT FORWARD OUTPUT",
    }
    text = "".join(
        f"*{table}\n" + "".join(f":{name} ACCEPT [0:0]\n" for name in names.split()) + "COMMIT\n"
        for table, names in chains.items()
    )
    machine = read_iptables(text.replace(":FORWARD ACCEPT", ":FORWARD DROP"), text)
    assert [(b.priority, b.families) for b in machine.on(Hook.PREROUTING)] == [
        (-300, (4,)), (-300, (6,)), (-150, (4,)), (-150, (6,)), (-100, (4,)), (-100, (6,)),
    ]  # fmt: skip
    assert [b.priority for b in machine.on(Hook.OUTPUT)][::2] == [-300, -150, -100, 0, 50]
    assert [b.priority for b in machine.on(Hook.INPUT)][::2] == [-150, 0, 50, 100]
    assert [b.priority for b in machine.on(Hook.POSTROUTING)][::2] == [-150, 100]
    assert {(b.hook, b.families) for b in machine.bases if b.drops} == {(Hook.FORWARD, (4,))}
    assert {b.chain.split()[1] for b in machine.bases if b.is_nat} == {"nat"}
    assert {b.chain for b in machine.bases if b.reroutes} == {
        "iptables mangle OUTPUT",
        "ip6tables mangle OUTPUT",
    }


def test_lines_know_their_place_and_comment() -> None:
    text = (
        "*filter\n:INPUT ACCEPT [0:0]\n"
        '-A INPUT -s 192.0.2.1,192.0.2.2 -m comment --comment "two of them" -j DROP\n'
        "-A INPUT -j ACCEPT\n-I INPUT -p tcp -j DROP\nCOMMIT\n"
    )
    lines = read_iptables(text, "").chains["iptables filter INPUT"]
    assert [line.place for line in lines] == [
        "iptables filter INPUT 1",
        "iptables filter INPUT 2: two of them",
        "iptables filter INPUT 3: two of them",
        "iptables filter INPUT 4",
    ]


def test_a_chain_of_several_hooks_that_asks_for_interfaces_is_one_for_each() -> None:
    text = (
        "*mangle\n:PREROUTING ACCEPT\n:FORWARD ACCEPT\n:both -\n:plain -\n"
        "-A PREROUTING -j both\n-A FORWARD -j both\n-A both -o eth0 -j DROP\n"
        "-A both ! -o eth1 -j plain\n-A plain -p tcp -j DROP\nCOMMIT\n"
    )
    chains = read_iptables(text, "").chains
    (jump,) = chains["iptables mangle PREROUTING"]
    assert jump.act == ir.Jump("iptables mangle both (PREROUTING)")
    (only,) = chains["iptables mangle both (PREROUTING)"]
    assert only.cubes == (Cube(),)
    first, second = chains["iptables mangle both (FORWARD)"]
    assert first.cubes == (terms(4, oif="eth0"),)
    assert second.act == only.act == ir.Jump("iptables mangle plain")


def test_sets_that_rules_fill_are_questions_in_both_families() -> None:
    fill = "*filter\n:INPUT ACCEPT\n-A INPUT -j SET --add-set ports dst\nCOMMIT\n"
    ask = "*filter\n:INPUT ACCEPT\n-A INPUT -m set --match-set ports dst -j DROP\nCOMMIT\n"
    machine = read_iptables(fill, ask, IPSETS)
    (line,) = machine.chains["ip6tables filter INPUT"]
    assert line.conditions == (Condition(InSet("ports", (Field.DPORT,))),)


def test_sets_that_are_said_to_change_are_questions() -> None:
    ask = "*filter\n:INPUT ACCEPT\n-A INPUT -m set --match-set hosts src -j DROP\nCOMMIT\n"
    machine = read_iptables(ask, "", IPSETS, is_open=lambda name: name == "hosts")
    (line,) = machine.chains["iptables filter INPUT"]
    assert line.conditions == (Condition(InSet("hosts", (Field.SADDR,))),)


def test_sets_are_filled_swapped_and_emptied() -> None:
    text = (
        "create new hash:ip family inet -exist\nflush new\nadd new 192.0.2.1\nadd new 192.0.2.2\n"
        "del new 192.0.2.1\ncreate hosts hash:ip family inet -exist\nadd hosts 192.0.2.9\n"
        "swap new hosts\n"
    )
    ask = "*filter\n:INPUT ACCEPT\n-A INPUT -m set --match-set hosts src -j DROP\nCOMMIT\n"
    (line,) = read_iptables(ask, "", text).chains["iptables filter INPUT"]
    assert line.cubes == (terms(4, saddr="192.0.2.2"),)
    (line,) = read_iptables(ask.replace("hosts", "new"), "", text).chains["iptables filter INPUT"]
    assert line.cubes == (terms(4, saddr="192.0.2.9"),)
    gone = read_iptables(ask, "", text + "flush hosts\ndestroy new\n")
    assert gone.chains["iptables filter INPUT"] == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("*filter\n:INPUT ACCEPT [0:0]\n", 2),
        ("*filter\n-A INPUT -j ACCEPT\n*nat\nCOMMIT\n", 3),
        ("-A INPUT -j ACCEPT\n", 1),
        ("Chain INPUT (policy ACCEPT)\n", 1),
        ('{"nftables": []}\n', 1),
        ("*filter\n-A INPUT -j LOG --log-prefix \"a\nCOMMIT\n", 2),
        ("*filter\n-D INPUT 1\nCOMMIT\n", 2),
        ("*filter\n-A INPUT ! -j\nCOMMIT\n", 2),
        ("*filter\n-A INPUT accept\nCOMMIT\n", 2),
        ("*filter\n-A INPUT -g nowhere\nCOMMIT\n", 2),
        ("*filter\n-A INPUT -j DROP\n-I INPUT 0 -j ACCEPT\nCOMMIT\n", 3),
        ("*filter\n-I INPUT 2 -j ACCEPT\nCOMMIT\n", 2),
        ("*broute\nCOMMIT\n", 1),
        ("*filter\nCOMMIT\n# Table `x' is incompatible, use 'nft' tool.\n", 3),
    ],
)  # fmt: skip
def test_what_is_no_listing_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_iptables("*filter\nCOMMIT\n", text)
    assert caught.value.line == line


def test_a_list_of_lists_of_sets_is_not_understood() -> None:
    text = "create all list:set size 8\nadd all all\n"
    ask = "*filter\n:INPUT ACCEPT\n-A INPUT -m set --match-set all src -j DROP\nCOMMIT\n"
    (line,) = read_iptables(ask, "", text).chains["iptables filter INPUT"]
    assert line.conditions == (Condition(Unknown("-m set --match-set all src")),)


@pytest.mark.parametrize("text", ["add x 192.0.2.1\n", "Name: x\n", "swap a b\n"])
def test_what_is_no_listing_of_sets_is_refused(text: str) -> None:
    with pytest.raises(UnreadableError):
        read_iptables("", "", text)


# --- what we write ourselves ----------------------------------------------------------------------


def _written(folder: Path) -> Foreign:
    sets = folder / "sets.ipset"
    v4, v6 = ((folder / name).read_text() for name in ("rules.v4", "rules.v6"))
    return Foreign(v4, v6, sets.read_text() if sets.exists() else "")


def _not_understood(machine: Machine) -> Iterator[str]:
    for lines in machine.chains.values():
        for line in lines:
            for condition in line.conditions:
                if isinstance(condition.question, Unknown):
                    yield condition.question.text
            if isinstance(line.act, Obscure):
                yield line.act.text


@pytest.mark.parametrize("folder", WRITTEN, ids=lambda path: path.parent.name)
def test_what_we_write_is_understood(folder: Path) -> None:
    text = _written(folder)
    machine = read_iptables(text.v4, text.v6, text.ipsets, owners=OWNERS)
    assert machine.bases
    assert set(_not_understood(machine)) <= NATIVE
    reached = {base.chain for base in machine.bases}
    for lines in machine.chains.values():
        reached |= {line.act.chain for line in lines if isinstance(line.act, ir.Jump | Goto)}
    assert reached == set(machine.chains), "every chain is there, and one leads to it"


@pytest.fixture(scope="module")
def loader() -> Iterator[None]:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    yield


@pytest.mark.parametrize("way", [Way.IPTABLES_LEGACY, Way.IPTABLES_NFT], ids=lambda way: way.name)
def test_what_the_kernel_lists_of_it_says_the_same(loader: None, way: Way, tmp_path: Path) -> None:
    """With its own numbers, names and defaults, in both flavours; the counters are no matter."""
    for name in LOADED:
        folder = next(path for path in WRITTEN if path.parent.name == name)
        text = _written(folder)
        wanted = read_iptables(text.v4, text.v6, text.ipsets, owners=OWNERS)
        listed = _listed(way, folder, tmp_path)
        found = read_iptables(listed.v4, listed.v6, listed.ipsets)
        assert {n: c for n, c in found.chains.items() if c} == {
            n: c for n, c in wanted.chains.items() if c
        }, name
        assert [b for b in found.bases if found.chains[b.chain]] == list(wanted.bases), name
        assert set(_not_understood(found)) <= NATIVE


def _listed(way: Way, folder: Path, scratch: Path) -> Foreign:
    namespace = Namespace.create(f"reading-{way.value}")
    try:
        env = {**os.environ, "XTABLES_LOCKFILE": str(scratch / "lock")}

        def run(*argv: str, text: str = "") -> str:
            with namespace.entered():
                child = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
                )
            out, _ = child.communicate(text, timeout=60)
            assert child.returncode == 0, argv
            return out

        written = _written(folder)
        if written.ipsets:
            run("ipset", "restore", text=written.ipsets)
        v4, v6 = way.tools
        run(v4, "--noflush", text=written.v4)
        run(v6, "--noflush", text=written.v6)
        save = [tool.replace("-restore", "-save") for tool in way.tools]
        return Foreign(run(save[0], "-c"), run(save[1]), run("ipset", "save"))
    finally:
        namespace.delete()


# --- what others write ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ground(loader: None) -> Iterator[Range]:
    with shooting_range((Way.IPTABLES_LEGACY, Way.IPTABLES_NFT)) as made:
        yield made


@pytest.fixture(scope="module")
def shot(ground: Range) -> Shot:
    found = foreign_rules.shot_at(ground.control)
    assert len(found.packets) > 0.9 * foreign_rules.PROBES
    return found


@pytest.mark.parametrize("path", RULESETS, ids=lambda path: path.stem)
def test_the_kernel_does_what_is_read_in_foreign_rules(
    ground: Range, shot: Shot, path: Path
) -> None:
    foreign = Foreign.of(path)
    members = foreign_rules.members_of(foreign)
    for way, target in ground.targets.items():
        foreign_rules.load(way, foreign, target)
        for text in (foreign, foreign_rules.listed(way, target)):
            judge = Judge(text.machine, members)
            said = {serial: judge.verdict(packet) for serial, packet in shot.packets.items()}
            wrong = sorted(shot.packets)
            for _ in range(3):  # a lost frame is no verdict
                fates = foreign_rules.fates(target, shot, wrong)
                wrong = [s for s in wrong if not _fits(shot, s, said[s], fates[s])]
                if not wrong:
                    break
            story = [(said[s], fates[s], shot.packets[s]) for s in wrong[:3]]
            assert not wrong, (way.name, len(wrong), story)
            accepted = sum(isinstance(verdict, ir.Accept) for verdict in said.values())
            assert 0 < accepted < len(said), "the rules tell packets apart"


def _fits(shot: Shot, serial: int, said: ir.Action, fate: foreign_rules.Fate) -> bool:
    passes, answer = fate
    if passes is not isinstance(said, ir.Accept):
        return False
    if answer is None:
        probe, packet = shot.volley.probes[serial - 1], shot.packets[serial]
        return not isinstance(said, ir.Reject) or not _must_be_answered(packet, probe)
    return isinstance(said, ir.Reject) and said.answer.value == answer.value
