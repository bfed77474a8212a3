# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

"""How the actions of this collection reach a target; what is said there is policylang's business."""

from __future__ import annotations

import ipaddress
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleError

try:
    from policylang.cli import provisioned
    from policylang.diagnostics import Report
    from policylang.provision import shipping, wire
    from policylang.provision.inventory import Inventory
    from policylang.provision.messages import Answer
except ImportError as error:
    WHY_NOT = error
else:
    WHY_NOT = None

RUNNER = "policylang.firewall.on_target"
ARCHIVE = "policylang.zip"
FOLDER = "/usr/local/lib/policylang"  # where the modules are kept on a target
# Who is cut off says nothing. Where somebody speaks, conntrack learns of connections that were open
# before the first rules came: what a host answers over them may be denied until then.
WATCH = "-o ServerAliveInterval=1 -o ServerAliveCountMax=5"


def require_policylang():
    """Raise AnsibleActionFail where policylang is not installed where Ansible is."""
    if WHY_NOT is not None:
        raise AnsibleActionFail(
            f"policylang is not installed for the Python that runs Ansible, {sys.executable}: {WHY_NOT}"
        )


class Target:
    """The machine that a task is for; `action` is the action plugin at work.

    With `keep` the modules that do jobs stay there for the next task.
    """

    def __init__(self, action, task_vars, keep):
        self.action = action
        self.task_vars = task_vars
        self.keep = keep
        self.digest = shipping.digest()

    def answer(self, job):
        """What a target answers to a job; the modules that do it travel where they must."""
        arguments = {
            "digest": self.digest,
            "job": wire.written(job),
            "keep": self.keep,
            "folder": str(self.task_vars.get("policylang_folder") or FOLDER),
        }
        result = self._run(arguments)
        if result.get("missing"):
            result = self._ship(arguments)
        try:
            return wire.read(Answer, str(result["answer"]))
        except ValueError as error:
            raise AnsibleActionFail(f"what the target answered is no answer: {error}") from None

    def _run(self, arguments):
        # The action's own arguments are none of the runner's.
        result = self.action._execute_module(
            module_name=RUNNER, module_args=arguments, task_vars=self.task_vars
        )
        if result.get("failed") or ("answer" not in result and not result.get("missing")):
            words = result.get("msg") or result.get("module_stderr") or "nothing was answered"
            said = {name: result[name] for name in ("stderr", "module_stderr") if name in result}
            raise AnsibleActionFail(f"{words}", result=said)
        return result

    def _ship(self, arguments):
        action = self.action
        shell = action._connection._shell
        folder = shell.tmpdir or action._make_tmp_path()
        there = shell.join_path(folder, ARCHIVE)
        with tempfile.NamedTemporaryFile(prefix="policylang-", suffix=".zip") as local:
            Path(local.name).write_bytes(shipping.archive())
            action._transfer_file(local.name, there)
        action._fixup_perms2((folder, there))
        result = self._run({**arguments, "archive": there})
        if result.get("missing"):
            raise AnsibleError("the archive did not reach the target")
        return result

    def watch(self):
        """Have OpenSSH notice soon, over a new connection, that nothing comes through any more."""
        connection = self.action._connection
        if connection.transport == "ssh":
            # Of sftp, too, which may be the first to connect. Where both say it, the first holds.
            given = connection.get_option("ssh_common_args")
            connection.set_option("ssh_common_args", f"{given or ''} {WATCH}".strip())
            connection.reset()

    def reconnect(self):
        """Have what comes next go over a new connection."""
        connection = self.action._connection
        if self.is_remote:
            connection.reset()

    @property
    def is_remote(self):
        """Whether there is a connection that a firewall could cut."""
        return self.action._connection.transport != "local"


def found_of(answer, result):
    """What an answer found; its warnings go into the result. AnsibleActionFail where it failed."""
    report = Report(list(answer.diagnostics))
    warn(report, result)
    if any(one.code == "not-restored" for one in answer.diagnostics):
        result["changed"] = True
    if answer.found is None or report.has_errors:
        raise refusal(report, result)
    return answer.found


def warn(report, result):
    """Let Ansible show the warnings of a report, each once."""
    told = result.setdefault("warnings", [])
    for one in provisioned.warnings(report):
        words = provisioned.told([one])
        if words not in told:
            told.append(words)


def refusal(report, result):
    """The failure of a task, in the compiler's words."""
    words = provisioned.told(provisioned.errors(report)) or "the target refused, and said nothing"
    return AnsibleActionFail(words, result=result)


# --- variables --------------------------------------------------------------------------------


def parameters_of(given):
    """Values of variables as texts of the language."""
    return {str(name): _text(name, value) for name, value in (given or {}).items()}


def _text(name, value):
    if isinstance(value, (bool, Mapping)) or value is None:
        raise AnsibleActionFail(
            f"no text of the language stands for {value!r}, the parameter `{name}`"
        )
    if isinstance(value, str) or not isinstance(value, Iterable):
        return f"{value}"
    return ", ".join(_text(name, one) for one in value)


def inventory_of(task_vars):
    """The machines and groups that Ansible knows, by the names that the policy has for them.

    AnsibleActionFail where two have one name.
    """
    variables = task_vars["hostvars"]
    names = {str(host): name_of(host, variables[host]) for host in task_vars["groups"]["all"]}
    first = {}
    for host, name in names.items():
        if first.setdefault(name, host) != host:
            raise AnsibleActionFail(
                f"the inventory has two machines `{name}`: {first[name]} and {host}"
            )
    hosts = {names[host]: _addresses(host, variables[host]) for host in names}
    groups = {
        str(group): tuple(names[str(host)] for host in members)
        for group, members in task_vars["groups"].items()
        if group not in ("all", "ungrouped")
    }
    return Inventory(hosts, groups)


def name_of(host, variables):
    """What a policy calls a machine of the inventory."""
    return str(variables.get("policylang_name") or host)


def _addresses(host, variables):
    given = variables.get("policylang_addresses")
    if isinstance(given, Sequence):
        return (str(given),) if isinstance(given, str) else tuple(str(one) for one in given)
    if given is not None:
        raise AnsibleActionFail(
            f"policylang_addresses of {host} is no list of addresses: {given!r}"
        )
    for text in (variables.get("ansible_host"), host):
        try:
            return (str(ipaddress.ip_address(str(text))),)
        except ValueError:
            continue
    return ()
