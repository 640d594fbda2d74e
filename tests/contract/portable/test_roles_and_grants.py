"""Roles and grants: hierarchy, ownership, future grants, grant options, dropped roles."""

import uuid

import pytest
import snowflake.connector


class Roles:
    """Roles of one test, granted to the user, and a schema they act in."""

    def __init__(self, target):
        self.target = target
        self.mark = uuid.uuid4().hex[:6].upper()
        self.database = f"{target.prefix}_{self.mark}"
        target.adopt("DATABASE", self.database)
        target.script(f"CREATE DATABASE {self.database}; CREATE SCHEMA {self.database}.S")
        self.schema = f"{self.database}.S"

    def make(self, name):
        """Create a role that may use the schema; return its name and a connection as it."""
        role = f"{self.database}_{name}"
        self.target.adopt("ROLE", role)
        self.target.script(
            f"""CREATE ROLE {role};
            GRANT ROLE {role} TO USER {self.target.user};
            GRANT USAGE ON DATABASE {self.database} TO ROLE {role};
            GRANT USAGE ON SCHEMA {self.schema} TO ROLE {role}"""
        )
        return role, self.target.connect(role=role)


@pytest.fixture
def roles(target):
    """A fresh database and roles."""
    return Roles(target)


def sees(target, connection, stage):
    """Tell whether a role may list a stage."""
    try:
        target.rows(f"LIST @{stage}", connection)
    except snowflake.connector.errors.ProgrammingError as error:
        if error.errno not in (2003, 3001):
            raise
        return False
    return True


@pytest.mark.fidelity("roles-inherit")
def test_role_hierarchy(target, roles):
    """A role has what is granted to the roles it was granted, until that grant is revoked."""
    upper, as_upper = roles.make("UPPER")
    lower, _ = roles.make("LOWER")
    stage = f"{roles.schema}.ST"
    target.script(f"CREATE STAGE {stage}; GRANT READ ON STAGE {stage} TO ROLE {lower}")
    assert not sees(target, as_upper, stage)
    target.script(f"GRANT ROLE {lower} TO ROLE {upper}")
    assert sees(target, as_upper, stage)
    target.script(f"REVOKE ROLE {lower} FROM ROLE {upper}")
    assert not sees(target, as_upper, stage)


@pytest.mark.fidelity("roles-cycle")
def test_roles_form_no_cycle(target, roles):
    """A role cannot be granted to a role that it inherits."""
    upper, _ = roles.make("UPPER")
    lower, _ = roles.make("LOWER")
    target.script(f"GRANT ROLE {lower} TO ROLE {upper}")
    target.error(f"GRANT ROLE {upper} TO ROLE {lower}")
    holders = {row["grantee_name"] for row in target.rows(f"SHOW GRANTS OF ROLE {upper}")}
    assert lower not in holders


@pytest.mark.fidelity("roles-dropped")
def test_dropping_a_role(target, roles):
    """What a dropped role owned passes to the role that drops it; its grants are gone."""
    role, as_role = roles.make("GONE")
    other, as_other = roles.make("OTHER")
    stage = f"{roles.schema}.OWNED"
    target.script(f"GRANT CREATE STAGE ON SCHEMA {roles.schema} TO ROLE {role}")
    target.script(f"CREATE STAGE {stage}", as_role)
    target.script(f"GRANT ROLE {role} TO ROLE {other}")
    assert sees(target, as_other, stage)
    target.script(f"DROP ROLE {role}")
    assert not sees(target, as_other, stage)
    (row,) = target.rows(f"SHOW STAGES LIKE 'OWNED' IN SCHEMA {roles.schema}")
    assert row["owner"] == target.role
    assert target.error(f"USE ROLE {role}").errno in (2043, 3013)


@pytest.mark.fidelity("use-role")
def test_use_role_needs_the_grant(target, roles):
    """USE ROLE takes roles that the user has, and no others."""
    role = f"{roles.database}_ALIEN"
    target.adopt("ROLE", role)
    target.script(f"CREATE ROLE {role}")
    connection = target.connect()
    error = target.error(f"USE ROLE {role}", connection)
    assert (error.errno, error.sqlstate) == (3013, "42501")
    assert "is not assigned to the executing user" in error.raw_msg


@pytest.mark.fidelity("grant-option")
def test_grant_option(target, roles):
    """WITH GRANT OPTION lets a role grant on; without it, or once it is revoked, it may not."""
    giver, as_giver = roles.make("GIVER")
    taker, as_taker = roles.make("TAKER")
    stage = f"{roles.schema}.ST"
    grant = f"GRANT READ ON STAGE {stage} TO ROLE"
    target.script(f"CREATE STAGE {stage}; {grant} {giver}")
    error = target.error(f"{grant} {taker}", as_giver)
    assert (error.errno, error.sqlstate) == (3001, "42501")
    target.script(f"{grant} {giver} WITH GRANT OPTION")
    target.script(f"{grant} {taker}", as_giver)
    assert sees(target, as_taker, stage)
    (row,) = [
        row
        for row in target.rows(f"SHOW GRANTS ON STAGE {stage}")
        if row["grantee_name"] == taker.upper()
    ]
    assert (row["granted_by"], row["grant_option"]) == (giver.upper(), "false")
    target.script(f"REVOKE READ ON STAGE {stage} FROM ROLE {giver} CASCADE")
    assert not sees(target, as_taker, stage)


@pytest.mark.fidelity("grant-option-revoked")
def test_revoking_only_the_grant_option(target, roles):
    """REVOKE GRANT OPTION FOR leaves the privilege."""
    giver, as_giver = roles.make("GIVER")
    taker, _ = roles.make("TAKER")
    stage = f"{roles.schema}.ST"
    target.script(
        f"""CREATE STAGE {stage};
        GRANT READ ON STAGE {stage} TO ROLE {giver} WITH GRANT OPTION;
        REVOKE GRANT OPTION FOR READ ON STAGE {stage} FROM ROLE {giver}"""
    )
    assert sees(target, as_giver, stage)
    assert target.error(f"GRANT READ ON STAGE {stage} TO ROLE {taker}", as_giver).errno == 3001


@pytest.mark.fidelity("ownership")
def test_ownership_transfer(target, roles):
    """A new owner may drop; COPY CURRENT GRANTS keeps the grants, and without it they hinder."""
    owner, as_owner = roles.make("OWNER")
    reader, as_reader = roles.make("READER")
    stage = f"{roles.schema}.ST"
    target.script(f"CREATE STAGE {stage}; GRANT READ ON STAGE {stage} TO ROLE {reader}")
    assert target.error(f"DROP STAGE {stage}", as_owner).errno in (2003, 3001)
    transfer = f"GRANT OWNERSHIP ON STAGE {stage} TO ROLE {owner}"
    assert "Dependent grant of privilege 'READ'" in target.error(transfer).raw_msg
    target.script(f"{transfer} COPY CURRENT GRANTS")
    assert sees(target, as_reader, stage)
    (row,) = target.rows(f"SHOW STAGES IN SCHEMA {roles.schema}", as_owner)
    assert row["owner"] == owner.upper()
    target.script(f"DROP STAGE {stage}", as_owner)


@pytest.mark.fidelity("future-grants")
def test_future_grants(target, roles):
    """Future grants reach what is made later; a schema's replace its database's."""
    reader, as_reader = roles.make("READER")
    other, as_other = roles.make("OTHER")
    before, after, last = (f"{roles.schema}.{name}" for name in ("BEFORE", "AFTER", "LAST"))
    target.script(
        f"""CREATE STAGE {before};
        GRANT READ ON FUTURE STAGES IN DATABASE {roles.database} TO ROLE {reader};
        CREATE STAGE {after}"""
    )
    assert (sees(target, as_reader, before), sees(target, as_reader, after)) == (False, True)
    target.script(
        f"""GRANT READ ON FUTURE STAGES IN SCHEMA {roles.schema} TO ROLE {other};
        CREATE STAGE {last}"""
    )
    assert (sees(target, as_reader, last), sees(target, as_other, last)) == (False, True)
    (row,) = target.rows(f"SHOW FUTURE GRANTS IN SCHEMA {roles.schema}")
    assert (row["privilege"], row["grant_on"], row["grantee_name"]) == (
        "READ", "STAGE", other.upper(),
    )  # fmt: skip
    target.script(f"REVOKE READ ON FUTURE STAGES IN SCHEMA {roles.schema} FROM ROLE {other}")
    assert target.rows(f"SHOW FUTURE GRANTS IN SCHEMA {roles.schema}") == []
    assert sees(target, as_other, last)


@pytest.mark.fidelity("managed-access")
def test_managed_access(target, roles):
    """In a schema with managed access its owner decides about grants, not the objects' owners."""
    maker, as_maker = roles.make("MAKER")
    reader, as_reader = roles.make("READER")
    schema = f"{roles.database}.M"
    target.script(
        f"""CREATE SCHEMA {schema} WITH MANAGED ACCESS;
        GRANT USAGE, CREATE STAGE ON SCHEMA {schema} TO ROLE {maker};
        GRANT USAGE ON SCHEMA {schema} TO ROLE {reader}"""
    )
    target.script(f"CREATE STAGE {schema}.ST", as_maker)
    grant = f"GRANT READ ON STAGE {schema}.ST TO ROLE {reader}"
    assert target.error(grant, as_maker).errno == 3001
    target.script(grant)
    assert sees(target, as_reader, f"{schema}.ST")


@pytest.mark.fidelity("public")
def test_public_is_everyones(target, roles):
    """What PUBLIC has every role has."""
    _, as_role = roles.make("ANY")
    stage = f"{roles.schema}.ST"
    target.script(f"CREATE STAGE {stage}; GRANT READ ON STAGE {stage} TO ROLE PUBLIC")
    assert sees(target, as_role, stage)


@pytest.mark.fidelity("bulk-grants")
def test_grant_on_all(target, roles):
    """ALL covers what is there, not what comes later."""
    reader, as_reader = roles.make("READER")
    target.script(
        f"""CREATE TABLE {roles.schema}.T (A INT);
        GRANT SELECT ON ALL TABLES IN SCHEMA {roles.schema} TO ROLE {reader};
        CREATE TABLE {roles.schema}.U (A INT)"""
    )
    target.rows(f"DESCRIBE TABLE {roles.schema}.T", as_reader)
    assert target.error(f"DESCRIBE TABLE {roles.schema}.U", as_reader).errno == 2003


@pytest.mark.fidelity("no-rights")
def test_account_privileges(target, roles):
    """A plain role creates no database, role, warehouse or compute pool."""
    _, as_role = roles.make("PLAIN")
    for sql in (
        f"CREATE DATABASE {roles.database}_X", f"CREATE ROLE {roles.database}_X",
        f"CREATE WAREHOUSE {roles.database}_X",
        f"CREATE COMPUTE POOL {roles.database}_X MIN_NODES = 1 MAX_NODES = 1"
        " INSTANCE_FAMILY = CPU_X64_XS INITIALLY_SUSPENDED = TRUE",
    ):  # fmt: skip
        error = target.error(sql, as_role)
        assert (error.errno, error.sqlstate) == (3001, "42501")
        assert "Insufficient privileges to operate on account" in error.raw_msg
