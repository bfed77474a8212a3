"""The commands that plan, change and tell what is in force, as somebody at a terminal uses them."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel.desk import Desk
from tests.kernel.ground import (
    Ground,
    Loader,
    Reach,
    load_nft,
)

pytestmark = pytest.mark.usefixtures("kernel")

OLD = """\
zone wan { interface wan0 }
settings { counters on }
set trusted = 192.0.2.1, 192.0.2.7
allow tcp 8001 inbound from wan
allow ssh inbound from trusted
"""
NEW = OLD.replace("tcp 8001", "tcp 8002")


# --- plan ------------------------------------------------------------------------------------


def test_a_plan_changes_nothing(desk: Desk) -> None:
    """It says what an apply would do, also by its exit status; after it, that nothing is left."""
    policy = desk.policy(OLD)
    said = desk.run("plan", policy, "--detailed-exitcode", status=2, loads=True)
    assert re.search(r"web.policy:4 allow tcp 8001 inbound from wan", said)
    assert re.search(r"^\d+ to add, 0 to change, 0 to remove$", said, re.MULTILINE)
    assert desk.run("status") == "nothing of ours is in force\n"
    desk.apply(OLD)
    assert desk.run("plan", policy, "--detailed-exitcode", loads=True) == "nothing to change\n"
    assert desk.run("plan", policy, loads=True) == "nothing to change\n"
    desk.policy("allow nonsense inbound\n")
    assert desk.run("plan", policy, "--detailed-exitcode", status=1, loads=True) == ""


def test_a_plan_names_rules_and_statements(desk: Desk) -> None:
    """One changed statement is one rule a family, in place."""
    desk.apply(OLD)
    said = json.loads(desk.run("plan", desk.policy(NEW), "--json", loads=True))
    families = 1 if desk.loader is Loader.NFT else 2
    removed = [c for c in said["changes"] if "8001" in (c["before"] or "")]
    added = [c for c in said["changes"] if "8002" in (c["after"] or "")]
    assert len(removed) == len(added) == families
    assert {c["statement"] for c in added} == {"web.policy:4 allow tcp 8002 inbound from wan"}
    assert said["way"] == desk.loader.value
    assert said["add"] + said["change"] + said["remove"] == len(said["changes"])
    assert (said["removes"], said["ends"]) == ([], [])


def test_a_line_more_is_no_change_of_rules(desk: Desk) -> None:
    """Only comments differ, and they are counted."""
    desk.apply(OLD)
    said = json.loads(desk.run("plan", desk.policy(f"# new\n{OLD}"), "--json", loads=True))
    assert (said["changes"], said["sets"]) == ([], [])
    assert said["recommented"] > 0


# --- apply, confirm, rollback ----------------------------------------------------------------


def test_a_change_that_is_not_confirmed_is_taken_back(desk: Desk) -> None:
    """By the kernel; the next command says so.

    Two seconds longer nothing passes but what both let pass.
    """
    desk.apply(OLD)
    said = desk.apply(NEW, "--confirm", "2s")
    over = time.monotonic() + 2
    assert "for 2 seconds" in said and "`policylang confirm" in said
    assert desk.reaches(8002) is Reach.OPEN
    time.sleep(max(0.0, over + 2.5 - time.monotonic()))
    assert (desk.reaches(8001), desk.reaches(8002)) == (Reach.OPEN, Reach.TIMEOUT)
    assert "in force" in desk.run("status")
    assert "warning[not-confirmed]: generation 2 was not confirmed in time" in desk.said.err
    desk.run("confirm", status=1)
    assert "error[nothing-to-confirm]" in desk.said.err


def test_a_confirmed_change_stays(desk: Desk) -> None:
    """And a rollback goes back along what was in force."""
    desk.apply(OLD)
    desk.apply(NEW, "--confirm", "60s")
    status = json.loads(desk.run("status", "--json"))
    assert (status["current"]["generation"], status["pending"]["generation"]) == (1, 2)
    assert 0 < status["left_s"] <= 62
    assert desk.run("confirm").startswith("generation 2 of ")
    assert (desk.reaches(8001), desk.reaches(8002)) == (Reach.TIMEOUT, Reach.OPEN)
    desk.run("rollback", "--yes")
    assert (desk.reaches(8001), desk.reaches(8002)) == (Reach.OPEN, Reach.TIMEOUT)
    desk.run("rollback", "2", "--yes")
    assert desk.reaches(8002) is Reach.OPEN
    listed = json.loads(desk.run("generations", "--json"))
    assert [(one["generation"], one["is"]) for one in listed] == [(2, "in force"), (1, None)]
    desk.run("rollback", "7", "--yes", status=1)
    assert "error[no-such-generation]" in desk.said.err
    assert desk.reaches(8002) is Reach.OPEN


def test_a_rollback_ends_what_waits(desk: Desk) -> None:
    desk.apply(OLD)
    desk.apply(NEW, "--confirm", "60s")
    assert desk.run("rollback") == "generation 2 is taken back: generation 1 is in force\n"
    assert (desk.reaches(8001), desk.reaches(8002)) == (Reach.OPEN, Reach.TIMEOUT)


# --- status, drift, stop ---------------------------------------------------------------------


def test_statements_are_counted(desk: Desk) -> None:
    """Each with the packets that its own rules decided; what was counted lives through an apply."""
    desk.apply(OLD)
    for _ in range(3):
        assert desk.reaches(8001) is Reach.OPEN
    for policy in (OLD, f"{OLD}allow tcp 8009 inbound\n"):
        desk.apply(policy)
        status = json.loads(desk.run("status", "--json"))
        counts = {one["statement"]: one["packets"] for one in status["statements"]}
        assert counts["allow tcp 8001 inbound from wan"] == 3
        assert counts["allow ssh inbound from trusted"] == 0
        assert status["drifted"] is False
    assert re.search(r"^ +3 +\d+  web.policy:4 allow tcp 8001", desk.run("status"), re.MULTILINE)


def test_drift_is_told(desk: Desk) -> None:
    """What another program put there, and by the exit status."""
    desk.run("drift", status=1)
    desk.apply(OLD)
    assert desk.run("drift") == "as it was loaded\n"
    if desk.loader is Loader.NFT:
        load_nft("insert rule inet policylang input tcp dport 23 accept\n", desk.net.firewall)
    else:
        rule = ["-I", "policylang-input", "-p", "tcp", "--dport", "23", "-j", "ACCEPT"]
        desk.net.firewall.run([desk.loader.value, *rule])
    said = desk.run("drift", status=2)
    assert re.search(r"^  \+ .*dport 23 .*(accept|ACCEPT)$", said, re.MULTILINE)
    assert said.endswith("1 to add, 0 to change, 0 to remove\n")
    assert "no longer as it was loaded" in desk.run("status")
    desk.apply(OLD)
    assert desk.run("drift") == "as it was loaded\n"


def test_a_stop_takes_all_away(desk: Desk) -> None:
    """And says that what was denied is open."""
    desk.apply(OLD)
    assert desk.reaches(8002) is Reach.TIMEOUT
    assert "is open" in desk.run("stop", "--yes")
    assert desk.reaches(8002) is Reach.OPEN
    assert desk.run("status") == "nothing of ours is in force\n"
    assert desk.run("stop", "--yes") == "nothing of ours was in force\n"


def test_panic_leaves_one_way_in(desk: Desk) -> None:
    """SSH from the address that was named; and it can be gone back from."""
    wire = desk.net["wan"]
    desk.apply(OLD)
    desk.run("panic", "--yes", "--ssh", wire.far.ipv4)
    assert (desk.reaches(22), desk.reaches(8001)) == (Reach.OPEN, Reach.TIMEOUT)
    status = json.loads(desk.run("status", "--json"))
    assert status["current"]["way"] == desk.loader.value
    desk.run("panic", "--yes", "--ssh", "192.0.2.200")
    assert desk.reaches(22) is Reach.TIMEOUT
    desk.run("rollback", "1", "--yes")
    assert desk.reaches(8001) is Reach.OPEN


# --- questions -------------------------------------------------------------------------------


def typed(answer: str, *argv: str) -> tuple[int, str]:
    """What policylang says on a terminal where that is typed, and its exit status."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "policylang", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    said = b""
    while b"[y/N]" not in said and child.poll() is None:
        said += os.read(ours, 4096)
    os.write(ours, answer.encode())
    while True:
        try:
            more = os.read(ours, 4096)
        except OSError:  # nobody has the other end any more
            break
        if not more:
            break
        said += more
    os.close(ours)
    return child.wait(timeout=60), said.decode()


def test_an_apply_asks(pair: Ground, tmp_path: Path) -> None:
    """It shows the plan, and does what is answered; without a terminal it does nothing."""
    policy = tmp_path / "web.policy"
    policy.write_text(OLD)
    argv = ("apply", str(policy), "--netns", pair.firewall.name)
    status, said = typed("n\n", *argv)
    assert (status, "to add" in said, "not loaded" in said) == (1, True, True)
    status, said = typed("y\n", *argv)
    assert (status, "loaded by nft" in said) == (0, True)
    policy.write_text(NEW)
    done = subprocess.run(
        [sys.executable, "-m", "policylang", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "error[nobody-to-ask]" in done.stderr
