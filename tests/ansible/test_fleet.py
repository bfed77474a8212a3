"""Ansible for real: three hosts of Debian 13, a router between; traffic decides who is right."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from policylang.apply.nft_pending import PENDING_TABLE
from tests.kernel.ground import Family, Namespace, Reach, probe_tcp

from .controller import Controller, Played
from .ground import Fleet, Host, fleet
from .userland import PROGRAMS, userland

POLICY = """\
param admins
default deny outbound
allow ssh inbound from $admins
allow postgresql from web to db
on web { allow http inbound }
"""
APPLY = """\
- policylang.firewall.apply:
    policy: site.policy
    inventory: true
    target: "{{ loaders[inventory_hostname][0] }}"
    flavour: "{{ loaders[inventory_hostname][1] | default(omit) }}"
    confirm: 45
    parameters: {admins: [198.51.100.2, "2001:db8:0::2"]}
"""
BOOT = "- policylang.firewall.boot:\n"
INFO = "- policylang.firewall.info:\n"
ROLE = """\
- ansible.builtin.include_role: {name: policylang.firewall.firewall}
  vars:
    firewall_policy: "{{ playbook_dir }}/site.policy"
    firewall_parameters: {admins: [198.51.100.2, "2001:db8:0::2"]}
    firewall_target: "{{ loaders[inventory_hostname][0] }}"
    firewall_flavour: "{{ loaders[inventory_hostname][1] | default(omit) }}"
    firewall_inventory: true
"""
SHORT = APPLY.replace("confirm: 45", "confirm: 10")
PROBE_S = 2.0
PORTS = {"http": 80, "postgresql": 5432, "ssh": 22, "other": 8080}
# What each host loads rules with.
LOADERS = {"web1": ["nft"], "web2": ["iptables", "legacy"], "db1": ["iptables", "nft"]}
NAMES = tuple(LOADERS)


@pytest.fixture(scope="module")
def hosts(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"hosts need {', '.join(absent)}")
    with fleet(userland(), tmp_path_factory.mktemp("fleet"), *NAMES, by_user=("web2",)) as laid:
        yield laid


@pytest.fixture(scope="module")
def controller(
    hosts: Fleet, collections: Path, tmp_path_factory: pytest.TempPathFactory
) -> Controller:
    """Where playbooks are played for all hosts, with the policy that is in force on each."""
    folder = tmp_path_factory.mktemp("plays")
    made = Controller(
        hosts.controller,
        folder,
        collections,
        hosts.inventory,
        variables={"policylang_folder": "/usr/local/lib/policylang", "loaders": LOADERS},
        settings=hosts.settings,
    )
    return made


def written(controller: Controller, policy: str) -> Controller:
    (controller.folder / "site.policy").write_text(policy)
    return controller


def changed(played: Played) -> dict[str, bool]:
    """Which hosts the first task changed."""
    first = {name: played.of(name)[0] for name in NAMES}
    assert all(one.status == "ok" for one in first.values()), played.text
    return {name: one.changed for name, one in first.items()}


def in_force(played: Played) -> dict[str, int | None]:
    """The generation that each host told last; nothing waits to be confirmed, nor differs."""
    found: dict[str, int | None] = {}
    for name in NAMES:
        result = played.of(name)[-1].result
        assert result["pending"] is None
        assert not result["drifted"]
        found[name] = result["in_force"]["generation"]
    return found


def ways(hosts: Fleet) -> set[tuple[str, str, str]]:
    """Who gets through to whom with what: real connections, each by both families alike."""
    ends = {name: host.inside for name, host in hosts.hosts.items()}
    clients = {**ends, "controller": hosts.controller}
    with ExitStack() as stack:
        for inside in ends.values():
            for word, port in PORTS.items():
                for family in Family if word != "ssh" else ():
                    stack.enter_context(inside.listen(family, port))
        wanted = [
            (client, word, server)
            for client in clients
            for server in ends
            for word in PORTS
            if client != server
        ]
        # What is dropped is waited for: all at once.
        pool = stack.enter_context(ThreadPoolExecutor(len(wanted)))
        reached = pool.map(
            lambda w: _reached(clients[w[0]], hosts.hosts[w[2]], PORTS[w[1]]), wanted
        )
        return {one for one, is_open in zip(wanted, reached, strict=True) if is_open}


def _reached(client: Namespace, host: Host, port: int) -> bool:
    both = {
        probe_tcp(client, host.addresses.of(family), port, PROBE_S) is Reach.OPEN
        for family in Family
    }
    assert len(both) == 1, f"IPv4 and IPv6 fare differently at {host.name}:{port}"
    return both.pop()


ALLOWED = {
    *(("controller", "ssh", name) for name in NAMES),
    *((web, "postgresql", "db1") for web in ("web1", "web2")),
    *(("controller", "http", web) for web in ("web1", "web2")),
}


def test_a_fleet_is_provisioned(hosts: Fleet, controller: Controller) -> None:
    """Checked, applied once, and again without a change; then it is as the policy says."""
    written(controller, POLICY)
    before = {name: _rules(host) for name, host in hosts.hosts.items()}
    checked = controller.play(APPLY, "--check", "--diff")
    assert changed(checked) == dict.fromkeys(NAMES, True)
    assert {name: _rules(host) for name, host in hosts.hosts.items()} == before
    for name in NAMES:
        meaning, rules = checked.of(name)[0].result["diff"]
        assert "newly denied" in meaning["prepared"]
        assert ("dport 80" in rules["after"]) == name.startswith("web")

    applied = controller.play(APPLY + BOOT)
    assert changed(applied) == dict.fromkeys(NAMES, True)
    assert all(one.changed for one in applied.tasks)
    assert not any(applied.of(name)[0].result["rolled_back"] for name in NAMES)
    assert ways(hosts) == ALLOWED

    # Files for each step, and a connection for each: nothing rests on how Ansible works.
    plain = replace(
        controller,
        settings={
            **hosts.settings,
            "ANSIBLE_PIPELINING": "0",
            "ANSIBLE_SSH_ARGS": hosts.settings["ANSIBLE_SSH_ARGS"].replace("=auto", "=no"),
        },
    )
    again = plain.play(APPLY + BOOT + INFO)
    assert changed(again) == dict.fromkeys(NAMES, False)
    assert not any(one.changed for one in again.tasks)
    assert in_force(again) == dict.fromkeys(NAMES, 1)


def test_a_policy_that_shuts_ssh_out_is_taken_back(hosts: Fleet, controller: Controller) -> None:
    """The connection that loads it lives on, and is not taken for one that could come again."""
    number = in_force(written(controller, POLICY).play(APPLY + INFO))
    shut = POLICY.replace("allow ssh inbound from $admins", "allow https inbound from $admins")
    written(controller, shut)
    warned = controller.play(SHORT, "--check", "--diff")
    assert changed(warned) == dict.fromkeys(NAMES, True)
    for name in NAMES:
        (one,) = warned.of(name)
        assert any("operator-shut-out" in warning for warning in one.result["warnings"])
        meaning = one.result["diff"][0]["prepared"]
        assert meaning.startswith(f"generation {number[name]} → ")
        opened, closed = meaning.split("\nnewly denied\n")
        assert "inbound tcp 443 (https)" in opened, meaning
        assert "inbound tcp 22 " in closed, meaning

    began = time.monotonic()
    played = controller.play(SHORT)
    assert time.monotonic() - began >= 10
    for name in NAMES:
        (one,) = played.of(name)
        assert one.status == "failed", played.text
        assert one.result["rolled_back"] is True
        assert not one.changed
        assert "was taken back" in one.result["msg"]
    assert ways(hosts) == ALLOWED
    after = written(controller, POLICY).play(APPLY + INFO)
    assert changed(after) == dict.fromkeys(NAMES, False)
    assert in_force(after) == number


def test_a_host_that_dies_midway_comes_back_with_what_was_confirmed(
    hosts: Fleet, controller: Controller
) -> None:
    """It dies when the change is armed; the others go on, and it catches up in a second run."""
    number = in_force(written(controller, POLICY).play(ROLE + INFO))
    more = f"{POLICY}on web {{ allow tcp 8080 inbound }}\n"
    written(controller, more)
    victim = hosts.hosts["web1"]
    died = threading.Thread(target=_die_when_armed, args=(victim,))
    died.start()
    played = controller.play(SHORT)
    died.join()
    assert victim.namespace is None, played.text
    by_host = {one.host: one for one in played.tasks}
    assert by_host["web1"].status == "unreachable", played.text
    assert by_host["web2"].status == "ok"
    assert by_host["web2"].changed
    assert by_host["db1"].status == "ok"

    victim.power_on()
    victim.wait(hosts.controller)
    assert ways(hosts) == ALLOWED | {("controller", "other", "web2")}
    second = controller.play(INFO + APPLY)
    was, now = second.of("web1")
    assert was.result["in_force"]["generation"] == number["web1"]
    assert now.changed
    assert not any(second.of(name)[1].changed for name in ("web2", "db1"))
    assert ways(hosts) == ALLOWED | {("controller", "other", web) for web in ("web1", "web2")}


def _rules(host: Host) -> str:
    saved = (_own(host, f"{ip}-legacy-save") for ip in ("iptables", "ip6tables"))
    lines = (line for text in saved for line in text.splitlines() if line.startswith("-A"))
    return "\n".join((_own(host, "nft", "list", "ruleset"), *lines))


def _own(host: Host, *argv: str) -> str:
    """What a host's own program says: that of this machine may be too old for what it made."""
    return host.inside.run(["chroot", str(host.userland), "/usr/bin/env", *argv]).stdout


def _die_when_armed(host: Host) -> None:
    """Cut a host's power as soon as a second generation stands beside the first."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        if PENDING_TABLE in _own(host, "nft", "list", "tables"):
            host.power_off()
            return
        time.sleep(0.01)
