"""Fit the behavioural representation and pretrain the foundation model."""

import logging
import time
from pathlib import Path

import numpy as np
import torch
import yaml

from monad.config.loading import load_config, parse_config
from monad.config.params import TrainingParams
from monad.config.schema import FoundationModelConfig
from monad.config.time_range import shown
from monad.data.batches import RowReader
from monad.data.cache import open_store
from monad.data.ingest import Plans
from monad.data.profile import DENSE
from monad.data.representation import Representation, fit_representation
from monad.data.split_query import held_out_entities
from monad.data.store import CATEGORY, Store
from monad.data.suggested import suggested_config
from monad.errors import CheckpointError, problem
from monad.io.checkpoint import check_trained, write_checkpoint
from monad.io.storage import resolve_output
from monad.io.writer import copy_once, prepare_output, publish, scratch_directory
from monad.logs import configure_logging, fit_logger, log_metrics, pretrain_logger
from monad.model.network import Network
from monad.training.loop import run_trainer, steps_of, take_best
from monad.training.outlook import learn_outlook
from monad.training.pretraining import PretrainHeads, PretrainModule, SplitBatches, mixed
from monad.training.refusals import clear_refusals
from monad.training.resume import Attempt
from monad.training.sequences import Histories, SequenceBatches, histories, hold_out_last
from monad.training.settings import (
    AVERAGED,
    LAST_EVENTS,
    REST,
    beside_training,
    history_rate,
    learned_until,
    log_choices,
    most_steps,
    network_size,
    settings,
    shape_of,
    softmax_of,
    training_end,
    training_params,
    uses_gpu,
)
from monad.training.streams import Plan, loader

FEATURES = "features"
SUGGESTED = "suggested_config.yaml"
_VALIDATION_ENTITIES = 500


def pretrain(
    config_path: Path,
    output_path: Path,
    storage_config_path: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Fit the behavioural representation, then train the foundation model.

    Args:
        config_path: The YAML configuration.
        output_path: Directory of the checkpoint; must be empty unless resume or overwrite.
        storage_config_path: Optional storage configuration.
        resume: Keep a complete result that is already there; continue an incomplete one from its
            newest complete partial checkpoint.
        overwrite: Empty the output directory first.
    """
    configure_logging()
    config = load_config(config_path)
    output = resolve_output(Path(output_path), storage_config_path)
    if prepare_output(output, resume, overwrite):
        pretrain_logger.info("Resume: %s is complete, nothing to do", output)
        return
    if overwrite:
        fit_logger.info("Overwrite flag set, the directory %s was cleaned", output)
    with scratch_directory() as scratch:
        attempt = Attempt.open(output, scratch, resume, "pretrain", config.raw)
        found = _fitted(config, scratch) or _given_features(config, scratch)
        store, representation = found or _fit(config, scratch)
        if attempt.partial is None:
            attempt.writer().write(None)
        metrics = _train(config, store, representation, attempt)
        _publish(scratch, output, config, store, metrics, "foundation_model")
        attempt.finish()


def fit_behavioral_representation(
    config_path: Path,
    output_path: Path,
    storage_config_path: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Fit the behavioural representation alone: the first half of `pretrain`."""
    configure_logging()
    config = load_config(config_path)
    output = resolve_output(Path(output_path), storage_config_path)
    if prepare_output(output, resume, overwrite):
        fit_logger.info("Resume: %s is complete, nothing to do", output)
        return
    with scratch_directory() as scratch:
        store, _ = _fit(config, scratch)
        (scratch / "data.yaml").write_text(yaml.safe_dump(config.raw, sort_keys=False))
        _publish(scratch, output, config, store, {}, "behavioral_representation")


def train_foundation_model(
    features_path: Path,
    output_path: Path,
    storage_config_path: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> None:
    """Train the foundation model on a fitted representation: the second half of `pretrain`."""
    configure_logging()
    stored = Path(features_path) / FEATURES / "representation.pt"
    if not stored.is_file():
        raise CheckpointError(
            problem(
                f"{features_path} holds no fitted representation",
                f"no {stored.name}",
                "Run fit_behavioral_representation first",
            )
        )
    representation = Representation.from_plain(torch.load(stored, weights_only=True))
    raw = yaml.safe_load((Path(features_path) / "data.yaml").read_text(encoding="utf-8"))
    config = parse_config(raw, "data.yaml")
    output = resolve_output(Path(output_path), storage_config_path)
    if prepare_output(output, resume, overwrite):
        pretrain_logger.info("Resume: %s is complete, nothing to do", output)
        return
    store, _ = open_store(config, training_end(config), representation.column_plans())
    with scratch_directory() as scratch:
        settings = ("train", config.raw, representation.to_plain())
        attempt = Attempt.open(output, scratch, resume, *settings)
        metrics = _train(config, store, representation, attempt)
        _publish(scratch, output, config, store, metrics, "foundation_model")
        attempt.finish()


def _fitted(config: FoundationModelConfig, scratch: Path) -> tuple[Store, Representation] | None:
    """Return what an earlier attempt fitted, when its files were restored to *scratch*."""
    stored = scratch / FEATURES / "representation.pt"
    if not stored.is_file():
        return None
    representation = Representation.from_plain(torch.load(stored, weights_only=True))
    store, _ = open_store(config, training_end(config), representation.column_plans())
    return store, representation


def _given_features(
    config: FoundationModelConfig, scratch: Path
) -> tuple[Store, Representation] | None:
    """Use the representation of `data_params.features_path`, when it is given and fits."""
    given = config.data_params.features_path
    if given is None:
        return None
    source = Path(given)
    if not (source / FEATURES / "representation.pt").is_file():
        raise CheckpointError(
            problem(
                "data_params.features_path holds no fitted representation",
                f"path {source}",
                "Give the directory that fit_behavioral_representation wrote, or leave it out",
            )
        )
    for name in (f"{FEATURES}/representation.pt", SUGGESTED):
        if (source / name).is_file():
            copy_once(source / name, scratch / name)
    store, representation = _fitted(config, scratch) or _fit(config, scratch)
    end = training_end(config)
    if end is not None and representation.training_end > end:
        raise CheckpointError(
            problem(
                "LEAK: data_params.features_path was fitted on a longer training range",
                f"it ends {representation.training_end - end} seconds after this configuration's",
                "Fit the representation on this training range",
            )
        )
    fit_logger.info("Fitting left out: the representation of %s is used", source)
    return store, representation


def _publish(
    scratch: Path,
    output: Path,
    config: FoundationModelConfig,
    store: Store,
    metrics: dict[str, float],
    kind: str,
) -> None:
    manifest = {
        "kind": kind,
        "config": config.raw,
        "metrics": metrics,
        "source_tables": store.facts["source_tables"],
    }
    made = publish(scratch, output, manifest)
    pretrain_logger.info("Wrote %d files to %s", len(made["files"]), output)


def _fit(config: FoundationModelConfig, scratch: Path) -> tuple[Store, Representation]:
    """Read the data and fit the representation; writes its files to *scratch*."""
    begun = time.monotonic()
    fit_logger.info("Fitting the behavioral representation started")
    store, plans = open_store(config, training_end(config))
    end = learned_until(config, store)
    _check_range(store, end)
    seed = training_params(config).seed
    limits = config.memory_constraining_params
    shared = shared_columns(config)
    warn_of_shared(shared, plans)
    representation = fit_representation(store, plans, end, limits, seed, shared)
    (scratch / FEATURES).mkdir(parents=True)
    torch.save(representation.to_plain(), scratch / FEATURES / "representation.pt")
    text = yaml.safe_dump(suggested_config(config, plans), sort_keys=False)
    (scratch / SUGGESTED).write_text(text, encoding="utf-8")
    seconds = time.monotonic() - begun
    log_metrics(
        fit_logger,
        f"Fitting finished: {store.num_events} events of {store.num_entities} main entities,"
        f" {len(representation.fields)} event columns, {len(representation.attributes)}"
        f" attribute columns, {len(representation.aggregate_names)} aggregates;"
        f" fitting took {seconds:.1f} seconds",
        {
            "num_events": store.num_events,
            "num_entities": store.num_entities,
            "fit_seconds": seconds,
        },
    )
    return store, representation


def shared_columns(config: FoundationModelConfig) -> dict[tuple[str, str], str]:
    """Return the shared entity of each column that has one, by (source, column) in lower case.

    Columns of a joined table are those of the event source, too.
    """
    made = {}
    joined: dict[str, list[str]] = {}
    for source in config.data_sources:
        for join in source.joined_data_sources:
            joined.setdefault(join.name.lower(), []).append(source.name.lower())
    for source in config.data_sources:
        owners = [source.name.lower(), *joined.get(source.name.lower(), [])]
        for shared in source.shared_entities:
            for column in shared.columns:
                made.update({(owner, column.lower()): shared.name for owner in owners})
    return made


def warn_of_shared(shared: dict[tuple[str, str], str], plans: Plans) -> None:
    """Warn of shared entities that share nothing: columns of numbers, and single ones."""
    kinds = {
        (source.lower(), plan.name.lower()): plan for source, made in plans.items() for plan in made
    }
    for key, name in shared.items():
        plan = kinds.get(key)
        if plan is not None and (plan.kind != CATEGORY or plan.override in DENSE):
            fit_logger.warning(
                "shared_entities `%s` has no effect on column %s.%s, which is %s; override its type"
                " as categorical_compressed",
                name,
                *key,
                plan.override,
            )
        elif list(shared.values()).count(name) == 1:
            fit_logger.warning("shared_entities `%s` has no effect: it names one column only", name)


def _check_range(store: Store, end: int) -> None:
    if store.first_time >= end:
        raise CheckpointError(
            problem(
                "The training range holds no events",
                f"first event at {shown(store.first_time)}, training ends at {shown(end)}",
                "Check data_params.training_end_date and data_start_date",
            )
        )


def _train(
    config: FoundationModelConfig, store: Store, representation: Representation, attempt: Attempt
) -> dict[str, float]:
    """Train the network and write the checkpoint's files to scratch."""
    begun = time.monotonic() - attempt.used
    params = training_params(config)
    with clear_refusals(params):
        network, module, validated = _train_network(
            config, params, store, representation, attempt, begun
        )
    metrics = {name: float(value) for name, value in validated.items()}
    check_trained(metrics, network, module.heads)
    metrics["setup_seconds"] = module.setup_seconds
    metrics["training_seconds"] = time.monotonic() - begun - module.setup_seconds
    metrics["steps"] = float(steps_of(module))
    metrics["num_events"] = float(store.num_events)
    metrics["num_entities"] = float(store.num_entities)
    write_checkpoint(attempt.scratch, config, representation, network, module.heads, None, None, {})
    log_metrics(
        pretrain_logger,
        f"Foundation model trained in {metrics['training_seconds']:.1f} seconds,"
        f" {steps_of(module)} steps",
        metrics,
    )
    return metrics


def _train_network(
    config: FoundationModelConfig,
    params: TrainingParams,
    store: Store,
    representation: Representation,
    attempt: Attempt,
    begun: float,
) -> tuple[Network, PretrainModule, dict[str, torch.Tensor]]:
    torch.manual_seed(params.seed)
    adapts = params.time_budget_seconds is not None
    shape = shape_of(store, representation)
    rate = history_rate(uses_gpu(params), shape)
    chosen = settings(config, params, rate, pretrain_logger, shape)
    size = network_size(config, chosen.gpu, shape, adapts)
    network = Network(representation, size)
    heads = PretrainHeads(representation, network)
    reader = RowReader(store, representation, size.max_events, sketch_fields=size.sketch_fields)
    end = representation.training_end
    train, validation, last_events = _histories(config, reader, end, params)
    device = beside_training(params)
    learn_outlook(network.panel, reader, train.entities, end, params, device, begun)
    batches = SequenceBatches(reader, train, chosen.tokens, chosen.rows)
    checks = SequenceBatches(reader, validation, 4 * chosen.tokens, chosen.rows)
    splits = SplitBatches(reader, train.entities, end, 256, 4_096)
    plan = Plan(
        epochs=chosen.epochs,
        steps_per_epoch=batches.num_batches(),
        learning_rate=chosen.learning_rate,
        started=begun,
        label="Pretraining",
        deadline=None if not adapts else begun + float(params.time_budget_seconds or 0.0),
        timed_epochs=adapts and "epochs" not in params.given,
        most_steps=most_steps(params, batches.num_batches()),
        seed=params.seed,
        rate_end=REST if adapts and last_events else 0.02,
        averaged=adapts and AVERAGED,
    )
    pretrain_logger.info(
        "Foundation model training started: %d parameters, %d main entities with %.1f events each,"
        " output on scratch",
        sum(p.numel() for p in network.parameters()),
        len(train),
        shape.mean_length,
    )
    softmax = softmax_of(chosen.gpu, adapts)
    log_choices(pretrain_logger, size, softmax, shape.items)
    _quiet(logging.getLogger("lightning"))
    module = PretrainModule(network, heads, plan, softmax)
    module.last_events = last_events
    if chosen.gpu and adapts:
        module.cut_on_device(reader, batches, checks)
    module.validation_steps = 0.5 * checks.total_events() / chosen.tokens
    best = run_trainer(
        module,
        loader(lambda *at: mixed(batches, splits, params.seed, *at), plan, module),
        loader(lambda *_: checks.in_order()) if len(validation) else None,
        params,
        attempt.scratch / "lightning_checkpoints",
        ("val_ndcg@10", "max") if last_events and module.position >= 0 else ("val_loss", "min"),
        attempt,
    )
    take_best(module, best)
    found = {k: v for k, v in module.trainer.callback_metrics.items() if k.startswith("val_")}
    return network.cpu(), module, found


def _histories(
    config: FoundationModelConfig, reader: RowReader, end: int, params: TrainingParams
) -> tuple[Histories, Histories, bool]:
    """Return histories for training and validation, and whether validation asks for last events.

    With a budget and no `split` of the user's own, last events are held out instead of entities,
    so that every history is learned from.
    """
    everyone = np.arange(reader.store.num_entities)
    given = "split" in (config.raw.get("data_params") or {})
    if params.time_budget_seconds is not None and not given:
        whole = histories(reader, everyone, end)
        train, validation = hold_out_last(whole, LAST_EVENTS, params.seed)
        return train, validation, True
    held = held_out_entities(config, reader.store)
    train = histories(reader, everyone[~held], end)
    return train, histories(reader, everyone[held][:_VALIDATION_ENTITIES], end), False


def _quiet(logger: logging.Logger) -> None:
    logger.setLevel(logging.WARNING)
