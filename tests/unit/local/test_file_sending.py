"""Files go out by the kernel and uploads come in gathered, over real connections of uvicorn."""

import contextlib
import http.client
import os
import socket
import ssl
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from monad_dagster.local.serve import send_unpaced
from monad_dagster.local.stages import file_sending
from monad_dagster.local.stages.file_sending import TURN_BYTES, LargeFileResponse
from monad_dagster.local.stages.file_transfer import GATHERED_BYTES, TAIL_BYTES, gathered_body
from tests.support.certificates import make_certificate

SIZE = TURN_BYTES + 12345  # more than one turn of a thread


@pytest.fixture(scope="module")
def content():
    """Return bytes that are nowhere the same."""
    return os.urandom(SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, content):
    """Return a directory with a large, a small and an empty file."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "large").write_bytes(content)
    (folder / "small").write_bytes(b"small")
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def uploads():
    """Return what was uploaded: for each body, its pieces."""
    return []


@contextlib.contextmanager
def serving(folder, uploads, **options):
    """Serve a directory and take uploads; yield the address."""

    async def files(request):
        return LargeFileResponse(folder / request.path_params["name"])

    async def upload(request):
        pieces = []
        uploads.append(pieces)
        with gathered_body(request) as body:
            pieces.extend([piece async for piece in body])
        return Response(str(sum(map(len, pieces))))

    app = Starlette(
        routes=[
            Route("/files/{name}", files, methods=["GET", "HEAD"]),
            Route("/upload", upload, methods=["PUT"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    send_unpaced(listener)
    config = uvicorn.Config(app, log_config=None, lifespan="off", **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def address(folder, uploads):
    """Serve the directory as the account does."""
    with serving(folder, uploads) as address:
        yield address


@pytest.fixture
def connection(address):
    """Return a connection to the server."""
    connection = http.client.HTTPConnection(*address, timeout=30)
    yield connection
    connection.close()


def fetch(connection, name, method="GET", **headers):
    """Return status, headers and body of a file's answer."""
    connection.request(method, f"/files/{name}", headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def test_files_arrive_whole_on_one_connection(connection, content):
    """Large, small and empty files follow each other on a connection that stays open."""
    for name, expected in [("large", content), ("empty", b""), ("small", b"small")] * 2:
        status, headers, body = fetch(connection, name)
        assert (status, int(headers["content-length"])) == (200, len(expected))
        assert body == expected


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-1048580", 5, 1048581),
        (f"bytes=0-{SIZE - 1}", 0, SIZE),
        (f"bytes={SIZE - 3}-", SIZE - 3, SIZE),
        (f"bytes=7-{SIZE + 99}", 7, SIZE),
        ("bytes=-4", SIZE - 4, SIZE),
    ],
)
def test_ranges_are_cut_exactly(connection, content, wanted, start, stop):
    """A range's bytes and its Content-Range agree with the file."""
    status, headers, body = fetch(connection, "large", Range=wanted)
    assert status == 206
    assert headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert body == content[start:stop]


@pytest.mark.parametrize(
    ("wanted", "status"),
    [(f"bytes={SIZE}-", 416), ("bytes=9-3", 400), ("bytes=x-", 400), ("lines=1-2", 400)],
)
def test_impossible_ranges_are_refused(connection, wanted, status):
    """A range outside of the file or without sense is an error, and the connection goes on."""
    assert fetch(connection, "large", Range=wanted)[0] == status
    assert fetch(connection, "small")[2] == b"small"


def test_a_range_of_an_older_file_gives_the_whole_one(connection, content):
    """If-Range with another tag is not taken for this file's."""
    status, _, body = fetch(connection, "large", **{"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (status, body == content) == (200, True)


def test_head_sends_no_body(connection):
    """HEAD tells the size only, whatever is asked next on the connection."""
    status, headers, body = fetch(connection, "large", "HEAD")
    assert (status, int(headers["content-length"]), body) == (200, SIZE, b"")
    assert fetch(connection, "small")[2] == b"small"


def test_a_client_that_stops_reading_gets_the_rest_later(address, content):
    """Threads do not wait for a slow client: others are served, and it still gets every byte."""
    with socket.create_connection(address, 30) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.sendall(b"GET /files/large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for _ in range(2 * file_sending.SENDERS):  # more than there are threads
            other = http.client.HTTPConnection(*address, timeout=30)
            assert fetch(other, "large")[2] == content
            other.close()
        received = b"".join(iter(lambda: slow.recv(1 << 20), b""))
    assert received.partition(b"\r\n\r\n")[2] == content


def test_many_stalled_clients_do_not_stop_the_server(address, content):
    """More clients that read nothing than there are threads leave the others their turn."""
    stalled = []
    try:
        for _ in range(3 * file_sending.SENDERS):
            client = socket.create_connection(address, 30)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.sendall(b"GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n")
            stalled.append(client)
        other = http.client.HTTPConnection(*address, timeout=30)
        assert fetch(other, "large")[2] == content
        other.close()
    finally:
        for client in stalled:
            client.close()


def test_a_client_that_leaves_is_no_error(address, content, caplog):
    """A connection that is reset inside a file ends it quietly, and others go on."""
    with socket.create_connection(address, 30) as leaving:
        leaving.sendall(b"GET /files/large HTTP/1.1\r\nHost: x\r\n\r\n")
        leaving.recv(100)
    connection = http.client.HTTPConnection(*address, timeout=30)
    assert fetch(connection, "large")[2] == content
    connection.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_file_that_became_shorter_ends_the_connection(address, folder, content):
    """A client never takes a part of a file for the whole."""
    path = folder / "shrinking"
    path.write_bytes(content)
    with socket.create_connection(address, 30) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(b"GET /files/shrinking HTTP/1.1\r\nHost: x\r\n\r\n")
        first = client.recv(100)
        os.truncate(path, 10)
        rest = b"".join(iter(lambda: client.recv(1 << 20), b""))  # to the end of the connection
    assert f"content-length: {SIZE}".encode() in first + rest
    assert len(first + rest) < SIZE


@pytest.mark.parametrize("size", [0, 1, TAIL_BYTES, TAIL_BYTES + 1, 3 * TAIL_BYTES + 77])
def test_uploads_arrive_whole(connection, content, uploads, size):
    """Bodies below, at and above the sizes at which gathering begins and ends are complete."""
    connection.request("PUT", "/upload", content[:size])
    assert int(connection.getresponse().read()) == size
    assert b"".join(uploads[-1]) == content[:size]


def test_small_sends_are_gathered(connection, content, uploads):
    """4 KiB at a time do not become as many pieces."""
    size = 8 * TAIL_BYTES

    def pieces():
        for start in range(0, size, 4096):
            yield content[start : start + 4096]

    connection.request("PUT", "/upload", pieces(), headers={"Content-Length": str(size)})
    assert int(connection.getresponse().read()) == size
    gathered = [piece for piece in uploads[-1][:20] if len(piece) >= GATHERED_BYTES // 2]
    assert len(gathered) >= 15


def test_a_stalled_upload_goes_on(address, content, uploads):
    """Less than what the kernel gathers may arrive, wait for the rest, and end at any byte."""
    size = 2 * TAIL_BYTES + 3
    with socket.create_connection(address, 30) as client:
        head = f"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        client.sendall(head.encode())
        for start, stop in [(0, 9), (9, TAIL_BYTES), (TAIL_BYTES, size - 1), (size - 1, size)]:
            client.sendall(content[start:stop])
            other = http.client.HTTPConnection(*address, timeout=30)
            assert fetch(other, "small")[2] == b"small"  # the server has had its turns
            other.close()
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    assert b"".join(uploads[-1]) == content[:size]


def test_a_connection_is_as_before_after_an_upload(connection, content):
    """What follows a gathered upload on its connection is answered at once, however short."""
    connection.request("PUT", "/upload", content[: 2 * TAIL_BYTES])
    assert int(connection.getresponse().read()) == 2 * TAIL_BYTES
    assert fetch(connection, "small")[2] == b"small"


@pytest.mark.parametrize("options", ["tls", "h11"])
def test_other_connections_take_the_other_way(folder, content, uploads, tmp_path, options):
    """Where the kernel cannot send, under TLS or another HTTP parser, the same bytes arrive."""
    cert, key = make_certificate(tmp_path)
    chosen = {"tls": {"ssl_certfile": cert, "ssl_keyfile": key}, "h11": {"http": "h11"}}[options]
    with serving(folder, uploads, **chosen) as address:
        if options == "tls":
            context = ssl.create_default_context(cafile=cert)
            connection = http.client.HTTPSConnection(*address, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection(*address, timeout=30)
        assert fetch(connection, "large")[2] == content
        assert fetch(connection, "large", Range="bytes=3-99")[2] == content[3:100]
        connection.request("PUT", "/upload", content)
        assert int(connection.getresponse().read()) == SIZE
        connection.close()
    assert b"".join(uploads[-1]) == content


def test_connections_on_loopback_are_not_paced():
    """What a listener accepts sends without the host's congestion control."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        send_unpaced(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            used = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    assert used.rstrip(b"\0") == b"reno"
