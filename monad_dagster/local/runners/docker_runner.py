"""Runs containers in a container engine: Docker Engine, podman, or another with the same API.

Images are pulled by digest from the account's own registry. Instances have addresses of their
own in an internal network (`docker-bridge`), or loopback ones where they share the host's
network (`docker-host`). Which of the two works is found by running a container that calls the
account back and writes into a mounted directory. Containers carry labels and outlive the account.

Deviations from Snowflake: CPUs are capped at what the host has; a memory volume that several
containers of an instance mount is one for each of them.
"""

import contextlib
import hashlib
import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monad_dagster.local.runners import addresses, docker_request
from monad_dagster.local.runners.base import ImagePull, Mount, RunnerError, RunRequest
from monad_dagster.local.runners.docker_attach import PAUSE, attach, end_instance
from monad_dagster.local.runners.docker_cleanup import (
    IMAGES_FILE,
    LABEL,
    RUN_LABEL,
    remove_leftovers,
)
from monad_dagster.local.runners.docker_client import find_engine
from monad_dagster.local.runners.docker_container import (
    LOST_SECONDS,
    RECORD,
    DockerContainer,
    remove_container,
)
from monad_dagster.local.runners.docker_images import EngineImages
from monad_dagster.local.runners.docker_network import Door, Network, ensure_network
from monad_dagster.local.runners.layout import gpu_devices
from monad_dagster.local.runners.ownership import give_files
from monad_dagster.local.runners.supervise import write_json

if TYPE_CHECKING:
    from docker import APIClient

logger = logging.getLogger("monad_dagster.local")

NETWORKS = ("bridge", "host")
_PROBE_ERRORS = {
    10: "it sees another file system than the account's",
    11: "containers cannot reach the account",
    12: "the account does not answer containers",
    13: "a mounted directory is not writable",
}
PROBE_SECONDS = 20
ULIMITS_REFUSED = "rlimit"  # podman asks for more than this host may give


class DockerRunner:
    """Starts containers in an engine.

    Args:
        state_dir: The account's directory; its path names what belongs to the account.
        address: Where the account listens.
        probe: Digest of the probe's image and how to pull it.
        network: `bridge` or `host`; None tries them in that order.
        url: The engine's socket; None finds one.

    Raises:
        RunnerError: No engine answers or no container runs as it must.
    """

    needs_unpacked_image = False

    def __init__(
        self,
        state_dir: Path,
        address: tuple[str, int],
        probe: tuple[str, ImagePull],
        *,
        network: str | None = None,
        url: str | None = None,
        lost_seconds: float = LOST_SECONDS,
    ) -> None:
        self.state_dir = state_dir
        self.engine = find_engine(url)
        self.images = EngineImages(state_dir / "runner" / IMAGES_FILE)
        self.images.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.images.path.with_name("engine.json"), {"url": self.engine.url})
        self.account_id = account_id(state_dir)
        self.network = ""
        self.probe_seconds = 0.0
        self._address = address
        self._registry = f"localhost:{address[1]}"  # an engine takes it without TLS
        self._probe = probe
        self._ulimits: list[Any] = []
        self._networks: dict[str, Network] = {}
        self._doors: list[Door] = []
        self._lost_seconds = lost_seconds
        self._lock = threading.Lock()
        with self.engine.client() as client:
            remove_leftovers(client, state_dir)
        self._choose(network)

    def describe(self) -> str:
        """Say which engine and network are in use and why."""
        where = (
            f"each instance with its own address in network {self._networks['closed'].name}"
            if self.network == "bridge"
            else "instances share the host's network, each with its own loopback address"
        )
        return f"{self.engine.name} at {self.engine.url}: {where} ({self.reason})"

    def account_host(self, host: str) -> str:
        """Return the account's address as containers see it."""
        return self._networks["closed"].gateway if self.network == "bridge" else host

    def new_address(self, taken: Collection[str]) -> str:
        """Return an address for one more instance."""
        if self.network == "bridge":
            closed = self._networks["closed"]
            return addresses.subnet_address(closed.subnet, closed.gateway, taken)
        return addresses.loopback_address(str(self.state_dir), taken)

    # --- containers

    def start(self, request: RunRequest) -> DockerContainer:
        """Pull the image, create the container and start it."""
        if request.pull is None:
            raise RunnerError("the request names no image to pull")
        if request.image.needs_host_python:
            raise RunnerError(
                "the image holds files only and needs the process runner's Python; build a full"
                " image (MONAD_IMAGE_BUILDER=docker) or set MONAD_RUNNER=auto"
            )
        request.run_dir.mkdir(parents=True, exist_ok=True)
        with self.engine.client() as client:
            reference = self.images.pull(client, self._registry, request.pull, request.image.digest)
            give_files(request.mounts)
            self._create_and_start(client, request, reference)
        return DockerContainer(self.engine, request.run_dir, lost_seconds=self._lost_seconds)

    def attach(self, run_dir: Path) -> DockerContainer | None:
        """Return the container of a run directory, if one was ever started there."""
        return attach(self.engine, run_dir, lost_seconds=self._lost_seconds)

    def end_instance(self, instance_dir: Path) -> None:
        """Remove the container that held an instance's network."""
        end_instance(self.engine, instance_dir)

    def _create_and_start(self, client: "APIClient", request: RunRequest, reference: str) -> None:
        name = self._container_name(request.run_dir)
        log = request.run_dir / "log"
        record = {
            "url": self.engine.url,
            "name": name,
            "image": reference,
            "log_start": log.stat().st_size if log.exists() else 0,
            "grace_seconds": request.grace_seconds,
        }
        write_json(request.run_dir / RECORD, record)
        labels = {LABEL: str(self.state_dir), RUN_LABEL: str(request.run_dir)}
        mode, networking = self._network_arguments(client, request)
        arguments = docker_request.create_arguments(
            request, self.engine, self._env(request), labels
        )
        if mode.startswith("container:"):
            arguments.pop("hostname")  # it is the network holder's
        config = docker_request.host_config(
            request, self.engine, network_mode=mode, gpu_ids=self._gpu_ids(request)
        )
        if mode.startswith("container:") or mode == "host":
            config.pop("dns_opt")
        if self._ulimits:
            config["ulimits"] = self._ulimits
        identifier = self._start(client, name, reference, config, {**arguments, **networking},
                                 is_open=request.network is not None and request.network.is_open)  # fmt: skip
        write_json(
            request.run_dir / RECORD, {**record, "id": identifier, "started_at": time.time()}
        )

    def _start(
        self, client: "APIClient", name: str, image: str, config: dict[str, Any],
        arguments: dict[str, Any], *, is_open: bool = False,
    ) -> str:  # fmt: skip
        from docker.errors import DockerException
        from requests import RequestException

        try:
            created = client.create_container(
                image, name=name, host_config=client.create_host_config(**config), **arguments
            )
        except (DockerException, RequestException) as error:
            raise RunnerError(_explain(error)) from error
        identifier = created["Id"]
        try:
            if is_open and self.network == "bridge" and "networking_config" in arguments:
                client.connect_container_to_network(identifier, self._open_network(client).name)
            client.start(identifier)
        except (DockerException, RequestException) as error:
            remove_container(self.engine, identifier)
            raise RunnerError(_explain(error)) from error
        return identifier

    def _env(self, request: RunRequest) -> dict[str, str]:
        return {**request.injected_env, **request.spec_env}

    def _gpu_ids(self, request: RunRequest) -> tuple[str, ...]:
        available = num_host_gpus()
        if not request.gpus or not available:
            return ()
        return docker_request.gpu_ids(request.gpus, request.gpu_offset, available)

    def _container_name(self, run_dir: Path) -> str:
        tail = hashlib.sha256(str(run_dir).encode()).hexdigest()[:16]
        return f"monad-{self.account_id}-{tail}"

    # --- networks

    def _network_arguments(
        self, client: "APIClient", request: RunRequest
    ) -> tuple[str, dict[str, Any]]:
        """Return (network mode, arguments of create_container) for a container."""
        if self.network == "host":
            return "host", {}
        closed = self._networks["closed"]
        if request.network is None:
            return closed.name, {}
        if request.network.num_containers > 1:
            return f"container:{self._pause(client, request)}", {}
        return closed.name, self._endpoint(client, request.network.address)

    def _endpoint(self, client: "APIClient", address: str) -> dict[str, Any]:
        name = self._networks["closed"].name
        endpoint = client.create_endpoint_config(ipv4_address=address)
        return {"networking_config": client.create_networking_config({name: endpoint})}

    def _pause(self, client: "APIClient", request: RunRequest) -> str:
        """Return the container that holds the network of an instance with several containers."""
        assert request.network is not None
        place = request.network.instance_dir / PAUSE
        with self._lock:
            if place.exists():
                return str(json.loads(place.read_text())["id"])
            digest, pull = self._probe
            image = self.images.pull(client, self._registry, pull, digest)
            name = self._container_name(request.network.instance_dir)
            with contextlib.suppress(Exception):  # left by an account that was killed right here
                client.remove_container(name, force=True)
            arguments = {
                "entrypoint": ["/pause"],
                "hostname": request.hostname,
                "labels": {LABEL: str(self.state_dir), RUN_LABEL: str(place.parent)},
                **self._endpoint(client, request.network.address),
            }
            config = {"network_mode": self._networks["closed"].name}
            identifier = self._start(
                client, name, image, config, arguments, is_open=request.network.is_open
            )
            write_json(place, {"id": identifier, "url": self.engine.url})
            return identifier

    def _open_network(self, client: "APIClient") -> Network:
        """Return the network with a way out, made when a job service first asks for one."""
        with self._lock:
            if "open" not in self._networks:
                self._networks["open"] = self._ensure_network(client, "open")
        return self._networks["open"]

    def _ensure_network(self, client: "APIClient", kind: str) -> Network:
        name = f"monad-{self.account_id}-{kind}"
        labels = {LABEL: str(self.state_dir)}
        return ensure_network(client, name, labels, internal=kind == "closed")

    def close(self) -> None:
        """Close the doors; containers go on."""
        for door in self._doors:
            door.close()
        self._doors.clear()

    # --- the probe

    def _choose(self, network: str | None) -> None:
        refusals = []
        for candidate in [network] if network else NETWORKS:
            started = time.monotonic()
            try:
                self._try(candidate)
            except RunnerError as error:
                self.close()
                refusals.append(f"{candidate} network: {error}")
                continue
            self.probe_seconds = time.monotonic() - started
            why = "; ".join(refusals) or ("asked for" if network else "the best there is")
            self.reason = f"{why}; probed in {self.probe_seconds:.1f} s"
            return
        raise RunnerError(f"{self.engine.name} at {self.engine.url}: {'; '.join(refusals)}")

    def _try(self, network: str) -> None:
        """Run a container on a network; leave it chosen when that works."""
        self.network = network
        with self.engine.client() as client:
            if network == "bridge":
                closed = self._ensure_network(client, "closed")
                self._networks["closed"] = closed
                door = Door(closed, self._address)
                door.open()
                self._doors.append(door)
            try:
                self._run_probe(client)
            except RunnerError as error:
                if ULIMITS_REFUSED not in str(error).lower() or self._ulimits:
                    raise
                self._ulimits = _small_ulimits()
                self._run_probe(client)

    def _run_probe(self, client: "APIClient") -> None:
        digest, pull = self._probe
        image = self.images.pull(client, self._registry, pull, digest)
        folder = self.images.path.parent / f"docker-probe-{self.network}"
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)
        (folder / "ok").unlink(missing_ok=True)
        (folder / "target").write_bytes(
            struct.pack(
                "=HH4s8x", socket.AF_INET, socket.htons(self._address[1]),
                socket.inet_aton(self.account_host(self._address[0])),
            )
        )  # fmt: skip
        request = RunRequest(
            run_dir=folder,
            name="probe",
            image=_no_image(digest),
            mounts=(Mount("/monad/volume", folder),),
            memory_limit_bytes=64 * 2**20,
            cpu_limit=1,
        )
        mode, networking = self._network_arguments(client, request)
        config = docker_request.host_config(request, self.engine, network_mode=mode)
        if self._ulimits:
            config["ulimits"] = self._ulimits
        if mode == "host":
            config.pop("dns_opt")
        name = self._container_name(folder)
        with contextlib.suppress(Exception):  # left by an account that was killed right here
            client.remove_container(name, force=True)
        arguments = {"labels": {LABEL: str(self.state_dir)}, **networking}
        identifier = self._start(client, name, image, config, arguments)
        try:
            self._judge_probe(client, identifier, folder)
        finally:
            remove_container(self.engine, identifier)

    def _judge_probe(self, client: "APIClient", identifier: str, folder: Path) -> None:
        from docker.errors import DockerException
        from requests import RequestException

        try:
            code = int(client.wait(identifier, timeout=PROBE_SECONDS)["StatusCode"])
            log = client.logs(identifier, stdout=True, stderr=True).decode(errors="replace")
        except (DockerException, RequestException) as error:
            raise RunnerError(f"the probe did not end: {_explain(error)}") from error
        if code != 0:
            raise RunnerError(_PROBE_ERRORS.get(code, f"the probe ended with {code}: {log[-200:]}"))
        if not (folder / "ok").exists():
            raise RunnerError(_PROBE_ERRORS[10])
        if log.strip() != "ok":
            raise RunnerError(f"the engine's log of the probe is {log[-200:]!r}")


def account_id(state_dir: Path) -> str:
    """Return what names an account's containers and networks in an engine."""
    return hashlib.sha256(str(state_dir).encode()).hexdigest()[:10]


def num_host_gpus() -> int:
    """Return how many NVIDIA GPUs the host has."""
    return sum(path.removeprefix("/dev/nvidia").isdigit() for path in gpu_devices())


def _no_image(digest: str) -> Any:
    from monad_dagster.local.images.image_rootfs import Image, ImageConfig

    return Image(digest, Path("/nonexistent"), ImageConfig())


def _small_ulimits() -> list[Any]:
    from docker.types import Ulimit

    return [
        Ulimit(name="nofile", soft=4096, hard=4096),
        Ulimit(name="nproc", soft=10000, hard=10000),
    ]


def _explain(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)[:500]
