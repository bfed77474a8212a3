"""Chains of other programs are told with what they can do to our verdicts; ours are left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from policylang.apply import foreign, kernel, programs
from policylang.apply.foreign import AFTER, BEFORE, BESIDE, ForeignChain
from policylang.diagnostics import Report

from .applied import apply_text
from .ground import Loader, Namespace, load_nft

POLICY = """\
zone wan { interface wan0 }
allow ssh inbound from wan
protect from wan against bad-flags
dnat tcp 2222 from wan to 192.0.2.9 port 22
masquerade from any to wan
"""

DROPS = "can drop what ours accepts"
HARMLESS = "cannot change our verdicts"
UNKNOWN = "what it can do is not known"


@pytest.fixture
def alone(kernel: None) -> Iterator[Namespace]:
    namespace = Namespace.create("foreign")
    yield namespace
    namespace.delete()


def told(namespace: Namespace) -> dict[str, ForeignChain]:
    """What is found, by place."""
    report = Report()
    found = kernel.in_netns(namespace.name, lambda: foreign.chains(report), report)
    assert found is not None and not report.diagnostics
    return {chain.place: chain for chain in found}


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_ours_are_left_out(loader: Loader, alone: Namespace, tmp_path: Path) -> None:
    """So are the built-in chains that hold nothing but the jumps to ours."""
    apply_text(POLICY, loader, alone, tmp_path)
    assert told(alone) == {}
    if loader is not Loader.NFT:
        alone.run([f"{loader.value}", "-A", "INPUT", "-p", "tcp", "--dport", "99", "-j", "ACCEPT"])
        (chain,) = told(alone).values()
        assert (chain.rules, chain.abilities) == (1, (HARMLESS,))


CHAINS = """\
table inet other {
\tmap verdicts { type inet_service : verdict
\t\telements = { 22 : accept, 23 : jump shut }
\t}
\tchain shut {
\t\tcounter reject
\t}
\tchain looker {
\t\ttype filter hook input priority -10; policy accept;
\t\ttcp dport 22 counter accept
\t\tlimit rate 5/second log prefix "seen"
\t}
\tchain by-map {
\t\ttype filter hook input priority 5; policy accept;
\t\ttcp dport vmap @verdicts
\t}
\tchain inline {
\t\ttype filter hook forward priority 0; policy accept;
\t\ttcp dport vmap { 24 : drop, 25 : accept }
\t}
\tchain by-policy {
\t\ttype filter hook output priority 0; policy drop;
\t\taccept
\t}
\tchain marks {
\t\ttype filter hook prerouting priority 50; policy accept;
\t\tmeta mark set 7 ct mark set meta mark
\t\tnotrack
\t}
\tchain ttl {
\t\ttype filter hook postrouting priority 0; policy accept;
\t\tip ttl set 64
\t}
\tchain empty {
\t\ttype filter hook input priority 9; policy accept;
\t}
}
table ip translating {
\tchain leads-on {
\t\ttype nat hook prerouting priority -100; policy accept;
\t\ttcp dport 80 dnat to 192.0.2.9
\t}
\tchain hides {
\t\ttype nat hook postrouting priority 100; policy accept;
\t\tmasquerade
\t}
}
table arp faraway {
\tchain in {
\t\ttype filter hook input priority 0; policy drop;
\t}
}
table netdev early {
\tchain in {
\t\ttype filter hook ingress device "lo" priority 0; policy accept;
\t\tudp dport 5 drop
\t}
}
table bridge lan {
\tchain in {
\t\ttype filter hook input priority 0; policy accept;
\t\tether type arp drop
\t}
}
"""

FOUND = {
    "inet other looker": ("input", BEFORE, 2, (HARMLESS,)),
    "inet other by-map": ("input", AFTER, 2, (DROPS,)),
    "inet other inline": ("forward", BESIDE, 1, (DROPS,)),
    "inet other by-policy": ("output", BESIDE, 1, (DROPS,)),
    "inet other marks": (
        "prerouting",
        BEFORE,
        2,
        ("can keep it from conntrack", "can set marks"),
    ),
    "inet other ttl": ("postrouting", AFTER, 1, (HARMLESS,)),
    "ip translating leads-on": ("prerouting", BEFORE, 1, ("can translate before ours sees it",)),
    "ip translating hides": (
        "postrouting",
        AFTER,
        1,
        ("can translate the source of what ours lets out",),
    ),
    "netdev early in": ("ingress", BEFORE, 1, (DROPS,)),
    "bridge lan in": ("input", BESIDE, 1, (DROPS,)),
}


def test_what_nft_holds(alone: Namespace, tmp_path: Path) -> None:
    load_nft(CHAINS, alone)
    apply_text(POLICY, Loader.NFT, alone, tmp_path)
    found = told(alone)
    said = {
        place: (c.hook.partition(" of ")[0], c.relation, c.rules, c.abilities)
        for place, c in found.items()  # nft 1.0.6 does not say of which interface
    }
    assert said == FOUND
    assert found["inet other by-map"].words == (
        "inet other by-map (input, priority 5, after ours, policy accept, 2 rules):"
        " can drop what ours accepts"
    )
    assert found["inet other by-policy"].as_json() == {
        "place": "inet other by-policy",
        "hook": "output",
        "priority": 0,
        "relation": "at the place of ours",
        "policy": "drop",
        "rules": 1,
        "can": ["can drop what ours accepts"],
    }


IPTABLES = (
    "-t filter -N theirs",
    "-t filter -A theirs -j REJECT",
    "-t filter -A INPUT -p tcp --dport 25 -j theirs",
    "-t filter -A OUTPUT -p tcp --dport 26 -j ACCEPT",
    "-t filter -P FORWARD DROP",
    "-t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 192.0.2.9",
    "-t nat -A POSTROUTING -j MASQUERADE",
    "-t mangle -A PREROUTING -j MARK --set-mark 5",
    "-t raw -A OUTPUT -p udp -j CT --notrack",
    "-t raw -A PREROUTING -p udp -j NFQUEUE --queue-num 5",
)


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
def test_what_iptables_holds(flavour: str, alone: Namespace, tmp_path: Path) -> None:
    """The two flavours hold the same and are told alike."""
    for command in IPTABLES:
        alone.run([f"iptables-{flavour}", *command.split()])
    apply_text(POLICY, Loader.NFT, alone, tmp_path)
    said = {
        place.split(maxsplit=1)[1]: (c.relation, c.policy, c.rules, c.abilities)
        for place, c in told(alone).items()
    }
    assert said == {
        "filter INPUT": (BESIDE, "accept", 2, (DROPS,)),
        "filter OUTPUT": (BESIDE, "accept", 1, (HARMLESS,)),
        "filter FORWARD": (BESIDE, "drop", 0, (DROPS,)),
        "nat PREROUTING": (BEFORE, "accept", 1, ("can translate before ours sees it",)),
        "nat POSTROUTING": (
            AFTER,
            "accept",
            1,
            ("can translate the source of what ours lets out",),
        ),
        "mangle PREROUTING": (BEFORE, "accept", 1, ("can set marks",)),
        "raw OUTPUT": (BEFORE, "accept", 1, ("can keep it from conntrack",)),
        "raw PREROUTING": (
            BEFORE,
            "accept",
            1,
            ("can hand it to a program, which may drop it",),
        ),
    }
    assert {place.split()[0] for place in told(alone)} == {
        "ip" if flavour == "nft" else "iptables-legacy"
    }


def test_looking_makes_no_tables(alone: Namespace) -> None:
    told(alone)
    with alone.entered():
        assert Path("/proc/thread-self/net/ip_tables_names").read_text() == ""
    assert alone.run(["nft", "list", "tables"]).stdout == ""


def test_what_is_not_understood_is_said_to_be_unknown() -> None:
    """A statement, a target or a map that nobody here has heard of."""
    base = {"family": "inet", "table": "t", "type": "filter", "hook": "input", "prio": 0}
    for expression in ({"bewitch": None}, {"xt": None}, {"vmap": {"key": 1, "data": "@gone"}}):
        rule = {"family": "inet", "table": "t", "chain": "c", "expr": [expression]}
        (chain,) = foreign.of_nft([{"chain": {**base, "name": "c"}}, {"rule": rule}])
        assert chain.abilities == (UNKNOWN,)
    listing = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j BEWITCH\nCOMMIT\n"
    (chain,) = foreign.of_iptables(listing, "iptables-legacy")
    assert chain.abilities == (UNKNOWN,)


def test_tables_that_cannot_be_read_are_unknown(
    alone: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by an nft that was built without JSON."""
    load_nft("table inet other { }\n", alone)
    run = programs.run

    def refusing(argv: list[str], *given: object, **named: object) -> object:
        if "-j" in argv:
            return programs.Finished("nft", 1, "", "Error: JSON support not compiled-in")
        return run(argv, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(programs, "run", refusing)
    assert told(alone)["inet other"].words == (
        "inet other (any hook, order unknown, rules unknown): what it can do is not known"
    )
