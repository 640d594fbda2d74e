"""Names of result columns that have no alias: the expression's own text, in upper case."""

from collections.abc import Sequence

from monad_dagster.local.sql.lexer import Token, tokenize

_QUANTIFIERS = frozenset({"DISTINCT", "ALL"})
_ENDS = frozenset(
    {"FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "FETCH", "UNION",
     "INTERSECT", "EXCEPT", "MINUS", "INTO"}
)  # fmt: skip


def source_texts(sql: str) -> list[str]:
    """Return the text of each item of a query's own select list, in upper case."""
    tokens = tokenize(sql)
    start = _select_list(tokens)
    if start is None:
        return []
    texts, depth, first = [], 0, start
    for index in range(start, len(tokens) + 1):
        token = tokens[index] if index < len(tokens) else None
        ends = token is None or _ends(tokens, index)
        is_comma = token is not None and token.kind == "op" and token.value == ","
        if depth == 0 and (ends or is_comma or _closes(token)):
            if index > first:
                texts.append(sql[tokens[first].start : tokens[index - 1].end].upper())
            if not is_comma:
                return texts
            first = index + 1
        depth += _opens(token) - _closes(token)
    return texts


def _select_list(tokens: Sequence[Token]) -> int | None:
    """Return where the select list of the outermost query begins."""
    depth = 0
    for index, token in enumerate(tokens):
        if depth == 0 and token.is_word("SELECT"):
            start = index + 1
            while start < len(tokens) and tokens[start].is_word(*_QUANTIFIERS):
                start += 1
            if start + 1 < len(tokens) and tokens[start].is_word("TOP"):
                start += 2
            return start
        depth += _opens(token) - _closes(token)
    return None


def _ends(tokens: Sequence[Token], index: int) -> bool:
    """Tell whether a word ends the select list."""
    token = tokens[index]
    if not token.is_word(*_ENDS):
        return False
    following = tokens[index + 1] if index + 1 < len(tokens) else None
    if token.value in ("GROUP", "ORDER"):  # not WITHIN GROUP (...)
        return following is not None and following.is_word("BY")
    return not (token.value == "FROM" and tokens[index - 1].is_word("DISTINCT"))


def _opens(token: Token | None) -> bool:
    return token is not None and token.kind == "op" and token.value in "([{"


def _closes(token: Token | None) -> bool:
    return token is not None and token.kind == "op" and token.value in ")]}"
