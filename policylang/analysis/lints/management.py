"""Services by which machines are managed, and databases: seldom meant for the whole world.

They are those of the catalogue that whoever gets in by rules the machine, or has all of its data;
a public service that happens to need a password (mail, web) is none of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from policylang.diagnostics import Report
from policylang.packets.values import Ranges
from policylang.pipeline import Text, loaded_from, meant_by

# A shell or a screen of the machine, or the right to reconfigure it.
MANAGING = (
    *("ssh", "telnet", "rlogin", "rsh", "rexec", "rdp", "vnc", "radmin", "winrm", "winrms"),
    *("winbox", "webmin", "cockpit", "proxmox", "vmware-authd", "libvirt", "libvirt-tls", "ipmi"),
    *("snmp", "x11"),
    # Whoever reaches these starts programs as root, often without a password.
    *("docker-tls", "docker-swarm", "kubernetes-api", "kubelet", "kubelet-readonly", "etcd"),
    *("consul", "nomad", "vault", "adb", "distcc", "jupyter"),
)
# Data, often with no password unless somebody set one.
DATABASES = (
    *("mysql", "mysqlx", "postgresql", "mssql", "oracle", "mongodb", "redis", "redis-tls"),
    *("memcached", "elasticsearch", "opensearch", "cassandra", "couchdb", "cockroachdb"),
    *("clickhouse", "influxdb", "neo4j", "solr", "zookeeper", "rabbitmq-management"),
    *("ldap", "nfs", "iscsi", "ceph-mon"),
)


Ports = dict[tuple[int, Ranges], str]  # by protocol and ports: the service


@cache
def managed_ports() -> Ports:
    """The services, as the catalogue has them."""
    report = Report()
    text = f"allow {', '.join((*MANAGING, *DATABASES))} inbound\n"
    policy = meant_by(loaded_from(Text(text, "<services>", Path()), report), report)
    assert policy is not None, report.diagnostics
    found: Ports = {}
    for traffic in policy.rules[0].what:
        protocol = None if traffic.protocols is None else traffic.protocols.single
        if protocol is not None and traffic.ports is not None and traffic.service is not None:
            found.setdefault((protocol, traffic.ports), traffic.service)
    return found
