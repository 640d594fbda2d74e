"""What one call of the client wants to run, and the specification each attempt of it gets."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monad_dagster.errors import ConfigError, problem
from monad_dagster.pipes.interrupts import OnInterrupt
from monad_dagster.pipes.ledger import Attempt
from monad_dagster.pipes.naming import attempt_name
from monad_dagster.pipes.pacing import Clock
from monad_dagster.pipes.places import RUNS_DIRECTORY, log_path, run_directory
from monad_dagster.pipes.wait import WaitLimits
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.instance_families import InstanceFamily
from monad_dagster.spcs.lineage import LineageInput
from monad_dagster.spcs.spec import (
    MAIN_CONTAINER,
    JobSpec,
    SpecSettings,
    StageVolume,
    build_spec,
)

RUN_DIRECTORY_VARIABLE = "MONAD_RUN_DIRECTORY"
OUTPUT_PLACEHOLDER = "{output_path}"


@dataclass(frozen=True)
class LaunchOptions:
    """What one launch does differently from the resource.

    Attributes:
        compute_pool: Pool to run on.
        replicas: Number of identical instances.
        gpus: GPUs of the main container.
        memory: Memory of the main container.
        shared_memory: Size of /dev/shm.
        resume_args: Arguments added when an attempt continues an earlier one; empty means that
            the script cannot resume.
        max_queue_seconds: Longest time before RUNNING.
        max_runtime_seconds: Longest time after RUNNING.
        require_materialization: Whether every selected asset must be reported by the container.
        speaks_pipes: Whether the container sends Pipes messages at all; without, DONE is success.
        lineage_details: Anything to note in the lineage table.
    """

    compute_pool: str | None = None
    replicas: int | None = None
    gpus: int | None = None
    memory: str | None = None
    shared_memory: str | None = None
    resume_args: Sequence[str] = ("--resume",)
    max_queue_seconds: float | None = None
    max_runtime_seconds: float | None = None
    require_materialization: bool = True
    speaks_pipes: bool = True
    lineage_details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.replicas is not None and self.replicas < 1:
            raise ConfigError(
                problem(f"replicas is {self.replicas}", "", "Give 1 or more, or leave it out")
            )


@dataclass(frozen=True)
class InvocationSettings:
    """The resource's settings, resolved for one call."""

    compute_pool: str
    query_warehouse: str | None = None
    external_access_integrations: tuple[str, ...] = ()
    job_name_prefix: str = ""
    limits: WaitLimits = field(default_factory=WaitLimits)
    drain_timeout_seconds: float = 120.0
    forward_termination: bool = True
    on_interrupt: OnInterrupt = OnInterrupt.AUTO
    max_infrastructure_retries: int = 2
    retry_delay_seconds: float = 30.0
    observation_interval_seconds: float = 30.0
    log_wait_seconds: float = 60.0
    stall_seconds: float | None = 900.0
    cancel_stalled: bool = False
    gang_timeout_seconds: float | None = 900.0
    region_timezone: str | None = None
    lineage_table: QualifiedName | None = None
    credits_per_hour: Mapping[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True)
class LaunchRequest:
    """What to run, independent of the attempt.

    In `command`, `args`, `env` and the specification's own, `{output_path}` and `{run_directory}`
    stand for directories as the container sees them, `{attempt}` for the attempt's name.

    Attributes:
        image: Image path with its tag.
        stage: The stage of context, messages and outputs.
        settings: What all specifications share.
        command: Entry point of the main container.
        args: Arguments of the main container.
        env: Environment of the main container.
        spec: A complete specification instead of command, args and env.
        output_path: Directory below the stage in which each attempt gets its own.
        inputs: What the output is made from.
        options: What is different from the resource.
    """

    image: str
    stage: StagePath
    settings: SpecSettings
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    spec: JobSpec | None = None
    output_path: str | None = None
    inputs: Sequence[LineageInput] = ()
    options: LaunchOptions = field(default_factory=LaunchOptions)

    def __post_init__(self) -> None:
        """Refuse what would only be noticed in the container, or not at all.

        Raises:
            ConfigError: Two things were given that exclude one another, or the output directory is
                missing or would hold context and messages.
        """
        if self.spec is not None and (self.command or self.args or self.env):
            raise ConfigError(
                problem("spec was given together with command, args or env", "", "Give one")
            )
        place = self.stage / (self.output_path or "")
        if self.output_path and place.path.split("/")[0] in ("", RUNS_DIRECTORY):
            raise ConfigError(
                problem(
                    f"output_path {self.output_path!r} cannot be used",
                    f"{self.stage / RUNS_DIRECTORY} holds context and messages of every attempt",
                    "Choose another directory of the stage, such as the asset's name",
                )
            )
        texts = (*self.command, *self.args, *self.env.values())
        if self.spec is not None:
            texts = (*self.spec.main.args, *self.spec.main.env.values())
        if not self.output_path and any(OUTPUT_PLACEHOLDER in text for text in texts):
            raise ConfigError(
                problem(
                    f"{OUTPUT_PLACEHOLDER} stands for no directory",
                    "The call names no output_path",
                    "Give output_path, the stage directory that holds the attempts' directories",
                )
            )

    @property
    def mount_path(self) -> str:
        """Where the container sees the stage.

        Raises:
            ConfigError: The given specification does not mount it.
        """
        if self.spec is None:
            return self.settings.mount_path
        for volume in self.spec.volumes:
            if not isinstance(volume, StageVolume):
                continue
            if StagePath.parse(volume.stage) == StagePath(self.stage.stage):
                for mount in self.spec.main.mounts:
                    if mount.name == volume.name:
                        return mount.mount_path
        raise ConfigError(
            problem(
                f"The specification does not mount {self.stage}",
                "Context and messages travel over that stage",
                "Mount it with source: stage and stageConfig.name",
            )
        )

    @property
    def container_names(self) -> tuple[str, ...]:
        """Names of the containers that are ours to watch."""
        if self.spec is None:
            return (MAIN_CONTAINER,)
        return tuple(container.name for container in self.spec.containers)

    def run_directory(self, attempt: Attempt) -> StagePath:
        """Return the stage directory of an attempt's context and messages."""
        return run_directory(self.stage, attempt.name)

    def log_path(self, attempt: Attempt) -> StagePath:
        """Return where an attempt's log is archived: beside its output when it has one."""
        return log_path(self.stage, attempt.name, self.output_path)

    def output_directory(self, output_name: str) -> StagePath | None:
        """Return the stage directory of an output."""
        return self.stage / self.output_path / output_name if self.output_path else None

    def mounted(self, path: StagePath) -> str:
        """Return a stage path as the container sees it."""
        return path.mounted(self.mount_path)

    def spec_for(self, attempt: Attempt, family: InstanceFamily | None) -> JobSpec:
        """Return what *attempt* runs, without the variables that differ from launch to launch."""
        known = self._placeholders(attempt)
        resume = tuple(self.options.resume_args) if attempt.resumed else ()
        if self.spec is not None:
            spec = self.spec
            args = tuple(_fill(a, known) for a in spec.main.args) + resume
            env = {key: _fill(value, known) for key, value in spec.main.env.items()}
            return spec.with_args(args).with_env(env) if env else spec.with_args(args)
        return build_spec(
            image=self.image,
            command=tuple(_fill(part, known) for part in self.command),
            args=tuple(_fill(part, known) for part in self.args) + resume,
            env={key: _fill(value, known) for key, value in self.env.items()},
            settings=self.settings,
            family=family,
        )

    def fingerprint(self, family: InstanceFamily | None, image_digest: str | None) -> str:
        """Hash what is asked for: the same for every attempt, another when an input changes."""
        template = self.spec_for(_ANY_ATTEMPT, family).sha256
        inputs = sorted((i.kind, i.name, i.version or "") for i in self.inputs)
        text = json.dumps([template, image_digest, inputs, self.options.replicas])
        return hashlib.sha256(text.encode()).hexdigest()

    def launch_variables(self, attempt: Attempt) -> dict[str, str]:
        """Return the variables that differ from launch to launch."""
        # The directory in plain text, beside the encoded Pipes parameters: a runner that maps
        # mount paths can map this one.
        return {RUN_DIRECTORY_VARIABLE: self.mounted(self.run_directory(attempt))}

    def _placeholders(self, attempt: Attempt) -> dict[str, str]:
        known = {
            "{attempt}": attempt_name(attempt.name.name),
            "{run_directory}": self.mounted(self.run_directory(attempt)),
        }
        output = self.output_directory(attempt.output_name)
        if output is not None:
            known[OUTPUT_PLACEHOLDER] = self.mounted(output)
        return known


_ANY_ATTEMPT = Attempt(0, QualifiedName("ANY", "ANY", "ANY"), "any")


def _fill(text: str, known: Mapping[str, str]) -> str:
    for placeholder, value in known.items():
        text = text.replace(placeholder, value)
    return text
