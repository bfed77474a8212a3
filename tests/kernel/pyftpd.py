"""A pyftpdlib server as a process of its own, obliging enough to be abused.

Anonymous clients may read and write. It follows a PORT to whatever host and port it names, so
that where nothing connects, the firewall was what stopped it.
"""

from __future__ import annotations

import argparse
import logging
import socket

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer


def main() -> None:
    """Serve a folder over IPv4 and IPv6 until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("port", type=int)
    parser.add_argument("passive_low", type=int)
    parser.add_argument("passive_high", type=int)
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.CRITICAL)
    authorizer = DummyAuthorizer()
    authorizer.add_anonymous(arguments.root, perm="elrw")
    FTPHandler.authorizer = authorizer
    FTPHandler.permit_foreign_addresses = True
    FTPHandler.permit_privileged_ports = True
    FTPHandler.passive_ports = range(arguments.passive_low, arguments.passive_high + 1)

    loop = IOLoop()
    for family in (socket.AF_INET, socket.AF_INET6):
        # A socket each: on a shared one pyftpdlib cannot follow an IPv4 client's PORT.
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(("", arguments.port))
        FTPServer(listener, FTPHandler, ioloop=loop)
    loop.loop()


if __name__ == "__main__":
    main()
