"""Every command has help with an example and a mention in the README."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from monad_dagster.cli import _COMMANDS, main

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
