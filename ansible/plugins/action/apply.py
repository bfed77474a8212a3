# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

"""Compiles here, rehearses there, proves here, arms there, and confirms over a new connection."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.policylang.firewall.plugins.plugin_utils import controlling
from ansible_collections.policylang.firewall.plugins.plugin_utils.controlling import Target

with suppress(ImportError):  # `require_policylang` tells it
    from policylang.apply.who import made_by
    from policylang.cli import provisioned
    from policylang.diagnostics import Report
    from policylang.pipeline import Text
    from policylang.provision import controller
    from policylang.provision.messages import Confirm, Tell

OPTIONS = {
    "policy": {"type": "path"},
    "content": {"type": "str"},
    "parameters": {"type": "dict", "default": {}},
    "target": {"type": "str", "choices": ["nft", "iptables"], "default": "nft"},
    "flavour": {"type": "str", "choices": ["nft", "legacy"]},
    "host": {"type": "str"},
    "inventory": {"type": "bool", "default": False},
    "confirm": {"type": "int", "default": 60},
    "flows": {"type": "str", "choices": ["keep", "cut"]},
}
ONE_OF = {"required_one_of": [["policy", "content"]], "mutually_exclusive": [["policy", "content"]]}
BETWEEN_S = 0.5  # two tries: who is refused is refused at once
GRACE_S = 15  # for a target that has to be asked what became of a change


class ActionModule(ActionBase):
    """The action `apply`."""

    _supports_check_mode = True
    _supports_diff = True
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        """The result of the task."""
        result = super().run(tmp, task_vars)
        task_vars = task_vars or {}
        validated = self.validate_argument_spec(argument_spec=OPTIONS, **ONE_OF)
        options = validated[1]
        controlling.require_policylang()
        result["changed"] = False
        is_check = self._task.check_mode
        target = Target(self, task_vars, keep=not is_check)

        wanted = self._wanted(options, task_vars)
        one = _compiled(wanted, result)
        sent = controller.cargo(one, wanted, _text_or_none(options["flavour"]), made_by())
        job = controller.rehearse(one, sent, wants_past=bool(self._task.diff))
        rehearsed = controlling.found_of(target.answer(job), result)
        report = Report()
        is_proved = controller.is_proved(one, rehearsed, report)
        controlling.warn(report, result)
        if not is_proved:
            raise controlling.refusal(report, result)
        result["way"] = rehearsed.way
        confirm_s = int(options["confirm"]) or None
        if rehearsed.others and confirm_s is not None:
            raise AnsibleActionFail(
                f"the change from {rehearsed.others[0]} to {rehearsed.way} cannot be armed: `confirm: 0` loads it for good",
                result=result,
            )
        if self._task.diff:
            result["diff"] = _diff(one, rehearsed)
        if is_check:
            result["changed"] = rehearsed.changes
            result["ends"] = list(rehearsed.ending)
            return result
        began = time.monotonic()
        load = controller.load(sent, rehearsed, confirm_s)
        brought = controlling.found_of(target.answer(load), result)
        result.update(
            changed=brought.changes,
            generation=brought.number,
            rolled_back=False,
            words=list(brought.words),
        )
        if brought.confirm_s is not None:
            self._confirm(target, brought, began, result)
        return result

    # --- what is wanted -----------------------------------------------------------------------

    def _wanted(self, options, task_vars):
        if options["policy"] is not None:
            policy = Path(str(self._find_needle("files", str(options["policy"]))))
        else:
            folder = Path(self._loader.get_basedir())
            policy = Text(str(options["content"]), "content", folder)
        flows = options["flows"]
        inventory = controlling.inventory_of(task_vars) if options["inventory"] else None
        return controller.Wanted(
            policy,
            str(options["target"]),
            controlling.parameters_of(options["parameters"]),
            host=_text_or_none(options["host"]),
            called=controlling.name_of(task_vars.get("inventory_hostname", ""), task_vars),
            inventory=inventory,
            cuts_flows=None if flows is None else flows == "cut",
        )

    # --- a change that waits ------------------------------------------------------------------

    def _confirm(self, target, brought, began, result):
        """Confirm over a new connection, again and again until the time is over.

        AnsibleActionFail with `rolled_back` where that cannot be; AnsibleConnectionFailure where
        the target cannot even be asked afterwards.
        """
        over = brought.over if target.is_remote else None
        until = began + brought.confirm_s
        last = "the connection could not be opened anew"
        while time.monotonic() < until:
            try:
                target.reconnect()
                confirmed = controlling.found_of(
                    target.answer(Confirm(brought.number, over)), result
                )
            except AnsibleConnectionFailure as error:
                last = f"{error}"
            except AnsibleActionFail as error:
                last = f"{error}"
                break  # the target answered, and would answer the same
            except AnsibleError as error:  # a file that could not be transferred, say
                last = f"{error}"
            else:
                if confirmed.is_new:
                    result["words"] += list(confirmed.words)
                    return
            time.sleep(BETWEEN_S)
        time.sleep(max(0.0, until + BETWEEN_S - time.monotonic()))
        told = self._afterwards(target, result, until + GRACE_S)
        if told.current is not None and told.current.number == brought.number:
            return  # the answer alone was lost
        force = "nothing of ours" if told.current is None else f"generation {told.current.number}"
        result.update(changed=False, rolled_back=True)
        raise AnsibleActionFail(
            f"generation {brought.number} could not be confirmed over a new connection, and was taken back:"
            f" {force} is in force. {last}",
            result=result,
        )

    def _afterwards(self, target, result, until):
        """What is in force when the time is over, asked over a new connection."""
        while True:
            try:
                target.reconnect()
                return controlling.found_of(target.answer(Tell()), result)
            except AnsibleActionFail:
                raise
            except AnsibleError:
                if time.monotonic() >= until:
                    raise
            time.sleep(BETWEEN_S)


def _compiled(wanted, result):
    report = Report()
    try:
        one = controller.compiled(wanted, report)
    except ValueError as error:
        raise AnsibleActionFail(
            f"`{error}` of the inventory is no name of the language; the variable policylang_name gives it one",
            result=result,
        ) from error
    controlling.warn(report, result)
    if one is None:
        raise controlling.refusal(report, result)
    return one


def _diff(one, rehearsed):
    """What is opened and closed, and then the rules."""
    return [
        {"prepared": provisioned.meaning(one, rehearsed)},
        {
            "before_header": "rules in force",
            "after_header": f"rules of {one.name}",
            "before": provisioned.rules(rehearsed.before),
            "after": provisioned.rules(rehearsed.rehearsal.loaded),
        },
    ]


def _text_or_none(value):
    return None if value is None else str(value)
