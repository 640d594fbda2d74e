"""`snow connection`, `snow sql`, `snow stage`, image repositories and compute pools."""

import base64
import json
import subprocess
import sys
import urllib.request

import pytest


def test_the_real_command(config):
    """The installed `snow` itself tests the connection; the other tests fork it."""
    command = [sys.executable, "-m", "snowflake.cli._app", "--config-file", str(config)]
    done = subprocess.run(
        [*command, "connection", "test", "--format", "json"], capture_output=True, text=True
    )
    facts = json.loads(done.stdout)
    assert (facts["Status"], facts["Role"], facts["Database"]) == ("OK", "MONAD_ROLE", "MONAD_DB")


def test_wrong_password(config, facts, snow):
    """A wrong password ends with an error that says so."""
    done = snow("connection", "test", "--password", "wrong", code=1)
    assert "Incorrect username or password was specified" in done.text


def test_sql(snow):
    """`snow sql` runs a statement, and several."""
    assert snow("sql", "-q", "SELECT CURRENT_ROLE() AS R").rows == [{"R": "MONAD_ROLE"}]
    several = snow("sql", "-q", "SELECT 1 AS A; SELECT 'x' AS B;").rows
    assert several == [[{"A": 1}], [{"B": "x"}]]


def test_sql_error(snow):
    """A refused statement ends with Snowflake's number and text."""
    done = snow("sql", "-q", "SELECT * FROM NOWHERE", code=1)
    assert "002003 (42S02)" in done.text
    assert "Object 'NOWHERE' does not exist or not authorized." in done.text


def test_stage(snow, unique, tmp_path):
    """A stage is made, filled, listed, read back, cleaned and dropped."""
    stage = unique("ST").lower()
    for name in ("a.py", "b.txt"):
        (tmp_path / name).write_text(name)
    snow("stage", "create", stage)
    uploaded = snow("stage", "copy", str(tmp_path), f"@{stage}/dir", "--overwrite").rows
    assert {row["status"] for row in uploaded} == {"UPLOADED"}
    listed = snow("stage", "list-files", stage).rows
    assert sorted(row["name"] for row in listed) == [f"{stage}/dir/a.py", f"{stage}/dir/b.txt"]
    target = tmp_path / "down"
    target.mkdir()
    snow("stage", "copy", f"@{stage}/dir/a.py", str(target))
    assert (target / "a.py").read_text() == "a.py"
    removed = snow("stage", "remove", stage, "dir/a.py").rows
    assert removed == {"name": f"{stage}/dir/a.py", "result": "removed"}
    described = snow("stage", "describe", stage).rows
    assert "STAGE_ENCRYPTION" in {row["parent_property"] for row in described}
    assert "successfully dropped" in snow("stage", "drop", stage).text


def test_stage_copy_recursive(snow, unique, tmp_path):
    """A tree goes up and comes down with its folders."""
    stage = unique("ST").lower()
    (tmp_path / "tree" / "in").mkdir(parents=True)
    (tmp_path / "tree" / "top.txt").write_text("top")
    (tmp_path / "tree" / "in" / "deep.txt").write_text("deep")
    snow("stage", "create", stage)
    snow("stage", "copy", f"{tmp_path}/tree/", f"@{stage}", "--recursive")
    names = {row["name"] for row in snow("stage", "list-files", stage).rows}
    assert names == {f"{stage}/top.txt", f"{stage}/in/deep.txt"}
    (tmp_path / "back").mkdir()
    snow("stage", "copy", f"@{stage}", f"{tmp_path}/back", "--recursive")
    assert (tmp_path / "back" / "in" / "deep.txt").read_text() == "deep"


def test_objects(snow):
    """`snow object` lists and describes by the generic statements."""
    names = {row["name"] for row in snow("object", "list", "stage").rows}
    assert "MONAD_STAGE" in names
    assert snow("object", "describe", "schema", "MONAD_DB.DATA_SCHEMA").rows
    done = snow("object", "describe", "stage", "NO_SUCH_STAGE", code=1)
    assert "does not exist or not authorized" in done.text


def test_registry_url_and_token(snow):
    """The registry's address and a token that opens it come from the account."""
    url = snow("spcs", "image-registry", "url", json_output=False).out.strip()
    token = snow("spcs", "image-registry", "token").rows
    assert token["expires_in"] > 0
    request = urllib.request.Request(f"http://{url}/v2/")
    login = base64.b64encode(f"0sessiontoken:{json.dumps(token)}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def test_image_repositories(snow, unique):
    """A repository is made once, found, listed and dropped."""
    repository = unique("R").lower()
    group = ("spcs", "image-repository")
    snow(*group, "create", repository, user="admin")
    done = snow(*group, "create", repository, user="admin", code=1)
    assert "already exists" in done.text
    snow(*group, "create", repository, "--if-not-exists", user="admin")
    url = snow(*group, "url", repository, user="admin", json_output=False).out.strip()
    assert url.endswith(f"/monad_db/data_schema/{repository}")
    names = {row["name"] for row in snow(*group, "list", user="admin").rows}
    assert repository.upper() in names
    assert snow(*group, "list-images", repository, user="admin").rows == []
    images = snow(*group, "list-images", "image_repository").rows
    assert "tool" in {row["image_name"] for row in images}
    assert "successfully dropped" in snow(*group, "drop", repository, user="admin").text


def test_compute_pool(snow, unique):
    """A pool goes through its life."""
    pool = unique("P").lower()
    group = ("spcs", "compute-pool")
    options = ("--min-nodes", "1", "--max-nodes", "2", "--family", "CPU_X64_XS")
    created = snow(
        *group, "create", pool, *options, "--init-suspend", "--auto-suspend-secs", "300",
        user="admin",
    )  # fmt: skip
    assert "successfully created" in created.text
    again = snow(*group, "create", pool, *options, user="admin", code=1)
    assert "already exists" in again.text
    (row,) = snow(*group, "list", "--like", f"{pool}%", user="admin").rows
    assert (row["state"], row["min_nodes"], row["max_nodes"]) == ("SUSPENDED", 1, 2)
    described = snow(*group, "describe", pool, user="admin").rows
    assert described[0]["instance_family"] == "CPU_X64_XS"
    snow(*group, "resume", pool, user="admin")
    status = snow(*group, "status", pool, user="admin").rows
    assert json.loads(next(iter(status.values())))["state"] in {"STARTING", "IDLE", "ACTIVE"}
    snow(*group, "set", pool, "--max-nodes", "3", "--comment", "it's", user="admin")
    (row,) = snow(*group, "list", "--like", pool, user="admin").rows
    assert (row["max_nodes"], row["comment"]) == (3, "it's")
    snow(*group, "unset", pool, "--comment", user="admin")
    snow(*group, "stop-all", pool, user="admin")
    snow(*group, "suspend", pool, user="admin")
    assert "successfully dropped" in snow(*group, "drop", pool, user="admin").text


@pytest.mark.parametrize("command", ["describe", "suspend", "drop"])
def test_pool_of_another_role(snow, command):
    """A pool that the role may not use is refused."""
    done = snow("spcs", "compute-pool", command, "NO_SUCH_POOL", code=1)
    assert "does not exist or not authorized" in done.text
