"""`policylang query`: what it answers, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from policylang.cli import main

POLICY = """\
zone wan { interface eth0 }
zone lan { interface eth1  network 192.168.1.0/24 }
set admins = 192.0.2.0/24
set banned = dynamic
deny all from banned to any
allow ssh inbound from admins limit 4/minute
allow https from lan to wan
dnat tcp 2222 from wan to 192.168.1.5 port 22
masquerade from lan to wan
"""
SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 2222 -j DNAT --to-destination 192.168.1.5:22
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -s 192.0.2.0/24 -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 80 -m u32 --u32 "0x0=0x1" -j ACCEPT
COMMIT
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "web.policy"
    path.write_text(POLICY)
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "rules.v4"
    path.write_text(SAVED)
    return path


def answered(file: Path, *arguments: str, status: int, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["query", str(file), *arguments]) == status
    told = capsys.readouterr()
    assert told.err == ""
    return told.out


def test_yes_with_statement_and_translation(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = answered(policy, "tcp 443 from lan except banned to wan ipv4", status=0, capsys=capsys)
    assert (
        out
        == """\
tcp 443 from lan except banned to wan ipv4: yes

  yes     tcp 443 (https) from lan to wan (source not in banned)
          → from the address of the way out
          accepted: web.policy:7 allow https from lan to wan
"""
    )


def test_no_with_what_decides(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = answered(policy, "telnet inbound from wan except banned", status=2, capsys=capsys)
    assert (
        out
        == """\
telnet inbound from wan except banned: no

  no      tcp 23 (telnet) from wan to self (source not in banned)
          dropped: the default (`default deny inbound`)
"""
    )


def test_partly_with_each_part(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = answered(policy, "ssh, tcp 2222 from wan except banned to self", status=2, capsys=capsys)
    assert (
        out
        == """\
ssh, tcp 2222 from wan except banned to self: partly

  yes     IPv4 tcp 2222 from wan to self (source not in banned)
          → sent on to 192.168.1.5 port 22: web.policy:8 dnat tcp 2222 from wan to 192.168.1.5 port
              22

  partly  tcp 22 (ssh) from admins in wan to self (source not in banned)
          accepted: web.policy:6 allow ssh inbound from admins limit 4/minute
          if it is within 4/minute (burst 5)
          otherwise: the default (`default deny inbound`)

  no      IPv4 tcp 22 (ssh) from any but admins in wan to self (source not in banned)
          IPv6 tcp 22, 2222 from wan to self (source not in banned)
          dropped: the default (`default deny inbound`)
"""
    )


def test_what_is_sent_on_is_asked_about_where_it_goes(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = answered(policy, "ssh from wan except banned to lan", status=2, capsys=capsys)
    assert "yes     IPv4 tcp 2222 from wan to self" in out
    assert "no      tcp 22 (ssh) from wan to lan" in out


def test_several_questions_are_answered_in_order(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = answered(policy, "all outbound", "ping inbound", "all outbound", status=2, capsys=capsys)
    heads = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert heads == ["all outbound: yes", "ping inbound: no"]


def test_a_question_about_nobody_says_so(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = answered(policy, "ssh from self to self", status=2, capsys=capsys)
    assert "no packet is asked about" in out


def test_programs_read_json(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(policy), "ssh inbound", "--format", "json"]) == 2
    told = capsys.readouterr()
    assert told.err == "[]\n"
    result = json.loads(told.out)
    assert result["version"] == 1
    (answer,) = result["answers"]
    assert (answer["question"], answer["answer"], answer["understood"]) == (
        "ssh inbound",
        "partly",
        True,
    )
    (allowed,) = (part for part in answer["parts"] if part["answer"] == "partly")
    (packets,) = allowed["packets"]
    assert packets["source"] == ["192.0.2.0/24"] and packets["port"] == ["22"]
    assert allowed["path"] == "inbound" and allowed["complete"]
    decided = allowed["decided_by"]
    assert (decided["file"], decided["line"]) == ("web.policy", 6)
    assert allowed["condition"] == "within 4/minute (burst 5)"


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("sssh inbound", "no service named `sssh`"),
        ("ssh inbound from adminz", "no zone or set named `adminz`"),
        ("ssh", "the rule leaves both ends unsaid"),
        ("ssh inbound limit 4/minute", "a rate or a number of connections is not told of a packet"),
        ("allow ssh inbound", "a question starts with what it is about, not with `allow`"),
        ("ssh inbound allow http inbound", "the question is over before this"),
        ("ssh inbound\nalow http inbound", "the question is over before this"),
        ("", "a question starts with what it is about"),
        ("dnat http from any to any", "starts with what it is about, not with `dnat`"),
        ("ssh inbound log", "a question about packets takes no options"),
    ],
)
def test_mistakes_in_questions_are_told(
    policy: Path, question: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", str(policy), question]) == 1
    assert message in capsys.readouterr().err


def test_a_question_uses_the_parameters_of_the_policy(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text(POLICY + "param door = 2222\n")
    out = answered(policy, "tcp $door inbound from lan", status=2, capsys=capsys)
    assert "tcp 2222 from lan to self" in out


def test_a_zone_of_both_families_tells_which_one(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text("""\
zone lan { interface eth1  network 192.168.1.0/24, fd00:1::/64 }
set admins = 192.0.2.0/24, 2001:db8:1::/48
allow ssh inbound from lan ipv4
allow http inbound from admins ipv6
""")
    out = answered(policy, "ssh from lan to self", status=2, capsys=capsys)
    assert "  yes     IPv4 tcp 22 (ssh) from lan to self\n" in out
    assert "  no      IPv6 tcp 22 (ssh) from lan to self\n" in out
    out = answered(policy, "ssh from lan to lan", "all from lan to any", status=2, capsys=capsys)
    assert "  no      tcp 22 (ssh) from lan to lan\n" in out
    assert "all IPv" not in out
    out = answered(policy, "http inbound", status=2, capsys=capsys)
    assert "  yes     IPv6 tcp 80 (http) from admins to self\n" in out
    assert "  no      tcp 80 (http) from any but 2001:db8:1::/48 to self\n" in out


def test_sources_that_are_told_are_those_of_the_packets_that_are_asked_about(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy.write_text("""\
zone wan { interface eth0 }
zone lan { interface eth1 network 192.168.1.0/24 }
zone dmz { interface eth2 network 10.0.2.0/24 }
snat from lan to wan as 198.51.100.7
masquerade from dmz to wan
dnat tcp 2222 from any to 10.0.2.11 port 22 hairpin
default allow forward
""")
    out = answered(policy, "tcp 2222 from lan to self ipv4", status=0, capsys=capsys)
    assert "→ sent on to 10.0.2.11" in out
    assert out.count("→") == 1
    out = answered(policy, "tcp 2222 from dmz to self ipv4", status=0, capsys=capsys)
    assert "→ sent on to 10.0.2.11" in out
    assert "          → from the address of the way out\n" in out
    out = answered(policy, "http from lan to wan ipv4", status=0, capsys=capsys)
    assert out.count("→") == out.count("          → from 198.51.100.7\n") == 1
    out = answered(policy, "http from lan to dmz ipv4", status=0, capsys=capsys)
    assert "→" not in out


def test_lines_are_no_wider_than_a_page(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy.write_text(
        "zone wan { interface eth0 }  protect from wan against bogons, spoofing\n"
        f"allow ssh inbound from {', '.join(f'192.0.{n}.1' for n in range(1, 40))} "
        f'log "{"wide " * 12}"\n'
    )
    out = answered(policy, "ssh inbound", "all from any to any", status=2, capsys=capsys)
    assert max(map(len, out.splitlines())) <= 100
    assert "from bogons in wan to self" in out


# --- the table ----------------------------------------------------------------------------------


def test_the_table_has_zones_and_services(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = answered(policy, "--matrix", status=0, capsys=capsys)
    assert (
        out
        == """\
from  to    ssh     https
wan   lan   partly  -
wan   self  partly  -
lan   wan   -       partly
self  wan   yes     yes
self  lan   yes     yes

yes: all of it passes; partly: some of it, or on a condition; -: none of it
3 rows are left out, by which nothing passes; `--all` shows them
"""
    )
    out = answered(policy, "--matrix", "--all", status=0, capsys=capsys)
    rows = [line.split() for line in out.splitlines()]
    assert ["lan", "lan", "-", "-"] in rows
    assert "left out" not in out


def test_the_table_is_of_the_services_that_are_named(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--matrix", "--services", "ssh, tcp 2222", "--format", "json")
    assert main(["query", str(policy), *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["version"] == 1 and result["services"] == ["ssh", "tcp 2222"]
    rows = {(row["from"], row["to"]): row["answers"] for row in result["rows"]}
    assert rows["wan", "self"] == {"ssh": "partly", "tcp 2222": "partly"}
    assert rows["lan", "self"] == {"ssh": "no", "tcp 2222": "no"}
    assert ("self", "self") not in rows


def test_the_table_agrees_with_the_answers(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--matrix", "--services", "ssh,https", "--format", "json")
    assert main(["query", str(policy), *arguments]) == 0
    for row in json.loads(capsys.readouterr().out)["rows"]:
        questions = [f"{s} from {row['from']} to {row['to']}" for s in row["answers"]]
        assert main(["query", str(policy), *questions, "--format", "json"]) in (0, 2)
        answers = json.loads(capsys.readouterr().out)["answers"]
        assert [one["answer"] for one in answers] == list(row["answers"].values())


def test_a_wide_table_is_broken_into_blocks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wide.policy"
    services = ("ssh", "http", "https", "ftp", "smtp", "imap", "imaps", "dns", "ntp", "ldap")
    path.write_text(f"zone a {{ interface eth0 }}\nallow {', '.join(services)} inbound from a\n")
    out = answered(path, "--matrix", status=0, capsys=capsys)
    assert max(map(len, out.splitlines())) <= 100
    heads = [line for line in out.splitlines() if line.startswith("from")]
    assert len(heads) == 1
    policy = path.read_text().replace("allow ", "allow postgresql, kerberos, kpasswd, ldaps, ")
    path.write_text(policy)
    out = answered(path, "--matrix", status=0, capsys=capsys)
    assert max(map(len, out.splitlines())) <= 100
    assert sum(line.startswith("from") for line in out.splitlines()) == 2


# --- rules of any origin ------------------------------------------------------------------------


def test_other_rules_are_asked_in_addresses_and_interfaces(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = 'tcp 22 from 192.0.2.0/24 in "eth0.100" to self'
    out = answered(saved, question, status=0, capsys=capsys)
    assert out.startswith(f"{question}: yes")
    out = answered(saved, 'tcp 2222 from "eth0" to self ipv4', status=0, capsys=capsys)
    assert "→ sent on to 192.168.1.5 port 22" in out


def test_a_rule_that_is_not_understood_is_no_native_line(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved.write_text(SAVED.replace("192.0.2.0/24 -p tcp -m tcp --dport 22 -j ACCEPT", "0/0 -j ODD"))
    out = answered(saved, "ssh inbound ipv4", status=2, capsys=capsys)
    assert "accepted by a rule that is not understood: iptables filter INPUT 1" in out


def test_what_is_not_understood_is_told_as_at_least_and_at_most(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = answered(saved, "http inbound ipv4", status=2, capsys=capsys)
    assert "not all of the rules are understood" in out
    assert "partly  " in out and "u32" in out


def test_no_policy_has_no_zones(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(saved), "ssh from lan to self"]) == 1
    assert "no zone or set named `lan`" in capsys.readouterr().err
    out = answered(saved, "--matrix", "--services", "ssh", status=0, capsys=capsys)
    assert [line.split() for line in out.splitlines()[1:4]] == [
        ["eth0", "eth0", "yes"],
        ["eth0", "self", "partly"],
        ["self", "eth0", "yes"],
    ]


def test_rules_for_ipv6_alone_tell_nothing_of_ipv4(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = saved.read_text().replace("192.0.2.0/24", "2001:db8::/32")
    saved.write_text(f"# Generated by ip6tables-save\n{text[text.index('*filter') :]}")
    out = answered(
        saved, "ssh from 2001:db8::/32 to self", "telnet inbound", status=2, capsys=capsys
    )
    assert "tcp 23 (telnet) from any to self" in out
    assert out.endswith("\nthese rules are of IPv6: nothing is said of IPv4\n")
    assert main(["query", str(saved), "--matrix", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["families"] == [6]


@pytest.mark.parametrize("service", ["ssh inbound", "ssh from lan", "ssh outbound user 0"])
def test_a_column_is_a_service_and_no_place(
    policy: Path, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table has a row for each place: an answer about another one would be a wrong one."""
    assert main(["query", str(policy), "--matrix", "--services", f"http, {service}"]) == 1
    told = capsys.readouterr()
    assert (told.out, "error[" in told.err) == ("", True)


# --- the command line ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--matrix", "ssh inbound"],
        ["ssh inbound", "--services", "ssh"],
        ["--matrix", "--services", ", "],
    ],
)
def test_what_does_not_go_together_is_refused(
    policy: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", str(policy), *arguments]) == 1
    assert "usage: policylang query" in capsys.readouterr().err


def test_questions_may_stand_behind_options(
    policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = answered(policy, "ping inbound", "--all", "dns inbound", status=2, capsys=capsys)
    assert [line for line in out.splitlines() if line and line[0] != " "] == [
        "ping inbound: no",
        "dns inbound: no",
    ]
    assert main(["query", str(policy), "ping inbound", "--none"]) == 1
    assert "unrecognized arguments: --none" in capsys.readouterr().err


def test_a_package_that_is_missing_is_told(
    policy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "policylang.analysis.diagram", raising=False)
    monkeypatch.setitem(sys.modules, "oxidd.bcdd", None)
    assert main(["query", str(policy), "ssh inbound"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("policylang: this needs the Python package `oxidd`: ")
    assert len(told.splitlines()) == 1
