"""A web server of a test's own, its certificate, and what it was asked."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Page:
    """What a server has under a path: status, headers and body, said to be `length` long."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


class Server:
    """A web server on loopback, with the requests that it was sent."""

    def __init__(self, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[Any] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.headers)
                page = server.pages.get(self.path, Page(b"", 404))
                etag = page.headers.get("ETag")
                if etag is not None and self.headers.get("If-None-Match") == etag:
                    page = Page(b"", 304)
                self.send_response(page.status)
                for name, value in page.headers.items():
                    self.send_header(name, value)
                if page.length != -1:
                    self.send_header("Content-Length", str(page.length or len(page.body)))
                self.end_headers()
                self.wfile.write(page.body)

            def log_message(self, *words: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.http.server_address[1]}{path}"

    @contextmanager
    def running(self) -> Iterator[Server]:
        thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            self.http.server_close()
            thread.join()


def certificate(folder: Path, *names: str) -> Path:
    """A certificate of 127.0.0.1 and of names, and its key, in one file."""
    path, public = folder / "both.pem", folder / "public.pem"
    alternatives = ",".join(("IP:127.0.0.1", *(f"DNS:{name}" for name in names)))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=lists.example"),
            *("-addext", f"subjectAltName={alternatives}"),
            *("-keyout", str(path), "-out", str(public)),
        ],
        check=True,
        capture_output=True,
    )
    path.write_text(path.read_text() + public.read_text())
    return path


def server_context(both: Path) -> ssl.SSLContext:
    """What a server shows that certificate by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context
