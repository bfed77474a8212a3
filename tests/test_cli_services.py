"""`policylang services` and `groups` find what is built in, by whatever people know of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from policylang.cli import main
from policylang.diagnostics import Report
from policylang.model.resolve import resolve
from policylang.packets.values import Ranges, parse_address
from policylang.syntax.loader import GROUPS, SERVICES, catalogue_names, load_text
from tests.catalogue.whole import addresses_of


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints that finds something."""
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def names(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The names that a command finds."""
    found: list[dict[str, Any]] = json.loads(said(capsys, *arguments, "--format", "json"))
    return [entry["name"] for entry in found]


# --- listing and searching ------------------------------------------------------------------


def test_all_are_listed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "services").splitlines()
    assert tuple(line.split()[0] for line in lines) == catalogue_names(SERVICES)
    (ssh,) = (line for line in lines if line.startswith("ssh "))
    assert ssh.split("  ", 1)[1].split() == [
        *("tcp", "22", "Secure", "Shell", "(RFC", "4251),", "remote", "login", "and", "file"),
        "transfer",
    ]
    lines = said(capsys, "groups").splitlines()
    assert tuple(line.split()[0] for line in lines) == catalogue_names(GROUPS)


@pytest.mark.parametrize("command", ["services", "groups"])
def test_json_holds_them_all(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(names(capsys, command)) == catalogue_names(command)


@pytest.mark.parametrize(
    ("pattern", "found", "others"),
    [
        ("ssh", {"ssh"}, {"sftp"}),  # a whole name is that service alone
        ("SSH", {"ssh"}, {"sftp"}),
        ("kube-*", {"kube-apiserver", "kube-worker"}, {"kubelet", "kubernetes-api"}),
        ("imap?", {"imaps", "imap2"}, {"imap"}),
        ("kerber", {"kerberos", "klogin", "kadmin"}, {"ssh"}),  # names and descriptions
        ("443", {"https", "http3", "jitsi"}, {"https-alt"}),
        ("tcp/443", {"https", "matrix"}, {"http3"}),
        ("443/udp", {"http3", "quic"}, {"https"}),
        ("udp 443", {"http3", "quic"}, {"https"}),
        ("sctp/3868", {"diameter"}, set()),
        ("60500", {"mosh"}, {"ssh"}),  # within a range
    ],
)
def test_services_are_found(
    pattern: str, found: set[str], others: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = set(names(capsys, "services", pattern))
    assert found <= shown and not others & shown


@pytest.mark.parametrize(
    ("pattern", "found", "others"),
    [
        ("private", {"private"}, {"rfc1918"}),
        ("*link*", {"link-local"}, {"private"}),
        ("carrier", {"shared", "cgnat"}, {"private"}),
        ("10.1.2.3", {"private", "rfc1918", "bogons"}, {"shared", "globally-reachable"}),
        ("192.0.2.0/24", {"documentation", "not-globally-reachable"}, {"bogons"}),
        ("fd00::/8", {"private", "unique-local"}, {"rfc1918"}),
        ("9.0.0.0-10.0.0.0", set(), {"private", "globally-reachable"}),  # all of it
        ("2001:db8::1", {"documentation"}, {"globally-reachable"}),
    ],
)
def test_groups_are_found(
    pattern: str, found: set[str], others: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["groups", pattern, "--format", "json"])
    shown = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert found <= shown and not others & shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["services", "htps"], "nothing matches `htps`: did you mean `https`?"),
        (["services", "qqqqqq"], "nothing matches `qqqqqq`: `policylang services` lists them all"),
        (["services", "tcp/3"], "nothing matches `tcp/3`"),
        (["services", "99999"], "nothing matches `99999`"),
        (["services", "a\x1b[31m"], "nothing matches `a\\x1b[31m`"),
        (["services", ""], ""),
        (["groups", "bogon-"], "nothing matches `bogon-`: did you mean `bogons`?"),
        (["groups", "8.8.8.0/0"], "nothing matches"),
    ],
)
def test_nothing_found_is_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, and what may have been meant; a pattern that is empty is a part of every name."""
    if not words:
        assert main(arguments) == 0
        return
    assert main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and words in shown.err and len(shown.err.splitlines()) == 1
    assert main([*arguments, "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


# --- explaining -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "ftp",
            [
                "ftp: FTP with its control connection on port 21",
                "  opens     tcp 21\n",
                "  helper    ftp lets in what it predicts, opened by the client or the server\n",
                "\nservice ftp { tcp 21  helper ftp }\n",
            ],
        ),
        ("irc", ["; IPv4 alone; a\n            record of kernel faults\n"]),
        (
            "samba",
            [
                "  opens     udp 137\n  helper    netbios-ns",
                "  opens     udp 138\n  answers   from any machine of the network",
                "  opens     tcp 139, 445\n  same as   cifs, smb\n",
            ],
        ),
        ("mdns", ["  same as   avahi, bonjour, zeroconf\n", "udp 5353  answers from any"]),
        ("bonjour", ["  same as   avahi, mdns, zeroconf\n", "service bonjour = mdns\n"]),
        (
            "bacula",
            [
                "  members   bacula-director, bacula-client, bacula-storage\n",
                "service bacula = bacula-director",
            ],
        ),
        ("ftps", ["  note      FTP over TLS hides its data ports from every helper"]),
        ("ping", ["  opens     icmp echo-request\n  opens     icmpv6 echo-request\n"]),
        ("ipsec", ["  opens     udp 500, 4500\n  opens     protocol esp, ah\n"]),
        ("sit", ["  opens     protocol ipv6-encap\n"]),
    ],
)
def test_one_service_is_explained(
    name: str, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "services", name)
    for part in parts:
        assert part in text
    before, _, statement = text.partition("\nservice ")
    assert statement and all(len(line) <= 80 for line in before.splitlines())


def test_the_only_match_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "services", "sctp/3868") == said(capsys, "services", "diameter")
    assert said(capsys, "groups", "*link*") == said(capsys, "groups", "link-local")


def test_a_group_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "groups", "link-local") == (
        "link-local: Addresses that hold on one link alone (RFC 3927, RFC 4291)\n"
        "\n"
        "  holds     169.254.0.0/16, fe80::/10\n"
        "\n"
        "set link-local = 169.254.0.0/16, fe80::/10\n"
    )


@pytest.mark.parametrize("name", catalogue_names(GROUPS))
def test_what_a_group_holds_is_all_of_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = json.loads(said(capsys, "groups", name, "--format", "json"))
    pairs = [parse_address(text) for text in entry["addresses"]]
    assert Ranges.merged(pair for pair in pairs if pair is not None) == addresses_of(name)
    assert None not in pairs


def test_what_is_shown_is_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a service, in a policy of its own, says what the catalogue says."""
    for entry in json.loads(said(capsys, "services", "--format", "json")):
        report = Report()
        text = f"{entry['text']}\nallow {entry['name']} inbound"
        (rule,) = resolve(load_text(text, "p.policy", Path(), report), report, {}).rules
        codes = {d.code for d in report.diagnostics}
        assert codes <= {"shadows-catalogue", "service-note"}, entry["name"]
        shown = [
            (t["ports"], t["helper"], t["data_ports"], t["answers_from_any"])
            for t in entry["opens"]
        ]
        assert shown == [
            (
                None if t.ports is None else [list(pair) for pair in t.ports],
                None if t.helper is None else t.helper.name,
                None if t.data_ports is None else [list(pair) for pair in t.data_ports],
                t.answers_from_any,
            )
            for t in rule.what
        ], entry["name"]


def test_json_has_the_keys_that_help_names(capsys: pytest.CaptureFixture[str]) -> None:
    for command, name in (("services", "ftp"), ("groups", "private")):
        (entry,) = json.loads(said(capsys, command, name, "--format", "json"))
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        for key in (*entry, *(entry.get("opens") or [{}])[0]):
            assert key in text, key


def test_it_is_quick() -> None:
    """All of the catalogue is read in 0.3 s; the bound is for machines that are busy."""
    took = []
    for _ in range(3):
        before = time.monotonic()
        argv = [sys.executable, "-m", "policylang", "services", "https"]
        subprocess.run(argv, capture_output=True, check=True)
        took.append(time.monotonic() - before)
    assert min(took) < 2
