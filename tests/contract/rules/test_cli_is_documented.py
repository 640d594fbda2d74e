"""Every command has help with an example and a mention in the README."""

import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from monad_dagster.cli import _COMMANDS, main
from monad_dagster.errors import LocalAccountError
from monad_dagster.local.control import _check_packages

README = (Path(__file__).parents[3] / "README.md").read_text()


def _leaves() -> list[tuple[str, ...]]:
    context = click.Context(main)
    found: list[tuple[str, ...]] = []
    for name in _COMMANDS:
        command = main.get_command(context, name)
        if isinstance(command, click.Group):
            found += [(name, child) for child in command.list_commands(context)]
        else:
            found.append((name,))
    return found


@pytest.mark.parametrize("words", _leaves(), ids=" ".join)
def test_help_ends_with_an_example(words):
    """The help of each command shows how it is called."""
    result = CliRunner().invoke(main, [*words, "--help"])
    assert result.exit_code == 0
    assert f"Example: monad-dagster {' '.join(words)}" in " ".join(result.output.split())


@pytest.mark.parametrize("words", _leaves(), ids=" ".join)
def test_every_option_says_what_it_does(words):
    """An option without help is a riddle in `--help`."""
    command = main.get_command(click.Context(main), words[0])
    if isinstance(command, click.Group):
        command = command.get_command(click.Context(command), words[1])
    silent = [p.opts for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent == []


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_the_readme_mentions_each_command(name):
    """A newcomer finds every command in the README."""
    assert name in README


def test_dry_run_prints_the_set_up_and_needs_no_account(monkeypatch, tmp_path):
    """`setup --dry-run` sends nothing: it works with no account at all."""
    monkeypatch.setenv("MONAD_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["setup", "--dry-run"])
    assert result.exit_code == 0
    assert (
        "GRANT CREATE SERVICE ON SCHEMA MONAD_DB.DATA_SCHEMA TO ROLE MONAD_ROLE;" in result.output
    )
    assert not list(tmp_path.iterdir())


def test_wrong_configuration_leaves_with_code_2(monkeypatch, tmp_path):
    """A folder that does not exist is a wrong argument, said in one message."""
    monkeypatch.setenv("MONAD_HOME", str(tmp_path))
    result = CliRunner().invoke(main, ["run", "--data", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "data folder does not exist" in result.output


def _run(tmp_path, *options, **variables):
    environment = {"MONAD_HOME": str(tmp_path / "home"), **variables}
    return CliRunner().invoke(main, ["run", *options], env=environment)


def _orders(tmp_path):
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "orders.csv").write_text("customer,sku\nc1,s1\n")
    return str(folder)


@pytest.mark.parametrize("day", ["yesterday", "2999-01-01"])
def test_a_wrong_prediction_date_is_refused_before_training(tmp_path, day):
    """The last of the assets reads the date; nobody waits for the others to hear that it is wrong."""
    result = _run(tmp_path, "--prediction-date", day)
    assert (result.exit_code, "prediction_date is" in result.output) == (2, True)
    assert not (tmp_path / "home").exists()


def test_data_that_the_config_does_not_read_is_refused_before_loading(tmp_path):
    """Own data without a config of one's own: the message names both sides' tables."""
    result = _run(tmp_path, "--data", _orders(tmp_path))
    assert result.exit_code == 2
    assert "missing: ARTICLES, CUSTOMERS, TRANSACTIONS; there: ORDERS" in result.output
    assert not (tmp_path / "home").exists()


def test_data_for_a_real_account_is_refused_instead_of_ignored(tmp_path):
    """`run --data` loads into the local account only and says how to load elsewhere."""
    names = {"SNOWFLAKE_ACCOUNT": "a", "SNOWFLAKE_USER": "u", "SNOWFLAKE_PASSWORD": "p"}
    result = _run(tmp_path, "--data", _orders(tmp_path), MONAD_DEPLOYMENT="snowflake", **names)
    assert (result.exit_code, "monad-dagster load --data" in result.output) == (2, True)


def test_the_commands_read_the_file_of_settings(tmp_path, monkeypatch):
    """`.env` of the current directory holds for the command line, below the environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("MONAD_COMPUTE_POOL=FROM_FILE\nMONAD_STAGE=FROM_FILE\n")
    result = CliRunner().invoke(main, ["setup", "--dry-run"], env={"MONAD_STAGE": "FROM_ENV"})
    assert "CREATE COMPUTE POOL IF NOT EXISTS FROM_FILE " in result.output
    assert "MONAD_DB.DATA_SCHEMA.FROM_ENV" in result.output


def test_the_list_of_commands_cuts_no_sentence():
    """What a command is for stands whole in `monad-dagster --help`."""
    assert "..." not in CliRunner().invoke(main, ["--help"]).output.partition("Commands:")[2]


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    """Without the packages of the extra `local` a command says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "monad_dagster.sample_data.generate", raising=False)
    result = CliRunner().invoke(main, ["sample", str(tmp_path / "sample")])
    assert (result.exit_code, "monad-dagster[local]" in result.output) == (2, True)


def test_the_local_account_names_a_missing_extra_before_it_starts(tmp_path):
    """The account of a plain installation is refused with what to install."""
    with pytest.raises(
        LocalAccountError, match=r"not installed: no_such_package.*\[local,engine\]"
    ):
        _check_packages(("pyarrow", "no_such_package"))
