"""What the documentation names in backticks is there: files, folders, recipes and commands."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from monad_dagster.cli import main

ROOT = Path(__file__).parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "monad_dagster/local/COVERAGE.md")),
    # A log of decisions also names what is gone.
    *sorted(set((ROOT / "docs").glob("*.md")) - {ROOT / "docs" / "decisions.md"}),
]
# Pages name files from the folder that they are about.
BELOW = ("", "monad_dagster/", "monad_dagster/local/", "container/", "container/engine/monad/")
# What runs write, and folders that the user has.
NOT_OURS = {
    *("lineage.json", "data.yaml", "dataloader.yaml", "task.yaml", "suggested_config.yaml"),
    *("source_importance.json", "lightning_checkpoints/", "scripts/count.py"),
    *("online-retail/", "complete-journey-sample/"),
}
_FILE = re.compile(r"[\w./-]+\.(?:py|md|yaml|yml|json|sql|txt|s|toml)|[\w-]+(?:/[\w-]+)*/")


def _named(pattern, page):
    return sorted(set(re.findall(pattern, page.read_text())))


def _commands(text):
    """Follow the words of a command line as far as groups go."""
    command, words = main, text.split()
    while isinstance(command, click.Group) and words and words[0].isalpha():
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, f"no command {words[0]!r} in {text!r}"
        command, words = found, words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    """A file or folder in backticks, or behind a link, is in the tree."""
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    there = {*tracked, *(str(parent) for name in tracked for parent in Path(name).parents)}
    there |= {Path(name).name for name in tracked}
    missing = [
        name
        for name in _named(r"`([^`\n]+)`", page)
        if _FILE.fullmatch(name) and name not in NOT_OURS and not name.startswith((".", "/"))
        if not any(below + name.rstrip("/") in there for below in BELOW)
    ]
    missing += [
        link for link in _named(r"\]\(([^)#:]+)\)", page) if not (page.parent / link).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_recipes_and_commands_exist(page):
    """`make ...` is a recipe of the Makefile and `monad-dagster ...` a command."""
    recipes = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = _named(r"(?:`|^|&& )make ([a-z-]+)", page)
    named += re.findall(r"^ *make ([a-z-]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= recipes
    for line in re.findall(
        r"(?:^ *|`|&& )monad-dagster ([^`\n|&]+)", page.read_text(), re.MULTILINE
    ):
        _commands(line)
