"""The parts of the client that decide without asking anyone: names, tails, failure classes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monad_dagster.pipes.failures import (
    RULES,
    Failure,
    FailureClass,
    classify,
    pending_failure,
    queue_failure,
)
from monad_dagster.pipes.interrupts import OnInterrupt, wants_cancel
from monad_dagster.pipes.log_tail import GAP, ContainerTail
from monad_dagster.pipes.naming import attempt_name, job_service_name
from monad_dagster.pipes.observations import observation_metadata
from monad_dagster.pipes.pacing import Backoff, RateLimit
from monad_dagster.spcs.compute_pool import ComputePool
from monad_dagster.spcs.identifiers import QualifiedName, check_job_service_name
from monad_dagster.spcs.job_service_state import ContainerState, JobServiceStatus


@given(
    asset=st.text(max_size=80),
    partition=st.one_of(st.none(), st.text(max_size=80)),
    attempt=st.integers(1, 99),
    prefix=st.sampled_from(["", "dev", "9x"]),
)
def test_any_asset_and_partition_give_a_valid_name(asset, partition, attempt, prefix):
    """Whatever the keys hold, the name is one a job service may bear."""
    name = job_service_name(
        asset=asset, partition=partition, run_family="r", attempt=attempt, prefix=prefix
    )
    check_job_service_name(QualifiedName("D", "S", name))
    assert re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
    assert attempt_name(name) == name.lower()


def test_a_name_depends_on_everything_that_identifies_the_attempt():
    """Asset, partition, run family and attempt each change the name; nothing else does."""
    base = {"asset": "a", "partition": "p", "run_family": "r", "attempt": 1}
    names = {job_service_name(**base)}
    for change in ({"asset": "b"}, {"partition": "q"}, {"run_family": "s"}, {"attempt": 2}):
        names.add(job_service_name(**{**base, **change}))
    assert len(names) == 5
    assert job_service_name(**base) in names


def stamped(*numbers):
    """Build log lines with timestamps, two lines a second."""
    return "\n".join(f"2026-11-23T10:00:{n // 2:02d}.000000Z line {n}" for n in numbers)


def test_timestamped_answers_overlap_without_repeats_or_losses():
    """An inclusive start repeats lines; each is taken once."""
    tail = ContainerTail()
    taken = tail.take_timestamped(stamped(0, 1, 2))
    taken += tail.take_timestamped(stamped(2, 3, 4))
    taken += tail.take_timestamped(stamped(4))
    taken += tail.take_timestamped(stamped(4, 5))
    assert taken == [f"line {n}" for n in range(6)]


@given(st.lists(st.integers(1, 5), max_size=20), st.integers(20, 60))
def test_tails_with_overlap_lose_nothing(steps, window):
    """As long as answers overlap, every line is taken once."""
    tail, taken, end = ContainerTail(), [], 0
    for step in steps:
        end += step
        lines = [f"line {n}" for n in range(max(0, end - window), end)]
        taken += tail.take_tail("\n".join(lines))
    assert taken == [f"line {n}" for n in range(end)]


def test_a_gap_between_tails_is_marked():
    """Lines that were never seen leave a mark, not silence."""
    tail = ContainerTail()
    tail.take_tail("a\nb")
    assert tail.take_tail("x\ny") == [GAP, "x", "y"]


def test_a_cut_answer_with_timestamps_leaves_a_mark():
    """An answer that does not reach back to the newest known line has lost lines before it."""
    tail = ContainerTail()
    tail.take_timestamped(stamped(0, 1, 2))
    assert tail.take_timestamped(stamped(8, 9)) == [GAP, "line 8", "line 9"]
    assert tail.take_timestamped(stamped(8, 9)) == []


def test_a_first_answer_as_large_as_answers_get_has_lost_its_beginning():
    """Who reattaches to a talkative job service learns that it did not see the start."""
    assert ContainerTail().take_timestamped(stamped(*range(5)), max_lines=5)[0] == GAP
    assert ContainerTail().take_tail("x" * 99_000)[0] == GAP
    assert GAP not in ContainerTail().take_timestamped(stamped(*range(5)), max_lines=6)


def container(**values):
    """Build the main container's state."""
    return ContainerState("main", **values)


@pytest.mark.parametrize(
    ("status", "message", "exit_code", "expected"),
    [
        ("FAILED", "User application error, check container logs", 3, FailureClass.USER_CODE),
        (
            "FAILED",
            "Container was OOMKilled due to resource usage",
            137,
            FailureClass.OUT_OF_MEMORY,
        ),
        ("FAILED", "Failed to pull image", None, FailureClass.IMAGE),
        ("FAILED", "Encountered fatal error while running, check", 1, FailureClass.USER_CODE),
        ("FAILED", "Encountered fatal error", None, FailureClass.INTERNAL_ERROR),
        ("FAILED", "", 143, FailureClass.NODE_LOST),
        ("FAILED", "Encountered fatal error while running, check", 137, FailureClass.NODE_LOST),
        ("FAILED", "", 1, FailureClass.USER_CODE),
        ("INTERNAL_ERROR", "", None, FailureClass.INTERNAL_ERROR),
        ("CANCELLED", "", 143, FailureClass.CANCELLED),
        ("DELETED", "", None, FailureClass.CANCELLED),
    ],
)
def test_failures_are_classified_by_the_documented_words(status, message, exit_code, expected):
    """Container message first, then exit code, then status."""
    state = container(status="FAILED", message=message, last_exit_code=exit_code)
    failure = classify(JobServiceStatus.parse(status), [state], own_containers=["main"])
    assert failure.failure_class is expected
    assert failure.exit_code == exit_code


def test_a_failed_sidecar_is_not_to_blame():
    """Only the specification's own containers decide."""
    sidecar = ContainerState("stage-mount-v2-sidecar-monad-stage", status="FAILED")
    main = container(status="FAILED", message="User application error", last_exit_code=2)
    failure = classify(JobServiceStatus.FAILED, [sidecar, main], own_containers=["main"])
    assert (failure.failure_class, failure.exit_code) == (FailureClass.USER_CODE, 2)


def test_a_job_service_without_containers_lost_its_node():
    """When nothing is left of it and nothing was reported, the platform is to blame."""
    failure = classify(JobServiceStatus.FAILED, [], own_containers=["main"])
    assert failure.failure_class is FailureClass.NODE_LOST
    assert failure.retry


def test_an_exception_from_the_script_is_never_retried():
    """What the script reported wins over a missing container."""
    failure = classify(
        JobServiceStatus.FAILED, [], own_containers=["main"], reported_exception=True
    )
    assert failure.failure_class is FailureClass.USER_CODE
    assert not failure.retry


def test_the_instance_that_failed_by_itself_is_to_blame():
    """Instances that were ended because another failed do not hide its exit code."""
    victim = ContainerState("main", 0, "FAILED", "Encountered fatal error", last_exit_code=143)
    culprit = ContainerState("main", 1, "FAILED", "User application error", last_exit_code=7)
    failure = classify(JobServiceStatus.FAILED, [victim, culprit], own_containers=["main"])
    assert (failure.failure_class, failure.exit_code) == (FailureClass.USER_CODE, 7)
    assert (failure.instance_id, failure.container) == (1, "main")


def test_a_gpu_out_of_memory_is_told_from_other_user_errors():
    """Only the log says so; the advice is another one and nothing is retried."""
    failure = Failure(FailureClass.USER_CODE, "FAILED", 1)
    cuda = failure.explained_by(["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"])
    assert cuda.failure_class is FailureClass.OUT_OF_MEMORY
    assert not cuda.retry
    assert failure.explained_by(["ValueError: no column"]) == failure


def pool(**values):
    """Build a compute pool of two nodes."""
    facts = {"state": "ACTIVE", "instance_family": "GPU_NV_S", "min_nodes": 1, "max_nodes": 2}
    counts = {"active_nodes": 0, "idle_nodes": 0, "auto_resume": True}
    return ComputePool(name="P", **(facts | counts | values))


@pytest.mark.parametrize(
    ("changes", "message", "expected"),
    [
        ({"error_code": "392507"}, "", FailureClass.CAPACITY),
        ({"error_code": "392508"}, "", FailureClass.CAPACITY),
        ({"status_message": "We have observed CAPACITY_ERROR."}, "", FailureClass.CAPACITY),
        ({"active_nodes": 2}, "", FailureClass.CAPACITY),
        ({}, "Unschedulable due to insufficient resources", FailureClass.CAPACITY),
        ({}, "Compute pool node(s) are being provisioned", FailureClass.PROVISIONING),
        ({}, "Waiting to start", FailureClass.PROVISIONING),
    ],
)
def test_a_job_service_that_does_not_start_is_classified_by_its_pool(changes, message, expected):
    """Pool errors and a full pool are capacity; a pool with room is late with its node."""
    found = queue_failure([container(status="PENDING", message=message)], pool(**changes))
    assert found is expected
    assert RULES[found].retry


def test_a_pool_at_its_limit_is_not_said_to_lack_capacity():
    """392508 is about MAX_NODES, 392507 about the cloud; each warning says its own advice."""
    full = pool(error_code="392508", active_nodes=2, status_message="reached the maximum")
    (warning,) = full.warnings()
    assert "2 of 2 nodes in use" in warning
    (warning,) = pool(error_code="392507", status_message="No capacity.").warnings()
    assert "got no node from the cloud: No capacity." in warning


def test_every_class_has_a_rule():
    """No class is without advice."""
    assert set(RULES) == set(FailureClass)


def test_an_image_that_cannot_be_pulled_ends_the_wait():
    """PENDING with a pull failure can never become RUNNING."""
    states = [container(status="PENDING", message="Failed to pull image")]
    assert pending_failure(states) is FailureClass.IMAGE
    assert pending_failure([container(message="Waiting to start")]) is None


@pytest.mark.parametrize(
    ("policy", "forward", "cancelling", "terminal", "expected"),
    [
        ("auto", True, True, False, True),
        ("auto", True, False, True, True),
        ("auto", True, False, False, False),
        ("auto", False, True, True, False),
        ("cancel", True, False, False, True),
        ("detach", True, True, True, False),
    ],
)
def test_only_a_users_cancel_cancels(policy, forward, cancelling, terminal, expected):
    """An interrupt alone detaches."""
    decision = wants_cancel(
        OnInterrupt(policy),
        forward_termination=forward,
        run_is_cancelling=cancelling,
        at_terminal=terminal,
    )
    assert decision is expected


def test_intervals_grow_while_idle_and_shrink_when_active():
    """Back-off starts at the base, stops at the maximum, and starts again."""
    backoff = Backoff(base=1, maximum=2, factor=1.5, jitter=0)
    delays = [backoff.next_delay(active=active) for active in (False, False, False, False, True)]
    assert delays == [1, 1.5, 2, 2, 1]


def test_the_rate_limit_lets_one_through_an_interval():
    """Events inside the interval are held back."""
    times = iter([0.0, 5.0, 10.0])
    limit = RateLimit(10, lambda: next(times))
    assert [limit.allows() for _ in range(3)] == [True, False, True]


def test_metrics_become_typed_metadata():
    """Step, percentage and values are shown under training/."""
    payload = {"kind": "metrics", "step": 5, "total": 20, "values": {"loss": 0.5, "odd": None}}
    assert observation_metadata(payload) == {
        "training/step": 5,
        "training/total_steps": 20,
        "training/percent": 25.0,
        "training/loss": 0.5,
    }
