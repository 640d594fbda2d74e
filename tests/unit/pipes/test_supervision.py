"""What is watched while a job service runs, on a clock that is moved by hand."""

from types import SimpleNamespace

import pytest
from dagster import AssetKey, DagsterExecutionInterruptedError, DagsterRunStatus

from monad_dagster.pipes.failures import FailureClass, GivenUp
from monad_dagster.pipes.launch import InvocationSettings, LaunchOptions, LaunchRequest
from monad_dagster.pipes.observations import MetricsObserver, StallDetector
from monad_dagster.pipes.outcome import Facts
from monad_dagster.pipes.pacing import Clock
from monad_dagster.pipes.supervision import Supervisor
from monad_dagster.spcs.compute_pool import ComputePool
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service_state import ContainerState, JobServiceStatus
from monad_dagster.spcs.spec import SpecSettings
from tests.support.scripted_connection import FakeTime

NAME = QualifiedName("D", "S", "J")
RUNNING = JobServiceStatus.RUNNING


class Step:
    """The part of a step's context that is spoken to."""

    has_assets_def = False

    def __init__(self):
        self.lines = []
        self.log = SimpleNamespace(
            info=self.lines.append, warning=self.lines.append, debug=self.lines.append
        )


class Scene:
    """A supervisor with everything around it."""

    def __init__(self, *, replicas=1, digest=None, pools=(), **settings):
        self.time, self.step = FakeTime(), Step()
        clock = Clock(self.time.now, self.time.sleep)
        self.observer = MetricsObserver(self.step, interval_seconds=0, clock=clock)
        self.facts = Facts()
        remaining = list(pools)
        self.supervisor = Supervisor(
            self.step,
            NAME,
            LaunchRequest(
                "image",
                StagePath(QualifiedName("D", "S", "STAGE")),
                SpecSettings(),
                options=LaunchOptions(replicas=replicas),
            ),
            InvocationSettings(compute_pool="P", clock=clock, **settings),
            facts=self.facts,
            observer=self.observer,
            image_digest=digest,
            describe_pool=lambda: remaining.pop(0) if len(remaining) > 1 else remaining[0],
        )

    def look(self, what):
        """Run the named look of its own interval."""
        pool, *rest = self.supervisor.watches()
        return (pool if what == "pool" else rest[0]).look()


def instances(*statuses, digest=""):
    """Build the main container of several instances."""
    return [
        ContainerState("main", i, status, image_digest=digest) for i, status in enumerate(statuses)
    ]


def test_a_gang_that_stays_incomplete_is_given_up_as_capacity():
    """Instances that wait for one that never starts are not paid for without end."""
    scene = Scene(replicas=3, gang_timeout_seconds=60)
    look = scene.supervisor.look_at_containers
    look(RUNNING, instances("READY", "PENDING", "PENDING"))
    scene.time.sleep(50)
    look(RUNNING, instances("READY", "READY", "PENDING"))
    scene.time.sleep(11)
    with pytest.raises(GivenUp, match=r"instances 2 of 3 did not start") as given_up:
        look(RUNNING, instances("READY", "READY", "PENDING"))
    assert given_up.value.failure_class is FailureClass.CAPACITY


def test_a_gang_that_is_complete_in_time_goes_on():
    """Once all have started, an instance that ends early starts no countdown."""
    scene = Scene(replicas=2, gang_timeout_seconds=60)
    look = scene.supervisor.look_at_containers
    look(RUNNING, instances("READY", "PENDING"))
    scene.time.sleep(30)
    look(RUNNING, instances("READY", "READY"))
    scene.time.sleep(1000)
    look(RUNNING, instances("DONE", "READY"))
    assert scene.step.lines == ["1 of 2 instances of D.S.J have started."]
    # One that is missing later is waited for from then on, not from the first countdown.
    look(RUNNING, instances("READY", "PENDING"))
    scene.time.sleep(59)
    look(RUNNING, instances("READY", "PENDING"))
    scene.time.sleep(2)
    with pytest.raises(GivenUp, match="did not start within 61 s"):
        look(RUNNING, instances("READY", "PENDING"))


def test_another_digest_than_asked_for_is_given_up():
    """The image that runs is the one the lineage names, or nothing runs."""
    scene = Scene(digest="sha256:a")
    scene.supervisor.look_at_containers(RUNNING, instances("READY", digest="sha256:a"))
    with pytest.raises(GivenUp) as given_up:
        scene.supervisor.look_at_containers(RUNNING, instances("READY", digest="sha256:b"))
    assert given_up.value.failure_class is FailureClass.IMAGE
    assert scene.facts.image_digest_observed == "sha256:b"


def pool(state, message="", active=0):
    """Build a pool of one node."""
    return ComputePool("P", state, "GPU_NV_S", 1, 1, active, 0, True, status_message=message)


def test_the_pool_is_reported_when_it_changes():
    """A waiting run says what the pool says, once for each change."""
    starting = pool("STARTING", "Compute pool is starting for last 1 minute")
    scene = Scene(pools=[starting, starting, pool("ACTIVE", "full", active=1)])
    assert [scene.look("pool") for _ in range(3)] == [1, 0, 1]
    assert "starting for last 1 minute" in scene.step.lines[0]
    assert "1 of 1 nodes in use" in scene.step.lines[1]


def test_a_silence_is_warned_of_once_and_kept_as_a_fact():
    """No heartbeat for longer than the limit is one warning, with the way to end it."""
    scene = Scene(stall_seconds=600)
    assert scene.look("stall") == 0  # never a sign: the image may not send any
    scene.observer({"kind": "heartbeat", "step": None})
    scene.time.sleep(601)
    assert [scene.look("stall") for _ in range(2)] == [1, 0]
    (line,) = scene.step.lines
    assert "no heartbeat for 10 minutes" in line
    assert "SPCS_CANCEL_JOB" in line
    assert scene.facts.warnings == ["Job service D.S.J may hang: no heartbeat for 10 minutes."]


def test_a_stalled_job_service_is_cancelled_on_request_only():
    """With cancel_stalled the same silence ends it."""
    scene = Scene(stall_seconds=600, cancel_stalled=True)
    scene.observer({"kind": "heartbeat", "step": 3})
    scene.time.sleep(601)
    with pytest.raises(GivenUp) as given_up:
        scene.look("stall")
    assert given_up.value.failure_class is FailureClass.STALLED


def test_heartbeats_without_progress_are_a_stall_too():
    """A loop that hangs while its heartbeat thread goes on is noticed by its step."""
    time = FakeTime()
    clock = Clock(time.now, time.sleep)
    observer = MetricsObserver(Step(), interval_seconds=0, clock=clock)
    detector = StallDetector(observer, after_seconds=100, clock=clock)
    found = []
    for seconds in range(0, 300, 30):
        observer({"kind": "heartbeat", "step": 7 if seconds < 200 else 8})
        found.append(detector.look())
        time.sleep(30)
    assert [text for text in found if text] == ["step 7 is the last one for 2 minutes"]


def test_no_stall_is_looked_for_when_it_is_switched_off():
    """With stall_seconds none only the pool and the run are looked at."""
    assert len(Scene(stall_seconds=None).supervisor.watches()) == 2


def test_validation_figures_survive_the_rate_limit():
    """A message that is held back is merged into the next, not replaced by it."""
    time, step = FakeTime(), Step()
    events = []
    step.has_assets_def = True
    step.has_partition_key = False
    step.selected_asset_keys = {AssetKey("toy")}
    step.log_event = events.append
    observer = MetricsObserver(step, interval_seconds=10, clock=Clock(time.now, time.sleep))
    observer({"kind": "metrics", "step": 1, "values": {"loss": 3.0}})
    observer({"kind": "metrics", "step": 2, "values": {"val_loss": 2.5}})
    observer({"kind": "metrics", "step": 3, "values": {"loss": 2.0}})
    time.sleep(11)
    observer({"kind": "metrics", "step": 4, "values": {"loss": 1.0}})
    assert [{k: v.value for k, v in event.metadata.items()} for event in events] == [
        {"training/step": 1, "training/loss": 3.0},
        {"training/step": 4, "training/loss": 1.0, "training/val_loss": 2.5},
    ]


class Runs:
    """The part of an instance that answers for one run."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.tags = {}

    def get_run_by_id(self, _):
        """Return the run with its next status."""
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if isinstance(status, Exception):
            raise status
        return SimpleNamespace(status=status)

    def add_run_tags(self, _, tags):
        """Keep the tags."""
        self.tags |= tags


def scene_of_run(*statuses):
    """Build a scene whose run has one status after another, and return its look at the run."""
    scene = Scene()
    scene.step.instance, scene.step.run = Runs(*statuses), SimpleNamespace(run_id="r")
    *_, watch = scene.supervisor.watches()
    assert watch.while_pending
    return scene, watch.look


def test_a_run_that_was_ended_from_outside_interrupts_its_step():
    """A forced termination reaches the step even when no signal does, and is not retried."""
    scene, look = scene_of_run(DagsterRunStatus.STARTED, DagsterRunStatus.CANCELED)
    assert look() == 0
    with pytest.raises(DagsterExecutionInterruptedError):
        look()
    assert scene.step.instance.tags == {"dagster/retry_on_asset_or_op_failure": "false"}


def test_a_run_that_was_declared_lost_interrupts_its_step_and_may_be_retried():
    """A worker that was only slow leaves the job service to the retry."""
    scene, look = scene_of_run(DagsterRunStatus.FAILURE)
    with pytest.raises(DagsterExecutionInterruptedError):
        look()
    assert scene.step.instance.tags == {}


def test_a_run_that_cannot_be_read_interrupts_nothing():
    """A locked event log is no reason to stop waiting."""
    _, look = scene_of_run(OSError("locked"), DagsterRunStatus.STARTED)
    assert [look(), look()] == [0, 0]
