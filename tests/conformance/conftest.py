"""What every suite shares: where the local account is and who may log in.

The suites run in environments of their own (see `test_suites.py`), so nothing of this project is
imported here.
"""

import json
import os
import uuid
from pathlib import Path

import pytest

FACTS = "MONAD_CONFORMANCE"
# Outside of a suite's own environment only `test_suites.py`, which starts the suites, is collected.
collect_ignore_glob = [] if FACTS in os.environ else ["*/test_*.py"]


@pytest.fixture(scope="session")
def facts():
    """Return the connection arguments of the account's users, by name."""
    return json.loads(Path(os.environ[FACTS]).read_text())


@pytest.fixture
def unique():
    """Return a function that makes a name no other test uses."""
    return lambda prefix: f"{prefix}_{uuid.uuid4().hex[:8].upper()}"
