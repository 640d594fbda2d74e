"""Statements on compute pools; what they change is in compute_pools.py."""

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.catalog.dropping import drop_statement
from monad_dagster.local.faults.faults_jobs import CAPACITY_ERROR
from monad_dagster.local.pools.compute_pools import KIND, pools_of
from monad_dagster.local.pools.pool_states import PoolState
from monad_dagster.local.protocol.results import ResultSet, number, status, table, text, timestamp
from monad_dagster.local.specs.quantities import format_flag
from monad_dagster.local.sql.handlers import function, statement
from monad_dagster.local.sql.show_options import WORKLOAD_TYPES, parse_show
from monad_dagster.local.sql.statements import Arguments, Cursor, ObjectName, Statement, parse_name
from monad_dagster.spcs.instance_families import InstanceFamily

if TYPE_CHECKING:
    from monad_dagster.local.account import Account
    from monad_dagster.local.session import Session

CANNOT_SCALE = "392508"  # instances wait and the pool may have no more nodes
_PROPERTIES = (
    "MIN_NODES", "MAX_NODES", "INSTANCE_FAMILY", "AUTO_RESUME", "INITIALLY_SUSPENDED",
    "AUTO_SUSPEND_SECS", "COMMENT", "PLACEMENT_GROUP", "BACKUP_INSTANCE_FAMILIES",
)  # fmt: skip
_SETTABLE = tuple(name for name in _PROPERTIES if name not in ("INITIALLY_SUSPENDED",))
_UNSETTABLE = {"AUTO_SUSPEND_SECS": 3600, "AUTO_RESUME": True, "COMMENT": None}


@statement("CREATE COMPUTE POOL")
def create_compute_pool(session: "Session", parsed: Statement) -> ResultSet:
    """Create a compute pool."""
    cursor = parsed.cursor
    if_not_exists = cursor.accept("IF NOT EXISTS")
    name = cursor.name()
    if cursor.accept("FOR APPLICATION"):
        raise errors.unsupported("FOR APPLICATION")
    given = cursor.properties(*_PROPERTIES, kind=KIND)
    session.require_account("CREATE COMPUTE POOL")
    properties = _checked(session, {**given})
    for required in ("MIN_NODES", "MAX_NODES", "INSTANCE_FAMILY"):
        if required not in properties:
            raise errors.missing_property(required)
    properties.setdefault("AUTO_RESUME", True)
    properties.setdefault("AUTO_SUSPEND_SECS", 3600)
    suspended = bool(properties.pop("INITIALLY_SUSPENDED", False))
    now = session.now().timestamp()
    properties["STATE"] = "SUSPENDED" if suspended else "STARTING"
    properties["SINCE"] = now
    properties["NODES"] = 0
    if not suspended:
        properties["RESUMED_ON"] = now
    if if_not_exists and session.account.catalog.get(KIND, name.name) is not None:
        return status(f"{name.name} already exists, statement succeeded.")
    session.create_object(KIND, name, properties=properties)
    return status(f"Compute Pool {name.name} successfully created.")


def _checked(
    session: "Session", given: dict[str, Any], current: dict[str, Any] | None = None
) -> Any:
    """Return properties with checked values and types."""
    result = dict(given)
    families = pools_of(session.account).families
    if "INSTANCE_FAMILY" in given:
        result["INSTANCE_FAMILY"] = str(given["INSTANCE_FAMILY"]).upper()
        if result["INSTANCE_FAMILY"] not in families:
            raise errors.invalid_value(given["INSTANCE_FAMILY"], "INSTANCE_FAMILY")
    for key in ("MIN_NODES", "MAX_NODES", "AUTO_SUSPEND_SECS"):
        if key in given:
            result[key] = _whole(given[key], key, 0 if key == "AUTO_SUSPEND_SECS" else 1)
    for key in ("AUTO_RESUME", "INITIALLY_SUSPENDED"):
        if key in given:
            result[key] = _flag(given[key], key)
    for family in given.get("BACKUP_INSTANCE_FAMILIES") or []:
        if str(family).upper() not in families:
            raise errors.invalid_value(family, "BACKUP_INSTANCE_FAMILIES")
    merged = {**(current or {}), **result}
    if merged.get("MIN_NODES", 1) > merged.get("MAX_NODES", merged.get("MIN_NODES", 1)):
        raise errors.invalid_value(merged["MIN_NODES"], "MIN_NODES")
    return result


def _whole(value: Any, key: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise errors.invalid_value(value, key)
    return value


def _flag(value: Any, key: str) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).upper() not in ("TRUE", "FALSE"):
        raise errors.invalid_value(value, key)
    return str(value).upper() == "TRUE"


@statement("ALTER COMPUTE POOL")
def alter_compute_pool(session: "Session", parsed: Statement) -> ResultSet:
    """Suspend, resume, stop, SET or UNSET."""
    cursor = parsed.cursor
    if_exists = cursor.accept("IF EXISTS")
    name = cursor.name()
    done = status("Statement executed successfully.")
    if if_exists and session.find(KIND, name) is None:
        return done
    action = cursor.accept_any("SUSPEND", "RESUME", "STOP ALL", "SET", "UNSET")
    if action is None:
        raise cursor.error()
    if action in ("SET", "UNSET"):
        pool = session.lookup(KIND, name, "MODIFY")
        _alter_properties(session, parsed, pool, is_set=action == "SET")
        return done
    pool = session.lookup(KIND, name, "OPERATE")
    if action == "STOP ALL":
        types = _workload_types(cursor)
        if "JOB" in types:
            session.account.extensions["jobs"].stop_all(pool.name)
        return done
    cursor.expect_end()
    pools_of(session.account).send(pool.name, action.lower())
    return done


def _workload_types(cursor: Cursor) -> set[str]:
    """Read [OF TYPE type, ...]; all the account runs are job services."""
    if not cursor.accept("OF TYPE"):
        cursor.expect_end()
        return {"JOB"}
    types = {cursor.identifier().upper()}
    while cursor.accept_op(","):
        types.add(cursor.identifier().upper())
    cursor.expect_end()
    for name in types - WORKLOAD_TYPES:
        raise errors.invalid_value(name, "TYPE")
    return types | ({"JOB"} if "ALL" in types or "USER" in types else set())


def _alter_properties(
    session: "Session", parsed: Statement, pool: CatalogObject, *, is_set: bool
) -> None:
    cursor = parsed.cursor
    pools = pools_of(session.account)
    if not is_set:
        names = [cursor.identifier().upper()]
        while cursor.accept_op(","):
            names.append(cursor.identifier().upper())
        cursor.expect_end()
        for name in names:
            if name not in _UNSETTABLE:
                raise errors.invalid_property(name, KIND)
        changes = {name: _UNSETTABLE[name] for name in names}
    else:
        given = cursor.properties(*_SETTABLE, kind=KIND)
        changes = _checked(session, given, pool.properties)
        is_suspended = pools.refresh(pool.name).state is PoolState.SUSPENDED
        if "INSTANCE_FAMILY" in changes and not is_suspended:
            raise errors.invalid_value(changes["INSTANCE_FAMILY"], "INSTANCE_FAMILY")
    session.account.catalog.update(KIND, pool.name, **changes)
    if "MAX_NODES" in changes:
        session.account.extensions["jobs"].lose_nodes_above(pool.name, changes["MAX_NODES"])
    if {"MIN_NODES", "MAX_NODES"} & set(changes):
        pools.refresh(pool.name)


@drop_statement(KIND)
def drop_compute_pool(session: "Session", pool: CatalogObject) -> None:
    """Drop a pool that nothing runs on."""
    jobs = session.account.extensions["jobs"]
    if any(not job.is_terminal for job in jobs.on_pool(pool.name)):
        raise errors.cannot_operate(f"Compute pool {pool.name} still has job services.")
    session.account.drop_object(KIND, pool.name, database="", schema="")


_COLUMNS = [
    text("name"), text("state"), number("min_nodes"), number("max_nodes"),
    text("instance_family"), number("num_services"), number("num_jobs"),
    number("auto_suspend_secs"), text("auto_resume"), number("active_nodes"),
    number("idle_nodes"), number("target_nodes"), timestamp("created_on"),
    timestamp("resumed_on"), timestamp("updated_on"), text("owner"), text("comment"),
    text("is_exclusive"), text("application"),
]  # fmt: skip


@statement("SHOW COMPUTE POOLS")
def show_compute_pools(session: "Session", parsed: Statement) -> ResultSet:
    """List the pools the role may see."""
    options = parse_show(session, parsed.cursor, level="ACCOUNT")
    pools = options.select(session.visible(KIND), lambda found: found.name)
    columns = [*_COLUMNS, text("placement_group"), text("backup_instance_families")]
    rows = []
    for pool in pools:
        backup = pool.properties.get("BACKUP_INSTANCE_FAMILIES")
        tail = (pool.properties.get("PLACEMENT_GROUP"), json.dumps(backup) if backup else None)
        rows.append((*_row(session, pool), *tail))
    return table(columns, rows)


@statement("DESCRIBE COMPUTE POOL")
def describe_compute_pool(session: "Session", parsed: Statement) -> ResultSet:
    """Describe one pool, with its status message."""
    name = parsed.cursor.name()
    parsed.cursor.expect_end()
    pool = session.lookup(KIND, name, "MONITOR")
    columns = [
        *_COLUMNS, text("budget"), text("error_code"), text("status_message"),
        text("placement_group"),
    ]  # fmt: skip
    row = _row(session, pool)
    group = pool.properties.get("PLACEMENT_GROUP")
    code, message = status_of(session.account, pool)
    return table(columns, [(*row, None, code, message, group)])


def _row(session: "Session", pool: CatalogObject) -> tuple[Any, ...]:
    pools = pools_of(session.account)
    clock = pools.refresh(pool.name)
    found = pools.get(pool.name) or pool
    properties = found.properties
    jobs = session.account.extensions["jobs"].on_pool(pool.name)
    num_jobs = sum(not job.is_terminal for job in jobs)
    active, idle, target = pools.num_nodes(found, clock)
    return (
        pool.name, clock.state.value, properties["MIN_NODES"], properties["MAX_NODES"],
        properties["INSTANCE_FAMILY"], num_jobs, num_jobs, properties["AUTO_SUSPEND_SECS"],
        format_flag(properties["AUTO_RESUME"]), active, idle, target, found.created_on,
        _stamp(properties.get("RESUMED_ON")), found.updated_on, found.owner,
        properties.get("COMMENT"), "false", None,
    )  # fmt: skip


def _stamp(seconds: float | None) -> dt.datetime | None:
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)


_NO_CAPACITY = " We have observed CAPACITY_ERROR."
_FULL = (
    "Compute pool has reached the maximum node limit. Consider increasing max_nodes using the "
    "ALTER COMPUTE POOL command."
)


def status_of(account: "Account", pool: CatalogObject) -> tuple[str, str]:
    """Return error_code and status_message of DESCRIBE COMPUTE POOL."""
    pools = pools_of(account)
    clock = pools.refresh(pool.name)
    pool = pools.get(pool.name) or pool
    if clock.state in (PoolState.STARTING, PoolState.RESIZING):
        minutes = int((account.clock() - clock.since).total_seconds() // 60)
        unit = "minute" if minutes == 1 else "minutes"
        verb = clock.state.value.lower()
        message = f"Compute pool is {verb} for last {minutes} {unit}"
        if pools.lacks_capacity(pool, clock):
            return CAPACITY_ERROR, f"{message}.{_NO_CAPACITY}"
        return "", message
    if pools.num_without_room(pool, clock):
        return CANNOT_SCALE, _FULL
    words = {PoolState.SUSPENDED: "suspended", PoolState.STOPPING: "stopping"}
    return "", f"Compute pool is {words[clock.state]}" if clock.state in words else ""


_FAMILY_COLUMNS = [
    number("vcpu"), number("memory_gib"), number("storage_gib"), text("gpu"),
    number("gpu_count"), number("gpu_memory_gib"),
]  # fmt: skip


def _family_row(family: InstanceFamily) -> tuple[Any, ...]:
    has_gpu = family.gpu is not None
    return (
        family.vcpu, family.memory_gib, family.storage_gib, family.gpu,
        family.gpu_count if has_gpu else None, family.gpu_memory_gib if has_gpu else None,
    )  # fmt: skip


@statement("SHOW COMPUTE POOL INSTANCE FAMILIES")
def show_instance_families(session: "Session", parsed: Statement) -> ResultSet:
    """List the instance families of the account's cloud."""
    options = parse_show(session, parsed.cursor, level="ACCOUNT")
    pools = pools_of(session.account)
    usage: dict[str, int] = {}
    for pool in session.account.catalog.list_objects(KIND):
        active, idle, _ = pools.num_nodes(pool, pools.refresh(pool.name))
        family = pool.properties["INSTANCE_FAMILY"]
        usage[family] = usage.get(family, 0) + active + idle
    columns = [
        text("name"), text("description"), *_FAMILY_COLUMNS, number("current_node_usage"),
        text("message"),
    ]  # fmt: skip
    rows = [
        (family.name, _description(family), *_family_row(family), usage.get(family.name, 0), "")
        for family in options.select(sorted(pools.families.values(), key=_by_name), _by_name)
    ]
    return table(columns, rows)


def _by_name(family: InstanceFamily) -> str:
    return family.name


def _description(family: InstanceFamily) -> str:
    gpus = f", {family.gpu_count} x {family.gpu}" if family.gpu else ""
    return f"{family.vcpu} vCPU, {family.memory_gib} GiB memory{gpus}"


@statement("SHOW NODES IN COMPUTE POOL")
def show_nodes(session: "Session", parsed: Statement) -> ResultSet:
    """List the nodes a pool holds now."""
    name = parsed.cursor.name()
    parsed.cursor.expect_end()
    pool = session.lookup(KIND, name, "MONITOR")
    pools = pools_of(session.account)
    clock = pools.refresh(pool.name)
    active, idle, _ = pools.num_nodes(pool, clock)
    columns = [
        text("node_id"), text("instance_family"), timestamp("created_on"),
        text("placement_group"), *_FAMILY_COLUMNS,
    ]  # fmt: skip
    family = pools.family(pool)
    since = _stamp((pools.get(pool.name) or pool).properties.get("RESUMED_ON"))
    rows = [
        (node_id(pool, number_), family.name, since, pool.properties.get("PLACEMENT_GROUP"),
         *_family_row(family))
        for number_ in range(active + idle)
    ]  # fmt: skip
    return table(columns, rows)


def node_id(pool: CatalogObject, node: int) -> str:
    """Return a node's id."""
    return f"node-{pool.id}-{node}"


@function("SYSTEM$GET_COMPUTE_POOL_STATUS")
def get_compute_pool_status(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Return a pool's state and message as JSON."""
    pool = session.lookup(KIND, _name(args), "MONITOR")
    clock = pools_of(session.account).refresh(pool.name)
    _, message = status_of(session.account, pool)
    return json.dumps({"state": clock.state.value, "message": message})


@function("SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE")
def get_pending_maintenance(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Return the announced maintenance: the local account has none."""
    return "[]"


@function("SYSTEM$GET_INSTANCE_FAMILY_PLACEMENT_GROUPS")
def get_placement_groups(session: "Session", parsed: Statement, args: Arguments) -> str:
    """Return the placement groups of a family: the local account has one."""
    return '["DEFAULT"]'


def _name(args: Arguments) -> ObjectName:
    value = args.get(0, "NAME")
    if not isinstance(value, str):
        raise errors.syntax_error(str(value))
    return parse_name(value)
