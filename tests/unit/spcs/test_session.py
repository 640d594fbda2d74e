"""The session: repetition, translation of errors, query tag, submission of job services."""

import json

import pytest

from monad_dagster.errors import (
    ConnectionFailedError,
    JobServiceExistsError,
    SnowflakeError,
)
from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session, translate_error
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobOptions, JobServices
from monad_dagster.spcs.job_service_state import (
    TERMINAL,
    ContainerState,
    JobServiceStatus,
    containers_from_history,
)
from monad_dagster.spcs.spec import build_spec
from monad_dagster.spcs.sql import Statement
from tests.support.scripted_connection import (
    ScriptedConnection,
    lost_answer,
    refused,
    scripted_session,
)

NAME = QualifiedName("D", "S", "TRAIN_1")
SPEC = build_spec(image="/d/s/r/i:t")
OPTIONS = JobOptions(compute_pool="P", labels={"attempt": 1})


def described(comment: str, status: str = "RUNNING") -> list[dict[str, object]]:
    """Build the answer of DESCRIBE SERVICE."""
    return [
        {
            "name": "TRAIN_1",
            "status": status,
            "database_name": "D",
            "schema_name": "S",
            "compute_pool": "P",
            "comment": comment,
        }
    ]


def test_the_query_tag_is_set_before_the_first_statement():
    """Every statement of a session carries the tag."""
    connection = ScriptedConnection(lambda _: [{"a": 1}])
    session = Session(lambda: connection, query_tag={"run_id": "r'1"})
    session.execute(sql.current_session())
    assert connection.statements[0] == ("""ALTER SESSION SET QUERY_TAG = '{"run_id": "r''1"}'""")
    session.close()
    assert connection.closed


def test_a_harmless_statement_is_repeated_after_a_lost_answer():
    """The session opens a new connection and sends it again."""
    answers = [lost_answer(), lost_answer(), [{"STATUS": "ok"}]]
    session, connection = scripted_session(lambda _: answers.pop(0))
    assert session.execute(Statement("SHOW X")).rows == [{"status": "ok"}]
    assert connection.statements == ["SHOW X"] * 3


def test_other_statements_are_not_repeated():
    """A statement with effects is sent once and its unknown outcome is an error."""
    session, connection = scripted_session(lambda _: lost_answer())
    with pytest.raises(ConnectionFailedError):
        session.execute(Statement("INSERT INTO X", repeatable=False))
    assert len(connection.statements) == 1


def test_a_refusal_carries_number_state_and_query_id():
    """The error says what to do and keeps the platform's numbers."""
    session, _ = scripted_session(lambda _: refused(3001, "Insufficient privileges"))
    with pytest.raises(SnowflakeError, match=r"Insufficient privileges.*monad-dagster doctor") as e:
        session.execute(Statement("SHOW X"))
    assert (e.value.errno, e.value.sqlstate, e.value.query_id) == (3001, "42000", "q-refused")


def test_a_refused_login_is_not_tried_again():
    """Wrong credentials fail at once."""
    attempts = []

    def open_connection():
        attempts.append(1)
        raise refused(250001, "Incorrect username or password was specified.", "08001")

    session = Session(open_connection, sleep=lambda _: None)
    with pytest.raises(ConnectionFailedError, match="refused the login"):
        session.execute(Statement("SHOW X"))
    assert len(attempts) == 1


def test_a_submission_returns_its_query_id():
    """A plain submission is one statement."""
    session, connection = scripted_session(lambda _: [{"status": "Started"}])
    submission = JobServices(session).submit(NAME, SPEC, OPTIONS)
    assert (submission.query_id, submission.adopted) == ("query-1", False)
    assert len(connection.statements) == 1


def test_a_name_that_is_held_by_the_same_specification_is_adopted():
    """After a lost answer the repeated statement is refused, and the job service is ours."""
    comment = OPTIONS.comment(SPEC)

    def answer(text):
        if text.startswith("EXECUTE"):
            return lost_answer() if len(connection.statements) == 1 else refused(2002)
        return described(comment) if text.startswith("DESCRIBE") else []

    session, connection = scripted_session(answer)
    submission = JobServices(session).submit(NAME, SPEC, OPTIONS)
    assert submission.adopted


def test_our_own_statement_whose_answer_was_lost_is_a_submission():
    """The same run finds its job service under the name: nothing was there before the call."""
    options = JobOptions(compute_pool="P", labels={"run_id": "r"})

    def answer(text):
        if text.startswith("EXECUTE"):
            return lost_answer()
        if "GET_JOB_HISTORY" in text:
            return [{"query_id": "q-1"}]
        return described(options.comment(SPEC)) if text.startswith("DESCRIBE") else []

    session, _ = scripted_session(answer)
    submission = JobServices(session).submit(NAME, SPEC, options)
    assert (submission.query_id, submission.adopted) == ("q-1", False)


@pytest.mark.parametrize(("deleted", "accepted"), [(None, True), ("2026-11-23", False)])
def test_a_lost_answer_is_resolved_by_query_id_in_the_history(deleted, accepted):
    """A job service that cannot be described yet is found by the statement that created it."""
    error = lost_answer()
    error.sfqid = "q-lost"
    asked = []

    def answer(text):
        if text.startswith("EXECUTE"):
            return error
        if "GET_JOB_HISTORY" in text:
            asked.append(text)
            return [{"query_id": "q-lost", "deleted_time": deleted}]
        return refused(2003)

    session, _ = scripted_session(answer)
    if accepted:
        submission = JobServices(session).submit(NAME, SPEC, OPTIONS)
        assert (submission.query_id, submission.adopted) == ("q-lost", False)
    else:
        with pytest.raises(ConnectionFailedError):
            JobServices(session).submit(NAME, SPEC, OPTIONS)
    assert "query_id = 'q-lost'" in asked[0]
    assert f"name = '{NAME.name}'" in asked[0]


def test_a_name_that_is_held_by_another_specification_is_an_error():
    """The error names both hashes and how to go on."""
    other = json.dumps({"monad_dagster": {"spec_sha256": "abc"}})

    def answer(text):
        return refused(2002) if text.startswith("EXECUTE") else described(other)

    session, _ = scripted_session(answer)
    with pytest.raises(JobServiceExistsError, match="abc"):
        JobServices(session).submit(NAME, SPEC, OPTIONS)


def test_a_missing_job_service_is_none_and_other_errors_are_errors():
    """Only 'does not exist' means that there is none."""
    session, _ = scripted_session(lambda _: refused(2003))
    assert JobServices(session).describe(NAME) is None
    session, _ = scripted_session(lambda _: refused(606))
    with pytest.raises(SnowflakeError):
        JobServices(session).describe(NAME)


def test_undocumented_statuses_are_unknown_and_not_terminal():
    """A status nobody documents never crashes and never ends the wait."""
    assert JobServiceStatus.parse("RESCHEDULING") is JobServiceStatus.UNKNOWN
    assert not JobServiceStatus.UNKNOWN.is_terminal
    assert JobServiceStatus.parse("internal_error") in TERMINAL


def test_history_rows_hold_container_states():
    """Exit codes of dropped job services come from the history."""
    document = {
        "instances": [
            {
                "instanceId": "0",
                "containers": [{"containerName": "main", "lastExitCode": "3", "status": "FAILED"}],
            }
        ]
    }
    states = containers_from_history({"instance_statuses": json.dumps(document)})
    assert states == [ContainerState("main", 0, "FAILED", last_exit_code=3)]


def test_every_statement_has_a_time_limit_when_the_session_has_one():
    """The connector repeats a request whose answer is lost for ever, unless it is told a limit."""
    connection = ScriptedConnection(lambda _: [])
    session = Session(lambda: connection, statement_seconds=7, query_tag={"app": "test"})
    session.execute(sql.current_session())
    session.close()
    assert connection.timeouts == [7, 7]


def test_a_statement_that_ran_out_of_time_is_a_lost_answer():
    """The connector's cancellation says so in words; whether it was executed is not known."""
    text = "SQL execution was cancelled by the client due to a timeout."
    error = translate_error(refused(604, text), sql.current_session())
    assert isinstance(error, ConnectionFailedError)
    by_hand = translate_error(refused(604, "SQL execution canceled"), sql.current_session())
    assert not isinstance(by_hand, ConnectionFailedError)
