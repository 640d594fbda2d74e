"""The specification builder, its hash, and its checks."""

from pathlib import Path

import pytest
import yaml

from monad_dagster.errors import SpecError
from monad_dagster.spcs.instance_families import load_instance_families
from monad_dagster.spcs.spec import (
    DOCUMENTED_ENV,
    DOCUMENTED_SETTINGS,
    SpecSettings,
    build_spec,
)
from monad_dagster.spcs.spec_checks import check_spec, require_valid, spec_from_mapping

SPECS = Path(__file__).parents[2] / "data" / "specs"
IMAGE = "/monad_db/data_schema/image_repository/monad:latest"
MOUNT = "/app/monad_stage"
DOCUMENTED_ARGS = {
    "pretrain": [
        "--config",
        f"{MOUNT}/configs/fm_config.yaml",
        "--features-path",
        f"{MOUNT}/fm_output",
    ],
    "train": [
        "--checkpoint-dir",
        f"{MOUNT}/fm_output",
        "--save-path",
        f"{MOUNT}/scenario_output",
    ],
    "predict": [
        "--save-path",
        f"{MOUNT}/predictions",
        "--checkpoint-dir",
        f"{MOUNT}/scenario_output/checkpoints",
    ],
}
FAMILIES = load_instance_families()


def documented(script):
    """Build the documented specification of one script."""
    return build_spec(
        image=IMAGE,
        command=("python",),
        args=(f"{MOUNT}/scripts/{script}.py", *DOCUMENTED_ARGS[script]),
        env=DOCUMENTED_ENV,
        settings=DOCUMENTED_SETTINGS,
    )


def published(script):
    """Read the published specification of one script."""
    return yaml.safe_load((SPECS / f"{script}.yaml").read_text())


@pytest.mark.parametrize("script", sorted(DOCUMENTED_ARGS))
def test_documented_settings_give_the_published_specification(script):
    """The builder reproduces what the page prints."""
    assert documented(script).to_dict() == published(script)


@pytest.mark.parametrize("script", sorted(DOCUMENTED_ARGS))
def test_reading_and_writing_a_specification_changes_nothing(script):
    """A published specification survives being read and written."""
    spec = spec_from_mapping(published(script))
    assert spec.to_dict() == published(script)
    assert yaml.safe_load(spec.to_yaml()) == published(script)
    assert spec.sha256 == documented(script).sha256


def test_sizes_follow_the_family():
    """Memory leaves room for node and stage mount; /dev/shm is 30 percent of it."""
    spec = build_spec(image=IMAGE, family=FAMILIES["GPU_NV_S"])
    main = spec.to_dict()["spec"]["containers"][0]
    assert main["resources"]["requests"] == {"memory": "23Gi", "nvidia.com/gpu": 1}
    assert main["resources"]["limits"] == main["resources"]["requests"]
    volumes = {volume["name"]: volume for volume in spec.to_dict()["spec"]["volumes"]}
    assert volumes["dev-shm"]["size"] == "6Gi"
    assert volumes["monad-stage"]["stageConfig"]["resources"]["limits"]["memory"] == "2Gi"
    assert check_spec(spec, FAMILIES["GPU_NV_S"]).errors == []


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_default_specification_fits_every_family(name):
    """Whatever the pool, the derived sizes are accepted."""
    spec = build_spec(image=IMAGE, family=FAMILIES[name])
    assert check_spec(spec, FAMILIES[name]).errors == []


def test_the_hash_ignores_launch_variables_and_nothing_else():
    """Pipes variables do not change the hash; arguments do."""
    spec = documented("train")
    launched = spec.with_env({"DAGSTER_PIPES_CONTEXT": "x", "MONAD_RUN_DIRECTORY": "/r"})
    assert launched.sha256 == spec.sha256
    assert launched.to_dict() != spec.to_dict()
    assert spec.with_args(("other",)).sha256 != spec.sha256


def test_secret_values_are_neither_shown_nor_hashed():
    """A value under a secret name does not leave the specification."""
    one = documented("train").with_env({"WANDB_API_KEY": "first"})
    two = documented("train").with_env({"WANDB_API_KEY": "second"})
    assert one.sha256 == two.sha256
    assert "first" not in one.to_yaml(redacted=True)
    assert "first" in one.to_yaml()


def test_more_gpus_than_a_node_has_is_an_error():
    """The error names both numbers and the family."""
    spec = build_spec(image=IMAGE, settings=SpecSettings(gpus=4))
    with pytest.raises(SpecError, match="4, GPU_NV_S has 1"):
        require_valid(spec, FAMILIES["GPU_NV_S"])


def test_the_documented_shared_memory_is_a_warning_on_its_own_family():
    """48Gi on a node of 28 GiB is accepted, and said to be too much."""
    warnings = require_valid(documented("pretrain"), FAMILIES["GPU_NV_S"])
    assert any("48Gi" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["spec"].update(serviceRoles=[]), "unknown option 'serviceRoles' for 'spec'"),
        (lambda d: d["spec"]["volumes"][0].update(source="@s"), "version 1"),
        (lambda d: d["spec"]["containers"][0].update(gpu=1), "unknown option 'gpu'"),
        (
            lambda d: d["spec"]["containers"][0]["resources"]["limits"].clear(),
            "differs between requests and limits",
        ),
        (lambda d: d.pop("spec"), "spec is missing"),
    ],
)
def test_a_specification_written_by_hand_is_read_strictly(change, message):
    """What Snowflake refuses is refused before it is sent."""
    document = published("train")
    change(document)
    with pytest.raises(SpecError, match=message):
        spec_from_mapping(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["spec"]["containers"][0].update(name="Main"), "'Main' is not valid"),
        (lambda d: d["spec"]["volumes"].pop(0), "names no volume"),
        (lambda d: d["spec"]["containers"][0].update(image=""), "has no image"),
        (
            lambda d: d["spec"]["containers"][0]["resources"]["requests"].update(memory="12"),
            "needs a unit",
        ),
    ],
)
def test_checks_find_what_cannot_work(change, message):
    """Names, mounts, images and quantities are checked."""
    document = published("train")
    change(document)
    errors = check_spec(spec_from_mapping(document)).errors
    assert any(message in error for error in errors)
