"""A sender that loads a wire: packets from a packet socket, over and over, until told to stop.

It sends what it is given and hears no answer. No packet belongs to an open connection: each flow
is sent from thousands of source ports, as a UDP datagram or a SYN that nobody goes on with. It is
run by its path and imports nothing that is not Python's own: it is started by the dozen.
"""

from __future__ import annotations

import argparse
import itertools
import os
import select
import socket
import struct
import sys
import time
from pathlib import Path

ETHERTYPE = {socket.AF_INET: 0x0800, socket.AF_INET6: 0x86DD}
TTL = 64
SYN = 0x02
WINDOW = 64240

FIRST_SOURCE_PORT = 1024
BATCH = 16  # packets between two looks at whether to stop


def frames(
    macs: bytes, source: str, target: str, protocol: str, port: int, count: int
) -> list[bytes]:
    """Return `count` frames of one flow that differ in nothing but the source port."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    ends = socket.inet_pton(family, source) + socket.inet_pton(family, target)
    number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
    before, after = _around_checksum(protocol, port)
    length = 2 + len(before) + 2 + len(after)
    # The pseudo header's order and widths make no difference to a sum of 16-bit words.
    rest = _sum(ends + struct.pack("!HH", number, length) + before + after)
    head = macs + _header(family, ends, number, length)
    made = []
    for source_port in range(FIRST_SOURCE_PORT, FIRST_SOURCE_PORT + count):
        checksum = _complement(rest + source_port) or 0xFFFF
        made.append(
            b"".join(
                (
                    head,
                    source_port.to_bytes(2, "big"),
                    before,
                    checksum.to_bytes(2, "big"),
                    after,
                )
            )
        )
    return made


def _around_checksum(protocol: str, port: int) -> tuple[bytes, bytes]:
    """What stands in a segment behind its source port, before and behind its checksum."""
    if protocol == "tcp":
        return struct.pack("!HIIBBH", port, 1, 0, 5 << 4, SYN, WINDOW), struct.pack("!H", 0)
    return struct.pack("!HH", port, 8), b""


def _header(family: socket.AddressFamily, ends: bytes, number: int, length: int) -> bytes:
    ethertype = struct.pack("!H", ETHERTYPE[family])
    if family is socket.AF_INET6:
        return ethertype + struct.pack("!IHBB", 6 << 28, length, number, TTL) + ends
    before = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0x4000, TTL, number)
    return ethertype + before + struct.pack("!H", _complement(_sum(before + ends))) + ends


def _sum(data: bytes) -> int:
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def _complement(total: int) -> int:
    """The checksum of RFC 1071 of words that come to that sum."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main() -> None:
    """Send the flows of the command line in turn until standard input closes; print how many."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interface")
    parser.add_argument("gateway_mac")
    parser.add_argument("sources", type=int, help="source ports a flow")
    parser.add_argument("rate_per_second", type=int, help="packets, of all flows together")
    parser.add_argument("flows", nargs="+", help="SOURCE,TARGET,PROTOCOL,PORT")
    arguments = parser.parse_args()

    own = Path("/sys/class/net", arguments.interface, "address").read_text().strip()
    macs = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (arguments.gateway_mac, own))
    flows = []
    for flow in arguments.flows:
        source, target, protocol, port = flow.split(",")
        flows.append(frames(macs, source, target, protocol, int(port), arguments.sources))
    endless = itertools.cycle([frame for turn in zip(*flows, strict=True) for frame in turn])

    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((arguments.interface, 0))
    apart_s = BATCH / arguments.rate_per_second
    sent, due = 0, time.monotonic()
    # What could not be sent in time is not made up for.
    while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
        for frame in itertools.islice(endless, BATCH):
            wire.send(frame)
        sent += BATCH
        due = max(due + apart_s, time.monotonic() - apart_s)
    os.write(1, f"{sent}\n".encode())


if __name__ == "__main__":
    main()
