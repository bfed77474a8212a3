"""`apply` lays the way of packets to a transparent proxy, and takes it away when it is over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policylang.backends.proxying import PRIORITY, PROTOCOL, TABLE
from tests.kernel.ground import (
    CommandError,
    Family,
    Ground,
    Loader,
    Reach,
    policylang,
    probe_tcp,
)

pytestmark = pytest.mark.usefixtures("kernel")

LOADERS = pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
ZONES = "zone lan { interface lan0 }\nzone wan { interface wan0 }\n"
PROXIED = f"{ZONES}tproxy tcp 8080 from lan to wan port 3129\n"
PLAIN = f"{ZONES}allow tcp 8080 from lan to wan\n"

# linux/in.h and linux/in6.h: a socket that takes connections to addresses that are not its own.
TRANSPARENT = {Family.IPV4: (socket.SOL_IP, 19), Family.IPV6: (socket.IPPROTO_IPV6, 75)}


def apply(policy: str, net: Ground, directory: Path, loader: Loader = Loader.NFT) -> str:
    """What the command says on both streams; raises CommandError where it fails."""
    written = directory / "proxy.policy"
    written.write_text(policy)
    command = ("apply", "--yes", str(written), "--netns", net.firewall.name, *loader.options)
    return policylang(*command, directory=directory, lock=net.firewall.name, has_both=True)


def rules(net: Ground, family: Family) -> list[str]:
    """The rules that are neither for this host's own addresses nor the usual tables."""
    argv = ["ip", f"-{family.value}", "-N", "rule", "show"]
    listed = net.firewall.run(argv).stdout.splitlines()
    usual = ("0:", "32766:", "32767:")
    return [" ".join(line.split()) for line in listed if not line.startswith(usual)]


def routes(net: Ground, family: Family, table: int = TABLE) -> list[str]:
    argv = ["ip", f"-{family.value}", "-N", "route", "show", "table", str(table)]
    listed = net.firewall.run(argv, check=False).stdout.splitlines()
    return [" ".join(line.split()[:4]) for line in listed]


def laid(net: Ground) -> bool:
    """Whether the way is there for both families, once; or for none."""
    found = []
    for family in Family:
        ours = [r for r in rules(net, family) if f"lookup {TABLE} proto {PROTOCOL}" in r]
        ways = routes(net, family)
        assert len(ours) == len(ways) < 2
        if ours:
            assert ours[0].startswith(f"{PRIORITY}: from all fwmark 0x")
            assert ways == ["2 default dev lo"]
        found.append(bool(ours))
    assert found[0] == found[1]
    return found[0]


@contextmanager
def proxy(net: Ground, family: Family) -> Iterator[socket.socket]:
    """A transparent proxy of one family on port 3129 of the firewall."""
    with net.firewall.opened(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(*TRANSPARENT[family], 1)
        if family is Family.IPV6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("", 3129))
        listener.listen()
        listener.settimeout(3)
        yield listener


@LOADERS
def test_the_proxy_gets_what_is_for_others(loader: Loader, routed: Ground, tmp_path: Path) -> None:
    """A client's connection to a server ends at the proxy, which sees whom the client dialled.

    Without the rule that apply laid, nothing comes to the proxy: that is the control.
    """
    said = apply(PROXIED, routed, tmp_path, loader)
    assert said.endswith("; laid the IPv4 route to the proxy; laid the IPv6 route to the proxy\n")
    lan, server = routed["lan"], routed["wan"].far
    for family in Family:
        with proxy(routed, family) as listener:
            with lan.neighbour.opened(family, socket.SOCK_STREAM) as client:
                client.settimeout(3)
                client.connect((server.of(family), 8080))
                taken, peer = listener.accept()
                with taken:
                    assert taken.getsockname()[:2] == (server.of(family), 8080)
                    assert peer[0] == lan.far.of(family)
            argv = ["ip", f"-{family.value}", "rule", "del", "priority", str(PRIORITY)]
            routed.firewall.run(argv)
            assert probe_tcp(lan.neighbour, server.of(family), 8080) is not Reach.OPEN


@LOADERS
def test_it_is_laid_once_and_taken_away(loader: Loader, routed: Ground, tmp_path: Path) -> None:
    """Applying again changes and says nothing; a policy without a proxy removes it, and says so."""
    assert not laid(routed)
    apply(PROXIED, routed, tmp_path, loader)
    assert laid(routed)
    assert "route" not in apply(PROXIED, routed, tmp_path, loader)
    assert laid(routed)
    said = apply(PLAIN, routed, tmp_path, loader)
    assert "; removed the IPv4 route to the proxy; removed the IPv6 route to the proxy\n" in said
    assert not laid(routed)
    assert "route" not in apply(PLAIN, routed, tmp_path, loader)


def test_only_families_that_are_proxied_have_a_way(routed: Ground, tmp_path: Path) -> None:
    """A policy that turns to one family takes the other's way away."""
    apply(PROXIED, routed, tmp_path)
    said = apply(PROXIED.replace("port 3129", "port 3129 ipv4"), routed, tmp_path)
    assert "removed the IPv6 route to the proxy" in said
    assert len(routes(routed, Family.IPV4)) == 1
    assert rules(routed, Family.IPV6) == routes(routed, Family.IPV6) == []


def test_an_older_mark_is_replaced(routed: Ground, tmp_path: Path) -> None:
    """A rule of ours with another mark goes, after the new one has come."""
    apply(PROXIED, routed, tmp_path)
    place = f"priority {PRIORITY} table {TABLE} protocol {PROTOCOL}"
    routed.firewall.ip(f"rule add fwmark 0x7/0x7 {place}")
    assert len(rules(routed, Family.IPV4)) == 2
    apply(PROXIED, routed, tmp_path)
    assert laid(routed)


@pytest.mark.parametrize(
    ("command", "warning"),
    [
        (f"rule add fwmark 0x7 priority {PRIORITY} table 100", f"the priority {PRIORITY}"),
        (f"rule add fwmark 0x7 priority 99 table {TABLE}", f"the routing table {TABLE}"),
        (f"route add 203.0.113.0/24 dev lan0 table {TABLE}", "holds routes of others"),
    ],
    ids=["priority", "table", "route"],
)
def test_what_others_have_there_is_left_alone(
    command: str, warning: str, routed: Ground, tmp_path: Path
) -> None:
    """A rule or route of somebody else is named in a warning, and is there afterwards and later."""
    routed.firewall.ip(command)
    before = rules(routed, Family.IPV4) + routes(routed, Family.IPV4)
    said = apply(PROXIED, routed, tmp_path)
    assert "warning[foreign-route]: " in said
    assert warning in said
    assert "laid the IPv4 route to the proxy" in said
    assert "foreign-route" not in apply(PLAIN, routed, tmp_path)
    assert rules(routed, Family.IPV4) + routes(routed, Family.IPV4) == before


def test_what_cannot_be_laid_is_an_error_at_the_statement(routed: Ground, tmp_path: Path) -> None:
    """With somebody's default route in the table ours finds no place; the rules stay in force."""
    routed.firewall.ip(f"route add default via {routed['wan'].far.ipv4} table {TABLE}")
    with pytest.raises(CommandError) as failed:
        apply(PROXIED, routed, tmp_path)
    told = str(failed.value)
    assert "error[no-proxy-route]: cannot lay the IPv4 route to the proxy" in told
    assert "tproxy tcp 8080 from lan to wan port 3129" in told
    assert "File exists" in told
    assert "loaded by nft" in told
    assert "table inet policylang" in routed.firewall.run(["nft", "list", "tables"]).stdout


@pytest.mark.parametrize("target", ["nft", "iptables"])
def test_ip_takes_the_list_for_boot(target: str, routed: Ground, tmp_path: Path) -> None:
    """`ip -4 -batch` and `ip -6 -batch` carry the files out: what apply lays then is there."""
    (tmp_path / "proxy.policy").write_text(PROXIED)
    command = ("compile", str(tmp_path / "proxy.policy"), "--target", target)
    policylang(*command, "-o", f"{tmp_path}/out/", directory=tmp_path)
    for family in Family:
        file = tmp_path / "out" / f"proxy-routes.v{family.value}"
        routed.firewall.run(["ip", f"-{family.value}", "-batch", str(file)])
    assert laid(routed)
    assert "route" not in apply(PROXIED, routed, tmp_path)
