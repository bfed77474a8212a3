"""Lists from elsewhere follow their sources while the rules stay as they are, on every loader."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from policylang.cli import main
from tests.apply.web import Page
from tests.kernel.ground import Family, Ground, Loader, Reach, ground, ping, probe_tcp
from tests.kernel.world import HOST, World, world

pytestmark = pytest.mark.usefixtures("kernel")

POLICY = f"""\
zone wan {{ interface wan0 }}
set cdn = resolve "cdn.example", "www.example" refresh 5m
set drop = url "https://{HOST}/drop.txt"
settings {{ counters on }}
deny all inbound from drop
allow tcp 8001 inbound from any except cdn
allow ping inbound from cdn
"""
# For what is the same on all of them.
ONE_LOADER = pytest.mark.parametrize("site", [Loader.NFT], ids=["nft"], indirect=True)
ELSEWHERE = "198.51.100.0/24\n2001:db8:77::/48\n"


@pytest.fixture(scope="module")
def beyond(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture
def net() -> Iterator[Ground]:
    with ground("wan") as made:
        yield made


class Site:
    """A firewall whose policy has lists from elsewhere, and where these come from."""

    def __init__(
        self,
        net: Ground,
        beyond: World,
        loader: Loader,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.net, self.beyond, self.loader, self.capsys = net, beyond, loader, capsys
        self.file = folder / "web.policy"
        self.lock = folder / "web.policy.lock"
        self.file.write_text(POLICY)
        beyond.names.is_failing = False
        self.say(["198.51.100.9"], ELSEWHERE)

    def say(self, cdn: list[str], drop: str) -> None:
        """Let the sources answer so from now on."""
        self.beyond.names.addresses |= {"cdn.example": cdn, "www.example": ["203.0.113.99"]}
        self.beyond.web.pages["/drop.txt"] = Page(drop.encode())

    def refresh(self, *options: str, status: int = 0) -> str:
        """Ask the sources; what was said."""
        given = options or (str(self.file),)
        done = self.beyond.policylang("refresh", *given, "--netns", self.net.firewall.name)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, command: str, *arguments: str, status: int = 0, loads: bool = True) -> str:
        options = self.loader.options if loads else ()
        argv = [command, *arguments, "--netns", self.net.firewall.name, *options]
        assert main(argv) == status
        said = self.capsys.readouterr()
        return said.out + said.err

    def apply(self, *options: str) -> str:
        return self.run("apply", str(self.file), "--yes", *(options or ("--no-confirm",)))

    @property
    def far(self) -> list[str]:
        """The neighbour's addresses."""
        return [self.net["wan"].far.ipv4, self.net["wan"].far.ipv6]

    def reaches(self, family: Family, port: int = 8001) -> Reach:
        wire = self.net["wan"]
        with self.net.firewall.listen(family, port):
            return probe_tcp(wire.neighbour, wire.near.of(family), port, 0.3)

    def is_in_cdn(self) -> list[bool]:
        """Whether the neighbour may ping, as those in the list may, by each family."""
        wire = self.net["wan"]
        return [ping(wire.neighbour, wire.near.of(family), 0.3) for family in Family]

    def rules(self) -> str:
        """All rules with their counts and, on nft, their handles."""
        if self.loader is Loader.NFT:
            text = self.net.firewall.run(["nft", "-a", "list", "table", "inet", "policylang"])
            bare = re.sub(r"(?s)\s*elements = \{.*?\}", "", text.stdout)
            # Neighbours report their groups when they like.
            return re.sub(
                r"counter packets \d+ bytes \d+ (?=accept comment \"essential\")", "", bare
            )
        stem = self.loader.value
        lists = ([tool, "-c"] for tool in (f"{stem}-save", f"ip6{stem.removeprefix('ip')}-save"))
        found = [self.net.firewall.run(argv).stdout for argv in lists]
        return "".join(line for text in found for line in text.splitlines(True) if line[0] != "#")


@pytest.fixture(params=list(Loader), ids=lambda loader: loader.value)
def site(
    request: pytest.FixtureRequest,
    net: Ground,
    beyond: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Site:
    return Site(net, beyond, request.param, tmp_path, capsys)


def test_a_list_follows_its_sources(site: Site) -> None:
    """Elements alone come and go: no rule is touched, and nothing of it is drift."""
    assert "error[not-locked]" in site.run("plan", str(site.file), status=1)
    said = site.refresh()
    assert "cdn.example: 1 address or prefix, 1 new, 0 gone\n" in said
    site.apply()
    assert site.is_in_cdn() == [False, False]
    assert [site.reaches(family) for family in Family] == [Reach.OPEN, Reach.OPEN]

    before = site.rules()
    site.say(site.far, ELSEWHERE)
    assert "1 added, 1 removed" in site.refresh()
    assert site.rules() == before
    assert site.is_in_cdn() == [True, True]
    assert [site.reaches(family) for family in Family] == [Reach.TIMEOUT, Reach.TIMEOUT]
    assert site.run("drift", loads=False) == "as it was loaded\n"
    assert site.run("plan", str(site.file)) == "nothing to change\n"

    site.say(site.far[:1], f"{ELSEWHERE}{site.far[0]}\n")
    site.refresh()
    assert site.is_in_cdn() == [False, False]  # the one is dropped, the other not in the list
    assert [site.reaches(family) for family in Family] == [Reach.TIMEOUT, Reach.OPEN]

    site.beyond.names.addresses["cdn.example"] = []  # fails, and keeps what it had
    site.beyond.web.pages["/drop.txt"] = Page(f"{ELSEWHERE}{site.far[1]}\n".encode())
    said = site.refresh(status=1)
    assert "warning[source-failed]: `cdn.example` gave no addresses" in said
    assert re.search(r"what it gave \d+ seconds? ago stays in use: 1 address or prefix", said)
    assert site.is_in_cdn() == [True, False]
    assert [site.reaches(family) for family in Family] == [Reach.TIMEOUT, Reach.TIMEOUT]


@ONE_LOADER
def test_a_source_that_fails_keeps_what_it_had(site: Site) -> None:
    """In the lock file and in the kernel, however it fails."""
    site.say(site.far, ELSEWHERE)
    site.refresh()
    site.apply()
    before, rules = json.loads(site.lock.read_text()), site.rules()
    site.beyond.names.is_failing = True
    assert site.refresh(status=1).count("source-failed") == 3
    site.beyond.names.is_failing = False
    site.beyond.names.addresses["cdn.example"] = site.far
    site.beyond.web.pages["/drop.txt"] = Page(b"192.0.2.1\n", length=12)
    assert site.refresh(status=1).count("warning[source-failed]") == 1
    after = json.loads(site.lock.read_text())
    key = f"url https://{HOST}/drop.txt"
    assert after["sources"][key] == before["sources"][key]
    assert site.rules() == rules
    assert site.is_in_cdn() == [True, True]


def test_what_is_pending_is_refreshed_too(site: Site) -> None:
    """And what it replaced, for that may be in force again; a rollback goes by the lock as well."""
    site.refresh()
    site.apply()
    site.file.write_text(f"{POLICY}allow tcp 8002 inbound from cdn\n")
    site.apply("--confirm", "60s")
    site.say(site.far, ELSEWHERE)
    site.refresh()
    assert site.is_in_cdn() == [True, True]
    assert site.reaches(Family.IPV4, 8002) is Reach.OPEN
    site.run("rollback", "--yes", loads=False)
    assert site.is_in_cdn() == [True, True]
    assert site.reaches(Family.IPV4, 8002) is Reach.TIMEOUT
    site.apply()
    site.run("rollback", "1", "--yes", loads=False)  # made when the list was another one
    assert site.is_in_cdn() == [True, True]
    assert site.run("drift", loads=False) == "as it was loaded\n"


@ONE_LOADER
def test_all_that_is_due_is_refreshed(site: Site) -> None:
    """Of what is in force, wherever its policy is; what is not due is not asked."""
    assert site.refresh("--all") == ""
    site.refresh()
    site.apply()
    site.say(site.far, ELSEWHERE)
    assert site.refresh("--all") == ""
    _make_older(site.lock, "resolve cdn.example", 301)
    said = site.refresh("--all")
    assert said.startswith("cdn.example: 2 addresses and prefixes, 2 new, 1 gone\n")
    assert "www.example" not in said
    assert site.is_in_cdn() == [True, True]
    kept = site.lock.rename(site.lock.with_name("kept"))
    _make_older(kept, "resolve cdn.example", 301)
    held = kept.read_bytes()
    site.lock.symlink_to(kept)  # by somebody who may write there, while root is not looking
    assert site.refresh("--all") == "cdn.example: 2 addresses and prefixes, unchanged\n"
    assert kept.read_bytes() == held and not site.lock.is_symlink()
    _make_older(site.lock, "resolve cdn.example", -301)  # a clock that went back
    assert site.refresh(str(site.file), "--due") == (
        "cdn.example: 2 addresses and prefixes, unchanged\n"
    )


def _make_older(lock: Path, key: str, seconds: int) -> None:
    held = json.loads(lock.read_text())
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))
    held["sources"][key]["refreshed"] = date
    lock.write_text(json.dumps(held))


@ONE_LOADER
def test_a_check_changes_nothing(site: Site) -> None:
    """Neither the lock file nor the kernel; its rights stay when it is written."""
    site.refresh()
    site.lock.chmod(0o640)
    site.apply()
    before = site.lock.read_bytes()
    site.refresh(str(site.file), "--check")
    site.say(site.far, ELSEWHERE)
    said = site.refresh(str(site.file), "--check", status=1)
    assert "cdn.example: 2 addresses and prefixes, 2 new, 1 gone\n" in said
    assert site.lock.read_bytes() == before
    assert site.is_in_cdn() == [False, False]
    site.refresh()
    assert site.lock.stat().st_mode & 0o777 == 0o640
    site.lock.write_text("<<<<<<< main\n")
    assert "error[damaged-lock]" in site.refresh(status=1)
    assert site.lock.read_text() == "<<<<<<< main\n"
    assert site.is_in_cdn() == [True, True]
