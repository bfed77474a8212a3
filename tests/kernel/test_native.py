"""Lines of a target's own language: where they stand, for whom, and what the target says."""

from __future__ import annotations

import pytest

from tests.backends.nft_station import arriving

from .applied import FAMILIES, Firewall, to_port
from .ground import CommandError, Loader

PORTS = (1000, 1001, 1002, 1003)
LINES = """
deny udp 1000 inbound
native nft input "udp dport 1000-1002 accept"
native iptables INPUT "-p udp --dport 1000:1002 -j ACCEPT"
deny udp 1001, 1002 inbound
"""
OF_ONE_FAMILY = """
native nft input "udp dport 1000 accept" ipv4
native iptables INPUT "-p udp --dport 1000 -j ACCEPT" ipv4
"""
WRONG = {
    Loader.NFT: 'native nft input "udp dport 1000 acept"',
    Loader.IPTABLES_NFT: 'native iptables INPUT "-p udp --dport 1000 -j NOWHERE"',
    Loader.IPTABLES_LEGACY: 'native iptables INPUT "-p udp --dport 1000 -j NOWHERE"',
}


def passing(firewall: Firewall, family: int) -> list[bool]:
    return firewall.takes(*(p for port in PORTS for p in to_port(port, [arriving(family=family)])))


def test_a_line_stands_at_its_place(firewall: Firewall) -> None:
    """Behind the rule above it and before the one below; without it that one decides."""
    firewall.apply(LINES)
    for family in FAMILIES:
        assert passing(firewall, family) == [False, True, True, False]
    firewall.apply("\n".join(line for line in LINES.splitlines() if "native" not in line))
    for family in FAMILIES:
        assert passing(firewall, family) == [False] * 4


def test_a_line_is_for_its_target_alone(firewall: Firewall) -> None:
    mine = f"native {firewall.loader.target} "
    firewall.apply("\n".join(line for line in LINES.splitlines() if not line.startswith(mine)))
    for family in FAMILIES:
        assert passing(firewall, family) == [False] * 4


def test_a_line_may_be_for_one_family(firewall: Firewall) -> None:
    firewall.apply(OF_ONE_FAMILY)
    assert [passing(firewall, family)[0] for family in FAMILIES] == [True, False]


def test_what_the_target_refuses_is_shown_and_not_loaded(firewall: Firewall) -> None:
    firewall.apply("allow udp 1003 inbound")
    wrong = WRONG[firewall.loader]
    with pytest.raises(CommandError) as refused:
        firewall.apply(f"allow udp 1001 inbound\n{wrong}\n")
    assert "error[refused-by-kernel]" in str(refused.value)
    assert "test.policy:2:1" in str(refused.value)
    for family in FAMILIES:
        assert passing(firewall, family) == [False, False, False, True]
