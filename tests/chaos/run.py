"""The chaos run: many short materializations while workers, account, nodes and answers fail.

Each materialization is retried as an operator would have it: what has failed is re-executed, a
worker that vanished is reported as failed first, and the orphan sensor runs meanwhile. Then
everything is left to settle, and the auditor looks.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import dagster as dg

from monad_dagster.assets.sensors import build_orphan_sensor
from monad_dagster.errors import MonadDagsterError
from tests.chaos.audit import Auditor, Findings
from tests.chaos.location import build_client_of
from tests.chaos.plans import (
    NUM_POOLS,
    STARVED,
    STARVED_QUEUE_SECONDS,
    Fate,
    Plan,
    account_faults,
    draw,
    pool_name,
)
from tests.chaos.stand import DATABASE, SCHEMA, Stand, wait_until
from tests.chaos.workers import Worker

MAX_RUNS = 12
SENSOR_SECONDS = 3.0
GRACE_SECONDS = 30.0
WORKER_SECONDS = 240.0
SETTLE_SECONDS = 90.0
NO_RETRY_TAG = "dagster/retry_on_asset_or_op_failure"


@dataclass
class Report:
    """What came of a chaos run."""

    seed: int
    count: int
    findings: Findings = field(default_factory=Findings)
    events: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def text(self) -> str:
        """Write the counts, and what is wrong."""
        found = self.findings
        verdict = {
            "results lost": found.lost,
            "job services launched twice": found.twice,
            "job services left running": found.unowned,
            "silent successes": found.silent,
        }
        lines = [
            f"chaos run: seed {self.seed}, {self.count} materializations, {self.seconds:.0f} s"
        ]
        lines += [f"  {len(problems):4d} {words}" for words, problems in verdict.items()]
        counts = {**found.counts, **self.events}
        lines.append("  " + ", ".join(f"{counts[key]} {key}" for key in sorted(counts)))
        lines += [f"  WRONG {problem}" for problem in found.problems]
        lines.append(f"  again: {self.command}")
        return "\n".join(lines)

    @property
    def command(self) -> str:
        """The command that repeats this run."""
        return f"python -m tests.chaos run --seed {self.seed} --count {self.count}"


class ChaosRun:
    """One run."""

    def __init__(
        self,
        stand: Stand,
        seed: int,
        count: int,
        *,
        in_flight: int = 6,
        account_kills: int = 3,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.stand = stand
        self.report = Report(seed, count)
        self.plans = [draw(seed, number) for number in range(count)]
        self.in_flight = in_flight
        self.kills_at = {round(count * (n + 1) / (account_kills + 1)) for n in range(account_kills)}
        self.say = say
        self._done = 0
        self._cursor: str | None = None
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self) -> Report:
        """Materialize everything, let it settle, audit."""
        began = time.monotonic()
        self._prepare()
        daemon = threading.Thread(target=self._daemon, name="orphan sensor")
        daemon.start()
        try:
            with ThreadPoolExecutor(self.in_flight) as pool:
                list(pool.map(self._materialize, self.plans))
        finally:
            self._over.set()
            daemon.join()
        self._settle()
        behaviors = {plan.partition: plan.behavior for plan in self.plans}
        connection = self.stand.local.connection()
        self.report.findings = Auditor(connection, self.stand.instance, behaviors).audit()
        self.report.seconds = time.monotonic() - began
        return self.report

    def _prepare(self) -> None:
        for name in [*(pool_name(number) for number in range(NUM_POOLS)), STARVED]:
            self.stand.add_pool(name, family="CPU_X64_L", max_nodes=2)
        for plan in self.plans:
            limit = STARVED_QUEUE_SECONDS if plan.pool == STARVED else None
            self.stand.plan(
                plan.partition,
                behavior=plan.behavior,
                seconds=plan.seconds,
                pool=plan.pool,
                max_queue_seconds=limit,
            )
        for kind, fields in account_faults(self.report.seed):
            self.stand.local.faults.add(kind, **fields)

    # --- one materialization

    def _materialize(self, plan: Plan) -> None:
        """Run and retry until it has succeeded, or failed as it was meant to."""
        fates = iter(plan.fates)
        worker = self.stand.zygote.start(plan.partition, **_crash(fate := next(fates)))
        for number in range(1, MAX_RUNS + 1):
            self._befall(worker, fate)
            self.stand.monitor(worker.run_id)
            run = self.stand.instance.get_run_by_id(worker.run_id)
            assert run is not None
            if self._is_settled(plan, run) or number == MAX_RUNS:
                break
            fate = next(fates, Fate())
            worker = self.stand.zygote.retry(
                run, plan.partition, tagged=plan.tagged, **_crash(fate)
            )
            self._note("retries")
        self._finish_one()

    def _befall(self, worker: Worker, fate: Fate) -> None:
        """Let a worker's fate happen and wait for its end."""
        # A launcher creates the run before its worker; here the worker does it first of all.
        wait_until(
            lambda: worker.ended.is_set() or self.stand.instance.get_run_by_id(worker.run_id),
            f"run {worker.run_id} exists",
        )
        if fate.kind in ("SIGKILL", "SIGTERM", "cancel") and not worker.ended.wait(fate.seconds):
            self._note(f"workers {fate.kind}")
            if fate.kind == "SIGKILL":
                worker.kill_container()
            elif fate.kind == "SIGTERM":
                worker.send(signal.SIGTERM)
            else:
                run = self.stand.instance.get_run_by_id(worker.run_id)
                if run is not None and not run.is_finished:
                    self.stand.instance.report_run_canceling(run)
                worker.send(signal.SIGINT)
        if worker.wait(WORKER_SECONDS) == -signal.SIGKILL and fate.kind == "crash":
            self._note("workers crashed at a statement")

    def _is_settled(self, plan: Plan, run: dg.DagsterRun) -> bool:
        """Tell whether an operator leaves it at this."""
        if run.status is dg.DagsterRunStatus.SUCCESS or plan.behavior == "abandoned":
            return True
        if self.stand.events_of(run.run_id, dg.DagsterEventType.STEP_SUCCESS):
            # Killed between the step's success and the run's: Dagster finds nothing to re-execute
            # from failure, and a re-execution of everything would be asked for on purpose.
            self._note("workers killed after their step's success")
            return True
        failed_for_good = run.tags.get(NO_RETRY_TAG) == "false"
        if plan.behavior == "succeed":
            # Somebody looks at such a failure, and runs it again by hand.
            self._note("retries by hand", int(failed_for_good))
            return False
        return failed_for_good and run.status is dg.DagsterRunStatus.FAILURE

    def _finish_one(self) -> None:
        with self._lock:
            self._done += 1
            done = self._done
        if done in self.kills_at:
            self.say(f"{done} of {len(self.plans)} done; the account is killed")
            self._note_hits()
            self.stand.kill_account()
            self._note("account kills")
        elif done % 20 == 0:
            self.say(f"{done} of {len(self.plans)} done")

    def _note_hits(self) -> None:
        """Add what the faults have hit; a restarted account counts anew."""
        for fault in self.stand.local.faults.current():
            self._note(f"hits of {fault['kind']}", fault["hits"])

    def _note(self, what: str, times: int = 1) -> None:
        with self._lock:
            self.report.events[what] += times

    # --- meanwhile, and afterwards

    def _daemon(self) -> None:
        while not self._over.wait(SENSOR_SECONDS):
            self._look_for_orphans(time.time())

    def _look_for_orphans(self, now: float) -> None:
        sensor = build_orphan_sensor(
            resource_key="client", grace_seconds=GRACE_SECONDS, now=lambda: now
        )
        with dg.build_sensor_context(
            instance=self.stand.instance,
            cursor=self._cursor,
            resources={"client": build_client_of(self.stand.home)},
            sensor_name=sensor.name,
        ) as context:
            try:
                result = sensor.evaluate_tick(context)
            except Exception as error:
                # The daemon records a failed tick and goes on with the next one.
                if not isinstance(_cause(error), MonadDagsterError):
                    raise
                self._note("sensor ticks failed")
                return
        self._cursor = result.cursor
        self._note("orphans cancelled", (result.skip_message or "").count("cancelled: "))

    def _settle(self) -> None:
        """End the faults and let the orphan sensor's grace period pass, until nothing runs."""
        self._note_hits()
        self.stand.local.faults.clear()
        self._look_for_orphans(time.time())

        def nothing_runs() -> bool:
            self._look_for_orphans(time.time() + GRACE_SECONDS)
            listed = self.stand.services.list(DATABASE, SCHEMA)
            return all(item.status.is_terminal for item in listed)

        try:
            wait_until(nothing_runs, "nothing runs any more", SETTLE_SECONDS)
        except AssertionError:
            return  # the auditor says what still runs


def _crash(fate: Fate) -> dict[str, object]:
    return {"crash_at": fate.statement, "crash_after": fate.after}


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and not isinstance(error, MonadDagsterError):
        error = error.__cause__
    return error
