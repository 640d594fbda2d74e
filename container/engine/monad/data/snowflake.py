"""Read a table from Snowflake in Arrow batches.

With user and password the documented connection values are used. Without them, inside a job
service container, the session token file and the `SNOWFLAKE_*` names of the container are.
"""

import logging
from collections.abc import Iterator
from typing import Any, Self

from monad.config import environment
from monad.config.schema import DataLocation, DataSource
from monad.errors import ConfigError, DataError, EngineError, problem

logger = logging.getLogger("monad.fit")


def connection_arguments(source: DataSource) -> dict[str, Any]:
    """Return the connector's arguments for a source."""
    return location_arguments(source.data_location, f"Data source {source.name}")


def location_arguments(location: DataLocation, label: str) -> dict[str, Any]:
    """Return the connector's arguments for a location; *label* names it in errors."""
    given = dict(location.connection_params)
    secrets = ("user", "password")
    without_login = all(not given.get(key) or environment.unresolved(given[key]) for key in secrets)
    if without_login:
        for key in secrets:
            given.pop(key, None)
    path = f"{label}: connection_params"
    values = {
        key: environment.substitute(value, f"{path}.{key}") if isinstance(value, str) else value
        for key, value in given.items()
        if value is not None
    }
    if "db_schema" in values:
        values["schema"] = values.pop("db_schema")
    around = environment.snowflake_environment()
    for key in ("host", "port", "protocol", "account", "warehouse", "database", "schema"):
        if key not in values and key in around:
            values[key] = around[key]
    if "port" in values:
        values["port"] = int(values["port"])
    if without_login:
        values.pop("role", None)  # the session token carries the role
        values.update(_session_token(label))
    else:
        values.setdefault("role", "PUBLIC")
    values["login_timeout"] = int(values.get("login_timeout", 60))
    return values


def resolved_table(location: DataLocation, label: str) -> str:
    """Return a location's table name with environment variables replaced."""
    if not location.table_name:
        raise ConfigError(problem(f"{label}: data_location.table_name is required"))
    return environment.substitute(location.table_name, f"{label}: table_name")


def _session_token(label: str) -> dict[str, Any]:
    path = environment.session_token_path()
    if not path.is_file():
        raise ConfigError(
            problem(
                f"{label} has no login",
                f"user and password are absent and there is no session token at {path}",
                "Give user and password in connection_params, or run inside a job service",
            )
        )
    return {"token": path.read_text().strip(), "authenticator": "oauth"}


def quoted_name(name: str) -> str:
    """Quote a column name for Snowflake."""
    return '"' + name.replace('"', '""') + '"'


def connect(arguments: dict[str, Any], purpose: str, advice: str) -> Any:
    """Open a connection of the Snowflake connector.

    Raises:
        EngineError: The account cannot be reached, or refuses the login; names the *purpose*.
    """
    import snowflake.connector

    try:
        return snowflake.connector.connect(**arguments)
    except snowflake.connector.errors.Error as error:
        where = arguments.get("host") or arguments.get("account")
        raise EngineError(
            problem(
                f"Snowflake at {where} cannot be reached {purpose}",
                str(error).splitlines()[0],
                advice,
            )
        ) from error


class SnowflakeTable:
    """One table over one connection; a context manager."""

    def __init__(self, source: DataSource) -> None:
        self._source = source
        self._table = resolved_table(source.data_location, f"Data source {source.name}")
        self._arguments = connection_arguments(source)
        self._connection: Any = None

    def __enter__(self) -> Self:
        self._connection = connect(
            self._arguments,
            f"for data source {self._source.name}",
            "Check the account, the login and that the account is running",
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def _run(self, sql: str) -> Any:
        import snowflake.connector

        try:
            return self._connection.cursor().execute(sql)
        except snowflake.connector.errors.Error as error:
            place = [self._arguments.get("database"), self._arguments.get("schema")]
            full = ".".join([*(p for p in place if p), self._table])
            raise DataError(
                problem(
                    f"Data source {self._source.name} cannot be read from {full}",
                    f"{error.errno}: {error.msg or error}",
                    "Check data_location, where_condition, sql_lambdas and the role's grants",
                    f"query {error.sfqid}" if getattr(error, "sfqid", None) else "",
                )
            ) from error

    def rows(self, sql: str) -> list[Any]:
        """Run a query of the configuration and return its rows."""
        return self._run(sql).fetchall()

    def column_names(self) -> list[str]:
        """Return the table's column names as Snowflake stores them."""
        cursor = self._run(f"SELECT * FROM {self._table} LIMIT 0")
        return [entry[0] for entry in cursor.description]

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """Yield Arrow tables with *columns* and the computed columns."""
        parts = [quoted_name(name) for name in columns]
        parts += [f"({x.expression}) AS {quoted_name(x.alias)}" for x in self._source.sql_lambdas]
        sql = f"SELECT {', '.join(parts)} FROM {self._table}"
        if self._source.where_condition:
            sql += f" WHERE {self._source.where_condition}"
        for batch in self._run(sql).fetch_arrow_batches():
            if batch.num_rows:
                yield batch

    def facts(self) -> dict[str, Any]:
        """Return the table's full name and when it was last altered."""
        name = self._table.split(".")[-1].strip('"')
        place = [self._arguments.get("database"), self._arguments.get("schema")]
        full = self._table if "." in self._table else ".".join([*(p for p in place if p), name])
        altered = None
        try:
            cursor = self._connection.cursor().execute(
                "SELECT last_altered FROM information_schema.tables WHERE table_name = %s LIMIT 1",
                (name.upper(),),
            )
            row = cursor.fetchone()
            altered = str(row[0]) if row and row[0] is not None else None
        except Exception as error:
            logger.debug("last_altered of %s is not known: %s", full, error)
        return {"name": full, "last_altered": altered}
