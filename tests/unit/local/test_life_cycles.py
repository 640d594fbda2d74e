"""Life cycles of compute pools and job services, with a clock that tests move."""

import datetime as dt

import pytest

from monad_dagster.local.jobs import job_states
from monad_dagster.local.pools.pool_states import TRANSITIONS, PoolClock, PoolState, advance

START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def at(seconds):
    """Return a time some seconds after the start."""
    return START + dt.timedelta(seconds=seconds)


def run(pool, seconds, *, instances=0, auto_suspend=300):
    """Move the clock."""
    return advance(pool, at(seconds), num_instances=instances, auto_suspend_seconds=auto_suspend)


def test_resumed_pool_starts_idles_and_suspends_itself():
    """SUSPENDED, STARTING, IDLE and after AUTO_SUSPEND_SECS STOPPING and SUSPENDED."""
    pool = PoolClock(PoolState.SUSPENDED, START).after("resume", START)
    assert pool.state == "STARTING"
    assert run(pool, 1).state == "IDLE"
    assert run(pool, 300.9).state == "IDLE"
    assert run(pool, 301).state == "STOPPING"
    assert run(pool, 302).state == "SUSPENDED"


def test_pool_with_instances_is_active_and_does_not_suspend():
    """An ACTIVE pool idles only once it is empty, and counts idle time from then."""
    pool = run(PoolClock(PoolState.IDLE, START), 10, instances=1)
    assert pool.state == "ACTIVE"
    assert run(pool, 10_000, instances=1).state == "ACTIVE"
    assert run(pool, 10_000).state == "IDLE"
    assert run(run(pool, 10_000), 10_300).state == "STOPPING"


def test_suspending_pool_waits_for_running_instances():
    """SUSPEND lets running job services finish."""
    pool = PoolClock(PoolState.ACTIVE, START).after("suspend", START)
    assert run(pool, 1000, instances=1).state == "STOPPING"
    assert run(pool, 1001).state == "SUSPENDED"


def test_zero_auto_suspend_never_suspends():
    """AUTO_SUSPEND_SECS = 0 keeps the pool."""
    assert run(PoolClock(PoolState.IDLE, START), 10**8, auto_suspend=0).state == "IDLE"


def test_every_state_can_be_left_and_reached():
    """The table has no dead end."""
    assert {source for source, _ in TRANSITIONS} == set(PoolState)
    assert set(TRANSITIONS.values()) == set(PoolState)


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        (["READY", "FAILED"], "FAILED"),
        (["SUCCEEDED", "SUCCEEDED"], "DONE"),
        (["SUCCEEDED", "READY"], "RUNNING"),
        (["PENDING", "READY"], "RUNNING"),
        (["PENDING", "PENDING"], "PENDING"),
    ],
)
def test_service_status_follows_its_instances(instances, expected):
    """First match wins: failed, all succeeded, any running, otherwise pending."""
    assert job_states.service_status(instances) == expected


def test_cancellation_overrides_the_instances():
    """CANCELLING until everything ended, then CANCELLED, whatever the instances say."""
    assert job_states.service_status(["TERMINATING"], cancelling=True) == "CANCELLING"
    assert job_states.service_status(["FAILED", "PENDING"], cancelling=True) == "CANCELLED"


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        (["DONE", "DONE"], "SUCCEEDED"),
        (["DONE", "FAILED"], "FAILED"),
        (["DONE", "READY"], "READY"),
        (["PENDING"], "PENDING"),
    ],
)
def test_instance_status_follows_its_containers(containers, expected):
    """An instance succeeds when every container did."""
    assert job_states.instance_status(containers) == expected


@pytest.mark.parametrize(
    ("table", "terminal"),
    [
        (job_states.TRANSITIONS, job_states.TERMINAL),
        (job_states.INSTANCE_TRANSITIONS, job_states.ENDED_INSTANCES),
        (job_states.CONTAINER_TRANSITIONS, job_states.ENDED_CONTAINERS),
    ],
)
def test_terminal_statuses_never_change(table, terminal):
    """Nothing follows a terminal status, and from any other one of them can be reached."""
    assert {status for status, following in table.items() if not following} == terminal
    assert set().union(*table.values()) <= set(table)
    for start in table:
        seen, waiting = set(), [start]
        while waiting:
            status = waiting.pop()
            if status not in seen:
                seen.add(status)
                waiting += table[status]
        assert seen & terminal


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"exit_code": 0}, "Completed successfully"),
        ({"exit_code": 3}, "User application error, check container logs"),
        ({"exit_code": 137, "oom": True}, "Container was OOMKilled due to resource usage"),
        (
            {"exit_code": 127, "start_error": "x"},
            "Encountered fatal error while starting container: x",
        ),
    ],
)
def test_message_says_how_a_container_ended(facts, message):
    """The platform's vocabulary tells the failure classes apart."""
    defaults = {"oom": False, "start_error": "", "lost": False}
    assert job_states.exit_message(**{**defaults, **facts}) == message
