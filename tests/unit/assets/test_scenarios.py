"""Scenario files are found and checked without running them."""

from pathlib import Path

import pytest

from monad_dagster.assets.scenarios import check_scenario, discover_scenarios, scenario_partitions
from monad_dagster.errors import ConfigError

GOOD = "TASK = object()\n\ndef target_fn(history, future, attributes, ctx):\n    return None\n"


def _folder(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def test_files_become_partitions_in_name_order(tmp_path):
    """Each scenario file is one partition, named after the file."""
    found = discover_scenarios(_folder(tmp_path, spend=GOOD, churn=GOOD, _helper="x = 1\n"))
    assert scenario_partitions(found).get_partition_keys() == ["churn", "spend"]


def test_a_file_is_never_executed(tmp_path):
    """A scenario that would fail at import time is still discovered and checked."""
    folder = _folder(tmp_path, churn="raise SystemExit(3)\n" + GOOD)
    check_scenario(discover_scenarios(folder)[0])
    assert discover_scenarios(folder)[0].name == "churn"


def test_a_syntax_error_names_file_and_line(tmp_path):
    """A file that cannot be parsed is refused with its line."""
    folder = _folder(tmp_path, churn="TASK = (\ndef target_fn(:\n")
    with pytest.raises(ConfigError, match=r"churn\.py cannot be parsed.* in line \d"):
        check_scenario(discover_scenarios(folder)[0])


@pytest.mark.parametrize(
    ("text", "missing"),
    [("TASK = 1\n", "target_fn"), ("def target_fn(h, f, a, c):\n    pass\n", "TASK")],
)
def test_a_missing_name_is_said(tmp_path, text, missing):
    """A file without TASK or target_fn is refused and the missing name is said."""
    folder = _folder(tmp_path, churn=text)
    with pytest.raises(ConfigError, match=f"defines no {missing}"):
        check_scenario(discover_scenarios(folder)[0])


def test_imported_and_annotated_names_count(tmp_path):
    """TASK may be annotated and target_fn may be imported."""
    text = "from helpers import target_fn\nTASK: object = 1\n"
    folder = _folder(tmp_path, churn=text)
    check_scenario(discover_scenarios(folder)[0])
    assert len(discover_scenarios(folder)) == 1


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    """No scenario at all is an error that says what to add."""
    with pytest.raises(ConfigError, match="is empty"):
        discover_scenarios(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        discover_scenarios(tmp_path / "nowhere")
