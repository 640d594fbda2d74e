"""The specification parser on any text and on damaged specifications: accepted or refused."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from monad_dagster.local.specs.spec import parse_spec
from monad_dagster.local.specs.spec_text import InvalidSpecError, render_template
from tests.contract.local.fuzz.conftest import corpus

FUZZ = settings.get_profile("fuzz")
SPECS = Path(__file__).parents[3] / "data" / "specs"
GOOD = [yaml.safe_load(path.read_text()) for path in sorted(SPECS.glob("*.yaml"))]
KEYS = st.sampled_from(
    ["spec", "containers", "container", "volumes", "name", "image", "env", "command", "args", "cpu",
     "resources", "limits", "requests", "memory", "nvidia.com/gpu", "volumeMounts", "mountPath",
     "source", "size", "uid", "gid", "stageConfig", "endpoints", "port", "portRange", "public",
     "logExporters", "serviceRoles", "metadataCache", "readinessProbe", "platformMonitor", "x"]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["1Gi", "-1", "0.5", "1e99", "@s", "@a.b.c/../x", "stage", "local", "memory",
                     "/snowflake/session", "/../x", "1m", "{{ x }}", "NaN", "0x10", "~"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=5)), inner)
    ),
    max_leaves=25,
)


def judge(text):
    """Parse; a refusal has one class and one line of text, an accepted one its containers."""
    try:
        spec = parse_spec(text)
    except InvalidSpecError as error:
        assert str(error)  # noqa: PT017 - a result is right too
        return
    assert spec.containers


@pytest.mark.parametrize("text", corpus("spec"))
def test_found_texts(text):
    """A text of the corpus is accepted or refused as an invalid specification."""
    judge(text)


@settings(FUZZ)
@given(st.one_of(st.text(max_size=300), st.text("{}[]&*!|>-:,'\"# \n\tab1", max_size=120)))
def test_any_text(text):
    """Any text is accepted or refused."""
    judge(text)


@settings(FUZZ)
@given(VALUES)
def test_any_data(data):
    """Any data under the key spec is accepted or refused, as YAML and as JSON."""
    judge(yaml.safe_dump({"spec": data}, allow_unicode=True))
    judge(json.dumps({"spec": data}))


@settings(FUZZ)
@given(st.sampled_from(GOOD), st.data())
def test_damaged_specifications(good, data):
    """A documented specification with one value replaced is accepted or refused."""
    spec = copy.deepcopy(good)
    places = list(_places(spec))
    parent, key = data.draw(st.sampled_from(places))
    parent[key] = data.draw(VALUES)
    judge(yaml.safe_dump(spec, allow_unicode=True))


def _places(node):
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield node, key
        if isinstance(value, dict | list):
            yield from _places(value)


@settings(FUZZ)
@given(
    st.lists(st.sampled_from(["{{", "}}", "{{ a }}", "{{ b | default('x') }}", "|", "default(", "'",
                              "{{ a | default(\"y\", true) }}", " ", "a", "$$", "\n"])).map("".join),
    st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=10)),
)  # fmt: skip
def test_templates(template, values):
    """A template is filled in or refused; what a value holds is never read as a template again."""
    try:
        text = render_template(template, values)
    except InvalidSpecError:
        return
    given = "".join(values.values())
    assert "{{" not in text or "{{" in given or "{" in given
