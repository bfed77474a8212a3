"""What `policylang.apply` does to a namespace, with artifacts that were written by hand.

Every test loads into namespaces that it made; `ground` deletes them.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from policylang import pipeline
from policylang.apply import ipsets, kernel, libnftables, nft, programs, restore, xtables
from policylang.apply.restore import Flavour
from policylang.apply.transaction import Applied, apply
from policylang.backends.base import Artifact, OutputFile
from policylang.cli import main
from policylang.diagnostics import Diagnostic, Report
from policylang.ir.origin import Origin, Why
from policylang.source import SourceFile, Span
from tests.kernel.ground import (
    Family,
    Namespace,
    Reach,
    ground,
    load_nft,
    probe_tcp,
)

pytestmark = pytest.mark.usefixtures("kernel")

SOURCE = SourceFile("web.policy", "allow ssh inbound\nallow ftp inbound\nallow http inbound\n")
BOTH = pytest.mark.parametrize("flavour", list(Flavour))


@pytest.fixture(autouse=True)
def private_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.create("apply")
    yield made
    made.delete()


# --- artifacts by hand -----------------------------------------------------------------------


def origin(statement: int) -> Origin:
    start = SOURCE.line_starts[statement - 1]
    return Origin(Why.WRITTEN, Span(SOURCE, start, start + len(SOURCE.line_text(statement))))


def output(name: str, text: str) -> OutputFile:
    """A file whose lines may end in `@N`: they stand for statement N."""
    lines = [line.strip() for line in text.strip().splitlines()]
    origins: list[tuple[Origin, ...]] = []
    for index, line in enumerate(lines):
        rule, mark, statement = line.partition("@")
        origins.append((origin(int(statement)),) if mark else ())
        lines[index] = rule.rstrip()
    return OutputFile(name, "".join(f"{line}\n" for line in lines), tuple(origins))


def nft_artifact(*rules: str, before: str = "") -> Artifact:
    script = "\n".join(
        (
            "add table inet policylang",
            "delete table inet policylang",
            "table inet policylang {",
            before,
            "chain input {",
            "type filter hook input priority 0; policy accept;",
            *rules,
            "}",
            "}",
        )
    )
    return Artifact("nft", (output("rules.nft", script),))


def xtables_artifact(ipv4: str, ipv6: str | None = None, sets: str = "") -> Artifact:
    files = [output("rules.v4", ipv4), output("rules.v6", ipv4 if ipv6 is None else ipv6)]
    return Artifact("iptables", (*files, output("sets.ipset", sets)) if sets else tuple(files))


def filter_rules(*rules: str, chain: str = "policylang-input") -> str:
    return "\n".join(
        (
            "*filter",
            f":{chain} - [0:0]",
            f"-I INPUT 1 -j {chain}",
            *(f"-A {chain} {rule}" for rule in rules),
            "COMMIT",
        )
    )


DROP_8001 = filter_rules("-p tcp --dport 8001 -j DROP @1")
DROP_8002 = filter_rules("-p tcp --dport 8002 -j DROP @1")

# As the iptables backend writes a set: filled aside and swapped.
SET_A = """
    create -exist policylang-a hash:net family inet
    create -exist policylang-a-new hash:net family inet
    flush policylang-a-new
    add policylang-a-new 192.0.2.0/24 @1
    swap policylang-a policylang-a-new
    destroy policylang-a-new
"""


# --- what is there ---------------------------------------------------------------------------


def applied(artifact: Artifact, namespace: Namespace, flavour: Flavour | None = None) -> Applied:
    report = Report()
    result = apply(artifact, report, netns=namespace.name, flavour=flavour)
    assert report.diagnostics == []
    assert result is not None
    return result


def refused(
    artifact: Artifact, namespace: Namespace, flavour: Flavour | None = None
) -> tuple[Diagnostic, ...]:
    report = Report()
    assert apply(artifact, report, netns=namespace.name, flavour=flavour) is None
    assert report.has_errors
    return report.in_order()


def nft_listing(namespace: Namespace) -> str:
    return namespace.run(["nft", "-s", "list", "ruleset"]).stdout


def rules(
    namespace: Namespace, flavour: Flavour, family: str = "iptables", *options: str
) -> list[str]:
    listing = namespace.run([f"{family}-{flavour}-save", *options]).stdout
    return [line for line in listing.splitlines() if not line.startswith("#")]


def own(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if "policylang" in line]


def set_names(namespace: Namespace) -> list[str]:
    return sorted(namespace.run(["ipset", "list", "-name"]).stdout.split())


# --- namespaces ------------------------------------------------------------------------------


def test_only_the_work_enters_the_namespace(namespace: Namespace) -> None:
    """A namespace is entered by the work and the programs it starts, and by nothing else."""
    own_namespace = Path("/proc/thread-self/ns/net")
    home = str(own_namespace.readlink())
    report = Report()

    def inside() -> tuple[str, str]:
        finished = programs.run(["readlink", "/proc/self/ns/net"], report)
        assert finished is not None
        return str(own_namespace.readlink()), finished.stdout.strip()

    for found in (
        kernel.in_netns(namespace.name, inside, report),
        kernel.in_netns(f"/run/netns/{namespace.name}", inside, report),
        kernel.in_scratch(inside, report),
    ):
        assert found is not None
        assert found[0] == found[1] != home
    assert str(own_namespace.readlink()) == home
    assert report.diagnostics == []


def test_a_scratch_namespace_is_empty_and_gone_afterwards() -> None:
    """Nothing of the host is in a scratch namespace, and nothing of it is left."""
    report = Report()

    def inside() -> tuple[list[str], int]:
        inode = Path("/proc/thread-self/ns/net").stat().st_ino
        return [p.name for p in Path("/proc/thread-self/net/dev_snmp6").iterdir()], inode

    found = kernel.in_scratch(inside, report)
    assert found is not None
    assert found[0] == ["lo"]
    give_up = time.monotonic() + 5  # the thread's own end comes a moment after it is joined
    while found[1] in namespaces_of_threads():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def namespaces_of_threads() -> set[int]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it ended in between
            found.add((task / "ns/net").stat().st_ino)
    return found


def test_what_the_work_raises_is_raised_here() -> None:
    """A mistake in the work is not lost in its thread."""

    def fail() -> None:
        raise LookupError("a mistake")

    with pytest.raises(LookupError, match="a mistake"):
        kernel.in_scratch(fail, Report())


@pytest.mark.parametrize("name", ["pl-no-such", "/proc/self/ns/uts", "/nowhere/at-all", "a\0b"])
def test_a_namespace_that_is_none_is_reported(name: str) -> None:
    """A name that is not there, and a file that is no namespace, are the user's mistakes."""
    report = Report()
    assert kernel.in_netns(name, lambda: 1, report) is None
    assert [d.code for d in report.diagnostics] == ["no-such-namespace"]


def test_a_name_that_is_close_is_offered(namespace: Namespace) -> None:
    """A typing mistake in --netns is answered with the name that was meant."""
    report = Report()
    assert kernel.in_netns(f"{namespace.name}x", lambda: 1, report) is None
    assert report.diagnostics[0].help == f"did you mean `{namespace.name}`?"


def test_who_may_not_load_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to make a namespace nothing is tried."""

    class Denied:
        def unshare(self, flags: int) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    monkeypatch.setattr(kernel, "_libc", Denied)
    report = Report()
    assert apply(nft_artifact("accept"), report) is None
    assert [d.code for d in report.diagnostics] == ["not-permitted"]


# --- nft -------------------------------------------------------------------------------------


def test_nft_loads_and_reloads(namespace: Namespace) -> None:
    """A second apply replaces the first; a foreign table stays as it is."""
    load_nft("table inet other { chain c { tcp dport 1 accept; }; }", namespace)
    load_nft("table ip policylang { chain c { tcp dport 2 accept; }; }", namespace)
    result = applied(nft_artifact("tcp dport 8001 drop @1"), namespace)
    assert result == Applied("nft", ())
    assert "tcp dport 8001 drop" in nft_listing(namespace)
    applied(nft_artifact("tcp dport 8002 drop @1"), namespace)
    listing = nft_listing(namespace)
    assert "8001" not in listing
    assert listing.count("tcp dport 8002 drop") == 1
    assert "table inet other" in listing
    assert "tcp dport 1 accept" in listing
    assert "tcp dport 2 accept" in listing


@pytest.fixture(params=["libnftables", "nft"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two ways into nf_tables, with the other one missing."""
    if request.param == "nft":
        monkeypatch.setattr("sys.executable", "")
    else:
        real = programs.find
        monkeypatch.setattr(programs, "find", lambda p: None if p == "nft" else real(p))
    return str(request.param)


def test_a_refused_script_names_the_statement(way: str, namespace: Namespace) -> None:
    """What nft or the kernel refuses is told at the statement, and the old rules stay."""
    applied(nft_artifact("tcp dport 8001 drop @1"), namespace)
    before = nft_listing(namespace)
    for wrong, words in (
        ("tcp dport 22 jump nowhere @2", "No such file or directory"),  # the kernel's
        ("tcp dport 99999 accept @2", "Service out of range"),  # nft's
    ):
        (diagnostic,) = refused(nft_artifact("tcp dport 8003 drop @1", wrong), namespace)
        assert diagnostic.code == "refused-by-kernel"
        assert diagnostic.span == origin(2).span
        assert diagnostic.help is not None
        assert words in diagnostic.help
        assert wrong.removesuffix(" @2") in diagnostic.help
        assert nft_listing(namespace) == before


def test_a_helper_that_the_kernel_lacks_names_the_statement(way: str, namespace: Namespace) -> None:
    """The kernel refuses the object of an unknown helper; the statement behind it is shown."""
    # A line's own error, inside the object's block, is the block's first line.
    artifact = nft_artifact(before='ct helper nope { @2\ntype "nope" protocol tcp @2\n}')
    (diagnostic,) = refused(artifact, namespace)
    assert diagnostic.code == "refused-by-kernel"
    assert diagnostic.span == origin(2).span


def test_a_line_of_no_statement_is_named_itself(namespace: Namespace) -> None:
    """A refused line that no statement stands behind still says which line it is."""
    (diagnostic,) = refused(nft_artifact("nonsense"), namespace)
    assert diagnostic.span is None
    assert "line 7 of `rules.nft`" in diagnostic.message


def test_what_is_missing_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, namespace: Namespace
) -> None:
    """Without libnftables and without nft, the message says what to install."""
    monkeypatch.setattr("sys.executable", "")
    monkeypatch.setattr(programs, "find", lambda program: None)
    (diagnostic,) = refused(nft_artifact("accept"), namespace)
    assert diagnostic.code == "program-missing"
    assert diagnostic.help == "install the package `nftables`: apt install nftables"
    (diagnostic,) = refused(xtables_artifact(DROP_8001), namespace)
    assert diagnostic.code == "program-missing"
    assert diagnostic.help == "install the package `iptables`: apt install iptables"


def test_without_libnftables_the_program_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, namespace: Namespace
) -> None:
    """Where the library or its Python module is missing, `nft` does the same."""
    missing = tmp_path / "missing.py"
    missing.write_text(f"raise SystemExit({libnftables.UNAVAILABLE})\n")
    monkeypatch.setattr(libnftables, "__file__", str(missing))
    applied(nft_artifact("tcp dport 8001 drop @1"), namespace)
    assert "tcp dport 8001 drop" in nft_listing(namespace)
    (diagnostic,) = refused(nft_artifact("tcp dport 22 jump nowhere @2"), namespace)
    assert diagnostic.span == origin(2).span
    real = programs.find
    monkeypatch.setattr(programs, "find", lambda p: None if p == "nft" else real(p))
    (diagnostic,) = refused(nft_artifact("accept"), namespace)
    assert diagnostic.code == "program-missing"


def test_libnftables_ending_the_process_is_survived(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, namespace: Namespace
) -> None:
    """A crash of the library is a message, not the end of the program that asked."""
    crash = tmp_path / "crash.py"
    crash.write_text("import os; os.kill(os.getpid(), 11)\n")
    monkeypatch.setattr(libnftables, "__file__", str(crash))
    (diagnostic,) = refused(nft_artifact("accept"), namespace)
    assert diagnostic.code == "loading-failed"
    assert diagnostic.help is not None
    assert "signal 11" in diagnostic.help


# --- iptables --------------------------------------------------------------------------------


@BOTH
def test_xtables_loads_and_reloads(flavour: Flavour, namespace: Namespace) -> None:
    """A reload replaces the rules, keeps one jump, removes stale chains, spares foreign rules."""
    for family, address in (("iptables", "198.51.100.1"), ("ip6tables", "2001:db8::1")):
        namespace.run([f"{family}-{flavour}", "-N", "DOCKER-USER"])
        namespace.run([f"{family}-{flavour}", "-A", "DOCKER-USER", "-s", address, "-j", "DROP"])
        namespace.run([f"{family}-{flavour}", "-A", "INPUT", "-j", "DOCKER-USER"])
        namespace.run([f"{family}-{flavour}", "-P", "FORWARD", "DROP"])
    only = ("-t", "filter")
    foreign = {f: rules(namespace, flavour, f, *only) for f in ("iptables", "ip6tables")}
    first = (
        filter_rules("-p tcp --dport 8001 -j policylang-old @1", "-j ACCEPT").replace(
            "-I INPUT", ":policylang-old - [0:0]\n-I INPUT"
        )
        + "\n*raw\n:policylang-assign - [0:0]\n-I PREROUTING 1 -j policylang-assign\n"
        + "-A policylang-assign -p tcp --dport 21 -j CT --helper ftp\nCOMMIT"
    )
    applied(xtables_artifact(first), namespace, flavour)
    for family in ("iptables", "ip6tables"):
        found = rules(namespace, flavour, family)
        inputs = [line for line in found if line.startswith("-A INPUT")]
        assert inputs == ["-A INPUT -j policylang-input", "-A INPUT -j DOCKER-USER"]
        assert "-A PREROUTING -j policylang-assign" in found
    for _ in range(2):
        applied(xtables_artifact(DROP_8002), namespace, flavour)
        for family in ("iptables", "ip6tables"):
            found = rules(namespace, flavour, family)
            assert own(found) == [
                ":policylang-input - [0:0]",
                "-A INPUT -j policylang-input",
                "-A policylang-input -p tcp -m tcp --dport 8002 -j DROP",
            ]
            found = rules(namespace, flavour, family, *only)
            assert [line for line in found if "policylang" not in line] == foreign[family]


@BOTH
def test_a_doubled_jump_becomes_one(flavour: Flavour, namespace: Namespace) -> None:
    """Whatever jumps into our chains stand in a built-in chain, one is left, at the top."""
    applied(xtables_artifact(DROP_8001), namespace, flavour)
    program = f"iptables-{flavour}"
    namespace.run([program, "-I", "INPUT", "-p", "udp", "-j", "ACCEPT"])
    comment = ["-m", "comment", "--comment", 'it\'s "quoted" \\']
    namespace.run([program, "-A", "INPUT", *comment, "-j", "policylang-input"])
    namespace.run([program, "-A", "INPUT", "-j", "policylang-input"])
    applied(xtables_artifact(DROP_8002), namespace, flavour)
    inputs = [r for r in rules(namespace, flavour) if r.startswith("-A INPUT")]
    assert inputs == ["-A INPUT -j policylang-input", "-A INPUT -p udp -j ACCEPT"]


@BOTH
def test_a_chain_that_a_foreign_rule_uses_is_emptied(
    flavour: Flavour, namespace: Namespace
) -> None:
    """A stale chain into which somebody else jumps cannot be deleted; it no longer decides."""
    applied(xtables_artifact(filter_rules("-j DROP", chain="policylang-old")), namespace, flavour)
    namespace.run([f"iptables-{flavour}", "-N", "mine"])
    namespace.run([f"iptables-{flavour}", "-A", "mine", "-j", "policylang-old"])
    applied(xtables_artifact(DROP_8001), namespace, flavour)
    assert own(rules(namespace, flavour)) == [
        ":policylang-input - [0:0]",
        ":policylang-old - [0:0]",
        "-A INPUT -j policylang-input",
        "-A mine -j policylang-old",
        "-A policylang-input -p tcp -m tcp --dport 8001 -j DROP",
    ]


@BOTH
def test_sets_come_before_rules_and_go_after(flavour: Flavour, namespace: Namespace) -> None:
    """A set is loaded before the rules that name it and destroyed once they are gone."""
    namespace.run(["ipset", "create", "foreign", "hash:ip"])
    with_set = xtables_artifact(
        filter_rules("-m set --match-set policylang-a src -j DROP @1"), DROP_8001, SET_A
    )
    for _ in range(2):
        applied(with_set, namespace, flavour)
        assert set_names(namespace) == ["foreign", "policylang-a"]
    applied(xtables_artifact(DROP_8001), namespace, flavour)
    assert set_names(namespace) == ["foreign"]


def refused_undrilled(
    artifact: Artifact, namespace: Namespace, flavour: Flavour
) -> tuple[Diagnostic, ...]:
    """Load without the dry run, which would have found what the kernel refuses."""
    report = Report()
    chosen = restore.tools(flavour)
    done = kernel.in_netns(namespace.name, lambda: xtables.load(artifact, chosen, report), report)
    assert done is False
    return report.in_order()


REFUSED_LATE = """
    *raw
    :policylang-raw - [0:0]
    -I PREROUTING 1 -j policylang-raw
    -A policylang-raw -p tcp --dport 21 -j CT --helper nope @2
    COMMIT
"""


@BOTH
def test_a_failing_family_takes_the_other_back(
    flavour: Flavour, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a table of IPv6 fails after IPv4 is in, IPv4 and the sets are what they were."""
    with_set = "-m set --match-set policylang-{} src -j DROP @1"
    old = xtables_artifact(filter_rules(with_set.format("a")), DROP_8001, SET_A)
    applied(old, namespace, flavour)
    # Behind a foreign rule, to see that the jump keeps its place.
    namespace.run([f"iptables-{flavour}", "-I", "INPUT", "-p", "udp", "-j", "ACCEPT"])

    def state() -> tuple[list[str], list[str], list[str]]:
        sets = namespace.run(["ipset", "save"]).stdout.splitlines()
        return (
            rules(namespace, flavour, "iptables", "-t", "filter"),
            rules(namespace, flavour, "ip6tables", "-t", "filter"),
            [line for line in sets if line.startswith("add")],
        )

    before = state()
    assert before[2] == ["add policylang-a 192.0.2.0/24"]
    halfway = []
    put_back = xtables._put_back

    def watched(parts: Any, old_sets: Any, report: Report) -> None:
        halfway.append(state())
        put_back(parts, old_sets, report)

    monkeypatch.setattr(xtables, "_put_back", watched)
    new = xtables_artifact(
        filter_rules(with_set.format("b")) + "\n*raw\n:policylang-raw - [0:0]\nCOMMIT",
        DROP_8002 + REFUSED_LATE,
        SET_A.replace("192.0.2", "203.0.113") + SET_A.replace("policylang-a", "policylang-b"),
    )
    (diagnostic,) = refused_undrilled(new, namespace, flavour)
    assert diagnostic.code == "refused-by-kernel"
    for now, then in zip(halfway[0], before, strict=True):
        assert now != then
    assert state() == before
    assert own(rules(namespace, flavour, "iptables")) == own(before[0])
    assert own(rules(namespace, flavour, "ip6tables")) == own(before[1])
    assert set_names(namespace) == ["policylang-a"]


@BOTH
def test_what_cannot_be_put_back_is_said(
    flavour: Flavour, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed way back is an error of its own: families may differ now."""
    applied(xtables_artifact(DROP_8001), namespace, flavour)
    monkeypatch.setattr(xtables, "rules_file", lambda before: "*none\nCOMMIT\n")
    new = xtables_artifact(DROP_8002, DROP_8002 + REFUSED_LATE)
    found = refused_undrilled(new, namespace, flavour)
    assert {d.code for d in found} == {"not-restored", "refused-by-kernel"}


@BOTH
def test_a_refused_rule_names_the_statement(flavour: Flavour, namespace: Namespace) -> None:
    """What the parser or the kernel refuses is told at the statement, and nothing changes."""
    applied(xtables_artifact(DROP_8001), namespace, flavour)
    before = rules(namespace, flavour)
    helper = "-p tcp --dport 21 -j CT --helper nope @2"
    for text in (
        filter_rules("-j ACCEPT @1", "-p tcp --dport 99999 -j DROP @2"),  # the program
        "*raw\n:policylang-r - [0:0]\n-I OUTPUT 1 -j policylang-r\n"
        + "-A policylang-r -p tcp --dport 1 -j ACCEPT @1\n"
        + f"-A policylang-r {helper}\n"  # the kernel
        + "-A policylang-r -p tcp --dport 3 -j ACCEPT @3\nCOMMIT",
    ):
        for artifact in (xtables_artifact(text), xtables_artifact(DROP_8002, text)):
            (diagnostic,) = refused(artifact, namespace, flavour)
            assert diagnostic.code == "refused-by-kernel"
            assert diagnostic.span == origin(2).span, diagnostic
            assert rules(namespace, flavour) == before


def test_a_refused_set_names_the_statement(namespace: Namespace) -> None:
    """ipset names a line; it is the statement's that put the element there."""
    sets = SET_A.replace("192.0.2.0/24 @1", "nonsense @2")
    (diagnostic,) = refused(xtables_artifact(DROP_8001, sets=sets), namespace)
    assert diagnostic.code == "refused-by-kernel"
    assert diagnostic.span == origin(2).span
    assert set_names(namespace) == []


def test_a_set_of_another_type_is_refused_and_nothing_changes(namespace: Namespace) -> None:
    """A set that is in use cannot change its type; rules and sets stay what they were."""
    with_set = filter_rules("-m set --match-set policylang-a src -j DROP @1")
    applied(xtables_artifact(with_set, DROP_8001, SET_A), namespace)
    before = rules(namespace, Flavour.NFT), namespace.run(["ipset", "save"]).stdout
    other = SET_A.replace("hash:net", "hash:ip").replace("192.0.2.0/24", "192.0.2.1")
    refused(xtables_artifact(with_set, DROP_8001, other), namespace)
    assert (rules(namespace, Flavour.NFT), namespace.run(["ipset", "save"]).stdout) == before


def test_the_lock_of_iptables_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, namespace: Namespace
) -> None:
    """Legacy iptables waits for its lock, for a time, and then says who is in the way."""
    monkeypatch.setattr("policylang.apply.restore.LOCK_PATIENCE_S", 2)
    with Path(os.environ["XTABLES_LOCKFILE"]).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (diagnostic,) = refused(xtables_artifact(DROP_8001), namespace, Flavour.LEGACY)
        assert diagnostic.code == "lock-held"
        release = threading.Timer(0.5, lambda: fcntl.flock(lock, fcntl.LOCK_UN))
        release.start()
        started = time.monotonic()
        applied(xtables_artifact(DROP_8001), namespace, Flavour.LEGACY)
        assert time.monotonic() - started > 0.3
        release.join()


# --- from one target to another --------------------------------------------------------------


def test_the_last_apply_is_what_holds(namespace: Namespace) -> None:
    """Each way of loading removes what the other ways had loaded, and says so."""
    with_set = xtables_artifact(
        filter_rules("-m set --match-set policylang-a src -j DROP @1"), DROP_8001, SET_A
    )
    script = nft_artifact("tcp dport 8003 drop @1")
    assert applied(script, namespace).removed == ()
    removed = applied(with_set, namespace, Flavour.LEGACY).removed
    assert removed == ("the nft table `inet policylang`",)
    assert "inet policylang" not in nft_listing(namespace)
    removed = applied(with_set, namespace, Flavour.NFT).removed
    assert removed == ("the iptables-legacy chains",)
    assert own(rules(namespace, Flavour.LEGACY)) == []
    assert own(rules(namespace, Flavour.LEGACY, "ip6tables")) == []
    assert set_names(namespace) == ["policylang-a"]
    removed = applied(script, namespace).removed
    assert removed == ("the iptables-nft chains",)
    assert own(rules(namespace, Flavour.NFT)) == []
    assert set_names(namespace) == []
    assert applied(script, namespace).removed == ()


def test_the_policy_that_was_applied_last_decides() -> None:
    """What a packet meets follows the switch: first nft, then iptables, then nft again."""
    with ground("wan") as net:
        wire = net["wan"]
        firewall = net.firewall
        with firewall.listen(Family.IPV4, 8001), firewall.listen(Family.IPV4, 8002):

            def reached() -> tuple[Reach, Reach]:
                probes = (probe_tcp(wire.neighbour, wire.near.ipv4, p) for p in (8001, 8002))
                first, second = probes
                return first, second

            assert reached() == (Reach.OPEN, Reach.OPEN)
            applied(nft_artifact("tcp dport 8001 drop @1"), firewall)
            assert reached() == (Reach.TIMEOUT, Reach.OPEN)
            applied(xtables_artifact(DROP_8002), firewall, Flavour.LEGACY)
            assert reached() == (Reach.OPEN, Reach.TIMEOUT)
            applied(nft_artifact("tcp dport 8001 drop @1"), firewall)
            assert reached() == (Reach.TIMEOUT, Reach.OPEN)


def test_a_failed_apply_removes_nothing_of_another_target(namespace: Namespace) -> None:
    """Only what is in replaces what was there: a refused script leaves the chains alone."""
    applied(xtables_artifact(DROP_8001), namespace, Flavour.NFT)
    before = rules(namespace, Flavour.NFT)
    refused(nft_artifact("nonsense"), namespace)
    assert rules(namespace, Flavour.NFT) == before


# --- text -------------------------------------------------------------------


def test_a_set_in_use_for_a_moment_more_is_waited_for(namespace: Namespace) -> None:
    """Destroying gives up only after a while, and then says what is left behind."""
    namespace.run(["ipset", "create", "policylang-a", "hash:ip"])
    rule = ["-A", "INPUT", "-m", "set", "--match-set", "policylang-a", "src", "-j", "DROP"]
    namespace.run(["iptables-nft", *rule])
    report = Report()
    kernel.in_netns(namespace.name, lambda: ipsets.destroy_others((), report), report)
    assert [d.code for d in report.diagnostics] == ["left-behind"]
    assert not report.has_errors


def test_our_table_is_told_from_others(namespace: Namespace) -> None:
    """Only `inet policylang` is ours: not another family's, not a longer name."""
    load_nft("table ip policylang { }\ntable inet policylang-2 { }\n", namespace)
    assert kernel.in_netns(namespace.name, nft.is_loaded, Report()) is False
    load_nft("table inet policylang { }\n", namespace)
    assert kernel.in_netns(namespace.name, nft.is_loaded, Report()) is True


# --- the command -----------------------------------------------------------------------------


def test_the_command_says_what_it_did(
    namespace: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard output, with what was removed of another target."""
    policy = tmp_path / "web.policy"
    policy.write_text("allow ssh inbound from 192.0.2.0/24\n")
    command = ["apply", "--yes", str(policy), "--netns", namespace.name]
    assert main(command) == 0
    assert capsys.readouterr() == (
        f"{policy}: loaded by nft into namespace {namespace.name}\n",
        "",
    )
    assert main([*command, "--target", "iptables", "--flavour", "legacy"]) == 0
    assert capsys.readouterr() == (
        f"{policy}: loaded by iptables-legacy into namespace {namespace.name}; "
        "removed the nft table `inet policylang` of an earlier apply\n",
        "",
    )
    assert "192.0.2.0/24" in "".join(rules(namespace, Flavour.LEGACY))


def test_the_command_shows_what_was_refused(
    namespace: Namespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The statement, the target's own words, and that nothing has changed."""
    policy = tmp_path / "web.policy"
    policy.write_text(SOURCE.text)
    made = nft_artifact("tcp dport 22 jump nowhere @2")
    monkeypatch.setattr(pipeline, "artifact_of", lambda *arguments: made)
    assert main(["apply", "--yes", str(policy), "--netns", namespace.name]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error[refused-by-kernel]: the kernel refuses what this statement compiles to",
        "  --> web.policy:2:1",
        "   2 | allow ftp inbound",
        "     | ^^^^^^^^^^^^^^^^^",
        "   help: nft says of `tcp dport 22 jump nowhere`:",
        "         Could not process rule: No such file or directory",
        "",
        "1 error",
        f"{policy}: not loaded; what was in force is in force",
    ]


def test_a_policy_with_an_error_loads_nothing(
    namespace: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even the rules that are right are loaded."""
    policy = tmp_path / "web.policy"
    policy.write_text("allow ssh inbound\nallow nonsense inbound\n")
    assert main(["apply", "--yes", str(policy), "--netns", namespace.name]) == 1
    assert nft_listing(namespace) == ""
