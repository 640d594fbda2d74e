"""Small shop data for the engine's tests: customers with habits, items in groups."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

FIRST_DAY = np.datetime64("2020-01-01")
DAYS = 240
KINDS = ["shoe", "shirt", "hat", "sock"]


def write_shop(directory: Path, customers: int = 60, items: int = 24, seed: int = 0) -> Path:
    """Write transactions, articles and customers as Parquet; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    who, when, what, price = [], [], [], []
    for customer in range(customers):
        pace = random.integers(5, 60)
        liked = random.choice(items, 4, replace=False)
        leaves = DAYS if random.random() < 0.5 else random.integers(60, DAYS)
        day = int(random.integers(0, 20))
        while day < leaves:
            for _ in range(int(random.integers(1, 4))):
                who.append(f"c{customer:03d}")
                when.append(FIRST_DAY + np.timedelta64(day, "D"))
                what.append(int(random.choice(liked)) + 1000)
                price.append(float(random.integers(1, 20)))
            day += int(random.integers(1, 2 * pace))
    table = {
        "customer_id": who,
        "t_dat": pa.array(np.array(when, dtype="datetime64[D]")),
        "article_id": what,
        "price": price,
        "channel": [int(x) % 2 + 1 for x in random.integers(0, 2, len(who))],
    }
    pq.write_table(pa.table(table), directory / "transactions.parquet")
    articles = {
        "article_id": list(range(1000, 1000 + items)),
        "kind": [KINDS[i % len(KINDS)] for i in range(items)],
    }
    pq.write_table(pa.table(articles), directory / "articles.parquet")
    people = {
        "customer_id": [f"c{i:03d}" for i in range(customers)],
        "age": [None if i % 7 == 0 else 20 + i % 50 for i in range(customers)],
        "club": [["gold", "silver"][i % 2] for i in range(customers)],
    }
    pq.write_table(pa.table(people), directory / "customers.parquet")
    return directory


def location(path: Path) -> dict:
    """Return the data_location of a Parquet file."""
    return {"database_type": "parquet", "connection_params": {"path": str(path)}}


def log_config(file: Path, table: dict, entity: str, date: str, since: str) -> dict:
    """Write one event table and return its configuration; the source is named as the file."""
    pq.write_table(pa.table(table), file)
    source = {
        "type": "event",
        "name": file.stem,
        "main_entity_column": entity,
        "date_column": {"name": date},
        "data_location": location(file),
    }
    return {"data_sources": [source], "data_params": {"data_start_date": since}}


def shop_config(directory: Path, **training: object) -> dict:
    """Return the configuration of the shop as plain values."""
    return {
        "data_sources": [
            {
                "type": "event",
                "name": "transactions",
                "main_entity_column": "CUSTOMER_ID",
                "date_column": {"name": "T_DAT", "format": "%Y-%m-%d"},
                "data_location": location(directory / "transactions.parquet"),
                "joined_data_sources": [
                    {"name": "articles", "join_on": [["ARTICLE_ID", "article_id"]]}
                ],
                "sql_lambdas": [{"alias": "double_price", "expression": "price * 2"}],
            },
            {
                "type": "attribute",
                "name": "articles",
                "data_location": location(directory / "articles.parquet"),
            },
            {
                "type": "main_entity_attribute",
                "name": "customers",
                "main_entity_column": "customer_id",
                "data_location": location(directory / "customers.parquet"),
            },
        ],
        "data_params": {
            "data_start_date": "2020-01-01",
            "training_end_date": "2020-07-28",
            "test_start_date": "2020-07-29",
            "test_end_date": "2020-08-27",
        },
        "training_params": {"accelerator": "cpu", **training},
        "memory_constraining_params": {
            "hidden_dim": 16,
            "num_layers": 1,
            "num_heads": 1,
            "max_history_events": 16,
        },
    }


def write_config(directory: Path, values: dict) -> Path:
    """Write a configuration file and return its path."""
    path = directory / "fm_config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def comes_back(history, future, attributes, ctx):
    """Whether the customer buys again."""
    return [float(future["transactions"].count() > 0)]
