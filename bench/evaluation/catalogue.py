"""Which data sets are evaluated, at which cut-offs, for which tasks, and with which methods.

A data set whose files are not there is skipped with a reason; nothing is downloaded.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.evaluation import definitions as d
from bench.evaluation.datasets import complete_journey, hm, interactions, online_retail
from bench.evaluation.definitions import Examples, Problem, Task
from bench.evaluation.events import EventLog


class DataMissingError(Exception):
    """The files of a data set are not there; the message says what to give."""


@dataclass(frozen=True)
class Sources:
    """Where data may be found.

    Attributes:
        data_dir: Folder with `online-retail` and `complete-journey-sample`.
        hm_dir: Folder with the H&M Kaggle files.
        interactions: Files of user, item, timestamp for leave-one-out.
        work_dir: Where generated data and everything in between goes.
        quick: Small versions.
    """

    work_dir: Path
    data_dir: Path | None = None
    hm_dir: Path | None = None
    interactions: tuple[Path, ...] = ()
    quick: bool = False


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        name: Name in tables and files.
        load: Reader; raises DataMissingError.
        cutoffs: Timestamps, or a function of the log; empty for leave-one-out.
        tasks: Questions.
        methods: Names of methods, or None for all that fit.
        quick_skips: Whether a quick run leaves it out.
    """

    name: str
    load: Callable[[Sources], EventLog]
    cutoffs: tuple[str, ...] | Callable[[EventLog], tuple[str, ...]]
    tasks: tuple[Task, ...]
    methods: tuple[str, ...] | None = None
    quick_skips: bool = False


def _below(sources: Sources, name: str) -> Path:
    """Return the data folder, if it holds *name*."""
    if sources.data_dir is None or not (sources.data_dir / name).exists():
        raise DataMissingError(
            f"no {name} in {sources.data_dir or 'a data folder'}; give --data DIR or "
            "MONAD_EVALUATION_DATA"
        )
    return sources.data_dir


def _online_retail(sources: Sources) -> EventLog:
    return online_retail.load(_below(sources, "online-retail"))


def _complete_journey(sources: Sources) -> EventLog:
    return complete_journey.load(_below(sources, complete_journey.FOLDER))


def _complete_journey_bare(sources: Sources) -> EventLog:
    return complete_journey.load(_below(sources, complete_journey.FOLDER), attributes=False)


def _hm_sample(sources: Sources) -> EventLog:
    size = (2_000, 50_000) if sources.quick else (20_000, 500_000)
    folder = sources.work_dir / "generated" / f"hm-{size[0]}-{size[1]}"
    return hm.generate(folder, num_customers=size[0], num_transactions=size[1])


def _hm(sources: Sources) -> EventLog:
    if sources.hm_dir is None:
        raise DataMissingError("no H&M files; give --hm DIR with the Kaggle CSV or Parquet files")
    return hm.load(sources.hm_dir)


def _generated_cutoff(log: EventLog) -> tuple[str, ...]:
    return (d.day_text(hm.last_two_weeks(log)[1]),)


_REL_HM = (d.USER_CHURN, d.ITEM_SALES, d.USER_ITEM_PURCHASE)

DATASETS = (
    Dataset(
        "online-retail",
        _online_retail,
        ("2011-07-09", "2011-08-09", "2011-09-09", "2011-10-09"),
        (d.CHURN_30, d.SPEND_30, d.ITEMS_30),
    ),
    Dataset(
        "complete-journey",
        _complete_journey,
        ("2017-09-01", "2017-10-01", "2017-11-01", "2017-12-01"),
        (d.CHURN_30, d.SPEND_30),
    ),
    Dataset(
        "complete-journey-without-attributes",
        _complete_journey_bare,
        ("2017-09-01", "2017-10-01", "2017-11-01", "2017-12-01"),
        (d.CHURN_30, d.SPEND_30),
        ("lightgbm", "engine"),
        quick_skips=True,
    ),
    Dataset("hm-sample", _hm_sample, _generated_cutoff, _REL_HM),
    Dataset("hm", _hm, ("2020-09-14",), _REL_HM),
)


def datasets(sources: Sources) -> tuple[Dataset, ...]:
    """Return the data sets, interaction files included."""
    files = tuple(
        Dataset(
            f"leave-one-out-{path.name.split('.')[0].lower()}",
            lambda _, path=path: interactions.load(path),
            (),
            (d.LEAVE_ONE_OUT,),
            ("popularity", "als", "sasrec", "engine"),
        )
        for path in sources.interactions
    )
    return DATASETS + files


def problems(
    dataset: Dataset, log: EventLog, cutoffs: tuple[str, ...] = (), tasks: tuple[str, ...] = ()
) -> Iterator[tuple[str, Problem, Examples, int]]:
    """Yield (cut-off text, problem, answers, number of item codes), narrowed to what is asked."""
    wanted = [task for task in dataset.tasks if not tasks or task.name in tasks]
    if not dataset.cutoffs:
        for task in wanted:
            problem, answers = d.leave_one_out(dataset.name, log, task)
            yield "last-event", problem, answers, log.num_items
        return
    listed = dataset.cutoffs(log) if callable(dataset.cutoffs) else dataset.cutoffs
    for text in listed:
        if cutoffs and text not in cutoffs:
            continue
        for task in wanted:
            problem = d.build_problem(dataset.name, log, task, d.timestamp(text))
            viewed = log.by_item() if task.view == "item" else log
            yield text, problem, d.truth(log, problem), viewed.num_items


def shortened(dataset: Dataset) -> Dataset:
    """Return the quick version: the last cut-off only."""
    return dataset if callable(dataset.cutoffs) else replace(dataset, cutoffs=dataset.cutoffs[-1:])
