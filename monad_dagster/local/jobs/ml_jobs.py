"""SYSTEM$EXECUTE_ML_JOB: the control plane of Snowflake ML Jobs, on top of job services.

Follows what snowflake-ml-python 2.6 sends (the functions are not documented). Deviations: the
account has no ML runtime of its own, so the runtime is whatever image named `ml_runtime` the role
may read; and the payload is started directly, without Ray and the client's start-up scripts.
"""

import json
import uuid
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.jobs.job_statements import start_job
from monad_dagster.local.jobs.job_submission import Submission, repository_key
from monad_dagster.local.sql.handlers import function
from monad_dagster.local.sql.statements import Arguments, ObjectName, Statement, parse_name

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

RUNTIME_IMAGE = "ml_runtime"
MOUNT = "/mnt/job_stage"
RESULT = "output/mljob_result"
_NOTE = "control plane only; the runtime is an image named ml_runtime that the role may read"
_STARTUP = ["bash", f"{MOUNT}/system/startup.sh"]
# Runs the payload as the client's launcher does: its result is a file of JSON, written last.
_LAUNCHER = """
import json, os, pathlib, runpy, sys, traceback
script, sys.argv = sys.argv[1], sys.argv[1:]
sys.path.insert(0, os.path.dirname(script))
answer, code = {"success": True, "value": None}, 0
try:
    value = runpy.run_path(script, run_name="__main__").get("__return__")
    json.dumps(value)
    answer["value"] = value
except SystemExit as ended:
    code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    answer["success"] = code == 0
except BaseException as error:
    traceback.print_exc()
    answer, code = {"success": False, "exc_type": type(error).__name__, "exc_value": str(error)}, 1
path = pathlib.Path(os.environ["MLRS_STAGE_MOUNT_PATH"], os.environ["MLRS_RESULT_PATH"])
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(answer))
sys.stdout.flush()
sys.exit(code)
"""


@function("SYSTEM$GET_ML_JOB_RUNTIME", note=_NOTE)
def get_ml_job_runtime(session: "Session", statement: Statement, args: Arguments) -> str:
    """Return the image that an ML Job runs on."""
    session.lookup("COMPUTE POOL", parse_name(str(args.get(0, "COMPUTE_POOL"))), "USAGE", "MONITOR")
    wanted = str(args.get(1, "RUNTIME_ENVIRONMENT") or "")
    if wanted.startswith("/"):
        return wanted
    return _runtime(session)


@function("SYSTEM$EXECUTE_ML_JOB", note=_NOTE)
def execute_ml_job(session: "Session", statement: Statement, args: Arguments) -> str:
    """Run an ML Job as a job service and return its qualified name."""
    written, pool = str(args.get(0, "NAME")), str(args.get(1, "COMPUTE_POOL"))
    options, job_options = _options(args, 2), _options(args, 3)
    if job_options.get("GENERATE_SUFFIX"):
        written += uuid.uuid4().hex[:12].upper()
    database, schema, last = session.qualify(parse_name(written))
    name = ObjectName((database, schema, last.upper()))
    replicas, warehouse = job_options.get("TARGET_INSTANCES"), job_options.get("QUERY_WAREHOUSE")
    submission = Submission(
        parse_name(pool),
        name=name,
        text=json.dumps(_specification(session, options)),
        is_async=bool(job_options.get("ASYNC", True)),
        replicas=replicas if isinstance(replicas, int) and replicas > 1 else None,
        warehouse=parse_name(str(warehouse)).name if warehouse else None,
        comment=job_options.get("COMMENT"),
        integrations=list(job_options.get("EXTERNAL_ACCESS_INTEGRATIONS") or []),
    )
    start_job(session, statement, submission)
    return str(name)


def _options(args: Arguments, index: int) -> dict[str, Any]:
    try:
        found = json.loads(str(args.get(index, "OPTIONS", "{}")))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise errors.invalid_value(args.get(index, "OPTIONS"), f"argument {index + 1}")
    return {str(key).upper(): value for key, value in found.items()}


def _specification(session: "Session", options: dict[str, Any]) -> dict[str, Any]:
    """Return the specification that the server makes of an ML Job's options."""
    stage = str(options.get("STAGE_PATH") or "")
    arguments = [str(item) for item in options.get("ARGS") or []]
    if arguments[:2] == _STARTUP:
        arguments = arguments[2:]
    if not stage or not arguments:
        raise errors.invalid_value(json.dumps(options)[:200], "STAGE_PATH, ARGS")
    environment = {
        "MLRS_STAGE_MOUNT_PATH": MOUNT,
        "MLRS_PAYLOAD_DIR": "app",
        "MLRS_RESULT_PATH": RESULT,
        **{str(key): str(value) for key, value in (options.get("ENV_VARS") or {}).items()},
    }
    container = {
        "name": "main",
        "image": _image(session, options),
        "command": ["python", "-c", _LAUNCHER],
        "args": arguments,
        "env": environment,
        "volumeMounts": [{"name": "stage-volume", "mountPath": MOUNT}],
    }
    volume = {
        "name": "stage-volume",
        "source": "stage",
        "stageConfig": {"name": stage if stage.startswith("@") else f"@{stage}"},
    }
    return {"spec": {"containers": [container], "volumes": [volume]}}


def _image(session: "Session", options: dict[str, Any]) -> str:
    runtime = str(options.get("RUNTIME") or "")
    return runtime if runtime.startswith("/") else _runtime(session)


def _runtime(session: "Session") -> str:
    """Return the newest image named ml_runtime that the role may read.

    Raises:
        StatementError: There is none.
    """
    store = session.account.extensions["images"]
    for found in session.visible("IMAGE REPOSITORY"):
        if not session.has_privilege(found, "READ", "WRITE"):
            continue
        for tag in store.images(repository_key(found)):
            if tag.image == RUNTIME_IMAGE:
                return _reference(found, tag.tag)
    raise errors.StatementError(
        395018,
        "22023",
        f"No ML runtime: the local account has none of its own. Push an image named "
        f"{RUNTIME_IMAGE} to an image repository that role {session.role} may read.",
    )


def _reference(found: CatalogObject, tag: str) -> str:
    repository = "/".join((found.database, found.schema, found.name)).lower()
    return f"/{repository}/{RUNTIME_IMAGE}:{tag}"
