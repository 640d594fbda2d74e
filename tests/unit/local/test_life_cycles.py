"""Life cycles of compute pools and job services, with a clock that tests move."""

import datetime as dt

import pytest

from monad_dagster.local.jobs import job_states
from monad_dagster.local.pools.pool_states import (
    TRANSITIONS,
    Load,
    PoolClock,
    PoolRules,
    PoolState,
    Timings,
    advance,
)

START = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def at(seconds):
    """Return a time some seconds after the start."""
    return START + dt.timedelta(seconds=seconds)


TIMINGS = Timings(start=1, resize=2, stop=1, shrink=60)


def run(pool, seconds, *, instances=0, held=0, wanted=0, nodes=(1, 1), auto_suspend=300, **more):
    """Move the clock; `nodes` are MIN_NODES and MAX_NODES."""
    rules = PoolRules(*nodes, auto_suspend, TIMINGS)
    load = Load(instances, held or min(instances, 1), max(wanted, held))
    return advance(pool, at(seconds), rules, load, **more)


def idle(nodes=1):
    """Return a pool of so many idle nodes."""
    return PoolClock(PoolState.IDLE, START, nodes)


def test_resumed_pool_starts_idles_and_suspends_itself():
    """SUSPENDED, STARTING, IDLE and after AUTO_SUSPEND_SECS STOPPING and SUSPENDED."""
    pool = PoolClock(PoolState.SUSPENDED, START).after("resume", START)
    assert (pool.state, run(pool, 0.9).state) == ("STARTING", "STARTING")
    pool = run(pool, 1)
    assert (pool.state, pool.nodes) == ("IDLE", 1)
    assert run(pool, 300.9).state == "IDLE"
    assert run(pool, 301).state == "STOPPING"
    assert (run(pool, 302).state, run(pool, 302).nodes) == ("SUSPENDED", 0)


def test_pool_of_several_nodes_is_resizing_from_its_first_node_on():
    """STARTING until there is one node, RESIZING until there are MIN_NODES."""
    pool = PoolClock(PoolState.STARTING, START)
    first = run(pool, 1, nodes=(3, 5))
    assert (first.state, first.nodes) == ("RESIZING", 1)
    assert run(first, 2.9, nodes=(3, 5)).state == "RESIZING"
    last = run(first, 3, nodes=(3, 5))
    assert (last.state, last.nodes) == ("IDLE", 3)


def test_pool_grows_for_waiting_instances_up_to_max_nodes():
    """RESIZING while nodes are added, ACTIVE after, never more nodes than MAX_NODES."""
    pool = run(idle(), 10, instances=1, wanted=2, nodes=(1, 3))
    assert (pool.state, pool.nodes) == ("RESIZING", 1)
    assert run(pool, 11.9, instances=1, wanted=2, nodes=(1, 3)).state == "RESIZING"
    pool = run(pool, 12, instances=1, wanted=9, nodes=(1, 3))
    assert (pool.state, pool.nodes) == ("ACTIVE", 3)
    assert run(pool, 1000, instances=3, held=3, wanted=9, nodes=(1, 3)) == pool


def test_nodes_that_idle_are_given_back_down_to_min_nodes():
    """Held nodes and MIN_NODES stay; the rest goes once it was not needed for long enough."""
    pool = run(idle(4), 10, instances=1, held=2, nodes=(1, 4))
    assert run(pool, 69, instances=1, held=2, nodes=(1, 4)).nodes == 4
    pool = run(pool, 70, instances=1, held=2, nodes=(1, 4))
    assert (pool.state, pool.nodes) == ("ACTIVE", 2)
    pool = run(pool, 80, nodes=(1, 4))
    assert run(pool, 140, nodes=(1, 4)).nodes == 1


def test_needed_again_a_node_stays():
    """Use of a surplus node starts the idle time anew."""
    pool = run(idle(2), 10, instances=1, nodes=(1, 2))
    pool = run(pool, 60, instances=2, held=2, nodes=(1, 2))
    pool = run(pool, 61, instances=1, nodes=(1, 2))
    assert run(pool, 100, instances=1, nodes=(1, 2)).nodes == 2
    assert run(pool, 121, instances=1, nodes=(1, 2)).nodes == 1


def test_raised_min_nodes_and_lowered_max_nodes_take_effect():
    """A raised MIN_NODES is RESIZING; nodes beyond a lowered MAX_NODES go at once."""
    pool = run(idle(), 10, nodes=(2, 2))
    assert pool.state == "RESIZING"
    pool = run(pool, 12, nodes=(2, 2))
    assert (pool.state, pool.nodes) == ("IDLE", 2)
    assert run(pool, 13, nodes=(1, 1)).nodes == 1


@pytest.mark.parametrize(
    ("pool", "nodes"),
    [(PoolClock(PoolState.STARTING, START), 0), (PoolClock(PoolState.RESIZING, START, 1), 1)],
)
def test_without_capacity_a_pool_waits(pool, nodes):
    """STARTING and RESIZING last until the cloud has nodes; a growing pool keeps those it has."""
    waiting = run(pool, 500, nodes=(2, 2), has_capacity=False)
    assert (waiting.state, waiting.nodes) == (pool.state, nodes)
    pool = run(run(waiting, 501, nodes=(2, 2)), 503, nodes=(2, 2))
    assert (pool.state, pool.nodes) == ("IDLE", 2)


def test_pool_that_something_waits_for_does_not_suspend():
    """A pool whose nodes came late is still there for what has waited for them."""
    assert run(idle(), 10_000, wanted=1).state == "IDLE"


def test_pool_with_instances_is_active_and_does_not_suspend():
    """An ACTIVE pool idles only once it is empty, and counts idle time from then."""
    pool = run(idle(), 10, instances=1)
    assert pool.state == "ACTIVE"
    assert run(pool, 10_000, instances=1).state == "ACTIVE"
    assert run(pool, 10_000).state == "IDLE"
    assert run(run(pool, 10_000), 10_300).state == "STOPPING"


def test_suspending_pool_waits_for_running_instances():
    """SUSPEND lets running job services finish."""
    pool = PoolClock(PoolState.ACTIVE, START, 1).after("suspend", START)
    assert run(pool, 1000, instances=1).state == "STOPPING"
    assert run(pool, 1001).state == "SUSPENDED"


def test_zero_auto_suspend_never_suspends():
    """AUTO_SUSPEND_SECS = 0 keeps the pool."""
    assert run(idle(), 10**8, auto_suspend=0).state == "IDLE"


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
