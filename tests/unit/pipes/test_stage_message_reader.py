"""The message reader: order, completeness and replay, whatever the timing."""

import json
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from monad_dagster.errors import SnowflakeError
from monad_dagster.pipes.messages import StageMessageReader
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.stage import StageClient
from tests.support.scripted_connection import refused, scripted_session

RUN = StagePath.parse("@d.s.st/runs/job")


class Handler:
    """Takes messages as Dagster's handler does."""

    def __init__(self):
        self.messages = []

    def handle_message(self, message):
        """Keep a message; refuse the marked ones."""
        if message["method"] == "refuse":
            raise ValueError("no such method")
        self.messages.append(message)


class Mount:
    """A stage directory that lists and downloads, and sometimes refuses."""

    def __init__(self):
        self.files = {}
        self.errors = 0

    def answer(self, text):
        """Answer LIST and GET."""
        if self.errors:
            self.errors -= 1
            return refused(2, "temporary")
        if text.startswith("LIST"):
            return [
                {"name": f"st/runs/job/messages/{name}", "size": len(body)}
                for name, body in self.files.items()
            ]
        target = Path(re.search(r"'file://([^']*)'", text).group(1))
        pattern = re.search(r"PATTERN = '(.*)'", text).group(1).replace("\\\\", "\\")
        rows = []
        for name, body in self.files.items():
            if re.fullmatch(pattern, f"runs/job/messages/{name}"):
                (target / name).write_text(body)
                rows.append({"file": name, "size": len(body), "status": "DOWNLOADED"})
        return rows


def open_reader(mount, handler):
    """Open a reader over a mount."""
    session, connection = scripted_session(mount.answer)
    reader = StageMessageReader(StageClient(session), RUN, mounted="/m/runs/job")
    reader.read_messages(handler).__enter__()
    return reader, connection


def lines(*messages):
    """Write messages as our writer does."""
    return "".join(f"{json.dumps(message)}\n" for message in messages) + "\n"


def message(number):
    """Build a numbered message."""
    return {"method": "log", "params": {"message": str(number)}}


CLOSED = {"method": "closed", "params": {}}


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 3), min_size=1, max_size=8),
    schedule=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=12),
)
def test_every_message_arrives_once_and_in_order(chunks, schedule):
    """Random arrival and random refusals lose, repeat and reorder nothing."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    number, bodies = 0, []
    for count in chunks:
        bodies.append(lines(*[message(number + i) for i in range(count)]))
        number += count
    bodies.append(lines(CLOSED))
    written = 0
    for arrivals, errors in [*schedule, (len(bodies), 0)]:
        for body in bodies[written : written + arrivals]:
            written += 1
            mount.files[f"{written}.json"] = body
        mount.errors = errors
        for _ in range(errors + 1):
            try:
                reader.poll()
            except SnowflakeError:
                continue
    mount.errors = 0
    reader.poll()
    expected = [str(n) for n in range(number)]
    received = [m["params"]["message"] for m in handler.messages if m["method"] == "log"]
    assert received == expected
    assert reader.closed
    replayed = Handler()
    again, _ = open_reader(mount, replayed)
    again.poll()
    assert replayed.messages == handler.messages


def test_all_pending_chunks_cost_one_list_and_one_get():
    """Forty chunks at the end are read in one look."""
    mount, handler = Mount(), Handler()
    reader, connection = open_reader(mount, handler)
    mount.files = {f"{n}.json": lines(message(n)) for n in range(1, 41)}
    assert reader.poll() == 40
    assert [text.split()[0] for text in connection.statements] == ["LIST", "GET"]
    assert reader.poll() == 0
    assert len(connection.statements) == 3


def test_a_chunk_that_is_still_being_written_is_left_alone():
    """Without its last, empty line a chunk is not taken; with it, it is taken whole."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files["1.json"] = lines(message(1)).removesuffix("\n")
    assert reader.poll() == 0
    mount.files["1.json"] = lines(message(1), message(2))
    assert reader.poll() == 1
    assert len(handler.messages) == 2


def test_a_chunk_of_another_writer_is_taken_when_it_has_settled():
    """The stock writer leaves out the last newline; two equal looks mean it is complete."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files["1.json"] = json.dumps(CLOSED)
    assert reader.poll() == 0
    assert reader.poll() == 1
    assert reader.closed


def test_a_missing_number_holds_back_what_follows():
    """Chunks are read in order; a later one waits for its predecessor."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files["2.json"] = lines(CLOSED)
    assert reader.poll() == 0
    assert not reader.closed
    mount.files["1.json"] = lines(message(1))
    assert reader.poll() == 2


def test_one_bad_message_is_a_problem_and_hides_no_other():
    """A message that Dagster refuses is noted; the rest is handled."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files["1.json"] = lines({"method": "refuse"}, message(1), CLOSED)
    reader.poll()
    assert reader.problems == ["message 'refuse' was refused: no such method"]
    assert len(handler.messages) == 2


def test_an_empty_chunk_is_waited_for_however_long_it_stays_empty():
    """A writer that was halted after creating the file loses nothing."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files["1.json"] = ""
    assert [reader.poll() for _ in range(3)] == [0, 0, 0]
    assert reader.held_back == "chunk 1.json is not complete (0 bytes)"
    mount.files["1.json"] = lines(message(1))
    assert reader.poll() == 1
    assert reader.held_back == ""


def test_a_chunk_that_grows_after_it_was_read_is_a_problem():
    """Without the end mark a chunk is taken on trust; one that changes afterwards is reported."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files["1.json"] = json.dumps(message(1))
    assert [reader.poll(), reader.poll()] == [0, 1]
    mount.files["1.json"] += f"\n{json.dumps(message(2))}"
    mount.files["2.json"] = lines(CLOSED)
    reader.poll()
    assert reader.closed
    assert reader.problems == ["chunk 1.json grew after it had been read"]


def test_what_is_not_a_message_is_a_problem_and_no_crash():
    """Other JSON, bytes that are no text, and file names of nobody's stop nothing."""
    mount, handler = Mount(), Handler()
    reader, _ = open_reader(mount, handler)
    mount.files = {"1.json": "5\n\n", "2.json": lines(CLOSED), "01.json": "x", "\u00b2.json": "x"}
    assert reader.poll() == 2
    assert reader.closed
    assert reader.problems == ["'5' is not a message"]
