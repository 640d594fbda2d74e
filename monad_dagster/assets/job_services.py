"""The three job-service assets: foundation model, scenario checkpoint, predictions.

Thin on purpose: each says which script it runs with which arguments and what it is made from; the
client does the rest. An output goes to its own attempt directory, and downstream takes the path
from the upstream materialization's metadata.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from monad_dagster.assets.keys import (
    FOUNDATION_MODEL,
    GROUP_MODEL,
    IMAGE,
    PREDICTIONS,
    SCENARIO_CHECKPOINT,
    SCENARIO_FILE,
    data_version_of,
    slice_key,
)
from monad_dagster.assets.model_config import ModelConfig, read_model_config
from monad_dagster.assets.prediction_date import check_prediction_date
from monad_dagster.assets.preflight import check_sources, check_staged
from monad_dagster.assets.retention import remove_old_attempts
from monad_dagster.assets.sources import observe, source_keys
from monad_dagster.assets.upstream import Upstream, check_selection, latest_image, latest_output
from monad_dagster.pipes import compat
from monad_dagster.pipes.client import PipesSPCSClient, query_tag
from monad_dagster.pipes.launch import LaunchOptions
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.lineage import LineageInput

if TYPE_CHECKING:
    from monad_dagster.settings import Settings


# Where the documented page's specifications write.
_DOCUMENTED_PATHS = {
    FOUNDATION_MODEL: "fm_output",
    SCENARIO_CHECKPOINT: "scenario_output",
    PREDICTIONS: "predictions",
}


class PredictConfig(dg.Config):
    """Run config of `predictions`."""

    prediction_date: str | None = Field(
        default=None,
        description="Score as of this day, such as 2020-09-22; default: the end of the data.",
    )
    top_k: int | None = Field(default=None, description="Items in a recommendation.")


def spec_environment(settings: "Settings") -> dict[str, str]:
    """Return the environment of every job service: the documented three variables."""
    return {
        "SNOWFLAKE_WAREHOUSE": settings.warehouse,
        "SNOWFLAKE_DATABASE": settings.data_database,
        "SNOWFLAKE_SCHEMA": settings.data_schema,
    }


def load_model_config(settings: "Settings") -> ModelConfig:
    """Read and check the foundation-model YAML with the job service's own variables."""
    return read_model_config(settings.fm_config, spec_environment(settings))


def build_job_service_assets(
    settings: "Settings", scenarios: dg.StaticPartitionsDefinition
) -> list[Any]:
    """Return the three assets."""
    tables = source_keys(load_model_config(settings))
    common: dict[str, Any] = {
        "group_name": GROUP_MODEL,
        "kinds": {"snowflake", "pytorch"},
        "pool": f"spcs_{settings.compute_pool.lower()}",
        "output_required": False,
    }

    @dg.asset(
        key=FOUNDATION_MODEL,
        deps=[IMAGE, slice_key("pretrain"), *tables],
        description="The checkpoint that pretrain.py writes: behaviour learnt from the events.",
        **common,
    )
    def foundation_model(
        context: dg.AssetExecutionContext, spcs: PipesSPCSClient
    ) -> Iterator[dg.MaterializeResult]:
        yield from _materialize(context, spcs, settings, args=pretrain_args(settings))

    @dg.asset(
        key=SCENARIO_CHECKPOINT,
        deps=[IMAGE, slice_key("train"), SCENARIO_FILE, FOUNDATION_MODEL, *tables],
        partitions_def=scenarios,
        description="The foundation model fine-tuned for one scenario.",
        **common,
    )
    def scenario_checkpoint(
        context: dg.AssetExecutionContext, spcs: PipesSPCSClient
    ) -> Iterator[dg.MaterializeResult]:
        upstream = latest_output(
            context, spcs, FOUNDATION_MODEL, fixed_path=_fixed_path(settings, FOUNDATION_MODEL)
        )
        args = train_args(settings, context.partition_key, upstream.mounted)
        yield from _materialize(context, spcs, settings, args=args, upstreams=[upstream])

    @dg.asset(
        key=PREDICTIONS,
        deps=[IMAGE, slice_key("predict"), SCENARIO_CHECKPOINT, *tables],
        partitions_def=scenarios,
        description="Every main entity scored for one scenario.",
        **common,
    )
    def predictions(
        context: dg.AssetExecutionContext, spcs: PipesSPCSClient, config: PredictConfig
    ) -> Iterator[dg.MaterializeResult]:
        check_prediction_date(config.prediction_date, load_model_config(settings))
        upstream = latest_output(
            context,
            spcs,
            SCENARIO_CHECKPOINT,
            fixed_path=_fixed_path(settings, SCENARIO_CHECKPOINT),
        )
        args = predict_args(settings, upstream.mounted, config.prediction_date, config.top_k)
        yield from _materialize(context, spcs, settings, args=args, upstreams=[upstream])

    return [foundation_model, scenario_checkpoint, predictions]


def pretrain_args(settings: "Settings") -> list[str]:
    """Return the arguments of pretrain.py."""
    return [
        f"{settings.mount_path}/scripts/pretrain.py",
        *("--config", f"{settings.mount_path}/configs/{settings.fm_config.name}"),
        *("--features-path", _output(settings, FOUNDATION_MODEL)),
        *_overwrite(settings),
    ]


def train_args(settings: "Settings", scenario: str, checkpoint_dir: str) -> list[str]:
    """Return the arguments of train.py."""
    return [
        f"{settings.mount_path}/scripts/train.py",
        *("--checkpoint-dir", checkpoint_dir),
        *("--save-path", _output(settings, SCENARIO_CHECKPOINT)),
        *("--scenario", f"{settings.mount_path}/scenarios/{scenario}.py"),
        *_overwrite(settings),
    ]


def predict_args(
    settings: "Settings", checkpoint_dir: str, prediction_date: str | None, top_k: int | None
) -> list[str]:
    """Return the arguments of predict.py."""
    args = [
        f"{settings.mount_path}/scripts/predict.py",
        *("--save-path", _output(settings, PREDICTIONS)),
        *("--checkpoint-dir", f"{checkpoint_dir}/checkpoints"),
    ]
    if prediction_date:
        args += ["--prediction-date", prediction_date]
    if top_k:
        args += ["--top-k", str(top_k)]
    return args


def _fixed_path(settings: "Settings", key: dg.AssetKey) -> str | None:
    """Return the page's path of an output when the documented layout is asked for."""
    return _DOCUMENTED_PATHS[key] if settings.documented_layout else None


def _output(settings: "Settings", key: dg.AssetKey) -> str:
    """Return where a script writes: the attempt's directory, or the page's fixed path."""
    fixed = _fixed_path(settings, key)
    return f"{settings.mount_path}/{fixed}" if fixed else "{output_path}"


def _overwrite(settings: "Settings") -> list[str]:
    """Return the flag that a fixed output path needs: a second run finds the first one's output."""
    return ["--overwrite"] if settings.documented_layout else []


def _materialize(
    context: dg.AssetExecutionContext,
    spcs: PipesSPCSClient,
    settings: "Settings",
    *,
    args: Sequence[str],
    upstreams: Sequence[Upstream] = (),
) -> Iterator[dg.MaterializeResult]:
    """Check the sources, run the job service, and yield what the container reported."""
    check_selection(context)
    config = load_model_config(settings)
    image = latest_image(context)
    with spcs.session(query_tag=query_tag(context)) as session:
        check_staged(session, _needed_files(spcs, settings, args[0], upstreams))
        facts = check_sources(session, config)
    observe(context, facts)
    inputs = [
        LineageInput("image", image.reference, image.digest),
        *(LineageInput("asset", upstream.name, upstream.version) for upstream in upstreams),
        *(LineageInput("table", fact.table.fqn, fact.version) for fact in facts),
        *_stage_inputs(context),
    ]
    invocation = spcs.run(
        context=context,
        command=["python"],
        args=args,
        env=spec_environment(settings),
        image=image.reference,
        image_digest=image.digest,
        output_path=None if settings.documented_layout else _output_path(context),
        inputs=inputs,
        options=LaunchOptions(
            # --resume and --overwrite exclude one another, and predict.py knows neither.
            resume_args=("--resume",)
            if "predict.py" not in args[0] and not settings.documented_layout
            else (),
            lineage_details=_details(context),
        ),
        extras={"asset": context.asset_key.to_user_string()},
    )
    yield from invocation.get_results(implicit_materializations=False)  # type: ignore[misc]
    with spcs.session(query_tag=query_tag(context)) as session:
        remove_old_attempts(context, session, spcs.stage_root, keep=settings.keep_attempts)


def _needed_files(
    spcs: PipesSPCSClient, settings: "Settings", script: str, upstreams: Sequence[Upstream]
) -> list[tuple[StagePath, str]]:
    """Return the script and the upstream manifests, each with the asset that writes it."""
    relative = script.removeprefix(f"{settings.mount_path}/")
    needed = [(spcs.stage_root / relative, "stage_contents")]
    needed += [(upstream.location / "lineage.json", upstream.name) for upstream in upstreams]
    return needed


def _output_path(context: dg.AssetExecutionContext) -> str:
    """Return the stage directory that holds the attempts of this asset and partition."""
    name = context.asset_key.to_user_string()
    partition = compat.partition_key_of(context)
    return f"{name}/{partition}" if partition else name


def _stage_inputs(context: dg.AssetExecutionContext) -> list[LineageInput]:
    """Name the slice of the stage contents, and the scenario file, that the script reads."""
    found: list[LineageInput] = []
    for key in sorted(context.assets_def.asset_deps[context.asset_key]):
        if key.path[0] not in ("stage_contents", SCENARIO_FILE.path[0]):
            continue
        partition = context.partition_key if key == SCENARIO_FILE else None
        record = context.instance.get_latest_data_version_record(
            key, is_source=key == SCENARIO_FILE, partition_key=partition
        )
        version = None
        if record and record.event_log_entry.dagster_event:
            event = record.asset_materialization or record.event_log_entry.asset_observation
            version = data_version_of(event) if event else None
        found.append(LineageInput("asset", key.to_user_string(), version))
    return found


def _details(context: dg.AssetExecutionContext) -> Mapping[str, Any]:
    return {"dagster_job": context.run.job_name}


def preview_spec(settings: "Settings", asset: str, scenario: str, *, documented: bool) -> str:
    """Return the specification an asset would send, with placeholders for what a launch adds."""
    from monad_dagster.assets.image import image_context, image_tag
    from monad_dagster.spcs.identifiers import QualifiedName
    from monad_dagster.spcs.instance_families import load_instance_families
    from monad_dagster.spcs.spec import DOCUMENTED_SETTINGS, SpecSettings, build_spec

    upstream = f"{settings.mount_path}/<upstream output>"
    args = {
        "foundation_model": lambda: pretrain_args(settings),
        "scenario_checkpoint": lambda: train_args(settings, scenario, upstream),
        "predictions": lambda: predict_args(settings, upstream, None, None),
    }[asset]()
    names = (settings.database, settings.schema, settings.image_repository)
    tag = image_tag(settings, image_context(settings))
    image = f"{QualifiedName(*names).registry_path()}/{settings.image_name}:{tag}"
    spec_settings = (
        DOCUMENTED_SETTINGS
        if documented
        else SpecSettings(
            stage=f"@{settings.database}.{settings.schema}.{settings.stage}".lower(),
            mount_path=settings.mount_path,
            gpus=settings.num_gpus,
        )
    )
    family = None if documented else load_instance_families().get(settings.instance_family)
    return build_spec(
        image=image,
        command=("python",),
        args=tuple(args),
        env=spec_environment(settings),
        settings=spec_settings,
        family=family,
    ).to_yaml()
