# ruff: noqa: TID251 - the one place that reads the environment
"""The only place where the engine reads environment variables.

`${NAME}` and `${NAME:-default}` in YAML values are substituted here. Secrets pass through and
are never logged or stored: checkpoints keep the text with the `${NAME}` in it.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from monad.errors import ConfigError, problem

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_DEFAULT_TOKEN_PATH = "/snowflake/session/token"  # noqa: S105 - a path, not a secret


def substitute(value: str, path: str) -> str:
    """Replace every `${NAME}` in *value*; *path* names the key in error messages."""

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match.group(1), match.group(2))
        if found is None:
            raise ConfigError(
                problem(
                    f"{path} cannot be resolved",
                    f"the environment variable {match.group(1)} is not set",
                    f"Set it, or write ${{{match.group(1)}:-default}} with a default",
                )
            )
        return found

    return _REFERENCE.sub(replace, value)


def unresolved(value: Any) -> bool:
    """Tell whether *value* refers to an environment variable that is not set."""
    if not isinstance(value, str):
        return False
    return any(
        m.group(2) is None and m.group(1) not in os.environ for m in _REFERENCE.finditer(value)
    )


def session_token_path() -> Path:
    """Path of the session token that a job service container is given."""
    return Path(os.environ.get("SNOWFLAKE_SESSION_TOKEN_PATH") or _DEFAULT_TOKEN_PATH)


def snowflake_environment() -> dict[str, str]:
    """Return the `SNOWFLAKE_*` names that a job service container has, where set."""
    names = ("HOST", "PORT", "PROTOCOL", "ACCOUNT", "WAREHOUSE", "DATABASE", "SCHEMA", "ROLE")
    found = {name.lower(): os.environ.get(f"SNOWFLAKE_{name}") for name in names}
    return {name: value for name, value in found.items() if value}


def lineage_inputs() -> dict[str, Any]:
    """Return the JSON object of MONAD_LINEAGE_INPUTS, or an empty dict."""
    text = os.environ.get("MONAD_LINEAGE_INPUTS")
    if not text:
        return {}
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(problem("MONAD_LINEAGE_INPUTS is not JSON", str(error))) from error
    return value if isinstance(value, dict) else {"value": value}


def trust_target_fn() -> bool:
    """Tell whether stored target functions may be unpickled (MONAD_TRUST_TARGET_FN=1)."""
    return os.environ.get("MONAD_TRUST_TARGET_FN", "").lower() in {"1", "true", "yes"}


def scratch_root() -> str | None:
    """Directory for scratch files (MONAD_SCRATCH_DIR), or None for the system's own."""
    return os.environ.get("MONAD_SCRATCH_DIR") or None


def ask_gpus_without_context() -> None:
    """Let torch look for GPUs without a context on one, which processes forked later need."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
