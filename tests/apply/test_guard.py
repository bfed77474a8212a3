"""What is in force and what is recorded agree, whatever happens between the steps of a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.apply import guard, kernel
from policylang.apply.guard import Done, Plan, Site, Written
from policylang.apply.loaded import NOTHING, Chain, Loaded
from policylang.apply.record import Record, State
from policylang.backends.base import Artifact, OutputFile
from policylang.diagnostics import Report
from tests.apply.fake_engine import FakeEngine, KilledError, as_loaded, in_place

BY = Written("web.policy", {}, "root")
FOREIGN = Loaded((Chain("chain input", "", ()),))


def artifact(text: str) -> Artifact:
    return Artifact("nft", (OutputFile("policylang.nft", f"{text}\n", ((), ())),))


OLD, NEW = artifact("old"), artifact("new")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()
    in_place(monkeypatch, made)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(None, Record(tmp_path / "state"))


def codes(report: Report) -> list[str]:
    return [found.code for found in report.diagnostics]


def planned(what: Artifact, site: Site) -> Plan:
    plan = guard.plan(what, site, Report())
    assert plan is not None
    return plan


def applied(
    what: Artifact, site: Site, report: Report | None = None, confirm_s: int | None = None
) -> Done | None:
    found = Report() if report is None else report
    return guard.carry_out(planned(what, site), site, BY, found, confirm_s=confirm_s)


def settled(site: Site, report: Report) -> State:
    state = guard.at(site, lambda state: state, report)
    assert state is not None and state.doing is None
    return state


def booted(site: Site) -> str:
    return (site.record.folder / "boot").readlink().name


# --- without an accident ---------------------------------------------------------------------


def test_an_apply_is_recorded(engine: FakeEngine, site: Site) -> None:
    """What was in force before is what a rollback goes to; a boot loads what is in force."""
    assert applied(OLD, site) is not None
    assert applied(NEW, site) is not None
    state = settled(site, Report())
    assert (state.current, state.confirmed, state.history) == (2, 2, (1,))
    assert engine.ours == as_loaded(NEW)
    assert booted(site) == "000002"


def test_what_changes_nothing_loads_nothing(engine: FakeEngine, site: Site) -> None:
    """Neither rules nor a generation."""
    applied(OLD, site)
    done = applied(OLD, site)
    assert done is not None and done.is_as_it_was and done.kept.number == 1
    assert engine.calls == ["load"]
    assert len(site.record.kept(Report())) == 1


def test_a_change_waits_to_be_confirmed(engine: FakeEngine, site: Site) -> None:
    """Until then what was before is current, and what a boot loads; afterwards the new one is."""
    applied(OLD, site)
    done = applied(NEW, site, confirm_s=60)
    assert done is not None and done.confirm_s == 60
    state = settled(site, Report())
    assert (state.current, state.pending, state.confirmed) == (1, 2, 1)
    assert (engine.ours, engine.beside, booted(site)) == (as_loaded(OLD), as_loaded(NEW), "000001")
    assert guard.confirm(site, Report()) is not None
    state = settled(site, Report())
    assert (state.current, state.pending, state.confirmed) == (2, None, 2)
    assert (engine.ours, engine.beside, booted(site)) == (as_loaded(NEW), NOTHING, "000002")


def test_what_is_not_confirmed_is_told(engine: FakeEngine, site: Site) -> None:
    """By whoever comes next; it is cleared away, and a confirmation is too late."""
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    engine.left_ms = 0
    report = Report()
    assert guard.confirm(site, report) is None
    assert codes(report) == ["not-confirmed", "nothing-to-confirm"]
    assert (engine.ours, engine.beside) == (as_loaded(OLD), NOTHING)
    state = settled(site, Report())
    assert (state.current, state.pending, state.confirmed) == (1, None, 1)


def test_another_change_is_not_confirmed_instead(engine: FakeEngine, site: Site) -> None:
    """Who confirms a generation by its number never confirms what somebody else loaded since."""
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    report = Report()
    assert guard.confirm(site, report, number=3) is None
    assert codes(report) == ["nothing-to-confirm"]
    assert "generation 3 does not wait" in report.diagnostics[0].message
    assert settled(site, Report()).pending == 2
    assert guard.confirm(site, Report(), number=2) is not None


def test_a_change_is_taken_back(engine: FakeEngine, site: Site) -> None:
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    assert guard.disarm(site, Report())
    assert (engine.ours, engine.beside) == (as_loaded(OLD), NOTHING)
    assert settled(site, Report()).pending is None
    assert not guard.disarm(site, Report())


def test_one_change_at_a_time_waits(engine: FakeEngine, site: Site) -> None:
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    report = Report()
    assert applied(artifact("third"), site, report) is None
    assert codes(report) == ["not-yet-confirmed"]


def test_a_stop_leaves_what_a_boot_loads(engine: FakeEngine, site: Site) -> None:
    applied(OLD, site)
    assert guard.stop(site, Report()) == ("nft",)
    state = settled(site, Report())
    assert (engine.ours, state.current, state.confirmed) == (NOTHING, None, 1)
    assert guard.stop(site, Report()) == ()


# --- accidents -------------------------------------------------------------------------------


def test_what_changed_after_the_plan_is_not_replaced(engine: FakeEngine, site: Site) -> None:
    """What was agreed to is not what would happen."""
    applied(OLD, site)
    plan = planned(NEW, site)
    engine.ours = FOREIGN
    report = Report()
    assert guard.carry_out(plan, site, BY, report) is None
    assert codes(report) == ["changed-meanwhile"]
    assert engine.ours == FOREIGN


@pytest.mark.parametrize("confirm_s", [None, 60])
def test_what_is_not_as_rehearsed_is_taken_back(
    confirm_s: int | None, engine: FakeEngine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing was in force before."""
    for before in (NOTHING, as_loaded(OLD)):
        plan = planned(NEW, site)
        monkeypatch.setattr(FakeEngine, "rehearse", lambda *_: as_loaded(NEW))
        strange = Plan(NEW, engine, as_loaded(artifact("other")), before, (), ())
        report = Report()
        assert guard.carry_out(strange, site, BY, report, confirm_s=confirm_s) is None
        assert codes(report) == ["not-as-rehearsed"]
        assert (engine.ours, engine.beside) == (before, NOTHING)
        assert plan.expected == as_loaded(NEW)
        monkeypatch.setattr(FakeEngine, "rehearse", lambda self, what, report: as_loaded(what))
        applied(OLD, site)


def test_what_cannot_be_taken_back_is_said(
    engine: FakeEngine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules of ours that no generation is known for are gone once others were loaded."""
    engine.ours = FOREIGN
    monkeypatch.setattr(FakeEngine, "rehearse", lambda *_: as_loaded(NEW))
    strange = Plan(NEW, engine, as_loaded(artifact("other")), FOREIGN, (), ())
    report = Report()
    assert guard.carry_out(strange, site, BY, report) is None
    assert codes(report) == ["not-as-rehearsed", "not-restored"]


def test_a_load_that_fails_leaves_no_trace(engine: FakeEngine, site: Site) -> None:
    applied(OLD, site)
    engine.fails_in = "load"
    report = Report()
    assert applied(NEW, site, report) is None
    assert codes(report) == ["loading-failed"]
    state = settled(site, Report())
    assert (engine.ours, state.current, state.confirmed) == (as_loaded(OLD), 1, 1)


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("step", ["load", "arm", "keep", "disarm", "remove"])
def test_a_kill_is_mended_by_who_comes_next(
    step: str, is_done: bool, engine: FakeEngine, site: Site
) -> None:
    """Exactly the old or exactly the new is in force, recorded, and loaded by a boot."""
    applied(OLD, site)
    if step in ("keep", "disarm"):
        applied(NEW, site, confirm_s=60)
    engine.killed_in, engine.is_done_then = step, is_done
    with pytest.raises(KilledError):
        match step:
            case "load":
                applied(NEW, site)
            case "arm":
                applied(NEW, site, confirm_s=60)
            case "keep":
                guard.confirm(site, Report())
            case "disarm":
                guard.disarm(site, Report())
            case "remove":
                guard.stop(site, Report())
    report = Report()
    state = settled(site, report)
    assert codes(report) == ["recovered"]
    assert (engine.beside, state.pending) == (NOTHING, None)
    holds = {None: NOTHING, 1: as_loaded(OLD), 2: as_loaded(NEW)}
    assert engine.ours == holds[state.current]
    is_new = step == "keep" or (step == "load" and is_done)
    assert state.current == (None if step == "remove" else 2 if is_new else 1)
    assert booted(site) == ("000002" if is_new else "000001")
    again = Report()
    assert settled(site, again) == state
    assert not again.diagnostics


def test_a_first_apply_that_did_nothing_stays_undone(engine: FakeEngine, site: Site) -> None:
    """Nobody is at the machine when whoever comes next finds it."""
    engine.killed_in = "load"
    with pytest.raises(KilledError):
        applied(NEW, site)
    assert settled(site, Report()).current is None
    assert engine.ours == NOTHING


def test_a_confirmation_that_was_killed_too_early_is_too_late_later(
    engine: FakeEngine, site: Site
) -> None:
    """The time ran out before the kernel had any of it: nothing comes in force unasked."""
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    engine.killed_in = "keep"
    with pytest.raises(KilledError):
        guard.confirm(site, Report())
    engine.left_ms = 0
    assert settled(site, Report()).current == 1
    assert (engine.ours, engine.beside) == (as_loaded(OLD), NOTHING)


def test_a_foreign_flush_while_a_change_waits_is_told(engine: FakeEngine, site: Site) -> None:
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    engine.ours, engine.beside, engine.left_ms = NOTHING, NOTHING, None
    report = Report()
    assert guard.confirm(site, report) is None
    assert codes(report) == ["swept", "nothing-to-confirm"]


def test_a_damaged_generation_is_not_gone_back_to(engine: FakeEngine, site: Site) -> None:
    applied(OLD, site)
    applied(NEW, site)
    (site.record.folder / "generations/000001/policylang.nft").write_text("older\n")
    report = Report()
    assert site.record.artifact(1, report) is None
    assert codes(report) == ["damaged-generation"]


def test_after_a_boot_only_what_was_confirmed_can_be_in_force(
    engine: FakeEngine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is where the service loaded it."""
    applied(OLD, site)
    applied(NEW, site, confirm_s=60)
    monkeypatch.setattr(kernel, "boot_id", lambda: "another")
    engine.beside, engine.left_ms = NOTHING, None
    report = Report()
    state = settled(site, report)
    assert (state.current, state.pending, state.confirmed, codes(report)) == (1, None, 1, [])
    monkeypatch.setattr(kernel, "boot_id", lambda: "a third")
    engine.ours = NOTHING
    assert settled(site, Report()).current is None
