"""What the two ends say to each other: a job for a target, and the answer to it.

How they are written, and what is done, it does not know.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from policylang.apply.difference import Difference
from policylang.apply.here import Here
from policylang.apply.listing import Listing
from policylang.apply.loaded import Loaded
from policylang.apply.plain import Plain
from policylang.apply.record import Kept
from policylang.apply.transaction import Rehearsal
from policylang.backends.base import Artifact, OutputFile
from policylang.diagnostics import Diagnostic
from policylang.ir.ruleset import Ruleset
from policylang.source import SourceFile

Connection = tuple[str, str, str, str]  # as SSH_CONNECTION of sshd(8) has it


@dataclass(frozen=True, slots=True)
class Cargo:
    """What was compiled for a target, and all that is recorded of it there.

    `flavour` is that of iptables, None for what the machine calls iptables. `boot` are the files
    for a boot. `name` is the policy's, `host` the one that was meant, empty where it has none;
    `parameters` are pairs, `made_by` says who.
    """

    artifact: Artifact
    ruleset: Ruleset
    flavour: str | None
    boot: tuple[OutputFile, ...]
    name: str
    host: str
    parameters: tuple[tuple[str, str], ...]
    made_by: str
    sources: tuple[SourceFile, ...]


# --- jobs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rehearse:
    """Load it in a scratch namespace, and tell what is listed there and what would change.

    `with_logs` is rehearsed as well, where there is one. With `wants_past` what was in force is
    told, too, so that it can be read.
    """

    cargo: Cargo
    with_logs: Artifact | None = None
    wants_past: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Put it in force: for `confirm_s` seconds unless it is confirmed, or (None) for good.

    `proved` is the seal of the rehearsal that was proved: nothing else is loaded.
    """

    cargo: Cargo
    proved: str
    confirm_s: int | None


@dataclass(frozen=True, slots=True)
class Confirm:
    """Keep generation `number`, which waits for it; not over the connection that loaded it.

    `loaded_over` None: that is not known. One that is in force for good already stays so.
    """

    number: int
    loaded_over: Connection | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell what is in force."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Install the service that loads at boot what was confirmed.

    `files` are its texts by their places below the root; with `is_check` nothing is written.
    """

    files: Mapping[str, str]
    is_check: bool


Job = Rehearse | Load | Confirm | Tell | Serve


# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What was rehearsed, and what applying it would change.

    `before` is what is in force of ours by the same way, and `others` are the ways by which
    something else is. `past` is what was in force before by any of them, as listed; `current` the
    generation that it is, None where it is none of the record or was changed since. `ending` are
    the open connections that would end.
    """

    way: str
    rehearsal: Rehearsal
    again: Rehearsal | None
    here: Here
    before: Loaded
    others: tuple[str, ...]
    changes: bool
    current: Kept | None
    past: tuple[Listing, ...]
    ending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Brought:
    """What was put in force. `confirm_s` None: for good; `changes`: whether the kernel's rules did.

    `over` is the SSH connection by which it was asked, as far as that is known.
    """

    number: int
    way: str
    changes: bool
    confirm_s: int | None
    words: tuple[str, ...]
    over: Connection | None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What is in force for good; `is_new` is whether it was asked over a new connection.

    Over an old one nothing was done.
    """

    number: int
    is_new: bool
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What is in force: `drift` None where it is no generation of the record.

    `left_ms` is what a generation that waits to be confirmed has left. `confirmed` is what a boot
    loads, `state_folder` where the record is.
    """

    current: Kept | None
    pending: Kept | None
    left_ms: int | None
    ways: tuple[str, ...]
    drift: Difference | None
    generations: tuple[Kept, ...]
    confirmed: int | None
    is_served: bool
    state_folder: str


@dataclass(frozen=True, slots=True)
class Served:
    """The places that were or would be changed, and in words what was done."""

    changed: tuple[str, ...]
    words: tuple[str, ...]


Finding = Rehearsed | Brought | Confirmed | Told | Served


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target found, None where it could not do it, and what it has to tell."""

    found: Finding | None
    diagnostics: tuple[Diagnostic, ...] = field(default=())


def seal(loaded: Loaded) -> str:
    """What tells a listing from every other; the same for equal ones."""
    return hashlib.sha256(json.dumps(Plain().data(loaded)).encode()).hexdigest()
