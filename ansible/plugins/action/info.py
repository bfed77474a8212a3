# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

"""Tells what is in force on a target, and what was."""

from __future__ import annotations

from contextlib import suppress

from ansible.plugins.action import ActionBase
from ansible_collections.policylang.firewall.plugins.plugin_utils import controlling
from ansible_collections.policylang.firewall.plugins.plugin_utils.controlling import Target

with suppress(ImportError):  # `require_policylang` tells it
    from policylang.provision.messages import Tell


class ActionModule(ActionBase):
    """The action `info`."""

    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        """The result of the task."""
        result = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        controlling.require_policylang()
        target = Target(self, task_vars or {}, keep=False)
        told = controlling.found_of(target.answer(Tell()), result)
        result.update(
            changed=False,
            in_force=_kept(told.current),
            pending=_pending(told),
            drifted=told.drift is not None and not told.drift.is_empty,
            drift=_drift(told.drift),
            ways=list(told.ways),
            generations=[_kept(one) for one in told.generations],
            at_boot={"generation": told.confirmed, "installed": told.is_served},
        )
        return result


def _kept(one):
    if one is None:
        return None
    return {
        "generation": one.number,
        "policy": one.policy_name,
        "host": one.host or None,
        "way": one.way,
        "made_at": one.made_at.isoformat(),
        "made_by": one.made_by,
        "parameters": dict(one.parameters),
    }


def _pending(told):
    if told.pending is None:
        return None
    return {**_kept(told.pending), "left_s": (told.left_ms or 0) / 1000}


def _drift(drift):
    if drift is None:
        return []
    changes = [
        {"place": one.place, "before": one.before, "after": one.after} for one in drift.changes
    ]
    sets = [
        {"place": one.place, "before": sorted(one.removed), "after": sorted(one.added)}
        for one in drift.elements
    ]
    return changes + sets
