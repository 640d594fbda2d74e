"""Documented settings that this engine refuses, or accepts without effect.

Refusals happen when the configuration or the parameters are made, so before any training.
"""

import logging
import re
from functools import cache
from typing import Any

from monad.config.values import number, one_of
from monad.errors import ConfigError, NotBuiltError, nearest, problem

logger = logging.getLogger("monad.run")

LOOK = "Every documented name and its state: docs/monad-api.md"
READ_DATABASES = ("parquet", "snowflake")
OTHER_DATABASES = ("bigquery", "databricks", "hive", "clickhouse", "synapse")
STRATEGIES = ("auto", "ddp", "fsdp")
_TABLE_DATABASES = ("snowflake", "databricks")


def not_built(failed: str, observed: str, do: str) -> NotBuiltError:
    """Return the error for a documented name that this engine does not build."""
    return NotBuiltError(problem(failed, observed, do, LOOK))


@cache
def warn_no_effect(name: str, instead: str = "") -> None:
    """Say once per process that *name* is accepted and has no effect."""
    text = f"{name} is accepted but has no effect in this engine"
    logger.warning("%s%s", text, f"; {instead}" if instead else "")


def check_strategy(strategy: Any) -> None:
    """Refuse the two-dimensional `fsdp:<replicas>:<shards>`, and names that are no strategy."""
    if isinstance(strategy, str) and not re.match(r"fsdp:|ddp_", strategy):
        one_of(strategy, STRATEGIES, "strategy")
    if strategy is not None and re.match(r"fsdp:", str(strategy)):
        raise not_built(
            f"strategy `{strategy}` is not built in this engine",
            "replicas times shards would need a two-dimensional device mesh",
            "Use null, ddp or fsdp",
        )


def check_remote_location(location: Any) -> None:
    """Refuse a remote location of predictions that is not a Snowflake table."""
    if location is None:
        return
    kind = str(getattr(location, "database_type", location))
    if kind not in _TABLE_DATABASES:
        raise ConfigError(
            problem(
                f"remote_save_location has database_type `{kind}`",
                "predictions are documented to go to Snowflake and Databricks tables",
                nearest(kind, _TABLE_DATABASES),
                LOOK,
            )
        )
    if kind == "snowflake":
        return
    raise not_built(
        f"remote_save_location to a {kind} table is not built in this engine",
        f"table {getattr(location, 'table_name', None)}",
        "Use a Snowflake table, or local_save_location and load the .tsv file yourself",
    )


def check_database(kind: Any, path: str) -> None:
    """Refuse connectors that are documented but not built; others are left to the reader."""
    if kind in OTHER_DATABASES:
        raise not_built(
            f"{path}.database_type `{kind}` is not built in this engine",
            f"it reads {' and '.join(READ_DATABASES)}",
            "Export the table to Parquet, or load it into Snowflake",
        )


def check_column_type(wanted: Any, path: str) -> None:
    """Refuse image columns."""
    if wanted == "image":
        raise not_built(
            f"{path} is `image`, which is not built in this engine",
            "no image encoder is part of it, and nothing is downloaded at run time",
            "Embed the images upstream, add the vectors as a column, and override it as `embedding`",
        )


def check_split(given: Any, path: str) -> None:
    """Refuse a split given in two ways, or by a percentage that leaves nobody to train on."""
    ways = [key for key in ("percentage", "query", "file") if given.get(key) is not None]
    if len(ways) > 1:
        raise ConfigError(
            problem(
                f"{path}: {' and '.join(ways)} are mutually exclusive",
                "entities are held out in one way",
                f"Keep one of {', '.join(ways)}",
            )
        )
    share = given.get("percentage")
    if share is not None and 0 < number(share, f"{path}.percentage") < 1:
        logger.warning("%s.percentage is %s percent; write 20 for a fifth", path, share)
    if share is not None and not 0 <= number(share, f"{path}.percentage") < 100:
        raise ConfigError(
            problem(f"{path}.percentage is {share!r}", do="Give a number from 0 to below 100")
        )
