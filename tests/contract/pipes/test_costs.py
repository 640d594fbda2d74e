"""`job_service_costs` on a local account."""

import json
import sqlite3
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from monad_dagster.assets.costs import COST_TABLE, build_cost_asset
from monad_dagster.local import LocalAccount
from monad_dagster.spcs import sql_tables
from monad_dagster.spcs.account_setup import apply_setup
from monad_dagster.spcs.identifiers import QualifiedName
from tests.contract.pipes.conftest import LAYOUT, build_client, open_session, toy_asset


def materialize_costs(client, instance):
    """Materialize the asset and return its metadata."""
    result = dg.materialize([build_cost_asset()], resources={"spcs": client}, instance=instance)
    (event,) = result.get_asset_materialization_events()
    return event.materialization.metadata


def test_costs_are_written_by_asset_and_day(client, instance, session, services):
    """Job services count for their asset, dropped ones too; writing again repeats no row."""
    names = []
    for _ in range(2):
        result = dg.materialize([toy_asset()], resources={"client": client}, instance=instance)
        (event,) = result.get_asset_materialization_events()
        names.append(QualifiedName.parse(event.materialization.metadata["spcs/job_name"].value))
    services.drop(names[0])
    materialize_costs(client, instance)
    metadata = materialize_costs(client, instance)
    rows = session.execute(sql_tables.select_costs(LAYOUT.qualified(COST_TABLE))).rows
    ours = [row for row in rows if row["asset"] == "toy"]
    today = datetime.now(UTC).date()
    (row,) = [row for row in ours if row["compute_pool"] == LAYOUT.compute_pool]
    assert str(row["day"]) == today.isoformat()
    assert row["num_job_services"] >= 2
    assert row["node_seconds"] > 0
    assert row["credits_estimated"] == pytest.approx(row["node_seconds"] * 0.57 / 3600)
    assert not row["is_final"]
    shown = [r.data for r in metadata["costs"].records if r.data["asset"] == "toy"]
    assert shown[0]["day"] == today.isoformat()


def test_what_a_pool_was_billed_is_put_beside_the_estimates(tmp_path, instance):
    """The pool's own history, hours old, is read through ACCOUNT_USAGE."""
    account = LocalAccount(tmp_path / "account")
    account.start()
    try:
        with open_session(account.connection("ADMIN")) as session:
            apply_setup(session, LAYOUT)
        account.stop()
        start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
        add_usage(account.state_dir / "account.sqlite", start, node_seconds=3600.0)
        account.start()
        metadata = materialize_costs(build_client(account.connection()), instance)
        assert metadata["credits_billed"].value == pytest.approx(0.57)
        assert metadata["credits_unattributed"].value == pytest.approx(0.57)
    finally:
        account.stop()


def add_usage(catalog, start, *, node_seconds):
    """Put an hour of a pool's history into a stopped account."""
    with sqlite3.connect(catalog) as db:
        (pool_id,) = db.execute(
            "select id from objects where kind='COMPUTE POOL' and name=?", (LAYOUT.compute_pool,)
        ).fetchone()
        row = {
            "id": pool_id,
            "pool": LAYOUT.compute_pool,
            "family": "GPU_NV_S",
            "start": start.isoformat(),
            "node_seconds": node_seconds,
        }
        db.execute(
            "insert into documents values (?,?,?)",
            ("pool_usage", f"{pool_id}|{start.isoformat()}", json.dumps(row)),
        )
