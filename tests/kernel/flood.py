"""A sender that fills a wire: packets from a packet socket, over and over, until told to stop.

It sends what it is given and hears no answer. No packet belongs to an open connection: each flow
is sent from thousands of source ports, as a UDP datagram or a SYN that nobody goes on with.
"""

from __future__ import annotations

import argparse
import itertools
import os
import select
import socket
import struct
import sys
from pathlib import Path

from .ground import Family, family_of, internet_checksum

ETHERTYPE = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}
TTL = 64
SYN = 0x02
WINDOW = 64240

FIRST_SOURCE_PORT = 1024
BATCH = 512  # packets between two looks at whether to stop


def frames(
    macs: bytes, source: str, target: str, protocol: str, port: int, count: int
) -> list[bytes]:
    """Return `count` frames of one flow that differ in nothing but the source port."""
    family = family_of(source)
    ends = socket.inet_pton(family.af, source) + socket.inet_pton(family.af, target)
    number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
    made = []
    for source_port in range(FIRST_SOURCE_PORT, FIRST_SOURCE_PORT + count):
        segment = _segment(protocol, source_port, port, ends, number)
        made.append(macs + _header(family, ends, number, len(segment)) + segment)
    return made


def _segment(protocol: str, source_port: int, port: int, ends: bytes, number: int) -> bytes:
    ports = struct.pack("!HH", source_port, port)
    if protocol == "tcp":
        before = ports + struct.pack("!IIBBH", source_port, 0, 5 << 4, SYN, WINDOW)
        after = struct.pack("!H", 0)
    else:
        before, after = ports + struct.pack("!H", 8), b""
    length = len(before) + 2 + len(after)
    # The pseudo header's order and widths make no difference to a sum of 16-bit words.
    pseudo = ends + struct.pack("!HH", number, length)
    checksum = internet_checksum(pseudo + before + b"\0\0" + after) or 0xFFFF
    return before + struct.pack("!H", checksum) + after


def _header(family: Family, ends: bytes, number: int, length: int) -> bytes:
    ethertype = struct.pack("!H", ETHERTYPE[family])
    if family is Family.IPV6:
        return ethertype + struct.pack("!IHBB", 6 << 28, length, number, TTL) + ends
    before = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0x4000, TTL, number)
    checksum = internet_checksum(before + b"\0\0" + ends)
    return ethertype + before + struct.pack("!H", checksum) + ends


def main() -> None:
    """Send the flows of the command line in turn until standard input closes; print how many."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interface")
    parser.add_argument("gateway_mac")
    parser.add_argument("sources", type=int, help="source ports a flow")
    parser.add_argument("flows", nargs="+", help="SOURCE,TARGET,PROTOCOL,PORT")
    arguments = parser.parse_args()

    own = Path("/sys/class/net", arguments.interface, "address").read_text().strip()
    macs = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in (arguments.gateway_mac, own))
    flows = []
    for flow in arguments.flows:
        source, target, protocol, port = flow.split(",")
        flows.append(frames(macs, source, target, protocol, int(port), arguments.sources))
    everything = [frame for turn in zip(*flows, strict=True) for frame in turn]

    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((arguments.interface, 0))
    endless = itertools.cycle(everything)
    sent = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for frame in itertools.islice(endless, BATCH):
            wire.send(frame)
        sent += BATCH
    os.write(1, f"{sent}\n".encode())


if __name__ == "__main__":
    main()
