"""What tests of the account's parts share."""

import pytest

from monad_dagster.local.account import Account


@pytest.fixture
def account(tmp_path):
    """An account in this process."""
    (tmp_path / "runner.json").write_text('{"level": "plain", "stage_mounts": "off"}')
    account = Account(tmp_path)
    yield account
    account.close()
