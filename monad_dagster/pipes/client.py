"""A Pipes client that runs a materialization as a Snowflake job service.

Works with any image and any asset: give it a connection, a stage, a pool and a command. What
happens during a call is in `invocation`; this module is the resource and its settings.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster import (
    ConfigurableResource,
    PipesClient,
    PipesClientCompletedInvocation,
    ResourceDependency,
)
from dagster_snowflake import SnowflakeResource
from pydantic import Field

from monad_dagster.errors import ConfigError, problem
from monad_dagster.pipes import compat
from monad_dagster.pipes.interrupts import OnInterrupt
from monad_dagster.pipes.invocation import Invocation
from monad_dagster.pipes.launch import InvocationSettings, LaunchOptions, LaunchRequest
from monad_dagster.pipes.named_connection import NamedConnection
from monad_dagster.pipes.scripts import script_files
from monad_dagster.pipes.wait import WaitLimits
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, StagePath, resolve_identifier
from monad_dagster.spcs.lineage import LineageInput
from monad_dagster.spcs.spec import JobSpec, SpecSettings
from monad_dagster.spcs.spec_checks import spec_from_mapping
from monad_dagster.spcs.stage import StageClient

APPLICATION = "monad-dagster"


class PipesSPCSClient(ConfigurableResource, PipesClient):
    """Runs each call as one asynchronous job service and brings its results back."""

    snowflake: ResourceDependency[SnowflakeResource] = Field(  # type: ignore[assignment]
        default_factory=NamedConnection,
        description="A `SnowflakeResource`: who connects, and how; by default the default "
        "connection of connections.toml.",
    )
    stage: str = Field(
        default="MONAD_STAGE",
        description="Stage that the containers mount; job services belong to its database and "
        "schema.",
    )
    database: str = Field(default="MONAD_DB", description="Database of a stage named without one.")
    job_schema: str = Field(
        default="DATA_SCHEMA", description="Schema of a stage named without one."
    )
    mount_path: str = Field(default="/app/monad_stage", description="Where they mount it.")
    compute_pool: str = Field(default="MONAD_COMPUTE_POOL_GPU", description="Pool to run on.")
    image: str = Field(default="", description="Image path with tag, when a call names none.")
    query_warehouse: str | None = Field(
        default=None, description="Default warehouse for SQL from the containers."
    )
    external_access_integrations: list[str] = Field(
        default_factory=list, description="Integrations that open outbound hosts."
    )
    gpus: int | None = Field(default=None, description="GPUs a container; all of the family.")
    memory: str | None = Field(default=None, description="Memory a container, such as 24Gi.")
    cpu: float | None = Field(default=None, description="CPUs a container.")
    shared_memory: str | None = Field(default=None, description="Size of /dev/shm.")
    stage_memory: str | None = Field(
        default="2Gi", description="Memory limit of the stage mount; none keeps 1Gi."
    )
    uid: int = Field(default=1000, description="Owner of the mounted files.")
    gid: int = Field(default=1000, description="Group of the mounted files.")
    job_name_prefix: str = Field(default="", description="In front of every job service name.")
    poll_interval_seconds: float = Field(default=5.0, gt=0, description="Shortest poll interval.")
    max_poll_interval_seconds: float = Field(default=15.0, gt=0, description="Longest one.")
    drain_timeout_seconds: float = Field(
        default=120.0, ge=0, description="How long late messages are waited for after the end."
    )
    log_wait_seconds: float = Field(
        default=60.0,
        ge=0,
        description="How long the event table is waited for when lines were missed on the node.",
    )
    statement_timeout_seconds: int = Field(
        default=60, gt=0, description="How long one statement may take before it counts as lost."
    )
    max_queue_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Limit before RUNNING, of each attempt; none waits for ever.",
    )
    max_runtime_seconds: float | None = Field(
        default=None, gt=0, description="Limit after RUNNING; none waits for ever."
    )
    stall_seconds: float | None = Field(
        default=900.0,
        gt=0,
        description="A silence of heartbeats, or a step that stays the same, for so long is warned "
        "of; none never warns.",
    )
    cancel_stalled: bool = Field(
        default=False, description="Whether such a job service is cancelled, and the step fails."
    )
    gang_timeout_seconds: float | None = Field(
        default=900.0,
        gt=0,
        description="How long started replicas wait for the others before all are cancelled.",
    )
    forward_termination: bool = Field(
        default=True, description="Whether a cancelled run cancels its job service."
    )
    on_interrupt: str = Field(
        default="auto", description="auto: cancel for a user, else detach; or cancel, or detach."
    )
    max_infrastructure_retries: int = Field(
        default=2,
        ge=0,
        description="Further attempts after a failure of the platform, in one run.",
    )
    retry_delay_seconds: float = Field(default=30.0, ge=0, description="Before each of them.")
    observation_interval_seconds: float = Field(
        default=30.0, ge=0, description="Shortest time between two observations of progress."
    )
    lineage_table: str | None = Field(
        default=None, description="Table that gets one row for each edge; none writes no rows."
    )
    credits_per_hour: dict[str, float] = Field(
        default_factory=dict, description="Credit rates by instance family."
    )
    region_timezone: str | None = Field(
        default=None,
        description="Time zone of the account's region, for maintenance windows; known for common "
        "regions.",
    )

    def __repr__(self) -> str:
        """Show where job services run; the connection's own fields would show its password."""
        return f"PipesSPCSClient({self.stage_root}, pool {self.compute_pool})"

    __str__ = __repr__

    def run(  # type: ignore[override]
        self,
        *,
        context: compat.ExecutionContext,
        extras: Mapping[str, Any] | None = None,
        command: Sequence[str] = (),
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        spec: JobSpec | Mapping[str, Any] | None = None,
        image: str | None = None,
        image_digest: str | None = None,
        output_path: str | None = None,
        inputs: Sequence[LineageInput] | Mapping[str, str] = (),
        options: LaunchOptions | None = None,
    ) -> PipesClientCompletedInvocation:
        """Run a job service for the executing step, or reattach to the one it has already.

        Args:
            context: The executing step.
            extras: Reaches the container through the Pipes context.
            command: Entry point of the container; the image's own when empty. In it, in the
                arguments and in the environment, `{output_path}` stands for the attempt's output
                directory.
            args: Arguments.
            env: Environment variables.
            spec: A complete specification instead of command, args and env.
            image: Image path with tag; the resource's when not given.
            image_digest: Digest the tag must have; looked up when not given.
            output_path: Stage directory in which each attempt gets its own directory.
            inputs: What the output is made from, as lineage inputs or asset name to version.
            options: What this call does differently from the resource.

        Returns:
            The invocation. Its `get_results()` are complete: every selected asset was reported,
            or this call has failed. With `require_materialization` off, take them with
            `implicit_materializations=False`.

        Raises:
            dagster.Failure: The job service failed for good, or its results are incomplete.
            dagster.RetryRequested: The platform failed and another attempt is allowed.
        """
        request = LaunchRequest(
            image=self._image(image, spec),
            stage=self.stage_root,
            settings=self._spec_settings(options or LaunchOptions()),
            command=tuple(command),
            args=tuple(str(part) for part in args),
            env=dict(env or {}),
            spec=spec_from_mapping(spec) if isinstance(spec, Mapping) else spec,
            output_path=output_path,
            inputs=_lineage_inputs(inputs),
            options=options or LaunchOptions(),
        )
        with self.session(query_tag=query_tag(context)) as session:
            invocation = Invocation(
                context, session, request, self._settings(request.options), image_digest
            )
            return invocation.run(dict(extras or {}))

    def upload_scripts(self, directory: Path | str, *, to: str = "scripts") -> str:
        """Upload a folder to the stage, with what a script needs to report to Dagster.

        Args:
            directory: Folder with the scripts.
            to: Stage directory; what is there under the same names is replaced.

        Returns:
            The directory as the container sees it.
        """
        target = self.stage_root / to
        with self.session() as session:
            stage = StageClient(session)
            for name, file in script_files(Path(directory)).items():
                stage.put_file(file, target / name)
        return target.mounted(self.mount_path)

    @property
    def stage_root(self) -> StagePath:
        """The root of the stage."""
        return StagePath(
            QualifiedName.parse(
                self.stage,
                database=resolve_identifier(self.database),
                schema=resolve_identifier(self.job_schema),
            )
        )

    def session(self, *, query_tag: Mapping[str, Any] | None = None) -> Session:
        """Return a session of the resource's connection, for other statements of an asset."""
        managers: list[Any] = []

        def open_connection() -> Any:
            # The resource's context manager does not close on an error; the session closes.
            manager = self.snowflake.get_connection(raw_conn=True)
            managers.append(manager)
            return manager.__enter__()

        return Session(
            open_connection,
            query_tag=query_tag or {"app": APPLICATION},
            statement_seconds=self.statement_timeout_seconds,
        )

    def _beside_the_stage(self, name: str) -> QualifiedName:
        home = self.stage_root.stage
        return QualifiedName.parse(name, database=home.database, schema=home.schema)

    def _stage_in_spec(self) -> str:
        text = str(self.stage_root)
        return text if '"' in text else text.lower()

    def _image(self, image: str | None, spec: object) -> str:
        chosen = image or self.image
        if not chosen and spec is None:
            raise ConfigError(
                problem("No image was given", "", "Set image on the resource or in the call")
            )
        return chosen

    def _spec_settings(self, options: LaunchOptions) -> SpecSettings:
        return SpecSettings(
            stage=self._stage_in_spec(),
            mount_path=self.mount_path,
            gpus=self.gpus if options.gpus is None else options.gpus,
            memory=options.memory or self.memory,
            cpu=self.cpu,
            shared_memory=options.shared_memory or self.shared_memory,
            stage_memory=self.stage_memory,
            uid=self.uid,
            gid=self.gid,
        )

    def _settings(self, options: LaunchOptions) -> InvocationSettings:
        return InvocationSettings(
            compute_pool=resolve_identifier(options.compute_pool or self.compute_pool),
            query_warehouse=_resolved(self.query_warehouse),
            external_access_integrations=tuple(
                resolve_identifier(name) for name in self.external_access_integrations
            ),
            job_name_prefix=self.job_name_prefix,
            limits=WaitLimits(
                poll_seconds=self.poll_interval_seconds,
                max_poll_seconds=max(self.max_poll_interval_seconds, self.poll_interval_seconds),
                max_queue_seconds=options.max_queue_seconds or self.max_queue_seconds,
                max_runtime_seconds=options.max_runtime_seconds or self.max_runtime_seconds,
            ),
            drain_timeout_seconds=self.drain_timeout_seconds,
            forward_termination=self.forward_termination,
            on_interrupt=OnInterrupt.parse(self.on_interrupt),
            max_infrastructure_retries=self.max_infrastructure_retries,
            retry_delay_seconds=self.retry_delay_seconds,
            observation_interval_seconds=self.observation_interval_seconds,
            log_wait_seconds=self.log_wait_seconds,
            stall_seconds=self.stall_seconds,
            cancel_stalled=self.cancel_stalled,
            gang_timeout_seconds=self.gang_timeout_seconds,
            region_timezone=self.region_timezone,
            lineage_table=self._beside_the_stage(self.lineage_table)
            if self.lineage_table
            else None,
            credits_per_hour=dict(self.credits_per_hour),
        )


def query_tag(context: compat.ExecutionContext) -> dict[str, Any]:
    """Build the query tag of a step: who sends the statements, and for what."""
    tag: dict[str, Any] = {"app": APPLICATION, "run_id": context.run.run_id}
    if context.has_assets_def:
        keys = sorted(key.to_user_string() for key in context.selected_asset_keys)
        tag["assets"] = ",".join(keys)
    partition = compat.partition_key_of(context)
    if partition is not None:
        tag["partition"] = partition
    return tag


def _resolved(name: str | None) -> str | None:
    return resolve_identifier(name) if name else None


def _lineage_inputs(
    inputs: Sequence[LineageInput] | Mapping[str, str],
) -> tuple[LineageInput, ...]:
    if isinstance(inputs, Mapping):
        return tuple(LineageInput("asset", name, version) for name, version in inputs.items())
    return tuple(inputs)
