"""`test --kernel` shows what the real kernel does with what a policy expects, on every target.

Each control changes the compiled files behind the policy's back and must be found out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from policylang.backends.base import Artifact
from policylang.cli import main
from policylang.diagnostics import Report
from policylang.ir.ruleset import Ruleset
from policylang.model.policy import Policy
from policylang.packets.fields import Field
from policylang.packets.values import format_address
from policylang.pipeline import Text, artifact_of, policy_of
from policylang.proving import Result, Status, proof, prove, talk
from policylang.proving.court import Court
from tests.kernel.ground import REPOSITORY, obstacle

WAYS = ("nft", "iptables-nft", "iptables-legacy")
NAME = "proved.policy"

POLICY = """
zone wan { interface eth0 }
zone lan { interface eth1, "wlan*"  network 192.168.1.0/24, fd00:1::/64 }
set admins = 192.0.2.0/25, 2001:db8:1::/48
set banned = dynamic
service ftp-alt { tcp 2121  helper ftp  data 40000-40100 }
deny all inbound from banned
allow ssh inbound from admins except 192.0.2.66
allow http, ftp inbound from wan
reject smtp from lan to wan with admin-prohibited
allow http, tftp, sip from lan to wan
allow dns outbound
allow ftp outbound to wan
allow tcp 9000 outbound user 1000
masquerade from lan to wan
dnat ftp-alt from wan to 192.168.1.10 port 21
default reject outbound
"""

HOLDING = """
test "what holds" {
  expect allow ssh inbound from admins except 192.0.2.66, banned
  expect deny ssh inbound from any except admins
  expect drop tcp 22, tcp 80 inbound from banned
  expect reject smtp from lan to wan with admin-prohibited
  expect deny ssh from wan to lan
  expect some allow tcp 21 from wan to 192.168.1.10
  expect reject tcp 22 outbound
  expect allow tcp 9000 outbound user 1000
  expect deny tcp 9000 outbound user 1001
  expect some allow tcp 2121 inbound from wan ipv4
  expect session http inbound from wan except banned
  expect session ftp passive inbound from wan except banned
  expect session ftp active inbound from wan except banned
  expect session ftp active outbound to wan
  expect session tftp from lan to wan
  expect session sip from lan to wan
  expect some session ftp-alt active inbound from wan ipv4
}
"""

FAILING = """
test "what does not hold" {
  expect allow ssh inbound from admins except banned
  expect reject smtp from lan to wan with port-unreachable
  expect drop smtp from lan to wan
  expect session ftp passive from lan to wan
}
"""


@pytest.fixture(scope="module", autouse=True)
def able() -> None:
    reason = obstacle()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


def read(text: str) -> Policy:
    report = Report()
    policy = policy_of(Text(text, NAME, Path("/")), report)
    assert policy is not None and not report.has_errors, report.diagnostics
    return policy


def played(text: str, most: int = 30, target: str | None = None) -> tuple[Result, ...]:
    report = Report()
    results = prove(read(text), report, most=most, target=target)
    assert results is not None, report.diagnostics
    return results


def by_way(results: Sequence[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for one in results:
        found.setdefault(one.way, []).append(one)
    return found


def told(one: Result) -> str:
    return f"{one.way}: {one.expectation.span.text}: {one.status}, {one.said} {one.notes}"


def test_what_holds_holds_in_the_kernel_on_every_target() -> None:
    found = by_way(played(POLICY + HOLDING))
    assert tuple(found) == WAYS
    for results in found.values():
        assert [told(one) for one in results if one.status is not Status.OK] == []
        assert all(one.tried for one in results)


def test_what_does_not_hold_is_shown_by_a_packet() -> None:
    results = played(POLICY + FAILING, target="nft")
    assert [one.status for one in results] == [Status.FAILED] * 4, [*map(told, results)]
    first, *_, session = results
    assert first.packet is not None
    assert format_address(first.packet[Field.SADDR]) == "192.0.2.66"
    assert first.said == "it was dropped"
    assert session.said == "its first packet: it was dropped"


EVERY_KIND = """
zone wan { interface eth0 }
allow ftp, tftp, sip, irc, sane, amanda, pptp, h323 inbound from wan
allow netbios-ns, snmp outbound to wan
default deny outbound
test "every kind" {
  expect session tftp read inbound from wan
  expect session tftp write inbound from wan
  expect session sip "udp" inbound from wan
  expect session sip "tcp" inbound from wan
  expect session irc inbound from wan
  expect session sane inbound from wan
  expect session amanda inbound from wan
  expect session pptp inbound from wan
  expect session h323 inbound from wan
  expect session netbios-ns outbound to wan
  expect session snmp outbound to wan
}
"""
NOT_PLAYED = 4  # at the end


def test_every_kind_of_session_is_played_or_told_not_to_be() -> None:
    results = played(EVERY_KIND, most=20, target="nft")
    ok, impossible = results[:-NOT_PLAYED], results[-NOT_PLAYED:]
    assert {one.status for one in ok} == {Status.OK}, [*map(told, ok)]
    assert all(one.tried for one in ok)
    assert [told(one) for one in impossible if one.status is not Status.IMPOSSIBLE] == []
    assert impossible[0].said == "sessions of `pptp` are not played, `test` alone proves them"


@pytest.mark.parametrize("kind", ["tftp write", "irc", "sane", "amanda"])
def test_a_session_does_not_come_off_without_its_helper(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talk, "PATIENCE_S", IMPATIENCE_S)
    monkeypatch.setattr(proof, "artifact_of", without(("ct helper set",)))
    closed = (
        f"zone wan {{ interface eth0 }}\nallow {kind.split()[0]} inbound from wan\n"
        "default deny outbound\n"
        f'test "t" {{ expect session {kind} inbound from wan }}\n'
    )
    (result,) = played(closed, most=10, target="nft")
    assert result.status is Status.FAILED, told(result)


def test_rates_are_not_exceeded() -> None:
    """What is within a rate by itself is not denied because others came before."""
    limited = """
    allow ping inbound limit 2/minute burst 2
    allow http inbound limit 2/minute burst 2
    test "rates" {
      expect allow ping inbound
      expect session http inbound
      expect some allow ping inbound
    }
    """
    results = played(limited, most=40, target="nft")
    assert [one.status for one in results] == [Status.OK] * 3, [*map(told, results)]
    assert "passed otherwise where many came" in results[0].notes[0]


def test_another_time_is_not_played() -> None:
    """Whatever is proved of the hours of a question, now is not one of them."""
    now = datetime.now(UTC)
    other = f"{(now.hour + 6) % 24:02}:00-{(now.hour + 7) % 24:02}:00"
    asked = f"""
    allow ssh inbound
    test "times" {{
      expect allow ssh inbound during {other}
      expect allow ssh inbound until 2020-12-31
      expect allow ssh inbound until 2037-12-31
    }}
    """
    results = played(asked, most=10, target="nft")
    impossible = Status.IMPOSSIBLE
    assert [one.status for one in results] == [impossible, impossible, Status.OK]
    assert results[0].said == "it is about another time of the week than now"
    assert results[1].said == "it is about a time that is over"


def test_what_is_left_open_is_told() -> None:
    timed = """
    allow ssh inbound during 00:00-24:00 mon-sun
    allow http inbound until 2037-12-31
    test "times" { expect allow http inbound }
    """
    (result,) = played(timed, most=20, target="nft")
    assert result.status is Status.OK
    assert result.notes == ("what depends on the time was tried at the present one",)


# --- controls -----------------------------------------------------------------------------------

CONTROLLED = """
zone wan { interface eth0 }
zone lan { interface eth1  network 192.168.1.0/24, fd00:1::/64 }
deny tcp 22 from lan to wan
allow tcp 1-1023 from lan to wan
allow udp 53 inbound from wan
allow ftp inbound from wan
default allow outbound
test "controls" {
  expect deny tcp 22 from lan to wan
  expect allow tcp 80 from lan to wan
  expect allow udp 53 inbound from wan
  expect session ftp passive inbound from wan
}
"""
IMPATIENCE_S = 0.6  # what comes at all comes within a hundredth of it
# What a line holds that is taken out of every file, and the expectations that fail then.
LOST = {
    "the deny": ((":4",), (0,)),
    "the allow through": ((":5",), (1,)),
    "the allow in": ((":6",), (2,)),
    "the helper": (("ct helper set", "--helper ftp"), (3,)),
}


def without(words: Sequence[str]) -> Callable[[Ruleset, str, Report], Artifact | None]:
    """Compiles as ever, and takes the rules of one statement out of what comes of it."""
    marks = [f"{NAME}{word} " if word.startswith(":") else word for word in words]

    def changed(ruleset: Ruleset, target: str, report: Report) -> Artifact | None:
        artifact = artifact_of(ruleset, target, report)
        assert artifact is not None
        files = []
        for file in artifact.files:
            lines = file.text.split("\n")
            kept = ["" if any(mark in line for mark in marks) else line for line in lines]
            files.append(replace(file, text="\n".join(kept)))
        assert [f.text for f in files] != [f.text for f in artifact.files]
        return replace(artifact, files=tuple(files))

    return changed


@pytest.mark.parametrize("lost", LOST)
def test_a_rule_that_is_lost_behind_the_policys_back_is_found_out(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, failing = LOST[lost]
    monkeypatch.setattr(talk, "PATIENCE_S", IMPATIENCE_S)
    monkeypatch.setattr(proof, "artifact_of", without(words))
    for way, results in by_way(played(CONTROLLED)).items():
        failed = [n for n, one in enumerate(results) if one.status is Status.FAILED]
        assert failed == list(failing), (way, [*map(told, results)])


def test_nothing_is_lost_where_nothing_is_taken_out() -> None:
    assert {one.status for one in played(CONTROLLED)} == {Status.OK}


def test_what_a_target_cannot_say_is_not_played_there() -> None:
    offload = (
        "zone wan { interface eth0 }\nzone lan { interface eth1 }\nallow http from lan to wan\n"
        'offload from lan to wan\ntest "t" { expect allow http from lan to wan }\n'
    )
    results = played(offload, target="iptables")
    assert {one.way for one in results} == set(WAYS[1:])
    assert [one.status for one in results] == [Status.IMPOSSIBLE] * 2
    assert all(
        "cannot express connections that go past the rules" in one.said for one in results
    ), [*map(told, results)]


# --- nothing stays ------------------------------------------------------------------------------


HELD, NAMED = Path("/proc/self/fd"), Path("/run/netns")


def _held() -> list[str]:
    """What this process holds open; a namespace is there for as long as somebody holds it."""
    found = []
    for one in HELD.iterdir():
        with suppress(OSError):  # the folder itself, which is closed by now
            found.append(str(one.readlink()))
    return found


def _ours() -> list[str]:
    return [one.name for one in NAMED.iterdir() if one.name.startswith(f"pl{os.getpid()}-")]


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    played(CONTROLLED, most=1, target="nft")  # libraries keep what they open once
    before, named = _held(), _ours()
    yield
    after = _held()
    assert [n for n in after if n.startswith("net:")] == [n for n in before if n.startswith("net:")]
    assert len(after) <= len(before)
    assert _ours() == named


@pytest.mark.usefixtures("nothing_stays")
def test_nothing_stays_behind() -> None:
    played(CONTROLLED, most=10, target="nft")


@pytest.mark.usefixtures("nothing_stays")
def test_nothing_stays_behind_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*whatever: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Court, "judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        played(CONTROLLED, most=10, target="nft")


# --- the command --------------------------------------------------------------------------------


SMALL = """allow ssh inbound from 192.0.2.0/24 except 192.0.2.7
test "who reaches ssh" {
  expect allow ssh inbound from 192.0.2.0/24
  expect session ssh inbound from 192.0.2.0/24 except 192.0.2.7
}
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a command that plays a small policy."""
    (tmp_path / NAME).write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return ["test", NAME, "--kernel", "--target", "nft", "--packets", "40"]


def test_the_command_shows_the_packet_and_fails(
    small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small, "--color", "never"]) == 2
    out = capsys.readouterr().out
    assert out.startswith("proved.policy, on nft:\n  FAILED  who reaches ssh (1 of 2 expectations,")
    assert "not every packet is allowed by the kernel: `tcp SYN 192.0.2.7:" in out
    assert "it was dropped" in out and "proved.policy:3:3" in out
    assert out.endswith("1 of 2 expectations met on nft, 40 packets, 2 sessions\n")


def test_the_command_tells_programs(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*small, "--format", "json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["met"], told["failed"], told["not_played"]) == (1, 1, 1, 0)
    first, second = told["policies"][0]["tests"][0]["expectations"]
    (way,) = first["ways"]
    assert (first["line"], way["way"], way["status"]) == (3, "nft", "failed")
    assert way["packet"].startswith("tcp SYN 192.0.2.7:")
    assert (second["ways"][0]["status"], second["ways"][0]["packet"]) == ("ok", None)


def test_who_may_not_is_told(small: list[str]) -> None:
    without = ["setpriv", "--bounding-set=-sys_admin,-net_admin", sys.executable]
    done = subprocess.run(
        [*without, "-m", "policylang", *small],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "error[not-permitted]: may not make a network namespace" in done.stderr


def test_what_only_the_kernel_needs_is_refused_without_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["test", NAME, "--packets", "5"]) != 0
    assert "--target and --packets are for `--kernel`" in capsys.readouterr().err


def test_an_interrupt_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(CONTROLLED)
    running = subprocess.Popen(
        [sys.executable, "-m", "policylang", "test", NAME, "--kernel"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        start_new_session=True,
        # Who starts the tests in the background has them ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    with running:
        while running.poll() is None and not _has_another_namespace(running.pid):
            time.sleep(0.02)
        os.killpg(running.pid, signal.SIGINT)
        _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (130, b"policylang: interrupted\n")


def _has_another_namespace(pid: int) -> bool:
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if str(one.readlink()).startswith("net:"):
                return True
    return False
