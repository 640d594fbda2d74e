"""Fifty job services of one second at once: all DONE, each with its whole log."""

import gzip
import hashlib
import io
import json
import tarfile
import time

import requests
import snowflake.connector

from bench.figures import Figure
from bench.local_account.accounts import admin, local_account
from monad_dagster.local import LocalAccount

JOB_SERVICES, LINES = 50, 200
CODE = (
    "import time, sys\n"
    f"for n in range({LINES}):\n"
    "    print(sys.argv[1], n, flush=True)\n"
    f"    time.sleep({1 / LINES})\n"
    "open('/st/' + sys.argv[1], 'w').write('written')\n"
)
SETUP = (
    "create image repository repo",
    "create stage st encryption = (type = 'SNOWFLAKE_SSE')",
    "create compute pool p min_nodes = 1 max_nodes = 25 instance_family = CPU_X64_XS",
    "alter schema bench.s set log_level = INFO",
)


def fifty_at_once() -> list[Figure]:
    """Submit all of them, wait for the last, compare statuses, logs and stage files."""
    with (
        local_account() as account,
        snowflake.connector.connect(**admin(account)) as connection,
        connection.cursor() as cursor,
    ):
        for statement in SETUP:
            cursor.execute(statement)
        push_empty_image(account, connection)
        started = time.perf_counter()
        for index in range(JOB_SERVICES):
            cursor.execute(
                f"execute job service in compute pool p name = j{index} async = true"
                " from specification %s",
                (json.dumps(_spec(f"j{index}")),),
            )
        submitted = time.perf_counter() - started
        done = _wait(cursor)
        seconds = time.perf_counter() - started
        complete = sum(_is_log_complete(cursor, f"j{index}") for index in range(JOB_SERVICES))
        files = len(cursor.execute("list @st").fetchall())
    note = f"submitted in {submitted:.1f} s, the last over after {seconds:.1f} s"
    return [
        Figure("50 job services of 1 s: DONE", done, "", JOB_SERVICES, True, note=note),
        Figure("50 job services: complete logs", complete, "", JOB_SERVICES, True),
        Figure("50 job services: files on the stage", files, "", JOB_SERVICES, True),
    ]


def _spec(name: str) -> dict:
    container = {
        "name": "main", "image": "/bench/s/repo/img:1", "command": ["python", "-c", CODE, name],
        "volumeMounts": [{"name": "st", "mountPath": "/st"}],
    }  # fmt: skip
    volume = {"name": "st", "source": "stage", "stageConfig": {"name": "@bench.s.st"}}
    return {"spec": {"containers": [container], "volumes": [volume]}}


def _wait(cursor) -> int:
    over = ("DONE", "FAILED", "CANCELLED", "INTERNAL_ERROR")
    deadline = time.monotonic() + 280
    statuses: list[str] = []
    while time.monotonic() < deadline:
        statuses = [row[1] for row in cursor.execute("show job services").fetchall()]
        if all(status in over for status in statuses):
            break
        time.sleep(0.5)
    return statuses.count("DONE")


def _is_log_complete(cursor, name: str) -> bool:
    expected = [f"{name} {n}" for n in range(LINES)]
    live = cursor.execute(f"call system$get_service_logs('{name}', '0', 'main')").fetchone()[0]
    stored = cursor.execute(
        f"select log from table({name}!spcs_get_logs()) order by timestamp"
    ).fetchall()
    return live.split("\n") == expected and [row[0] for row in stored] == expected


def push_empty_image(account: LocalAccount, connection) -> None:
    """Push an image without files of its own: the account's interpreter runs it."""
    issued = connection._rest._token_request("ISSUE")["data"]
    session = requests.Session()
    token = {"token": issued["sessionToken"], "expires_in": issued["validityInSecondsST"]}
    session.auth = ("0sessiontoken", json.dumps(token))
    facts = account.connection("ADMIN")
    base = f"http://{facts['host']}:{facts['port']}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("opt/monad")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    layer = gzip.compress(buffer.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [_digest(buffer.getvalue())]},
        }
    ).encode()  # fmt: skip
    for part in (layer, config):
        start = session.post(f"{base}/v2/bench/s/repo/img/blobs/uploads/")
        start.raise_for_status()
        session.put(
            base + start.headers["Location"], params={"digest": _digest(part)}, data=part
        ).raise_for_status()
    kinds = ("application/vnd.oci.image.config.v1+json",
             "application/vnd.oci.image.layer.v1.tar+gzip",
             "application/vnd.oci.image.manifest.v1+json")  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": kinds[2],
        "config": {"mediaType": kinds[0], "digest": _digest(config), "size": len(config)},
        "layers": [{"mediaType": kinds[1], "digest": _digest(layer), "size": len(layer)}],
    }  # fmt: skip
    session.put(
        f"{base}/v2/bench/s/repo/img/manifests/1",
        data=json.dumps(manifest),
        headers={"Content-Type": kinds[2]},
    ).raise_for_status()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
