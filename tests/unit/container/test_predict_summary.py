"""What predict.py tells of its predictions, for the asset's page in Dagster."""

import importlib
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "container" / "scripts"


@pytest.fixture
def predict(monkeypatch):
    """The script as a module."""
    monkeypatch.setattr(sys, "path", [str(SCRIPTS), *sys.path])
    return importlib.import_module("predict")


def test_the_preview_is_a_table_of_the_first_rows(predict, tmp_path):
    """The first rows are Markdown, with a cell for each column whatever an id holds."""
    file = tmp_path / "predictions.tsv"
    rows = [f"c|{number}\t0.{number}\n" for number in range(1, 9)]
    file.write_text("".join(["main_entity_id\tscore\n", *rows]))
    found = predict.summary(file)
    assert (found["row_count"], found["columns"]) == (8, ["main_entity_id", "score"])
    assert found["preview"]["type"] == "md"
    lines = found["preview"]["raw_value"].split("\n")
    assert lines[:3] == ["| main_entity_id | score |", "| --- | --- |", "| c\\|1 | 0.1 |"]
    assert len(lines) == 2 + predict.FIRST_ROWS
