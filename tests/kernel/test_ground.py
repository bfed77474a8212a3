"""The test ground itself, and what the kernel does to FTP under rules that were written by hand.

Nothing here was compiled: where a test of compiled rules fails and these pass, look at the rules.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from .ftp import (
    MUST_FAIL_S,
    Client,
    Daemon,
    Mode,
    Stage,
    logged_in,
    lured,
    serving,
    session,
)
from .ground import Family, Ground, Namespace, Reach, load_nft, ping, probe_tcp, probe_udp

# --- namespaces, wires, probes ---------------------------------------------------------------

NETWORK = Path("/proc/thread-self/ns/net")


def test_a_namespace_takes_its_processes_with_it(kernel: None) -> None:
    """Deleting a namespace ends what was spawned in it, and what that spawned itself."""
    namespace = Namespace.create("doomed")
    child = namespace.spawn(["sh", "-c", "setsid sleep 60 & wait"], stdout=subprocess.DEVNULL)
    while len(inside := namespace_pids(namespace)) < 2:
        time.sleep(0.01)
    namespace.delete()
    assert child.poll() is not None
    assert not any(is_running(pid) for pid in inside)
    assert not Path("/run/netns", namespace.name).exists()


def namespace_pids(namespace: Namespace) -> list[int]:
    """Return the processes in a namespace."""
    command = ["ip", "netns", "pids", namespace.name]
    return [int(pid) for pid in subprocess.check_output(command, text=True).split()]


def is_running(pid: int) -> bool:
    """Return whether a process exists and is more than a body that nobody has buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_entering_a_namespace_leads_home_again(kernel: None) -> None:
    """The thread is back where it was, after an exception too."""
    home = NETWORK.readlink()
    namespace = Namespace.create("visited")
    try:
        with pytest.raises(KeyError), namespace.entered():
            assert NETWORK.readlink() != home
            raise KeyError
        assert NETWORK.readlink() == home
    finally:
        namespace.delete()


@pytest.mark.parametrize("family", Family)
def test_probes_tell_open_from_refused_and_silent(pair: Ground, family: Family) -> None:
    """Each answer of a firewall is told apart, over TCP, UDP and ICMP."""
    client, address = pair["wan"].neighbour, pair["wan"].near.of(family)
    with pair.firewall.listen(family, 1000), pair.firewall.udp_echo(family, 1000):
        assert probe_tcp(client, address, 1000) is Reach.OPEN
        assert probe_udp(client, address, 1000) is Reach.OPEN
        assert probe_tcp(client, address, 1001) is Reach.REFUSED
        assert probe_udp(client, address, 1001) is Reach.REFUSED
        assert ping(client, address)
        load_nft(ANSWERS, pair.firewall)
        assert probe_tcp(client, address, 1000, 0.3) is Reach.TIMEOUT
        assert probe_udp(client, address, 1000, 0.3) is Reach.TIMEOUT
        assert probe_tcp(client, address, 1002) is Reach.REFUSED
        assert probe_tcp(client, address, 1003) is Reach.UNREACHABLE
        assert not ping(client, address, 0.3)


ANSWERS = """
table inet hand {
  chain input {
    type filter hook input priority filter
    tcp dport 1002 reject with tcp reset
    tcp dport 1003 reject with icmpx admin-prohibited
    meta l4proto { tcp, udp } th dport 1000 drop
    icmp type echo-request drop
    icmpv6 type echo-request drop
  }
}
"""


@pytest.mark.parametrize("family", Family)
def test_a_routed_ground_forwards(routed: Ground, family: Family) -> None:
    """Client and server see each other through the firewall, and nowhere else."""
    client, server = routed["lan"], routed["wan"]
    assert ping(client.neighbour, server.far.of(family))
    assert ping(server.neighbour, client.far.of(family))
    routed.firewall.sysctl("net.ipv4.ip_forward", "0")
    routed.firewall.sysctl("net.ipv6.conf.all.forwarding", "0")
    assert not ping(client.neighbour, server.far.of(family), 0.3)


# --- FTP under rules written by hand ---------------------------------------------------------

FIRST = """
    iifname lo accept
    oifname lo accept
    ct state established accept
    ct state related meta l4proto { icmp, ipv6-icmp } accept
"""
NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept"
HELPER = """
  ct helper ftp { type "ftp" protocol tcp; }
  chain arriving {
    type filter hook prerouting priority mangle
    tcp dport 21 ct helper set "ftp"
  }
  chain leaving {
    type filter hook output priority mangle
    tcp dport 21 ct helper set "ftp"
  }
"""
BLANKET = "ct state related accept"
DATA_OF_A_SERVER = 'ct state related ct helper "ftp" tcp dport 1024-65535 accept'
DATA_TO_A_CLIENT = 'ct state related ct helper "ftp" tcp dport 32768-60999 accept'


def hand_written(
    *,
    helper: bool,
    related_in: str = "",
    related_out: str = "",
    new_in: str = "",
    new_out: str = "",
) -> str:
    """Return what a compiler would write for one FTP rule on a host with both defaults denying."""
    return f"""
table inet hand {{
  {HELPER if helper else ""}
  chain input {{
    type filter hook input priority filter; policy drop;
    {FIRST}
    {related_in}
    ct state invalid drop
    {NEIGHBOURS}
    {new_in}
    drop
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    {FIRST}
    {related_out}
    {NEIGHBOURS}
    {new_out}
    drop
  }}
}}
"""


CONTROL = "ct state new tcp dport 21 accept"
# With `new` alone the first SYN of a predicted connection is dropped, and the second, a second
# later, is new: the prediction went with the first.
ALL_NEW = "ct state new,related accept"

# FTP as vsftpd and pyftpdlib were seen to behave: rules -> (passive passes, active passes).
ON_THE_SERVER = {
    "outbound open, no helper": (
        hand_written(helper=False, new_in=CONTROL, new_out=ALL_NEW),
        (False, True),
    ),
    "outbound open, helper": (
        hand_written(helper=True, related_in=DATA_OF_A_SERVER, new_in=CONTROL, new_out=ALL_NEW),
        (True, True),
    ),
    "outbound closed, no helper": (hand_written(helper=False, new_in=CONTROL), (False, False)),
    "outbound closed, helper": (
        hand_written(
            helper=True,
            related_in=DATA_OF_A_SERVER,
            related_out=DATA_OF_A_SERVER,
            new_in=CONTROL,
        ),
        (True, True),
    ),
}
ON_THE_CLIENT = {
    "outbound open, no helper": (hand_written(helper=False, new_out=ALL_NEW), (True, False)),
    "outbound closed, helper": (
        hand_written(
            helper=True,
            related_in=DATA_TO_A_CLIENT,
            related_out=DATA_OF_A_SERVER,
            new_out=CONTROL,
        ),
        (True, True),
    ),
}


@pytest.mark.parametrize("case", ON_THE_SERVER)
def test_ftp_by_hand_on_the_server(ftp_programs: None, pair: Ground, case: str) -> None:
    """What passes on a server is what `rules` was seen to let through."""
    rules, expected = ON_THE_SERVER[case]
    wan = pair["wan"]
    with serving(pair.firewall, Daemon.VSFTPD) as server:
        load_nft(rules, pair.firewall)
        for mode, passing in zip((Mode.PASV, Mode.PORT), expected, strict=True):
            outcome = session(
                wan.neighbour,
                wan.near.ipv4,
                server,
                mode,
                Client.CURL,
                timeout_s=6 if passing else MUST_FAIL_S,
            )
            assert outcome.stage is (Stage.TRANSFERRED if passing else Stage.NEGOTIATED), outcome


@pytest.mark.parametrize("case", ON_THE_CLIENT)
def test_ftp_by_hand_on_the_client(ftp_programs: None, pair: Ground, case: str) -> None:
    """What passes on a client is what `rules` was seen to let through."""
    rules, expected = ON_THE_CLIENT[case]
    wan = pair["wan"]
    with serving(wan.neighbour, Daemon.PYFTPDLIB) as server:
        load_nft(rules, pair.firewall)
        for mode, passing in zip((Mode.EPSV, Mode.EPRT), expected, strict=True):
            outcome = session(
                pair.firewall,
                wan.far.ipv6,
                server,
                mode,
                Client.FTPLIB,
                timeout_s=6 if passing else MUST_FAIL_S,
            )
            assert outcome.stage is (Stage.TRANSFERRED if passing else Stage.NEGOTIATED), outcome


# --- what related means, by hand -------------------------------------------------------------


def test_a_blanket_related_lets_a_privileged_port_be_named(
    ftp_programs: None, pair: Ground
) -> None:
    """With `ct state related accept` a PORT to port 80 connects; with a port range it does not."""
    wan = pair["wan"]
    blanket = hand_written(helper=True, related_out=BLANKET, new_in=CONTROL)
    limited = hand_written(helper=True, related_out=DATA_OF_A_SERVER, new_in=CONTROL)
    with serving(pair.firewall, Daemon.PYFTPDLIB):
        load_nft(blanket, pair.firewall)
        for family in Family:
            with logged_in(wan.neighbour, wan.near.of(family)) as control:
                assert lured(control, wan.neighbour, wan.far.of(family), 80)
        load_nft(f"delete table inet hand\n{limited}", pair.firewall)
        with logged_in(wan.neighbour, wan.near.ipv4) as control:
            assert not lured(control, wan.neighbour, wan.far.ipv4, 80)
        with logged_in(wan.neighbour, wan.near.ipv4) as control:
            assert lured(control, wan.neighbour, wan.far.ipv4, 1024)


def test_a_blanket_related_opens_the_client_to_a_hostile_server(
    ftp_programs: None, pair: Ground
) -> None:
    """One PORT line opens port 2222 of a client with `ct state related accept`."""
    wan = pair["wan"]
    blanket = hand_written(helper=True, related_in=BLANKET, related_out=BLANKET, new_out=CONTROL)
    with serving(wan.neighbour, Daemon.PYFTPDLIB):
        load_nft(blanket, pair.firewall)
        for family in Family:
            with logged_in(pair.firewall, wan.far.of(family)) as control:
                assert lured(control, pair.firewall, wan.near.of(family), 2222)


def test_without_a_firewall_a_third_host_is_reached(ftp_programs: None, zoned: Ground) -> None:
    """A PORT that names somebody else makes the server connect there: the bounce attack."""
    wan, dmz = zoned["wan"], zoned["dmz"]
    with serving(zoned.firewall, Daemon.PYFTPDLIB):
        for family in Family:
            with logged_in(wan.neighbour, wan.near.of(family)) as control:
                assert lured(control, dmz.neighbour, dmz.far.of(family), 8000)
