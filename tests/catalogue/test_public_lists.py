"""The catalogue agrees with two public lists of services, or says why it does not.

The lists are netbase's /etc/services and firewalld's services, as this machine's distribution has
them. What is the same name in both must be the same ports and protocols. A difference has a row
that holds the difference itself, so that another port is a failure there, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from policylang.packets.fields import PORTS
from policylang.packets.values import Ranges
from tests.catalogue import public_lists
from tests.catalogue.whole import NO_PORTS, Spoken, all_spoken, ports

FEWEST_COMPARED = {"netbase": 180, "firewalld": 180}


@dataclass(frozen=True, slots=True)
class Difference:
    """What ours has beyond the list's and what it lacks, each as `written` writes it, and why.

    What is not `is_everywhere` differs from the lists of some releases and not of others.
    """

    beyond: str
    lacks: str
    reason: str
    is_everywhere: bool = True


def some(beyond: str, lacks: str, reason: str) -> Difference:
    return Difference(beyond, lacks, reason, is_everywhere=False)


UDP_UNUSED = "registered with IANA for UDP as well; the protocol has no use of it"
TCP_UNUSED = "registered with IANA for TCP as well; servers listen on UDP alone"
HTTP3 = "HTTP over UDP is `http3`, to be allowed for itself"
DHCPV6 = "there: port 546, where answers arrive; here: what the client asks, which lets them in"
RDP = "clients and servers use UDP as well since version 8"
SNMP = "SNMP over TCP (RFC 3430) is experimental, and no server listens there unless told to"
SECURE_PORTS = "current releases have no port without a login"
NODE_PORTS = "services of type NodePort may be UDP as well"
RADIUS = "RADIUS over TCP (RFC 6613) is experimental; over TLS it is `radsec`"

DIFFERENCES: dict[str, dict[str, Difference]] = {
    "netbase": {
        "amanda": Difference("udp 10080", "", "the BSD authentication, and the helper, are UDP"),
        "amqp": Difference("", "sctp 5672", "registered for SCTP; brokers speak TCP"),
        "db-lsp": Difference("udp 17500", "", "Dropbox announces itself by UDP broadcasts"),
        "dhcpv6-client": Difference("udp 547", "udp 546", DHCPV6),
        "https": Difference("", "udp 443", HTTP3),
        "ldap": Difference("", "udp 389", "LDAP over UDP is a domain controller's: `samba-dc`"),
        "ldaps": Difference("", "udp 636", UDP_UNUSED),
        "ms-wbt-server": Difference("udp 3389", "", RDP),
        "nfs": Difference("", "udp 2049", "version 4 is TCP alone; version 3 is `nfs3`"),
        "nut": Difference("", "udp 3493", UDP_UNUSED),
        "old-radacct": Difference("", "tcp 1646", RADIUS),
        "old-radius": Difference("", "tcp 1645", RADIUS),
        "openvpn": Difference("", "tcp 1194", "UDP is what OpenVPN does unless told otherwise"),
        "radius": Difference("udp 1813", "tcp 1812", f"with accounting; {RADIUS}"),
        "radius-acct": Difference("", "tcp 1813", RADIUS),
        "snmp": Difference("", "tcp 161", SNMP),
        "snmp-trap": Difference("", "tcp 162", SNMP),
        "snmptrap": Difference("", "tcp 162", SNMP),
        "syslog": Difference("", "tcp 514", "there an alias of `shell`; here it is `syslog-tcp`"),
        "syslog-tls": Difference("udp 6514", "", "over DTLS as well (RFC 6012)"),
        "tacacs": Difference("", "udp 49", "TACACS+ (RFC 8907) is TCP alone"),
        "x11": Difference("tcp 6001-6063", "", "all displays; the list has a name for each"),
    },
    "firewalld": {
        "bb": Difference("", "udp 1984", "Xymon and Big Brother are TCP alone"),
        "ceph": some("tcp 7301-7568", "", "daemons of current releases bind to ports up to 7568"),
        "ctdb": Difference("", "udp 4379", "CTDB's nodes speak TCP"),
        "dhcpv6-client": Difference("udp 547", "udp 546", DHCPV6),
        "galera": Difference("udp 4567", "", "multicast replication, which its manual asks for"),
        "ipp": Difference("", "udp 631", "the announcements of CUPS 1.5 are `ipp-client`"),
        "ipsec": Difference("", "tcp 4500", "IKE over TCP (RFC 9329) is for ends that are told to"),
        "iscsi-target": Difference("", "udp 3260", UDP_UNUSED),
        "kube-control-plane": Difference(
            "tcp 10250 tcp 10257 tcp 10259", "tcp 10251-10252", f"{SECURE_PORTS}; with the kubelet"
        ),
        "kube-controller-manager": Difference("tcp 10257", "tcp 10252", SECURE_PORTS),
        "kube-nodeport-services": Difference("udp 30000-32767", "", NODE_PORTS),
        "kube-scheduler": Difference("tcp 10259", "tcp 10251", SECURE_PORTS),
        "kube-worker": Difference("udp 30000-32767", "", NODE_PORTS),
        "kubelet-worker": Difference("udp 30000-32767", "", NODE_PORTS),
        "memcache": Difference("", "udp 11211", "its UDP side amplifies attacks, and is off"),
        "ms-wbt": Difference("udp 3389", "", RDP),
        "nfs3": Difference(
            "tcp 111 tcp 20048 udp 111 udp 20048",
            "",
            "version 3 cannot be mounted without rpcbind and mountd",
        ),
        "plex": Difference("", "udp 32400", "players reach the server by TCP"),
        "radius": Difference("", "tcp 1812-1813", RADIUS),
        "radsec": some("udp 2083", "", "over DTLS as well (RFC 7360)"),
        "rdp": Difference("udp 3389", "", RDP),
        "rsyncd": Difference("", "udp 873", UDP_UNUSED),
        "snmp": Difference("", "tcp 161", SNMP),
        "snmptrap": Difference("", "tcp 162", SNMP),
        "svdrp": Difference("", "udp 6419", "there with VDR's peer discovery; control is TCP"),
        "vnc-server": Difference("tcp 5904-5909", "", "ten displays; the list has four"),
        "xdmcp": Difference("", "tcp 177", TCP_UNUSED),
        "xmpp-bosh": Difference("tcp 5281", "", "over TLS as well, on the port that is usual"),
    },
}


@pytest.fixture(scope="module", params=["netbase", "firewalld"])
def public(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Spoken]]:
    """The name of a list and what it holds; where it cannot be had the tests are skipped.

    In CI that is a failure, as for every test.
    """
    if request.param == "netbase":
        if not public_lists.ETC_SERVICES.is_file():
            pytest.skip(f"there is no {public_lists.ETC_SERVICES} (package netbase)")
        text = public_lists.ETC_SERVICES.read_text(encoding="utf-8")
        return "netbase", public_lists.etc_services(text)
    try:
        folder = public_lists.firewalld_folder(tmp_path_factory.mktemp("firewalld"))
    except RuntimeError as error:
        pytest.skip(str(error))
    return "firewalld", public_lists.firewalld_services(folder)


def written(spoken: Spoken) -> str:
    """`tcp 80 tcp 8000-8010 esp`: protocols and ports in order."""
    words = []
    for protocol, values in sorted(spoken.items()):
        words += [f"{protocol} {a}" if a == b else f"{protocol} {a}-{b}" for a, b in values]
        if not values:
            words.append(protocol)
    return " ".join(words)


def without(first: Spoken, second: Spoken) -> Spoken:
    """What `first` speaks of and `second` does not."""
    left = {p: values - second.get(p, NO_PORTS) for p, values in first.items()}
    return {p: values for p, values in left.items() if values or p not in second}


def difference(name: str, ours: Spoken, theirs: Spoken, rows: dict[str, Difference]) -> str | None:
    """What is wrong about a service that both have, or None."""
    beyond, lacks = written(without(ours, theirs)), written(without(theirs, ours))
    row = rows.get(name)
    if row is None or (not row.is_everywhere and not beyond and not lacks):
        if not beyond and not lacks:
            return None
        return f"{name}: {beyond or 'nothing'} beyond the list's, lacks {lacks or 'nothing'}"
    if (beyond, lacks) != (row.beyond, row.lacks):
        return (
            f"{name}: {beyond or 'nothing'} beyond the list's, lacks {lacks or 'nothing'}; its row"
            f" says {row.beyond or 'nothing'} and {row.lacks or 'nothing'}"
        )
    return None


def test_the_catalogue_agrees(public: tuple[str, dict[str, Spoken]]) -> None:
    """What both have is the same, or differs as the table says and not otherwise."""
    which, theirs = public
    ours = all_spoken()
    both = [name for name in theirs if name in ours]
    assert len(both) >= FEWEST_COMPARED[which]
    rows = DIFFERENCES[which]
    wrong = [w for n in both if (w := difference(n, ours[n], theirs[n], rows)) is not None]
    assert not wrong, "\n".join(wrong)


def test_every_row_is_about_something(public: tuple[str, dict[str, Spoken]]) -> None:
    """No row of the table outlives the difference that it explains."""
    which, theirs = public
    ours = all_spoken()
    for name, row in DIFFERENCES[which].items():
        assert name in ours
        assert name in theirs or not row.is_everywhere, name
        assert row.reason and "\n" not in row.reason


def changed(spoken: Spoken) -> list[Spoken]:
    """The service with a port more, a port less, and a protocol more, each where it can be."""
    more: list[Spoken] = [{**spoken, "dccp": ports(1)}]
    for protocol, values in spoken.items():
        if not values:
            continue
        (low, _), *_ = values
        free = (PORTS - values - Ranges.of(0)).pairs[0][0]
        more.append({**spoken, protocol: values | Ranges.of(free)})
        more.append({**spoken, protocol: (values - Ranges.of(low)) | Ranges.of(free)})
        left = values - Ranges.of(low)
        if left:
            more.append({**spoken, protocol: left})
    for protocol in spoken:
        if len(spoken) > 1:
            more.append({p: values for p, values in spoken.items() if p != protocol})
    return more


def test_no_port_can_change_unseen(public: tuple[str, dict[str, Spoken]]) -> None:
    """Each service that is compared fails with another port or protocol, rows or not."""
    which, theirs = public
    ours = all_spoken()
    rows = DIFFERENCES[which]
    for name in theirs.keys() & ours.keys():
        for other in changed(ours[name]):
            if difference(name, other, theirs[name], rows) is None:
                # What the row expects of the lists of other releases.
                assert other == theirs[name] and not rows[name].is_everywhere, written(other)


# --- the readers ----------------------------------------------------------------------------


def test_a_line_has_names_and_comments() -> None:
    """services(5): an official name, port/protocol, aliases, comments."""
    text = "# head\n\ndns 53/tcp domain # why\ndns\t53/udp\ncmd 514/tcp dns\nnbp 2/ddp\n"
    assert public_lists.etc_services(text) == {
        "dns": {"tcp": ports(53, 514), "udp": ports(53)},
        "domain": {"tcp": ports(53)},
        "cmd": {"tcp": ports(514)},
    }


def test_a_service_of_firewalld_includes_others(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """firewalld.service(5): ports, protocols, includes; source ports are about answers."""
    folder = tmp_path_factory.mktemp("services")
    texts = {
        "a": '<port port="80-82" protocol="tcp"/><port protocol="udp" port="80"/>',
        "b": '<short>B</short><include service="a"/><protocol value="112"/>',
        "c": '<source-port port="1900" protocol="udp"/>',
    }
    for name, text in texts.items():
        path = folder / f"{name}.xml"
        path.write_text(f"<service>{text}</service>", encoding="utf-8")
    assert public_lists.firewalld_services(folder) == {
        "a": {"tcp": ports((80, 82)), "udp": ports(80)},
        "b": {"tcp": ports((80, 82)), "udp": ports(80), "vrrp": NO_PORTS},
    }
