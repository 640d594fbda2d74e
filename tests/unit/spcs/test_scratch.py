"""Directories on the local disk: removed after use, and by the next process after a kill."""

import os
import tempfile
import time

import pytest

from monad_dagster.spcs.scratch import remove_leftovers, scratch_directory

DAY = 86400


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A temporary directory of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def leave(root, name, *, age):
    """Leave a directory with a file, changed *age* seconds ago."""
    path = root / name
    path.mkdir()
    (path / "file").touch()
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_directory_is_removed_however_its_block_ends(root, error):
    """Neither an error nor an interrupt leaves anything."""
    with pytest.raises(error) if error else scratch_directory("get"):
        if error:
            with scratch_directory("put") as directory:
                (directory / "file").touch()
                raise error
    assert list(root.iterdir()) == []


def test_the_first_directory_of_a_process_removes_what_a_killed_one_left(root):
    """What is a day old goes, what is younger may still be in use."""
    old = leave(root, "monad-messages-abcdefg1", age=DAY + 60)
    young = leave(root, "monad-put-abcdefg1", age=DAY - 60)
    with scratch_directory("get") as directory:
        assert directory.parent == root
        assert not old.exists()
        assert young.exists()


@pytest.mark.parametrize(
    "name", ["monad-store-abcdefg1", "monad-put", "monad-put-abc", "monad-put-abcdefg12", "other"]
)
def test_what_has_another_name_is_never_removed(root, name):
    """Directories of the engine, of users and of other programs stay, however old."""
    path = leave(root, name, age=30 * DAY)
    assert remove_leftovers(root, older_than=time.time()) == 0
    assert path.exists()


def test_links_and_files_of_such_a_name_are_not_followed(root):
    """In a directory that everybody may write to, a link could lead anywhere."""
    target = leave(root, "precious", age=30 * DAY)
    (root / "monad-put-abcdefg1").symlink_to(target)
    (root / "monad-put-abcdefg2").touch()
    assert remove_leftovers(root, older_than=time.time() + DAY) == 0
    assert (target / "file").exists()


def test_directories_of_other_users_stay(root, monkeypatch):
    """Only the owner's are removed, even by a user who could remove them all."""
    path = leave(root, "monad-put-abcdefg1", age=2 * DAY)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    assert remove_leftovers(root, older_than=time.time()) == 0
    assert path.exists()


def test_a_temporary_directory_that_cannot_be_read_is_no_error(tmp_path):
    """Clearing up never stands in the way of the work."""
    assert remove_leftovers(tmp_path / "absent", older_than=time.time()) == 0
