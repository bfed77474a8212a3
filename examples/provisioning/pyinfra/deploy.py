"""Puts web.policy in force: `pyinfra INVENTORY deploy.py`, as root or with `--sudo`."""

from __future__ import annotations

from policy import in_force, in_place
from pyinfra import host
from pyinfra.api.exceptions import NestedOperationError
from pyinfra.operations import python, server

PLACE = "/etc/policylang/web.policy"


def reconnect() -> None:
    """Whoever is shut out by the new rules fails here, and the kernel takes them back."""
    host.disconnect()
    host.connect()
    if not host.connected:
        raise NestedOperationError("the new rules let no connection in")


in_place(name="Put the policy in its place", src="web.policy", dest=PLACE)
change = in_force(name="Put the policy in force", src="web.policy", dest=PLACE, confirm_s=60)
python.call(name="Make a new connection", function=reconnect, _if=change.did_change)
server.shell(name="Keep the change", commands="policylang confirm", _if=change.did_change)
