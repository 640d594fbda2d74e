"""Runs `snow` commands as its user does, each in a process of its own."""

import importlib
import json
import os
import sys
import tempfile
from dataclasses import dataclass

import pytest

# Loaded once here; each command's process is a fork of this one and need not load them again,
# which takes most of a command's seconds.
COMMAND_MODULES = (
    "snowflake.cli._app.__main__",
    "snowflake.cli._app.dev.docs.commands_docs_generator",
    "snowflake.cli._app.printing",
    "snowflake.cli._app.snow_connector",
    "snowflake.cli._app.telemetry",
    "snowflake.cli._plugins.connection.commands",
    "snowflake.cli._plugins.object.commands",
    "snowflake.cli._plugins.spcs.plugin_spec",
    "snowflake.cli._plugins.spcs.services.commands",
    "snowflake.cli._plugins.sql.commands",
    "snowflake.cli._plugins.stage.commands",
    "snowflake.connector.connection",
    "snowflake.connector.cursor",
)


@dataclass
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self):
        """The result printed as JSON."""
        return json.loads(self.out)

    @property
    def text(self):
        """Everything printed, with the boxes around messages taken away."""
        plain = "".join(" " if char in "│╭╮╰╯─" else char for char in self.out + self.err)
        return " ".join(plain.split())


@pytest.fixture(scope="session")
def config(facts, tmp_path_factory):
    """Return a configuration file with a connection of each user."""
    path = tmp_path_factory.mktemp("snow") / "config.toml"
    blocks = ['default_connection_name = "pipeline"', "[cli.logs]", "save_logs = false"]
    for name in ("admin", "pipeline"):
        blocks.append(f"[connections.{name}]")
        blocks += [f"{key} = {json.dumps(value)}" for key, value in facts[name].items()]
    path.write_text("\n".join(blocks))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="session")
def preloaded():
    """Import what the commands need, once."""
    for name in COMMAND_MODULES:
        importlib.import_module(name)


@pytest.fixture
def snow(config, preloaded):
    """Return a function that runs one command; JSON is its output unless told otherwise."""

    def run(*args, user="pipeline", json_output=True, code=0):
        words = ["--config-file", str(config), *args, "--connection", user]
        done = _fork(words + (["--format", "json"] if json_output else []))
        assert done.code == code, done.out + done.err
        return done

    return run


def _fork(words):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            _become_command(words, out, err)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return Done(os.waitstatus_to_exitcode(status), out.read(), err.read())


def _become_command(words, out, err):
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["snow", *words]
        from snowflake.cli._app.__main__ import main

        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
