"""Files that connector 4.x writes by itself: on the stage when complete, never before."""

import os

import pytest
from test_job_controller import World

from monad_dagster.local.stages import local_uploads

SIZE = 256 * 1024


@pytest.fixture
def world(tmp_path):
    """An account with a stage, the watcher held back so that tests see each step."""
    world = World(tmp_path)
    world.sql("create database db")
    world.sql("create stage db.public.st")
    yield world
    world.account.close()


@pytest.fixture
def put(world, tmp_path, monkeypatch):
    """Return a function that begins a PUT and returns the directory a client writes to."""
    monkeypatch.setattr(local_uploads.LocalUploads, "_watch", lambda self: None)

    def begin(*names, path="in", size=1):
        for name in names:
            (tmp_path / name).write_bytes(b"x" * size)
        stage = world.account.catalog.get("STAGE", "ST", "DB", "PUBLIC")
        target = world.account.stages.resolve("DB", "PUBLIC", "ST", path)
        sources = [str(tmp_path / name) for name in names]
        return uploads(world).start(world.session, stage, target, sources)

    return begin


def uploads(world):
    """Return the account's uploads."""
    return world.account.extensions["local_uploads"]


def staged(world):
    """Return the stage's files and sizes."""
    return {row["name"]: row["size"] for row in world.sql("list @db.public.st")}


def begin_file(folder, name):
    """Make a file as the connector does: its full size, nothing in it."""
    with (folder / name).open("wb+") as file:
        file.truncate(2 * SIZE)


def fill(folder, name, part):
    """Write one of the two parts of a file."""
    with (folder / name).open("rb+") as file:
        file.seek(part * SIZE)
        file.write(os.urandom(SIZE))


def test_file_appears_when_its_last_part_is_written(world, put):
    """Parts may come in any order; no reader sees the file before."""
    folder = put("a.bin")
    begin_file(folder, "a.bin")
    assert staged(world) == {}
    fill(folder, "a.bin", 1)
    assert staged(world) == {}
    fill(folder, "a.bin", 0)
    assert staged(world) == {"st/in/a.bin": 2 * SIZE}
    assert not folder.exists()


def test_zeros_are_content(world, put):
    """A file of zeros is no file of holes."""
    folder = put("zeros")
    (folder / "zeros").write_bytes(bytes(2 * SIZE))
    assert staged(world) == {"st/in/zeros": 2 * SIZE}


def test_failed_upload_leaves_the_staged_file_and_nothing_else(world, put):
    """What was staged before stays whole; the part is gone with the session."""
    (put("a.bin") / "a.bin").write_bytes(b"old")
    folder = put("a.bin")
    begin_file(folder, "a.bin")
    fill(folder, "a.bin", 0)
    assert staged(world) == {"st/in/a.bin": 3}
    world.account.end_session(world.session.id)
    assert not folder.exists()
    uploads(world).settle()
    location = world.account.stages.resolve("DB", "PUBLIC", "ST", "in/a.bin")
    assert location.read_bytes() == b"old"


def test_empty_file_is_there_at_once_and_may_be_opened_again(world, put):
    """The connector opens even an empty file once more after it made it."""
    folder = put("_SUCCESS", size=0)
    (folder / "_SUCCESS").touch()
    assert staged(world) == {"st/in/_SUCCESS": 0}
    with (folder / "_SUCCESS").open("rb+") as file:
        file.write(b"")
    world.sql("remove @db.public.st/in/_SUCCESS")
    assert staged(world) == {}


def test_restarted_account_finishes_what_was_written(world, put):
    """A file that was complete when the account was killed is staged by the next one, once."""
    complete, partly, empty = put("c"), put("p"), put("e", size=0)
    (empty / "e").touch()
    assert staged(world) == {"st/in/e": 0}
    world.sql("remove @db.public.st/in/e")
    begin_file(partly, "p")
    (complete / "c").write_bytes(b"abc")
    world.account.extensions["local_uploads"] = local_uploads.LocalUploads(world.account)
    assert staged(world) == {"st/in/c": 3}
    fill(partly, "p", 0)
    fill(partly, "p", 1)
    assert staged(world)["st/in/p"] == 2 * SIZE


def test_upload_to_a_dropped_stage_is_discarded(world, put):
    """A stage that was replaced meanwhile does not get the file of the earlier one."""
    folder = put("a.bin")
    world.sql("create or replace stage db.public.st")
    (folder / "a.bin").write_bytes(b"x")
    assert staged(world) == {}


def test_without_knowledge_of_holes_the_stage_is_written_directly(world, put):
    """A file system that cannot tell leaves things as they were."""
    uploads(world).is_possible = False
    assert put("a.bin") == world.account.stages.resolve("DB", "PUBLIC", "ST", "in")
