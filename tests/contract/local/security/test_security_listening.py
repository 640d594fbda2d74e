"""Where the account listens, that TLS works, and that no secret reaches a log."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import snowflake.connector

from monad_dagster.local import LocalAccount
from tests.support.certificates import make_certificate


def test_listens_on_loopback_only(account):
    """The server's one listening socket is on 127.0.0.1."""
    port = f"{account.connection()['port']:04X}"
    listening = []
    for name in ("tcp", "tcp6"):
        with Path(f"/proc/net/{name}").open() as table:
            for line in table.readlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == "0A" and local.endswith(f":{port}"):
                    listening.append(local.split(":")[0])
    assert listening == ["0100007F"]


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "example.org", "10.0.0.1", "127.0.0.1.example.org"]
)
def test_other_addresses_need_tls(tmp_path, host):
    """An address that others can reach is refused without a certificate."""
    command = [sys.executable, "-m", "monad_dagster.local.serve", "--state-dir", str(tmp_path)]
    done = subprocess.run([*command, "--host", host], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "not loopback" in done.stderr


@pytest.fixture
def certificate(tmp_path):
    """Return the files of a self-signed certificate for 127.0.0.1 and of its key."""
    return make_certificate(tmp_path)


def test_tls(tmp_path, certificate, monkeypatch):
    """With a certificate the account listens beyond loopback and a client talks TLS to it."""
    cert, key = certificate
    local = LocalAccount(tmp_path / "account")
    options = ("--host", "0.0.0.0", "--tls-cert", cert, "--tls-key", key)
    try:
        facts = local.start(options=options)
        assert (facts["protocol"], facts["host"]) == ("https", "127.0.0.1")
        assert local.status()["running"]
        arguments = local.connection("ADMIN") | {"disable_ocsp_checks": True, "login_timeout": 10}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", cert)
        with snowflake.connector.connect(**arguments) as connection:
            connection.cursor().execute("CREATE DATABASE D")
            sql = "SELECT range AS N FROM RANGE(200000)"
            assert len(connection.cursor().execute(sql).fetchall()) == 200_000
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        with pytest.raises(snowflake.connector.errors.OperationalError):
            snowflake.connector.connect(**arguments)
    finally:
        local.stop()


def test_no_secret_in_logs(tmp_path):
    """Not even the most talkative log holds a password, token or key, of failures neither."""
    local = LocalAccount(tmp_path / "account")
    secrets = ["a-wrong-password", "a-new-password", "a-forged-token"]
    try:
        local.start(options=("--log-level", "debug"))
        admin = local.connection("ADMIN")
        secrets += json.loads((local.state_dir / "credentials.json").read_text())["users"].values()
        with snowflake.connector.connect(**admin) as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE USER FRESH PASSWORD = 'a-new-password'")
            secrets.append(cursor.execute("ALTER USER FRESH ADD PAT P").fetchone()[1])
            with pytest.raises(snowflake.connector.errors.ProgrammingError):
                cursor.execute("CREATE USER FRESH PASSWORD = 'a-new-password' NONSENSE")
            secrets += [connection.rest.token, connection.rest.master_token]
        for wrong in (
            {"password": "a-wrong-password"},
            {"password": None, "authenticator": "oauth", "token": "a-forged-token"},
        ):
            with pytest.raises(snowflake.connector.errors.DatabaseError):
                snowflake.connector.connect(**(admin | wrong))
    finally:
        local.stop()
    logs = list(local.state_dir.rglob("*.log"))
    assert logs
    for path in logs:
        text = path.read_text(errors="replace")
        assert [secret for secret in secrets if secret in text] == []
    for path in (local.state_dir / "credentials.json", local.state_dir / "control.token"):
        assert path.stat().st_mode & 0o077 == 0
    assert local.state_dir.stat().st_mode & 0o077 == 0
