"""What is looked up and refused before a launch."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dagster import AssetKey, Failure

from monad_dagster.errors import ComputePoolUnavailableError, ImageError, SnowflakeError, problem
from monad_dagster.pipes import compat
from monad_dagster.pipes.failures import FailureClass
from monad_dagster.pipes.launch import InvocationSettings, LaunchRequest
from monad_dagster.spcs import sql
from monad_dagster.spcs.compute_pool import ComputePool
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, StagePath
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.instance_families import InstanceFamily
from monad_dagster.spcs.maintenance import maintenance_warning
from monad_dagster.spcs.spec import JobSpec
from monad_dagster.spcs.spec_checks import instances_per_node, require_valid
from monad_dagster.spcs.stage import StageFile

MANIFEST = "lineage.json"
# Assumed for the warning about maintenance when nothing has run yet.
UNKNOWN_RUN_SECONDS = 3600.0


def resolve_image_digest(session: Session, image: str) -> str | None:
    """Look the tag's digest up; Snowflake freezes it when the job service is created.

    Args:
        session: Asks the repository.
        image: Image path with tag, as the specification names it.

    Returns:
        The digest; None for an image outside the account's own repositories.

    Raises:
        ImageError: The repository is readable and does not hold the tag.
    """
    parts = image.strip("/").split("/")
    if not image.startswith("/") or len(parts) != 4 or parts[0].lower() == "snowflake":
        return None
    name, _, tag = parts[3].partition(":")
    repository = QualifiedName.parse(".".join(parts[:3]))
    digest = ImageRepository(session, repository).digest_of(name, tag or "latest")
    if digest is None:
        raise ImageError(
            problem(
                f"Image {image} does not exist",
                f"Repository {repository} holds no tag {tag or 'latest'} of {name}",
                "Materialize the image asset first",
            )
        )
    return digest


def newest_manifest(files: Iterable[StageFile]) -> StagePath | None:
    """Return the newest manifest among *files*: a checkpoint without one is not complete."""
    manifests = [file for file in files if file.path.file_name == MANIFEST]
    newest = max(manifests, key=_modified, default=None)
    return newest.path if newest is not None else None


def _modified(file: StageFile) -> tuple[float, StagePath]:
    try:
        return parsedate_to_datetime(file.last_modified).timestamp(), file.path
    except (TypeError, ValueError):
        return 0.0, file.path


def launch_warnings(
    context: compat.ExecutionContext,
    session: Session,
    pool: ComputePool,
    family: InstanceFamily | None,
    spec: JobSpec,
    request: LaunchRequest,
    settings: InvocationSettings,
) -> list[str]:
    """Return what will hurt: a wasted node, a full pool, a maintenance window.

    Raises:
        SpecError: The specification can never run.
        ComputePoolUnavailableError: The pool can never hold all replicas.
    """
    replicas = request.options.replicas or 1
    found = require_valid(spec, family)
    num_nodes = math.ceil(replicas / instances_per_node(spec, family))
    if replicas > 1 and pool.max_nodes < num_nodes:
        raise ComputePoolUnavailableError(
            problem(
                f"Compute pool {pool.name} can never hold {replicas} instances at once",
                f"They take {num_nodes} nodes, and MAX_NODES is {pool.max_nodes}",
                f"Raise MAX_NODES to {num_nodes}, or lower replicas",
            )
        )
    warnings = [*found, *pool.warnings(replicas=num_nodes)]
    try:
        region = str(session.execute(sql.current_region()).scalar or "")
    except SnowflakeError:
        region = ""
    window = maintenance_warning(
        datetime.fromtimestamp(settings.clock.now(), UTC),
        expected_run_seconds(context),
        region,
        settings.region_timezone,
    )
    return [*warnings, window] if window else warnings


def expected_run_seconds(context: compat.ExecutionContext) -> float:
    """Return how long the step's asset ran last time."""
    for key in _asset_keys(context):
        event = context.instance.get_latest_materialization_event(key)
        materialization = event.asset_materialization if event else None
        value = materialization.metadata.get("spcs/run_seconds") if materialization else None
        if value is not None:
            return float(str(value.value))
    return UNKNOWN_RUN_SECONDS


def refuse_repeated_failure(context: compat.ExecutionContext, request_sha256: str | None) -> None:
    """Refuse to pay again for what automation repeats and what has failed for good.

    An automation condition may ask for a failed asset again and again. A person's run, and a run
    for anything that has changed since, goes on.

    Raises:
        dagster.Failure: The last attempt at exactly this failed in the user's code.
    """
    if not compat.launched_by_automation(context.run):
        return
    for key in _asset_keys(context):
        found = compat.latest_observation(context.instance, key, compat.partition_key_of(context))
        if found is None:
            continue
        metadata = {name: item.value for name, item in found.metadata.items()}
        same = metadata.get("spcs/request_sha256") == request_sha256
        if same and metadata.get("spcs/failure_class") in _FINAL_CLASSES:
            context.instance.add_run_tags(context.run.run_id, {compat.NO_RUN_RETRY_TAG: "false"})
            raise Failure(
                problem(
                    f"Nothing was launched for {key.to_user_string()}",
                    f"Job service {metadata.get('spcs/job_name')} failed with class "
                    f"{metadata['spcs/failure_class']}, and nothing has changed since",
                    "Correct the cause, or materialize by hand to try again",
                ),
                allow_retries=False,
            )


_FINAL_CLASSES = (str(FailureClass.USER_CODE), str(FailureClass.OUT_OF_MEMORY))


def _asset_keys(context: compat.ExecutionContext) -> list[AssetKey]:
    return sorted(context.selected_asset_keys) if context.has_assets_def else []
