"""The container half of the protocol: chunk files, manifest, and behaviour outside Dagster."""

import importlib.util
import json
import logging
import sys
from pathlib import Path

import pytest
from dagster_pipes import PipesContext, encode_param

SCRIPT = Path(__file__).parents[3] / "container" / "scripts" / "job_support.py"


@pytest.fixture
def job_support():
    """Load the script as a module of its own."""
    spec = importlib.util.spec_from_file_location("job_support_under_test", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def pipes_environment(monkeypatch, tmp_path):
    """Set what a job service started by Dagster finds in its environment."""
    context = {
        "asset_keys": ["foundation_model"],
        "code_version_by_asset_key": {"foundation_model": None},
        "provenance_by_asset_key": {"foundation_model": None},
        "partition_key": None,
        "partition_key_range": None,
        "partition_time_window": None,
        "run_id": "r",
        "job_name": "j",
        "retry_number": 0,
        "extras": {"inputs": {"image": "sha256:1"}},
    }
    run_directory = tmp_path / "runs" / "job"
    run_directory.mkdir(parents=True)
    (run_directory / "context.json").write_text(json.dumps(context))
    unmapped = {"path": "/not/mapped/here"}
    monkeypatch.setenv("DAGSTER_PIPES_CONTEXT", encode_param(unmapped))
    monkeypatch.setenv("DAGSTER_PIPES_MESSAGES", encode_param(unmapped))
    monkeypatch.setenv("MONAD_RUN_DIRECTORY", str(run_directory))
    monkeypatch.delenv("MONAD_LINEAGE_INPUTS", raising=False)
    monkeypatch.setattr(PipesContext, "_instance", None)
    yield run_directory
    monkeypatch.setattr(PipesContext, "_instance", None)


def read_messages(run_directory):
    """Read every message of the run directory, in order."""
    chunks = sorted((run_directory / "messages").glob("*.json"), key=lambda p: int(p.stem))
    return [json.loads(line) for chunk in chunks for line in chunk.read_text().splitlines() if line]


def test_chunks_are_numbered_and_end_with_an_empty_line(job_support, tmp_path):
    """Each flush writes one new file, and every shorter piece of it lacks the empty line."""
    writer = job_support.ChunkWriter(tmp_path / "messages")
    writer.write_message({"method": "a"})
    writer.flush()
    writer.flush()
    writer.write_message({"method": "b"})
    writer.flush()
    texts = {p.name: p.read_text() for p in (tmp_path / "messages").iterdir()}
    assert texts == {"1.json": '{"method": "a"}\n\n', "2.json": '{"method": "b"}\n\n'}


def test_a_refused_write_is_tried_again_without_loss(job_support, tmp_path):
    """A mount that refuses a write gets the same chunk again."""
    directory = tmp_path / "messages"
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        (directory / "1.json").rmdir()

    writer = job_support.ChunkWriter(directory, sleep=sleep)
    (directory / "1.json").mkdir()
    writer.write_message({"n": 1})
    writer.flush()
    assert waits == [1.0]
    assert (directory / "1.json").read_text() == '{"n": 1}\n\n'


def test_outside_dagster_a_run_only_writes_the_manifest(job_support, tmp_path, monkeypatch):
    """Without Pipes variables, finish writes lineage.json and progress is a no-op."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.bin").write_bytes(b"abc")
    with job_support.job_run(script="pretrain", output=tmp_path) as job:
        job.progress(step=1, total=2, loss=0.5)
        version = job.finish(metrics={"loss": float("nan")})
    manifest = json.loads((tmp_path / "lineage.json").read_text())
    assert manifest["data_version"] == version == job_support.data_version_of(manifest["files"])
    assert manifest["kind"] == "foundation_model"
    assert [f["path"] for f in manifest["files"]] == ["weights/model.bin"]


def test_the_session_reports_progress_and_materialization(job_support, tmp_path, pipes_environment):
    """Inside Dagster the messages reach the run directory in order, closed last."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "model.bin").write_bytes(b"abc")
    with job_support.job_run(script="pretrain", output=output) as job:
        logging.getLogger("monad.training").warning(
            "step", extra={"monad_metrics": {"step": 3, "total": 9, "loss": 0.25}}
        )
        version = job.finish(metrics={"loss": 0.25}, facts={"row_count": 7})
    messages = read_messages(pipes_environment)
    assert [m["method"] for m in messages] == [
        "opened",
        "report_custom_message",
        "report_asset_materialization",
        "closed",
    ]
    payload = messages[1]["params"]["payload"]
    assert (payload["kind"], payload["step"], payload["values"]) == ("metrics", 3, {"loss": 0.25})
    reported = messages[2]["params"]
    assert reported["data_version"] == version
    assert reported["metadata"]["dagster/row_count"]["raw_value"] == 7
    manifest = json.loads((output / "lineage.json").read_text())
    assert manifest["inputs"] == {"image": "sha256:1"}


def test_progress_carries_throughput_and_gpu_memory(job_support, tmp_path, pipes_environment):
    """Steps per second are measured between reports; a script's own figure is kept."""
    (tmp_path / "model.bin").write_bytes(b"abc")
    with job_support.job_run(script="pretrain", output=tmp_path) as job:
        job.progress(step=1, loss=0.6)
        job.progress(step=10, loss=0.5)
        job.progress(step=20, loss=0.4, steps_per_second=99.0)
        job.finish()
    values = [
        m["params"]["payload"]["values"]
        for m in read_messages(pipes_environment)
        if m["method"] == "report_custom_message"
    ]
    assert "steps_per_second" not in values[0]
    assert values[1]["steps_per_second"] > 0
    assert values[2]["steps_per_second"] == 99.0


class FakeCuda:
    """The calls of torch.cuda that are made, on a machine with two devices."""

    def __init__(self, used):
        self.used = used

    def is_initialized(self):
        return self.used is not None

    def device_count(self):
        return len(self.used)

    def max_memory_reserved(self, device):
        return self.used[device] * 2**30


@pytest.mark.parametrize(("used", "expected"), [(None, {}), ([1.5, 3.0], {"gpu_memory_gib": 3.0})])
def test_gpu_memory_is_that_of_the_fullest_device(job_support, used, expected):
    """A script without torch, or that never touched a GPU, reports none."""
    torch = type("Torch", (), {"cuda": FakeCuda(used)})
    assert job_support.gpu_memory(torch) == expected
    assert job_support.gpu_memory(None) == {}


def test_an_exception_closes_the_session_with_it(job_support, tmp_path, pipes_environment):
    """A raising script still sends closed, carrying the exception."""
    with (
        pytest.raises(ValueError, match="no such column"),
        job_support.job_run(script="train", output=tmp_path),
    ):
        raise ValueError("no such column")
    closed = read_messages(pipes_environment)[-1]
    assert closed["method"] == "closed"
    assert closed["params"]["exception"]["message"].endswith("no such column\n")


def test_a_manifest_that_lies_is_refused(job_support, tmp_path, monkeypatch):
    """Bytes that differ from the manifest fail the run and name the file."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    (tmp_path / "model.bin").write_bytes(b"abc")
    job_support.write_manifest(tmp_path, kind="predictions", metrics={})
    (tmp_path / "model.bin").write_bytes(b"abd")
    with (
        job_support.job_run(script="predict", output=tmp_path) as job,
        pytest.raises(RuntimeError, match=r"model\.bin has other content"),
    ):
        job.finish()


def test_the_manifest_takes_over_what_the_library_recorded(job_support, tmp_path, monkeypatch):
    """An inner manifest gives the outer one its configuration and source tables."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    inner = tmp_path / "checkpoints"
    inner.mkdir()
    (inner / "best_model.ckpt").write_bytes(b"abc")
    known = {"config": {"data_sources": []}, "source_tables": [{"name": "T", "row_count": 3}]}
    (inner / "lineage.json").write_text(json.dumps({"format": 1, "files": [], **known}))
    with job_support.job_run(script="train", output=tmp_path) as job:
        job.finish(inner=inner)
    manifest = json.loads((tmp_path / "lineage.json").read_text())
    assert {name: manifest[name] for name in known} == known
    assert [f["path"] for f in manifest["files"]] == [
        "checkpoints/best_model.ckpt",
        "checkpoints/lineage.json",
    ]


def test_a_library_without_a_manifest_leaves_the_origin_empty(job_support, tmp_path, monkeypatch):
    """A checkpoint directory without lineage.json gives empty fields, not an error."""
    monkeypatch.delenv("DAGSTER_PIPES_CONTEXT", raising=False)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best_model.ckpt").write_bytes(b"abc")
    with job_support.job_run(script="train", output=tmp_path) as job:
        job.finish(inner=tmp_path / "checkpoints")
    manifest = json.loads((tmp_path / "lineage.json").read_text())
    assert (manifest["config"], manifest["source_tables"]) == ({}, [])


@pytest.mark.parametrize(
    ("environment", "leader"),
    [({}, True), ({"SNOWFLAKE_JOB_INDEX": "1"}, False), ({"LOCAL_RANK": "1"}, False)],
)
def test_only_the_first_process_talks_to_dagster(job_support, environment, leader):
    """Other replicas and ranks never open a session."""
    assert job_support.is_leader(environment) is leader
