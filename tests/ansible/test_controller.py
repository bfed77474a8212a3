"""What a controller makes of a policy and an inventory before any target is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.diagnostics import Report
from policylang.pipeline import Text
from policylang.provision import controller
from policylang.provision.controller import Compiled, Wanted
from policylang.provision.inventory import Inventory, text_of

NONE: frozenset[str] = frozenset()
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


def test_what_the_policy_declares_is_left_to_it() -> None:
    told = text_of(SITE, frozenset({"web1", "web"})).text
    assert told == "host db1 { address 192.0.2.9 }\n"


@pytest.mark.parametrize("name", ["web1.example", "1web", "", "a b", "web1 { } host x"])
def test_a_name_that_the_language_has_not_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^" + name.replace("{", r"\{").replace(".", r"\.") + "$"):
        text_of(Inventory({name: ("192.0.2.1",)}, {}), NONE)
    with pytest.raises(ValueError):
        text_of(Inventory({"web1": ("192.0.2.1",)}, {name: ("web1",)}), NONE)


def test_a_policy_is_compiled_for_the_machine_that_is_meant() -> None:
    for called, chain in (("db1", "input"), ("web1", "output")):
        one, codes = compiled(wanted(POLICY, called))
        assert codes == []
        chains = script(one).split("\tchain ")
        (inside,) = (text for text in chains if "5432" in text)
        assert inside.startswith(f"{chain} {{")
        assert "ip saddr 192.0.2.1 ip daddr 192.0.2.9 tcp dport 5432 accept" in inside


def test_a_host_that_is_said_comes_before_the_machines_name() -> None:
    policy = Text(POLICY, "site.policy", Path())
    said = Wanted(policy, "nft", {}, host="db1", called="web1", inventory=SITE)
    assert script(compiled(said)[0]) == script(compiled(wanted(POLICY, "db1"))[0])


def test_a_machine_that_is_no_host_is_told() -> None:
    assert compiled(wanted(POLICY, "old")) == (None, ["no-such-host"])
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
