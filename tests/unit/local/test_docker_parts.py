"""The parts of the container engine's runner that need no engine."""

import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from monad_dagster.local import runners
from monad_dagster.local.images import system_images
from monad_dagster.local.images.image_rootfs import Image, ImageConfig
from monad_dagster.local.images.image_store import ImageStore
from monad_dagster.local.runners import docker_request
from monad_dagster.local.runners.base import (
    ContainerUsage,
    InstanceNetwork,
    Mount,
    NetworkUsage,
    RunnerError,
    RunRequest,
)
from monad_dagster.local.runners.choice import ChosenRunners, choose_runners
from monad_dagster.local.runners.docker_client import Engine, find_engine
from monad_dagster.local.runners.docker_container import measured
from monad_dagster.local.runners.docker_logs import LogFile, frames, records
from monad_dagster.local.runners.supervise import MAX_RECORD_BYTES

ENGINE = Engine("unix:///x", "Docker Engine 1", "1.41", 2, is_podman=False, is_rootless=False)
PODMAN = Engine("unix:///x", "Podman 4", "1.41", 2, is_podman=True, is_rootless=False)
STAMP = "2026-11-25T18:26:00.053406106Z"


def request(**changes):
    """Return a request for a container."""
    return RunRequest(
        Path("/run"), "main", Image("sha256:x", Path("/none"), ImageConfig()), **changes
    )


def frame(stream, text):
    """Return a frame as the engine sends it."""
    data = text.encode()
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_frames_keep_stream_and_text():
    """The multiplexed log is taken apart, unknown streams left out."""
    body = io.BytesIO(frame(1, "a\n") + frame(2, "b\n") + frame(3, "system\n") + frame(1, "c"))
    assert list(frames(body)) == [("stdout", b"a\n"), ("stderr", b"b\n"), ("stdout", b"c")]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (f"{STAMP} text\n", f"{STAMP} stdout text\n"),
        ("2026-11-25T18:26:00.5Z x\n", "2026-11-25T18:26:00.500000000Z stdout x\n"),
        ("2026-11-25T18:26:00Z podman\n", "2017-07-14T02:40:00.000000042Z stdout podman\n"),
        ("2026-11-25T18:26:00+01:00 zone\n", "2017-07-14T02:40:00.000000042Z stdout zone\n"),
        ("no time\r\n", "2017-07-14T02:40:00.000000042Z stdout no time\n"),
        (f"{STAMP} \n", f"{STAMP} stdout \n"),
    ],
)
def test_records_have_nanoseconds(payload, expected):
    """A line has the engine's time, or the time of arrival where the engine knows seconds only."""
    found = list(records("stdout", payload.encode(), 1_500_000_000_000_000_042))
    assert [record.decode() for record in found] == [expected]


def test_long_lines_are_split_as_snowflake_does():
    """One record holds 16 KB at most."""
    found = list(records("stderr", f"{STAMP} {'x' * (MAX_RECORD_BYTES + 1)}\n".encode(), 0))
    assert [len(record.split(b" ")[2].rstrip(b"\n")) for record in found] == [MAX_RECORD_BYTES, 1]


def test_log_read_again_adds_only_what_is_new(tmp_path):
    """After a restart the log is read from the start; known records and a torn one are handled."""
    path = tmp_path / "log"
    path.write_text("an earlier notice\n")
    log = LogFile(path, start=path.stat().st_size)
    lines = [frame(1, f"{STAMP} {word}\n") for word in ("one", "two", "three")]
    log.follow(io.BytesIO(b"".join(lines[:2])))
    with path.open("a") as file:
        file.write(f"{STAMP} stdout thr")  # what a killed account may leave
    log.follow(io.BytesIO(b"".join(lines)))
    log.follow(io.BytesIO(b"".join(lines)))
    texts = [line.split(" ", 2)[2] for line in path.read_text().splitlines()[1:]]
    assert texts == ["one", "two", "three"]


def test_resources_become_the_engines(monkeypatch):
    """Limits, shares and shared memory are the specification's; CPUs end at what the host has."""
    config = docker_request.host_config(
        request(
            cpu_limit=8, cpu_request=0.5, memory_limit_bytes=2**30,
            mounts=(Mount("/dev/shm", None, size_bytes=2**26), Mount("/m", None, size_bytes=2**20)),
        ),
        ENGINE, network_mode="host",
    )  # fmt: skip
    assert (config["nano_cpus"], config["cpu_shares"]) == (2_000_000_000, 512)
    assert config["mem_limit"] == config["memswap_limit"] == 2**30
    assert config["shm_size"] == 2**26
    assert [(mount["Target"], mount["Type"]) for mount in config["mounts"]] == [("/m", "tmpfs")]


def test_names_and_read_only_stages_are_mounted():
    """The generated hosts file and a stage without WRITE are read-only."""
    network = InstanceNetwork(Path("/i"), "10.0.0.2", Path("/i/hosts"))
    wanted = request(mounts=(Mount("/stage", Path("/s"), read_only=True),), network=network)
    config = docker_request.host_config(wanted, ENGINE, network_mode="n")
    assert [(mount["Source"], mount["Target"], mount["ReadOnly"]) for mount in config["mounts"]] == [
        ("/s", "/stage", True), ("/i/hosts", "/etc/hosts", True)
    ]  # fmt: skip


def test_gpus_are_asked_for_by_number():
    """Docker Engine gets a device request, podman a device of the container device interface."""
    assert docker_request.gpu_ids(2, 2, 4) == ("2", "3")
    assert docker_request.gpu_ids(4, 4, 2) == ("0", "1")
    config = docker_request.host_config(request(), ENGINE, network_mode="n", gpu_ids=("1",))
    (device,) = config["device_requests"]
    assert (device["DeviceIDs"], device["Capabilities"]) == (["1"], [["gpu"]])
    config = docker_request.host_config(request(), PODMAN, network_mode="n", gpu_ids=("1",))
    assert config["devices"] == ["nvidia.com/gpu=1"]


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        (("run",), None, {"entrypoint": ["run"], "command": []}),
        (("run",), ("x",), {"entrypoint": ["run"], "command": ["x"]}),
        (None, ("x",), {"command": ["x"]}),
        (None, None, {}),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(command, args, expected):
    """`command` replaces ENTRYPOINT and drops CMD, `args` replaces CMD."""
    made = docker_request.create_arguments(request(command=command, args=args), ENGINE, {}, {})
    assert {key: made[key] for key in ("entrypoint", "command") if key in made} == expected


def test_statistics_become_processor_time_and_memory():
    """File cache that can be given back does not count; an ended container has no figures."""
    stats = {
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
        "memory_stats": {"usage": 500, "stats": {"total_inactive_file": 200}},
    }
    assert measured(stats, 7.0) == ContainerUsage(7.0, 2.5, 300)
    interface = {"rx_bytes": 5, "rx_packets": 1, "tx_bytes": 7, "tx_packets": 2}
    stats["networks"] = {"eth0": interface, "eth1": interface}
    found = measured(stats, 7.0)
    assert found is not None
    assert found.network == NetworkUsage(10, 2, 14, 4)
    assert (
        measured({"cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}, 7.0) is None
    )


def test_files_only_images_go_to_the_process_runner():
    """One files-only image sends the whole instance to the host's interpreter."""
    chosen = ChosenRunners("auto", process="process", docker="docker")
    full = Image("sha256:x", Path("/none"), ImageConfig())
    files = replace(full, needs_host_python=True)
    assert chosen.choose([full]) == "docker"
    assert chosen.choose([full, files]) == "process"
    assert ChosenRunners("docker", docker="docker").choose([files]) == "docker"


def test_unknown_runner_is_refused(tmp_path):
    """A misspelt runner names the ones there are."""
    with pytest.raises(RunnerError, match="'dokcer' is not known; it is one of auto, docker"):
        choose_runners(tmp_path, ("127.0.0.1", 1), ("sha256:x", None), "dokcer")


def test_forced_engine_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    """A forced engine is not replaced; the error says what was tried and what to do."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(RunnerError) as raised:
        choose_runners(tmp_path, ("127.0.0.1", 1), ("sha256:x", None), "docker")
    assert "Runner docker was asked for and is not available" in str(raised.value)
    assert f"unix://{tmp_path}/none.sock does not answer" in str(raised.value)
    assert "MONAD_RUNNER=auto" in str(raised.value)


def test_without_an_engine_the_process_runner_is_used_and_says_why(tmp_path, monkeypatch):
    """`auto` falls back and keeps the reason."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    chosen = choose_runners(tmp_path, ("127.0.0.1", 1), ("sha256:x", None))
    assert "process runner" in chosen.describe()
    assert f"docker is not used: unix://{tmp_path}/none.sock does not answer" in chosen.describe()
    assert set(chosen.facts()["in_use"]) == {"process"}


def test_docker_host_decides_where_the_engine_is(tmp_path, monkeypatch):
    """What DOCKER_HOST names is not replaced by another socket."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(RunnerError, match=r"none\.sock does not answer"):
        find_engine()


def test_probe_image_is_stored_once_and_by_content(tmp_path):
    """The probe's image has the same digest every time."""
    store = ImageStore(tmp_path)
    digest = system_images.ensure_probe_image(store)
    assert system_images.ensure_probe_image(store) == digest
    manifest = store.get_manifest(system_images.SYSTEM_KEY, system_images.PROBE_IMAGE, "1")
    assert manifest.digest == digest


@pytest.mark.skipif(shutil.which("as") is None, reason="no assembler here")
def test_probe_program_is_its_source(tmp_path):
    """The bytes of the probe are what its assembly gives."""
    source = Path(runners.__file__).parent / "probe.s"
    for command in (
        ["as", str(source), "-o", "probe.o"], ["ld", "-n", "-o", "probe", "probe.o"],
        ["objcopy", "-O", "binary", "-j", ".text", "probe", "probe.bin"],
    ):  # fmt: skip
        subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "probe.bin").read_bytes() == system_images.PROBE_CODE
