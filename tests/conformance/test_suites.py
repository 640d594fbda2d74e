"""Runs each client's conformance suite in that client's own environment.

A suite is a folder of tests that know nothing of this project: they talk to a local account,
started here, through one published client. `make conformance` builds the environments.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from monad_dagster.local import LocalAccount
from tests.conformance.setup_account import set_up, tear_down

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# suite -> folder of its tests; both connector lines share one
SUITES = {
    "connector4": "connector",
    "connector5": "connector",
    "snowcli": "snowcli",
    "dagster_pandas": "dagster_io",
    "mljobs": "mljobs",
    "core": "core",
}


def environment_python(suite):
    """Return the interpreter of a suite's environment."""
    return ROOT / ".venv-conformance" / suite / "bin" / "python"


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("suite", SUITES)
def test_client_is_served(suite, tmp_path):
    """A published client's own suite passes against the local account."""
    python = environment_python(suite)
    if not (python.parents[1] / ".installed").exists():
        pytest.skip(f"the environment of {suite} is not built; `make conformance` builds it")
    local = LocalAccount(tmp_path / "account")
    local.start()
    try:
        facts = tmp_path / "facts.json"
        facts.write_text(json.dumps(set_up(local)))
        environment = {
            **os.environ,
            "MONAD_CONFORMANCE": str(facts),
            "HOME": str(tmp_path),
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
        }
        command = [
            str(python), "-m", "pytest", "-q", "-c", str(HERE / "pytest.ini"),
            "--rootdir", str(HERE), f"--basetemp={tmp_path / 'suite'}", str(HERE / SUITES[suite]),
        ]  # fmt: skip
        done = subprocess.run(command, env=environment, cwd=tmp_path, check=False)
        tear_down(local)
    finally:
        local.stop()
    assert done.returncode == 0, f"the {suite} suite failed; its output is above"
