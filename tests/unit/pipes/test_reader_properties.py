"""The message reader under any timing: each message once and in order, or a loud failure.

The machine plays a writer that is interrupted anywhere and readers that come and go; the reader
under test never learns more than LIST and GET say.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from monad_dagster.errors import MonadDagsterError
from monad_dagster.pipes.messages import StageMessageReader
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.stage import StageClient
from tests.support.scripted_connection import scripted_session
from tests.support.staged_messages import (
    CLOSED,
    StagedMessages,
    chunk_of_dagster,
    chunk_of_ours,
    number,
    number_of,
)

RUN = StagePath.parse("@d.s.st/runs/job")
MAX_CHUNKS = 6
SETTLING_LOOKS = 4


class Handler:
    """Takes messages as Dagster's handler does."""

    def __init__(self):
        self.messages = []

    def handle_message(self, message):
        """Keep a message."""
        self.messages.append(message)

    @property
    def numbers(self):
        """The numbers of the messages received."""
        return [number_of(m) for m in self.messages if m["method"] == "log"]


class Watcher:
    """One process that reads: a reader, its handler, and what it has seen."""

    def __init__(self, stage):
        session, _ = scripted_session(stage.answer)
        self.handler = Handler()
        self.reader = StageMessageReader(StageClient(session), RUN, mounted="/m/runs/job")
        self.reader.read_messages(self.handler).__enter__()

    def look(self):
        """Look once; a refusal loses nothing."""
        try:
            return self.reader.poll()
        except MonadDagsterError:
            return 0


class ReaderMachine(RuleBasedStateMachine):
    """A writer, a stage and two watchers."""

    def __init__(self):
        super().__init__()
        self.written = []
        self.pending = b""
        self.num_chunks = 0
        self.through = False

    @initialize(seed=st.integers(0, 2**16), ours=st.booleans())
    def begin(self, seed, ours):
        """Choose the writer."""
        self.stage = StagedMessages(seed)
        self.chunk = chunk_of_ours if ours else chunk_of_dagster
        self.ours = ours
        self.watchers = [Watcher(self.stage), Watcher(self.stage)]

    @property
    def name(self):
        """File name of the chunk that is being written."""
        return f"{self.num_chunks}.json"

    @precondition(lambda self: not self.pending and not self.through)
    @rule(count=st.integers(1, 4), close=st.booleans(), cut=st.floats(0, 1))
    def write(self, count, close, cut):
        """Begin a chunk; what is seen of it at first is cut off anywhere."""
        close = close or self.num_chunks == MAX_CHUNKS
        fresh = [number(len(self.written) + n) for n in range(count)]
        self.written += [number_of(m) for m in fresh]
        body = self.chunk(*fresh, *([CLOSED] if close else []))
        self.num_chunks += 1
        self.through = close
        self.pending = body
        self.stage.files[self.name] = body[: int(cut * len(body))]

    @precondition(lambda self: self.pending)
    @rule(cut=st.floats(0, 1), between=st.booleans())
    def grow(self, cut, between):
        """Show more of the chunk, now or between a LIST and its GET."""
        seen = len(self.stage.files[self.name])
        body = self.pending[: max(seen, int(cut * len(self.pending)))]
        (self.stage.grows if between else self.stage.files)[self.name] = body

    @precondition(lambda self: self.pending)
    @rule()
    def complete(self):
        """Show the whole chunk; only then may the next one begin."""
        self.stage.grows = {}
        self.stage.files[self.name] = self.pending
        self.pending = b""

    @rule(who=st.integers(0, 1), errors=st.integers(0, 2), lost=st.integers(0, 2))
    def look(self, who, errors, lost):
        """Let one watcher look while statements and downloads fail."""
        self.stage.errors, self.stage.lost_downloads = errors, lost
        self.watchers[who].look()
        self.stage.errors = self.stage.lost_downloads = 0

    @rule(who=st.integers(0, 1))
    def restart(self, who):
        """Kill one watcher; its successor reads from the first chunk."""
        self.watchers[who] = Watcher(self.stage)

    @invariant()
    def nothing_is_repeated_or_reordered(self):
        """Whatever a watcher has received is the beginning of what was written, or it says so."""
        for watcher in getattr(self, "watchers", []):
            numbers = watcher.handler.numbers
            assert numbers == sorted(set(numbers))
            if self.ours:  # another writer's chunk may have been taken too early; it finds out
                assert numbers == self.written[: len(numbers)]

    def teardown(self):
        """Let the writer end and every watcher look until it is through."""
        if not hasattr(self, "watchers"):
            return
        if self.pending:
            self.complete()
        if not self.through:
            self.num_chunks += 1
            self.stage.files[self.name] = self.chunk(CLOSED)
        for watcher in self.watchers:
            for _ in range(SETTLING_LOOKS):
                watcher.look()
            complete = watcher.reader.closed and watcher.handler.numbers == self.written
            if self.ours:
                assert complete
                assert watcher.reader.problems == []
            else:
                loud = not watcher.reader.closed or bool(watcher.reader.problems)
                assert complete or loud


ReaderMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=16, deadline=None)
TestReader = ReaderMachine.TestCase
TestReader.__doc__ = "No schedule of writer, refusals, restarts and cuts loses a message silently."
