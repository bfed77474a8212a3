# Copyright: the authors of policylang
# Apache-2.0 (see LICENSE of policylang, or https://www.apache.org/licenses/LICENSE-2.0)

"""Installs on a target the service that loads at boot what was confirmed."""

from __future__ import annotations

from contextlib import suppress

from ansible.plugins.action import ActionBase
from ansible_collections.policylang.firewall.plugins.plugin_utils import controlling
from ansible_collections.policylang.firewall.plugins.plugin_utils.controlling import Target

with suppress(ImportError):  # `require_policylang` tells it
    from policylang.provision import controller
    from policylang.provision.messages import Serve, Tell


class ActionModule(ActionBase):
    """The action `boot`."""

    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp=None, task_vars=None):
        """The result of the task."""
        result = super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        controlling.require_policylang()
        is_check = self._task.check_mode
        target = Target(self, task_vars or {}, keep=not is_check)
        told = controlling.found_of(target.answer(Tell()), result)
        job = Serve(controller.service_files(told.state_folder), is_check)
        served = controlling.found_of(target.answer(job), result)
        result.update(
            changed=bool(served.changed), files=list(served.changed), words=list(served.words)
        )
        return result
