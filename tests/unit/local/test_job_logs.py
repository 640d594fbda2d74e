"""Reading container logs and turning them into event table rows."""

import pytest

from monad_dagster.local.errors import StatementError
from monad_dagster.local.jobs import job_logs
from monad_dagster.local.jobs.job_nodes import Nodes, need_of
from monad_dagster.local.jobs.job_submission import split_image
from monad_dagster.local.specs.spec import parse_spec
from monad_dagster.spcs.instance_families import load_instance_families


@pytest.fixture
def log(tmp_path):
    """A log of three lines, the last one incomplete."""
    path = tmp_path / "log"
    path.write_bytes(
        b"2026-11-01T00:00:01.000000000Z stdout one\n"
        b"2026-11-01T00:00:02.500000000Z stderr two words\n"
        b"2026-11-01T00:00:03.000000000Z stdout thr"
    )
    return path


def test_tail_merges_streams_and_bounds(log):
    """The newest lines, in order, with a bound on lines and bytes."""
    assert job_logs.tail(log) == "one\ntwo words\nthr"
    assert job_logs.tail(log, num_lines=2) == "two words\nthr"
    assert job_logs.tail(log, max_bytes=5) == "thr"
    assert job_logs.tail(log.with_name("absent")) == ""


@pytest.mark.parametrize(
    "since",
    ["2026-11-01T00:00:02.500000000Z", "2026-11-01T00:00:02.5Z", "2026-11-01 00:00:02.500+00:00"],
)
def test_since_is_inclusive_in_every_form(log, since):
    """A line of exactly that time is returned."""
    assert job_logs.tail(log, since=since) == "two words\nthr"


def test_only_complete_lines_are_shipped(log):
    """A line without its end is left for the next time."""
    lines, offset = job_logs.read_new(log, 0)
    assert [line.text for line in lines] == ["one", "two words"]
    assert lines[1].at_ns == 1793491202500000000
    assert job_logs.read_new(log, offset) == ([], offset)


def _rows(text, *, log_level="INFO", exported="INFO", stream="stdout"):
    line = job_logs.LogLine("2026-11-01T00:00:01.000000000Z", stream, text)
    return job_logs.log_rows(
        [line], job="j", resource={}, instance=0, container="main", log_level=log_level,
        exported=exported,
    )  # fmt: skip


def test_structured_lines_are_split():
    """A JSON line with a body gives value, severity and attributes; other JSON stays text."""
    row = _rows('{"body": "step", "severity_text": "warn", "attributes": {"loss": 0.5}}')[0]
    assert (row.value, row.record) == (
        "step", {"severity_number": 13, "severity_text": "WARN"}
    )  # fmt: skip
    assert row.attributes == {"log.iostream": "stdout", "loss": 0.5}
    assert _rows('{"a": 1}')[0].value == '{"a": 1}'


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"log_level": "OFF"}, 0),
        ({"log_level": "INFO"}, 1),
        ({"log_level": "ERROR"}, 0),
        ({"log_level": "ERROR", "stream": "stderr"}, 1),
        ({"exported": "NONE"}, 0),
        ({"exported": "ERROR"}, 0),
        ({"exported": "ERROR", "stream": "stderr"}, 1),
    ],
)
def test_levels_gate_lines(options, count):
    """LOG_LEVEL gates severities, logExporters gates streams."""
    assert len(_rows("text", **options)) == count


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("/db/s/repo/img:1", (("DB", "S", "REPO"), "img", "1")),
        ("/db/s/repo/a/b", (("DB", "S", "REPO"), "a/b", "latest")),
        ("localhost:123/db/s/repo/img:x", (("DB", "S", "REPO"), "img", "x")),
        ("repo/img", (("D", "C", "REPO"), "img", "latest")),
    ],
)
def test_image_references(image, expected):
    """The documented forms of an image name are understood."""
    assert split_image(image, "D", "C") == expected


@pytest.mark.parametrize("image", ["img", "/a/b/c", "/a//c/d", "/db/s/repo"])
def test_invalid_image_reference_is_refused(image):
    """A name without a repository is refused as Snowflake does."""
    with pytest.raises(StatementError, match="invalid format"):
        split_image(image, "D", "C")


def test_nodes_fill_up_in_order():
    """Instances share a node while their requests fit, then take the next."""
    family = load_instance_families()["CPU_X64_S"]
    text = (
        "spec: {containers: [{name: m, image: /a/b/c/d,"
        " resources: {requests: {cpu: 1, memory: 5Gi}}}]}"
    )
    need = need_of(parse_spec(text))
    assert Nodes([], family).place(need, 1) == 0
    assert Nodes([(0, need)], family).place(need, 1) == 0
    assert Nodes([(0, need)] * 2, family).place(need, 1) is None
    assert Nodes([(0, need)] * 2, family).place(need, 2) == 1
    assert Nodes([(0, need)], family).wanted([need] * 4, 2) == (2, 1)
