"""What `policylang why` finds behind rules, log lines, counters and elements."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from policylang.analysis.whence import read_log
from policylang.cli import main
from policylang.packets.fields import AddressType, Field
from policylang.packets.values import name_range, parse_one_address

POLICY = """\
zone wan { interface eth0 }
set admins = 192.0.2.0/24
set bad = file "bad.txt"
set banned = dynamic timeout 1h
deny all from bad, banned to any log "bad "
allow http inbound from wan
allow ssh inbound from admins
  limit 4/minute log "ssh "
deny telnet inbound add source to banned
dnat tcp 2222 from wan to 192.0.2.11 port 22
default deny inbound log
default deny forward log "fwd "
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how its terminal, or that of whoever runs it, is set up."""
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Asks about a policy in a folder; the status and what is printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gw.policy").write_text(POLICY)
    (tmp_path / "bad.txt").write_text("# a list\n203.0.113.0/28\n203.0.113.128/25\n")

    def run(*arguments: str, target: str = "nft") -> tuple[int, str]:
        capsys.readouterr()
        status = main(["why", "--policy", "gw.policy", "--target", target, *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def packet(
    source: str, port: int, *, prefix: str = "", way_out: str = "", to: str = "192.0.2.1"
) -> str:
    """A line of the kernel's log, as the journal shows it."""
    head = f"Nov 21 18:00:01 gw kernel: [12345.678901] {prefix}"
    mac = "" if way_out else "MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 "
    return (
        f"{head}IN=eth0 OUT={way_out} {mac}SRC={source} DST={to} LEN=60 TOS=0x00 PREC=0x00 TTL=64 "
        f"ID=1 DF PROTO=TCP SPT=40000 DPT={port} WINDOW=64240 RES=0x00 SYN URGP=0"
    )


# --- rules --------------------------------------------------------------------------------------


def rule_of(port: int, target: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The rule for a port, as the policy compiles to it."""
    capsys.readouterr()
    folder = "out/" if target == "iptables" else "-"
    assert main(["compile", "gw.policy", "--target", target, "-o", folder]) == 0
    printed = capsys.readouterr().out
    text = Path("out/rules.v4").read_text() if target == "iptables" else printed
    lines = (line.strip() for line in text.splitlines())
    return next(line for line in lines if f"dport {port} " in line or f"dports {port} " in line)


def test_a_rule_of_nft_is_found_by_its_text(why: Run, capsys: pytest.CaptureFixture[str]) -> None:
    rule = rule_of(80, "nft", capsys)
    bare = rule.partition(" comment ")[0]
    for asked in (
        rule,
        bare,
        f"add rule inet policylang input {bare}",
        f"{bare.removesuffix(' accept')} counter packets 7 bytes 420 accept # handle 12",
    ):
        status, said = why(asked)
        assert status == 0, asked
        assert "  --> gw.policy:6\n     6 | allow http inbound from wan\n" in said


def test_a_rule_of_iptables_is_found_by_its_text(
    why: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = rule_of(80, "iptables", capsys)
    for asked in (
        rule,
        f"[3:180] {rule}",
        rule.replace(" -m comment --comment", " -m comment --comment"),
    ):
        status, said = why(asked, target="iptables")
        assert status == 0
        assert said.startswith("iptables filter policylang-input, rule ")
        assert "  --> gw.policy:6\n" in said


def test_the_chain_tells_apart_rules_of_one_text(why: Run) -> None:
    rule = "ct state established icmp type != echo-request accept"
    status, said = why(rule)
    assert (status, said.count(rule)) == (0, 3)  # of each path
    status, said = why(f"add rule inet policylang forward {rule}")
    assert (status, said.count(rule)) == (0, 1)
    assert said.startswith("chain forward, rule ")


def test_a_chain_and_a_number_are_a_rule(why: Run) -> None:
    status, said = why("input", "5")
    assert (status, said.splitlines()[0]) == (0, "chain input, rule 5")
    assert "  no statement: loopback\n" in said
    status, said = why("INPUT 3", target="iptables")
    assert (status, said.splitlines()[0]) == (0, "iptables filter policylang-input, rule 3")
    status, said = why("input", "900")
    assert status == 2
    assert "  the chain has " in said


def test_a_statement_of_several_lines_is_shown_whole(why: Run) -> None:
    status, said = why("gw.policy:8")
    assert status == 0
    shown = '     7 | allow ssh inbound from admins\n     8 |   limit 4/minute log "ssh "\n'
    assert f"  --> gw.policy:7\n{shown}" in said
    assert "jump input-limit-" in said


def test_a_line_of_status_is_a_statement(why: Run) -> None:
    status, said = why("          12            720  gw.policy:6 allow http inbound from wan")
    assert status == 0
    assert "chain input, rule " in said


def test_a_rule_that_is_nearly_one_is_named(why: Run) -> None:
    status, said = why('iifname "eth9" tcp dport 80 accept')
    assert status == 2
    assert 'the nearest rule is `iifname "eth0" tcp dport 80 accept' in said


@pytest.mark.parametrize("asked", ["handle 12", "no such thing", "gw.policy:1", "198.51.100.7"])
def test_what_is_not_known_is_status_2(why: Run, asked: str) -> None:
    status, said = why(asked)
    assert (status, said.splitlines()[0]) == (2, "nothing is known of it")


# --- logs ---------------------------------------------------------------------------------------


def test_a_log_line_is_traced_to_who_logged_and_who_decided(why: Run) -> None:
    status, said = why(packet("192.0.2.9", 22, prefix="ssh "))
    assert status == 0
    assert said.splitlines() == [
        "  tcp SYN 192.0.2.9:40000 to 192.0.2.1:22 (self), in by eth0",
        "  as a packet of state NEW",
        "logged and accepted by:",
        "  --> gw.policy:7",
        "     7 | allow ssh inbound from admins",
        '     8 |   limit 4/minute log "ssh "',
    ]


def test_what_goes_over_a_rate_is_logged_by_the_default(why: Run) -> None:
    """The prefix tells that the statement before did not hold."""
    status, said = why(packet("192.0.2.9", 22, prefix="default deny inbound: "))
    assert status == 0
    assert "logged and dropped by:\n  --> gw.policy:11\n" in said


def test_a_packet_of_a_set_is_told_by_its_prefix(why: Run) -> None:
    for source in ("203.0.113.1", "198.51.100.1"):  # in the list; in the dynamic set, perhaps
        status, said = why(packet(source, 80, prefix="bad "))
        assert status == 0
        assert "logged and dropped by:\n  --> gw.policy:5\n" in said


def test_a_forwarded_packet_is_followed_to_the_forward_chain(why: Run) -> None:
    line = packet("198.51.100.1", 22, prefix="fwd ", way_out="eth1", to="192.0.2.11")
    status, said = why(line)
    assert status == 0
    assert "logged and dropped by:\n  --> gw.policy:12\n" in said


def test_another_programs_log_is_not_explained(why: Run) -> None:
    status, said = why(packet("192.0.2.9", 22, prefix="ufw block "))
    assert status == 2
    assert "no rule logs with such a prefix" in said


def test_log_lines_come_from_standard_input(why: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [packet("192.0.2.9", 22, prefix="ssh "), packet("192.0.2.9", 23, prefix="x ")]
    stream = TextIOWrapper(BytesIO("\n".join((*lines, lines[0], "")).encode()))
    monkeypatch.setattr("sys.stdin", stream)
    status, said = why("-", "--format", "json")
    told: dict[str, Any] = json.JSONDecoder().raw_decode(said)[0]
    assert status == 2  # one of them is not known
    assert [(a["kind"], a["known"]) for a in told["answers"]] == [("log", True), ("log", False)]
    (because,) = told["answers"][0]["because"]
    assert because["words"] == "logged and accepted by"
    assert because["statements"][0]["line"] == 7
    assert told["version"] == 1


def test_nothing_on_standard_input_is_an_error(why: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"\n")))
    status, said = why("-")
    assert status == 1
    assert "error[nothing-asked]" in said


def test_every_part_of_a_logged_packet_is_read() -> None:
    """As nf_log_syslog writes IPv4 and IPv6, TCP, UDP and errors about other packets."""
    found = read_log(packet("192.0.2.9", 22, prefix="p "))
    assert found is not None
    assert dict(found.packet) == {
        Field.IIF: name_range("eth0")[0],
        Field.OIF: 0,
        Field.FAMILY: 4,
        Field.SADDR: parse_one_address("192.0.2.9"),
        Field.DADDR: parse_one_address("192.0.2.1"),
        Field.DADDR_TYPE: AddressType.LOCAL,
        Field.L4PROTO: 6,
        Field.SPORT: 40000,
        Field.DPORT: 22,
        Field.TCP_FLAGS: 0x02,
        Field.SIZE: 60,
        Field.DSCP: 0,
        Field.SMAC: 0x020000000002,
    }
    six = (
        "p IN= OUT=eth1 SRC=2001:0db8:0000:0000:0000:0000:0000:0001 "
        "DST=2001:0db8:0000:0000:0000:0000:0000:0002 LEN=104 TC=0 HOPLIMIT=64 FLOWLBL=0 "
        "PROTO=ICMPv6 TYPE=1 CODE=4 [SRC=2001:0db8:0000:0000:0000:0000:0000:0002 "
        "DST=2001:0db8:0000:0000:0000:0000:0000:0001 LEN=56 TC=0 HOPLIMIT=1 FLOWLBL=0 PROTO=UDP "
        "SPT=53 DPT=4000 LEN=16 ] "
    )
    error = read_log(six)
    assert error is not None
    assert dict(error.packet) == {
        Field.IIF: 0,
        Field.OIF: name_range("eth1")[0],
        Field.FAMILY: 6,
        Field.SADDR: parse_one_address("2001:db8::1"),
        Field.DADDR: parse_one_address("2001:db8::2"),
        Field.SADDR_TYPE: AddressType.LOCAL,
        Field.L4PROTO: 58,
        Field.ICMPV6_TYPE: 1,
        Field.SIZE: 104,
        Field.DSCP: 0,
        Field.HOP_LIMIT: 64,
    }
    assert read_log("usb 1-1: new high-speed USB device") is None
    assert read_log("IN=eth0 OUT= SRC=nonsense DST=") is None
    assert read_log("IN=eth0 OUT= SRC=192.0.2.9 DST=2001:db8::1") is None


@pytest.mark.parametrize(
    "rest",
    [
        "LEN=60 TOS=0x PREC=0x00 TTL=64 PROTO=TCP SPT=1 DPT=2",
        "LEN=60 TOS=0x00 PREC=0x TTL=64 PROTO=TCP SPT=1 DPT=2",
        f"LEN={'9' * 5000} PROTO={'9' * 5000} SPT={'9' * 5000} DPT=70000 HOPLIMIT=999",
    ],
)
def test_what_is_cut_off_of_a_log_line_is_left_out(rest: str) -> None:
    found = read_log(f"p IN=eth0 OUT= SRC=192.0.2.9 DST=192.0.2.1 {rest}")
    assert found is not None
    assert not {Field.DSCP, Field.HOP_LIMIT} & found.packet.keys()


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (
            "MAC=ff:ff:ff:ff:ff:ff:02:00:00:00:00:02:08:00 SRC=192.0.2.9 DST=192.0.2.255",
            "BROADCAST",
        ),
        ("MAC= SRC=192.0.2.9 DST=255.255.255.255", "BROADCAST"),
        ("MAC= SRC=192.0.2.9 DST=224.0.0.251", "MULTICAST"),
        ("MAC= SRC=2001:db8::9 DST=ff02::fb", "MULTICAST"),
        ("MAC= SRC=192.0.2.9 DST=192.0.2.255", "LOCAL"),
    ],
)
def test_a_logged_packet_to_a_group_is_one(told: str, kind: str) -> None:
    found = read_log(f"p IN=eth0 OUT= {told} LEN=60 PROTO=UDP SPT=138 DPT=138")
    assert found is not None
    assert found.packet[Field.DADDR_TYPE] == AddressType[kind]


def test_the_traffic_class_of_a_logged_packet_has_its_code_point() -> None:
    found = read_log("p IN=eth0 OUT= SRC=2001:db8::9 DST=2001:db8::1 LEN=60 TC=184 PROTO=UDP")
    assert found is not None
    assert found.packet[Field.DSCP] == 46


# --- sets ---------------------------------------------------------------------------------------


def test_an_address_leads_to_its_sets_lists_and_statements(why: Run) -> None:
    status, said = why("192.0.2.7")
    assert status == 0
    assert "an element of set `admins`, `192.0.2.0/24`:\n  --> gw.policy:2\n" in said
    assert "named as a source by:\n  --> gw.policy:7\n" in said
    status, said = why("203.0.113.200")
    assert status == 0
    assert "in the list `bad.txt:3` of set `bad`:\n  --> gw.policy:3\n" in said
    assert "named as a source by:\n  --> gw.policy:5\n" in said


def test_a_set_leads_to_who_asks_for_it_and_who_fills_it(why: Run) -> None:
    for asked, target in (("set banned", "nft"), ("banned-v4", "nft"), ("banned", "iptables")):
        status, said = why(asked, target=target)
        assert status == 0, asked
        assert "declared by:\n  --> gw.policy:4\n" in said
        assert "asked for by:\n  --> gw.policy:5\n" in said
        assert "filled by:\n  --> gw.policy:9\n" in said


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", "iptables"),
        ("-D", "wan=eth0"),
        ("--policy", "gw.policy", "--generation", "1"),
        ("--policy", "gw.policy", "--netns", "branch"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", *arguments, "input", "5"]) == 1
    assert "usage: policylang why" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["handle {}", "input {}", "gw.policy:{}"])
def test_a_number_without_end_is_no_number(why: Run, asked: str) -> None:
    status, said = why(asked.format("9" * 5000))
    assert status == 2
    assert "nothing is known of it" in said


def test_a_policy_is_read_once(why: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it may come by a pipe, as from `<(…)` of a shell."""
    reading, writing = os.pipe()
    text = POLICY.replace('file "bad.txt"', "192.0.2.9")  # which would be looked for in /dev/fd
    os.write(writing, text.encode())
    os.close(writing)
    status, said = why("--policy", f"/dev/fd/{reading}", "set banned")
    os.close(reading)
    assert status == 0
    assert "declared by:" in said
    assert "asked for by:" in said


def test_a_policy_with_errors_explains_nothing(why: Run) -> None:
    Path("gw.policy").write_text("allow htpp inbound\n")
    status, said = why("input", "5")
    assert status == 1
    assert "error[unknown-service]" in said


def test_without_a_policy_it_is_what_is_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLICYLANG_STATE", str(tmp_path))
    assert main(["why", "input", "5"]) == 1
    assert "error[no-such-generation]: no generation is in force" in capsys.readouterr().err
