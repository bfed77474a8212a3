"""`why` and `diff live` on a real kernel: what it lists, logs and does leads back to statements."""

from __future__ import annotations

import json
from io import BytesIO, TextIOWrapper
from typing import Any

import pytest

from policylang.apply import programs
from tests.kernel.desk import Desk
from tests.kernel.ground import Loader, probe_tcp
from tests.kernel.logged import kernel_log

pytestmark = pytest.mark.usefixtures("kernel")

POLICY = """\
zone wan { interface wan0 }
set banned = dynamic timeout 1h
deny all from banned to any
allow tcp 8001 inbound from wan log "open-8001 "
reject telnet inbound
allow tcp 8003 inbound from wan limit 20/minute per source
default deny inbound log "shut-all "
"""
INSERT = ("nft", "insert", "rule", "inet", "policylang", "input")


@pytest.fixture
def desk(desk: Desk) -> Desk:
    """A desk whose firewall has the policy."""
    desk.apply(POLICY)
    return desk


def test_every_rule_that_the_kernel_lists_leads_to_its_statement(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = desk.rules()
    assert len(rules) > 15
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO("\n".join(rules).encode())))
    told: dict[str, Any] = json.loads(desk.run("why", "-", "--format", "json"))
    unknown = [answer["asked"] for answer in told["answers"] if not answer["known"]]
    assert unknown == []
    for answer in told["answers"]:
        if "8001" in answer["asked"]:
            lines = {s["line"] for because in answer["because"] for s in because["statements"]}
            assert lines == {4}, answer


@pytest.mark.parametrize("loader", [Loader.NFT])  # iptables has no handles
def test_a_handle_leads_to_its_statement_also_where_others_stand_beside_it(desk: Desk) -> None:
    table = ["nft", "-a", "list", "table", "inet", "policylang"]
    desk.net.firewall.run([*INSERT, "tcp", "dport", "9999", "accept"])
    listed = desk.net.firewall.run(table).stdout.splitlines()
    rule = next(line for line in listed if "tcp dport 23" in line)
    said = desk.run("why", "handle", rule.rpartition("# handle ")[2])
    assert "  --> web.policy:5\n     5 | reject telnet inbound\n" in said


def test_a_line_of_the_kernels_log_leads_to_who_logged_and_who_decided(desk: Desk) -> None:
    wire = desk.net["wan"]
    with kernel_log() as log:
        for port, prefix, statement, verdict in (
            (8001, "open-8001 ", "web.policy:4", "logged and accepted by:"),
            (8009, "shut-all ", "web.policy:7", "logged and dropped by:"),
        ):
            probe_tcp(wire.neighbour, wire.near.ipv4, port, timeout_s=0.2)
            lines = [text for _, text in log.lines(prefix) if f"DPT={port} " in text]
            assert lines, f"nothing was logged of port {port}"
            said = desk.run("why", lines[0])
            assert f"{verdict}\n" in said
            assert f"  --> {statement}\n" in said


def test_an_address_that_was_put_into_a_set_is_told(desk: Desk) -> None:
    desk.run("set", "add", "banned", "198.51.100.9")
    said = desk.run("why", "198.51.100.9")
    assert "in set `banned` at present, for 3" in said
    assert "  --> web.policy:2\n" in said


def test_what_is_in_force_means_what_the_policy_says_until_somebody_changes_it(desk: Desk) -> None:
    policy = desk.policy(POLICY)
    same = desk.run("diff", "live", policy)
    assert same == f"live → {policy}: no difference in meaning\n"
    assert "no difference" in desk.run("diff", "generation", policy)
    inside = desk.net.firewall
    if desk.loader is Loader.NFT:
        inside.run([*INSERT, "tcp", "dport", "9999", "accept"])
    else:
        flavour = desk.loader.value.removeprefix("iptables-")
        rule = ["-I", "INPUT", "1", "-p", "tcp", "--dport", "9999", "-j", "ACCEPT"]
        for family in ("iptables", "ip6tables"):
            inside.run([f"{family}-{flavour}", *rule])
    said = desk.run("diff", policy, "live", status=2)
    found = [line for line in said.splitlines() if line.startswith("  + ")]
    families = [""] if desk.loader is Loader.NFT else ["IPv4 ", "IPv6 "]  # a rule for each
    assert sorted(found) == [f"  + inbound {f}tcp 9999 (INVALID ones too)" for f in families]
    assert "web.policy:7 default deny inbound" in said
    assert "no difference" in desk.run("diff", "generation:1", policy)


@pytest.mark.parametrize("loader", [Loader.NFT])  # iptables has no handles
def test_a_handle_is_of_what_is_in_force_and_of_no_other_generation(desk: Desk) -> None:
    """Another generation has as many rules in the same chains, and none of these numbers."""
    desk.apply(POLICY.replace("reject telnet", "reject smtp"))
    table = ["nft", "-a", "list", "table", "inet", "policylang"]
    listed = desk.net.firewall.run(table).stdout.splitlines()
    number = next(line for line in listed if "tcp dport 25" in line).rpartition("# handle ")[2]
    assert "reject smtp inbound" in desk.run("why", "handle", number)
    assert "nothing is known" in desk.run("why", "--generation", "1", "handle", number, status=2)


@pytest.mark.parametrize("loader", [Loader.NFT])
def test_rules_of_nft_are_told_without_its_program(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By libnftables, which is all that loading needs."""
    find = programs.find
    monkeypatch.setattr(programs, "find", lambda name: None if name == "nft" else find(name))
    policy = desk.policy(POLICY)
    assert "no difference" in desk.run("diff", "live", policy)
