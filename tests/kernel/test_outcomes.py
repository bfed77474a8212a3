"""What commands that change what is in force say with `--json` has the form that is promised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from policylang.apply import guard
from policylang.apply.guard import Site
from policylang.diagnostics import Report
from tests.kernel.desk import Desk
from tests.kernel.ground import REPOSITORY, Loader, Reach

pytestmark = pytest.mark.usefixtures("kernel")

SCHEMA = json.loads(
    (REPOSITORY / "examples/provisioning/outcome.schema.json").read_text(encoding="utf-8")
)

OLD = "zone wan { interface wan0 }\nallow tcp 8001 inbound from wan\n"
NEW = OLD.replace("tcp 8001", "tcp 8002")


def outcome(text: str) -> dict[str, Any]:
    """An object that keeps to the schema."""
    found: dict[str, Any] = json.loads(text)
    problems = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(found)]
    assert problems == []
    return found


def applied(desk: Desk, text: str, *options: str, status: int = 0) -> dict[str, Any]:
    file = desk.policy(text)
    return outcome(desk.run("apply", file, "--json", *options, status=status, loads=True))


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    plain = {"changed": False, "check": False, "way": None, "generation": None, "confirm_s": None}
    rest: dict[str, Any] = {"diff": None, "beside": [], "diagnostics": [], "error": None}
    validator = Draft202012Validator(SCHEMA)
    assert validator.is_valid({"schema": 1, **plain, **rest})
    assert not validator.is_valid({"schema": 2, **plain, **rest})
    assert not validator.is_valid({"schema": 1, **plain})
    assert not validator.is_valid({"schema": 1, **plain, **rest, "error": "told nowhere"})


def test_a_check_changes_nothing_and_tells_by_its_status(desk: Desk) -> None:
    """2 before the apply, 0 behind it; a second apply changes nothing."""
    before = applied(desk, OLD, "--check", status=2)
    assert (before["changed"], before["check"], before["generation"]) == (True, True, None)
    assert before["way"] == desk.loader.value and before["diff"]["add"] > 0
    assert desk.run("status") == "nothing of ours is in force\n"

    first = applied(desk, OLD, "--yes")
    assert (first["changed"], first["check"], first["generation"]) == (True, False, 1)
    assert first["diff"] == before["diff"] and first["error"] is None

    again = applied(desk, OLD, "--check")
    assert (again["changed"], again["generation"], again["diff"]["changes"]) == (False, 1, [])
    second = applied(desk, OLD, "--yes")
    assert (second["changed"], second["generation"]) == (False, 1)
    assert applied(desk, OLD)["changed"] is False  # where nothing changes nothing is asked


def test_a_check_is_told_to_people_as_a_plan_is(desk: Desk) -> None:
    file = desk.policy(OLD)
    said = desk.run("apply", file, "--check", status=2, loads=True)
    assert said == desk.run("plan", file, loads=True)
    desk.apply(OLD)
    assert desk.run("apply", file, "--check", loads=True) == "nothing to change\n"


def test_a_change_is_confirmed_or_taken_back(desk: Desk) -> None:
    desk.apply(OLD)
    expected = applied(desk, NEW, "--check", "--confirm", "60s", status=2)
    waits = applied(desk, NEW, "--yes", "--confirm", "60s")
    assert (waits["confirm_s"], expected["confirm_s"], waits["generation"]) == (60, 60, 2)

    for how in ("--check", "--yes"):
        refused = applied(desk, OLD, how, status=1)
        assert (refused["changed"], refused["generation"]) == (False, None)
        assert refused["error"] == "generation 2 is in force, and waits to be confirmed"
        assert [d["code"] for d in refused["diagnostics"]] == ["not-yet-confirmed"]

    back = outcome(desk.run("rollback", "--json"))
    assert (back["changed"], back["generation"], back["way"]) == (True, 1, desk.loader.value)
    assert desk.reaches(8001) is Reach.OPEN

    applied(desk, NEW, "--yes", "--confirm", "60s")
    kept = outcome(desk.run("confirm", "--json"))
    assert (kept["generation"], kept["confirm_s"], kept["error"]) == (3, None, None)
    none = outcome(desk.run("confirm", "--json", status=1))
    assert none["error"] == "no change waits to be confirmed"

    old = outcome(desk.run("rollback", "--json", "--yes"))
    assert (old["changed"], old["generation"], old["check"]) == (True, 1, False)
    assert old["diff"]["way"] == desk.loader.value
    assert desk.reaches(8001) is Reach.OPEN
    assert outcome(desk.run("rollback", "9", "--json", "--yes", status=1))["error"]


def test_errors_are_told_with_their_places(desk: Desk) -> None:
    desk.apply(OLD)
    for how in ("--check", "--yes"):
        refused = applied(desk, f"{OLD}allow nonsense inbound\n", how, status=1)
        assert refused["changed"] is False and refused["diff"] is None
        assert refused["error"] == "web.policy:3:7: no service named `nonsense`"
        (told,) = refused["diagnostics"]
        assert (told["file"], told["line"], told["column"]) == ("web.policy", 3, 7)
        assert desk.said.err.startswith("error[unknown-service]")
    missing = str(desk.folder / "none.policy")
    assert outcome(desk.run("apply", missing, "--json", status=1, loads=True))["error"]


def test_nobody_is_asked(desk: Desk) -> None:
    refused = applied(desk, OLD, status=1)
    assert refused["error"] == "there is nobody to ask: `--json` asks nothing"
    assert (refused["changed"], refused["diff"]["add"] > 0) == (False, True)
    assert desk.run("status") == "nothing of ours is in force\n"


def test_a_change_of_ways_counts(desk: Desk) -> None:
    """What another target holds goes, which no rule of this one tells."""
    others = [loader for loader in Loader if loader is not desk.loader]
    desk.apply(OLD)
    other = others[0]
    arguments = ("apply", desk.policy(OLD), "--json", *other.options)
    checked = outcome(desk.run(*arguments, "--check", status=2))
    assert checked["diff"]["removes"] == [desk.loader.value]
    armed = outcome(desk.run(*arguments, "--check", "--confirm", "60s", status=1))
    assert (armed["changed"], armed["diagnostics"][0]["code"]) == (False, "cannot-arm")
    done = outcome(desk.run(*arguments, "--yes"))
    assert (done["changed"], done["way"]) == (True, other.value)


NOBODY = "there is nobody to ask: `--json` asks nothing"


def test_a_panic_and_a_stop_are_told(desk: Desk) -> None:
    for command in ("panic", "stop"):
        refused = outcome(desk.run(command, "--json", status=1))
        assert (refused["error"], refused["beside"]) == (NOBODY, [])
    way = desk.loader.value
    closed = outcome(desk.run("panic", "--json", "--yes", loads=True))
    assert (closed["changed"], closed["way"], closed["generation"]) == (True, way, 1)
    assert closed["beside"][-1] == "no SSH connection was found: nothing is let in"
    wrong = outcome(desk.run("panic", "--json", "--yes", "--ssh", "lan", status=1))
    assert (wrong["changed"], wrong["beside"]) == (False, [])
    gone = outcome(desk.run("stop", "--json", "--yes"))
    assert (gone["changed"], gone["way"], gone["generation"]) == (True, None, None)
    assert gone["beside"] == [f"removed what {way} held of ours"]
    none = outcome(desk.run("stop", "--json", "--yes"))
    assert (none["changed"], none["beside"], none["error"]) == (False, [], None)


def test_a_stop_that_leaves_rules_is_none(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither ends as if it were done nor says that nothing is in force."""

    def left(_: Site, report: Report) -> tuple[str, ...]:
        report.add("left-behind", "the table is still there", None)
        return ()

    monkeypatch.setattr(guard, "stop", left)
    assert desk.run("stop", "--yes", status=1) == ""
    assert "warning[left-behind]" in desk.said.err
    told = outcome(desk.run("stop", "--yes", "--json", status=1))
    assert [one["code"] for one in told["diagnostics"]] == ["left-behind"]


def test_what_is_done_beside_it_is_told(desk: Desk) -> None:
    lan = "zone lan { interface lan0 }\nallow https from lan to wan\n"
    desk.net.firewall.sysctl("net.ipv4.ip_forward", "0")
    done = applied(desk, OLD + lan, "--yes")
    assert any("net.ipv4.ip_forward" in words for words in done["beside"])


def test_a_plan_says_which_schema_it_keeps_to(desk: Desk) -> None:
    plan = json.loads(desk.run("plan", desk.policy(OLD), "--json", loads=True))
    assert plan.pop("schema") == 1
    problems = Draft202012Validator({**SCHEMA["$defs"]["diff"], "$defs": SCHEMA["$defs"]})
    assert list(problems.iter_errors(plan)) == []
