"""A fixture that makes a local account fail on purpose, for the length of one test.

Use it from a conftest.py that has an `account` fixture:

    from tests.support.faults import faults  # noqa: F401
"""

import pytest


@pytest.fixture
def faults(account):
    """Return the account's `FaultControl`; what a test sets is cleared after it.

    `account` is a LocalAccount, or has one as `.local`.
    """
    control = getattr(account, "local", account).faults
    control.clear()
    yield control
    control.clear()
