"""The kernel takes the files of the iptables target, over those of an earlier generation too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from policylang.backends.base import Artifact
from policylang.backends.iptables import IptablesBackend
from policylang.diagnostics import Report
from policylang.ir.actions import Accept, Answer, AssignHelper, Drop, Log, RateGuard, Reject
from policylang.ir.ruleset import Base, Chain, Entry, Item, Lookup, Rule, Ruleset
from policylang.ir.stages import Path, Stage
from policylang.packets.cube import EVERYTHING, Cube
from policylang.packets.fields import SCTP, TCP, UDP, UNIVERSE, Field, with_flags
from policylang.packets.values import V6_BASE, Ranges
from tests.kernel.ground import CommandError, Namespace

FLAVOURS = ("legacy", "nft")


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    made = Namespace.create("ipt")
    yield made
    made.delete()


def emitted(*items: Item, stage: Stage = Stage.FILTER) -> Artifact:
    last = (Rule(EVERYTHING, Drop()),) if stage is Stage.FILTER else ()
    chain = Chain("base", (*items, *last))
    report = Report()
    ruleset = Ruleset((Base(stage, Path.INPUT, "base"),), (chain,))
    artifact = IptablesBackend().emit(ruleset, report)
    assert not report.diagnostics
    return artifact


def load(artifact: Artifact, namespace: Namespace, flavour: str, lock: FilePath) -> None:
    sets = artifact.file("sets.ipset")
    if sets is not None:
        namespace.run(["ipset", "restore"], stdin=sets.text)
    for family, name in (("iptables", "rules.v4"), ("ip6tables", "rules.v6")):
        file = artifact.file(name)
        assert file is not None
        restore = [f"{family}-{flavour}-restore", "--noflush", "--wait=5"]
        namespace.run(restore, stdin=file.text, env={"XTABLES_LOCKFILE": str(lock)})


def addresses(count: int, step: int) -> Ranges:
    """Single addresses of both families."""
    v4 = tuple((n * step, n * step) for n in range(1, count))
    return Ranges((*v4, *((V6_BASE + a, V6_BASE + b) for a, b in v4)))


def generation(count: int) -> Artifact:
    """Rules with a set of every type, whose contents depend on `count`."""

    def pairs(*fields: Field, second: int = 1, ports: int = 1, protocol: int = TCP) -> Lookup:
        entries = []
        for base in (0, V6_BASE):
            for n in range(2, 2 * count, 2):
                address = (base + n * 16, base + n * 16)
                network = (base + n * 65536, base + n * 65536 + second - 1)
                port = (n * 10, n * 10 + ports - 1)
                values = {
                    Field.SADDR: address,
                    Field.DADDR: network,
                    Field.L4PROTO: (protocol, protocol),
                    Field.DPORT: port,
                    Field.SPORT: port,
                }
                entries.append(Entry(tuple(values[f] for f in fields), Accept()))
        return Lookup(EVERYTHING, fields, tuple(entries))

    ports = Ranges(tuple((n * 100, n * 100 + 1) for n in range(1, count)))
    return emitted(
        Rule(Cube.of({Field.SADDR: addresses(count, 3)}), Accept()),
        Rule(Cube.of({Field.L4PROTO: Ranges.of(TCP), Field.DPORT: ports}), Accept()),
        pairs(Field.SADDR, Field.L4PROTO, Field.DPORT),
        pairs(Field.SADDR, Field.L4PROTO, Field.SPORT, ports=5, protocol=UDP),
        pairs(Field.DADDR, Field.L4PROTO, Field.DPORT, second=4, protocol=SCTP),
        pairs(Field.DADDR, Field.L4PROTO, Field.DPORT, second=3, ports=3),
        pairs(Field.SADDR, Field.DADDR, Field.L4PROTO, Field.DPORT),
        pairs(Field.SADDR, Field.DADDR, Field.L4PROTO, Field.DPORT, second=256),
    )


TYPES = ("hash:net", "bitmap:port", "hash:ip,port", "hash:net,port", "hash:ip,port,ip",
         "hash:ip,port,net")  # fmt: skip


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_generation_replaces_another_that_is_in_use(
    namespace: Namespace, flavour: str, tmp_path: FilePath
) -> None:
    first, second = generation(40), generation(60)
    for artifact in (first, second, second, first):
        load(artifact, namespace, flavour, tmp_path / "lock")
        sets = artifact.file("sets.ipset")
        assert sets is not None
        listed = namespace.run(["ipset", "save"]).stdout
        assert "policylang-new-" not in listed
        for kind in TYPES:
            assert f" {kind} " in sets.text and f" {kind} " in listed, kind
        # What the kernel made of it, range for range: as many elements as were written.
        for name in {line.split()[2] for line in sets.text.splitlines() if line[:5] == "swap "}:
            assert f"create {name} " in listed
            assert f"\nadd {name} " in listed


def test_sets_are_loaded_over_what_an_interrupted_load_left(namespace: Namespace) -> None:
    sets = generation(40).file("sets.ipset")
    assert sets is not None
    half = sets.text.partition("\nswap")[0] + "\n"
    namespace.run(["ipset", "restore"], stdin=half)
    assert "policylang-new-" in namespace.run(["ipset", "list", "-name"]).stdout
    namespace.run(["ipset", "restore"], stdin=sets.text)
    assert "policylang-new-" not in namespace.run(["ipset", "list", "-name"]).stdout


def test_a_set_that_somebody_changed_is_mended(namespace: Namespace) -> None:
    sets = generation(40).file("sets.ipset")
    assert sets is not None
    namespace.run(["ipset", "restore"], stdin=sets.text)
    before = namespace.run(["ipset", "save", "-sorted"]).stdout
    name = next(w for w in before.split() if w.startswith("policylang-addresses4"))
    namespace.run(["ipset", "add", name, "203.0.113.99"])
    namespace.run(["ipset", "restore"], stdin=sets.text)
    after = namespace.run(["ipset", "save", name]).stdout
    assert "203.0.113.99" not in after


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_action_loads(namespace: Namespace, flavour: str, tmp_path: FilePath) -> None:
    tcp = Cube.of({Field.L4PROTO: Ranges.of(TCP)})
    levels = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
    artifact = emitted(
        *(Rule(tcp, Reject(answer)) for answer in Answer),
        *(Rule(EVERYTHING, Log("x" * 29, level=level)) for level in levels),
        Rule(EVERYTHING, Log('a "quoted\\ prefix ')),
        Rule(EVERYTHING, Log("y" * 63, group=65535)),
    )
    load(artifact, namespace, flavour, tmp_path / "lock")
    saved = namespace.run([f"iptables-{flavour}-save"]).stdout
    assert r'--log-prefix "a \"quoted\\ prefix "' in saved


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_tcp_flags_load(namespace: Namespace, flavour: str, tmp_path: FilePath) -> None:
    both = with_flags(0x17, 2) | with_flags(0x17, 4)
    ports = Ranges.of(22, 80)
    artifact = emitted(
        Rule(Cube.of({Field.TCP_FLAGS: with_flags(4, 4)}), Accept()),
        Rule(Cube.of({Field.TCP_FLAGS: UNIVERSE[Field.TCP_FLAGS] - with_flags(4, 4)}), Accept()),
        Rule(Cube.of({Field.TCP_FLAGS: both, Field.SPORT: ports, Field.DPORT: ports}), Accept()),
    )
    load(artifact, namespace, flavour, tmp_path / "lock")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_helper_loads(namespace: Namespace, flavour: str, tmp_path: FilePath) -> None:
    both = {"ftp": TCP, "tftp": UDP, "sip": UDP, "sane": TCP, "RAS": UDP, "Q.931": TCP}
    helpers = {**both, "irc": TCP, "pptp": TCP, "snmp": UDP, "netbios-ns": UDP, "amanda": UDP}
    items = [
        Rule(
            Cube.of(
                {
                    Field.L4PROTO: Ranges.of(protocol),
                    Field.FAMILY: Ranges.of(4, 6) if name in both else Ranges.of(4),
                }
            ),
            AssignHelper(name, protocol),
        )
        for name, protocol in helpers.items()
    ]
    load(emitted(*items, stage=Stage.ASSIGN_HELPER), namespace, flavour, tmp_path / "lock")


RATES = (
    RateGuard(1, "day", 1),
    RateGuard(4, "day", 5),
    RateGuard(1, "hour", 31),
    RateGuard(1, "minute", 1800),
    RateGuard(100, "second", 10_000),
    RateGuard(10_000, "second", 5),
    RateGuard(7000, "second", 20_000),
    RateGuard(1, "second", 20_000),
    RateGuard(1_000_000, "second", 1_000_000),
)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("rate", RATES, ids=lambda r: f"{r.count}-{r.unit}-{r.burst}")
def test_every_rate_loads(
    rate: RateGuard, namespace: Namespace, flavour: str, tmp_path: FilePath
) -> None:
    artifact = emitted(Rule(EVERYTHING, Log("x"), (rate,)))
    load(artifact, namespace, flavour, tmp_path / "lock")


def test_the_kernel_refuses_a_slow_rate_with_a_burst(
    namespace: Namespace, tmp_path: FilePath
) -> None:
    """Otherwise `unsupported` would be said for nothing."""
    rule = "*filter\n-A INPUT -m limit --limit 1/day --limit-burst 5\nCOMMIT\n"
    restore = ["iptables-legacy-restore", "--noflush", "--wait=5"]
    with pytest.raises(CommandError):
        namespace.run(restore, stdin=rule, env={"XTABLES_LOCKFILE": str(tmp_path / "lock")})
