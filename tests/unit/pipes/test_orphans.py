"""Which job services are orphans: every case of the decision, and what Dagster says of runs."""

import json

import dagster as dg
import pytest

from monad_dagster.pipes.orphans import KnownRuns, find_orphans, runs_of
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service_state import JobServiceDescription, JobServiceStatus

GRACE = 100.0
HERE = "this-instance"
ENDED = KnownRuns(finished={"r1": "FAILURE"}, deployment=HERE)


def service(name="J", status="RUNNING", **labels):
    """Describe a job service with *labels* in its comment."""
    return JobServiceDescription(
        name=QualifiedName("D", "S", name),
        status=JobServiceStatus.parse(status),
        raw_status=status,
        comment=json.dumps({"monad_dagster": labels}) if labels else "",
    )


def find(item, runs, first_seen=None, now=1000.0):
    """Look at one job service."""
    return find_orphans([item], runs, first_seen or {}, now, GRACE)


def test_an_orphan_waits_for_its_grace_period_and_is_due_after_it():
    """The first look starts the clock; the look after the grace period ends it."""
    item = service(run_id="r1")
    first = find(item, ENDED, now=1000.0)
    assert (first.due, len(first.waiting)) == ((), 1)
    assert find(item, ENDED, first.first_seen, now=1099.0).due == ()
    last = find(item, ENDED, first.first_seen, now=1100.0)
    (orphan,) = last.due
    assert (orphan.run_id, orphan.run_status, orphan.since) == ("r1", "FAILURE", 1000.0)


def test_a_followed_job_service_is_left_alone_and_its_clock_is_forgotten():
    """A retry that took over ends the grace period; a later loss starts a new one."""
    item = service(run_id="r1")
    watched = KnownRuns(finished={"r1": "FAILURE"}, watched=frozenset({"r1"}), deployment=HERE)
    findings = find(item, watched, {"D.S.J": 0.0})
    assert (findings.due, findings.waiting, findings.num_watched) == ((), (), 1)
    assert findings.first_seen == {}


@pytest.mark.parametrize(
    ("labels", "due"),
    [
        ({"run_id": "gone", "deployment": HERE}, True),
        ({"run_id": "gone", "deployment": "another"}, False),
        ({"run_id": "gone"}, False),
        ({"run_id": "r1"}, True),
        ({"attempt": 1}, False),
        ({}, False),
    ],
)
def test_only_what_this_instance_launched_is_ever_touched(labels, due):
    """An absent run needs the label of this instance; a known run is proof by itself."""
    findings = find(service(**labels), ENDED, {"D.S.J": 0.0})
    assert bool(findings.due) is due
    assert findings.num_foreign == (0 if due else 1)


def test_without_an_identity_an_absent_run_is_never_ours():
    """A storage that has no id cannot claim anything."""
    item = service(run_id="gone", deployment=None)
    assert find(item, KnownRuns(), {"D.S.J": 0.0}).num_foreign == 1


@pytest.mark.parametrize(
    ("status", "due"),
    [
        ("PENDING", True),
        ("RUNNING", True),
        ("SUSPENDED", True),
        ("SUSPENDING", True),
        ("SOMETHING_NEW", True),
        ("CANCELLING", False),
        ("DELETING", False),
        ("DONE", False),
        ("FAILED", False),
        ("CANCELLED", False),
        ("INTERNAL_ERROR", False),
        ("DELETED", False),
    ],
)
def test_only_a_job_service_that_is_not_ending_is_an_orphan(status, due):
    """What has ended, or is about to, costs nothing more."""
    assert bool(find(service(status=status, run_id="r1"), ENDED, {"D.S.J": 0.0}).due) is due


def test_a_foreign_comment_is_not_ours():
    """A comment in another format, or none, has no labels."""
    for comment in ("", "nightly job", "[1]", '{"monad_dagster": "text"}', '{"run_id": "r1"}'):
        item = JobServiceDescription(
            QualifiedName("D", "S", "J"), JobServiceStatus.RUNNING, "RUNNING", comment=comment
        )
        assert find(item, ENDED, {"D.S.J": 0.0}).num_foreign == 1


def test_a_clock_that_was_set_back_does_not_prolong_the_grace_period():
    """A first look from the future counts from now."""
    (orphan,) = find(service(run_id="r1"), ENDED, {"D.S.J": 5000.0}, now=1000.0).waiting
    assert orphan.since == 1000.0


@dg.op
def nothing():
    """Do nothing."""


@dg.job
def empty():
    """A job to create runs of."""
    nothing()


def create(instance, status, **arguments):
    """Create a run of the empty job."""
    return instance.create_run_for_job(empty, status=status, **arguments).run_id


def test_runs_are_mapped_with_their_retries():
    """A finished run is followed while any later run of its chain is unfinished."""
    ended, running = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED
    with dg.DagsterInstance.ephemeral() as instance:
        alone = create(instance, dg.DagsterRunStatus.CANCELED)
        root = create(instance, ended)
        middle = create(instance, ended, parent_run_id=root, root_run_id=root)
        newest = create(instance, running, parent_run_id=middle, root_run_id=root)
        items = [service(run_id=r) for r in (alone, root, middle, newest, "absent")]
        runs = runs_of(instance, [*items, service()], HERE)
    assert runs.watched == {root, middle, newest}
    assert runs.finished == {alone: "CANCELED", root: "FAILURE", middle: "FAILURE"}
    assert runs.deployment == HERE


def test_nothing_is_asked_when_no_job_service_names_a_run():
    """An account without job services of ours is answered without Dagster."""
    assert runs_of(None, [service()], HERE) == KnownRuns(deployment=HERE)
