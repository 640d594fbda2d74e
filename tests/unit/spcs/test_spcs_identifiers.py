"""Names, quoting, stage paths and job service names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monad_dagster.errors import ConfigError
from monad_dagster.spcs.identifiers import (
    QualifiedName,
    StagePath,
    check_job_service_name,
    quote_identifier,
    resolve_identifier,
)


@given(st.text(min_size=1, max_size=30).filter(lambda text: "\n" not in text))
def test_quoting_and_resolving_are_inverse(name):
    """A resolved name survives being written and read."""
    assert resolve_identifier(quote_identifier(name)) == name


def test_unquoted_names_are_upper_case():
    """An unquoted name is the same in any case."""
    assert QualifiedName.parse("monad_db.Data_Schema.x").sql() == "MONAD_DB.DATA_SCHEMA.X"


def test_short_names_are_completed():
    """One and two parts are completed from the defaults."""
    name = QualifiedName.parse("s", database="D", schema="C")
    assert name == QualifiedName("D", "C", "S")
    assert QualifiedName.parse("other.s", database="D", schema="C").schema == "OTHER"


@pytest.mark.parametrize("text", ["a.b", "a..b", "a.b.c.d", "a.b.", "a-b.c.d", "", 'a."b'])
def test_bad_names_are_refused(text):
    """A name that is not three identifiers is refused."""
    with pytest.raises(ConfigError):
        QualifiedName.parse(text)


@pytest.mark.parametrize("name", ["lower-case", "has space", "X" * 64, "TRAILING_", "1X", "A$B"])
def test_job_service_names_must_map_to_a_dns_label(name):
    """Names that need quotes or do not fit a DNS label are refused."""
    with pytest.raises(ConfigError):
        check_job_service_name(QualifiedName("D", "S", name))


def test_stage_paths_are_relative_and_directories_end_with_a_slash():
    """A directory is written with a slash, so that REMOVE cannot match a neighbour."""
    path = StagePath.parse("@db.s.st/a/b/")
    assert path.sql() == "@DB.S.ST/a/b"
    assert path.sql(directory=True) == "@DB.S.ST/a/b/"
    assert (path / "c.json").file_name == "c.json"
    assert path.parent == StagePath.parse("@db.s.st/a")
    with pytest.raises(ConfigError):
        path / "../x"


def test_unusual_stage_paths_are_quoted():
    """A path with a blank or a quote is written between quotes."""
    path = StagePath.parse("@db.s.st") / "it's here"
    assert path.sql() == "'@DB.S.ST/it\\'s here'"


def test_mounted_paths_follow_the_mount():
    """A stage path appears below the mount path."""
    path = StagePath.parse("@db.s.st/runs/x")
    assert path.mounted("/app/stage") == "/app/stage/runs/x"
    root = StagePath.parse("@db.s.st/runs")
    assert path.mounted("/runs", mounted_from=root) == "/runs/x"
