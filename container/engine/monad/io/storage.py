"""The storage configuration: where artefacts are kept.

The documented argument has no documented schema. Ours: `backend: local` and `root`, against which
a relative output path is resolved. Absent means local, paths as given.
"""

from pathlib import Path

import yaml

from monad.errors import ConfigError, NotBuiltError, nearest, problem

_OTHER_BACKENDS = ("s3", "gcs", "azure", "snowflake_stage")


def resolve_output(output: Path, storage_config: Path | None) -> Path:
    """Return the output directory under the storage configuration."""
    if storage_config is None:
        return output
    storage_config = Path(storage_config)
    if not storage_config.is_file():
        raise ConfigError(
            problem("The storage configuration does not exist", f"path {storage_config}")
        )
    try:
        values = yaml.safe_load(storage_config.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ConfigError(problem(f"{storage_config.name} is not YAML", str(error))) from error
    if not isinstance(values, dict):
        raise ConfigError(problem(f"{storage_config.name} must be a mapping"))
    for key in values:
        if key not in ("backend", "root"):
            raise ConfigError(
                problem(
                    f"{storage_config.name}: unknown key `{key}`", nearest(key, ["backend", "root"])
                )
            )
    backend = values.get("backend", "local")
    if backend in _OTHER_BACKENDS:
        raise NotBuiltError(
            problem(
                f"{storage_config.name}: backend `{backend}` is not built in this engine",
                do="Use backend: local with a mounted directory",
            )
        )
    if backend != "local":
        raise ConfigError(
            problem(f"{storage_config.name}: backend is `{backend}`", do="Use backend: local")
        )
    root = values.get("root")
    return Path(root) / output if root else output
