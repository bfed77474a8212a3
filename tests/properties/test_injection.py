"""No text of a policy, of its files or of whoever compiles it becomes a statement of the output.

A policy is built around a hostile text and around a harmless one of the same sort. Either the
hostile one is refused, or both compile to the same lines, word by word, but for words and strings
that stand where the text may stand.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policylang.backends import TARGETS
from policylang.backends.base import Artifact
from policylang.cli.render import Renderer, as_json
from policylang.cli.visible import visible
from policylang.diagnostics import Report
from policylang.pipeline import artifact_of, ruleset_of

# --- the places where a text may stand ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Built:
    """A policy with its files: `main` is the name of the one that is compiled."""

    files: Mapping[str, str]
    main: str = "main.policy"
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a text: how a policy is built around it, and harmless texts of its sort.

    Where the text has a meaning there is a harmless one for each shape of the output. `ends` are
    the characters by which the text would end in the language itself: what follows them in a
    policy is another policy, which its author may write. A slot that others fill has none.
    """

    name: str
    build: Callable[[str], Built]
    harmless: tuple[str, ...]
    ends: str = ""


Texts = str | tuple[str, ...]
QUOTED = '"\n'
BARE = ' \t\r\n"#,={}'


def several(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else texts


def written(name: str, text: str, harmless: Texts, ends: str) -> Slot:
    """A slot of the policy's own text, where it says `@`."""
    return Slot(
        name,
        lambda hostile: Built({"main.policy": text.replace("@", hostile)}),
        several(harmless),
        ends,
    )


def in_list(name: str, text: str, harmless: Texts, column: str = "") -> Slot:
    """A slot of a list file, where that says `@`."""
    policy = f'set s = file "list" {column}\ndeny all inbound from s\nallow ssh inbound\n'
    return Slot(
        name,
        lambda hostile: Built({"main.policy": policy, "list": text.replace("@", hostile)}),
        several(harmless),
    )


def named_file(name: str, main: str, files: Mapping[str, str], harmless: Texts) -> Slot:
    """A slot of file names: `main` and the files' names and contents say `@`."""

    def build(hostile: str) -> Built:
        held = {key.replace("@", hostile): text for key, text in files.items()}
        return Built(held, main.replace("@", hostile))

    return Slot(name, build, several(harmless), ends="/")


def outside(name: str, policy: str, harmless: Texts, prefix: str = "", suffix: str = "") -> Slot:
    """A slot of a parameter `x`, set from outside."""
    return Slot(
        name,
        lambda hostile: Built(
            {"main.policy": f"param x\n{policy}"}, parameters={"x": prefix + hostile + suffix}
        ),
        several(harmless),
    )


ZONE = "zone {0} {{ interface eth0 }}\nallow ssh inbound from {0}\nallow http from {0} to any"
SET = "set {0} = 192.0.2.1, 2001:db8::/32\nallow ssh inbound from {0}\ndeny all from {0} to any"
SERVICE = "service {0} {{ tcp 1, 3, 5 }}\nallow {0} inbound\nallow {0} from any to 192.0.2.1"
GROUP = 'rules {0} {{ allow ssh log "x" }}\ntraffic inbound {{ use {0} }}'
INTERFACE = "zone a {{ interface {0} }}\nzone b {{ interface eth1 }}\nallow ssh from a to b, self"
ELEMENTS = (
    "203.0.113.7",
    "192.0.2.1",
    "192.0.2.0-192.0.2.4",
    "2001:db8::1",
    "0.0.0.0/0",
    "::/0",
    "",
)
INTERFACES = ("eth7", "eth0", "eth1", "eth9", "lo", "wlan*", "eth*", "*")
PREFIXES = ("FW ", "")
LIST = "192.0.2.1\n@\n198.51.100.1\n"

SLOTS: Sequence[Slot] = (
    # names
    *(
        slot
        for name, policy, harmless in (
            ("zone", ZONE, "lan"),
            ("set", SET, "admins"),
            ("service", SERVICE, "backup"),
            ("group of rules", GROUP, "common"),
            ("interface", INTERFACE, INTERFACES),
            ("interfaces", INTERFACE.replace("{0}", "{0}, eth9"), INTERFACES),
            ("dynamic set", "set {0} = dynamic\nallow ssh inbound add source to {0}", "seen"),
            ("user", "allow ssh outbound user {0}", ("alice", "7", "7-9")),
            ("group", "allow ssh outbound group {0}", ("staff", "7", "7-9")),
        )
        for slot in (
            written(name, policy.format("@"), harmless, BARE),
            written(f"{name} in quotes", policy.format('"@"'), harmless, QUOTED),
        )
    ),
    # words that are looked up
    written("service that is used", 'allow "@" inbound', "ssh", QUOTED),
    written("helper", 'service s { tcp 21 helper "@" }\nallow s inbound', "ftp", QUOTED),
    written("protocol", 'allow protocol "@" inbound', "gre", QUOTED),
    written("type", 'allow icmp "@" inbound', "redirect", QUOTED),
    written("answer", 'reject ssh inbound with "@"', "port-unreachable", QUOTED),
    written("level", 'allow ssh inbound log level "@"', "warn", QUOTED),
    written("address", "allow ssh inbound from @", (*ELEMENTS, "any", "self"), BARE),
    written("number", "allow tcp @ inbound", ("80", "80-90", "0-65535"), BARE),
    # texts
    written("log prefix", 'deny all inbound log "@"\nallow ssh outbound', PREFIXES, QUOTED),
    written("log prefix for a group", 'deny all inbound log "@" group 5', PREFIXES, QUOTED),
    written("log prefix of a default", 'default deny inbound log "@"', PREFIXES, QUOTED),
    written("log prefix of INVALID", 'settings { invalid drop log "@" }', PREFIXES, QUOTED),
    written("name of a rule", 'allow ssh inbound name "@" log', "a rule", QUOTED),
    written("warning", 'service s { tcp 1 warn "@" }\nallow s inbound', "mind", QUOTED),
    written("cgroup", 'allow ssh outbound cgroup "@"', "system.slice/ssh.service", QUOTED),
    written("comment", "allow ssh inbound # @\nallow http inbound", "harmless", "\n"),
    written("comment in a statement", "allow ssh # @\n  inbound log", "harmless", "\n"),
    # lists
    in_list("line of a list", LIST, ELEMENTS),
    in_list("comment of a list", LIST.replace("@", "203.0.113.7 ; @"), "SBL1"),
    in_list("first line of a list", f"@\n{LIST.replace('@', '')}", ("# a list", *ELEMENTS)),
    in_list("whole list", "@", ELEMENTS),
    in_list("text in JSON", '["192.0.2.1", "@"]', ELEMENTS),
    in_list("key in JSON", '{"cidr":"192.0.2.1","@":"x"}\n{"cidr":"192.0.2.2"}', "y"),
    in_list("element of an ipset", "create a hash:ip\nadd a 192.0.2.1\nadd a @", ELEMENTS),
    in_list("name of an ipset", "create @ hash:ip\nadd @ 192.0.2.1", "a"),
    in_list("comment of an ipset", 'create a hash:ip\nadd a 192.0.2.1 comment "@"', "x"),
    in_list("cell", "192.0.2.1,x\n@,y\n", ELEMENTS, "column 1"),
    in_list("other cell", "ip,x\n192.0.2.1,@\n", "harmless", 'column "ip"'),
    in_list("header", "@,ip\nx,192.0.2.1\n", "harmless", 'column "ip"'),
    Slot(
        "name of a column",
        lambda hostile: Built(
            {
                "main.policy": f'set s = file "list" column "{hostile}"\ndeny all inbound from s',
                "list": "ip,x\n192.0.2.1,y\n",
            }
        ),
        ("ip",),
        QUOTED,
    ),
    # names of files
    named_file("policy", "@.policy", {"@.policy": "allow ssh inbound log"}, "web"),
    named_file(
        "folder of the policy", "@/p.policy", {"@/p.policy": "allow ssh inbound log"}, "web"
    ),
    named_file(
        "included file",
        "main.policy",
        {"main.policy": 'include "site/*"', "site/a@": "allow ssh inbound log\n"},
        ".policy",
    ),
    named_file(
        "included folder",
        "main.policy",
        {"main.policy": 'include "*/p.policy"', "a@/p.policy": "set e =\nallow ssh inbound log\n"},
        "site",
    ),
    named_file(
        "list beside an included file",
        "main.policy",
        {
            "main.policy": 'include "*/p.policy"\ndeny all inbound from s',
            "a@/p.policy": 'set s = file "l"',
            "a@/l": "192.0.2.1",
        },
        "site",
    ),
    written("path of an include", 'include "@"\nallow ssh inbound', "nowhere/*", QUOTED),
    Slot(
        "path of a list",
        lambda hostile: Built(
            {
                "main.policy": f'set s = file "{hostile}"\nallow ssh inbound from s',
                "lists/x": "192.0.2.1",
            }
        ),
        ("lists/x",),
        QUOTED,
    ),
    # from outside
    outside(
        "interface from outside", "zone z { interface $x }\nallow ssh inbound from z", INTERFACES
    ),
    outside("name from outside", "zone $x { interface a }\nallow ssh inbound from $x", "lan"),
    outside("elements from outside", "set s = $x, 192.0.2.1\ndeny all inbound from s", ELEMENTS),
    outside("port from outside", "allow tcp 80, $x inbound", ("8080", "80-90", "0-65535")),
    outside("string from outside", "deny all inbound log $x", PREFIXES, '"', '"'),
    outside("path from outside", "include $x\nallow ssh inbound", "nowhere/*", '"', '"'),
    outside("word from outside", "settings { essentials $x }\nallow ssh inbound", "on"),
    Slot(
        "name of a parameter from outside",
        lambda hostile: Built(
            {"main.policy": "param x = 80\nallow tcp $x inbound"}, parameters={hostile: "80"}
        ),
        ("x",),
    ),
)

# --- the texts ------------------------------------------------------------------------------

HOSTILE = (
    "",
    " ",
    '"',
    "\\",
    '\\"',
    "`id`",
    "$(id)",
    "$x",
    "a\nb",
    "x\n-A INPUT -j ACCEPT",
    "x\n\t\taccept\n",
    'x" accept comment "',
    "x } chain evil { accept",
    "eth0 } allow all inbound zone q { interface eth9",
    "lan { interface eth9 } allow all inbound zone q",
    "80 inbound allow all",
    "192.0.2.7 allow all inbound set q = 192.0.2.9",
    'x" allow all inbound name "q',
    "on } allow all inbound settings { essentials on",
    "}",
    "#",
    "# x",
    ";",
    "!",
    "-j",
    "-j ACCEPT",
    "*",
    "a*",
    "*a",
    "/",
    "../x",
    "\0",
    "\r",
    "\t",
    "\x0b",
    "\x1b[2J",
    "\x7f",
    "\u00a0",
    "\u2028",
    "\u202eevil",
    "\ud800",
    "ａccept",
    "еth0",
    "\N{FULLWIDTH QUOTATION MARK}",
    "☃",
    "0",
    "65536",
    "1-2",
    "192.0.2.1",
    "::",
    "192.0.2.1, 192.0.2.2",
    "0.0.0.0/0",
    "02:00:00:00:00:01",
    "10/second",
    "accept",
    "any",
    "self",
    "none",
    "eth0",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "%s%n",
    "A" * 15,
    "A" * 16,
    "a" * 128,
    "a" * 300,
    "é" * 130,
    "x" * 5000,
)
PIECES = st.sampled_from(
    [*'"\\`$\n\r\t\0;{}#,=!*-/.: ', "a", "0", "é", "accept", "-j", "\x1b", "{{"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20)

# --- what comes of them ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """The files by target and name, or None where the policy is refused."""

    files: Mapping[tuple[str, str], str] | None


def compiled(built: Built) -> Outcome:
    """What a policy compiles to, for both targets; every message is fit to be shown."""
    report = Report()
    found: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, text in built.files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        ruleset = ruleset_of(Path(folder, built.main), report, parameters=built.parameters)
        for target in TARGETS:
            own = Report()
            artifact = None if ruleset is None else artifact_of(ruleset, target, own)
            found.update(files_of(artifact))
            report.diagnostics += own.diagnostics
    shown = Renderer(color=False).render(report.in_order())
    assert shown.isascii() or shown.encode()
    assert as_json(report.in_order()).isascii()
    assert all(visible(line) == line for line in shown.split("\n"))
    assert folder not in shown
    return Outcome(None if report.has_errors else found)


def files_of(artifact: Artifact | None) -> Iterator[tuple[tuple[str, str], str]]:
    if artifact is not None:
        for file in artifact.files:
            yield (artifact.target, file.name), file.text


@cache
def harmless(slot: Slot, text: str) -> Outcome:
    return compiled(slot.build(text))


# What is left between the words is a fault.
TOKEN = {
    "nft": re.compile(r'"[^"\\]*"|[{};,]|[^\s"{};,]+'),
    "iptables": re.compile(r'"[^"\\]*"|[^\s"]+'),
}
ELEMENT = re.compile(r"[0-9a-f]*[.:][0-9a-f.:]*(/[0-9]+)?(-[0-9a-f.:]+)?|[0-9]+(-[0-9]+)?")
# What stands before a name, and the options of iptables whose value is a policy's own word.
NAMING = frozenset({"set", "add", "update", "create"})
VALUES = frozenset({"-i", "-o", "--dports", "--add-set"})
WORD = re.compile(r"@?[A-Za-z_][A-Za-z0-9_.-]*")


def words(target: str, line: str) -> list[str]:
    """The words of a line; several elements of a list count as one."""
    assert not TOKEN[target].sub("", line).strip(), f"a quote too many: {line!r}"
    result: list[str] = []
    for word in TOKEN[target].findall(line):
        if ELEMENT.fullmatch(word):
            if result[-2:] == ["0", ","]:
                result.pop()
                continue
            word = "0"
        result.append(word)
    for position in range(len(result) - 2):
        if result[position : position + 3] == ["{", "0", "}"]:  # one element has no braces
            return [*result[:position], "0", *result[position + 3 :]]
    return result


def lines(target: str, text: str) -> list[list[str]]:
    """The lines as words; elements that follow each other, a line each, count as one."""
    result: list[list[str]] = []
    for line in text.split("\n"):
        cut = words(target, line)
        if not result or cut != result[-1] or cut[:1] != ["add"]:
            result.append(cut)
    return result


def differences(target: str, text: str, other: str) -> Iterator[str]:
    """What one text says and the other does not.

    Words and strings may differ where a policy's own may stand.
    """
    mine, theirs = lines(target, text), lines(target, other)
    if len(mine) != len(theirs):
        yield f"{len(mine)} lines, not {len(theirs)}"
    for line, wanted in zip(mine, theirs, strict=False):
        if len(line) != len(wanted) or not all(
            word == like or may_stand(target, word, like, before)
            for word, like, before in zip(line, wanted, ["", *wanted], strict=False)
        ):
            yield f"{line}, not {wanted}"


def may_stand(target: str, word: str, like: str, before: str) -> bool:
    """Whether a word may stand for another, behind what stands before both."""
    if word[0] == '"' and like[0] == '"':
        return True
    if target == "iptables" and before in VALUES:
        return True
    return before in NAMING and all(WORD.fullmatch(one) is not None for one in (word, like))


def is_name_of_a_file(text: str) -> bool:
    """Whether the system can have a file of that name."""
    try:
        return (
            text not in ("", ".", "..")
            and not set(text) & {"/", "\0"}
            and (len(os.fsencode(f"{text}.policy")) <= 255)
        )
    except UnicodeEncodeError:
        return False


def assert_harmless(slot: Slot, text: str) -> None:
    built = slot.build(text)
    if not all(is_name_of_a_file(part) for name in built.files for part in name.split("/")):
        return
    outcome = compiled(built)
    if outcome.files is None or set(text) & set(slot.ends):
        return
    for made in outcome.files.values():
        assert all(c in "\n\t" or " " <= c <= "~" for c in made), "what no target reads"
    nearest: list[str] | None = None
    for like in slot.harmless:
        wanted = harmless(slot, like).files
        if wanted is None or wanted.keys() != outcome.files.keys():
            continue
        found = [
            difference
            for (target, name), made in outcome.files.items()
            for difference in differences(target, made, wanted[target, name])
        ]
        if not found:
            return
        nearest = found if nearest is None else min(nearest, found, key=len)
    pytest.fail(f"{text!r} becomes what no harmless text does: {(nearest or [])[:3]}")


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.name)
def test_a_harmless_text_is_taken(slot: Slot) -> None:
    """Where it were refused, nothing would be proved of any other."""
    assert harmless(slot, slot.harmless[0]).files


@pytest.mark.parametrize("slot", SLOTS, ids=lambda slot: slot.name)
def test_known_tricks(slot: Slot) -> None:
    for text in HOSTILE:
        assert_harmless(slot, text)


@settings(max_examples=300, deadline=None)
@given(slot=st.sampled_from(SLOTS), text=TEXTS)
def test_any_text(slot: Slot, text: str) -> None:
    assert_harmless(slot, text)
