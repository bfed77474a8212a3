"""What `policylang lint` tells is so, and it tells what there is.

`POLICYLANG_ANALYSIS_SECONDS=600` goes on with random policies; `python -m tests.analysis.linting`
does it by hand. Broken lints are told from good ones by the same proofs.
"""

from __future__ import annotations

import ast
import json
import os
import time
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

import policylang
from policylang.analysis.lints import redundant, undone
from policylang.analysis.lints.company import Company
from policylang.analysis.lints.management import managed_ports
from policylang.analysis.lints.silenced import TOLD_ELSEWHERE
from policylang.analysis.lints.subject import Subject
from policylang.analysis.machine import Hook, Line
from policylang.cli import main
from policylang.cli.linting import lint
from policylang.codes import CODES
from policylang.diagnostics import Report
from policylang.packets.fields import TCP, TCP_ACK, TCP_SYN, UDP, AddressType, State
from policylang.pipeline import Text, compile_policy
from tests.analysis.brute import NOW
from tests.analysis.linting import linted, wrong
from tests.golden.outputs import EXAMPLES
from tests.reference.interpreter import Moment, Packet, decide

PACKAGE = Path(policylang.__file__).parent
FIRST_SEED, POLICIES = 4000, 12
MOST_POLICIES = 60  # until a broken lint is told


def told(text: str) -> list[tuple[str, str]]:
    """What lints find: the code, and what stands there."""
    found = linted(text)
    assert found is not None
    return [(d.code, d.span.text if d.span is not None else "") for d in found.found]


# --- whether it is so ---------------------------------------------------------------------------


def test_findings_are_right() -> None:
    """Without the statement every packet fares the same, or no connection ever comes to it."""
    seconds = float(os.environ.get("POLICYLANG_ANALYSIS_SECONDS", 0))
    started, seed = time.monotonic(), FIRST_SEED
    tally: Counter[str] = Counter()
    while seed < FIRST_SEED + POLICIES or time.monotonic() - started < seconds:
        for translates in (False, True):
            for one in wrong(seed, translates=translates, packets=120, tally=tally):
                pytest.fail(one, pytrace=False)
        seed += 1
    assert min(tally["unreachable"], tally["changes-nothing"]) >= POLICIES / 2, tally


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda path: path.stem)
def test_nothing_in_an_example_is_in_vain(policy: Path) -> None:
    report = Report()
    lint(policy.name, policy, {}, report)
    assert {d.code for d in report.diagnostics} <= {"helper-faces-internet", "service-note"}


BROKEN: dict[str, tuple[Any, str, Any]] = {
    "all that follows decides the same": (redundant, "_is_decided", lambda *_: True),
    "every rule stands alone": (Company, "is_alone", lambda *_: True),
    "nothing is reached": (Subject, "is_reached", lambda *_: False),
    "nothing comes to the rules": (
        undone._Ways,
        "coming",
        property(lambda ways: dict.fromkeys(Hook, ways.subject.space.nothing)),
    ),
    "nothing passes": (undone._Ways, "passed", lambda ways, hook: ways.subject.space.nothing),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_lint_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BROKEN[name])
    first = SHOWN_BY.get(name, FIRST_SEED)
    assert any(
        True
        for seed in range(first, first + MOST_POLICIES)
        for translates in (True, False)
        for _ in wrong(seed, translates=translates, packets=0, tally=Counter())
    )


SHOWN_BY: dict[str, int] = {}  # where to look first, for the time that it takes


# --- what is told, and what is not ----------------------------------------------------------------

ZONES = "zone wan { interface eth0 }\nzone lan { interface eth1 }\n"
USES = "allow ping from wan, lan to self\n"

SAID = {
    "a log is an effect": ("deny telnet inbound log", []),
    "a default that logs is another one": ("deny telnet inbound default deny inbound log", []),
    "it would be logged below": (
        "allow http inbound allow tcp 80 inbound log default deny inbound",
        ["unreachable allow tcp 80 inbound log"],
    ),
    "a rate below counts what comes to it": (
        "allow ssh inbound from 192.0.2.1 allow ssh inbound limit 4/minute allow ssh inbound from "
        "192.0.2.0/24",
        [],
    ),
    "a rate decides for nobody": (
        "allow smtp inbound limit 4/minute allow smtp inbound",
        ["changes-nothing allow smtp inbound limit 4/minute"],
    ),
    "two rates are two": ("allow ssh inbound limit 4/minute allow ssh inbound limit 4/minute", []),
    "hours that go over the day": (
        "allow ssh inbound during 08:00-18:00 allow ssh inbound during 18:00-08:00 "
        "deny ssh inbound log",
        ["unreachable deny ssh inbound log"],
    ),
    "hours with a gap": (
        "allow ssh inbound during 08:00-18:00 allow ssh inbound during 18:01-08:00 "
        "deny ssh inbound log",
        [],
    ),
    "an answer of another kind": ("deny smtp inbound reject smtp inbound log", ["unreachable"]),
    "rejecting is not denying": ("reject smtp inbound", []),
    "a helper is an effect": ("allow tcp 21 inbound allow ftp inbound", []),
    "together, and not one of them": (
        "deny tcp 80 inbound from 0.0.0.0/0 log deny tcp 80 inbound from ::/0 log "
        "allow http inbound",
        ["unreachable allow http inbound"],
    ),
    "one address is left": (
        "deny tcp 80 inbound from 0.0.0.0/1 log deny tcp 80 inbound from 128.0.0.0-255.255.255.254 "
        "log deny tcp 80 inbound from ::/0 log allow tcp 80 inbound",
        [],
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_told(name: str) -> None:
    text, expected = SAID[name]
    told_here = [
        f"{code} {text}"
        for code, text in told(text)
        if code not in ("ipv6-open", "helper-faces-internet", "wider-than-neighbours")
    ]
    assert len(told_here) == len(expected), told_here
    assert all(a.startswith(b) for a, b in zip(told_here, expected, strict=True)), told_here


BEFORE = redundant._before


def _touched_by_nothing(about: Subject, line: Line, rest: Any) -> Any:
    before = BEFORE(about, line, rest)
    before.touched = about.space.nothing
    return before


@pytest.mark.parametrize(
    "name", ["a default that logs is another one", "a rate below counts what comes to it"]
)
def test_a_lint_that_sees_verdicts_alone_would_be_wrong(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redundant, "_before", _touched_by_nothing)
    with pytest.raises(AssertionError):
        test_what_is_told(name)


UNDONE = {
    "kept out by spoofing": (
        "zone lan { interface eth1 network 192.168.1.0/24 } zone wan { interface eth0 } "
        "protect from wan against spoofing allow dns from lan, wan to self "
        "allow ssh inbound from 192.168.1.0/24 in wan except ipsec",
        "allow ssh inbound from 192.168.1.0/24 in wan except ipsec",
    ),
    "what came out of a tunnel": (
        "zone lan { interface eth1 network 192.168.1.0/24 } zone wan { interface eth0 } "
        "protect from wan against spoofing allow dns from lan, wan to self "
        "allow ssh inbound from 192.168.1.0/24 in wan",
        "",
    ),
    "kept out by bogons": (
        f"{ZONES}{USES}protect from wan against bogons allow ssh inbound from 10.0.0.0/8 in wan",
        "allow ssh inbound from 10.0.0.0/8 in wan",
    ),
    "kept out from one zone alone": (
        f"{ZONES}{USES}protect from wan against bogons allow ssh inbound from 10.0.0.0/8",
        "",
    ),
    "translated in vain": (
        f"{ZONES}{USES}masquerade from lan to wan",
        "masquerade from lan to wan",
    ),
    "translated": (f"{ZONES}{USES}masquerade from lan to wan allow dns from lan to wan", ""),
    "translated by hours": (
        f"{ZONES}{USES}masquerade from lan to wan allow dns from lan to wan during 01:00-02:00",
        "",
    ),
    "sent on and denied": (
        f"{ZONES}{USES}deny ssh from wan to 192.0.2.3 dnat tcp 2222 from wan to 192.0.2.3 port 22",
        "dnat tcp 2222 from wan to 192.0.2.3 port 22",
    ),
    "sent on": (f"{ZONES}{USES}dnat tcp 2222 from wan to 192.0.2.3 port 22", ""),
    "sent elsewhere above": (
        f"{ZONES}redirect tcp 80 inbound port 8080 redirect tcp 80 from wan to self port 8081",
        "redirect tcp 80 from wan to self port 8081",
    ),
    "sent elsewhere above in part": (
        f"{ZONES}redirect tcp 80 from wan to self port 8080 redirect tcp 80 inbound port 8081",
        "",
    ),
    "sent on above, and others may send it on so": (
        f"{ZONES}{USES}dnat http from wan to 192.0.2.3 dnat http from wan to 192.0.2.4",
        "",
    ),
    "a mark that others may set": (
        f"{ZONES}{USES}protect from wan against bogons "
        "allow ssh inbound from 10.0.0.0/8 in wan mark 1",
        "",
    ),
}


@pytest.mark.parametrize("name", UNDONE)
def test_what_is_undone(name: str) -> None:
    text, expected = UNDONE[name]
    assert [text for code, text in told(text) if code == "undone"] == [expected] * bool(expected)


OVERLAPS = {
    "an address that anybody may forge": ("", True),
    "which is kept out": ("protect from wan against spoofing ", False),
    "what is the same in both": ("allow ssh inbound from wan ", False),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlapping_zones(name: str) -> None:
    extra, is_told = OVERLAPS[name]
    text = (
        "zone wan { interface eth0 }\nzone vpn { network 10.8.0.0/24 }\n"
        f"allow https inbound from wan, vpn\n{extra}allow ssh inbound from vpn\n"
    )
    codes = [code for code, _ in told(text)]
    assert ("zones-overlap" in codes) == is_told, codes


FAMILIES = {
    "denied by addresses of one": ("default allow inbound deny ssh from 0.0.0.0/0 to self", True),
    "denied for both": ("default allow inbound deny ssh inbound log", False),
    "for some of IPv6": ("allow ssh inbound from 2001:db8::/32", False),
    "for all of IPv6": ("allow ssh inbound from ::/0", True),
    "DHCPv6 has its own ports": ("allow udp 546-547 inbound ipv6", False),
    "by a rate": ("allow ssh inbound ipv6 limit 4/minute", False),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_family_is_open(name: str) -> None:
    text, is_told = FAMILIES[name]
    assert ("ipv6-open" in [code for code, _ in told(text)]) == is_told


def test_a_name_that_is_a_word_elsewhere_is_used() -> None:
    """`none` is a word behind `log limit` alone."""
    assert ("unused-declaration", "none") not in told(
        "set none = 192.0.2.1 deny all from none to any"
    )
    assert ("unused-declaration", "none") in told("set none = 192.0.2.1 deny telnet inbound log")


def test_services_by_which_machines_are_managed_are_in_the_catalogue() -> None:
    known = {*managed_ports().values()}
    assert {"ssh", "rdp", "snmp", "ipmi", "postgresql", "redis", "mongodb"} <= known
    assert not {"http", "https", "smtp"} & known


WIDER = {
    "a database for the world beside a shell for some": ("allow redis inbound", True),
    "by its port": ("allow tcp 6379 inbound", True),
    "for some": ("allow redis inbound from 192.0.2.0/24", False),
    "of this host itself": ("allow redis outbound", False),
    "less than half of the world": ("allow redis inbound from any except 0.0.0.0/0", False),
    "the world less some": ("allow redis inbound from any except 198.51.100.0/24", True),
    "which nobody reaches": ("deny redis inbound log allow redis inbound", False),
    "what is public": ("allow https inbound", False),
}


@pytest.mark.parametrize("name", WIDER)
def test_wider_than_neighbours(name: str) -> None:
    text, is_told = WIDER[name]
    codes = [code for code, _ in told(f"allow ssh inbound from 192.0.2.0/24 {text}")]
    assert ("wider-than-neighbours" in codes) == is_told, codes
    assert "wider-than-neighbours" not in [code for code, _ in told(text)]


UNANSWERED = {
    "asked by a default": ("untracked dns outbound", True),
    "answered by a default": (
        "untracked dns inbound default allow inbound default deny outbound",
        True,
    ),
    "asked by a rule": ("untracked dns outbound allow dns outbound", False),
    "answered by a rule": ("untracked dns inbound allow dns inbound default deny outbound", False),
    "a rule above denies answers over UDP": (
        "untracked dns inbound deny udp 1-65535 outbound log allow dns inbound",
        True,
    ),
    "a rule above denies some answers alone": (
        "untracked dns inbound deny udp 1-1023 outbound log allow dns inbound",
        False,
    ),
    "a rule below denies them": (
        "untracked dns inbound allow dns inbound deny udp 1-65535 outbound log",
        False,
    ),
    "nothing asks": ("untracked dns inbound", False),
    "answers do not tell who asks": (
        "untracked dns inbound allow dns inbound mac 02:00:00:00:00:01 default deny outbound",
        True,
    ),
    "through this host": (
        f"{ZONES}untracked dns from lan to wan default allow forward deny all from wan to lan log",
        True,
    ),
    "through this host by a rule": (
        f"{ZONES}untracked dns from lan to wan allow dns from lan to wan",
        False,
    ),
    "what has no answers": (
        "untracked icmp redirect inbound allow icmp redirect inbound default deny outbound",
        False,
    ),
    "a line of a target's own may let them out": (
        'untracked dns inbound native nft output "accept" default allow inbound '
        "default deny outbound",
        False,
    ),
}


@pytest.mark.parametrize("name", UNANSWERED)
def test_untracked_traffic_that_nobody_answers(name: str) -> None:
    text, is_told = UNANSWERED[name]
    assert ("answers-denied" in [code for code, _ in told(text)]) == is_told


def test_what_is_told_of_answers_is_so() -> None:
    """The interpreter, too, lets each question pass and denies its answer."""
    for text, is_told in UNANSWERED.values():
        found = linted(text)
        assert found is not None
        if not is_told or "udp" in text:
            continue
        policy = found.subject.policy
        for protocol in (TCP, UDP):
            fates = [
                decide(policy, packet, Moment({}, NOW, True)).accepted
                for packet in _question_and_answer(protocol, text)
            ]
            assert fates == [True, False], text


def _question_and_answer(protocol: int, text: str) -> tuple[Packet, Packet]:
    """An untracked question about a name and its answer, on the path that a policy is about."""
    client, server = ip_address("192.0.2.9"), ip_address("198.51.100.1")
    way_in = None if "dns outbound" in text else "eth1"
    way_out = None if "dns inbound" in text else "eth0"
    kinds = {True: AddressType.LOCAL, False: AddressType.UNICAST}
    question = Packet(
        way_in,
        way_out,
        client,
        server,
        protocol,
        (40_000, 53),
        state=State.UNTRACKED,
        source_type=kinds[way_in is None],
        destination_type=kinds[way_out is None],
        mac=0x02_00_00_00_00_01,
    )
    answer = replace(
        question,
        iif=way_out,
        oif=way_in,
        source=server,
        destination=client,
        ports=(53, 40_000),
        source_type=question.destination_type,
        destination_type=question.source_type,
        tcp_flags=TCP_SYN | TCP_ACK,
    )
    return question, answer


NEVER_ASKED = {
    "by a rule": ("deny telnet inbound log add source to banned", True),
    "by a default": ("default deny inbound add source to banned", True),
    "by a protection": (
        "zone wan { interface eth0 } protect from wan against bad-flags add source to banned",
        True,
    ),
    "in a group that is used": (
        "rules traps { deny telnet add source to banned } traffic inbound { use traps }",
        True,
    ),
    "asked by a rule": (
        "deny all from banned to any deny telnet inbound log add source to banned",
        False,
    ),
    "asked by an exception": (
        "deny telnet inbound log add source to banned allow ssh inbound from any except banned",
        False,
    ),
    "asked by a statement": (
        "zone wan { interface eth0 } deny telnet inbound log add source to banned "
        "mark http from banned to wan as 1",
        False,
    ),
    "filled by hand": ("allow ssh inbound from banned", False),
}


@pytest.mark.parametrize("name", NEVER_ASKED)
def test_a_set_that_is_filled_and_never_asked(name: str) -> None:
    text, is_told = NEVER_ASKED[name]
    codes = [code for code, _ in told(f"set banned = dynamic {text}")]
    assert ("set-never-asked" in codes) == is_told
    assert "unused-declaration" not in codes


# --- comments that silence ------------------------------------------------------------------------

LINES = "set none =\ndeny all inbound from none{}\n"


def warned(text: str) -> list[str]:
    report = Report()
    assert compile_policy(Text(text, "web.policy", Path()), "nft", report) is not None
    return sorted(d.code for d in report.diagnostics)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LINES.format(""), ["empty-set", "matches-nothing"]),
        (LINES.format("  # policylang: allow matches-nothing for later"), ["empty-set"]),
        ("# policylang: allow empty-set for later\n" + LINES.format(""), ["matches-nothing"]),
        (
            "# policylang: allow empty-set for later\n\n# and more\n" + LINES.format(""),
            ["matches-nothing"],
        ),
        (
            LINES.format(" # policylang: allow matches-nothing").replace(
                "none =", "none = # policylang: allow empty-set because"
            ),
            ["bad-allow", "matches-nothing"],
        ),
        (
            LINES.format('\nallow ssh inbound name "# policylang: allow matches-nothing x"'),
            ["empty-set", "matches-nothing"],
        ),
        (
            "set none = # policylang: allow empty-set x\n"
            "deny all # policylang: allow empty-set y\ninbound # policylang: allow empty-set z\n"
            "from none # policylang: allow matches-nothing w\n",
            [],
        ),
    ],
)
def test_a_comment_silences_one_place(text: str, expected: list[str]) -> None:
    assert warned(text) == expected


def test_errors_are_not_silenced() -> None:
    report = Report()
    text = "allow nothing-of-it inbound # policylang: allow unknown-service never mind\n"
    assert compile_policy(Text(text, "web.policy", Path()), "nft", report) is None
    assert {d.code for d in report.diagnostics} == {"unknown-service", "bad-allow"}


def test_every_warning_can_be_found_to_be_silenced_in_vain() -> None:
    """Those that a lint cannot tell are known, and no others are taken for them."""
    outside: set[str] = set()
    inside: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in CODES and place != "codes.py":
                (outside if place.startswith(("apply/", "proving/")) else inside).add(node.value)
    warnings = {code for code, known in CODES.items() if known.severity == "warning"}
    told_here = {one for one in inside if one in warnings} - TOLD_ELSEWHERE
    assert warnings & outside - told_here <= TOLD_ELSEWHERE
    assert warnings >= TOLD_ELSEWHERE


# --- the command --------------------------------------------------------------------------------


def run(policy: str, folder: Path, *options: str) -> int:
    file = folder / "web.policy"
    file.write_text(policy)
    return main(["lint", str(file), *options])


IN_VAIN = "allow ssh inbound\nallow ssh inbound\n"


@pytest.mark.parametrize(
    ("policy", "options", "status"),
    [
        ("allow ssh inbound\n", (), 0),
        (IN_VAIN, (), 2),
        (IN_VAIN, ("--allow", "unreachable"), 0),
        (IN_VAIN, ("--deny", "unreachable"), 1),
        (IN_VAIN, ("--deny", "undone"), 2),
        ("allow sshh inbound\n", (), 1),
        (IN_VAIN.rstrip() + "  # policylang: allow unreachable it is an example\n", (), 0),
        ("allow ssh inbound  # policylang: allow unreachable it was\n", (), 2),
    ],
)
def test_the_exit_status_says_what_was_found(
    policy: str, options: tuple[str, ...], status: int, tmp_path: Path
) -> None:
    assert run(policy, tmp_path, *options) == status


def test_findings_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(IN_VAIN, tmp_path, "--format", "json") == 2
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["code"], found["line"], found["labels"][0]["line"]) == ("unreachable", 2, 1)


def test_a_code_that_is_none_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(IN_VAIN, tmp_path, "--allow", "unreachabel") == 1
    assert "did you mean `unreachable`?" in capsys.readouterr().err


def test_a_policy_for_one_target_is_linted(tmp_path: Path) -> None:
    assert run('native nft input "accept"\nallow ssh inbound log\n', tmp_path) == 0
