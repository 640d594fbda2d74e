"""Executes job services on the account under test and waits for them."""

import itertools
import json
import time
from contextlib import suppress

import snowflake.connector


class JobRuns:
    """Job services of one test session; each is dropped at the end."""

    def __init__(self, target, world, pool, image):
        self.target = target
        self.world = world
        self.pool = pool
        self.image = image
        self._numbers = itertools.count()
        self._names = []

    def specification(self, script, container=None, more=None):
        """Return a specification that runs a shell script, as YAML's subset JSON."""
        main = {"name": "main", "image": self.image.path, "command": ["/bin/sh", "-c", script]}
        return json.dumps({"spec": {"containers": [main | (container or {})], **(more or {})}})

    def name(self):
        """Return a name that no job service has."""
        name = f"{self.world['schema']}.J{next(self._numbers)}"
        self._names.append(name)
        return name

    def statement(self, script, name, *, is_async=True, container=None, more=None, clauses=""):
        """Return the EXECUTE JOB SERVICE statement."""
        text = self.specification(script, container, more).replace("$$", "\\u0024$")
        return (
            f"EXECUTE JOB SERVICE IN COMPUTE POOL {self.pool} NAME = {name}"
            f" ASYNC = {str(is_async).upper()} {clauses} FROM SPECIFICATION $${text}$$"
        )

    def execute(self, script, **options):
        """Execute a job service and return its name."""
        name = options.pop("name", None) or self.name()
        self.target.rows(self.statement(script, name, **options))
        return name

    def status(self, name):
        """Return the job service's status."""
        return self.target.rows(f"DESCRIBE SERVICE {name}")[0]["status"]

    def finish(self, name, *, seconds=600):
        """Wait for the end and return the status."""
        deadline = time.monotonic() + seconds
        while (status := self.status(name)) in ("PENDING", "RUNNING", "CANCELLING"):
            assert time.monotonic() < deadline, f"{name} is still {status}"
            time.sleep(0.1 if self.target.is_local else 3)
        return status

    def container(self, name):
        """Return the row of the container `main`."""
        rows = self.target.rows(f"SHOW SERVICE CONTAINERS IN SERVICE {name}")
        return next(row for row in rows if row["container_name"] == "main")

    def close(self):
        """Drop every job service."""
        for name in self._names:
            with suppress(snowflake.connector.errors.DatabaseError):
                self.target.rows(f"DROP SERVICE IF EXISTS {name} FORCE")
