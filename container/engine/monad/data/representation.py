"""The behavioural representation: what is fitted on the data before any network is trained.

Vocabularies with a frequency cap and a hashed tail, quantiles of numbers, and the scaling of
aggregates. All of it comes from events of the training range. Plain values only, so that it
can be stored beside tensors and loaded without unpickling code.
"""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from monad.config.schema import MemoryConstrainingParams
from monad.data.aggregates import AggregateReader, TableAggregates, choose_aggregates
from monad.data.dense import parsed_vectors
from monad.data.fields import TEXT, VECTOR, Field
from monad.data.ingest import Plans
from monad.data.profile import ColumnPlan
from monad.data.store import CATEGORY, NUMBER, Column, Store
from monad.errors import DataError, problem
from monad.targets.sketches import Sketch
from monad.targets.values import labels

_TEXT_BUCKETS = 4_096
NUM_EDGES = 16
_SAMPLE = 200_000
_RECOMMENDABLE = 20
_LOOKED_UP = 500  # targets whose items say which column they come from


@dataclasses.dataclass
class Representation:
    """Everything fitted; `to_plain` and `from_plain` convert it for storage."""

    tables: list[str]
    fields: list[Field]
    attributes: list[Field]
    aggregates: list[TableAggregates]
    aggregate_names: list[str]
    mean: list[float]
    deviation: list[float]
    edges: list[list[float]]
    plans: dict[str, list[dict[str, Any]]]
    training_end: int
    num_entities: int
    num_events: int

    def to_plain(self) -> dict[str, Any]:
        """Return plain dicts, lists and numbers."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> "Representation":
        """Rebuild a representation from plain values."""
        made = dict(plain)
        made["fields"] = [Field(**item) for item in plain["fields"]]
        made["attributes"] = [Field(**item) for item in plain["attributes"]]
        made["aggregates"] = [TableAggregates(**item) for item in plain["aggregates"]]
        return Representation(**made)

    def column_plans(self) -> Plans:
        """Return the column plans, for reading the data again in the same way."""
        return {name: [ColumnPlan(**p) for p in plans] for name, plans in self.plans.items()}

    def categories(self) -> list[Field]:
        """Return the categorical event fields."""
        return [field for field in self.fields if field.kind == CATEGORY]

    def numbers(self) -> list[Field]:
        """Return the numeric event fields."""
        return [field for field in self.fields if field.kind == NUMBER]

    def dense(self) -> list[Field]:
        """Return the text and embedding event fields."""
        return [field for field in self.fields if field.kind in (TEXT, VECTOR)]

    def item_field(self, origin: tuple[str, str] | None = None) -> int:
        """Return the position, among categories, of the field that recommendations are about."""
        found = self.categories()
        if origin is not None:
            for position, item in enumerate(found):
                if (item.owner.lower(), item.column.lower()) == tuple(x.lower() for x in origin):
                    return position
            raise self._no_item_field(*origin)
        sizes = [len(item.values) for item in found]
        return int(np.argmax(sizes)) if sizes else -1

    def item_field_of(self, targets: Iterable[Sketch]) -> int:
        """Return the field that the items of *targets* are values of.

        A sketch of a column's values knows the column; others, such as of a list, are looked up.

        Raises:
            DataError: The column is no model input, or no field has such values.
        """
        some = list(itertools.islice((t for t in targets if len(t)), _LOOKED_UP))
        origin = next((t.origin for t in some if t.origin), None)
        if origin is not None or not some or not self.categories():
            return self.item_field(origin)
        items = {name for target in some for name in labels(target.items)}
        known = [len(items & set(field.values)) for field in self.categories()]
        sizes = [len(field.values) for field in self.categories()]
        best = max(range(len(known)), key=lambda i: (known[i], sizes[i]))
        if not known[best]:
            raise DataError(
                problem(
                    "The items of the recommendation's targets are values of no column",
                    f"such as {sorted(items)[0]}; looked for in"
                    f" {', '.join(field.column for field in self.categories())}",
                    "Make sketches of a column's values: sketch(events[source][column])",
                )
            )
        return best

    def _no_item_field(self, owner: str, column: str) -> DataError:
        plans = [p for made in self.plans.values() for p in made]
        name = column.rpartition(".")[2].lower()
        plan = next((p for p in plans if p["name"].lower() in (column.lower(), name)), {})
        why = plan.get("reason") or f"its type is {plan.get('override', 'not known')}"
        return DataError(
            problem(
                f"Column {owner}.{column} cannot be recommended",
                why,
                "Override its type as categorical_compressed, or disallow the column that it repeats;"
                " then pretrain again",
                "data_sources[].column_type_overrides",
            )
        )


def fit_representation(
    store: Store,
    plans: Plans,
    training_end: int,
    limits: MemoryConstrainingParams,
    seed: int,
    shared: dict[tuple[str, str], str] | None = None,
) -> Representation:
    """Fit vocabularies, quantiles and scaling on events with `time <= training_end`.

    *shared* names the shared entity of columns, by (owner, column) in lower case.
    """
    fields = []
    shared = shared or {}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for table in store.tables:
        rows = np.flatnonzero(np.asarray(table.times) <= training_end)
        for column in table.columns:
            key = (table.name.lower(), column.name.lower())
            if key in shared and column.kind == CATEGORY:
                counts[key] = value_counts(column, rows)
        fields += [
            _fit_field(table.name, column, rows, limits, seed)
            for column in table.columns
            if column.modelled
        ]
    attributes = [
        _fit_field(source.name, column, _entities_seen(store, training_end), limits, seed)
        for source in store.attributes
        for column in source.columns
        if column.modelled
    ]
    for source in store.attributes:
        for column in source.columns:
            key = (source.name.lower(), column.name.lower())
            if key in shared and column.kind == CATEGORY:
                counts[key] = value_counts(column, _entities_seen(store, training_end))
    share_vocabularies([*fields, *attributes], counts, shared, limits)
    specs = choose_aggregates(store, training_end)
    reader = AggregateReader(store, specs)
    entities, stamps = _sample_pairs(store, training_end, seed)
    matrix = reader.read(entities, stamps)
    edges = np.quantile(matrix, np.linspace(0, 1, NUM_EDGES // 2 + 1), axis=0).T
    return Representation(
        tables=[table.name for table in store.tables],
        fields=fields,
        attributes=attributes,
        aggregates=specs,
        aggregate_names=reader.names(),
        mean=matrix.mean(axis=0).tolist(),
        deviation=np.maximum(matrix.std(axis=0), 1e-3).tolist(),
        edges=edges.tolist(),
        plans={name: [dataclasses.asdict(p) for p in found] for name, found in plans.items()},
        training_end=int(training_end),
        num_entities=store.num_entities,
        num_events=store.num_events,
    )


def _fit_field(
    owner: str, column: Column, rows: np.ndarray, limits: MemoryConstrainingParams, seed: int
) -> Field:
    raw = column.raw(rows)
    if column.override == "text":
        return Field(owner, column.name, TEXT, buckets=_TEXT_BUCKETS)
    if column.override == "embedding":
        return _fit_vector(owner, column, raw)
    if column.kind == CATEGORY:
        assert column.dictionary is not None
        counts = np.bincount(raw[raw >= 0], minlength=len(column.dictionary))
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] > 0][: limits.max_vocabulary]
        values = [str(value) for value in column.dictionary[order].tolist()]
        buckets = limits.tail_buckets if len(values) > _RECOMMENDABLE else 1
        return Field(owner, column.name, CATEGORY, values=values, buckets=buckets)
    found = raw[np.isfinite(raw)].astype(np.float64)
    if len(found) > _SAMPLE:
        found = np.random.default_rng(seed).choice(found, _SAMPLE, replace=False)
    return Field(owner, column.name, NUMBER, edges=quantile_edges(found))


def _fit_vector(owner: str, column: Column, raw: np.ndarray) -> Field:
    seen = np.unique(raw[raw >= 0])
    vectors = parsed_vectors(owner, column.name, column.distinct[seen].tolist(), None)
    center = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1])
    scale = np.maximum(vectors.std(axis=0), 1e-3) if len(vectors) else np.ones(vectors.shape[1])
    return Field(owner, column.name, VECTOR, center=center.tolist(), scale=scale.tolist())


def share_vocabularies(
    fields: list[Field],
    counts: dict[tuple[str, str], dict[str, int]],
    shared: dict[tuple[str, str], str],
    limits: MemoryConstrainingParams,
) -> None:
    """Give the categories of each shared entity one vocabulary, most frequent values first.

    Args:
        fields: All fields; those of a shared entity are changed.
        counts: Occurrences of each value, by (owner, column) in lower case.
        shared: Name of the shared entity, by (owner, column) in lower case.
        limits: The largest vocabulary.
    """
    for name in sorted(set(shared.values())):
        members = [
            f
            for f in fields
            if f.kind == CATEGORY and shared.get((f.owner.lower(), f.column.lower())) == name
        ]
        total: dict[str, int] = {}
        for member in members:
            for value, count in counts[member.owner.lower(), member.column.lower()].items():
                total[value] = total.get(value, 0) + count
        values = sorted(total, key=lambda value: (-total[value], value))[: limits.max_vocabulary]
        buckets = limits.tail_buckets if len(values) > _RECOMMENDABLE else 1
        for member in members:
            member.values, member.buckets, member.shared = list(values), buckets, name


def value_counts(column: Column, rows: np.ndarray) -> dict[str, int]:
    """Return how often each value of a category occurs in *rows*."""
    raw = column.raw(rows)
    counts = np.bincount(raw[raw >= 0], minlength=len(column.distinct))
    found = np.flatnonzero(counts)
    values = column.distinct[found].tolist()
    return {str(value): int(count) for value, count in zip(values, counts[found], strict=True)}


def quantile_edges(values: np.ndarray) -> list[float]:
    """Return increasing quantile edges of squashed values."""
    if not len(values):
        return [0.0, 1.0]
    squashed = np.sign(values) * np.log1p(np.abs(values))
    edges = np.unique(np.quantile(squashed, np.linspace(0, 1, NUM_EDGES + 1)))
    return edges.tolist() if len(edges) > 1 else [float(edges[0]), float(edges[0]) + 1.0]


def _entities_seen(store: Store, training_end: int) -> np.ndarray:
    seen = np.zeros(store.num_entities, dtype=bool)
    for table in store.tables:
        filled = np.flatnonzero(np.diff(table.offsets) > 0)
        seen[filled[np.asarray(table.times)[table.offsets[filled]] <= training_end]] = True
    return np.flatnonzero(seen)


def _sample_pairs(store: Store, end: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw entities and split points of the training range, for the scaling of aggregates."""
    random = np.random.default_rng(seed)
    seen = _entities_seen(store, end)
    if not len(seen):
        seen = np.arange(max(store.num_entities, 1))
    entities = random.choice(seen, 20_000 if len(seen) > 1 else 2)
    start = store.first_time
    stamps = random.integers(start + (end - start) // 4, max(end, start + 4) + 1, len(entities))
    return entities, stamps.astype(np.int64)
