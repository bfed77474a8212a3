"""A program that reads a queue while packets come, and lets them pass or does not."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.backends.queue_reader import reading

from .ground import Namespace


def has_nft_queue(namespace: Namespace) -> bool:
    """Whether the kernel's nft knows queues (CONFIG_NFT_QUEUE)."""
    script = "table inet try { chain c { type filter hook input priority 0; queue num 0; }; }"
    return namespace.run(["nft", "--check", script], check=False).returncode == 0


@dataclass(slots=True)
class Read:
    """The IP packets that came by a queue, once nobody reads it any more."""

    packets: list[bytes] = field(default_factory=list)

    def ports(self) -> set[tuple[int, int]]:
        """Source and destination ports, of both families; extension headers are none of them."""
        found = set()
        for data in self.packets:
            start = (data[0] & 15) * 4 if data[0] >> 4 == 4 else 40
            found.add(struct.unpack_from("!HH", data, start))
        return found


@contextmanager
def reader(namespace: Namespace, queue: int, *, passes: bool = True) -> Iterator[Read]:
    """Read a queue of that namespace while this lasts; what is read passes or is dropped."""
    read, over = Read(), threading.Event()
    with reading(namespace, [queue]) as opened:

        def serve() -> None:
            while not over.is_set():
                read.packets += (packet for _, packet in opened.decide(lambda _: passes))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield read
        finally:
            over.set()
            thread.join()
