"""The OCI layout is the same, byte for byte, for the same build context."""

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from monad_dagster.assets.image_build import read_build_context, write_layout
from monad_dagster.errors import MonadDagsterError


@pytest.fixture
def container_dir(tmp_path) -> Path:
    engine = tmp_path / "container" / "engine" / "monad"
    engine.mkdir(parents=True)
    (engine / "__init__.py").write_text("__version__ = '0'\n")
    (engine / "__pycache__").mkdir()
    (engine / "__pycache__" / "x.pyc").write_bytes(b"cache")
    scripts = tmp_path / "container" / "scripts"
    scripts.mkdir()
    (scripts / "pretrain.py").write_text("print('hello')\n")
    (tmp_path / "container" / "scenarios").mkdir()
    (tmp_path / "container" / "scenarios" / "churn.py").write_text("TASK = 1\n")
    return tmp_path / "container"


def _layer(layout_dir: Path) -> dict[str, tarfile.TarInfo]:
    index = json.loads((layout_dir / "index.json").read_text())
    blobs = layout_dir / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    data = gzip.decompress((blobs / manifest["layers"][0]["digest"][7:]).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_same_context_same_digest(container_dir, tmp_path):
    """Two builds at different times and with touched files give one manifest digest."""
    first = write_layout(read_build_context(container_dir), tmp_path / "a")
    os.utime(container_dir / "scripts" / "pretrain.py", (1, 1))
    second = write_layout(read_build_context(container_dir), tmp_path / "b")
    assert first == second


def test_a_changed_script_changes_the_digest(container_dir, tmp_path):
    """The version follows the build context."""
    first = read_build_context(container_dir)
    (container_dir / "scripts" / "pretrain.py").write_text("print('other')\n")
    assert read_build_context(container_dir).digest != first.digest


def test_scenarios_and_caches_stay_out(container_dir, tmp_path):
    """The image holds engine and scripts, and neither scenarios nor byte code."""
    write_layout(read_build_context(container_dir), tmp_path / "a")
    names = set(_layer(tmp_path / "a"))
    assert {"opt/monad/engine/monad/__init__.py", "opt/monad/scripts/pretrain.py"} <= names
    assert not [name for name in names if "churn" in name or "pycache" in name]


def test_every_blob_has_its_digest_as_name(container_dir, tmp_path):
    """A registry can verify every blob of the layout."""
    write_layout(read_build_context(container_dir), tmp_path / "a")
    blobs = list((tmp_path / "a" / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3
    assert all(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name for blob in blobs)


def test_a_base_image_brings_its_own_engine(container_dir):
    """With a licensed base image only the scripts are added."""
    context = read_build_context(container_dir, base_image="registry.example/licensed:1")
    assert list(context.files) == ["/opt/monad/scripts/pretrain.py"]


def test_a_missing_engine_is_refused(container_dir):
    """An incomplete container folder is refused before anything is built."""
    (container_dir / "engine" / "monad" / "__init__.py").unlink()
    with pytest.raises(MonadDagsterError, match="has no files for the image"):
        read_build_context(container_dir)
