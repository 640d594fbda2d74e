"""The stand on which the experiments run: an account, its image and scripts, a Dagster instance."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import snowflake.connector

from monad_dagster.local import LocalAccount
from monad_dagster.spcs import sql_setup
from monad_dagster.spcs.account_setup import AccountLayout, apply_setup
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.job_service import JobOptions, JobServices
from monad_dagster.spcs.oci_image import ImageConfig, build_layout, files_below
from monad_dagster.spcs.spec import SpecSettings, build_spec
from monad_dagster.spcs.stage import StageClient
from tests.chaos.location import IMAGE
from tests.chaos.workers import ROOT, Zygote, zygote

SCRIPTS = ROOT / "container" / "scripts"
DATABASE, SCHEMA, STAGE = "MONAD_DB", "DATA_SCHEMA", "MONAD_STAGE"
POOL = "CHAOS_POOL"
LAYOUT = AccountLayout(
    compute_pool=POOL,
    instance_family="CPU_X64_L",
    max_nodes=4,
    auto_suspend_seconds=0,
    create_data_schemas=False,
    data_schemas=(),
)
NODE_CPUS = 3.0  # of CPU_X64_S, the family of the small pools
CLIENT = {
    "compute_pool": POOL,
    "lineage_table": "LINEAGE",
    "cpu": 1.0,
    "memory": "1Gi",
    "shared_memory": "64Mi",
    "stage_memory": "1Gi",
    "drain_timeout_seconds": 60.0,
}
# No compute logs: each would cost two more processes a run, and nobody reads them here.
DAGSTER_YAML = """
telemetry: {enabled: false}
nux: {enabled: false}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    """Wait until a condition holds and return what it found."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come to pass within {seconds:.0f} s: {what}")


@dataclass
class Stand:
    """Everything an experiment touches.

    Attributes:
        home: Directory of plans, gates, logs and the Dagster instance.
        local: The account.
        zygote: Starts run workers.
        instance: The Dagster instance, for looking and for what a daemon does.
    """

    home: Path
    local: LocalAccount
    zygote: Zygote
    instance: dg.DagsterInstance
    _session: Session | None = None

    # --- the account

    def connect(self, user: str = "MONAD_PIPELINE") -> Session:
        """Open a session of the account."""
        return Session(lambda: snowflake.connector.connect(**self.local.connection(user)))

    @property
    def session(self) -> Session:
        """A session for looking, opened once."""
        if self._session is None:
            self._session = self.connect()
        return self._session

    def close(self) -> None:
        """Close the session for looking."""
        if self._session is not None:
            self._session.close()

    @property
    def services(self) -> JobServices:
        """The account's job services."""
        return JobServices(self.session)

    @property
    def stage(self) -> StageClient:
        """The stage's files."""
        return StageClient(self.session)

    @property
    def root(self) -> StagePath:
        """The root of the stage."""
        return StagePath(QualifiedName(DATABASE, SCHEMA, STAGE))

    def kill_account(self) -> None:
        """Kill the account's process, without warning, and start it again."""
        pid = json.loads((self.local.state_dir / "server.json").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        # Its lock goes with the process; until then `start` would take the dead one for alive.
        wait_until(lambda: not self.local._is_locked(), "the account's lock is free")
        self.local.start(wait_seconds=90)

    def add_pool(self, name: str, *, family: str = "CPU_X64_S", max_nodes: int = 1) -> None:
        """Create a pool; of one small node when nothing else is said."""
        with self.connect("ADMIN") as admin:
            admin.execute(
                sql_setup.create_compute_pool(
                    name,
                    instance_family=family,
                    min_nodes=1,
                    max_nodes=max_nodes,
                    auto_suspend_seconds=0,
                )
            )
            for privilege in ("USAGE", "MONITOR"):
                admin.execute(sql_setup.grant_on_compute_pool(privilege, name, LAYOUT.role))

    def fill_pool(self, pool: str) -> QualifiedName:
        """Occupy a small pool with a job service that is not ours; return its name."""
        name = QualifiedName(DATABASE, SCHEMA, f"BLOCKER_{pool}")
        spec = build_spec(
            image=IMAGE,
            command=("sleep", "3600"),
            settings=SpecSettings(
                stage=f"@{self.root.stage}".lower(), gpus=0, cpu=NODE_CPUS - 0.5, memory="1Gi"
            ),
        )
        self.services.submit(name, spec, JobOptions(pool))
        wait_until(
            lambda: self.services.describe(name).raw_status == "RUNNING", f"{name} is running"
        )
        return name

    # --- plans, gates and what scripts left behind

    def plan(self, partition: str, **plan: Any) -> None:
        """Say how the materialization of a partition goes, to its worker and to its script."""
        text = json.dumps(plan)
        (self.home / "plans" / f"{partition}.json").write_text(text)
        self.stage.put_text(text, self.root / f"plans/{partition}.json")

    def open_gates(self, partition: str) -> None:
        """Let script and asset go on."""
        (self.home / "gates" / partition).touch()
        self.stage.put_text("open", self.root / f"gates/{partition}")

    def bring_late_chunks(self, partition: str, run_directory: StagePath) -> None:
        """Deliver the chunks that a late stage held back."""
        aside = self.root / f"late/{partition}"
        with tempfile.TemporaryDirectory() as directory:
            for file in self.stage.list(aside):
                local = self.stage.get_file(file.path, Path(directory))
                self.stage.put_file(local, run_directory / "messages" / file.path.file_name)

    # --- Dagster

    def messages_of(self, run_id: str) -> list[str]:
        """Return the messages of a run's event log, in order."""
        return [entry.message or "" for entry in self.instance.all_logs(run_id)]

    def events_of(self, run_id: str, kind: dg.DagsterEventType) -> list[Any]:
        """Return the events of a kind."""
        entries = self.instance.all_logs(run_id, of_type=kind)
        return [entry.dagster_event for entry in entries]

    def monitor(self, run_id: str) -> None:
        """Report a run as failed whose worker is gone, as the run monitor does."""
        run = self.instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self.instance.report_run_failed(run, "The run worker is gone.")


@contextmanager
def open_stand(home: Path, **client: Any) -> Iterator[Stand]:
    """Build the stand in a directory, and take it down afterwards."""
    for name in ("plans", "gates", "dagster", "logs"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "dagster" / "dagster.yaml").write_text(DAGSTER_YAML)
    (home / "client.json").write_text(json.dumps(CLIENT | client))
    local = LocalAccount(home / "account")
    local.start(wait_seconds=90)
    try:
        (home / "connection.json").write_text(json.dumps(local.connection()))
        installing = threading.Thread(target=_install, args=(local, home))
        installing.start()
        try:
            with (
                zygote(home) as forks,
                dg.DagsterInstance.from_config(str(home / "dagster")) as instance,
            ):
                installing.join()
                stand = Stand(home, local, forks, instance)
                try:
                    yield stand
                finally:
                    stand.close()
        finally:
            installing.join()
    finally:
        local.reset()


def _install(local: LocalAccount, home: Path) -> None:
    """Set the account up: objects, grants, image, scripts."""

    def connect(user: str = "MONAD_PIPELINE") -> Session:
        return Session(lambda: snowflake.connector.connect(**local.connection(user)))

    with connect("ADMIN") as session:
        apply_setup(session, LAYOUT)
    with connect() as session:
        layout = home / "image"
        layout.mkdir()
        build_layout(
            layout,
            files_below(SCRIPTS, "/opt/monad/scripts"),
            ImageConfig(env={"PYTHONUNBUFFERED": "1"}),
        )
        repository = ImageRepository(session, LAYOUT.qualified(LAYOUT.image_repository))
        repository.push_layout(layout, image="toy", tag="1")
        root = StagePath(QualifiedName(DATABASE, SCHEMA, STAGE))
        stage = StageClient(session)
        stage.put_file(SCRIPTS / "job_support.py", root / "scripts/job_support.py")
        stage.put_file(Path(__file__).with_name("chaos_job.py"), root / "scripts/chaos_job.py")
