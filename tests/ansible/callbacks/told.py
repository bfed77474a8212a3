"""A callback of Ansible that writes down what came of each task, a line of JSON each."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: told
type: notification
short_description: Writes down what came of each task
description: A line of JSON for each task and host, into the file that TOLD names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    """The callback `told`."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "told"

    def v2_runner_on_ok(self, result: Any) -> None:
        self._tell("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._tell("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._tell("unreachable", result)

    def _tell(self, status: str, result: Any) -> None:
        told = {
            "host": result._host.get_name(),
            "task": result._task.get_name(),
            "status": status,
            "result": result._result,
        }
        with open(os.environ["TOLD"], "a", encoding="utf-8") as file:  # noqa: PTH123  one write
            file.write(json.dumps(told, default=str) + "\n")
