"""Column profiling and type inference.

Looks at the training range only. Decides for each column: number or category, and whether the
network may read it. Identifiers (each value belongs to one entity) and columns that repeat
another one (bijections) are kept for target functions but not modelled.
"""

import dataclasses
import logging
import re

import duckdb

from monad.config.schema import EVENT, DataSource
from monad.data.landing import BOOLEAN, INTEGER, REAL, TEXT, Landed, quoted
from monad.data.store import CATEGORY, NUMBER

logger = logging.getLogger("monad.fit")

LOW_CARDINALITY = 32
DENSE = ("text", "embedding")
_IDENTIFIER = re.compile(
    r"id$|code$|_no$|number$|sku|key$|_nr$|postal|(^|_)(item|product|article|movie|track|asin|ean)$",
    re.IGNORECASE,
)
_AMOUNT = re.compile(
    r"amount|price|quantity|qty|count|value|total|sum|cost|spend|sales|revenue|age$|year|month|week|day"
    r"|hour|minute|second|duration|time|rating|stars|score|size|weight|length|distance|balance|points",
    re.IGNORECASE,
)
_FEWEST_NAMES = 100
_DENSE_NAMES = 0.5  # distinct values of a range, above which numbers count things through


@dataclasses.dataclass
class ColumnPlan:
    """What to do with one column."""

    name: str
    sql_type: str
    kind: str
    override: str
    modelled: bool = True
    reason: str = ""
    distinct: int = 0


def plan_columns(
    connection: duckdb.DuckDBPyConnection, landed: Landed, end: int | None
) -> list[ColumnPlan]:
    """Profile a landed source; *end* bounds the training range of an event source."""
    source = landed.source
    where = f" WHERE __time <= {end}" if end is not None and source.type == EVENT else ""
    if not landed.columns:
        return []
    parts = [
        f"approx_count_distinct({quoted(name)}), count({quoted(name)})" for name in landed.columns
    ]
    row = connection.execute(f"SELECT count(*), {', '.join(parts)} FROM {landed.table}{where}")
    numbers = row.fetchall()[0]
    overrides = {k.lower(): v for k, v in source.column_type_overrides.items()}
    plans = []
    for i, (name, sql_type) in enumerate(landed.columns.items()):
        distinct, filled = numbers[1 + 2 * i], numbers[2 + 2 * i]
        plans.append(_plan(source, name, sql_type, distinct, filled, overrides.get(name.lower())))
    if source.type == EVENT:
        _find_names(connection, landed, plans, where, overrides)
        _leave_out_identifiers(connection, landed, plans, where)
        _leave_out_bijections(connection, landed, plans, where)
    for plan in plans:
        if not plan.modelled:
            logger.info(
                "Column %s.%s is not a model input: %s", source.name, plan.name, plan.reason
            )
    return plans


def _plan(
    source: DataSource, name: str, sql_type: str, distinct: int, filled: int, wanted: str | None
) -> ColumnPlan:
    if wanted == "time_series":
        logger.warning("Column %s.%s: time_series is modelled as decimal", source.name, name)
        wanted = "decimal"
    if wanted is None:
        wanted = _infer(name, sql_type, distinct)
    kind = NUMBER if wanted == "decimal" else CATEGORY
    if kind == NUMBER and sql_type in (TEXT, BOOLEAN):
        wanted, kind = "categorical_compressed", CATEGORY
        logger.warning("Column %s.%s holds text and cannot be decimal", source.name, name)
    plan = ColumnPlan(name, sql_type, kind, wanted, distinct=distinct)
    if filled == 0:
        plan.modelled, plan.reason = False, "no value in the training range"
    elif distinct <= 1:
        plan.modelled, plan.reason = False, "one value only"
    return plan


def _infer(name: str, sql_type: str, distinct: int) -> str:
    if sql_type == REAL:
        return "decimal"
    if distinct <= LOW_CARDINALITY and not (sql_type == INTEGER and distinct > 12):
        return "categorical"
    if sql_type == INTEGER and not _IDENTIFIER.search(name):
        return "decimal"
    return "categorical_compressed"


def _is_vocabulary(plan: ColumnPlan) -> bool:
    """Tell whether a plan is of a modelled category; text and embeddings are none."""
    return plan.modelled and plan.kind == CATEGORY and plan.override not in DENSE


def _find_names(
    connection: duckdb.DuckDBPyConnection,
    landed: Landed,
    plans: list[ColumnPlan],
    where: str,
    overrides: dict[str, str],
) -> None:
    """Read whole numbers as names of things in a source that has no other column of many values."""
    if any(_is_vocabulary(p) and p.distinct > LOW_CARDINALITY for p in plans):
        return
    able = [
        p
        for p in plans
        if p.modelled
        and p.kind == NUMBER
        and p.sql_type == INTEGER
        and p.distinct >= _FEWEST_NAMES
        and p.name.lower() not in overrides
        and not _AMOUNT.search(p.name)
    ]
    if not able:
        return
    plan = max(able, key=lambda p: p.distinct)
    name = quoted(plan.name)
    sql = f"SELECT count(DISTINCT {name}) / (max({name})::DOUBLE - min({name}) + 1)"
    if connection.execute(f"{sql} FROM {landed.table}{where}").fetchall()[0][0] >= _DENSE_NAMES:
        plan.kind, plan.override = CATEGORY, "categorical_compressed"
        said = "read as names of things: no other column has many values"
    else:
        said = "read as an amount; for names of things override its type: categorical_compressed"
    logger.info("Column %s.%s, whole numbers, is %s", landed.source.name, plan.name, said)


def _leave_out_identifiers(
    connection: duckdb.DuckDBPyConnection, landed: Landed, plans: list[ColumnPlan], where: str
) -> None:
    """Mark columns whose every value belongs to one entity, such as order numbers."""
    asked = [p for p in plans if _is_vocabulary(p) and p.distinct > 1000]
    if not asked:
        return
    parts = ", ".join(
        f"count(DISTINCT {quoted(p.name)}), count(DISTINCT hash(__entity, {quoted(p.name)}))"
        for p in asked
    )
    row = connection.execute(f"SELECT {parts} FROM {landed.table}{where}").fetchall()[0]
    for i, plan in enumerate(asked):
        plan.distinct = row[2 * i]
        if row[2 * i + 1] <= 1.02 * row[2 * i]:
            plan.modelled, plan.reason = False, "each value belongs to one main entity"


def _leave_out_bijections(
    connection: duckdb.DuckDBPyConnection, landed: Landed, plans: list[ColumnPlan], where: str
) -> None:
    """Mark columns that say the same as another one, such as an id and its name."""
    asked = [p for p in plans if _is_vocabulary(p) and p.distinct > LOW_CARDINALITY]
    asked.sort(key=lambda p: (not _IDENTIFIER.search(p.name), -p.distinct))
    for i, first in enumerate(asked):
        for second in asked[i + 1 :]:
            larger, smaller = sorted((first.distinct, second.distinct), reverse=True)
            if not (first.modelled and second.modelled) or smaller < 0.8 * larger:
                continue
            sql = f"SELECT count(DISTINCT hash({quoted(first.name)}, {quoted(second.name)}))"
            row = connection.execute(f"{sql} FROM {landed.table}{where}").fetchall()[0]
            if row[0] <= 1.15 * larger:
                second.modelled, second.reason = False, f"it repeats {first.name}"
