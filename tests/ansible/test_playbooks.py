"""What a playbook can say: check, diff, apply, a second run, what is in force, a filter, a role.

The controller is the target itself; over SSH it is done by `test_fleet.py`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.kernel.ground import REPOSITORY, Loader

from .controller import Controller

APPLY = """\
- policylang.firewall.apply:
    policy: web.policy
    target: {target}
    flavour: "{flavour}"
    confirm: 20
"""
INFO = "- policylang.firewall.info:\n"
WEB = "allow http, https inbound\nallow ssh inbound\n"


def apply(loader: Loader) -> str:
    """A task that applies `web.policy` by a way."""
    flavour = None if loader.flavour is None else loader.flavour.value
    text = APPLY.format(target=loader.target, flavour=flavour)
    return text if flavour else text.replace('    flavour: "None"\n', "")


def whatever_comes(*tasks: str) -> str:
    """Tasks that are all done, whichever of them fail."""
    return "".join(f"{task}  ignore_errors: true\n" for task in tasks)


def write(local: Controller, text: str) -> None:
    (local.folder / "web.policy").write_text(text)


def listed(local: Controller) -> str:
    texts = (
        local.namespace.run(argv).stdout
        for argv in (
            ["nft", "--stateless", "list", "ruleset"],
            ["iptables-legacy-save"],
            ["ip6tables-legacy-save"],
        )
    )
    lines = (line for text in texts for line in text.splitlines())
    return "\n".join(line for line in lines if not line.startswith(("#", ":")))


def test_a_task_is_changed_exactly_when_the_rules_are(local: Controller) -> None:
    """By one loader; the hosts of the fleet have one each, over SSH."""
    loader = Loader.NFT
    write(local, WEB)
    before, kept = listed(local), local.folder / "kept"
    checked = local.play(apply(loader) + INFO, "--check", policylang_folder=str(kept)).tasks
    assert [one.changed for one in checked] == [True, False]
    assert checked[0].result["way"] == loader.value
    assert checked[1].result["in_force"] is None
    assert listed(local) == before
    assert not kept.exists()
    assert not (local.folder / "state").exists()

    applied = local.play(apply(loader) * 2 + INFO).tasks
    rules = listed(local)
    assert rules != before
    assert [one.changed for one in applied] == [True, False, False]
    assert not any(one.result["rolled_back"] for one in applied[:2])
    told = applied[2].result
    assert told["in_force"]["generation"] == told["at_boot"]["generation"] == 1
    assert told["in_force"]["policy"].endswith("web.policy")
    assert not told["drifted"]
    assert told["pending"] is None
    assert told["ways"] == [loader.value]

    again = local.play(apply(loader), "--check", "--diff")
    assert not again.last.changed
    assert listed(local) == rules


def test_a_diff_tells_the_meaning_first_and_then_the_rules(local: Controller) -> None:
    """By one loader; the hosts of the fleet have one each."""
    loader = Loader.NFT
    write(local, WEB)
    assert local.play(apply(loader)).last.changed
    rules = listed(local)
    write(local, "allow http inbound\nallow ssh inbound from 192.0.2.0/24\n")
    played = local.play(apply(loader), "--check", "--diff")
    assert listed(local) == rules
    meaning, lines = played.last.result["diff"]
    assert "newly denied" in meaning["prepared"]
    assert "443" in meaning["prepared"]
    assert "newly allowed" not in meaning["prepared"]
    assert lines["before"] != lines["after"]
    where = played.text.index
    assert (
        where("newly denied") < where("--- before: rules in force") < where("+++ after: rules of")
    )


def test_rules_of_another_program_are_what_a_first_apply_is_compared_with(
    local: Controller,
) -> None:
    rules = "table inet own { chain i { type filter hook input priority 0; tcp dport 80 drop; }; }"
    local.namespace.run(["nft", rules])
    write(local, "allow http inbound\ndefault allow inbound\ndefault allow forward\n")
    played = local.play(apply(Loader.NFT), "--check", "--diff")
    meaning, _ = played.last.result["diff"]
    assert meaning["prepared"].startswith("what is in force → ")
    assert "+ inbound" in meaning["prepared"]


def test_what_another_program_changed_is_told_and_mended(local: Controller) -> None:
    write(local, WEB)
    local.play(apply(Loader.NFT))
    rules = listed(local)
    local.namespace.run(["nft", "insert", "rule", "inet", "policylang", "input", "accept"])
    info, applied, after = local.play(INFO + apply(Loader.NFT) + INFO).tasks
    assert info.result["drifted"]
    (change,) = info.result["drift"]
    assert change["before"] is None
    assert change["after"] == "accept"
    assert applied.changed
    assert not after.result["drifted"]
    assert listed(local) == rules


def test_a_change_of_target_is_not_armed(local: Controller) -> None:
    write(local, WEB)
    to_iptables = apply(Loader.IPTABLES_NFT)
    for_good = to_iptables.replace("confirm: 20", "confirm: 0")
    assert local.play(apply(Loader.NFT)).last.changed
    rules = listed(local)
    checked = f"{to_iptables}  check_mode: true\n"
    for refused in local.play(whatever_comes(to_iptables, checked)).tasks:
        assert refused.status == "failed"
        assert "from nft to iptables-nft cannot be armed" in refused.result["msg"]
    assert listed(local) == rules
    applied, told = local.play(for_good + INFO).tasks
    assert applied.changed
    assert told.result["ways"] == ["iptables-nft"]


def test_variables_reach_the_policy_as_parameters(local: Controller) -> None:
    tasks = """\
- policylang.firewall.apply:
    content: |
      param admins
      param door = 22
      allow tcp $door inbound from $admins
    parameters:
      admins: "{{ networks }}"
      door: 2222
    confirm: 0
- policylang.firewall.info:
"""
    applied, told = local.play(tasks, networks=["192.0.2.0/24", "2001:db8::/32"]).tasks
    assert applied.changed, applied
    assert told.result["in_force"]["parameters"] == {
        "admins": "192.0.2.0/24, 2001:db8::/32",
        "door": "2222",
    }
    rules = local.namespace.run(["nft", "list", "table", "inet", "policylang"]).stdout
    assert "tcp dport 2222" in rules
    assert "192.0.2.0/24" in rules
    assert "2001:db8::/32" in rules


def refused(local: Controller, *tasks: str) -> list[str]:
    """What is said of tasks none of which is done, in one playbook; nobody sees a traceback."""
    before = listed(local)
    played = local.play("".join(f"- {task}\n  ignore_errors: true\n" for task in tasks))
    assert [one.status for one in played.tasks] == ["failed"] * len(tasks), played.text
    assert not any(one.changed for one in played.tasks)
    assert "Traceback" not in played.text
    assert listed(local) == before
    return [str(one.result["msg"]) for one in played.tasks]


def test_a_mistake_is_told_in_the_compilers_words(local: Controller) -> None:
    """Where it is found here, and where the target finds it."""
    policies = {"here": "allow ftpp inbound\n", "there": "allow ssh outbound user no-such-user\n"}
    for name, text in policies.items():
        (local.folder / f"{name}.policy").write_text(text)
    tasks = (f"policylang.firewall.apply: {{policy: {name}.policy}}" for name in policies)
    here, there = refused(local, *tasks)
    assert here.startswith("error[unknown-service]: no service named `ftpp`\n  --> here.policy:1:")
    assert there.startswith("error[refused-by-kernel]")
    assert "--> there.policy:1:" in there


WRONG = {
    "{}": "policy, content",
    "{content: '', target: pf}": "must be one of: nft, iptables",
    "{policy: none.policy}": "none.policy",
    "{policy: ''}": "`policy` names no file",
    "{content: '', parameters: {a: {b: c}}}": "stands for {'b': 'c'}, the parameter `a`",
    "{content: '', parameters: {a: [192.0.2.1, null]}}": "no text of the language stands for None",
    "{content: '', parameters: {a: 1}}": "error[unknown-parameter]",
    "{content: '', flavour: legacy}": "`flavour` is for `target: iptables`",
    "{content: '', confirm: -1}": "up to 3600, or 0, not -1",
    "{content: '', confirm: 3601}": "up to 3600, or 0, not 3601",
    "{content: 'set drop = url \"https://lists.example/\"', confirm: 0}": "error[not-locked]",
}


def test_a_wrong_option_is_told(local: Controller) -> None:
    tasks = [f"policylang.firewall.apply: {given}" for given in WRONG]
    *said, of_info = refused(local, *tasks, "policylang.firewall.info: {all: true}")
    for words, wanted in zip(said, WRONG.values(), strict=True):
        assert wanted in words, words
    assert "Unsupported parameters" in of_info


def test_a_filter_compiles(local: Controller) -> None:
    tasks = """\
- ansible.builtin.debug:
    msg:
      - "{{ policy | policylang.firewall.compile(parameters={'door': 2222}) }}"
      - "{{ policy | policylang.firewall.compile('iptables', parameters={'door': 2222}) }}"
"""
    played = local.play(tasks, policy="param door\nallow tcp $door inbound\n")
    script, files = played.last.result["msg"]
    assert script.startswith("#!")
    assert "tcp dport 2222" in script
    assert "--dport 2222 " in files["rules.v4"]
    assert "--dport 2222 " in files["rules.v6"]
    said = refused(
        local,
        "debug: msg=\"{{ 'allow' | policylang.firewall.compile }}\"",
        "debug: msg=\"{{ 'allow ssh inbound' | policylang.firewall.compile('pf') }}\"",
    )
    assert "error[syntax]" in said[0]
    assert "there is no target `pf`: nft and iptables are" in said[1]


def test_an_old_python_on_a_target_is_told(local: Controller, tmp_path: Path) -> None:
    write(local, WEB)
    site = tmp_path / "old"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n")
    played = local.play(
        f"- environment: {{PYTHONPATH: {site}}}\n"
        "  policylang.firewall.apply: {policy: web.policy}\n"
    )
    assert played.last.status == "failed"
    assert "a target needs Python 3.11 or later" in played.last.result["msg"]


def test_what_is_not_proved_is_not_loaded(local: Controller) -> None:
    """A target whose nft makes something else of a rule: what it lists gives it away."""
    write(local, "allow ssh inbound\n")
    before = listed(local)
    programs = local.folder / "programs"
    programs.mkdir()
    (programs / "nft").write_text(
        "#!/bin/sh\n"
        'if [ "$1" = -j ]; then /usr/sbin/nft "$@" | sed "s/: 22}/: 23}/"; '
        'else exec /usr/sbin/nft "$@"; fi\n'
    )
    (programs / "nft").chmod(0o755)
    path = f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"
    played = local.play(f"- environment: {{PATH: '{path}'}}\n  {apply(Loader.NFT)[2:]}")
    assert played.last.status == "failed"
    assert "error[not-as-meant]" in played.last.result["msg"], played.text
    assert listed(local) == before


def test_a_controller_without_policylang_is_told(local: Controller) -> None:
    (local.folder / "policylang.py").write_text("raise ImportError('not here')\n")
    path = f"{local.folder}:{REPOSITORY}"
    without = replace(local, settings={**local.settings, "PYTHONPATH": path})
    tasks = ("apply: {content: ''}", "info: {}", "boot: {}")
    played = without.play(whatever_comes(*(f"- policylang.firewall.{one}\n" for one in tasks)))
    assert len(played.tasks) == len(tasks)
    for told in played.tasks:
        assert told.status == "failed"
        assert "policylang is not installed for the Python" in told.result["msg"]


def test_machines_and_groups_of_the_inventory_are_hosts_and_sets(local: Controller) -> None:
    """One playbook, three machines; two of them are called otherwise in the policy."""
    inventory = """\
[web]
web1 ansible_host=192.0.2.1
web2.example policylang_name=web2 policylang_addresses='["192.0.2.2", "2001:db8::2"]'
[db]
192.0.2.9 policylang_name=db1
"""
    site = replace(local, inventory=inventory)
    tasks = """\
- policylang.firewall.apply:
    content: |
      default deny outbound
      allow postgresql from web to db
    inventory: true
"""
    played = site.play(tasks, "--check", "--diff")
    rules = {one.host: one.result["diff"][1]["after"] for one in played.tasks}
    for machine, clients in {
        "192.0.2.9": "192.0.2.1-192.0.2.2",
        "web1": "192.0.2.1",
        "web2.example": "192.0.2.2",
    }.items():
        rule = f"ip saddr {clients} ip daddr 192.0.2.9 tcp dport 5432 accept"
        assert rule in rules[machine]
    for found, made, words in (
        ("policylang_name=web2", "", "`web2.example` of the inventory is no name of the language"),
        ("policylang_name=web2", "policylang_name=web1", "two machines `web1`: web1 and web2"),
        (
            "192.0.2.2",
            "192.0.2.2 gateway",
            "`192.0.2.2 gateway`, which the inventory has for `web2`",
        ),
    ):
        wrong = replace(local, inventory=inventory.replace(found, made))
        told = wrong.play(tasks, "--check", "--limit", "web1").last.result
        assert words in told["msg"]
    less = replace(local, inventory=inventory.replace("web1 ansible_host=192.0.2.1", "web1"))
    played = less.play(tasks, "--check")
    assert played.of("web1")[0].result["msg"].startswith("`web1` of the inventory has no address")
    other = played.of("192.0.2.9")[0]
    assert other.status == "failed"
    words = "rules about the group `web` would not be about web1: no address is known"
    assert other.result["msg"].startswith(words)


def test_a_change_that_waits_hinders_others(local: Controller) -> None:
    """Two controllers: the first died between its change and the confirmation."""
    write(local, WEB)
    options = ("apply", "--yes", "--confirm", "60s", str(local.folder / "web.policy"))
    env = {"POLICYLANG_STATE": str(local.folder / "state")}
    local.namespace.run([sys.executable, "-m", "policylang", *options], 60, env=env)
    write(local, "allow http inbound\n")
    for check in ((), ("--check",)):
        played = local.play(apply(Loader.NFT), *check)
        assert played.last.status == "failed"
        assert "generation 1 is in force, and waits to be confirmed" in played.last.result["msg"]
        assert "`policylang " not in played.last.result["msg"]  # which the target does not have


def test_a_change_of_which_nothing_was_heard_is_asked_for(local: Controller) -> None:
    """The connection broke off with it: over a new one it is confirmed, if it is still there."""
    python = local.folder / "python"
    python.write_text(MUTE.format(seen=local.folder / "seen"))
    python.chmod(0o755)
    mute = replace(local, variables={"ansible_python_interpreter": str(python)})
    write(local, WEB)
    applied, told = mute.play(apply(Loader.NFT) + INFO).tasks
    assert applied.changed, applied
    assert (local.folder / "seen").exists()
    assert not applied.result["rolled_back"]
    assert told.result["pending"] is None
    assert told.result["in_force"]["generation"] == applied.result["generation"] == 1

    rules = listed(local)
    python.write_text(MUTE.format(seen="/dev/null/none"))
    write(local, "allow http inbound\n")
    lost = mute.play(apply(Loader.NFT).replace("confirm: 20", "confirm: 4")).last
    assert lost.status == "failed"
    assert lost.result["rolled_back"] is True
    assert not lost.changed
    assert "nothing was heard of the change" in lost.result["msg"]
    assert "generation 1 is in force" in lost.result["msg"]
    assert listed(local) == rules


# A target's Python that says nothing while a change waits: once, if it can remember.
MUTE = """\
#!/bin/sh
said=$(mktemp)
/usr/bin/python3 "$@" >"$said"
status=$?
if [ ! -e {seen} ] && nft list tables | grep -q policylang-pending; then
    touch {seen}
    rm "$said"
    exit 1
fi
cat "$said"
rm "$said"
exit $status
"""


def test_the_role_does_it_all_in_check_mode(local: Controller) -> None:
    write(local, WEB)
    tasks = """\
- ansible.builtin.include_role: {name: policylang.firewall.firewall}
  vars:
    firewall_policy: "{{ playbook_dir }}/web.policy"
    firewall_install: false
"""
    played = local.play(tasks, "--check")
    by_task = {one.task.rpartition(" : ")[2]: one for one in played.tasks}
    assert by_task["Put the policy in force"].changed, played.text
    files = by_task["Load it at boot"].result["files"]
    assert "/etc/systemd/system/policylang.service" in files
    assert not Path("/etc/systemd/system/policylang.service").exists()
