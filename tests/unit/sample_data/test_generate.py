"""The generator: schema, determinism, idempotence, bounds and failures."""

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from monad_dagster.errors import ConfigError, MonadDagsterError
from monad_dagster.sample_data import discover_tables, generate_sample
from monad_dagster.sample_data.plan import build_block, build_world, default_num_articles, make_plan

SMALL = {
    "num_customers": 600,
    "num_transactions": 9_000,
    "num_articles": 300,
    "seed": 7,
    "start": date(2018, 9, 20),
    "end": date(2020, 9, 22),
}
ARTICLE_COLUMNS = [
    "article_id",
    "product_code",
    "prod_name",
    "product_type_no",
    "product_type_name",
    "product_group_name",
    "graphical_appearance_no",
    "graphical_appearance_name",
    "colour_group_code",
    "colour_group_name",
    "perceived_colour_value_id",
    "perceived_colour_value_name",
    "perceived_colour_master_id",
    "perceived_colour_master_name",
    "department_no",
    "department_name",
    "index_code",
    "index_name",
    "index_group_no",
    "index_group_name",
    "section_no",
    "section_name",
    "garment_group_no",
    "garment_group_name",
    "detail_desc",
]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A small sample, made once."""
    return generate_sample(tmp_path_factory.mktemp("sample"), **SMALL)


def read(summary, table):
    """Return one table of a sample."""
    return pa.concat_tables([pq.read_table(path) for path in summary.files[table]])


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below *folder*."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_tables_have_the_kaggle_columns(sample):
    """The three tables have Kaggle's columns, in order and upper case."""
    assert read(sample, "ARTICLES").column_names == [name.upper() for name in ARTICLE_COLUMNS]
    customers = "customer_id fn active club_member_status fashion_news_frequency age postal_code"
    assert read(sample, "CUSTOMERS").column_names == customers.upper().split()
    transactions = read(sample, "TRANSACTIONS")
    assert transactions.column_names == [
        "T_DAT",
        "CUSTOMER_ID",
        "ARTICLE_ID",
        "PRICE",
        "SALES_CHANNEL_ID",
    ]
    assert [str(kind) for kind in transactions.schema.types] == [
        "date32[day]",
        "string",
        "string",
        "double",
        "int64",
    ]


def test_row_counts_are_exact(sample):
    """Every table has exactly the rows that were asked for."""
    for table, rows in (("ARTICLES", 300), ("CUSTOMERS", 600), ("TRANSACTIONS", 9_000)):
        assert sample.row_counts[table] == rows == read(sample, table).num_rows


def test_transactions_refer_to_customers_and_articles(sample):
    """Customer and article ids are unique, well formed, and known to their tables."""
    transactions = read(sample, "TRANSACTIONS")
    for table, column, length in (("CUSTOMERS", "CUSTOMER_ID", 64), ("ARTICLES", "ARTICLE_ID", 10)):
        ids = read(sample, table)[column].to_pylist()
        assert len(set(ids)) == len(ids)
        assert {len(value) for value in ids} == {length}
        assert set(transactions[column].to_pylist()) <= set(ids)


def test_values_lie_in_the_bands_of_kaggle(sample):
    """Dates, prices and channels stay within the ranges of the real files."""
    transactions = read(sample, "TRANSACTIONS")
    assert pc.min(transactions["T_DAT"]).as_py() >= SMALL["start"]
    assert pc.max(transactions["T_DAT"]).as_py() <= SMALL["end"]
    assert set(transactions["SALES_CHANNEL_ID"].to_pylist()) == {1, 2}
    prices = transactions["PRICE"].to_numpy()
    assert prices.min() > 0.0005
    assert prices.max() < 0.6
    assert 0.01 < np.median(prices) < 0.05


def test_each_file_of_transactions_is_sorted_by_day(tmp_path):
    """A sample of several blocks has several files, each in order of time."""
    plan = SMALL | {"num_customers": 12_000, "num_transactions": 520_000}
    files = generate_sample(tmp_path, **plan).files["TRANSACTIONS"]
    assert len(files) == 3
    for path in files:
        days = pq.read_table(path)["T_DAT"].cast(pa.int32()).to_numpy()
        assert (np.diff(days) >= 0).all()


def test_same_parameters_give_the_same_bytes(tmp_path, sample):
    """Two runs with equal parameters write identical files."""
    generate_sample(tmp_path, **SMALL)
    assert all_bytes(tmp_path) == all_bytes(sample.output_dir)


def test_another_seed_gives_another_sample(tmp_path, sample):
    """The seed changes customers and transactions."""
    other = generate_sample(tmp_path, **(SMALL | {"seed": 8}))
    assert not read(other, "TRANSACTIONS").equals(read(sample, "TRANSACTIONS"))


def test_blocks_do_not_depend_on_their_order():
    """A block is the same whether it is built first, last or alone."""
    plan = make_plan(**(SMALL | {"num_customers": 12_000, "num_transactions": 520_000}))
    world = build_world(plan)
    last_first = {n: build_block(world, n) for n in reversed(range(plan.num_blocks))}
    alone = build_block(build_world(plan), 1)
    assert alone.transactions.equals(last_first[1].transactions)
    assert alone.customers.equals(last_first[1].customers)
    assert sum(plan.rows_of(n) for n in last_first) == plan.num_transactions
    assert sum(plan.customers_of(n) for n in last_first) == plan.num_customers


def test_complete_sample_is_reused(tmp_path):
    """A second call with the same parameters writes nothing and reports completion."""
    first = generate_sample(tmp_path, **SMALL)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    calls = []
    again = generate_sample(tmp_path, **SMALL, progress=lambda *call: calls.append(call))
    assert (first.reused, again.reused) == (False, True)
    assert again.files == first.files
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
    assert calls == [(9_000, 9_000)]


@pytest.mark.parametrize("damage", ["no manifest", "bad manifest", "cut file", "parameters"])
def test_anything_less_than_the_sample_is_written_anew(tmp_path, sample, damage):
    """A missing manifest, a shortened file or other parameters lead to a fresh sample."""
    shutil.copytree(sample.output_dir, tmp_path, dirs_exist_ok=True)
    manifest = tmp_path / "_sample.json"
    if damage == "no manifest":
        manifest.unlink()
    elif damage == "bad manifest":
        manifest.write_text("{")
    elif damage == "cut file":
        (tmp_path / "TRANSACTIONS" / "part-00000.parquet").write_bytes(b"PAR1")
    else:
        content = json.loads(manifest.read_text())
        content["parameters"]["seed"] = 1
        manifest.write_text(json.dumps(content))
    assert not generate_sample(tmp_path, **SMALL).reused
    assert all_bytes(tmp_path) == all_bytes(sample.output_dir)


def test_smaller_sample_leaves_no_files_of_a_larger_one(tmp_path):
    """Writing over a sample removes its surplus files and keeps files of others."""
    surplus = tmp_path / "TRANSACTIONS" / "part-00009.parquet"
    surplus.parent.mkdir()
    surplus.write_bytes(b"old")
    (tmp_path / "notes.txt").write_text("mine")
    generate_sample(tmp_path, **SMALL)
    assert not surplus.exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_progress_counts_rows_up_to_the_total(tmp_path):
    """Progress starts at zero, never falls and ends at the total."""
    calls = []
    plan = SMALL | {"num_customers": 12_000, "num_transactions": 260_000}
    generate_sample(tmp_path, **plan, progress=lambda *call: calls.append(call))
    assert [done for done, _ in calls] == [0, 130_000, 260_000]
    assert {total for _, total in calls} == {260_000}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"num_customers": 0}, "num_customers"),
        ({"num_transactions": 599}, "num_transactions"),
        ({"num_transactions": 600_001}, "num_transactions"),
        ({"num_articles": 10}, "num_articles"),
        ({"seed": -1}, "seed"),
        ({"end": date(2018, 9, 21)}, "days from start to end"),
        ({"end": date(2017, 1, 1)}, "days from start to end"),
    ],
)
def test_parameters_out_of_range_are_refused(tmp_path, change, name):
    """A parameter out of range is named with its value and range, and nothing is written."""
    with pytest.raises(ConfigError, match=rf"{name} is out of range.*the range is"):
        generate_sample(tmp_path / "out", **(SMALL | change))
    assert not (tmp_path / "out").exists()


def test_folder_that_is_a_file_is_refused(tmp_path):
    """An output path that is a file is an error of the caller."""
    target = tmp_path / "file"
    target.write_text("x")
    with pytest.raises(ConfigError, match="It is a file"):
        generate_sample(target, **SMALL)


def test_missing_space_is_found_before_writing(tmp_path, monkeypatch):
    """A disk that is too small fails at once, with the space needed."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10, 10, 1_000))
    with pytest.raises(MonadDagsterError, match=r"needs about .* MB .* Free some space"):
        generate_sample(tmp_path, **SMALL)
    assert not (tmp_path / "ARTICLES.parquet").exists()


def run_python(code: str, *arguments: str) -> str:
    """Run *code* in a fresh process and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_failed_write_leaves_no_manifest(tmp_path):
    """When the file system refuses a write, the error says so and the sample stays partial."""
    code = """
import resource, signal, sys
from pathlib import Path
from monad_dagster.errors import MonadDagsterError
from monad_dagster.sample_data import generate_sample
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    generate_sample(Path(sys.argv[1]), num_customers=2_000, num_transactions=50_000)
except MonadDagsterError as error:
    print(error)
"""
    message = run_python(code, str(tmp_path))
    assert "could not be written" in message
    assert "run the command again" in message
    assert not (tmp_path / "_sample.json").exists()


def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Two million rows need hardly more memory than a quarter of a million."""
    code = """
import re, sys
from pathlib import Path
from monad_dagster.sample_data import generate_sample
def peak():
    # Not ru_maxrss: that remembers the process this one was forked from.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
folder = Path(sys.argv[1])
generate_sample(folder / "a", num_customers=10_000, num_transactions=250_000, num_articles=4_000)
before = peak()
generate_sample(folder / "b", num_customers=80_000, num_transactions=2_000_000, num_articles=4_000)
print(before, peak())
"""
    before, after = (float(number) for number in run_python(code, str(tmp_path)).split())
    # The rows alone would be about 200 MB as Arrow columns.
    assert after - before < 100
    assert after < 500


def test_articles_scale_with_customers():
    """The default catalogue has 4,000 articles at the default size and H&M's at H&M's."""
    assert default_num_articles(20_000) == 4_000
    assert default_num_articles(1_371_980) == 105_542
    assert default_num_articles(10) == 200


def test_sample_folder_is_a_folder_of_tables(sample):
    """The reader of user folders finds the sample's tables and uploads its files as they are."""
    tables = discover_tables(sample.output_dir)
    assert [table.name for table in tables] == ["ARTICLES", "CUSTOMERS", "TRANSACTIONS"]
    for table in tables:
        assert table.row_count == sample.row_counts[table.name]
        assert table.write_parquet(sample.output_dir / "unused") == sample.files[table.name]


def test_tiny_sample_is_possible(tmp_path):
    """One customer with one line is a valid sample."""
    plan = SMALL | {"num_customers": 1, "num_transactions": 1, "num_articles": 50}
    assert read(generate_sample(tmp_path, **plan), "TRANSACTIONS").num_rows == 1
