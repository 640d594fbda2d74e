"""Writers that keep a log of what an account acknowledged, for tests that kill the account.

Each writer has a database of its own and a model of it. An operation that was being executed when
the account died may have happened or not; everything acknowledged before must be there.
"""

import copy
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field

import snowflake.connector


@dataclass
class Model:
    """What a writer's part of the account must hold."""

    tables: dict = field(default_factory=dict)  # name -> sorted rows
    stages: dict = field(default_factory=dict)  # name -> {file: size}
    roles: dict = field(default_factory=dict)  # name -> set of (privilege, kind, name)
    settings: dict = field(default_factory=dict)  # comment and log level of the schema
    jobs: set = field(default_factory=set)
    dropped_jobs: set = field(default_factory=set)


class Writer:
    """Executes random statements until the account dies.

    Args:
        local: The account.
        name: Its database.
        seed: Of its choices.
        folder: Where it makes files to upload.
        job: Returns the EXECUTE JOB SERVICE statement for a name, or None for no job services.
    """

    def __init__(self, local, name, seed, folder, job=None):
        self.thread = threading.Thread(target=self.run, name=f"writer {name}", daemon=True)
        self.local, self.database, self.folder, self.job = local, name, folder, job
        self.random = random.Random(seed)
        self.model = Model()
        self.in_doubt = None  # the model as it is if the last statement did happen
        self.last = []  # the statements that were executed last, for the report of a failure
        self.acknowledged = 0
        self.number = 0
        self.unexpected = None

    def connect(self):
        """Log in with time-outs that notice a dead account soon."""
        facts = self.local.connection("ADMIN")
        return snowflake.connector.connect(
            **facts | {"database": None, "schema": None, "network_timeout": 2, "login_timeout": 5}
        )

    def run(self):
        """Execute statements until one fails because the account is gone."""
        with suppress(snowflake.connector.errors.Error):
            self.connection = self.connect()
            self._execute(f"CREATE DATABASE IF NOT EXISTS {self.database}")
            self._execute(f"USE SCHEMA {self.database}.PUBLIC")
            self._execute("USE WAREHOUSE WRITERS")
            while True:
                self._step()

    def _execute(self, *statements):
        cursor = self.connection.cursor()
        try:
            for sql in statements:
                cursor.execute(sql)
        except snowflake.connector.errors.ProgrammingError as error:
            if error.errno not in (390104, 390114, -1, None):
                self.unexpected = error
            raise

    def _step(self):
        """Choose a statement, note what it would change, execute it, note that it did."""
        choices = [self._create_table, self._create_stage, self._create_role, self._setting]
        if self.model.tables:
            choices += [self._insert] * 4 + [self._transaction, self._delete, self._drop_table]
        if self.model.stages:
            choices += [self._put] * 3 + [self._remove, self._drop_stage]
        if self.model.roles:
            choices += [self._grant] * 3 + [self._revoke, self._drop_role]
        if self.job is not None:
            choices += [self._job]
        if self.model.jobs:
            choices += [self._drop_job]
        after = copy.deepcopy(self.model)
        statements = self.random.choice(choices)(after)
        self.in_doubt, self.last = after, statements
        self._execute(*statements)
        self.model, self.in_doubt = after, None
        self.acknowledged += 1

    def _new(self, kind):
        self.number += 1
        return f"{kind}{self.number}"

    def _pick(self, items):
        return self.random.choice(sorted(items))

    # Each returns the statements of one operation and changes the model it is given.

    def _create_table(self, model):
        name = self._new("T")
        model.tables[name] = []
        return [f"CREATE TABLE {name} (A INT)"]

    def _insert(self, model):
        name = self._pick(model.tables)
        values = [self.random.randrange(100) for _ in range(self.random.randint(1, 5))]
        model.tables[name] = sorted(model.tables[name] + values)
        return [f"INSERT INTO {name} VALUES {', '.join(f'({v})' for v in values)}"]

    def _transaction(self, model):
        name = self._pick(model.tables)
        model.tables[name] = sorted([*model.tables[name], 7, 8])
        insert = f"INSERT INTO {name} VALUES "
        return ["BEGIN", insert + "(7)", insert + "(8)", "COMMIT"]

    def _delete(self, model):
        name = self._pick(model.tables)
        model.tables[name] = [value for value in model.tables[name] if value >= 50]
        return [f"DELETE FROM {name} WHERE A < 50"]

    def _drop_table(self, model):
        name = self._pick(model.tables)
        del model.tables[name]
        return [f"DROP TABLE {name}"]

    def _create_stage(self, model):
        name = self._new("S")
        model.stages[name] = {}
        return [f"CREATE STAGE {name}"]

    def _put(self, model):
        stage, file = self._pick(model.stages), self._new("f")
        size = self.random.randint(1, 200_000)
        path = self.folder / f"{self.database}-{file}"
        path.write_bytes(b"x" * size)
        model.stages[stage] = model.stages[stage] | {f"in/{path.name}": size}
        return [f"PUT file://{path} @{stage}/in AUTO_COMPRESS=FALSE"]

    def _remove(self, model):
        stage = self._pick(model.stages)
        if model.stages[stage]:
            file = self._pick(model.stages[stage])
            model.stages[stage] = {k: v for k, v in model.stages[stage].items() if k != file}
            return [f"REMOVE @{stage}/{file}"]
        return [f"LIST @{stage}"]

    def _drop_stage(self, model):
        name = self._pick(model.stages)
        del model.stages[name]
        return [f"DROP STAGE {name}"]

    def _create_role(self, model):
        name = f"{self.database}_{self._new('R')}"
        model.roles[name] = set()
        return [f"CREATE ROLE {name}"]

    def _grant(self, model):
        role = self._pick(model.roles)
        privilege = self._pick(
            ["USAGE", "CREATE TABLE", "CREATE STAGE", "CREATE SERVICE", "MONITOR"]
        )
        model.roles[role] = model.roles[role] | {privilege}
        return [f"GRANT {privilege} ON SCHEMA {self.database}.PUBLIC TO ROLE {role}"]

    def _revoke(self, model):
        role = self._pick(model.roles)
        privilege = self._pick(["USAGE", "CREATE TABLE", "MONITOR"])
        model.roles[role] = model.roles[role] - {privilege}
        return [f"REVOKE {privilege} ON SCHEMA {self.database}.PUBLIC FROM ROLE {role}"]

    def _drop_role(self, model):
        name = self._pick(model.roles)
        del model.roles[name]
        return [f"DROP ROLE {name}"]

    def _setting(self, model):
        level = self._pick(["INFO", "ERROR", "DEBUG"])
        model.settings = {"LOG_LEVEL": level}
        return [f"ALTER SCHEMA {self.database}.PUBLIC SET LOG_LEVEL = {level}"]

    def _job(self, model):
        name = self._new("J")
        model.jobs.add(name)
        return [self.job(f"{self.database}.PUBLIC.{name}")]

    def _drop_job(self, model):
        name = self._pick(model.jobs)
        model.jobs.discard(name)
        model.dropped_jobs.add(name)
        return [f"DROP SERVICE {self.database}.PUBLIC.{name}"]

    # What the account holds after a restart

    def differences(self):
        """Return (what is there, what should be) for each possible model; None if one fits."""
        with self.connect() as connection:
            seen = self._look(connection)
        wanted = [self.model] + ([self.in_doubt] if self.in_doubt else [])
        if any(seen == _plain(model) for model in wanted):
            return None
        return [
            {key: (seen[key], value) for key, value in _plain(model).items() if seen[key] != value}
            for model in wanted
        ]

    def _look(self, connection):
        def rows(sql):
            return connection.cursor(snowflake.connector.DictCursor).execute(sql).fetchall()

        if not rows(f"SHOW DATABASES LIKE '{self.database}'"):
            return _plain(Model())
        schema = f"{self.database}.PUBLIC"
        rows("USE WAREHOUSE WRITERS")
        tables = {
            row["name"]: sorted(r["A"] for r in rows(f"SELECT A FROM {schema}.{row['name']}"))
            for row in rows(f"SHOW TABLES IN SCHEMA {schema}")
        }
        stages = {
            row["name"]: {
                file["name"].partition("/")[2]: file["size"]
                for file in rows(f"LIST @{schema}.{row['name']}")
            }
            for row in rows(f"SHOW STAGES IN SCHEMA {schema}")
        }
        roles = {
            row["name"]: sorted(
                grant["privilege"]
                for grant in rows(f"SHOW GRANTS TO ROLE {row['name']}")
                if grant["granted_on"] == "SCHEMA"
            )
            for row in rows(f"SHOW ROLES LIKE '{self.database}\\\\_%'")
        }
        level = rows(f"SHOW PARAMETERS LIKE 'LOG_LEVEL' IN SCHEMA {schema}")[0]
        return {
            "tables": tables, "stages": stages, "roles": roles,
            "settings": {"LOG_LEVEL": level["value"]} if level["level"] == "SCHEMA" else {},
            "jobs": sorted(row["name"] for row in rows(f"SHOW JOB SERVICES IN SCHEMA {schema}")),
        }  # fmt: skip


def _plain(model):
    return {
        "tables": model.tables, "stages": model.stages,
        "roles": {name: sorted(held) for name, held in model.roles.items()},
        "settings": model.settings, "jobs": sorted(model.jobs),
    }  # fmt: skip
