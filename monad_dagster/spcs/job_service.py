"""Job services: submit, look at, read the logs of, cancel, drop.

Submission is asynchronous and its name is the idempotency key: an answer that was lost, or a name
that is already held, is resolved by looking the name up and comparing specification hashes.
Follows Snowflake's pages "EXECUTE JOB SERVICE" and "Monitoring services".
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from monad_dagster.errors import (
    ConnectionFailedError,
    JobServiceExistsError,
    SnowflakeError,
    problem,
)
from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName, check_job_service_name
from monad_dagster.spcs.job_service_state import (
    COMMENT_KEY,
    RUN_ID_LABEL,
    ContainerState,
    JobServiceDescription,
    container_of,
    description_of,
)
from monad_dagster.spcs.spec import MAIN_CONTAINER, JobSpec

ALREADY_EXISTS = 2002
MISSING_OR_INVISIBLE = frozenset({2003, 2043})


@dataclass(frozen=True)
class Submission:
    """A job service that exists.

    Attributes:
        name: Its name.
        query_id: Query id of the statement that created it, when known.
        adopted: Whether it existed before this call.
    """

    name: QualifiedName
    query_id: str | None
    adopted: bool = False


@dataclass(frozen=True)
class JobOptions:
    """Properties of EXECUTE JOB SERVICE beside the specification.

    Attributes:
        compute_pool: The pool to run on.
        query_warehouse: Default warehouse for SQL from the containers.
        external_access_integrations: Integrations that open outbound hosts.
        replicas: Number of identical instances; None leaves the clause out.
        labels: Written into the comment, under this project's key.
    """

    compute_pool: str
    query_warehouse: str | None = None
    external_access_integrations: Sequence[str] = ()
    replicas: int | None = None
    labels: Mapping[str, Any] = field(default_factory=dict)

    def comment(self, spec: JobSpec) -> str:
        """Write the comment: the labels and the specification's hash, as JSON."""
        return json.dumps({COMMENT_KEY: {**self.labels, "spec_sha256": spec.sha256}})


class JobServices:
    """The job services of an account, over one session."""

    def __init__(self, session: Session) -> None:
        """Use *session* for every statement."""
        self._session = session

    def submit(self, name: QualifiedName, spec: JobSpec, options: JobOptions) -> Submission:
        """Submit *spec* as an asynchronous job service, or adopt the one that bears its name.

        Args:
            name: The idempotency key: one name is one attempt.
            spec: The specification, already validated.
            options: Pool and other properties.

        Raises:
            JobServiceExistsError: The name is held by another specification.
            ConnectionFailedError: The answer was lost and no job service of that name exists.
        """
        statement = sql.execute_job_service(
            name=check_job_service_name(name),
            compute_pool=options.compute_pool,
            spec=spec.to_dict(),
            query_warehouse=options.query_warehouse,
            replicas=options.replicas,
            comment=options.comment(spec),
            external_access_integrations=options.external_access_integrations,
        )
        try:
            result = self._session.execute(statement)
        except (ConnectionFailedError, SnowflakeError) as error:
            # Refused because the name is held, or the answer was lost: look the name up.
            lost = isinstance(error, ConnectionFailedError)
            if not lost and error.errno != ALREADY_EXISTS:
                raise
            adopted = self._adopt(name, spec, options)
            if adopted is None and lost:
                adopted = self._accepted(name, error.query_id)
            if adopted is None:
                raise
            return adopted
        return Submission(name, result.query_id)

    def _adopt(self, name: QualifiedName, spec: JobSpec, options: JobOptions) -> Submission | None:
        found = self.describe(name)
        if found is None:
            return None
        if found.spec_sha256 == spec.sha256:
            row = self.find_in_history(name=name) or {}
            # Our own statement, whose answer was lost, is a submission like any other.
            own = found.labels.get(RUN_ID_LABEL)
            is_ours = own is not None and own == options.labels.get(RUN_ID_LABEL)
            return Submission(name, row.get("query_id"), adopted=not is_ours)
        raise JobServiceExistsError(
            problem(
                f"Job service {name} exists with another specification",
                f"Its status is {found.raw_status}, its specification {found.spec_sha256}, "
                f"wanted {spec.sha256}",
                f"Cancel it with {sql.cancel_job_service(name)}, or start a new run",
                f"See {sql.describe_service(name)}",
            )
        )

    def _accepted(self, name: QualifiedName, query_id: str | None) -> Submission | None:
        """Find a statement whose answer was lost in the history: by query id, else by name."""
        row = self.find_in_history(name=name, query_id=query_id)
        if row is None or row.get("deleted_time"):
            return None
        return Submission(name, row.get("query_id"))

    def describe(self, name: QualifiedName) -> JobServiceDescription | None:
        """Read one job service; None when it does not exist or cannot be seen."""
        try:
            row = self._session.execute(sql.describe_service(name)).first
        except SnowflakeError as error:
            if error.errno in MISSING_OR_INVISIBLE:
                return None
            raise
        return description_of(row) if row else None

    def list(self, database: str, schema: str) -> "list[JobServiceDescription]":
        """List the job services of a schema."""
        rows = self._session.execute(sql.show_job_services(database, schema)).rows
        return [description_of(row) for row in rows]

    def containers(self, name: QualifiedName) -> "list[ContainerState]":
        """List the containers of a job service, sidecars included; empty when it is gone."""
        try:
            rows = self._session.execute(sql.show_service_containers(name)).rows
        except SnowflakeError as error:
            if error.errno in MISSING_OR_INVISIBLE:
                return []
            raise
        return [container_of(row) for row in rows]

    def fetch_logs(
        self,
        name: QualifiedName,
        *,
        instance_id: int = 0,
        container: str = MAIN_CONTAINER,
        num_lines: int = 1000,
        since: str | None = None,
    ) -> str:
        """Read the newest lines of one container from its node.

        Args:
            name: The job service.
            instance_id: Which instance.
            container: Which container.
            num_lines: How many lines at most; Snowflake also stops at 100 KB.
            since: Start at this timestamp, and prefix one to each line; "" starts at the first.
        """
        statement = sql.get_service_logs(
            name,
            instance_id=instance_id,
            container=container,
            num_lines=num_lines,
            since=since,
        )
        return str(self._session.execute(statement).scalar or "")

    def fetch_persisted_logs(
        self, name: QualifiedName, *, start: datetime | None = None
    ) -> "list[dict[str, Any]]":
        """Read log rows from the event table: timestamp, instance_id, container_name, log."""
        return self._session.execute(sql.spcs_get_logs(name, start=start)).rows

    def fetch_kept_logs(
        self, name: QualifiedName, *, start: datetime | None = None
    ) -> "list[dict[str, Any]]":
        """Read the log rows that outlive the node: SPCS_GET_LOGS, else the event table.

        The function belongs to the job service and goes with it, and not every account has it;
        the event table needs a privilege.
        """
        try:
            return self.fetch_persisted_logs(name, start=start)
        except ConnectionFailedError:
            raise
        except SnowflakeError:
            # A name is held for 30 days, so that many days hold no other job service's lines.
            since = start or datetime.now(UTC) - timedelta(days=30)
            rows = self._session.execute(sql.event_table_logs(name, start=since)).rows
            return [{key: _decoded(value) for key, value in row.items()} for row in rows]

    def cancel(self, name: QualifiedName) -> bool:
        """Ask for the end of a job service; False when it no longer exists."""
        try:
            self._session.execute(sql.cancel_job_service(name))
        except SnowflakeError as error:
            if error.errno in MISSING_OR_INVISIBLE:
                return False
            raise
        return True

    def drop(self, name: QualifiedName, *, force: bool = False) -> None:
        """Remove a job service with its record."""
        self._session.execute(sql.drop_service(name, force=force))

    def history(self, *, created_after: datetime | None = None) -> "list[dict[str, Any]]":
        """Read the job services of the last 30 days that the current role owns."""
        return self._session.execute(sql.job_history(created_after=created_after)).rows

    def find_in_history(
        self, *, name: QualifiedName | None = None, query_id: str | None = None
    ) -> "dict[str, Any] | None":
        """Find one job service in the history, dropped ones included; the newest wins."""
        rows = self._session.execute(sql.job_in_history(name=name, query_id=query_id)).rows
        return rows[0] if rows else None


def _decoded(value: object) -> object:
    """Decode a value of the event table: a log line is stored as a JSON string."""
    if isinstance(value, str) and value.startswith('"'):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
