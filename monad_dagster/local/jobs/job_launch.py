"""Turns a job service's instance into containers: images, mounts, token, environment.

Everything of a job service lies in DIR/jobs/<id>/<instance>/<container>/, so a restarted account
finds its containers again by looking there.
"""

import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from monad_dagster.local.faults.faults_jobs import note_full_disks
from monad_dagster.local.images.image_pull import registry_login, registry_path
from monad_dagster.local.images.image_rootfs import Image, ImageCache
from monad_dagster.local.jobs.job_model import InstanceState, Job, StageMount
from monad_dagster.local.jobs.job_network import hostname, hosts_path, taken_addresses, update_hosts
from monad_dagster.local.runners import stage_mount
from monad_dagster.local.runners.base import (
    ImagePull,
    InstanceNetwork,
    Mount,
    Runner,
    RunnerError,
    Runners,
    RunningContainer,
    RunRequest,
)
from monad_dagster.local.runners.layout import gpu_devices
from monad_dagster.local.runners.stage_mount import StageMounts
from monad_dagster.local.runners.supervise import rfc3339
from monad_dagster.local.specs.spec import TOKEN_PATH, Container, ServiceSpec, Volume

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

TOKEN_PERMISSION = "0644"  # noqa: S105 - a file mode
CPU_NOTICE = (
    "local account: the GPU request was admitted against the instance family; this host has no "
    "GPU, so the container runs on its CPU."
)


class Launcher:
    """Starts and finds the containers of job services.

    Args:
        account: The account.
        images: Its unpacked images.
        runners: What runs containers; None until the account listens and they are chosen.
    """

    def __init__(
        self, account: "Account", images: ImageCache, runners: Runners | None = None
    ) -> None:
        self.account = account
        self.images = images
        self._runners = runners
        self.root = account.state_dir / "jobs"
        self.root.mkdir(exist_ok=True)
        # Below it files are readable by whatever user a container has, so nobody else may enter.
        self.root.chmod(0o700)

    @property
    def runners(self) -> Runners:
        """What runs containers.

        Raises:
            RunnerError: None was chosen yet: the account does not listen.
        """
        if self._runners is None:
            raise RunnerError("the account does not listen yet, so no runner is chosen")
        return self._runners

    @runners.setter
    def runners(self, runners: Runners) -> None:
        self._runners = runners

    def runner_of(self, job: Job) -> Runner:
        """Return the runner for a job service: one for all its containers."""
        return self.runners.choose(self._image(job, name, unpack=False) for name in job.images)

    def run_dir(self, job: Job, instance: InstanceState, container: str) -> Path:
        """Return the directory of a container."""
        return self.root / job.id / str(instance.index) / container

    def _image(self, job: Job, name: str, *, unpack: bool) -> Image:
        """Return the image that the job service was created with."""
        ref = job.images[name]
        return self.images.get(ref.repository, ref.name, ref.digest, unpack=unpack)

    def give_address(self, job: Job, instance: InstanceState, others: list[Job]) -> None:
        """Give an instance its address, the same again after a restart."""
        if instance.address is None:
            instance.address = self.runner_of(job).new_address(taken_addresses(others))

    def update_names(self, job: Job, active: list[Job], declares: set[str]) -> None:
        """Tell the instances that see it that a job service's instances came or went."""
        update_hosts(self.root, active, job, declares)

    def start(
        self, job: Job, instance: InstanceState, container: Container, spec: ServiceSpec
    ) -> RunningContainer:
        """Start a container, or find the one an earlier account process started."""
        run_dir = self.run_dir(job, instance, container.name)
        found = self.runners.attach(run_dir)
        if found is not None:
            return found
        runner = self.runner_of(job)
        run_dir.mkdir(parents=True, exist_ok=True)
        note_full_disks(self.account, job, run_dir)
        if container.gpus and not gpu_devices():
            self._notice(run_dir, CPU_NOTICE)
        request = RunRequest(
            run_dir=run_dir,
            name=container.name,
            image=self._image(job, container.image, unpack=runner.needs_unpacked_image),
            command=container.command,
            args=container.args,
            injected_env=self._environment(job, instance, container, runner),
            spec_env=container.env,
            mounts=tuple(self._mounts(job, instance, container, spec)),
            hostname=hostname(job, instance),
            gpus=container.gpus,
            gpu_offset=(instance.node or 0) * container.gpus,
            cpu_request=container.request_cpu,
            cpu_limit=container.limit_cpu,
            memory_limit_bytes=container.limit_memory,
            pull=self._pull(job, container),
            network=InstanceNetwork(
                instance_dir=self.root / job.id / str(instance.index),
                address=instance.address or self.account.address[0],
                hosts=hosts_path(self.root, job, instance),
                num_containers=len(spec.containers),
                is_open=bool(job.integrations),
            ),
        )
        mounts: StageMounts | None = self.account.extensions.get("stage_mounts")
        if mounts is None:
            return runner.start(request)
        # A runner that gives containers a user of their own has no `maps_user`, or False.
        request = mounts.prepare(request, own=getattr(runner, "maps_user", False))
        try:
            return runner.start(request)
        except BaseException:
            stage_mount.release(run_dir)
            raise

    def ended(self, job: Job, instance: InstanceState, container: str) -> None:
        """Take away what an ended container had mounted."""
        stage_mount.release(self.run_dir(job, instance, container))

    def attach(self, job: Job, instance: InstanceState, container: str) -> RunningContainer | None:
        """Return a container that was started before."""
        return self.runners.attach(self.run_dir(job, instance, container))

    def end_instance(self, job: Job, instance: InstanceState) -> None:
        """Give back what an instance held beside its containers."""
        self.runners.end_instance(self.root / job.id / str(instance.index))

    def _pull(self, job: Job, container: Container) -> ImagePull:
        path = registry_path(container.image, job.database, job.schema)
        return ImagePull(path, lambda: registry_login(self.account, job.owner))

    def _notice(self, run_dir: Path, text: str) -> None:
        with (run_dir / "log").open("ab") as log:
            log.write(f"{rfc3339(time.time_ns())} stdout {text}\n".encode())

    def _environment(
        self, job: Job, instance: InstanceState, container: Container, runner: Runner
    ) -> dict[str, str]:
        host, port = self.account.address
        env = {
            "SNOWFLAKE_ACCOUNT": self.account.name,
            "SNOWFLAKE_HOST": runner.account_host(host),
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

    def volume_folder(self, job: Job, instance: InstanceState, volume: str) -> Path:
        """Return the directory that a local or block volume is here."""
        return self.root / job.id / str(instance.index) / "volumes" / volume

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
                folder = self.volume_folder(job, instance, volume.name)
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)  # any user of the container writes there
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
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / PurePosixPath(container.token_path or TOKEN_PATH).name
        token = self.account.tokens.issue_job_token(job.fqn, job.owner, job.user)
        temporary = path.with_name(f".{path.name}~")
        config = container.raw.get("sessionTokenConfig") or {}
        temporary.write_text(token)
        temporary.chmod(int(str(config.get("permission") or TOKEN_PERMISSION), 8))
        temporary.replace(path)
        return path
