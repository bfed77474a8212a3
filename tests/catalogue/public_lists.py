"""Two lists of services that others keep: netbase's /etc/services, and firewalld's.

Both come from the machine's own package sources when the tests run; nothing of them is kept here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from policylang.packets.values import Ranges
from tests.catalogue.whole import NAMES, NO_PORTS, Spoken, ports

ETC_SERVICES = Path("/etc/services")  # Debian package netbase
FIREWALLD = "usr/lib/firewalld/services"  # Debian package firewalld, which is not installed

PROTOCOLS = ("tcp", "udp", "sctp", "dccp")


def etc_services(text: str) -> dict[str, Spoken]:
    """What each name of a file as /etc/services speaks of; services(5) has its form."""
    services: dict[str, Spoken] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, place, *aliases = words
        number, _, protocol = place.partition("/")
        if protocol in PROTOCOLS:  # not AppleTalk
            for known_as in (name, *aliases):
                _add(services.setdefault(known_as, {}), protocol, ports(int(number)))
    return services


def firewalld_services(folder: Path) -> dict[str, Spoken]:
    """What each of firewalld's services speaks of, those that it includes among it.

    Services that match source ports are left out: they are rules for answers.
    """
    trees = {path.stem: ElementTree.parse(path).getroot() for path in folder.glob("*.xml")}

    def spoken(name: str) -> Spoken:
        found: Spoken = {}
        for element in trees[name]:
            match element.tag:
                case "port" if element.get("port"):
                    _add(found, _said(element, "protocol"), _port(_said(element, "port")))
                case "port":
                    _add(found, _said(element, "protocol"), NO_PORTS)
                case "protocol":
                    value = _said(element, "value")
                    name_of = NAMES.get(int(value)) if value.isdigit() else value
                    _add(found, name_of or value, NO_PORTS)
                case "include":
                    for protocol, values in spoken(_said(element, "service")).items():
                        _add(found, protocol, values)
                case "short" | "description" | "helper" | "module" | "destination":
                    pass
                case tag:
                    assert tag == "source-port", f"{name}.xml says <{tag}>"
        return found

    return {name: spoken(name) for name, root in trees.items() if root.find("source-port") is None}


def _add(spoken: Spoken, protocol: str, values: Ranges) -> None:
    spoken[protocol] = spoken.get(protocol, NO_PORTS) | values


def _said(element: ElementTree.Element, attribute: str) -> str:
    value = element.get(attribute)
    assert value, ElementTree.tostring(element)
    return value


def _port(text: str) -> Ranges:
    low, _, high = text.partition("-")
    return ports((int(low), int(high or low)))


# --- getting them ---------------------------------------------------------------------------


def firewalld_folder(scratch: Path) -> Path:
    """The folder of firewalld's services, its package unpacked below `scratch` where need be.

    The package is not installed: it would bring a daemon that takes the machine's firewall over.
    Raises RuntimeError where the package cannot be had.
    """
    installed = Path("/", FIREWALLD)
    if installed.is_dir():
        return installed
    if shutil.which("apt-get") is None:
        raise RuntimeError(f"{installed} is not there, and no apt-get to get it with")
    download = ["apt-get", "--quiet", "download", "firewalld"]
    failed = _run(download, scratch)
    if failed is not None and os.geteuid() == 0:  # no package lists yet, or old ones
        _run(["apt-get", "--quiet", "-o", "DPkg::Lock::Timeout=300", "update"], scratch)
        failed = _run(download, scratch)
    if failed is not None:
        raise RuntimeError(f"cannot get firewalld's package (`apt-get update`?): {failed}")
    (package,) = scratch.glob("firewalld_*.deb")
    failed = _run(["dpkg-deb", "--extract", str(package), "unpacked"], scratch)
    if failed is not None:
        raise RuntimeError(f"cannot unpack {package.name}: {failed}")
    return scratch / "unpacked" / FIREWALLD


def _run(command: Sequence[str], folder: Path) -> str | None:
    """What the command says where it fails."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    return None if done.returncode == 0 else done.stderr.strip() or done.stdout.strip()
