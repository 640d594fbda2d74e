"""Notes which rows of tests/data/fidelity.yaml an account confirms or contradicts.

A test names its rows with `@pytest.mark.fidelity("row", ...)`. The rows' states go to
docs/fidelity.json when MONAD_CONTRACT_RECORD names that file, and docs/fidelity.md is generated
from both: `python -m tests.support.fidelity`.
"""

import datetime as dt
import json
import os
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROWS = ROOT / "tests" / "data" / "fidelity.yaml"
RECORD = "MONAD_CONTRACT_RECORD"


def rows():
    """Return the rows of the ledger by name."""
    return {row["row"]: row for row in yaml.safe_load(ROWS.read_text())}


class Recorder:
    """Collects outcomes during a test session."""

    def __init__(self):
        self.target = None
        self.results = {}

    def note(self, item, report):
        """Note the outcome of a test; one that was skipped says nothing."""
        marker = item.get_closest_marker("fidelity")
        if marker is None or report.skipped or (report.when != "call" and not report.failed):
            return
        if report.failed and report.when != "call":
            return  # a fixture failed: the behaviour was not looked at
        for row in marker.args:
            passed = report.passed and self.results.get(row, {}).get("agrees", True)
            detail = "" if report.passed else _last_line(report)
            self.results[row] = {"agrees": passed, "test": item.nodeid, "detail": detail}

    def write(self):
        """Merge what was noted into the record, under the kind of account that answered."""
        path = os.environ.get(RECORD)
        if not path or self.target is None:
            return
        record = json.loads(Path(path).read_text()) if Path(path).exists() else {}
        kind = "local" if self.target.is_local else "snowflake"
        today = dt.datetime.now(dt.UTC).date().isoformat()
        for row, result in self.results.items():
            record.setdefault(row, {})[kind] = result | {
                "date": today, "version": self.target.version,
            }  # fmt: skip
        Path(path).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def _last_line(report):
    text = getattr(report.longrepr, "reprcrash", None)
    return str(text.message if text else report.longrepr).splitlines()[0][:200]
