"""A boot loads what was confirmed, by itself; where it cannot, it lets nothing in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policylang.apply import boot_place, boot_units
from policylang.apply.boot_units import install, uninstall
from policylang.apply.record import Record
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy

from .booted import Machine, systemd_obstacle
from .ground import PROBE_S, Family, Ground, Loader, Namespace, Reach, ground, probe_tcp

LOADERS = pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)

# A set for each target, IPv6 too, and a way to a proxy.
POLICY = """\
zone wan { interface wan0 }
set neighbours = 192.0.2.0/24, 2001:db8:2::/64, 198.51.100.1, 203.0.113.7-203.0.113.9
set banned = dynamic timeout 1h
deny all inbound from banned
tproxy http from wan to port 3129
allow tcp 8001 inbound from neighbours
"""
OTHER = POLICY.replace("8001", "8002")
FORWARDING = POLICY + "allow ftp from wan to 198.51.100.0/24\n"


def kept(record: Record, loader: Loader, policy: str = POLICY) -> int:
    """The number of a new generation."""
    report = Report()
    artifact = compile_policy(Text(policy, "web.policy", Path()), loader.target, report)
    assert artifact is not None, report.in_order()
    made = record.keep(
        artifact,
        way=loader.value,
        policy_name="web.policy",
        parameters={},
        made_by="root",
        report=report,
    )
    assert made is not None, report.in_order()
    return made.number


def confirm(machine: Machine, loader: Loader, policy: str = POLICY) -> Path:
    """Confirm a policy; the folder that a boot loads."""
    report = Report()
    number = kept(machine.record, loader, policy)
    assert machine.record.confirm_for_boot(number, report, root=machine.root), report.in_order()
    return (machine.record.folder / "boot").resolve()


@pytest.fixture(autouse=True)
def usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder is where it is on every machine, below a root of the test's."""
    monkeypatch.delenv("POLICYLANG_STATE", raising=False)


@pytest.fixture
def net(kernel: None) -> Iterator[Ground]:
    """A firewall that listens on 8001 and 8002, and a neighbour who does on 8001."""
    with ground("wan") as laid:
        here, there = laid.firewall, laid["wan"].neighbour
        listeners = [here.listen(f, p) for f in Family for p in (8001, 8002)]
        listeners += [there.listen(f, 8001) for f in Family]
        try:
            yield laid
        finally:
            for listener in listeners:
                listener.close()


@pytest.fixture
def machine(net: Ground, tmp_path: Path) -> Machine:
    return Machine.made(tmp_path / "root", net.firewall)


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    made = Namespace.create("boot")
    try:
        yield made
    finally:
        made.delete()


OPEN = (Reach.OPEN, Reach.OPEN)
AS_WRITTEN = (Reach.OPEN, Reach.TIMEOUT)
AS_OTHER = (Reach.TIMEOUT, Reach.OPEN)
CLOSED = (Reach.TIMEOUT, Reach.TIMEOUT)
SILENCE_S = 0.1  # an answer would have come at once


def holds(net: Ground, expected: tuple[Reach, Reach], *families: Family) -> None:
    """What a neighbour finds at 8001 and 8002."""
    wire = net["wan"]
    for family in families or Family:
        for port, reach in zip((8001, 8002), expected, strict=True):
            patience_s = SILENCE_S if reach is Reach.TIMEOUT else PROBE_S
            found = probe_tcp(wire.neighbour, wire.near.of(family), port, patience_s)
            assert found is reach, (family, port)


def is_closed(net: Ground) -> None:
    """Nothing new comes in or goes out; loopback works, and neighbours are found (IPv6)."""
    holds(net, CLOSED)
    wire = net["wan"]
    net.firewall.ip("neighbour flush dev wan0")
    for family, loopback in ((Family.IPV4, "127.0.0.1"), (Family.IPV6, "::1")):
        out = probe_tcp(net.firewall, wire.far.of(family), 8001, SILENCE_S)
        assert out in (Reach.TIMEOUT, Reach.UNREACHABLE)
        assert probe_tcp(net.firewall, loopback, 8001) is Reach.OPEN


# --- what is confirmed is loaded --------------------------------------------------------------


@LOADERS
def test_a_boot_loads_what_was_confirmed(loader: Loader, machine: Machine, net: Ground) -> None:
    """Rules, sets and the way to a proxy, without Python, with the unit's rights alone."""
    confirm(machine, loader)
    assert machine.run(["/usr/bin/python3", "-c", "1"]).status != 0
    holds(net, OPEN)
    ended = machine.carry_out("ExecStart")
    assert ended.status == 0, ended.journal
    assert ended.journal.endswith(
        f"policylang: loaded /var/lib/policylang/generations/000001 by {loader.value}\n"
    )
    holds(net, AS_WRITTEN)
    routes = ["route show table 28780 type local proto 112", "rule show"]
    for family in ("-4", "-6"):
        for route in routes:
            shown = net.firewall.run(["ip", family, *route.split()]).stdout
            assert len(
                [line for line in shown.splitlines() if "default" in line or "28780" in line]
            )
    # The same again: a reload doubles nothing.
    before = listing(net.firewall, loader)
    ended = machine.carry_out("ExecReload")
    assert ended.status == 0, ended.journal
    assert listing(net.firewall, loader) == before
    holds(net, AS_WRITTEN)


def listing(namespace: Namespace, loader: Loader) -> list[str]:
    """The rules, without what they counted and without remarks."""
    commands = [["nft", "--stateless", "list", "ruleset"]]
    if loader.flavour is not None:
        commands = [[f"{family}-{loader.flavour}-save"] for family in ("iptables", "ip6tables")]
        commands.append(["ipset", "list"])
    lines = [line for argv in commands for line in namespace.run(argv).stdout.splitlines()]
    # Chains count, and a set that is made anew has its elements in another order.
    listed = [line.partition(" [")[0] for line in lines if not line.startswith("#")]
    sets = listed.index("Name: policylang-banned-v4") if loader.flavour else len(listed)
    return listed[:sets] + sorted(
        line for line in listed[sets:] if not line.startswith(("Header", "Size"))
    )


@LOADERS
def test_a_reload_takes_what_is_confirmed_now(
    loader: Loader, machine: Machine, net: Ground
) -> None:
    """The link is swapped, and the next reload loads where it leads; damaged, nothing changes."""
    confirm(machine, loader)
    assert machine.carry_out("ExecStart").status == 0
    folder = confirm(machine, loader, OTHER)
    assert machine.carry_out("ExecReload").status == 0
    holds(net, AS_OTHER)
    confirm(machine, loader)
    script(loader, folder.parent / "000003").write_text("")
    ended = machine.carry_out("ExecReload")
    assert ended.status == 1
    assert "what is in force stays in force" in ended.journal
    holds(net, AS_OTHER)


def script(loader: Loader, folder: Path) -> Path:
    return folder / ("policylang.nft" if loader is Loader.NFT else "rules.v6")


# --- and where that cannot be done, the machine is closed -------------------------------------


def empty(path: Path) -> None:
    path.write_text("")


def cut_after_head(path: Path) -> None:
    """What is left of nft's is right by itself, and takes away all that is loaded."""
    text = path.read_text()
    end = text.index("delete table") if "delete table" in text else text.index("COMMIT") + 7
    path.write_text(text[: text.index("\n", end) + 1])


def flip(path: Path) -> None:
    """Still right by itself: another port is open."""
    text = path.read_text()
    assert "8001" in text
    path.write_text(text.replace("8001", "8003"))


def flip_way(path: Path) -> None:
    (path.parent / "way").write_text("nftables\n")


def forget_it(path: Path) -> None:
    """Neither the file nor its sum is there."""
    path.unlink()
    sums = path.parent / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if path.name not in line))


def forget_the_rest(path: Path) -> None:
    """The sums are cut off, with that of an emptied file; those that are left are right."""
    empty(path)
    sums = path.parent / "SHA256SUMS"
    lines = sums.read_text().splitlines(keepends=True)
    (index,) = (i for i, line in enumerate(lines) if line.endswith(f"  {path.name}\n"))
    sums.write_text("".join(lines[:index]))


def dangle(path: Path) -> None:
    shutil.rmtree(path.parent)


def lose_the_disk(path: Path) -> None:
    """The state folder is on a disk that did not come up."""
    shutil.rmtree(path.parents[2])


DAMAGES = (
    *(empty, cut_after_head, flip, flip_way, forget_it, forget_the_rest),
    *(dangle, lose_the_disk),
)


@pytest.mark.parametrize(
    ("loader", "damage"),
    [
        *((loader, damage) for loader in (Loader.NFT, Loader.IPTABLES_NFT) for damage in DAMAGES),
        (Loader.IPTABLES_LEGACY, empty),
    ],
    ids=lambda one: one.value if isinstance(one, Loader) else one.__name__,
)
def test_a_damaged_generation_closes_the_machine(
    loader: Loader, damage: Callable[[Path], None], machine: Machine, net: Ground
) -> None:
    damage(script(loader, confirm(machine, loader)))
    ended = machine.carry_out("ExecStart")
    assert ended.status == 1
    assert f"CLOSED by {loader.value}: nothing new comes in or goes out, SSH" in ended.journal
    # All is looked at once for each target; for the rest, what is loaded tells.
    if damage is empty:
        is_closed(net)
    else:
        holds(net, CLOSED, Family.IPV6)


@LOADERS
def test_what_a_kernel_refuses_closes_the_machine(
    loader: Loader, machine: Machine, net: Ground
) -> None:
    """The artefact is whole; the program that loads it fails: IPv6 alone, where there are two."""
    confirm(machine, loader)
    real = shutil.which("nft" if loader is Loader.NFT else f"ip6{loader.value[2:]}-restore")
    assert real is not None
    name = Path(real).name
    if loader is Loader.NFT:
        refusing = f'case $* in *policylang.nft) exit 1;; esac; exec {real} "$@"'
    else:
        # It takes the rules on trial and refuses them in earnest; closing rules it takes.
        refusing = 'cat >/run/rules; if grep -q 8001 /run/rules; then case "$*" in *--test*) ;; '
        refusing += f'*) exit 1;; esac; fi; exec {real} "$@" </run/rules'
    machine.take(name, script=refusing)
    ended = machine.carry_out("ExecStart")
    assert (ended.status, f"CLOSED by {loader.value}" in ended.journal) == (1, True)
    is_closed(net)


def test_another_target_closes_where_that_of_the_policy_cannot(
    machine: Machine, net: Ground
) -> None:
    """nft is gone: iptables closes; that is gone too: it is said that nothing does."""
    confirm(machine, Loader.NFT)
    machine.take("nft")
    ended = machine.carry_out("ExecStart")
    assert "CLOSED by iptables-nft" in ended.journal
    is_closed(net)
    machine.take("iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-restore")
    machine.take("ip6tables-legacy-restore")
    ended = machine.carry_out("ExecStart")
    assert ended.status == 1
    assert "NOTHING KEEPS PACKETS OUT" in ended.journal


def test_a_start_that_is_killed_is_made_good(machine: Machine, net: Ground) -> None:
    """systemd runs ExecStopPost after every end: after a failed one, nothing is left open."""
    confirm(machine, Loader.NFT)
    assert machine.carry_out("ExecStopPost", result="success").journal == ""
    holds(net, OPEN)
    ended = machine.carry_out("ExecStopPost", result="signal")
    assert "CLOSED by nft" in ended.journal
    is_closed(net)
    assert machine.carry_out("ExecStopPost", result="exit-code").journal == ""


def test_a_half_loaded_family_is_no_rule_in_force(machine: Machine, net: Ground) -> None:
    """Killed when IPv4 was in and IPv6 was not: what follows closes both."""
    folder = confirm(machine, Loader.IPTABLES_NFT)
    net.firewall.run(["ipset", "restore"], stdin=(folder / "sets.ipset").read_text())
    rules = (folder / "rules.v4").read_text()
    net.firewall.run(["iptables-nft-restore", "--noflush"], stdin=rules)
    holds(net, OPEN, Family.IPV6)
    ended = machine.carry_out("ExecStopPost", result="signal")
    assert "CLOSED by iptables-nft" in ended.journal
    is_closed(net)


def test_a_restart_with_a_damaged_generation_shuts_nobody_out(
    machine: Machine, net: Ground
) -> None:
    """What is in force decides about all that comes in, so it stays."""
    folder = confirm(machine, Loader.NFT)
    assert machine.carry_out("ExecStart").status == 0
    empty(folder / "policylang.nft")
    ended = machine.carry_out("ExecStart")
    assert ended.status == 1
    assert "what is in force stays in force" in ended.journal
    holds(net, AS_WRITTEN)


def test_a_policy_that_was_never_confirmed_closes_nothing(machine: Machine, net: Ground) -> None:
    """Who installs the service first is not shut out by the next boot."""
    kept(machine.record, Loader.NFT)
    ended = machine.carry_out("ExecStart")
    assert ended.status == 1
    assert "no policy was confirmed yet" in ended.journal
    holds(net, OPEN)


@pytest.mark.parametrize("loader", [Loader.IPTABLES_NFT], ids=lambda loader: loader.value)
def test_a_kernel_without_ipv6_needs_none_of_its_rules(
    loader: Loader, machine: Machine, net: Ground
) -> None:
    """No /proc entry of IPv6, and ip6tables refuses all: the rules for IPv4 are enough."""
    confirm(machine, loader)
    machine.take("ip6tables-nft-restore", "ip6tables-nft-save", script="exit 1")
    assert machine.carry_out("ExecStart").status == 1
    net.firewall.run(["nft", "flush", "ruleset"])
    ended = machine.carry_out("ExecStart", has_proc=False)
    assert ended.status == 0, ended.journal
    holds(net, AS_WRITTEN, Family.IPV4)


def test_rules_of_others_are_left_alone(machine: Machine, net: Ground) -> None:
    """Jumps that are ours are replaced; what others have in the same chains stays."""
    confirm(machine, Loader.IPTABLES_LEGACY)
    firewall = net.firewall
    firewall.run(["iptables-legacy", "-N", "mine"])
    note = "a -j policylang-input b"
    firewall.run(
        ["iptables-legacy", "-A", "INPUT", "-m", "comment", "--comment", note, "-j", "mine"]
    )
    for _ in range(2):
        assert machine.carry_out("ExecStart").status == 0
    rules = firewall.run(["iptables-legacy-save", "-t", "filter"]).stdout.splitlines()
    assert [rule for rule in rules if rule.startswith("-A INPUT")] == [
        "-A INPUT -j policylang-input",
        f'-A INPUT -m comment --comment "{note}" -j mine',
    ]


# --- by systemd -------------------------------------------------------------------------------


@pytest.fixture
def started(machine: Machine) -> Machine:
    """A machine that systemd can start, or why there is none."""
    reason = systemd_obstacle()
    if reason is not None:
        pytest.skip(reason)
    return machine


CLOSING = "closed.policy:1 default deny inbound"


@LOADERS
def test_systemd_loads_the_rules_before_the_network(loader: Loader, started: Machine) -> None:
    """A real systemd, with all that the unit takes away: what comes after finds the rules."""
    confirm(started, loader)
    booted = started.boot()
    assert "Result=success" in booted.rules
    assert "policylang-input" in booted.rules or "table inet policylang" in booted.rules
    assert CLOSING not in booted.rules
    assert f"by {loader.value}\n" in booted.journal
    # The rights are those of the unit: no others, no new ones, and system calls are filtered.
    rights = dict(re.findall(r"^(\w+):\t(.*)$", booted.journal, re.MULTILINE))
    net_admin, net_raw, sys_module = 12, 13, 16  # linux/capability.h
    assert int(rights["CapBnd"], 16) == 1 << net_admin | 1 << net_raw | 1 << sys_module
    assert (rights["NoNewPrivs"], rights["Seccomp"]) == ("1", "2")


KILLED = "ExecStart=\nExecStart=/bin/sh -c 'kill -9 $$$$'\n"


@pytest.mark.parametrize(
    ("loader", "drop_in", "result"),
    [
        (Loader.NFT, "", "exit-code"),
        (Loader.IPTABLES_LEGACY, "", "exit-code"),
        (Loader.NFT, KILLED, "signal"),
        (Loader.NFT, "ExecStartPre=/bin/false\n", "exit-code"),
    ],
    ids=["damaged-nft", "damaged-iptables", "killed", "failed-before"],
)
def test_systemd_closes_the_machine_before_the_network(
    loader: Loader, drop_in: str, result: str, started: Machine
) -> None:
    """Whether the generation is damaged or the loader killed: what comes after finds it closed."""
    folder = confirm(started, loader)
    if not drop_in:
        empty(script(loader, folder))
    booted = started.boot(drop_in)
    assert f"Result={result}" in booted.rules
    assert CLOSING in booted.rules
    assert f"CLOSED by {loader.value}" in booted.journal


# --- installing -------------------------------------------------------------------------------


# It wants a place to write; manuals are not everywhere.
ANALYZE = (
    *("/bin/sh", "-c", '/usr/bin/mount -t tmpfs none /tmp && exec "$@"', "sh"),
    *("/usr/bin/systemd-analyze", "--man=no", "verify"),
)


def test_systemd_takes_the_units(namespace: Namespace, tmp_path: Path) -> None:
    """systemd-analyze finds nothing to say about them, in the root that they are made for."""
    machine = Machine.made(tmp_path / "root", namespace, is_installed=False)
    state = "/srv/my state/100%"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLICYLANG_STATE", state)
        report = Report()
        assert install(machine.root, report, refresh_s=90, program=["/usr/bin/true", "a $b"])
    assert [d.code for d in report.diagnostics] == ["nothing-confirmed"]
    refresh = machine.unit("policylang-refresh.service")
    assert 'ExecStart=/usr/bin/true "a $$b" refresh --all\n' in refresh
    assert 'Environment="POLICYLANG_STATE=/srv/my state/100%%"\n' in refresh
    units = sorted((machine.root / "etc/systemd/system").glob("policylang*"))
    assert len(units) == 3
    names = [f"/etc/systemd/system/{path.name}" for path in units]
    ended = machine.run([*ANALYZE, *names])
    assert (ended.status, ended.journal) == (0, "")
    # It does say something where there is something to say.
    units[0].write_text(units[0].read_text().replace("/usr/bin/true", "/usr/bin/truth"))
    assert "truth" in machine.run([*ANALYZE, *names]).journal


def test_the_units_hold_what_a_boot_relies_on(namespace: Namespace, tmp_path: Path) -> None:
    """The rules come before the network and without the usual dependencies, and stay."""
    machine = Machine.made(tmp_path / "root", namespace)
    unit = machine.unit().splitlines()
    for line in (
        "DefaultDependencies=no",
        "Before=network-pre.target shutdown.target",
        "Wants=network-pre.target",
        "Type=oneshot",
        "RemainAfterExit=yes",
        "WantedBy=sysinit.target",
    ):
        assert line in unit
    assert not any(line.startswith("ExecStop=") for line in unit)
    assert "OnUnitInactiveSec=300s" in machine.unit("policylang-refresh.timer")


def below(root: Path) -> list[str]:
    names = ("systemd", "policylang", "sysctl.d", "modules-load.d")
    found = (path for name in names for path in (root / "etc" / name).rglob("*"))
    return sorted(str(p.relative_to(root)) for p in found if p.is_symlink() or p.is_file())


def said(words: tuple[str, ...] | None) -> tuple[str, ...]:
    assert words is not None
    return words


ALL = [
    "etc/policylang/boot/closed.nft",
    "etc/policylang/boot/closed.v4",
    "etc/policylang/boot/closed.v6",
    "etc/policylang/boot/load",
    "etc/systemd/system/policylang-refresh.service",
    "etc/systemd/system/policylang-refresh.timer",
    "etc/systemd/system/policylang.service",
    "etc/systemd/system/sysinit.target.wants/policylang.service",
    "etc/systemd/system/timers.target.wants/policylang-refresh.timer",
]
WITH_POLICY = [
    *ALL,
    "etc/modules-load.d/policylang.conf",
    "etc/policylang/boot/confirmed",
    "etc/sysctl.d/90-policylang.conf",
]


def test_install_and_uninstall(tmp_path: Path) -> None:
    """What is written is told, is the same the second time, and goes again; the record stays."""
    report = Report()
    first = said(install(tmp_path, report))
    assert below(tmp_path) == ALL
    assert {line.removeprefix(f"wrote {tmp_path}/") for line in first} == {
        path for path in ALL if ".wants/" not in path
    }
    assert install(tmp_path, report) == ()
    number = kept(record := Record(tmp_path / "var/lib/policylang"), Loader.NFT, FORWARDING)
    assert record.confirm_for_boot(number, report, root=tmp_path)
    assert below(tmp_path) == sorted(WITH_POLICY)
    assert said(install(tmp_path, report, refresh_s=None))[-1] == "a boot loads generation 1"
    assert below(tmp_path) == sorted(path for path in WITH_POLICY if "refresh" not in path)
    gone = said(uninstall(tmp_path, report))
    assert below(tmp_path) == []
    assert gone[0] == f"removed {tmp_path}/etc/systemd/system/policylang.service"
    assert not (tmp_path / "etc/policylang").exists()
    assert uninstall(tmp_path, report) == ()
    assert record.artifact(number, report) is not None
    assert [d.code for d in report.diagnostics] == ["nothing-confirmed"]


def test_what_goes_with_the_rules_follows_each_confirmation(tmp_path: Path) -> None:
    """Drop-ins are those of what is confirmed, and none of a record that no service loads."""
    report = Report()
    record = Record(tmp_path / "var/lib/policylang")
    assert record.confirm_for_boot(kept(record, Loader.NFT, FORWARDING), report, root=tmp_path)
    assert below(tmp_path) == []
    install(tmp_path, report)
    sysctl = tmp_path / "etc/sysctl.d/90-policylang.conf"
    assert "net.ipv4.ip_forward = 1" in sysctl.read_text()
    mark = tmp_path / "etc/policylang/boot/confirmed"
    assert mark.read_text().splitlines()[0] == "nft"
    plain = kept(record, Loader.IPTABLES_LEGACY, "allow ssh inbound\n")
    assert record.confirm_for_boot(plain, report, root=tmp_path)
    assert not sysctl.exists()
    assert mark.read_text().splitlines()[0] == "iptables-legacy"
    other = Record(tmp_path / "var/lib/policylang/netns/router1")
    assert other.confirm_for_boot(kept(other, Loader.NFT, FORWARDING), report, root=tmp_path)
    assert not sysctl.exists()
    assert not report.diagnostics


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "etc/systemd/system/policylang.service"
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\n")
    report = Report()
    assert install(tmp_path, report) is None
    assert [d.code for d in report.diagnostics] == ["cannot-write"]
    assert below(tmp_path) == ["etc/systemd/system/policylang.service"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("")
    report = Report()
    assert install(tmp_path, report) is None
    assert [d.code for d in report.diagnostics] == ["cannot-write"]


def test_a_damaged_generation_is_not_confirmed(tmp_path: Path) -> None:
    """What a boot would refuse is not what a boot is to load; what it loads stays."""
    record = Record(tmp_path / "state")
    report = Report()
    first, second = kept(record, Loader.NFT), kept(record, Loader.NFT, OTHER)
    assert record.confirm_for_boot(first, report, root=tmp_path)
    empty(record.folder / "generations/000002/policylang.nft")
    assert not record.confirm_for_boot(second, report, root=tmp_path)
    assert [d.code for d in report.diagnostics] == ["damaged-generation"]
    assert (record.folder / "boot").readlink() == Path("generations/000001")


def test_systemd_is_told_where_it_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It reads the units anew and starts the timer, for this machine's root alone."""
    from policylang.apply import programs
    from policylang.apply.programs import Finished

    ran: list[tuple[str, ...]] = []

    def run(argv: tuple[str, ...], report: Report) -> Finished:
        ran.append(tuple(argv))
        return Finished("systemctl", int("start" in argv), "", "no bus\n")

    monkeypatch.setattr(programs, "run", run)
    monkeypatch.setattr(boot_units, "RUNNING", tmp_path)
    install(tmp_path, Report())
    assert ran == []
    monkeypatch.setattr(boot_place, "ROOT", tmp_path)
    words = said(install(tmp_path, Report()))
    assert ran == [
        ("systemctl", "daemon-reload"),
        ("systemctl", "start", "policylang-refresh.timer"),
    ]
    assert words[-1] == "`systemctl start policylang-refresh.timer` failed: no bus"
