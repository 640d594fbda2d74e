"""What `upload_scripts` takes from a folder."""

import pytest

from monad_dagster.errors import ConfigError
from monad_dagster.pipes.scripts import script_files


def test_a_folder_is_taken_with_the_helpers_and_without_hidden_files(tmp_path):
    """Neither secrets of a .env nor a repository nor a cache gets onto the stage."""
    for name in ("run.py", "lib/a.py", ".env", ".git/config", "lib/__pycache__/a.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    helpers = {"job_support.py", "dagster_pipes.py"}
    assert set(script_files(tmp_path)) == helpers | {"run.py", "lib/a.py"}


def test_a_helper_of_the_project_wins(tmp_path):
    """A file of the folder is never replaced by ours."""
    (tmp_path / "job_support.py").touch()
    assert script_files(tmp_path)["job_support.py"] == tmp_path / "job_support.py"


@pytest.mark.parametrize(("name", "why"), [("absent", "does not exist"), (".", "is empty")])
def test_a_folder_without_files_is_refused(tmp_path, name, why):
    """The error says whether it is missing or empty."""
    with pytest.raises(ConfigError, match=why):
        script_files(tmp_path / name)
