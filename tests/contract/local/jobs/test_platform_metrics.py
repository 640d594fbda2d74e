"""Metrics of real containers, read as clients read them."""

import json

BUSY = (
    "import time; keep = b'x' * 40_000_000; end = time.monotonic() + 1.5\n"
    "while time.monotonic() < end: pass\n"
)


def start(account, groups, code=BUSY):
    """Run a job service whose specification asks for metric groups; return its name."""
    spec = json.loads(account.spec(code))
    spec["spec"]["platformMonitor"] = {"metricConfig": {"groups": groups}}
    name = f"METRICS{next(account.names)}"
    account.connect().cursor().execute(
        f"execute job service in compute pool cpu_pool name = {name} async = true"
        " from specification %s",
        (json.dumps(spec),),
    )
    account.wait(name)
    return name


def test_processor_and_memory_of_a_container_are_measured(account):
    """A busy container shows what it used, in the function and in the event table."""
    name = start(account, ["system"])
    rows = account.rows(f"select * from table({name}!spcs_get_metrics()) order by timestamp")
    assert list(rows[0]) == [
        "TIMESTAMP", "METRIC_NAME", "VALUE", "UNIT", "INSTANCE_ID", "CONTAINER_NAME", "RESOURCE",
        "RECORD", "RECORD_ATTRIBUTES",
    ]  # fmt: skip
    used = [float(row["VALUE"]) for row in rows if row["METRIC_NAME"] == "container.cpu.usage"]
    memory = [float(row["VALUE"]) for row in rows if row["METRIC_NAME"] == "container.memory.usage"]
    assert {row["RESOURCE"] for row in rows} == {None}
    assert max(used) > 0.1
    assert max(memory) > 40_000_000
    table = account.rows(
        "select value, record, scope from snowflake.telemetry.events where record_type = 'METRIC'"
        f" and resource_attributes:\"snow.service.name\" = '{name}'",
        "ADMIN",
    )
    assert len(table) == len(rows)
    assert json.loads(table[0]["SCOPE"]) == {"name": "snow.spcs.platform"}
    names = {json.loads(row["RECORD"])["metric"]["name"] for row in table}
    assert names == {"container.cpu.usage", "container.memory.usage"}


def test_state_of_a_failed_container_is_measured(account):
    """A container that ended is `finished`, and no longer `running`, when `status` was asked for."""
    spec = json.loads(account.spec("import sys; sys.exit(7)"))
    spec["spec"]["platformMonitor"] = {"metricConfig": {"groups": ["status"]}}
    account.connect().cursor().execute(
        "execute job service in compute pool cpu_pool name = metrics_failed async = true"
        " from specification %s",
        (json.dumps(spec),),
    )
    account.wait("metrics_failed", "FAILED")
    rows = account.rows("select * from table(metrics_failed!spcs_get_metrics()) order by timestamp")
    states = [row["METRIC_NAME"] for row in rows if ".state." in row["METRIC_NAME"]]
    assert states.count("container.state.finished") == 1
    assert "container.state.running" not in states[states.index("container.state.finished") :]
