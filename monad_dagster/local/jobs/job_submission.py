"""EXECUTE JOB SERVICE: reads the statement, checks names and privileges, creates the job service.

Checks run in the order of the page "Working with services": schema, compute pool, specification,
images, stages, warehouse, integrations, name. Nothing is created unless all pass.
"""

import re
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from monad_dagster.local import errors
from monad_dagster.local.catalog.catalog import CatalogObject
from monad_dagster.local.images.image_rootfs import ImageRootfsError, read_config, select_platform
from monad_dagster.local.images.image_store import ImageStore, ImageStoreError
from monad_dagster.local.jobs.job_model import (
    ContainerState,
    ImageRef,
    InstanceState,
    Job,
    StageMount,
)
from monad_dagster.local.pools.compute_pools import pools_of
from monad_dagster.local.specs.spec import ServiceSpec, parse_spec
from monad_dagster.local.specs.spec_render import render_spec, spec_digest
from monad_dagster.local.specs.spec_text import InvalidSpecError, render_template, template_value
from monad_dagster.local.sql.statements import (
    Cursor,
    ObjectName,
    StageLocation,
    Statement,
    parse_stage_location,
    quote_identifier,
)

if TYPE_CHECKING:
    from monad_dagster.local.session import Session

SERVICE_NAME = re.compile(r"^[A-Z][A-Z0-9_]{0,62}$")
MAX_REPLICAS = 100
MAX_INTEGRATIONS = 10
_FILE_KEYS = ("SPECIFICATION_FILE", "SPECIFICATION_TEMPLATE_FILE", "SPEC", "SPECIFICATION_TEMPLATE")


@dataclass
class Submission:
    """What an EXECUTE JOB SERVICE statement says."""

    pool: ObjectName
    name: ObjectName | None = None
    text: str | None = None
    stage: StageLocation | None = None
    file: str = ""
    is_template: bool = False
    values: dict[str, str] | None = None
    is_async: bool = False
    replicas: int | None = None
    warehouse: str | None = None
    comment: str | None = None
    integrations: list[str] = field(default_factory=list)


def invalid_spec(error: Exception | str) -> errors.StatementError:
    """Return 395018 for a specification that is refused."""
    return errors.StatementError(395018, "22023", f"Invalid spec: {error}")


def parse_submission(cursor: Cursor) -> Submission:
    """Read the statement after EXECUTE JOB SERVICE; clauses come in any order."""
    cursor.expect("IN COMPUTE POOL")
    submission = Submission(cursor.name())
    seen: set[str] = set()
    while not cursor.at_end():
        clause = cursor.accept_any(
            "FROM", "USING", "NAME", "ASYNC", "REPLICAS", "QUERY_WAREHOUSE", "COMMENT",
            "EXTERNAL_ACCESS_INTEGRATIONS",
        )  # fmt: skip
        if clause is None or clause in seen:
            raise cursor.error()
        seen.add(clause)
        if clause == "FROM":
            _read_from(cursor, submission)
        elif clause == "USING":
            submission.values = _read_values(cursor)
        else:
            cursor.expect_op("=")
            _read_property(cursor, clause, submission)
    if submission.text is None and submission.stage is None:
        raise cursor.error()
    if submission.is_template != (submission.values is not None):
        raise cursor.error()
    return submission


def _read_from(cursor: Cursor, submission: Submission) -> None:
    if cursor.accept("SPECIFICATION"):
        submission.text = cursor.string()
        return
    if cursor.accept("SPECIFICATION_TEMPLATE"):
        submission.text, submission.is_template = cursor.string(), True
        return
    submission.stage = cursor.stage_location()
    key = cursor.accept_any(*_FILE_KEYS)
    if key is None:
        raise cursor.error()
    submission.is_template = "TEMPLATE" in key
    cursor.accept_op("=")
    submission.file = cursor.string()


def _read_values(cursor: Cursor) -> dict[str, str]:
    """Read USING (key => value, …); keys keep their case, so they come from the text."""
    values: dict[str, str] = {}
    cursor.expect_op("(")
    while not cursor.accept_op(")"):
        token = cursor.next()
        if token.kind not in ("word", "name"):
            raise cursor.error()
        key = cursor.statement.text[token.start : token.end].strip('"')
        cursor.expect_op("=>")
        values[key] = template_value(cursor.literal())
        following = cursor.peek()
        if not cursor.accept_op(",") and (following is None or following.value != ")"):
            raise cursor.error()
    return values


def _read_property(cursor: Cursor, clause: str, submission: Submission) -> None:
    if clause == "NAME":
        submission.name = cursor.name()
    elif clause == "ASYNC":
        submission.is_async = cursor.boolean()
    elif clause == "REPLICAS":
        submission.replicas = cursor.integer()
        if not 1 <= submission.replicas <= MAX_REPLICAS:
            raise errors.invalid_value(submission.replicas, "REPLICAS")
    elif clause == "QUERY_WAREHOUSE":
        submission.warehouse = cursor.name().name
    elif clause == "COMMENT":
        submission.comment = cursor.string()
    else:
        given = cursor.value()
        submission.integrations = [
            str(item) for item in (given if isinstance(given, list) else [given])
        ]
        if len(submission.integrations) > MAX_INTEGRATIONS:
            raise errors.invalid_value(len(submission.integrations), clause)


def create_job(session: "Session", statement: Statement, submission: Submission) -> Job:
    """Check a submission and return the new job service; its name is not held yet.

    Raises:
        StatementError: As Snowflake refuses; see spcs.md 1.8 and 1.9.
    """
    name = submission.name or ObjectName((_generated_name(statement.query_id),))
    database, schema, last = session.qualify(name)
    if not SERVICE_NAME.match(last):
        raise errors.invalid_value(last, "NAME")
    session.require_schema(database, schema, "CREATE SERVICE")
    pool = session.lookup("COMPUTE POOL", submission.pool, "USAGE")
    pools = pools_of(session.account)
    family = pools.family(pool)
    text = _specification(session, submission)
    try:
        spec = parse_spec(text, family)
    except InvalidSpecError as error:
        raise invalid_spec(error) from None
    _refuse_unsupported(spec)
    images = {
        container.image: _image(session, container.image, database, schema)
        for container in spec.containers
    }
    stages = _stage_mounts(session, spec, database, schema)
    if submission.warehouse is not None:
        session.lookup("WAREHOUSE", ObjectName((submission.warehouse,)), "USAGE")
    for integration in submission.integrations:
        session.lookup("INTEGRATION", ObjectName((integration,)), "USAGE")
    rendered = render_spec(spec, {image: ref.digest for image, ref in images.items()}, family)
    now = session.now().timestamp()
    job = Job(
        id=uuid.uuid4().hex,
        database=database,
        schema=schema,
        name=last,
        owner=session.role,
        user=session.user,
        pool=pool.name,
        family=family.name,
        query_id=statement.query_id,
        created_at=now,
        updated_at=now,
        spec_text=text,
        rendered=rendered,
        digest=spec_digest(rendered),
        images=images,
        stages=stages,
        instances=_instances(spec, images, submission.replicas or 1, now),
        is_async=submission.is_async,
        replicas=submission.replicas,
        comment=submission.comment,
        warehouse=submission.warehouse,
        integrations=submission.integrations,
        warnings=[*spec.warnings, *_ineffective(spec)],
    )
    return job


def hold_name(session: "Session", job: Job) -> None:
    """Take a job service's name.

    Raises:
        StatementError: 2002 when it is held.
    """
    name = ObjectName((job.database, job.schema, job.name))
    session.create_object("SERVICE", name, properties={"JOB": job.id})


def _generated_name(query_id: str) -> str:
    return "JOB_" + query_id.upper().replace("-", "_")


def _instances(
    spec: ServiceSpec, images: dict[str, ImageRef], count: int, now: float
) -> list[InstanceState]:
    return [
        InstanceState(
            index,
            [
                ContainerState(container.name, container.image, images[container.image].digest)
                for container in spec.containers
            ],
            now,
        )
        for index in range(count)
    ]


def _specification(session: "Session", submission: Submission) -> str:
    text = submission.text
    if text is None:
        assert submission.stage is not None
        text = _staged_text(session, submission.stage, submission.file)
    if not submission.is_template:
        return text
    try:
        return render_template(text, submission.values or {})
    except InvalidSpecError as error:
        raise invalid_spec(error) from None


def _staged_text(session: "Session", location: StageLocation, file: str) -> str:
    found = session.lookup("STAGE", location.stage, "READ")
    relative = "/".join(part for part in (location.path.strip("/"), file.lstrip("/")) if part)
    path = session.account.stages.resolve(found.database, found.schema, found.name, relative)
    if not path.is_file():
        raise errors.compilation_error(
            2003, "02000", f"File '@{found.fqn}/{relative}' does not exist or not authorized."
        )
    if path.stat().st_size > 2**20:
        raise invalid_spec("the specification file is too large.")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise invalid_spec("the specification file is not UTF-8 text.") from None


def _refuse_unsupported(spec: ServiceSpec) -> None:
    if any(container.raw.get("secrets") for container in spec.containers):
        raise errors.unsupported("secrets in a service specification")
    if any((v.raw.get("blockConfig") or {}).get("initialContents") for v in spec.volumes.values()):
        raise errors.unsupported("block volumes from a snapshot")


def _ineffective(spec: ServiceSpec) -> list[str]:
    """Return a warning for everything that is accepted and has no effect here."""
    found = []
    for container in spec.containers:
        keys = [key for key in ("readinessProbe", "livenessProbe") if container.raw.get(key)]
        if (container.raw.get("sessionTokenConfig") or {}).get("mountConnectionConfig"):
            keys.append("sessionTokenConfig.mountConnectionConfig")
        found += [f"{key} of container '{container.name}' has no effect here." for key in keys]
    for key in ("endpoints", "endpoint"):
        public = [item["name"] for item in spec.data["spec"].get(key) or [] if item.get("public")]
        found += [f"endpoint '{name}' is not public here: there is no ingress." for name in public]
    for volume in spec.volumes.values():
        if volume.source == "block":
            found.append(f"block volume '{volume.name}' is a directory here: its size, speed and "
                         "snapshots have no effect.")  # fmt: skip
    if spec.data["spec"].get("resourceManagement"):
        found.append("resourceManagement has no effect here.")
    for key in ("capabilities", "serviceRoles"):
        if spec.data.get(key):
            found.append(f"{key} has no effect here.")
    return found


def _image(session: "Session", image: str, database: str, schema: str) -> ImageRef:
    """Resolve an image to the digest its tag has now."""
    repository, name, tag = split_image(image, database, schema)
    found = session.find("IMAGE REPOSITORY", ObjectName(repository))
    if found is None or not session.has_privilege(found, "READ", "WRITE"):
        fqn = ".".join(quote_identifier(part) for part in repository)
        raise errors.does_not_exist("Image repository", fqn)
    store: ImageStore = session.account.extensions["images"]
    try:
        manifest = store.get_manifest(repository_key(found), name, tag)
        read_config(store, select_platform(store, repository_key(found), name, manifest))
    except ImageStoreError as error:
        raise errors.StatementError(
            397012, "22023", f"Failed to retrieve image: {image}: {error}"
        ) from None
    except ImageRootfsError as error:
        raise invalid_spec(error) from None
    return ImageRef(repository_key(found), name, manifest.digest)


def repository_key(found: CatalogObject) -> str:
    """Return the image store's key of a repository; a recreated repository is another one."""
    return f"{found.id}"


def split_image(image: str, database: str, schema: str) -> tuple[tuple[str, str, str], str, str]:
    """Return ((database, schema, repository), image, tag) of an image reference.

    Raises:
        StatementError: 395018 for a reference that names no repository.
    """
    parts = image.strip("/").split("/")
    if not image.startswith("/") and ("." in parts[0] or ":" in parts[0]) and len(parts) > 1:
        parts = parts[1:]  # the registry's host
    elif not image.startswith("/") and len(parts) == 2:
        parts = [database, schema, *parts]
    if len(parts) < 4 or not all(parts):
        raise invalid_spec(f"Provided image name uses an invalid format: {image}")
    last, colon, tag = parts[-1].partition(":")
    name = "/".join([*parts[3:-1], last])
    repository = (parts[0].upper(), parts[1].upper(), parts[2].upper())
    return repository, name.lower(), tag if colon else "latest"


def _stage_mounts(
    session: "Session", spec: ServiceSpec, database: str, schema: str
) -> list[StageMount]:
    mounts = []
    for volume in spec.volumes.values():
        if volume.source != "stage" or volume.stage is None:
            continue
        location = parse_stage_location(volume.stage)
        parts = location.stage.parts
        if len(parts) < 3:  # relative to the job service, not to the session
            parts = (database, schema, *parts)[-3:] if len(parts) == 1 else (database, *parts)
        found = session.lookup("STAGE", ObjectName(tuple(parts)), "READ", "WRITE")
        read_only = not session.has_privilege(found, "WRITE")
        mounts.append(
            StageMount(
                volume.name, found.database, found.schema, found.name, location.path, read_only
            )
        )
    return mounts


def as_options(job: Job) -> dict[str, Any]:
    """Return GET_JOB_HISTORY's PARAMETERS."""
    options: dict[str, Any] = {"ASYNC": job.is_async}
    if job.replicas is not None:
        options["REPLICAS"] = job.replicas
    return options
