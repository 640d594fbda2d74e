"""Prediction files, one row or many rows at a time."""

import numpy as np
import pyarrow as pa

from monad.io.predictions import PredictionFile, Ranked, item_names


def test_ranked_rows_are_written_as_single_rows_are(tmp_path):
    """Ranked items, written in columns, give the same cells as rows written one by one."""
    names = item_names(["", "", "a\tb", "c", "d"])
    ranked = Ranked(names, np.array([[2, 4], [3, 2]]), np.array([[1.25, -0.5], [3.0, 0.125]]), 3)
    many = PredictionFile(tmp_path / "many.tsv", ["x"])
    many.add_ranked(["u", "v"], ranked)
    many.close()
    single = PredictionFile(tmp_path / "single.tsv", ["x"])
    single.add(["u"], [["a\tb", "d", "", 1.25, -0.5, ""]])
    single.add(["v"], [["c", "a\tb", "", 3.0, 0.125, ""]])
    single.close()
    assert (tmp_path / "many.tsv").read_text() == (tmp_path / "single.tsv").read_text()
    assert many.rows == 2


def test_scores_keep_five_decimals():
    """A score is written with five decimals at most."""
    ranked = Ranked(pa.array(["i"]), np.array([[0]]), np.array([[2.123456789]]), 1)
    assert ranked.lines() == ["i\t2.12346"]
