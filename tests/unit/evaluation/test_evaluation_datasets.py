"""The readers: H&M files in both spellings, interaction files, and the guards of each."""

from pathlib import Path

import numpy as np
import pytest

from bench.evaluation import definitions as d
from bench.evaluation.catalogue import DATASETS, DataMissingError, Sources, datasets, problems
from bench.evaluation.datasets import hm, interactions
from bench.evaluation.events import DAY

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated files of the H&M schema."""
    folder = tmp_path_factory.mktemp("hm")
    hm.generate(folder, num_customers=300, num_transactions=6_000)
    return folder


def kaggle_copy(sample: Path, folder: Path) -> Path:
    """Write the sample as Kaggle's CSV files are named and spelt."""
    names = {"transactions": "transactions_train", "articles": "articles", "customers": "customers"}
    for table, name in names.items():
        frame = pd.concat([pd.read_parquet(path) for path in hm.find(sample, table)])
        frame.columns = [column.lower() for column in frame.columns]
        frame.to_csv(folder / f"{name}.csv", index=False)
    return folder


def test_csv_and_parquet_give_the_same_log(sample, tmp_path):
    """Kaggle's CSV files and the sample's Parquet files are read alike, leading zeros included."""
    parquet = hm.load(sample, since=None)
    csv = hm.load(kaggle_copy(sample, tmp_path), since=None)
    np.testing.assert_array_equal(parquet.item_ids, csv.item_ids)
    np.testing.assert_array_equal(parquet.time, csv.time)
    np.testing.assert_array_equal(parquet.entity_ids[parquet.entity], csv.entity_ids[csv.entity])
    assert parquet.item_ids[0].startswith("0")


def test_rel_hm_drops_what_relbench_drops(sample):
    """Only transactions from 2019-09-07 on are kept by default."""
    log = hm.load(sample)
    assert d.day_text(log.start) >= "2019-09-07"
    assert len(log) < len(hm.load(sample, since=None))


def test_rel_hm_tasks_on_generated_files(sample):
    """The three tasks have their populations: recent customers, every article, buyers."""
    log = hm.load(sample, since=None)
    found = next(x for x in DATASETS if x.name == "hm-sample")
    made = {p.task.name: (p, a) for _, p, a, _ in problems(found, log)}
    churn, _ = made["user-churn"]
    recent = log.between(churn.cutoff - 7 * DAY, churn.cutoff)
    assert set(churn.population) == set(recent.entity)
    sales, answers = made["item-sales"]
    assert len(sales.population) == log.num_items == len(answers.target)
    items, answers = made["user-item-purchase"]
    assert set(np.unique(answers.bought[:, 0])) == set(range(len(items.population)))


def test_day_grained_events_of_the_cutoff_day_are_history(sample):
    """Times at midnight make `>=` a leak: the cut-off's own day is input, the next day is label."""
    log = hm.load(sample, since=None)
    cutoff = hm.last_two_weeks(log)[1]
    problem = d.build_problem("hm", log, d.USER_CHURN, cutoff)
    assert problem.log.time.max() == cutoff
    after = log.between(cutoff, cutoff + 7 * DAY)
    assert after.time.min() == cutoff + DAY


def test_missing_data_is_skipped_with_a_reason(tmp_path):
    """Each data set that is not there says what to give."""
    for dataset in datasets(Sources(tmp_path)):
        if dataset.name == "hm-sample":
            continue
        with pytest.raises(DataMissingError, match="give --"):
            dataset.load(Sources(tmp_path))


def test_folder_without_transactions_is_an_error(tmp_path):
    """A folder without the table of transactions names what is missing."""
    with pytest.raises(FileNotFoundError, match=r"transactions_train\.csv"):
        hm.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ratings.dat", "u1::10::5::100\nu1::11::3::200\nu2::10::4::50\n"),
        ("log.csv", "item_id,user_id,timestamp\n10,u1,100\n11,u1,200\n10,u2,50\n"),
        ("log.txt", "u1 10 100\nu1 11 200\nu2 10 50\n"),
        (
            "log.inter",
            "user_id:token\titem_id:token\ttimestamp:float\nu1\t10\t100\nu1\t11\t200\nu2\t10\t50\n",
        ),
        (
            "ms.csv",
            "user,item,time\nu1,10,1600000000000\nu1,11,1600000100000\nu2,10,1500000000000\n",
        ),
    ],
)
def test_interaction_files_of_many_kinds(tmp_path, name, text):
    """Separators and headers are found; users, items and their order are the same."""
    path = tmp_path / name
    path.write_text(text)
    log = interactions.load(path)
    assert log.entity_ids.tolist() == ["u2", "u1"]
    assert log.item_ids[log.item].tolist() == ["10", "10", "11"]


def test_interactions_without_a_known_shape_are_refused(tmp_path):
    """Two columns and no header are an error that says what to give."""
    path = tmp_path / "bad.csv"
    path.write_text("1,2\n3,4\n")
    with pytest.raises(ValueError, match="give 3"):
        interactions.load(path)


def test_leave_one_out_of_a_file_keeps_file_order_of_ties(tmp_path):
    """The last line of a user among equal times is held out."""
    path = tmp_path / "ties.csv"
    path.write_text("user,item,timestamp\na,x,1\na,z,2\na,y,2\nb,x,1\nb,z,1\n")
    log = interactions.load(path)
    _, answers = d.leave_one_out("ties", log)
    assert log.item_ids[answers.bought[:, 1]].tolist() == ["y", "z"]
