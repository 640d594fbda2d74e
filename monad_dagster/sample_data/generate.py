"""Writes the sample as Parquet, block by block; the whole table is never in memory.

Layout: ARTICLES.parquet, CUSTOMERS.parquet, TRANSACTIONS/part-00000.parquet and so on, and
`_sample.json`, written last. A folder whose `_sample.json` names the same parameters and
whose files are whole is left as it is; anything less is written anew.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from monad_dagster.errors import ConfigError, MonadDagsterError, problem
from monad_dagster.sample_data.plan import (
    FORMAT,
    SamplePlan,
    World,
    build_block,
    build_world,
    make_plan,
)

DEFAULT_SEED = 20_180_920
DEFAULT_START, DEFAULT_END = date(2018, 9, 20), date(2020, 9, 22)
MANIFEST_NAME = "_sample.json"
TABLE_NAMES = ("ARTICLES", "CUSTOMERS", "TRANSACTIONS")
_ROW_GROUP_ROWS = 131_072
# Measured at 500,000 rows: 8 bytes a transaction, 100 a customer, 37 an article; rounded up.
_BYTES_PER_TRANSACTION, _BYTES_PER_CUSTOMER, _BYTES_PER_ARTICLE = 20, 130, 120

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SampleSummary:
    """What a folder of sample data holds.

    Attributes:
        output_dir: The folder.
        row_counts: Rows by table name.
        files: Files by table name, in order.
        num_bytes: Size of all files.
        reused: The folder already held this sample and nothing was written.
    """

    output_dir: Path
    row_counts: dict[str, int]
    files: dict[str, list[Path]]
    num_bytes: int
    reused: bool


def generate_sample(
    output_dir: Path,
    *,
    num_customers: int = 20_000,
    num_transactions: int = 500_000,
    num_articles: int | None = None,
    seed: int = DEFAULT_SEED,
    start: date = DEFAULT_START,
    end: date = DEFAULT_END,
    progress: Progress | None = None,
) -> SampleSummary:
    """Write H&M-shaped sample tables into *output_dir*.

    The same parameters give the same bytes (with the same numpy and pyarrow). Each file of
    TRANSACTIONS holds one block of customers, sorted by day.

    Args:
        output_dir: Folder to write; created if missing.
        num_customers: Rows of CUSTOMERS.
        num_transactions: Rows of TRANSACTIONS.
        num_articles: Rows of ARTICLES; by default scaled with the customers.
        seed: Another seed gives another sample of the same kind.
        start: First day.
        end: Last day, included.
        progress: Called with the rows written so far and the rows to write in all.

    Returns:
        Row counts and files of the sample.

    Raises:
        ConfigError: A parameter is out of range, or the folder cannot be used.
        MonadDagsterError: Writing failed, for example on a full disk.
    """
    plan = make_plan(
        num_customers=num_customers,
        num_transactions=num_transactions,
        num_articles=num_articles,
        seed=seed,
        start=start,
        end=end,
    )
    total = plan.num_transactions
    report = progress or (lambda _done, _total: None)
    if (found := _read_manifest(output_dir, plan)) is not None:
        report(total, total)
        return found
    try:
        _prepare(output_dir, plan)
        files = _write_tables(output_dir, build_world(plan), report)
        _write_manifest(output_dir, plan, files)
    except OSError as error:
        raise _write_failed(output_dir, error) from error
    return _summary(output_dir, plan, files, reused=False)


def _prepare(output_dir: Path, plan: SamplePlan) -> None:
    """Create the folder, remove what an earlier call left, and check the free space."""
    if output_dir.exists() and not output_dir.is_dir():
        raise ConfigError(
            problem(
                f"Sample data cannot be written to {output_dir}.",
                "It is a file.",
                "Name a folder.",
            )
        )
    (output_dir / "TRANSACTIONS").mkdir(parents=True, exist_ok=True)
    # The manifest goes first: without it the rest counts as partial.
    stale = [output_dir / MANIFEST_NAME, output_dir / "ARTICLES.parquet"]
    stale += [output_dir / "CUSTOMERS.parquet"]
    for path in [*stale, *(output_dir / "TRANSACTIONS").glob("part-*.parquet")]:
        path.unlink(missing_ok=True)
    needed = plan.num_transactions * _BYTES_PER_TRANSACTION
    needed += plan.num_customers * _BYTES_PER_CUSTOMER + plan.num_articles * _BYTES_PER_ARTICLE
    free = shutil.disk_usage(output_dir).free
    if free < needed:
        raise MonadDagsterError(
            problem(
                f"Sample data does not fit into {output_dir}.",
                f"It needs about {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free.",
                "Free some space, name another folder, or lower num_transactions.",
                f"`df -h {output_dir}` shows the file system.",
            )
        )


def _write_tables(output_dir: Path, world: World, report: Progress) -> dict[str, list[Path]]:
    """Write articles, then block by block customers and transactions."""
    plan = world.plan
    articles, customers = output_dir / "ARTICLES.parquet", output_dir / "CUSTOMERS.parquet"
    _write_parquet(world.articles(), articles)
    parts: list[Path] = []
    writer: pq.ParquetWriter | None = None
    written = 0
    report(0, plan.num_transactions)
    try:
        for number in range(plan.num_blocks):
            block = build_block(world, number)
            if writer is None:
                writer = pq.ParquetWriter(customers, block.customers.schema)
            writer.write_table(block.customers)
            parts.append(output_dir / "TRANSACTIONS" / f"part-{number:05d}.parquet")
            _write_parquet(block.transactions, parts[-1])
            written += block.transactions.num_rows
            report(written, plan.num_transactions)
    finally:
        if writer is not None:
            writer.close()
    return {"ARTICLES": [articles], "CUSTOMERS": [customers], "TRANSACTIONS": parts}


def _write_parquet(table: pa.Table, path: Path) -> None:
    """Write one file; Snappy, because every reader of Parquet knows it."""
    pq.write_table(table, path, compression="snappy", row_group_size=_ROW_GROUP_ROWS)


def _write_manifest(output_dir: Path, plan: SamplePlan, files: dict[str, list[Path]]) -> None:
    """Record parameters and file sizes, under the final name only when complete."""
    manifest = {
        "format": FORMAT,
        "parameters": plan.to_json(),
        "files": {
            table: [
                {"path": path.relative_to(output_dir).as_posix(), "size": path.stat().st_size}
                for path in paths
            ]
            for table, paths in files.items()
        },
    }
    draft = output_dir / f"{MANIFEST_NAME}.tmp"
    draft.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    draft.replace(output_dir / MANIFEST_NAME)


def _read_manifest(output_dir: Path, plan: SamplePlan) -> SampleSummary | None:
    """Return the summary when the folder holds exactly this sample, whole."""
    try:
        manifest: dict[str, Any] = json.loads((output_dir / MANIFEST_NAME).read_text("utf-8"))
        if manifest["format"] != FORMAT or manifest["parameters"] != plan.to_json():
            return None
        files: dict[str, list[Path]] = {}
        for table in TABLE_NAMES:
            entries = manifest["files"][table]
            files[table] = [output_dir / entry["path"] for entry in entries]
            if any((output_dir / e["path"]).stat().st_size != e["size"] for e in entries):
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _summary(output_dir, plan, files, reused=True)


def _summary(
    output_dir: Path, plan: SamplePlan, files: dict[str, list[Path]], *, reused: bool
) -> SampleSummary:
    """Describe a complete folder."""
    counts = {
        "ARTICLES": plan.num_articles,
        "CUSTOMERS": plan.num_customers,
        "TRANSACTIONS": plan.num_transactions,
    }
    num_bytes = sum(path.stat().st_size for paths in files.values() for path in paths)
    return SampleSummary(output_dir, counts, files, num_bytes, reused)


def _write_failed(output_dir: Path, error: OSError) -> MonadDagsterError:
    """Word a failure of the file system."""
    return MonadDagsterError(
        problem(
            f"Sample data could not be written to {output_dir}.",
            f"The file system answered: {error.strerror or error}.",
            "Free some space or name another folder, then run the command again; "
            "a partial sample is written anew.",
            f"`df -h {output_dir}` shows the file system.",
        )
    )
