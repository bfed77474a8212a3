"""One policy for three hosts: each loads its own part, and packets go where the policy says.

A web server, a database and the gateway between them and the world, each a namespace with rules of
its own. What `policylang query` says of the whole way is what becomes of real connections.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kernel.ground import (
    CommandError,
    Family,
    Ground,
    Loader,
    Namespace,
    Reach,
    ground,
    policylang,
    probe_tcp,
)

pytestmark = pytest.mark.usefixtures("kernel")

SITE = """\
host web1 { address 198.51.100.2, 2001:db8:51::2 }
host db1 { address 203.0.113.2, 2001:db8:113::2 }
host gw {
  address 198.51.100.1, 203.0.113.1
  gateway
  zone wan { interface wan0 }
  zone web { interface lan0  network 198.51.100.0/24, 2001:db8:51::/64 }
  zone inside { interface dmz0  network 203.0.113.0/24, 2001:db8:113::/64 }
}
default deny outbound
"""
RULES = """\
allow tcp 5432 from web1 to db1
on web1 { allow http inbound }
on gw { allow http from wan to web1 }
"""
HOSTS = ("web1", "gw", "db1")


@pytest.fixture(scope="module")
def net(kernel: None) -> Iterator[Ground]:
    with ground("wan", "lan", "dmz") as made:
        yield made


def namespaces(net: Ground) -> dict[str, Namespace]:
    return {"web1": net["lan"].neighbour, "db1": net["dmz"].neighbour, "gw": net.firewall}


def load(text: str, net: Ground, loader: Loader, directory: Path) -> Path:
    """Apply a policy to all three hosts; the file that it is in."""
    written = directory / "site.policy"
    written.write_text(text)
    for host, namespace in namespaces(net).items():
        place = ("--host", host, "--netns", namespace.name)
        command = ("apply", "--yes", str(written), *place, *loader.options)
        policylang(*command, directory=directory, lock=namespace.name)
    return written


def answers(site: Path, *questions: str) -> list[tuple[str, list[str]]]:
    """What the query says of each question, and the hosts that stop all of it."""
    try:
        command = ("query", "--format", "json", str(site), *questions)
        told = policylang(*command, directory=site.parent)
    except CommandError as no:  # which ends with another status
        told = str(no).partition("\n")[2]
    return [
        (found["answer"], [one["host"] for one in found["hosts"] if one["answer"] == "no"])
        for found in json.JSONDecoder().raw_decode(told)[0]["answers"]
    ]


@contextmanager
def listening(namespace: Namespace, port: int) -> Iterator[None]:
    with ExitStack() as stack:
        for family in Family:
            stack.enter_context(namespace.listen(family, port))
        yield


def reached(client: Namespace, server: Namespace, net: Ground, zone: str, port: int) -> set[Reach]:
    """What becomes of connections to a neighbour, over both families."""
    addresses = [net[zone].far.of(family) for family in Family]
    with listening(server, port), ThreadPoolExecutor(len(addresses)) as pool:
        return set(pool.map(lambda address: probe_tcp(client, address, port), addresses))


WAYS: dict[str, tuple[str, str, int, str, Reach]] = {
    "tcp 5432 from web1 to db1": ("lan", "dmz", 5432, "yes", Reach.OPEN),
    "tcp 5433 from web1 to db1": ("lan", "dmz", 5433, "no", Reach.TIMEOUT),
    "tcp 5432 from db1 to web1": ("dmz", "lan", 5432, "no", Reach.TIMEOUT),
    "http from 192.0.2.2, 2001:db8:2::2 to web1": ("wan", "lan", 80, "yes", Reach.OPEN),
    "http from db1 to web1": ("dmz", "lan", 80, "no", Reach.TIMEOUT),
    "tcp 5432 from 192.0.2.2, 2001:db8:2::2 to db1": ("wan", "dmz", 5432, "no", Reach.TIMEOUT),
}


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
def test_packets_pass_from_host_to_host_as_the_policy_says(
    loader: Loader, net: Ground, tmp_path: Path
) -> None:
    site = load(SITE + RULES, net, loader, tmp_path)
    for (question, way), (answer, _) in zip(WAYS.items(), answers(site, *WAYS), strict=True):
        start, goal, port, expected, reach = way
        client, server = net[start].neighbour, net[goal].neighbour
        assert answer == expected, question
        found = reached(client, server, net, goal, port)
        assert (found == {Reach.OPEN}) == (reach is Reach.OPEN), (question, found)


def test_the_rules_of_all_hosts_are_proved(tmp_path: Path) -> None:
    written = tmp_path / "site.policy"
    written.write_text(SITE + RULES)
    told = policylang("verify", "--target", "nft", str(written), directory=tmp_path)
    said = [line.rpartition("site.policy on ")[2] for line in told.splitlines()]
    proved = "nft does with every packet what the policy says"
    assert said == [f"{host}: {proved}" for host in ("web1", "db1", "gw")]
    told = policylang("verify", "--format", "json", str(written), directory=tmp_path)
    found = json.loads(told)
    assert found["agrees"] and not found["diagnostics"]
    for host in HOSTS:
        assert all(way["proved"] for way in found["hosts"][host]["ways"]), host


@pytest.mark.parametrize("loader", Loader, ids=lambda loader: loader.value)
@pytest.mark.parametrize("left_out", HOSTS)
def test_each_host_on_the_way_has_a_say(
    left_out: str, loader: Loader, net: Ground, tmp_path: Path
) -> None:
    """Where one of three has not the rule, nothing passes, and the query names that host."""
    others = ", ".join(host for host in HOSTS if host != left_out)
    rule = f"on {others} {{ allow tcp 5432 from web1 to db1 }}\n"
    site = load(SITE + rule, net, loader, tmp_path)
    assert answers(site, "tcp 5432 from web1 to db1") == [("no", [left_out])]
    client, server = net["lan"].neighbour, net["dmz"].neighbour
    assert Reach.OPEN not in reached(client, server, net, "dmz", 5432)


def test_what_a_gateway_sends_on_is_followed_to_the_host_that_receives_it(
    net: Ground, tmp_path: Path
) -> None:
    """Published at the gateway, and let in by the database from the world alone, or not at all."""
    publishing = "on gw { dnat tcp 5432 from wan at 192.0.2.1 to 203.0.113.2 }\n"
    question = "tcp 5432 from 192.0.2.2 to 192.0.2.1"
    site = SITE.replace("address 198.51.100.1,", "address 192.0.2.1, 198.51.100.1,")
    for rule, expected in (
        ("on db1 { allow tcp 5432 inbound from 192.0.2.0/24 }\n", ("yes", [])),
        ("", ("no", ["db1"])),
    ):
        written = load(site + publishing + rule, net, Loader.NFT, tmp_path)
        assert answers(written, question) == [expected]
        with net["dmz"].neighbour.listen(Family.IPV4, 5432):
            found = probe_tcp(net["wan"].neighbour, "192.0.2.1", 5432)
        assert (found is Reach.OPEN) == (expected[0] == "yes")
