"""Formatting changes white space alone, and what it makes of a text it leaves as it is.

What it makes of texts is shown by the pairs in `formatting/`: NAME.before.policy becomes
NAME.after.policy.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policylang.diagnostics import Report
from policylang.source import SourceFile
from policylang.syntax import tree
from policylang.syntax.format import WIDTH, format_policy
from policylang.syntax.outline import Entry, Statement, outline, read_words
from policylang.syntax.parse import parse
from policylang.syntax.tokens import STATEMENTS, read_tokens
from tests.differential.policies import random_policy
from tests.properties.test_parser import FORMS, HELPER, ODD, policies, soups

ROOT = Path(__file__).parents[2]
PAIRS = Path(__file__).parent / "formatting"
BEFORE = sorted(PAIRS.glob("*.before.policy"))


def formatted(text: str) -> str | None:
    report = Report()
    result = format_policy(SourceFile("p.policy", text), report)
    assert (result is None) == report.has_errors
    return result


def tree_of(text: str) -> tree.Document:
    return parse(SourceFile("p.policy", text), Report(), catalogue=True)


def substance(text: str) -> list[tuple[str, bool]]:
    """Words and comments in order, each with whether it is a comment behind something."""
    found = []
    for match in re.finditer(r'"[^"\n]*"|#[^\n]*|[{},=]|[^\s{},="#]+', text):
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        is_comment = match[0].startswith("#")
        found.append((match[0].rstrip(), is_comment and bool(line.strip())))
    return found


def assert_laid_out_well(text: str) -> None:
    """The laws that hold for whatever can be read."""
    result = formatted(text)
    assert result is not None
    assert tree_of(result) == tree_of(text)
    assert substance(result) == substance(text)
    assert formatted(result) == result
    assert result == "" or result.endswith("\n")
    assert not result.startswith("\n") and not result.endswith("\n\n")
    assert "\n\n\n" not in result
    for line in result.split("\n"):
        assert line == line.rstrip(" \t\r")
        words = re.sub(r'"[^"]*"', lambda quoted: "x" * len(quoted[0]), line).partition("#")[0]
        assert "\t" not in words and not re.search(r"\S +,|,\S", words)
        if len(words.rstrip()) > WIDTH:
            assert ", " not in words.strip()  # nothing is left to break


# --- how it looks ---------------------------------------------------------------------------


@pytest.mark.parametrize("before", BEFORE, ids=lambda path: path.name.partition(".")[0])
def test_before_becomes_after(before: Path) -> None:
    after = before.with_name(before.name.replace(".before.", ".after."))
    text, wanted = (path.read_text(encoding="utf-8") for path in (before, after))
    assert formatted(text) == wanted
    assert_laid_out_well(text)


def test_every_pair_is_whole() -> None:
    names = [path.name.replace(".before.", ".after.") for path in BEFORE]
    assert names and names == sorted(path.name for path in PAIRS.glob("*.after.policy"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("\n\n# alone  \t\n\n", "# alone\n"),
        ("allow ssh inbound", "allow ssh inbound\n"),
        ("allow ssh\r\n\r\n\r\n\r\n  inbound\r\n", "allow ssh inbound\n"),
        ("# a\r\n\r\n\r\n# b\r\nuse c # d\r\n", "# a\n\n# b\nuse c  # d\n"),
        ("traffic inbound {\r\n\r\nallow ssh\r\n\r\n}", "traffic inbound {\n  allow ssh\n}\n"),
        ("zone z{}", "zone z { }\n"),
        ("zone z{\n# none\n}", "zone z {\n  # none\n}\n"),
        ("zone z{# none\n}", "zone z {  # none\n}\n"),
        ('set a = file "x  ,y" , "#z"', 'set a = file "x  ,y", "#z"\n'),
        ("set a # b\n=1", "set a  # b\n    = 1\n"),
        ("set a = 1 # b\n,2", "set a = 1  # b\n    , 2\n"),
    ],
)
def test_ends_of_lines_and_of_files(text: str, wanted: str) -> None:
    assert formatted(text) == wanted


def test_as_much_as_fits_stands_on_a_line() -> None:
    """To the column: what has 88 columns is not broken, and what has 89 is."""
    fits = f"allow {'s' * (WIDTH - len('allow , http inbound'))}, http inbound\n"
    assert len(fits) == WIDTH + len("\n")
    assert formatted(fits) == fits
    assert formatted(fits.replace("sss", "ssss", 1)) == fits.replace("sss", "ssss", 1).replace(
        " inbound", "\n    inbound"
    )
    block = f"service {'s' * (WIDTH - len('service  { tcp 1, 2 }'))} {{ tcp 1, 2 }}\n"
    assert formatted(block) == block
    broken = formatted(block.replace("sss", "ssss", 1))
    assert broken is not None and broken.endswith(" {\n  tcp 1, 2\n}\n")


def test_each_statement_of_the_language_gets_a_line() -> None:
    """Every word that begins a statement does so in the pair of all statements."""
    after = (PAIRS / "all-statements.after.policy").read_text(encoding="utf-8")
    words = {line.partition(" ")[0] for line in after.splitlines()}
    assert words | {"zone", "traffic", "rules", "helper", "expect"} >= STATEMENTS
    (helper,) = (e for e in entries(HELPER) if isinstance(e, Statement))
    assert helper.block is not None and len(helper.block.entries) == 7


def entries(text: str) -> tuple[Entry, ...]:
    file = SourceFile("p.policy", text)
    return outline(read_words(file, read_tokens(file, Report())))


# --- whatever the policy --------------------------------------------------------------------


def test_policies_of_the_repository_stay_what_they_are() -> None:
    found = 0
    for path in sorted(ROOT.rglob("*.policy")):
        if {".venv", "build"} & {*path.relative_to(ROOT).parts}:
            continue
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        if formatted(text) is not None:
            found += 1
            assert_laid_out_well(text)
    assert found > 400


def test_what_is_built_in_and_the_examples_are_laid_out_so() -> None:
    policies = [*(ROOT / "policylang").rglob("*.policy"), *(ROOT / "examples").rglob("*.policy")]
    texts = {path.name: path.read_text(encoding="utf-8") for path in policies}
    assert len(texts) > 600
    assert [name for name, text in texts.items() if formatted(text) != text] == []


@pytest.mark.parametrize("text", [*FORMS, HELPER, "\n".join(FORMS), " ".join(FORMS)])
def test_every_form_is_laid_out(text: str) -> None:
    if text != " ".join(FORMS):  # a comment there swallows what stands behind it
        assert_laid_out_well(text)


@pytest.mark.parametrize("text", [*FORMS, HELPER])
def test_every_form_is_laid_out_where_it_has_to_be_broken(text: str) -> None:
    """With names so long that lines end before each clause, the word behind one included."""
    for width in (WIDTH // 3, WIDTH):
        assert_laid_out_well(re.sub(r"\b(lan|wan|http|x)\b", rf"\1{'x' * width}", text))


@pytest.mark.parametrize(
    "statements",
    [
        ["mark $what from lan to wan as $mark answers mark $mark"],
        ["allow ssh inbound mark $m"],
        ["allow ssh inbound mark $m", "snat from lan to wan as $outer port $ports"],
        ["netmap $outer to $inner on $wan mark $m"],
        ["mark $x inbound as 1", "mark $y inbound as dscp $z dscp $z"],
        ["deny ssh inbound mark $m", "mark $x inbound as 1", "queue $x inbound to $q"],
    ],
    ids=lambda statements: " ".join(statements),
)
def test_a_mark_is_told_from_the_condition_by_its_as(statements: list[str]) -> None:
    """However the lines are broken."""
    for gap in (" ", "\n", "\r\n"):
        text = " ".join(statements).replace(" ", gap)
        assert formatted(text) == "".join(f"{statement}\n" for statement in statements)


GAPS = [" ", "  ", "\t", "\n", "\n\n", "\n\n\n\n", "\r\n", " \n  "]
GAPS += [" # a, b {\n", "#\n", ' # "\n', "\n# own\n", "\n\n# two,\n# lines }\n\n", "# x\n# y\n"]


def strewn(text: str, random: Random, share: float) -> str:
    """The text with other white space, and comments, between its words."""
    parts = re.findall(r'"[^"\n]*"|#[^\n]*\n?|[{},=]|[^\s{},="#]+', text)
    written = []
    for part in parts:
        written.append(part)
        wild = random.random() < share
        if not part.endswith("\n"):
            written.append(random.choice(GAPS) if wild else " ")
    return "".join(written)


RANDOMS = st.randoms(use_true_random=False)
SHARES = st.sampled_from([0.0, 0.05, 0.3, 1.0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), RANDOMS, SHARES)
def test_random_policies_are_laid_out(seed: int, random: Random, share: float) -> None:
    policy = random_policy(Random(seed))
    assume(formatted(policy) is not None)  # now and then it writes one that is refused
    assert_laid_out_well(strewn(policy, random, share))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from([*FORMS, HELPER]), min_size=1, max_size=5), RANDOMS, SHARES)
def test_forms_are_laid_out_wherever_words_stand(
    forms: list[str], random: Random, share: float
) -> None:
    assert_laid_out_well("\n".join(strewn(form, random, share) for form in forms))


# --- whatever the text ----------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(st.lists(policies() | soups() | st.sampled_from([f"{odd} " for odd in ODD]), max_size=4))
def test_what_has_mistakes_is_refused_and_the_rest_laid_out(parts: list[str]) -> None:
    text = "".join(parts)
    if formatted(text) is not None:
        assert substance(formatted(text) or "") == substance(text)


@settings(deadline=None, max_examples=200)
@given(st.text() | st.text(alphabet='alow tcp80{},="#.:/-$;\n\r\t\x0b\xa0é', max_size=60))
def test_any_text_is_laid_out_or_refused(text: str) -> None:
    formatted(text)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from([*STATEMENTS, *"{}{},=", "on", "x", '"s"', "0x10"]), max_size=40))
def test_any_words_have_an_outline(words: list[str]) -> None:
    """Nothing is lost on the way into an outline, whatever the braces."""
    text = " ".join(words)

    def written(found: tuple[Entry, ...]) -> list[str]:
        result: list[str] = []
        for entry in found:
            assert isinstance(entry, Statement)
            result += (word.text for word in entry.words)
            if entry.block is not None:
                result += [*written(entry.block.entries), *["}"] * entry.block.is_closed]
        return result

    assert written(entries(text)) == words


@pytest.mark.parametrize(
    "text",
    [
        "alow ssh inbound",
        "allow ssh inbound }",
        "traffic inbound { allow ssh",
        'allow ssh inbound log "x',
        "zone zone { }",
    ],
)
def test_mistakes_are_told_as_ever(text: str) -> None:
    told, ordinary = Report(), Report()
    file = SourceFile("p.policy", text)
    assert format_policy(file, told) is None
    parse(file, ordinary)
    assert told.diagnostics == ordinary.diagnostics != []


def test_parameters_of_other_files_are_none_of_its_business() -> None:
    text = "zone wan { interface $wan, eth1 }\nallow ssh inbound from $admins\n"
    report = Report()
    assert format_policy(SourceFile("p.policy", text), report) == text
    assert not report.diagnostics


def test_large_and_hostile_texts_do_not_take_long() -> None:
    started = time.monotonic()
    addresses = ", ".join(f"192.0.{i // 256}.{i % 256}" for i in range(5000))
    for text in (
        f"set a = {addresses}",
        f"set a =\n{addresses}".replace(", ", ", # x\n"),
        "".join(f"set a{i} = {i}\n" for i in range(1000)),
        "# x\n" * 10000,
    ):
        assert formatted(text) is not None
    for text in (
        "{" * 3000,
        "}" * 3000,
        'test "x" {' * 3000,
        'test "x" ' + "{" * 3000 + "}" * 3000,
    ):
        formatted(text)
    assert time.monotonic() - started < 20


def test_misfits_are_found() -> None:
    """The laws above are broken by what they are about."""
    for text in ("allow ssh  inbound", "allow ssh inbound  # a", "# a\nallow ssh inbound"):
        assert substance(text) != substance("allow ssh inbound # b")
    assert substance("use a # b\nuse c") != substance("use a\n# b\nuse c")
