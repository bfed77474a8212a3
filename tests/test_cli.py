"""What the command line prints, writes and answers; what it compiles to is tested elsewhere."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from policylang import __version__, pipeline
from policylang.backends.base import Artifact, OutputFile
from policylang.cli import main, output
from policylang.cli.render import WIDEST, Renderer, as_json, summary
from policylang.cli.visible import visible
from policylang.codes import CODES
from policylang.diagnostics import Diagnostic, Label, Report
from policylang.ir.ruleset import Ruleset
from policylang.source import SourceFile, Span

GOOD = "zone wan { interface eth0 }\nallow http inbound from wan\n"
BAD = "allow htpp inbound\nallow ssh\n"  # two errors


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "web.policy"
    path.write_text(GOOD)
    return path


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on how its terminal, or that of whoever runs it, is set up."""
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def started(
    *arguments: str,
    stdin: bytes | int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    prelude: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run policylang as a process of its own, after `prelude` in the same interpreter."""
    code = f"{prelude}\nimport sys\nfrom policylang.cli import main\nsys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        input=stdin if isinstance(stdin, bytes) else None,
        stdin=stdin if isinstance(stdin, int) else None,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )


# --- starting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["compile", "--help"], ["explain", "--help"], ["explain"], []],
    ids=" ".join,
)
def test_little_is_imported_where_nothing_is_compiled(arguments: Sequence[str]) -> None:
    """Version and help answer at once: no grammar, no templates, no kernel."""
    heavy = ("textx", "arpeggio", "jinja2", "ctypes", "policylang.pipeline", "policylang.syntax")
    prelude = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print([m for m in {heavy} if m in sys.modules]))"
    )
    done = started(*arguments, prelude=prelude)
    assert done.stdout.decode().splitlines()[-1] == "[]"


def test_the_version_is_told() -> None:
    assert started("--version").stdout.decode() == f"policylang {__version__}\n"


def test_it_is_a_module_too() -> None:
    """`python -m policylang` is the same program."""
    argv = [sys.executable, "-m", "policylang", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == f"policylang {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["comple"], "invalid choice"),
        (["compile"], "FILE"),
        (["compile", "x", "--target", "pf"], "invalid choice"),
        (["compile", "x", "--tar", "nft"], "unrecognized"),
        (["compile", "x", "--target", "iptables"], "`-o DIR`"),
        (["compile", "x", "--target", "iptables", "-o", "-"], "`-o DIR`"),
        (["apply", "x", "--flavour", "legacy"], "--target iptables"),
        (["check", "x", "-D", "wan"], "expected NAME=VALUE"),
        (["check", "x", "-D", "=ens3"], "expected NAME=VALUE"),
        (["compile", "x", "-D", "wan=ens3", "-D", "wan=ens4"], "-D wan is given twice"),
        (["compile", "x", "-D", "w\x1b=1", "-D", "w\x1b=2"], "-D w\\x1b is given twice"),
        (["explain", "-D", "wan=ens3"], "unrecognized"),
        (["explain", "unknown-servise"], "did you mean `unknown-service`?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_ends_with_1(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake in the command line is told on standard error, and nothing is done."""
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("policylang")
    assert said.out == ""


# --- the look of a diagnostic ----------------------------------------------------------------


def spanned(text: str, part: str, name: str = "web.policy") -> Span:
    """The place of `part` in a file that holds `text`."""
    file = SourceFile(name, text)
    start = text.index(part)
    return Span(file, start, start + len(part))


def rendered(diagnostic: Diagnostic, color: bool = False) -> list[str]:
    return Renderer(color).render([diagnostic]).splitlines()


def test_a_diagnostic_looks_as_the_style_guide_says() -> None:
    """Code and message, place, source line, marks, help."""
    text = "zone wan { interface eth0 }\n\n\nallow ftpp inbound\n"
    diagnostic = Diagnostic(
        "unknown-service",
        "no service named `ftpp`",
        spanned(text, "ftpp"),
        "did you mean `ftp`?",
    )
    assert rendered(diagnostic) == [
        "error[unknown-service]: no service named `ftpp`",
        "  --> web.policy:4:7",
        "   4 | allow ftpp inbound",
        "     |       ^^^^",
        "   help: did you mean `ftp`?",
    ]


def test_a_second_place_has_its_own_line() -> None:
    """A label shows the place that it speaks of, in whatever file that is."""
    span = spanned("zone lan { interface eth1 }", "lan", "b.policy")
    label = Label(spanned("\nset lan = 10.0.0.0/8", "lan", "a.policy"), "first declared here")
    diagnostic = Diagnostic("duplicate-name", "`lan` is declared twice", span, None, (label,))
    assert rendered(diagnostic) == [
        "error[duplicate-name]: `lan` is declared twice",
        "  --> b.policy:1:6",
        "   1 | zone lan { interface eth1 }",
        "     |      ^^^",
        "  ::: a.policy:2:5",
        "   2 | set lan = 10.0.0.0/8",
        "     |     --- first declared here",
    ]


def test_no_place_needs_no_line() -> None:
    """Where no file is at fault there is the message and the help, over several lines too."""
    diagnostic = Diagnostic("loading-failed", "nft said no", None, "first\nsecond")
    assert rendered(diagnostic) == [
        "error[loading-failed]: nft said no",
        "   help: first",
        "         second",
    ]


@pytest.mark.parametrize(
    ("line", "part", "shown", "marks"),
    [
        ("\tallow ftpp", "ftpp", "    allow ftpp", "          ^^^^"),
        ("a\tftpp", "ftpp", "a   ftpp", "    ^^^^"),
        ("a\t\tb", "\t", "a       b", " ^^^"),
        ('name "漢字" ftpp', "ftpp", 'name "漢字" ftpp', "            ^^^^"),
        ('name "漢字"', "漢字", 'name "漢字"', "      ^^^^"),
        ('"e\u0301" ftpp', "ftpp", '"e\u0301" ftpp', "    ^^^^"),
        ("a\x1b[31m ftpp", "ftpp", "a\\x1b[31m ftpp", "          ^^^^"),
        ("a\u202eb ftpp", "ftpp", "a\\u202eb ftpp", "         ^^^^"),
        ("a\x85b\u2028c", "c", "a\\x85b\\u2028c", "            ^"),
        ("allow ssh", "", "allow ssh", "^"),
    ],
)
def test_marks_stand_under_what_they_mean(line: str, part: str, shown: str, marks: str) -> None:
    """Tabs, wide and combining characters and characters that are written out: all count."""
    lines = rendered(Diagnostic("unknown-service", "x", spanned(line, part)))
    assert lines[2:] == [f"   1 | {shown}", f"     | {marks}"]


def test_the_end_of_a_file_can_be_marked() -> None:
    """A place behind the last character is where something is missing."""
    for text, line in (("allow", 1), ("allow\n", 2), ("", 1)):
        file = SourceFile("web.policy", text)
        found = rendered(Diagnostic("syntax", "x", Span(file, len(text), len(text))))
        assert found[1].startswith(f"  --> web.policy:{line}:")
        assert found[3].endswith("^")


def test_a_place_of_several_lines_shows_the_first() -> None:
    """Marks go to the end of the first line and say where the place ends."""
    text = "traffic from lan\n  to wan {\n}\nallow ssh\n"
    found = rendered(Diagnostic("syntax", "x", spanned(text, text[8:-10])))
    assert found[2:] == [
        "   1 | traffic from lan",
        "     |         ^^^^^^^^ (to line 3)",
    ]


def test_windows_line_ends_are_not_shown() -> None:
    """A carriage return before the line end belongs to it."""
    found = rendered(Diagnostic("syntax", "x", spanned("allow ssh\r\nallow x\r\n", "ssh\r\n")))
    assert found[2:] == ["   1 | allow ssh", "     |       ^^^"]


def test_line_numbers_of_any_length_are_aligned() -> None:
    """The gutter grows with the largest number in it."""
    text = "a" + "\n" * 123456 + "allow x"
    label = Label(spanned(text, "a"), "here")
    found = rendered(Diagnostic("syntax", "x", spanned(text, "x"), None, (label,)))
    assert found[1:] == [
        "    --> web.policy:123457:7",
        "123457 | allow x",
        "       |       ^",
        "    ::: web.policy:1:1",
        "     1 | a",
        "       | - here",
    ]


@pytest.mark.parametrize("position", [0, 100, 5000, 9996])
def test_of_a_long_line_the_part_around_the_mark_is_shown(position: int) -> None:
    """A line of a thousand addresses does not flood the terminal, and the mark still fits."""
    line = "x" * position + "HERE" + "x" * (9996 - position)
    _, _, shown, marks = rendered(Diagnostic("syntax", "x", spanned(line, "HERE")))
    assert len(shown) <= WIDEST + len("   1 | ……")
    assert len(marks) == len(marks.rstrip())
    assert shown[marks.index("^") : marks.rindex("^") + 1] == "HERE"
    assert ("…" in shown[7]) == (position > 60)


def test_a_mark_longer_than_the_part_shown_is_cut() -> None:
    """Marks end where the shown part of the line does."""
    _, _, shown, marks = rendered(Diagnostic("syntax", "x", spanned("a" + "x" * 9999, "x" * 9999)))
    assert len(marks) <= len(shown)


def test_nothing_of_a_policy_acts_on_the_terminal() -> None:
    """Message, help, label, source and the file's name are written out, not obeyed."""
    evil = "\x1b]0;title\x07\x9b31m\r\u202e\u2066"
    span = spanned(f"allow {evil}", evil, f"{evil}.policy")
    diagnostic = Diagnostic("syntax", evil, span, evil, (Label(span, evil),))
    text = Renderer(False).render([diagnostic])
    assert not [c for c in text if c != "\n" and not c.isprintable()]
    assert "\\x1b]0;title\\x07\\x9b31m\\x0d\\u202e\\u2066" in text


def test_color_is_around_the_text_and_not_in_it() -> None:
    """With colour the text is the same, but for the colour."""
    span = spanned("allow ftpp inbound", "ftpp")
    diagnostic = Diagnostic("unknown-service", "x", span, "y", (Label(span, "z"),))
    colored = "\n".join(rendered(diagnostic, color=True))
    for style in ("1;31", "1", "34", "36", "0"):
        assert f"\x1b[{style}m" in colored
        colored = colored.replace(f"\x1b[{style}m", "")
    assert colored.splitlines() == rendered(diagnostic)


def test_the_summary_counts() -> None:
    """The last line says how many there are of each."""
    error, warning = Diagnostic("syntax", "", None), Diagnostic("empty-set", "", None)
    assert summary([]) == ""
    assert summary([error]) == "1 error"
    assert summary([warning, error, error]) == "2 errors, 1 warning"
    assert summary([warning] * 3) == "3 warnings"


def test_json_has_the_documented_keys() -> None:
    """The keys of an entry, of a label, and what is null, are relied upon by others."""
    text = "zone é\nzone é\x1b\n"
    label = Label(spanned(text, "é"), "first")
    span = Span(label.span.file, 12, 15)  # the second name, and the line end behind it
    found = json.loads(
        as_json(
            [
                Diagnostic("duplicate-name", "m", span, "h", (label,)),
                Diagnostic("left-behind", "m", None),
            ]
        )
    )
    assert found == [
        {
            "code": "duplicate-name",
            "severity": "error",
            "message": "m",
            "file": "web.policy",
            "line": 2,
            "column": 6,
            "end_line": 3,
            "end_column": 1,
            "help": "h",
            "labels": [
                {
                    "message": "first",
                    "file": "web.policy",
                    "line": 1,
                    "column": 6,
                    "end_line": 1,
                    "end_column": 7,
                }
            ],
        },
        {
            "code": "left-behind",
            "severity": "warning",
            "message": "m",
            "file": None,
            "line": None,
            "column": None,
            "end_line": None,
            "end_column": None,
            "help": None,
            "labels": [],
        },
    ]
    assert as_json([]) == "[]\n"


def test_what_cannot_be_shown_is_written_out() -> None:
    """Names of files may be any bytes but a slash and a null."""
    assert visible("plain") == "plain"
    assert visible("é漢") == "é漢"
    assert visible(os.fsdecode(b"a\xff\n")) == "a\\udcff\\x0a"
    assert visible("\U000e0001") == "\\U000e0001"


# --- colour ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "environment", "colored"),
    [
        ([], {}, False),  # a pipe
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--color", "auto"], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": ""}, False),
    ],
)
def test_who_asks_for_color_gets_it(
    options: list[str],
    environment: dict[str, str],
    colored: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The option before the environment, the environment before the terminal."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    assert main(["check", str(path), *options]) == 1
    assert ("\x1b[" in capsys.readouterr().err) == colored


def on_a_terminal(path: Path, environment: dict[str, str]) -> str:
    """What `check` prints where standard error is a terminal."""
    leader, follower = os.openpty()
    argv = [sys.executable, "-m", "policylang", "check", str(path)]
    subprocess.run(
        argv,
        stderr=follower,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
        check=False,
    )
    os.close(follower)
    said = b""
    try:
        while chunk := os.read(leader, 4096):
            said += chunk
    except OSError:  # how a terminal says that nobody has it open
        pass
    os.close(leader)
    return said.decode()


@pytest.mark.parametrize(
    ("environment", "colored"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False)],
)
def test_a_terminal_is_colored(environment: dict[str, str], colored: bool, tmp_path: Path) -> None:
    """Colour is for terminals that have it, unless NO_COLOR is set."""
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    assert ("\x1b[" in on_a_terminal(path, {"TERM": "xterm", **environment})) == colored


# --- check -----------------------------------------------------------------------------------


def test_check_says_that_all_is_well(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A good policy is one line on standard output."""
    assert main(["check", str(policy)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{policy}: no errors\n"
    assert said.err == ""


def test_check_counts_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Warnings are shown, and do not make a policy a bad one."""
    path = tmp_path / "w.policy"
    path.write_text("set none = 192.0.2.1 except 192.0.2.1\nallow ssh inbound from none\n")
    assert main(["check", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{path}: no errors, ")
    assert said.err.startswith("warning[")


def test_check_reports_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All errors are on standard error, with their number, and nothing on standard output."""
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    assert main(["check", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error[unknown-service]: ")
    assert "\nerror[missing-end]: " in said.err
    assert said.err.endswith("\n2 errors\n")


def test_check_as_json_is_on_standard_output(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For programs there is one array and nothing else."""
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    assert main(["check", str(path), "--format", "json"]) == 1
    said = capsys.readouterr()
    assert [e["code"] for e in json.loads(said.out)] == ["unknown-service", "missing-end"]
    assert said.err == ""
    assert main(["check", str(policy), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_missing_file_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that is not there is an error like another."""
    for command in ("check", "compile", "apply"):
        assert main([command, "/nowhere/web.policy"]) == 1
        said = capsys.readouterr()
        assert said.err.startswith("error[unreadable-file]: ")
        assert said.out == ""


# --- compile ---------------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_compile_prints_the_script(
    policy: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Standard output is the script and nothing else, twice the same."""
    assert main(["compile", str(policy)]) == 0
    first = capsysbinary.readouterr()
    assert first.out.startswith(b"#!")
    assert b"http" in first.out
    assert first.err == b""
    assert main(["compile", str(policy), "--target", "nft", "-o", "-"]) == 0
    assert capsysbinary.readouterr().out == first.out


def test_compile_shows_the_rules_between(policy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--target ir` is what both targets are made from."""
    assert main(["compile", str(policy), "--target", "ir"]) == 0
    assert "accept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["compile"], 'iifname "ens3"'),
        (["compile", "--target", "ir"], "ens3"),
        (["check"], "no errors"),
    ],
)
def test_a_parameter_is_set_on_the_command_line(
    command: Sequence[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "web.policy"
    path.write_text(
        "param wan\nparam admins = 192.0.2.1\nzone wan { interface $wan }\n"
        "allow ssh from $admins, 198.51.100.1 to self\nallow http inbound from wan\n"
    )
    name, *options = command
    values = ["-D", "wan=ens3", "-D", "admins=192.0.2.7, 2001:db8::/32"]
    assert main([name, str(path), *options, *values]) == 0
    said = capsys.readouterr()
    assert words in said.out and said.err == ""
    assert main([name, str(path), *options]) == 1
    assert "[parameter-unset]" in capsys.readouterr().err
    assert main([name, str(path), *options, "-D", "wan=ens3 } allow all inbound"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error[bad-parameter]: `-D wan`: ")


def test_apply_takes_parameters_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "web.policy"
    path.write_text("param wan\nzone wan { interface $wan }\nallow http inbound from wan\n")
    loaded: list[Artifact] = []

    def load(artifact: Artifact, *_: object, **__: object) -> None:
        loaded.append(artifact)

    monkeypatch.setattr("policylang.apply.guard.plan", load)
    assert main(["apply", "--yes", str(path), "-D", "wan=ens3"]) == 1
    assert 'iifname "ens3"' in loaded[0].files[0].text
    assert main(["apply", "--yes", str(path)]) == 1
    assert len(loaded) == 1 and "[parameter-unset]" in capsys.readouterr().err


def test_compile_reads_standard_input(policy: Path) -> None:
    """`-` is a policy like another; its paths are relative to the current folder."""
    done = started("compile", "-", stdin=GOOD.encode())
    assert done.returncode == 0
    assert b"<stdin>:2 allow http inbound from wan" in done.stdout
    done = started("compile", "-", stdin=BAD.encode())
    assert done.returncode == 1
    assert b"  --> <stdin>:1:7\n" in done.stderr
    done = started("check", "-", stdin=GOOD.encode())
    assert done.stdout == b"<stdin>: no errors\n"


@pytest.mark.parametrize("data", [b"allow \xff inbound\n", b"allow\0 ssh inbound\n"])
def test_standard_input_must_be_text(data: bytes) -> None:
    """Bytes that are not UTF-8 are an error of the policy."""
    done = started("compile", "-", stdin=data)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"error[not-utf8]: ")


def test_an_error_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier compile wrote is untouched by a policy with an error."""
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    written = tmp_path / "out"
    written.write_text("before")
    assert main(["compile", str(path), "-o", str(written)]) == 1
    assert written.read_text() == "before"
    assert main(["compile", str(path)]) == 1
    assert capsys.readouterr().out == ""
    folder = tmp_path / "folder"
    assert main(["compile", str(path), "--target", "iptables", "-o", str(folder)]) == 1
    assert not folder.exists()


def test_nothing_is_written_beside_an_error(
    policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the compiler hands over, an error in the report keeps it from being written."""

    def half(ruleset: Ruleset, target: str, report: Report) -> Artifact:
        report.add("unsupported", "nft cannot do this", None)
        return Artifact("nft", (OutputFile("policylang.nft", "half of it\n", ((),)),))

    monkeypatch.setattr(pipeline, "artifact_of", half)
    assert main(["compile", str(policy)]) == 1
    assert capsys.readouterr().out == ""
    assert main(["apply", "--yes", str(policy)]) == 3


def test_compile_as_json_keeps_standard_output_for_the_rules(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Diagnostics go to standard error as an array, an empty one too."""
    assert main(["compile", str(policy), "--format", "json"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("#!")
    assert json.loads(said.err) == []
    path = tmp_path / "bad.policy"
    path.write_text(BAD)
    assert main(["compile", str(path), "--format", "json"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(json.loads(said.err)) == 2


def test_compile_writes_a_file_with_the_rights_it_had(policy: Path, tmp_path: Path) -> None:
    """A new file has the usual rights, an old one keeps its own, a link stays a link."""
    written = tmp_path / "out" / "web.nft"
    written.parent.mkdir()
    before = os.umask(0o027)
    try:
        assert main(["compile", str(policy), "-o", str(written)]) == 0
    finally:
        os.umask(before)
    assert written.read_text().startswith("#!")
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    text = written.read_text()
    written.write_text("old")
    written.chmod(0o755)
    link = tmp_path / "link"
    link.symlink_to(written)
    assert main(["compile", str(policy), "-o", str(link)]) == 0
    assert link.is_symlink()
    assert written.read_text() == text
    assert stat.S_IMODE(written.stat().st_mode) == 0o755
    assert [p.name for p in written.parent.iterdir()] == ["web.nft"]


def test_compile_writes_to_devices_as_they_are(policy: Path) -> None:
    """A device is written to, not replaced by a file."""
    assert main(["compile", str(policy), "-o", "/dev/null"]) == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("nft", "/nowhere/web.nft"),
        ("nft", "/proc/web.nft"),
        ("nft", "/dev/full"),
        ("nft", "/proc"),
        ("iptables", "/proc/out"),
        ("iptables", "/dev/full"),
        ("iptables", "/dev/full/out"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_line(
    place: str, target: str, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A place that takes no output is an error with a message, and no traceback."""
    assert main(["compile", str(policy), "--target", target, "-o", place]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error[cannot-write]: cannot write `{place}`: ")
    assert said.err.endswith("\n1 error\n")
    assert said.out == ""


def test_a_full_disk_is_noticed(policy: Path) -> None:
    """Standard output that takes nothing is an error, and not an empty ruleset."""
    with Path("/dev/full").open("w") as full:
        done = started("compile", str(policy), stdout=full.fileno())
        assert done.returncode == 1
        assert done.stderr.startswith(b"error[cannot-write]: cannot write to standard output: ")
        done = started("explain", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr == b"policylang: No space left on device\n"


def test_a_reader_that_goes_away_is_no_traceback(policy: Path) -> None:
    """`policylang compile … | head` ends with a line on standard error."""
    for arguments in (["compile", str(policy)], ["explain"]):
        reading, writing = os.pipe()
        os.close(reading)
        done = started(*arguments, stdout=writing)
        os.close(writing)
        assert done.returncode == 1
        assert done.stderr == b"policylang: nobody reads the output any more\n"


def test_closed_streams_are_no_traceback(policy: Path) -> None:
    """A closed standard output is an error for who needs it, closed others are not."""
    argv = [sys.executable, "-m", "policylang", "compile", str(policy)]
    shell = ["/bin/sh", "-c", '"$@" >&-', "sh", *argv]
    done = subprocess.run(shell, check=False, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error[cannot-write]: standard output is closed\n")
    shell = ["/bin/sh", "-c", '"$@" 2>&-', "sh", *argv]
    done = subprocess.run(shell, check=False, capture_output=True)
    assert done.returncode == 0
    assert done.stdout.startswith(b"#!")
    policy.write_text(BAD)
    done = subprocess.run(shell, check=False, capture_output=True)
    assert done.returncode == 1
    assert done.stdout == b""
    argv = [sys.executable, "-m", "policylang", "check", "-"]
    shell = ["/bin/sh", "-c", '"$@" <&-', "sh", *argv]
    done = subprocess.run(shell, check=False, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.startswith(b"error[unreadable-file]: standard input is closed\n")


def artifact(**files: str) -> Artifact:
    named = {"v4": "rules.v4", "v6": "rules.v6", "sets": "sets.ipset"}
    return Artifact(
        "iptables",
        tuple(OutputFile(named[name], text, ((),) * 9) for name, text in files.items()),
    )


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Artifact], None]:
    """Lets the compiler make a given artifact of every policy."""

    def make(made: Artifact) -> None:
        monkeypatch.setattr(pipeline, "compile_policy", lambda *_, **__: made)

    return make


def test_compile_writes_a_folder(
    compiled: Callable[[Artifact], None], policy: Path, tmp_path: Path
) -> None:
    """What an earlier compile left and this one does not make is removed; no more than that."""
    folder = tmp_path / "deep" / "out"
    command = ["compile", str(policy), "--target", "iptables", "-o", str(folder)]
    head = "# Made by policylang.\n"
    compiled(artifact(v4=f"{head}1", v6=f"{head}2", sets=f"{head}3"))
    assert main(command) == 0
    (folder / "mine").write_text("mine")
    assert sorted(files_in(folder)) == ["mine", "rules.v4", "rules.v6", "sets.ipset"]
    compiled(artifact(v4=f"{head}4", v6=f"{head}5"))
    assert main(command) == 0
    assert files_in(folder) == {"mine": "mine", "rules.v4": f"{head}4", "rules.v6": f"{head}5"}
    (folder / "sets.ipset").write_text("create somebody-elses hash:ip\n")
    assert main(command) == 0
    assert (folder / "sets.ipset").exists()


def test_a_folder_is_written_whole_or_not_at_all(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the second file does not fit on the disk, the first is what it was."""
    (tmp_path / "rules.v4").write_text("old")
    real = output._written_aside

    def fails(path: Path, text: str) -> Path:
        if path.name == "rules.v6":
            raise OSError(28, "No space left on device")
        return real(path, text)

    monkeypatch.setattr(output, "_written_aside", fails)
    report = Report()
    output.write_folder(tmp_path, {"rules.v4": "new", "rules.v6": "new"}, (), report)
    assert [d.code for d in report.diagnostics] == ["cannot-write"]
    assert (tmp_path / "rules.v4").read_text() == "old"
    assert sorted(files_in(tmp_path)) == ["rules.v4", "web.policy"]


# --- mistakes of ours, and interruptions -----------------------------------------------------


@pytest.mark.parametrize("command", ["compile", "check", "apply"])
def test_a_mistake_of_ours_says_so(
    command: str, policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An assertion that fails is not the user's fault; nothing is written or loaded after it."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the last rule decides\nand so on")

    monkeypatch.setattr(pipeline, "ruleset_of", fail)
    monkeypatch.setattr("policylang.apply.guard.plan", fail)
    assert main([command, str(policy)]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "policylang: this is a mistake in policylang, not in the policy: "
        "AssertionError: the last rule decides",
        "policylang: nothing was written or loaded; POLICYLANG_DEBUG=1 shows where it happened",
    ]
    monkeypatch.setenv("POLICYLANG_DEBUG", "1")
    assert main([command, str(policy)]) == 3
    said = capsys.readouterr()
    assert "Traceback" in said.err
    assert "in fail" in said.err


def test_an_interruption_is_a_line(tmp_path: Path) -> None:
    """Ctrl-C ends it with a word, and the status that shells expect."""
    fifo = tmp_path / "never.policy"
    os.mkfifo(fifo)
    argv = [sys.executable, "-m", "policylang", "check", str(fifo)]
    # Whoever runs the tests may ignore Ctrl-C, and what is ignored stays so in a child.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    give_up = time.monotonic() + 30
    writer = -1
    while writer < 0 and time.monotonic() < give_up:
        try:
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads it yet
            time.sleep(0.02)
    # A signal on the way into read() would be noted and not looked at before read() returns.
    waits = Path(f"/proc/{child.pid}/wchan")
    while "pipe_read" not in waits.read_text() and time.monotonic() < give_up:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=10)
    os.close(writer)
    assert said == b"policylang: interrupted\n"
    assert child.returncode == 130


# --- explain ---------------------------------------------------------------------------------


def test_explain_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    """Every id is in the list, and has a text of its own."""
    assert main(["explain"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == sorted(CODES)
    for code, known in CODES.items():
        assert main(["explain", code]) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"{known.severity}[{code}]: {known.title}\n\n")
        assert max(map(len, said.splitlines()[2:])) <= 80
