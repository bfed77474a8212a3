"""Three ways into the kernel for what a policy compiles to; each loads files and wipes them off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from ipaddress import ip_address

from policylang.backends.base import Artifact
from policylang.backends.iptables import names as ipset_names
from policylang.backends.nft import sets as nft_sets
from tests.differential.arena import Address, Firewall, subprocess_output
from tests.kernel.ground import CommandError


class Way(Enum):
    """A loader; its value is what its namespace is called."""

    NFT = "nft"
    IPTABLES_NFT = "xnft"
    IPTABLES_LEGACY = "xleg"

    @property
    def target(self) -> str:
        return "nft" if self is Way.NFT else "iptables"

    @property
    def tools(self) -> tuple[str, str]:
        """The programs that take an artifact's rules of IPv4 and of IPv6."""
        flavour = "nft" if self is Way.IPTABLES_NFT else "legacy"
        return f"iptables-{flavour}-restore", f"ip6tables-{flavour}-restore"


IPTABLES_TABLES = ("raw", "mangle", "filter")
BUILT_IN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
NOTHING = "".join(
    f"*{table}\n" + "".join(f":{chain} ACCEPT\n" for chain in BUILT_IN[table]) + "COMMIT\n"
    for table in IPTABLES_TABLES
)


def load(way: Way, artifact: Artifact, target: Firewall) -> None:
    """Load an artifact; raises `CommandError` with the kernel's words and the file."""
    if way is Way.NFT:
        (script,) = artifact.files
        subprocess_output(target.namespace, ["nft", "-f", "-"], script.text)
        return
    sets = artifact.file("sets.ipset")
    if sets is not None:
        subprocess_output(target.namespace, ["ipset", "restore"], sets.text)
    for tool, name in zip(way.tools, ("rules.v4", "rules.v6"), strict=True):
        rules = artifact.file(name)
        assert rules is not None, [file.name for file in artifact.files]
        subprocess_output(target.namespace, [tool, "--noflush", "--wait=20"], rules.text)


def _set_name(way: Way, name: str, family: int) -> str:
    backend = nft_sets if way is Way.NFT else ipset_names
    return str(backend.dynamic_set_name(name, family))


def held(way: Way, name: str, target: Firewall) -> frozenset[Address]:
    """What is in a dynamic set now, of both families."""
    found: set[Address] = set()
    for family in (4, 6):
        own_name = _set_name(way, name, family)
        if way is Way.NFT:
            argv = ["nft", "-j", "list", "set", "inet", "policylang", own_name]
            listing = json.loads(subprocess_output(target.namespace, argv))["nftables"]
            elements = next(item["set"] for item in listing if "set" in item).get("elem", ())
            found.update(
                ip_address(e["elem"]["val"] if isinstance(e, dict) else e) for e in elements
            )
        else:
            lines = subprocess_output(target.namespace, ["ipset", "save", own_name]).splitlines()
            found.update(ip_address(line.split()[2]) for line in lines if line.startswith("add "))
    return frozenset(found)


def fill(way: Way, members: Mapping[str, frozenset[Address]], target: Firewall) -> None:
    """Put addresses into the dynamic sets that were loaded."""
    lines: list[str] = []
    for name, addresses in members.items():
        for address in sorted(addresses, key=lambda a: (a.version, int(a))):
            own_name = _set_name(way, name, address.version)
            if way is Way.NFT:
                lines.append(f"add element inet policylang {own_name} {{ {address} }}\n")
            else:
                lines.append(f"add {own_name} {address}\n")
    if lines:
        argv = ["nft", "-f", "-"] if way is Way.NFT else ["ipset", "restore"]
        subprocess_output(target.namespace, argv, "".join(lines))


def wipe(way: Way, target: Firewall) -> None:
    """Take everything off that an earlier `load` brought, if there was one."""
    if way is Way.NFT:
        script = "table inet policylang\ndelete table inet policylang\n"
        subprocess_output(target.namespace, ["nft", "-f", "-"], script)
        return
    for tool in way.tools:
        subprocess_output(target.namespace, [tool, "--wait=20"], NOTHING)
    for _ in range(100):
        try:
            subprocess_output(target.namespace, ["ipset", "destroy"])
        except CommandError:  # the kernel lets go of a deleted rule's set a moment later
            continue
        return
