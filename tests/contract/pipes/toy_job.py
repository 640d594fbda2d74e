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


def write_checkpoint(output: Path) -> None:
    """Leave a complete checkpoint, manifest last, and a file of the next one."""
    checkpoint = output / "checkpoints" / "step1"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "weights.bin").write_bytes(b"weights of step 1")
    (checkpoint / "lineage.json").write_text("{}")
    (output / "partial.bin").write_bytes(b"partial")


def main() -> None:
    """Run one behaviour."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--behavior", default="succeed")
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--attempt", default="")
    arguments = parser.parse_args()
    instance = os.environ.get("SNOWFLAKE_JOB_INDEX", "0")
    say(f"toy job: {arguments.behavior}")
    if arguments.behavior == "exit":
        say("the last words")
        raise SystemExit(3)
    if arguments.behavior == "silent":
        return
    if arguments.behavior == "lose-node" and arguments.attempt.endswith("_1"):
        write_checkpoint(arguments.output)
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments.behavior == "lose-node-early" and arguments.attempt.endswith("_1"):
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "partial.bin").write_bytes(b"partial")
        os.kill(os.getpid(), signal.SIGKILL)
    if arguments.behavior == "one-fails":
        if instance == "1":
            say("instance 1 gives up")
            raise SystemExit(7)
        time.sleep(60)
    with job_run(script="pretrain", output=arguments.output) as job:
        for step in range(1, 4):
            job.progress(step=step, total=3, loss=1 / step)
            say(f"step {step} of instance {instance}")
            if arguments.behavior == "chatty":
                for number in range(400):
                    say(f"detail {number} of step {step}")
            time.sleep(arguments.seconds / 3)
        if arguments.behavior == "raise":
            raise ValueError("column t_dat not found in transactions")
        if arguments.behavior == "forget" or instance != "0":
            return
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "weights.bin").write_bytes(b"weights")
        job.finish(metrics={"loss": 0.25}, facts={"resumed": arguments.resume})


if __name__ == "__main__":
    main()
