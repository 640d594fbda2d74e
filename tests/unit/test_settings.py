"""Settings come from the environment, with clear refusals."""

from pathlib import Path

import pytest

from monad_dagster.errors import ConfigError
from monad_dagster.settings import load_settings


def test_nothing_set_means_the_local_account():
    """A fresh machine needs no configuration."""
    settings = load_settings({})
    assert (settings.deployment, settings.database, settings.num_gpus) == ("local", "MONAD_DB", 1)


def test_values_are_read_with_their_type():
    """Numbers, booleans and paths are converted."""
    settings = load_settings(
        {"MONAD_NUM_GPUS": "0", "MONAD_DOCUMENTED_LAYOUT": "true", "MONAD_HOME": "/x"}
    )
    assert (settings.num_gpus, settings.documented_layout, settings.home) == (0, True, Path("/x"))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MONAD_NUM_GPUS": "many"}, "MONAD_NUM_GPUS is not valid"),
        ({"MONAD_DOCUMENTED_LAYOUT": "perhaps"}, "true or false"),
        ({"MONAD_DEPLOYMENT": "cloud"}, "Set it to local or snowflake"),
        ({"MONAD_KEEP_ATTEMPTS": "0"}, "out of range"),
        ({"MONAD_DEPLOYMENT": "snowflake"}, "SNOWFLAKE_ACCOUNT"),
    ],
)
def test_a_wrong_value_is_refused_by_name(environment, message):
    """A value of the wrong kind names its variable."""
    with pytest.raises(ConfigError, match=message):
        load_settings(environment)


def test_credentials_never_show_in_the_representation():
    """A settings object can be logged without leaking a password."""
    settings = load_settings(
        {
            "MONAD_DEPLOYMENT": "snowflake",
            "SNOWFLAKE_ACCOUNT": "org-acct",
            "SNOWFLAKE_USER": "u",
            "SNOWFLAKE_PASSWORD": "hunter2",
        }
    )
    assert settings.snowflake["password"] == "hunter2"
    assert "hunter2" not in repr(settings)


def test_scenarios_follow_the_config_when_it_has_its_own(tmp_path):
    """A config with a scenario folder of its name uses that folder."""
    (tmp_path / "scenarios" / "online_retail").mkdir(parents=True)
    common = {"MONAD_CONTAINER_DIR": str(tmp_path)}
    own = load_settings(
        common | {"MONAD_CONFIG_FILE": str(tmp_path / "configs/online_retail.yaml")}
    )
    assert own.scenarios == tmp_path / "scenarios" / "online_retail"
    assert load_settings(common).scenarios == tmp_path / "scenarios"


def test_credit_rates_are_read_by_family():
    """One variable holds the rates; what cannot be read is named."""
    settings = load_settings({"MONAD_CREDITS_PER_HOUR": "gpu_nv_m=2.68, CPU_X64_S=0.11"})
    assert settings.credit_rates == {"GPU_NV_M": 2.68, "CPU_X64_S": 0.11}
    assert load_settings({}).credit_rates == {}
    with pytest.raises(ConfigError, match="GPU_NV_M=lots"):
        assert load_settings({"MONAD_CREDITS_PER_HOUR": "GPU_NV_M=lots"}).credit_rates
