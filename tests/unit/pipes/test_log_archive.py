"""The archived log: what was followed, and what the account kept where the node had forgotten."""

import io
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from monad_dagster.pipes.log_tail import GAP
from monad_dagster.pipes.logs import INCOMPLETE, LogFollower, is_complete_log
from monad_dagster.pipes.pacing import Clock
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.stage import StageClient
from tests.support.scripted_connection import FakeTime, refused, scripted_session

NAME = QualifiedName("D", "S", "J")
TARGET = StagePath(QualifiedName("D", "S", "STAGE")) / "model" / "j.log"
GONE = refused(395010, "Unable to get container status for instance id: 0.")


def stamped(*numbers):
    """Write log lines with the timestamps that the seven-argument form puts in front."""
    return "\n".join(f"2026-11-23T10:00:{n:02d}.000000000Z line {n}" for n in numbers)


def rows(*numbers, instance=0, time=None):
    """Build rows of SPCS_GET_LOGS."""
    return [
        {"timestamp": time, "instance_id": instance, "container_name": "main", "log": f"line {n}"}
        for n in numbers
    ]


class Scene:
    """A follower over a scripted account that keeps the uploaded archive."""

    def __init__(self, answers, kept, replicas=1, earlier=None, prints=False):
        self.time = FakeTime()
        self.printed, self.uploaded, self.asked = [], None, []
        self._earlier = earlier
        self._answers, self._kept = list(answers), list(kept)
        session, _ = scripted_session(self._answer)
        self.stage = StageClient(session)
        self.follower = LogFollower(
            JobServices(session),
            NAME,
            containers=["main"],
            replicas=replicas,
            started=datetime(2026, 11, 23, tzinfo=UTC),
            write=self.printed.append if not prints else None,
        )

    def _answer(self, text):
        self.asked.append(text)
        if "GET_SERVICE_LOGS" in text:
            answer = self._answers.pop(0) if self._answers else GONE
            return answer if isinstance(answer, Exception) else [{"logs": answer}]
        if text.startswith("PUT"):
            path = text.split("file://")[1].split("'")[0]
            self.uploaded = Path(path).read_text(encoding="utf-8").splitlines()
            size = len("\n".join(self.uploaded)) + 1
            return [{"status": "UPLOADED", "target": "j.log", "target_size": size}]
        if text.startswith("LIST"):
            size = len(self._earlier or "")
            return [{"name": "stage/model/j.log", "size": size}] if self._earlier else []
        if text.startswith("GET"):
            folder = Path(text.split("file://")[1].split("'")[0])
            (folder / "j.log").write_text(self._earlier, encoding="utf-8")
            return [{"file": "j.log", "status": "DOWNLOADED"}]
        return self._kept.pop(0) if len(self._kept) > 1 else self._kept[0]

    def archive(self, wait_seconds=60.0):
        """Archive and return the lines of the archive."""
        clock = Clock(self.time.now, self.time.sleep)
        self.follower.archive(self.stage, TARGET, clock=clock, wait_seconds=wait_seconds)
        return self.uploaded


def lines(*numbers):
    """Return the lines as they were written."""
    return [f"line {n}" for n in numbers]


def test_a_log_that_was_followed_to_its_end_is_archived_without_asking_again():
    """Nothing is fetched twice and no persisted log is read."""
    scene = Scene([stamped(0, 1), stamped(1, 2), stamped(2)], [[]])
    for _ in range(3):
        scene.follower.poll()
    assert scene.archive() == lines(0, 1, 2)
    assert scene.follower.is_complete
    assert [line.strip() for line in scene.printed] == lines(0, 1, 2)
    assert not any("SPCS_GET_LOGS" in text for text in scene.asked)


def test_a_script_that_says_nothing_is_not_waited_for():
    """An answer without lines is an answer: the log is complete, and there is nothing to archive."""
    scene = Scene([""], [[]])
    scene.follower.poll()
    started = scene.time.now()
    assert scene.archive() is None
    assert scene.follower.is_complete
    assert scene.time.now() == started


def test_a_gap_is_filled_from_the_persisted_log():
    """The step's output marks the gap, the archive has every line."""
    scene = Scene([stamped(0, 1), stamped(8, 9)], [rows(*range(10))])
    scene.follower.poll()
    scene.follower.poll()
    assert f"{GAP}\n" in scene.printed
    assert scene.archive() == lines(*range(10))
    assert scene.follower.is_complete


def test_persisted_lines_are_waited_for():
    """They come minutes late: an archive without the newest followed line is not taken yet."""
    scene = Scene([stamped(0, 1), stamped(8, 9)], [[], rows(0, 1, 2, 3, 4), rows(*range(10))])
    scene.follower.poll()
    scene.follower.poll()
    started = scene.time.now()
    assert scene.archive() == lines(*range(10))
    assert scene.time.now() > started


def test_persisted_lines_that_never_come_leave_the_mark():
    """After the bounded wait the archive holds what was followed, and says that it has a gap."""
    scene = Scene([stamped(0, 1), stamped(8, 9)], [[]])
    scene.follower.poll()
    scene.follower.poll()
    followed = ["line 0", "line 1", GAP, "line 8", "line 9"]
    assert scene.archive(wait_seconds=20) == [*followed, INCOMPLETE]
    assert not scene.follower.is_complete
    assert not is_complete_log("".join(f"{line}\n" for line in scene.uploaded))


@pytest.mark.parametrize(
    ("earlier", "is_complete"),
    [("line 0\nline 1\nline 2\n", True), (f"line 0\nline 1\n{INCOMPLETE}\n", False)],
)
def test_what_an_earlier_process_archived_is_not_replaced_by_less(earlier, is_complete):
    """A retry that comes after the node went keeps the log that was archived while it was there."""
    scene = Scene([stamped(0), GONE], [[]], earlier=earlier)
    scene.follower.poll()
    scene.follower.poll()
    assert scene.archive(wait_seconds=5) is None
    assert scene.follower.is_complete is is_complete


def test_an_incomplete_log_replaces_an_earlier_one_that_holds_less():
    """What was followed is archived, with the mark that it is not all."""
    scene = Scene([stamped(0, 1), GONE], [[]], earlier="line 0\n")
    scene.follower.poll()
    scene.follower.poll()
    assert scene.archive(wait_seconds=5) == [*lines(0, 1), INCOMPLETE]


def test_the_end_that_went_with_the_node_comes_from_the_persisted_log():
    """A node that is gone at the last look takes no line along."""
    scene = Scene([stamped(0, 1), GONE], [rows(0, 1), rows(0, 1, 2), rows(0, 1, 2, 3)])
    scene.follower.poll()
    scene.follower.poll()
    assert scene.archive() == lines(0, 1, 2, 3)
    assert scene.follower.is_complete


def test_without_the_function_the_event_table_answers():
    """Where SPCS_GET_LOGS is refused, the same lines are read from the event table."""
    kept = [{**row, "log": f'"{row["log"]}"'} for row in rows(0, 1, 2)]
    scene = Scene([GONE], [refused(2143), kept, refused(2143), kept])
    scene.follower.poll()
    assert scene.archive() == lines(0, 1, 2)
    assert any("SNOWFLAKE.TELEMETRY.EVENTS" in text for text in scene.asked)


def test_instances_are_told_apart():
    """Each line of several instances names its own, and the tail is that of one instance."""
    scene = Scene([stamped(0), stamped(5), stamped(0, 1), stamped(5, 6)], [[]], replicas=2)
    scene.follower.poll()
    scene.follower.poll()
    assert scene.archive() == [
        "[main/0] line 0",
        "[main/1] line 5",
        "[main/0] line 1",
        "[main/1] line 6",
    ]
    assert scene.follower.tail(1, "main") == ["[main/1] line 5", "[main/1] line 6"]
    assert len(scene.follower.tail()) == 4


@pytest.mark.parametrize("errno", [1003, 2141])
def test_an_account_without_timestamps_is_followed_by_overlap(errno):
    """The undocumented form is tried once; then the documented one, without repeats."""
    scene = Scene([refused(errno), "a\nb", "a\nb\nc"], [[]])
    scene.follower.poll()
    scene.follower.poll()
    assert [line.strip() for line in scene.printed] == ["a", "b", "c"]


def test_a_refusal_after_lines_with_timestamps_repeats_nothing():
    """A single odd answer does not switch the form, which would print everything again."""
    scene = Scene([stamped(0, 1), refused(1003), stamped(1, 2)], [[]])
    for _ in range(3):
        scene.follower.poll()
    assert [line.strip() for line in scene.printed] == lines(0, 1, 2)


def test_a_full_local_disk_costs_the_log_and_nothing_else():
    """Lines are printed, the archive is missing, and why is there to be said."""
    scene = Scene([stamped(0, 1)], [[]])
    with Path("/dev/full").open("w+", encoding="utf-8") as full:
        scene.follower._file = full
        scene.follower.poll()
        assert scene.archive() is None
        assert "No space left" in str(scene.follower.not_archived)
        assert [line.strip() for line in scene.printed] == lines(0, 1)
        scene.follower.close()


def test_a_line_that_cannot_be_printed_is_printed_as_far_as_it_can(monkeypatch):
    """A console of another encoding does not end the step; the archive has the line as it was."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii", newline="\n")
    monkeypatch.setattr(sys, "stdout", console)
    scene = Scene([stamped(0).replace("line", "größe")], [[]], prints=True)
    scene.follower.poll()
    assert console.buffer.getvalue() == b"gr\\xf6\\xdfe 0\n"
    assert scene.archive() == ["größe 0"]
