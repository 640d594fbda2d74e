"""`cache_path` of a Parquet source: what was read, kept in a DuckDB file and used again.

The file's name holds a digest of the files' sizes and times and of everything in the source's
configuration, so that a change of either reads anew. A damaged or foreign file is read anew, too.
"""

import contextlib
import glob
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import duckdb

from monad.config import environment
from monad.config.schema import DataSource

logger = logging.getLogger("monad.fit")
_LAYOUT = 2  # of what is kept; another one is not read


def cache_file(source: DataSource, pattern: str, needed: list[str], bounds: str) -> Path | None:
    """Return the cache's file for a source as it is now, or None without `cache_path`."""
    given = source.data_location.connection_params.get("cache_path")
    if not given:
        return None
    files = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - an absolute pattern
    if not files:
        logger.warning(
            "Data source %s: cache_path has no effect on files that are not local", source.name
        )
        return None
    facts = [(name, os.stat(name).st_size, os.stat(name).st_mtime_ns) for name in files]  # noqa: PTH116
    key = hashlib.sha256(
        json.dumps([_LAYOUT, repr(source), needed, bounds, facts]).encode()
    ).hexdigest()
    root = Path(environment.substitute(str(given), f"{source.name}.connection_params.cache_path"))
    safe = "".join(c if c.isalnum() else "_" for c in source.name)
    return root / f"{safe}-{key[:24]}.duckdb"


def restore(
    connection: duckdb.DuckDBPyConnection, file: Path | None, table: str
) -> dict[str, Any] | None:
    """Copy a cached source into *table*; returns what was kept beside it, or None."""
    if file is None or not file.is_file():
        return None
    try:
        connection.execute(f"ATTACH '{_escaped(file)}' AS cached (READ_ONLY)").fetchall()
    except duckdb.Error as error:
        logger.warning("The cache %s cannot be read, so it is made anew: %s", file, error)
        file.unlink(missing_ok=True)
        return None
    try:
        row = connection.execute("SELECT content FROM cached.facts").fetchall()[0]
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM cached.source").fetchall()
    finally:
        connection.execute("DETACH cached").fetchall()
    logger.info("Read %s from the cache %s", table, file)
    return json.loads(row[0])


def save(
    connection: duckdb.DuckDBPyConnection, file: Path | None, table: str, content: dict[str, Any]
) -> None:
    """Keep *table*; a cache that cannot be written is said and does no harm."""
    if file is None:
        return
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        connection.execute(f"ATTACH '{_escaped(part)}' AS cached").fetchall()
        try:
            connection.execute(f"CREATE TABLE cached.source AS SELECT * FROM {table}").fetchall()
            connection.execute("CREATE TABLE cached.facts (content VARCHAR)").fetchall()
            connection.execute("INSERT INTO cached.facts VALUES (?)", [json.dumps(content)])
        finally:
            connection.execute("DETACH cached").fetchall()
        part.replace(file)
    except (duckdb.Error, OSError) as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        logger.warning("The cache %s cannot be written: %s", file, error)


def _escaped(path: Path) -> str:
    return str(path).replace("'", "''")
