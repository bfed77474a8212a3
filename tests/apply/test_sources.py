"""A source answers with addresses, all of them, or it has failed and says why."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policylang.apply import sources
from policylang.apply.sources import Failed, ask
from policylang.packets.values import Ranges, parse_address
from policylang.syntax.locks import Locked
from tests.apply.web import Page, Server, certificate, server_context

DROP = b"# a list\n192.0.2.0/24 ; SBL1\n2001:db8::1\n"
HELD = Ranges.merged(
    pair for text in ("192.0.2.0/24", "2001:db8::1") if (pair := parse_address(text))
)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().running() as running:
        yield running


def one(url: str, before: Locked | None = None) -> Locked | Failed:
    key = f"url {url}"
    return ask([key], {} if before is None else {key: before})[key]


def reason(url: str, before: Locked | None = None) -> str:
    answer = one(url, before)
    assert isinstance(answer, Failed)
    return answer.reason


def test_a_list_is_loaded_as_a_file_is_read(server: Server) -> None:
    server.pages["/drop.txt"] = Page(DROP)
    answer = one(server.url("/drop.txt"))
    assert isinstance(answer, Locked)
    assert answer.addresses == HELD
    assert abs((datetime.now(UTC) - answer.refreshed).total_seconds()) < 10


def test_a_list_that_is_still_the_same_is_not_loaded_again(server: Server) -> None:
    server.pages["/drop.txt"] = Page(DROP, headers={"ETag": '"5f"'})
    first = one(server.url("/drop.txt"))
    assert isinstance(first, Locked) and first.marks == {"etag": '"5f"'}
    old = Locked(first.addresses, datetime(2026, 1, 1, tzinfo=UTC), first.marks)
    again = one(server.url("/drop.txt"), old)
    assert isinstance(again, Locked)
    assert (again.addresses, again.marks) == (HELD, first.marks)
    assert again.refreshed > old.refreshed
    assert [headers.get("If-None-Match") for headers in server.asked] == [None, '"5f"']


FAILING = {
    "not there": (Page(b"", 404), "the server answers 404, not Found"),
    "empty": (Page(b"# nothing\n"), "the list is empty"),
    "a web page": (Page(b"<!doctype html><html>"), "line 1: this is a web page, not a list"),
    "a mistake": (
        Page(b"192.0.2.1\n192.0.2.256\n"),
        "line 2: `192.0.2.256` is neither an address, a port nor a MAC address",
    ),
    "of ports": (Page(b"22\n80\n"), "it is a list of ports"),
    "not text": (Page(b"\xff\xfe"), "line 1: byte 0xff is not UTF-8"),
    "packed": (Page(gzip.compress(DROP)), "it is packed by gzip, and lists are read as text"),
    "cut off": (Page(DROP, length=len(DROP) + 1), f"it ended after {len(DROP)} of "),
    "another scheme": (
        Page(b"", 302, {"Location": "ftp://127.0.0.1/drop.txt"}),
        "it leads to `ftp://127.0.0.1/drop.txt`, which is not protected as it is itself",
    ),
    "a file": (
        Page(b"", 302, {"Location": "file:///etc/hosts"}),
        "the server answers 302, found - Redirection to url 'file:///etc/hosts' is not allowed",
    ),
    "the same, which was never asked": (Page(b"", 304), "the server answers 304, "),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_is_no_whole_list_fails(case: str, server: Server) -> None:
    page, words = FAILING[case]
    server.pages["/drop.txt"] = page
    assert reason(server.url("/drop.txt")).startswith(words)


def test_a_list_may_move(server: Server) -> None:
    server.pages |= {"/old": Page(b"", 301, {"Location": "/new"}), "/new": Page(DROP)}
    answer = one(server.url("/old"))
    assert isinstance(answer, Locked) and answer.addresses == HELD


def test_a_list_without_end_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 1 << 20)
    server.pages["/drop.txt"] = Page(b"192.0.2.1\n" * (1 << 17))
    assert reason(server.url("/drop.txt")) == "it is larger than 1 MiB"


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SILENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert reason(f"http://127.0.0.1:{port}/drop.txt") == "timed out"


def test_a_resolver_that_hangs_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*given: object, **named: object) -> None:
        time.sleep(2)
        raise socket.gaierror(socket.EAI_AGAIN, "too late")

    monkeypatch.setattr(sources, "SILENCE_S", 0.1)
    monkeypatch.setattr(sources, "MOST_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    assert ask(["resolve a.example"], {}) == {
        "resolve a.example": Failed("there was no answer in time")
    }
    assert time.monotonic() - began < 1.5


def test_a_certificate_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = certificate(tmp_path)
    with Server(server_context(both)).running() as server:
        server.pages["/drop.txt"] = Page(DROP)
        assert "self-signed certificate" in reason(server.url("/drop.txt"))
        monkeypatch.setenv("SSL_CERT_FILE", str(both))
        answer = one(server.url("/drop.txt"))
        assert isinstance(answer, Locked) and answer.addresses == HELD
        assert "localhost" in reason(server.url("/drop.txt", "localhost"))
        server.pages["/less"] = Page(b"", 302, {"Location": "http://127.0.0.1/drop.txt"})
        assert reason(server.url("/less")).startswith("it leads to `http://127.0.0.1/drop.txt`")


# --- names ------------------------------------------------------------------------------------

V4, V6 = socket.AF_INET, socket.AF_INET6
Resolved = dict[int, list[str] | int]


def resolve(monkeypatch: pytest.MonkeyPatch, answers: Resolved) -> Locked | Failed:
    def getaddrinfo(name: str, port: None, family: int, type: int) -> list[Any]:
        answer = answers[family]
        if isinstance(answer, int):
            raise socket.gaierror(answer, "Temporary failure in name resolution")
        return [(family, type, 0, "", (text, 0)) for text in answer]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return ask(["resolve cdn.example"], {})["resolve cdn.example"]


@pytest.mark.parametrize(
    ("answers", "addresses"),
    [
        ({V4: ["192.0.2.1", "192.0.2.9"], V6: ["2001:db8::1"]}, 3),
        ({V4: ["192.0.2.1"], V6: socket.EAI_NODATA}, 1),
        ({V4: socket.EAI_NONAME, V6: ["2001:db8::1"]}, 1),
    ],
)
def test_a_name_has_the_addresses_of_both_families(
    answers: Resolved, addresses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = resolve(monkeypatch, answers)
    assert isinstance(answer, Locked) and answer.addresses.count == addresses


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({V4: socket.EAI_NONAME, V6: socket.EAI_NONAME}, "there is no address of that name"),
        # What is known of one family alone is no answer: the other one's addresses would go.
        ({V4: ["192.0.2.1"], V6: socket.EAI_AGAIN}, "temporary failure in name resolution"),
        ({V4: [], V6: ["fe80::1%eth0"]}, "`fe80::1%eth0`"),
    ],
)
def test_half_an_answer_is_none(
    answers: Resolved, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = resolve(monkeypatch, answers)
    assert isinstance(answer, Failed) and words in answer.reason


def test_each_source_has_its_own_answer(server: Server) -> None:
    server.pages |= {f"/{n}": Page(f"192.0.2.{n}\n".encode()) for n in range(40)}
    keys = [f"url {server.url(f'/{n}')}" for n in range(41)]
    answers = ask(keys, {})
    assert list(answers) == keys
    assert isinstance(answers[keys[40]], Failed)
    for number, key in enumerate(keys[:40]):
        answer = answers[key]
        assert isinstance(answer, Locked)
        assert answer.addresses.single == (192 << 24) + (2 << 8) + number
