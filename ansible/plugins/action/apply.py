# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

"""Compiles here, rehearses there, proves here, arms there, and confirms over a new connection."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.policylang.firewall.plugins.plugin_utils import controlling
from ansible_collections.policylang.firewall.plugins.plugin_utils.controlling import Target

with suppress(ImportError):  # `require_policylang` tells it
    from policylang.apply.who import made_by
    from policylang.cli import provisioned
    from policylang.diagnostics import Report
    from policylang.pipeline import Text
    from policylang.provision import controller
    from policylang.provision.inventory import (
        BadAddressError,
        BadNameError,
        NoAddressError,
        TakenNameError,
    )
    from policylang.provision.messages import Brought, Confirm, Tell

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
MOST_CONFIRM_S = 3600  # as `policylang apply --confirm` has it
BETWEEN_S = 0.5  # two tries: who is refused is refused at once
GRACE_S = 5  # for a target that has to be asked what became of a change


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
        _check(options)
        controlling.require_policylang()
        result.update(changed=False, rolled_back=False)
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
        if rehearsed.changes:
            target.watch()
        brought = self._brought(
            target, controller.load(sent, rehearsed, confirm_s), rehearsed, result
        )
        result.update(changed=brought.changes, generation=brought.number, words=list(brought.words))
        if brought.confirm_s is not None:
            self._confirm(target, brought, result)
        return result

    # --- what is wanted -----------------------------------------------------------------------

    def _wanted(self, options, task_vars):
        if options["policy"] is not None:
            policy = Path(str(self._find_needle("files", str(options["policy"]))))
        else:
            folder = Path(self._loader.get_basedir())
            policy = Text(str(options["content"]), "<content>", folder)
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

    def _brought(self, target, load, rehearsed, result):
        """What was put in force.

        Rules may end the very connection over which they are loaded, and let new ones in. Then
        what became of them is asked over a new one. AnsibleActionFail with `rolled_back` where
        they are not there any more.
        """
        try:
            answer = target.answer(load)
        except AnsibleError as error:
            if load.confirm_s is None or not rehearsed.changes:
                raise
            lost = f"{error}"
        else:
            return controlling.found_of(answer, result)
        sent = load.cargo.name, load.cargo.made_by, load.cargo.parameters
        until = time.monotonic() + load.confirm_s
        while True:
            told = self._asked(target, result, until + GRACE_S)
            waits = told.pending
            if waits is not None and (waits.policy_name, waits.made_by, waits.parameters) == sent:
                return Brought(waits.number, waits.way, True, load.confirm_s, (), None)
            if time.monotonic() >= until:
                raise _taken_back("nothing was heard of the change, which", told, lost, result)
            time.sleep(BETWEEN_S)  # the target may still be at work with it

    def _confirm(self, target, brought, result):
        """Confirm over a new connection, again and again until the time is over.

        AnsibleActionFail with `rolled_back` where that cannot be; AnsibleConnectionFailure where
        the target cannot even be asked afterwards.
        """
        over = brought.over if target.is_remote else None
        until = time.monotonic() + brought.confirm_s  # the target's own time began before that
        last = "the connection could not be opened anew"
        while time.monotonic() < until:
            try:
                target.reconnect()
                answer = target.answer(Confirm(brought.number, over))
            except AnsibleError as error:  # no connection, or one that broke off
                last = f"{error}"
            else:
                try:
                    confirmed = controlling.found_of(answer, result)
                except AnsibleActionFail as error:
                    last = f"{error}"
                    break  # the target would answer the same
                if confirmed.is_new:
                    result["words"] += list(confirmed.words)
                    return
            time.sleep(BETWEEN_S)
        told = self._afterwards(target, result, until + GRACE_S)
        if told.current is not None and told.current.number == brought.number:
            return  # the answer alone was lost
        what = f"generation {brought.number} could not be confirmed over a new connection, and"
        raise _taken_back(what, told, last, result)

    def _afterwards(self, target, result, until):
        """What is in force once nothing waits to be confirmed."""
        while True:
            told = self._asked(target, result, until)
            if told.pending is None:
                return told
            if time.monotonic() >= until:
                raise AnsibleActionFail(
                    f"generation {told.pending.number} still waits to be confirmed", result=result
                )
            time.sleep(max(BETWEEN_S, (told.left_ms or 0) / 1000))

    def _asked(self, target, result, until):
        """What a target tells over a new connection; it is tried until a time."""
        while True:
            try:
                target.reconnect()
                answer = target.answer(Tell())
            except AnsibleError:
                if time.monotonic() >= until:
                    raise
                time.sleep(BETWEEN_S)
            else:
                return controlling.found_of(answer, result)


def _check(options):
    """Raise AnsibleActionFail for options that say nothing together, or too much."""
    if options["policy"] is not None and not str(options["policy"]).strip():
        raise AnsibleActionFail("`policy` names no file")
    if options["flavour"] is not None and options["target"] != "iptables":
        raise AnsibleActionFail("`flavour` is for `target: iptables`")
    if not 0 <= options["confirm"] <= MOST_CONFIRM_S:
        raise AnsibleActionFail(
            f"`confirm` is a number of seconds up to {MOST_CONFIRM_S}, or 0, not {options['confirm']}"
        )


def _taken_back(what, told, why, result):
    """The failure of a change that is in force no longer."""
    result.update(changed=False, rolled_back=True)
    force = "nothing of ours" if told.current is None else f"generation {told.current.number}"
    return AnsibleActionFail(f"{what} was taken back: {force} is in force. {why}", result=result)


def _compiled(wanted, result):
    report = Report()
    try:
        one = controller.compiled(wanted, report)
    except ValueError as error:
        raise AnsibleActionFail(_no_machine(error), result=result) from None
    controlling.warn(report, result)
    if one is None:
        raise controlling.refusal(report, result)
    for group, machines in one.left_out.items():  # what denies them would let them in
        words = f"rules about the group `{group}` would not be about {', '.join(machines)}"
        raise AnsibleActionFail(
            f"{words}: no address is known; the variable policylang_addresses gives one",
            result=result,
        )
    return one


def _no_machine(error):
    """Why a machine of the inventory is none of the policy."""
    first = f"`{error.args[0]}`"
    match error:
        case BadNameError():
            return f"{first} of the inventory is no name of the language; the variable policylang_name gives it one"
        case TakenNameError():
            return (
                f"{first} of the inventory is the name of something built in, which the policy uses; the variable"
                " policylang_name gives it another"
            )
        case BadAddressError():
            return f"{first}, which the inventory has for `{error.args[1]}`, is no address"
        case NoAddressError():
            return f"{first} of the inventory has no address; the variable policylang_addresses gives it one"
    raise error


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
