"""The account a portable contract test runs against: local by default, real when it is given.

    MONAD_CONTRACT_ACCOUNT   account identifier; without it the tests start a local account
    MONAD_CONTRACT_USER      user
    MONAD_CONTRACT_PASSWORD, MONAD_CONTRACT_TOKEN or MONAD_CONTRACT_PRIVATE_KEY_PATH
    MONAD_CONTRACT_ROLE      a role of that user with, on the account, CREATE DATABASE, CREATE ROLE,
                             CREATE WAREHOUSE and CREATE COMPUTE POOL; what it lacks is skipped
    MONAD_CONTRACT_COMPUTE_POOL  an existing CPU pool that the role owns, for job services; without
                             it they are skipped, unless MONAD_CONTRACT_CREATE_POOL=1 allows one
                             CPU_X64_XS node for the length of the tests
    MONAD_CONTRACT_HOST, _PORT, _PROTOCOL   where the account is, if not at its usual address

Every object is named MONAD_CT_<8 hex digits>_... and dropped at the end; nothing else is touched.
"""

import os
import uuid
from contextlib import suppress

import snowflake.connector

PREFIX = "MONAD_CONTRACT_"
LOCAL_REGION = "LOCAL"
_OPTIONAL = ("password", "token", "host", "port", "protocol")


class Target:
    """An account, known by its connection arguments only."""

    def __init__(self, arguments, *, compute_pool=None, may_create_pool=False):
        self.arguments = arguments
        self.compute_pool = compute_pool
        self.may_create_pool = may_create_pool
        self.prefix = f"MONAD_CT_{uuid.uuid4().hex[:8].upper()}"
        self._opened = []
        self._created = []
        self.admin = self.connect()
        self.role = self.value("SELECT CURRENT_ROLE()")
        self.user = self.value("SELECT CURRENT_USER()")
        self.is_local = self.value("SELECT CURRENT_REGION()") == LOCAL_REGION
        self.version = self.value("SELECT CURRENT_VERSION()")

    # --- connections and statements

    def connect(self, role=None, **more):
        """Open a connection; secondary roles are off, as the project assumes."""
        arguments = {**self.arguments, **more}
        if role is not None:
            arguments["role"] = role
        connection = snowflake.connector.connect(**arguments)
        connection.cursor().execute("USE SECONDARY ROLES NONE")
        self._opened.append(connection)
        return connection

    def rows(self, sql, connection=None):
        """Run a statement and return dictionaries."""
        cursor = (connection or self.admin).cursor(snowflake.connector.DictCursor)
        return cursor.execute(sql).fetchall()

    def value(self, sql, connection=None):
        """Run a statement and return its first cell."""
        return (connection or self.admin).cursor().execute(sql).fetchone()[0]

    def columns(self, sql, connection=None):
        """Run a statement and return its column names in order."""
        cursor = (connection or self.admin).cursor()
        cursor.execute(sql)
        return [column.name for column in cursor.description]

    def error(self, sql, connection=None):
        """Run a statement that must fail and return its error."""
        try:
            (connection or self.admin).cursor().execute(sql)
        except snowflake.connector.errors.DatabaseError as error:
            return error
        raise AssertionError(f"accepted, though it should be refused: {sql}")

    def script(self, text, connection=None):
        """Run statements separated by semicolons; {prefix} stands for this run's names."""
        for statement in text.replace("{prefix}", self.prefix).split(";"):
            lines = [line for line in statement.splitlines() if not line.strip().startswith("--")]
            if "".join(lines).strip():
                (connection or self.admin).cursor().execute("\n".join(lines))

    # --- objects

    def create(self, kind, name, clauses=""):
        """Create an object of this run and return its name."""
        full = f"{self.prefix}_{name}"
        self.admin.cursor().execute(f"CREATE {kind} {full} {clauses}")
        self.adopt(kind, full)
        return full

    def adopt(self, kind, name):
        """Drop an object at the end that a test creates by itself."""
        self._created.append((kind, name))

    def close(self):
        """Drop what was created and close every connection."""
        self.admin.cursor().execute(f'USE ROLE "{self.role}"')
        for kind, name in reversed(self._created):
            with suppress(snowflake.connector.errors.DatabaseError):
                if kind == "COMPUTE POOL":
                    self.admin.cursor().execute(f"ALTER COMPUTE POOL IF EXISTS {name} STOP ALL")
                self.admin.cursor().execute(f"DROP {kind} IF EXISTS {name}")
        for connection in self._opened:
            with suppress(snowflake.connector.errors.Error):
                connection.close()


def given():
    """Return the target that the environment names, or None."""
    environment = {
        key.removeprefix(PREFIX).lower(): value
        for key, value in os.environ.items()
        if key.startswith(PREFIX) and value
    }
    if "account" not in environment:
        return None
    arguments = {key: environment[key] for key in ("account", "user", "role", *_OPTIONAL)
                 if key in environment}  # fmt: skip
    if "port" in arguments:
        arguments["port"] = int(arguments["port"])
    if "token" in arguments:
        arguments["authenticator"] = "PROGRAMMATIC_ACCESS_TOKEN"
    if "private_key_path" in environment:
        arguments["private_key_file"] = environment["private_key_path"]
    return Target(
        arguments | {"login_timeout": 60},
        compute_pool=environment.get("compute_pool"),
        may_create_pool=environment.get("create_pool") == "1",
    )


def local_environment(local):
    """Return the environment that names a running local account, with a user of few rights.

    Args:
        local: A LocalAccount.
    """
    facts = local.connection("ADMIN")
    password = uuid.uuid4().hex
    with snowflake.connector.connect(**facts) as admin:
        for statement in (
            "CREATE ROLE IF NOT EXISTS CONTRACT_ROLE",
            "GRANT CREATE DATABASE, CREATE ROLE, CREATE WAREHOUSE, CREATE COMPUTE POOL ON ACCOUNT"
            " TO ROLE CONTRACT_ROLE",
            f"CREATE OR REPLACE USER CONTRACT_USER PASSWORD = '{password}'"
            " DEFAULT_ROLE = CONTRACT_ROLE",
            "GRANT ROLE CONTRACT_ROLE TO USER CONTRACT_USER",
        ):
            admin.cursor().execute(statement)
    values = {
        "account": facts["account"], "host": facts["host"], "port": str(facts["port"]),
        "protocol": facts["protocol"], "user": "CONTRACT_USER", "password": password,
        "role": "CONTRACT_ROLE", "create_pool": "1",
    }  # fmt: skip
    return {f"{PREFIX}{key.upper()}": value for key, value in values.items()}


def leftovers(local, prefix):
    """Return what a closed target left in a local account."""
    with snowflake.connector.connect(**local.connection("ADMIN")) as admin:
        cursor = admin.cursor(snowflake.connector.DictCursor)
        return [
            row["name"]
            for kind in ("DATABASES", "ROLES", "WAREHOUSES", "COMPUTE POOLS")
            for row in cursor.execute(f"SHOW {kind} LIKE '{prefix}%'").fetchall()
        ]
