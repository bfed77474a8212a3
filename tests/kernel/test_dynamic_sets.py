"""Dynamic sets: what is in them at run time, and that it stays whatever is applied.

That not a packet passes while rulesets are replaced is proved in `test_replace_under_load`.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from policylang.apply import ipsets, kernel, live_ipsets, members, nft, restore, xtables
from policylang.apply.livesets import LiveSet, by_identity
from policylang.apply.restore import Flavour
from policylang.apply.transaction import Applied, apply
from policylang.backends.base import Artifact, OutputFile
from policylang.cli import main
from policylang.diagnostics import Report
from policylang.packets.values import format_address, parse_one_address
from policylang.pipeline import Text, compile_policy
from tests.kernel.ground import (
    Family,
    Ground,
    Loader,
    Namespace,
    Reach,
    ground,
    load_nft,
    probe_tcp,
)

pytestmark = pytest.mark.usefixtures("kernel")

FLAVOURS = {
    Loader.NFT: None,
    Loader.IPTABLES_NFT: Flavour.NFT,
    Loader.IPTABLES_LEGACY: Flavour.LEGACY,
}
EACH_LOADER = pytest.mark.parametrize("loader", list(Loader))

OPEN_PORT, KNOCK_PORT = 8001, 8002

POLICY = f"""
set banned = dynamic timeout {{}}
deny all from banned to any
allow tcp {OPEN_PORT} inbound
allow tcp {KNOCK_PORT} inbound add source to banned
"""
HOUR, DAY = POLICY.format("1h"), POLICY.format("1d")
OTHER = f"{HOUR}\nallow udp 53 inbound\n"
WITHOUT = f"allow tcp {OPEN_PORT} inbound\n"

A, B, C = "203.0.113.1", "203.0.113.2", "2001:db8::3"


@pytest.fixture(autouse=True)
def private_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Legacy iptables takes one lock for the whole machine unless told another."""
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "lock"))


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace.create("sets")
    yield made
    made.delete()


@cache
def artifact(policy: str, target: str) -> Artifact:
    report = Report()
    made = compile_policy(Text(policy, "sets.policy", Path()), target, report)
    assert made is not None, report.diagnostics
    return made


def of(policy: str, loader: Loader) -> Artifact:
    return artifact(policy, "nft" if loader is Loader.NFT else "iptables")


def applied(policy: str, loader: Loader, namespace: Namespace) -> Applied:
    report = Report()
    done = apply(of(policy, loader), report, netns=namespace.name, flavour=FLAVOURS[loader])
    assert done is not None, report.diagnostics
    assert report.diagnostics == []
    return done


def number(text: str) -> int:
    found = parse_one_address(text)
    assert found is not None
    return found


def add(
    namespace: Namespace, *addresses: str, to: str = "banned", seconds: int | None = None
) -> None:
    report = Report()
    numbers = [number(text) for text in addresses]
    assert members.add(to, numbers, seconds, report, netns=namespace.name) is not None, (
        report.diagnostics
    )


def held(namespace: Namespace, name: str = "banned") -> dict[str, float | None]:
    """The addresses in a set, and the seconds that are left to each."""
    report = Report()
    found = members.listed(name, report, netns=namespace.name)
    assert found is not None, report.diagnostics
    return {
        format_address(e.address): None if e.left_ms is None else e.left_ms / 1000
        for live in found
        for e in live.elements
    }


# --- packets ----------------------------------------------------------------------------------


@EACH_LOADER
def test_what_is_added_is_banned_at_once(loader: Loader, pair: Ground) -> None:
    """An address that is added is shut out, and let in again once it is deleted."""
    firewall, wan = pair.firewall, pair["wan"]
    applied(HOUR, loader, firewall)
    for family in Family:
        with firewall.listen(family, OPEN_PORT):
            far = wan.far.of(family)
            assert reach(pair, family) is Reach.OPEN
            add(firewall, far)
            assert reach(pair, family) is Reach.TIMEOUT
            report = Report()
            assert members.delete("banned", [number(far)], report, netns=firewall.name) == 1
            assert reach(pair, family) is Reach.OPEN


def test_a_ban_ends_at_its_time() -> None:
    """No apply renews an element: it is gone when its own time is over, for packets, too."""
    with ExitStack() as stack:
        grounds = [(loader, stack.enter_context(ground("wan"))) for loader in Loader]
        over: list[tuple[Ground, float]] = []
        for loader, laid in grounds:
            firewall, wan = laid.firewall, laid["wan"]
            stack.enter_context(firewall.listen(Family.IPV4, OPEN_PORT))
            applied(HOUR, loader, firewall)
            add(firewall, wan.far.ipv4, seconds=3)
            over.append((laid, time.monotonic() + 4.1))  # ipset keeps whole seconds
            for policy in (OTHER, DAY):
                applied(policy, loader, firewall)
            assert wan.far.ipv4 in held(firewall)
            assert reach(laid) is Reach.TIMEOUT
        for laid, moment in over:
            time.sleep(max(0, moment - time.monotonic()))
            assert laid["wan"].far.ipv4 not in held(laid.firewall)
            assert reach(laid) is Reach.OPEN


def reach(laid: Ground, family: Family = Family.IPV4) -> Reach:
    wan = laid["wan"]
    return probe_tcp(wan.neighbour, wan.near.of(family), OPEN_PORT, timeout_s=0.3)


@EACH_LOADER
def test_what_packets_put_in_stays(loader: Loader, pair: Ground) -> None:
    """A source that a rule bans is in the set, and stays there across an apply."""
    firewall, wan = pair.firewall, pair["wan"]
    applied(HOUR, loader, firewall)
    assert held(firewall) == {}
    probe_tcp(wan.neighbour, wan.near.ipv6, KNOCK_PORT, timeout_s=0.1)
    before = held(firewall)
    assert before.keys() == {wan.far.ipv6}
    assert applied(OTHER, loader, firewall).sets == ()
    assert held(firewall).keys() == before.keys()


# --- elements across an apply -----------------------------------------------------------------


def test_elements_go_from_target_to_target(namespace: Namespace) -> None:
    """Whatever is applied after whatever, elements stay with the time that they had left."""
    applied(HOUR, Loader.NFT, namespace)
    add(namespace, A, C)
    add(namespace, B, seconds=600)
    started = time.monotonic()
    for loader in (
        Loader.NFT,
        Loader.IPTABLES_NFT,
        Loader.IPTABLES_NFT,
        Loader.IPTABLES_LEGACY,
        Loader.NFT,
        Loader.IPTABLES_LEGACY,
    ):
        applied(OTHER, loader, namespace)
        found = held(namespace)
        assert found.keys() == {A, B, C}
        passed = time.monotonic() - started
        for address, seconds in ((A, 3600), (B, 600), (C, 3600)):
            left = found[address]
            assert left is not None
            # ipset keeps whole seconds, and each change of target rounds them up.
            assert seconds - passed - 4 <= left <= seconds - passed + 4
    done = applied(HOUR, Loader.NFT, namespace)
    assert done.sets == ("carried 3 elements of `banned` over",)
    assert namespace.run(["ipset", "list", "-name"]).stdout == ""


@EACH_LOADER
def test_a_set_with_another_time_out_keeps_its_elements(
    loader: Loader, namespace: Namespace
) -> None:
    """The set is made anew: its elements have the old time left, new ones the new time."""
    applied(HOUR, loader, namespace)
    add(namespace, A, C)
    assert applied(DAY, loader, namespace).sets == (
        "made the set `banned` anew with its 2 elements",
    )
    add(namespace, B)
    found = held(namespace)
    assert found.keys() == {A, B, C}
    assert (found[A] or 0) <= 3600 and (found[C] or 0) <= 3600
    assert 86_000 < (found[B] or 0) <= 86_400
    assert applied(DAY, loader, namespace).sets == ()


def test_a_set_without_time_outs_keeps_elements_for_ever(namespace: Namespace) -> None:
    """On every target, and across them; once the set has a time-out its elements have it."""
    for_ever = POLICY.replace("timeout {}", "")
    applied(for_ever, Loader.NFT, namespace)
    add(namespace, A)
    add(namespace, B, seconds=60)
    for loader in (*Loader, Loader.NFT, Loader.NFT):
        applied(for_ever, loader, namespace)
        found = held(namespace)
        assert found[A] is None
        assert 45 < (found[B] or 0) <= 62
    for loader in Loader:
        applied(WITHOUT, loader, namespace)
        applied(for_ever, loader, namespace)
        add(namespace, A)
        applied(HOUR, loader, namespace)
        assert 3500 < (held(namespace)[A] or 0) <= 3600


@EACH_LOADER
def test_a_smaller_set_keeps_what_would_stay_longest(loader: Loader, namespace: Namespace) -> None:
    """What finds no room is left out and told; the policy still loads."""
    applied(HOUR, loader, namespace)
    add(namespace, A, seconds=100)
    add(namespace, B, "203.0.113.9", seconds=200)
    done = applied(POLICY.format("1h size 2"), loader, namespace)
    assert done.sets == (
        "made the set `banned` anew with its 2 elements",
        "left out 1 element for which `banned` has no room",
    )
    assert held(namespace).keys() == {B, "203.0.113.9"}


@EACH_LOADER
def test_a_set_that_the_policy_drops_is_gone(loader: Loader, namespace: Namespace) -> None:
    """A set goes with its declaration, and what was in it is told."""
    applied(HOUR, loader, namespace)
    add(namespace, A, C)
    assert applied(WITHOUT, loader, namespace).sets == ("removed the set `banned` with 2 elements",)
    assert members.listed(None, Report(), netns=namespace.name) is None
    assert namespace.run(["ipset", "list", "-name"]).stdout == ""
    applied(HOUR, loader, namespace)
    assert held(namespace) == {}


def test_long_names_are_one_set_everywhere(namespace: Namespace) -> None:
    """ipset cuts a long name; a set is still found by its whole name, and moves to nft."""
    name = "those-who-knocked-at-the-wrong-door"
    policy = HOUR.replace("banned", name)
    applied(policy, Loader.IPTABLES_NFT, namespace)
    add(namespace, A, to=name)
    assert held(namespace, name).keys() == {A}
    applied(policy, Loader.NFT, namespace)
    assert held(namespace, name).keys() == {A}
    applied(policy, Loader.IPTABLES_LEGACY, namespace)
    assert held(namespace, name).keys() == {A}
    found = members.listed(None, Report(), netns=namespace.name)
    assert found is not None
    shown = {live.name for live in found}
    assert len(shown) == 1
    assert held(namespace, shown.pop()).keys() == {A}


def test_what_an_ipset_cannot_hold_is_left_behind(namespace: Namespace) -> None:
    """The unspecified address, which packets of DHCP put into a set, stops no apply."""
    applied(HOUR, Loader.NFT, namespace)
    add(namespace, A, "0.0.0.0", "::")
    applied(HOUR, Loader.IPTABLES_NFT, namespace)
    assert held(namespace).keys() == {A}


# --- nft --------------------------------------------------------------------------------------


def foreign_things(namespace: Namespace) -> None:
    """Put into our table what neither an apply makes nor a listing shows in one line."""
    load_nft(
        """
        table inet policylang {
          counter packets-so-far { }
          limit slow { rate 1/second; }
          ct helper ftp-2 { type "ftp" protocol tcp; }
          ct timeout short { protocol tcp; policy = { established: 60 }; }
          set plain { type ipv4_addr; flags interval; elements = { 203.0.113.0/24 }; }
          chain extra { comment "chain input {"; counter name packets-so-far; }
          map to-extra { type ifname : verdict; elements = { "x0" : jump extra }; }
          chain entry { type filter hook input priority 5; iifname vmap @to-extra; }
        }
        """,
        namespace,
    )


def test_nothing_but_the_set_stays(namespace: Namespace) -> None:
    """Around a set that stays the table is what it would be if it had been made anew."""
    applied(OTHER, Loader.NFT, namespace)
    anew = namespace.run(["nft", "-s", "list", "ruleset"]).stdout
    applied(HOUR, Loader.NFT, namespace)
    add(namespace, A)
    foreign_things(namespace)
    applied(OTHER, Loader.NFT, namespace)
    assert held(namespace).keys() == {A}
    namespace.run(["nft", "flush", "set", "inet", "policylang", "banned-v4"])
    assert namespace.run(["nft", "-s", "list", "ruleset"]).stdout.split() == anew.split()


@pytest.mark.parametrize("wrong", ["jump nowhere", "tcp dport 99999 accept"])
def test_an_error_is_told_at_its_line_around_a_set(wrong: str, namespace: Namespace) -> None:
    """What is loaded is not the script as it stands, and still its lines are named."""
    applied(HOUR, Loader.NFT, namespace)
    add(namespace, A)
    (script,) = of(HOUR, Loader.NFT).files
    lines = script.text.split("\n")
    place = next(n for n, line in enumerate(lines) if f"tcp dport {OPEN_PORT} accept" in line)
    (origin,) = script.origins[place]
    lines[place] = wrong
    refused = OutputFile(script.name, "\n".join(lines), script.origins)
    report = Report()
    work = kernel.in_netns(
        namespace.name,
        lambda: nft.load(Artifact("nft", (refused,)), report, nft.listing(report) or "", {}),
        report,
    )
    assert work is False
    (diagnostic,) = report.diagnostics
    assert diagnostic.code == "refused-by-kernel"
    assert diagnostic.span == origin.span
    assert held(namespace).keys() == {A}


# --- ipset ------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", list(Flavour))
def test_a_failed_apply_leaves_the_sets_as_they_were(
    flavour: Flavour, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time-out, size and elements are back, and what packets added meanwhile is still there."""
    loader = Loader.IPTABLES_NFT if flavour is Flavour.NFT else Loader.IPTABLES_LEGACY
    applied(HOUR, loader, namespace)
    add(namespace, A, B, "203.0.113.9", C)
    good = of(POLICY.format("1d size 2") + "set more = dynamic\n", loader)
    broken = [
        replace(file, text=file.text.replace("-j ACCEPT", "-j CT --helper nope"))
        if file.name == "rules.v6"
        else file
        for file in good.files
    ]
    put_back = xtables._put_back

    def meanwhile(*arguments: Any) -> None:
        assert len(held_here()) == 3, "one of four has no room in the set that was made anew"
        live_ipsets.restored(["add policylang-banned-v6 2001:db8::77"], "", Report())
        put_back(*arguments)

    monkeypatch.setattr(xtables, "_put_back", meanwhile)
    report = Report()
    kernel.in_netns(
        namespace.name,
        lambda: xtables.load(Artifact("iptables", tuple(broken)), restore.tools(flavour), report),
        report,
    )
    assert [d.code for d in report.diagnostics] != []
    assert "not-restored" not in {d.code for d in report.diagnostics}
    assert held(namespace).keys() == {A, B, "203.0.113.9", C, "2001:db8::77"}
    found = members.listed(None, Report(), netns=namespace.name)
    assert {(live.name, live.timeout_s, live.size) for live in found or ()} == {
        ("banned", 3600, 65_535)
    }


def held_here() -> set[int]:
    saved = ipsets.saved(Report()) or {}
    return {e.address for live in ipsets.live_sets(saved) for e in live.elements}


def test_what_comes_while_a_set_is_made_anew_is_kept(namespace: Namespace) -> None:
    """Between the look at an ipset and its exchange packets go on filling it."""
    applied(HOUR, Loader.IPTABLES_NFT, namespace)
    add(namespace, A)
    late = LiveSet("banned", 4, 86_400, 65_535)

    def work() -> bool:
        seen = ipsets.live_sets(ipsets.saved(Report()) or {})
        live_ipsets.restored([f"add policylang-banned-v4 {B}"], "", Report())
        return live_ipsets.made_as_declared(seen, by_identity([late]), Report())

    assert kernel.in_netns(namespace.name, work, Report()) is True
    assert held(namespace).keys() == {A, B}
    assert "aside" not in namespace.run(["ipset", "list", "-name"]).stdout


def test_a_made_anew_that_was_interrupted_stops_nothing(namespace: Namespace) -> None:
    """The set that an earlier load left aside is in nobody's way, and goes."""
    applied(HOUR, Loader.IPTABLES_NFT, namespace)
    add(namespace, A)
    namespace.run(["ipset", "create", live_ipsets.ASIDE, "hash:net"])
    applied(DAY, Loader.IPTABLES_NFT, namespace)
    assert held(namespace).keys() == {A}
    assert "aside" not in namespace.run(["ipset", "list", "-name"]).stdout


# --- one at a time ----------------------------------------------------------------------------


def test_one_at_a_time_works_in_a_namespace(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second waits for the first; in another namespace nobody waits."""
    monkeypatch.setattr(kernel, "PATIENCE_S", 0.3)
    applied(HOUR, Loader.NFT, namespace)
    entered, over = threading.Event(), threading.Event()

    def hold() -> None:
        with kernel.alone(Report()) as is_alone:
            assert is_alone
            entered.set()
            over.wait(10)

    holder = threading.Thread(target=lambda: kernel.in_netns(namespace.name, hold, Report()))
    holder.start()
    try:
        assert entered.wait(5)
        report = Report()
        assert members.listed(None, report, netns=namespace.name) is None
        assert [d.code for d in report.diagnostics] == ["lock-held"]
        assert apply(of(HOUR, Loader.NFT), report, netns=namespace.name) is None
        with kernel.alone(Report()) as is_alone:
            assert is_alone
        monkeypatch.setattr(kernel, "PATIENCE_S", 10)
        threading.Timer(0.2, over.set).start()
        assert members.listed(None, Report(), netns=namespace.name) is not None
    finally:
        over.set()
        holder.join()


# --- the command ------------------------------------------------------------------------------


Said = tuple[int, str, str]


@pytest.fixture
def told(namespace: Namespace, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `policylang set` in the namespace: its status, what it printed, its complaints."""

    def run(*words: str) -> Said:
        status = main(["set", *words, "--netns", namespace.name])
        printed, complaints = capsys.readouterr()
        return status, printed, complaints

    return run


@EACH_LOADER
def test_the_command_changes_what_is_loaded(
    loader: Loader, namespace: Namespace, told: Callable[..., Said]
) -> None:
    """Addresses of both families come, are renewed, are shown and go."""
    applied(HOUR, loader, namespace)
    assert told("add", "banned", A, C, A, "--timeout", "90s") == (
        0,
        "banned: added 2 addresses\n",
        "",
    )
    assert told("add", "banned", B, A) == (0, "banned: added 1 address, renewed 1 address\n", "")
    status, printed, _ = told("list")
    head, *lines = printed.splitlines()
    assert (status, head) == (
        0,
        "banned: 3 addresses; time-out 1h, room for 65535 of each family",
    )
    shown = (
        rf"  {A}  IPv4  (1h|59m5[0-9]s) left",
        rf"  {B}  IPv4  (1h|59m5[0-9]s) left",
        rf"  {C}  IPv6  1m[0-9]+s left",
    )
    for line, wanted in zip(lines, shown, strict=True):
        assert re.fullmatch(re.sub(r"(\S)  IP", r"\1 +IP", wanted), line), line
    status, printed, _ = told("list", "banned", "--format", "json")
    (entry,) = json.loads(printed)
    assert (entry["name"], entry["timeout_s"], entry["size"]) == ("banned", 3600, 65_535)
    assert [(e["address"], e["family"]) for e in entry["elements"]] == [(A, 4), (B, 4), (C, 6)]
    assert 80 <= entry["elements"][2]["left_s"] <= 90
    assert told("delete", "banned", A, C) == (0, "banned: deleted 2 addresses\n", "")
    assert held(namespace).keys() == {B}
    assert told("flush", "banned") == (0, "banned: emptied; 1 address was in it\n", "")
    assert held(namespace) == {}


@EACH_LOADER
def test_the_command_does_all_or_nothing(
    loader: Loader, namespace: Namespace, told: Callable[..., Said]
) -> None:
    """One address too many, or one that is not there, and none is added or deleted."""
    applied(POLICY.format("1h size 2"), loader, namespace)
    assert told("add", "banned", A, C)[0] == 0
    status, _, complaints = told("add", "banned", "2001:db8::4", B, "203.0.113.9")
    assert status == 1
    assert "error[set-full]" in complaints
    assert held(namespace).keys() == {A, C}
    status, _, complaints = told("delete", "banned", A, B, C)
    assert status == 1
    assert f"error[no-such-element]: `{B}` is not in the dynamic set `banned`" in complaints
    assert held(namespace).keys() == {A, C}


def test_the_command_is_told_what_it_cannot_do(
    namespace: Namespace, told: Callable[..., Said]
) -> None:
    """Nothing loaded, another name, what is no single address, what is no time."""
    for words in (("list",), ("add", "banned", A), ("flush", "banned")):
        status, _, complaints = told(*words)
        assert status == 1
        assert "error[no-such-set]: no dynamic set is loaded" in complaints
    applied(f"{HOUR}\nset others = dynamic\n", Loader.NFT, namespace)
    status, _, complaints = told("add", "bannd", A)
    assert status == 1
    assert "help: did you mean `banned`; there are `banned`, `others`" in complaints.replace(
        "?", ""
    )
    for word in ("203.0.113.0/24", "203.0.113.1-203.0.113.9", "banned", "fe80::1%eth0", ""):
        status, _, complaints = told("add", "banned", A, word)
        assert status == 1
        assert f"error[bad-element]: `{word}` is not a single address" in complaints
    for word in ("0s", "5", "1h 30m", "1y", "25d", "-1s", "9" * 40 + "s"):
        status, _, complaints = told("add", "banned", A, f"--timeout={word}")
        assert status == 1
        assert "error[bad-duration]" in complaints
    assert held(namespace) == {}


def test_a_name_is_never_a_command(namespace: Namespace, told: Callable[..., Said]) -> None:
    """A name is looked for, not handed on: whatever it holds, nothing is done."""
    applied(HOUR, Loader.NFT, namespace)
    for name in ("banned-v4 { 192.0.2.1 }; flush ruleset", "b\nflush ruleset", "*", "../banned"):
        assert told("add", name, A)[0] == 1
        assert told("flush", name)[0] == 1
    assert held(namespace) == {}


def test_the_apply_says_what_became_of_elements(
    namespace: Namespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line that tells how a policy was loaded goes on with the sets."""
    policy = tmp_path / "sets.policy"
    policy.write_text(HOUR)
    command = ["apply", "--yes", str(policy), "--netns", namespace.name]
    assert main(command) == 0
    add(namespace, A)
    policy.write_text(DAY)
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out == (
        f"{policy}: loaded by nft into namespace {namespace.name};"
        " made the set `banned` anew with its 1 element\n"
    )


def test_who_may_not_change_sets_is_told_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the right to change rules nothing is looked at."""
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nCapEff:\t0000000000000000\n")
    monkeypatch.setattr(kernel, "OWN_STATUS", status)
    report = Report()
    assert members.listed(None, report, netns=None) is None
    assert [d.code for d in report.diagnostics] == ["not-permitted"]
