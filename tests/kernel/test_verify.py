"""`verify` proves what would be loaded and what is; `apply` loads nothing that is not proved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from policylang.analysis import agreement
from policylang.analysis.diagram import TooLargeError
from policylang.apply import verified
from policylang.backends import nft
from policylang.backends.iptables import places
from policylang.backends.iptables.places import Place
from policylang.ir.stages import Path as Way
from policylang.ir.stages import Stage

from .ground import CommandError, Loader, Namespace, load_nft, policylang

POLICY = """\
zone wan { interface wan0 }
zone lan { interface lan0 network 10.0.0.0/8, 2001:db8::/32 }
set banned = dynamic timeout 1h
deny all from banned to any
allow ssh inbound from wan
allow http, ftp from lan to wan
reject telnet inbound add source to banned log "telnet "
masquerade from lan to wan
"""


@dataclass(frozen=True, slots=True)
class Desk:
    """A namespace, a way to load into it, and the command line."""

    inside: Namespace
    loader: Loader
    folder: Path

    def run(self, command: str, policy: str = POLICY, *options: str) -> str:
        file = self.folder / "site.policy"
        file.write_text(policy)
        arguments = [command, str(file), *self.loader.options, *options]
        lock = self.inside.name
        return policylang(*arguments, directory=self.folder, lock=lock)

    def apply(self, policy: str = POLICY, *options: str) -> str:
        return self.run("apply", policy, "--yes", "--netns", self.inside.name, *options)

    def live(self, policy: str = POLICY) -> dict[str, Any]:
        """What `verify --live` says in JSON, whatever the exit status."""
        options = ("--live", "--netns", self.inside.name, "--format", "json")
        try:
            text = self.run("verify", policy, *options)
        except CommandError as failed:
            text = str(failed)
            text = text[text.index("\n{") :]
            text = text[: text.rindex("\n}") + 2]
        found: dict[str, Any] = json.loads(text)
        return found

    def rules(self) -> str:
        if self.loader is Loader.NFT:
            return self.inside.run(["nft", "list", "ruleset"]).stdout
        return self.inside.run([f"{self.loader.value}-save"]).stdout

    def insert(
        self, port: int, verdict: str, *, is_new: bool = False, before_ours: bool = False
    ) -> None:
        """Put a rule on TCP packets into our chain of what arrives, or before it."""
        if self.loader is Loader.NFT:
            state = "ct state new " if is_new else ""
            rule = f"iifname wan0 {state}tcp dport {port} {verdict}"
            self.inside.run(["nft", f"insert rule inet policylang input {rule}"])
            return
        chain = "INPUT" if before_ours else "policylang-input"
        words = ["-i", "wan0", "-p", "tcp", "--dport", str(port), "-j", verdict.upper()]
        if is_new:
            words += ["-m", "conntrack", "--ctstate", "NEW"]
        self.inside.run([self.loader.value, "-I", chain, "1", *words])


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def desk(request: pytest.FixtureRequest, kernel: None, tmp_path: Path) -> Iterator[Desk]:
    namespace = Namespace.create("verify")
    yield Desk(namespace, request.param, tmp_path)
    namespace.delete()


LOCK = """\
{"lock": 1, "sources": {"resolve cdn.example": {
  "addresses": ["192.0.2.0/28", "2001:db8:9::/48"], "refreshed": "2026-01-01T00:00:00Z"}}}
"""


# --- before anything is loaded ----------------------------------------------------------------


def test_rules_are_proved(desk: Desk) -> None:
    told = desk.run("verify")
    way = f"{desk.loader.value} does with every packet what the policy says"
    assert told == f"{desk.folder}/site.policy: {way}\n"
    assert "policylang" not in desk.rules()


def test_apply_loads_nothing_that_is_not_proved(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules for what is forwarded, at the place of what arrives: the kernel would take them."""
    where = (Stage.FILTER, Way.FORWARD)
    monkeypatch.setitem(nft.HOOKS, where, "type filter hook input priority filter + 1")
    monkeypatch.setitem(places.PLACES, where, Place("filter", "INPUT", "forward"))
    for command, options in (
        ("apply", ("--yes", "--netns", desk.inside.name)),
        ("plan", ()),
        ("verify", ()),
    ):
        with pytest.raises(CommandError) as failed:
            desk.run(command, POLICY, *options)
        assert "error[not-as-meant]" in str(failed.value)
        assert "this is a mistake in policylang" in str(failed.value)
    assert "policylang" not in desk.rules()


def test_lines_of_a_targets_own_are_proved_to_stand_where_they_should(desk: Desk) -> None:
    text = (
        POLICY
        + 'native nft input "tcp option maxseg size < 500 drop" ipv4\n'
        + 'native iptables INPUT "-s 192.0.2.1,192.0.2.2 -p tcp -m tcpmss --mss 1:499 -j DROP" '
        + "ipv4\nallow https inbound\n"
    )
    assert "does with every packet" in desk.run("verify", text)
    desk.apply(text)
    assert desk.live(text)["agrees"] is True


def _too_large(*_: object) -> NoReturn:
    raise TooLargeError


def test_what_is_too_much_to_prove_is_no_proof(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded, and of what is in force: it is told, and the status is not 0."""
    monkeypatch.setattr(agreement.Ground, "followed", _too_large)
    with pytest.raises(CommandError) as failed:
        desk.run("verify")
    assert f"{desk.loader.value} is not proved\n" in str(failed.value)
    assert "does with every packet" not in str(failed.value)
    desk.apply()
    monkeypatch.undo()
    monkeypatch.setattr(verified, "compared", _too_large)
    found = desk.live()
    assert (found["agrees"], found["live"]) == (False, None)
    assert [way["proved"] for way in found["ways"]] == [True]
    assert [d["code"] for d in found["diagnostics"]] == ["unproved"]


# --- what is in force -------------------------------------------------------------------------


def test_nothing_in_force_is_an_error(desk: Desk) -> None:
    with pytest.raises(CommandError, match="nothing of ours is in force"):
        desk.run("verify", POLICY, "--live", "--netns", desk.inside.name)


def test_drift_in_meaning_is_found_with_a_packet(desk: Desk) -> None:
    desk.apply()
    found = desk.live()
    nothing: dict[str, Any] = {
        "way": desk.loader.value,
        "agrees": True,
        "differences": [],
        "beside": [],
    }
    assert (found["agrees"], found["live"]) == (True, nothing)

    # What is dropped anyway, and in no chain that looks like ours, is no difference.
    desk.insert(99, "drop", is_new=True)
    assert desk.live()["agrees"] is True

    # A rule that opens.
    desk.insert(99, "accept")
    (one,) = desk.live()["live"]["differences"]
    assert (one["hook"], one["should"], one["does"]) == ("input", "drops it", "lets it pass")
    assert ":99" in one["packet"]

    # One that shuts, at the statement that lets pass.
    desk.apply()
    desk.insert(22, "drop", is_new=True)
    (one,) = desk.live()["live"]["differences"]
    assert (one["should"], one["does"]) == ("lets it pass", "drops it")
    assert one["statement"].endswith("site.policy:5 allow ssh inbound from wan")
    with pytest.raises(CommandError, match="ended with 2"):
        desk.run("verify", POLICY, "--live", "--netns", desk.inside.name)

    # Another policy than what is in force.
    found = desk.live(POLICY.replace("allow ssh", "allow https"))
    packets = " ".join(one["packet"] for one in found["live"]["differences"])
    assert ":443," in packets


def test_what_others_change_is_told_beside(desk: Desk) -> None:
    desk.apply()
    load_nft(
        "table inet other { chain c { type filter hook input priority 7; "
        "iifname wan0 ct state new tcp dport 22 ip saddr 192.0.2.0/24 drop; "
        "iifname wan0 ct state new tcp dport 1 drop; }; }\n",
        desk.inside,
    )
    found = desk.live()
    assert found["agrees"] is True
    (one,) = found["live"]["beside"]
    assert (one["hook"], one["denied"], one["sure"]) == ("input", True, True)
    assert "192.0.2." in one["packet"] and ":22," in one["packet"]
    assert "inet other c" in one["rule"]

    if desk.loader is not Loader.NFT:  # no chain of nft lets pass what another one drops
        desk.inside.run(["nft", "delete table inet other"])
        desk.insert(99, "accept", before_ours=True)
        found = desk.live()
        assert found["agrees"] is True
        (one,) = found["live"]["beside"]
        assert (one["hook"], one["denied"]) == ("input", False)
        assert ":99" in one["packet"]


def test_what_waits_to_be_confirmed_is_not_compared(desk: Desk) -> None:
    desk.apply()
    desk.apply(POLICY + "allow https inbound\n", "--confirm", "60s")
    with pytest.raises(CommandError, match="not-yet-confirmed"):
        desk.run("verify", POLICY, "--live", "--netns", desk.inside.name)


def test_elements_that_came_from_elsewhere_are_no_difference(desk: Desk) -> None:
    text = 'set cdn = resolve "cdn.example"\ndeny all from cdn to any\n'
    (desk.folder / "site.policy.lock").write_text(LOCK)
    desk.apply(text)
    if desk.loader is Loader.NFT:
        listed = desk.inside.run(["nft", "list", "sets"]).stdout
        name = next(w for w in listed.split() if w.startswith("cdn-v4."))
        desk.inside.run(["nft", f"add element inet policylang {name} {{ 198.51.100.9 }}"])
    else:
        listed = desk.inside.run(["ipset", "list", "-n"]).stdout
        name = next(w for w in listed.split() if w.startswith("policylang-cdn-v4."))
        desk.inside.run(["ipset", "add", name, "198.51.100.9"])
    assert desk.live(text)["agrees"] is True
