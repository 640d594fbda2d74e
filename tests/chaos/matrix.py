"""The signal matrix: a signal, at a phase of a job service, under an executor; and what follows.

A cell brings a real run to its phase, interrupts it, lets everything go on, retries it as an
operator does, and then counts: job services launched, messages, materializations, final states.
"""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import product

import dagster as dg

from monad_dagster.spcs.job_service_state import JobServiceDescription
from tests.chaos.location import NUM_STEPS, RESULTS_ARE_IN, partition_key
from tests.chaos.stand import DATABASE, SCHEMA, Stand, wait_until
from tests.chaos.workers import Worker, processes_of_session

SIGNALS = ("SIGINT", "SIGTERM", "SIGKILL", "cancel", "force-terminate")
PHASES = ("queued", "starting", "running", "draining", "finished")
EXECUTORS = ("in_process", "multiprocess")
ALONE = "SIGKILL-alone"  # of the run worker, whose step process lives on; beside the matrix
CANCELLING = ("SIGINT", "cancel", "force-terminate")
OVER = ("draining", "finished")
ANSWER_DELAY_SECONDS = 5.0
ALL_STEPS = list(range(1, NUM_STEPS + 1))


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        signal: What interrupts the run; SIGINT is Ctrl-C at its terminal.
        phase: When.
        executor: Where the step runs.
    """

    signal: str
    phase: str
    executor: str

    @property
    def partition(self) -> str:
        """The partition this cell has for itself."""
        return partition_key(ALL_CELLS.index(self))

    @property
    def ends_the_job_service(self) -> bool:
        """Whether the interruption is a user's, of a job service that has not ended."""
        return self.signal in CANCELLING and self.phase not in OVER

    def __str__(self) -> str:
        return f"{self.signal}-{self.phase}-{self.executor}"


ALL_CELLS = [Cell(*parts) for parts in product(SIGNALS, PHASES, EXECUTORS)]
ALL_CELLS += [Cell(ALONE, phase, "multiprocess") for phase in PHASES]
# Every signal with both executors, every phase with both executors.
COVERING_CELLS = [
    Cell(name, PHASES[(number + shift) % 5], executor)
    for number, name in enumerate(SIGNALS)
    for executor, shift in zip(EXECUTORS, (0, 2), strict=True)
]


@dataclass
class Outcome:
    """What was counted in one cell.

    Attributes:
        launched: Job services that the interrupted run launched.
        run_status: Status of the interrupted run when its worker had ended.
        job_status: Final status of its job service.
        steps: Steps that the interrupted run heard of.
        retry_launched: Job services that the retry launched.
        retry_reattached: Whether it found the first one.
        retry_status: Status of the retry.
        retry_steps: Steps that the retry heard of.
        executions: How often a script ran.
        results: Materializations that the retry recorded.
    """

    cell: Cell
    launched: int = 0
    run_status: str = ""
    job_status: str = ""
    steps: list[int] = field(default_factory=list)
    retry_launched: int = 0
    retry_reattached: bool = False
    retry_status: str = ""
    retry_steps: list[int] = field(default_factory=list)
    executions: int = 0
    results: int = 0


def expected(cell: Cell) -> dict[str, object]:
    """Return what has to be counted in a cell, by field of `Outcome`."""
    cancelled = cell.ends_the_job_service
    return {
        "launched": 1,
        "run_status": _expected_run_status(cell),
        "job_status": "CANCELLED" if cancelled else "DONE",
        "retry_launched": 1 if cancelled else 0,
        "retry_reattached": not cancelled,
        "retry_status": "SUCCESS",
        "retry_steps": ALL_STEPS,
        "results": 1,
    }


def _expected_run_status(cell: Cell) -> str:
    if cell.signal == "cancel":
        return "CANCELED"
    if cell.signal == "SIGINT":
        return "FAILURE" if cell.phase in OVER else "CANCELED"
    if cell.signal == "force-terminate":
        # With everything in hand the worker goes on, and Dagster takes its word. Before that only
        # the step process notices, and the run worker of the multiprocess executor sees it fail.
        ended = {"in_process": "CANCELED", "multiprocess": "FAILURE"}[cell.executor]
        return "SUCCESS" if cell.phase in OVER else ended
    return "FAILURE"


class CellRun:
    """Carries out one cell."""

    def __init__(self, stand: Stand, cell: Cell, retry_executor: str | None = None) -> None:
        self.stand = stand
        self.cell = cell
        self.retry_executor = retry_executor or cell.executor
        self.partition = cell.partition
        self.pool = f"SMALL_{cell.partition.upper()}" if cell.phase == "queued" else None
        self.blocker = None

    def job_services(self) -> list[JobServiceDescription]:
        """Return the job services of this cell's partition, the first one first."""
        listed = self.stand.services.list(DATABASE, SCHEMA)
        ours = [j for j in listed if f"_{self.partition.upper()}_" in j.name.name]
        return sorted(ours, key=lambda item: item.name.name)

    def run(self) -> Outcome:
        """Interrupt, let go, retry and count."""
        self.prepare()
        worker = self.stand.zygote.start(
            self.partition, self.cell.executor, terminal=self.cell.signal == "SIGINT"
        )
        wait_until(lambda: self.has_reached(worker), f"{self.cell} is at its phase")
        self.interrupt(worker)
        if self.cell.signal in ("force-terminate", ALONE) and self.cell.phase in OVER:
            self.let_go()  # nobody tells who still waits, and there is nothing left to cancel
        worker.wait()
        if self.cell.signal in ("SIGKILL", ALONE):
            self.stand.monitor(worker.run_id)
        wait_until(lambda: not processes_of_session(worker.pid), f"{self.cell}: all have ended")
        outcome = Outcome(self.cell)
        self.note_interrupted(worker, outcome)
        self.let_go()
        self.retry(worker, outcome)
        return outcome

    def prepare(self) -> None:
        """Make the phase last until it is released."""
        phase, stand = self.cell.phase, self.stand
        plan = {"gate": phase in ("starting", "running"), "late": phase == "draining"}
        if self.pool is not None:
            stand.add_pool(self.pool)
            self.blocker = stand.fill_pool(self.pool)
            plan["pool"] = self.pool
        stand.plan(self.partition, hold_result=phase == "finished", **plan)
        if phase == "starting":
            stand.local.faults.add(
                "slow-answer",
                statement=f"EXECUTE JOB SERVICE*_{self.partition}_*",
                delay_seconds=ANSWER_DELAY_SECONDS,
                count=1,
            )

    def has_reached(self, worker: Worker) -> bool:
        """Tell whether the run is at the phase, by what it wrote or by what the account says."""
        assert not worker.ended.is_set(), f"{self.cell}: the worker has ended too early"
        phase = self.cell.phase
        if phase == "starting":
            # Accepted by the account, and the client does not know it yet.
            return bool(self.job_services())
        messages = self.stand.messages_of(worker.run_id)
        if phase == "queued":
            return any("-> PENDING" in message for message in messages)
        if phase == "running":
            return bool(self.steps_of(worker.run_id))
        sign = "-> DONE" if phase == "draining" else RESULTS_ARE_IN
        return any(sign in message for message in messages)

    def interrupt(self, worker: Worker) -> None:
        """Do to the run what the cell says."""
        instance, name = self.stand.instance, self.cell.signal
        if name == "SIGINT":
            worker.press_ctrl_c()
        elif name == "SIGTERM":
            worker.send(signal.SIGTERM)
        elif name == "SIGKILL":
            worker.kill_container()
        elif name == ALONE:
            worker.send(signal.SIGKILL)
        elif name == "cancel":
            # As Dagster's launcher does: the status first, then a SIGINT in the run's process.
            instance.report_run_canceling(instance.get_run_by_id(worker.run_id))
            worker.send(signal.SIGINT)
        else:
            # Nobody reaches the worker; the run is marked, and that is all.
            instance.report_run_canceled(instance.get_run_by_id(worker.run_id))

    def let_go(self) -> None:
        """Release whatever made the phase last."""
        if self.blocker is not None:
            self.stand.services.cancel(self.blocker)
        self.stand.open_gates(self.partition)
        if self.cell.phase == "draining":
            (first, *_) = self.job_services()
            directory = self.stand.root / "runs" / first.name.name.lower()
            self.stand.bring_late_chunks(self.partition, directory)

    def note_interrupted(self, worker: Worker, outcome: Outcome) -> None:
        """Count what the interrupted run did."""
        run = self.stand.instance.get_run_by_id(worker.run_id)
        outcome.run_status = run.status.value
        outcome.steps = self.steps_of(worker.run_id)
        outcome.launched = len(self.job_services())

    def retry(self, worker: Worker, outcome: Outcome) -> None:
        """Retry as the user interface does, and count what that did."""
        stand = self.stand
        run = stand.instance.get_run_by_id(worker.run_id)
        again = stand.zygote.retry(run, self.partition, tagged=True, executor=self.retry_executor)
        again.wait()
        found = wait_until(self.all_terminal, f"the job services of {self.cell} have ended")
        outcome.job_status = found[0].raw_status
        outcome.retry_launched = len(found) - outcome.launched
        outcome.retry_status = stand.instance.get_run_by_id(again.run_id).status.value
        outcome.retry_steps = self.steps_of(again.run_id)
        messages = stand.messages_of(again.run_id)
        outcome.retry_reattached = any("Reattached to" in message for message in messages)
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        outcome.results = len(stand.events_of(again.run_id, kind))
        executions = stand.stage.list(stand.root / f"executions/{self.partition}")
        outcome.executions = sum(not e.path.file_name.endswith(".through") for e in executions)

    def all_terminal(self) -> list[JobServiceDescription]:
        """Return the job services if every one has ended."""
        found = self.job_services()
        return found if all(item.status.is_terminal for item in found) else []

    def steps_of(self, run_id: str) -> list[int]:
        """Return the steps that a run observed, in order."""
        events = self.stand.events_of(run_id, dg.DagsterEventType.ASSET_OBSERVATION)
        metadata = [e.asset_observation_data.asset_observation.metadata for e in events]
        return [m["training/step"].value for m in metadata if "training/step" in m]


def run_cells(
    stand: Stand, cells: Sequence[Cell], *, at_once: int, retry_executor: str | None = None
) -> Iterator[Outcome]:
    """Carry out cells, several at once, and yield what was counted in their order."""
    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(lambda cell: CellRun(stand, cell, retry_executor).run(), cells)


def judge(outcome: Outcome) -> list[str]:
    """Return what is wrong with an outcome, in words."""
    wrong = [
        f"{outcome.cell}: {name} is {getattr(outcome, name)!r}, not {value!r}"
        for name, value in expected(outcome.cell).items()
        if getattr(outcome, name) != value
    ]
    if outcome.steps != ALL_STEPS[: len(outcome.steps)]:
        wrong.append(f"{outcome.cell}: the interrupted run heard {outcome.steps}")
    if outcome.executions > outcome.launched + outcome.retry_launched:
        wrong.append(f"{outcome.cell}: a script ran {outcome.executions} times")
    return wrong
