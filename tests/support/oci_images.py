"""Pushes a small OCI image to an account's registry, without a container engine."""

import gzip
import hashlib
import io
import json
import tarfile

import requests


def registry_login(connection):
    """Return what `snow spcs image-registry token` hands to docker, from a connection."""
    issued = connection._rest._token_request("ISSUE")["data"]
    token = {"token": issued["sessionToken"], "expires_in": issued["validityInSecondsST"]}
    return ("0sessiontoken", json.dumps(token))


def push_image(base_url, repository, tag, files, login):
    """Push an image with one layer that holds *files* and return its digest."""
    session = requests.Session()
    session.auth = login
    plain = _tar(files)
    layer = gzip.compress(plain, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64", "os": "linux", "config": {"WorkingDir": "/opt/monad"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(plain)]},
        }
    ).encode()  # fmt: skip
    for part in (layer, config):
        start = session.post(f"{base_url}/v2/{repository}/blobs/uploads/")
        start.raise_for_status()
        url = base_url + start.headers["Location"]
        session.put(url, params={"digest": _digest(part)}, data=part).raise_for_status()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    answer = session.put(
        f"{base_url}/v2/{repository}/manifests/{tag}", data=json.dumps(manifest),
        headers={"Content-Type": manifest["mediaType"]},
    )  # fmt: skip
    answer.raise_for_status()
    return answer.headers["Docker-Content-Digest"]


def _tar(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _digest(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _descriptor(content, media_type):
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}
