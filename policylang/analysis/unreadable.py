"""What a text that rules are read from may be: no listing at all."""

from __future__ import annotations

from policylang.analysis.machine import Goto, Machine
from policylang.ir.actions import Jump


class UnreadableError(Exception):
    """A text is not what it was taken for, or was cut off; `line` counts from 1.

    The message is one line in lower case, and fit to be shown to people.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def without_circles(machine: Machine) -> Machine:
    """The machine itself; raises UnreadableError where chains jump round in a circle.

    No kernel takes such rules, so no listing has them.
    """
    leads = {
        name: {line.act.chain for line in lines if isinstance(line.act, Jump | Goto)}
        for name, lines in machine.chains.items()
    }
    done: set[str] = set()
    for start in leads:
        way: list[tuple[str, list[str]]] = [(start, sorted(leads[start]))]
        above = [start]
        while way:
            name, waiting = way[-1]
            if name in done or not waiting:
                done.add(name)
                way.pop()
                above.pop()
                continue
            onward = waiting.pop()
            if onward in above:
                raise UnreadableError(f"chains jump round in a circle by way of `{onward}`", 1)
            if onward not in done and onward in leads:
                way.append((onward, sorted(leads[onward])))
                above.append(onward)
    return machine
