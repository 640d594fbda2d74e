"""Which message directories are removed from the stage."""

import json
from datetime import UTC, datetime

import pytest

from monad_dagster.pipes.housekeeping import (
    finished_job_services,
    is_log_archived,
    old_message_directories,
)
from monad_dagster.pipes.orphans import KnownRuns
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service_state import JobServiceDescription, JobServiceStatus
from monad_dagster.spcs.stage import StageClient, StageFile
from tests.support.scripted_connection import scripted_session

ROOT = StagePath(QualifiedName("D", "S", "STAGE"))
OLD = "Sun, 1 Nov 2026 00:00:00 GMT"
NEW = "Sat, 21 Nov 2026 00:00:00 GMT"
LIMIT = 1794000000.0  # 6 November 2026
RUNS = KnownRuns(finished={"r1": "SUCCESS"}, watched=frozenset({"r2"}), deployment="here")


def chunks(*dates, job="j_1", folder="messages"):
    """List chunk files with these times."""
    return [
        StageFile(ROOT / f"runs/{job}/{folder}/{i}.json", 1, last_modified=date)
        for i, date in enumerate(dates, 1)
    ]


def service(status="DONE", ended=datetime(2026, 11, 1, tzinfo=UTC), **labels):
    """Describe the job service J_1."""
    comment = json.dumps({"monad_dagster": labels})
    parsed = JobServiceStatus.parse(status)
    return JobServiceDescription(
        QualifiedName("D", "S", "J_1"), parsed, status, comment=comment, updated_on=ended
    )


def removed(files, item):
    """Return the paths that go."""
    found = old_message_directories(ROOT, files, [item], RUNS, LIMIT)
    return [path.path for path in found]


def test_old_chunks_of_a_finished_job_service_go():
    """Only the message directory is named, never the log beside it."""
    files = [*chunks(OLD, OLD), StageFile(ROOT / "runs/j_1/log.txt", 1, last_modified=OLD)]
    assert removed(files, service(run_id="r1")) == ["runs/j_1/messages"]


@pytest.mark.parametrize("dates", [(OLD, NEW), (OLD, "yesterday"), (OLD, "")])
def test_a_new_or_undated_chunk_keeps_its_directory(dates):
    """One chunk that may be new is reason enough to keep them all."""
    assert removed(chunks(*dates), service(run_id="r1")) == []


@pytest.mark.parametrize(
    "item",
    [
        service("RUNNING", run_id="r1"),
        service(run_id="r2"),
        service(run_id="absent", deployment="elsewhere"),
        service(),
    ],
    ids=["active", "followed", "foreign", "unlabelled"],
)
def test_what_may_still_be_read_or_is_not_ours_stays(item):
    """Active, followed and foreign job services keep their messages."""
    assert removed(chunks(OLD), item) == []


def test_other_directories_are_never_named():
    """Neither unknown job services nor other folders of a known one."""
    files = [*chunks(OLD, job="other"), *chunks(OLD, folder="checkpoints")]
    assert removed(files, service(run_id="r1")) == []


CONTEXT = [StageFile(ROOT / "runs/j_1/context.json", 1, last_modified=OLD)]


def finished(files, item):
    """Return how many job services may go once their log is archived."""
    return len(finished_job_services(files, [item], RUNS, LIMIT))


def test_a_job_service_that_finished_long_ago_may_go():
    """What is left of it in its run directory does not hold it."""
    assert finished(CONTEXT, service(run_id="r1")) == 1


@pytest.mark.parametrize(
    ("there", "labels", "expected"),
    [
        ("model/j_1.log", {"log_path": "@D.S.STAGE/model/j_1.log"}, True),
        ("runs/j_1/log.txt", {"log_path": "@D.S.STAGE/model/j_1.log"}, True),
        ("runs/j_1/log.txt", {}, True),
        ("runs/j_1/log.txt", {"log_path": "nonsense"}, True),
        ("model/j_1.log", {}, False),
        ("model/j_10.log", {"log_path": "@D.S.STAGE/model/j_1.log"}, False),
        ("", {"log_path": "@D.S.STAGE/model/j_1.log"}, False),
    ],
)
def test_an_archived_log_is_found_where_the_labels_say_or_where_it_used_to_be(
    there, labels, expected
):
    """A log of an earlier release counts, and one of another attempt does not."""
    files = [{"name": f"stage/{there}", "size": 1}] if there else []
    session, _ = scripted_session(
        lambda text: [f for f in files if f["name"].startswith(f"stage/{text.split('STAGE/')[1]}")]
    )
    item = service(run_id="r1", **labels)
    assert is_log_archived(StageClient(session), ROOT, item) is expected


def test_a_job_service_with_messages_on_the_stage_stays():
    """Its labels say whose messages these are; they go first."""
    assert finished([*CONTEXT, *chunks(OLD)], service(run_id="r1")) == 0


@pytest.mark.parametrize(
    "item",
    [
        service("RUNNING", run_id="r1"),
        service("CANCELLING", run_id="r1"),
        service(run_id="r2"),
        service(run_id="absent", deployment="elsewhere"),
        service(),
        service(ended=datetime(2026, 11, 20, tzinfo=UTC), run_id="r1"),
        service(ended=None, run_id="r1"),
    ],
    ids=["active", "ending", "followed", "foreign", "unlabelled", "young", "undated"],
)
def test_a_job_service_that_is_young_or_not_ours_is_never_dropped(item):
    """Its age and its run decide, whatever is on the stage."""
    assert finished(CONTEXT, item) == 0
