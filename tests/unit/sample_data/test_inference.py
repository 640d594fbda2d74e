"""Type inference looks at every value and never changes an identifier."""

from datetime import date, datetime

import pyarrow as pa
import pytest

from monad_dagster.sample_data.inference import ColumnType, TypeInference, convert


def infer(*blocks):
    """Return the type inferred from blocks of text."""
    inference = TypeInference()
    for block in blocks:
        inference.observe(pa.array(block, pa.string()))
    return inference.result


@pytest.mark.parametrize(
    ("blocks", "kind", "values"),
    [
        ([["1", "-2", "+3"]], ColumnType.NUMBER, [1, -2, 3]),
        ([["1", ""], ["NA", "2"]], ColumnType.NUMBER, [1, None, None, 2]),
        ([[" 5 ", "6"]], ColumnType.NUMBER, [5, 6]),
        ([["7", "9e+05"]], ColumnType.NUMBER, [7, 900_000]),
        ([["1", "2.5"], ["1e-3", "NaN"]], ColumnType.FLOAT, [1.0, 2.5, 0.001, None]),
        ([["true", "FALSE", ""]], ColumnType.BOOLEAN, [True, False, None]),
        ([["2020-02-29", ""]], ColumnType.DATE, [date(2020, 2, 29), None]),
        (
            [["2010-12-01 08:26:00"], ["2010-12-02", "2010-12-03T01:02:03.5"]],
            ColumnType.TIMESTAMP,
            [
                datetime(2010, 12, 1, 8, 26),
                datetime(2010, 12, 2),
                datetime(2010, 12, 3, 1, 2, 3, 500_000),
            ],
        ),
        (
            [["2010-12-01T08:26:00Z", "", "2010-12-01 08:26:00.5+02:00"]],
            ColumnType.TIMESTAMP,
            [datetime(2010, 12, 1, 8, 26), None, datetime(2010, 12, 1, 6, 26, 0, 500_000)],
        ),
        ([["a", "", "NA"]], ColumnType.TEXT, ["a", None, "NA"]),
    ],
)
def test_type_fits_all_values(blocks, kind, values):
    """The narrowest type that fits is chosen and the values survive conversion."""
    assert infer(*blocks) is kind
    assert [v for block in blocks for v in convert(pa.array(block), kind).to_pylist()] == values


@pytest.mark.parametrize(
    "blocks",
    [
        [["1", "2"], ["C3"]],  # invoices: a letter appears late
        [["0108775015"]],  # a leading zero is part of an identifier
        [["99999999999999999999"]],  # more digits than 64 bits hold
        [["1.5", "12345678901234567"]],  # a float would change the last digits
        [["12E5", "85"]],  # a stock code, not 1.2 million
        [["2010-02-30"]],
        [["12/1/2010 8:26"]],
        [["", ""]],
        [[]],
    ],
)
def test_everything_else_is_text(blocks):
    """What is not certainly a number, date or boolean stays as it is."""
    assert infer(*blocks) is ColumnType.TEXT


def test_null_only_blocks_do_not_decide():
    """A block without values narrows nothing."""
    assert infer(["", ""], ["3"]) is ColumnType.NUMBER
