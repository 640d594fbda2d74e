"""Directory tables: what a stage held when it was last refreshed, as `DIRECTORY(@stage)`.

Internal stages are not refreshed by themselves: a file shows after ALTER STAGE ... REFRESH.
Follows https://docs.snowflake.com/en/user-guide/data-load-dirtables-query; the texts of a refresh
are approximate.
"""

import datetime as dt
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from monad_dagster.local import errors
from monad_dagster.local.protocol.results import ResultSet, number, table, text, timestamp
from monad_dagster.local.sql.handlers import table_function
from monad_dagster.local.sql.statements import Arguments, ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.catalog.catalog import CatalogObject
    from monad_dagster.local.session import Session

_COLLECTION = "directory_tables"
_COLUMNS = [
    text("RELATIVE_PATH"), number("SIZE"), timestamp("LAST_MODIFIED"), text("MD5"), text("ETAG"),
    text("FILE_URL"),
]  # fmt: skip
_REGISTERED = ("REGISTERED_NEW", "File registered successfully.")
_UPDATED = ("REGISTERED_UPDATE", "File registered (updated) successfully.")
_REMOVED = ("UNREGISTERED", "File unregistered successfully.")


def refresh(session: "Session", name: ObjectName, subpath: str = "") -> ResultSet:
    """Let a stage's directory table follow its files; the role needs WRITE on the stage."""
    found = session.lookup("STAGE", name, "WRITE")
    _require_enabled(found)
    before = _stored(session, found)
    kept = {path: facts for path, facts in before.items() if not path.startswith(subpath)}
    stages = session.account.stages
    now = {
        file.path: [file.size_bytes, file.modified, stages.md5(file)]
        for file in stages.files(found.database, found.schema, found.name, subpath)
    }
    session.catalog.put_document(_COLLECTION, str(found.id), kept | now)
    changed = [
        (path, *(_UPDATED if path in before else _REGISTERED))
        for path, facts in now.items()
        if before.get(path) != facts
    ]
    gone = [(path, *_REMOVED) for path in before if path not in kept and path not in now]
    return table([text("file"), text("status"), text("description")], changed + gone)


@table_function("DIRECTORY")
def directory(session: "Session", statement: Statement, args: Arguments) -> ResultSet:
    """Return a stage's directory table, as it was refreshed last."""
    found = session.lookup("STAGE", args.positional[0].stage, "READ")
    _require_enabled(found)
    rows = [_row(session, found, path, f) for path, f in sorted(_stored(session, found).items())]
    return table(_COLUMNS, rows)


def _require_enabled(found: "CatalogObject") -> None:
    if not found.properties.get("DIRECTORY"):
        raise errors.compilation_error(
            2003, "02000", f"Directory table of stage '{found.name}' is not enabled."
        )


def _stored(session: "Session", found: "CatalogObject") -> dict[str, Any]:
    return session.catalog.get_document(_COLLECTION, str(found.id)) or {}


def _row(
    session: "Session", found: "CatalogObject", path: str, facts: list[Any]
) -> tuple[object, ...]:
    size, modified, digest = facts
    where = "/".join(quote(part) for part in (found.database, found.schema, found.name))
    host = f"{session.account.organization}-{session.account.name}".lower()
    return (
        path, size, dt.datetime.fromtimestamp(modified, dt.UTC), digest, digest,
        f"https://{host}.snowflakecomputing.com/api/files/{where}/{quote(path, safe='')}",
    )  # fmt: skip
