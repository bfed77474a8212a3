"""What holds in a network namespace, as far as we know: which generations, and what is half done.

It is a value and its text; where it is kept it does not know.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from policylang.apply import kernel
from policylang.apply.plain import Data, Plain

FORMAT = 1
MOST_HISTORY = 20

What = Literal["load", "arm", "keep", "disarm", "remove"]


@dataclass(frozen=True, slots=True)
class Doing:
    """A step that has begun: generation `before` was in force, `after` is to be.

    None stands for nothing of ours. `way` is the engine's.
    """

    what: What
    before: int | None
    after: int | None
    way: str


@dataclass(frozen=True, slots=True)
class State:
    """Numbers of generations, None where there is none of the kind.

    `current` is what is in force or would be again; `pending` is beside it and not confirmed;
    `confirmed` is what a boot loads. `history` are those that were in force before, the last one
    first. `boot_id` and `namespace` (the inode of its file) say where this holds. The times are
    wall clock, and told to people alone.
    """

    boot_id: str
    namespace: int
    current: int | None = None
    pending: int | None = None
    confirmed: int | None = None
    doing: Doing | None = None
    history: tuple[int, ...] = ()
    loaded_at: datetime | None = None
    armed_until: datetime | None = None
    by: str | None = None

    @classmethod
    def here(cls) -> State:
        """Nothing of ours, in the calling thread's namespace."""
        return cls(kernel.boot_id(), kernel.namespace())

    @property
    def named(self) -> frozenset[int]:
        """All generations that it speaks of."""
        doing = () if self.doing is None else (self.doing.before, self.doing.after)
        all_numbers = (self.current, self.pending, self.confirmed, *doing, *self.history)
        return frozenset(number for number in all_numbers if number is not None)

    def now_in_force(self, number: int | None) -> State:
        """The state once that generation is in force, loaded now, and nothing else is."""
        past = tuple(n for n in (self.current, *self.history) if n is not None and n != number)
        is_new = number != self.current
        return replace(
            self,
            current=number,
            pending=None,
            doing=None,
            history=tuple(dict.fromkeys(past))[:MOST_HISTORY],
            loaded_at=datetime.now(UTC).replace(microsecond=0) if is_new else self.loaded_at,
            armed_until=None,
        )


def text_of(state: State) -> bytes:
    """A state as JSON that tells any damage done to it."""
    return _sealed(Plain().data(state))


def read(content: bytes) -> State:
    """The state of that text; ValueError where not exactly that was written."""
    try:
        sealed = json.loads(content)
        version, data = sealed["format"], sealed["state"]
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no state") from error
    if version != FORMAT:
        raise ValueError("another version of policylang wrote it")
    if _sealed(data) != content:
        raise ValueError("it is damaged")
    state: State = Plain().value(State, data)
    return state


def _sealed(data: Data) -> bytes:
    words = json.dumps(data)
    digest = hashlib.sha256(words.encode()).hexdigest()
    sealed = {"format": FORMAT, "sha256": digest, "state": data}
    return (json.dumps(sealed, indent=2) + "\n").encode()
