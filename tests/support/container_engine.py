"""A private Docker Engine for tests, and a base image made of Debian packages.

The daemon has its own data, socket and process id file and is ended with the tests; the machine's
own engine is never touched. The base image is a small Debian with Python and `dagster_pipes`,
unpacked from packages because tests reach no image registry; its archive is cached.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

START_SECONDS = 40
BASE_IMAGE = "monad-test-base:1"
PACKAGES = [
    "libc6",
    "libgcc-s1",
    "libexpat1",
    "zlib1g",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libuuid1",
    "libncursesw6",
    "libtinfo6",
    "libreadline8",
    "libstdc++6",
    "libcrypt1",
    "libnsl2",
    "libtirpc3",
    "libgssapi-krb5-2",
    "libkrb5-3",
    "libk5crypto3",
    "libcom-err2",
    "libkrb5support0",
    "libkeyutils1",
    "media-types",
    "netbase",
    "tzdata",
    "base-files",
    "base-passwd",
    "passwd",
    "dash",
    "coreutils",
    "libselinux1",
    "libpcre2-8-0",
    "libacl1",
    "libattr1",
    "libgmp10",
    "bash",
    "ca-certificates",
    "libaudit1",
    "libpam0g",
    "libsemanage2",
    "libcap-ng0",
    "libdb5.3",
]


UNUSED = (
    "usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo", "usr/share/info",
    "usr/share/lintian", "usr/share/bash-completion", "usr/lib/x86_64-linux-gnu/gconv",
)  # fmt: skip


class EngineUnavailableError(Exception):
    """No private engine can be started here; the text says why."""


@dataclass
class PrivateEngine:
    """A running daemon.

    Attributes:
        url: Its socket.
        process: The daemon.
        root: Everything it writes.
    """

    url: str
    process: "subprocess.Popen[bytes]"
    root: Path

    def docker(self, *arguments: str, **options) -> subprocess.CompletedProcess:
        """Run the Docker CLI against this engine."""
        environment = {
            **os.environ,
            "DOCKER_HOST": self.url,
            "DOCKER_CONFIG": str(self.root / "cli"),
        }
        options = {"capture_output": True, "text": True, "timeout": 240, "check": True} | options
        return subprocess.run(["docker", *arguments], env=environment, **options)

    def stop(self) -> None:
        """End the daemon and remove what it wrote."""
        stop_daemon(self.process)
        _unmount_below(self.root)
        shutil.rmtree(self.root, ignore_errors=True)


def start_daemon(root: Path) -> "subprocess.Popen[bytes]":
    """Start a daemon with its state in *root* and wait until it answers.

    Raises:
        EngineUnavailableError: dockerd is missing or does not come up.
    """
    if os.geteuid() != 0:
        raise EngineUnavailableError("a private dockerd needs root")
    for tool in ("dockerd", "docker", "containerd", "runc"):
        if shutil.which(tool) is None:
            raise EngineUnavailableError(f"{tool} is not installed")
    root.mkdir(parents=True, exist_ok=True)
    command = [
        "dockerd", "--data-root", str(root / "data"), "--exec-root", str(root / "exec"),
        "--pidfile", str(root / "pid"), "-H", f"unix://{root}/docker.sock",
        "--iptables=false", "--ip6tables=false", "--bridge=none",
    ]  # fmt: skip
    with (root / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if _answers(f"unix://{root}/docker.sock"):
            return process
        time.sleep(0.05)
    stop_daemon(process)
    tail = (root / "dockerd.log").read_text(errors="replace")[-400:]
    raise EngineUnavailableError(f"dockerd did not come up: {tail}")


def stop_daemon(process: "subprocess.Popen[bytes]") -> None:
    """End a daemon: it stops its containers and its containerd first."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _answers(url: str) -> bool:
    import docker

    try:
        client = docker.APIClient(base_url=url, version="auto", timeout=5)
        client.ping()
        client.close()
    except Exception:
        return False
    return True


def _unmount_below(root: Path) -> None:
    """Unmount what a killed daemon left mounted below *root*, deepest first."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def base_archive() -> Path:
    """Return the base image's file system as a tar archive, made once and cached.

    Raises:
        EngineUnavailableError: The packages cannot be had.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = [
        *PACKAGES, f"{version}-minimal", f"lib{version}-minimal", f"lib{version}-stdlib",
    ]  # fmt: skip
    key = hashlib.sha256(
        " ".join([*packages, *UNUSED, _dagster_pipes_version()]).encode()
    ).hexdigest()[:12]
    archive = _cache_dir() / f"base-{key}.tar"
    if archive.exists():
        return archive
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise EngineUnavailableError(
                f"{tool} is missing: no base image without Debian packages"
            )
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="base-", dir=archive.parent) as folder:
        root = Path(folder) / "rootfs"
        _unpack_packages(Path(folder) / "debs", root, packages)
        for name in UNUSED:
            shutil.rmtree(root / name, ignore_errors=True)
        (root / "usr/bin/python3").unlink(missing_ok=True)
        (root / "usr/bin/python3").symlink_to(version)
        (root / "usr/bin/python").symlink_to(version)
        (root / "bin/sh").unlink(missing_ok=True)
        (root / "bin/sh").symlink_to("dash")
        site = root / "usr/local/lib" / version / "dist-packages"
        _copy_dagster_pipes(site)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        partial = archive.with_suffix(".partial")
        with tarfile.open(partial, "w") as tar:
            tar.add(root, arcname=".")
        partial.replace(archive)
    return archive


def _unpack_packages(downloads: Path, root: Path, packages: list[str]) -> None:
    downloads.mkdir()
    root.mkdir()
    done = subprocess.run(
        ["apt-get", "download", "-q", *packages], cwd=downloads, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise EngineUnavailableError(f"apt-get download failed: {done.stderr[-300:]}")
    for package in sorted(downloads.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(root)], check=True, timeout=120)


def _copy_dagster_pipes(site: Path) -> None:
    import dagster_pipes

    source = Path(dagster_pipes.__file__).parent
    shutil.copytree(source, site / "dagster_pipes", ignore=shutil.ignore_patterns("__pycache__"))


def _dagster_pipes_version() -> str:
    from importlib.metadata import version

    return version("dagster-pipes")


def _cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "monad-dagster-tests"


def load_base_image(engine: PrivateEngine) -> str:
    """Make the base image in an engine and return its name."""
    archive = base_archive()
    engine.docker("import", "--change", 'CMD ["python3"]', str(archive), BASE_IMAGE)
    return BASE_IMAGE


@pytest.fixture(scope="session")
def container_engine(tmp_path_factory):
    """A private Docker Engine; tests are skipped with the reason where there can be none."""
    # Sockets have short paths, and pytest's own folders are kept after the tests.
    root = Path(tempfile.mkdtemp(prefix="dockerd-"))
    try:
        process = start_daemon(root)
    except EngineUnavailableError as error:
        shutil.rmtree(root, ignore_errors=True)
        pytest.skip(str(error))
    engine = PrivateEngine(f"unix://{root}/docker.sock", process, root)
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture(scope="session")
def base_image(container_engine):
    """The base image in the private engine: Debian, Python, dagster_pipes."""
    try:
        return load_base_image(container_engine)
    except EngineUnavailableError as error:
        pytest.skip(str(error))


@contextlib.contextmanager
def docker_host(engine: PrivateEngine):
    """Let what is started inside find the private engine as the Docker CLI would."""
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = engine.url
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("DOCKER_HOST")
        else:
            os.environ["DOCKER_HOST"] = before
