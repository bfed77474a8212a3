"""Three ways into the kernel for what a policy compiles to; each loads files and wipes them off."""

from __future__ import annotations

from enum import Enum

from policylang.backends.base import Artifact
from tests.differential.arena import Firewall, subprocess_output
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
