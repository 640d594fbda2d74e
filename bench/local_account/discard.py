"""A server that discards uploads and serves zeros: what a connector takes without an account.

Speaks just enough of the protocol for login, one PUT and one GET, on a bare asyncio protocol.
Runs as `python -m bench.local_account.discard SIZE FOLDER`; prints its port.
"""

import asyncio
import gzip
import json
import re
import socket
import sys
from pathlib import Path

from monad_dagster.local.serve import send_unpaced
from monad_dagster.local.stages.file_transfer import GATHERED_BYTES, TAIL_BYTES

TOKENS = {
    "token": "t", "masterToken": "m", "sessionId": 1, "validityInSeconds": 3600,
    "masterValidityInSeconds": 14400, "serverVersion": "9", "parameters": [],
    "sessionInfo": {"databaseName": "B", "schemaName": "S", "warehouseName": None, "roleName": "R"},
}  # fmt: skip
ZEROS = bytes(1 << 20)


class Discard(asyncio.Protocol):
    """One connection; requests come one after the other."""

    major = 4  # of the connector that logged in last

    def __init__(self, size: int, folder: str) -> None:
        self.size, self.folder = size, folder
        self.head, self.left, self.body = b"", 0, b""
        self.request = ("", "", {})
        self.sending = None
        self.is_gathering = False
        self.resumed = asyncio.Event()
        self.resumed.set()

    def connection_made(self, transport) -> None:
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def wake_at(self, size: int) -> None:
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def pause_writing(self) -> None:
        self.resumed.clear()

    def resume_writing(self) -> None:
        self.resumed.set()

    def data_received(self, data: bytes) -> None:
        while data:
            if self.left:
                taken, data = data[: self.left], data[self.left :]
                self.left -= len(taken)
                if self.is_gathering and self.left <= TAIL_BYTES:
                    self.is_gathering = False
                    self.wake_at(1)
                if self.request[0] != "PUT":
                    self.body += taken
                if not self.left:
                    self.answer()
                continue
            self.head += data
            data = b""
            head, found, rest = self.head.partition(b"\r\n\r\n")
            if found:
                self.head, data = b"", rest
                self.begin(head.decode("latin-1"))

    def begin(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        self.request, self.body = (method, path, headers), b""
        self.left = int(headers.get("content-length", 0))
        if self.left > TAIL_BYTES:  # wake for as much at once as the account does, not for 4 KiB
            self.is_gathering = True
            self.wake_at(GATHERED_BYTES)
        if headers.get("expect"):
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.left:
            self.answer()

    def answer(self) -> None:
        method, path, headers = self.request
        if "/blob/" in path:
            self.answer_blob(method, headers)
            return
        body = (
            gzip.decompress(self.body) if headers.get("content-encoding") == "gzip" else self.body
        )
        data = {}
        if "login-request" in path:
            version = json.loads(body)["data"]["CLIENT_APP_VERSION"]
            Discard.major = int(version.split(".")[0])
            data = TOKENS
        elif "query-request" in path:
            data = self.command(json.loads(body)["sqlText"])
        content = json.dumps({"data": data, "code": None, "message": None, "success": True})
        self.reply(200, content.encode(), "Content-Type: application/json")

    def command(self, sql: str) -> dict:
        if Discard.major >= 5:
            stage = {
                "locationType": "GCS", "location": "b/s/", "path": "s/", "region": "local",
                "creds": {"GCS_ACCESS_TOKEN": "t"}, "presignedUrl": None,
                "endPoint": f"http://127.0.0.1:{self.port}/blob",
            }  # fmt: skip
        else:
            stage = {
                "locationType": "LOCAL_FS", "location": self.folder, "path": "", "region": "local",
                "creds": {}, "presignedUrl": None, "endPoint": None,
            }  # fmt: skip
        stage |= {"storageAccount": None, "isClientSideEncrypted": False}
        found = re.search(r"file://(\S+)", sql)
        if found is None:  # REMOVE, and the COMMIT at the end of a connection
            if sql.lower().startswith("remove"):
                Path(self.folder, "big.bin").unlink(missing_ok=True)
            rows = {"rowtype": [], "rowset": [], "total": 0, "returned": 0}
            return rows | {"queryId": "q", "queryResultFormat": "json", "statementTypeId": 0}
        path = found[1]
        common = {
            "operation": "Node", "parallel": 4, "threshold": 200 * 1024 * 1024, "queryId": "q",
            "stageInfo": stage, "sqlText": sql, "rowtype": [], "rowset": [], "total": 0,
            "returned": 0,
        }  # fmt: skip
        if sql.lower().startswith("put"):
            return common | {
                "command": "UPLOAD", "src_locations": [path], "autoCompress": False,
                "overwrite": True, "sourceCompression": "none", "encryptionMaterial": None,
            }  # fmt: skip
        return common | {
            "command": "DOWNLOAD", "src_locations": ["big.bin"], "localLocation": path,
            "encryptionMaterial": [], "presignedUrls": [],
        }  # fmt: skip

    def answer_blob(self, method: str, headers: dict) -> None:
        if method == "PUT":
            self.reply(200, b"")
            return
        start, end = 0, self.size - 1
        found = re.match(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
        if found:
            start, end = int(found[1]), min(int(found[2] or end), end)
        length = end - start + 1
        lines = [f"Content-Length: {length}", "Accept-Ranges: bytes"]
        if found:
            lines.append(f"Content-Range: bytes {start}-{end}/{self.size}")
        head = "\r\n".join([f"HTTP/1.1 {206 if found else 200} OK", *lines])
        self.transport.write(head.encode() + b"\r\n\r\n")
        if method == "GET":
            self.sending = asyncio.ensure_future(self.send_zeros(length))

    async def send_zeros(self, length: int) -> None:
        while length > 0 and not self.transport.is_closing():
            await self.resumed.wait()
            self.transport.write(ZEROS[: min(length, len(ZEROS))])
            length -= len(ZEROS)

    def reply(self, status: int, body: bytes, *lines: str) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status} OK", f"Content-Length: {len(body)}", *lines])
        self.transport.write(head.encode() + b"\r\n\r\n" + body)


async def main(size: int, folder: str) -> None:
    """Listen and serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Discard(size, folder), "127.0.0.1", 0)
    send_unpaced(server.sockets[0])  # as the account does
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
