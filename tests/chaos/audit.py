"""The auditor: what really happened, from the account's job history, the stage and Dagster's log.

None of the client's code is used: plain statements over a plain connection, the files that scripts
left behind, and the event log.
"""

import itertools
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import snowflake.connector

from tests.chaos.location import NUM_STEPS

STAGE = "MONAD_DB.DATA_SCHEMA.MONAD_STAGE"
TERMINAL = {"DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR", "DELETED"}
NAME = re.compile(r"^TOY_(C\d+)_[0-9A-F]+_(\d+)$")
ALL_STEPS = list(range(1, NUM_STEPS + 1))


@dataclass(frozen=True)
class Service:
    """One job service of the history."""

    name: str
    partition: str
    attempt: int
    status: str
    created: Any
    completed: Any


@dataclass
class Record:
    """What Dagster recorded of one materialization."""

    run_id: str
    partition: str
    job_service: str
    execution: str
    data_version: str
    output_path: str


@dataclass
class Findings:
    """What is wrong, by kind, and how much of everything there was.

    Attributes:
        lost: Results that a script brought to its end and Dagster does not have.
        twice: Job services launched although an attempt was there already.
        unowned: Job services that still run.
        silent: Successes that nothing earned.
        counts: Runs, job services, executions, reattachments and so on.
    """

    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unowned: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        return [*self.lost, *self.twice, *self.unowned, *self.silent]


class Auditor:
    """Reads everything and compares it.

    Args:
        connection: Arguments of the connector.
        instance: The Dagster instance.
        behaviors: What each partition's script was told to do: `succeed`, how it fails, or
            `abandoned` when nobody was to retry it. Other partitions are not looked at.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        instance: dg.DagsterInstance,
        behaviors: Mapping[str, str],
    ) -> None:
        self.instance = instance
        self.behaviors = behaviors
        self.findings = Findings()
        with snowflake.connector.connect(**connection) as account:
            self.services = self._read_services(account)
            self.executions = self._read_executions(account)
            self.manifests = self._read_manifests(account)
        self.runs = [
            run for run in instance.get_runs() if run.tags.get("dagster/partition") in behaviors
        ]
        self.records = self._read_records()

    def audit(self) -> Findings:
        """Compare, and return what was found."""
        self._look_for_double_launches()
        self._look_for_lost_results()
        self._look_for_unowned()
        self._look_for_silent_successes()
        self._count()
        return self.findings

    # --- reading

    def _read_services(self, account: Any) -> dict[str, list[Service]]:
        cursor = account.cursor(snowflake.connector.DictCursor)
        cursor.execute("SELECT * FROM TABLE(SNOWFLAKE.SPCS.GET_JOB_HISTORY(RESULT_LIMIT => 10000))")
        found: dict[str, list[Service]] = defaultdict(list)
        for row in cursor.fetchall():
            match = NAME.match(row["NAME"])
            if match and match[1].lower() in self.behaviors:
                partition, attempt = match[1].lower(), int(match[2])
                times = (row["CREATED_TIME"], row["COMPLETED_TIME"])
                found[partition].append(
                    Service(row["NAME"], partition, attempt, row["STATUS"], *times)
                )
        return {key: sorted(value, key=lambda s: s.created) for key, value in found.items()}

    def _read_executions(self, account: Any) -> dict[str, dict[str, bool]]:
        """Return the executions of each job service, and whether each came to its end."""
        found: dict[str, dict[str, bool]] = defaultdict(dict)
        for name in self._list(account, "executions/"):
            _, partition, service, execution = name.split("/")
            if partition not in self.behaviors:
                continue
            execution, _, through = execution.partition(".")
            found[service][execution] = found[service].get(execution, False) or bool(through)
        return found

    def _read_manifests(self, account: Any) -> dict[str, str]:
        """Return the data version that each output directory's manifest states."""
        found = {}
        with tempfile.TemporaryDirectory() as directory:
            for name in self._list(account, "toy/"):
                if name.endswith("/lineage.json"):
                    target = Path(directory) / name.replace("/", "-")
                    target.mkdir()
                    account.cursor().execute(f"GET @{STAGE}/{name} 'file://{target}/'")
                    manifest = json.loads((target / "lineage.json").read_text())
                    found[name.rpartition("/")[0]] = manifest["data_version"]
        return found

    def _list(self, account: Any, prefix: str) -> list[str]:
        cursor = account.cursor(snowflake.connector.DictCursor)
        cursor.execute(f"LIST @{STAGE}/{prefix}")
        return [row["name"].partition("/")[2] for row in cursor.fetchall()]

    def _read_records(self) -> list[Record]:
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        records = []
        for run in self.runs:
            for entry in self.instance.all_logs(run.run_id, of_type=kind):
                event = entry.dagster_event.event_specific_data.materialization
                metadata = {key: value.value for key, value in event.metadata.items()}
                records.append(
                    Record(
                        run_id=run.run_id,
                        partition=event.partition,
                        job_service=str(metadata.get("spcs/job_name")).rpartition(".")[2],
                        execution=str(metadata.get("execution")),
                        data_version=str((event.tags or {}).get("dagster/data_version")),
                        output_path=str(metadata.get("spcs/output_path")),
                    )
                )
        return records

    # --- comparing

    def _look_for_double_launches(self) -> None:
        wrong = self.findings.twice
        for partition, services in self.services.items():
            attempts = [service.attempt for service in services]
            if attempts != list(range(1, len(services) + 1)):
                wrong.append(f"{partition}: attempts {attempts} were launched")
            for earlier, later in itertools.pairwise(services):
                if earlier.status == "DONE":
                    wrong.append(f"{later.name} was launched although {earlier.name} is DONE")
                elif earlier.completed is None or earlier.completed > later.created:
                    wrong.append(f"{later.name} was launched while {earlier.name} was active")
        for service, executions in self.executions.items():
            if len(executions) > 1:
                wrong.append(f"{service} was executed {len(executions)} times")

    def _look_for_lost_results(self) -> None:
        have = {(record.partition, record.execution) for record in self.records}
        for partition, behavior in self.behaviors.items():
            if behavior != "succeed":
                continue
            services = self.services.get(partition, [])
            through = [
                execution
                for service in services
                if service.status == "DONE"
                for execution, is_through in self.executions.get(service.name, {}).items()
                if is_through
            ]
            if not through:
                statuses = [service.status for service in services]
                self.findings.lost.append(f"{partition}: no job service was brought to {statuses}")
            self.findings.lost += [
                f"{partition}: the result of execution {execution} is not in Dagster"
                for execution in through
                if (partition, execution) not in have
            ]

    def _look_for_unowned(self) -> None:
        for services in self.services.values():
            for service in services:
                if service.status not in TERMINAL:
                    self.findings.unowned.append(f"{service.name} is still {service.status}")

    def _look_for_silent_successes(self) -> None:
        wrong = self.findings.silent
        status = {s.name: s.status for services in self.services.values() for s in services}
        for record in self.records:
            behavior = self.behaviors[record.partition]
            if behavior not in ("succeed", "abandoned"):
                wrong.append(f"{record.partition}: a script that fails ({behavior}) has a result")
            if status.get(record.job_service) != "DONE":
                wrong.append(f"{record.job_service} has a result and is not DONE")
            if not self.executions.get(record.job_service, {}).get(record.execution):
                wrong.append(f"{record.job_service} has a result of an execution nobody saw end")
            path = record.output_path.partition("MONAD_STAGE/")[2]
            if self.manifests.get(path) != record.data_version:
                wrong.append(f"{record.partition}: Dagster has another version than {path}")
        results = Counter(record.run_id for record in self.records)
        for run in self.runs:
            if run.status is not dg.DagsterRunStatus.SUCCESS:
                continue
            if results[run.run_id] != 1:
                wrong.append(f"run {run.run_id} succeeded with {results[run.run_id]} results")
            heard = self._steps(run.run_id)
            if heard[-NUM_STEPS:] != ALL_STEPS or not _is_made_of_beginnings(heard):
                wrong.append(f"run {run.run_id} succeeded and heard {heard}")

    def _steps(self, run_id: str) -> list[int]:
        kind = dg.DagsterEventType.ASSET_OBSERVATION
        entries = self.instance.all_logs(run_id, of_type=kind)
        metadata = [
            e.dagster_event.asset_observation_data.asset_observation.metadata for e in entries
        ]
        return [m["training/step"].value for m in metadata if "training/step" in m]

    def _count(self) -> None:
        counts = self.findings.counts
        counts["materializations"] = len(self.behaviors)
        counts["runs"] = len(self.runs)
        counts["results"] = len(self.records)
        counts["job services"] = sum(len(services) for services in self.services.values())
        counts["executions"] = sum(len(found) for found in self.executions.values())
        for services in self.services.values():
            for service in services:
                counts[f"job services {service.status}"] += 1
        for run in self.runs:
            counts[f"runs {run.status.value}"] += 1
            messages = [entry.message or "" for entry in self.instance.all_logs(run.run_id)]
            counts["reattachments"] += any("Reattached to" in message for message in messages)


def _is_made_of_beginnings(heard: list[int]) -> bool:
    """Tell whether the steps are those of one or more attempts, each heard from its first step."""
    previous = 0
    for step in heard:
        if step not in (1, previous + 1):
            return False
        previous = step
    return True
