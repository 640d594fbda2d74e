"""Train the foundation model: the documented wrapper around `monad.ui.pretrain`."""

import argparse
from pathlib import Path

from job_support import job_run

from monad.ui import pretrain


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the documented flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--features-path", type=Path, required=True)
    parser.add_argument("--storage-config", type=Path, required=False)
    rerun = parser.add_mutually_exclusive_group()
    rerun.add_argument("--resume", action="store_true", default=False)
    rerun.add_argument("--overwrite", action="store_true", default=False)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Pretrain and report the result."""
    params = parse_args(arguments)
    with job_run(script="pretrain", output=params.features_path) as job:
        pretrain(
            config_path=params.config,
            output_path=params.features_path,
            storage_config_path=params.storage_config,
            resume=params.resume,
            overwrite=params.overwrite,
        )
        job.finish()


if __name__ == "__main__":
    main()
