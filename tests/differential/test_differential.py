"""What LANGUAGE.md lets through is what three loaders make the kernel let through, and no more.

`POLICYLANG_DIFFERENTIAL_SECONDS=600` runs as many seeds as fit into that time instead of
`POLICIES`; `python -m tests.differential` does the same by hand.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.differential.campaign import (
    Range,
    Tally,
    run_policy,
    run_seed,
    shooting_range,
    verdicts_of,
)
from tests.differential.compiling import compiled
from tests.differential.loading import Way
from tests.differential.probes import aimed_at
from tests.differential.shrinking import shrunk, shrunk_failure
from tests.kernel.ground import obstacle

POLICIES = 15
PROBES = 900
FIRST_SEED = 1000
DIFFERED = sorted(Path(__file__).parent.glob("policies_that_differed/*.policy"))


@pytest.fixture(scope="module")
def ground() -> Iterator[Range]:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with shooting_range() as made:
        yield made


def test_kernel_does_what_the_language_says(ground: Range) -> None:
    seconds = float(os.environ.get("POLICYLANG_DIFFERENTIAL_SECONDS", 0))
    started = time.monotonic()
    tally = Tally()
    seed = FIRST_SEED
    while seed < FIRST_SEED + POLICIES or time.monotonic() - started < seconds:
        run_seed(ground, seed, PROBES, tally)
        seed += 1
    print(tally)
    tally.failures[:1] = [shrunk_failure(ground, f) for f in tally.failures[:1]]
    tally.discrepancies[:1] = [shrunk(ground, d) for d in tally.discrepancies[:1]]
    _fail_for_what_differs(tally)
    assert len(tally.refused) <= tally.policies / 4, tally.refused
    # The test is worth something: most probes reach a hook, on every path and in every state,
    # and neither verdict is rare.
    assert tally.judged > 0.7 * tally.thrown, tally
    for path in ("inbound", "outbound", "forward"):
        for state in ("new", "established", "related", "invalid", "untracked"):
            assert tally.reached[path, state] > tally.judged / 1000, (path, state, tally)
    assert 0.1 < tally.accepted / tally.judged < 0.9, tally


@pytest.mark.parametrize("policy", DIFFERED, ids=lambda path: path.stem)
def test_a_policy_that_once_differed(ground: Range, policy: Path) -> None:
    """Each file begins with the sentence that the kernel once gave the lie."""
    tally = Tally()
    run_policy(ground, policy.read_text(), FIRST_SEED, PROBES, tally)
    assert tally.judged
    _fail_for_what_differs(tally)


def _fail_for_what_differs(tally: Tally) -> None:
    if tally.failures:
        failure = tally.failures[0]
        pytest.fail(f"{len(tally.failures)} failures, such as\n{failure}", pytrace=False)
    if tally.discrepancies:
        one = tally.discrepancies[0]
        pytest.fail(f"{len(tally.discrepancies)} of them, such as\n{one}", pytrace=False)


DAMAGED = """
zone lan { interface lan0  network 10.1.0.0/16 }
allow tcp 1000-2000 inbound from lan
deny icmp 13 from 10.1.0.0/16 to 192.0.2.0/24
default allow forward
"""
# The same with what else a rule may ask for, of IPv6 lest the two families' rules hide each other.
DAMAGED_TOO = """
set seen = dynamic timeout 1h
zone dmz { interface dmz0 }
protect from dmz against spoofing, bad-flags
deny tcp 53 from any to any also established
allow tcp 80 from any to any source port 53
allow udp 53 inbound from seen ipv6
allow udp 54 inbound from ::1/-127
allow udp 55 inbound ipv6 source port 32768-60999
allow udp 56 inbound ipv6 mac 02:00:00:00:02:01
allow udp 57 inbound ipv6 mark 0x10/0xff
allow udp 58 inbound ipv6 dscp ef
allow udp 59 inbound ipv6 size 0-100
allow udp 60 inbound ipv6 until 2020-12-31
allow udp 61 inbound ipv6 over 900 connections
allow udp 62 inbound ipv6 limit over 10000/second
allow udp 63 outbound ipv6 user 1000-1001
allow udp 64 outbound ipv6 group 100
default deny outbound
"""
# Every mention of a condition in what either target compiles `DAMAGED` to.
CONDITIONS = {
    "the interface": r'iifname "lan0" |-i lan0 ',
    "the source": r"ip saddr 10\.1\.0\.0/16 |-s 10\.1\.0\.0/16 ",
    "the destination": r"ip daddr 192\.0\.2\.0/24 |-d 192\.0\.2\.0/24 ",
    "the ports": r"tcp dport 1000-2000 |--dport 1000:2000 ",
    "the ICMP type": r"icmp type timestamp-request |--icmp-type 13 ",
    "the state": r"ct state invalid |-m conntrack --ctstate INVALID ",
}
CONDITIONS_TOO = {
    "the source's own type": (
        r"fib saddr type (local|\{ local, broadcast \}) |-m addrtype --src-type LOCAL(,BROADCAST)? "
    ),
    "the way back": r"fib saddr \. iif oif missing |-m rpfilter --invert ",
    "the flags": r"tcp flags & \(fin \| syn\) == \(fin \| syn\) |--tcp-flags FIN,SYN FIN,SYN ",
    "the direction": r"ct direction reply |-m conntrack --ctdir REPLY ",
    "the dynamic set": r"ip6 saddr @seen-v6 |-m set --match-set policylang-seen-v6 src ",
    "the host's suffix": r"ip6 saddr & ::1 == ::1 |-s ::1/::1 ",
    "the source port": r"udp sport 32768-60999 |--sport 32768:60999 ",
    "the MAC address": r"ether saddr 02:00:00:00:02:01 |-m mac --mac-source 02:00:00:00:02:01 ",
    "the mark": r"meta mark & 0xff == 0x10 |-m mark --mark 0x10/0xff ",
    "the DSCP": r"ip6 dscp ef |-m dscp --dscp 46 ",
    "the size": r"meta length 0-100 |-m length --length 0:100 ",
    "the last day": r"meta time < [0-9]+ |-m time --datestop 2020-12-31T23:59:59 ",
    "the connections": r"ct count over 900 |-m connlimit --connlimit-above 900 --connlimit-mask 0 ",
    "the rate": r"limit rate over \S+ burst 5 packets |-m hashlimit (--hashlimit-\S+ \S+ )+",
    "the user": r"meta skuid 1000-1001 |-m owner --uid-owner 1000-1001 ",
    "the group": r"meta skgid 100 |-m owner --gid-owner 100 ",
}


@pytest.mark.parametrize(
    ("policy", "conditions", "probes"),
    [(DAMAGED, CONDITIONS, 600), (DAMAGED_TOO, CONDITIONS_TOO, 1500)],
    ids=["places", "the rest"],
)
@pytest.mark.parametrize("way", Way)
def test_a_lost_condition_is_found_out(
    ground: Range, way: Way, policy: str, conditions: dict[str, str], probes: int
) -> None:
    """A ruleset without one of its conditions is not taken for the policy."""
    result = compiled(policy, [way.target])
    artifact = result.artifacts[way.target]
    volley = aimed_at(result.policy, probes, Random(7))
    packets = ground.packets(volley)
    verdicts = verdicts_of(result.policy, packets, volley)
    assert not ground.wrong_ones(way, artifact, volley, packets, verdicts)
    for condition, spelling in conditions.items():
        files = [replace(file, text=re.sub(spelling, "", file.text)) for file in artifact.files]
        assert [f.text for f in files] != [f.text for f in artifact.files], condition
        damaged = replace(artifact, files=tuple(files))
        assert ground.wrong_ones(way, damaged, volley, packets, verdicts), condition
