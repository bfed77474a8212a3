"""What a controller makes of a policy and an inventory before any target is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.diagnostics import Report
from policylang.pipeline import Text
from policylang.provision import controller
from policylang.provision.controller import Compiled, Wanted
from policylang.provision.inventory import (
    BadAddressError,
    BadNameError,
    Inventory,
    Names,
    NoAddressError,
    TakenNameError,
    text_of,
)

NONE = Names()
HOSTS = {"web1": ("192.0.2.1", "2001:db8::1"), "db1": ("192.0.2.9",), "old": ()}
GROUPS = {"web": ("web1", "old"), "db1": ("db1",), "none": ("old",)}
SITE = Inventory(HOSTS, GROUPS)
POLICY = "allow postgresql from web to db1\ndefault deny outbound\n"


def compiled(wanted: Wanted) -> tuple[Compiled | None, list[str]]:
    """What a policy compiles to, and the ids of what is told."""
    report = Report()
    one = controller.compiled(wanted, report)
    return one, [d.code for d in report.in_order()]


def wanted(text: str, called: str | None, inventory: Inventory | None = SITE) -> Wanted:
    policy = Text(text, "site.policy", Path())
    return Wanted(policy, "nft", {}, called=called, inventory=inventory)


def script(one: Compiled | None) -> str:
    assert one is not None
    return one.artifact.files[0].text


def test_machines_are_hosts_and_groups_are_sets() -> None:
    """Groups without machines, and those that have a machine's name, are left out."""
    assert text_of(SITE, NONE).text == (
        "host web1 { address 192.0.2.1, 2001:db8::1 }\n"
        "host db1 { address 192.0.2.9 }\n"
        "set web = web1\n"
    )


@pytest.mark.parametrize("text", ["set web = web1\n", "on web1 { zone web { interface eth0 } }\n"])
def test_what_the_policy_declares_is_left_to_it(text: str) -> None:
    """Wherever it stands in it, and whatever it is."""
    own = f"host web1 {{ address 192.0.2.7 }}\n{text}allow http inbound from db1\n"
    assert compiled(wanted(own, "db1"))[1] == []
    one, codes = compiled(wanted(own, "web1"))
    assert codes == []
    assert "ip saddr 192.0.2.9 tcp dport 80" in script(one)


def test_a_group_of_the_name_of_a_service_is_a_set_where_no_rule_uses_that() -> None:
    groups = Inventory(HOSTS, {"redis": ("web1",)})
    one, codes = compiled(wanted("allow ssh inbound from redis\n", "db1", groups))
    assert codes == []
    assert "ip saddr 192.0.2.1 " in script(one)
    one, codes = compiled(wanted("allow redis inbound from web1\n", "db1", groups))
    assert codes == []
    assert "tcp dport 6379" in script(one)


@pytest.mark.parametrize("text", ["allow redis inbound\n", "deny all inbound from private\n"])
def test_a_machine_of_the_name_of_something_built_in_is_refused(text: str) -> None:
    """Where the policy uses that: or the machine would silently take its place."""
    called = Inventory(dict.fromkeys(("redis", "private"), ("192.0.2.1",)), {})
    with pytest.raises(TakenNameError):
        compiled(wanted(text, "redis", called))
    assert compiled(wanted("allow ssh inbound from redis\n", "private", called))[1] == []


def test_a_name_that_is_a_word_of_the_language_stands_in_quotes() -> None:
    words = Inventory({"queue": ("192.0.2.1",), **HOSTS}, {"test": ("queue", "db1")})
    one, codes = compiled(wanted('allow ssh inbound from "test" except "queue"\n', "web1", words))
    assert codes == []
    assert "ip saddr 192.0.2.9 " in script(one)


def test_who_is_missing_in_a_group_that_the_policy_names_is_told() -> None:
    policy = "set servers = web\ndeny all inbound from servers\non db { allow ssh inbound }\n"
    groups = Inventory(HOSTS, {**GROUPS, "db": ("db1", "old"), "other": ("db1", "old")})
    one, codes = compiled(wanted(policy, "db1", groups))
    assert codes == []
    assert one is not None
    assert one.left_out == {"web": ("old",), "db": ("old",)}


@pytest.mark.parametrize("name", ["web1.example", "1web", "", "a b", "web1 { } host x"])
def test_a_name_that_the_language_has_not_is_refused(name: str) -> None:
    """Of a machine: no policy could name such a group."""
    with pytest.raises(BadNameError) as refused:
        text_of(Inventory({name: ("192.0.2.1",)}, {}), NONE)
    assert refused.value.args == (name,)
    machines = {"web1": ("192.0.2.1",)}
    assert "set" not in text_of(Inventory(machines, {name: ("web1",)}), NONE).text


@pytest.mark.parametrize("text", ["192.0.2.1 gateway", "192.0.2.0/24", "fe80::1%eth0", "any", ""])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadAddressError) as refused:
        text_of(Inventory({"web1": ("192.0.2.1", text)}, {}), NONE)
    assert refused.value.args == (text, "web1")


def test_a_policy_is_compiled_for_the_machine_that_is_meant() -> None:
    for called, chain in (("db1", "input"), ("web1", "output")):
        one, codes = compiled(wanted(POLICY, called))
        assert codes == []
        chains = script(one).split("\tchain ")
        (inside,) = (text for text in chains if "5432" in text)
        assert inside.startswith(f"{chain} {{")
        assert "ip saddr 192.0.2.1 ip daddr 192.0.2.9 tcp dport 5432 accept" in inside


def test_the_host_that_was_meant_is_recorded() -> None:
    for inventory, name, host in ((SITE, "site.policy on db1", "db1"), (None, "site.policy", "")):
        meant = wanted(POLICY if inventory else "allow ssh inbound\n", "db1", inventory)
        one, _ = compiled(meant)
        assert one is not None
        sent = controller.cargo(one, meant, None, "a test")
        assert (sent.name, sent.host) == (name, host)


def test_a_host_that_is_said_comes_before_the_machines_name() -> None:
    policy = Text(POLICY, "site.policy", Path())
    said = Wanted(policy, "nft", {}, host="db1", called="web1", inventory=SITE)
    assert script(compiled(said)[0]) == script(compiled(wanted(POLICY, "db1"))[0])


def test_a_machine_that_is_no_host_is_told() -> None:
    with pytest.raises(NoAddressError):
        compiled(wanted(POLICY, "old"))
    assert compiled(wanted(POLICY, "none")) == (None, ["no-such-host"])
    assert compiled(wanted(POLICY, None)) == (None, ["which-host"])


def test_a_policy_of_one_firewall_is_that_of_every_machine() -> None:
    for called in ("web1", "old", None):
        one, codes = compiled(wanted("allow ssh inbound\n", called, None))
        assert codes == []
        assert "tcp dport 22 accept" in script(one)


def test_a_gateway_of_the_policy_stands_beside_machines_of_the_inventory() -> None:
    gateway = 'host gw { address 198.51.100.1 gateway zone dmz { interface "dmz0" } }\n'
    machines = Inventory({**HOSTS, "gw": ("203.0.113.1",)}, GROUPS)
    one, codes = compiled(wanted(gateway + POLICY, "gw", machines))
    assert codes == []
    assert "chain forward" in script(one)
    assert "tcp dport 5432" in script(one)


def test_open_connections_end_where_that_is_said() -> None:
    policy = Text("allow ssh inbound\n", "site.policy", Path())
    for says, ends in ((None, False), (True, True), (False, False)):
        one, _ = compiled(Wanted(policy, "nft", {}, cuts_flows=says))
        assert one is not None
        assert one.artifact.needs.cuts_flows is ends
