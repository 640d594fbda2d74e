"""A stand-in for training that takes a second: same flags and support module as the real script."""

import argparse
import os
import sys
import time
from pathlib import Path

from job_support import job_run


def main() -> None:
    """Write a checkpoint made from the config, or fail as the test asks."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--features-path", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    text = options.config.read_text()
    if "fail: exit" in text:
        print("column t_dat not found in transactions", file=sys.stderr)
        sys.exit(3)
    with job_run(script="pretrain", output=options.features_path) as job:
        print("data in", os.environ["SNOWFLAKE_DATABASE"], flush=True)
        for step in range(3):
            job.progress(step=step, total=3, loss=1.0 / (step + 1))
        if "fail: slow" in text:
            time.sleep(120)
        options.features_path.mkdir(parents=True, exist_ok=True)
        (options.features_path / "best_model.ckpt").write_text(text)
        job.finish(metrics={"val_loss": 0.5})


if __name__ == "__main__":
    main()
