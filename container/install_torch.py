"""Install the PyTorch build that fits this machine, before anything else pulls one in.

On Linux the index's default build needs several GB of CUDA packages. Without an NVIDIA driver this
script takes the CPU build instead: from a local wheel folder pip is configured with, or from
PyTorch's own CPU index when it can be reached.
"""

import argparse
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> int:
    """Choose the build, say so, and run pip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="auto", type=str.lower, choices=["auto", "cpu", "gpu"])
    parser.add_argument("--constraints", type=Path, required=True)
    options = parser.parse_args()
    version = pinned_version(options.constraints)
    build = options.build
    if build == "auto":
        build = "gpu" if shutil.which("nvidia-smi") else "cpu"
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"torch=={version}"]
    if build == "cpu" and reachable(f"{CPU_INDEX}/torch/"):
        command += ["--extra-index-url", CPU_INDEX]
    print(f"Installing torch {version} ({build} build)", flush=True)
    return subprocess.call(command)


def pinned_version(constraints: Path) -> str:
    """Read the torch pin from the constraints file."""
    match = re.search(r"^torch==(\S+)$", constraints.read_text(), re.MULTILINE)
    if not match:
        raise SystemExit(f"{constraints} pins no torch version. Add a line such as torch==2.13.0.")
    return match.group(1)


def reachable(url: str) -> bool:
    """Tell whether the index answers within a few seconds."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    raise SystemExit(main())
