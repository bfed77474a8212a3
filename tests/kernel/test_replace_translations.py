"""Replacing the ruleset under load lets nothing pass untranslated, nor what no ruleset lets pass.

A connection that meets no translation when it begins is never translated later, so connections
are forgotten with each replacement, and the load opens all of them anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .ground import Addresses, Family, Ground, Loader, Namespace, load_nft
from .test_replace_under_load import (
    ENOUGH,
    FLAVOURS,
    PATIENCE_S,
    RATE_PER_SECOND,
    apply_policy,
    artifact,
    restore,
    sending,
)

PUBLIC, DENIED = 8000, 5001
INNER = (5000, 5002)  # where the one policy and the other lead what is dialled at PUBLIC
SERVED = 5003

POLICY = """
zone wan {{ interface wan0 }}
zone lan {{ interface lan0 }}
masquerade from lan to wan ipv6
masquerade from lan to wan
dnat tcp {public}, udp {public} from wan to {v4}, {v6} port {inner}
allow tcp {served}, udp {served} from lan to wan
"""

# In a table of its own, in which no name of a policy stands. What is translated before the filter
# is seen on INPUT where it was not: nothing else is dialled there.
COUNTERS = """
table inet count {{
  counter left {{}}; counter left-as-it-came {{}}; counter led-on {{}}; counter not-led-on {{}};
  counter denied {{}}; counter denied-passed {{}};
  chain arriving {{
    type filter hook prerouting priority -190
    th dport {DENIED} counter name "denied"
    iifname "wan0" th dport {{ {inner} }} counter name "denied"
  }}
  chain input {{
    type filter hook input priority filter - 10
    iifname "wan0" th dport {PUBLIC} counter name "not-led-on"
  }}
  chain forward {{
    type filter hook forward priority filter + 10
    th dport {DENIED} counter name "denied-passed"
    iifname "wan0" th dport {{ {inner} }} ct status & dnat == 0 counter name "denied-passed"
    iifname "wan0" th dport {{ {inner} }} ct status dnat counter name "led-on"
  }}
  chain leaving {{
    type filter hook postrouting priority srcnat + 50
    oifname "wan0" th dport {SERVED} ip saddr {near.ipv4} counter name "left"
    oifname "wan0" th dport {SERVED} ip6 saddr {near.ipv6} counter name "left"
    oifname "wan0" th dport {SERVED} ip saddr {far.ipv4} counter name "left-as-it-came"
    oifname "wan0" th dport {SERVED} ip6 saddr {far.ipv6} counter name "left-as-it-came"
  }}
}}
"""


NAT_CHAINS = ("dstnat-input", "srcnat-forward")
NEVER = ("left-as-it-came", "not-led-on", "denied-passed")

LOADED, APPLIED = 12, 2  # times, each policy


def counters(ground: Ground) -> str:
    return COUNTERS.format(
        DENIED=DENIED,
        PUBLIC=PUBLIC,
        SERVED=SERVED,
        inner=", ".join(map(str, INNER)),
        near=ground["wan"].near,
        far=ground["lan"].far,
    )


def policy(ground: Ground, inner: int) -> str:
    server = ground["lan"].far
    return POLICY.format(public=PUBLIC, served=SERVED, inner=inner, v4=server.ipv4, v6=server.ipv6)


def counted(firewall: Namespace) -> dict[str, int]:
    """Packets so far, by what became of them."""
    listed = json.loads(firewall.run(["nft", "-j", "list", "counters"]).stdout)["nftables"]
    return {
        entry["counter"]["name"]: int(entry["counter"]["packets"])
        for entry in listed
        if "counter" in entry and entry["counter"]["table"] == "count"
    }


def flows(source: Addresses, *dialled: tuple[Addresses, int]) -> list[str]:
    return [
        f"{source.of(family)},{target.of(family)},{protocol},{port}"
        for target, port in dialled
        for protocol in ("tcp", "udp")
        for family in Family
    ]


@contextmanager
def load_on(ground: Ground) -> Iterator[None]:
    """Send what is translated and what is denied, from both sides, until connections are met."""
    firewall, wan, lan = ground.firewall, ground["wan"], ground["lan"]
    inward = flows(wan.far, (wan.near, PUBLIC), *((lan.far, port) for port in (DENIED, *INNER)))
    outward = flows(lan.far, (wan.far, SERVED), (wan.far, DENIED))
    each = RATE_PER_SECOND // 2
    with (
        sending(wan, inward, lambda: counted(firewall)["led-on"] > 0, each),
        sending(lan, outward, lambda: counted(firewall)["left"] > 0, each),
    ):
        yield


def written(policy: str, loader: Loader, folder: Path) -> Path:
    """Compile a policy; return the folder of what an administrator loads."""
    folder.mkdir()
    for file in artifact(policy, loader.target).files:
        (folder / file.name).write_text(file.text)
    return folder


def load(folder: Path, loader: Loader, firewall: Namespace) -> None:
    """Replace the ruleset by the files alone, which takes a tenth of the time of `apply`."""
    flavour = FLAVOURS[loader]
    if flavour is None:
        firewall.run(["nft", "-f", str(folder / "policylang.nft")])
    else:
        restore(firewall, flavour.value, folder)


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_translations_are_replaced_without_a_gap(
    routed: Ground, loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves is masqueraded, what is dialled led on, and all else kept out throughout."""
    # Legacy iptables takes one lock for the whole machine unless told another.
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))
    firewall = routed.firewall
    policies = [policy(routed, inner) for inner in INNER]
    folders = [written(text, loader, tmp_path / str(n)) for n, text in enumerate(policies)]
    apply_policy(policies[0], loader, firewall)
    load_nft(counters(routed), firewall)
    with load_on(routed):
        for folder in folders * LOADED:
            load(folder, loader, firewall)
            firewall.run(["conntrack", "--flush"])
        for text in policies * APPLIED:
            apply_policy(text, loader, firewall)
            firewall.run(["conntrack", "--flush"])
    found = counted(firewall)
    assert min(found["left"], found["led-on"], found["denied"]) > ENOUGH, found
    assert not any(found[name] for name in NEVER), found


def test_translations_that_are_taken_out_first_leave_gaps(routed: Ground, tmp_path: Path) -> None:
    """In two transactions instead of one, the same load gets packets through as they came."""
    firewall, text = routed.firewall, policy(routed, INNER[0])
    folder = written(text, Loader.NFT, tmp_path / "made")
    load(folder, Loader.NFT, firewall)
    load_nft(counters(routed), firewall)
    give_up = time.monotonic() + PATIENCE_S
    seen = {"left-as-it-came", "not-led-on"}
    with load_on(routed):
        while seen and time.monotonic() < give_up:
            firewall.run(["nft", "".join(f"flush chain inet policylang {c};" for c in NAT_CHAINS)])
            firewall.run(["conntrack", "--flush"])
            load(folder, Loader.NFT, firewall)
            found = counted(firewall)
            seen = {name for name in seen if not found[name]}
    assert not seen, found
