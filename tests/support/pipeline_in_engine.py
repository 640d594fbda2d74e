"""Runs the whole pipeline with the open engine in a private Docker Engine and prints how long.

`python -m tests.support.pipeline_in_engine`, for `make pipeline-docker`. The image is the one of
container/Dockerfile, target `open`; only its base differs: Debian packages and the packages of
this environment, because a machine of tests reaches no image registry.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.container_engine import PrivateEngine, base_archive, start_daemon

IMAGE = "monad-test-python:1"
WANTED = ("pip", "dagster-pipes", "snowflake-connector-python")
BUILD_TOOL = "hatchling"  # of the engine; pip does not leave it in an environment
# pip finds everything installed already and must not look further.
ENVIRONMENT = ("PIP_NO_INDEX=1", "PIP_NO_BUILD_ISOLATION=0", "PIP_BREAK_SYSTEM_PACKAGES=1")


def closure(names: list[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that *names* need, extras and themselves included."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        name = canonicalize_name(name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # needed on other platforms only
        for requirement in map(Requirement, found[name].requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(requirement.name, wanted) for wanted in ("", *requirement.extras)]
    return found


def load_python_image(engine: PrivateEngine, engine_dir: Path) -> int:
    """Make the base image with Python packages; return its size in bytes."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    text = (engine_dir / "pyproject.toml").read_text()
    needed = re.findall(r'^\s+"([A-Za-z0-9_-]+)[>=<]', text, re.MULTILINE)
    tools = engine.root / "tools"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--target",
        str(tools),
        BUILD_TOOL,
    ]
    subprocess.run(install, check=True)
    site = f"usr/local/lib/{version}/dist-packages"
    with tempfile.NamedTemporaryFile(suffix=".tar", dir=engine.root) as file:
        shutil.copyfile(base_archive(), file.name)
        with tarfile.open(file.name, "a") as tar:
            known = {name.removeprefix("./") for name in tar.getnames()}  # an engine takes no twins
            for name, source in _packages(closure([*WANTED, *needed]), tools):
                if f"{site}/{name}" not in known:
                    known.add(f"{site}/{name}")
                    tar.add(source, f"./{site}/{name}")
        changes = [part for value in ENVIRONMENT for part in ("--change", f"ENV {value}")]
        engine.docker("import", *changes, file.name, IMAGE, timeout=900)
        return Path(file.name).stat().st_size


def _packages(
    distributions: dict[str, metadata.Distribution], tools: Path
) -> Iterator[tuple[str, Path]]:
    """Yield (path below site-packages, file) of distributions and of a folder of tools."""
    for distribution in distributions.values():
        for path in distribution.files or []:
            source = Path(str(path.locate()))
            if path.parts[0] != ".." and source.is_file() and "__pycache__" not in path.parts:
                yield str(path), source
    for source in sorted(tools.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            yield str(source.relative_to(tools)), source


def main() -> int:
    """Run the pipeline once; return the exit code of `monad-dagster run`."""
    root = Path(tempfile.mkdtemp(prefix="dockerd-"))
    started = time.monotonic()
    engine = PrivateEngine(f"unix://{root}/docker.sock", start_daemon(root), root)
    try:
        print(f"dockerd ready after {time.monotonic() - started:.1f} s", flush=True)
        started = time.monotonic()
        size = load_python_image(engine, Path("container/engine"))
        print(
            f"base image of {size / 1e6:.0f} MB made in {time.monotonic() - started:.1f} s",
            flush=True,
        )
        environment = {
            **os.environ,
            "DOCKER_HOST": engine.url,
            "MONAD_HOME": str(root / "home"),
            "MONAD_RUNNER": "docker",
            "MONAD_PYTHON_BASE_IMAGE": IMAGE,
        }
        command = [str(Path(sys.executable).parent / "monad-dagster")]
        started = time.monotonic()
        done = subprocess.run([*command, "run", *sys.argv[1:]], env=environment, check=False)
        print(f"pipeline ended with {done.returncode} after {time.monotonic() - started:.1f} s")
        subprocess.run([*command, "local", "status"], env=environment, check=False)
        subprocess.run([*command, "local", "reset", "--yes"], env=environment, check=False)
        return done.returncode
    finally:
        engine.stop()


if __name__ == "__main__":
    sys.exit(main())
