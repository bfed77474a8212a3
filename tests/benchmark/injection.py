"""Sends prepared frames into an interface as fast as one processor can; knows no ruleset.

The frames go by a packet socket and `sendmmsg`: on a veth pair the kernel carries each of them
through the receiver's hooks before it takes the next one, so that the time of the call is the
time of the packets' whole way.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import IPv4Address

from tests.kernel.ground import Namespace

ETH_P_IP = 0x0800
UDP = 17


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """`struct msghdr` (sendmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Iovec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """`struct mmsghdr` (sendmmsg(2))."""

    _fields_ = (("header", _Header), ("sent", ctypes.c_uint32))


class Volley:
    """Frames that are sent together, again and again."""

    def __init__(self, sender: Namespace, interface: str, frames: Sequence[bytes]) -> None:
        with sender.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((interface, 0))
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
        self._frames = tuple(frames)  # what the kernel reads must stay where it is
        self._count = len(frames)
        self._vectors = (_Iovec * self._count)(*(_Iovec(f, len(f)) for f in frames))
        self._messages = (_Message * self._count)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.header.vectors = ctypes.pointer(vector)
            message.header.vector_count = 1

    def ns_per_packet(self, times: int) -> float:
        """Send all frames that often; the time of one frame's way, on average."""
        started = time.perf_counter_ns()
        for _ in range(times):
            sent = self._sendmmsg(self._socket.fileno(), self._messages, self._count, 0)
            if sent != self._count:
                code = ctypes.get_errno()
                raise OSError(code, f"sendmmsg sent {sent}: {os.strerror(code)}")
        return (time.perf_counter_ns() - started) / (times * self._count)

    def close(self) -> None:
        self._socket.close()


def udp_frame(
    macs: tuple[bytes, bytes], source: str, destination: str, ports: tuple[int, int]
) -> bytes:
    """An Ethernet frame with an IPv4 UDP datagram; `macs` are the sender's and the receiver's.

    The datagram has no checksum, as RFC 768 allows.
    """
    payload = struct.pack("!HHHH", *ports, 8, 0)
    addresses = IPv4Address(source).packed + IPv4Address(destination).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, UDP, 0) + addresses
    # The sum in ones' complement (RFC 1071): the remainder by 0xFFFF, of all words as one number.
    checksum = ~(int.from_bytes(head, "big") % 0xFFFF) & 0xFFFF
    head = head[:10] + struct.pack("!H", checksum) + head[12:]
    sender, receiver = macs
    return receiver + sender + struct.pack("!H", ETH_P_IP) + head + payload
