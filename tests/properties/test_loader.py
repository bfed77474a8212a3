"""What a policy names is read once, from where it says, and what cannot be read is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from policylang.diagnostics import Report
from policylang.packets.values import Ranges, parse_address
from policylang.syntax import tree
from policylang.syntax.loader import MOST_OPEN, load, load_text


def write(folder: Path, **files: str | bytes) -> Path:
    """Files by name, `__` for a slash and `_` for a dot; the policy is `main.policy`."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / "main.policy"


def loaded(folder: Path, **files: str | bytes) -> tuple[tree.Loaded, list[str]]:
    """What is loaded, and the diagnostics as `code file:line text`."""
    report = Report()
    result = load(write(folder, **files), report)
    return result, told(report)


def told(report: Report) -> list[str]:
    lines = []
    for d in report.in_order():
        where = ""
        if d.span is not None:
            where = f" {d.span.place} {d.span.file.text[d.span.start : d.span.end]}"
        lines.append(f"{d.code}{where}")
    return lines


def names(result: tree.Loaded) -> list[str]:
    return [s.name.text for s in result.statements if isinstance(s, tree.SetDecl)]


def held(result: tree.Loaded) -> dict[tuple[str, str], tree.ListFile]:
    """The lists by the file that names them and the path that stands there."""
    return {(name, element.path): held for (name, element), held in result.lists.items()}


# --- files ----------------------------------------------------------------------------------


def test_a_byte_order_mark_and_either_line_end_are_no_matter(tmp_path: Path) -> None:
    result, errors = loaded(tmp_path, main_policy=b"\xef\xbb\xbfset a = 1\r\nset b = 2\r\n")
    assert errors == [] and names(result) == ["a", "b"]
    assert result.statements[1].span.place == "main.policy:2"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"set a = 1\nset \xff = 2", "not-utf8 main.policy:2 \xff"),
        (b"\xef\xbb\xbf\xc3", "not-utf8 main.policy:1 \xc3"),
        (b"set a\0 = 1", "not-utf8 main.policy:1 \0"),
    ],
)
def test_what_is_no_text_is_told(tmp_path: Path, content: bytes, error: str) -> None:
    result, errors = loaded(tmp_path, main_policy=content)
    assert errors == [error] and result.statements == ()


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.policy", tmp_path, tmp_path / ("x" * 300)):
        report = Report()
        assert load(path, report).statements == ()
        (diagnostic,) = report.diagnostics
        assert diagnostic.code == "unreadable-file" and diagnostic.span is None
        assert diagnostic.message.startswith("cannot read `")


def test_a_text_from_elsewhere_names_files_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, site__more_policy="set b = 2 foo", drop_txt="192.0.2.1")
    report = Report()
    text = 'include "site/more.policy" set a = file "drop.txt"'
    result = load_text(text, "<stdin>", tmp_path, report)
    assert names(result) == ["b", "a"]
    assert told(report) == ["syntax site/more.policy:1 foo"]
    assert list(held(result)) == [("<stdin>", "drop.txt")]
    report = Report()
    load_text("set a = 1\0", "<stdin>", tmp_path, report)
    load_text("set a = \ud800", "<stdin>", tmp_path, report)
    assert [d.code for d in report.diagnostics] == ["not-utf8", "not-utf8"]


# --- includes -------------------------------------------------------------------------------


def test_includes_stand_where_they_are_written_sorted_and_once(tmp_path: Path) -> None:
    result, errors = loaded(
        tmp_path,
        main_policy='set a = 1 include "site/*.policy" set z = 1 include "site/c.policy"',
        site__c_policy="set c = 1",
        site__b_policy='set b = 1 include "../far.policy"',
        site__note_txt="not a policy",
        far_policy="set far = 1 oops",
    )
    assert names(result) == ["a", "b", "far", "c", "z"]
    assert errors == ["syntax far.policy:1 oops"]
    assert not any(isinstance(s, tree.Include) for s in result.statements)


def test_a_pattern_is_read_in_the_order_of_the_names(tmp_path: Path) -> None:
    """Whatever the order in the folder: capitals first, and `10` before `9`."""
    stems = ("b", "9", "B", "10", "a-z", "a_z", "a", "c/a", "c/Z")
    files = {f"site__{stem.replace('/', '__')}.policy": "" for stem in stems}
    for name in files:
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'set "{path.parent.name}-{path.stem}" = 1')
    result, errors = loaded(
        tmp_path, main_policy='include "site/*.policy" include "s*e/?/*.policy"'
    )
    assert errors == []
    assert names(result) == [
        *(f"site-{stem}" for stem in ("10", "9", "B", "a-z", "a", "a_z", "b")),
        *("c-Z", "c-a"),
    ]


def test_a_file_under_two_names_is_read_once(tmp_path: Path) -> None:
    write(
        tmp_path, main_policy='include "*/a.policy" include "b/a.policy"', a__a_policy="set a = 1"
    )
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a" / "again.policy").symlink_to("a.policy")
    report = Report()
    result = load(tmp_path / "main.policy", report)
    assert names(result) == ["a"] and not report.diagnostics


def test_an_include_that_matches_nothing_is_told(tmp_path: Path) -> None:
    _, errors = loaded(tmp_path, main_policy='include "x/*.policy"\ninclude "y.policy"\n')
    assert errors == [
        'include-nothing main.policy:1 "x/*.policy"',
        'unreadable-file main.policy:2 "y.policy"',
    ]


@pytest.mark.parametrize("pattern", ["main.policy", "*.policy", "../{}/main.policy", "b.policy"])
def test_a_cycle_is_told_at_the_include_that_closes_it(tmp_path: Path, pattern: str) -> None:
    _, errors = loaded(
        tmp_path,
        main_policy=f'set a = 1 include "{pattern.format(tmp_path.name)}"',
        b_policy='include "main.policy"',
    )
    assert len([e for e in errors if e.startswith("include-cycle")]) >= 1
    assert all(e.startswith("include-cycle") for e in errors)


def test_a_cycle_names_the_include_that_opened_it(tmp_path: Path) -> None:
    report = Report()
    main = write(tmp_path, main_policy='include "b.policy"', b_policy='# b\ninclude "b.policy"')
    load(main, report)
    (diagnostic,) = report.diagnostics
    assert diagnostic.span is not None and diagnostic.span.place == "b.policy:2"
    assert [label.span.place for label in diagnostic.labels] == ["main.policy:1"]


def test_a_long_chain_of_includes_is_refused(tmp_path: Path) -> None:
    files = {f"f{i}_policy": f'include "f{i + 1}.policy"' for i in range(1000)}
    _, errors = loaded(tmp_path, main_policy='include "f0.policy"', **files)
    assert errors == [f'nested-too-deep f{MOST_OPEN - 2}.policy:1 "f{MOST_OPEN - 1}.policy"']


# --- lists ----------------------------------------------------------------------------------


def ranges(*elements: str) -> tuple[tuple[int, int], ...]:
    pairs = [parse_address(element) for element in elements]
    assert None not in pairs
    return Ranges.merged(pair for pair in pairs if pair is not None).pairs


def test_published_lists_are_read_as_they_are(tmp_path: Path) -> None:
    result, errors = loaded(
        tmp_path,
        main_policy='set a = file "lists/drop.txt", 192.0.2.1 except file "lists/v6.txt"',
        lists__drop_txt=b"\xef\xbb\xbf; Spamhaus DROP List 2024/01/01\r\n"
        b"1.10.16.0/20 ; SBL256894\r\n\r\n# firehol\n  198.51.100.7\t\n"
        b"203.0.113.1 - 203.0.113.9\n203.0.113.10-203.0.113.12#x",
        lists__v6_txt="2001:db8::/32\n::1",
    )
    assert errors == []
    assert held(result) == {
        ("main.policy", "lists/drop.txt"): tree.ListFile(
            "address", ranges("1.10.16.0/20", "198.51.100.7", "203.0.113.1-203.0.113.12")
        ),
        ("main.policy", "lists/v6.txt"): tree.ListFile("address", ranges("2001:db8::/32", "::1")),
    }


def test_a_list_is_looked_for_beside_the_file_that_names_it(tmp_path: Path) -> None:
    result, errors = loaded(
        tmp_path,
        main_policy='include "site/s.policy" set b = file "l.txt"',
        site__s_policy='set a = file "l.txt"',
        site__l_txt="80\n443 - 444\n8000-8001",
        l_txt="# nothing",
    )
    assert errors == []
    assert held(result) == {
        ("site/s.policy", "l.txt"): tree.ListFile("port", ((80, 80), (443, 444), (8000, 8001))),
        ("main.policy", "l.txt"): tree.ListFile(None, ()),
    }


def test_a_list_that_cannot_be_read_is_told_and_missing(tmp_path: Path) -> None:
    text = 'set a = file "none.txt"\nset b = file "none.txt", file "bad.txt"'
    result, errors = loaded(tmp_path, main_policy=text, bad_txt=b"\xff")
    assert errors == ['unreadable-file main.policy:1 file "none.txt"', "not-utf8 bad.txt:1 \xff"]
    assert result.lists == {}


# --- the catalogue --------------------------------------------------------------------------


def catalogue(text: str) -> tuple[set[str], set[str]]:
    """The services and the helpers that a policy makes the loader read."""
    report = Report()
    result = load_text(text, "<stdin>", Path(), report)
    assert not report.diagnostics
    for name, service in result.services.items():
        assert service.name.text == name and name in result.known_services
        assert service.span.file.name == f"catalogue/{name}.policy"
    return set(result.services), set(result.helpers)


def test_services_are_read_when_they_are_named() -> None:
    assert catalogue("allow all inbound") == (set(), set())
    assert catalogue("allow ssh, tcp 80, ntp inbound")[0] == {"ssh", "ntp"}
    assert catalogue('traffic inbound { allow "ssh" } rules r { deny ntp }')[0] == {"ssh", "ntp"}
    assert catalogue("service s = ssh, t service t = ntp")[0] == {"ssh", "ntp"}
    assert catalogue("allow nonesuch inbound")[0] == set()


def test_groups_of_the_catalogue_bring_their_members() -> None:
    assert catalogue("allow www inbound")[0] == {"www", "http"}


def test_what_the_policy_declares_is_its_own() -> None:
    assert catalogue("service ssh { tcp 2222 } allow ssh, ntp inbound")[0] == {"ntp"}
    assert catalogue("set ssh = 22 allow tcp 80, ssh inbound")[0] == set()


def test_helpers_are_read_when_a_service_has_one() -> None:
    for text in ("allow ftp inbound", "service f { tcp 2121 helper ftp }"):
        assert {"ftp", "sip", "netbios-ns"} <= catalogue(text)[1]
    assert catalogue("allow ssh inbound")[1] == set()


def test_all_of_the_catalogue_is_known() -> None:
    known = load_text("", "<stdin>", Path(), Report()).known_services
    assert {"ssh", "http", "ftp"} <= set(known) and known == tuple(sorted(known))
