"""PUT and GET: single files, globs, compression, overwriting, streams, what LIST then shows."""

import gzip
import hashlib
import io

import pytest
from snowflake.connector.errors import Error, ProgrammingError


@pytest.fixture
def stage(schema):
    """Yield a cursor in whose schema a stage named S is."""
    schema.execute("CREATE STAGE S ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')")
    return schema


def listed(cursor, location="@S"):
    """Return the names that LIST shows."""
    return [row[0] for row in cursor.execute(f"LIST {location}").fetchall()]


def statuses(cursor):
    """Return the status column of a PUT or GET, the last but one."""
    return [row[-2] for row in cursor.fetchall()]


def test_put_and_get_a_file(stage, tmp_path):
    """A file comes back byte for byte, and LIST shows its size and MD5."""
    content = bytes(range(256)) * 100
    (tmp_path / "a.bin").write_bytes(content)
    stage.execute(f"PUT file://{tmp_path}/a.bin @S/some/dir AUTO_COMPRESS=FALSE")
    assert statuses(stage) == ["UPLOADED"]
    row = stage.execute("LIST @S/some").fetchone()
    digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert row[:3] == ("s/some/dir/a.bin", len(content), digest)
    target = tmp_path / "down"
    target.mkdir()
    stage.execute(f"GET @S/some/dir/a.bin file://{target}/")
    assert statuses(stage) == ["DOWNLOADED"]
    assert (target / "a.bin").read_bytes() == content


def test_put_compresses_by_default(stage, tmp_path):
    """Without AUTO_COMPRESS=FALSE a file is stored as gzip under its name with .gz."""
    (tmp_path / "plain.csv").write_text("a,b\n" * 1000)
    stage.execute(f"PUT file://{tmp_path}/plain.csv @S")
    assert listed(stage) == ["s/plain.csv.gz"]
    stage.execute(f"GET @S file://{tmp_path}/")
    assert gzip.decompress((tmp_path / "plain.csv.gz").read_bytes()) == b"a,b\n" * 1000


def test_put_leaves_compressed_files_alone(stage, tmp_path):
    """A file that is gzip already is stored as it is."""
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"1\n"))
    stage.execute(f"PUT file://{tmp_path}/x.csv.gz @S")
    assert listed(stage) == ["s/x.csv.gz"]


def test_put_a_glob(stage, tmp_path):
    """A glob uploads every file that matches, and a GET of the folder brings them back."""
    for number in range(5):
        (tmp_path / f"part{number}.csv").write_text(f"{number}\n" * (number + 1))
    (tmp_path / "other.txt").write_text("no")
    stage.execute(f"PUT file://{tmp_path}/part*.csv @S/parts AUTO_COMPRESS=FALSE PARALLEL=4")
    assert statuses(stage) == ["UPLOADED"] * 5
    assert listed(stage) == [f"s/parts/part{n}.csv" for n in range(5)]
    target = tmp_path / "down"
    target.mkdir()
    stage.execute(f"GET @S/parts file://{target}/")
    assert statuses(stage) == ["DOWNLOADED"] * 5
    assert (target / "part4.csv").read_text() == "4\n" * 5


def test_put_does_not_overwrite_unless_told(stage, tmp_path, major):
    """A changed file is skipped without OVERWRITE=TRUE and replaced with it.

    Connector 4.x, which writes a local account's stages itself, then says UPLOADED nevertheless.
    """
    path = tmp_path / "f.txt"
    path.write_text("one")
    stage.execute(f"PUT file://{path} @S AUTO_COMPRESS=FALSE")
    path.write_text("other")
    stage.execute(f"PUT file://{path} @S AUTO_COMPRESS=FALSE")
    assert statuses(stage) == ["SKIPPED" if major >= 5 else "UPLOADED"]
    assert stage.execute("LIST @S").fetchone()[1] == 3
    stage.execute(f"PUT file://{path} @S AUTO_COMPRESS=FALSE OVERWRITE=TRUE")
    assert statuses(stage) == ["UPLOADED"]
    assert stage.execute("LIST @S").fetchone()[1] == 5


def test_put_of_a_glob_keeps_what_is_there(stage, tmp_path):
    """Without OVERWRITE=TRUE a glob adds the files that are new and leaves the others alone."""
    (tmp_path / "a.txt").write_text("a")
    stage.execute(f"PUT file://{tmp_path}/*.txt @S")
    (tmp_path / "a.txt").write_text("a, changed and longer")
    (tmp_path / "b.txt").write_text("b")
    before = stage.execute("LIST @S").fetchone()[2]
    stage.execute(f"PUT file://{tmp_path}/*.txt @S")
    assert listed(stage) == ["s/a.txt.gz", "s/b.txt.gz"]
    assert stage.execute("LIST @S").fetchone()[2] == before


def test_put_a_stream(stage, tmp_path):
    """Bytes in memory are uploaded under the name of the PUT."""
    stage.execute(
        "PUT file://memory.json @S/streams AUTO_COMPRESS=FALSE OVERWRITE=TRUE",
        file_stream=io.BytesIO(b'{"a": 1}'),
    )
    assert listed(stage) == ["s/streams/memory.json"]
    stage.execute(f"GET @S/streams/memory.json file://{tmp_path}/")
    assert (tmp_path / "memory.json").read_bytes() == b'{"a": 1}'


def test_put_with_quotes_and_spaces(stage, tmp_path):
    """Quoted paths and stage locations may hold spaces."""
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "a b.txt").write_text("x")
    stage.execute(f"PUT 'file://{folder}/a b.txt' '@S/dir with space' AUTO_COMPRESS=FALSE")
    assert listed(stage) == ["s/dir with space/a b.txt"]


def test_put_with_a_comment_and_a_qualified_stage(stage, tmp_path):
    """A comment inside a PUT is no glob, and a glob is no comment."""
    (tmp_path / "a.txt").write_text("x")
    (schema,) = stage.execute("SELECT CURRENT_SCHEMA()").fetchone()
    stage.execute(
        f"PUT /* made by a client */ 'file://{tmp_path}/*' '@MONAD_DB.{schema}.S/x'"
        " AUTO_COMPRESS=FALSE;"
    )
    assert listed(stage) == ["s/x/a.txt"]


def test_a_large_file(stage, tmp_path):
    """A file of several parts comes back byte for byte."""
    content = bytes(range(256)) * 4096 * 40
    (tmp_path / "large.bin").write_bytes(content)
    stage.execute(f"PUT file://{tmp_path}/large.bin @S AUTO_COMPRESS=FALSE")
    target = tmp_path / "down"
    target.mkdir()
    stage.execute(f"GET @S file://{target}/")
    assert (target / "large.bin").read_bytes() == content


def test_pattern_and_remove(stage, tmp_path):
    """PATTERN chooses files of a LIST, a GET and a REMOVE."""
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_text(name)
    stage.execute(f"PUT file://{tmp_path}/*.* @S AUTO_COMPRESS=FALSE")
    assert listed(stage, "@S PATTERN='.*[.]csv'") == ["s/a.csv", "s/b.csv"]
    stage.execute("REMOVE @S PATTERN='.*[.]csv'")
    assert listed(stage) == ["s/c.txt"]
    stage.execute("RM @S/c.txt")
    assert listed(stage) == []


def test_put_of_a_missing_file(stage, tmp_path):
    """A PUT of a file that is not there fails in the client."""
    with pytest.raises(Error):
        stage.execute(f"PUT file://{tmp_path}/none.txt @S")


def test_get_of_nothing(stage, tmp_path):
    """A GET that matches no file is an error of the client, and downloads none."""
    with pytest.raises(Error, match="the file does not exist"):
        stage.execute(f"GET @S/nothing file://{tmp_path}/")
    assert list(tmp_path.iterdir()) == []


def test_stage_of_another_role(connect, schema, tmp_path):
    """A stage that the role may not see does not exist for PUT, GET and LIST."""
    (name,) = schema.execute("SELECT CURRENT_SCHEMA()").fetchone()
    schema.execute("CREATE STAGE SECRET")
    (tmp_path / "f").write_text("x")
    cursor = connect("pipeline").cursor()
    stage = f"@MONAD_DB.{name}.SECRET"
    for sql in (
        f"PUT file://{tmp_path}/f {stage}",
        f"GET {stage} file://{tmp_path}/",
        f"LIST {stage}",
    ):
        with pytest.raises(ProgrammingError, match="does not exist or not authorized"):
            cursor.execute(sql)


def test_write_pandas(schema):
    """write_pandas creates a table, loads it and appends to it."""
    import pandas as pd
    from snowflake.connector.pandas_tools import write_pandas

    frame = pd.DataFrame({"id": [1, 2, 3], "name": ["a", "b", None], "share": [0.5, 1.5, None]})
    for turn in (1, 2):
        success, _, rows, _ = write_pandas(
            schema.connection, frame, "frames", auto_create_table=turn == 1
        )
        assert (success, rows) == (True, 3)
    assert schema.execute('SELECT COUNT(*), SUM("share"), COUNT("name") FROM "frames"').fetchone() == (
        6, 4.0, 4,
    )  # fmt: skip
