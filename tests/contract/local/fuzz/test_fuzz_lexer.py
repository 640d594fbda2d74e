"""The SQL lexer on any text: tokens or a syntax error, never anything else."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monad_dagster.local.errors import StatementError
from monad_dagster.local.sql.statements import (
    Statement,
    parse_name,
    parse_stage_location,
    quote_identifier,
    quote_literal,
    split_statements,
    tokenize,
)
from tests.contract.local.fuzz.conftest import corpus

FUZZ = settings.get_profile("fuzz")
PIECES = st.sampled_from(
    ["'", '"', "$$", "$", "\\", "--", "//", "/*", "*/", "\n", " ", ";", "@", "@s/*", "file:///a/*",
     "(", ")", ",", ".", "=>", "::", "?", ":1", "SELECT", "put", "IDENTIFIER", "x", "1", "1e9", "1.",
     "\\u0041", "\\x4", "''", '""', "\x00", "é", "\u2028", "!", "%", "&", "#", "{{", "}}"]
)  # fmt: skip
SQL = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=60).map("".join))


def judge(text):
    """Tokenise and check what must hold of the tokens."""
    try:
        tokens = tokenize(text)
    except StatementError as error:
        assert error.errno == 1003  # noqa: PT017 - a result is right too
        return
    end = 0
    for token in tokens:
        assert end <= token.start < token.end <= len(text)
        between = text[end : token.start]
        assert not between.strip() or "--" in between or "//" in between or "/*" in between
        end = token.end


@pytest.mark.parametrize("text", corpus("lexer"))
def test_found_texts(text):
    """A text of the corpus gives tokens or a syntax error."""
    judge(text)


@settings(FUZZ)
@given(SQL)
@example("'\\")
def test_any_text(text):
    """Any text gives ordered tokens that cover it, or a syntax error."""
    judge(text)


@settings(FUZZ)
@given(st.text(max_size=100))
def test_quoted_literals(value):
    """A quoted literal is one token with the value in it, whatever follows."""
    tokens = tokenize(quote_literal(value) + " -- '\n;")
    assert [(token.kind, token.value) for token in tokens] == [("string", value), ("op", ";")]


@settings(FUZZ)
@given(st.text(min_size=1, max_size=50))
def test_quoted_identifiers(name):
    """A quoted identifier is one name, also inside a statement."""
    assert parse_name(quote_identifier(name)).parts == (name,)
    assert parse_name(f"a.{quote_identifier(name)}").parts == ("A", name)


@settings(FUZZ)
@given(
    st.lists(st.sampled_from(["SELECT ';'", "SELECT $$;$$", 'USE "a;b"', "SELECT 1 /*;*/", "X"]))
)
def test_splitting(statements):
    """A script splits into its statements, semicolons inside of literals and comments left alone."""
    pieces = split_statements(";\n".join(statements))
    assert len(pieces) == len(statements)
    assert "".join("".join(pieces).split()) == "".join("".join(statements).split())


@settings(FUZZ)
@given(SQL)
def test_names_and_places(text):
    """Any text is a name, a stage location or a syntax error; reading a statement is bounded."""
    for read in (parse_name, parse_stage_location):
        try:
            read(text)
        except StatementError as error:
            assert error.errno in {2, 1003, 2049}  # noqa: PT017 - a result is right too
    try:
        cursor = Statement.parse(text).cursor
        cursor.properties()
    except StatementError as error:
        assert error.errno in {1003, 2049, 100038}  # noqa: PT017 - a result is right too
