"""A stand-in for fine-tuning: copies the upstream checkpoint beside the scenario."""

import argparse
from pathlib import Path

from job_support import job_run

DEFAULT_SCENARIO = Path(__file__).resolve().parent.parent / "scenarios" / "churn.py"


def main() -> None:
    """Write a scenario checkpoint made from the foundation model's and the scenario file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint-dir", type=Path, required=True)
    parser.add_argument("--save-path", type=Path, required=True)
    parser.add_argument("--scenario", type=Path, default=DEFAULT_SCENARIO)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    with job_run(script="train", output=options.save_path) as job:
        upstream = (options.checkpoint_dir / "best_model.ckpt").read_text()
        target = options.save_path / "checkpoints"
        target.mkdir(parents=True, exist_ok=True)
        (target / "best_model.ckpt").write_text(upstream + options.scenario.read_text())
        job.finish(metrics={"auroc": 0.7, "baseline_auroc": 0.55})


if __name__ == "__main__":
    main()
