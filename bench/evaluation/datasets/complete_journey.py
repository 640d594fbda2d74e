"""84.51 Complete Journey 2.0, a sample of 75,000 lines of a grocery panel of 2017 (CC0).

The sample is by line, so that baskets are incomplete: for churn and spend, not for next baskets.
Demographics carry no date; they are of the panel's recruitment and so are taken as known throughout.
"""

from pathlib import Path

import numpy as np

from bench.evaluation.events import EventLog, attach_attributes, build_log, encode

FOLDER = "complete-journey-sample"
PRODUCT_COLUMNS = ("department", "brand", "product_category")
HOUSEHOLD_COLUMNS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)


def load(data_dir: Path, *, attributes: bool = True) -> EventLog:
    """Read transactions, products and demographics below *data_dir*.

    Args:
        data_dir: Folder that holds the data sets.
        attributes: Whether products and households keep their attributes.
    """
    import pandas as pd

    folder = data_dir / FOLDER
    frame = pd.read_csv(
        folder / "transactions_sample.csv.gz",
        dtype={"household_id": str, "product_id": str, "basket_id": str, "store_id": str},
        parse_dates=["transaction_timestamp"],
    )
    log = build_log(
        entity=frame["household_id"].to_numpy(object),
        item=frame["product_id"].to_numpy(object),
        time=frame["transaction_timestamp"].to_numpy("datetime64[s]").astype("int64"),
        amount=frame["sales_value"],
        basket=frame["basket_id"].to_numpy(object),
        numeric={
            "quantity": frame["quantity"],
            "retail_disc": frame["retail_disc"],
            "coupon_disc": frame["coupon_disc"],
        },
        category={"store": frame["store_id"].to_numpy(object)},
    )
    if not attributes:
        return log
    products = pd.read_csv(folder / "products.csv.gz", dtype=str)
    households = pd.read_csv(folder / "demographics.csv.gz", dtype=str)
    attach(log, "item", products, "product_id", PRODUCT_COLUMNS)
    attach(log, "entity", households, "household_id", HOUSEHOLD_COLUMNS)
    return log


def attach(log: EventLog, side: str, frame: object, key: str, columns: tuple[str, ...]) -> None:
    """Attach *columns* of a dimension table to the entities or items of *log*."""
    ids = log.entity_ids if side == "entity" else log.item_ids
    target = log.entity_attributes if side == "entity" else log.item_attributes
    table_ids = frame[key].to_numpy(object)
    for column in columns:
        codes, log.labels[column] = encode(frame[column].to_numpy(object))
        target[column] = np.asarray(attach_attributes(codes, ids, table_ids), np.int32)
