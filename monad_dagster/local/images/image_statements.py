"""Statements on image repositories and their images."""

import datetime as dt
import json
from typing import TYPE_CHECKING

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.dropping import drop_statement
from monad_dagster.local.images.image_store import ImageStore
from monad_dagster.local.jobs.job_submission import repository_key
from monad_dagster.local.protocol.results import ResultSet, status, table, text, timestamp
from monad_dagster.local.sql.handlers import function, statement
from monad_dagster.local.sql.show_options import matches_like, parse_show
from monad_dagster.local.sql.statements import Arguments, ObjectName, Statement

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

KIND = "IMAGE REPOSITORY"
_ENCRYPTION = ("SNOWFLAKE_FULL", "SNOWFLAKE_SSE")


@statement("CREATE IMAGE REPOSITORY")
def create_image_repository(session: "Session", parsed: Statement) -> ResultSet:
    """Create an image repository."""
    cursor = parsed.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    given = cursor.properties("ENCRYPTION", "COMMENT", kind=KIND)
    encryption = (given.get("ENCRYPTION") or {"TYPE": "SNOWFLAKE_FULL"}).get("TYPE")
    if encryption not in _ENCRYPTION:
        raise errors.invalid_value(encryption, "ENCRYPTION")
    database, schema, last = session.qualify(name)
    session.require_schema(database, schema, "CREATE IMAGE REPOSITORY")
    held = session.catalog.get(KIND, last, database, schema)
    if held is not None and if_not_exists:
        return status(f"{last} already exists, statement succeeded.")
    properties = {"ENCRYPTION": encryption, "COMMENT": given.get("COMMENT")}
    session.create_object(
        KIND,
        ObjectName((database, schema, last)),
        replace="OR REPLACE" in parsed.modifiers,
        properties={key: value for key, value in properties.items() if value is not None},
    )
    return status(f"Image Repository {last} successfully created.")


@drop_statement(KIND, label="Image repository")
def drop_image_repository(session: "Session", found: CatalogObject) -> None:
    """Drop an image repository with its images."""
    session.account.drop_object(KIND, found.name, database=found.database, schema=found.schema)
    _store(session).drop_repository(repository_key(found))


@statement("SHOW IMAGE REPOSITORIES")
def show_image_repositories(session: "Session", parsed: Statement) -> ResultSet:
    """List image repositories with the URL to push to."""
    options = parse_show(session, parsed.cursor)
    columns = [
        timestamp("created_on"), text("name"), text("database_name"), text("schema_name"),
        text("repository_url"), text("owner"), text("owner_role_type"), text("comment"),
        text("encryption"),
    ]  # fmt: skip
    found = options.select(
        session.visible(KIND, options.database, options.schema), lambda found: found.name
    )
    rows = [
        (r.created_on, r.name, r.database, r.schema, repository_url(session, r), r.owner, "ROLE",
         r.properties.get("COMMENT", ""), r.properties.get("ENCRYPTION", "SNOWFLAKE_FULL"))
        for r in found
    ]  # fmt: skip
    return table(columns, rows)


def repository_url(session: "Session", found: CatalogObject) -> str:
    """Return the URL without scheme; docker takes `localhost` without TLS."""
    path = f"{found.database}/{found.schema}/{found.name}".lower()
    return f"localhost:{session.account.address[1]}/{path}"


@statement("SHOW IMAGES")
def show_images(session: "Session", parsed: Statement) -> ResultSet:
    """List the tags of every image of a repository."""
    cursor = parsed.cursor
    like = cursor.string() if cursor.accept("LIKE") else None
    cursor.expect("IN IMAGE REPOSITORY")
    name = cursor.name()
    cursor.expect_end()
    found = session.lookup(KIND, name, "READ", "WRITE", label="Image repository")
    columns = [
        timestamp("created_on"), text("image_name"), text("tags"), text("digest"),
        text("image_path"),
    ]  # fmt: skip
    prefix = f"{found.database}/{found.schema}/{found.name}".lower()
    rows = [
        (dt.datetime.fromtimestamp(tag.created_at, dt.UTC), tag.image, tag.tag, tag.digest,
         f"{prefix}/{tag.image}:{tag.tag}")
        for tag in _store(session).images(repository_key(found))
        if like is None or matches_like(tag.image, like)
    ]  # fmt: skip
    return table(columns, rows)


@function("SYSTEM$REGISTRY_LIST_IMAGES", note="deprecated in Snowflake")
def registry_list_images(session: "Session", parsed: Statement, args: Arguments) -> str:
    """List the image names of a repository as JSON."""
    path = str(args.get(0, "PATH", "")).strip("/").upper().split("/")
    name = ObjectName(tuple(path))
    found = session.lookup(KIND, name, "READ", "WRITE", label="Image repository")
    names = sorted({tag.image for tag in _store(session).images(repository_key(found))})
    return json.dumps({"images": names})


def _store(session: "Session") -> ImageStore:
    return session.account.extensions["images"]
