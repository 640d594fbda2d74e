"""Submit latency, time from the end to the record, and statements while waiting.

The same container runs twice in each round: once by a plain statement that is polled, and once as an
asset. Statements are counted where they are sent, in the session.
"""

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import dagster as dg
import snowflake.connector
from dagster_snowflake import SnowflakeResource

from bench.figures import Figure
from monad_dagster.local import LocalAccount
from monad_dagster.pipes import PipesSPCSClient
from monad_dagster.pipes.scripts import helper_files
from monad_dagster.spcs.account_setup import AccountLayout, apply_setup
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.job_service import JobOptions, JobServices
from monad_dagster.spcs.oci_image import ImageConfig, build_layout
from monad_dagster.spcs.spec import SpecSettings, build_spec
from monad_dagster.spcs.stage import StageClient

ROUNDS = 3
WAIT_SECONDS = 30  # of the job service during which statements are counted
LAYOUT = AccountLayout(instance_family="CPU_X64_S", data_schemas=())
IMAGE = "/monad_db/data_schema/image_repository/bench:1"
SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).parent))
from job_support import job_run
output = Path(sys.argv[1])
with job_run(script="bench", output=output) as job:
    time.sleep(float(sys.argv[2]))
    output.mkdir(parents=True, exist_ok=True)
    (output / "result.txt").write_text("done")
    job.finish()
"""


@dataclass
class Counter:
    """Sessions that count what they send, and when."""

    sent: list[tuple[float, str]] = field(default_factory=list)

    def watch(self, session: Session) -> Session:
        """Note every statement of *session*."""
        execute = session.execute

        def counting(statement):
            started = time.time()
            try:
                return execute(statement)
            finally:
                self.sent.append((started, statement.kind, time.time() - started))

        session.execute = counting
        return session


class CountedClient(PipesSPCSClient):
    """The client as it is, with its session watched."""

    def session(self, *, query_tag=None) -> Session:
        """Return a session that counts."""
        return COUNTER.watch(super().session(query_tag=query_tag))


COUNTER = Counter()


@contextlib.contextmanager
def prepared_account() -> Iterator[dict]:
    """Start a local account with the pipeline's objects, an image and the script."""
    folder = Path(tempfile.mkdtemp(prefix="bench-pipes-"))
    account = LocalAccount(folder / "local")
    try:
        account.start()
        with _session(account.connection("ADMIN")) as session:
            apply_setup(session, LAYOUT)
        arguments = account.connection()
        with _session(arguments) as session:
            build_layout(folder / "image", {}, ImageConfig(env={"PYTHONUNBUFFERED": "1"}))
            repository = ImageRepository(session, LAYOUT.qualified(LAYOUT.image_repository))
            repository.push_layout(folder / "image", image="bench", tag="1")
            root, stage = _client(arguments).stage_root, StageClient(session)
            stage.put_text(SCRIPT, root / "code/bench.py")
            for name, file in helper_files().items():
                stage.put_file(file, root / "code" / name)
        yield arguments
    finally:
        account.reset()
        shutil.rmtree(folder, ignore_errors=True)


def _session(arguments: dict) -> Session:
    return Session(lambda: snowflake.connector.connect(**arguments))


def _client(arguments: dict, **changes) -> PipesSPCSClient:
    names = ("host", "port", "protocol")
    direct = ("account", "user", "password", "role", "warehouse", "database", "schema")
    resource = SnowflakeResource(
        **{name: arguments[name] for name in direct},
        additional_snowflake_connection_args={name: arguments[name] for name in names},
    )
    return CountedClient(snowflake=resource, image=IMAGE, gpus=0, **changes)


def overheads() -> list[Figure]:
    """Measure both ways in turn and compare."""
    plain_submits, plain_ends, submits, ends = [], [], [], []
    with prepared_account() as arguments, dg.instance_for_test() as instance:
        for number in range(ROUNDS):
            submit, end = plain(arguments, number)
            plain_submits.append(submit)
            plain_ends.append(end)
            submit, end = materialized(arguments, instance, seconds=1.0)
            submits.append(submit)
            ends.append(end)
        per_minute, share = statements_while_waiting(arguments, instance)
    rounds = f"median of {ROUNDS}"
    plain_submit, plain_end = statistics.median(plain_submits), statistics.median(plain_ends)
    return [
        Figure("submit: plain statement", plain_submit, "s", note=rounds),
        Figure(
            "submit: step start to accepted",
            statistics.median(submits),
            "s",
            peer=f"{plain_submit:.2f} s",
            note=f"{rounds}; look-ups, checks, context upload and the statement",
        ),
        Figure("end to seen: plain poll each second", plain_end, "s", note=rounds),
        Figure(
            "end to recorded materialization",
            statistics.median(ends),
            "s",
            peer=f"{plain_end:.2f} s",
            note=f"{rounds}; messages, log archive, exit codes and lineage included",
        ),
        Figure(
            "statements per minute while running",
            per_minute,
            "",
            peer="60 (plain poll each second)",
            note=f"default intervals; {share}",
        ),
    ]


def plain(arguments: dict, number: int) -> tuple[float, float]:
    """Run the script by a plain statement; return submit seconds and end-to-seen seconds."""
    spec = build_spec(
        image=IMAGE,
        command=("python",),
        args=("/app/monad_stage/code/bench.py", f"/app/monad_stage/plain/{number}", "1"),
        settings=SpecSettings(stage="@monad_db.data_schema.monad_stage", gpus=0),
    )
    name = QualifiedName("MONAD_DB", "DATA_SCHEMA", f"PLAIN_{number}")
    with _session(arguments) as session:
        services = JobServices(session)
        session.call(lambda connection: None)  # the login is no part of the submission
        started = time.time()
        services.submit(name, spec, JobOptions(LAYOUT.compute_pool))
        submitted = time.time() - started
        while not services.describe(name).status.is_terminal:
            time.sleep(1.0)
        seen = time.time()
        return submitted, seen - _completed(services, name)


def _completed(services: JobServices, name: QualifiedName) -> float:
    row = services.find_in_history(name=name)
    completed = row["completed_time"]
    assert isinstance(completed, datetime)
    return completed.timestamp()


def bench_asset(seconds: float) -> dg.AssetsDefinition:
    """Build the asset that runs the same script."""

    @dg.asset(name="bench")
    def bench(context: dg.AssetExecutionContext, client: CountedClient):
        return client.run(
            context=context,
            command=["python"],
            args=["/app/monad_stage/code/bench.py", "{output_path}", str(seconds)],
            output_path="bench",
        ).get_results(implicit_materializations=False)

    return bench


def materialized(
    arguments: dict, instance: dg.DagsterInstance, *, seconds: float, **changes
) -> tuple[float, float]:
    """Materialize; return seconds from step start to accepted, and from the end to the record."""
    COUNTER.sent.clear()
    client = _client(arguments, lineage_table="LINEAGE", **changes)
    result = dg.materialize([bench_asset(seconds)], resources={"client": client}, instance=instance)
    (event,) = result.get_asset_materialization_events()
    name = QualifiedName.parse(event.materialization.metadata["spcs/job_name"].value)
    logs = instance.all_logs(result.run_id)
    started = next(e.timestamp for e in logs if _is(e, "STEP_START"))
    recorded = next(e.timestamp for e in logs if _is(e, "ASSET_MATERIALIZATION"))
    accepted = next(at + took for at, kind, took in COUNTER.sent if kind.startswith("EXECUTE JOB"))
    with _session(arguments) as session:
        return accepted - started, recorded - _completed(JobServices(session), name)


def _is(entry, kind: str) -> bool:
    return entry.dagster_event is not None and entry.dagster_event.event_type_value == kind


def statements_while_waiting(arguments: dict, instance: dg.DagsterInstance) -> tuple[float, str]:
    """Count what is sent while a job service runs, with the resource's default intervals."""
    materialized(arguments, instance, seconds=WAIT_SECONDS)
    start = next(at for at, kind, _ in COUNTER.sent if kind.startswith("EXECUTE JOB"))
    waiting = [kind for at, kind, _ in COUNTER.sent if start + 2 < at < start + WAIT_SECONDS]
    kinds: dict[str, int] = {}
    for kind in waiting:
        word = " ".join(kind.split()[:2])
        kinds[word] = kinds.get(word, 0) + 1
    share = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    return len(waiting) * 60 / (WAIT_SECONDS - 2), share
