"""The catalogue's files have one form, and say what people look for by the names they know."""

from __future__ import annotations

from importlib.resources import files

import pytest

from policylang.diagnostics import Report
from policylang.model.protocols import ICMP_TYPES, ICMPV6_TYPES
from policylang.source import SourceFile
from policylang.syntax import tree
from policylang.syntax.loader import GROUPS, SERVICES
from policylang.syntax.parse import parse
from policylang.syntax.tokens import RESERVED
from tests.catalogue.whole import loaded, spoken_by

CATALOGUE = files("policylang").joinpath("catalogue")
FEWEST_SERVICES = 250  # with ports of their own
LONGEST_LINE = 100
LONGEST_DESCRIPTION = 98


def texts(folder: str) -> dict[str, str]:
    return {
        file.name.removesuffix(".policy"): file.read_text("utf-8")
        for file in CATALOGUE.joinpath(folder).iterdir()
    }


@pytest.mark.parametrize("folder", [SERVICES, GROUPS])
def test_a_file_says_one_thing_and_describes_it(folder: str) -> None:
    """The first line is the description; there is one statement, of the file's name."""
    for name, text in texts(folder).items():
        first, *rest = text.splitlines()
        description = first.removeprefix("# ")
        assert first != description and description.strip() == description, name
        assert description[-1] not in ".:;," and len(description) <= LONGEST_DESCRIPTION, name
        assert text.endswith("\n") and not text.endswith("\n\n"), name
        assert all(len(line) <= LONGEST_LINE or 'warn "' in line for line in rest), name
        report = Report()
        document = parse(SourceFile(name, text), report, catalogue=True)
        assert not report.diagnostics, name
        (statement,) = document.statements
        kinds = (tree.SetDecl,) if folder == GROUPS else (tree.ServiceDecl, tree.ServiceGroup)
        assert isinstance(statement, kinds), name
        assert isinstance(statement, (tree.SetDecl, tree.ServiceDecl, tree.ServiceGroup))
        assert statement.name.text == name and not statement.name.quoted


def test_there_are_many() -> None:
    own = [s for s in loaded().services.values() if isinstance(s, tree.ServiceDecl)]
    assert len(own) >= FEWEST_SERVICES


def test_names_clash_with_nothing() -> None:
    """Services and groups share a name space with each other and with the language.

    After `icmp echo-request, …` a name that is a service starts something new, so no service may
    have the name of a type.
    """
    services, groups = texts(SERVICES).keys(), texts(GROUPS).keys()
    assert not services & groups
    assert not (services | groups) & RESERVED
    assert not services & (ICMP_TYPES.keys() | ICMPV6_TYPES.keys())
    assert all(name == name.lower() and "_" not in name for name in services | groups)


def test_every_helper_has_a_service() -> None:
    """LANGUAGE.md, section 3: the catalogue covers every service that has a conntrack helper."""
    used = {
        item.name.text
        for service in loaded().services.values()
        if isinstance(service, tree.ServiceDecl)
        for item in service.items
        if isinstance(item, tree.HelperItem)
    }
    assert used == loaded().helpers.keys()


# Names of /etc/services, of firewalld, ufw, FireHOL, Shorewall and foomuuri, and what they mean.
SAME = """
    domain dns             www http                bootps dhcp-server    microsoft-ds samba=
    domain-s dns-over-tls= portmap rpcbind         portmapper rpcbind    sunrpc rpcbind
    auth ident             printer lpd             route rip             time rdate
    sieve managesieve      submissions smtps       ssmtp smtps           msa submission
    smtp-submission submission                     imap2 imap            nicname whois
    cifs samba             smb samba               subversion svn        cvspserver cvs
    krb5 kerberos          kerberos-adm kadmin     krb-prop kprop        snmp-trap snmptrap
    ms-sql-s mssql         ms-sql-m mssql-browser  ms-wbt-server rdp     ms-wbt rdp
    jabber xmpp-client     jabber-client xmpp-client                     jabber-server xmpp-server
    rpc-bind rpcbind       nfsv3 nfs3              rsyncd rsync          vnc-server vnc
    dhcp dhcp-server       dhcpv6 dhcpv6-server    bonjour mdns          avahi mdns
    upnp ssdp              svrloc slp              pxe proxy-dhcp        iax iax2
    sip-tls sips           ircs-u ircs             ircd irc              saned sane
    postgres postgresql    mariadb mysql           memcache memcached    mqtt-tls mqtts
    secure-mqtt mqtts      murmur mumble           puppetmaster puppet   wsman winrm
    httpalt http-alt       webcache http-alt       gkrellmd gkrellm      salt salt-master
    afpovertcp afp         asf-rmcp ipmi           epmap msrpc           icpv2 icp
    zabbix-trapper zabbix-server                   ntske nts-ke          gds-db firebird
    bacula-dir bacula-director                     bacula-fd bacula-client
    sftp ssh               quic http3              domain-quic dns-over-quic
"""
PAIRS = [(a, b) for a, b in zip(SAME.split()[::2], SAME.split()[1::2], strict=True)]


@pytest.mark.parametrize(("alias", "name"), [p for p in PAIRS if not p[1].endswith("=")])
def test_people_find_it_by_other_names(alias: str, name: str) -> None:
    assert spoken_by(alias) == spoken_by(name)


@pytest.mark.parametrize(("alias", "name"), [p for p in PAIRS if p[1].endswith("=")])
def test_a_name_may_mean_a_part(alias: str, name: str) -> None:
    """`microsoft-ds` is the part of Samba without NetBIOS; `domain-s` has QUIC besides."""
    mine, theirs = spoken_by(alias), spoken_by(name.removesuffix("="))
    assert any(values.meets(theirs[p]) for p, values in mine.items() if p in theirs)
    assert mine != theirs


def ports_with_answers(service: tree.ServiceDecl) -> list[tree.PortsItem]:
    """The ports of a service whose answers come from elsewhere."""
    found: list[tree.PortsItem] = []
    waiting: list[tree.PortsItem] = []
    for item in service.items:
        if isinstance(item, tree.PortsItem):
            waiting.append(item)
        elif isinstance(item, tree.AnswersItem):
            found += waiting
            waiting = []
    return found


def test_answers_from_elsewhere_are_to_udp() -> None:
    """Nobody answers a TCP connection from elsewhere, so no other ports stand before the words."""
    for service in loaded().services.values():
        if isinstance(service, tree.ServiceDecl):
            items = [type(item) for item in service.items]
            assert items.count(tree.AnswersItem) == bool(ports_with_answers(service))
            assert {item.protocol for item in ports_with_answers(service)} <= {"udp"}


@pytest.mark.parametrize(
    ("name", "ports"),
    [
        ("mdns", {5353}),  # RFC 6762, 6.7: to the port that asked
        ("ssdp", {1900}),  # UPnP Device Architecture 2.0, 1.3.3
        ("llmnr", {5355}),  # RFC 4795, 2.3
        ("ws-discovery", {3702}),
        ("slp", {427}),  # RFC 2608, 8.1
        ("dhcp-client", {67}),  # RFC 2131, 4.1
        ("dhcp-server", {67}),
        ("dhcpv6-client", {547}),  # RFC 8415, 7.2
        ("dhcpv6-server", {547}),
        ("netbios-ns", {137}),  # RFC 1002, 4.2.13
        ("snmp", {161}),
        ("samba", {137, 138}),
        ("bacnet", {47808}),
        ("xdmcp", {177}),
        ("knx", {3671}),
        ("coap-discovery", {5683}),  # RFC 7252, 8.2
    ],
)
def test_discovery_is_answered_by_others(name: str, ports: set[int]) -> None:
    """LANGUAGE.md, section 3: such services say `answers from any`."""
    service = loaded().services[name]
    assert isinstance(service, tree.ServiceDecl)
    found = [e for item in ports_with_answers(service) for e in item.elements]
    assert {e.value for e in found if isinstance(e, tree.Number)} == ports
    assert len(found) == len(ports)


@pytest.mark.parametrize("name", ["tftp", "dns", "ntp", "coap", "https"])
def test_other_services_are_answered_by_whom_they_ask(name: str) -> None:
    service = loaded().services[name]
    assert isinstance(service, tree.ServiceDecl)
    assert not ports_with_answers(service)
