"""What the kernel, its programs and the disk answer, brought about without any of them."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest

from policylang.analysis import agreement, diagram, questions
from policylang.analysis.lints import redundant
from policylang.analysis.proofs import Shown, prove_tests
from policylang.apply import (
    boot_units,
    conntrack,
    flows,
    forwarding,
    guard,
    kernel,
    members,
    modules,
    netlink,
    nft,
    operator,
    panic,
    present,
    probing,
    programs,
    proved,
    proxy_routes,
    published,
    refreshing,
    restore,
    routing,
    xtables,
)
from policylang.apply.conntrack import FlowTuple
from policylang.apply.flows import Flow
from policylang.apply.guard import Site, Written
from policylang.apply.listing import Listing
from policylang.apply.loaded import Chain, Loaded
from policylang.apply.programs import Finished
from policylang.apply.record import Record, State
from policylang.apply.routing import Routing
from policylang.apply.transaction import Rehearsal
from policylang.apply.xtables_engine import XtablesEngine
from policylang.backends.base import Artifact
from policylang.backends.nft import TABLE
from policylang.cli import (
    changing,
    golden,
    golden_cases,
    linting,
    output,
    sets,
    subjects,
    testing,
    tracing,
    whence,
)
from policylang.cli.options import CHANGES, REFUSED
from policylang.cli.teller import Teller
from policylang.diagnostics import Report
from policylang.ir.ruleset import NO_NEEDS, Needs, ProxyRoute
from policylang.lower.stateful import lower
from policylang.model.expectations import SessionExpectation
from policylang.packets.fields import AddressType
from policylang.packets.values import Ranges, parse_one_address
from policylang.pipeline import Text, compile_policy, lists_of, lowered, policy_of, ruleset_of
from policylang.syntax.locks import Locked
from tests.apply.fake_engine import FakeEngine, KilledError, in_place

Trigger = Callable[[Report, Path, pytest.MonkeyPatch], None]
Answer = Callable[[Sequence[str]], Finished]

BY = Written("web.policy", {}, "root")
POLICY = "zone wan { interface eth0 }\nallow ftp inbound from wan\n"


def compiled(target: str, policy: str = POLICY) -> Artifact:
    artifact = compile_policy(Text(policy, "web.policy", Path()), target, Report())
    assert artifact is not None
    return artifact


def needed(policy: str = POLICY) -> Needs:
    return compiled("nft", policy).needs


def answering(patch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Answer in the place of every program that is run, of which a silent kernel is no part."""

    def run(argv: Sequence[str], report: Report, **options: object) -> Finished:
        return answer(argv)

    patch.setattr(programs, "run", run)
    patch.setattr(present, "nft_tables", lambda: None)
    patch.setattr(present, "legacy_tables", lambda program: None)
    patch.setattr(present, "ipsets", lambda: None)


def failing(program: str, words: str, status: int = 1) -> Answer:
    return lambda argv: Finished(program, status, "", words)


def refused_by_kernel(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    artifact = compiled("nft")
    lines = artifact.files[0].text.splitlines()
    number = next(n for n, line in enumerate(lines, 1) if 'ct helper set "ftp-tcp"' in line)
    words = f"/proc/self/fd/3:{number}:3-60: Error: Could not process rule: No such file\n"
    answering(patch, failing("nft", words))
    assert not nft.rehearse(artifact, report)


def loading_failed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    answering(patch, failing("nft", "", status=-11))
    assert not nft.rehearse(compiled("nft"), report)


def left_behind(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    answering(patch, failing("nft", "Error: Could not process rule: Device or resource busy\n"))
    assert not nft.remove(report)


def lock_held(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    words = "Another app is currently holding the xtables lock; still 0s to wait.\n"
    answering(patch, failing("iptables-restore", words, status=4))
    assert restore.restore(restore.tools(restore.Flavour.LEGACY)[0], (), report) is None


def not_restored(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """The rules for IPv4 are loaded, those for IPv6 are refused, and then everything is."""
    ours = "*filter\n:policylang-input - [0:0]\n-A policylang-input -j DROP\nCOMMIT\n"
    done: list[str] = []

    def answer(argv: Sequence[str]) -> Finished:
        name = argv[0]
        if name.endswith("-save"):
            loaded = done and name.startswith("iptables")
            return Finished(name, 0, ours if loaded else "", "")
        if "--test" in argv or (name.startswith("iptables") and not done):
            done.extend([] if "--test" in argv else [name])
            return Finished(name, 0, "", "")
        return Finished(name, 1, "", f"{name}: out of memory\n")

    answering(patch, answer)
    tools = restore.tools(restore.Flavour.LEGACY)
    assert not xtables.load(compiled("iptables"), tools, report)


def cannot_arm(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(programs, "find", lambda program: None)
    engine = XtablesEngine(restore.tools(restore.Flavour.NFT))
    assert not engine.arm(compiled("iptables"), 60, report)


def too_late(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Nothing is pending any more."""
    answering(patch, lambda argv: Finished(argv[0], 0, "", ""))
    engine = XtablesEngine(restore.tools(restore.Flavour.NFT))
    assert not engine.keep(compiled("iptables"), report)


def no_such_namespace(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "router").touch()
    patch.setattr(kernel, "NAMESPACES", folder)
    assert kernel.in_netns("rooter", lambda: 1, report) is None


def not_permitted(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Denied:
        def unshare(self, flags: int) -> int:
            ctypes.set_errno(errno.EPERM)
            return -1

    patch.setattr(kernel, "_libc", Denied)
    assert kernel.in_scratch(lambda: 1, report) is None


def program_missing(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(programs, "find", lambda program: None)
    assert programs.run(["ipset", "list"], report) is None


def module_missing(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / os.uname().release).mkdir()
    patch.setattr(modules, "FOLDER", folder)
    patch.setattr(modules, "LOADED", folder / "none")
    words = "modprobe: FATAL: Module nf_conntrack_ftp not found in directory /lib/modules/6.1.0\n"
    answering(patch, failing("modprobe", words))
    assert modules.load(needed().modules, report) is None


def helper_missing(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def run(argv: Sequence[str], report: Report, *, stdin: str) -> Finished:
        return Finished(argv[0], int("--helper" in stdin), "", "iptables: No such file\n")

    patch.setattr(programs, "run", run)
    assert probing.report_missing(needed(), restore.tools(restore.Flavour.LEGACY), report)


ROUTER = "zone lan { interface eth0 }\nallow http from lan to 192.0.2.0/24, 2001:db8::/32\n"


def not_forwarding(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, text: str) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (folder / "net" / "ipv4").mkdir(parents=True)
    (folder / "net" / "ipv4" / "ip_forward").write_text("0\n")
    patch.setattr(forwarding, "SYSCTLS", folder)
    patch.setattr(Path, "write_text", refused)
    assert forwarding.switch_on(needed(ROUTER).forwards, report) == ()


def advertisements_ignored(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name, value in (("all/forwarding", "0\n"), ("eth1/accept_ra", "1\n")):
        path = folder / "net" / "ipv6" / "conf" / name
        path.parent.mkdir(parents=True)
        path.write_text(value)
    zeros, router = "0" * 32, "fe80" + "0" * 27 + "1"
    route = f"{zeros} 00 {zeros} 00 {router} 00000400 00000001 00000000 00450003     eth1\n"
    (folder / "ipv6_route").write_text(route)
    patch.setattr(forwarding, "SYSCTLS", folder)
    patch.setattr(forwarding, "ROUTES", folder / "ipv6_route")
    assert forwarding.switch_on(needed(ROUTER).forwards, report)


PROXY_ROUTE = ProxyRoute(1, 1, (4,))


def no_proxy_route(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def answer(argv: Sequence[str]) -> Finished:
        words = "Error: Nexthop device is not up.\n"
        return Finished("ip", 0, "[]", "") if "show" in argv else Finished("ip", 2, "", words)

    answering(patch, answer)
    assert proxy_routes.lay(PROXY_ROUTE, report) == ()


def foreign_route(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    rule = [{"priority": 700, "src": "all", "table": "100"}]
    listed = {"rule": json.dumps(rule), "route": "[]"}
    answering(patch, lambda argv: Finished("ip", 0, listed[argv[4]] if "show" in argv else "", ""))
    assert proxy_routes.lay(PROXY_ROUTE, report)


def published_ports(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    port = published.Published(published.DOCKER, "tcp", 4, None, "8080", "172.17.0.2:80")
    patch.setattr(published, "found", lambda: iter((port,)))
    published.warn(NO_NEEDS, report)
    assert not report.diagnostics
    published.warn(needed(POLICY + "deny all inbound from wan\n"), report)
    published.warn(needed(POLICY + "deny ssh inbound\ndefault allow forward\n"), report)


BANNED = """\
table inet policylang {
	set banned-v4 {
		type ipv4_addr
		size 2
		flags dynamic,timeout
		elements = { 192.0.2.1, 192.0.2.2 timeout 1h expires 59m }
	}

	set banned-v6 {
		type ipv6_addr
		size 2
		flags dynamic,timeout
	}
}
"""


def with_banned(patch: pytest.MonkeyPatch) -> None:
    """A set of two addresses, which has room for no other of IPv4."""
    patch.setattr(kernel, "may_change", lambda report: True)
    answering(patch, lambda argv: Finished("nft", 0, "" if "ipset" in argv else BANNED, ""))
    patch.setattr(present, "nft_tables", lambda: frozenset({TABLE}))


def no_such_set(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    with_banned(patch)
    assert members.listed("baned", report, netns=None) is None


def no_such_element(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    with_banned(patch)
    addresses = [parse_one_address(text) or 0 for text in ("192.0.2.1", "192.0.2.9")]
    assert members.delete("banned", addresses, report, netns=None) is None


def set_full(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    with_banned(patch)
    addresses = [parse_one_address(text) or 0 for text in ("2001:db8::1", "192.0.2.9")]
    assert members.add("banned", addresses, None, report, netns=None) is None


def bad_element(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    chosen = Namespace(action="add", name="banned", addresses=["192.0.2.0/24"], timeout=None)
    assert sets.run(chosen, report) == REFUSED


def source_failed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def unknown(name: str, *given: object, **named: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    patch.setattr(socket, "getaddrinfo", unknown)
    (folder / "web.policy").write_text('set cdn = resolve "cdn.example", "www.example"\n')
    lists = lists_of(folder / "web.policy", report)
    assert lists is not None
    before = datetime.now(UTC) - timedelta(hours=3)
    lock = {"resolve cdn.example": Locked(Ranges.of(1, 7), before)}
    spans = {one.source: one.origins[0].span for one in lists}
    assert refreshing.refreshed(spans, lock, report, only_due=True).has_failed


def cannot_write(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "out").mkdir()
    patch.chdir(folder)
    output.write_file(Path("out"), "", report)


def refused(protocol: int) -> NoReturn:
    raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))


def flows_unknown(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    ruleset = ruleset_of(Text(POLICY, "web.policy", folder), Report())
    assert ruleset is not None
    patch.setattr(netlink, "opened", refused)
    assert flows.to_cut(ruleset, report) == ()


def flows_not_cut(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    ends = FlowTuple(4, 6, 1, 2, 50_000, 22)
    flow = Flow(conntrack.Connection(ends, ends, found={1: b""}), None, may_return=True)
    patch.setattr(netlink, "opened", refused)
    patch.setattr(flows, "PICK_UP", folder)
    assert flows.cut([flow], report) == 0


SSH = operator.Connection(parse_one_address("192.0.2.7") or 0, 50_000, 1, 22)


def operator_shut_out(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    routes = Routing({SSH.here: AddressType.LOCAL}, {}, {4: None, 6: None}, {})
    patch.setattr(routing, "read", lambda: routes)
    patch.setattr(nft, "live_sets", lambda report: None)
    banning = "set banned = dynamic\ndeny all inbound from banned\nallow ssh inbound\n"
    for policy in (f"{POLICY}deny ssh inbound\n", banning):
        ruleset = ruleset_of(Text(policy, "web.policy", folder), Report())
        assert ruleset is not None
        warning = operator.shut_out(ruleset, SSH)
        assert warning is not None
        report.add(warning.code, warning.message, warning.span, help=warning.help)


def panic_in_tunnel(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(operator, "tunnel", lambda connection: "wg0")
    error = panic.cut_off(SSH)
    assert error is not None
    report.add(error.code, error.message, error.span, help=error.help)


def kept(patch: pytest.MonkeyPatch, folder: Path) -> Record:
    """A record that holds a generation; what is told of it holds no place of this machine's."""
    patch.chdir(folder)
    record = Record(Path("policylang"))
    made = record.keep(
        compiled("nft"),
        way="nft",
        policy_name="web.policy",
        parameters={},
        made_by="root",
        report=Report(),
    )
    assert made is not None
    return record


def cannot_keep(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "generation.json")

    record = kept(patch, folder)
    patch.setattr(os, "fsync", full)
    assert not record.set_state(State("boot", 1), report)
    assert not record.keep(
        compiled("nft"),
        way="nft",
        policy_name="web.policy",
        parameters={},
        made_by="root",
        report=report,
    )


def no_such_generation(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    assert kept(patch, folder).artifact(7, report) is None


def damaged_generation(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    record = kept(patch, folder)
    Path("policylang/generations/000001/policylang.nft").write_text("")
    assert record.artifact(1, report) is None


def generation_left_out(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    record = kept(patch, folder)
    Path("policylang/generations/000001/way").unlink()
    assert record.kept(report) == ()


def damaged_state(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    record = kept(patch, folder)
    Path("policylang/state.json").write_text("{}")
    assert record.state(report) is None


def not_saved_for_boot(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    record = kept(patch, folder)
    Path("policylang/boot").mkdir()
    Path("policylang/boot/mine").touch()
    assert not record.confirm_for_boot(1, report, root=folder)


def site(patch: pytest.MonkeyPatch, folder: Path) -> tuple[FakeEngine, Site]:
    """Where nothing is in force, and any change is made by a value."""
    engine = FakeEngine()
    in_place(patch, engine)
    patch.chdir(folder)
    return engine, Site(None, Record(Path("policylang")))


def change(
    where: Site, report: Report, policy: str = POLICY, confirm_s: int | None = None
) -> guard.Plan:
    """Put a policy in force; the plan by which that was done."""
    plan = guard.plan(compiled("nft", policy), where, report)
    assert plan is not None
    guard.carry_out(plan, where, BY, report, confirm_s=confirm_s)
    return plan


def changed_meanwhile(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    _, where = site(patch, folder)
    plan = change(where, Report())
    assert guard.carry_out(plan, where, BY, report) is None


def not_yet_confirmed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    _, where = site(patch, folder)
    plan = change(where, Report(), confirm_s=60)
    assert guard.carry_out(plan, where, BY, report) is None


def proof(report: Report, listing: str) -> None:
    """Prove the policy, of which the kernel lists that in its rehearsal."""
    meant = lowered(Text(POLICY, "web.policy", Path()), Report())
    assert meant is not None
    rehearsal = Rehearsal(Loaded(), Listing("nft", json=listing))
    proved.is_proved(meant, rehearsal, FakeEngine(), report)


def not_as_meant(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    proof(report, '{"nftables": []}')


def not_proved(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    proof(report, '{"nftables": [')


def unproved(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object) -> NoReturn:
        raise diagram.TooLargeError

    patch.setattr(agreement.Ground, "followed", too_large)
    proof(report, '{"nftables": []}')


def nothing_to_confirm(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    assert guard.confirm(site(patch, folder)[1], report) is None


def not_as_rehearsed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    _, where = site(patch, folder)
    patch.setattr(FakeEngine, "rehearse", lambda *_: Loaded((Chain("chain input", "", ()),)))
    change(where, report)


def nobody_to_ask(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "stdin", None)
    chosen = Namespace(yes=False, json=False, netns=None, format="text", color="never")
    teller = Teller(chosen, "stop", report)
    assert changing.stop(teller.chosen, teller) == REFUSED


def recovered(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    engine, where = site(patch, folder)
    engine.killed_in, engine.is_done_then = "load", True
    with pytest.raises(KilledError):
        change(where, Report())
    assert guard.at(where, lambda state: state.current, report) == 1


def not_confirmed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    engine, where = site(patch, folder)
    change(where, Report(), confirm_s=60)
    engine.left_ms = 0
    assert guard.at(where, lambda state: state, report)


def swept(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    engine, where = site(patch, folder)
    change(where, Report())
    change(where, Report(), POLICY.replace("ftp", "ssh"), confirm_s=60)
    engine.remove(Report())
    assert guard.at(where, lambda state: state, report)


def nothing_confirmed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    assert boot_units.install(folder, report, program=["policylang"])


# --- what tests of policies prove ---------------------------------------------------------------


def tested(report: Report, text: str, **options: object) -> int:
    """Prove the tests of a policy, with what is told of them put into the report."""
    chosen = Namespace(
        **{
            "name": None,
            "parameters": {},
            "format": "text",
            "color": "never",
            "kernel": False,
            **options,
        }
    )
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return testing.run(chosen, [("web.policy", Text(text, "web.policy", Path()))], report)


def expectation_failed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    text = """\
set admins = 192.0.2.0/24
allow ssh inbound from admins
allow ping inbound during 08:00-18:00
dnat tcp 2222 from any to 10.0.2.11 port 22
test "who gets in" {
  expect deny ssh inbound
  expect allow ping inbound
  expect deny ssh from any to 10.0.2.11
  expect some reject http inbound
  expect reject http inbound with tcp-reset, admin-prohibited
  expect allow http from self to self
}
"""
    own = Report()
    policy = policy_of(Text(text, "web.policy", folder), own)
    assert policy is not None
    for result in prove_tests(policy, lower(policy, own), policy.tests, no_sessions, own):
        for one in result.shown:
            assert one.failure is not None
            told = one.failure
            report.add(told.code, told.message, told.span, help=told.help, labels=told.labels)


def no_sessions(expectation: SessionExpectation) -> Shown:
    raise AssertionError("no session is expected")


def no_such_test(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    text = 'allow ssh inbound test "ssh is open" { expect allow ssh inbound }'
    assert tested(report, text, name="*ftp*") == REFUSED


def too_large(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(diagram, "MOST_NODES", 3000)
    patch.setattr(questions, "Space", lambda: diagram.Space(3000))
    text = 'allow ssh inbound test "ssh is open" { expect allow ssh inbound }'
    assert tested(report, text) == REFUSED


def lint_limit(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(redundant, "MOST_STATEMENTS", 1)
    policy = folder / "web.policy"
    policy.write_text("untracked dns inbound\nuntracked ntp inbound\n")
    linting.lint("web.policy", policy, {}, report)


def bad_trace(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    tracing.words_of(["packet", "tcp", "22", "inbound", "flags", "syn,fun"], report)


def unreadable_rules(report: Report, folder: Path, _patch: pytest.MonkeyPatch) -> None:
    """What `nft -j list ruleset` wrote, cut off."""
    (folder / "rules.json").write_text('{"nftables": [\n{"table": {"family": "inet", "na')
    with chdir(folder):
        subjects.subject_of("rules.json", report, parameters={})


def no_such_revision(report: Report, folder: Path, _patch: pytest.MonkeyPatch) -> None:
    """A revision that git does not know."""
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    with chdir(folder):
        subjects.subject_of("v2:web.policy", report, parameters={})


def git_failed(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Git is not installed."""
    patch.setenv("PATH", str(folder))
    with chdir(folder):
        subjects.subject_of("v2:web.policy", report, parameters={})


def nothing_asked(report: Report, _folder: Path, patch: pytest.MonkeyPatch) -> None:
    """`policylang why` without a word."""
    whence.asked_of(["  "], report)


def bad_params(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "web.params").write_text("uplink = eth0\nuplink eth1\nuplink = eth2\n")
    golden_cases.parameters_beside(folder / "web.policy", report)


def bad_targets(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    path = folder / "web.targets"
    for text in ("nft\npf # on another system\n", "# none\n"):
        path.write_text(text)
        golden_cases.targets_beside(folder / "web.policy", report)


def no_policies(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    Path("site").mkdir()
    assert kept_beside(report) == REFUSED


def golden_differs(report: Report, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    Path("site").mkdir()
    Path("site/web.policy").write_text("allow ssh inbound")
    assert kept_beside(report) == CHANGES


def kept_beside(report: Report) -> int:
    """What `policylang golden site --format sarif` tells; its status."""
    patch = pytest.MonkeyPatch()
    with patch.context() as inner, redirect_stdout(StringIO()):
        inner.setattr(golden, "show", lambda told, chosen, stream: report.take(told))
        chosen = Namespace(
            paths=["site"], targets=None, update=False, format="sarif", inventory=[], host=None
        )
        return golden.run(chosen, Report())


TRIGGERS: dict[str, Trigger] = {
    trigger.__name__.replace("_", "-"): trigger
    for trigger in (
        unreadable_rules,
        no_such_revision,
        git_failed,
        nothing_asked,
        not_as_meant,
        not_proved,
        unproved,
        refused_by_kernel,
        loading_failed,
        left_behind,
        lock_held,
        not_restored,
        cannot_arm,
        too_late,
        no_such_namespace,
        not_permitted,
        program_missing,
        module_missing,
        helper_missing,
        not_forwarding,
        advertisements_ignored,
        no_proxy_route,
        foreign_route,
        published_ports,
        flows_unknown,
        flows_not_cut,
        operator_shut_out,
        panic_in_tunnel,
        no_such_set,
        no_such_element,
        set_full,
        bad_element,
        source_failed,
        cannot_write,
        cannot_keep,
        no_such_generation,
        damaged_generation,
        generation_left_out,
        damaged_state,
        not_saved_for_boot,
        nothing_confirmed,
        changed_meanwhile,
        not_yet_confirmed,
        nothing_to_confirm,
        not_as_rehearsed,
        nobody_to_ask,
        recovered,
        not_confirmed,
        swept,
        expectation_failed,
        no_such_test,
        too_large,
        bad_trace,
        lint_limit,
        bad_params,
        bad_targets,
        no_policies,
        golden_differs,
    )
}
