"""Waiting for a job service: one loop that looks at status, messages and logs when each is due.

No thread and no blocking statement, so that an interrupt always lands between two short
statements. A status nobody documents is noted and waited through; an account that cannot be
reached is waited for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from monad_dagster.errors import JobServiceTimeoutError, SnowflakeError, problem
from monad_dagster.pipes.pacing import Backoff, Clock, Due
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices
from monad_dagster.spcs.job_service_state import (
    ContainerState,
    JobServiceDescription,
    JobServiceStatus,
    containers_from_history,
)

MISSING_LOOKS = 3
# After the script's goodbye the end is near; a process that hangs at its exit is not chased longer.
GOODBYE_SECONDS = 60.0
CONTAINERS_SECONDS = 60.0


@dataclass(frozen=True)
class WaitLimits:
    """How long and how often.

    Attributes:
        poll_seconds: Shortest interval between two looks.
        max_poll_seconds: Longest interval.
        max_queue_seconds: Longest time before RUNNING; None waits for ever.
        max_runtime_seconds: Longest time after RUNNING; None waits for ever.
        max_unreachable_seconds: Longest time without any answer.
    """

    poll_seconds: float = 5.0
    max_poll_seconds: float = 15.0
    max_queue_seconds: float | None = None
    max_runtime_seconds: float | None = None
    max_unreachable_seconds: float = 900.0


@dataclass
class Progress:
    """What is known of the job service so far.

    Attributes:
        status: Its last status.
        raw_status: The status as it was spelt.
        submitted_at: When waiting began, or the job service was created.
        running_at: When it was first seen running.
        ended_at: When it was first seen in a terminal status.
        containers: Its containers when last looked at.
    """

    submitted_at: float
    status: JobServiceStatus = JobServiceStatus.PENDING
    raw_status: str = ""
    running_at: float | None = None
    ended_at: float | None = None
    containers: list[ContainerState] = field(default_factory=list)

    def correct(self, *, started: datetime | None, completed: datetime | None) -> None:
        """Replace what this process happened to see by what the account recorded.

        A look comes after the event, and a process that reattaches comes long after it.
        """
        if started is not None:
            self.running_at = min(self.running_at or started.timestamp(), started.timestamp())
        if completed is not None and self.ended_at is not None:
            self.ended_at = min(self.ended_at, completed.timestamp())

    @property
    def queue_seconds(self) -> float:
        """Time before RUNNING."""
        return max(0.0, (self.running_at or self.ended_at or self.submitted_at) - self.submitted_at)

    @property
    def run_seconds(self) -> float:
        """Time from RUNNING to the end."""
        if self.running_at is None or self.ended_at is None:
            return 0.0
        return max(0.0, self.ended_at - self.running_at)


@dataclass(frozen=True)
class Watch:
    """Something done repeatedly while waiting; returns how much it found.

    Attributes:
        look: Does it.
        while_pending: Whether it makes sense before RUNNING.
        while_running: Whether it makes sense from then on.
        every_seconds: Fixed interval; None follows the limits' back-off.
    """

    look: Callable[[], int]
    while_pending: bool = False
    while_running: bool = True
    every_seconds: float | None = None


class JobServiceWaiter:
    """Waits for one job service."""

    def __init__(
        self,
        services: JobServices,
        name: QualifiedName,
        *,
        limits: WaitLimits,
        clock: Clock,
        log: Callable[[str], None],
        warn: Callable[[str], None],
        watches: Sequence[Watch] = (),
        on_containers: Callable[[JobServiceStatus, list[ContainerState]], None] | None = None,
        is_closed: Callable[[], bool] = lambda: False,
        submitted_at: float | None = None,
    ) -> None:
        """Prepare waiting.

        Args:
            services: Answers.
            name: Whom to wait for.
            limits: How long and how often.
            clock: Time and sleep.
            log: Receives each transition.
            warn: Receives what is odd.
            watches: What else to look at meanwhile.
            on_containers: Sees the containers at each look before the end; may raise.
            is_closed: Whether the script said goodbye: then the end is near, look often.
            submitted_at: When it was submitted, when that was before now.
        """
        self._services = services
        self._name = name
        self._limits = limits
        self._clock = clock
        self._log = log
        self._warn = warn
        self._on_containers = on_containers
        self._is_closed = is_closed
        self.progress = Progress(submitted_at or clock.now())
        self._status_due = self._due()
        self._containers_due = self._due(CONTAINERS_SECONDS)
        self._watches = [(watch, self._due(watch.every_seconds)) for watch in watches]
        self._answered_at = clock.now()
        self._missing = 0
        self._closed_at: float | None = None
        self._odd: set[str] = set()
        self._messages: dict[tuple[int, str], str] = {}

    def _due(self, every_seconds: float | None = None) -> Due:
        base = every_seconds or self._limits.poll_seconds
        maximum = every_seconds or self._limits.max_poll_seconds
        return Due(Backoff(base, maximum), self._clock)

    def _is_ready(self, watch: Watch) -> bool:
        running = self.progress.running_at is not None
        return watch.while_running if running else watch.while_pending

    def wait(self) -> Progress:
        """Wait for a terminal status.

        Raises:
            JobServiceTimeoutError: A limit ran out; the job service is still there.
            SnowflakeError: The account did not answer, or refused, for too long.
        """
        while True:
            if self._status_due.is_due:
                changed = self._guarded(self._look_at_status)
                closing = self._is_closing()
                self._status_due.done(active=bool(changed) or closing)
                if self.progress.status.is_terminal:
                    return self.progress
                self._check_limits()
            for watch, due in self._watches:
                if due.is_due and self._is_ready(watch):
                    due.done(active=bool(self._guarded(watch.look)))
            if self._is_closing():
                soon = self._clock.now() + self._limits.poll_seconds / 4
                self._status_due.at = min(self._status_due.at, soon)
            self._sleep()

    def _is_closing(self) -> bool:
        if not self._is_closed():
            return False
        if self._closed_at is None:
            self._closed_at = self._clock.now()
        return self._clock.now() - self._closed_at < GOODBYE_SECONDS

    def _sleep(self) -> None:
        times = [self._status_due.at]
        times += [due.at for watch, due in self._watches if self._is_ready(watch)]
        self._clock.sleep(max(0.01, min(times) - self._clock.now()))

    def _guarded(self, look: Callable[[], int]) -> int:
        try:
            found = look()
        except SnowflakeError as error:
            # No answer, or a refusal: what runs goes on, and the next look may find it again.
            silent = self._clock.now() - self._answered_at
            if silent > self._limits.max_unreachable_seconds:
                raise
            self._warn(f"No answer for {silent:.0f} s, still waiting for {self._name}: {error}")
            return 0
        self._answered_at = self._clock.now()
        return found

    def _look_at_status(self) -> int:
        found = self._services.describe(self._name)
        if found is None:
            return self._look_at_history()
        self._missing = 0
        changed = self._note_status(found)
        # Once all run, containers change when the status does; before, they say what is awaited.
        unsettled = changed or any(item.status != "READY" for item in self.progress.containers)
        if not found.status.is_terminal and (
            unsettled or not self.progress.containers or self._containers_due.is_due
        ):
            self._look_at_containers(found.status)
            self._containers_due.done(active=True)
        return changed

    def _note_status(self, found: JobServiceDescription) -> int:
        if found.status is JobServiceStatus.UNKNOWN and found.raw_status not in self._odd:
            self._odd.add(found.raw_status)
            self._warn(f"{self._name} has the undocumented status {found.raw_status}; waiting on")
        return self._transition(found.status, found.raw_status)

    def _transition(self, status: JobServiceStatus, raw: str) -> int:
        progress, now = self.progress, self._clock.now()
        if raw == progress.raw_status:
            return 0
        if status is JobServiceStatus.RUNNING and progress.running_at is None:
            progress.running_at = now
        if status.is_terminal:
            progress.ended_at = now
            if progress.running_at is None and status is JobServiceStatus.DONE:
                progress.running_at = now
        before = progress.raw_status or "submitted"
        self._log(f"{self._name}: {before} -> {raw} after {now - progress.submitted_at:.0f} s")
        progress.status, progress.raw_status = status, raw
        return 1

    def _look_at_containers(self, status: JobServiceStatus) -> None:
        states = self._services.containers(self._name)
        if states:
            self.progress.containers = states
        for state in states:
            key = (state.instance_id, state.container_name)
            if state.message and self._messages.get(key) != state.message:
                self._messages[key] = state.message
                self._log(
                    f"{self._name} {state.container_name}/{state.instance_id}: "
                    f"{state.status}, {state.message}"
                )
        if self._on_containers is not None:
            self._on_containers(status, states)

    def _look_at_history(self) -> int:
        # Dropped by someone, or not visible yet in the first moments.
        row = self._services.find_in_history(name=self._name)
        if row is not None:
            self.progress.containers = containers_from_history(row) or self.progress.containers
            raw = str(row.get("status"))
            status = JobServiceStatus.parse(raw)
            if row.get("deleted_time") and not status.is_terminal:
                raw, status = "DELETED", JobServiceStatus.DELETED
            return self._transition(status, raw)
        self._missing += 1
        if self._missing >= MISSING_LOOKS:
            return self._transition(JobServiceStatus.DELETED, "DELETED")
        return 0

    def _check_limits(self) -> None:
        progress, now = self.progress, self._clock.now()
        queued = progress.running_at is None
        limit = self._limits.max_queue_seconds if queued else self._limits.max_runtime_seconds
        elapsed = now - (progress.running_at or progress.submitted_at)
        if limit is None or elapsed <= limit:
            return
        setting = "max_queue_seconds" if queued else "max_runtime_seconds"
        raise JobServiceTimeoutError(
            problem(
                f"Job service {self._name} is still {progress.raw_status}",
                f"It has been so for {elapsed:.0f} s, and {setting} is {limit:.0f}",
                f"Raise {setting}, or look at the compute pool",
                "More: monad-dagster status",
            ),
            status=progress.raw_status,
            elapsed_seconds=elapsed,
        )
