"""Score every main entity with a scenario checkpoint; writes `<save-path>/predictions.tsv`.

Only documented `monad` names are used, so the script also runs on a licensed image.
"""

import argparse
from datetime import datetime
from pathlib import Path
from typing import Any

from job_support import job_run

from monad.config import OutputType, TestingParams
from monad.ui.module import load_from_checkpoint

FIRST_ROWS = 5


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the documented flags and the optional ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save-path", type=Path, required=True)
    parser.add_argument("--checkpoint-dir", type=Path, required=True)
    parser.add_argument("--prediction-date", type=datetime.fromisoformat, default=None)
    parser.add_argument("--top-k", type=int, default=None)
    parser.add_argument("--limit-batches", type=int, default=None)
    parser.add_argument("--remote-table", default=None, help="also save to this Snowflake table")
    return parser.parse_args(arguments)


def testing_fields(params: argparse.Namespace) -> dict[str, Any]:
    """Return the `TestingParams` fields of the arguments."""
    fields: dict[str, Any] = {
        "output_type": next(iter(OutputType)),
        "local_save_location": params.save_path / "predictions.tsv",
    }
    optional = {
        "prediction_date": params.prediction_date,
        "top_k": params.top_k,
        "limit_test_batches": params.limit_batches,
    }
    if params.remote_table is not None:
        # Documented without its module, so imported only when asked for. No login is given: the
        # session token of the job service is used.
        from monad.config import DataLocation

        optional["remote_save_location"] = DataLocation(
            database_type="snowflake", connection_params={}, table_name=params.remote_table
        )
    fields.update({name: value for name, value in optional.items() if value is not None})
    return fields


def summary(path: Path) -> dict[str, Any]:
    """Count the rows of a predictions file and keep its first ones."""
    with path.open(encoding="utf-8") as lines:
        header = next(lines).rstrip("\n")
        first = [line.rstrip("\n") for _, line in zip(range(FIRST_ROWS), lines, strict=False)]
        rest = sum(1 for _ in lines)
    return {
        "row_count": len(first) + rest,
        "columns": header.split("\t"),
        "preview": {"raw_value": _table([header, *first]), "type": "md"},
    }


def _table(lines: list[str]) -> str:
    """Write tab-separated lines, the header first, as a table that Dagster shows as one."""
    rows = [[cell.replace("|", "\\|") for cell in line.split("\t")] for line in lines]
    marked = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in marked)


def main(arguments: list[str] | None = None) -> None:
    """Predict and report the result."""
    params = parse_args(arguments)
    with job_run(script="predict", output=params.save_path) as job:
        fields = testing_fields(params)
        module = load_from_checkpoint(checkpoint_path=params.checkpoint_dir)
        module.predict(TestingParams(**fields))
        job.finish(facts=summary(fields["local_save_location"]))


if __name__ == "__main__":
    main()
