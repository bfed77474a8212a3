"""The record gives back exactly what it was given, or nothing and the reason."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policylang.apply import durable, plain, state
from policylang.apply.conntrack import Connection, Expectation, FlowTuple
from policylang.apply.flows import Flow
from policylang.apply.record import MOST_KEPT, Doing, Kept, Record, State, state_folder
from policylang.apply.who import made_by, ssh_connection
from policylang.backends.base import Artifact, OutputFile
from policylang.diagnostics import Report
from policylang.ir.origin import Origin
from policylang.ir.ruleset import Needs
from policylang.pipeline import Text, compile_policy
from policylang.source import SourceFile

# Forwarding, modules, a helper, a route to a proxy, sets, a rule without statement, a name.
POLICY = """\
zone lan { interface lan0 }
zone wan { interface wan0 }
set admins = 192.0.2.0/24, 2001:db8::/32
set banned = dynamic timeout 1h
tproxy http from lan to port 3129
allow ftp from lan to wan
allow ssh inbound from admins name "admins"  # über
"""
TARGETS = pytest.mark.parametrize("target", ["nft", "iptables"])
WAYS = {"nft": "nft", "iptables": "iptables-legacy"}


def compiled(target: str = "nft", text: str = POLICY) -> Artifact:
    report = Report()
    artifact = compile_policy(Text(text, "router.policy", Path()), target, report)
    assert artifact is not None, report.in_order()
    return artifact


@pytest.fixture(scope="module")
def nft() -> Artifact:
    return compiled()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "state")


def keep(record: Record, artifact: Artifact, report: Report | None = None) -> Kept:
    made = kept_or_none(record, artifact, report or Report())
    assert made is not None
    return made


def kept_or_none(record: Record, artifact: Artifact, report: Report) -> Kept | None:
    return record.keep(
        artifact,
        way=WAYS[artifact.target],
        policy_name="router.policy",
        parameters={"wan": "eth0", "admins": "192.0.2.7"},
        made_by="alice (root) from 192.0.2.7",
        report=report,
    )


def folder_of(record: Record, number: int) -> Path:
    return record.folder / "generations" / f"{number:06}"


def codes(report: Report) -> list[str]:
    return [diagnostic.code for diagnostic in report.diagnostics]


def all_of(artifact: Artifact) -> tuple[object, ...]:
    """An artifact with what takes no part in its equality: the statements behind each line."""
    lines = [[[(o, o.text) for o in line] for line in file.origins] for file in artifact.files]
    # `repr` shows all that the needs hold, the texts of their statements too.
    return artifact, lines, repr(artifact.needs)


# --- kept and found again ---------------------------------------------------------------------


@TARGETS
def test_an_artifact_comes_back_whole(target: str, record: Record) -> None:
    """Files, statements behind each line and needs are equal, and the text of the policy."""
    artifact = compiled(target)
    kept = keep(record, artifact)
    report = Report()
    found = Record(record.folder).artifact(kept.number, report)
    assert found is not None
    assert all_of(found) == all_of(artifact)
    assert artifact.needs.helpers and artifact.needs.proxy_route and artifact.needs.forwards
    assert record.policy_text(kept.number, report) == POLICY
    assert not report.diagnostics


def test_statements_are_shown_after_the_policy_has_changed(record: Record, nft: Artifact) -> None:
    """What a diagnostic needs of a span is kept: file, line, column and the line's text."""
    found = record.artifact(keep(record, nft).number, Report())
    assert found is not None
    spans = {o.span for file in found.files for line in file.origins for o in line if o.span}
    (span,) = (span for span in spans if span.text.startswith("allow ssh"))
    assert (span.place, span.column) == ("router.policy:7", 1)
    assert span.file.line_text(span.line) == POLICY.splitlines()[6]
    assert len({id(span.file) for span in spans}) == 1


def test_what_is_told_of_a_generation(record: Record, nft: Artifact) -> None:
    kept = keep(record, nft)
    assert (kept.number, kept.target, kept.way) == (1, "nft", "nft")
    assert kept.parameters == (("admins", "192.0.2.7"), ("wan", "eth0"))
    assert (kept.made_by, kept.policy_name) == ("alice (root) from 192.0.2.7", "router.policy")
    assert 0 <= (datetime.now(UTC) - kept.made_at).total_seconds() < 60
    assert record.kept(Report()) == (kept,)
    assert record.one(1, Report()) == kept


def test_the_newest_is_first_and_the_digest_is_of_what_matters(
    record: Record, nft: Artifact
) -> None:
    """The same policy has the same digest whenever it was kept; any other rule another."""
    first, second = keep(record, nft), keep(record, nft)
    other = keep(record, compiled(text=POLICY + "allow ntp inbound\n"))
    moved = keep(record, compiled(text="# moved\n" + POLICY))
    assert [kept.number for kept in record.kept(Report())] == [4, 3, 2, 1]
    assert first.digest == second.digest
    assert len({first.digest, other.digest, moved.digest}) == 3


def test_included_texts_and_those_that_are_passed_are_kept(record: Record, tmp_path: Path) -> None:
    (tmp_path / "site.policy").write_text("allow ntp inbound\n")
    policy = tmp_path / "web.policy"
    policy.write_text('include "site.policy"\nallow ssh inbound\n')
    artifact = compile_policy(policy, "nft", Report())
    assert artifact is not None
    passed = SourceFile("web.policy", policy.read_text())
    extra = SourceFile("drop.txt", "192.0.2.1\r\n")
    report = Report()
    kept = record.keep(
        artifact,
        way="nft",
        policy_name="web.policy",
        parameters={},
        made_by="root",
        report=report,
        sources=[passed, extra],
    )
    assert kept is not None
    sources = record.sources(kept.number, report)
    assert sources is not None
    assert [source.name for source in sources] == ["web.policy", "drop.txt", "site.policy"]
    assert sources[1].text == extra.text
    assert record.policy_text(kept.number, report) == passed.text


def test_a_generation_that_is_not_there(record: Record, nft: Artifact) -> None:
    report = Report()
    assert record.artifact(1, report) is None
    keep(record, nft)
    assert record.artifact(-1, report) is None
    assert codes(report) == ["no-such-generation"] * 2
    assert record.kept(Report()) and record.kept(report)[0].number == 1


# --- rights, pruning, failures ----------------------------------------------------------------


def test_nobody_else_may_look(record: Record, nft: Artifact) -> None:
    """A policy tells attackers what is open: folders 0700, files 0600."""
    keep(record, nft)
    record.set_state(State.here(), Report())
    modes = {path: path.stat().st_mode & 0o777 for path in record.folder.rglob("*")}
    assert record.folder.stat().st_mode & 0o777 == 0o700
    assert {modes[path] for path in modes if path.is_dir()} == {0o700}
    assert {modes[path] for path in modes if path.is_file()} == {0o600}


def test_the_oldest_go_but_for_what_is_needed(record: Record, nft: Artifact) -> None:
    """Twenty stay, what the state names stays, and what a boot loads."""
    for _ in range(4):
        keep(record, nft)
    assert record.confirm_for_boot(3, Report())
    doing = Doing("load", before=1, after=None, way="nft")
    assert record.set_state(replace(State.here(), doing=doing), Report())
    for _ in range(MOST_KEPT):
        keep(record, nft)
    numbers = [kept.number for kept in record.kept(Report())]
    assert numbers == [*range(MOST_KEPT + 4, 4, -1), 3, 1]


def test_nothing_goes_where_the_state_is_not_known(record: Record, nft: Artifact) -> None:
    record.folder.mkdir()
    (record.folder / "state.json").write_text("{}")
    for _ in range(MOST_KEPT + 2):
        keep(record, nft)
    assert len(record.kept(Report())) == MOST_KEPT + 2


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("failing", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_nothing_behind(
    failing: str, record: Record, nft: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fails, what was there is there, and nothing else."""
    keep(record, nft)
    before = everything_in(record.folder)

    def full(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "there")

    with monkeypatch.context() as patch:
        match failing:
            case "write":
                patch.setattr(os, "fchmod", full)  # in the middle of a file
            case "fsync":
                patch.setattr(os, "fsync", full)
            case _:
                patch.setattr(Path, "rename", full)
                patch.setattr(Path, "replace", full)
        report = Report()
        assert kept_or_none(record, nft, report) is None
        assert record.set_state(State.here(), report) is False
    assert codes(report) == ["cannot-keep", "cannot-keep"]
    assert everything_in(record.folder) == before
    assert keep(record, nft).number == 2


def test_a_folder_that_is_none(tmp_path: Path, nft: Artifact) -> None:
    (tmp_path / "file").write_text("")
    report = Report()
    broken = Record(tmp_path / "file" / "state")
    assert kept_or_none(broken, nft, report) is None
    assert broken.set_state(State.here(), report) is False
    assert broken.kept(report) == ()
    assert codes(report) == ["cannot-keep", "cannot-keep"]


def test_what_a_killed_process_left_is_cleared_away(record: Record, nft: Artifact) -> None:
    keep(record, nft)
    unfinished = record.folder / "generations" / f"{durable.ASIDE}abc"
    unfinished.mkdir()
    (unfinished / "rules").write_text("half")
    assert [kept.number for kept in record.kept(Report())] == [1]
    keep(record, nft)
    assert not unfinished.exists()


KILLED = """
import os, signal, sys
from itertools import count
from pathlib import Path
from policylang.apply.record import Record
from policylang.diagnostics import Report
from tests.apply.test_record import compiled, keep

artifact = compiled()
for step in count():
    record = Record(Path(sys.argv[1]) / str(step))
    keep(record, artifact)
    pid = os.fork()
    if pid == 0:
        left = step

        def counted(of):
            def call(*arguments, **options):
                global left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return of(*arguments, **options)
            return call

        for name in ("open", "fsync", "rename", "replace", "mkdir", "fchmod", "chmod"):
            setattr(os, name, counted(getattr(os, name)))
        keep(record, artifact)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    report = Report()
    print(os.waitstatus_to_exitcode(status), *(kept.number for kept in record.kept(report)))
    assert not report.diagnostics
    if status == 0:
        break
"""


def test_a_kill_at_any_step_leaves_all_or_nothing(tmp_path: Path) -> None:
    """Each system call that changes the disk is once the last one; what is there is whole."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) > 20
    assert lines[-1] == "0 2 1"
    assert {*lines[:-1]} == {"-9 1", "-9 2 1"}
    assert sorted(lines[:-1]) == lines[:-1]  # from one step on it is there, and stays


# --- damage -----------------------------------------------------------------------------------


def damaged(content: bytes, dice: random.Random) -> bytes:
    """One to three bits flipped."""
    changed = bytearray(content)
    for place in dice.sample(range(len(changed) * 8), dice.randint(1, 3)):
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def refused_or_equal(record: Record, expected: tuple[object, ...]) -> bool:
    """Whether generation 1 is refused; if it is not, it is what was kept."""
    report = Report()
    found = record.artifact(1, report)
    kept = record.kept(report)
    if found is None:
        assert codes(report) == ["damaged-generation", "generation-left-out"]
        assert kept == ()
        return True
    assert all_of(found) == expected[0]
    assert kept == expected[1]
    assert not report.diagnostics
    return False


@TARGETS
def test_a_damaged_generation_is_refused(target: str, record: Record) -> None:
    """Truncated anywhere, a bit flipped anywhere, a file gone or added: nothing of it is used."""
    artifact = compiled(target)
    kept = keep(record, artifact)
    expected = all_of(artifact), (kept,)
    dice = random.Random(5)
    for path in sorted(folder_of(record, 1).iterdir()):
        whole = path.read_bytes()
        lengths = {*range(0, len(whole), max(1, len(whole) // 25)), len(whole) - 1}
        changes = [whole[:length] for length in lengths]
        changes += [damaged(whole, dice) for _ in range(25)]
        changes += [whole + b"\n", whole.replace(b"\n", b"\r\n")]
        for content in changes:
            if content != whole:
                path.write_bytes(content)
                assert refused_or_equal(record, expected), path.name
        path.unlink()
        assert refused_or_equal(record, expected)
        path.write_bytes(whole)
        assert not refused_or_equal(record, expected)
    (folder_of(record, 1) / "rules.v7").write_text("")
    assert refused_or_equal(record, expected)


def test_the_sums_file_at_every_byte(record: Record, nft: Artifact) -> None:
    """The file that tells of damage tells of its own, truncated at every byte."""
    kept = keep(record, nft)
    path = folder_of(record, 1) / "SHA256SUMS"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert refused_or_equal(record, (all_of(nft), (kept,)))


def test_the_one_before_a_damaged_one_is_used(record: Record, nft: Artifact) -> None:
    keep(record, nft)
    keep(record, nft)
    (folder_of(record, 2) / "policylang.nft").write_bytes(b"")
    report = Report()
    assert [kept.number for kept in record.kept(report)] == [1]
    (told,) = report.diagnostics
    assert told.message == "generation 2 is left out: `policylang.nft` is damaged"
    assert keep(record, nft).number == 3


def resealed(record: Record, change: Callable[[bytes], bytes]) -> Report:
    """What is told once what tells damage was made anew after a change."""
    folder = folder_of(record, 1)
    about = folder / "generation.json"
    changed = change(about.read_bytes())
    assert changed != about.read_bytes()
    about.write_bytes(changed)
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    names.sort(key=lambda name: name == "way")
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, check=True)
    (folder / "SHA256SUMS").write_bytes(sums.stdout)
    report = Report()
    assert record.artifact(1, report) is None
    assert record.kept(Report()) == ()
    return report


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda b: b.replace(b'{"format": 1', b'{"format": 2'), "another version"),
        (lambda b: b.replace(b'"number": 1,', b'"number": 7,'), "wrong place"),
        (lambda b: b.replace(b'"nft"', b'"tfn"', 1), ""),
        (lambda b: b.replace(b"allow ssh", b"allow nfs"), "digest"),
        (lambda b: b.replace(b'"made_by"', b'"made-by"'), "made-by"),
        (lambda b: b"[" * 100_000, ""),
        (lambda b: b"null", ""),
        (lambda b: b'{"format": 1, "kept": 3, "described": [], "sources": 3}', ""),
        (lambda b: b"\xff", ""),
    ],
)
def test_what_a_stranger_wrote_is_refused(
    change: Callable[[bytes], bytes], reason: str, record: Record, nft: Artifact
) -> None:
    """The sums hold, and yet it is not what this version writes."""
    keep(record, nft)
    report = resealed(record, change)
    assert codes(report) == ["damaged-generation"]
    assert reason in report.diagnostics[0].message


def test_what_is_no_generation_is_passed_over(record: Record, nft: Artifact) -> None:
    keep(record, nft)
    folder = record.folder / "generations"
    (folder / "notes").mkdir()
    (folder / "000009").write_text("a file")
    report = Report()
    assert [kept.number for kept in record.kept(report)] == [1]
    assert codes(report) == ["generation-left-out"]
    assert keep(record, nft).number == 10


# --- the state --------------------------------------------------------------------------------

FULL = State(
    boot_id="0b8b6d8c-5a57-4b2c-8d33-0123456789ab",
    namespace=4026531840,
    current=3,
    pending=5,
    confirmed=2,
    doing=Doing("arm", before=None, after=5, way="iptables-nft"),
    history=(4, 2),
    loaded_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    armed_until=datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC),
    by="alice",
)


def test_the_state_comes_back(record: Record) -> None:
    report = Report()
    assert record.state(report) == State.here()
    for wanted in (FULL, State.here(), replace(FULL, doing=None)):
        assert record.set_state(wanted, report)
        assert Record(record.folder).state(report) == wanted
    assert not report.diagnostics


def test_a_damaged_state_is_never_taken_for_an_empty_one(record: Record) -> None:
    """Truncated at every byte, bits flipped: it is told, or it is the same."""
    record.set_state(FULL, Report())
    path = record.folder / "state.json"
    whole = path.read_bytes()
    dice = random.Random(7)
    changes = [whole[:length] for length in range(len(whole))]
    changes += [damaged(whole, dice) for _ in range(2000)]
    changes += [b"[" * 100_000, b"null", b"{}", b'{"format": 1, "state": {}}']
    for content in changes:
        path.write_bytes(content)
        report = Report()
        assert (record.state(report), codes(report)) == (None, ["damaged-state"])
    path.unlink()
    path.mkdir()
    assert record.state(report) is None


def test_numbers_that_a_state_names() -> None:
    assert FULL.named == {2, 3, 4, 5}
    assert State.here().named == frozenset()


def test_a_generation_comes_into_force() -> None:
    """What was in force becomes history, each number once; nothing is pending or half done."""
    now = FULL.now_in_force(5)
    assert (now.current, now.pending, now.doing, now.armed_until) == (5, None, None, None)
    assert (now.history, now.confirmed) == ((3, 4, 2), 2)
    assert now.loaded_at is not None and FULL.loaded_at is not None
    assert now.loaded_at > FULL.loaded_at
    assert now.now_in_force(4).history == (5, 3, 2)
    same = FULL.now_in_force(3)
    assert (same.history, same.loaded_at) == ((4, 2), FULL.loaded_at)
    gone = FULL.now_in_force(None)
    assert (gone.current, gone.history) == (None, (3, 4, 2))


# --- plain values -----------------------------------------------------------------------------


def test_a_field_of_later_is_not_lost_silently() -> None:
    """What an earlier version did not know has its default; what a later one knows is refused."""
    data = plain.Plain().data(FULL)
    del data["history"]
    assert plain.Plain().value(State, data) == replace(FULL, history=())
    with pytest.raises(ValueError, match="later"):
        plain.Plain().value(State, {**data, "later": 1})
    for name, wrong in {
        "boot_id": 3,
        "namespace": True,
        "current": "3",
        "doing": {"what": "jump", "before": None, "after": None, "way": "nft"},
        "history": {"1": 2},
        "loaded_at": "yesterday",
    }.items():
        with pytest.raises(ValueError, match=r"stands where|isoformat"):
            plain.Plain().value(State, {**data, name: wrong})


def test_only_plain_values_have_a_plain_form() -> None:
    with pytest.raises(TypeError, match="set"):
        plain.Plain().data({1})


def test_what_a_confirmation_ends_comes_back(record: Record) -> None:
    """Connections and expectations, with all that the kernel told of them."""
    ends = FlowTuple(4, 6, 1, 2, 50_000, 22)
    back = FlowTuple(6, 58, 2, 1, icmp_type=128)
    connection = Connection(ends, back, 8, "ftp", ends, {1: b"\0\xff", 3: b""})
    flows = (
        Flow(connection, frozenset({"wan0", "lan0"}), may_return=True),
        Flow(Expectation(ends, back, ends, "ftp", True, b"\1")),
        Flow(replace(connection, found={}), frozenset()),
    )
    assert record.set_flows(3, flows, Report()) is False  # there is no folder yet
    record.set_state(State.here(), Report())
    assert record.set_flows(3, flows, Report())
    found = record.flows(3)
    assert found == flows
    entry = found[0].entry
    assert isinstance(entry, Connection)
    assert entry.found == connection.found
    assert record.flows(4) == ()
    record.forget_flows()
    assert record.flows(3) == ()
    record.forget_flows()
    (record.folder / "flows.json").write_text("[")
    assert record.flows(3) == ()


def test_a_state_is_sealed_as_it_was_written() -> None:
    text = state.text_of(FULL)
    assert state.read(text) == FULL
    with pytest.raises(ValueError, match="another version"):
        state.read(text.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(ValueError, match="damaged"):
        state.read(text.replace(b'"current": 3', b'"current": 2'))


def test_lines_of_a_file_need_no_statements(record: Record) -> None:
    """An artifact that nobody compiled is kept as well as any."""
    from policylang.ir.origin import Why

    lines = ((), (Origin(Why.DISPATCH, None, None, "ftp"),), (Origin(Why.DISPATCH),))
    artifact = Artifact("nft", (OutputFile("policylang.nft", "# é\n\n\n", lines),), Needs())
    found = record.artifact(keep(record, artifact).number, Report())
    assert found is not None
    assert all_of(found) == all_of(artifact)


# --- who, and where ---------------------------------------------------------------------------


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in ("SUDO_USER", "DOAS_USER", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("policylang.apply.who.PARENTS", 1)
    monkeypatch.setattr(os, "getuid", lambda: 0)
    yield monkeypatch


def test_who_it_was(nobody: pytest.MonkeyPatch) -> None:
    assert made_by() == "root"
    nobody.setenv("SUDO_USER", "alice")
    assert made_by() == "alice (root)"
    nobody.setenv("SSH_CONNECTION", "2001:db8::7 50000 192.0.2.1 22")
    assert made_by() == "alice (root) from 2001:db8::7"
    nobody.setattr(os, "getuid", lambda: 4_000_000)
    nobody.delenv("SUDO_USER")
    nobody.setenv("USER", "carol")
    assert made_by() == "carol from 2001:db8::7"


def test_the_ssh_connection_of_a_parent_is_found() -> None:
    """sudo takes the variable away; the shell that called it still has it."""
    asked = "from policylang.apply.who import ssh_connection; print(*ssh_connection())"
    script = f'env -u SSH_CONNECTION {sys.executable} -c "{asked}"; true'
    told = "192.0.2.7 50000 192.0.2.1 22"
    done = subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, "SSH_CONNECTION": told},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == told


def test_no_ssh_connection(nobody: pytest.MonkeyPatch) -> None:
    assert ssh_connection() is None
    nobody.setenv("SSH_CONNECTION", "nonsense")
    assert ssh_connection() is None


def test_where_the_state_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLICYLANG_STATE", raising=False)
    assert state_folder(None) == Path("/var/lib/policylang")
    monkeypatch.setenv("POLICYLANG_STATE", "/srv/state")
    assert state_folder(None) == Path("/srv/state")
    assert state_folder("router1") == Path("/srv/state/netns/router1")
    assert state_folder("..") == Path("/srv/state/netns/%2E%2E")
    assert state_folder("/proc/7/ns/net") == Path("/srv/state/netns/%2Fproc%2F7%2Fns%2Fnet")
