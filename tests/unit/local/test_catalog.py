"""The catalog: objects, ownership, role inheritance, future grants."""

import datetime as dt

import pytest

from monad_dagster.local.catalog.catalog import Catalog


@pytest.fixture
def catalog(tmp_path):
    """Return an empty catalog with a fixed clock."""
    store = Catalog(tmp_path / "c.sqlite", lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    yield store
    store.close()


def test_creation_grants_ownership(catalog):
    """The creator owns an object, and a name is held once."""
    catalog.create("STAGE", "S", "R", database="D", schema="X")
    assert catalog.privileges("R", "STAGE", "S", database="D", schema="X") == {"OWNERSHIP"}
    with pytest.raises(KeyError):
        catalog.create("STAGE", "S", "R", database="D", schema="X")


def test_roles_inherit(catalog):
    """A role has the privileges of every role granted to it, however deep."""
    for role in ("A", "B", "C"):
        catalog.create("ROLE", role, "")
    catalog.grant("USAGE", "ROLE", "B", "A")
    catalog.grant("USAGE", "ROLE", "C", "B")
    catalog.grant("SELECT", "TABLE", "T", "C", database="D", schema="S")
    assert catalog.has_privilege("A", "SELECT", "TABLE", "T", database="D", schema="S")
    catalog.drop("ROLE", "B")
    assert not catalog.has_privilege("A", "SELECT", "TABLE", "T", database="D", schema="S")


def test_dropping_a_database_drops_what_it_holds(catalog):
    """Objects and grants inside a dropped database are gone."""
    catalog.create("DATABASE", "D", "R")
    catalog.create("SCHEMA", "S", "R", database="D")
    catalog.create("TABLE", "T", "R", database="D", schema="S")
    catalog.drop("DATABASE", "D")
    assert catalog.list_objects("TABLE") == []
    assert catalog.grants_to("R") == []


def test_future_grants(catalog):
    """Future grants reach objects created later in that schema only."""
    catalog.grant_future("SELECT", "TABLE", "R", database="D", schema="S")
    catalog.create("TABLE", "IN", "O", database="D", schema="S")
    catalog.create("TABLE", "OUT", "O", database="D", schema="X")
    assert catalog.has_privilege("R", "SELECT", "TABLE", "IN", database="D", schema="S")
    assert not catalog.has_privilege("R", "SELECT", "TABLE", "OUT", database="D", schema="X")


def test_failed_transaction_leaves_nothing(catalog):
    """Writes of a failed transaction are rolled back together."""

    def fail():
        with catalog.transaction():
            catalog.create("ROLE", "R", "")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        fail()
    assert catalog.get("ROLE", "R") is None
