"""Where a log is read once the job service has ended, or is gone."""

import json
from pathlib import Path

import pytest

from monad_dagster.pipes.log_reading import read_log
from monad_dagster.pipes.log_tail import GAP
from monad_dagster.pipes.logs import INCOMPLETE
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.stage import StageClient
from tests.support.scripted_connection import lost_answer, refused, scripted_session

NAME = QualifiedName("D", "S", "J_1")
ROOT = StagePath(QualifiedName("D", "S", "STAGE"))
LABELLED = "model/j_1.log"
FORMERLY = "runs/j_1/log.txt"
GONE = refused(395010, "Unable to get container status for instance id: 0.")


class Account:
    """One job service, some files on its stage, lines on its node and in the event table."""

    def __init__(self, *, status="DONE", files=None, node=GONE, kept=(), labels=None):
        self.status, self.files, self.node = status, files or {}, node
        self.kept = list(kept)
        self.labels = {"log_path": f"@D.S.STAGE/{LABELLED}"} if labels is None else labels

    def answer(self, text):
        """Answer one statement."""
        if text.startswith("DESCRIBE SERVICE"):
            if self.status is None:
                return refused(2003)
            comment = json.dumps({"monad_dagster": self.labels})
            row = {"database_name": "D", "schema_name": "S", "name": "J_1"}
            return [row | {"status": self.status, "comment": comment}]
        if text.startswith("LIST"):
            place, _, pattern = text.removeprefix("LIST @D.S.STAGE").partition(" PATTERN = ")
            name = pattern.strip("'").rpartition("/")[2].replace("\\\\", "")
            return [
                {"name": f"stage/{path}", "size": 1}
                for path in self.files
                if (path.endswith(name) if pattern else path.startswith(place.strip("/")))
            ]
        if text.startswith("GET"):
            path = text.split()[1].removeprefix("@D.S.STAGE/")
            folder = Path(text.split("file://")[1].split("'")[0])
            (folder / Path(path).name).write_text(self.files[path], encoding="utf-8")
            return [{"file": path, "status": "DOWNLOADED"}]
        if "GET_SERVICE_LOGS" in text:
            return self.node if isinstance(self.node, Exception) else [{"logs": self.node}]
        return [{"instance_id": i, "container_name": "main", "log": line} for i, line in self.kept]

    def read(self, **arguments):
        """Read the log."""
        session, _ = scripted_session(self.answer)
        return read_log(JobServices(session), StageClient(session), ROOT, NAME, **arguments)


def test_a_running_job_service_is_read_from_its_node():
    """The archive is not looked for before the end."""
    account = Account(status="RUNNING", node="a\nb", files={LABELLED: "old\n"})
    assert account.read() == ["a", "b"]


@pytest.mark.parametrize("place", [LABELLED, FORMERLY])
def test_an_ended_one_is_read_from_the_archive(place):
    """All lines are there, while the node keeps a tail: beside the output, or where it once was."""
    account = Account(files={place: "1\n2\n3\n"}, node="3")
    assert account.read() == ["1", "2", "3"]
    assert account.read(num_lines=2) == ["2", "3"]


@pytest.mark.parametrize("place", [LABELLED, FORMERLY, "a/b/j_1.log"])
def test_a_dropped_one_is_found_by_its_name(place):
    """Its labels went with it; the file's name is the attempt's own."""
    account = Account(status=None, files={place: "1\n", "a/j_10.log": "other\n"})
    assert account.read() == ["1"]


@pytest.mark.parametrize("archived", [f"1\n{INCOMPLETE}\n", f"1\n{GAP}\n3\n"])
def test_an_incomplete_archive_is_completed_from_what_the_account_received_since(archived):
    """The persisted lines are taken when there are more of them, else what was archived."""
    kept = [(0, "1"), (0, "2"), (0, "3"), (0, "4")]
    assert Account(files={LABELLED: archived}, kept=kept).read() == ["1", "2", "3", "4"]
    assert Account(files={LABELLED: archived}).read() == archived.splitlines()


def test_one_instance_is_picked_out_of_an_archive_of_several():
    """The lines of the others, and of no instance when it has none, do not appear."""
    account = Account(files={LABELLED: "[main/0] a\n[main/1] b\n[main/0] c\n"})
    assert account.read(instance=1) == ["[main/1] b"]
    assert account.read() == ["[main/0] a", "[main/0] c"]


def test_without_archive_and_node_the_event_table_answers():
    """Only the lines of the asked instance."""
    assert Account(status="FAILED", kept=[(0, "a"), (1, "b")]).read(instance=1) == ["b"]


def test_a_job_service_that_never_was_is_told_from_one_that_says_nothing():
    """None is an error to its caller, an empty list is not."""
    assert Account(status=None).read() is None
    assert Account(status="PENDING").read() == []


def test_an_account_that_does_not_answer_is_an_error():
    """It is not taken for a log that is empty."""
    from monad_dagster.errors import ConnectionFailedError

    with pytest.raises(ConnectionFailedError):
        Account(status="RUNNING", node=lost_answer()).read()
