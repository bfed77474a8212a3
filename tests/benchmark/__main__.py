"""`python -m tests.benchmark` measures, prints tables, and fails where a figure is missed.

The fastest run is what is judged: whatever else the machine does only adds to a run. As root,
measured runs go before all else on their processor.

Compiles and answers need no rights, packets and `verify` need root; `compile`, `answers` or
`packets` as argument measures one alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError

from tests.benchmark import analysing, compiling, packets
from tests.benchmark.packets import CONNTRACK, FEW, Packets
from tests.kernel.ground import Loader, obstacle

# A packet may cost more among ten thousand rules than among a hundred by what a larger table
# costs the processor's caches.
MOST_GROWTH_NS = 150


def main(wanted: Sequence[str]) -> int:
    """Print the figures; 1 where one of them is missed."""
    lines: list[str] = []
    reason = obstacle()
    with tempfile.TemporaryDirectory(prefix="policylang-benchmark-") as folder:
        directory = Path(folder)
        if not wanted or "compile" in wanted:
            lines += _print_processes(compiling.tasks(directory), directory)
        if not wanted or "answers" in wanted:
            as_root = reason is None
            lines += _print_processes(analysing.tasks(directory, as_root=as_root), directory)
        if reason is not None:
            print(f"\npackets are not measured: {reason}")
        elif not wanted or "packets" in wanted:
            lines += _print_packets(directory)
    print("\n" + ("\n".join(lines) or "all figures are reached"))
    return 1 if lines else 0


def _print_processes(tasks: Iterable[compiling.Task], directory: Path) -> Iterator[str]:
    """Print a line a task; yields what was missed."""
    titles = ("median", "min", "max", "cpu", "may be", "MiB")
    print(f"{'whole process, ms':<40}" + "".join(f"{title:>8}" for title in titles))
    for task in tasks:
        try:
            runs = compiling.run(task, directory)
        except CalledProcessError as error:
            print(f"{task.name:<40}    ended with status {error.returncode}", flush=True)
            yield f"missed: {task.name} ended with status {error.returncode}"
            continue
        seconds = [run.seconds for run in runs]
        cpu = median(run.cpu_seconds for run in runs)
        figures = (median(seconds), min(seconds), max(seconds), cpu)
        limit = "" if task.limit_s is None else f"{task.limit_s * 1000:.0f}"
        print(
            f"{task.name:<40}"
            + "".join(f"{figure * 1000:>8.0f}" for figure in figures)
            + f"{limit:>8}{max(run.peak_mib for run in runs):>8.0f}",
            flush=True,
        )
        if task.limit_s is not None and min(seconds) > task.limit_s:
            yield f"missed: {task.name} takes {min(seconds) * 1000:.0f} ms, not {limit}"
        most_mib = max(run.peak_mib for run in runs)
        if task.limit_mib is not None and most_mib > task.limit_mib:
            yield f"missed: {task.name} holds {most_mib:.0f} MiB, not {task.limit_mib:.0f}"


def _print_packets(directory: Path) -> Iterator[str]:
    """Print a line a firewall and kind of packets; yields what was missed.

    A ruleset's own cost is what its fastest round adds to conntrack's.
    """
    costs = packets.measure(directory)
    bare = next(min(cost.ns) for cost in costs if cost.case == CONNTRACK)
    print(f"\n{'first packet, ns':<40}{'median':>8}{'min':>8}{'max':>8}{'own':>8}")
    with_few: dict[tuple[Loader, Packets], float] = {}
    for cost in costs:
        loader, middle = cost.case.loader, median(cost.ns)
        name = cost.case.name if loader is None else f"{cost.case.name}, {cost.packets.value}"
        own = f"{min(cost.ns) - bare:>8.0f}" if loader else ""
        print(f"{name:<40}{middle:>8.0f}{min(cost.ns):>8.0f}{max(cost.ns):>8.0f}{own}")
        if loader is not None and cost.case.rules == FEW:
            with_few[loader, cost.packets] = min(cost.ns)
        elif loader is not None:
            growth = min(cost.ns) - with_few[loader, cost.packets]
            if growth > MOST_GROWTH_NS:
                yield f"missed: {name}: {growth:.0f} ns more than with {FEW} rules"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
