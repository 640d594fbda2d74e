"""A small job script: says what it was told to say, and ends as it was told to end."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from job_support import job_run


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Run one behaviour."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--behavior", default="succeed")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    say(f"toy job: {arguments.behavior}")
    if arguments.behavior == "exit":
        say("the last words")
        raise SystemExit(3)
    if arguments.behavior == "silent":
        return
    if arguments.behavior == "lose-node" and not arguments.resume:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "partial.bin").write_bytes(b"partial")
        os.kill(os.getpid(), signal.SIGKILL)
    with job_run(script="pretrain", output=arguments.output) as job:
        for step in range(1, 4):
            job.progress(step=step, total=3, loss=1 / step)
            say(f"step {step}")
            time.sleep(arguments.seconds / 3)
        if arguments.behavior == "raise":
            raise ValueError("column t_dat not found in transactions")
        if arguments.behavior == "forget":
            return
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "weights.bin").write_bytes(b"weights")
        job.finish(metrics={"loss": 0.25}, facts={"resumed": arguments.resume})


if __name__ == "__main__":
    main()
