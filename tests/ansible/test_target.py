"""What travels to a target does there, alone, all that `policylang apply` does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from policylang.apply.who import ssh_connection
from policylang.diagnostics import Report
from policylang.provision import controller, entry, shipping, wire
from policylang.provision.messages import (
    Confirm,
    Confirmed,
    Rehearsed,
    Serve,
    Served,
    Tell,
    Told,
)
from tests.kernel.ground import Loader

from .shipped import PYTHON, Target

SSH = "allow ssh inbound\n"
HTTP = "allow http inbound\n"
# Where the way to load makes no difference.
BY_NFT = pytest.mark.parametrize("loader", [Loader.NFT], ids=["nft"], indirect=True)
# What needs modules, settings, sets, names of users, and a line of the target's own.
MUCH = """\
zone lan { interface "lan0" }
zone wan { interface "wan0" }
set blocked = dynamic timeout 1h
deny all inbound from blocked
allow ftp inbound
allow https from lan to wan
allow dns outbound user root
masquerade from lan to wan
"""
NATIVE = {
    "nft": 'native nft input "tcp option maxseg size < 500 drop"\nallow ssh inbound\n',
    "iptables": """\
native iptables INPUT "-p tcp -m tcpmss --mss 1:499 -j DROP" ipv4
allow ssh inbound
""",
}


def listed(target: Target) -> str:
    """The rules of the kernel, by the program of the target's way; without counters."""
    match target.loader:
        case Loader.NFT:
            return target.namespace.run(["nft", "--stateless", "list", "ruleset"]).stdout
        case other:
            texts = (
                target.namespace.run([f"{other.value.replace('ip', ip, 1)}-save"]).stdout
                for ip in ("ip", "ip6")
            )
            lines = (line for text in texts for line in text.splitlines())
            return "\n".join(line for line in lines if not line.startswith(("#", ":")))


def test_a_rehearsal_changes_nothing_and_tells_what_would(target: Target) -> None:
    before = listed(target)
    found = target.rehearsed(SSH)
    assert found.changes
    assert found.before.is_empty
    assert listed(target) == before
    assert not (target.folder / "state").exists()


def test_what_is_applied_twice_changes_once(target: Target) -> None:
    first = target.applied(SSH)
    rules = listed(target)
    assert first.changes
    assert first.number == 1
    assert not target.rehearsed(SSH).changes
    second = target.applied(SSH)
    assert not second.changes
    assert second.number == 1
    assert listed(target) == rules
    assert target.applied(HTTP).changes
    assert listed(target) != rules


def test_all_that_rules_rely_on_is_kept_with_them(target: Target) -> None:
    assert target.applied(MUCH).changes
    told = target.does(Tell(), Told)
    assert told.drift is not None
    assert told.drift.is_empty
    kept = target.folder / "state" / "netns"
    (folder,) = kept.glob("*/generations/000001")
    assert (folder / "sysctl.conf").read_text().startswith("# Made by policylang")
    assert not target.rehearsed(MUCH).changes


@BY_NFT
def test_what_comes_into_a_list_comes_with_an_apply(target: Target) -> None:
    """The lock file is the controller's, and a target asks nobody."""
    policy = 'set drop = url "https://lists.example/drop.txt"\ndeny all inbound from drop\n'
    for addresses in (["192.0.2.0/24"], ["192.0.2.0/24", "198.51.100.7"]):
        held = {"addresses": addresses, "refreshed": "2026-11-21T00:00:00Z"}
        lock = {"lock": 1, "sources": {"url https://lists.example/drop.txt": held}}
        (target.folder / "test.policy.lock").write_text(json.dumps(lock))
        assert target.applied(policy).changes
        assert not target.applied(policy).changes
    told = target.does(Tell(), Told)
    assert told.current is not None
    assert told.current.number == 2
    assert not told.current.policy_path  # by which a refresh on the target would look for a lock


def test_lines_of_the_targets_own_are_proved(target: Target) -> None:
    text = NATIVE[target.loader.target]
    one, cargo = target.compiled(text)
    assert controller.rehearse(one, cargo, wants_past=False).with_logs is not None
    assert target.applied(text).changes


@BY_NFT
def test_what_is_not_confirmed_ends_by_itself(target: Target) -> None:
    target.applied(SSH)
    rules = listed(target)
    brought = target.applied(HTTP, confirm_s=2)
    assert brought.confirm_s == 2
    time.sleep(2.2)
    answer = target.answer(Confirm(brought.number, None))
    assert answer.found is None
    codes = {one.code for one in answer.diagnostics}
    assert codes == {"not-confirmed", "nothing-to-confirm"}
    assert listed(target) == rules


def test_what_is_confirmed_stays(target: Target) -> None:
    """Meanwhile nothing else can be applied; a confirmation whose answer was lost comes again."""
    target.applied(SSH)
    brought = target.applied(HTTP, confirm_s=30)
    one, cargo = target.compiled(SSH)
    (waits,) = target.answer(controller.rehearse(one, cargo, wants_past=False)).diagnostics
    assert waits.code == "not-yet-confirmed"
    assert waits.help == "it is taken back when its time is over: apply again then"
    for _ in range(2):
        assert target.does(Confirm(brought.number, None), Confirmed).is_new
    told = target.does(Tell(), Told)
    assert told.pending is None
    assert told.current is not None
    assert told.current.number == told.confirmed == brought.number == 2


@BY_NFT
def test_a_change_is_not_confirmed_over_the_connection_that_made_it(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 40000 192.0.2.1 22")
    brought = target.applied(HTTP, confirm_s=30)
    assert brought.over == ssh_connection() == ("192.0.2.7", "40000", "192.0.2.1", "22")
    confirmed = target.does(Confirm(brought.number, brought.over), Confirmed)
    assert not confirmed.is_new
    monkeypatch.delenv("SSH_CONNECTION")  # and what is not known is not new
    assert not target.does(Confirm(brought.number, brought.over), Confirmed).is_new
    assert target.does(Tell(), Told).pending is not None
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 40001 192.0.2.1 22")
    assert target.does(Confirm(brought.number, brought.over), Confirmed).is_new


@BY_NFT
def test_only_what_was_proved_is_loaded(target: Target) -> None:
    found = target.rehearsed(SSH)
    _, other = target.compiled(HTTP)
    before = listed(target)
    answer = target.answer(controller.load(other, found, None))
    assert answer.found is None
    assert [one.code for one in answer.diagnostics] == ["not-as-rehearsed"]
    assert listed(target) == before


def test_what_a_target_lists_otherwise_is_not_proved(target: Target) -> None:
    one, cargo = target.compiled(SSH)
    found = target.does(controller.rehearse(one, cargo, wants_past=False), Rehearsed)
    listing = found.rehearsal.listing
    other = replace(
        listing,
        json=listing.json.replace('"right": 22}', '"right": 23}'),
        rules_v4=listing.rules_v4.replace("--dport 22 ", "--dport 23 "),
    )
    assert other != listing
    tampered = replace(found, rehearsal=replace(found.rehearsal, listing=other))
    report = Report()
    assert controller.is_proved(one, found, report)
    assert not controller.is_proved(one, tampered, report)
    assert {told.code for told in report.diagnostics} == {"not-as-meant"}


def test_rules_that_another_program_changed_are_told_and_mended(target: Target) -> None:
    target.applied(SSH)
    match target.loader:
        case Loader.NFT:
            target.namespace.run(["nft", "add", "rule", "inet", "policylang", "input", "accept"])
        case other:
            chain = next(
                line.split()[1]
                for line in listed(target).splitlines()
                if line.startswith("-A policylang")
            )
            target.namespace.run([other.value, "-A", chain, "-j", "ACCEPT"])
    told = target.does(Tell(), Told)
    assert told.drift is not None
    assert told.drift.changes
    found = target.rehearsed(SSH, wants_past=True)
    assert found.changes
    assert found.current is None
    assert found.past
    assert target.applied(SSH).changes
    assert not target.rehearsed(SSH).changes


def test_what_the_kernel_refuses_is_told_at_the_statement(target: Target) -> None:
    text = "allow http outbound user no-such-user\n"
    one, cargo = target.compiled(text)
    answer = target.answer(controller.rehearse(one, cargo, wants_past=False))
    assert answer.found is None
    (told,) = answer.diagnostics
    assert told.span is not None
    assert told.span.file.line_text(1) == text.rstrip()


@BY_NFT
def test_a_service_is_not_written_by_a_check(target: Target, tmp_path: Path) -> None:
    files = controller.service_files(str(tmp_path / "state"))
    found = target.does(Serve(files, is_check=True), Served)
    assert "/etc/systemd/system/policylang.service" in found.changed
    assert "/etc/policylang/boot/closed.v6" in found.changed
    assert not found.words
    assert not Path("/etc/policylang/boot/load").exists()


# --- the archive ------------------------------------------------------------------------------


def test_the_same_modules_make_the_same_archive() -> None:
    script = "import sys; from policylang.provision import shipping as s; print(s.digest())"
    made = {
        subprocess.run(
            [sys.executable, "-c", f"{script}; print(s.archive().hex())"],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


def test_modules_that_change_make_another_digest(tmp_path: Path) -> None:
    made = set()
    for name, text in (("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("c/a.py", "2")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        made.add(shipping.digest(tmp_path))
    assert len(made) == 4
    (tmp_path / "notes.txt").write_text("no module")
    assert shipping.digest(tmp_path) in made


def test_nothing_travels_that_a_target_has_not() -> None:
    """No module of it needs more than Python's standard library to be imported."""
    with zipfile.ZipFile(BytesIO(shipping.archive())) as packed:
        texts = {name: packed.read(name) for name in packed.namelist()}
    assert all(name.endswith(".py") for name in texts)
    roots: set[str] = set()
    for text in texts.values():
        for node in ast.parse(text).body:
            match node:
                case ast.Import(names=names):
                    roots |= {one.name.partition(".")[0] for one in names}
                case ast.ImportFrom(module=str(name)):
                    roots.add(name.partition(".")[0])
    assert roots <= {"policylang", *sys.stdlib_module_names}
    folders = {Path(name).parts[1] for name in texts if len(Path(name).parts) > 2}
    assert not folders & {"analysis", "catalogue", "cli", "editors", "lower", "model", "proving"}


def test_an_old_python_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    assert entry.main() == 78
    said = capsys.readouterr().err
    assert said.startswith("a target needs Python 3.11 or later, and this is 3.9.2 (")


def test_the_first_file_can_be_read_by_an_old_python() -> None:
    ast.parse(Path(entry.__file__).read_text(), feature_version=(3, 7))


def test_values_come_back_as_they_were(target: Target) -> None:
    one, cargo = target.compiled(MUCH)
    job = controller.rehearse(one, cargo, wants_past=True)
    back = wire.read(type(job), wire.written(job))
    assert replace(back.cargo, sources=()) == replace(cargo, sources=())
    assert [file.origins for file in back.cargo.artifact.files] == [
        file.origins for file in cargo.artifact.files
    ]
    assert [one.text for one in back.cargo.sources] == [one.text for one in cargo.sources]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"sources": [], "origins": [], "value": {"": "Exit"}}'], ids=repr
)
def test_what_is_no_job_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wire.read(Tell, text)


def test_what_breaks_on_a_target_ends_with_an_error(archive: Path) -> None:
    done = subprocess.run([PYTHON, "-I", archive], input=b"{}", capture_output=True, check=False)
    assert done.returncode != 0
