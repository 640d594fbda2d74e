"""Turns a job service's instance into containers: images, mounts, token, environment.

Everything of a job service lies in DIR/jobs/<id>/<instance>/<container>/, so a restarted account
finds its containers again by looking there.
"""

import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from monad_dagster.local.faults_jobs import note_full_disks
from monad_dagster.local.image_rootfs import Image, ImageCache
from monad_dagster.local.job_model import InstanceState, Job, StageMount
from monad_dagster.local.runners import stage_mount
from monad_dagster.local.runners.base import Mount, Runner, RunningContainer, RunRequest
from monad_dagster.local.runners.layout import gpu_devices
from monad_dagster.local.runners.stage_mount import StageMounts
from monad_dagster.local.runners.supervise import rfc3339
from monad_dagster.local.spec import TOKEN_PATH, Container, ServiceSpec, Volume

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

CPU_NOTICE = (
    "local account: the GPU request was admitted against the instance family; this host has no "
    "GPU, so the container runs on its CPU."
)


class Launcher:
    """Starts and finds the containers of job services."""

    def __init__(self, account: "Account", runner: Runner, images: ImageCache) -> None:
        self.account = account
        self.runner = runner
        self.images = images
        self.root = account.state_dir / "jobs"
        self.root.mkdir(exist_ok=True)

    def run_dir(self, job: Job, instance: InstanceState, container: str) -> Path:
        """Return the directory of a container."""
        return self.root / job.id / str(instance.index) / container

    def image(self, job: Job, name: str) -> Image:
        """Return the unpacked image that the job service was created with."""
        ref = job.images[name]
        return self.images.get(ref.repository, ref.name, ref.digest)

    def start(
        self, job: Job, instance: InstanceState, container: Container, spec: ServiceSpec
    ) -> RunningContainer:
        """Start a container, or find the one an earlier account process started."""
        run_dir = self.run_dir(job, instance, container.name)
        found = self.runner.attach(run_dir)
        if found is not None:
            return found
        run_dir.mkdir(parents=True, exist_ok=True)
        note_full_disks(self.account, job, run_dir)
        if container.gpus and not gpu_devices():
            self._notice(run_dir, CPU_NOTICE)
        request = RunRequest(
            run_dir=run_dir,
            name=container.name,
            image=self.image(job, container.image),
            command=container.command,
            args=container.args,
            injected_env=self._environment(job, instance, container),
            spec_env=container.env,
            mounts=tuple(self._mounts(job, instance, container, spec)),
            hostname=f"{job.name.lower().replace('_', '-')[:55]}-{instance.index}",
            gpus=container.gpus,
            cpu_limit=container.limit_cpu,
            memory_limit_bytes=container.limit_memory,
        )
        mounts: StageMounts | None = self.account.extensions.get("stage_mounts")
        if mounts is None:
            return self.runner.start(request)
        # A runner that gives containers a user of their own has no `maps_user`, or False.
        request = mounts.prepare(request, own=getattr(self.runner, "maps_user", False))
        try:
            return self.runner.start(request)
        except BaseException:
            stage_mount.release(run_dir)
            raise

    def ended(self, job: Job, instance: InstanceState, container: str) -> None:
        """Take away what an ended container had mounted."""
        stage_mount.release(self.run_dir(job, instance, container))

    def attach(self, job: Job, instance: InstanceState, container: str) -> RunningContainer | None:
        """Return a container that was started before."""
        return self.runner.attach(self.run_dir(job, instance, container))

    def _notice(self, run_dir: Path, text: str) -> None:
        with (run_dir / "log").open("ab") as log:
            log.write(f"{rfc3339(time.time_ns())} stdout {text}\n".encode())

    def _environment(
        self, job: Job, instance: InstanceState, container: Container
    ) -> dict[str, str]:
        host, port = self.account.address
        env = {
            "SNOWFLAKE_ACCOUNT": self.account.name,
            "SNOWFLAKE_HOST": host,
            "SNOWFLAKE_PORT": str(port),
            "SNOWFLAKE_PROTOCOL": self.account.protocol,
            "SNOWFLAKE_DATABASE": job.database,
            "SNOWFLAKE_SCHEMA": job.schema,
            "SNOWFLAKE_SERVICE_NAME": job.name,
            # The connector would otherwise ask cloud metadata addresses at each login.
            "SNOWFLAKE_DISABLE_PLATFORM_DETECTION": "true",
        }
        if job.replicas is not None:
            env["SNOWFLAKE_JOBS_COUNT"] = str(job.replicas)
            env["SNOWFLAKE_JOB_INDEX"] = str(instance.index)
        if container.token_path:
            env["SNOWFLAKE_SESSION_TOKEN_PATH"] = container.token_path
        return env

    def _mounts(
        self, job: Job, instance: InstanceState, container: Container, spec: ServiceSpec
    ) -> list[Mount]:
        stages = {stage.volume: stage for stage in job.stages}
        mounts = []
        for mount in container.mounts:
            volume = spec.volumes[mount.name]
            if volume.source == "memory":
                mounts.append(Mount(mount.mount_path, size_bytes=volume.size_bytes))
            elif volume.source == "stage":
                mounts.append(self._stage(stages[volume.name], volume, mount.mount_path))
            else:
                folder = self.root / job.id / str(instance.index) / "volumes" / volume.name
                folder.mkdir(parents=True, exist_ok=True)
                mounts.append(Mount(mount.mount_path, folder, uid=volume.uid, gid=volume.gid))
        if container.token_path:
            folder = self._write_token(job, instance, container).parent
            target = str(PurePosixPath(container.token_path).parent)
            mounts.append(Mount(target, folder, read_only=True))
        return mounts

    def _stage(self, stage: StageMount, volume: Volume, target: str) -> Mount:
        source = self.account.stages.resolve(stage.database, stage.schema, stage.stage, stage.path)
        source.mkdir(parents=True, exist_ok=True)
        return Mount(target, source, stage.read_only, uid=volume.uid, gid=volume.gid, stage=True)

    def _write_token(self, job: Job, instance: InstanceState, container: Container) -> Path:
        folder = self.root / job.id / str(instance.index) / "session" / container.name
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / PurePosixPath(container.token_path or TOKEN_PATH).name
        token = self.account.tokens.issue_job_token(job.fqn, job.owner, job.user)
        temporary = path.with_name(f".{path.name}~")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        temporary.replace(path)
        return path
