"""The lexer colours every policy whole, with the compiler's own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pygments.token import Comment, Error, Keyword, Literal, Name, Number, String

from policylang.editors.pygments_lexer import _KINDS, PolicyLexer
from policylang.syntax import tokens
from tests.editors.policies import POLICIES, name_of


def lexed(text: str) -> list[tuple[object, str]]:
    """The tokens less white space."""
    found = PolicyLexer().get_tokens_unprocessed(text)
    return [(kind, value) for _, kind, value in found if value.strip()]


@pytest.mark.parametrize("policy", POLICIES, ids=name_of)
def test_every_policy_is_coloured_whole_and_without_an_error(policy: Path) -> None:
    text = policy.read_text(encoding="utf-8")
    found = list(PolicyLexer().get_tokens_unprocessed(text))
    assert [value for _, kind, value in found if kind in Error] == []
    assert "".join(value for _, _, value in found) == text
    as_documents_have_it = PolicyLexer(stripnl=False, ensurenl=False).get_tokens(text)
    assert "".join(value for _, value in as_documents_have_it) == text


@given(st.text(alphabet=st.sampled_from('ab1 \t\n\r#"{},=$/.:-;é'), max_size=60))
def test_any_text_comes_back_whole_and_in_order(text: str) -> None:
    at = 0
    for start, _, value in PolicyLexer().get_tokens_unprocessed(text):
        assert start == at and value
        at += len(value)
        assert text[start:at] == value
    assert at == len(text)


def test_every_kind_of_token_has_a_colour() -> None:
    kinds = {
        value
        for name, value in vars(tokens).items()
        if name.isupper() and isinstance(value, str) and not name.startswith("_")
    }
    assert kinds - {tokens.END} <= _KINDS.keys()
    assert tokens.WORDS | tokens.RATES.keys() | tokens.PREFIXES.keys() <= _KINDS.keys()


def test_words_are_told_apart() -> None:
    text = (
        'allow ssh inbound from $admins limit 4/minute log "x#y" # why\nset time = 10.0.0.0/8, 1h'
    )
    assert lexed(text) == [
        (Keyword.Reserved, "allow"),
        (Name, "ssh"),
        (Keyword, "inbound"),
        (Keyword, "from"),
        (Name.Variable, "$admins"),
        (Keyword, "limit"),
        (Number.Other, "4/minute"),
        (Keyword, "log"),
        (String.Double, '"x#y"'),
        (Comment.Single, "# why"),
        (Keyword.Declaration, "set"),
        (Name, "time"),
        (_KINDS["="], "="),
        (Number.Other, "10.0.0.0/8"),
        (_KINDS[","], ","),
        (Literal.Date, "1h"),
    ]


def test_what_is_no_word_of_the_language_is_an_error() -> None:
    assert (Error, "12x") in lexed("allow 12x inbound")
