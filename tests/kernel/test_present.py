"""What the kernel says without a program is what the programs say."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator

import pytest

from policylang.apply import netlink, present, restore
from policylang.apply.netlink import DONE, HEADER, MULTI, TORN, Socket
from policylang.apply.restore import Flavour

from .ground import Namespace

NOTHING = frozenset[str]()
TABLES = ("inet policylang", "ip filter", "ip6 nat", "arp a", "bridge b", "netdev n")


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    """An empty namespace."""
    made = Namespace.create("present")
    yield made
    made.delete()


def test_tables_and_sets_are_those_that_programs_list(namespace: Namespace) -> None:
    with namespace.entered():
        assert present.nft_tables() == present.ipsets() == NOTHING
        namespace.run(["nft", "".join(f"add table {table};" for table in TABLES)])
        for number in range(3):
            namespace.run(["ipset", "create", f"policylang-{number}", "hash:ip"])
        told = json.loads(namespace.run(["nft", "-j", "list", "tables"]).stdout)["nftables"]
        found = [one["table"] for one in told if "table" in one]
        listed = frozenset(f"{one['family']} {one['name']}" for one in found)
        assert present.nft_tables() == listed == frozenset(TABLES)
        names = namespace.run(["ipset", "list", "-name"]).stdout.split()
        assert present.ipsets() == frozenset(names)
        assert len(names) == 3


def test_legacy_tables_are_those_that_were_asked_for(namespace: Namespace) -> None:
    with namespace.entered():
        assert present.legacy_tables("iptables") == present.legacy_tables("ip6tables") == NOTHING
        namespace.run(["iptables-legacy", "-t", "mangle", "-A", "INPUT", "-j", "ACCEPT"])
        assert present.legacy_tables("iptables") == frozenset({"mangle"})
        assert present.legacy_tables("ip6tables") == NOTHING


@pytest.mark.parametrize("flavour", Flavour)
def test_a_tool_holds_nothing_until_it_has_a_table(namespace: Namespace, flavour: Flavour) -> None:
    tools = restore.tools(flavour)
    with namespace.entered():
        namespace.run(["nft", "add table inet filter; add table ip policylang"])
        assert [tool.holds_nothing for tool in tools] == [True, True]
        namespace.run([f"ip6tables-{flavour}", "-t", "raw", "-A", "OUTPUT", "-j", "ACCEPT"])
        assert [tool.holds_nothing for tool in tools] == [True, False]


def test_who_may_not_ask_is_told_nothing(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is not the same as no table: a program is asked then, which says what is wrong."""

    def refused(self: Socket, kind: int, body: bytes) -> list[bytes]:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Socket, "whole", refused)
    with namespace.entered():
        assert present.nft_tables() is None
        assert present.ipsets() is None
        assert not restore.tools(Flavour.NFT)[0].holds_nothing


class Torn:
    """A kernel whose list changes while it is told, the first `times` it is asked."""

    def __init__(self, times: int) -> None:
        self.times = times

    def send(self, message: bytes) -> None:
        self.times -= 1

    def recv(self, size: int) -> bytes:
        flags = MULTI | (TORN if self.times >= 0 else 0)
        parts = ((1, b"half" if flags & TORN else b"full"), (DONE, bytes(4)))
        return b"".join(HEADER.pack(20, kind, flags, 1, 0) + data for kind, data in parts)


def test_a_list_that_changed_meanwhile_is_asked_for_again() -> None:
    assert Socket(Torn(3)).whole(1, b"") == [b"full"]  # type: ignore[arg-type]
    assert list(Socket(Torn(3)).dump(1, b"")) == [b"half"]  # type: ignore[arg-type]
    with pytest.raises(InterruptedError):
        Socket(Torn(netlink.TRIES)).whole(1, b"")  # type: ignore[arg-type]
