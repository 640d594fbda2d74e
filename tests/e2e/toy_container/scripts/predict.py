"""A stand-in for scoring: writes one row."""

import argparse
from pathlib import Path

from job_support import job_run


def main() -> None:
    """Write predictions when the scenario checkpoint is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint-dir", type=Path, required=True)
    parser.add_argument("--save-path", type=Path, required=True)
    parser.add_argument("--prediction-date")
    options = parser.parse_args()
    with job_run(script="predict", output=options.save_path) as job:
        assert (options.checkpoint_dir / "best_model.ckpt").is_file()
        options.save_path.mkdir(parents=True, exist_ok=True)
        date = options.prediction_date or "latest"
        (options.save_path / "predictions.tsv").write_text(f"main_entity_id\tscore\na\t{date}\n")
        job.finish(facts={"row_count": 1})


if __name__ == "__main__":
    main()
