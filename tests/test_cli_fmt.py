"""What `policylang fmt` reads, writes, prints and answers; the layout is tested elsewhere."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from policylang.cli import formatting, main, output
from policylang.diagnostics import Report
from policylang.source import SourceFile

UGLY = "zone wan{interface eth0}\nallow http   inbound from wan\n"
CANONICAL = "zone wan { interface eth0 }\nallow http inbound from wan\n"
BAD = "allow ssh,, http inbound\n"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has a folder to itself; none depends on the terminal."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "POLICYLANG_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def written(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class Stdin:
    """Standard input that holds given bytes."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


# --- in place -------------------------------------------------------------------------------


def test_a_file_is_rewritten_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    """What changed is named; a second time nothing changes, and the file is not touched."""
    path = written("web.policy", UGLY)
    assert main(["fmt", "web.policy"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("web.policy: formatted\n", "")
    assert path.read_text() == CANONICAL
    before = path.stat()
    assert main(["fmt", "web.policy"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert path.stat() == before
    assert os.listdir() == ["web.policy"]  # noqa: PTH208  nothing is left beside it


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o755])
def test_rights_are_kept(mode: int) -> None:
    path = written("web.policy", UGLY)
    path.chmod(mode)
    assert main(["fmt", "web.policy"]) == 0
    assert path.read_text() == CANONICAL
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_link_stays_a_link() -> None:
    target = written("real.policy", UGLY)
    Path("link.policy").symlink_to(target)
    assert main(["fmt", "link.policy"]) == 0
    assert Path("link.policy").is_symlink()
    assert target.read_text() == CANONICAL


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + CANONICAL.encode(), CANONICAL.replace("\n", "\r\n"), CANONICAL[:-1]],
    ids=["byte order mark", "Windows line ends", "no last line end"],
)
def test_what_no_eye_sees_is_put_right_too(content: str | bytes) -> None:
    path = written("web.policy", content)
    assert main(["fmt", "--check", "web.policy"]) == 1
    assert main(["fmt", "web.policy"]) == 0
    assert path.read_bytes() == CANONICAL.encode()


def test_a_full_disk_leaves_the_file_as_it_was(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("web.policy", UGLY)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "_written_aside", fails)
    assert main(["fmt", "web.policy"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(
        "error[cannot-write]: cannot write `web.policy`: No space left on device\n"
    )
    assert path.read_text() == UGLY


# --- several files --------------------------------------------------------------------------


def test_a_broken_file_is_left_alone_and_the_others_are_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All that is wrong with all of them is told in one run, each under the name it was given."""
    Path("site").mkdir()
    broken = [written("bad.policy", BAD), written("site/bad.policy", "alow ssh inbound")]
    good = [written("a.policy", UGLY), written("z.policy", UGLY)]
    files = ["a.policy", "bad.policy", "none.policy", "site/bad.policy", "site", "z.policy"]
    assert main(["fmt", *files]) == 1
    said = capsys.readouterr()
    assert said.out == "a.policy: formatted\nz.policy: formatted\n"
    assert [path.read_text() for path in good] == [CANONICAL] * 2
    assert [path.read_text() for path in broken] == [BAD, "alow ssh inbound"]
    assert "error[unreadable-file]: cannot read `none.policy`: no such file" in said.err
    assert "error[unreadable-file]: cannot read `site`: is a directory" in said.err
    assert "--> bad.policy:1:11" in said.err
    assert "--> site/bad.policy:1:1" in said.err
    assert said.err.endswith("\n4 errors\n")


@pytest.mark.parametrize("option", [[], ["--check"], ["--diff"]])
def test_what_is_no_text_is_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    contents = {"latin.policy": b"# caf\xe9\n", "nul.policy": b"# a\0b\n"}
    for name, content in contents.items():
        written(name, content)
    assert main(["fmt", *option, *contents]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "error[not-utf8]: byte 0xe9 is not UTF-8\n  --> latin.policy:1:6\n" in said.err
    assert "error[not-utf8]: the character U+0000 is not text\n  --> nul.policy:1:4\n" in said.err
    assert {name: Path(name).read_bytes() for name in contents} == contents


def test_errors_can_be_json(capsys: pytest.CaptureFixture[str]) -> None:
    written("bad.policy", BAD)
    assert main(["fmt", "--format", "json", "bad.policy"]) == 1
    said = capsys.readouterr()
    assert [(e["file"], e["code"]) for e in json.loads(said.err)] == [("bad.policy", "syntax")]
    written("good.policy", CANONICAL)
    assert main(["fmt", "--format", "json", "good.policy"]) == 0
    assert capsys.readouterr().err == "[]\n"


def test_rights_that_are_missing_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for somebody who is not root."""
    written("secret.policy", UGLY)

    def refuses(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuses)
    assert main(["fmt", "secret.policy"]) == 1
    assert "cannot read `secret.policy`: permission denied" in capsys.readouterr().err


def test_a_pipe_is_not_formatted_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told at once; nobody waits for a writer."""
    os.mkfifo("pipe.policy")
    assert main(["fmt", "pipe.policy"]) == 1
    said = capsys.readouterr().err
    assert "error[cannot-write]: cannot format `pipe.policy` in place" in said
    assert "`policylang fmt -` reads standard input" in said


# --- looking alone --------------------------------------------------------------------------


def test_check_names_what_would_change(capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"a": UGLY, "b": CANONICAL, "c": UGLY}.items():
        written(f"{name}.policy", text)
    assert main(["fmt", "--check", "a.policy", "b.policy", "c.policy"]) == 1
    said = capsys.readouterr()
    assert said.out == "a.policy: not in canonical form\nc.policy: not in canonical form\n"
    assert said.err == ""
    assert Path("a.policy").read_text() == UGLY
    assert main(["fmt", "--check", "b.policy"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("options", [["--diff"], ["--diff", "--check"]])
def test_diff_shows_what_would_change(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("web.policy", UGLY)
    assert main(["fmt", *options, "web.policy"]) == 1
    assert capsys.readouterr().out == (
        "--- web.policy\n+++ web.policy\n@@ -1,2 +1,2 @@\n"
        "-zone wan{interface eth0}\n-allow http   inbound from wan\n"
        "+zone wan { interface eth0 }\n+allow http inbound from wan\n"
    )
    assert path.read_text() == UGLY
    written("web.policy", CANONICAL)
    assert main(["fmt", *options, "web.policy"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "text",
    [
        UGLY,
        UGLY[:-1],
        CANONICAL[:-1],
        f"{CANONICAL}  ",
        f"\n\n{CANONICAL}\n",
        f"{CANONICAL}# one\x0btwo\u2028three\x85\n \n",
        CANONICAL.replace("\n", "\r\n"),
        f"\N{BYTE ORDER MARK}{CANONICAL}",
        " \n",
    ],
)
def test_diff_is_what_patch_reads(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines that it keeps and adds are the formatted file, the others the one that was."""
    path = written("web.policy", text)
    assert main(["fmt", "--diff", "web.policy"]) == 1
    before, after = rebuilt(capsys.readouterr().out)
    assert before == text
    assert main(["fmt", "web.policy"]) == 0
    assert after == path.read_bytes().decode()


def rebuilt(diff: str) -> tuple[str, str]:
    """The two texts of a unified diff that holds all of them."""
    before = after = ""
    for line in diff.split("\n")[3:-1]:
        if line.startswith("\\"):
            before = before.removesuffix("\n")
            continue
        before += f"{line[1:]}\n" if line[0] in " -" else ""
        after += f"{line[1:]}\n" if line[0] in " +" else ""
    return before, after


# --- standard input -------------------------------------------------------------------------


def test_standard_input_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for text in (UGLY, CANONICAL):
        monkeypatch.setattr(sys, "stdin", Stdin(text.encode()))
        assert main(["fmt", "-"]) == 0
        said = capsysbinary.readouterr()
        assert (said.out, said.err) == (CANONICAL.encode(), b"")


def test_nothing_comes_of_standard_input_with_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An editor that puts the output in place of a text would lose it otherwise."""
    for data, told in ((BAD.encode(), "<stdin>:1:11"), (b"\xff", "not-utf8")):
        monkeypatch.setattr(sys, "stdin", Stdin(data))
        assert main(["fmt", "-"]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert told in said.err
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["fmt", "-"]) == 1
    assert "standard input is closed" in capsys.readouterr().err


def test_standard_input_can_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(UGLY.encode()))
    assert main(["fmt", "--check", "-"]) == 1
    assert capsys.readouterr().out == "<stdin>: not in canonical form\n"
    monkeypatch.setattr(sys, "stdin", Stdin(UGLY.encode()))
    assert main(["fmt", "--diff", "-"]) == 1
    assert capsys.readouterr().out.startswith("--- <stdin>\n+++ <stdin>\n@@")


# --- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["-", "a.policy"], ["--chek", "a.policy"]])
def test_a_wrong_command_line_ends_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("a.policy", UGLY)
    assert main(["fmt", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("policylang")
    assert path.read_text() == UGLY


def started(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom policylang.cli import main\n{code}", *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        check=False,
    )


def test_help_imports_no_grammar() -> None:
    done = started("main()\nsys.exit('textx' in sys.modules)", "fmt", "--help")
    assert done.returncode == 0
    assert b"--check" in done.stdout


def test_formatting_imports_no_more_than_the_grammar() -> None:
    path = written("a.policy", UGLY).absolute()
    heavy = ("jinja2", "policylang.pipeline", "policylang.model")
    code = f"main()\nsys.exit(any(name in sys.modules for name in {heavy}))"
    done = started(code, "fmt", "--check", str(path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == f"{path}: not in canonical form\n".encode()


def test_a_mistake_of_ours_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the text would lose a word, the file is what it was."""
    path = written("web.policy", UGLY)

    def loses(file: SourceFile, report: Report) -> str:
        raise AssertionError("more than white space would change")

    monkeypatch.setattr(formatting, "format_policy", loses)
    assert main(["fmt", "web.policy"]) == 3
    assert "this is a mistake in policylang" in capsys.readouterr().err
    assert path.read_text() == UGLY
