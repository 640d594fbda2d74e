"""What the job services of the chaos tests run: a plan on the stage says how it goes.

Each execution leaves a file of its own below `executions/`, so that nobody has to take the
client's word for how often a script ran.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import job_support

POLL_SECONDS = 0.05
NUM_STEPS = 3


def wait_for(gate: Path) -> None:
    """Wait until somebody opens the gate."""
    while not gate.exists():
        time.sleep(POLL_SECONDS)


class LateStage:
    """A stage on which the last chunk arrives late: it is put aside until somebody brings it."""

    def __init__(self, aside: Path) -> None:
        self.aside = aside
        self.real = Path(os.environ[job_support.RUN_DIRECTORY_VARIABLE])
        self.local = Path(tempfile.mkdtemp(prefix="late-stage-"))
        shutil.copy(self.real / "context.json", self.local / "context.json")
        os.environ[job_support.RUN_DIRECTORY_VARIABLE] = str(self.local)

    def deliver(self) -> None:
        """Hand over every chunk but the last."""
        chunks = sorted((self.local / "messages").iterdir(), key=lambda path: int(path.stem))
        for target, group in ((self.real / "messages", chunks[:-1]), (self.aside, chunks[-1:])):
            target.mkdir(parents=True, exist_ok=True)
            for chunk in group:
                (target / chunk.name).write_bytes(chunk.read_bytes())
        shutil.rmtree(self.local)


def work(plan: dict, stage: Path, partition: str, output: Path, execution: str) -> None:
    """Report numbered steps and write the output."""
    with job_support.job_run(script="chaos", output=output) as job:
        for step in range(1, NUM_STEPS + 1):
            job.progress(step=step, total=NUM_STEPS, loss=1 / step)
            time.sleep(plan.get("seconds", 0.0) / NUM_STEPS)
        if plan.get("gate"):
            wait_for(stage / "gates" / partition)
        if plan.get("behavior") == "raise":
            raise ValueError("no such column")
        if plan.get("behavior") == "forget":
            return
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{execution}.bin").write_text(partition)
        job.finish(metrics={"loss": 0.25}, facts={"execution": execution})


def main() -> None:
    """Carry out the plan of one partition."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--partition", required=True)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    stage, partition = arguments.stage, arguments.partition
    plan = json.loads((stage / "plans" / f"{partition}.json").read_text())
    service, execution = os.environ["SNOWFLAKE_SERVICE_NAME"], uuid.uuid4().hex
    record = stage / "executions" / partition / service / execution
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text("began\n")
    sys.stdout.write(f"execution {execution} of {service}\n")
    sys.stdout.flush()
    behavior = plan.get("behavior")
    if behavior == "exit":
        raise SystemExit(3)
    if behavior == "silent":
        return
    late = LateStage(stage / "late" / partition) if plan.get("late") else None
    work(plan, stage, partition, arguments.output, execution)
    if late is not None:
        late.deliver()
    record.with_name(f"{execution}.through").write_text("through\n")


if __name__ == "__main__":
    main()
