"""Any interaction file: user, item, timestamp; comma, tab, semicolon, `::` or space between.

With a header, columns are found by name; without one, three columns are user, item, timestamp and
four are user, item, rating, timestamp. The order of the file breaks ties of time.
"""

import gzip
from pathlib import Path

import numpy as np

from bench.evaluation.events import EventLog, build_log

_NAMES = {
    "user": ("user", "user_id", "userid", "customer_id", "reviewerid", "entity", "uid"),
    "item": ("item", "item_id", "itemid", "movie_id", "movieid", "product_id", "asin", "iid"),
    "time": ("timestamp", "time", "datetime", "date", "unixreviewtime", "t_dat", "ts"),
}


def split_line(line: str) -> tuple[list[str], str]:
    """Return the fields of *line* and the separator between them."""
    for separator in ("::", "\t", ",", ";", " "):
        if separator in line:
            return [field.strip().strip('"') for field in line.strip().split(separator)], separator
    raise ValueError(f"No separator found in {line[:60]!r}; known are :: tab , ; and space.")


def columns(fields: list[str]) -> tuple[dict[str, int], bool]:
    """Return the place of user, item and time, and whether *fields* is a header."""
    lower = [field.lower().split(":")[0] for field in fields]
    found = {
        role: next((lower.index(n) for n in names if n in lower), -1)
        for role, names in _NAMES.items()
    }
    if all(place >= 0 for place in found.values()):
        return found, True
    if len(fields) not in (3, 4):
        raise ValueError(
            f"{len(fields)} columns and no header naming user, item and timestamp; "
            "give 3 (user, item, timestamp) or 4 (user, item, rating, timestamp)."
        )
    return {"user": 0, "item": 1, "time": len(fields) - 1}, False


def load(path: Path) -> EventLog:
    """Read the interactions in *path* (text, gzip or Parquet)."""
    if path.suffix == ".parquet":
        import pandas as pd

        frame = pd.read_parquet(path)
        places, _ = columns([*map(str, frame.columns)])
        values = [frame.iloc[:, places[role]].to_numpy() for role in ("user", "item", "time")]
        return build_log(
            entity=values[0].astype(str), item=values[1].astype(str), time=seconds(values[2])
        )
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", errors="replace") as stream:
        fields, separator = split_line(stream.readline())
        places, header = columns(fields)
        order = [places[role] for role in ("user", "item", "time")]
        rows = [] if header else [[fields[place] for place in order]]
        for line in stream:
            if line.strip():
                parts = line.rstrip("\r\n").split(separator)
                rows.append([parts[place].strip('" ') for place in order])
    user, item, when = (np.array(values, object) for values in zip(*rows, strict=True))
    return build_log(entity=user, item=item, time=seconds(when))


def seconds(values: np.ndarray) -> np.ndarray:
    """Return times as seconds: numbers as they are (milliseconds shortened), else dates."""
    try:
        number = values.astype(np.float64)
    except (TypeError, ValueError):
        return np.array(values, "datetime64[s]").astype(np.int64)
    return (number / 1000 if np.nanmax(number) > 1e11 else number).astype(np.int64)
