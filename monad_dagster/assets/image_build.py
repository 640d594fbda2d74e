"""The build context of the job image, and the image without a container engine.

The layer holds the engine and the scripts, never scenarios or configs. Without a container engine
an OCI layout of this context is what gets pushed; with one, `container/Dockerfile` builds the full
image instead.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from monad_dagster.errors import ConfigError, problem
from monad_dagster.spcs.oci_image import ImageConfig, build_layout, files_below

ENGINE_PREFIX = "/opt/monad/engine"
SCRIPTS_PREFIX = "/opt/monad/scripts"
# Tells the local account that the image brings no Python: its process runner lends one.
HOST_PYTHON_LABEL = {"dev.monad-dagster.runtime": "host-python"}


@dataclass(frozen=True)
class BuildContext:
    """The files an image is made of.

    Attributes:
        files: Path inside the image to path on this machine.
        digest: sha256 over names and contents; the image's code version.
    """

    files: dict[str, Path]
    digest: str


def read_build_context(
    container_dir: Path, *, base_image: str | None = None, recipe: str = ""
) -> BuildContext:
    """Collect engine, scripts and Dockerfile of *container_dir*.

    Args:
        container_dir: The folder.
        base_image: A licensed image to build on.
        recipe: What else makes another image of the same files.

    Raises:
        ConfigError: The folder holds no engine or no scripts.
    """
    roots = {SCRIPTS_PREFIX: container_dir / "scripts"}
    if not base_image:  # a licensed image brings its own monad package
        roots[f"{ENGINE_PREFIX}/monad"] = container_dir / "engine" / "monad"
    files: dict[str, Path] = {}
    for prefix, root in roots.items():
        if not root.is_dir():
            raise ConfigError(
                problem(
                    "The build context is incomplete",
                    f"{root} does not exist",
                    "Set MONAD_CONTAINER_DIR, or run: monad-dagster init DIR",
                )
            )
        files |= files_below(root, prefix)
    others = [container_dir / "Dockerfile", container_dir / "engine" / "pyproject.toml"]
    hashed = {**files, **{path.name: path for path in others if path.is_file()}}
    digest = hashlib.sha256(((base_image or "") + recipe).encode())
    for name in sorted(hashed):
        content = hashlib.sha256(hashed[name].read_bytes()).digest()
        digest.update(name.encode() + b"\0" + content)
    return BuildContext(files, digest.hexdigest())


def write_layout(context: BuildContext, directory: Path) -> str:
    """Write *context* as a single-layer linux/amd64 image and return the manifest digest."""
    config = ImageConfig(
        env={"PYTHONPATH": ENGINE_PREFIX, "PYTHONUNBUFFERED": "1"},
        working_dir="/opt/monad",
        entrypoint=("python",),
        labels={"org.opencontainers.image.revision": context.digest, **HOST_PYTHON_LABEL},
    )
    return build_layout(directory, context.files, config)
