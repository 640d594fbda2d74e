"""The four parts of a message read as sentences, whatever the parts begin with."""

import pytest

from monad.errors import problem as engine_problem
from monad_dagster.errors import problem


@pytest.mark.parametrize("join", [problem, engine_problem])
@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (
            ("The folder does not exist", "looked for /x", "Make it", "docs/scenarios.md"),
            "The folder does not exist: looked for /x. Make it. See docs/scenarios.md.",
        ),
        (("It failed", "/x has a, b", "", "Full log: /y"), "It failed. /x has a, b. Full log: /y."),
        (("It failed.", "it is 3"), "It failed. it is 3."),
        (("It failed", "", "", "monad-dagster doctor"), "It failed. See monad-dagster doctor."),
    ],
)
def test_parts_become_sentences(join, parts, text):
    """An observation that begins in the middle of a sentence follows a colon, a page is seen."""
    assert join(*parts) == text
