"""`policylang panic` closes everything but the SSH that exists, and new SSH from where it came."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from policylang.apply.operator import Connection
from policylang.apply.panic import CLOSED, panic_policy
from policylang.packets.values import parse_one_address

from .applied import apply_text
from .ground import Family, Ground, Loader, Namespace, Reach, ground, ping, probe_tcp, probe_udp
from .test_flows import are_dead, connected, doomed, end, is_alive, ruleset_of

OPEN = """\
zone wan { interface wan0 }
zone lan { interface lan0 }
default allow inbound
default allow forward
"""
SHORT_S = 0.3  # as long as a probe waits where nothing may come back


def _probed(way: tuple[Namespace, str, int]) -> Reach:
    return probe_tcp(*way, SHORT_S)


def came_from(address: str, here: str, port: int = 22) -> Connection:
    ends = parse_one_address(address), parse_one_address(here)
    assert ends[0] is not None and ends[1] is not None
    return Connection(ends[0], 50_000, ends[1], port)


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
@pytest.mark.parametrize("family", Family)
def test_one_connection_lives_and_all_others_end(
    family: Family, loader: Loader, kernel: None, tmp_path: Path
) -> None:
    other = Family.IPV4 if family is Family.IPV6 else Family.IPV6
    with ground("wan", "lan", discovery=True) as laid:
        fw, wan, lan = laid.firewall, laid["wan"], laid["lan"]
        near, far = wan.near.of(family), wan.far.of(family)
        apply_text(OPEN, loader, fw, tmp_path)
        with (
            connected(wan.neighbour, fw, near, 22) as ssh,
            connected(wan.neighbour, fw, near, 80) as web,
            connected(wan.neighbour, fw, wan.near.of(other), 22) as other_ssh,
            connected(lan.neighbour, fw, lan.near.of(family), 22) as ssh_of_lan,
            connected(fw, wan.neighbour, far, 443) as out,
            connected(lan.neighbour, wan.neighbour, far, 444) as through,
            connected(fw, fw, "127.0.0.1", 8080) as own,
        ):
            policy = panic_policy(came_from(far, near))
            apply_text(policy, loader, fw, tmp_path)
            assert end(doomed(policy, fw), fw) == 5
            assert are_dead(web, other_ssh, ssh_of_lan, out, through)
            # Whoever is forgotten must be asked for anew: without that no SSH would live long.
            for namespace in (fw, wan.neighbour):
                namespace.run(["ip", "neigh", "flush", "all"])
            assert is_alive(ssh) and is_alive(own)
        with fw.listen(family, 22), fw.listen(family, 80), fw.listen(other, 22):
            assert probe_tcp(wan.neighbour, near, 22) is Reach.OPEN
            closed = (
                (wan.neighbour, near, 80),
                (wan.neighbour, wan.near.of(other), 22),
                (lan.neighbour, lan.near.of(family), 22),
                (lan.neighbour, near, 22),
                (fw, far, 443),
            )
            with ThreadPoolExecutor(len(closed)) as at_once:
                assert set(at_once.map(_probed, closed)) == {Reach.TIMEOUT}
            assert not ping(wan.neighbour, near, SHORT_S)


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_without_ssh_nothing_is_left_open(routed: Ground, loader: Loader, tmp_path: Path) -> None:
    fw, wan = routed.firewall, routed["wan"]
    apply_text(OPEN, loader, fw, tmp_path)
    with (
        connected(wan.neighbour, fw, wan.near.ipv4, 22) as ssh,
        connected(fw, fw, "::1", 8080) as own,
        fw.udp_echo(Family.IPV4, 53),
    ):
        assert probe_udp(wan.neighbour, wan.near.ipv4, 53) is Reach.OPEN
        policy = panic_policy(None)
        apply_text(policy, loader, fw, tmp_path)
        assert end(doomed(policy, fw), fw) == 2
        assert not is_alive(ssh) and is_alive(own)
        assert probe_udp(wan.neighbour, wan.near.ipv4, 53, SHORT_S) is Reach.TIMEOUT


def test_policy_ends_what_is_open_by_itself() -> None:
    assert ruleset_of(panic_policy(None)).needs.cuts_flows


def test_port_and_address_are_those_of_the_connection() -> None:
    policy = panic_policy(came_from("2001:db8::7", "2001:db8::1", 2222))
    assert policy == f"{CLOSED}\nallow tcp 2222 inbound from 2001:db8::7\n"


@pytest.mark.parametrize("said", ["fe80::7%wan0 50000 fe80::1%wan0 22", "192.0.2.2 1 192.0.2.1 22"])
def test_what_sshd_says_becomes_a_policy(said: str, tmp_path: Path) -> None:
    """Whatever the environment holds comes into the text as a number that was understood."""
    program = (
        "from policylang.apply import operator, panic\n"
        "import json; print(json.dumps(panic.panic_policy(operator.found())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "SSH_CONNECTION": said},
        capture_output=True,
        check=True,
        text=True,
    )
    policy = json.loads(done.stdout)
    assert policy.endswith(f"inbound from {said.split()[0].partition('%')[0]}\n")
    ruleset_of(policy)
