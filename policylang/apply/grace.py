"""Waits for packets that are under way; knows nothing of what they are to meet."""

from __future__ import annotations

import socket
import time

PATIENCE_S = 0.1  # where the kernel cannot be asked; a packet takes microseconds


def let_packets_through() -> None:
    """Return once every packet that had come by this machine's hooks has left them.

    Packets in a queue of NFQUEUE or in pieces are not waited for. The kernel handles a packet as a
    reader of RCU, and a packet socket is not closed before all readers of that moment are through
    (synchronize_net in packet_release of net/packet/af_packet.c).
    """
    try:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    except OSError:  # no CAP_NET_RAW, or a kernel without packet sockets
        time.sleep(PATIENCE_S)
    else:
        opened.close()
