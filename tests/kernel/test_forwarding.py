"""`apply` switches forwarding on where the policy forwards: after the rules, and never silently."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from policylang.apply import forwarding, nft
from policylang.cli import main
from policylang.diagnostics import Report
from policylang.ir.ruleset import Forwarding
from tests.kernel.ground import (
    CommandError,
    Family,
    Ground,
    Loader,
    Namespace,
    Reach,
    policylang,
    probe_tcp,
)

pytestmark = pytest.mark.usefixtures("kernel")

IPV4, IPV6 = "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"
ZONES = "zone lan { interface lan0 }\nzone wan { interface wan0 }\n"
FORWARDS = f"{ZONES}allow tcp 8001 from lan to wan\n"
KEEPS_OUT = f"{ZONES}allow tcp 8001 inbound from lan\n"


@pytest.fixture
def off(routed: Ground) -> Ground:
    """A firewall between two zones that does not forward yet."""
    for key in (IPV4, IPV6):
        routed.firewall.sysctl(key, "0")
    return routed


def setting(namespace: Namespace, key: str) -> str:
    with namespace.entered():
        return Path("/proc/sys", *key.split(".")).read_text().strip()


def apply(policy: str, net: Ground, directory: Path, *options: str) -> str:
    """What the command says; raises CommandError with what it says of a failure."""
    written = directory / "router.policy"
    written.write_text(policy)
    command = ("apply", "--yes", str(written), "--netns", net.firewall.name, *options)
    return policylang(*command, directory=directory, lock=net.firewall.name)


def reached(net: Ground, port: int) -> list[Reach]:
    """What a client in `lan` meets at a server in `wan`, for both families."""
    lan, wan = net["lan"], net["wan"]
    found = []
    for family in Family:
        with wan.neighbour.listen(family, port):
            found.append(probe_tcp(lan.neighbour, wan.far.of(family), port))
    return found


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_a_policy_that_forwards_switches_it_on(loader: Loader, off: Ground, tmp_path: Path) -> None:
    """Before, nothing passes through; afterwards, what the policy allows, and the output says so.

    A second apply finds it on and says nothing; one that forwards nothing leaves it on.
    """
    assert reached(off, 8001) == [Reach.TIMEOUT] * 2
    said = apply(FORWARDS, off, tmp_path, *loader.options)
    assert said.endswith(f"; switched on `{IPV4}`; switched on `{IPV6}`\n")
    assert reached(off, 8001) == [Reach.OPEN] * 2
    assert reached(off, 8002) == [Reach.TIMEOUT] * 2
    assert "switched" not in apply(FORWARDS, off, tmp_path, *loader.options)
    assert "switched" not in apply(KEEPS_OUT, off, tmp_path, *loader.options)
    assert (setting(off.firewall, IPV4), setting(off.firewall, IPV6)) == ("1", "1")


@pytest.mark.parametrize(
    ("statements", "on"),
    [
        ("allow http inbound", ""),
        ("allow http from lan to self\nallow http outbound", ""),
        ("deny http from lan to wan", ""),
        ("allow http from lan to 192.0.2.0/24", "4"),
        ("allow http from lan to wan ipv6", "6"),
        ("allow http from lan to any", "46"),
        ("default allow forward", "46"),
        ("default allow inbound", ""),
        ("allow http from lan to wan limit 4/minute", "46"),
        ("allow http from wan to published at 192.0.2.1", "4"),
        ("dnat http from wan to 198.51.100.2", "4"),
        ("dnat http from wan to 198.51.100.2, 2001:db8:51::2", "46"),
        ("redirect http from lan to wan port 3128", ""),
        ("masquerade from lan to wan", ""),
    ],
)
def test_only_what_is_forwarded_is_switched_on(
    statements: str, on: str, off: Ground, tmp_path: Path
) -> None:
    """Forwarding is asked for by what lets packets through, for the families that it is about."""
    said = apply(f"{ZONES}{statements}\n", off, tmp_path)
    for family, key in (("4", IPV4), ("6", IPV6)):
        assert (f"switched on `{key}`" in said) == (family in on)
        assert setting(off.firewall, key) == ("1" if family in on else "0")


def test_the_rules_are_in_force_before(
    off: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the moment of switching, the table is loaded: no packet passes that no rule has seen."""
    seen: list[str] = []
    real = forwarding.switch_on

    def watched(forwards: Sequence[Forwarding], report: Report) -> tuple[str, ...]:
        seen.append(f"{setting(off.firewall, IPV4)} {nft.listing(Report())}")
        return real(forwards, report)

    monkeypatch.setattr(forwarding, "switch_on", watched)
    (tmp_path / "router.policy").write_text(FORWARDS)
    assert (
        main(["apply", "--yes", str(tmp_path / "router.policy"), "--netns", off.firewall.name]) == 0
    )
    (found,) = seen
    assert found.startswith("0 ")
    assert "tcp dport 8001" in found


def test_a_refused_policy_switches_nothing_on(off: Ground, tmp_path: Path) -> None:
    """Where the rules are not loaded, forwarding stays as it is."""
    native = 'native nft input "meta mark set ct mark map @nowhere"'
    with pytest.raises(CommandError, match="refused-by-kernel"):
        apply(f"{FORWARDS}{native}\n", off, tmp_path)
    assert setting(off.firewall, IPV4) == "0"


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_what_cannot_be_switched_is_an_error_and_the_rules_stay(
    loader: Loader, off: Ground, tmp_path: Path
) -> None:
    """With /proc/sys read-only the command fails, says what to do, and the rules are in force."""
    policy = tmp_path / "router.policy"
    policy.write_text(f"{FORWARDS}deny tcp 8002 inbound\ndefault allow inbound\n")
    apply_it = ("apply", "--yes", str(policy), "--netns", off.firewall.name, *loader.options)
    read_only = 'mount -o bind,ro /proc/sys /proc/sys && exec "$0" "$@"'
    under = ("unshare", "--mount", "sh", "-c", read_only)
    with pytest.raises(CommandError) as failed:
        policylang(*apply_it, directory=tmp_path, lock="router", under=under)
    told = str(failed.value)
    assert "ended with 1\n" in told
    assert f"{policy}: loaded by" in told
    assert "error[not-forwarding]: cannot switch IPv4 forwarding on: Read-only file system" in told
    assert "allow tcp 8001 from lan to wan" in told
    assert f"set `{IPV4}` to 1" in told
    assert f"set `{IPV6}` to 1" in told
    assert setting(off.firewall, IPV4) == "0"
    lan = off["lan"]
    with off.firewall.listen(Family.IPV4, 8002), off.firewall.listen(Family.IPV4, 8003):
        assert probe_tcp(lan.neighbour, lan.near.ipv4, 8002) is Reach.TIMEOUT
        assert probe_tcp(lan.neighbour, lan.near.ipv4, 8003) is Reach.OPEN


# --- what routers tell -----------------------------------------------------------------------

ROUTER_ADVERTISEMENT, ND_HOP_LIMIT = 134, 255  # RFC 4861
LIFETIME_S = 1800


@pytest.fixture
def advised(off: Ground) -> Ground:
    """A firewall that has its IPv6 default route from a router in `wan`."""
    wire = off["wan"]
    advise(off)
    give_up = time.monotonic() + 5
    while not default_route(off):
        assert time.monotonic() < give_up, f"no default route by {wire.interface}"
        time.sleep(0.02)
    return off


def advise(net: Ground) -> None:
    """Send a router advertisement (RFC 4861, 4.2) from `wan`, with nothing but a lifetime."""
    wire = net["wan"]
    with wire.neighbour.entered():
        opened = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    with opened:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ND_HOP_LIMIT)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        message = struct.pack("!BBHBBHII", ROUTER_ADVERTISEMENT, 0, 0, 64, 0, LIFETIME_S, 0, 0)
        give_up = time.monotonic() + 10
        while True:
            try:
                opened.sendto(message, ("ff02::1", 0))
                return
            except OSError as error:
                # All namespaces share one table of IPv6 neighbours; that is what a full one says.
                if error.errno != errno.EINVAL or time.monotonic() > give_up:
                    raise
            time.sleep(0.1)


def default_route(net: Ground) -> str:
    return net.firewall.run(["ip", "-6", "route", "show", "default"]).stdout


WARNING = "warning[advertisements-ignored]: with IPv6 forwarding on, `wan0` has lost the default"


def warned(policy: str, net: Ground, directory: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What a successful apply warns of."""
    written = directory / "router.policy"
    written.write_text(policy)
    assert main(["apply", "--yes", str(written), "--netns", net.firewall.name]) == 0
    return capsys.readouterr().err


def test_a_lost_default_route_is_told(
    advised: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A router listens to no other: the route is gone at once, and a warning says how to mend it.

    What it says mends it: with `accept_ra` 2 the next advertisement brings the route back.
    """
    said = warned(FORWARDS, advised, tmp_path, capsys)
    assert said.startswith(WARNING)
    assert "`sysctl -w net.ipv6.conf.wan0.accept_ra=2`" in said
    assert default_route(advised) == ""
    advised.firewall.sysctl("net.ipv6.conf.wan0.accept_ra", "2")
    advise(advised)
    time.sleep(0.2)
    assert "via fe80::" in default_route(advised)
    assert warned(FORWARDS, advised, tmp_path, capsys) == ""


@pytest.mark.parametrize(
    ("policy", "accept_ra"),
    [(FORWARDS, "2"), (KEEPS_OUT, "1"), (FORWARDS.replace("wan\n", "wan ipv4\n"), "1")],
    ids=["2", "inbound-only", "ipv4-only"],
)
def test_a_default_route_that_stays_is_not_spoken_of(
    policy: str,
    accept_ra: str,
    advised: Ground,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Who listens all the same, or forwards no IPv6, keeps the route."""
    advised.firewall.sysctl("net.ipv6.conf.wan0.accept_ra", accept_ra)
    assert warned(policy, advised, tmp_path, capsys) == ""
    assert "via fe80::" in default_route(advised)


def test_a_route_of_its_own_stays(
    off: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A default route that no router told is not touched by forwarding, nor spoken of."""
    off.firewall.ip(f"route add ::/0 via {off['wan'].far.ipv6}")
    assert warned(FORWARDS, off, tmp_path, capsys) == ""
    assert off["wan"].far.ipv6 in default_route(off)
