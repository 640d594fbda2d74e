"""The one-time set-up of an account: roles, objects, grants, in the order that works.

The same list serves the dry run, the real run and the doctor. It repairs what the published
script leaves out: CREATE SERVICE, READ on the image repository, the warehouse, the source data,
log levels, and an internal stage's READ and WRITE.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monad_dagster.spcs import sql, sql_lineage, sql_setup
from monad_dagster.spcs.connection import Result, Session
from monad_dagster.spcs.identifiers import QualifiedName, resolve_identifier
from monad_dagster.spcs.sql import Statement


@dataclass(frozen=True)
class AccountLayout:
    """The names of everything the pipeline uses in an account.

    Attributes:
        role: Role that runs the pipeline and owns its job services.
        users: Users that may take the role.
        parent_role: Role that inherits it.
        admin_role: Role that runs the set-up.
        database: Database of the pipeline's own objects.
        schema: Schema of the pipeline's own objects.
        stage: Stage for scripts, configs and outputs.
        image_repository: Repository of the job image.
        warehouse: Warehouse for SQL from job services.
        compute_pool: Pool the job services run on.
        instance_family: Family of the pool's nodes.
        min_nodes: Smallest size of the pool.
        max_nodes: Largest size of the pool.
        auto_suspend_seconds: Idle time after which the pool stops.
        backup_instance_families: Families to use when the cloud has no node of the first.
        data_schemas: Schemas with source tables, as (database, schema).
        create_data_schemas: Whether the set-up creates those schemas too.
        lineage_table: Name of the lineage table.
        role_pushes_images: Whether the role may push to the image repository.
    """

    role: str = "MONAD_ROLE"
    users: Sequence[str] = ("MONAD_PIPELINE",)
    parent_role: str | None = "SYSADMIN"
    admin_role: str = "ACCOUNTADMIN"
    database: str = "MONAD_DB"
    schema: str = "DATA_SCHEMA"
    stage: str = "MONAD_STAGE"
    image_repository: str = "IMAGE_REPOSITORY"
    warehouse: str = "MONAD_WAREHOUSE"
    compute_pool: str = "MONAD_COMPUTE_POOL_GPU"
    instance_family: str = "GPU_NV_S"
    min_nodes: int = 1
    max_nodes: int = 1
    auto_suspend_seconds: int = 300
    backup_instance_families: Sequence[str] = ()
    data_schemas: Sequence[tuple[str, str]] = (("HM_KAGGLE", "PUBLIC"),)
    create_data_schemas: bool = False
    lineage_table: str = "LINEAGE"
    role_pushes_images: bool = True

    def qualified(self, name: str) -> QualifiedName:
        """Return the object *name* in the pipeline's schema."""
        return QualifiedName(
            resolve_identifier(self.database),
            resolve_identifier(self.schema),
            resolve_identifier(name),
        )


def setup_statements(layout: AccountLayout) -> list[Statement]:
    """Return the whole set-up in order."""
    return [
        sql.use_role(layout.admin_role),
        *_role_statements(layout),
        *object_statements(layout),
        *grant_statements(layout),
        *_telemetry_statements(layout),
    ]


def _role_statements(layout: AccountLayout) -> list[Statement]:
    statements = [sql_setup.create_role(layout.role)]
    if layout.parent_role:
        statements.append(sql_setup.grant_role_to_role(layout.role, layout.parent_role))
    statements += [sql_setup.grant_role_to_user(layout.role, user) for user in layout.users]
    return statements


def object_statements(layout: AccountLayout) -> list[Statement]:
    """Return the statements that create objects."""
    statements = [
        sql_setup.create_database(layout.database),
        sql_setup.create_schema(layout.database, layout.schema),
        sql_setup.create_stage(layout.qualified(layout.stage)),
        sql_setup.create_image_repository(layout.qualified(layout.image_repository)),
        sql_setup.create_warehouse(layout.warehouse),
        sql_setup.create_compute_pool(
            layout.compute_pool,
            instance_family=layout.instance_family,
            min_nodes=layout.min_nodes,
            max_nodes=layout.max_nodes,
            auto_suspend_seconds=layout.auto_suspend_seconds,
            backup_instance_families=layout.backup_instance_families,
        ),
        sql_lineage.create_lineage_table(layout.qualified(layout.lineage_table)),
    ]
    if layout.create_data_schemas:
        for database, schema in layout.data_schemas:
            statements.append(sql_setup.create_database(database))
            statements.append(sql_setup.create_schema(database, schema))
    return statements


def grant_statements(layout: AccountLayout) -> list[Statement]:
    """Return the grants the role needs, one privilege a statement."""
    role, stage = layout.role, layout.qualified(layout.stage)
    repository = layout.qualified(layout.image_repository)
    lineage = layout.qualified(layout.lineage_table)
    schema = (layout.database, layout.schema)
    statements = [
        sql_setup.grant_on_database("USAGE", layout.database, role),
        sql_setup.grant_on_schema("USAGE", *schema, role),
        sql_setup.grant_on_schema("CREATE SERVICE", *schema, role),
        sql_setup.grant_on_schema("CREATE TABLE", *schema, role),
        # WRITE on a stage requires READ, so READ comes first.
        sql_setup.grant_on_stage("READ", stage, role),
        sql_setup.grant_on_stage("WRITE", stage, role),
        sql_setup.grant_on_image_repository("READ", repository, role),
    ]
    if layout.role_pushes_images:
        statements.append(sql_setup.grant_on_image_repository("WRITE", repository, role))
    statements += [
        sql_setup.grant_on_compute_pool(privilege, layout.compute_pool, role)
        for privilege in ("USAGE", "MONITOR", "OPERATE")
    ]
    statements.append(sql_setup.grant_on_warehouse("USAGE", layout.warehouse, role))
    statements += [
        sql_setup.grant_on_table(privilege, lineage, role) for privilege in ("SELECT", "INSERT")
    ]
    for database, data_schema in layout.data_schemas:
        statements += data_grant_statements(database, data_schema, role)
    return statements


def data_grant_statements(database: str, schema: str, role: str) -> list[Statement]:
    """Return the grants that let *role* read the tables of one schema."""
    return [
        sql_setup.grant_on_database("USAGE", database, role),
        sql_setup.grant_on_schema("USAGE", database, schema, role),
        sql_setup.grant_on_all_tables("SELECT", database, schema, role),
        sql_setup.grant_on_future_tables("SELECT", database, schema, role),
    ]


def _telemetry_statements(layout: AccountLayout) -> list[Statement]:
    return [
        sql_setup.set_log_level(layout.database, layout.schema),
        sql_setup.set_log_event_level(layout.database, layout.schema),
        sql_setup.grant_events_viewer(layout.role),
        sql_setup.grant_usage_viewer(layout.role),
    ]


def setup_text(layout: AccountLayout) -> str:
    """Write the set-up as a script, for a dry run or an SQL worksheet."""
    return "".join(f"{statement.text};\n" for statement in setup_statements(layout))


def apply_setup(
    session: Session,
    layout: AccountLayout,
    *,
    on_statement: Callable[[Statement, Result], None] | None = None,
) -> int:
    """Execute the set-up and return the number of statements.

    Args:
        session: Connected as a user who may take the administrator's role.
        layout: The names.
        on_statement: Called after each statement, to show progress.

    Raises:
        SnowflakeError: A statement was refused; those before it have taken effect.
    """
    statements = setup_statements(layout)
    for statement in statements:
        result = session.execute(statement)
        if on_statement is not None:
            on_statement(statement, result)
    return len(statements)
