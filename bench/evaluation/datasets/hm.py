"""H&M: anyone's copy of the Kaggle files, or generated files of the same schema (RelBench rel-hm).

Reads TRANSACTIONS (t_dat, customer_id, article_id, price, sales_channel_id), ARTICLES and CUSTOMERS as
CSV or Parquet, one file or a folder of parts each, in the spellings of Kaggle and of the sample.
RelBench keeps transactions from 2019-09-07 on. The customer table has no date, so the columns
that tell of a later snapshot (FN, Active, club status, news) are left out.
"""

from pathlib import Path

from bench.evaluation.datasets.complete_journey import attach
from bench.evaluation.definitions import timestamp
from bench.evaluation.events import DAY, EventLog, build_log

NAMES = {
    "transactions": ("transactions_train", "transactions"),
    "articles": ("articles", "article"),
    "customers": ("customers", "customer"),
}
ARTICLE_COLUMNS = ("product_group_name", "index_group_name", "garment_group_name", "product_code")


def find(folder: Path, table: str) -> list[Path]:
    """Return the files of *table* below *folder*, case and extension aside; empty when missing."""
    for entry in sorted(folder.iterdir()):
        stem = entry.name.split(".")[0].lower()
        if stem not in NAMES[table]:
            continue
        if entry.is_dir():
            return sorted(p for p in entry.iterdir() if p.suffix in {".parquet", ".csv", ".gz"})
        if entry.suffix in {".parquet", ".csv", ".gz"}:
            return [entry]
    return []


def read(paths: list[Path], columns: tuple[str, ...]):
    """Return *columns* (lower case) of the files, ids as text."""
    import pandas as pd

    frames = []
    for path in paths:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            names = {n.lower(): n for n in pq.read_schema(path).names}
            wanted = [names[c] for c in columns if c in names]
            frame = pd.read_parquet(path, columns=wanted)
        else:
            text = dict.fromkeys(("article_id", "customer_id", "product_code"), str)
            frame = pd.read_csv(path, dtype=text | {n.upper(): str for n in text})
        frame.columns = [name.lower() for name in frame.columns]
        frames.append(frame[[c for c in columns if c in frame.columns]])
    return pd.concat(frames, ignore_index=True)


def load(folder: Path, *, since: str | None = "2019-09-07") -> EventLog:
    """Read the tables in *folder*.

    Raises:
        FileNotFoundError: There is no table of transactions.
    """
    paths = find(folder, "transactions")
    if not paths:
        raise FileNotFoundError(
            f"{folder} holds no transactions (transactions_train.csv, TRANSACTIONS.parquet or a "
            "folder of parts). Point --hm at the folder with the Kaggle files."
        )
    columns = ("t_dat", "customer_id", "article_id", "price", "sales_channel_id")
    frame = read(paths, columns)
    when = frame["t_dat"].astype("datetime64[s]").to_numpy("datetime64[s]").astype("int64")
    if since is not None:
        kept = when >= timestamp(since)
        frame, when = frame[kept], when[kept]
    articles, customers = None, ()
    if found := find(folder, "articles"):
        articles = read(found, ("article_id", *ARTICLE_COLUMNS))
    if found := find(folder, "customers"):
        customers = read(found, ("customer_id",))["customer_id"]
    log = build_log(
        entity=frame["customer_id"].to_numpy(object),
        item=frame["article_id"].astype(str).to_numpy(object),
        time=when,
        amount=frame["price"],
        category={"sales_channel": frame["sales_channel_id"].astype(str).to_numpy(object)},
        catalogue=() if articles is None else articles["article_id"].astype(str),
        entities=customers,
        end=int(when.max()) + DAY - 1,
    )
    if articles is not None:
        articles["article_id"] = articles["article_id"].astype(str)
        present = tuple(c for c in ARTICLE_COLUMNS if c in articles.columns)
        attach(log, "item", articles, "article_id", present)
    return log


def generate(folder: Path, *, num_customers: int, num_transactions: int, seed: int = 7) -> EventLog:
    """Write generated files of the same schema into *folder* (once) and read them."""
    from monad_dagster.sample_data import generate_sample

    generate_sample(
        folder, num_customers=num_customers, num_transactions=num_transactions, seed=seed
    )
    return load(folder, since=None)


def last_two_weeks(log: EventLog) -> tuple[int, int]:
    """Return validation and test timestamps of a generated set, as RelBench sets them: 7-day windows."""
    last_day = log.end // DAY * DAY
    return last_day - 14 * DAY, last_day - 7 * DAY
