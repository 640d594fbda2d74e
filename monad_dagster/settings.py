"""Deployment settings, and the only place of the code location that reads the environment.

Every field can be set by an environment variable (`MONAD_<FIELD>` unless noted) or in a file `.env`
of the current directory; what the environment has already wins. Credentials are read here, handed
to the Snowflake resource and never stored, printed or written to metadata.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from monad_dagster.errors import ConfigError, problem

Deployment = Literal["local", "snowflake"]
Runner = Literal[
    "auto", "docker", "docker-bridge", "docker-host", "process", "bubblewrap", "unshare", "plain"
]

_PACKAGE_DIR = Path(__file__).resolve().parent
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}

# Environment names that are Snowflake's own rather than ours.
_SNOWFLAKE_ENV = {
    "account": "SNOWFLAKE_ACCOUNT",
    "user": "SNOWFLAKE_USER",
    "password": "SNOWFLAKE_PASSWORD",
    "private_key_path": "SNOWFLAKE_PRIVATE_KEY_PATH",
    "private_key_password": "SNOWFLAKE_PRIVATE_KEY_PASSPHRASE",
    "authenticator": "SNOWFLAKE_AUTHENTICATOR",
    "token_file_path": "SNOWFLAKE_TOKEN_FILE_PATH",
    "host": "SNOWFLAKE_HOST",
}


def default_container_dir() -> Path:
    """Return the `container` folder of the checkout, or the one packed into the wheel."""
    checkout = _PACKAGE_DIR.parent / "container"
    return checkout if checkout.is_dir() else _PACKAGE_DIR / "_container"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where things are and how job services run.

    The defaults are the object names of the documented set-up, so that a fresh machine needs
    no configuration.
    """

    deployment: Deployment = "local"
    """`local` uses the embedded account; `snowflake` uses the account in SNOWFLAKE_* variables."""
    home: Path = Path(".monad")
    """What a run writes on this machine: the local account, sample data, Dagster's home."""

    role: str = "MONAD_ROLE"
    database: str = "MONAD_DB"
    schema: str = "DATA_SCHEMA"
    stage: str = "MONAD_STAGE"
    image_repository: str = "IMAGE_REPOSITORY"
    warehouse: str = "MONAD_WAREHOUSE"
    compute_pool: str = "MONAD_COMPUTE_POOL_GPU"
    instance_family: str = "GPU_NV_S"
    num_gpus: int = 1
    data_database: str = "HM_KAGGLE"
    data_schema: str = "PUBLIC"

    container_dir: Path = field(default_factory=default_container_dir)
    """Dockerfile, scripts, configs, scenarios and engine; `monad-dagster init DIR` copies them."""
    config_file: Path | None = None
    """Foundation-model YAML; default `configs/fm_config.yaml` of the container folder."""
    scenarios_dir: Path | None = None
    """Scenario files; default `scenarios/<config name>` where it exists, else `scenarios`."""
    mount_path: str = "/app/monad_stage"
    image_name: str = "monad"
    image_tag: str | None = None
    """Default: a tag derived from the build context, which never moves to another image."""
    base_image: str | None = None
    """Licensed BaseModel image for the Dockerfile's BASE_IMAGE; default is the open engine."""
    image_builder: Literal["auto", "docker", "oci"] = "auto"
    """`docker` needs a Docker Engine; `oci` builds the layer here; `auto` takes docker for a
    real account, with a base image, or when `runner` forces a container engine."""
    python_base_image: str | None = None
    """Base image of the open engine's image; default is the Dockerfile's python:3.11-slim."""
    runner: Runner = "auto"
    """What runs the local account's job services: `auto` takes a container engine where one works
    (DOCKER_HOST, the Docker CLI's context, or a known socket) and the process runner for images
    that hold files only. Any other value forces that one and fails where it does not work."""

    documented_layout: bool = False
    """Write to the page's fixed paths (fm_output, scenario_output, predictions)."""
    keep_attempts: int = 5
    """Materializations kept per asset and partition; artefacts in use are never removed."""
    poll_interval_seconds: float = 5.0
    max_queue_seconds: float = 3600.0
    max_runtime_seconds: float = 86400.0

    credits_per_hour: str = ""
    """Credit rates by instance family, such as `GPU_NV_M=2.68,CPU_X64_S=0.11`."""
    region_timezone: str | None = None
    """Time zone of the account's region, for maintenance windows, where it is not a common one."""

    snowflake: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Connection parameters from SNOWFLAKE_*; empty for the local account."""

    def __post_init__(self) -> None:
        if self.deployment not in ("local", "snowflake"):
            raise ConfigError(
                problem(
                    "MONAD_DEPLOYMENT is not valid",
                    f"it is '{self.deployment}'",
                    "Set it to local or snowflake",
                )
            )
        if self.runner not in get_args(Runner):
            raise ConfigError(
                problem(
                    "MONAD_RUNNER is not valid",
                    f"it is '{self.runner}'",
                    f"Set it to one of {', '.join(get_args(Runner))}",
                )
            )
        if self.num_gpus < 0 or self.keep_attempts < 1 or self.poll_interval_seconds <= 0:
            raise ConfigError(
                problem(
                    "A setting is out of range",
                    f"num_gpus={self.num_gpus}, keep_attempts={self.keep_attempts}, "
                    f"poll_interval_seconds={self.poll_interval_seconds}",
                    "Give 0 or more for num_gpus, 1 or more for keep_attempts, more than 0 for the "
                    "interval",
                )
            )

    @property
    def credit_rates(self) -> dict[str, float]:
        """The configured credit rates.

        Raises:
            ConfigError: MONAD_CREDITS_PER_HOUR cannot be read.
        """
        rates = {}
        for part in filter(None, (item.strip() for item in self.credits_per_hour.split(","))):
            family, _, rate = part.partition("=")
            try:
                rates[family.strip().upper()] = float(rate)
            except ValueError as error:
                raise ConfigError(
                    problem(
                        "MONAD_CREDITS_PER_HOUR is not valid",
                        f"it holds '{part}'",
                        "Write FAMILY=RATE, separated by commas",
                    )
                ) from error
        return rates

    @property
    def local_state_dir(self) -> Path:
        """Folder of the embedded local account."""
        return (self.home / "local").absolute()

    @property
    def fm_config(self) -> Path:
        """The foundation-model YAML in use."""
        return self.config_file or self.container_dir / "configs" / "fm_config.yaml"

    @property
    def scenarios(self) -> Path:
        """The folder of scenario files in use."""
        if self.scenarios_dir:
            return self.scenarios_dir
        root = self.container_dir / "scenarios"
        own = root / self.fm_config.stem
        return own if own.is_dir() else root


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from *environ* (default: the process environment and `.env`).

    Raises:
        ConfigError: A variable has a value of the wrong kind, or one that is needed is missing.
    """
    env = merged_environment({}) if environ is None else environ
    values: dict[str, Any] = {}
    for spec in fields(Settings):
        if spec.name == "snowflake":
            continue
        name = f"MONAD_{spec.name.upper()}"
        raw = env.get(name)
        if raw:
            values[spec.name] = _parse(name, raw, str(spec.type))
    if values.get("deployment", "local") == "snowflake":
        values["snowflake"] = _snowflake_parameters(env)
    return Settings(**values)


def _parse(name: str, raw: str, kind: str) -> Any:
    """Turn the text of one variable into the type of its field."""
    try:
        if "bool" in kind:
            lowered = raw.lower()
            if lowered not in _TRUE | _FALSE:
                raise ValueError(raw)
            return lowered in _TRUE
        if "int" in kind and "Literal" not in kind:
            return int(raw)
        if "float" in kind:
            return float(raw)
        if "Path" in kind:
            return Path(raw).expanduser()
    except ValueError as error:
        wanted = "true or false" if "bool" in kind else "a number"
        raise ConfigError(
            problem(f"{name} is not valid", f"it is '{raw}'", f"Set it to {wanted}")
        ) from error
    return raw


def _snowflake_parameters(env: Mapping[str, str]) -> dict[str, str]:
    """Collect the connection parameters of a real account."""
    found = {key: env[name] for key, name in _SNOWFLAKE_ENV.items() if env.get(name)}
    missing = [_SNOWFLAKE_ENV[key] for key in ("account", "user") if key not in found]
    if not any(key in found for key in ("password", "private_key_path", "authenticator")):
        missing.append(
            "SNOWFLAKE_PRIVATE_KEY_PATH (or SNOWFLAKE_PASSWORD, SNOWFLAKE_AUTHENTICATOR)"
        )
    if missing:
        raise ConfigError(
            problem(
                "The Snowflake connection is incomplete",
                f"missing: {', '.join(missing)}",
                "Set them in the environment or in .env, or set MONAD_DEPLOYMENT=local",
                "See README.md, 'With a Snowflake account'",
            )
        )
    return found


def dagster_home(settings: Settings) -> Path:
    """Return the Dagster home: DAGSTER_HOME when set, else a folder under `home`."""
    configured = merged_environment({}).get("DAGSTER_HOME")
    return Path(configured) if configured else (settings.home / "dagster_home").absolute()


def child_environment(settings: Settings, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a dagster process started by the CLI."""
    env = {**os.environ, **overrides}
    env["DAGSTER_HOME"] = str(dagster_home(settings))
    env.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    return env


def merged_environment(overrides: Mapping[str, str]) -> dict[str, str]:
    """Return `.env` of the current directory, the process environment and *overrides*, last wins.

    Read here, because Dagster reads the file in some of its commands only: the command line and the
    code location must not disagree about the account.
    """
    from dotenv import dotenv_values

    in_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    return {**in_file, **os.environ, **overrides}
