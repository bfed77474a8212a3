"""The targets: each turns a ruleset into an artifact, and is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from policylang.ir.stages import Path

if TYPE_CHECKING:
    from policylang.backends.base import Backend

TARGETS = ("nft", "iptables")
_CLASSES = {"nft": "NftBackend", "iptables": "IptablesBackend"}

# What each calls the chains in which a policy's rules are read.
NATIVE_CHAINS: dict[str, dict[str, Path]] = {
    "nft": {path.value: path for path in Path},
    "iptables": {path.value.upper(): path for path in Path},
}


def backend(target: str) -> Backend:
    """The backend of that name; KeyError where there is none."""
    module = import_module(f"policylang.backends.{target}")
    made: Backend = getattr(module, _CLASSES[target])()
    return made
