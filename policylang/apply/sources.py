"""Asks for the addresses that names and URLs stand for now; knows neither lock files nor rules.

An answer is taken whole or not at all: what is cut off, what is no list of addresses, and what
has no address counts as none.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from http.client import HTTPException, HTTPResponse
from urllib.request import OpenerDirector

import policylang
from policylang.diagnostics import Report
from policylang.packets.values import Ranges, parse_one_address
from policylang.syntax.decoding import decoded
from policylang.syntax.lists import packed_by, parse_list
from policylang.syntax.lists.elements import ADDRESS, MANY
from policylang.syntax.locks import MARKS, RESOLVE, Lock, Locked

AT_ONCE = 16
SILENCE_S = 15.0  # of a server, before it is given up
MOST_S = 60.0  # that a source may take altogether
MOST_BYTES = 64 << 20
CHUNK_BYTES = 1 << 16
NOT_MODIFIED = 304  # RFC 9110 section 15.4.5

# getaddrinfo(3): there is no such name, or it has no address of the family that was asked for.
NO_ADDRESS = {
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
    if hasattr(socket, name)
}


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a source gave no addresses."""

    reason: str


Answer = Locked | Failed


class _FailureError(Exception):
    """Why a source gave no addresses."""


def ask(keys: Sequence[str], before: Lock) -> Mapping[str, Answer]:
    """What each source answers, in that order, all of them asked at once.

    Sources are called as in a lock file; `before` is what they answered the last time.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, Answer]] = queue.SimpleQueue()
    for key in keys:
        waiting.put(key)
    opener = _opener()

    def work() -> None:
        while True:
            try:
                key = waiting.get_nowait()
            except queue.Empty:
                return
            answers.put((key, _answer(key, before.get(key), opener)))

    workers = min(AT_ONCE, len(keys))
    for number in range(workers):
        # A resolver that hangs must not keep the process from ending.
        threading.Thread(target=work, name=f"policylang-source-{number}", daemon=True).start()
    deadline = time.monotonic() + MOST_S * -(-len(keys) // max(1, workers)) + SILENCE_S
    found: dict[str, Answer] = {}
    while len(found) < len(keys):
        try:
            key, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        found[key] = answer
    return {key: found.get(key, Failed("there was no answer in time")) for key in keys}


def _answer(key: str, before: Locked | None, opener: OpenerDirector) -> Answer:
    kind, _, text = key.partition(" ")
    try:
        return _resolved(text) if kind == RESOLVE else _loaded(text, before, opener)
    except _FailureError as failure:
        return Failed(str(failure))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


# --- names ------------------------------------------------------------------------------------


def _resolved(name: str) -> Locked:
    """The addresses of both families that the machine's resolver has for a name.

    They are asked for one by one: asked for both, it leaves out the one that fails.
    """
    found: list[int] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            infos = socket.getaddrinfo(name, None, family=family, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno not in NO_ADDRESS:
                raise _FailureError(_words(error.strerror)) from error
            continue
        except (OSError, UnicodeError) as error:
            raise _FailureError(_words(error)) from error
        for *_, where in infos:
            address = parse_one_address(str(where[0]))
            if address is None:
                raise _FailureError(
                    f"it answered with `{where[0]}`, which is good on one link alone"
                )
            found.append(address)
    if not found:
        raise _FailureError("there is no address of that name")
    return Locked(Ranges.of(*found), _now())


# --- lists ------------------------------------------------------------------------------------


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https alone, or to http where that was asked for."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: object,
        code: int,
        msg: str,
        headers: object,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith(("https:", f"{req.type}:")):
            raise _FailureError(f"it leads to `{newurl}`, which is not protected as it is itself")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _opener() -> OpenerDirector:
    """What opens https and http, nothing else; certificates are checked."""
    opener = OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _loaded(url: str, before: Locked | None, opener: OpenerDirector) -> Locked:
    """The addresses of the list that a server has under a URL, or says is still the same."""
    headers = {
        "User-Agent": f"policylang/{policylang.__version__}",
        "Accept-Encoding": "identity",
        **_conditions(before),
    }
    deadline = time.monotonic() + MOST_S
    try:
        request = urllib.request.Request(url, headers=headers)
        with opener.open(request, timeout=SILENCE_S) as response:
            data = _body(response, deadline)
            marks = _marks(response.headers)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == NOT_MODIFIED and before is not None:
            return Locked(before.addresses, _now(), before.marks)
        raise _FailureError(f"the server answers {error.code}, {_words(error.reason)}") from error
    except urllib.error.URLError as error:
        raise _FailureError(_words(error.reason)) from error
    except (OSError, HTTPException, ValueError) as error:
        raise _FailureError(_words(error)) from error
    return Locked(_addresses(url, data), _now(), marks)


def _conditions(before: Locked | None) -> dict[str, str]:
    """The headers that ask for what is new alone (RFC 9110 section 13.1)."""
    marks = {} if before is None else before.marks
    names = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
    return {names[mark]: marks[mark] for mark in MARKS if mark in marks}


def _marks(headers: Message) -> dict[str, str]:
    held = {mark: headers.get(mark) for mark in MARKS}
    return {
        mark: value
        for mark, value in held.items()
        if value is not None and value.isascii() and value.isprintable()
    }


def _body(response: HTTPResponse, deadline: float) -> bytes:
    """All of an answer; a part of it is a failure."""
    parts: list[bytes] = []
    size = 0
    while part := response.read1(CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise _FailureError(f"it is larger than {MOST_BYTES >> 20} MiB")
        if time.monotonic() > deadline:
            raise _FailureError(f"it took longer than {MOST_S:.0f} seconds")
    promised = response.headers.get("Content-Length")
    if promised is not None and promised != str(size):
        raise _FailureError(f"it ended after {size} of {promised} bytes")
    return b"".join(parts)


def _addresses(url: str, data: bytes) -> Ranges:
    packed = packed_by(data)
    if packed is not None:
        raise _FailureError(f"it is packed by {packed[0]}, and lists are read as text")
    report = Report()
    file = decoded(data.removeprefix(b"\xef\xbb\xbf"), url, report)
    read = None if file is None else parse_list(file, report)
    for told in report.in_order():
        line = "" if told.span is None else f"line {told.span.line}: "
        raise _FailureError(f"{line}{told.message}")
    if read is None or not read.pairs:
        raise _FailureError("the list is empty")
    if read.kind != ADDRESS:
        raise _FailureError(f"it is a list of {MANY[str(read.kind)]}")
    return Ranges(read.pairs)


def _words(error: object) -> str:
    """What another program or library said, in one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else error
    words = " ".join(str(text).split()) or type(error).__name__
    is_word = words[1:2].islower() or words[1:2] == " "
    return words[0].lower() + words[1:] if is_word else words
