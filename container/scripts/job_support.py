"""What the job scripts share: messages to Dagster, progress, and the lineage manifest.

Standard library only; `dagster_pipes` is used when it can be imported and when Dagster started the
process, and everything here is a no-op towards Dagster otherwise, so a script also runs by hand.
Messages are immutable numbered files in the run directory of the stage mount: a stage mount has no
append, no rename and no random write. Only the leading process of a job service talks to Dagster.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LINEAGE_FILE = "lineage.json"
RUN_DIRECTORY_VARIABLE = "MONAD_RUN_DIRECTORY"
LINEAGE_INPUTS_VARIABLE = "MONAD_LINEAGE_INPUTS"
PIPES_CONTEXT_VARIABLE = "DAGSTER_PIPES_CONTEXT"
CHUNK_INTERVAL_SECONDS = 2.0
HEARTBEAT_SECONDS = 30.0
WRITE_ATTEMPTS = 5
KINDS = {
    "pretrain": "foundation_model",
    "train": "scenario_checkpoint",
    "predict": "predictions",
}

logger = logging.getLogger("monad.job")


# --- chunk files ------------------------------------------------------------------------------


class ChunkWriter:
    """Write messages as numbered files, each written once from start to end and then closed.

    An empty line ends each chunk: a reader that sees a file without it knows that the file is not
    complete yet, wherever it is cut off.
    """

    def __init__(
        self,
        directory: Path,
        *,
        interval_seconds: float = CHUNK_INTERVAL_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._directory = directory
        self._interval_seconds = interval_seconds
        self._sleep = sleep
        self._lock = threading.Lock()
        self._lines: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        numbers = [int(p.stem) for p in directory.glob("*.json") if p.stem.isdigit()]
        self._next_index = max(numbers, default=0) + 1

    def write_message(self, message: Mapping[str, Any]) -> None:
        """Buffer *message* for the next chunk."""
        line = json.dumps(message)
        with self._lock:
            self._lines.append(line)

    def flush(self) -> None:
        """Write what is buffered as one new chunk; keep it buffered when the mount refuses it."""
        with self._lock:
            if not self._lines:
                return
            text = "".join(f"{line}\n" for line in self._lines) + "\n"
            self._write_once(self._directory / f"{self._next_index}.json", text)
            self._lines.clear()
            self._next_index += 1

    def _write_once(self, path: Path, text: str) -> None:
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            try:
                with path.open("w", encoding="utf-8") as stream:
                    stream.write(text)
            except OSError as error:
                if attempt == WRITE_ATTEMPTS:
                    raise
                logger.warning("Message chunk %s not written, trying again: %s", path, error)
                self._sleep(0.5 * 2**attempt)
            else:
                return

    @contextlib.contextmanager
    def buffered_upload_loop(self) -> Iterator[None]:
        """Flush at an interval in a thread; flush what is left, or raise, on the way out."""
        done = threading.Event()

        def loop() -> None:
            while not done.wait(self._interval_seconds):
                with contextlib.suppress(OSError):  # kept in the buffer, raised by the last flush
                    self.flush()

        thread = threading.Thread(target=loop, name="message-chunks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=60)
            self.flush()


def _import_pipes() -> Any:
    try:
        import dagster_pipes
    except ImportError:
        return None
    return dagster_pipes


def stage_message_writer(pipes: Any, *, interval_seconds: float = CHUNK_INTERVAL_SECONDS) -> Any:
    """Build a Pipes message writer over `ChunkWriter`; *pipes* is the `dagster_pipes` module."""

    class StageMessageWriter(pipes.PipesBlobStoreMessageWriter):
        def make_channel(self, params: Mapping[str, Any]) -> ChunkWriter:
            directory = _run_path("messages") or Path(params["path"])
            return ChunkWriter(directory, interval_seconds=interval_seconds)

    return StageMessageWriter(interval=interval_seconds)


def _stage_context_loader(pipes: Any) -> Any:
    class StageContextLoader(pipes.PipesDefaultContextLoader):
        @contextlib.contextmanager
        def load_context(self, params: Mapping[str, Any]) -> Iterator[Any]:
            path = _run_path("context.json")
            if path is not None and "path" in params:
                params = {**params, "path": str(path)}
            with super().load_context(params) as data:
                yield data

    return StageContextLoader()


def _run_path(name: str) -> Path | None:
    # A path inside the encoded Pipes parameters cannot be mapped by a runner that has no mounts;
    # the same path in a plain variable can. Where both are given they are the same place.
    root = os.environ.get(RUN_DIRECTORY_VARIABLE)  # noqa: TID251 - container side
    return Path(root) / name if root else None


# --- lineage manifest -------------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """Hash the file at *path* in one sequential read."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def data_version_of(files: list[dict[str, Any]]) -> str:
    """Derive the data version from the manifest's file list."""
    digest = hashlib.sha256()
    for entry in sorted(files, key=lambda item: item["path"]):
        digest.update(f"{entry['path']}\0{entry['sha256']}\n".encode())
    return digest.hexdigest()


def list_files(output: Path) -> list[dict[str, Any]]:
    """Describe every file below *output* except the manifest itself."""
    paths = sorted(p for p in output.rglob("*") if p.is_file())
    return [
        {
            "path": path.relative_to(output).as_posix(),
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in paths
        if path != output / LINEAGE_FILE
    ]


def verify_manifest(output: Path, manifest: Mapping[str, Any]) -> None:
    """Check every file of *manifest* against the bytes below *output*.

    Raises:
        RuntimeError: A file is missing, has another size or another content, or the manifest's
            data version does not follow from its file list.
    """
    problems = []
    for entry in manifest["files"]:
        path = output / entry["path"]
        if not path.is_file():
            problems.append(f"{entry['path']} is missing")
        elif path.stat().st_size != entry["size"]:
            problems.append(f"{entry['path']} has {path.stat().st_size} bytes, not {entry['size']}")
        elif file_sha256(path) != entry["sha256"]:
            problems.append(f"{entry['path']} has other content than was written")
    if not problems and manifest.get("data_version") != data_version_of(manifest["files"]):
        problems.append("data_version does not follow from the file list")
    if problems:
        raise RuntimeError(
            f"Manifest {output / LINEAGE_FILE} does not describe its directory: "
            f"{'; '.join(problems[:5])}. Materialize the asset again; the directory is left as "
            "it is. See the container log for the first write error."
        )


def _engine_identity() -> dict[str, str]:
    module = sys.modules.get("monad")
    return {
        "name": str(getattr(module, "ENGINE_NAME", "monad")),
        "version": str(getattr(module, "__version__", "unknown")),
    }


def write_manifest(
    output: Path,
    *,
    kind: str,
    metrics: Mapping[str, Any],
    config: "Mapping[str, Any] | None" = None,
    source_tables: "list[Any] | None" = None,
) -> dict[str, Any]:
    """Write the manifest of an output directory whose library wrote none, and return it."""
    files = list_files(output)
    if not files:
        raise RuntimeError(
            f"Output directory {output} holds no file. The job script ended without writing its "
            "result. Check the output path in the job's arguments; see the container log."
        )
    manifest: dict[str, Any] = {
        "format": 1,
        "kind": kind,
        "engine": _engine_identity(),
        "created_at": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - images may hold Python 3.10
        "inputs": json.loads(os.environ.get(LINEAGE_INPUTS_VARIABLE, "{}")),  # noqa: TID251
        "config": dict(config or {}),
        "source_tables": list(source_tables or []),
        "files": files,
        "data_version": data_version_of(files),
        "metrics": _plain(metrics),
    }
    text = json.dumps(manifest, indent=1, sort_keys=True)
    (output / LINEAGE_FILE).write_text(text, encoding="utf-8")
    return manifest


def read_origin(inner: "Path | None") -> dict[str, Any]:
    """Return `config` and `source_tables` of the manifest a library left in *inner*, if any."""
    path = None if inner is None else inner / LINEAGE_FILE
    if path is None or not path.is_file():
        return {}
    manifest = json.loads(path.read_text(encoding="utf-8"))
    return {name: manifest[name] for name in ("config", "source_tables") if name in manifest}


def read_or_write_manifest(
    output: Path, *, kind: str, metrics: Mapping[str, Any], inner: "Path | None" = None
) -> dict[str, Any]:
    """Return the verified manifest of *output*, writing it first when the library did not."""
    path = output / LINEAGE_FILE
    if not path.is_file():
        return write_manifest(output, kind=kind, metrics=metrics, **read_origin(inner))
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    verify_manifest(output, manifest)
    return manifest


def _plain(value: Any) -> Any:
    """Make *value* strict JSON: no NaN or infinity, no foreign number types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    return number if math.isfinite(number) else str(number)


# --- the run ----------------------------------------------------------------------------------


class JobRun:
    """One execution of a job script: reports progress while it runs and the result at its end."""

    def __init__(self, *, script: str, output: Path, kind: str, pipes_context: Any) -> None:
        self.script = script
        self.output = output
        self.kind = kind
        self.finished = False
        self._pipes = pipes_context
        self._last_step: int | None = None
        self._rate_from: tuple[float, int] | None = None

    @property
    def extras(self) -> Mapping[str, Any]:
        """What the asset sent along; empty outside Dagster."""
        return self._pipes.extras if self._pipes is not None else {}

    def send(self, kind: str, payload: Mapping[str, Any]) -> None:
        """Send a custom message of *kind*; a closed or absent session ignores it."""
        if self._pipes is None or self._pipes.is_closed:
            return
        message = {"kind": kind, "time": time.time(), "script": self.script, **_plain(payload)}
        self._pipes.report_custom_message(message)

    def progress(self, *, step: int, total: int | None = None, **values: float) -> None:
        """Report a training or scoring step with its measured values.

        Throughput and GPU memory are added where the caller does not measure them.
        """
        self._last_step = step
        measured = {**self._throughput(step), **gpu_memory(sys.modules.get("torch"))}
        self.send("metrics", {"step": step, "total": total, "values": {**measured, **values}})

    def _throughput(self, step: int) -> dict[str, float]:
        now, before = time.monotonic(), self._rate_from
        if before is not None and step == before[1]:
            return {}
        self._rate_from = (now, step)
        if before is None or step < before[1]:
            return {}
        return {"steps_per_second": round((step - before[1]) / max(now - before[0], 1e-6), 3)}

    def heartbeat(self) -> None:
        """Say that the process is alive, and at which step."""
        self.send("heartbeat", {"step": self._last_step})

    def finish(
        self,
        *,
        metrics: Mapping[str, float] | None = None,
        facts: Mapping[str, Any] | None = None,
        inner: Path | None = None,
    ) -> str:
        """Verify or write the manifest, report the materialization, and return the data version.

        Args:
            metrics: Final numbers of the run, shown as `metrics/<name>`.
            facts: Anything else worth recording; `row_count` also becomes `dagster/row_count`.
            inner: Directory below the output where the library wrote a manifest of its own; the
                output's manifest takes over that one's configuration and source tables.
        """
        root = self.output if not self.output.is_file() else self.output.parent
        manifest = read_or_write_manifest(root, kind=self.kind, metrics=metrics or {}, inner=inner)
        merged = {**manifest.get("metrics", {}), **(metrics or {})}
        if self._pipes is not None:
            self._pipes.report_asset_materialization(
                metadata=_metadata(manifest, merged, facts or {}, root),
                data_version=manifest["data_version"],
            )
        self.finished = True
        logger.info("Output %s has data version %s", root, manifest["data_version"])
        return str(manifest["data_version"])


def _metadata(
    manifest: Mapping[str, Any], metrics: Mapping[str, Any], facts: Mapping[str, Any], root: Path
) -> dict[str, Any]:
    metadata: dict[str, Any] = {f"metrics/{name}": _plain(v) for name, v in metrics.items()}
    metadata |= {name: _wire(value) for name, value in facts.items()}
    if "row_count" in facts:
        metadata["dagster/row_count"] = int(facts["row_count"])
    metadata["output_path"] = str(root)
    metadata["num_files"] = len(manifest["files"])
    metadata["total_bytes"] = sum(entry["size"] for entry in manifest["files"])
    metadata["lineage"] = _wire({key: value for key, value in manifest.items() if key != "files"})
    return metadata


def _wire(value: Any) -> Any:
    # A mapping or list has to say that it is JSON; {"raw_value", "type"} pairs pass unchanged.
    if isinstance(value, Mapping) and set(value) == {"raw_value", "type"}:
        return dict(value)
    plain = _plain(value)
    return {"raw_value": plain, "type": "json"} if isinstance(plain, (dict, list)) else plain


def gpu_memory(torch: Any) -> dict[str, float]:
    """Return the most GPU memory that was in use on any device, where a script has loaded torch.

    Args:
        torch: The module; None in a script without it.
    """
    try:
        if torch is None or not torch.cuda.is_initialized():
            return {}
        devices = range(torch.cuda.device_count())
        used = max(torch.cuda.max_memory_reserved(device) for device in devices)
    except (AttributeError, RuntimeError, ValueError):  # half imported, or another torch
        return {}
    return {"gpu_memory_gib": round(used / 2**30, 3)}


class _MetricsHandler(logging.Handler):
    """Forward log records that carry a `monad_metrics` mapping."""

    def __init__(self, run: JobRun) -> None:
        super().__init__(level=logging.DEBUG)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        values = getattr(record, "monad_metrics", None)
        if not isinstance(values, Mapping):
            return
        rest = {key: value for key, value in values.items() if key not in {"step", "total"}}
        self._run.progress(step=values.get("step", 0), total=values.get("total"), **rest)


def is_leader(environment: Mapping[str, str]) -> bool:
    """Say whether this process is the first of its job service: first instance, first rank."""
    names = ("SNOWFLAKE_JOB_INDEX", "RANK", "LOCAL_RANK", "NODE_RANK")
    return all(environment.get(name, "0") in {"", "0"} for name in names)


def _open_pipes() -> Any:
    environment = os.environ  # noqa: TID251 - container side
    if PIPES_CONTEXT_VARIABLE not in environment or not is_leader(environment):
        return None
    pipes = _import_pipes()
    if pipes is None:
        logger.warning(
            "Dagster started this job service, but dagster_pipes cannot be imported: no result "
            "will reach the asset. Stage dagster_pipes beside the scripts or add it to the image."
        )
        return None
    return pipes.open_dagster_pipes(
        context_loader=_stage_context_loader(pipes), message_writer=stage_message_writer(pipes)
    )


def _raise_on_terminate(signum: int, _frame: Any) -> None:
    raise SystemExit(128 + signum)


@contextlib.contextmanager
def _orderly_termination() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the session closes within the grace period."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_on_terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _heartbeats(run: JobRun, interval_seconds: float) -> Iterator[None]:
    done = threading.Event()

    def loop() -> None:
        while not done.wait(interval_seconds):
            run.heartbeat()

    thread = threading.Thread(target=loop, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


def _closing(pipes_context: Any) -> Callable[..., None]:
    def close(kind: Any, error: Any, traceback: Any) -> None:
        # sys.exit() and sys.exit(0) end a script well, and SIGTERM comes from the platform: the
        # exit code tells. Only other exits are the script's own failure.
        if kind is SystemExit and error.code in (0, None, 128 + signal.SIGTERM):
            pipes_context.close()
        else:
            pipes_context.__exit__(kind, error, traceback)

    return close


@contextlib.contextmanager
def job_run(*, script: str, output: "Path | str", kind: "str | None" = None) -> Iterator[JobRun]:
    """Open the session of one script execution; close it with the exception when one is raised.

    Args:
        script: Name of the script, such as `pretrain`; decides the kind of the output.
        output: Directory (or file) the script writes.
        kind: Kind of the output when the script is not one of the three documented ones.
    """
    with contextlib.ExitStack() as stack:
        pipes_context = _open_pipes()
        if pipes_context is not None:
            stack.push(_closing(pipes_context))
            inputs = pipes_context.extras.get("inputs")
            if inputs is not None:
                os.environ[LINEAGE_INPUTS_VARIABLE] = json.dumps(inputs)  # noqa: TID251
        run = JobRun(
            script=script,
            output=Path(output),
            kind=kind or KINDS.get(script, script),
            pipes_context=pipes_context,
        )
        handler = _MetricsHandler(run)
        logging.getLogger().addHandler(handler)
        stack.callback(logging.getLogger().removeHandler, handler)
        stack.enter_context(_orderly_termination())
        stack.enter_context(_heartbeats(run, HEARTBEAT_SECONDS))
        yield run
