"""Who works over SSH is not locked out: neither by an apply, nor by a policy that would do it.

The server is a real sshd on the firewall, the clients come from another namespace.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.warm import warm

from .ground import Ground, Loader, load_nft
from .secure_shell import SecureShell, Session, secure_shell

pytestmark = pytest.mark.usefixtures("kernel")
EACH_LOADER = pytest.mark.parametrize("loader", list(Loader), ids=lambda loader: loader.value)

OPEN = "allow ssh inbound\n"
ALSO_OPEN = "allow ssh inbound\nallow http inbound\n"
SHUT = "allow http inbound\n"
CONFIRM_S = 4

ECHO = 'while read line; do echo "got $line"; done'


@pytest.fixture
def cold_shell(ssh_programs: None, pair: Ground, tmp_path: Path) -> Iterator[SecureShell]:
    """Where each command starts policylang, as it is for whoever works over SSH."""
    for name, text in (("open", OPEN), ("also", ALSO_OPEN), ("shut", SHUT)):
        (tmp_path / f"{name}.policy").write_text(text)
    with secure_shell(pair, tmp_path) as laid:
        yield laid


@pytest.fixture(scope="module")
def warm_program(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with warm(tmp_path_factory.mktemp("warm")) as program:
        yield str(program)


@pytest.fixture
def shell(cold_shell: SecureShell, warm_program: str) -> SecureShell:
    """Where policylang is there at once."""
    return replace(cold_shell, program=(warm_program,))


def apply(shell: SecureShell, policy: str, loader: Loader, *options: str) -> str:
    """The words of a remote shell that apply a policy."""
    file = str(shell.folder / f"{policy}.policy")
    return shell.policylang("apply", file, *loader.options, *options)


def applied(shell: SecureShell, policy: str, loader: Loader, *options: str) -> str:
    """Apply a policy over a connection of its own; what was said."""
    done = shell.run(apply(shell, policy, loader, "--yes", *options))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def status(shell: SecureShell) -> dict[str, object]:
    """What policylang says is in force, asked on the machine itself."""
    argv = ["sh", "-c", shell.policylang("status", "--json")]
    told: dict[str, object] = json.loads(shell.server.run(argv).stdout)
    return told


def answers(session: Session, word: str, patience_s: float = 20) -> None:
    session.send(word)
    session.wait_for(f"got {word}", patience_s)


def can_connect(shell: SecureShell) -> bool:
    done = shell.clients.run([*shell.argv("true", "-T", "-o", "ConnectTimeout=1")], check=False)
    return done.returncode == 0


@EACH_LOADER
def test_a_session_lives_through_an_apply_that_it_asks_for(
    cold_shell: SecureShell, loader: Loader
) -> None:
    with cold_shell.session("sh", "-tt") as session:
        for policy in ("open", "also", "open"):
            session.send(
                f"{apply(cold_shell, policy, loader, '--yes', '--no-confirm')}; echo is $?"
            )
            session.wait_for("is 0")
        session.send("echo still $((40 + 2))")
        session.wait_for("still 42")
    assert can_connect(cold_shell)


@EACH_LOADER
def test_who_is_shut_out_is_warned_and_comes_in_again_when_the_time_is_over(
    shell: SecureShell, loader: Loader
) -> None:
    """Nothing of ours runs meanwhile, and the connection itself is no longer known to conntrack."""
    applied(shell, "open", loader, "--no-confirm")
    with shell.session(ECHO, "-T") as session:
        answers(session, "before")
        told = applied(shell, "shut", loader, "--confirm", f"{CONFIRM_S}s")
        began = time.monotonic()
        assert "warning[operator-shut-out]" in told
        _kill_all_of_ours(shell)
        shell.server.run(["conntrack", "-F"], check=False)
        assert not can_connect(shell)
        session.send("during")
        assert session.is_silent(0.5)
        session.wait_for("got during", 30)  # once TCP sends it again
        assert time.monotonic() - began > CONFIRM_S - 1.5
        answers(session, "after")
    assert can_connect(shell)
    told = shell.run(shell.policylang("status")).stderr
    assert "[not-confirmed]" in told


def test_who_goes_back_to_what_shuts_them_out_is_warned(shell: SecureShell) -> None:
    """Of a generation to which a change is taken back, and of one that is loaded again.

    By one loader: it is told by the rules of the policy, before any target's.
    """
    loader = Loader.NFT
    applied(shell, "shut", loader, "--no-confirm")
    # Nobody comes in any more: what opens again is applied on the machine itself.
    here = ("sh", "-c")
    shell.server.run([*here, apply(shell, "open", loader, "--yes", "--confirm", "60s")])
    assert "warning[operator-shut-out]" in _back(shell)
    shell.server.run([*here, apply(shell, "open", loader, "--yes", "--no-confirm")])
    assert "warning[operator-shut-out]" in _back(shell, "--yes", "--confirm", "60s")
    shell.server.run([*here, shell.policylang("rollback")])
    applied(shell, "also", loader, "--no-confirm")
    assert "operator-shut-out" not in _back(shell, "--yes", "--no-confirm")


def _back(shell: SecureShell, *options: str) -> str:
    """Roll back over a connection of its own; what was said."""
    done = shell.run(shell.policylang("rollback", *options))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def _kill_all_of_ours(shell: SecureShell) -> None:
    """Kill whatever is still there of policylang in the namespace."""
    for pid in shell.server.run(["ip", "netns", "pids", shell.server.name]).stdout.split():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"policylang" in command and b"ssh" not in command:
            os.kill(int(pid), signal.SIGKILL)


@EACH_LOADER
def test_a_confirmation_over_a_new_connection_keeps_the_change(
    shell: SecureShell, loader: Loader
) -> None:
    applied(shell, "open", loader, "--no-confirm")
    applied(shell, "also", loader, "--confirm", f"{CONFIRM_S}s")
    done = shell.run(shell.policylang("confirm"))
    assert done.returncode == 0, done.stderr
    time.sleep(CONFIRM_S + 0.5)
    assert can_connect(shell)
    now = status(shell)
    assert (now["pending"], now["drifted"]) == (None, False)
    assert re.search("also.policy", str(now["current"]))


def test_at_a_terminal_over_ssh_a_change_has_to_be_confirmed_unless_said_otherwise(
    cold_shell: SecureShell,
) -> None:
    with cold_shell.session(apply(cold_shell, "also", Loader.NFT), "-tt") as session:
        session.wait_for("[y/N]")
        session.send("y")
        session.wait_for("for 60 seconds")
    left_s = status(cold_shell)["left_s"]
    assert isinstance(left_s, float)
    assert 30 < left_s <= 60


def test_without_ssh_and_a_terminal_a_change_is_in_force_for_good(cold_shell: SecureShell) -> None:
    applied(cold_shell, "open", Loader.NFT)
    assert status(cold_shell)["pending"] is None


# In each direction; what is lost is sent again by TCP.
LOSSY = """
table inet lossy {
  chain in { type filter hook input priority 0; numgen random mod 100 < 15 drop; }
  chain out { type filter hook output priority 0; numgen random mod 100 < 15 drop; }
}
"""


def test_a_lossy_link_delays_a_change_and_its_confirmation_and_breaks_neither(
    shell: SecureShell,
) -> None:
    """By one loader, for the link knows of none: the others confirm over SSH above."""
    load_nft(LOSSY, shell.clients)
    applied(shell, "open", Loader.NFT, "--no-confirm")
    applied(shell, "also", Loader.NFT, "--confirm", "60s")
    done = shell.run(shell.policylang("confirm"))
    assert done.returncode == 0, done.stderr
    now = status(shell)
    assert (now["pending"], now["drifted"]) == (None, False)
