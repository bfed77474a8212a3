"""Whatever goes wrong in an apply, the old or the new is in force, and what is told is so.

Loaders that fail midway, full disks, damaged records, locks that others hold, several at once,
other programs that flush, clocks that jump, tables that are full. Each test opens with what must
hold. That a killed process leaves no more is proved in `test_apply_kills`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.warm import warm

from .applied import until_true
from .faults import BOTH, NEITHER, OPEN, POLICIES, Machine, machine
from .ground import REPOSITORY, Loader
from .killing import Death, Killer, Ran

pytestmark = pytest.mark.usefixtures("kernel")

EACH_FLAVOUR = pytest.mark.parametrize(
    "made", [Loader.IPTABLES_NFT, Loader.IPTABLES_LEGACY], ids=lambda one: one.value, indirect=True
)
NFT_ALONE = pytest.mark.parametrize("made", [Loader.NFT], ids=["nft"], indirect=True)
LEGACY_ALONE = pytest.mark.parametrize(
    "made", [Loader.IPTABLES_LEGACY], ids=["legacy"], indirect=True
)

FOR_GOOD = "--no-confirm"


@pytest.fixture(scope="module")
def killer(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    with Killer(tmp_path_factory.mktemp("killer")) as started:
        yield started


@pytest.fixture(params=Loader, ids=lambda loader: loader.value)
def made(killer: Killer, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    """A firewall on which policy `one` is in force."""
    with machine(request.param, killer, tmp_path) as laid:
        laid.done(*laid.applying("one", FOR_GOOD))
        yield laid


def holds(made: Machine, policy: str | None) -> None:
    """Packets, what is told, and what is left agree that a policy is in force, and nothing else."""
    assert set(made.open_ports().values()) == {OPEN[policy]}
    looked, told = made.status()
    assert looked.status == 0, looked
    current = told["current"]
    assert (current and Path(current["policy"]).stem) == policy, told
    assert not told["drifted"]
    assert told["pending"] is None
    assert made.left_over(policy) == []


def comes_back(made: Machine, policy: str, patience_s: float) -> None:
    """Wait until packets tell that a policy is in force again, which nobody has to do."""
    until_true(lambda: set(made.open_ports().values()) == {OPEN[policy]}, patience_s, every_s=0.25)


def refused(ran: Ran, code: str) -> None:
    assert ran.status == 1, ran
    assert f"error[{code}]" in ran.err, ran


# --- loaders that fail --------------------------------------------------------------------------


@contextmanager
def instead_of(made: Machine, program: str, script: str) -> Iterator[dict[str, str]]:
    """The environment in which another program goes by a name; `$real` is the program itself.

    It is itself in all namespaces but the firewall's, and where it is only to look.
    """
    folder = made.directory / "instead"
    folder.mkdir(exist_ok=True)
    fake = folder / program
    real = subprocess.run(["which", program], capture_output=True, text=True, check=True)
    home = Path("/run/netns", made.name).stat().st_ino
    fake.write_text(
        f"""#!/bin/bash
real={shlex.quote(real.stdout.strip())}
home=no; [ "$(readlink /proc/self/ns/net)" = "net:[{home}]" ] && home=yes
case "$*" in *--test*) home=no ;; *-f*) read -r word rest <"${{@: -1}}" ;; esac
if [ "$home" = no ] || [ "$word" = list ]; then exec "$real" "$@"; fi
{script}
"""
    )
    fake.chmod(0o755)
    try:
        yield {"PATH": f"{folder}:{os.environ['PATH']}"}
    finally:
        fake.unlink()


LOADERS = {
    Loader.NFT: ("nft",),
    Loader.IPTABLES_NFT: ("iptables-nft-restore", "ip6tables-nft-restore"),
    Loader.IPTABLES_LEGACY: ("iptables-legacy-restore", "ip6tables-legacy-restore"),
}
FAILURES = {
    "refuses": "cat >/dev/null; echo 'Error: no memory' >&2; exit 1",
    "dies": "kill -9 $$",
    # It has done its work, and nobody hears of it.
    "dies afterwards": '"$real" "$@"; kill -9 $$',
}


@pytest.mark.parametrize(
    ("how", "options"),
    [*((how, (FOR_GOOD,)) for how in FAILURES), ("refuses", ("--confirm", "60s"))],
    ids=[*FAILURES, "refuses to arm"],
)
def test_a_loader_that_fails_leaves_the_old_in_force(
    made: Machine, how: str, options: Sequence[str]
) -> None:
    """In the last family that is loaded: the first has its new rules by then."""
    program = LOADERS[made.loader][-1]
    once = 'f="$0.done"; [ -e "$f" ] && exec "$real" "$@"; touch "$f"\n'
    with instead_of(made, program, once + FAILURES[how]) as environment:
        ran = made.run(*made.applying("other", *options), environment=environment)
    if ran.status == 0:  # nft, which is asked a second time without what is only for counting
        assert made.loader is Loader.NFT
        holds_or_waits(made, "other")
    else:
        assert ran.status == 1, ran
        assert "what was in force is in force" in ran.err
        holds(made, "one")


def holds_or_waits(made: Machine, policy: str) -> None:
    if made.state()["pending"] is not None:
        made.done("confirm")
    holds(made, policy)


@EACH_FLAVOUR
def test_what_can_neither_be_loaded_nor_put_back_is_mended_by_the_next_command(
    made: Machine,
) -> None:
    """Nothing is open that neither policy opens, and nobody is told that all is as it was."""
    last = LOADERS[made.loader][-1]
    script = "cat >/dev/null; echo no memory >&2; exit 1"
    before = made.probed()
    with made.probing(), instead_of(made, last, script) as environment:
        ran = made.run(*made.applying("other", FOR_GOOD), environment=environment)
    assert ran.status == 1, ran
    assert made.probed().leaked == before.leaked
    looked, told = made.status()
    assert looked.status == 0, looked
    holds(made, Path(told["current"]["policy"]).stem)


# --- a program that goes on without us ------------------------------------------------------------


def test_a_loader_that_outlives_us_is_waited_for(made: Machine) -> None:
    """SIGKILL takes policylang alone. The next command comes when the loader has ended: what that
    command says is in force stays so.
    """
    program = LOADERS[made.loader][-1]
    with instead_of(made, program, 'sleep 1; exec "$real" "$@"') as environment:
        death = Death(program, 0.3, is_alone=True)
        ran = made.run(*made.applying("other", FOR_GOOD), death=death, environment=environment)
        assert ran.is_killed, ran
        looked, told = made.status()
    assert "[recovered]" in looked.err, looked
    policy = Path(told["current"]["policy"]).stem
    time.sleep(1.2)
    holds(made, policy)


# --- full disks -----------------------------------------------------------------------------------

PAGE = 4096  # bytes; what a file on a tmpfs takes at least
PAGES = 64


@contextmanager
def small_disk(made: Machine) -> Iterator[Path]:
    """A disk of `PAGES` pages for what is recorded; in place of the one before."""
    place = made.directory / "small"
    place.mkdir()
    size = f"size={PAGE * PAGES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(place)], check=True)
    try:
        made.environment["POLICYLANG_STATE"] = str(place)
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, free: int) -> None:
    """Leave so many pages free."""
    found = os.statvfs(place)
    with (place / "filler").open("wb") as filler:
        filler.write(b"\0" * PAGE * max(0, found.f_bavail - free))


@pytest.mark.parametrize(
    ("options", "apart"), [((FOR_GOOD,), 1), (("--confirm", "60s"), 2)], ids=["good", "confirm"]
)
@NFT_ALONE
def test_a_disk_that_is_full_at_any_write_is_told_and_what_is_told_is_so(
    made: Machine, options: Sequence[str], apart: int
) -> None:
    """Where it says that what was in force is in force, it is; and the next command can work.

    Both write the same down until they load: one of them takes every page, the other every second.
    """
    made.done("stop", "--yes")
    with small_disk(made) as place:
        made.done(*made.applying("one", FOR_GOOD))
        for free in range(0, PAGES, apart):
            fill(place, free)
            ran = made.run(*made.applying("other", *options))
            now = set(made.open_ports().values())
            (place / "filler").unlink()
            if ran.status == 0:
                break
            assert ran.status == 1, ran
            assert "error[cannot-keep]" in ran.err or "not-saved-for-boot" in ran.err, ran
            is_old = "what was in force is in force" in ran.err
            assert now == {OPEN["one" if is_old else "other"]}, ran
            assert made.status()[0].status == 0
            holds(made, "one" if is_old else "other")
            if not is_old:
                made.done(*made.applying("one", FOR_GOOD))
        assert free > 3, "it was never full"
        assert ran.status == 0, ran
        holds_or_waits(made, "other")


@NFT_ALONE
def test_a_disk_that_is_full_hinders_no_return(made: Machine) -> None:
    """A change that nobody could confirm, as nothing can be written, is taken back in time."""
    made.done("stop", "--yes")
    with small_disk(made) as place:
        made.done(*made.applying("one", FOR_GOOD))
        made.done(*made.applying("other", "--confirm", "2s"))
        fill(place, 0)
        refused(made.run("confirm"), "cannot-keep")
        comes_back(made, "one", 8)
        (place / "filler").unlink()
        holds(made, "one")


# --- damaged records ------------------------------------------------------------------------------


def generation(made: Machine, number: int) -> Path:
    return made.folder / "generations" / f"{number:06}"


def damages(folder: Path) -> Iterator[str]:
    """Damage a generation in many ways, one after another; each is mended again."""
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for what, damaged in (
            ("cut short", content[: len(content) // 2]),
            ("empty", b""),
            ("flipped", content[:-2] + bytes([content[-2] ^ 4]) + content[-1:]),
            ("flipped at its start", bytes([content[0] ^ 1]) + content[1:]),
        ):
            if damaged != content:
                path.write_bytes(damaged)
                yield f"{path.name} {what}"
        path.unlink()
        yield f"{path.name} gone"
        path.write_bytes(content)
    (folder / "more").write_bytes(b"x")
    yield "a file more"
    (folder / "more").unlink()


@NFT_ALONE
def test_a_damaged_generation_is_never_loaded(made: Machine) -> None:
    """Whatever is damaged of it, a return to it is refused, and what is in force stays."""
    made.done(*made.applying("other", FOR_GOOD))
    for what in damages(generation(made, 1)):
        ran = made.run("rollback", "1", "--yes", FOR_GOOD)
        assert ran.status == 1, f"{what}: {ran}"
        assert "error[damaged-generation]" in ran.err, f"{what}: {ran}"
    holds(made, "other")
    made.done("rollback", "1", "--yes", FOR_GOOD)
    holds(made, "one")


def test_a_return_takes_the_generation_before_a_damaged_one(made: Machine) -> None:
    """And says so: who returns wants what was good, not a number."""
    made.done(*made.applying("other", FOR_GOOD))
    made.done(*made.applying("one", FOR_GOOD))
    text = POLICIES["one"] + f"allow udp {NEITHER} inbound from wan\n"
    (made.directory / "wide.policy").write_text(text)
    made.done(*made.applying("wide", FOR_GOOD))
    (generation(made, 3) / "generation.json").write_bytes(b"{")
    ran = made.done("rollback", "--yes", FOR_GOOD)
    assert "warning[generation-left-out]" in ran.err
    holds(made, "other")


def test_a_load_that_was_broken_off_is_not_completed_from_a_damaged_generation(
    made: Machine,
) -> None:
    """It is taken back instead."""
    death = Death(LOADERS[made.loader][-1])
    assert made.run(*made.applying("other", FOR_GOOD), death=death).is_killed
    after = made.state()["doing"]["after"]
    (generation(made, after) / "generation.json").write_bytes(b"{")
    looked, _ = made.status()
    assert "[recovered]" in looked.err, looked
    holds(made, "one")


@NFT_ALONE
def test_a_damaged_state_is_refused_and_given_up_as_the_message_says(made: Machine) -> None:
    """Nothing is changed by whoever does not know what is in force."""
    path = made.folder / "state.json"
    whole = path.read_bytes()
    for damaged in (b"", whole[:-20], whole.replace(b'"current": 1', b'"current": 2')):
        path.write_bytes(damaged)
        for command in (("status",), ("rollback", "--yes"), made.applying("other", FOR_GOOD)):
            refused(made.run(*command), "damaged-state")
        assert set(made.open_ports().values()) == {OPEN["one"]}
    path.rename(path.with_suffix(".damaged"))
    made.done(*made.applying("other", FOR_GOOD))
    holds(made, "other")


# --- others who are at work -----------------------------------------------------------------------


@LEGACY_ALONE
def test_the_lock_of_iptables_that_another_holds_for_a_while_is_waited_for(made: Machine) -> None:
    """However often: between the steps of an apply others may load rules of theirs."""
    lock = Path(made.environment["XTABLES_LOCKFILE"])
    is_over = threading.Event()

    def hold() -> None:
        with lock.open("a") as file:
            while not is_over.is_set():
                fcntl.flock(file, fcntl.LOCK_EX)
                time.sleep(0.2)
                fcntl.flock(file, fcntl.LOCK_UN)
                time.sleep(0.01)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        made.done(*made.applying("other", FOR_GOOD))
        made.done(*made.applying("one", "--confirm", "60s"))
        made.done("confirm")
    finally:
        is_over.set()
        thread.join()
    holds(made, "one")


def by_itself(
    made: Machine,
    *arguments: str,
    environment: dict[str, str] | None = None,
    under: Sequence[str] = (),
    program: Sequence[str] = (sys.executable, "-m", "policylang"),
) -> subprocess.Popen[str]:
    """A command in a process that was started as users start it, or by a `warm` program."""
    argv = [*under, *program, *arguments, "--netns", made.name]
    surroundings = {**os.environ, **made.environment, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**surroundings, **(environment or {})},
        cwd="/",
    )


def ended(process: subprocess.Popen[str], patience_s: float = 60) -> Ran:
    out, err = process.communicate(timeout=patience_s)
    return Ran(process.returncode, out, err, ())


@pytest.fixture(scope="module")
def warm_program(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with warm(tmp_path_factory.mktemp("warm")) as program:
        yield str(program)


def test_of_four_applies_at_once_one_is_in_force_as_a_whole(
    made: Machine, warm_program: str
) -> None:
    """The others are told that something changed after their plan; no packet passes meanwhile that
    neither policy allows.
    """
    before = made.probed()
    with made.probing():
        started = [
            by_itself(made, *made.applying(policy, FOR_GOOD), program=[warm_program])
            for policy in ("other", "one", "other", "one")
        ]
        came_of = [ended(one) for one in started]
    after = made.probed()
    assert after.leaked == before.leaked
    assert after.passed - before.passed == after.came - before.came > 100
    assert {ran.status for ran in came_of} <= {0, 1}, came_of
    assert any(ran.status == 0 for ran in came_of), came_of
    for ran in came_of:
        assert ran.status == 0 or "error[changed-meanwhile]" in ran.err, ran
    _, told = made.status()
    holds(made, Path(told["current"]["policy"]).stem)


@LEGACY_ALONE
def test_who_waits_is_told_for_whom(made: Machine) -> None:
    """By its process and its command line."""
    program = LOADERS[made.loader][-1]
    with instead_of(made, program, 'touch "$0.begun"; sleep 2; exec "$real" "$@"') as environment:
        first = by_itself(made, *made.applying("other", FOR_GOOD), environment=environment)
        until_true(Path(made.directory, "instead", f"{program}.begun").exists, 20)
        second = by_itself(made, "status")
        told = ended(second)
        ended(first)
    assert re.search(rf"process {first.pid} \(`.*apply", told.err), told


FLUSHES = {
    Loader.NFT: ["nft", "flush", "ruleset"],
    Loader.IPTABLES_NFT: ["nft", "flush", "ruleset"],
    Loader.IPTABLES_LEGACY: [
        *("sh", "-c"),
        "for p in iptables ip6tables; do for t in raw mangle nat filter; do"
        " $p-legacy -t $t -F; $p-legacy -t $t -X; done; done",
    ],
}


@pytest.mark.parametrize("is_armed", [True, False], ids=["armed", "for-good"])
def test_when_another_program_flushes_all_rules_nobody_is_told_that_ours_are_in_force(
    made: Machine, is_armed: bool
) -> None:
    """What another program removes is not there, and nothing of ours is: `status` says so,
    `confirm` refuses, and the next apply loads all of it.
    """
    if is_armed:
        made.done(*made.applying("other", "--confirm", "60s"))
    made.station.inside.run(FLUSHES[made.loader])
    looked, told = made.status()
    assert not re.search(r"generation \d+ is in force", looked.err), looked
    assert told["drifted"] or told["current"] is None, told
    assert made.run("confirm").status == 1
    made.done(*made.applying("other", FOR_GOOD))
    made.station.nft("add table inet seen")
    assert made.left_over("other") == []
    assert not made.status()[1]["drifted"]


# --- clocks ---------------------------------------------------------------------------------------

YEAR_S = 365 * 86400
JUMPS = pytest.mark.parametrize(
    ("made", "jump_s"),
    [
        (Loader.NFT, YEAR_S),
        (Loader.NFT, -YEAR_S),
        (Loader.IPTABLES_NFT, YEAR_S),
        (Loader.IPTABLES_LEGACY, -YEAR_S),
    ],
    ids=["nft-on", "nft-back", "iptables-nft-on", "iptables-legacy-back"],
    indirect=["made"],
)


@JUMPS
def test_a_clock_that_jumps_neither_ends_nor_prolongs_the_time_to_confirm(
    made: Machine, jump_s: int
) -> None:
    """The kernel counts it, and nobody else."""
    began = time.monotonic()
    made.done(*made.applying("other", "--confirm", "6s"))
    ran, told = made.status(clock_s=jump_s)
    assert "[not-confirmed]" not in ran.err, ran
    assert told["pending"] is not None
    assert 0 < told["left_s"] <= 6
    if time.monotonic() - began < 5:
        assert set(made.open_ports().values()) == {OPEN["other"]}
    comes_back(made, "one", 12)
    assert time.monotonic() - began > 5
    late = made.run("confirm", clock_s=jump_s)
    assert late.status == 1, late
    assert "[not-confirmed]" in late.err
    holds(made, "one")


@JUMPS
def test_a_change_can_be_confirmed_whatever_the_clock_says(made: Machine, jump_s: int) -> None:
    """While the kernel says that there is time."""
    armed = made.run(*made.applying("other", "--confirm", "60s"), clock_s=jump_s)
    assert armed.status == 0, armed
    made.done("confirm")
    holds(made, "other")


@NFT_ALONE
def test_a_clock_since_boot_that_jumps_changes_nothing_either(made: Machine) -> None:
    """In a time namespace, time_namespaces(7), whose clocks since boot are a year on."""
    made.done(*made.applying("other", "--confirm", "60s"))
    under = ("unshare", "--time", "--fork", f"--boottime={YEAR_S}", f"--monotonic={YEAR_S}")
    assert ended(by_itself(made, "confirm", under=under)).status == 0
    holds(made, "other")


# --- a confirmation that is broken off ------------------------------------------------------------


def test_a_confirmation_that_did_not_come_to_the_kernel_confirms_nothing_later(
    made: Machine,
) -> None:
    """Killed after it was written down and before the kernel knew of it, and found when the time
    is over: what was in force since then stays in force.
    """
    made.done(*made.applying("other", "--confirm", "4s"))
    program = "nft" if made.loader is Loader.NFT else "ipset"
    ran = made.run("confirm", death=Death(program))
    assert ran.is_killed, ran
    assert made.state()["doing"]["what"] == "keep"
    comes_back(made, "one", 12)
    time.sleep(2)
    holds(made, "one")


# --- a record that is used elsewhere --------------------------------------------------------------


@NFT_ALONE
def test_a_look_from_another_namespace_loses_nothing(made: Machine, killer: Killer) -> None:
    """The same folder, asked within another namespace: what is recorded of this one stays."""
    made.done(*made.applying("other", "--confirm", "60s"))
    whole = (made.folder / "state.json").read_bytes()
    environment = {**made.environment, "POLICYLANG_STATE": str(made.folder)}
    argv = [sys.executable, "-m", "policylang", "status"]
    made.station.outside.run(argv, check=False, env={**environment, "PYTHONPATH": str(REPOSITORY)})
    assert (made.folder / "state.json").read_bytes() == whole
    made.done("confirm")
    holds(made, "other")


# --- a table of connections that is full ----------------------------------------------------------


@NFT_ALONE
def test_a_full_table_of_connections_hinders_no_apply(made: Machine) -> None:
    """As many as the kernel keeps for a namespace: new connections are not remembered then, and
    an apply, its cut of connections and its way back work as ever.
    """
    most = int(Path("/proc/sys/net/netfilter/nf_conntrack_max").read_text())
    lines = (
        f"-A -s 203.0.113.{number // 60000 + 1} -d 192.0.2.1 -p udp --sport"
        f" {number % 60000 + 1000} --dport {BOTH} -t 600 -u SEEN_REPLY,ASSURED\n"
        for number in range(most)
    )
    listing = made.directory / "connections"
    listing.write_text("".join(lines))
    inside = made.station.inside
    inside.run(["conntrack", "-R", str(listing)], 60)
    assert int(inside.run(["conntrack", "-C"]).stdout) >= most - 10
    made.done(*made.applying("other", "--flows", "cut", FOR_GOOD))
    inside.run(["conntrack", "-F"])
    holds(made, "other")
