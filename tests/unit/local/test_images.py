"""The image store and the unpacking of layers."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest

from monad_dagster.assets.image_build import HOST_PYTHON_LABEL
from monad_dagster.local.images.image_rootfs import (
    HOST_PYTHON,
    RUNTIME_LABEL,
    ImageCache,
    ImageRootfsError,
    most_bytes,
    unpack_layer,
)
from monad_dagster.local.images.image_store import ImageStore, ImageStoreError


def layer(*members):
    """Return a tar of (name, content) and (name, type, link target) members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content, *link in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o4755
            data = None
            if not link:
                info.size, data = len(content), io.BytesIO(content)
            else:
                info.type = content
                info.linkname = link[0]
            tar.addfile(info, data)
    buffer.seek(0)
    return buffer


def test_layers_apply_in_order_with_whiteouts(tmp_path):
    """An upper layer replaces, removes and hides what lower layers brought."""
    unpack_layer(layer(("a/x", b"1"), ("a/y", b"2"), ("b/z", b"3"), ("c", b"4")), tmp_path)
    unpack_layer(
        layer(("a/.wh.x", b""), ("b/new", b"5"), ("b/.wh..wh..opq", b""), ("c", b"6")), tmp_path
    )
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"a/y", "b/new", "c"}
    assert (tmp_path / "c").read_bytes() == b"6"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/../evil"])
def test_member_cannot_leave_the_root_by_name(tmp_path, name):
    """A name with `..` is refused."""
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(ValueError, match="leaves the image"):
        unpack_layer(layer((name, b"x")), root)
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("target", ["{outside}", "../../../../../../../../{outside}", "/"])
def test_member_cannot_leave_the_root_through_a_link(tmp_path, target):
    """A symbolic link is followed with the root as `/`."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    target = target.replace(
        "{outside}", str(outside).lstrip("/") if ".." in target else str(outside)
    )
    unpack_layer(layer(("d", tarfile.SYMTYPE, target), ("d/evil", b"x")), root)
    assert not list(outside.iterdir())
    assert not (tmp_path / "evil").exists()
    assert list(root.rglob("evil"))


def test_hard_link_cannot_reach_outside(tmp_path):
    """A hard link's target is looked up inside the root."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    secret.write_text("s")
    with pytest.raises((ValueError, OSError)):
        unpack_layer(layer(("h", tarfile.LNKTYPE, str(secret))), root)
    with pytest.raises((ValueError, OSError)):
        unpack_layer(layer(("s", tarfile.SYMTYPE, str(secret)), ("h", tarfile.LNKTYPE, "s")), root)


def test_devices_are_left_out_and_set_user_id_is_cleared(tmp_path):
    """An image brings neither devices nor privileges."""
    unpack_layer(
        layer(("dev/null", tarfile.CHRTYPE, ""), ("f", tarfile.FIFOTYPE, ""), ("x", b"1")), tmp_path
    )
    assert [path.name for path in tmp_path.iterdir() if path.name != "dev"] == ["x"]
    assert (tmp_path / "x").stat().st_mode & 0o7000 == 0


def test_file_replaces_a_link_instead_of_following_it(tmp_path):
    """A regular file over a symbolic link does not write through it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_text("kept")
    unpack_layer(layer(("a", tarfile.SYMTYPE, str(outside)), ("a", b"new")), root)
    assert outside.read_text() == "kept"
    assert (root / "a").read_text() == "new"


def _push(store, repository, content):
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    upload = store.start_upload()
    store.append(upload, content)
    store.finish_upload(upload, digest, repository)
    return digest


def _push_image(store, architecture="amd64", tag="latest", files=None, config=None):
    files = files or {"opt/app/run.py": "print(1)"}
    blob = layer(*((name, text.encode()) for name, text in files.items())).getvalue()
    settings = {"Env": ["A=b=c"], "Cmd": ["x"]} if config is None else config
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": settings,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": _push(store, "r1", json.dumps(config).encode())},
        "layers": [{"digest": _push(store, "r1", blob), "mediaType": "tar"}],
    }
    return store.put_manifest("r1", "monad", tag, json.dumps(manifest).encode(), media_type="")


def test_image_is_unpacked_by_digest_with_its_configuration(tmp_path):
    """An image pushed in pieces is unpacked under its digest."""
    store = ImageStore(tmp_path / "registry")
    digest = _push_image(store)
    image = ImageCache(store, tmp_path / "images").get("r1", "monad", digest)
    assert (image.root / "opt/app/run.py").read_text() == "print(1)"
    assert (image.config.env, image.config.cmd) == ({"A": "b=c"}, ("x",))
    assert not image.is_self_contained
    assert [(row.image, row.tag, row.digest) for row in store.images("r1")] == [
        ("monad", "latest", digest)
    ]


def test_other_architecture_is_refused(tmp_path):
    """Only linux/amd64 images run."""
    store = ImageStore(tmp_path)
    digest = _push_image(store, architecture="arm64")
    with pytest.raises(ImageRootfsError, match="amd64"):
        ImageCache(store, tmp_path / "images").get("r1", "monad", digest)


def _bomb():
    """Return a layer of a few hundred bytes that announces two GiB of zeros."""
    header = tarfile.TarInfo("zeros")
    header.size = 2 * 2**30
    return gzip.compress(header.tobuf() + bytes(4096))


def test_a_layer_that_expands_too_far_is_refused_before_it_is_written(tmp_path):
    """Two GiB in a layer of a few hundred bytes fill no disk; nothing of it is kept."""
    store = ImageStore(tmp_path / "registry")
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": _push(store, "r1", config)},
        "layers": [{"digest": _push(store, "r1", _bomb()), "mediaType": "tar+gzip"}],
    }
    digest = store.put_manifest("r1", "monad", "b", json.dumps(manifest).encode(), media_type="")
    with pytest.raises(ImageRootfsError, match="more than"):
        ImageCache(store, tmp_path / "images").get("r1", "monad", digest)
    assert not [path for path in (tmp_path / "images").rglob("*") if path.is_file()]


def test_what_an_image_may_unpack_to_follows_its_size():
    """A small image may hold a GiB, a large one a hundredfold, none more than a node's disk."""
    assert most_bytes([500]) == 2**30
    assert most_bytes([30 * 2**20, 10 * 2**20]) == 4000 * 2**20
    assert most_bytes([50 * 2**30]) == 100 * 2**30


def test_wrong_digest_is_refused_and_nothing_stays(tmp_path):
    """Content is kept only under its own digest."""
    store = ImageStore(tmp_path)
    upload = store.start_upload()
    store.append(upload, b"content")
    with pytest.raises(ImageStoreError) as raised:
        store.finish_upload(upload, "sha256:" + "0" * 64, "r1")
    assert raised.value.code == "DIGEST_INVALID"
    assert not list(store.uploads.iterdir())
    assert not list(store.blobs.iterdir())


def test_blob_of_another_repository_is_invisible(tmp_path):
    """A digest opens nothing in a repository that does not hold it."""
    store = ImageStore(tmp_path)
    digest = _push(store, "r1", b"content")
    assert store.has_blob("r1", digest)
    assert not store.has_blob("r2", digest)


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"layers": [{"digest": "../../x"}]}', b'{"layers": 3}']
)
def test_malformed_manifest_is_refused(tmp_path, body):
    """A manifest that is not one is refused."""
    with pytest.raises(ImageStoreError) as raised:
        ImageStore(tmp_path).put_manifest("r1", "monad", "t", body, media_type="")
    assert raised.value.status == 400


def test_manifest_with_an_absent_layer_is_refused(tmp_path):
    """A manifest cannot name what was not pushed."""
    absent = {"digest": "sha256:" + "0" * 64}
    body = json.dumps({"schemaVersion": 2, "config": absent, "layers": [absent]}).encode()
    with pytest.raises(ImageStoreError) as raised:
        ImageStore(tmp_path).put_manifest("r1", "monad", "t", body, media_type="")
    assert raised.value.code == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.parametrize("image", ["../x", "a//b", "A", "", "a/../b", "x" * 201])
def test_image_name_is_confined(tmp_path, image):
    """An image name cannot become another path."""
    with pytest.raises(ImageStoreError):
        ImageStore(tmp_path).get_manifest("r1", image, "latest")


@pytest.mark.parametrize(
    ("files", "config", "files_only"),
    [
        ({"opt/app/run.py": "print(1)"}, {"Entrypoint": ["python"]}, True),
        ({"bin/sh": "x"}, {}, False),
        ({"./usr/bin/env": "x"}, {"Cmd": ["python"]}, False),
        ({"app": "x"}, {"Entrypoint": ["/app"]}, False),
        (
            {"bin/sh": "x"},
            {"Labels": {"dev.monad-dagster.runtime": "host-python"}},
            True,
        ),
    ],
)
def test_files_only_images_are_told_from_those_that_run_by_themselves(
    tmp_path, files, config, files_only
):
    """An image needs the host's Python when it says so or brings nothing that could run."""
    store = ImageStore(tmp_path)
    digest = _push_image(store, files=files, config=config)
    image = ImageCache(store, tmp_path / "images").get("r1", "monad", digest, unpack=False)
    assert image.needs_host_python is files_only
    assert not image.root.exists()


def test_label_of_our_own_builder_is_the_one_that_is_looked_for():
    """The builder and the account share no code, and agree."""
    assert HOST_PYTHON_LABEL == {RUNTIME_LABEL: HOST_PYTHON}
