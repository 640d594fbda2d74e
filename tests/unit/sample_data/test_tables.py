"""Reading a user's folder: discovery, types over whole files, bounded parts, clear errors."""

import gzip
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monad_dagster.errors import ConfigError
from monad_dagster.sample_data import discover_tables

ORDERS = "Order No,customer,day,amount\n1,0042,2020-01-01,2.5\nC2,,2020-01-02,\n"


def write(path: Path, content: str | bytes) -> Path:
    """Write a file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def only(folder: Path):
    """Return the one table of a folder."""
    (table,) = discover_tables(folder)
    return table


def types(table):
    """Return the types of a table by column name."""
    return {column.name: str(column.sql_type) for column in table.columns}


def rows(paths):
    """Return the rows of Parquet files."""
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist()


@pytest.mark.parametrize("name", ["orders.csv", "Orders.CSV", "orders.csv.gz", "orders/a.csv"])
def test_csv_becomes_a_table(tmp_path, name):
    """A CSV file, compressed or in a folder, becomes a typed table with upper-case names."""
    write(tmp_path / "in" / name, ORDERS)
    table = only(tmp_path / "in")
    assert table.name == "ORDERS"
    assert types(table) == {
        "ORDER_NO": "TEXT",
        "CUSTOMER": "TEXT",
        "DAY": "DATE",
        "AMOUNT": "FLOAT",
    }
    (path,) = table.write_parquet(tmp_path / "out")
    assert path.name == "ORDERS-00000.parquet"
    assert rows([path]) == [
        {"ORDER_NO": "1", "CUSTOMER": "0042", "DAY": date(2020, 1, 1), "AMOUNT": 2.5},
        {"ORDER_NO": "C2", "CUSTOMER": None, "DAY": date(2020, 1, 2), "AMOUNT": None},
    ]


def test_type_is_decided_by_the_last_value(tmp_path):
    """A letter in the last of many blocks makes the whole column text."""
    lines = "".join(f"{i},{i}\n" for i in range(10_000_00))
    write(tmp_path / "t.csv", f"a,b\n{lines}C7,8\n")
    table = only(tmp_path)
    assert types(table) == {"A": "TEXT", "B": "NUMBER(38,0)"}
    assert table.row_count == 1_000_001


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters_are_recognised(tmp_path, delimiter):
    """Semicolons, tabs and bars separate fields as well as commas."""
    write(tmp_path / "t.csv", ORDERS.replace(",", delimiter))
    assert list(types(only(tmp_path))) == ["ORDER_NO", "CUSTOMER", "DAY", "AMOUNT"]


def test_quotes_line_breaks_and_byte_order_mark(tmp_path):
    """Quoted delimiters and line breaks stay in their field; a byte order mark is dropped."""
    write(tmp_path / "t.csv", '\ufeffid,text\r\n1,"a,b"\r\n2,"c\nd"\r\n')
    (path,) = only(tmp_path).write_parquet(tmp_path / "out")
    assert rows([path]) == [{"ID": 1, "TEXT": "a,b"}, {"ID": 2, "TEXT": "c\nd"}]


def test_files_are_bounded(tmp_path):
    """No file has more rows than allowed, and the rows keep their order."""
    write(tmp_path / "in" / "t" / "a.csv", "n\n" + "".join(f"{i}\n" for i in range(70)))
    write(tmp_path / "in" / "t" / "b.csv", "n\n" + "".join(f"{i}\n" for i in range(70, 100)))
    paths = only(tmp_path / "in").write_parquet(tmp_path / "out", max_rows_per_file=32)
    assert [pq.read_metadata(path).num_rows for path in paths] == [32, 32, 32, 4]
    assert [row["N"] for row in rows(paths)] == list(range(100))


def test_writing_again_replaces_the_earlier_files(tmp_path):
    """Files of an earlier call do not linger, and other tables' files stay."""
    write(tmp_path / "in" / "t.csv", "n\n1\n2\n3\n")
    table = only(tmp_path / "in")
    other = write(tmp_path / "out" / "T-SHIRT.parquet", b"x")
    table.write_parquet(tmp_path / "out", max_rows_per_file=1)
    (path,) = table.write_parquet(tmp_path / "out")
    assert sorted((tmp_path / "out").iterdir()) == sorted([path, other])


def test_parquet_is_converted_to_table_types(tmp_path):
    """Parquet keeps its types; names are upper-cased, integers widened, pandas' index dropped."""
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "at": pa.array([0, 1], pa.timestamp("ns", tz="UTC")),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "__index_level_0__": [0, 1],
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "t.parquet")
    source = only(tmp_path / "in")
    assert types(source) == {"ID": "NUMBER(38,0)", "AT": "TIMESTAMP_NTZ", "KIND": "TEXT"}
    (path,) = source.write_parquet(tmp_path / "out")
    assert [str(kind) for kind in pq.read_schema(path).types] == [
        "int64",
        "timestamp[us]",
        "string",
    ]


def test_integer_and_float_parts_become_float(tmp_path):
    """Parts in which a column is once integer and once float become one float column."""
    (tmp_path / "t").mkdir()
    pq.write_table(pa.table({"X": [1]}), tmp_path / "t" / "a.parquet")
    pq.write_table(pa.table({"X": [1.5]}), tmp_path / "t" / "b.parquet")
    assert types(only(tmp_path)) == {"X": "FLOAT"}


def test_hidden_and_foreign_files_are_ignored(tmp_path):
    """Names with a leading dot or underscore and other kinds of files are not tables."""
    for name in (".x.csv", "_sample.json", "_x.csv", "README.md", "empty/readme.txt"):
        write(tmp_path / name, "a\n1\n")
    write(tmp_path / "t.csv", "a\n1\n")
    assert only(tmp_path).name == "T"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"t.csv": ""}, "is empty"),
        ({"t.csv": "a,b\n"}, "Table T has no rows"),
        ({"t.csv": "a,b\n1,2\n3\n"}, "record 3 has 1 fields and the header has 2"),
        ({"t.csv": "a,b\n1,2,3\n"}, "has 3 fields and the header has 2"),
        ({"t.csv": "a,\n1,2\n"}, "column 2 of 2 has no name"),
        ({"t.csv": "a b,A_B\n1,2\n"}, "two columns get the name A_B"),
        ({"t.csv": b"a\n\xff\xfe\n"}, "cannot be read.*UTF-8"),
        ({"t.csv": "a\n1\n", "T.parquet": b"x"}, "two sources for table T"),
        ({"t/x.csv": "a\n1\n", "t/y.csv": "b\n1\n"}, r"does not fit.*Missing: \['a'\]"),
        ({"t/x.csv": "a\n1\n", "t/y.parquet": b"x"}, "mixes CSV and Parquet"),
        ({"t.parquet": b"no"}, "cannot be read"),
        ({"notes.txt": "x"}, "holds no table"),
    ],
)
def test_bad_input_is_named(tmp_path, files, message):
    """Damaged, empty or inconsistent input is an error that names the file and the remedy."""
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        [table.columns for table in discover_tables(tmp_path)]


def test_broken_gzip_is_named(tmp_path):
    """A cut download is an error of the input."""
    path = write(tmp_path / "t.csv.gz", "a\n" + "".join(f"{i}\n" for i in range(100_000)))
    path.write_bytes(path.read_bytes()[:-2_000])
    with pytest.raises(ConfigError, match="cannot be read"):
        _ = only(tmp_path).columns


def test_nested_parquet_column_is_refused(tmp_path):
    """A list column cannot become a table column."""
    pq.write_table(pa.table({"x": [[1]]}), tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match="column x has a type"):
        _ = only(tmp_path).columns


def test_missing_folder_is_named(tmp_path):
    """A folder that does not exist is an error of the caller."""
    with pytest.raises(ConfigError, match="It does not exist"):
        discover_tables(tmp_path / "nowhere")


def public_data(name: str) -> Path:
    """Return the folder of a public data set, or skip the test."""
    for parent in Path(__file__).resolve().parents:
        if (folder := parent / "shared" / "data" / name).is_dir():
            return folder
    pytest.skip(f"public data set {name} is not here")


@pytest.mark.data
def test_online_retail_is_read_whole(tmp_path):
    """Invoices with a late C prefix and mixed stock codes stay text; blanks become nulls."""
    table = only(public_data("online-retail"))
    assert table.row_count == 541_909
    assert types(table) == {
        "INVOICENO": "TEXT",
        "STOCKCODE": "TEXT",
        "DESCRIPTION": "TEXT",
        "QUANTITY": "NUMBER(38,0)",
        "INVOICEDATE": "TIMESTAMP_NTZ",
        "UNITPRICE": "FLOAT",
        "CUSTOMERID": "NUMBER(38,0)",
        "COUNTRY": "TEXT",
    }
    paths = table.write_parquet(tmp_path, max_rows_per_file=200_000)
    assert [pq.read_metadata(path).num_rows for path in paths] == [200_000, 200_000, 141_909]
    nulls = sum(pq.read_table(path)["CUSTOMERID"].null_count for path in paths)
    assert nulls == 135_080


@pytest.mark.data
def test_complete_journey_keys_have_one_type(tmp_path):
    """Keys written partly as 9e+05 are integers in every table, so joins work."""
    tables = {
        table.name: types(table)
        for table in discover_tables(public_data("complete-journey-sample"))
    }
    assert len(tables) == 7
    for name in ("PRODUCTS", "COUPONS", "TRANSACTIONS_SAMPLE"):
        assert tables[name]["PRODUCT_ID"] == "NUMBER(38,0)"
