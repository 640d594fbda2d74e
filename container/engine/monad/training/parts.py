"""The parts of one scenario: its data, task, network and head, on top of a checkpoint."""

from collections.abc import Callable
from typing import Any

import torch

from monad.config.params import EntityIds
from monad.config.time_range import DataMode, TimeRange
from monad.config.values import instance
from monad.data.batches import RowReader
from monad.data.cache import open_store
from monad.data.pairs import feature_names
from monad.data.store import Store
from monad.errors import DataError, problem
from monad.io.checkpoint import Checkpoint, load_target_fn, load_weights
from monad.logs import configure_logging
from monad.model.build import build_head
from monad.model.head import Head
from monad.model.items import ItemField
from monad.model.network import Network
from monad.tasks import Task
from monad.training.settings import training_end

TargetFn = Callable[..., Any]


class Scenario:
    """What is trained and asked: read by those who train it, changed in place.

    Attributes:
        checkpoint: The foundation model, or the scenario, that it was loaded from.
        task: What is predicted.
        split: Ranges of time given at load time, by mode.
        entity_ids: Main entities that are asked about, or None for all.
        network: The foundation model's network.
        head: The task's head; None before the first training.
        item_position: Categorical field that a recommendation is about, or -1.
        next_item: Whether a recommendation asks for the next event's item.
        pretrained: Whether the network's weights come from pretraining.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        task: Task,
        target_fn: TargetFn | None,
        *,
        trust_target_fn: bool = False,
        split: dict[DataMode, TimeRange] | None = None,
        entity_ids: Any = None,
    ) -> None:
        configure_logging()
        self.checkpoint = checkpoint
        self.task = task
        self.split = split or {}
        self.entity_ids = None
        if entity_ids is not None:
            self.entity_ids = instance(EntityIds, entity_ids, "entity_ids")
        self._target_fn = target_fn
        self._trust = trust_target_fn
        self._store: Store | None = None
        self.item_position = int(checkpoint.extra.get("item_position", -1))
        self.next_item = bool(checkpoint.extra.get("next_item", False))
        self.network = Network(checkpoint.representation, checkpoint.size)
        load_weights(self.network, checkpoint.network, checkpoint.path)
        self.pretrained = True
        self.head: Head | None = None
        if checkpoint.task is not None and checkpoint.head:
            self.head = self.make_head()
            load_weights(self.head, checkpoint.head, checkpoint.path)

    @property
    def store(self) -> Store:
        """The data, read on first use with the representation's column types."""
        if self._store is None:
            representation = self.checkpoint.representation
            config = self.checkpoint.config
            end = training_end(config)
            self._store, _ = open_store(config, end, representation.column_plans())
        return self._store

    @property
    def target_fn(self) -> TargetFn:
        """The target function; a stored one is unpickled here, with trust only."""
        if self._target_fn is None:
            self._target_fn = load_target_fn(self.checkpoint.path, self._trust)
        return self._target_fn

    def make_head(self) -> Head:
        """Build an untrained head for the task."""
        fields = self.checkpoint.representation.categories()
        if self.task.kind == "recommendation" and not fields:
            raise DataError(
                problem("A recommendation needs items", "the data has no categorical column")
            )
        if self.item_position < 0:
            self.item_position = self.checkpoint.representation.item_field()
        items = None
        if self.task.kind == "recommendation":
            field, names = fields[self.item_position], self.pair_names
            items = ItemField(self.item_position, field.size, names[0] + names[1], *map(len, names))
        return build_head(self.task, self.network, items, self.next_item)

    @property
    def pair_names(self) -> tuple[list[str], list[str]]:
        """Names of pair and of item features, which depend on the item table's number columns."""
        representation = self.checkpoint.representation
        owner = representation.categories()[self.item_position].owner
        numbers = [f for f in representation.fields if f.owner == owner and f.kind == "number"]
        return feature_names(len(numbers))

    def reader(self) -> RowReader:
        """Return a reader of the store in the network's encoding."""
        size = self.network.size
        return RowReader(
            self.store,
            self.checkpoint.representation,
            size.max_events,
            sketch_fields=size.sketch_fields,
        )

    def start_over(self, seed: int = 0) -> None:
        """Forget what pretraining learned: random weights, all of which the next `fit` may train.

        It shows what pretraining brings; a scenario is not better for it.
        """
        torch.manual_seed(seed)
        scaling = self.network.panel.mean, self.network.panel.deviation  # measured, not learned
        self.network = Network(self.checkpoint.representation, self.checkpoint.size)
        self.network.panel.mean.copy_(scaling[0])
        self.network.panel.deviation.copy_(scaling[1])
        self.pretrained = False
