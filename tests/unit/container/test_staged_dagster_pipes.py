"""A container whose image has no dagster_pipes takes the copy that is staged beside the scripts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster_pipes
import pytest
from dagster_pipes import encode_param

SCRIPTS = Path(__file__).parents[3] / "container" / "scripts"
CONTEXT = {
    "asset_keys": ["foundation_model"],
    "code_version_by_asset_key": {"foundation_model": None},
    "provenance_by_asset_key": {"foundation_model": None},
    "partition_key": None,
    "partition_key_range": None,
    "partition_time_window": None,
    "run_id": "r",
    "job_name": "j",
    "retry_number": 0,
    "extras": {"inputs": {}},
}
JOB = """
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from job_support import job_run

output = Path(sys.argv[1])
with job_run(script="pretrain", output=output) as job:
    output.mkdir(parents=True)
    (output / "weights.bin").write_bytes(b"weights")
    job.finish(metrics={"loss": 0.5}, facts={})
print("dagster_pipes from", sys.modules["dagster_pipes"].__file__)
"""


@pytest.fixture
def stage(tmp_path):
    """Lay out a stage mount with the scripts and the context of one job service."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    shutil.copy(SCRIPTS / "job_support.py", scripts)
    (scripts / "job.py").write_text(JOB)
    run_directory = tmp_path / "runs" / "job"
    run_directory.mkdir(parents=True)
    (run_directory / "context.json").write_text(json.dumps(CONTEXT))
    return tmp_path


def run_without_packages(stage):
    """Run the job as Dagster would start it, in an interpreter without site-packages."""
    encoded = encode_param({"path": "/not/mapped/here"})
    environment = {
        "PATH": os.environ["PATH"],
        "DAGSTER_PIPES_CONTEXT": encoded,
        "DAGSTER_PIPES_MESSAGES": encoded,
        "MONAD_RUN_DIRECTORY": str(stage / "runs" / "job"),
    }
    return subprocess.run(
        # -I -S: neither the environment nor site-packages add to the import path.
        [sys.executable, "-I", "-S", str(stage / "scripts" / "job.py"), str(stage / "output")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_staged_copy_reports_the_result(stage):
    """With the staged module alone, the messages come out complete, from opened to closed."""
    shutil.copy(dagster_pipes.__file__, stage / "scripts" / "dagster_pipes.py")
    done = run_without_packages(stage)
    assert done.returncode == 0, done.stderr
    assert f"dagster_pipes from {stage / 'scripts' / 'dagster_pipes.py'}" in done.stdout
    chunks = sorted((stage / "runs/job/messages").glob("*.json"), key=lambda p: int(p.stem))
    messages = [json.loads(line) for c in chunks for line in c.read_text().splitlines() if line]
    methods = [message["method"] for message in messages]
    assert (methods[0], methods[-1]) == ("opened", "closed")
    assert "report_asset_materialization" in methods


def test_without_any_copy_the_job_says_what_is_missing(stage):
    """No package and no staged module: the reason and the remedy stand in the log."""
    done = run_without_packages(stage)
    assert (
        "Stage dagster_pipes beside the scripts or add it to the image" in done.stderr + done.stdout
    )
