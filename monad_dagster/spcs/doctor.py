"""Checks that a session can do what the pipeline needs, each naming the statement that repairs it.

Every check does the thing itself (describe the pool, list the stage) instead of reading grants,
because that is what a job service will do; only CREATE SERVICE, which cannot be tried without
cost, is looked up among the role's grants.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monad_dagster.errors import ConnectionFailedError, MonadDagsterError, SnowflakeError
from monad_dagster.spcs import sql, sql_lineage, sql_setup
from monad_dagster.spcs.account_setup import AccountLayout, data_grant_statements
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import StagePath, resolve_identifier
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.sql import Statement

PROBE_FILE = "runs/doctor/probe.txt"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was checked.
        ok: Whether it can be done.
        observed: What was seen.
        repair: Statements that would repair it, to be run by an administrator.
    """

    check: str
    ok: bool
    observed: str
    repair: Sequence[Statement] = ()


class _Doctor:
    def __init__(self, session: Session, layout: AccountLayout) -> None:
        self._session = session
        self._layout = layout
        self.findings: list[Finding] = []

    def check(
        self, name: str, probe: Callable[[], str], repair: Callable[[], Sequence[Statement]]
    ) -> None:
        """Run *probe*, which returns what it saw or raises."""
        try:
            self.findings.append(Finding(name, True, probe()))
        except ConnectionFailedError:
            raise
        except MonadDagsterError as error:
            self.findings.append(Finding(name, False, str(error), repair()))

    def session_role(self) -> str:
        row = self._session.execute(sql.current_session()).first
        role, user = row.get("role_name"), row.get("user_name")
        wanted = resolve_identifier(self._layout.role)
        if role != wanted:
            raise SnowflakeError(
                f"The session's role is {role}, not {wanted}. Job services would run as {role}. "
                f"Set role {wanted} on the connection."
            )
        return f"user {user}, role {role}, warehouse {row.get('warehouse_name')}"

    def create_service(self) -> str:
        layout = self._layout
        schema = f"{resolve_identifier(layout.database)}.{resolve_identifier(layout.schema)}"
        rows = self._session.execute(sql.show_grants_to_role(resolve_identifier(layout.role))).rows
        held = {
            str(row.get("privilege"))
            for row in rows
            if str(row.get("granted_on")) == "SCHEMA"
            and str(row.get("name")).replace('"', "") == schema
        }
        if not held & {"CREATE SERVICE", "OWNERSHIP", "ALL"}:
            raise SnowflakeError(
                f"Role {layout.role} may not create job services in schema {schema}. "
                f"It holds {', '.join(sorted(held)) or 'nothing'} there."
            )
        return f"{schema}: {', '.join(sorted(held))}"

    def compute_pool(self) -> str:
        row = self._session.execute(sql.describe_compute_pool(self._layout.compute_pool)).first
        return f"{row.get('name')} is {row.get('state')}, family {row.get('instance_family')}"

    def stage_read(self) -> str:
        path = StagePath(self._layout.qualified(self._layout.stage))
        return f"{len(self._session.execute(sql.list_stage(path)).rows)} files"

    def stage_write(self) -> str:
        from monad_dagster.spcs.stage import StageClient

        client = StageClient(self._session)
        path = StagePath(self._layout.qualified(self._layout.stage), PROBE_FILE)
        client.put_text("monad-dagster doctor\n", path)
        client.remove_directory(path.parent)
        return f"{path} written and removed"

    def image_repository(self) -> str:
        name = self._layout.qualified(self._layout.image_repository)
        repository = ImageRepository(self._session, name)
        return f"{repository.url()}, images: {len(repository.images())}"

    def warehouse(self) -> str:
        wanted = resolve_identifier(self._layout.warehouse)
        rows = self._session.execute(sql.show_warehouses(wanted)).rows
        if not any(str(row.get("name")) == wanted for row in rows):
            raise SnowflakeError(f"Warehouse {wanted} does not exist or the role may not use it.")
        return f"{wanted} is {rows[0].get('state', 'there')}"

    def data(self, database: str, schema: str) -> str:
        rows = self._session.execute(
            sql.table_facts(resolve_identifier(database), resolve_identifier(schema))
        ).rows
        if not rows:
            raise SnowflakeError(
                f"Schema {database}.{schema} shows no table. It is empty, does not exist, or the "
                f"role may not read it."
            )
        return ", ".join(f"{row.get('table_name')} ({row.get('row_count')} rows)" for row in rows)

    def lineage_table(self) -> str:
        name = self._layout.qualified(self._layout.lineage_table)
        self._session.execute(sql_lineage.select_lineage(name, output_version="none"))
        return f"{name} can be read"


def diagnose(session: Session, layout: AccountLayout) -> list[Finding]:
    """Run every check and return the findings; a failed check never stops the others.

    Raises:
        ConnectionFailedError: There is no session to check with.
    """
    doctor = _Doctor(session, layout)
    role, stage = layout.role, layout.qualified(layout.stage)
    repository = layout.qualified(layout.image_repository)
    lineage = layout.qualified(layout.lineage_table)
    doctor.check(
        "session",
        doctor.session_role,
        lambda: [sql_setup.grant_role_to_user(role, user) for user in layout.users],
    )
    doctor.check(
        "create job services",
        doctor.create_service,
        lambda: [
            sql_setup.grant_on_database("USAGE", layout.database, role),
            sql_setup.grant_on_schema("USAGE", layout.database, layout.schema, role),
            sql_setup.grant_on_schema("CREATE SERVICE", layout.database, layout.schema, role),
        ],
    )
    doctor.check(
        "compute pool",
        doctor.compute_pool,
        lambda: [
            sql_setup.grant_on_compute_pool(privilege, layout.compute_pool, role)
            for privilege in ("USAGE", "MONITOR", "OPERATE")
        ],
    )
    doctor.check(
        "read stage", doctor.stage_read, lambda: [sql_setup.grant_on_stage("READ", stage, role)]
    )
    doctor.check(
        "write stage", doctor.stage_write, lambda: [sql_setup.grant_on_stage("WRITE", stage, role)]
    )
    doctor.check(
        "image repository",
        doctor.image_repository,
        lambda: [sql_setup.grant_on_image_repository("READ", repository, role)],
    )
    doctor.check(
        "warehouse",
        doctor.warehouse,
        lambda: [sql_setup.grant_on_warehouse("USAGE", layout.warehouse, role)],
    )
    doctor.check(
        "lineage table",
        doctor.lineage_table,
        lambda: [
            sql_setup.grant_on_table("SELECT", lineage, role),
            sql_setup.grant_on_table("INSERT", lineage, role),
        ],
    )
    for database, schema in layout.data_schemas:
        doctor.check(
            f"source data {database}.{schema}",
            lambda database=database, schema=schema: doctor.data(database, schema),
            lambda database=database, schema=schema: data_grant_statements(database, schema, role),
        )
    return doctor.findings
