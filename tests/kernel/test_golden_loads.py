"""Every golden file, and every example, is taken by a real kernel, and again over itself.

What the rules do is proved elsewhere; this proves that nothing is kept that cannot be loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.golden.outputs import CASES, EXAMPLES

from .ground import Loader, Namespace
from .queue_reader import has_nft_queue

FOLDERS = [*CASES, *(example.parent for example in EXAMPLES)]
FAMILIES = (("iptables", "rules.v4"), ("ip6tables", "rules.v6"))


@pytest.fixture
def namespace(kernel: None) -> Iterator[Namespace]:
    made = Namespace.create("golden")
    yield made
    made.delete()


@pytest.mark.parametrize("case", FOLDERS, ids=lambda case: f"{case.parent.name}-{case.name}")
@pytest.mark.parametrize("loader", list(Loader), ids=lambda loader: loader.value)
def test_golden_files_load_twice(
    loader: Loader, case: Path, namespace: Namespace, tmp_path: Path
) -> None:
    if loader is Loader.NFT and case.name == "queue" and not has_nft_queue(namespace):
        pytest.xfail("nft has no queues in this kernel (CONFIG_NFT_QUEUE)")
    lock = {"XTABLES_LOCKFILE": str(tmp_path / "lock")}
    for _ in range(2):
        for file, argv in steps(loader, case):
            namespace.run(argv, stdin=file.read_text(encoding="utf-8"), env=lock)


def steps(loader: Loader, case: Path) -> Iterator[tuple[Path, list[str]]]:
    """The files of a case in the order in which they are loaded, each with its program."""
    if loader is Loader.NFT:
        yield case / "nft.nft", ["nft", "-f", "-"]
        return
    sets = case / "iptables" / "sets.ipset"
    if sets.exists():  # first, because the rules name them
        yield sets, ["ipset", "restore"]
    flavour = "nft" if loader is Loader.IPTABLES_NFT else "legacy"
    for family, name in FAMILIES:
        restore = f"{family}-{flavour}-restore"
        yield case / "iptables" / name, [restore, "--noflush", "--wait", "20"]
