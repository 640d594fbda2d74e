"""Test modules have names of their own, because pytest imports them by name alone."""

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[2]


def test_no_two_test_modules_share_a_name():
    """A second module of one name would end the whole suite while it is collected."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
