"""UCI Online Retail (Chen, Sain, Guo 2012, CC BY 4.0): a gift wholesaler, 2010-12 to 2011-12.

Cancellations (invoice number with C) and lines without a customer are dropped.
"""

from pathlib import Path

from bench.evaluation.events import EventLog, build_log

FILE = "online-retail/transactions.csv.gz"


def load(data_dir: Path) -> EventLog:
    """Read the transactions below *data_dir*."""
    import pandas as pd

    frame = pd.read_csv(
        data_dir / FILE,
        dtype={"InvoiceNo": str, "StockCode": str, "CustomerID": str, "Description": str},
        parse_dates=["InvoiceDate"],
    )
    keep = frame["CustomerID"].notna() & ~frame["InvoiceNo"].str.startswith("C")
    frame = frame[keep]
    return build_log(
        entity=frame["CustomerID"].to_numpy(object),
        item=frame["StockCode"].to_numpy(object),
        time=frame["InvoiceDate"].to_numpy("datetime64[s]").astype("int64"),
        amount=frame["Quantity"] * frame["UnitPrice"],
        basket=frame["InvoiceNo"].to_numpy(object),
        numeric={"quantity": frame["Quantity"], "unit_price": frame["UnitPrice"]},
        category={
            "country": frame["Country"].to_numpy(object),
            "description": frame["Description"].to_numpy(object),
        },
    )
