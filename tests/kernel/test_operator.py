"""Who works over SSH is found, and warned where new rules would not let them in again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from policylang import pipeline
from policylang.apply import kernel, members, nft, operator
from policylang.apply.operator import Connection, shut_out
from policylang.diagnostics import Diagnostic, Report
from policylang.packets.values import parse_one_address

from .applied import apply_text
from .ground import REPOSITORY, Family, Ground, Loader

WAN = "zone wan { interface wan0 }\n"


def number(text: str) -> int:
    found = parse_one_address(text)
    assert found is not None
    return found


def over(ground: Ground, family: Family = Family.IPV4, port: int = 22) -> Connection:
    """A connection of the neighbour's."""
    wan = ground["wan"]
    return Connection(number(wan.far.of(family)), 50_000, number(wan.near.of(family)), port)


def asked(
    policy: str, connection: Connection, ground: Ground, *, is_cut: bool = False
) -> Diagnostic | None:
    report = Report()
    source = pipeline.Text(f"{WAN}{policy}\n", "test.policy", Path())
    ruleset = pipeline.ruleset_of(source, report)
    assert ruleset is not None, report.diagnostics
    return kernel.in_netns(
        ground.firewall.name, lambda: shut_out(ruleset, connection, is_cut=is_cut), report
    )


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    "policy",
    [
        "allow ssh inbound",
        "allow ssh inbound from wan",
        "allow ssh inbound from 192.0.2.2, 2001:db8:2::2",
        "default allow inbound",
        "allow ssh inbound limit 5/minute",
        "allow ssh inbound max 3 connections per source",
        "deny ssh inbound over 3 connections per source\nallow ssh inbound",
        "allow tcp 20-30 inbound from wan except 192.0.2.3",
        "protect from wan against bogons, bad-flags, syn-flood\nallow ssh inbound",
        "protect from wan against spoofing\nallow ssh inbound",
    ],
)
def test_who_may_come_again_is_not_warned(pair: Ground, policy: str, family: Family) -> None:
    assert asked(policy, over(pair, family), pair) is None


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    ("policy", "denies"),
    [
        ("allow http inbound", None),
        ("deny ssh inbound from wan\nallow ssh inbound", "deny ssh inbound from wan"),
        ("default deny inbound", "default deny inbound"),
        ("default reject inbound", "default reject inbound"),
        ("allow ssh inbound from 192.0.2.3, 2001:db8:2::3", None),
        ("zone lan { interface lan0 }\nallow ssh from lan to self", None),
    ],
)
def test_who_may_not_is_warned_at_the_statement(
    pair: Ground, policy: str, denies: str | None, family: Family
) -> None:
    warning = asked(policy, over(pair, family), pair)
    assert warning is not None and warning.code == "operator-shut-out"
    address = pair["wan"].far.of(family)
    assert (
        warning.message == f"you are here over SSH from `{address}`, and would not be let in again"
    )
    assert (None if warning.span is None else warning.span.text) == denies
    assert warning.help is not None and f"`allow ssh inbound from {address}`" in warning.help


def test_who_is_kept_out_before_any_rule_is_warned(pair: Ground) -> None:
    pair.firewall.ip("route add default via 192.0.2.2")
    private = Connection(number("10.0.0.9"), 50_000, number("192.0.2.1"), 22)
    screen = "protect from wan against bogons"
    warning = asked(f"{screen}\nallow ssh inbound", private, pair)
    assert warning is not None and warning.span is not None and warning.span.text == screen
    # A screen asks no state: what it drops of an open connection is dropped as well.
    assert warning.help is not None and warning.help.endswith("now ends, too")
    assert asked("allow ssh inbound", private, pair) is None


def test_whether_the_open_connection_ends_is_said(pair: Ground) -> None:
    for policy, is_cut, said in (
        ("deny ssh inbound", True, "now ends, too"),
        ("deny ssh inbound", False, "now goes on"),
        ("mark all from wan to self as 0x1\nallow ssh inbound mark 0x1", True, "now goes on"),
    ):
        warning = asked(policy, over(pair), pair, is_cut=is_cut)
        assert warning is not None and (warning.help or "").endswith(said)


def test_port_is_the_one_that_is_used(pair: Ground) -> None:
    connection = over(pair, port=2222)
    warning = asked("allow ssh inbound", connection, pair)
    assert warning is not None and warning.help is not None
    assert "`allow tcp 2222 inbound from 192.0.2.2`" in warning.help
    assert asked("allow tcp 2222 inbound from 192.0.2.2", connection, pair) is None


BANNING = "set banned = dynamic\ndeny all inbound from banned\nallow ssh inbound"
KNOCKING = "set known = dynamic\nallow ssh inbound from known"


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_who_is_in_a_dynamic_set_is_looked_up(pair: Ground, loader: Loader, tmp_path: Path) -> None:
    """Its elements stay when rules are replaced."""
    fw, wan = pair.firewall, pair["wan"]

    def put(name: str, address: str) -> None:
        assert members.add(name, [number(address)], None, Report(), netns=fw.name) == 1

    assert asked(BANNING, over(pair), pair) is None
    assert asked(KNOCKING, over(pair), pair) is not None
    for policy, name in ((BANNING, "banned"), (KNOCKING, "known")):
        apply_text(f"{WAN}{policy}\n", loader, fw, tmp_path)
        put(name, "192.0.2.77")
        is_let_in = asked(policy, over(pair), pair) is None
        put(name, wan.far.ipv6)
        assert (asked(policy, over(pair), pair) is None) is is_let_in
        assert (asked(policy, over(pair, Family.IPV6), pair) is None) is not is_let_in
        put(name, wan.far.ipv4)
        assert (asked(policy, over(pair), pair) is None) is not is_let_in


def test_where_sets_cannot_be_read_the_operator_may_be_shut_out(
    pair: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nft, "live_sets", lambda report: None)
    for policy in (BANNING, KNOCKING):
        warning = asked(policy, over(pair), pair)
        assert warning is not None and "and may not be let in" in warning.message


def test_connection_of_another_host_is_not_asked_about(pair: Ground) -> None:
    """Over SSH to the machine, but the rules are a container's."""
    elsewhere = Connection(number("192.0.2.2"), 50_000, number("203.0.113.1"), 22)
    assert asked("default deny inbound", elsewhere, pair) is None


def test_operator_on_the_same_machine(pair: Ground) -> None:
    """A jump through this host itself comes by the loopback interface, which is always open."""
    own = Connection(number("127.0.0.1"), 50_000, number("127.0.0.1"), 22)
    assert asked("default deny inbound", own, pair) is None


# --- finding ----------------------------------------------------------------------------------

FIND = """
import json, sys
from policylang.apply import operator
found = operator.found()
print(json.dumps(found and [found.text, found.port, found.here, found.here_port]))
"""


def found_by(*argv: str, **environment: str) -> list[object] | None:
    """What a program finds that is started `under` others, with no more than that environment."""
    done = subprocess.run(
        [*argv, sys.executable, "-c", FIND],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        check=True,
        text=True,
    )
    answer: list[object] | None = json.loads(done.stdout)
    return answer


SAID = "192.0.2.7 50000 192.0.2.1 2222"
MEANT = ["192.0.2.7", 50000, number("192.0.2.1"), 2222]


def test_found_in_the_environment() -> None:
    assert found_by(SSH_CONNECTION=SAID) == MEANT
    six = found_by(SSH_CONNECTION="fe80::7%eth0 50000 fe80::1%eth0 22")
    assert six == ["fe80::7", 50000, number("fe80::1"), 22]


def test_found_in_the_environment_of_who_started_it() -> None:
    """As under sudo(8), which takes it away."""
    under = ("sh", "-c", 'env -u SSH_CONNECTION "$@"; true', "sh")
    assert found_by(*under, SSH_CONNECTION=SAID) == MEANT


@pytest.mark.parametrize("said", ["", "nonsense", "a b c d", "192.0.2.7 x 192.0.2.1 22"])
def test_nonsense_is_no_connection(said: str) -> None:
    assert found_by(SSH_CONNECTION=said) is None


SSHD = """
import ctypes, os, socket, subprocess, sys
listener = socket.create_server(("{address}", 0), family=socket.{family})
port = listener.getsockname()[1]
calling = socket.create_connection(("{address}", port))
answering, _ = listener.accept()
with open("/proc/self/comm", "w") as comm:
    comm.write("{name}")
listener.close()
os.set_inheritable(calling.fileno(), False)
child = os.fork()
if child == 0:
    answering.close()
    calling.close()
    with open("/proc/self/comm", "w") as comm:
        comm.write("sh")
    found = subprocess.run([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
    print(found.stdout.strip(), port, flush=True)
    os._exit(0)
calling_port = calling.getsockname()[1]
calling.detach()
os.waitpid(child, 0)
print(calling_port)
"""


@pytest.mark.parametrize(
    ("address", "shown", "family"),
    [("127.0.0.1", "127.0.0.1", "AF_INET"), ("::1", "::1", "AF_INET6")],
)
def test_found_by_the_socket_of_sshd(address: str, shown: str, family: str) -> None:
    """Where nothing is left of the environment, sshd's own connection tells."""
    for name, is_found in (("sshd-session", True), ("other", False)):
        program = SSHD.format(address=address, family=family, name=name)
        done = subprocess.run(
            [sys.executable, "-c", program, FIND],
            env={"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            check=True,
            text=True,
        )
        line, _ = done.stdout.splitlines()
        answer, _, port = line.rpartition(" ")
        if is_found:
            there, _, here, here_port = json.loads(answer)
            assert {there} == {shown} and here == number(address)
            assert int(port) in (here_port, json.loads(answer)[1])
        else:
            assert answer == "null"


def test_tunnel_is_told_from_a_wire(pair: Ground) -> None:
    fw = pair.firewall
    fw.ip("tuntap add mode tun name vpn0", "link set vpn0 up", "addr add 10.9.0.1/24 dev vpn0")
    with fw.entered():
        assert operator.tunnel(over(pair)) is None
        inside = Connection(number("10.9.0.2"), 50_000, number("10.9.0.1"), 22)
        assert operator.tunnel(inside) == "vpn0"
