"""Ports that container engines publish: who governs them, and who is told that he does not.

Packets to such a port are translated before INPUT and go through FORWARD. The engines' rules stand
beside ours in every form that they have, and stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from policylang.apply import published
from policylang.apply.restore import Flavour
from policylang.cli import main
from policylang.diagnostics import Report
from policylang.pipeline import Text, compile_policy
from tests.kernel import ftp
from tests.kernel.containers import (
    BRIDGE,
    CONTAINER,
    ENGINES,
    PUBLISHED,
    Engine,
    container,
)
from tests.kernel.ftp import Client, Daemon, Mode, serving
from tests.kernel.ground import (
    Addresses,
    Family,
    Ground,
    Loader,
    Namespace,
    Reach,
    ground,
    probe_tcp,
)

pytestmark = pytest.mark.usefixtures("kernel")

ZONES = "zone wan { interface wan0 }\nzone lan { interface lan0 }\n"
LOADERS = pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
# One loader for each engine, where another test asks each engine with each loader: each loader
# meets both tools, and what these publish in one way meets two loaders.
TURNS = (*Loader, *tuple(Loader)[1:], *tuple(Loader)[:1])
IN_TURN = pytest.mark.parametrize(
    ("running", "loader"),
    [*zip(ENGINES, TURNS, strict=True)],
    ids=lambda one: one.name if isinstance(one, Engine) else one.value,
    indirect=["running"],
)


# Each form in which engines write rules with each loader, by either tool in turn.
FORMS = len(ENGINES) // 2  # of each tool, in the same order
EACH_FORM = pytest.mark.parametrize(
    ("running", "loader"),
    [
        (ENGINES[form + FORMS * (turn % 2)], loader)
        for form in range(FORMS)
        for turn, loader in enumerate(Loader, form)
    ],
    ids=lambda one: one.name if isinstance(one, Engine) else one.value,
    indirect=["running"],
)


@pytest.fixture(autouse=True)
def private_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@dataclass(frozen=True, slots=True)
class Host:
    """A firewall that runs a container, between `lan` and `wan`."""

    net: Ground
    inside: Namespace | None
    engine: Engine
    directory: Path

    @property
    def firewall(self) -> Namespace:
        return self.net.firewall

    def apply(self, policy: str, loader: Loader = Loader.NFT) -> int:
        """Apply a policy below the two zones; the exit status."""
        written = self.directory / "host.policy"
        written.write_text(f"{ZONES}{policy}\n")
        return main(
            ["apply", "--yes", str(written), "--netns", self.firewall.name, *loader.options]
        )

    def reached(self, *clients: tuple[str, Addresses | None, Iterable[int]]) -> list[list[bool]]:
        """For each client, which of these ports of the host it reaches; by both families alike.

        A client is the zone that it is in, the addresses that it dials, which for None are the
        host's in that zone, and the ports.
        """
        dialled = [
            (place, self.net[zone].neighbour, (at or self.net[zone].near).of(family), port)
            for place, (zone, at, ports) in enumerate(clients)
            for family in Family
            for port in ports
        ]
        with ThreadPoolExecutor(len(dialled)) as pool:  # what is dropped takes its time
            opened = list(pool.map(lambda one: probe_tcp(*one[1:]) is Reach.OPEN, dialled))
        found = []
        for place, (_, _, ports) in enumerate(clients):
            own = [is_open for one, is_open in zip(dialled, opened, strict=True) if one[0] == place]
            count = len([*ports])
            assert own[:count] == own[count:]
            found.append(own[:count])
        return found


@pytest.fixture(scope="module", params=ENGINES, ids=lambda engine: engine.name)
def running(
    kernel: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    with ground("lan", "wan") as net, container(net, request.param) as inside:
        yield Host(net, inside, request.param, tmp_path_factory.mktemp("host"))


def translations(host: Host) -> list[str]:
    """What of ours translates, whichever way it was loaded."""
    rules = host.firewall.run(["nft", "list", "ruleset"]).stdout.splitlines()
    for program in ("iptables-nft", "iptables-legacy"):
        rules += host.firewall.run([f"{program}-save", "-t", "nat"]).stdout.splitlines()
    return [rule for rule in rules if "host.policy:" in rule and "masquerade" in rule.lower()]


def foreign(host: Host) -> list[str]:
    """Every rule and chain that is not ours, of both kinds of iptables, and the engine's tables.

    Not the built-in chains: a table that is there for us has them, too.
    """
    found: list[str] = []
    for program in ("iptables", "ip6tables"):
        for flavour in Flavour:
            listing = host.firewall.run([f"{program}-{flavour}-save"]).stdout
            lines = [line.partition(" [")[0] for line in listing.splitlines()]
            found += [
                line for line in lines if line.startswith("-A") or line.endswith((" -", " DROP"))
            ]
    for table in published.TABLES:
        argv = ["nft", "-s", "list", "table", *table.split()]
        found.append(host.firewall.run(argv, check=False).stdout)
    return [line for line in found if "policylang" not in line]


# --- the ground ------------------------------------------------------------------------------


def test_without_a_policy_they_are_open(running: Host) -> None:
    """The control: what is published is reached, and what is not published is not."""
    host = running
    host.firewall.run(["nft", "delete", "table", "inet", "policylang"], check=False)
    clients = [(zone, None, (*PUBLISHED, 22)) for zone in ("lan", "wan")]
    assert host.reached(*clients) == [[True, True, True, False]] * 2


# --- what governs them -----------------------------------------------------------------------


def test_a_rule_to_self_does_not_meet_them(running: Host) -> None:
    """`deny` leaves them open where the default forwards, `allow` closed where it does not."""
    host = running
    host.apply("deny all inbound from wan\ndefault allow forward")
    assert host.reached(("wan", None, PUBLISHED)) == [[True, True, True]]
    host.apply("allow tcp 80, 8443 inbound from wan")
    assert host.reached(("wan", None, PUBLISHED)) == [[False, False, False]]


@LOADERS
def test_allow_opens_what_is_dialled_and_nothing_else(loader: Loader, running: Host) -> None:
    """`http` is the port that the client dials: not what comes out at port 80 of the container.

    Nor from another zone, nor by the container's own address.
    """
    host = running
    assert host.apply("allow http from wan to published", loader) == 0
    assert list(PUBLISHED.items()) == [(80, 8000), (8443, 443), (8081, 80)]
    clients = (("wan", None, PUBLISHED), ("lan", None, (80,)), ("wan", CONTAINER, (8000, 80)))
    assert host.reached(*clients) == [[True, False, False], [False], [False, False]]


@IN_TURN
def test_deny_closes_them_where_the_default_forwards(loader: Loader, running: Host) -> None:
    """From that zone alone."""
    host = running
    policy = "deny all from wan to published\ndefault allow forward"
    assert host.apply(policy, loader) == 0
    clients = (("wan", None, PUBLISHED), ("lan", None, PUBLISHED))
    assert host.reached(*clients) == [[False, False, False], [True, True, True]]


@IN_TURN
def test_ports_and_addresses_are_those_that_were_dialled(loader: Loader, running: Host) -> None:
    """`published PORTS at ADDRESSES` speaks of what the client wrote, whatever it becomes."""
    host = running
    wan = host.net["wan"].near
    policy = f"allow all from wan to published 8443 at {wan.ipv4}, {wan.ipv6}"
    assert host.apply(policy, loader) == 0
    clients = (("wan", None, PUBLISHED), ("wan", host.net["lan"].near, (8443,)))
    assert host.reached(*clients) == [[False, True, False], [False]]


def test_the_container_goes_out_by_a_rule(running: Host) -> None:
    """What the container opens is forwarded like anything else, under the host's address."""
    host, client = running, running.inside
    assert client is not None
    assert host.apply(f"zone boxes {{ interface {BRIDGE} }}\nallow tcp 8001 from boxes to wan") == 0
    wan = host.net["wan"]
    for family in Family:
        with wan.neighbour.listen(family, 8001), wan.neighbour.listen(family, 8002):
            assert probe_tcp(client, wan.far.of(family), 8001) is Reach.OPEN
            assert probe_tcp(client, wan.far.of(family), 8002) is not Reach.OPEN


@LOADERS
def test_ftp_of_what_is_published_works_in_each_mode(
    ftp_programs: None, zoned: Ground, tmp_path: Path, loader: Loader
) -> None:
    """Passive and active, and nothing else that the machine opens."""
    port, wan, lan = 2121, zoned["wan"], zoned["lan"]
    host = Host(zoned, None, ENGINES[0], tmp_path)
    nat = "type nat hook prerouting priority -100"
    forwards = "; ".join(
        f"iifname wan0 tcp dport {port} dnat {ip} to {address}"
        for ip, address in (
            ("ip", f"{lan.far.ipv4}:21"),
            ("ip6", f"[{lan.far.ipv6}]:21"),
        )
    )
    zoned.firewall.run(["nft", f"table inet mine {{ chain c {{ {nat}; {forwards}; }}; }}"])
    service = f"service ftp-here {{ tcp {port} helper ftp }}\n"
    with serving(lan.neighbour, Daemon.VSFTPD) as server, wan.neighbour.listen(Family.IPV4, 5001):
        assert host.apply(f"{service}allow ftp-here from wan to published", loader) == 0
        for mode in Mode:
            family = Family.IPV4 if mode in (Mode.PASV, Mode.PORT) else Family.IPV6
            given = (wan.neighbour, wan.near.of(family), server, mode, Client.CURL)
            assert ftp.passes(*given, dialled_port=port).is_ok
        assert probe_tcp(lan.neighbour, wan.far.ipv4, 5001) is not Reach.OPEN
        # The control: without the helper there is no active mode, whoever else is given it.
        assert host.apply(f"allow tcp {port} from wan to published", loader) == 0
        given = (wan.neighbour, wan.near.ipv4, server, Mode.PORT, Client.CURL)
        assert not ftp.session(*given, timeout_s=ftp.MUST_FAIL_S, dialled_port=port).is_ok


# --- what is told ----------------------------------------------------------------------------


def warning(host: Host, policy: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What apply writes to standard error; it has to succeed."""
    capsys.readouterr()
    assert host.apply(policy) == 0
    return capsys.readouterr().err


def test_who_speaks_of_self_alone_is_warned(
    running: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ports are named, at the rule that would have closed them, and the way to say it."""
    policy = "allow ssh inbound\nreject http inbound from wan"
    said = warning(running, policy, capsys)
    assert said.startswith("warning[published-ports]: nothing in the policy opens the ports that ")
    said = warning(running, f"{policy}\ndefault allow forward", capsys)
    tool = "Docker" if running.engine.name.startswith("docker") else "Podman"
    first, place, line, *_ = said.splitlines()
    assert first.startswith("warning[published-ports]: this does not hold for ")
    assert f"the ports that {tool} publishes: " in first
    for port in ("`0.0.0.0:80 -> 172.17.0.2:8000/tcp`", "`0.0.0.0:8443 -> 172.17.0.2:443/tcp`"):
        assert port in first
    assert "`[::]:80 -> [fd00:17::2]:8000/tcp`" in first
    assert "1153" not in first
    assert place.endswith("host.policy:4:1")
    assert line == "   4 | reject http inbound from wan"
    assert "`deny … to published`" in said
    assert said.endswith("1 warning\n")


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        ("allow ssh inbound\ndeny http from lan to self", "deny http from lan to self"),
        ("allow ssh inbound\ndefault deny inbound", "default deny inbound"),
        ("allow ssh inbound\nallow http inbound", "allow ssh inbound"),
        ("deny all from 192.0.2.9 to any\nallow ssh inbound", "allow ssh inbound"),
        ("allow http from wan to published\ndeny ssh inbound", None),
        ("deny ssh inbound\ndeny all from wan to published", None),
        ("allow ssh outbound\nallow http from lan to wan", None),
    ],
)
def test_the_warning_stands_at_what_is_most_likely_meant(
    policy: str, shown: str | None, tmp_path: Path
) -> None:
    """A rule that denies, else a default that does, else what allows; none where they are meant."""
    source = Text(f"{ZONES}{policy}\n", "host.policy", tmp_path)
    artifact = compile_policy(source, "nft", Report())
    assert artifact is not None
    origin = artifact.needs.inbound
    assert (origin and origin.span and origin.span.text) == shown


@pytest.mark.parametrize(
    ("policy", "is_open"),
    [
        ("allow ssh inbound", False),
        ("default allow forward", True),
        ("default deny forward", False),
        ("allow http from lan to any", True),
        ("allow http from lan to any except wan", True),
        # Containers are behind an interface that no zone names, unless somebody means them.
        ("allow http from lan to wan", False),
        (f"zone boxes {{ interface {BRIDGE} }}\nallow http from lan to boxes", False),
        ("dnat http from wan to 198.51.100.2", False),
        ("deny http from lan to any", False),
    ],
)
def test_whether_published_ports_are_reached_is_known(
    policy: str, is_open: bool, tmp_path: Path
) -> None:
    """Where nothing is forwarded to machines of nobody, they are closed, and it is said so."""
    source = Text(f"{ZONES}{policy}\n", "host.policy", tmp_path)
    artifact = compile_policy(source, "nft", Report())
    assert artifact is not None
    assert artifact.needs.forwards_any is is_open


def test_who_speaks_of_published_is_not_warned(
    running: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule about them, of either kind, is taken to be what is meant."""
    policy = "allow ssh inbound\ndeny http inbound\n{} from wan to published"
    for rule in ("allow https", "deny all"):
        assert warning(running, policy.format(rule), capsys) == ""


def test_without_containers_nothing_is_told(
    routed: Ground, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A translation that is no engine's, by nft or iptables, is none of ours to speak of."""
    host = Host(routed, None, ENGINES[0], tmp_path)
    assert warning(host, "deny http inbound", capsys) == ""
    forward = "tcp dport 80 dnat ip to 198.51.100.2"
    chain = f"chain c {{ type nat hook prerouting priority -100; {forward}; }};"
    routed.firewall.run(["nft", f"table inet mine {{ {chain} }}"])
    argv = ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "81", "-j", "DNAT"]
    for program in ("iptables-nft", "iptables-legacy"):
        routed.firewall.run([program, *argv, "--to-destination", "198.51.100.2"])
    assert warning(host, "deny http inbound", capsys) == ""


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("-A DOCKER -d 192.0.2.1/32 ! -i b -p tcp -m tcp --dport 80 -j DNAT", "192.0.2.1:80"),
        ("-A DOCKER -p udp -m udp --dport 7000:7010 -j DNAT", "0.0.0.0:7000-7010"),
        ("-A DOCKER -d 127.0.0.1/32 -p tcp -m tcp --dport 80 -j DNAT", None),
        ("-A DOCKER ! -d 192.0.2.1/32 -p tcp -m tcp --dport 80 -j DNAT", "0.0.0.0:80"),
        ("-A CNI-DN-5f2a -p tcp -m tcp --dport 80 -j DNAT", "0.0.0.0:80"),
        ("-A mine -p tcp -m tcp --dport 80 -j DNAT", None),
        ('-A DOCKER -m comment --comment "it" -p tcp -m tcp --dport 80 -j RETURN', None),
        ('-A DOCKER -m comment --comment "it -p tcp -m tcp --dport 80 -j DNAT', None),
    ],
)
def test_what_of_iptables_is_published(line: str, shown: str | None) -> None:
    """An address of its own counts, loopback is nobody else's to dial, and other tables do not."""
    rule = f"{line} --to-destination 172.17.0.2:8000"
    found = list(published.of_iptables(f"*nat\n{rule}\nCOMMIT\n", 4))
    assert [port.text.partition(" ->")[0] for port in found] == ([shown] if shown else [])
    assert not list(published.of_iptables(f"*filter\n{rule}\nCOMMIT\n", 4))


# --- what is not ours ------------------------------------------------------------------------


@EACH_FORM
def test_the_engines_rules_stay_as_they_are(loader: Loader, running: Host) -> None:
    """Applying, applying again and applying something smaller leaves every rule of theirs alone.

    With a policy that translates, so that there is something of ours in the same tables.
    """
    host = running
    host.apply("allow ssh inbound", Loader.NFT)
    before = foreign(host)
    assert any("8443" in line for line in before)
    translating = (
        "masquerade from lan to wan\n"
        "dnat http from wan to 198.51.100.2\n"
        "allow http from lan to published"
    )
    for policy in (translating, translating, "allow ssh inbound"):
        assert host.apply(policy, loader) == 0
        assert foreign(host) == before
        assert bool(translations(host)) == (policy == translating)
