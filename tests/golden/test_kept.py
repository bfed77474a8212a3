"""The comparison with golden files: it sees every difference, and writes only when told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.kept import Golden

KEPT = {"nft.nft": "one\ntwo\n", "iptables/rules.v4": "a\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.policy").write_text("# a policy\n")
    Golden(is_update=True).holds(tmp_path, KEPT)
    return tmp_path


def test_the_same_holds(folder: Path) -> None:
    Golden(is_update=False).holds(folder, KEPT)


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        ({**KEPT, "nft.nft": "one\n"}, "-two"),
        ({**KEPT, "iptables/sets.ipset": "create x\n"}, "+create x"),
        ({"nft.nft": KEPT["nft.nft"]}, "-a"),
        ({**KEPT, "ir.txt": ""}, "compiles to something else"),
    ],
    ids=["changed", "new", "gone", "new-and-empty"],
)
def test_a_difference_fails_with_its_lines(folder: Path, now: dict[str, str], shown: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=shown.replace("+", r"\+")):
        Golden(is_update=False).holds(folder, now)
    Golden(is_update=False).holds(folder, KEPT)


def test_an_update_leaves_nothing_behind(folder: Path) -> None:
    Golden(is_update=True).holds(folder, {"nft.nft": "three\n"})
    assert (folder / "nft.nft").read_text() == "three\n"
    assert not (folder / "iptables" / "rules.v4").exists()
    assert (folder / "policy.policy").exists()
