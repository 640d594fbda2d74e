"""Validation of service specifications: what Snowflake accepts, and what it refuses."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from monad_dagster.local.specs import quantities
from monad_dagster.local.specs.spec import parse_spec
from monad_dagster.local.specs.spec_render import render_spec, spec_digest
from monad_dagster.local.specs.spec_text import InvalidSpecError, load_spec_text, render_template
from monad_dagster.spcs.instance_families import load_instance_families

SPECS = Path(__file__).parents[2] / "data" / "specs"
FAMILY = load_instance_families()["GPU_NV_S"]
MINIMAL = "spec:\n  containers:\n  - name: main\n    image: /d/s/r/i:1\n"


@pytest.mark.parametrize("name", ["pretrain", "train", "predict"])
def test_documented_specifications_are_valid(name):
    """The three published specifications pass on the published instance family."""
    spec = parse_spec((SPECS / f"{name}.yaml").read_text(), FAMILY)
    container = spec.containers[0]
    assert container.command == ("python",)
    assert container.gpus == 1
    assert container.env["SNOWFLAKE_DATABASE"] == "HM_KAGGLE"
    assert spec.volumes["monad-stage"].stage == "monad_db.data_schema.monad_stage"
    assert (spec.volumes["monad-stage"].uid, spec.volumes["monad-stage"].gid) == (1000, 1000)
    assert len(spec.warnings) == 1
    assert "dev-shm" in spec.warnings[0]


def test_normalised_text_names_digest_and_default_resources():
    """DESCRIBE shows the digest beside the image and the resources that were not written."""
    spec = parse_spec((SPECS / "train.yaml").read_text(), FAMILY)
    image = "/monad_db/data_schema/image_repository/monad:latest"
    text = render_spec(spec, {image: "sha256:" + "a" * 64}, FAMILY)
    assert text.startswith("---\nspec:\n")
    container = yaml.safe_load(text)["spec"]["containers"][0]
    assert container["sha256"] == "@sha256:" + "a" * 64
    assert container["resources"] == {
        "limits": {"memory": "28Gi", "cpu": "6", "nvidia.com/gpu": "1"},
        "requests": {"memory": "0.5Gi", "cpu": "0.5", "nvidia.com/gpu": "1"},
    }
    assert container["args"][0] == "/app/monad_stage/scripts/train.py"
    assert len(spec_digest(text)) == 64


def test_normalised_text_is_itself_a_valid_specification():
    """The normalised text differs from a specification by the digest only."""
    text = render_spec(parse_spec(MINIMAL, FAMILY), {}, FAMILY)
    assert parse_spec(text, FAMILY).containers[0].name == "main"


def _with(**changes):
    data = yaml.safe_load(MINIMAL)
    container = data["spec"]["containers"][0]
    for key, value in changes.items():
        if key.startswith("spec_"):
            data["spec"][key[5:]] = value
        else:
            container[key] = value
    return yaml.safe_dump(data)


STAGE = {"name": "v", "source": "stage", "stageConfig": {"name": "@d.s.st"}}
REFUSED = {
    "unknown key of spec": (_with(spec_foo=1), "unknown option 'foo' for 'spec'."),
    "unknown key of container": (_with(imge="x"), "unknown option 'imge' for 'containers[0]'."),
    "unknown endpoint key": (
        _with(spec_endpoints=[{"name": "e", "port": 1, "x": 1}]),
        "unknown option 'x' for 'endpoints[0]'.",
    ),
    "serviceRoles under spec": (_with(spec_serviceRoles=[]), "unknown option 'serviceRoles'"),
    "no containers": ("spec: {}", "missing option 'containers'"),
    "no spec": ("{}", "missing option 'spec'"),
    "name with underscore": (_with(name="a_b"), "invalid name 'a_b'"),
    "name ends with dash": (_with(name="a-"), "invalid name"),
    "name too long": (_with(name="a" * 64), "invalid name"),
    "v1 stage mount": (_with(spec_volumes=[{"name": "v", "source": "@st/x"}]), "stage mount v1"),
    "unknown source": (_with(spec_volumes=[{"name": "v", "source": "nfs"}]), "invalid source"),
    "memory volume without size": (
        _with(spec_volumes=[{"name": "v", "source": "memory"}]),
        "missing option 'size'",
    ),
    "stage without config": (
        _with(spec_volumes=[{"name": "v", "source": "stage"}]),
        "missing option 'stageConfig'",
    ),
    "stage path escapes": (
        _with(spec_volumes=[{**STAGE, "stageConfig": {"name": "@d.s.st/../x"}}]),
        "invalid stage",
    ),
    "mount of unknown volume": (
        _with(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
        "volume 'v' is not defined",
    ),
    "relative mount path": (
        _with(volumeMounts=[{"name": "v", "mountPath": "v"}], spec_volumes=[STAGE]),
        "not a valid absolute path",
    ),
    "mount path escapes": (
        _with(volumeMounts=[{"name": "v", "mountPath": "/a/../b"}], spec_volumes=[STAGE]),
        "not a valid absolute path",
    ),
    "memory without unit": (
        _with(resources={"requests": {"memory": 4}}),
        "invalid memory value '4'",
    ),
    "gpu in limits only": (
        _with(resources={"limits": {"nvidia.com/gpu": 1}}),
        "same value in requests and limits",
    ),
    "more gpus than the node": (
        _with(resources={"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 2}}),
        "2 GPUs asked for",
    ),
    "memory beyond the node": (
        _with(resources={"requests": {"memory": "29Gi"}}),
        "insufficient memory resources",
    ),
    "request over limit": (
        _with(resources={"requests": {"memory": "4Gi"}, "limits": {"memory": "2Gi"}}),
        "request exceeds its limit",
    ),
    "duplicate key": (MINIMAL + "    image: x\n", "duplicate key 'image'"),
    "list as environment value": (_with(env={"A": [1]}), "must be a string or a number"),
    "no yaml": ("spec: [", "not valid YAML"),
    "scalar": ("hello", "must be a mapping"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_invalid_specification_is_refused(case):
    """A specification that Snowflake refuses is refused with the place of the mistake."""
    text, message = REFUSED[case]
    with pytest.raises(InvalidSpecError) as raised:
        parse_spec(text, FAMILY)
    assert message in str(raised.value)


def test_singular_keys_are_accepted():
    """The documentation's examples use container and endpoint too."""
    text = MINIMAL.replace("containers", "container")
    assert parse_spec(text).containers[0].name == "main"


def test_json_is_accepted():
    """The command line client sends JSON."""
    assert parse_spec('{"spec": {"containers": [{"name": "m", "image": "/d/s/r/i"}]}}').gpus == 0


def test_environment_values_are_strings_as_written():
    """Words such as yes and dates stay text, and numbers keep their digits."""
    env = (
        parse_spec(MINIMAL + "    env: {A: yes, B: 2020-01-01, C: 1, D: true}\n").containers[0].env
    )
    assert env == {"A": "yes", "B": "2020-01-01", "C": "1", "D": "true"}


def test_alias_bomb_is_refused():
    """Aliases that expand to billions of values end at the bound."""
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{','.join(['*' + previous] * 10)}]")
    with pytest.raises(InvalidSpecError):
        load_spec_text("\n".join(lines))


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 5000, "x" * 300_000, "{a: " * 400])
def test_hostile_text_is_refused(text):
    """Recursive, deep and large texts end in a refusal, not in a crash."""
    with pytest.raises(InvalidSpecError):
        parse_spec(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text):
    """What is accepted has a container, what is refused says why, and nothing else happens."""
    try:
        spec = parse_spec(text)
    except InvalidSpecError as error:
        assert str(error).strip()  # noqa: PT017 - a result is right too
    else:
        assert spec.containers


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("4Gi", 4 * 2**30), ("0.5Gi", 2**29), ("1500M", 15 * 10**8), ("2k", 2000)],
)
def test_memory_quantities(text, num_bytes):
    """Decimal and binary units differ."""
    assert quantities.parse_memory(text) == num_bytes
    assert quantities.parse_memory(quantities.format_memory(2**29)) == 2**29


@pytest.mark.parametrize("text", ["4", "4gb", "-1Gi", "", True, "1e3Gi"])
def test_memory_needs_a_unit(text):
    """A number alone is not a memory quantity."""
    with pytest.raises(quantities.QuantityError):
        quantities.parse_memory(text)


def test_cpu_and_duration_quantities():
    """Thousandths of a core and compound periods are read."""
    assert quantities.parse_cpu("500m") == 0.5
    assert quantities.parse_cpu(2) == 2
    assert quantities.parse_duration("1h30m") == 5400


def test_template_values_and_defaults():
    """A value wins over a default, and the flag makes the default apply to blank values."""
    template = "a: {{ x }} {{ y | default('q') }} {{z|default('w', true)}}"
    assert render_template(template, {"x": "1", "z": " "}) == "a: 1 q w"
    assert render_template(template, {"x": "1", "y": "2", "z": "3"}) == "a: 1 2 3"


@pytest.mark.parametrize("template", ["{{ x }}", "{{ a.b }}", "{{ X }} "])
def test_template_without_value_is_refused(template):
    """A placeholder with neither value nor default is an error; keys are case-sensitive."""
    with pytest.raises(InvalidSpecError):
        render_template(template, {"y": "1"})
