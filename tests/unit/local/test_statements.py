"""The SQL lexer and cursor of the local account."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monad_dagster.local.errors import StatementError
from monad_dagster.local.sql.statements import (
    ObjectName,
    Statement,
    parse_name,
    parse_stage_location,
    quote_identifier,
    quote_literal,
    split_statements,
    tokenize,
)


def kinds(sql):
    """Return (kind, value) of every token."""
    return [(token.kind, token.value) for token in tokenize(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("put file:///a/* @s/x*", [("word", "PUT"), ("path", "file:///a/*"), ("stage", "@s/x*")]),
        ("PUT /* c */ 'file:///a b'", [("word", "PUT"), ("string", "file:///a b")]),
        ("$$a ' \\u0024$$", [("string", "a ' \\u0024")]),
        (r"'it''s \'x\' \u0041\n'", [("string", "it's 'x' A\n")]),
        ('"My ""T"""', [("name", 'My "T"')]),
        ("-- c\nx // d\n", [("word", "X")]),
        ("$1:\"a\"", [("variable", "1"), ("op", ":"), ("name", "a")]),
        ("j!m(a => ?)", [("word", "J"), ("op", "!"), ("word", "M"), ("op", "("), ("word", "A"),
                         ("op", "=>"), ("bind", "1"), ("op", ")")]),
        ('@"S".x/y', [("stage", '@"S".x/y')]),
        ("like '%%'", [("word", "LIKE"), ("string", "%%")]),
    ],
)  # fmt: skip
def test_tokens(sql, expected):
    """Each trap of the clients' SQL is tokenised as Snowflake reads it."""
    assert kinds(sql) == expected


@pytest.mark.parametrize("sql", ["'open", '"open', "$$ open", "/* open", '@"open'])
def test_unterminated_text_is_a_syntax_error(sql):
    """Unterminated literals and comments are refused."""
    with pytest.raises(StatementError) as caught:
        tokenize(sql)
    assert caught.value.errno == 1003


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_lexer_never_fails_otherwise(sql):
    """Any text is tokenised or refused with a syntax error."""
    try:
        tokens = tokenize(sql)
    except StatementError as error:
        tokens = []
        number = error.errno
    else:
        number = 1003
    assert number == 1003
    assert all(a.end <= b.start for a, b in pairwise(tokens))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_quoting_round_trips(text):
    """Quoted literals and identifiers read back as they were."""
    assert kinds(quote_literal(text)) == [("string", text)]
    if text:
        assert parse_name(quote_identifier(text)) == ObjectName((text,))


def test_names():
    """Names resolve IDENTIFIER(), quotes and the missing schema of db..name."""
    assert Statement.parse(
        "IDENTIFIER(?)", {"1": {"type": "TEXT", "value": 'a."b"'}}
    ).cursor.name() == ObjectName(("A", "b"))
    assert parse_name("db..t") == ObjectName(("DB", "PUBLIC", "T"))


def test_stage_locations():
    """Stage locations split into name and path, slashes in quoted names included."""
    location = parse_stage_location('@db.s."x/y"/p/q.txt')
    assert (location.stage.parts, location.path) == (("DB", "S", "x/y"), "p/q.txt")


def test_properties_nest():
    """Property lists keep nested options, lists and literals."""
    cursor = Statement.parse(
        "A = (TYPE = 'X' ENABLE = TRUE) B = (1, 'two') C = DB.S.T D = -5"
    ).cursor
    assert cursor.properties() == {
        "A": {"TYPE": "X", "ENABLE": True},
        "B": [1, "two"],
        "C": "DB.S.T",
        "D": -5,
    }


def test_scripts_split_outside_literals():
    """A script splits at semicolons that are not inside literals or comments."""
    assert split_statements("select ';'; /* ; */ select $$;$$;") == [
        "select ';'",
        "/* ; */ select $$;$$",
    ]
