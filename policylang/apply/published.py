"""Ports that container engines forward to their containers, as the live rules tell them.

Such packets are translated before INPUT sees them and go through FORWARD, so what a policy says of
this host does not hold for them. What is read is what Docker and Podman write, by iptables
(either flavour) or into nft tables of their own; nothing of it is changed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network

from policylang.apply import nft, present, programs, restore
from policylang.apply.restore import Flavour
from policylang.diagnostics import Report
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Needs

DOCKER, PODMAN = "Docker", "Podman"

# What the chains of each are called in iptables (`CNI-`: Podman before version 4).
CHAINS = {"DOCKER": DOCKER, "NETAVARK-": PODMAN, "CNI-": PODMAN}
# Their own tables in nft.
TABLES = {"ip docker-bridges": DOCKER, "ip6 docker-bridges": DOCKER, "inet netavark": PODMAN}
NAT_TABLES = {"ip nat", "ip6 nat"}  # where iptables-nft keeps its

# A rule of nft that forwards a port. A set of protocols (`th dport`) is Podman's name server.
_NFT_FORWARD = re.compile(
    r"^[ \t]*(?P<match>.*?)\b(?P<protocol>tcp|udp|sctp) dport (?P<port>[0-9-]+) "
    r"(?P<rest>.*?)\bdnat (?:ip6? )?to (?P<target>\S+)",
    re.MULTILINE,
)
_NFT_ADDRESS = re.compile(r"\bip6? daddr (?!!)(\S+)")

HOST = {4: "/32", 6: "/128"}
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Published:
    """A port of this host and where it leads; `address` None is any of this host's."""

    tool: str
    protocol: str
    family: int
    address: str | None
    port: str
    target: str

    @property
    def text(self) -> str:
        """As in `0.0.0.0:8080 -> 172.17.0.2:80/tcp`."""
        anywhere = "0.0.0.0" if self.family == 4 else "::"
        address = self.address or anywhere
        shown = f"[{address}]" if ":" in address else address
        return f"{shown}:{self.port} -> {self.target}/{self.protocol}"

    @property
    def is_open_to_others(self) -> bool:
        """Whether anybody but this host can dial it; what leads to itself is no container."""
        if self.address is None:
            return True
        host = self.target.rpartition(":")[0].strip("[]")
        return not ip_network(self.address).is_loopback and self.address != host


def warn(needs: Needs, report: Report) -> None:
    """Say which published ports the policy's rules about this host do not hold for.

    Reports `published-ports` at the statement that most likely is meant to hold for them, in
    other words where nothing lets anybody reach them. Not where there is no such statement, or
    where the policy speaks of published ports.
    """
    if needs.inbound is not None:
        ports = tuple(dict.fromkeys(found()))
        if ports:
            _warn(needs.inbound, ports, report, is_open=needs.forwards_any)


def found() -> Iterator[Published]:
    """The published ports in this thread's namespace; what cannot be read is left out."""
    tables = nft.tables()
    for table, tool in TABLES.items():
        if table in tables:
            yield from of_nft(nft.listing_of(table), tool)
    if tables & NAT_TABLES:
        yield from _of_flavour(Flavour.NFT)
    if any("nat" in (present.legacy_tables(program) or ()) for program in restore.FAMILIES):
        yield from _of_flavour(Flavour.LEGACY)


def _of_flavour(flavour: Flavour) -> Iterator[Published]:
    for tool, family in zip(restore.tools(flavour), (4, 6), strict=True):
        if programs.find(tool.save) is not None:
            finished = programs.run([tool.save], Report())
            if finished is not None and finished.ok:
                yield from of_iptables(finished.stdout, family)


def of_nft(listing: str, tool: str) -> Iterator[Published]:
    """The published ports in the listing of a container engine's own table."""
    for rule in _NFT_FORWARD.finditer(listing):
        address = _NFT_ADDRESS.search(rule["match"]) or _NFT_ADDRESS.search(rule["rest"])
        one = Published(
            tool,
            rule["protocol"],
            6 if rule["target"].startswith("[") or rule["target"].count(":") > 1 else 4,
            None if address is None else address[1],
            rule["port"],
            rule["target"],
        )
        if one.is_open_to_others:
            yield one


def of_iptables(listing: str, family: int) -> Iterator[Published]:
    """The published ports in the output of iptables-save or ip6tables-save."""
    for line in _nat_rules(listing.splitlines()):
        if " -j DNAT " not in line:
            continue
        try:
            words = shlex.split(line)
        except ValueError:  # an extension that does not close its quotes
            continue
        tool = next((tool for start, tool in CHAINS.items() if words[1].startswith(start)), None)
        said = dict(_options(words))
        if tool is not None and {"--to-destination", "--dport", "-p"} <= said.keys():
            one = Published(
                tool,
                said["-p"],
                family,
                said["-d"].removesuffix(HOST[family]) if "-d" in said else None,
                said["--dport"].replace(":", "-"),
                said["--to-destination"],
            )
            if one.is_open_to_others:
                yield one


def _nat_rules(lines: Iterable[str]) -> Iterator[str]:
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line
        elif table == "*nat" and line.startswith("-A "):
            yield line


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """The options of a rule with their values, but for those that are turned round."""
    for before, option, value in zip(words, words[1:], words[2:], strict=False):
        if option.startswith("-") and before != "!":
            yield option, value


def _warn(origin: Origin, ports: tuple[Published, ...], report: Report, *, is_open: bool) -> None:
    tools = " and ".join(dict.fromkeys(port.tool for port in ports))
    shown = ", ".join(f"`{port.text}`" for port in ports[:MOST_SHOWN])
    more = len(ports) - MOST_SHOWN
    publish = "publish" if " and " in tools else "publishes"
    these = f"the ports that {tools} {publish}: {shown}" + (f" and {more} more" if more > 0 else "")
    if is_open:
        message = f"this does not hold for {these}"
        ways = "`allow … to published` and `deny … to published` are about them"
    else:
        message = f"nothing in the policy opens {these}"
        ways = "`allow … to published` opens them"
    report.add("published-ports", message, origin.span, help=f"their packets are forwarded: {ways}")
