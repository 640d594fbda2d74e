"""RecTools SASRec with full (many items: sampled) softmax, trained until its validation loss stops improving.

The best epoch on held-out last events is kept. Repeat-buy data are not filtered; for
leave-one-out the items of the history are.
"""

from typing import Any

import numpy as np

from bench.evaluation.definitions import Problem
from bench.evaluation.events import DAY, EventLog
from bench.evaluation.methods.base import Effort, Prediction
from bench.evaluation.ranking import fill_up, popular_items, seen_pairs

MAX_EPOCHS, QUICK_EPOCHS, PATIENCE = 200, 2, 8
SESSION_MAX_LENGTH = 100
FULL_SOFTMAX_ITEMS = 20_000  # sampled negatives are drawn for each position: slower below this


class RecToolsSASRec:
    """SASRec as RecTools builds it."""

    name = "sasrec"
    kinds = ("recommendation",)
    environment = "rectools"
    seeded = True
    leave_one_out = True

    def predict(self, problem: Problem, effort: Effort) -> Prediction:
        """Train with early stopping, recommend, fill up short lists with popular items."""
        import pandas as pd
        from rectools import Columns
        from rectools.dataset import Dataset

        log = problem.log
        frame = pd.DataFrame(
            {
                Columns.User: log.entity.astype(np.int64),
                Columns.Item: log.item.astype(np.int64),
                Columns.Weight: 1.0,
                Columns.Datetime: ordered_times(log),
            }
        )
        dataset = Dataset.construct(frame)
        model, epochs = self._fit(dataset, effort)
        known = np.intersect1d(problem.population, log.entity)
        found = model.recommend(
            users=known,
            dataset=dataset,
            k=problem.task.k,
            filter_viewed=problem.task.filter_seen,
            on_unsupported_targets="ignore",
        )
        lists = np.full((len(problem.population), problem.task.k), -1, np.int64)
        place = np.full(log.num_entities, -1, np.int64)
        place[problem.population] = np.arange(len(problem.population))
        rank = found[Columns.Rank].to_numpy() - 1
        lists[place[found[Columns.User].to_numpy()], rank] = found[Columns.Item].to_numpy()
        facts = {"epochs": epochs, "session_max_len": SESSION_MAX_LENGTH}
        return Prediction(fill_up(lists, popular_items(problem), seen_pairs(problem)), facts)

    def _fit(self, dataset: Any, effort: Effort) -> tuple[Any, int]:
        """Return the trained model and the number of epochs of its best state."""
        import torch
        from pytorch_lightning import seed_everything
        from rectools.models import SASRecModel

        torch.set_num_threads(effort.num_threads)
        seed_everything(effort.seed, workers=True)
        full = dataset.item_id_map.size <= FULL_SOFTMAX_ITEMS
        loss = "softmax" if full else "sampled_softmax"
        watcher = Watcher(QUICK_EPOCHS if effort.quick else MAX_EPOCHS, effort.work_dir)
        model = SASRecModel(
            n_factors=64,
            n_blocks=2,
            n_heads=2,
            session_max_len=SESSION_MAX_LENGTH,
            dropout_rate=0.2,
            lr=1e-3,
            batch_size=64,
            loss=loss,
            n_negatives=256,
            get_val_mask_func=last_of_each_user,
            get_trainer_func=watcher.trainer,
        )
        model.fit(dataset)
        watcher.restore(model)
        return model, watcher.best_epoch


def ordered_times(log: EventLog) -> np.ndarray:
    """Return times that keep the file order of equal ones: microseconds count the place."""
    base = log.time.astype("datetime64[s]").astype("datetime64[us]").astype(np.int64)
    first = np.searchsorted(log.time, log.time, side="left")
    place = np.arange(len(log)) - first
    return (base + np.minimum(place, DAY)).astype("datetime64[us]").astype("datetime64[ns]")


def last_of_each_user(interactions: Any, **_: Any) -> np.ndarray:
    """Return a mask of the last event of every user with enough history, at most 2,000 of them."""
    from rectools import Columns

    order = interactions.reset_index(drop=True).sort_values(Columns.Datetime, kind="stable")
    last = order.groupby(Columns.User).tail(1)
    count = order.groupby(Columns.User)[Columns.Item].size()
    users = count[count > 3].index.to_numpy()
    kept = np.random.default_rng(0).permutation(users)[:2000]
    mask = np.zeros(len(interactions), bool)
    mask[last.index[last[Columns.User].isin(kept)].to_numpy()] = True
    return mask


class Watcher:
    """Stops training when the validation loss stops improving and keeps the best weights."""

    def __init__(self, max_epochs: int, folder: str) -> None:
        self.max_epochs, self.folder = max_epochs, folder
        self.checkpoint: Any = None
        self.best_epoch = 0

    def trainer(self) -> Any:
        """Return Lightning's trainer."""
        from pytorch_lightning import Trainer
        from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

        self.checkpoint = ModelCheckpoint(
            dirpath=self.folder, monitor="val_loss", save_top_k=1, save_weights_only=True
        )
        stop = EarlyStopping(monitor="val_loss", patience=PATIENCE)
        return Trainer(
            max_epochs=self.max_epochs,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[self.checkpoint, stop],
        )

    def restore(self, model: Any) -> None:
        """Put the best weights into *model*."""
        import torch

        path = self.checkpoint.best_model_path
        if not path:
            return
        stored = torch.load(path, map_location="cpu", weights_only=True)
        model.lightning_model.load_state_dict(stored["state_dict"])
        self.best_epoch = int(stored.get("epoch", 0)) + 1
