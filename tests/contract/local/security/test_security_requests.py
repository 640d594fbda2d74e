"""Requests that are oversized, malformed or bombs: refused, and the account stays small and up."""

import functools
import gzip
import http.client
import io
import json
import socket
import tarfile
import zlib
from pathlib import Path

import pytest
from snowflake.connector.errors import ProgrammingError

QUERY = "/queries/v1/query-request?requestId="
LOGIN = "/session/v1/login-request"
REFUSED = (False, "390400")


@pytest.fixture
def token(connect):
    """Return a session token."""
    return connect("MONAD_PIPELINE").rest.token


def memory(account):
    """Return the server's resident memory in bytes."""
    status = Path(f"/proc/{account.status()['pid']}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@functools.cache
def bomb(size):
    """Return gzip of *size* spaces inside a JSON string, without making them all at once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    pieces = [packer.compress(b'{"sqlText": "')]
    pieces += [packer.compress(b" " * 2**20) for _ in range(size // 2**20)]
    pieces += [packer.compress(b'"}'), packer.flush()]
    return b"".join(pieces)


@pytest.mark.parametrize("path", [QUERY, LOGIN, "/session/token-request", "/session/heartbeat"])
def test_gzip_bombs(account, send, token, path):
    """A small body that unpacks to 600 MiB is refused without being unpacked."""
    before = memory(account)
    answer = send(
        "POST", path, bomb(600 * 2**20), headers={"Content-Encoding": "gzip"}, token=token
    )
    assert answer.json["success"] is (path == "/session/heartbeat")  # which reads no body
    assert memory(account) < before + 300 * 2**20


def test_oversized_bodies(account, send, token):
    """A body beyond the limit is refused, and a login takes no large body at all."""
    before = memory(account)
    body = b'{"sqlText": "' + b" " * (65 * 2**20) + b'"}'
    assert send("POST", QUERY, body, token=token).refusal == REFUSED
    assert send("POST", LOGIN, b"[" * 2**21).refusal == REFUSED
    assert memory(account) < before + 400 * 2**20


def test_a_body_that_never_ends(address, send):
    """A body sent piece by piece is cut off at the limit."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    connection.putrequest("POST", LOGIN)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    piece = b" " * 2**16
    try:
        for _ in range(64):
            connection.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.send(b"0\r\n\r\n")
        assert json.loads(connection.getresponse().read())["code"] == "390400"
    except OSError:
        pass  # the server had already answered and closed
    finally:
        connection.close()


MALFORMED = (
    b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"data": 1}', b'{"data": [1]}', b'{"data": null}',
    b'{"data": {"SESSION_PARAMETERS": 5}}', b'{"data": {"LOGIN_NAME": 5, "PASSWORD": 5}}',
    b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000, b'{"sqlText": 5}', b'{"sqlText": null}',
    b'{"sqlText": ""}', b'{"sqlText": "SELECT ?", "bindings": 5}',
    b'{"sqlText": "SELECT ?", "bindings": {"1": 5}}',
    b'{"sqlText": "SELECT ?", "bindings": {"1": {"type": 5, "value": {}}}}',
    b'{"sqlText": "SELECT ?", "bindings": {"1": {"type": "FIXED", "value": "x"}}}',
    b'{"sqlText": "SELECT ?", "bindings": {"1": {"type": "DATE", "value": "99999999999999999999"}}}',
    b'{"sqlText": "SELECT ?", "bindings": {"1": {"type": "BINARY", "value": "zz"}}}',
    b'{"sqlText": "SELECT 1", "parameters": 5}',
    b'{"sqlText": "SELECT 1; SELECT 2", "parameters": {"MULTI_STATEMENT_COUNT": "x"}}',
    b'{"sqlText": "SELECT \\ud800"}', b'{"sqlText": "SELECT \\u0000"}',
)  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("path", [QUERY, LOGIN])
def test_malformed_bodies(send, token, path, body):
    """Whatever the body is, the answer is one of the protocol, and no internal error."""
    answer = send("POST", path, body, token=token)
    assert answer.status == 200
    if not answer.json["success"]:
        assert answer.json["code"] not in {"000603", None}


@pytest.mark.parametrize(
    "raw",
    [b"\r\n\r\n", b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
     b"POST /session HTTP/1.1\r\nContent-Length: 9999999999999999999999\r\n\r\nx",
     b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", b"\x16\x03\x01\x02\x00\x01\x00" * 20,
     b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
     b"POST /session HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
    ids=range(9),
)  # fmt: skip
def test_malformed_http(address, raw):
    """Bytes that are no HTTP request are answered with an error or a closed connection."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        received = connection.recv(65536)
    assert received == b"" or received.startswith(b"HTTP/1.1 4")


SPECS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    + "spec: *j\n",
    "merges": "a: &a {x: 1}\nspec: {<<: *a}\n",
    "itself": "spec: &s {containers: [*s]}\n",
    "deep": "spec: " + "[" * 5_000 + "]" * 5_000,
    "deep mapping": "spec: " + "{a: " * 3_000 + "1" + "}" * 3_000,
    "large": "spec: {containers: [" + "x, " * 400_000 + "]}",
    "python": "spec: !!python/object/apply:os.system ['touch /tmp/monad-evil']",
    "number": "spec: {containers: [], x: " + "9" * 100_000 + "}",
    "documents": "spec: {}\n---\nspec: {}\n",
    "tabs": "\tspec:\t{}",
    "binary": "spec: \x00\x01",
    "many keys": "spec: {" + ", ".join(f"k{n}: 1" for n in range(30_000)) + "}",
    "anchors": "".join(f"a{n}: &a{n} 1\n" for n in range(20_000)) + "spec: {}",
}


@pytest.mark.parametrize("name", SPECS)
def test_specification_bombs(account, pipeline, others, refused, name):
    """A specification that is a bomb or no plain data is refused as invalid, in little memory."""
    before = memory(account)
    text = SPECS[name].replace("\\", "\\\\").replace("'", "''")
    errno, sqlstate, message = refused(
        pipeline, f"EXECUTE JOB SERVICE IN COMPUTE POOL SECURITY_POOL FROM SPECIFICATION '{text}'"
    )
    assert (errno, sqlstate) == (395018, "22023")
    assert message.startswith("Invalid spec: ")
    assert not Path("/tmp/monad-evil").exists()
    assert memory(account) < before + 300 * 2**20


STATEMENTS = {
    "brackets": "SELECT " + "(" * 5_000 + "1" + ")" * 5_000,
    "sum": "SELECT " + "+".join(["1"] * 3_000),
    "nots": "SELECT " + "NOT " * 5_000 + "TRUE",
    "cases": "SELECT " + "CASE WHEN TRUE THEN " * 5_000 + "1" + " END" * 5_000,
    "columns": "SELECT " + ",".join(["1"] * 3_000),
    "comment": "SELECT 1 /* " + "x" * 2**21,
    "string": "SELECT '" + "x" * 2**21,
    "semicolons": ";" * 100_000,
    "properties": "CREATE STAGE S ENCRYPTION = " + "(A = " * 5_000 + "1" + ")" * 5_000,
    "name": "USE " + "a." * 50_000 + "a",
    "pattern": "LIST @MONAD_DB.DATA_SCHEMA.MONAD_STAGE PATTERN = '" + "(" * 5_000 + "'",
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_statement_bombs(pipeline, send, token, name):
    """A statement of absurd size or depth ends with an error or a result, never the account."""
    answer = send("POST", QUERY, {"sqlText": STATEMENTS[name]}, token=token)
    assert answer.status == 200
    assert answer.json["success"] or answer.json["code"] not in {"000603", "390400"}


def test_zip_bomb_in_a_staged_file(admin, tmp_path):
    """A staged file that unpacks beyond all bounds fails to load as an error of the statement."""
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(64):
            file.write(b"1" * 2**20)
    cursor = admin.cursor()
    cursor.execute("CREATE OR REPLACE STAGE MONAD_DB.DATA_SCHEMA.BOMBS")
    cursor.execute("CREATE OR REPLACE TABLE MONAD_DB.DATA_SCHEMA.LOADED (A VARCHAR)")
    cursor.execute(f"PUT file://{path} @MONAD_DB.DATA_SCHEMA.BOMBS")
    with pytest.raises(ProgrammingError) as caught:
        cursor.execute(
            "COPY INTO MONAD_DB.DATA_SCHEMA.LOADED FROM @MONAD_DB.DATA_SCHEMA.BOMBS "
            "FILE_FORMAT = (TYPE = CSV)"
        )
    assert (caught.value.errno, caught.value.sqlstate) == (100082, "22000")
    assert "Max LOB size (16777216) exceeded" in str(caught.value.msg)
    cursor.execute("SELECT COUNT(*) FROM MONAD_DB.DATA_SCHEMA.LOADED")
    assert cursor.fetchall() == [(0,)]
    cursor.execute("DROP STAGE MONAD_DB.DATA_SCHEMA.BOMBS")
    cursor.execute("DROP TABLE MONAD_DB.DATA_SCHEMA.LOADED")


def test_archive_that_leads_out_of_its_image(tmp_path):
    """A layer whose names or links lead outside unpacks nothing outside of the image."""
    from monad_dagster.local.images.image_rootfs import unpack_layer

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("../evil", "/abs-evil", "a/../../evil2"):
            entry = tarfile.TarInfo(name)
            entry.size = 1
            archive.addfile(entry, io.BytesIO(b"x"))
        for name, target in (("out", "/tmp"), ("up", "../..")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
            through = tarfile.TarInfo(f"{name}/monad-evil-through")
            through.size = 1
            archive.addfile(through, io.BytesIO(b"x"))
    buffer.seek(0)
    root = tmp_path / "deep" / "root"
    root.mkdir(parents=True)
    with pytest.raises(ValueError, match="leaves the image"):
        unpack_layer(buffer, root)
    outside = [p for p in tmp_path.rglob("*evil*") if not p.is_relative_to(root)]
    assert outside == []
    assert not Path("/tmp/monad-evil-through").exists()
    assert not Path("/abs-evil").exists()


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"{" * 50_000, b'{"schemaVersion": 2, "layers": 5}',
     b'{"schemaVersion": 2, "config": {"digest": "sha256:../../x"}, "layers": []}', b"\xff" * 100,
     b" " * (5 * 2**20)],
    ids=range(8),
)  # fmt: skip
def test_malformed_manifests(send, others, password, body):
    """A manifest that is none is refused by the registry's own error."""
    import base64

    login = base64.b64encode(f"MONAD_PIPELINE:{password('MONAD_PIPELINE')}".encode()).decode()
    headers = {
        "Authorization": f"Basic {login}",
        "Content-Type": "application/vnd.oci.image.manifest.v1+json",
    }
    answer = send("PUT", "/v2/monad_db/data_schema/images/x/manifests/t", body, headers=headers)
    assert 400 <= answer.status < 500
    assert answer.json["errors"][0]["code"]
